/*
 * The life of a request: shares of its pages go to segments, each segment works in runs, and when no page and no segment is
 * left the request is done.
 *
 * A segment that waits for an entry holds no claim on another, so two requests never wait for each other.
 */
#include <errno.h>

#include "client/vswap/internal.h"

void *request_page(const struct fsw_io *io, uint64_t index)
{
	return (char *)io->buf + (index << FSW_PAGE_SHIFT);
}

void request_fail(struct fsw_io *io, int err)
{
	if (io->vs.status == 0)
		io->vs.status = err;
	io->vs.cursor = io->nr_pages;
}

void request_fill(struct io_segment *segment, void (*done)(struct backend_io *bio, int status))
{
	struct backend_io *bio = &segment->bio;

	segment->iov.iov_base = request_page(segment->io, segment->next);
	segment->iov.iov_len = (size_t)segment->nr_run << FSW_PAGE_SHIFT;
	bio->op = segment->io->op;
	bio->slab = segment->slab->lent;
	bio->slot = segment->slot;
	bio->nr_slots = segment->nr_run;
	bio->iov = &segment->iov;
	bio->nr_iov = 1;
	bio->done = done;
}

static void request_account(struct fsw_io *io)
{
	struct vswap_queue *queue = io->vs.queue;
	struct vswap_counters *counters = &queue->counters;
	uint64_t ns = sys_reactor_now_ns(queue->reactor) - io->vs.started_ns;

	vswap_count(&counters->nr_requests[io->op], 1);
	vswap_count(&counters->nr_pages[io->op], io->nr_pages);
	if (io->op == IO_READ) {
		stats_histogram_record(&queue->reads, ns);
		if (ns > atomic_load_explicit(&counters->longest_read_ns, memory_order_relaxed))
			atomic_store_explicit(&counters->longest_read_ns, ns, memory_order_relaxed);
		if (io->vs.status < 0)
			vswap_count(&counters->nr_read_errors, 1);
	} else if (io->op == IO_WRITE) {
		stats_histogram_record(&queue->writes, ns);
		if (io->vs.status < 0)
			vswap_count(&counters->nr_write_errors, 1);
	}
}

static void request_complete(struct fsw_io *io)
{
	if (io->op == IO_READ)
		epoch_exit(&io->vs.queue->epoch, io->vs.epoch);
	else
		write_unpack(io);
	request_account(io);
	io->done(io, io->vs.status);
}

static void request_complete_deferred(struct sys_deferred *deferred)
{
	struct vswap_queue *queue = BASE_CONTAINER_OF(deferred, struct vswap_queue, complete);
	struct fsw_io *io;

	while ((io = TAILQ_FIRST(&queue->completed)) != NULL) {
		TAILQ_REMOVE(&queue->completed, io, vs.link);
		if (io->vs.begun)
			request_complete(io);
		else
			io->done(io, io->vs.status);
	}
}

static void request_complete_later(struct fsw_io *io)
{
	struct vswap_queue *queue = io->vs.queue;

	queue->complete.run = request_complete_deferred;
	TAILQ_INSERT_TAIL(&queue->completed, io, vs.link);
	sys_reactor_defer(queue->reactor, &queue->complete);
}

static bool segment_step_once(struct io_segment *segment)
{
	switch (segment->io->op) {
	case IO_READ:
		return read_segment_step(segment);
	case IO_WRITE:
		return write_segment_step(segment);
	default:
		return discard_segment_step(segment);
	}
}

static_assert(IO_MAX_SEGMENTS == 8 * sizeof(((struct fsw_io *)0)->vs.busy), "every bit is a segment");

static struct io_segment *request_free_segment(struct fsw_io *io)
{
	unsigned free = (uint8_t)~io->vs.busy;
	struct io_segment *segment;

	if (!free)
		return NULL;
	segment = &io->vs.segment[__builtin_ctz(free)];
	segment->io = io;
	segment->bit = (uint8_t)(free & -free);
	return segment;
}

/* Hands shares out until every page has been looked at or every segment is busy. */
static void request_advance(struct fsw_io *io)
{
	struct io_segment *segment;

	while (io->vs.cursor < io->nr_pages && (segment = request_free_segment(io)) != NULL) {
		segment->next = io->vs.cursor;
		segment->end = io->nr_pages;
		segment->nr_run = 0;
		segment->attempt = 0;
		segment->nr_wrong = 0;
		segment->nr_claimed = 0;
		segment->tainted_slab = NULL;
		segment->starved_ns = 0;
		segment->held = NULL;
		if (!segment_step_once(segment)) {
			if (io->vs.status == 0)
				io->vs.cursor = segment->end;
			continue;
		}
		io->vs.busy |= segment->bit;
		/* It keeps the run that is under way, or the page that it waits for; the rest is the next one's. */
		if (io->op == IO_READ || io->op == IO_WRITE) {
			segment->end = segment->next +
				       base_max_u64(1, base_max_u64(segment->nr_run, segment->nr_claimed));
			if (io->vs.status == 0)
				io->vs.cursor = segment->end;
		} else {
			io->vs.cursor = io->nr_pages;
		}
	}
}

void request_segment_step(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;

	/* Most often what has ended was all of it. What it holds, claims and waits for is of pages from `next` on. */
	assert(segment->next < segment->end || (!segment->held && segment->nr_claimed == 0));
	if (segment->next < segment->end && segment_step_once(segment))
		return;
	io->vs.busy &= (uint8_t)~segment->bit;
	request_advance(io);
	if (io->vs.busy == 0)
		request_complete(io);
}

static void segment_woken(struct sys_message *message)
{
	request_segment_step(BASE_CONTAINER_OF(message, struct io_segment, waiter.wake));
}

bool request_segment_wait(struct io_segment *segment, struct table *table)
{
	segment->nr_run = 0;
	segment->waiter.reactor = segment->io->vs.queue->reactor;
	segment->waiter.wake.run = segment_woken;
	return table_wait(table, segment->io->page + segment->next, &segment->waiter);
}

static int request_check(const struct vswap *vswap, const struct fsw_io *io)
{
	if (io->op > IO_FLUSH)
		return -EINVAL;
	if (io->op == IO_FLUSH)
		return 0;
	if (io->nr_pages == 0)
		return -EINVAL;
	if (io->op == IO_READ || io->op == IO_WRITE) {
		if (io->nr_pages > IO_MAX_PAGES || (uintptr_t)io->buf % FSW_PAGE_SIZE != 0)
			return -EINVAL;
	}
	if (io->page >= vswap->nr_pages || io->nr_pages > vswap->nr_pages - io->page)
		return -ERANGE;
	return 0;
}

void request_start(struct vswap_queue *queue, struct fsw_io *io, enum request_where where)
{
	io->vs.queue = queue;
	io->vs.status = 0;
	io->vs.begun = true;
	io->vs.where = (uint8_t)where;
	io->vs.has_packed = false;
	io->vs.started_ns = sys_reactor_now_ns(queue->reactor); /* as old as the turn, and free */
	io->vs.cursor = io->op == IO_FLUSH ? io->nr_pages : 0;
	io->vs.busy = 0;
	if (io->op == IO_READ)
		io->vs.epoch = epoch_enter(&queue->vswap->epoch, &queue->epoch);
	request_advance(io);
	if (io->vs.busy == 0)
		request_complete_later(io);
}

void vswap_submit(struct vswap_queue *queue, struct fsw_io *io)
{
	int err = request_check(queue->vswap, io);

	if (err == 0) {
		request_start(queue, io, REQUEST_ANYWHERE);
		return;
	}
	io->vs.queue = queue;
	io->vs.status = err;
	io->vs.begun = false;
	request_complete_later(io);
}

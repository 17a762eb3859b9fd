/*
 * One reactor's channel to the kernel: it reads requests, has the vswap serve those that move pages, and answers.
 *
 * A request's size is known only when it has been read, and the kernel insists on room for the greatest. So a read goes
 * into the next tag's small buffer and, behind that, into a big one at the place where the rest would lie; only a
 * request that is longer keeps the big one, and its first part is copied there.
 *
 * A queue that was just busy is hot: its reactor asks the kernel in every turn and epoll knows nothing of it. After
 * spin_ns without a request it is cold: epoll watches it and nobody asks.
 */
#include "client/frontend/fuse/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>

#include "client/frontend/frontend.h"
#include "common/base/err.h"
#include "common/log/log.h"

/* Requests in a row before others on the reactor get their turn. */
#define SERVE_BUDGET 16

static _Thread_local int current_fd = -1;

int fuse_queue_current_fd(void)
{
	return current_fd;
}

/* Answers */

static void put_tag(struct fuse_queue *queue, struct fuse_tag *tag)
{
	if (tag->big)
		queue->free_big[queue->nr_free_big++] = tag->big;
	tag->big = NULL;
	TAILQ_INSERT_HEAD(&queue->free_tags, tag, link);
}

/* error: 0 or a negative errno. The tag is free afterwards. */
static void answer(struct fuse_tag *tag, int error, const void *data, size_t len_bytes)
{
	struct fuse_queue *queue = tag->queue;
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + len_bytes),
		.error = error,
		.unique = tag->request.unique,
	};
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)(uintptr_t)data, len_bytes } };
	static struct log_limit limit;
	uint64_t left_out;

	/* ENOENT: whoever asked is gone. */
	if (queue->open && writev(queue->fd, iov, len_bytes > 0 ? 2 : 1) < 0 && errno != ENOENT) {
		int ret = -errno;

		stats_counter_add(&queue->counters.kernel_errors, 1);
		if (log_limit_pass(&limit, &left_out))
			log_warning("fuse: the kernel does not take an answer: %s (%llu more not logged)",
				    err_text(ret), (unsigned long long)left_out);
	}
	put_tag(queue, tag);
}

static void on_io_done(struct fsw_io *io, int status)
{
	struct fuse_tag *tag = BASE_CONTAINER_OF(io, struct fuse_tag, io);
	struct fuse_queue *queue = tag->queue;
	struct fuse_write_out written;

	queue->nr_busy--;
	if (status < 0) {
		stats_counter_add(&queue->counters.io_errors, 1);
		answer(tag, status, NULL, 0);
	} else if (tag->request.kind == FUSE_WIRE_READ) {
		answer(tag, 0, io->buf, io->nr_pages << FSW_PAGE_SHIFT);
	} else if (tag->request.kind == FUSE_WIRE_WRITE) {
		written = (struct fuse_write_out){ .size = (uint32_t)(io->nr_pages << FSW_PAGE_SHIFT) };
		answer(tag, 0, &written, sizeof(written));
	} else {
		answer(tag, 0, NULL, 0);
	}
	if (queue->closing && queue->nr_busy == 0)
		sem_post(&queue->idle);
}

/* Requests */

static void submit(struct fuse_tag *tag, enum io_op op)
{
	struct fuse_queue *queue = tag->queue;

	tag->io.op = (uint8_t)op;
	tag->io.page = tag->request.page;
	tag->io.nr_pages = tag->request.nr_pages;
	tag->io.buf = tag->big ? tag->big : tag->small;
	tag->io.done = on_io_done;
	queue->nr_busy++;
	vswap_submit(queue->vqueue, &tag->io);
}

static void take_big(struct fuse_tag *tag)
{
	struct fuse_queue *queue = tag->queue;

	assert(queue->nr_free_big > 0);
	tag->big = queue->free_big[--queue->nr_free_big];
}

static void serve_open(struct fuse_tag *tag)
{
	struct fuse_open_out out = {
		.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH,
	};

	answer(tag, 0, &out, sizeof(out));
}

/* The big buffer that the tail of the request went to is on top of the free ones. */
static void serve_library(struct fuse_tag *tag, size_t len_bytes)
{
	struct fuse_queue *queue = tag->queue;
	struct fuse_buf buf = { .size = len_bytes, .mem = tag->head };

	stats_counter_add(&queue->counters.other, 1);
	if (len_bytes > FUSE_WIRE_HEAD_BYTES + FUSE_SMALL_BYTES) {
		answer(tag, -EIO, NULL, 0);
		return;
	}
	current_fd = queue->fd;
	fuse_session_process_buf(queue->session, &buf);
	current_fd = -1;
	put_tag(queue, tag);
}

static void serve_pages(struct fuse_tag *tag)
{
	struct fuse_queue *queue = tag->queue;
	struct fuse_queue_counters *counters = &queue->counters;
	bool large = tag->request.nr_pages > FUSE_SMALL_BYTES >> FSW_PAGE_SHIFT;

	switch (tag->request.kind) {
	case FUSE_WIRE_READ:
		stats_counter_add(&counters->reads, 1);
		if (tag->request.nr_pages == 0) {
			answer(tag, 0, NULL, 0);
			return;
		}
		if (large)
			take_big(tag);
		submit(tag, IO_READ);
		break;
	case FUSE_WIRE_WRITE:
		stats_counter_add(&counters->writes, 1);
		if (large) {
			take_big(tag);
			memcpy(tag->big, tag->small, FUSE_SMALL_BYTES);
		}
		submit(tag, IO_WRITE);
		break;
	case FUSE_WIRE_SYNC:
		stats_counter_add(&counters->syncs, 1);
		submit(tag, IO_FLUSH);
		break;
	default:
		stats_counter_add(&counters->discards, 1);
		submit(tag, tag->request.kind == FUSE_WIRE_DISCARD ? IO_DISCARD : IO_WRITE_ZEROES);
		break;
	}
}

static void serve(struct fuse_tag *tag, size_t len_bytes)
{
	struct fuse_queue *queue = tag->queue;

	if (fuse_wire_decode(tag->head, len_bytes, queue->nr_pages, &tag->request) < 0) {
		stats_counter_add(&queue->counters.kernel_errors, 1);
		put_tag(queue, tag);
		return;
	}
	switch (tag->request.kind) {
	case FUSE_WIRE_LIBRARY:
		serve_library(tag, len_bytes);
		break;
	case FUSE_WIRE_OPEN:
		serve_open(tag);
		break;
	case FUSE_WIRE_REPLY:
		if (tag->request.error < 0)
			stats_counter_add(&queue->counters.bad_requests, 1);
		answer(tag, tag->request.error, NULL, 0);
		break;
	case FUSE_WIRE_IGNORE:
		put_tag(queue, tag);
		break;
	default:
		serve_pages(tag);
		break;
	}
}

/* The kernel has ended it (unmounted, aborted), or does what we do not understand: the daemon lives on without it. */
static void give_up(struct fuse_queue *queue, int error)
{
	if (error == -ENODEV)
		log_debug("fuse: the kernel has closed the connection");
	else
		log_error("fuse: cannot read requests any more: %s", err_text(error));
	queue->open = false;
	if (queue->hot)
		sys_poller_remove(&queue->poller);
	queue->hot = false;
	sys_watch_remove(&queue->watch);
}

/* One request. False when there is none, or nothing to hold it. */
static bool serve_one(struct fuse_queue *queue)
{
	struct fuse_tag *tag = TAILQ_FIRST(&queue->free_tags);
	struct iovec iov[2];
	ssize_t nr;

	if (!tag || queue->nr_free_big == 0)
		return false;
	iov[0] = (struct iovec){ tag->head, FUSE_WIRE_HEAD_BYTES + FUSE_SMALL_BYTES };
	iov[1] = (struct iovec){ (char *)queue->free_big[queue->nr_free_big - 1] + FUSE_SMALL_BYTES,
				 FUSE_WIRE_MAX_BYTES - FUSE_SMALL_BYTES };
	nr = readv(queue->fd, iov, 2);
	if (nr < 0) {
		/* ENOENT: the request was withdrawn while it was being read; there may be another. */
		if (errno == ENOENT || errno == EINTR)
			return true;
		if (errno != EAGAIN)
			give_up(queue, -errno);
		return false;
	}
	TAILQ_REMOVE(&queue->free_tags, tag, link);
	serve(tag, (size_t)nr);
	return true;
}

static bool serve_some(struct fuse_queue *queue)
{
	unsigned nr = 0;

	while (nr < SERVE_BUDGET && queue->open && serve_one(queue))
		nr++;
	if (nr > 0)
		queue->busy_ns = sys_reactor_now_ns(queue->reactor);
	return nr > 0;
}

/* Readiness */

static bool starved(const struct fuse_queue *queue)
{
	return TAILQ_EMPTY(&queue->free_tags) || queue->nr_free_big == 0;
}

static void become_hot(struct fuse_queue *queue)
{
	sys_watch_remove(&queue->watch);
	sys_poller_add(queue->reactor, &queue->poller);
	queue->hot = true;
}

static int become_cold(struct fuse_queue *queue)
{
	sys_poller_remove(&queue->poller);
	queue->hot = false;
	return sys_watch_add(queue->reactor, &queue->watch, EPOLLIN);
}

static unsigned on_poll(struct sys_poller *poller)
{
	struct fuse_queue *queue = BASE_CONTAINER_OF(poller, struct fuse_queue, poller);
	int ret;

	if (serve_some(queue))
		return 1;
	if (!queue->open)
		return 0;
	/* Starved, the reactor may sleep: what it waits for wakes it, and the queue is asked in that turn. */
	if (starved(queue))
		return 0;
	if (sys_reactor_now_ns(queue->reactor) - queue->busy_ns < queue->spin_ns)
		return 1; /* keeps the reactor awake: epoll would not wake it for this one */
	ret = become_cold(queue);
	if (ret < 0)
		give_up(queue, ret);
	return 0;
}

static void on_ready(struct sys_watch *watch, uint32_t events)
{
	struct fuse_queue *queue = BASE_CONTAINER_OF(watch, struct fuse_queue, watch);

	(void)events; /* an error of the connection shows when it is read */
	/*
	 * Starved, epoll would report the same again and again: as a poller, the queue is asked once a turn, and lets the
	 * reactor sleep.
	 */
	if ((serve_some(queue) && queue->open && queue->spin_ns > 0) || (queue->open && starved(queue)))
		become_hot(queue);
}

/* Life */

static void init_buffers(struct fuse_queue *queue)
{
	struct fuse_tag *tag = queue->tags.base;
	char *buf = queue->buffers.base;

	for (unsigned i = 0; i < FUSE_QUEUE_NR_BIG; i++, buf += FUSE_WIRE_MAX_BYTES)
		queue->free_big[queue->nr_free_big++] = buf;
	for (unsigned i = 0; i < FUSE_QUEUE_NR_TAGS; i++, tag++, buf += FUSE_SLOT_BYTES) {
		tag->queue = queue;
		tag->head = buf + FSW_PAGE_SIZE - FUSE_WIRE_HEAD_BYTES;
		tag->small = buf + FSW_PAGE_SIZE;
		TAILQ_INSERT_TAIL(&queue->free_tags, tag, link);
	}
}

int fuse_queue_init(struct fuse_queue *queue, struct fuse_frontend *frontend, unsigned index, unsigned spin_us)
{
	size_t buffers = (size_t)FUSE_QUEUE_NR_BIG * FUSE_WIRE_MAX_BYTES + (size_t)FUSE_QUEUE_NR_TAGS * FUSE_SLOT_BYTES;
	int ret;

	queue->vqueue = vswap_queue(frontend->vswap, index);
	queue->reactor = vswap_queue_reactor(queue->vqueue);
	queue->nr_pages = frontend->nr_pages;
	queue->spin_ns = spin_us * SYS_NS_PER_US;
	queue->watch.ready = on_ready;
	queue->poller.poll = on_poll;
	queue->fd = -1;
	TAILQ_INIT(&queue->free_tags);
	ret = frontend_memory_open(&queue->tags, FUSE_QUEUE_NR_TAGS * sizeof(struct fuse_tag), "fuse");
	if (ret < 0)
		return ret;
	ret = frontend_memory_open(&queue->buffers, buffers, "fuse");
	if (ret < 0)
		goto out_tags;
	init_buffers(queue);
	sem_init(&queue->idle, 0, 0);
	return 0;

out_tags:
	mem_region_close(&queue->tags);
	return ret;
}

void fuse_queue_done(struct fuse_queue *queue)
{
	mem_region_close(&queue->buffers);
	mem_region_close(&queue->tags);
	sem_destroy(&queue->idle);
}

struct open_call {
	struct fuse_queue *queue;
	int ret;
};

static void open_on_reactor(void *arg)
{
	struct open_call *call = arg;
	struct fuse_queue *queue = call->queue;

	call->ret = sys_watch_add(queue->reactor, &queue->watch, EPOLLIN);
	queue->open = call->ret == 0;
}

int fuse_queue_open(struct fuse_queue *queue, int fd)
{
	struct open_call call = { .queue = queue };

	queue->fd = fd;
	queue->watch.fd = fd;
	sys_reactor_call(queue->reactor, open_on_reactor, &call);
	return call.ret;
}

static void close_on_reactor(void *arg)
{
	struct fuse_queue *queue = arg;

	queue->closing = true;
	if (queue->open)
		give_up(queue, -ENODEV);
	if (queue->nr_busy == 0)
		sem_post(&queue->idle);
}

void fuse_queue_close(struct fuse_queue *queue)
{
	if (queue->fd < 0)
		return;
	sys_reactor_call(queue->reactor, close_on_reactor, queue);
	while (sem_wait(&queue->idle) < 0)
		assert(errno == EINTR);
}

/*
 * The data path of the disk: what one turn of the reactor submits enters the kernel in one system call at its end, and
 * an eventfd says that something has completed.
 */
#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/backend/books.h"
#include "client/backend/disk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"

/* When the kernel, short of memory, does not take what is in the ring and nothing is in flight that would wake us. */
#define AGAIN_NS SYS_NS_PER_MS

/* The pieces are the caller's, but what they add up to decides how far the disk is read or written. */
static bool disk_io_adds_up(const struct backend_io *io)
{
	size_t sum_bytes = 0;

	for (uint32_t i = 0; i < io->nr_iov; i++) {
		if (io->iov[i].iov_len > TRANSPORT_MAX_OP_BYTES)
			return false;
		sum_bytes += io->iov[i].iov_len;
	}
	return sum_bytes == (size_t)io->nr_slots << FSW_PAGE_SHIFT;
}

/*
 * Puts an operation into the ring, from xop.progress_bytes on: the whole pieces that are left, or, when it stopped inside
 * a piece, the rest of that one, and what follows goes the next time.
 */
static void disk_issue(struct disk_queue *queue, struct backend_io *io)
{
	const struct disk *disk = queue->disk;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);
	const struct iovec *piece = io->iov;
	size_t skip_bytes = io->xop.progress_bytes;
	uint64_t offset_bytes;
	unsigned nr_left, len_bytes;
	char *start;

	/* The ring has as many places as there may be operations in flight. */
	assert(sqe);
	for (; skip_bytes >= piece->iov_len; piece++)
		skip_bytes -= piece->iov_len;
	offset_bytes = io->slab->index * disk->slab_bytes + ((uint64_t)io->slot << FSW_PAGE_SHIFT) + io->xop.progress_bytes;
	nr_left = (unsigned)(io->iov + io->nr_iov - piece);
	start = (char *)piece->iov_base + skip_bytes;
	len_bytes = (unsigned)(piece->iov_len - skip_bytes);
	if (nr_left > 1 && skip_bytes == 0 && io->op == IO_READ)
		io_uring_prep_readv(sqe, disk->file.fd, piece, nr_left, offset_bytes);
	else if (nr_left > 1 && skip_bytes == 0)
		io_uring_prep_writev(sqe, disk->file.fd, piece, nr_left, offset_bytes);
	else if (io->op == IO_READ)
		io_uring_prep_read(sqe, disk->file.fd, start, len_bytes, offset_bytes);
	else
		io_uring_prep_write(sqe, disk->file.fd, start, len_bytes, offset_bytes);
	io_uring_sqe_set_data(sqe, io);
	sys_reactor_defer(queue->reactor, &queue->enter);
}

static void disk_start(struct disk_queue *queue, struct backend_io *io)
{
	queue->nr_in_flight++;
	disk_issue(queue, io);
}

static int disk_submit(struct backend *backend, unsigned number, struct backend_io *io)
{
	struct disk *disk = disk_of(backend);
	struct disk_queue *queue = &disk->queues[number];

	if (BASE_UNLIKELY(!backend_io_is_in_range(io) || !disk_io_adds_up(io)))
		return -EINVAL;
	io->queue = queue;
	io->started_ns = sys_reactor_now_ns(queue->reactor);
	io->xop.len_bytes = io->nr_slots << FSW_PAGE_SHIFT;
	io->xop.progress_bytes = 0;
	if (queue->nr_in_flight < disk->queue_depth && TAILQ_EMPTY(&queue->waiting))
		disk_start(queue, io);
	else
		TAILQ_INSERT_TAIL(&queue->waiting, io, link);
	return 0;
}

static void disk_log(const struct disk_queue *queue, const struct backend_io *io, int err)
{
	static struct log_limit limit;
	uint64_t left_out;

	if (!log_limit_pass(&limit, &left_out))
		return;
	log_error("%s: %s of %u pages at slab %u, slot %u failed: %s (%llu more since the last line)", queue->disk->path,
		  io->op == IO_READ ? "read" : "write", io->nr_slots, io->slab->index, io->slot,
		  err ? err_text(err) : "end of file", (unsigned long long)left_out);
}

static void disk_done(struct disk_queue *queue, struct backend_io *io, int res)
{
	struct backend *backend = &queue->disk->backend;
	int status = 0;

	if (BASE_LIKELY(res > 0)) {
		io->xop.progress_bytes += (uint32_t)res;
		if (io->xop.progress_bytes < io->xop.len_bytes) {
			disk_issue(queue, io);
			return;
		}
	} else if (res == -EAGAIN || res == -EINTR) {
		disk_issue(queue, io);
		return;
	} else {
		/* One error for all: the kernel's word for a bad sector is -ENODATA, which here says that the slab is lost. */
		disk_log(queue, io, res);
		status = -EIO;
	}
	queue->nr_in_flight--;
	if (queue->nr_done++ % BACKEND_LATENCY_SAMPLE == 0)
		backend_latency_note(backend, sys_reactor_now_ns(queue->reactor) - io->started_ns);
	backend_count(backend, queue->number, io, status);
	io->done(io, status);
}

const struct backend_ops disk_ops = {
	.name = "disk",
	.submit = disk_submit,
};

/* ---- the ring ---- */

static void queue_enter(struct disk_queue *queue)
{
	int ret = io_uring_submit(&queue->ring);

	/* What the kernel did not take is still in the ring. */
	if (BASE_UNLIKELY(ret < 0 || io_uring_sq_ready(&queue->ring) > 0))
		sys_timer_arm(queue->reactor, &queue->again, sys_reactor_now_ns(queue->reactor) + AGAIN_NS);
}

static void queue_enter_deferred(struct sys_deferred *deferred)
{
	queue_enter(BASE_CONTAINER_OF(deferred, struct disk_queue, enter));
}

static void queue_enter_again(struct sys_timer *timer)
{
	queue_enter(BASE_CONTAINER_OF(timer, struct disk_queue, again));
}

static void queue_completed(struct sys_watch *watch, uint32_t events)
{
	struct disk_queue *queue = BASE_CONTAINER_OF(watch, struct disk_queue, completed);
	struct io_uring_cqe *cqe;
	struct backend_io *io;
	uint64_t count;

	(void)events;
	/* Before the ring is looked at: what completes after that makes it readable again. */
	while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
	while (io_uring_peek_cqe(&queue->ring, &cqe) == 0) {
		int res = cqe->res;

		io = io_uring_cqe_get_data(cqe);
		io_uring_cqe_seen(&queue->ring, cqe);
		disk_done(queue, io, res);
	}
	while (queue->nr_in_flight < queue->disk->queue_depth && (io = TAILQ_FIRST(&queue->waiting))) {
		TAILQ_REMOVE(&queue->waiting, io, link);
		disk_start(queue, io);
	}
}

/* A call to the queue's reactor. */
struct queue_call {
	struct disk_queue *queue;
	int ret;
};

static void queue_attach(void *arg)
{
	struct queue_call *call = arg;

	call->ret = sys_watch_add(call->queue->reactor, &call->queue->completed, EPOLLIN);
}

static void queue_detach(void *arg)
{
	struct disk_queue *queue = arg;

	assert(queue->nr_in_flight == 0 && TAILQ_EMPTY(&queue->waiting));
	sys_reactor_undefer(queue->reactor, &queue->enter);
	sys_timer_cancel(queue->reactor, &queue->again);
	sys_watch_remove(&queue->completed);
}

int disk_queue_open(struct disk_queue *queue, struct disk *disk, unsigned number, struct sys_reactor *reactor)
{
	struct queue_call call = { .queue = queue };
	int ret;

	queue->disk = disk;
	queue->number = number;
	queue->reactor = reactor;
	queue->completed.ready = queue_completed;
	queue->enter.run = queue_enter_deferred;
	queue->again.fire = queue_enter_again;
	TAILQ_INIT(&queue->waiting);
	ret = io_uring_queue_init(disk->queue_depth, &queue->ring, 0);
	if (ret < 0)
		return ret;
	queue->completed.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->completed.fd < 0) {
		ret = -errno;
		goto out_ring;
	}
	ret = io_uring_register_eventfd(&queue->ring, queue->completed.fd);
	if (ret < 0)
		goto out_eventfd;
	sys_reactor_call(reactor, queue_attach, &call);
	ret = call.ret;
	if (ret < 0)
		goto out_eventfd;
	queue->is_open = true;
	return 0;

out_eventfd:
	close(queue->completed.fd);
out_ring:
	io_uring_queue_exit(&queue->ring);
	return ret;
}

void disk_queue_close(struct disk_queue *queue)
{
	if (!queue->is_open)
		return;
	sys_reactor_call(queue->reactor, queue_detach, queue);
	io_uring_queue_exit(&queue->ring);
	close(queue->completed.fd);
	queue->is_open = false;
}

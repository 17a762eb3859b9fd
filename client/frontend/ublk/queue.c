/*
 * One queue of the device: commands that fetch requests lie with the kernel, one per tag; each that comes back has brought a
 * request, and goes out again with its answer.
 *
 * A write comes twice: first to be told where its data is to be copied, then with the data there. So a tag has a small buffer
 * of its own, and shares big ones. When the kernel cannot copy a write's data for want of memory, it asks once more where to;
 * when it can copy a part of it, that part comes, and the rest as a request of its own. The kernel copies a read's data out of
 * the buffer when it takes the command with the answer, at the end of our turn: until then a big buffer is neither used nor
 * free.
 *
 * A queue that was just busy is hot: its reactor looks into the ring in every turn, and epoll knows nothing of it. After
 * spin_ns without a request it is cold: epoll watches the ring and nobody looks.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "client/frontend/frontend.h"
#include "client/frontend/ublk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/sem.h"

/* Completions in a row before others on the reactor get their turn. */
#define REAP_BUDGET 32u
/* When the kernel, short of memory, does not take what is in the ring. */
#define AGAIN_NS SYS_NS_PER_MS
#define END_PATIENCE_S 30u

/* ---- commands ---- */

static void queue_command(struct ublk_tag *tag, unsigned nr, int32_t result, void *buf)
{
	struct ublk_queue *queue = tag->queue;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);
	struct ublksrv_io_cmd command = {
		.q_id = queue->number,
		.tag = tag->number,
		.result = result,
		.addr = (uintptr_t)buf,
	};

	assert(sqe); /* the ring has a place for each tag */
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = 0;
	sqe->cmd_op = queue->encoded ? (uint32_t)UBLK_ABI_IO(nr) : nr;
	sqe->user_data = tag->number;
	memcpy(sqe->cmd, &command, sizeof(command));
	sys_reactor_defer(queue->reactor, &queue->enter);
}

static bool tag_moves_data(const struct ublk_tag *tag)
{
	return ublksrv_get_op(&tag->desc) == UBLK_IO_OP_READ || ublksrv_get_op(&tag->desc) == UBLK_IO_OP_WRITE;
}

static uint64_t tag_len_bytes(const struct ublk_tag *tag)
{
	return (uint64_t)tag->desc.nr_sectors << UBLK_SECTOR_SHIFT;
}

static void *tag_buf(const struct ublk_tag *tag)
{
	return tag->big ? tag->big : tag->small;
}

static uint64_t tag_buf_bytes(const struct ublk_tag *tag)
{
	return tag->big ? UBLK_BIG_BYTES : UBLK_SMALL_BYTES;
}

/* status: 0 or a negative errno. */
static void tag_answer(struct ublk_tag *tag, int status)
{
	struct ublk_queue *queue = tag->queue;
	bool is_read = ublksrv_get_op(&tag->desc) == UBLK_IO_OP_READ;
	int32_t result = status < 0 ? status : tag_moves_data(tag) ? (int32_t)tag_len_bytes(tag) : 0;

	queue_command(tag, UBLK_IO_COMMIT_AND_FETCH_REQ, result, is_read ? tag_buf(tag) : NULL);
	if (tag->big)
		queue->leaving_big[queue->nr_leaving_big++] = tag->big;
	tag->big = NULL;
}

static void on_io_done(struct fsw_io *io, int status)
{
	struct ublk_tag *tag = BASE_CONTAINER_OF(io, struct ublk_tag, io);

	if (status < 0)
		stats_counter_add(&tag->queue->counters.io_errors, 1);
	tag_answer(tag, status);
}

/* ---- requests ---- */

/* What is asked for, by the kernel's number of it. False: nothing that we know. */
static bool tag_decode(struct ublk_tag *tag)
{
	struct ublk_queue_counters *counters = &tag->queue->counters;

	switch (ublksrv_get_op(&tag->desc)) {
	case UBLK_IO_OP_READ:
		stats_counter_add(&counters->reads, 1);
		tag->io.op = IO_READ;
		return true;
	case UBLK_IO_OP_WRITE:
		stats_counter_add(&counters->writes, 1);
		tag->io.op = IO_WRITE;
		return true;
	case UBLK_IO_OP_DISCARD:
		stats_counter_add(&counters->discards, 1);
		tag->io.op = IO_DISCARD;
		return true;
	case UBLK_IO_OP_WRITE_ZEROES:
		stats_counter_add(&counters->discards, 1);
		tag->io.op = IO_WRITE_ZEROES;
		return true;
	case UBLK_IO_OP_FLUSH:
		stats_counter_add(&counters->flushes, 1);
		tag->io.op = IO_FLUSH;
		return true;
	default:
		return false;
	}
}

/* Its data, if it has any, is there. */
static void tag_submit(struct ublk_tag *tag)
{
	const uint64_t sectors_per_page = 1u << (FSW_PAGE_SHIFT - UBLK_SECTOR_SHIFT);
	struct ublk_queue *queue = tag->queue;
	bool is_known = tag_decode(tag);

	if (!is_known || tag->desc.start_sector % sectors_per_page != 0 || tag->desc.nr_sectors % sectors_per_page != 0) {
		stats_counter_add(&queue->counters.bad_requests, 1);
		tag_answer(tag, is_known ? -EINVAL : -EOPNOTSUPP);
		return;
	}
	if (!queue->vqueue) {
		stats_counter_add(&queue->counters.io_errors, 1);
		tag_answer(tag, -EIO);
		return;
	}
	tag->io.page = tag->desc.start_sector / sectors_per_page;
	tag->io.nr_pages = tag->desc.nr_sectors / sectors_per_page;
	tag->io.buf = tag_buf(tag);
	tag->io.done = on_io_done;
	vswap_submit(queue->vqueue, &tag->io);
}

/* A READ, or a WRITE that has yet to get its data. One that has a buffer keeps it. */
static void tag_take_buffer(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;

	if (tag_len_bytes(tag) > tag_buf_bytes(tag)) {
		if (queue->nr_free_big == 0) {
			TAILQ_INSERT_TAIL(&queue->waiting, tag, link);
			return;
		}
		tag->big = queue->free_big[--queue->nr_free_big];
	}
	if (ublksrv_get_op(&tag->desc) == UBLK_IO_OP_WRITE)
		queue_command(tag, UBLK_IO_NEED_GET_DATA, 0, tag_buf(tag));
	else
		tag_submit(tag);
}

/* Whether a WRITE's data is all in the buffer that the kernel was told to copy it into. */
static bool tag_has_data(const struct ublk_tag *tag)
{
	return tag->desc.addr == (uintptr_t)tag_buf(tag) && tag_len_bytes(tag) <= tag_buf_bytes(tag);
}

static void tag_end(struct ublk_tag *tag, int err)
{
	struct ublk_queue *queue = tag->queue;
	static struct log_limit limit;
	uint64_t left_out;

	if (err != UBLK_IO_RES_ABORT) {
		stats_counter_add(&queue->counters.kernel_errors, 1);
		queue->fetch_error = queue->fetch_error ? queue->fetch_error : err;
		if (log_limit_pass(&limit, &left_out))
			log_error("ublk: the kernel refuses a command: %s (%llu more since the last line)", err_text(err),
				  (unsigned long long)left_out);
	}
	if (--queue->nr_live == 0)
		sem_post(&queue->ended);
}

/* A command has come back. */
static void tag_came(struct ublk_tag *tag, int res)
{
	if (res != UBLK_IO_RES_OK && res != UBLK_IO_RES_NEED_GET_DATA) {
		tag_end(tag, res);
		return;
	}
	/* Each time anew: it may be about less than before, when the kernel could not copy all. */
	tag->desc = tag->queue->descs[tag->number];
	if (BASE_UNLIKELY(tag_moves_data(tag) && tag_len_bytes(tag) > UBLK_BIG_BYTES)) {
		/* Not even its data could be taken; and no answer is better than memory that is overwritten. */
		log_error("ublk: a request of %llu bytes, of at most %u", (unsigned long long)tag_len_bytes(tag),
			  UBLK_BIG_BYTES);
		tag_end(tag, -EPROTO);
		return;
	}
	if (res == UBLK_IO_RES_NEED_GET_DATA || ublksrv_get_op(&tag->desc) == UBLK_IO_OP_READ) {
		tag_take_buffer(tag);
	} else if (BASE_UNLIKELY(ublksrv_get_op(&tag->desc) == UBLK_IO_OP_WRITE && !tag_has_data(tag))) {
		log_error("ublk: a write of %llu bytes whose data is not where it was asked for",
			  (unsigned long long)tag_len_bytes(tag));
		tag_end(tag, -EPROTO);
	} else {
		tag_submit(tag);
	}
}

/* ---- the ring ---- */

static void queue_enter(struct ublk_queue *queue)
{
	int ret = io_uring_submit(&queue->ring);
	struct ublk_tag *tag;

	/* What the kernel did not take is still in the ring. */
	if (BASE_UNLIKELY(ret < 0 || io_uring_sq_ready(&queue->ring) > 0)) {
		sys_timer_arm(queue->reactor, &queue->again, sys_reactor_now_ns(queue->reactor) + AGAIN_NS);
		return;
	}
	while (queue->nr_leaving_big > 0)
		queue->free_big[queue->nr_free_big++] = queue->leaving_big[--queue->nr_leaving_big];
	while (queue->nr_free_big > 0 && (tag = TAILQ_FIRST(&queue->waiting))) {
		TAILQ_REMOVE(&queue->waiting, tag, link);
		tag_take_buffer(tag);
	}
}

static void queue_enter_deferred(struct sys_deferred *deferred)
{
	queue_enter(BASE_CONTAINER_OF(deferred, struct ublk_queue, enter));
}

static void queue_enter_again(struct sys_timer *timer)
{
	queue_enter(BASE_CONTAINER_OF(timer, struct ublk_queue, again));
}

static unsigned queue_reap(struct ublk_queue *queue)
{
	struct io_uring_cqe *cqe;
	unsigned nr = 0, head;

	/* The kernel puts completions into the ring when this thread enters it, and says when there are some to be put. */
	if (io_uring_cq_ready(&queue->ring) == 0 && IO_URING_READ_ONCE(*queue->ring.sq.kflags) & IORING_SQ_TASKRUN)
		(void)io_uring_get_events(&queue->ring);
	/* Nothing that tag_came does enters the ring or comes here again: what it puts in goes out at the end of the turn. */
	io_uring_for_each_cqe(&queue->ring, head, cqe) {
		tag_came((struct ublk_tag *)queue->tags.base + cqe->user_data, cqe->res);
		if (++nr == REAP_BUDGET)
			break;
	}
	io_uring_cq_advance(&queue->ring, nr);
	if (nr > 0)
		queue->busy_ns = sys_reactor_now_ns(queue->reactor);
	return nr;
}

static int queue_become_cold(struct ublk_queue *queue)
{
	sys_poller_remove(&queue->poller);
	queue->hot = false;
	return sys_watch_add(queue->reactor, &queue->watch, EPOLLIN);
}

static unsigned on_poll(struct sys_poller *poller)
{
	struct ublk_queue *queue = BASE_CONTAINER_OF(poller, struct ublk_queue, poller);
	unsigned nr = queue_reap(queue);

	if (nr > 0)
		return nr;
	if (sys_reactor_now_ns(queue->reactor) - queue->busy_ns < queue->spin_ns)
		return 1; /* keeps the reactor awake: epoll would not wake it for this one */
	if (queue_become_cold(queue) < 0) {
		/* It has been there before, and what it takes was not used since: it stays hot, which costs time only. */
		sys_poller_add(queue->reactor, &queue->poller);
		queue->hot = true;
		return 1;
	}
	return 0;
}

static void on_ready(struct sys_watch *watch, uint32_t events)
{
	struct ublk_queue *queue = BASE_CONTAINER_OF(watch, struct ublk_queue, watch);

	(void)events;
	if (queue_reap(queue) > 0 && queue->spin_ns > 0) {
		sys_watch_remove(&queue->watch);
		sys_poller_add(queue->reactor, &queue->poller);
		queue->hot = true;
	}
}

/* ---- life ---- */

static void init_buffers(struct ublk_queue *queue)
{
	struct ublk_tag *tags = queue->tags.base;
	char *buf = queue->buffers.base;

	for (unsigned i = 0; i < UBLK_QUEUE_NR_BIG; i++, buf += UBLK_BIG_BYTES)
		queue->free_big[queue->nr_free_big++] = buf;
	for (unsigned i = 0; i < queue->nr_tags; i++, buf += UBLK_SMALL_BYTES) {
		tags[i].queue = queue;
		tags[i].number = (uint16_t)i;
		tags[i].small = buf;
	}
}

int ublk_queue_init(struct ublk_queue *queue, struct vswap_queue *vqueue, struct sys_reactor *reactor, unsigned number,
		    unsigned nr_tags, unsigned spin_us)
{
	size_t buffers = (size_t)UBLK_QUEUE_NR_BIG * UBLK_BIG_BYTES + (size_t)nr_tags * UBLK_SMALL_BYTES;
	int ret;

	queue->vqueue = vqueue;
	queue->reactor = reactor;
	queue->number = (uint16_t)number;
	queue->nr_tags = (uint16_t)nr_tags;
	queue->spin_ns = spin_us * SYS_NS_PER_US;
	queue->watch.ready = on_ready;
	queue->poller.poll = on_poll;
	queue->enter.run = queue_enter_deferred;
	queue->again.fire = queue_enter_again;
	TAILQ_INIT(&queue->waiting);
	ret = frontend_memory_open(&queue->tags, nr_tags * sizeof(struct ublk_tag), "ublk");
	if (ret < 0)
		return ret;
	ret = frontend_memory_open(&queue->buffers, buffers, "ublk");
	if (ret < 0) {
		mem_region_close(&queue->tags);
		return ret;
	}
	init_buffers(queue);
	sem_init(&queue->ended, 0, 0);
	return 0;
}

void ublk_queue_done(struct ublk_queue *queue)
{
	sem_destroy(&queue->ended);
	mem_region_close(&queue->buffers);
	mem_region_close(&queue->tags);
}

struct open_call {
	struct ublk_queue *queue;
	int ret;
};

/* On the thread that will answer: the kernel takes commands of a queue from the task alone that has fetched for it. */
static void open_on_reactor(void *arg)
{
	struct open_call *call = arg;
	struct ublk_queue *queue = call->queue;
	struct ublk_tag *tags = queue->tags.base;

	call->ret = sys_watch_add(queue->reactor, &queue->watch, EPOLLIN);
	if (call->ret < 0) {
		sem_post(&queue->ended); /* nothing has been fetched */
		return;
	}
	queue->nr_live = queue->nr_tags;
	for (unsigned i = 0; i < queue->nr_tags; i++)
		queue_command(&tags[i], UBLK_IO_FETCH_REQ, 0, NULL);
	queue_enter(queue);
	/* Commands that are refused have come back by now. */
	(void)queue_reap(queue);
	call->ret = queue->fetch_error;
}

static void close_on_reactor(void *arg)
{
	struct ublk_queue *queue = arg;

	if (queue->hot)
		sys_poller_remove(&queue->poller);
	queue->hot = false;
	sys_watch_remove(&queue->watch);
	sys_reactor_undefer(queue->reactor, &queue->enter);
	sys_timer_cancel(queue->reactor, &queue->again);
}

static int open_ring(struct ublk_queue *queue)
{
	/* Completions wait until the thread enters the kernel, instead of interrupting it. */
	return io_uring_queue_init(queue->nr_tags, &queue->ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
}

static int map_descs(struct ublk_queue *queue, int fd)
{
	/* The kernel leaves room for the greatest depth between two queues. */
	const size_t stride_bytes = UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc);
	void *p;

	static_assert(UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc) % FSW_PAGE_SIZE == 0, "it is whole pages");
	queue->descs_bytes = (queue->nr_tags * sizeof(struct ublksrv_io_desc) + FSW_PAGE_SIZE - 1) & ~(FSW_PAGE_SIZE - 1ul);
	p = mmap(NULL, queue->descs_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd,
		 (off_t)(UBLKSRV_CMD_BUF_OFFSET + queue->number * stride_bytes));
	if (p == MAP_FAILED)
		return -errno;
	queue->descs = p;
	return 0;
}

int ublk_queue_open(struct ublk_queue *queue, int fd, bool encoded)
{
	struct open_call call = { .queue = queue };
	int ret = open_ring(queue);

	if (ret < 0)
		return ret;
	ret = map_descs(queue, fd);
	if (ret < 0)
		goto out_ring;
	ret = io_uring_register_files(&queue->ring, &fd, 1);
	if (ret < 0)
		goto out_descs;
	queue->encoded = encoded;
	queue->watch.fd = queue->ring.ring_fd;
	queue->is_open = true;
	sys_reactor_call(queue->reactor, open_on_reactor, &call);
	return call.ret; /* also after an error there may be tags that the kernel has to end */

out_descs:
	munmap((void *)(uintptr_t)queue->descs, queue->descs_bytes);
out_ring:
	io_uring_queue_exit(&queue->ring);
	return ret;
}

bool ublk_queue_close(struct ublk_queue *queue)
{
	bool has_ended;

	if (!queue->is_open)
		return true;
	has_ended = sys_sem_wait(&queue->ended, END_PATIENCE_S) == 0;
	sys_reactor_call(queue->reactor, close_on_reactor, queue);
	if (!has_ended) {
		log_error("ublk: the kernel has not ended queue %u in %u s: its memory stays taken", queue->number,
			  END_PATIENCE_S);
		return false;
	}
	munmap((void *)(uintptr_t)queue->descs, queue->descs_bytes);
	io_uring_queue_exit(&queue->ring);
	queue->is_open = false;
	return true;
}

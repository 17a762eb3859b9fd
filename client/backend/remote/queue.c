/*
 * The data path of a memory server, and what becomes of it when its connection fails.
 *
 * Fences. The virtual swap layer reads backend.fence inside the done of a WRITE that failed, and takes the slot for
 * settled when the fence has passed that value. So the failure is on record (nr_failed) before that done runs, and the
 * fence moves on, under the same lock, only while no failure is on record: when it does, every connection that failed
 * before has been made again, and with that has been fenced by the server.
 */
#include <assert.h>
#include <errno.h>

#include "client/backend/books.h"
#include "client/backend/remote/internal.h"

#define OBSERVE_NS SYS_NS_PER_S

/* ---- the books of both sides ---- */

/* The first news of a failed connection, be it from one of its operations or from itself. Blocks nobody for long. */
static void queue_fail(struct remote_queue *queue, int err)
{
	struct remote *remote = queue->remote;

	/* Only this thread writes it. */
	if (queue->link != REMOTE_LINK_UP)
		return;
	lock_acquire(&remote->lock);
	queue->link = REMOTE_LINK_FAILED;
	remote->nr_failed++;
	remote->last_error = err;
	if (remote->down_since_ns == 0)
		remote->down_since_ns = sys_reactor_now_ns(queue->reactor);
	if (backend_state(&remote->backend) == BACKEND_UP)
		atomic_store_explicit(&remote->backend.state, BACKEND_DOWN, memory_order_release);
	pthread_cond_signal(&remote->changed);
	lock_release(&remote->lock);
}

static void queue_set_link(struct remote_queue *queue, enum remote_link link)
{
	struct remote *remote = queue->remote;

	lock_acquire(&remote->lock);
	if (queue->link == REMOTE_LINK_FAILED)
		remote->nr_failed--;
	queue->link = link;
	lock_release(&remote->lock);
}

/*
 * A WRITE has failed because the server refused it, and its done has run: it is settled, since it was answered. Nothing
 * will be connected again for it, so the fence moves on here, unless a connection that has failed will see to that.
 */
static void queue_settle_refused(struct remote_queue *queue)
{
	struct remote *remote = queue->remote;

	lock_acquire(&remote->lock);
	if (remote->nr_failed == 0)
		atomic_fetch_add_explicit(&remote->backend.fence, 1, memory_order_release);
	lock_release(&remote->lock);
}

/* ---- operations that wait ---- */

static void queue_wait(struct remote_queue *queue, struct backend_io *io)
{
	uint64_t until_ns = io->started_ns + queue->remote->backend.patience_ns;

	TAILQ_INSERT_TAIL(&queue->waiting, io, link);
	backend_counter_add(&queue->nr_waiting, 1);
	if (!queue->conn && (!queue->patience.armed || until_ns < queue->patience.at_ns))
		sys_timer_arm(queue->reactor, &queue->patience, until_ns);
}

static void queue_unwait(struct remote_queue *queue, struct backend_io *io)
{
	TAILQ_REMOVE(&queue->waiting, io, link);
	backend_counter_add(&queue->nr_waiting, (uint64_t)-1);
}

static void queue_finish(struct remote_queue *queue, struct backend_io *io, int status)
{
	backend_count(&queue->remote->backend, queue->number, io, status);
	io->done(io, status);
}

/* What becomes of an operation that has no connection: 0 when it may wait for one. */
static int queue_verdict(const struct remote_queue *queue, const struct backend_io *io)
{
	if (io->slab->session != queue->session)
		return -ENODATA;
	if (io->op == IO_WRITE)
		return -EIO; /* at once: the layer above has other places for it */
	if (sys_reactor_now_ns(queue->reactor) - io->started_ns >= queue->remote->backend.patience_ns)
		return -ETIMEDOUT;
	return 0;
}

/* Ends those that may wait no longer. What their done submits is for the next time. */
static void queue_sift(struct remote_queue *queue)
{
	struct backend_io_list all = TAILQ_HEAD_INITIALIZER(all);
	struct backend_io *io;
	int verdict;

	sys_timer_cancel(queue->reactor, &queue->patience);
	TAILQ_CONCAT(&all, &queue->waiting, link);
	atomic_store_explicit(&queue->nr_waiting, 0, memory_order_relaxed);
	while ((io = TAILQ_FIRST(&all))) {
		TAILQ_REMOVE(&all, io, link);
		verdict = queue_verdict(queue, io);
		if (verdict == 0)
			queue_wait(queue, io);
		else
			queue_finish(queue, io, verdict);
	}
}

static void queue_lose_patience(struct sys_timer *timer)
{
	queue_sift(BASE_CONTAINER_OF(timer, struct remote_queue, patience));
}

/* Gives the connection what has waited, until it has no credit left. */
static void queue_flush(struct remote_queue *queue)
{
	struct backend_io *io;
	int err;

	while (queue->conn && (io = TAILQ_FIRST(&queue->waiting))) {
		err = transport_submit(queue->conn, &io->xop);
		if (err == -EAGAIN || err == -ENOTCONN) /* it says when there is room, or that it is down */
			return;
		queue_unwait(queue, io);
		if (err < 0)
			queue_finish(queue, io, err);
	}
}

/* ---- the data path ---- */

static void remote_done_failed(struct remote_queue *queue, struct backend_io *io, int status)
{
	bool answered = status == -EACCES || status == -ERANGE || status == -EIO;
	bool ended = io->slab->session != queue->session;
	bool refused_write = io->op == IO_WRITE && answered && !ended;
	int verdict;

	if (!answered && !ended)
		queue_fail(queue, status);
	verdict = answered && !ended ? -EIO : queue_verdict(queue, io);
	if (verdict == 0)
		queue_wait(queue, io);
	else
		queue_finish(queue, io, verdict);
	if (refused_write)
		queue_settle_refused(queue);
}

static void remote_done(struct transport_op *xop, int status)
{
	struct backend_io *io = BASE_CONTAINER_OF(xop, struct backend_io, xop);
	struct remote_queue *queue = io->queue;

	if (BASE_UNLIKELY(status < 0)) {
		remote_done_failed(queue, io, status);
		return;
	}
	/* One that began on an earlier connection tells how long the server was away, not how fast it is. */
	if (queue->nr_done++ % BACKEND_LATENCY_SAMPLE == 0 && io->started_ns >= queue->connected_ns)
		backend_latency_note(&queue->remote->backend, sys_reactor_now_ns(queue->reactor) - io->started_ns);
	queue_finish(queue, io, 0);
}

static_assert((int)IO_READ + 1 == (int)TRANSPORT_READ && (int)IO_WRITE + 1 == (int)TRANSPORT_WRITE, "opcodes differ by one");

static int remote_submit(struct backend *backend, unsigned number, struct backend_io *io)
{
	struct remote_queue *queue = &remote_of(backend)->queues[number];
	const struct backend_slab *slab = io->slab;
	int err;

	if (BASE_UNLIKELY(slab->session != queue->session))
		return -ENODATA;
	if (BASE_UNLIKELY(!backend_io_is_in_range(io)))
		return -EINVAL;
	if (BASE_UNLIKELY(io->op == IO_WRITE && backend_state(backend) != BACKEND_UP))
		return -ENOTCONN;
	io->queue = queue;
	io->started_ns = sys_reactor_now_ns(queue->reactor);
	io->xop.opcode = (uint8_t)(io->op + 1);
	io->xop.slab = slab->index;
	io->xop.key = slab->key;
	io->xop.len_bytes = io->nr_slots << FSW_PAGE_SHIFT;
	io->xop.offset_bytes = (uint64_t)io->slot << FSW_PAGE_SHIFT;
	io->xop.iov = io->iov;
	io->xop.nr_iov = io->nr_iov;
	io->xop.done = remote_done;
	if (BASE_LIKELY(queue->conn && TAILQ_EMPTY(&queue->waiting))) {
		err = transport_submit(queue->conn, &io->xop);
		if (BASE_LIKELY(err == 0))
			return 0;
		/* It tells of its end later in this turn; until then others would come here as well. */
		if (err == -ENOTCONN)
			queue_fail(queue, err);
		if (err != -EAGAIN && (err != -ENOTCONN || io->op == IO_WRITE))
			return err;
	}
	queue_wait(queue, io);
	return 0;
}

const struct backend_ops remote_ops = {
	.name = "remote",
	.submit = remote_submit,
};

/* ---- connections ---- */

/* Without a connection from here on; what it had in flight ends before this returns. Safe if there is none. */
static void queue_drop_conn(struct remote_queue *queue)
{
	struct transport_conn *conn = queue->conn;

	queue->conn = NULL;
	sys_timer_cancel(queue->reactor, &queue->observe);
	if (conn)
		transport_close(conn);
}

static void queue_down(struct transport_conn *conn, int err)
{
	struct remote_queue *queue = conn->owner;
	struct remote *remote = queue->remote;

	assert(queue->conn == conn);
	queue_fail(queue, err);
	/* Who has found it closed could not say why. */
	lock_acquire(&remote->lock);
	if (remote->last_error == -ENOTCONN)
		remote->last_error = err;
	lock_release(&remote->lock);
	queue_drop_conn(queue);
	queue_sift(queue);
}

static void queue_writable(struct transport_conn *conn)
{
	queue_flush(conn->owner);
}

/* The connection is the reactor's: what others want to know of it is put where they may look. */
static void queue_observe(struct sys_timer *timer)
{
	struct remote_queue *queue = BASE_CONTAINER_OF(timer, struct remote_queue, observe);

	atomic_store_explicit(&queue->heartbeat_rtt_ns, queue->conn->heartbeat_rtt_ns, memory_order_relaxed);
	sys_timer_arm(queue->reactor, timer, sys_reactor_now_ns(queue->reactor) + OBSERVE_NS);
}

void remote_queue_init(struct remote_queue *queue, struct remote *remote, unsigned number, struct sys_reactor *reactor)
{
	queue->remote = remote;
	queue->reactor = reactor;
	queue->number = number;
	queue->link = REMOTE_LINK_NONE;
	queue->patience.fire = queue_lose_patience;
	queue->observe.fire = queue_observe;
	TAILQ_INIT(&queue->waiting);
}

void remote_queue_attach(void *arg)
{
	struct remote_attach *attach = arg;
	struct remote_queue *queue = attach->queue;
	struct transport_conn *conn = attach->conn;

	/* The one before it, if an operation has told of its failure and it has not yet done so itself. */
	queue_drop_conn(queue);
	conn->owner = queue;
	conn->down = queue_down;
	conn->writable = queue_writable;
	attach->ret = transport_attach(conn, queue->reactor);
	if (attach->ret < 0) {
		transport_close(conn);
		return;
	}
	queue->conn = conn;
	queue->session = attach->session;
	queue->connected_ns = sys_reactor_now_ns(queue->reactor);
	sys_timer_cancel(queue->reactor, &queue->patience);
	sys_timer_arm(queue->reactor, &queue->observe, queue->connected_ns + OBSERVE_NS);
	queue_set_link(queue, REMOTE_LINK_UP);
	queue_flush(queue);
}

void remote_queue_resume(void *arg)
{
	struct remote_queue *queue = arg;
	struct remote *remote = queue->remote;

	queue->session = atomic_load(&remote->session_number);
	lock_acquire(&remote->lock);
	queue->link = REMOTE_LINK_FAILED;
	remote->nr_failed++;
	remote->last_error = -ENOTCONN;
	lock_release(&remote->lock);
}

void remote_queue_hang_up(void *arg)
{
	struct remote_queue *queue = arg;

	queue->session = 0;
	queue_drop_conn(queue);
	queue_sift(queue);
	queue_set_link(queue, REMOTE_LINK_NONE);
}

/*
 * The initiator's connection on its reactor.
 *
 * submit makes a work request, or queues what has to wait; flush, at the end of the turn, posts all that there is and rings the
 * device's bell once. While anything is in flight a poller looks at the completion queue in every turn, for as long as the
 * reactor spins. Before the reactor sleeps, arm asks the device for an event, and looks once more: what came between the last
 * look and that would not be told of.
 *
 * A failure can be found in the middle of anything. It therefore only closes the door (verbs_conn_fail) and leaves the rest
 * to `fall`, which runs with nothing of ours on the stack: it ends the queue pair, so that the device touches no memory of an
 * operation any more, and only then tells operations and owner.
 */
#include "common/transport/verbs/conn.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

#include "common/transport/op.h"
#include "common/transport/verbs/status.h"

#define CONN_POLL_WCS 16
#define CONN_MAX_POLLS 16 /* in one turn */

static struct verbs_conn *conn_from_head(struct transport_conn *head)
{
	return BASE_CONTAINER_OF(head, struct verbs_conn, head);
}

static uint64_t conn_now_ns(const struct verbs_conn *conn)
{
	return sys_reactor_now_ns(conn->head.reactor);
}

/* Takes the connection off its reactor. */
static void conn_detach(struct verbs_conn *conn)
{
	struct sys_reactor *reactor = conn->head.reactor;

	sys_watch_remove(&conn->completions);
	sys_watch_remove(&conn->disconnects);
	if (conn->polling)
		sys_poller_remove(&conn->poller);
	conn->polling = false;
	sys_reactor_undefer(reactor, &conn->flush);
	sys_timer_cancel(reactor, &conn->timer);
}

void verbs_conn_fail(struct verbs_conn *conn, int err)
{
	if (conn->err)
		return;
	conn->err = err;
	conn_detach(conn);
	sys_reactor_defer(conn->head.reactor, &conn->fall);
}

static void conn_fall(struct sys_deferred *deferred)
{
	struct verbs_conn *conn = BASE_CONTAINER_OF(deferred, struct verbs_conn, fall);

	verbs_conn_sever(conn);
	verbs_send_cancel(conn, conn->err);
	conn->head.down(&conn->head, conn->err); /* which may have closed it */
}

/* The poller comes and goes with what is in flight. */
static void conn_start_polling(struct verbs_conn *conn)
{
	if (conn->polling)
		return;
	conn->polling = true;
	sys_poller_add(conn->head.reactor, &conn->poller);
}

/* Unless there is something. */
static void conn_stop_polling(struct verbs_conn *conn)
{
	if (!conn->polling || conn->head.in_flight > 0 || verbs_conn_waits(conn))
		return;
	conn->polling = false;
	sys_poller_remove(&conn->poller);
}

/* The number of completions taken; a failure is one. */
static unsigned conn_take(struct verbs_conn *conn)
{
	struct ibv_wc wcs[CONN_POLL_WCS];
	int nr = ibv_poll_cq(conn->cq, CONN_POLL_WCS, wcs);
	int err;

	if (nr < 0) {
		verbs_conn_fail(conn, -EIO);
		return 1;
	}
	for (int i = 0; i < nr && !conn->err; i++) {
		if (!(wcs[i].wr_id & VERBS_RECEIVE_ID)) {
			verbs_send_completed(conn, &wcs[i]);
			continue;
		}
		err = verbs_status_of_conn(wcs[i].status);
		if (err == 0)
			err = verbs_places_received(conn, &wcs[i]);
		if (err < 0)
			verbs_conn_fail(conn, err);
	}
	return (unsigned)nr;
}

/*
 * Takes what is complete. The number of completions. The owner may have closed the connection in writable, the last thing that
 * is called here: nothing of it is touched afterwards.
 */
static unsigned conn_complete(struct verbs_conn *conn)
{
	unsigned sum = 0;
	unsigned nr;

	for (unsigned i = 0; i < CONN_MAX_POLLS && !conn->err; i++) {
		nr = conn_take(conn);
		sum += nr;
		if (nr < CONN_POLL_WCS)
			break;
	}
	if (conn->err)
		return sum;
	conn_stop_polling(conn);
	if (sum == 0)
		return 0;
	conn->completed_ns = conn_now_ns(conn);
	conn->waits_ns = verbs_conn_waits(conn) ? conn->completed_ns : 0;
	if (!TAILQ_EMPTY(&conn->queue) || !TAILQ_EMPTY(&conn->unplaced))
		sys_reactor_defer(conn->head.reactor, &conn->flush);
	if (conn->starved && conn->head.in_flight < conn->head.queue_depth) {
		conn->starved = false;
		conn->head.writable(&conn->head);
	}
	return sum;
}

static unsigned conn_poll(struct sys_poller *poller)
{
	return conn_complete(BASE_CONTAINER_OF(poller, struct verbs_conn, poller));
}

static unsigned conn_arm(struct sys_poller *poller)
{
	struct verbs_conn *conn = BASE_CONTAINER_OF(poller, struct verbs_conn, poller);

	if (!conn->armed && ibv_req_notify_cq(conn->cq, 0) != 0) {
		verbs_conn_fail(conn, -EIO);
		return 1;
	}
	conn->armed = true;
	return conn_complete(conn);
}

static void conn_event(struct sys_watch *watch, uint32_t events)
{
	struct verbs_conn *conn = BASE_CONTAINER_OF(watch, struct verbs_conn, completions);
	struct ibv_cq *cq;
	void *context;

	(void)events;
	if (ibv_get_cq_event(conn->channel, &cq, &context) == 0) {
		ibv_ack_cq_events(cq, 1);
		conn->armed = false;
	} else if (errno != EAGAIN && errno != EINTR) {
		/* The device has been removed: the descriptor stays ready for ever. */
		verbs_conn_fail(conn, -ENODEV);
		return;
	}
	conn_complete(conn);
}

static void conn_disconnected(struct sys_watch *watch, uint32_t events)
{
	struct verbs_conn *conn = BASE_CONTAINER_OF(watch, struct verbs_conn, disconnects);
	struct rdma_cm_event *event;
	int err;

	(void)events;
	if (rdma_get_cm_event(conn->events, &event) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			verbs_conn_fail(conn, -errno);
		return;
	}
	err = verbs_status_of_event(event->event, event->status);
	rdma_ack_cm_event(event);
	if (err < 0)
		verbs_conn_fail(conn, err);
}

static void conn_flush(struct sys_deferred *deferred)
{
	struct verbs_conn *conn = BASE_CONTAINER_OF(deferred, struct verbs_conn, flush);

	verbs_send_flush(conn);
	if (conn->err)
		return;
	if (verbs_conn_waits(conn))
		conn_start_polling(conn);
	/* Operations that failed at once have left room. */
	if (conn->starved && conn->head.in_flight < conn->head.queue_depth) {
		conn->starved = false;
		conn->head.writable(&conn->head);
	}
}

/*
 * When the peer counts as dead: dead_ns after it was heard last. But something must have been in flight for most of that
 * time, so that we do not blame the peer for a pause of our own.
 */
static uint64_t conn_dead_at_ns(const struct verbs_conn *conn)
{
	if (conn->waits_ns == 0)
		return UINT64_MAX;
	return base_max_u64(conn->completed_ns + conn->dead_ns, conn->waits_ns + conn->dead_ns - conn->heartbeat_ns);
}

/* The time in which this thread, or the whole machine, stood still does not count as the peer's silence. */
static void conn_forgive_pause(struct verbs_conn *conn, uint64_t now_ns)
{
	uint64_t late_ns = now_ns - conn->timer.at_ns;

	if (late_ns < conn->heartbeat_ns)
		return;
	conn->completed_ns += late_ns;
	if (conn->waits_ns != 0)
		conn->waits_ns += late_ns;
}

/* A beat is due every heartbeat_ns, also when operations are in flight: the lender sees nothing of them. */
static void conn_tick(struct sys_timer *timer)
{
	struct verbs_conn *conn = BASE_CONTAINER_OF(timer, struct verbs_conn, timer);
	uint64_t now_ns = conn_now_ns(conn);

	conn_forgive_pause(conn, now_ns);
	if (now_ns >= conn_dead_at_ns(conn)) {
		verbs_conn_fail(conn, -ETIMEDOUT);
		return;
	}
	if (!conn->beating) {
		conn->beat_ns = now_ns;
		verbs_send_beat(conn);
		/* A batch that was full has been posted, and that may have failed. */
		if (conn->err)
			return;
		sys_reactor_defer(conn->head.reactor, &conn->flush);
	}
	sys_timer_arm(conn->head.reactor, timer, base_min_u64(now_ns + conn->heartbeat_ns, conn_dead_at_ns(conn)));
}

static int conn_attach(struct transport_conn *head, struct sys_reactor *reactor)
{
	struct verbs_conn *conn = conn_from_head(head);
	uint64_t now_ns = sys_clock_now_ns(sys_reactor_clock(reactor));
	int err;

	assert(head->down && head->writable && !head->reactor);
	conn->completions.fd = conn->channel->fd;
	conn->disconnects.fd = conn->events->fd;
	err = sys_watch_add(reactor, &conn->completions, EPOLLIN);
	if (err < 0)
		return err;
	err = sys_watch_add(reactor, &conn->disconnects, EPOLLIN);
	if (err < 0) {
		sys_watch_remove(&conn->completions);
		return err;
	}
	head->reactor = reactor;
	conn->completed_ns = now_ns;
	sys_timer_arm(reactor, &conn->timer, now_ns + conn->heartbeat_ns);
	return 0;
}

static int conn_submit(struct transport_conn *head, struct transport_op *op)
{
	struct verbs_conn *conn = conn_from_head(head);
	int err;

	if (conn->err)
		return -ENOTCONN;
	err = transport_op_check(op);
	if (err < 0)
		return err;
	if (head->in_flight == head->queue_depth) {
		conn->starved = true;
		return -EAGAIN;
	}
	op->submitted_ns = conn_now_ns(conn);
	head->in_flight++;
	verbs_send_op(conn, op);
	conn_start_polling(conn);
	sys_reactor_defer(head->reactor, &conn->flush);
	return 0;
}

/*
 * Posts the last beat, if the lender has not been told of all that has been done. True when one is on its way, for which the
 * connection must stay a moment.
 */
static bool conn_post_farewell(struct verbs_conn *conn)
{
	/* With operations in flight it would take as long as they do. */
	if (conn->err || conn->head.in_flight > 0)
		return false;
	if (conn->told_bytes != conn->done_bytes[TRANSPORT_READ] + conn->done_bytes[TRANSPORT_WRITE]) {
		/* Whether or not one is under way: of two the later one arrives later. */
		conn->beating = false;
		verbs_send_beat(conn);
	}
	/* One that was made in this turn has not been posted yet. */
	verbs_send_flush(conn);
	return conn->beating && !conn->err;
}

static void conn_close(struct transport_conn *head)
{
	struct verbs_conn *conn = conn_from_head(head);

	if (head->reactor) {
		bool leaves = conn_post_farewell(conn);

		if (!conn->err)
			conn_detach(conn);
		sys_reactor_undefer(head->reactor, &conn->fall);
		conn->err = -ECANCELED;
		if (leaves) {
			verbs_farewell_wait(conn);
			return;
		}
	}
	verbs_conn_sever(conn);
	if (head->reactor) {
		conn->culprit = NULL;
		verbs_send_cancel(conn, -ECANCELED);
	}
	verbs_conn_free(conn);
}

static const struct transport_ops conn_ops = {
	.name = "verbs",
	.attach = conn_attach,
	.submit = conn_submit,
	.close = conn_close,
};

void verbs_conn_init(struct verbs_conn *conn, unsigned heartbeat_ms, unsigned dead_ms)
{
	conn->head.ops = &conn_ops;
	conn->completions.ready = conn_event;
	conn->disconnects.ready = conn_disconnected;
	conn->poller.poll = conn_poll;
	conn->poller.arm = conn_arm;
	conn->flush.run = conn_flush;
	conn->fall.run = conn_fall;
	conn->timer.fire = conn_tick;
	conn->heartbeat_ns = heartbeat_ms * SYS_NS_PER_MS;
	conn->dead_ns = dead_ms * SYS_NS_PER_MS;
	TAILQ_INIT(&conn->queue);
	TAILQ_INIT(&conn->unplaced);
	TAILQ_INIT(&conn->posted);
	for (unsigned i = 0; i < CONN_NR_CHUNKS; i++)
		conn->free_chunks[i] = (uint16_t)(CONN_NR_CHUNKS - 1 - i);
	conn->nr_free_chunks = CONN_NR_CHUNKS;
}

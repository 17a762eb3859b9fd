/*
 * The initiator's connection on its reactor.
 *
 * submit only queues; flush, at the end of the turn, sends all that was queued with one system call. While operations
 * are in flight the socket is read in every turn by a poller, so that a reactor that spins sees a response without
 * epoll; the watch is there for when it sleeps.
 *
 * A failure can be found in the middle of anything. It therefore only closes the door (conn_fail) and leaves the rest,
 * the operations' done and the owner's down, to `fall`, which runs with nothing of ours on the stack.
 */
#include "common/transport/tcp/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/transport/op.h"

#define CONN_MAX_IOV 256
#define CONN_MAX_RECEIVE_BYTES (1u << 20) /* in one turn */
#define CONN_MAX_SENDS 4		  /* system calls in one turn */

static struct tcp_conn *conn_from_head(struct transport_conn *head)
{
	return BASE_CONTAINER_OF(head, struct tcp_conn, head);
}

static uint64_t conn_now_ns(const struct tcp_conn *conn)
{
	return sys_reactor_now_ns(conn->head.reactor);
}

/* Takes the connection off its reactor. */
static void conn_detach(struct tcp_conn *conn)
{
	struct sys_reactor *reactor = conn->head.reactor;

	sys_watch_remove(&conn->watch);
	if (conn->polling)
		sys_poller_remove(&conn->poller);
	conn->polling = false;
	sys_reactor_undefer(reactor, &conn->flush);
	sys_timer_cancel(reactor, &conn->timer);
}

static void conn_fail(struct tcp_conn *conn, int err)
{
	if (conn->err)
		return;
	conn->err = err;
	conn_detach(conn);
	sys_reactor_defer(conn->head.reactor, &conn->fall);
}

static void conn_fall(struct sys_deferred *deferred)
{
	struct tcp_conn *conn = BASE_CONTAINER_OF(deferred, struct tcp_conn, fall);

	tcp_initiator_cancel(&conn->initiator, conn->err);
	conn->head.down(&conn->head, conn->err); /* which may have closed it */
}

/* The poller comes and goes with the operations in flight. */
static void conn_update_poller(struct tcp_conn *conn)
{
	bool want = conn->head.in_flight > 0;

	if (want == conn->polling)
		return;
	conn->polling = want;
	if (want)
		sys_poller_add(conn->head.reactor, &conn->poller);
	else
		sys_poller_remove(&conn->poller);
}

/* One system call: the bytes received, 0 when there are none, or a negative errno. */
static ssize_t conn_receive_once(struct tcp_conn *conn, struct iovec *iov, unsigned nr_iov)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr_iov };
	ssize_t ret;

	if (nr_iov == 1)
		ret = recv(conn->watch.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT);
	else
		ret = recvmsg(conn->watch.fd, &msg, MSG_DONTWAIT);
	if (ret > 0)
		return ret;
	if (ret == 0)
		return -ECONNRESET;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/*
 * Reads what is there. The number of things done. The owner may have closed the connection in writable, the last thing
 * that is called here: nothing of it is touched afterwards.
 */
static unsigned conn_receive(struct tcp_conn *conn)
{
	struct iovec iov[TCP_INITIATOR_MAX_IOV];
	uint64_t now_ns = conn_now_ns(conn);
	size_t sum_bytes = 0;
	size_t space_bytes;
	unsigned nr_iov;
	ssize_t ret;
	int nr_done;

	conn->polled_ns = now_ns;
	do {
		nr_iov = tcp_initiator_space(&conn->initiator, iov, &space_bytes);
		ret = conn_receive_once(conn, iov, nr_iov);
		if (ret == 0)
			break;
		nr_done = ret < 0 ? (int)ret : tcp_initiator_received(&conn->initiator, (size_t)ret);
		if (nr_done < 0) {
			conn_fail(conn, nr_done);
			return 1;
		}
		sum_bytes += (size_t)ret;
		/* Less than there was room for: the socket is empty, and it need not be asked. */
	} while ((size_t)ret == space_bytes && sum_bytes < CONN_MAX_RECEIVE_BYTES);
	if (sum_bytes == 0)
		return 0;
	conn->received_ns = now_ns;
	conn->unanswered_ns = tcp_initiator_waits(&conn->initiator) ? now_ns : 0;
	conn_update_poller(conn);
	if (conn->starved && conn->head.in_flight < conn->head.queue_depth) {
		conn->starved = false;
		conn->head.writable(&conn->head);
	}
	return 1;
}

static unsigned conn_poll(struct sys_poller *poller)
{
	struct tcp_conn *conn = BASE_CONTAINER_OF(poller, struct tcp_conn, poller);

	/* epoll has been here in this turn already. */
	if (conn->polled_ns == conn_now_ns(conn))
		return 0;
	return conn_receive(conn);
}

/* One system call, and the cheaper one when it is a single piece: a READ's request, most of the time. */
static ssize_t conn_send_once(struct tcp_conn *conn, struct iovec *iov, unsigned nr_iov)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr_iov };

	if (nr_iov == 1)
		return send(conn->watch.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sendmsg(conn->watch.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Sends what this turn has queued. */
static void conn_flush(struct sys_deferred *deferred)
{
	struct tcp_conn *conn = BASE_CONTAINER_OF(deferred, struct tcp_conn, flush);
	struct iovec iov[CONN_MAX_IOV];
	unsigned nr_iov;
	size_t len_bytes;
	ssize_t ret;

	for (unsigned i = 0; i < CONN_MAX_SENDS && tcp_initiator_has_unsent(&conn->initiator); i++) {
		nr_iov = tcp_initiator_gather(&conn->initiator, iov, CONN_MAX_IOV, &len_bytes);
		/* Due from the moment we want to send: a peer that takes nothing is as silent as one that gives nothing. */
		if (conn->unanswered_ns == 0)
			conn->unanswered_ns = conn_now_ns(conn);
		ret = conn_send_once(conn, iov, nr_iov);
		if (ret < 0) {
			if (errno == EAGAIN || errno == EINTR)
				break;
			/* Whoever sees it first, a peer that has gone is -ECONNRESET. */
			conn_fail(conn, errno == EPIPE ? -ECONNRESET : -errno);
			return;
		}
		conn->sent_ns = conn_now_ns(conn);
		tcp_initiator_sent(&conn->initiator, (size_t)ret);
		if ((size_t)ret < len_bytes)
			break;
	}
	/* What is left goes on when there is room, or in the next turn. */
	sys_watch_modify(&conn->watch, EPOLLIN | (tcp_initiator_has_unsent(&conn->initiator) ? EPOLLOUT : 0u));
}

static void conn_ready(struct sys_watch *watch, uint32_t events)
{
	struct tcp_conn *conn = BASE_CONTAINER_OF(watch, struct tcp_conn, watch);

	if (events & EPOLLOUT)
		sys_reactor_defer(conn->head.reactor, &conn->flush);
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		conn_receive(conn);
}

static void conn_pong(struct transport_op *op, int status)
{
	struct tcp_conn *conn = BASE_CONTAINER_OF(op, struct tcp_conn, initiator.ping);

	if (status == 0) /* 0 means "none yet", so that the shortest is 1 */
		conn->head.heartbeat_rtt_ns = base_max_u64(conn_now_ns(conn) - conn->ping_ns, 1);
}

/*
 * When the peer counts as dead: dead_ns after it was heard last. But a response must have been due for most of that
 * time, so that we do not blame the peer for a pause of our own.
 */
static uint64_t conn_dead_at_ns(const struct tcp_conn *conn)
{
	if (conn->unanswered_ns == 0)
		return UINT64_MAX;
	return base_max_u64(conn->received_ns + conn->dead_ns,
			    conn->unanswered_ns + conn->dead_ns - conn->heartbeat_ns);
}

/* The time in which this thread, or the whole machine, stood still does not count as the peer's silence. */
static void conn_forgive_pause(struct tcp_conn *conn, uint64_t now_ns)
{
	uint64_t late_ns = now_ns - conn->timer.at_ns;

	if (late_ns < conn->heartbeat_ns)
		return;
	conn->received_ns += late_ns;
	if (conn->unanswered_ns != 0)
		conn->unanswered_ns += late_ns;
}

static void conn_tick(struct sys_timer *timer)
{
	struct tcp_conn *conn = BASE_CONTAINER_OF(timer, struct tcp_conn, timer);
	uint64_t now_ns = conn_now_ns(conn);

	conn_forgive_pause(conn, now_ns);
	if (now_ns >= conn_dead_at_ns(conn)) {
		conn_fail(conn, -ETIMEDOUT);
		return;
	}
	if (now_ns >= conn->sent_ns + conn->heartbeat_ns) {
		if (!conn->initiator.pinging) {
			conn->ping_ns = now_ns;
			tcp_initiator_ping(&conn->initiator);
			sys_reactor_defer(conn->head.reactor, &conn->flush);
		}
		conn->sent_ns = now_ns;
		if (conn->unanswered_ns == 0)
			conn->unanswered_ns = now_ns;
	}
	sys_timer_arm(conn->head.reactor, timer,
		      base_min_u64(conn->sent_ns + conn->heartbeat_ns, conn_dead_at_ns(conn)));
}

static int conn_attach(struct transport_conn *head, struct sys_reactor *reactor)
{
	struct tcp_conn *conn = conn_from_head(head);
	uint64_t now_ns = sys_clock_now_ns(sys_reactor_clock(reactor));
	int err;

	assert(head->down && head->writable && !head->reactor);
	conn->watch.ready = conn_ready;
	err = sys_watch_add(reactor, &conn->watch, EPOLLIN);
	if (err < 0)
		return err;
	head->reactor = reactor;
	conn->sent_ns = conn->received_ns = now_ns;
	sys_timer_arm(reactor, &conn->timer, now_ns + conn->heartbeat_ns);
	return 0;
}

static int conn_submit(struct transport_conn *head, struct transport_op *op)
{
	struct tcp_conn *conn = conn_from_head(head);
	int err;

	if (conn->err)
		return -ENOTCONN;
	err = transport_op_check(op);
	if (err < 0)
		return err;
	err = tcp_initiator_submit(&conn->initiator, op);
	if (err < 0) {
		conn->starved = true;
		return err;
	}
	op->submitted_ns = conn_now_ns(conn);
	conn_update_poller(conn);
	sys_reactor_defer(head->reactor, &conn->flush);
	return 0;
}

static void conn_close(struct transport_conn *head)
{
	struct tcp_conn *conn = conn_from_head(head);

	if (head->reactor) {
		if (!conn->err)
			conn_detach(conn);
		sys_reactor_undefer(head->reactor, &conn->fall);
		conn->err = -ECANCELED;
		tcp_initiator_cancel(&conn->initiator, -ECANCELED);
	}
	close(conn->watch.fd);
	tcp_initiator_close(&conn->initiator);
	free(conn);
}

static const struct transport_ops conn_ops = {
	.name = "tcp",
	.attach = conn_attach,
	.submit = conn_submit,
	.close = conn_close,
};

int tcp_conn_create(int fd, unsigned queue_depth, unsigned heartbeat_ms, unsigned dead_ms,
		    struct transport_conn **ret_conn)
{
	struct tcp_conn *conn = calloc(1, sizeof(*conn));
	int err = conn ? tcp_initiator_open(&conn->initiator, queue_depth, &conn->head.in_flight) : -ENOMEM;

	if (err < 0) {
		free(conn);
		close(fd);
		return err;
	}
	conn->head.ops = &conn_ops;
	conn->head.queue_depth = queue_depth;
	conn->watch.fd = fd;
	conn->poller.poll = conn_poll;
	conn->flush.run = conn_flush;
	conn->fall.run = conn_fall;
	conn->timer.fire = conn_tick;
	conn->initiator.ping.done = conn_pong;
	conn->heartbeat_ns = heartbeat_ms * SYS_NS_PER_MS;
	conn->dead_ns = dead_ms * SYS_NS_PER_MS;
	*ret_conn = &conn->head;
	return 0;
}

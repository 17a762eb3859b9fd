/*
 * One connection's life: the handshake, when its socket is asked, and its end.
 *
 * A connection that was just busy is hot: its reactor asks the socket in every turn and epoll knows nothing of it. After
 * spin_ns without a byte it is cold: epoll watches it and nobody asks.
 */
#include "client/frontend/nbd/internal.h"

#include <assert.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/log/log.h"

bool nbd_conn_may_receive(const struct nbd_conn *conn)
{
	switch (conn->state) {
	case NBD_CONN_HANDSHAKE:
		return conn->handshake.nr_out == 0;
	case NBD_CONN_TRANSMISSION:
		return !conn->parked;
	default:
		return false;
	}
}

void nbd_conn_protocol_error(struct nbd_conn *conn, const char *what)
{
	stats_counter_add(&conn->worker->counters.protocol_errors, 1);
	log_info("nbd: a client sent %s, its connection is cut", what);
	nbd_conn_kill(conn);
}

void nbd_conn_leave(struct nbd_conn *conn)
{
	conn->state = NBD_CONN_LEAVING;
	sys_reactor_defer(conn->worker->reactor, &conn->work);
}

/* Hot and cold */

static void become_hot(struct nbd_conn *conn)
{
	if (conn->hot || conn->want_write || conn->worker->server->spin_ns == 0)
		return;
	sys_watch_remove(&conn->watch);
	sys_poller_add(conn->worker->reactor, &conn->poller);
	conn->hot = true;
}

static uint32_t wanted_events(const struct nbd_conn *conn)
{
	return (nbd_conn_may_receive(conn) ? EPOLLIN : 0u) | (conn->want_write ? EPOLLOUT : 0u);
}

static void become_cold(struct nbd_conn *conn)
{
	int ret;

	sys_poller_remove(&conn->poller);
	conn->hot = false;
	ret = sys_watch_add(conn->worker->reactor, &conn->watch, wanted_events(conn));
	if (ret < 0) {
		log_error("nbd: cannot watch a connection: %s", err_text(ret));
		nbd_conn_kill(conn);
	}
}

void nbd_conn_update_watch(struct nbd_conn *conn)
{
	if (conn->state == NBD_CONN_DEAD)
		return;
	if (!conn->hot)
		sys_watch_modify(&conn->watch, wanted_events(conn));
	else if (conn->want_write)
		become_cold(conn);
}

/* The handshake */

static void on_handshake_over(struct nbd_conn *conn)
{
	switch (conn->handshake.state) {
	case NBD_HANDSHAKE_TRANSMISSION:
		conn->structured_replies = conn->handshake.structured_replies;
		conn->state = NBD_CONN_TRANSMISSION;
		nbd_conn_take_requests(conn);
		break;
	case NBD_HANDSHAKE_REFUSED:
		stats_counter_add(&conn->worker->counters.refused, 1);
		log_info("nbd: a client asked for an export that does not exist");
		nbd_conn_kill(conn);
		break;
	case NBD_HANDSHAKE_GARBAGE:
		nbd_conn_protocol_error(conn, "something that is not NBD");
		break;
	default:
		nbd_conn_kill(conn);
		break;
	}
}

void nbd_conn_take_options(struct nbd_conn *conn)
{
	size_t taken;

	do {
		if (!nbd_conn_send_handshake(conn))
			return;
		if (nbd_handshake_over(&conn->handshake)) {
			on_handshake_over(conn);
			return;
		}
		taken = nbd_handshake_feed(&conn->handshake, conn->staging + conn->head, conn->tail - conn->head);
		conn->head += taken;
	} while (taken > 0);
}

/* Readiness */

static unsigned on_poll(struct sys_poller *poller)
{
	struct nbd_conn *conn = BASE_CONTAINER_OF(poller, struct nbd_conn, poller);
	uint64_t now_ns = sys_reactor_now_ns(conn->worker->reactor);

	if (nbd_conn_receive(conn))
		return 1;
	/* Killed, or cold because the socket is full. */
	if (!conn->hot)
		return 0;
	if (now_ns - conn->progress_ns < conn->worker->server->spin_ns)
		return 1; /* keeps the reactor awake: epoll would not wake it for this one */
	become_cold(conn);
	return 0;
}

static void on_ready(struct sys_watch *watch, uint32_t events)
{
	struct nbd_conn *conn = BASE_CONTAINER_OF(watch, struct nbd_conn, watch);

	if (events & EPOLLOUT) {
		if (conn->state == NBD_CONN_HANDSHAKE)
			nbd_conn_take_options(conn);
		else
			sys_reactor_defer(conn->worker->reactor, &conn->work);
	}
	if (events & EPOLLIN) {
		if (nbd_conn_receive(conn) && conn->state == NBD_CONN_TRANSMISSION)
			become_hot(conn);
	} else if (events & (EPOLLERR | EPOLLHUP)) {
		nbd_conn_kill(conn);
	}
	nbd_conn_update_watch(conn);
}

/* Life */

static void on_work(struct sys_deferred *deferred)
{
	struct nbd_conn *conn = BASE_CONTAINER_OF(deferred, struct nbd_conn, work);

	if (conn->state == NBD_CONN_DEAD) {
		if (conn->nr_busy == 0)
			nbd_worker_drop(conn->worker, conn);
		return;
	}
	if (!nbd_conn_send_replies(conn))
		return;
	if (conn->state == NBD_CONN_LEAVING && conn->nr_busy == 0)
		nbd_conn_kill(conn);
}

static void on_adopt(struct sys_message *message)
{
	struct nbd_conn *conn = BASE_CONTAINER_OF(message, struct nbd_conn, adopt);

	nbd_worker_adopt(conn->worker, conn);
}

void nbd_conn_init(struct nbd_conn *conn)
{
	conn->watch.ready = on_ready;
	conn->poller.poll = on_poll;
	conn->work.run = on_work;
	conn->adopt.run = on_adopt;
	TAILQ_INIT(&conn->replies);
}

void nbd_conn_begin(struct nbd_conn *conn)
{
	int ret;

	assert(TAILQ_EMPTY(&conn->replies) && conn->nr_tags == 0 && conn->nr_busy == 0);
	conn->state = conn->attached ? NBD_CONN_TRANSMISSION : NBD_CONN_HANDSHAKE;
	conn->hot = conn->parked = conn->want_write = conn->structured_replies = false;
	conn->rx_tag = NULL;
	conn->rx_bytes = 0;
	conn->head = conn->tail = 0;
	conn->sent_bytes = conn->greeted_bytes = 0;
	conn->begun_ns = conn->progress_ns = sys_reactor_now_ns(conn->worker->reactor);
	conn->watch.fd = conn->fd;
	ret = sys_watch_add(conn->worker->reactor, &conn->watch, EPOLLIN);
	if (ret < 0) {
		log_error("nbd: cannot watch a connection: %s", err_text(ret));
		nbd_conn_kill(conn);
		return;
	}
	if (conn->attached)
		return;
	nbd_handshake_init(&conn->handshake, conn->worker->server->export_bytes);
	nbd_conn_take_options(conn);
}

void nbd_conn_resume(struct nbd_conn *conn)
{
	nbd_conn_take_requests(conn);
	nbd_conn_update_watch(conn);
}

void nbd_conn_kill(struct nbd_conn *conn)
{
	struct nbd_worker *worker = conn->worker;
	struct nbd_tag *tag;

	if (conn->state == NBD_CONN_DEAD)
		return;
	/* A device of the kernel's is at its other end, or the like. */
	if (conn->attached && conn->state == NBD_CONN_TRANSMISSION && !worker->closing)
		log_error("nbd: a connection that was to last has ended");
	conn->state = NBD_CONN_DEAD;
	if (conn->hot)
		sys_poller_remove(&conn->poller);
	conn->hot = false;
	sys_watch_remove(&conn->watch);
	close(conn->fd);
	if (conn->parked)
		TAILQ_REMOVE(&worker->parked, conn, parked_link);
	conn->parked = false;
	if (conn->rx_tag)
		nbd_worker_tag_put(worker, conn->rx_tag);
	conn->rx_tag = NULL;
	while ((tag = TAILQ_FIRST(&conn->replies))) {
		TAILQ_REMOVE(&conn->replies, tag, link);
		nbd_worker_tag_put(worker, tag);
	}
	/* Gone for good at the end of the turn, when nobody on the stack looks at it any more. */
	sys_reactor_defer(worker->reactor, &conn->work);
}

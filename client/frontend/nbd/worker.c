/*
 * One reactor's share of the server: tags with their buffers, and the connections that use them.
 */
#include "client/frontend/nbd/internal.h"

#include "client/frontend/frontend.h"
#include "common/log/log.h"

#define TICK_MAX_NS SYS_NS_PER_S

static void tick_arm(struct nbd_worker *worker)
{
	const struct nbd_server *server = worker->server;
	uint64_t period = base_min_u64(base_min_u64(server->handshake_ns, server->stall_ns) / 4, TICK_MAX_NS);

	sys_timer_arm(worker->reactor, &worker->tick, sys_reactor_now_ns(worker->reactor) + period);
}

/* Waits for bytes that must come, or for a client to take its replies; waiting for a tag is not the client's fault. */
static bool conn_waits_for_client(const struct nbd_conn *conn)
{
	return !conn->parked && (conn->rx_tag || conn->head != conn->tail || !TAILQ_EMPTY(&conn->replies));
}

static bool conn_overdue(const struct nbd_conn *conn, uint64_t now_ns)
{
	const struct nbd_server *server = conn->worker->server;

	if (conn->attached)
		return false;
	switch (conn->state) {
	case NBD_CONN_HANDSHAKE:
		return now_ns - conn->begun_ns > server->handshake_ns;
	case NBD_CONN_TRANSMISSION:
	case NBD_CONN_LEAVING:
		return conn_waits_for_client(conn) && now_ns - conn->progress_ns > server->stall_ns;
	default:
		return false;
	}
}

static void on_tick(struct sys_timer *timer)
{
	struct nbd_worker *worker = BASE_CONTAINER_OF(timer, struct nbd_worker, tick);
	uint64_t now_ns = sys_reactor_now_ns(worker->reactor);
	struct nbd_conn *conn;

	/* Killing does not unlink: that happens at the end of the turn. */
	TAILQ_FOREACH(conn, &worker->conns, link) {
		if (!conn_overdue(conn, now_ns))
			continue;
		stats_counter_add(&worker->counters.timeouts, 1);
		log_info("nbd: a client was silent for too long, its connection is cut");
		nbd_conn_kill(conn);
	}
	if (!TAILQ_EMPTY(&worker->conns))
		tick_arm(worker);
}

/* Tags have become free: those that wait for one go on, each once, in their order. */
static void on_resume(struct sys_deferred *deferred)
{
	struct nbd_worker *worker = BASE_CONTAINER_OF(deferred, struct nbd_worker, resume);
	struct nbd_conn *last = TAILQ_LAST(&worker->parked, nbd_conn_list);
	struct nbd_conn *conn;

	while (last) {
		conn = TAILQ_FIRST(&worker->parked);
		TAILQ_REMOVE(&worker->parked, conn, parked_link);
		conn->parked = false;
		nbd_conn_resume(conn);
		if (conn == last)
			break;
	}
}

static void init_tags(struct nbd_worker *worker, unsigned nr_small)
{
	struct nbd_tag *tag = worker->tags.base;
	char *buf = worker->buffers.base;

	/* The big ones first, so that each lies in one huge page where there are any. */
	for (unsigned i = 0; i < NBD_NR_BIG; i++, tag++, buf += NBD_BIG_BYTES) {
		tag->big = true;
		tag->buf = buf;
		TAILQ_INSERT_TAIL(&worker->free_big, tag, link);
	}
	for (unsigned i = 0; i < nr_small; i++, tag++, buf += NBD_SMALL_BYTES) {
		tag->buf = buf;
		TAILQ_INSERT_TAIL(&worker->free_small, tag, link);
	}
}

int nbd_worker_init(struct nbd_worker *worker, struct nbd_server *server, unsigned index)
{
	/* One connection can have its whole depth and leave as much to the others. */
	unsigned nr_small = 2 * server->queue_depth;
	int ret;

	worker->server = server;
	worker->queue = vswap_queue(server->vswap, index);
	worker->reactor = vswap_queue_reactor(worker->queue);
	worker->resume.run = on_resume;
	worker->tick.fire = on_tick;
	TAILQ_INIT(&worker->free_small);
	TAILQ_INIT(&worker->free_big);
	TAILQ_INIT(&worker->conns);
	TAILQ_INIT(&worker->parked);

	ret = frontend_memory_open(&worker->tags, (nr_small + NBD_NR_BIG) * sizeof(struct nbd_tag), "nbd");
	if (ret < 0)
		return ret;
	ret = frontend_memory_open(&worker->buffers,
				   (size_t)nr_small * NBD_SMALL_BYTES + (size_t)NBD_NR_BIG * NBD_BIG_BYTES, "nbd");
	if (ret < 0)
		goto out_tags;
	init_tags(worker, nr_small);
	sem_init(&worker->idle, 0, 0);
	return 0;

out_tags:
	mem_region_close(&worker->tags);
	return ret;
}

void nbd_worker_done(struct nbd_worker *worker)
{
	mem_region_close(&worker->buffers);
	mem_region_close(&worker->tags);
	sem_destroy(&worker->idle);
}

static void post_if_idle(struct nbd_worker *worker)
{
	if (!worker->closing || !TAILQ_EMPTY(&worker->conns))
		return;
	sys_timer_cancel(worker->reactor, &worker->tick);
	sys_reactor_undefer(worker->reactor, &worker->resume);
	sem_post(&worker->idle);
}

void nbd_worker_shut_down(void *arg)
{
	struct nbd_worker *worker = arg;
	struct nbd_conn *conn;

	worker->closing = true;
	TAILQ_FOREACH(conn, &worker->conns, link)
		nbd_conn_kill(conn);
	post_if_idle(worker);
}

void nbd_worker_adopt(struct nbd_worker *worker, struct nbd_conn *conn)
{
	if (TAILQ_EMPTY(&worker->conns))
		tick_arm(worker);
	TAILQ_INSERT_TAIL(&worker->conns, conn, link);
	stats_counter_add(&worker->counters.opened, 1);
	nbd_conn_begin(conn);
	if (worker->closing)
		nbd_conn_kill(conn);
}

void nbd_worker_drop(struct nbd_worker *worker, struct nbd_conn *conn)
{
	TAILQ_REMOVE(&worker->conns, conn, link);
	nbd_server_release(conn);
	stats_counter_add(&worker->counters.closed, 1);
	post_if_idle(worker);
}

struct nbd_tag *nbd_worker_tag_get(struct nbd_worker *worker, struct nbd_conn *conn, uint32_t data_bytes)
{
	struct nbd_tag_list *list = data_bytes > NBD_SMALL_BYTES ? &worker->free_big : &worker->free_small;
	struct nbd_tag *tag = TAILQ_FIRST(list);

	if (!tag || conn->nr_tags >= worker->server->queue_depth)
		return NULL;
	TAILQ_REMOVE(list, tag, link);
	conn->nr_tags++;
	tag->conn = conn;
	return tag;
}

void nbd_worker_tag_put(struct nbd_worker *worker, struct nbd_tag *tag)
{
	tag->conn->nr_tags--;
	/* The one that was used last is the one in the cache. */
	if (tag->big)
		TAILQ_INSERT_HEAD(&worker->free_big, tag, link);
	else
		TAILQ_INSERT_HEAD(&worker->free_small, tag, link);
	if (!TAILQ_EMPTY(&worker->parked))
		sys_reactor_defer(worker->reactor, &worker->resume);
}

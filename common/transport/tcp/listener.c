/*
 * The port, and the workers that serve who came in by it.
 *
 * Order of things at the end: the port is no longer watched; the mark `closing` is set under the lock, after which no
 * peer is nudged; then each reactor is called to cut its peers. Messages arrive in order, so a nudge that was sent
 * before the mark has come before that call.
 */
#include "common/transport/tcp/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/log/log.h"
#include "common/wire/proof.h"

#define LISTENER_BACKLOG 128
#define LISTENER_MAX_ACCEPTS 16 /* in one turn */
/* Beside max_connections: room for those who have not proven themselves. */
#define LISTENER_NR_STRANGERS 32
/* Asking more sockets than so many in every turn costs more than epoll does. */
#define LISTENER_MAX_HOT 8
#define LISTENER_MIN_TICK_MS 10u
#define LISTENER_MAX_TICK_MS 250u

void tcp_listener_count(struct tcp_listener *listener, const char *name, int err)
{
	static struct log_limit limit;
	struct transport_target *target = listener->options.target;
	atomic_uint_fast64_t *counter = &listener->refused;
	uint64_t nr_left_out;

	if (err == -EPROTO)
		counter = &listener->protocol_errors;
	else if (err == -EPIPE)
		counter = &listener->truncated;
	else if (err == -ETIMEDOUT)
		counter = &listener->timeouts;
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	if (log_limit_pass(&limit, &nr_left_out))
		log_warning("data connection from %s ended: %s (%llu more since the last such line)", name,
			    err_text(err), (unsigned long long)nr_left_out);
	target->ops->refused(target, name, err);
}

void tcp_worker_heat(struct tcp_worker *worker, struct tcp_peer *peer)
{
	if (worker->nr_hot == LISTENER_MAX_HOT)
		return;
	if (worker->nr_hot++ == 0)
		sys_poller_add(worker->reactor, &worker->poller);
	TAILQ_INSERT_TAIL(&worker->hot, peer, hot_link);
	peer->hot = true;
}

void tcp_worker_cool(struct tcp_worker *worker, struct tcp_peer *peer)
{
	if (!peer->hot)
		return;
	peer->hot = false;
	TAILQ_REMOVE(&worker->hot, peer, hot_link);
	if (--worker->nr_hot == 0)
		sys_poller_remove(&worker->poller);
}

static unsigned worker_poll(struct sys_poller *poller)
{
	struct tcp_worker *worker = BASE_CONTAINER_OF(poller, struct tcp_worker, poller);
	struct tcp_peer *peer;
	struct tcp_peer *next;
	unsigned nr = 0;

	for (peer = TAILQ_FIRST(&worker->hot); peer; peer = next) {
		next = TAILQ_NEXT(peer, hot_link); /* a poll takes at most its own peer away */
		nr += tcp_peer_poll(peer);
	}
	return nr;
}

static void worker_tick(struct sys_timer *timer)
{
	struct tcp_worker *worker = BASE_CONTAINER_OF(timer, struct tcp_worker, tick);
	struct tcp_listener *listener = worker->listener;
	uint64_t now_ns = sys_reactor_now_ns(worker->reactor);
	uint64_t late_ns = now_ns - timer->at_ns;
	struct tcp_peer *peer;
	struct tcp_peer *next;

	/* The time in which this thread, or the whole machine, stood still does not count as the peers' silence. */
	if (late_ns < listener->tick_ns)
		late_ns = 0;
	for (peer = TAILQ_FIRST(&worker->peers); peer; peer = next) {
		next = TAILQ_NEXT(peer, worker_link);
		peer->life_ns += late_ns;
		peer->deadline_ns += late_ns;
		tcp_peer_tick(peer, now_ns);
	}
	/* After an accept that failed for want of descriptors. When nobody has left since, it pauses again at once. */
	if (worker == &listener->workers[0] && listener->watch.reactor)
		sys_watch_modify(&listener->watch, EPOLLIN);
	sys_timer_arm(worker->reactor, timer, now_ns + listener->tick_ns);
}

static void listener_ready(struct sys_watch *watch, uint32_t events)
{
	struct tcp_listener *listener = BASE_CONTAINER_OF(watch, struct tcp_listener, watch);
	struct sys_address address;
	int fd;

	(void)events;
	for (unsigned i = 0; i < LISTENER_MAX_ACCEPTS; i++) {
		if (!tcp_listener_has_room(listener)) {
			sys_watch_modify(watch, 0);
			return;
		}
		address.len = sizeof(address.addr);
		fd = accept4(watch->fd, (struct sockaddr *)&address.addr, &address.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			/* Out of descriptors or memory: look again when the tick comes, not in every turn until then. */
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
				sys_watch_modify(watch, 0);
			return;
		}
		tcp_listener_give(listener, fd, &address);
	}
}

static void listener_resume(struct sys_message *message)
{
	struct tcp_listener *listener = BASE_CONTAINER_OF(message, struct tcp_listener, resume);

	lock_acquire(&listener->lock);
	listener->resuming = false;
	lock_release(&listener->lock);
	if (listener->watch.reactor)
		sys_watch_modify(&listener->watch, EPOLLIN);
}

static void worker_start(void *arg)
{
	struct tcp_worker *worker = arg;
	uint64_t now_ns = sys_clock_now_ns(sys_reactor_clock(worker->reactor));

	sys_timer_arm(worker->reactor, &worker->tick, now_ns + worker->listener->tick_ns);
}

static void worker_stop(void *arg)
{
	struct tcp_worker *worker = arg;
	struct tcp_peer *peer;

	while ((peer = TAILQ_FIRST(&worker->peers)))
		tcp_peer_cut(peer, -ECANCELED);
	sys_timer_cancel(worker->reactor, &worker->tick);
}

struct listener_watch_call {
	struct tcp_listener *listener;
	int err;
};

static void listener_watch_add(void *arg)
{
	struct listener_watch_call *call = arg;

	call->err = sys_watch_add(call->listener->workers[0].reactor, &call->listener->watch, EPOLLIN);
}

static void listener_watch_remove(void *arg)
{
	struct tcp_listener *listener = arg;

	sys_watch_remove(&listener->watch);
}

static int listener_check_options(const struct tcp_listener_options *options)
{
	if (!options->address || !options->target || options->nr_reactors == 0 || options->max_connections == 0)
		return -EINVAL;
	if (options->handshake_ms == 0 || options->silence_ms == 0)
		return -EINVAL;
	return 0;
}

static int listener_alloc(struct tcp_listener *listener)
{
	const struct tcp_listener_options *options = &listener->options;
	int err;

	listener->nr_peers = options->max_connections + LISTENER_NR_STRANGERS;
	listener->nr_workers = options->nr_reactors;
	listener->workers = calloc(listener->nr_workers, sizeof(*listener->workers));
	listener->peers = calloc(listener->nr_peers, sizeof(*listener->peers));
	if (!listener->workers || !listener->peers)
		return -ENOMEM;
	for (unsigned i = 0; i < listener->nr_workers; i++) {
		struct tcp_worker *worker = &listener->workers[i];

		worker->listener = listener;
		worker->reactor = options->reactors[i];
		worker->poller.poll = worker_poll;
		worker->tick.fire = worker_tick;
		TAILQ_INIT(&worker->peers);
		TAILQ_INIT(&worker->hot);
	}
	lock_acquire(&listener->lock);
	for (unsigned i = 0; i < listener->nr_peers; i++) {
		listener->peers[i].nudge.run = tcp_peer_nudged;
		listener->peers[i].watch.fd = -1;
		TAILQ_INSERT_TAIL(&listener->free, &listener->peers[i], table_link);
	}
	lock_release(&listener->lock);
	for (unsigned i = 0; i < listener->nr_peers; i++) {
		err = tcp_lender_open(&listener->peers[i].lender, options->target, TRANSPORT_MAX_QUEUE_DEPTH);
		if (err < 0)
			return err;
	}
	return 0;
}

static void listener_free(struct tcp_listener *listener)
{
	for (unsigned i = 0; listener->peers && i < listener->nr_peers; i++) {
		/* A peer whose reactor was stopped before its first nudge came. */
		if (listener->peers[i].watch.fd >= 0)
			close(listener->peers[i].watch.fd);
		tcp_lender_close(&listener->peers[i].lender);
	}
	free(listener->peers);
	free(listener->workers);
	lock_mutex_done(&listener->lock);
	if (listener->watch.fd >= 0)
		close(listener->watch.fd);
	free(listener);
}

static int listener_bind(struct tcp_listener *listener)
{
	struct sys_address address;
	int ret;

	ret = sys_address_parse(listener->options.address, true, &address);
	if (ret < 0)
		return ret;
	ret = sys_socket_listen(&address, LISTENER_BACKLOG);
	if (ret < 0)
		return ret;
	listener->watch.fd = ret;
	listener->address.len = sizeof(listener->address.addr);
	return err_from_libc(getsockname(ret, (struct sockaddr *)&listener->address.addr, &listener->address.len));
}

int tcp_listener_open(const struct tcp_listener_options *options, struct tcp_listener **ret_listener)
{
	struct tcp_listener *listener;
	struct listener_watch_call call;
	unsigned tick_ms;
	int err;

	err = listener_check_options(options);
	if (err == 0)
		err = wire_proof_init();
	if (err < 0)
		return err;
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return -ENOMEM;
	listener->options = *options;
	listener->watch = (struct sys_watch){ .fd = -1, .ready = listener_ready };
	listener->resume.run = listener_resume;
	tick_ms = (options->handshake_ms < options->silence_ms ? options->handshake_ms : options->silence_ms) / 4;
	tick_ms = tick_ms < LISTENER_MIN_TICK_MS ? LISTENER_MIN_TICK_MS : tick_ms;
	listener->tick_ns = (tick_ms > LISTENER_MAX_TICK_MS ? LISTENER_MAX_TICK_MS : tick_ms) * SYS_NS_PER_MS;
	lock_mutex_init(&listener->lock);
	lock_acquire(&listener->lock);
	TAILQ_INIT(&listener->free);
	TAILQ_INIT(&listener->greeted);
	TAILQ_INIT(&listener->proven);
	lock_release(&listener->lock);
	err = listener_alloc(listener);
	if (err == 0)
		err = listener_bind(listener);
	if (err < 0)
		goto err_free;
	call = (struct listener_watch_call){ .listener = listener };
	sys_reactor_call(listener->workers[0].reactor, listener_watch_add, &call);
	err = call.err;
	if (err < 0)
		goto err_free;
	for (unsigned i = 0; i < listener->nr_workers; i++)
		sys_reactor_call(listener->workers[i].reactor, worker_start, &listener->workers[i]);
	*ret_listener = listener;
	return 0;

err_free:
	listener_free(listener);
	return err;
}

void tcp_listener_close(struct tcp_listener *listener)
{
	if (!listener)
		return;
	sys_reactor_call(listener->workers[0].reactor, listener_watch_remove, listener);
	lock_acquire(&listener->lock);
	listener->closing = true;
	lock_release(&listener->lock);
	for (unsigned i = 0; i < listener->nr_workers; i++)
		sys_reactor_call(listener->workers[i].reactor, worker_stop, &listener->workers[i]);
	listener_free(listener);
}

void tcp_listener_address(const struct tcp_listener *listener, struct sys_address *ret_address)
{
	*ret_address = listener->address;
}

void tcp_listener_counters(struct tcp_listener *listener, struct tcp_listener_counters *ret_counters)
{
	*ret_counters = (struct tcp_listener_counters){
		.accepted = atomic_load_explicit(&listener->accepted, memory_order_relaxed),
		.admitted = atomic_load_explicit(&listener->admitted, memory_order_relaxed),
		.refused = atomic_load_explicit(&listener->refused, memory_order_relaxed),
		.protocol_errors = atomic_load_explicit(&listener->protocol_errors, memory_order_relaxed),
		.truncated = atomic_load_explicit(&listener->truncated, memory_order_relaxed),
		.timeouts = atomic_load_explicit(&listener->timeouts, memory_order_relaxed),
		.connections = atomic_load_explicit(&listener->connections, memory_order_relaxed),
	};
}

#include "common/transport/verbs/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/base/err.h"
#include "common/log/log.h"
#include "common/wire/proof.h"

#define LISTENER_BACKLOG 128
#define LISTENER_MAX_EVENTS 64 /* in one turn */
#define LISTENER_MIN_TICK_MS 10u
#define LISTENER_MAX_TICK_MS 250u

uint64_t verbs_listener_now_ns(const struct verbs_listener *listener)
{
	return sys_reactor_now_ns(listener->options.reactor);
}

void verbs_listener_count(struct verbs_listener *listener, const char *name, int err)
{
	static struct log_limit limit;
	struct transport_target *target = listener->options.target;
	atomic_uint_fast64_t *counter = &listener->refused;
	uint64_t nr_left_out;

	if (err == -EPROTO)
		counter = &listener->protocol_errors;
	else if (err == -ETIMEDOUT)
		counter = &listener->timeouts;
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	if (log_limit_pass(&limit, &nr_left_out))
		log_warning("RDMA connection from %s ended: %s (%llu more since the last such line)", name, err_text(err),
			    (unsigned long long)nr_left_out);
	target->ops->refused(target, name, err);
}

/* ---- ports ---- */

static void port_event(struct sys_watch *watch, uint32_t events)
{
	struct verbs_port *port = BASE_CONTAINER_OF(watch, struct verbs_port, watch);
	struct ibv_cq *cq;
	void *session;

	(void)events;
	for (unsigned i = 0; i < LISTENER_MAX_EVENTS; i++) {
		if (ibv_get_cq_event(port->channel, &cq, &session) != 0) {
			/* A device that has been removed has nothing to tell any more, but its descriptor stays ready. */
			if (errno != EAGAIN && errno != EINTR)
				sys_watch_remove(&port->watch);
			return;
		}
		/* At once, so that the queue can be destroyed; one that has been is not told of any more. */
		ibv_ack_cq_events(cq, 1);
		verbs_session_complete(session);
	}
}

static void port_free(struct verbs_port *port)
{
	sys_watch_remove(&port->watch);
	if (port->channel)
		ibv_destroy_comp_channel(port->channel);
	free(port);
}

int verbs_listener_port(struct verbs_listener *listener, struct ibv_context *context, struct verbs_port **ret_port)
{
	struct verbs_port *port;
	int err;

	LIST_FOREACH(port, &listener->ports, link)
		if (port->context == context)
			goto found;
	port = calloc(1, sizeof(*port));
	if (!port)
		return -ENOMEM;
	port->context = context;
	port->watch.ready = port_event;
	err = -ibv_query_device(context, &port->attr);
	if (err < 0)
		goto out_free;
	port->channel = ibv_create_comp_channel(context);
	if (!port->channel) {
		err = errno ? -errno : -ENOMEM;
		goto out_free;
	}
	port->watch.fd = port->channel->fd;
	err = err_from_libc(fcntl(port->channel->fd, F_SETFL, O_NONBLOCK));
	if (err == 0)
		err = sys_watch_add(listener->options.reactor, &port->watch, EPOLLIN);
	if (err < 0)
		goto out_free;
	LIST_INSERT_HEAD(&listener->ports, port, link);
found:
	*ret_port = port;
	return 0;

out_free:
	port_free(port);
	return err;
}

/* ---- the reactor's part ---- */

static void listener_ready(struct sys_watch *watch, uint32_t events)
{
	struct verbs_listener *listener = BASE_CONTAINER_OF(watch, struct verbs_listener, watch);
	struct rdma_cm_event *event;

	(void)events;
	for (unsigned i = 0; i < LISTENER_MAX_EVENTS && rdma_get_cm_event(listener->events, &event) == 0; i++) {
		enum rdma_cm_event_type type = event->event;
		uint8_t private_data[UINT8_MAX + 1];
		struct rdma_conn_param param = event->param.conn;
		struct rdma_cm_id *id = event->id;
		int status = event->status;

		/* An id can be destroyed only when its events have been acknowledged, and what they point at is theirs. */
		if (type == RDMA_CM_EVENT_CONNECT_REQUEST && param.private_data) {
			memcpy(private_data, param.private_data, param.private_data_len);
			param.private_data = private_data;
		}
		rdma_ack_cm_event(event);
		if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
			verbs_session_request(listener, id, &param);
		else if (id != listener->id && id->context)
			verbs_session_event(id->context, type, status);
		else if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
			log_error("the RDMA device of the address %s has been removed: nobody connects by it until a restart",
				  listener->options.address);
	}
}

static void listener_tick(struct sys_timer *timer)
{
	struct verbs_listener *listener = BASE_CONTAINER_OF(timer, struct verbs_listener, tick);
	uint64_t now_ns = verbs_listener_now_ns(listener);
	uint64_t late_ns = now_ns - timer->at_ns;
	struct verbs_session *session;
	struct verbs_session *next;

	/* The time in which this thread, or the whole machine, stood still does not count as the peers' silence. */
	if (late_ns < listener->tick_ns)
		late_ns = 0;
	for (session = TAILQ_FIRST(&listener->serving); session; session = next) {
		next = TAILQ_NEXT(session, link);
		session->life_ns += late_ns;
		session->deadline_ns += late_ns;
		verbs_session_tick(session, now_ns);
	}
	verbs_clients_sweep(listener);
	sys_timer_arm(listener->options.reactor, timer, now_ns + listener->tick_ns);
}

struct listener_call {
	struct verbs_listener *listener;
	int err;
};

static void listener_start(void *arg)
{
	struct listener_call *call = arg;
	struct verbs_listener *listener = call->listener;
	struct sys_reactor *reactor = listener->options.reactor;

	call->err = sys_watch_add(reactor, &listener->watch, EPOLLIN);
	if (call->err == 0)
		sys_timer_arm(reactor, &listener->tick, sys_clock_now_ns(sys_reactor_clock(reactor)) + listener->tick_ns);
}

static void listener_stop(void *arg)
{
	struct verbs_listener *listener = arg;
	struct verbs_session *session;
	struct verbs_client *client;
	struct verbs_port *port;

	sys_watch_remove(&listener->watch);
	sys_timer_cancel(listener->options.reactor, &listener->tick);
	while ((session = TAILQ_FIRST(&listener->serving)))
		verbs_session_cut(session, -ECANCELED);
	while ((client = LIST_FIRST(&listener->clients)))
		verbs_client_free(client);
	verbs_stuck_windows_free(listener);
	while ((port = LIST_FIRST(&listener->ports))) {
		LIST_REMOVE(port, link);
		port_free(port);
	}
}

/* ---- open and close ---- */

static int listener_check_options(const struct verbs_listener_options *options)
{
	if (!options->address || !options->target || !options->target->ops->map || !options->target->ops->unmap ||
	    !options->reactor || options->max_connections == 0)
		return -EINVAL;
	if (options->handshake_ms == 0 || options->silence_ms == 0)
		return -EINVAL;
	return 0;
}

static int listener_alloc(struct verbs_listener *listener)
{
	unsigned nr = listener->options.max_connections;
	struct verbs_slot *slots;
	int err;

	listener->sessions = calloc(nr, sizeof(*listener->sessions));
	if (!listener->sessions)
		return -ENOMEM;
	err = mem_region_open(&listener->slots_region, nr * sizeof(struct verbs_slot), MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	slots = listener->slots_region.base;
	for (unsigned i = 0; i < nr; i++) {
		listener->sessions[i].listener = listener;
		listener->sessions[i].slot = &slots[i];
		TAILQ_INSERT_TAIL(&listener->free, &listener->sessions[i], link);
	}
	return 0;
}

static int listener_bind(struct verbs_listener *listener)
{
	struct sockaddr *local;
	struct sys_address address;
	int err;

	err = sys_address_parse(listener->options.address, true, &address);
	if (err < 0)
		return err;
	if (address.addr.ss_family != AF_INET && address.addr.ss_family != AF_INET6)
		return -EINVAL;
	listener->events = rdma_create_event_channel();
	if (!listener->events)
		return errno == ENOENT || errno == 0 ? -ENODEV : -errno;
	listener->watch.fd = listener->events->fd;
	err = err_from_libc(fcntl(listener->events->fd, F_SETFL, O_NONBLOCK));
	if (err == 0)
		err = err_from_libc(rdma_create_id(listener->events, &listener->id, NULL, RDMA_PS_TCP));
	if (err == 0)
		err = err_from_libc(rdma_bind_addr(listener->id, (struct sockaddr *)&address.addr));
	if (err == 0)
		err = err_from_libc(rdma_listen(listener->id, LISTENER_BACKLOG));
	if (err < 0)
		return err;
	local = rdma_get_local_addr(listener->id);
	listener->address.len = local->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	memcpy(&listener->address.addr, local, listener->address.len);
	((struct sockaddr_in *)&listener->address.addr)->sin_port = rdma_get_src_port(listener->id); /* the same in IPv6 */
	return 0;
}

static void listener_free(struct verbs_listener *listener)
{
	if (listener->id)
		rdma_destroy_id(listener->id);
	if (listener->events)
		rdma_destroy_event_channel(listener->events);
	mem_region_close(&listener->slots_region);
	free(listener->sessions);
	lock_mutex_done(&listener->windows_lock);
	free(listener);
}

int verbs_listener_open(const struct verbs_listener_options *options, struct verbs_listener **ret_listener)
{
	struct verbs_listener *listener;
	struct listener_call call;
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
	listener->watch.ready = listener_ready;
	listener->tick.fire = listener_tick;
	tick_ms = (options->handshake_ms < options->silence_ms ? options->handshake_ms : options->silence_ms) / 4;
	tick_ms = tick_ms < LISTENER_MIN_TICK_MS ? LISTENER_MIN_TICK_MS : tick_ms;
	listener->tick_ns = (tick_ms > LISTENER_MAX_TICK_MS ? LISTENER_MAX_TICK_MS : tick_ms) * SYS_NS_PER_MS;
	TAILQ_INIT(&listener->free);
	TAILQ_INIT(&listener->serving);
	LIST_INIT(&listener->clients);
	LIST_INIT(&listener->ports);
	LIST_INIT(&listener->stuck_windows);
	lock_mutex_init(&listener->windows_lock);
	err = listener_alloc(listener);
	if (err == 0)
		err = listener_bind(listener);
	if (err == 0) {
		call = (struct listener_call){ .listener = listener };
		sys_reactor_call(options->reactor, listener_start, &call);
		err = call.err;
	}
	if (err < 0) {
		listener_free(listener);
		return err;
	}
	*ret_listener = listener;
	return 0;
}

void verbs_listener_close(struct verbs_listener *listener)
{
	if (!listener)
		return;
	sys_reactor_call(listener->options.reactor, listener_stop, listener);
	listener_free(listener);
}

void verbs_listener_address(const struct verbs_listener *listener, struct sys_address *ret_address)
{
	*ret_address = listener->address;
}

void verbs_listener_counters(struct verbs_listener *listener, struct verbs_listener_counters *ret_counters)
{
	*ret_counters = (struct verbs_listener_counters){
		.accepted = atomic_load_explicit(&listener->accepted, memory_order_relaxed),
		.admitted = atomic_load_explicit(&listener->admitted, memory_order_relaxed),
		.refused = atomic_load_explicit(&listener->refused, memory_order_relaxed),
		.protocol_errors = atomic_load_explicit(&listener->protocol_errors, memory_order_relaxed),
		.timeouts = atomic_load_explicit(&listener->timeouts, memory_order_relaxed),
		.connections = atomic_load_explicit(&listener->connections, memory_order_relaxed),
		.windows = atomic_load_explicit(&listener->nr_windows, memory_order_relaxed),
	};
}

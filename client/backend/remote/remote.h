/*
 * A memory server as a backend: a session (one lease), one connection per queue, and what happens when they fail.
 *
 * Owns the connections and the operations that wait for one. Does not speak to the server's control plane: the keeper
 * (client/ctl) opens the lease, fetches slabs and hands the session over here.
 *
 * States: CONNECTING -> UP (all queues connected) -> DOWN (a queue lost its connection) -> UP again after reconnection,
 * or LOST when the session has ended (lease gone, server restarted, out of reach for too long) -> CONNECTING.
 */
#ifndef FARSWAP_CLIENT_BACKEND_REMOTE_REMOTE_H
#define FARSWAP_CLIENT_BACKEND_REMOTE_REMOTE_H

#include "client/backend/backend.h"
#include "common/sys/reactor.h"
#include "common/sys/socket.h"
#include "common/transport/transport.h"

struct remote_options {
	const char *name; /* as configured; the backend's name */
	struct transport_driver *driver;
	struct sys_reactor *const *reactors; /* of queue 0 .. nr_queues - 1 */
	unsigned nr_queues;
	unsigned queue_depth;	   /* operations in flight per connection */
	unsigned dead_ms;	   /* silence after which a connection is down; at least 2 */
	unsigned patience_ms;	   /* see patience_ns of the backend */
};

/* What the keeper got from the server's control plane. */
struct remote_session {
	struct transport_driver *driver; /* NULL: the one of the options */
	char data_address[SYS_ADDRESS_MAX];
	uint64_t lease_id;
	uint64_t instance_id;
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	unsigned heartbeat_ms; /* as the server asks; it is shown more life when dead_ms needs it */
};

/* Control thread. 0, -ENOMEM, -EINVAL. State CONNECTING. */
int remote_create(const struct remote_options *options, struct backend **ret_backend) BASE_MUST_CHECK;
/* Control thread, after remote_session_end; nothing in flight. Accepts NULL. */
void remote_free(struct backend *backend);

/*
 * Control thread; blocks while it connects, for at most timeout_ms in all. Begins a session: connects every queue. 0: the
 * state is UP, and slabs made with remote_session_number() in their `session` can be used. Else the error of
 * transport_connect, nothing begun, and the state is CONNECTING. There must be no session.
 *
 * One control thread at a time, in all calls that say so.
 */
int remote_session_begin(struct backend *backend, const struct remote_session *session, unsigned timeout_ms)
	BASE_MUST_CHECK;
/*
 * Control thread. Goes on with a session that a daemon before this one has begun: as after a session_begin
 * whose connections have all failed since. The state is DOWN; slabs with remote_session_number() in their `session` can be
 * used, and remote_session_reconnect connects. Writes begin when every connection stands, so that by then whatever that
 * daemon had on its way is fenced; there are to be as many queues as it had.
 */
void remote_session_resume(struct backend *backend, const struct remote_session *session);
uint32_t remote_session_number(const struct backend *backend);

/*
 * Control thread; blocks for at most timeout_ms in all. Tries once to connect each queue that is down. 0: all stand, the
 * state is UP again. -ESTALE: the lease is gone, call remote_session_end. Another: the first error; try again later (the
 * caller backs off with jitter).
 */
int remote_session_reconnect(struct backend *backend, unsigned timeout_ms) BASE_MUST_CHECK;

/*
 * Control thread. Ends the session: closes every connection, fails what is in flight or waiting with -ENODATA, and from
 * then on every operation on its slabs. The state is LOST; remote_session_begin may be called when vswap has given up the
 * slabs. Without a session nothing happens.
 */
void remote_session_end(struct backend *backend);

/*
 * Control thread: waits until a queue's connection is down, or remote_wake, or timeout_ms. True when one is down; at once
 * when one was down already. A wake that nobody waited for ends the next wait.
 */
bool remote_wait(struct backend *backend, unsigned timeout_ms);
/* Any thread: ends remote_wait early. */
void remote_wake(struct backend *backend);

struct remote_info {
	const char *transport; /* the name of the latest session's driver; NULL before the first */
	unsigned nr_connected; /* queues */
	uint64_t nr_reconnects; /* connections that were made again */
	uint64_t down_since_ns; /* of the reactors' clock; 0 when up, and before it ever was */
	int last_error;		/* that took a connection down; 0 if none ever did */
	uint64_t heartbeat_rtt_ns; /* the longest of the queues, a second old at most */
	uint64_t nr_waiting; /* reads that wait for the server to come back */
};
/* Any thread. */
void remote_info(struct backend *backend, struct remote_info *ret_info);

#endif

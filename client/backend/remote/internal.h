/*
 * What the two halves of the remote backend share: queue.c, on the reactors, and session.c, on the control thread.
 *
 * A queue belongs to its reactor; the control thread reaches it by sys_reactor_call alone. What both look at stands under
 * remote.lock, which a reactor takes only when a connection comes or goes, and nobody holds while he waits.
 */
#ifndef FARSWAP_CLIENT_BACKEND_REMOTE_INTERNAL_H
#define FARSWAP_CLIENT_BACKEND_REMOTE_INTERNAL_H

#include <pthread.h>

#include "client/backend/remote/remote.h"
#include "common/base/lock.h"

enum remote_link {
	REMOTE_LINK_NONE, /* there is no session */
	REMOTE_LINK_UP,
	REMOTE_LINK_FAILED, /* until it is connected again */
};

struct remote_queue {
	struct remote *remote;
	struct sys_reactor *reactor;
	unsigned number;

	/* The reactor's own. */
	uint32_t session; /* whose operations it takes; 0: nobody's */
	struct transport_conn *conn; /* NULL while there is none */
	/* For credit, in order; or, while there is no connection, for one: then these are READs only. */
	struct backend_io_list waiting;
	uint64_t connected_ns;
	unsigned nr_done;
	struct sys_timer patience; /* armed while there is no connection and a READ waits for one */
	struct sys_timer observe;

	/* Written by the reactor, read by anybody. */
	atomic_uint_fast64_t nr_waiting;
	atomic_uint_fast64_t heartbeat_rtt_ns;

	/* Written by the reactor under remote->lock. */
	enum remote_link link;
} __attribute__((aligned(FSW_CACHE_LINE)));

struct remote {
	struct backend backend;
	struct transport_driver *driver;
	unsigned queue_depth;
	unsigned dead_ms;

	/* The control thread's own. */
	struct remote_session session;
	bool in_session;
	const char *_Atomic transport; /* of the latest session */
	atomic_uint session_number; /* of the latest session; 0 before the first */

	struct lock_mutex lock;
	pthread_cond_t changed; /* of CLOCK_MONOTONIC: nr_failed or woken */
	bool woken LOCK_GUARDED_BY(lock);
	unsigned nr_failed LOCK_GUARDED_BY(lock); /* queues whose link is FAILED */
	int last_error LOCK_GUARDED_BY(lock);
	uint64_t nr_reconnects LOCK_GUARDED_BY(lock);
	uint64_t down_since_ns LOCK_GUARDED_BY(lock);

	struct remote_queue queues[]; /* backend.nr_queues */
};

static inline struct remote *remote_of(struct backend *backend)
{
	return BASE_CONTAINER_OF(backend, struct remote, backend);
}

extern const struct backend_ops remote_ops;

void remote_queue_init(struct remote_queue *queue, struct remote *remote, unsigned number, struct sys_reactor *reactor);

/* For sys_reactor_call. Hands the queue a connection, which it owns from then on, whatever becomes of it. */
struct remote_attach {
	struct remote_queue *queue;
	struct transport_conn *conn;
	uint32_t session;
	int ret; /* of transport_attach */
};
void remote_queue_attach(void *attach);

/* For sys_reactor_call; the argument is the queue. As if its connection had failed: it takes operations of the session. */
void remote_queue_resume(void *queue);

/* For sys_reactor_call; the argument is the queue. Closes its connection and ends every operation with -ENODATA. */
void remote_queue_hang_up(void *queue);

#endif

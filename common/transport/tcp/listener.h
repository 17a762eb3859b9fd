/*
 * The lender's end of TCP, between listener.c (the port, the workers, the counters), table.c (who has come in by it) and
 * peer.c (one connection).
 *
 * A peer belongs to one worker, and so to one reactor, from the accept until it is released. The tables that workers
 * share are behind one lock, taken when connections come and go, never for an operation. What one worker wants of
 * another's peer it says by a nudge: a mark under the lock, and a message to the peer's reactor.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TCP_LISTENER_H
#define FARSWAP_COMMON_TRANSPORT_TCP_LISTENER_H

#include <stdatomic.h>

#include "common/base/lock.h"
#include "common/transport/tcp/lender.h"
#include "common/transport/tcp/tcp.h"

enum tcp_peer_state {
	TCP_PEER_FREE,	   /* in the listener's list, or between that and its worker */
	TCP_PEER_GREETED,  /* HELLO has left, AUTH is to come */
	TCP_PEER_WAITING,  /* proven; an older connection on the same lease and channel has to end first */
	TCP_PEER_SERVING,  /* READY has left */
	TCP_PEER_CUT,	   /* has ended; perhaps a nudge is still on its way */
};

struct tcp_worker;

struct tcp_peer {
	/* The worker's. */
	enum tcp_peer_state state;
	struct tcp_worker *worker;
	struct sys_watch watch;
	struct sys_deferred flush;
	bool hot; /* asked in every turn, not only when epoll says so */
	bool alive; /* bytes have come in this turn */
	uint64_t polled_ns; /* the turn in which the socket was read last */
	uint64_t deadline_ns; /* of the handshake */
	uint64_t life_ns; /* when the peer showed life last */
	uint64_t renewed_ns; /* when the target was asked last */
	TAILQ_ENTRY(tcp_peer) worker_link;
	TAILQ_ENTRY(tcp_peer) hot_link;
	struct wire_hello hello;
	struct wire_auth auth;
	uint8_t auth_bytes[WIRE_AUTH_BYTES];
	uint32_t auth_len_bytes;
	struct transport_session *session;
	struct tcp_lender lender;
	char name[SYS_ADDRESS_MAX];

	/* Under the listener's lock. */
	struct sys_message nudge;
	bool nudged; /* the message is on its way */
	bool unwanted; /* it is to end: fenced, or evicted */
	bool admitted; /* counts against max_connections */
	uint64_t serial; /* order of admission; 0: not in the table */
	TAILQ_ENTRY(tcp_peer) table_link; /* in the list of those free, in the handshake, or proven */
};

TAILQ_HEAD(tcp_peer_list, tcp_peer);

struct tcp_worker {
	struct tcp_listener *listener;
	struct sys_reactor *reactor;
	struct sys_poller poller; /* added while there are hot peers */
	struct sys_timer tick;
	struct tcp_peer_list peers;
	struct tcp_peer_list hot;
	unsigned nr_hot;
};

struct tcp_listener {
	struct tcp_listener_options options;
	struct sys_address address;
	struct sys_watch watch; /* of the port; on the first worker's reactor */
	struct sys_message resume; /* to the first worker: accept again */
	struct tcp_peer *peers;
	unsigned nr_peers;
	struct tcp_worker *workers;
	unsigned nr_workers;
	unsigned next_worker;
	uint64_t tick_ns;

	struct lock_mutex lock;
	struct tcp_peer_list free LOCK_GUARDED_BY(lock);
	struct tcp_peer_list greeted LOCK_GUARDED_BY(lock); /* oldest first */
	struct tcp_peer_list proven LOCK_GUARDED_BY(lock);
	unsigned nr_admitted LOCK_GUARDED_BY(lock);
	uint64_t last_serial LOCK_GUARDED_BY(lock);
	bool paused LOCK_GUARDED_BY(lock);   /* nobody is accepted before a peer is free */
	bool resuming LOCK_GUARDED_BY(lock); /* that message is on its way */
	bool closing LOCK_GUARDED_BY(lock);

	atomic_uint_fast64_t accepted;
	atomic_uint_fast64_t admitted;
	atomic_uint_fast64_t refused;
	atomic_uint_fast64_t protocol_errors;
	atomic_uint_fast64_t truncated;
	atomic_uint_fast64_t timeouts;
	atomic_uint_fast64_t connections;
};

/* peer.c; all on the peer's reactor. */

/* The message that a peer is sent: it starts, ends, tries to be admitted again, or is released, as its state says. */
void tcp_peer_nudged(struct sys_message *message);
/* What a worker does for its peers now and then: deadlines, silence, leases. */
void tcp_peer_tick(struct tcp_peer *peer, uint64_t now_ns);
/* Reads what is there, if this turn has not done so; the number of times something was. */
unsigned tcp_peer_poll(struct tcp_peer *peer);
/* Ends the connection for err. */
void tcp_peer_cut(struct tcp_peer *peer, int err);

/* table.c; on any worker's reactor. */

/*
 * True when there is a peer for one more connection. When there is not, the stranger that has been here longest is shown
 * the door, and the next one waits at the port until it has gone: a crowd of them keeps nobody out.
 */
bool tcp_listener_has_room(struct tcp_listener *listener);
/* Gives a connection to the next worker. There is room, and only the first worker asks. */
void tcp_listener_give(struct tcp_listener *listener, int fd, const struct sys_address *address);
/* The peer has proven itself: it enters the table. 0; -EMFILE when there are enough; -ECANCELED when unwanted. */
int tcp_listener_enter(struct tcp_listener *listener, struct tcp_peer *peer) BASE_MUST_CHECK;
/*
 * True when no older peer is left on the same lease and channel. Else those are told to end, and the peer is nudged when
 * one has.
 */
bool tcp_listener_fence(struct tcp_listener *listener, struct tcp_peer *peer);
/* The peer has ended; it is free again, now or when its nudge has come. */
void tcp_listener_release(struct tcp_listener *listener, struct tcp_peer *peer);
/* The nudge has come. True when the peer is unwanted; a peer that was cut is free after it. */
bool tcp_listener_take_nudge(struct tcp_listener *listener, struct tcp_peer *peer);

/* listener.c; on any worker's reactor. */

/* Counts and tells the target that a peer was not admitted, or cut, for err. */
void tcp_listener_count(struct tcp_listener *listener, const char *name, int err);
/* A worker's list of hot peers. */
void tcp_worker_heat(struct tcp_worker *worker, struct tcp_peer *peer);
void tcp_worker_cool(struct tcp_worker *worker, struct tcp_peer *peer);

#endif

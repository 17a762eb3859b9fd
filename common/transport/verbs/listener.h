/*
 * The lender's end, between listener.c (the port, its reactor, the tick), session.c (one connection) and client.c (what all
 * connections of one lease share).
 *
 * All of it runs on one reactor, which serves nothing else, but for open and close (control threads). What it does is rare
 * (connections, slabs that are asked for, a look at the heartbeats) and may take milliseconds; operations need no thread here,
 * but the first of a connection on a slab waits for the answer where it is. The windows are touched by others too: who
 * takes a slab back calls their revoke, on his own thread.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_VERBS_LISTENER_H
#define FARSWAP_COMMON_TRANSPORT_VERBS_LISTENER_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "common/base/lock.h"
#include "common/mem/region.h"
#include "common/transport/verbs/verbs.h"
#include "common/wire/verbs.h"

#define LENDER_MAX_CHANNELS 256 /* of one lease, whose counters are remembered */

/* A slab that is registered for a lease. */
struct verbs_window {
	struct transport_window head;
	struct verbs_listener *listener;
	struct verbs_client *client;   /* NULL: it could not be closed, and its client has gone */
	LIST_ENTRY(verbs_window) link; /* in the client's list, or the listener's */
	uint32_t slab;
	uint32_t key;
	/* Under the listener's windows_lock. */
	struct ibv_mr *mr; /* NULL: not yet, or revoked */
	uint64_t len_bytes;
};

/* A lease that somebody has connected to. Lives as long as the lease, so that nothing is registered twice. */
struct verbs_client {
	LIST_ENTRY(verbs_client) link;
	struct verbs_listener *listener;
	uint64_t lease_id;
	struct verbs_port *port; /* the device of its connections; NULL while it has none */
	struct ibv_pd *pd;
	unsigned nr_sessions;
	LIST_HEAD(, verbs_window) windows;
	uint16_t channels[LENDER_MAX_CHANNELS];
	uint64_t counters[LENDER_MAX_CHANNELS]; /* the last one of each channel; 0: the place is unused */
};

/* A device that connections have come in by, and where it tells of completions. */
struct verbs_port {
	LIST_ENTRY(verbs_port) link;
	struct ibv_context *context;
	struct ibv_device_attr attr;
	struct ibv_comp_channel *channel;
	struct sys_watch watch;
};

/* A question of the peer's, and the receive that it came in by, which is not posted meanwhile. */
struct verbs_asked {
	unsigned receive;
	struct wire_verbs_map map;
};

struct verbs_session {
	TAILQ_ENTRY(verbs_session) link;
	struct verbs_listener *listener;
	struct verbs_client *client;
	uint16_t channel;
	bool established;
	struct rdma_cm_id *id;
	struct ibv_cq *cq;
	struct ibv_mr *beat_mr;
	struct ibv_mr *messages_mr;
	struct transport_session *session;
	struct verbs_slot *slot;
	unsigned nr_replies; /* that the device has not told to be sent */
	unsigned next_reply;
	/* A ring of questions that are not answered yet, the oldest one's number, and how many there are. */
	struct verbs_asked asked[WIRE_VERBS_MAX_MAPS];
	unsigned first_asked;
	unsigned nr_asked;
	uint64_t deadline_ns; /* of the handshake */
	uint64_t life_ns;
	uint64_t beat_counter;
	uint64_t read_bytes; /* that have been accounted */
	uint64_t written_bytes;
	char name[SYS_ADDRESS_MAX];
};

/* What the device reads and writes for a session. */
struct verbs_slot {
	_Atomic uint64_t beat[FSW_CACHE_LINE / sizeof(uint64_t)]; /* struct wire_verbs_beat; the peer writes it */
	uint8_t receives[WIRE_VERBS_MAX_MAPS][FSW_CACHE_LINE];
	uint8_t replies[WIRE_VERBS_MAX_MAPS][FSW_CACHE_LINE];
};

TAILQ_HEAD(verbs_session_list, verbs_session);

struct verbs_listener {
	struct verbs_listener_options options;
	struct sys_address address;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	struct sys_watch watch;
	struct sys_timer tick;
	uint64_t tick_ns;
	struct mem_region slots_region; /* one slot for each of sessions */
	struct verbs_session *sessions; /* max_connections of them */
	struct verbs_session_list free;
	struct verbs_session_list serving;
	LIST_HEAD(, verbs_client) clients;
	LIST_HEAD(, verbs_port) ports;
	LIST_HEAD(, verbs_window) stuck_windows;

	/* Held while a window is made, so that who takes it back waits for that; taken by revoke. */
	struct lock_mutex windows_lock;

	atomic_uint_fast64_t accepted;
	atomic_uint_fast64_t admitted;
	atomic_uint_fast64_t refused;
	atomic_uint_fast64_t protocol_errors;
	atomic_uint_fast64_t timeouts;
	atomic_uint_fast64_t connections;
	atomic_uint_fast64_t nr_windows;
};

/* ---- listener.c ---- */

/* Counts and tells the target that a peer was not admitted, or cut, for err. */
void verbs_listener_count(struct verbs_listener *listener, const char *name, int err);
uint64_t verbs_listener_now_ns(const struct verbs_listener *listener);
/* The port of this device, made if it is new. 0 or a negative errno. */
int verbs_listener_port(struct verbs_listener *listener, struct ibv_context *context,
			struct verbs_port **ret_port) BASE_MUST_CHECK;

/* ---- session.c ---- */

/* Somebody wants to connect: admits or refuses him. The id becomes a session's, or is destroyed. */
void verbs_session_request(struct verbs_listener *listener, struct rdma_cm_id *id, const struct rdma_conn_param *param);
/* An event of the session's id. */
void verbs_session_event(struct verbs_session *session, enum rdma_cm_event_type event, int status);
/* Something is in its completion queue. */
void verbs_session_complete(struct verbs_session *session);
void verbs_session_tick(struct verbs_session *session, uint64_t now_ns);
/* Ends the connection for err: the device does nothing for it any more. */
void verbs_session_cut(struct verbs_session *session, int err);

/* ---- client.c ---- */

/*
 * The client with this lease, made if it is new, with a protection domain on this device. 0; -EMFILE when it has connections
 * by another device; -ENOMEM.
 */
int verbs_client_get(struct verbs_listener *listener, uint64_t lease_id, struct verbs_port *port,
		     struct verbs_client **ret_client) BASE_MUST_CHECK;
/* 0 and takes note of it when the counter is above the last one of the channel. -EACCES: replayed; -EMFILE: no place. */
int verbs_client_check_counter(struct verbs_client *client, uint16_t channel, uint64_t counter) BASE_MUST_CHECK;
/* Where a slab is, by a window that is made if there is none. What goes back to the peer. */
void verbs_client_map(struct verbs_client *client, struct transport_session *session, const struct wire_verbs_map *map,
		      struct wire_verbs_mapped *ret_mapped);
/* Gives up all windows, and the client. No session is left. */
void verbs_client_free(struct verbs_client *client);
/* Frees those without a session whose lease has ended. */
void verbs_clients_sweep(struct verbs_listener *listener);
/* Those that could not be closed, at the listener's end: after it nobody is lent anything. */
void verbs_stuck_windows_free(struct verbs_listener *listener);

#endif

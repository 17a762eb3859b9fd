/*
 * The initiator's connection, between connect.c (which makes it, on a control thread), conn.c (which runs it, on its reactor),
 * send.c (what is posted, and what has become of it) and places.c (where slabs are).
 *
 * An operation is in one of three lists: `queue` (in order; of the first, progress_bytes have been posted), `unplaced` (it
 * waits to hear where its slab is), `posted` (all of it has been, or is in the batch, which the end of the turn posts; op->tag
 * work requests of it are not complete).
 */
#ifndef FARSWAP_COMMON_TRANSPORT_VERBS_CONN_H
#define FARSWAP_COMMON_TRANSPORT_VERBS_CONN_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "common/mem/region.h"
#include "common/transport/verbs/device.h"
#include "common/wire/verbs.h"

#define CONN_MAX_SGE 16	      /* pieces of one work request */
#define CONN_MAX_INLINE 128   /* bytes that go with the work request, if the device takes so many */
#define CONN_BATCH 64	      /* work requests in one doorbell */
#define CONN_CHUNK_BYTES (16u << 10) /* in which memory that is not registered is copied */
#define CONN_NR_CHUNKS 64
/* Places in the send queue that operations leave free, for the heartbeat and for questions about slabs. */
#define CONN_RESERVE (WIRE_VERBS_MAX_MAPS + 2)
#define CONN_PLACE_SETS 256
#define CONN_PLACE_WAYS 4

enum verbs_wr_kind { VERBS_WR_OP, VERBS_WR_BEAT, VERBS_WR_MAP };

/* A work request in the send queue. */
struct verbs_wr {
	struct transport_op *op; /* of VERBS_WR_OP */
	uint32_t skip_bytes;	 /* of the operation, before this part of it */
	uint32_t len_bytes;
	int16_t chunk; /* whose bytes are in a chunk: its number; else -1 */
	uint8_t kind;
};

/* Where a slab is. */
struct verbs_place {
	uint32_t slab;
	uint32_t key;
	uint32_t rkey;
	uint64_t address;
	uint64_t len_bytes; /* 0: unused */
};

/* Where is this slab? */
struct verbs_question {
	bool asked; /* and not answered */
	uint32_t slab;
	uint32_t key;
};

/* What the device reads and writes of the connection's own: one registration. */
struct verbs_own {
	uint8_t chunks[CONN_NR_CHUNKS][CONN_CHUNK_BYTES];
	uint8_t receives[WIRE_VERBS_MAX_MAPS][FSW_CACHE_LINE];
	uint8_t maps[WIRE_VERBS_MAX_MAPS][FSW_CACHE_LINE];
	uint8_t beat[FSW_CACHE_LINE];
};

struct verbs_batch {
	struct ibv_send_wr wrs[CONN_BATCH];
	struct ibv_sge sges[CONN_BATCH][CONN_MAX_SGE];
	unsigned nr;
	/* Since the last one that tells of its completion. */
	unsigned nr_silent;
	uint32_t silent_bytes;
};

struct verbs_conn {
	struct transport_conn head;
	struct verbs_driver *driver;
	struct verbs_device *device;
	int err;       /* why it is down; 0 while it is not */
	bool starved;  /* a submit has been answered -EAGAIN: writable is owed */
	bool armed;    /* the completion queue tells by its channel of what comes */
	bool bouncing; /* the operation that is being posted has been counted */

	/* Made by connect.c. */
	struct rdma_event_channel *events;
	struct rdma_cm_id *id; /* with the queue pair; NULL or without one when that is gone */
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_mr *own_mr;
	struct mem_region own_region;
	struct mem_region books_region; /* holds what the pointers below point at */
	struct verbs_own *own;
	struct verbs_batch *batch;
	struct verbs_wr *wrs; /* a ring of nr_wrs, a power of two; by sequence number */
	struct verbs_place (*places)[CONN_PLACE_WAYS];
	uint32_t nr_wrs;
	uint32_t max_wrs; /* that the device's send queue has room for; at most nr_wrs */
	unsigned max_sge;
	unsigned max_inline_bytes;
	uint64_t beat_address;
	uint32_t beat_rkey;

	/* send.c */
	uint64_t first_wr; /* sequence numbers: of the oldest that is not complete, */
	uint64_t next_wr;  /* and of the next; the batch's are the last before it */
	struct transport_op_list queue;
	struct transport_op_list unplaced;
	struct transport_op_list posted;
	struct transport_op *culprit; /* whose failure has taken the connection down, */
	int culprit_status;	      /* and what it ends with */
	uint16_t free_chunks[CONN_NR_CHUNKS];
	unsigned nr_free_chunks;
	unsigned memory_hint;
	uint64_t done_bytes[TRANSPORT_WRITE + 1]; /* by opcode */

	/* places.c */
	struct verbs_question questions[WIRE_VERBS_MAX_MAPS];
	unsigned nr_asked; /* of them */
	unsigned next_way;

	/* conn.c */
	struct sys_watch completions;
	struct sys_watch disconnects;
	struct sys_poller poller;
	bool polling;
	struct sys_deferred flush;
	struct sys_deferred fall;
	struct sys_timer timer;
	uint64_t heartbeat_ns;
	uint64_t dead_ns;
	uint64_t completed_ns; /* when anything was completed last */
	uint64_t waits_ns;     /* since when something is in flight and nothing has come; 0: nothing is */
	uint64_t beat_ns;      /* when the beat under way was posted */
	uint64_t told_bytes;   /* of done_bytes, by beats */
	struct wire_verbs_beat beat;
	bool beating;

	/* farewell.c */
	TAILQ_ENTRY(verbs_conn) leaving_link;
	uint64_t leaves_at_ns; /* at the latest */
};

/* ---- connect.c ---- */

/* Ends the queue pair: the device touches no memory of an operation any more. Safe if it has ended. */
void verbs_conn_sever(struct verbs_conn *conn);
/* Severed, off its reactor, and without operations. */
void verbs_conn_free(struct verbs_conn *conn);

/* ---- conn.c ---- */

/* Sets what the reactor needs. heartbeat_ms is below dead_ms. */
void verbs_conn_init(struct verbs_conn *conn, unsigned heartbeat_ms, unsigned dead_ms);
/* The connection is down; the rest follows at the end of the turn. */
void verbs_conn_fail(struct verbs_conn *conn, int err);

static inline bool verbs_conn_waits(const struct verbs_conn *conn)
{
	return conn->first_wr != conn->next_wr || conn->nr_asked > 0;
}

/* ---- farewell.c ---- */

/*
 * Closed, off its reactor, without operations, and its last beat is on its way: it is severed and freed on the driver's own
 * thread when that has arrived, or a moment later.
 */
void verbs_farewell_wait(struct verbs_conn *conn);

/* ---- send.c: all on the reactor ---- */

/* Into the batch if it can be, else into the queue. Fails nothing, and ends nothing. */
void verbs_send_op(struct verbs_conn *conn, struct transport_op *op);
/* Builds work requests of what is queued, as far as there is room, and rings the bell once. */
void verbs_send_flush(struct verbs_conn *conn);
/* Adds the heartbeat, in front of what is queued. Unless one is under way. */
void verbs_send_beat(struct verbs_conn *conn);
/* A completion of the send queue. The connection may have failed. */
void verbs_send_completed(struct verbs_conn *conn, const struct ibv_wc *wc);
/* The operation is done; it is in `list`. */
void verbs_send_finish(struct verbs_conn *conn, struct transport_op_list *list, struct transport_op *op, int status);
/* Runs done with err for every operation, but for the culprit, which has a status of its own. After sever. */
void verbs_send_cancel(struct verbs_conn *conn, int err);
/* A place in the batch for one more work request, in the send queue's order, with its wr_id; for places.c. */
struct ibv_send_wr *verbs_send_add(struct verbs_conn *conn, const struct verbs_wr *wr);
static inline bool verbs_send_has_room(const struct verbs_conn *conn, unsigned reserve)
{
	return conn->next_wr - conn->first_wr + reserve < conn->max_wrs;
}

/* ---- places.c: all on the reactor, but for verbs_places_post ---- */

#define VERBS_RECEIVE_ID (1ull << 63) /* in a wr_id: a receive, and its number */

/* Posts receive number i. 0 or a negative errno. */
int verbs_places_post(struct verbs_conn *conn, unsigned i) BASE_MUST_CHECK;
/* Where a slab is, or NULL. */
const struct verbs_place *verbs_place_find(struct verbs_conn *conn, uint32_t slab, uint32_t key);
/* Asks for those slabs that `unplaced` waits for, as far as there is room. */
void verbs_places_ask(struct verbs_conn *conn);
/* An answer has come in. 0, or -EPROTO: the connection must go down. */
int verbs_places_received(struct verbs_conn *conn, const struct ibv_wc *wc) BASE_MUST_CHECK;

#endif

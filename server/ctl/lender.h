/*
 * The lender: who gets slabs, and what has to happen, in which order, when they are taken back. It puts the arena, the
 * table of leases and the exposition together, and knows nothing of RPC.
 *
 * Every function may be called by any control thread that is not inside a read-side section of RCU. One lock; it is
 * never held during a grace period, nor while `changed` runs. Lock order: the lender's, then the arena's.
 *
 * A lease that ends, in this order: nobody can join it or get slabs for it; its keys are revoked; a grace period
 * passes, after which no reactor touches its slabs; they are given to the scrubber; the lease is forgotten. Its
 * connections are cut by the transport, which finds out when it next asks renew; what they still ask for is refused.
 */
#ifndef FARSWAP_SERVER_CTL_LENDER_H
#define FARSWAP_SERVER_CTL_LENDER_H

#include "common/sys/clock.h"
#include "server/arena/arena.h"
#include "server/expose/expose.h"
#include "server/lease/lease.h"

#define LENDER_REASON_MAX 200 /* bytes, with the end */
#define LENDER_MAX_WATCHES 2  /* of one lease: one, and the one it had before its connection broke */
#define LENDER_MAX_GRANTS 1024u /* of one call; who wants more asks again */

static_assert(LEASE_TOKEN_BYTES == TRANSPORT_TOKEN_BYTES, "a lease's token is what data connections prove");

struct lender;

struct lender_options {
	struct arena *arena;	/* these two outlive the lender */
	struct expose *expose;
	struct sys_clock *clock; /* the one that the data path's reactors have */
	uint32_t max_leases;	 /* see struct lease_limits */
	uint32_t max_lease_slabs;
	uint32_t term_ms;
};

/* 0, -EINVAL, -ENOMEM, -ENOSYS (no random numbers). */
int lender_create(const struct lender_options *options, struct lender **ret_lender) BASE_MUST_CHECK;
/* No other thread may be inside it. Ends every lease first. Accepts NULL. */
void lender_free(struct lender *lender);

/*
 * From now on `changed` runs, on whatever thread calls the lender and with no lock held, when something has happened
 * that a watch may have to tell of. Before any other thread calls the lender.
 */
void lender_on_change(struct lender *lender, void (*changed)(void *user), void *user);

/* Starts the thread that calls lender_tick. 0 or a negative errno of pthread_create. */
int lender_ticker_start(struct lender *lender) BASE_MUST_CHECK;
void lender_ticker_stop(struct lender *lender);
/*
 * Ends the leases that have run out. To be called every sixteenth of the term: when the calls stay out for four times
 * as long, it is the server that did not run, and every lease gets that much more time.
 */
void lender_tick(struct lender *lender);

/* How a client proves that a lease is its own. */
struct lender_proof {
	uint64_t lease_id;
	const uint8_t *token;
	size_t token_bytes;
};

struct lender_lease {
	uint64_t id;
	uint8_t token[LEASE_TOKEN_BYTES];
};

struct lender_grant {
	uint32_t slab;
	uint32_t key;
};

/*
 * 0; -EINVAL or -ENAMETOOLONG for the name, see lease_name_check; -EBUSY while the server drains; -EMFILE when
 * max_leases are open.
 */
int lender_open_lease(struct lender *lender, const char *client_name, uint64_t client_id,
		      struct lender_lease *ret_lease) BASE_MUST_CHECK;

/*
 * Lends up to nr slabs, at most LENDER_MAX_GRANTS, once for each request_number: if slabs were lent under it before, by a
 * call whose answer the client may not have, the answer is those of them that the lease still holds, and no more. nr of 0
 * closes the number: it answers the same, which may be none, and no call lends anything under it any more.
 *
 * How many are in ret_grants, which has room for as many as any call asked for under this number. -ENOENT no such lease
 * (any more); -EACCES a wrong token; -ESTALE the number is closed, what was lent under it has been given back, or a later
 * one was served. And if nothing was lent under the number yet: -EBUSY while the server drains; -EDQUOT the lease holds
 * all that it may; -ENOSPC no slab is free; these leave the number as it was.
 */
int lender_lease_slabs(struct lender *lender, const struct lender_proof *proof, uint64_t request_number, uint32_t nr,
		       struct lender_grant ret_grants[]) BASE_MUST_CHECK;

/*
 * Takes back those of the nr slabs that the lease holds with that key; the rest is passed over, so that a call may come
 * twice or late. Blocks for a grace period. How many; -ENOENT, -EACCES as above. `grants` is changed.
 */
int lender_release_slabs(struct lender *lender, const struct lender_proof *proof, struct lender_grant *grants,
			 uint32_t nr) BASE_MUST_CHECK;

/* Ends the lease and takes all its slabs back. Blocks for a grace period. 0, -ENOENT, -EACCES. */
int lender_close_lease(struct lender *lender, const struct lender_proof *proof) BASE_MUST_CHECK;

struct lender_capacity {
	struct arena_counts slabs;
	uint32_t nr_leases;
	bool accepting;
};
void lender_capacity(struct lender *lender, struct lender_capacity *ret_capacity);

struct lender_lease_info {
	uint64_t id;
	uint64_t client_id;
	char client_name[LEASE_NAME_MAX];
	uint32_t nr_slabs;
	uint32_t nr_watches;
	uint64_t age_ns;
	uint64_t renewed_ago_ns;
	struct expose_lease_info data;
};
/* Up to max leases that are active, in no order. How many. */
uint32_t lender_list(struct lender *lender, uint32_t max, struct lender_lease_info ret_infos[]) BASE_MUST_CHECK;

/*
 * Lends nothing any more, and has every watch tell its client to give all back within deadline_ms (0: no deadline; the
 * lender itself takes nothing by force). Asking again sets deadline and reason anew. With `stopping` it cannot be taken
 * back. 0 and the number of leases that were asked; -EINVAL or -ENAMETOOLONG for the reason, see lease_text_check;
 * -ESHUTDOWN when the server is stopping already.
 */
int lender_request_drain(struct lender *lender, uint64_t deadline_ms, const char *reason, bool stopping,
			 uint32_t *ret_nr_leases) BASE_MUST_CHECK;
/* 0, also when there was no drain; -ESHUTDOWN when the server is stopping. */
int lender_cancel_drain(struct lender *lender) BASE_MUST_CHECK;

/* What the holder of a lease is told. */
enum lender_event_type {
	LENDER_EVENT_NONE,
	LENDER_EVENT_DRAIN_REQUESTED,
	LENDER_EVENT_DRAIN_CANCELLED,
	LENDER_EVENT_LEASE_ENDED, /* the last one */
};
struct lender_event {
	enum lender_event_type type;
	uint64_t deadline_ms; /* what is left of it, at least 1; 0: none */
	char reason[LENDER_REASON_MAX];
};

struct lender_watch;

/* A drain that is on is the first event. 0, -ENOENT, -EACCES, -EMFILE (LENDER_MAX_WATCHES), -ENOMEM. */
int lender_watch_open(struct lender *lender, const struct lender_proof *proof, struct lender_watch **ret_watch)
	BASE_MUST_CHECK;
/* What has happened since the last call; never waits. A drain that came and went in between is not told. */
void lender_watch_next(struct lender *lender, struct lender_watch *watch, struct lender_event *ret_event);
/* Accepts NULL. */
void lender_watch_close(struct lender *lender, struct lender_watch *watch);

#endif

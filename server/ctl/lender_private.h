/*
 * The inside of the lender, for lender.c (leases and slabs) and drain.c (drains and those who watch for them).
 */
#ifndef FARSWAP_SERVER_CTL_LENDER_PRIVATE_H
#define FARSWAP_SERVER_CTL_LENDER_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>

#include "common/base/lock.h"
#include "server/ctl/lender.h"

struct lender_drain {
	uint64_t number; /* of requests and cancellations so far */
	bool on;
	bool stopping;	      /* and never off again */
	uint64_t deadline_ns; /* 0: none */
	char reason[LENDER_REASON_MAX];
};

struct lender {
	struct arena *arena;
	struct expose *expose;
	struct sys_clock *clock;
	uint32_t tick_ms;
	void (*changed)(void *user);
	void *user;

	struct lock_mutex lock;
	struct lease_table *leases; /* the table stays where it is; what is in it is under the lock */
	LIST_HEAD(, lender_watch) watches LOCK_GUARDED_BY(lock);
	struct lender_drain drain LOCK_GUARDED_BY(lock);
	uint64_t ticked_ns LOCK_GUARDED_BY(lock);
	bool stop LOCK_GUARDED_BY(lock); /* of the ticker */

	pthread_cond_t wake; /* the ticker, to stop */
	pthread_t ticker;
	bool ticker_runs;
};

/* Tells the listener that watches may have something to say. Without the lock. */
void lender_notify(struct lender *lender) LOCK_EXCLUDES(lender->lock);

/* The active lease that the proof is for. 0, -ENOENT, -EACCES. */
int lender_find_locked(struct lender *lender, const struct lender_proof *proof, struct lease **ret_lease)
	BASE_MUST_CHECK LOCK_REQUIRES(lender->lock);

/* Those who watch the lease have one more event to be told, and then no lease. */
void lender_watches_end_locked(struct lender *lender, const struct lease *lease, const char *reason)
	LOCK_REQUIRES(lender->lock);
/* How many watch it. */
uint32_t lender_nr_watches_locked(struct lender *lender, const struct lease *lease) LOCK_REQUIRES(lender->lock);

#endif

/*
 * What the files of provision share.
 */
#ifndef FARSWAP_CLIENT_CTL_PROVISION_PRIVATE_H
#define FARSWAP_CLIENT_CTL_PROVISION_PRIVATE_H

#include <pthread.h>

#include "client/ctl/provision.h"
#include "client/ctl/supply.h"
#include "common/base/lock.h"

struct provision {
	struct provision_options options;
	struct supply_config config;
	unsigned nr_keepers;
	struct keeper *keeper[PROVISION_MAX_KEEPERS];

	/* The thread's own. */
	uint64_t started_ns;
	struct rand_state rand;
	struct supply_source source[PROVISION_MAX_KEEPERS + 1]; /* as the keepers; the disk last */
	int last;		/* keeper that was last asked */
	uint64_t excess_ns;	/* since when there is too much; 0: there is not */
	bool is_resumed; /* a dead daemon has left pages */
	bool refill_failed;
	bool dry; /* it was said that there is no room left */
	struct backend_slab **disk_slabs; /* that vswap has */

	pthread_t thread;
	bool started;
	struct lock_mutex lock;
	pthread_cond_t changed; /* of CLOCK_MONOTONIC; both for the thread and for those who wait for it */
	bool stopping LOCK_GUARDED_BY(lock);
	bool woken LOCK_GUARDED_BY(lock);
	bool ready LOCK_GUARDED_BY(lock); /* what provision_wait waits for */
	uint64_t nr_turns LOCK_GUARDED_BY(lock);
	uint64_t free_slots LOCK_GUARDED_BY(lock);
	uint32_t nr_disk_slabs LOCK_GUARDED_BY(lock);
};

/* The servers have had their time to answer: from now on the disk stands in for those that do not. */
bool provision_has_settled(const struct provision *provision);

/* ---- provision_disk.c ---- */

/* 0 or -ENOMEM. */
int provision_disk_init(struct provision *provision) BASE_MUST_CHECK;
/* vswap is gone. */
void provision_disk_done(struct provision *provision);
/* The thread: fetches what is wanted of the disk, and gives back what is too much. */
void provision_look_after_disk(struct provision *provision, struct supply_totals *totals, uint64_t target);

#endif

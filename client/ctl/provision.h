/*
 * Provision: a thread that sees to it that there are always free slots ahead of need, and not too many. It acts on the rule of
 * supply.h: asks keepers for slabs and lets them give slabs back, and takes slabs of the local disk when no server can give.
 * It also fills vswap's reserve of tables, and has the drains ticked.
 *
 * It looks every 100 ms, every 5 ms while there is less than there should be, and at once when something has changed or a
 * write has found no room.
 */
#ifndef FARSWAP_CLIENT_CTL_PROVISION_H
#define FARSWAP_CLIENT_CTL_PROVISION_H

#include "client/ctl/drains.h"
#include "client/ctl/keeper.h"
#include "client/vswap/admin.h"
#include "common/base/base.h"

#define PROVISION_MAX_KEEPERS 63u

struct provision;

struct provision_options {
	struct vswap *vswap; /* these three outlive its thread */
	struct drains *drains;
	struct backend *disk;	/* NULL: none */
	uint64_t disk_slab_bytes;
	uint64_t nr_pages;	/* of the device */
	uint64_t ahead_bytes;	/* free room to be kept; 0: four slabs */
	unsigned nr_queues;	/* of vswap, the mover's included */
	uint64_t seed;
};

/* Control thread, before the reactors start: from now on vswap asks it for room. 0 or -ENOMEM. */
int provision_create(const struct provision_options *options, struct provision **ret_provision) BASE_MUST_CHECK;
/* Before provision_start. The keeper outlives provision's thread. 0 or -ENOSPC. */
int provision_add_keeper(struct provision *provision, struct keeper *keeper) BASE_MUST_CHECK;
/*
 * Control thread, before provision_start and before the reactors turn. Gives vswap the slabs of the disk again that a dead
 * daemon has left on record. 0; -ENOMEM; -EUCLEAN: the disk has no such slab.
 */
int provision_resume(struct provision *provision, struct state *state) BASE_MUST_CHECK;
/* Control thread. 0 or a negative errno of pthread_create. */
int provision_start(struct provision *provision) BASE_MUST_CHECK;
/* Joins the thread. Safe if never started, or more than once. */
void provision_stop(struct provision *provision);
/* After vswap_free, before disk_free: gives the disk its slabs back. Accepts NULL. */
void provision_free(struct provision *provision);

/* Something has changed: look at once. Any thread. */
void provision_wake(struct provision *provision);

/*
 * Control thread: waits until there is as much room as there should be, or, after provision_resume, until no server that has
 * pages is out of reach and there is some room, or servers have had a moment to give it (0); or until timeout_ms have passed.
 * -ETIMEDOUT: there is less room than that, and *ret_free_slots tells how much.
 */
int provision_wait(struct provision *provision, unsigned timeout_ms, uint64_t *ret_free_slots) BASE_MUST_CHECK;

/* Slabs of the disk that are in use. Any thread. */
uint32_t provision_nr_disk_slabs(struct provision *provision);

#endif

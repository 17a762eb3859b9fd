/*
 * Emptying one backend while it is in use: the swapoff of one server.
 *
 * It walks the slots of the backend's slabs by their bitmaps, finds each slot's entry by the reverse map and moves the
 * entries in jobs of the mover, a bounded number at a time. It never looks for the holders of an entry. One drain runs at
 * a time.
 *
 * Threads: the mover's reactor, but for drain_copy_progress and what admin.h names. `lock` is held for a few instructions,
 * by the mover and by who asks for progress.
 */
#ifndef FARSWAP_CLIENT_VSWAP_DRAIN_H
#define FARSWAP_CLIENT_VSWAP_DRAIN_H

#include "client/vswap/mover.h"
#include "common/base/lock.h"

struct drain {
	struct move_owner owner;
	struct vswap *vswap;
	struct place *place;
	struct vswap_drain_options options;
	struct sys_message start;
	struct sys_timer timer; /* deadline, or patience for room */
	_Atomic bool cancel;

	/* The pass under way. */
	uint32_t slab_id;   /* where the walk stands */
	uint32_t slot;
	bool at_end;	    /* every slab has been walked */
	uint64_t nr_moved_before;
	uint32_t nr_busy;   /* entries that somebody works on; the first of them is waited for */
	uint64_t busy_page;
	uint64_t nr_orphans; /* allocated slots without an entry: somebody is between two steps */
	unsigned nr_idle_passes; /* in a row, with orphans and nothing else */
	bool no_room;
	uint64_t no_room_since_ns;
	unsigned nr_jobs;
	uint32_t nr_pages_moving; /* of these jobs */
	bool waits; /* for the entry of busy_page */
	struct io_waiter waiter;
	uint64_t started_ns;

	struct lock_mutex lock;
	struct vswap_drain_progress progress LOCK_GUARDED_BY(lock);
};

struct drain *drain_create(struct vswap *vswap, struct place *place);
void drain_free(struct drain *drain);

/* Goes on if it was waiting. */
void drain_resume(struct drain *drain);

#endif

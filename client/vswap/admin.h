/*
 * The operator's side of the virtual swap layer: making it, giving it slabs, draining a backend, reading its books.
 *
 * Everything here is for control threads (never a reactor's), unless it says otherwise.
 */
#ifndef FARSWAP_CLIENT_VSWAP_ADMIN_H
#define FARSWAP_CLIENT_VSWAP_ADMIN_H

#include "client/backend/backend.h"
#include "client/comp/comp.h"
#include "client/state/state.h"
#include "client/vswap/vswap.h"
#include "common/stats/histogram.h"

struct vswap_options {
	uint64_t nr_pages;     /* size of the block device; 0: there is none */
	/* Entries that folios can be allocated (swap.h), beside the device, in whole clusters; with it at most 2^32. */
	uint64_t nr_entries;
	uint32_t nr_folio_ios; /* folios that each queue can have on their way, 1 .. 4096; 0: the default, 64 */
	unsigned nr_queues;    /* front-end queues, 1 .. 32; the mover has one more */
	uint32_t max_slabs;    /* that may exist at a time, 1 .. 2^18 */
	uint32_t reserve_tables; /* cluster tables that are kept ready (each serves 2 MiB of device); 0: the default, 64 */
	uint64_t seed;	       /* of placement; 0: from the kernel */
	/*
	 * Memory of this machine for compressed pages, which they go to first: taken at once, and never exceeded. When it is
	 * nearly full, the oldest are moved to slots. 0: nothing is compressed; else as comp_pool_options (client/comp/comp.h).
	 */
	uint64_t comp_limit_bytes;
	enum comp_algorithm comp_algorithm;
	int comp_level;
	/*
	 * What the device needs to outlive the daemon is kept there; it outlives the vswap. NULL: nowhere. If a daemon that has
	 * died has left something in it, its slabs are to be added again first (vswap_slab_add_again), then everything else is
	 * derived (vswap_rebuild), and only then may requests come. Only for a device without entries or compressed pages.
	 */
	struct state *state;
};

/* 0, -EINVAL, -ENOMEM, -EUCLEAN: the state file is damaged. */
int vswap_create(const struct vswap_options *options, struct vswap **ret_vswap) BASE_MUST_CHECK;
/* All reactors stopped, all requests done. Accepts NULL. Slabs that are still there are the caller's again. */
void vswap_free(struct vswap *vswap);

/*
 * Gives queue `index` its reactor: 0 .. nr_queues - 1 for front ends, nr_queues for the mover. Once each, before the
 * reactor's thread starts. The queue uses the same number on every backend.
 */
void vswap_queue_bind(struct vswap *vswap, unsigned index, struct sys_reactor *reactor);

/*
 * Who supplies room: slabs by vswap_slab_add, tables by vswap_refill. `wanted` asks it to look: a write has found no room, or
 * the reserve of tables has become half used. It runs on a reactor, so it must not wait for anything.
 */
struct vswap_supplier {
	void (*wanted)(void *arg);
	void *arg;
};

/*
 * Without a supplier, the default, a write that finds no room waits only for slots and tables that were given back and
 * still have to wait for I/O to end. With one it waits for the supplier's answer, too; never longer than a second. Before
 * the reactors start; the supplier outlives them.
 */
void vswap_set_supplier(struct vswap *vswap, const struct vswap_supplier *supplier);
/*
 * The supplier, on one thread: begins to look after the room, and has done so. nr_asked is what begin returned; coming says
 * whether more room is under way. What was supplied between the two calls is found by the writes that wait.
 */
uint64_t vswap_supply_begin(struct vswap *vswap) BASE_MUST_CHECK;
void vswap_supply_end(struct vswap *vswap, uint64_t nr_asked, bool coming);

/*
 * Makes room for what the data path takes without allocating: cluster tables up to the reserve. To be called whenever
 * the supplier is asked, and every 100 ms. 0 or -ENOMEM (tried again at the next call).
 */
int vswap_refill(struct vswap *vswap) BASE_MUST_CHECK;

/* ---- backends and slabs ---- */

/* Before its first slab. 0; -ENOSPC when there are 64 already. */
int vswap_backend_add(struct vswap *vswap, struct backend *backend) BASE_MUST_CHECK;
/* When it has no slabs left. 0; -EBUSY when it has. */
int vswap_backend_remove(struct vswap *vswap, struct backend *backend) BASE_MUST_CHECK;

/* 0; -ENOSPC (max_slabs), -ENOMEM, -EINVAL (slots not a power of two from 2^8 to 2^18). */
int vswap_slab_add(struct vswap *vswap, struct backend_slab *slab) BASE_MUST_CHECK;

/* A slab of a state file's: under the number that it has on record, slab->id. As vswap_slab_add. */
int vswap_slab_add_again(struct vswap *vswap, struct backend_slab *slab) BASE_MUST_CHECK;

/*
 * Takes back up to `max` slabs of the backend that hold no live slot (all of them if `max` is large enough), so that they
 * can be given back to their server. None is taken that would leave less than keep_free_slots free slots on the backend.
 * Returns the number written to ret_slabs; waits for a grace period of RCU and for I/O that may still use them.
 */
unsigned vswap_slab_reclaim(struct vswap *vswap, struct backend *backend, uint64_t keep_free_slots, unsigned max,
			    struct backend_slab **ret_slabs);

struct vswap_space {
	uint32_t nr_slabs;
	uint32_t nr_empty_slabs; /* without a live slot */
	uint64_t nr_slots;
	uint64_t nr_used_slots; /* live or waiting for I/O to end before they are free */
};

/* Of one backend, or of all when backend is NULL. Any thread that is registered with RCU. */
void vswap_space(struct vswap *vswap, const struct backend *backend, struct vswap_space *ret_space);

/*
 * A number that moves on with every cluster of 512 slots that a queue begins to use: as long as it stands, free room has
 * not shrunk by much. Cheap, for who watches over the room. Any thread.
 */
uint64_t vswap_nr_clusters_opened(const struct vswap *vswap);

/*
 * The backend's slabs have lost their bytes (its state is BACKEND_LOST). Every entry that they back becomes POISON: reads
 * fail, a write or a discard makes it good again. *ret_poisoned is raised by the number of entries. 0: none of the slabs
 * holds a slot any more, all can be reclaimed; -EAGAIN: I/O that is under way still holds some, call again in a moment.
 */
int vswap_backend_lost(struct vswap *vswap, struct backend *backend, uint64_t *ret_poisoned) BASE_MUST_CHECK;

/* ---- drain ---- */

enum vswap_drain_state {
	VSWAP_DRAIN_NONE, /* never drained, or taken back into use */
	VSWAP_DRAIN_RUNNING,
	VSWAP_DRAIN_DRAINED,   /* no live slot is left: counted, not concluded */
	VSWAP_DRAIN_CANCELLED, /* the rest are ended with slots left: nothing is lost, it can be run again */
	VSWAP_DRAIN_DEADLINE,
	VSWAP_DRAIN_NO_ROOM, /* nowhere to move the rest to */
	VSWAP_DRAIN_FAILED,  /* what is left cannot be read, or its server is out of reach */
};

enum vswap_drain_target { VSWAP_DRAIN_TO_ANY, VSWAP_DRAIN_TO_REMOTE, VSWAP_DRAIN_TO_DISK };

struct vswap_drain_options {
	enum vswap_drain_target target;
	uint64_t deadline_ms; /* from now; 0: none */
	uint32_t window_pages; /* on their way at a time, 1 .. 1024; more is faster and holds reads up; 0: 128 */
};

#define VSWAP_DRAIN_MAX_STUCK 100

struct vswap_drain_progress {
	enum vswap_drain_state state;
	uint64_t nr_start;   /* live slots when it began */
	uint64_t nr_moved;   /* pages moved by it; those that were freed or written elsewhere meanwhile are not counted */
	uint64_t nr_left;    /* live slots, counted now */
	uint64_t nr_stuck;   /* slots that it could not move in its last pass */
	uint64_t elapsed_ns;
	uint64_t longest_read_ns; /* the slowest page read of any front end since it began */
	struct {
		uint32_t slab; /* the backend's number */
		uint32_t slot;
		int err;
	} stuck[VSWAP_DRAIN_MAX_STUCK];
	unsigned nr_stuck_listed;
};

/*
 * Begins to move every page off the backend: from now on nothing new is placed there, and it stays so when the drain ends,
 * however it ends, until vswap_undrain. 0; -EALREADY when one is running; -ENOENT for a backend that is not here;
 * -EBUSY while a drain of another backend is running.
 */
int vswap_drain(struct vswap *vswap, struct backend *backend, const struct vswap_drain_options *options)
	BASE_MUST_CHECK;
/* Only that nothing new is placed there, as after a drain. For a backend that was drained when its daemon died. */
void vswap_hold_back(struct vswap *vswap, struct backend *backend);
/* 0; -ENOENT when none is running. Returns at once; the state changes soon. */
int vswap_drain_cancel(struct vswap *vswap, struct backend *backend) BASE_MUST_CHECK;
/* Takes the backend back into use. 0; -EBUSY while its drain is running. */
int vswap_undrain(struct vswap *vswap, struct backend *backend) BASE_MUST_CHECK;
/* Any thread that is registered with RCU. */
void vswap_drain_progress(struct vswap *vswap, struct backend *backend, struct vswap_drain_progress *ret_progress);
/* Nothing new is placed on a backend that is draining or drained. Any thread. */
bool vswap_backend_draining(const struct backend *backend);

/* ---- books ---- */

struct vswap_stats {
	uint64_t nr_reads, nr_writes, nr_discards; /* requests done */
	uint64_t nr_pages_read, nr_pages_written, nr_pages_discarded;
	uint64_t nr_read_errors, nr_write_errors;
	uint64_t nr_checksum_errors; /* pages whose bytes did not match, each counted once */
	uint64_t nr_room_waits;	     /* times that a write had to wait for room, and looked again */
	uint64_t nr_written_back;    /* compressed pages moved to slots, to make room for others */
	struct comp_usage comp;	     /* of the pool; all 0 when there is none */
	uint64_t nr_relocated;	     /* pages written to a new slot because the old one was on its way out */
	uint64_t nr_same, nr_remote, nr_disk, nr_poisoned, nr_folio, nr_comp; /* entries by what backs them, now */
	uint64_t nr_hibernation; /* slots that are allocated for hibernation, of these */
	uint64_t metadata_bytes; /* tables, reserve included, and slot maps */
	uint64_t nr_tables, nr_tables_free;
};

/* Any thread that is registered with RCU. Numbers of different fields are not of the same instant. */
void vswap_stats(struct vswap *vswap, struct vswap_stats *ret_stats);

/* Times of page reads and writes as the front ends saw them, merged over all queues, since the start. */
void vswap_latency(struct vswap *vswap, struct stats_snapshot *ret_reads, struct stats_snapshot *ret_writes);

/*
 * Compares everything derived (slot bitmaps, counters, reverse map) with the forward words, entry by entry. 0, or the
 * number of differences, each logged. The device must be quiet: no request and no drain under way.
 */
uint64_t vswap_check(struct vswap *vswap);

#define VSWAP_CHECK_MAX_LISTED 32u
#define VSWAP_CHECK_TEXT 160u

struct vswap_check_result {
	uint64_t nr_entries;	 /* that are something, as the walk saw them */
	uint64_t nr_slots;	 /* that are allocated */
	uint64_t nr_differences; /* each is logged, the first are listed */
	uint64_t nr_unsettled;	 /* that looked wrong, but changed whenever they were looked at */
	char difference[VSWAP_CHECK_MAX_LISTED][VSWAP_CHECK_TEXT];
};

/*
 * The same on a device in use. What looks wrong is looked at again when the I/O that was under way has ended, for up to two
 * seconds. Counts of entries by kind are only compared when nothing was written, discarded or moved meanwhile. Holds up
 * nobody. 0 or -ENOMEM. A thread that is registered with RCU, and in no read-side section.
 */
int vswap_check_live(struct vswap *vswap, struct vswap_check_result *ret_result) BASE_MUST_CHECK;

/*
 * Makes everything derived anew from the forward words alone: slot bitmaps, reverse map, the counts of slots, of words in
 * tables and of entries by kind. An entry whose slot does not exist, or belongs to an entry before it, becomes POISON;
 * *ret_poisoned is their number. 0; -EBUSY while a drain runs or a failed write is not settled, and nothing is changed.
 * The device must be quiet, and its reactors must not turn meanwhile.
 */
int vswap_rebuild(struct vswap *vswap, uint64_t *ret_poisoned) BASE_MUST_CHECK;

#endif

/*
 * The physical slot map: which slots of which slab are used, and by which page.
 *
 * A slot is free, allocated or (inside "allocated") on its way to free: retired, until no I/O that may have loaded it is
 * under way, or quarantined, until a write that failed can no longer touch it. Everything here is derived from the forward
 * words; the reverse map is a hint that is always checked against the word.
 *
 * Threads: bits are set only by the queue that owns the cluster of slots (slot_cursor), and cleared by anybody; slabs come
 * and go on control threads, published by RCU. No lock, no allocation on the data path.
 */
#ifndef FARSWAP_CLIENT_VSWAP_SLAB_H
#define FARSWAP_CLIENT_VSWAP_SLAB_H

#include <stdatomic.h>

#include "client/backend/backend.h"
#include "client/state/state.h"
#include "client/vswap/word.h"
#include "common/base/base.h"
#include "common/base/rand.h"
#include "common/mem/region.h"

#define SLAB_CLUSTER_SLOTS 512u /* what one queue takes for itself at a time */
#define SLAB_MIN_SLOTS 256u
#define SLAB_EPOCHS 3u

enum slab_state {
	SLAB_ACTIVE,
	SLAB_LEAVING, /* being reclaimed: nothing new is placed there */
};

struct slab {
	struct backend_slab *lent;
	struct backend *backend;
	uint32_t id; /* as in the words */
	uint32_t nr_slots;
	uint32_t nr_clusters;
	enum word_tag tag;
	_Atomic int state;
	_Atomic uint32_t nr_used; /* bits set in `used` */
	_Atomic uint64_t quarantine_fence;
	_Atomic bool has_quarantine;
	_Atomic bool has_retired[SLAB_EPOCHS];
	struct mem_region region;
	_Atomic uint64_t *used;
	_Atomic uint64_t *retired[SLAB_EPOCHS];
	_Atomic uint64_t *quarantined;
	_Atomic uint32_t *reverse; /* page of the device */
	_Atomic uint8_t *owned;	   /* per cluster of slots: a queue allocates from it */
};

/* The slabs in the order of placement: remote ones first. Immutable; replaced as a whole under RCU. */
struct slab_list {
	uint32_t nr_remote;
	uint32_t nr;
	struct slab *slab[];
};

struct slab_map {
	_Atomic(struct slab *) *by_id; /* max_slabs */
	struct mem_region by_id_region;
	uint32_t max_slabs;
	struct state *state; /* where it is on record which slab has which number; NULL: nowhere */
	_Atomic(struct slab_list *) list;
	/* Moves on whenever a failed search may find something: slots or clusters given back, slabs added, a drain undone. */
	_Atomic uint64_t generation;
	_Atomic bool freeing; /* slots of the quarantine are being retired just now, or retired ones freed */
	_Atomic uint64_t metadata_bytes;
};

/* The open cluster of one queue. */
struct slot_cursor {
	struct slab *slab; /* NULL: none open */
	uint32_t cluster;
	uint32_t next; /* slot to look at next, in the slab */
	uint64_t failed_generation; /* of the map, when the last search began that found nothing */
	bool failed;
	bool passed_by; /* the search under way came by a slab that cannot be used just now */
	_Atomic uint64_t nr_opened; /* clusters so far; read by control threads */
	struct rand_state rand;
};

enum slot_where { SLOT_ANYWHERE, SLOT_REMOTE_ONLY, SLOT_DISK_ONLY };

/* ---- control threads; calls do not overlap (the caller's lock) ---- */

/* 0 or -ENOMEM. With a state file, no slab is in the map at first, whatever is on record. */
int slab_map_init(struct slab_map *map, uint32_t max_slabs, struct state *state) BASE_MUST_CHECK;
void slab_map_done(struct slab_map *map);
/* 0, -ENOSPC, -ENOMEM, -EINVAL. Waits for a grace period. Gives it a number, in lent->id. */
int slab_add(struct slab_map *map, struct backend_slab *lent) BASE_MUST_CHECK;
/* The same with the number, lent->id, by which words name it already; it is on record. */
int slab_add_again(struct slab_map *map, struct backend_slab *lent) BASE_MUST_CHECK;
/* Out of the list of placement and out of by_id; frees it after a grace period. No slot is used, no cursor is in it. */
void slab_remove(struct slab_map *map, struct slab *slab);

/* ---- data path; read-side section ---- */

/* NULL for a slab that has gone: the word that named it has changed. */
static inline struct slab *slab_by_id(const struct slab_map *map, uint32_t id)
{
	return atomic_load_explicit(&map->by_id[id], memory_order_acquire);
}

/* May new pages be placed on the backend of this slab, and may pages that are there be written in place? */
bool slab_is_stable(const struct slab *slab);

/* If not: how long it is worth to wait, because its server is out of reach and may be back; 0: not at all. */
uint64_t slab_patience_ns(const struct slab *slab);

/*
 * Takes one slot for `page`, right behind the one before if it can. 0; -ENOSPC when there is no room where it is asked for.
 * The slot is allocated until slot_retire, slot_quarantine or slot_free_unused.
 */
int slot_alloc(struct slab_map *map, struct slot_cursor *cursor, enum slot_where where, uint64_t page,
	       struct slab **ret_slab, uint32_t *ret_slot) BASE_MUST_CHECK;

/* Takes exactly this slot, if it is the cursor's next one and free: how a run goes on. */
bool slot_alloc_at(struct slot_cursor *cursor, struct slab *slab, uint32_t slot, uint64_t page) BASE_MUST_CHECK;

/* Whether slots that slot_alloc has just found missing are there by now, or come back when some I/O has ended or is settled. */
bool slot_is_coming(const struct slab_map *map, const struct slot_cursor *cursor);

/* How long it is worth to wait for servers that are out of reach, and will have room for a page when they are back. */
uint64_t slot_patience_ns(const struct slab_map *map);

/* Gives the open cluster back, so that others may find room in it. */
void slot_cursor_close(struct slab_map *map, struct slot_cursor *cursor);

/* Frees slots at once that no word has ever named and no I/O touches. */
void slot_free_unused(struct slab_map *map, struct slab *slab, uint32_t slot, uint32_t nr_slots);

/* Marks slots, whose words have been unpublished, as retired in epoch number `epoch`. The caller is in an epoch. */
void slot_retire(struct slab *slab, uint32_t slot, uint32_t nr_slots, uint64_t epoch);

/* Marks one slot as unusable until a write that failed when the backend's fence stood at `fence` is settled. */
void slot_quarantine(struct slab *slab, uint32_t slot, uint64_t fence);

/* ---- the mover's reactor ---- */

/* Frees everything that was retired in `epoch`. Returns the number of slots. */
uint64_t slab_free_retired(struct slab_map *map, uint64_t epoch);
/*
 * Retires, in the epoch of the caller, what is quarantined and settled by now. Returns the number of slots; *ret_left tells
 * whether some must wait.
 */
uint64_t slab_retire_quarantined(struct slab_map *map, uint64_t epoch, bool *ret_left);

/* Allocated, and neither retired nor quarantined: somebody holds it, or is about to. */
static inline uint64_t slab_live_bits(const struct slab *slab, uint32_t index)
{
	uint64_t bits = atomic_load_explicit(&slab->used[index], memory_order_acquire);
	unsigned i;

	for (i = 0; i < SLAB_EPOCHS; i++)
		bits &= ~atomic_load_explicit(&slab->retired[i][index], memory_order_relaxed);
	return bits & ~atomic_load_explicit(&slab->quarantined[index], memory_order_relaxed);
}

#endif

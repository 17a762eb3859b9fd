/*
 * The memory that a server lends: one region, pinned once at start, cut into slabs of equal size.
 *
 * Owns the region, the state of every slab, and the scrubber: the thread that zeroes a slab after one client has had it
 * and before another gets it. Knows nothing of leases, keys or connections; when it is safe to scrub a slab (nobody can
 * reach it any more) is its caller's to know.
 *
 *     FREE --take--> LEASED --fence--> FENCED --scrub--> SCRUBBING --the scrubber--> FREE
 *
 * That is the only way round: a slab that has been lent is never FREE again before it has been zeroed.
 *
 * Any control thread; a lock of its own, never held while memory is zeroed. arena_slab_base is pure and may be called
 * on any thread, reactors included.
 */
#ifndef FARSWAP_SERVER_ARENA_ARENA_H
#define FARSWAP_SERVER_ARENA_ARENA_H

#include "common/base/base.h"
#include "common/mem/region.h"

#define ARENA_SLAB_BYTES_MIN (1ull << 20)
#define ARENA_SLAB_BYTES_MAX (1ull << 32)
#define ARENA_SLAB_BYTES_DEFAULT (64ull << 20)
#define ARENA_MAX_SLABS (1u << 24)

struct arena;

enum arena_slab_state {
	ARENA_SLAB_FREE,      /* zeroed, can be lent */
	ARENA_SLAB_LEASED,    /* a client's */
	ARENA_SLAB_FENCED,    /* taken back; operations that began before may still be under way */
	ARENA_SLAB_SCRUBBING, /* nobody reaches it; waits for the scrubber or is being zeroed */
	ARENA_NR_SLAB_STATES,
};

/*
 * What a size must be: -EINVAL when slab_bytes is not a power of two from ARENA_SLAB_BYTES_MIN to ARENA_SLAB_BYTES_MAX,
 * -ERANGE when size_bytes is 0, not a multiple of slab_bytes, or more than ARENA_MAX_SLABS slabs. Else 0.
 */
int arena_size_check(uint64_t size_bytes, uint64_t slab_bytes) BASE_MUST_CHECK;

/*
 * Takes the memory: locked, touched, in huge pages where there are any; every slab is FREE. Blocks for as long as the
 * kernel needs to hand out so much. Errors of arena_size_check and of mem_region_open; -ENOMEM.
 */
int arena_open(uint64_t size_bytes, uint64_t slab_bytes, struct arena **ret_arena) BASE_MUST_CHECK;
/* Stops the scrubber. Nobody may use a slab any more. Accepts NULL. */
void arena_close(struct arena *arena);

uint32_t arena_nr_slabs(const struct arena *arena);
uint64_t arena_slab_bytes(const struct arena *arena);
/* The first byte of a slab; slab < arena_nr_slabs. */
void *arena_slab_base(const struct arena *arena, uint32_t slab);
/* What kind of pages the kernel gave. */
enum mem_region_pages arena_pages(const struct arena *arena);

/* Starts the scrubber's thread. 0 or a negative errno of pthread_create. */
int arena_scrubber_start(struct arena *arena) BASE_MUST_CHECK;
/* The turn of the scrubber: zeroes one slab, the one that has waited longest. False when none waits. */
bool arena_scrub_one(struct arena *arena);

/* FREE -> LEASED for up to nr slabs, those that have been free longest first. How many there were; 0 to nr. */
uint32_t arena_take(struct arena *arena, uint32_t nr, uint32_t ret_slabs[]) BASE_MUST_CHECK;
/* LEASED -> FENCED. The slab must be LEASED. */
void arena_fence(struct arena *arena, uint32_t slab);
/* FENCED -> SCRUBBING, once no operation can touch the slab any more. The slab must be FENCED. */
void arena_scrub(struct arena *arena, uint32_t slab);

enum arena_slab_state arena_slab_state(struct arena *arena, uint32_t slab);

/* How many slabs are in each state, all at one moment. */
struct arena_counts {
	uint32_t nr[ARENA_NR_SLAB_STATES];
	uint64_t nr_scrubbed; /* since the start */
};
void arena_counts(struct arena *arena, struct arena_counts *ret_counts);

#endif

/*
 * The rule by which slabs are fetched and given back: how much room is kept ahead of need, which server gives the next
 * slab, and how much is too much. Pure: it sees a table of numbers, and changes nothing. provision.h acts on it.
 */
#ifndef FARSWAP_CLIENT_CTL_SUPPLY_H
#define FARSWAP_CLIENT_CTL_SUPPLY_H

#include "client/backend/backend.h"
#include "common/base/base.h"
#include "common/base/rand.h"

/*
 * A server's session is in its slow start until it has given so many slabs: meanwhile it is not chosen twice in a row when
 * another can give, so that a server that comes back empty does not draw everything that is new.
 */
#define SUPPLY_SLOW_START_SLABS 8u

/* One backend as the rule sees it. Slots are pages. */
struct supply_source {
	enum backend_kind kind;
	bool in_use;   /* up, and new pages may be placed on it: its free slots count */
	bool can_give; /* in use, and it has, as far as is known, another slab for us */
	uint32_t nr_given; /* slabs that this session got, the ones under way included */
	uint32_t slab_slots;
	uint64_t free_slots;	  /* in the slabs that we have */
	uint64_t coming_slots;	  /* in slabs that were asked for and are not here yet */
	uint64_t used_slots;
	uint64_t nr_empty_slabs;
	uint64_t leaving_slots;	  /* live slots that a running drain is moving off it */
	uint64_t lendable_bytes;  /* what the server can still lend, to anybody */
	uint64_t latency_ns;
};

struct supply_config {
	uint64_t nr_pages;	/* of the device */
	uint64_t ahead_slots;	/* as configured; 0: four slabs */
	unsigned nr_queues;	/* of the virtual swap layer, the mover's included: each holds a cluster of slots for itself */
	unsigned cluster_slots; /* so large */
};

/* All backends, added up. */
struct supply_totals {
	uint64_t remote_free;	/* on servers in use */
	uint64_t remote_coming; /* on their way from them */
	uint64_t disk_free;
	uint64_t used;		/* on everything in use */
	uint64_t leaving;
	uint32_t slab_slots;	/* the largest of all servers in use, else of the disk; 0: nothing is known yet */
};

void supply_add_up(const struct supply_source *sources, unsigned nr, struct supply_totals *ret_totals);

/*
 * How many free slots there should be: `ahead`, and more while a drain looks for room, but not more than the device could
 * still fill (and what the queues hold for themselves).
 */
uint64_t supply_target(const struct supply_config *config, const struct supply_totals *totals);

/* Below this, there is not a moment to lose: the disk helps out even if a server has promised more. */
uint64_t supply_low(uint64_t target);

/* Above this, and for a while, slabs are given back. */
uint64_t supply_high(uint64_t target, uint32_t slab_slots);

/*
 * Which memory server gives the next slab; `last` is the one that gave the one before (-1: none). Of two at random the one
 * with more to lend, weighed by how quick it is (power of two choices, Mitzenmacher 1996): nearly as even as choosing the
 * best of all, without everybody choosing the same. Its index, or -1 when no server can give.
 */
int supply_choose(const struct supply_source *sources, unsigned nr, int last, struct rand_state *rand);

/*
 * Which memory server gets empty slabs back: the one with the least left to lend among those in use that have any. Its
 * index, or -1.
 */
int supply_choose_return(const struct supply_source *sources, unsigned nr);

#endif

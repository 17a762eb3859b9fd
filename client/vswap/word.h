/*
 * The forward word: what backs one entry, in one atomic 64-bit word.
 *
 *   63..61  tag
 *   60      claimed: a write owns the backing; whoever set the bit is the only one who may change it
 *   59      cached: a folio stands for the entry in the swap cache
 *   58..46  generation: one more at every change of content or backing, so that a stale compare-and-swap fails
 *   45..36  count of holders (1 for a block device's entry in use)
 *   35..0   payload: the slot (REMOTE, DISK), the repeated 64-bit value (SAME), or the object in the pool (COMP)
 *
 * Count and cached bit say who holds the entry, all the rest what backs it. The two change independently: an entry may be
 * duplicated while its backing moves, and the move must not be refused for it.
 *
 * The words, and the checksums beside them, are the only truth: everything else can be rebuilt from them.
 */
#ifndef FARSWAP_CLIENT_VSWAP_WORD_H
#define FARSWAP_CLIENT_VSWAP_WORD_H

#include <assert.h>

#include "client/vswap/swap.h"
#include "common/base/base.h"

enum word_tag {
	WORD_NONE = 0, /* reads as zeros; the rest of the word is only a generation */
	WORD_SAME,
	WORD_REMOTE,
	WORD_DISK,
	WORD_POISON, /* lost: reads fail until it is written or discarded */
	WORD_FOLIO,  /* its bytes are in the folio that stands for it, and nowhere else */
	WORD_COMP,   /* compressed, in the pool of this machine */
	WORD_NR_TAGS,
};

#define WORD_PAYLOAD_BITS 36
#define WORD_COUNT_BITS 10
#define WORD_GENERATION_BITS 13
#define WORD_TAG_BITS 3

#define WORD_COUNT_SHIFT WORD_PAYLOAD_BITS
#define WORD_GENERATION_SHIFT (WORD_COUNT_SHIFT + WORD_COUNT_BITS)
#define WORD_CACHED_SHIFT (WORD_GENERATION_SHIFT + WORD_GENERATION_BITS)
#define WORD_CLAIMED_SHIFT (WORD_CACHED_SHIFT + 1)
#define WORD_TAG_SHIFT (WORD_CLAIMED_SHIFT + 1)

static_assert(WORD_TAG_SHIFT + WORD_TAG_BITS == 64, "the fields fill the word");
static_assert(WORD_NR_TAGS <= 1 << WORD_TAG_BITS, "every tag fits");

#define WORD_PAYLOAD_MAX ((1ull << WORD_PAYLOAD_BITS) - 1)
#define WORD_GENERATION_MASK ((1ull << WORD_GENERATION_BITS) - 1)
#define WORD_CACHED (1ull << WORD_CACHED_SHIFT)
#define WORD_CLAIMED (1ull << WORD_CLAIMED_SHIFT)
#define WORD_COUNT_MAX ((1u << WORD_COUNT_BITS) - 1)
#define WORD_COUNT_ONE (1ull << WORD_COUNT_SHIFT)
#define WORD_HOLDERS (WORD_CACHED | (uint64_t)WORD_COUNT_MAX << WORD_COUNT_SHIFT)

/* A physical slot: the slab's number in the high half of the payload, the slot in the slab in the low half. */
#define WORD_SLOT_BITS 18
#define WORD_SLAB_BITS (WORD_PAYLOAD_BITS - WORD_SLOT_BITS)
#define WORD_MAX_SLABS (1u << WORD_SLAB_BITS)
#define WORD_MAX_SLOTS (1u << WORD_SLOT_BITS)

/* ---- make ---- */

static inline swp_slot_t swp_slot(uint32_t slab, uint32_t slot)
{
	return (swp_slot_t){ (uint64_t)slab << WORD_SLOT_BITS | slot };
}

/* The tag and the next generation, and nothing else. */
static inline uint64_t word_with_tag(uint64_t old, enum word_tag tag)
{
	uint64_t generation = ((old >> WORD_GENERATION_SHIFT) + 1) & WORD_GENERATION_MASK;

	return (uint64_t)tag << WORD_TAG_SHIFT | generation << WORD_GENERATION_SHIFT;
}

/*
 * The successor of `old` when the backing changes: next generation, unclaimed, with the same holders. What was NONE is held
 * once from now on; what becomes NONE is held by nobody.
 */
static inline uint64_t word_next(uint64_t old, enum word_tag tag, uint64_t payload)
{
	uint64_t holders = old >> WORD_TAG_SHIFT == WORD_NONE ? WORD_COUNT_ONE : old & WORD_HOLDERS;

	return word_with_tag(old, tag) | (tag == WORD_NONE ? 0 : holders) | payload;
}

/* The successor of a word that is NONE when a folio is allocated swap: in the cache, held by nobody yet. */
static inline uint64_t word_allocated(uint64_t none)
{
	return word_with_tag(none, WORD_FOLIO) | WORD_CACHED;
}

/* `word` with the holders that `from` has; a word that was NONE has none to hand on. */
static inline uint64_t word_with_holders(uint64_t word, uint64_t from)
{
	if (from >> WORD_TAG_SHIFT == WORD_NONE)
		return word;
	return (word & ~WORD_HOLDERS) | (from & WORD_HOLDERS);
}

/* The same backing with the next generation: how a claim is given up when nothing has changed. */
static inline uint64_t word_release(uint64_t claimed)
{
	uint64_t generation = ((claimed >> WORD_GENERATION_SHIFT) + 1) & WORD_GENERATION_MASK;

	return (claimed & ~(WORD_CLAIMED | WORD_GENERATION_MASK << WORD_GENERATION_SHIFT)) |
	       generation << WORD_GENERATION_SHIFT;
}

/* ---- test ---- */

static inline enum word_tag word_tag(uint64_t word)
{
	return (enum word_tag)(word >> WORD_TAG_SHIFT);
}

static inline bool word_is_claimed(uint64_t word)
{
	return (word & WORD_CLAIMED) != 0;
}

static inline bool word_is_cached(uint64_t word)
{
	return (word & WORD_CACHED) != 0;
}

/* Nothing but the holders is different. */
static inline bool word_is_same_backing(uint64_t a, uint64_t b)
{
	return ((a ^ b) & ~WORD_HOLDERS) == 0;
}

static inline bool word_has_slot(uint64_t word)
{
	return word_tag(word) == WORD_REMOTE || word_tag(word) == WORD_DISK;
}

/* There is a checksum of it. */
static inline bool word_is_stored(uint64_t word)
{
	return word_has_slot(word) || word_tag(word) == WORD_COMP;
}

/* ---- take apart ---- */

static inline uint64_t word_payload(uint64_t word)
{
	return word & WORD_PAYLOAD_MAX;
}

static inline unsigned word_count(uint64_t word)
{
	return (unsigned)(word >> WORD_COUNT_SHIFT & WORD_COUNT_MAX);
}

static inline unsigned word_generation(uint64_t word)
{
	return (unsigned)(word >> WORD_GENERATION_SHIFT & WORD_GENERATION_MASK);
}

/* Only of a word that has a slot. */
static inline swp_slot_t word_slot(uint64_t word)
{
	return (swp_slot_t){ word_payload(word) };
}

static inline uint32_t swp_slot_slab(swp_slot_t slot)
{
	return (uint32_t)(slot.val >> WORD_SLOT_BITS);
}

static inline uint32_t swp_slot_index(swp_slot_t slot)
{
	return (uint32_t)(slot.val & (WORD_MAX_SLOTS - 1));
}

#endif

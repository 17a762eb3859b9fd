/*
 * What scripts do to memory in a part of a schedule, or in all schedules that have a part in common: who reads and who writes
 * where. Addresses are numbered; those whose numbers differ by a multiple of 64 are not told apart, so two footprints may seem
 * to meet that do not.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_FOOTPRINT_H
#define FARSWAP_TESTS_INTERLEAVE_FOOTPRINT_H

#include "tests/interleave/interleave.h"

/* All zeros: nothing. */
struct footprint {
	uint64_t reads[INTERLEAVE_MAX_SCRIPTS], writes[INTERLEAVE_MAX_SCRIPTS]; /* a bit for an address */
};

static inline void footprint_add(struct footprint *footprint, unsigned script, uint32_t number, bool writes)
{
	*(writes ? &footprint->writes[script] : &footprint->reads[script]) |= 1ull << number % 64;
}

/* The script may have gone anywhere. */
static inline void footprint_add_everything(struct footprint *footprint, unsigned script)
{
	footprint->writes[script] = ~0ull;
}

static inline void footprint_add_all(struct footprint *footprint, const struct footprint *other)
{
	for (unsigned i = 0; i < INTERLEAVE_MAX_SCRIPTS; i++) {
		footprint->reads[i] |= other->reads[i];
		footprint->writes[i] |= other->writes[i];
	}
}

/* The scripts, a bit for each, that write in `other` where this one reads or writes in `footprint`, or read where it writes. */
static inline uint8_t footprint_met_by(const struct footprint *footprint, unsigned script, const struct footprint *other)
{
	uint64_t reads = footprint->reads[script], writes = footprint->writes[script];
	uint8_t mask = 0;

	for (unsigned i = 0; i < INTERLEAVE_MAX_SCRIPTS; i++)
		if (i != script && ((writes & (other->reads[i] | other->writes[i])) || (reads & other->writes[i])))
			mask |= (uint8_t)(1u << i);
	return mask;
}

#endif

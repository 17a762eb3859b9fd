/*
 * A small seeded generator (splitmix64, Steele, Lea and Flood, OOPSLA 2014): for jitter, placement and tests, where a
 * seed must replay a run. Never for secrets: those come from libsodium.
 *
 * One state belongs to one thread.
 */
#ifndef FARSWAP_COMMON_BASE_RAND_H
#define FARSWAP_COMMON_BASE_RAND_H

#include <stdint.h>

struct rand_state {
	uint64_t s;
};

static inline uint64_t rand_next(struct rand_state *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Uniform in 0 .. bound - 1; bound must not be 0. The bias of the multiplication is below bound / 2^64. */
static inline uint64_t rand_below(struct rand_state *r, uint64_t bound)
{
	return (uint64_t)(((unsigned __int128)rand_next(r) * bound) >> 64);
}

#endif

/*
 * How long to wait before the next attempt: 20 ms, 40 ms, ... up to a longest, each with a jitter of half of it either way,
 * so that many clients of a server that comes back do not knock in step. Pure; one thread.
 */
#ifndef FARSWAP_CLIENT_CTL_BACKOFF_H
#define FARSWAP_CLIENT_CTL_BACKOFF_H

#include "common/base/base.h"
#include "common/base/rand.h"

#define BACKOFF_FIRST_MS 20u
#define BACKOFF_LAST_MS 2000u /* the usual longest */

struct backoff {
	struct rand_state rand;
	unsigned base_ms; /* of the next wait, before the jitter */
	unsigned last_ms; /* that it grows to */
};

static inline void backoff_init(struct backoff *backoff, uint64_t seed, unsigned last_ms)
{
	backoff->rand.s = seed;
	backoff->last_ms = last_ms;
	backoff->base_ms = BACKOFF_FIRST_MS;
}

/* The attempt went well: the next failure waits as little as the first. */
static inline void backoff_reset(struct backoff *backoff)
{
	backoff->base_ms = BACKOFF_FIRST_MS;
}

/* The attempt failed: how long to wait now, from half to one and a half times the base, which then doubles. */
static inline unsigned backoff_next_ms(struct backoff *backoff)
{
	unsigned base = backoff->base_ms;

	backoff->base_ms = (unsigned)base_min_u64(2ull * base, backoff->last_ms);
	return base / 2 + (unsigned)rand_below(&backoff->rand, base + 1ull);
}

#endif

/*
 * Time as the product sees it. The core never asks the kernel for the time: it is given a clock, so that a test can
 * hand it a simulated one.
 */
#ifndef FARSWAP_COMMON_SYS_CLOCK_H
#define FARSWAP_COMMON_SYS_CLOCK_H

#include <stdint.h>

#define SYS_NS_PER_US 1000ull
#define SYS_NS_PER_MS 1000000ull
#define SYS_NS_PER_S 1000000000ull

struct sys_clock {
	/* Required. Nanoseconds since an arbitrary start; never goes back. Any thread. */
	uint64_t (*now_ns)(struct sys_clock *clock);
};

/* CLOCK_MONOTONIC. The clock is static and lives for ever. */
struct sys_clock *sys_clock_monotonic(void);

static inline uint64_t sys_clock_now_ns(struct sys_clock *clock)
{
	return clock->now_ns(clock);
}

#endif

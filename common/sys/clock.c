#include "common/sys/clock.h"

#include <time.h>

static uint64_t monotonic_now_ns(struct sys_clock *clock)
{
	struct timespec ts;

	(void)clock;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SYS_NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct sys_clock *sys_clock_monotonic(void)
{
	static struct sys_clock clock = { .now_ns = monotonic_now_ns };

	return &clock;
}

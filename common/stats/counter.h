/*
 * A counter with one writer: its own thread adds without a locked instruction, any thread reads.
 *
 * Whoever counts from several threads has one counter per thread, on cache lines of its own, and sums them when asked.
 * Relaxed throughout: a count says how often, never that something else is visible.
 */
#ifndef FARSWAP_COMMON_STATS_COUNTER_H
#define FARSWAP_COMMON_STATS_COUNTER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct stats_counter {
	atomic_uint_fast64_t value;
};

/* The writing thread only. */
static inline void stats_counter_add(struct stats_counter *counter, uint64_t n)
{
	uint64_t value = atomic_load_explicit(&counter->value, memory_order_relaxed);

	atomic_store_explicit(&counter->value, value + n, memory_order_relaxed);
}

/* Any thread. */
static inline uint64_t stats_counter_read(const struct stats_counter *counter)
{
	return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

/* Any thread. The sum over nr counters, the first at `first`, each stride_bytes after the one before. */
static inline uint64_t stats_counter_sum(const struct stats_counter *first, size_t nr, size_t stride_bytes)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < nr; i++)
		sum += stats_counter_read((const void *)((const char *)first + i * stride_bytes));
	return sum;
}

#endif

/*
 * How long things took: a log-linear histogram of 64-bit values (nanoseconds as a rule), after HdrHistogram (Gil Tene,
 * hdrhistogram.org). Each power of two is cut into 32 equal buckets, so what is read back is at most 1/32 above what was
 * recorded, over the whole range, in a fixed 15 KiB.
 *
 * One thread records, without allocating, locking or a locked instruction; any thread takes snapshots meanwhile, adds
 * several up and asks those. A snapshot taken while recording goes on may miss what is being recorded, never more.
 */
#ifndef FARSWAP_COMMON_STATS_HISTOGRAM_H
#define FARSWAP_COMMON_STATS_HISTOGRAM_H

#include <stdatomic.h>

#include "common/base/base.h"

#define STATS_HISTOGRAM_SUB_SHIFT 5 /* 32 buckets per power of two */
#define STATS_HISTOGRAM_SUB_BUCKETS (1u << STATS_HISTOGRAM_SUB_SHIFT)
/* Values below 32 have a bucket each; then 32 for each of the powers 2^5 .. 2^63. */
#define STATS_HISTOGRAM_BUCKETS (STATS_HISTOGRAM_SUB_BUCKETS * (64 - STATS_HISTOGRAM_SUB_SHIFT + 1))

/* All zeros is an empty one. */
struct stats_histogram {
	atomic_uint_fast64_t bucket[STATS_HISTOGRAM_BUCKETS];
	atomic_uint_fast64_t sum;
	atomic_uint_fast64_t max;
};

/* What a reader works on. All zeros is an empty one. */
struct stats_snapshot {
	uint64_t bucket[STATS_HISTOGRAM_BUCKETS];
	uint64_t count;
	uint64_t sum; /* of the values; wraps after 584 years of nanoseconds */
	uint64_t max;
};

static inline unsigned stats_bucket_of(uint64_t value)
{
	unsigned shift;

	if (value < STATS_HISTOGRAM_SUB_BUCKETS)
		return (unsigned)value;
	shift = base_log2(value) - STATS_HISTOGRAM_SUB_SHIFT;
	return STATS_HISTOGRAM_SUB_BUCKETS * shift + (unsigned)(value >> shift);
}

/* The greatest value that falls into a bucket. */
uint64_t stats_bucket_max(unsigned bucket);

/* The recording thread only. */
static inline void stats_histogram_record(struct stats_histogram *histogram, uint64_t value)
{
	atomic_uint_fast64_t *bucket = &histogram->bucket[stats_bucket_of(value)];

	/* One writer: a load and a store, relaxed, are an addition; readers need no order among the fields. */
	atomic_store_explicit(bucket, atomic_load_explicit(bucket, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_store_explicit(&histogram->sum, atomic_load_explicit(&histogram->sum, memory_order_relaxed) + value,
			      memory_order_relaxed);
	if (value > atomic_load_explicit(&histogram->max, memory_order_relaxed))
		atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

/* Any thread. Adds what has been recorded to a snapshot, so that the histograms of several threads become one. */
void stats_histogram_collect(const struct stats_histogram *histogram, struct stats_snapshot *snapshot);

/* Adds one snapshot to another. */
void stats_snapshot_add(struct stats_snapshot *snapshot, const struct stats_snapshot *other);

/*
 * What was recorded between two snapshots of the same histograms: takes `before` away from `snapshot`. The greatest
 * value becomes that of the last bucket that is left.
 */
void stats_snapshot_subtract(struct stats_snapshot *snapshot, const struct stats_snapshot *before);

/*
 * The value that `percent` (0 .. 100) of the recorded values do not exceed: at least the true one and at most 1/32 above
 * it, never above the maximum. 0 when nothing was recorded.
 */
uint64_t stats_snapshot_percentile(const struct stats_snapshot *snapshot, double percent);

/* 0 when nothing was recorded. */
uint64_t stats_snapshot_mean(const struct stats_snapshot *snapshot);

#endif

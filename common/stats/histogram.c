#include "common/stats/histogram.h"

uint64_t stats_bucket_max(unsigned bucket)
{
	unsigned shift;
	uint64_t first;

	if (bucket < STATS_HISTOGRAM_SUB_BUCKETS)
		return bucket;
	shift = bucket / STATS_HISTOGRAM_SUB_BUCKETS - 1;
	first = (uint64_t)(bucket % STATS_HISTOGRAM_SUB_BUCKETS + STATS_HISTOGRAM_SUB_BUCKETS) << shift;
	return first + (((uint64_t)1 << shift) - 1);
}

static uint64_t bucket_min(unsigned bucket)
{
	return bucket == 0 ? 0 : stats_bucket_max(bucket - 1) + 1;
}

void stats_histogram_collect(const struct stats_histogram *histogram, struct stats_snapshot *snapshot)
{
	uint64_t max = atomic_load_explicit(&histogram->max, memory_order_relaxed);
	unsigned last = 0;

	/* The count is that of the buckets as they were seen, so that a percentile always finds its value in them. */
	for (unsigned i = 0; i < STATS_HISTOGRAM_BUCKETS; i++) {
		uint64_t n = atomic_load_explicit(&histogram->bucket[i], memory_order_relaxed);

		snapshot->bucket[i] += n;
		snapshot->count += n;
		if (n != 0)
			last = i;
	}
	snapshot->sum += atomic_load_explicit(&histogram->sum, memory_order_relaxed);
	/* A value whose bucket has been seen and whose maximum has not: it is at least the bucket's least. */
	snapshot->max = base_max_u64(snapshot->max, base_max_u64(max, bucket_min(last)));
}

void stats_snapshot_add(struct stats_snapshot *snapshot, const struct stats_snapshot *other)
{
	for (unsigned i = 0; i < STATS_HISTOGRAM_BUCKETS; i++)
		snapshot->bucket[i] += other->bucket[i];
	snapshot->count += other->count;
	snapshot->sum += other->sum;
	snapshot->max = base_max_u64(snapshot->max, other->max);
}

void stats_snapshot_subtract(struct stats_snapshot *snapshot, const struct stats_snapshot *before)
{
	uint64_t max = 0;

	for (unsigned i = 0; i < STATS_HISTOGRAM_BUCKETS; i++) {
		snapshot->bucket[i] -= before->bucket[i];
		if (snapshot->bucket[i] != 0)
			max = stats_bucket_max(i);
	}
	snapshot->count -= before->count;
	snapshot->sum -= before->sum;
	snapshot->max = base_min_u64(snapshot->max, max);
}

uint64_t stats_snapshot_percentile(const struct stats_snapshot *snapshot, double percent)
{
	double exact = percent / 100.0 * (double)snapshot->count;
	uint64_t rank, seen = 0;

	if (snapshot->count == 0)
		return 0;
	if (percent >= 100.0)
		return snapshot->max;
	/* The rank-th smallest, counted from one: the first with at least `percent` of all at or below it. */
	rank = exact >= 1.0 ? (uint64_t)exact : 1;
	if ((double)rank < exact)
		rank++;
	for (unsigned i = 0; i < STATS_HISTOGRAM_BUCKETS; i++) {
		seen += snapshot->bucket[i];
		if (seen >= rank)
			return base_min_u64(stats_bucket_max(i), snapshot->max);
	}
	return snapshot->max;
}

uint64_t stats_snapshot_mean(const struct stats_snapshot *snapshot)
{
	return snapshot->count == 0 ? 0 : snapshot->sum / snapshot->count;
}

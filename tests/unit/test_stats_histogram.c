/* deps: common_stats */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/stats/counter.h"
#include "common/stats/histogram.h"

static struct stats_histogram histogram;
static struct stats_snapshot snapshot, before;

static int clear(void **state)
{
	(void)state;
	memset(&histogram, 0, sizeof(histogram));
	memset(&snapshot, 0, sizeof(snapshot));
	memset(&before, 0, sizeof(before));
	return 0;
}

/* Buckets follow one another without gap or overlap over all of 64 bits. */
static void test_buckets(void **state)
{
	uint64_t first = 0;

	(void)state;
	for (unsigned i = 0; i < STATS_HISTOGRAM_BUCKETS; i++) {
		uint64_t last = stats_bucket_max(i);

		assert_true(last >= first);
		assert_int_equal(stats_bucket_of(first), i);
		assert_int_equal(stats_bucket_of(last), i);
		/* What is reported is less than 1/32 above what was recorded. */
		assert_true(last - first <= first / 32);
		first = last + 1;
	}
	assert_true(first == 0); /* the last one ended at 2^64 - 1 */
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void test_percentiles(void **state)
{
	static const double percents[] = { 0, 1, 25, 50, 90, 99, 99.9, 99.99, 100 };
	static uint64_t value[10007];
	size_t nr = BASE_ARRAY_SIZE(value);
	struct rand_state r = { 42 };
	uint64_t sum = 0;

	(void)state;
	for (size_t i = 0; i < nr; i++) {
		value[i] = rand_next(&r) >> (4 + rand_below(&r, 50));
		sum += value[i];
		stats_histogram_record(&histogram, value[i]);
	}
	qsort(value, nr, sizeof(value[0]), compare);
	stats_histogram_collect(&histogram, &snapshot);
	assert_int_equal(snapshot.count, nr);
	assert_true(snapshot.max == value[nr - 1]);
	assert_true(stats_snapshot_mean(&snapshot) == sum / nr);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(percents); i++) {
		double exact = percents[i] / 100 * (double)nr;
		size_t rank = (size_t)exact + ((double)(size_t)exact < exact);
		uint64_t truth = value[rank > 0 ? rank - 1 : 0];
		uint64_t told = stats_snapshot_percentile(&snapshot, percents[i]);

		assert_true(told >= truth && told - truth <= truth / 32);
	}
}

static void test_few(void **state)
{
	(void)state;
	assert_int_equal(stats_snapshot_percentile(&snapshot, 50), 0);
	assert_int_equal(stats_snapshot_mean(&snapshot), 0);
	stats_histogram_record(&histogram, 1000003);
	stats_histogram_collect(&histogram, &snapshot);
	/* One value is every percentile, exactly: it is the maximum. */
	assert_int_equal(stats_snapshot_percentile(&snapshot, 0), 1000003);
	assert_int_equal(stats_snapshot_percentile(&snapshot, 50), 1000003);
	assert_int_equal(stats_snapshot_percentile(&snapshot, 100), 1000003);
	stats_histogram_record(&histogram, UINT64_MAX);
	stats_histogram_record(&histogram, 0);
	memset(&snapshot, 0, sizeof(snapshot));
	stats_histogram_collect(&histogram, &snapshot);
	assert_int_equal(stats_snapshot_percentile(&snapshot, 1), 0);
	assert_true(stats_snapshot_percentile(&snapshot, 100) == UINT64_MAX);
}

static void test_add_subtract(void **state)
{
	static struct stats_histogram other;
	static struct stats_snapshot both;

	(void)state;
	stats_histogram_record(&histogram, 1u << 30);
	stats_histogram_collect(&histogram, &before);
	for (int i = 0; i < 10; i++)
		stats_histogram_record(&histogram, 20);
	stats_histogram_collect(&histogram, &snapshot);
	stats_snapshot_subtract(&snapshot, &before);
	assert_int_equal(snapshot.count, 10);
	assert_int_equal(snapshot.max, 20);
	assert_int_equal(stats_snapshot_percentile(&snapshot, 99), 20);
	assert_int_equal(stats_snapshot_mean(&snapshot), 20);

	/* Two threads' histograms become one, by collecting into one or by adding. */
	for (int i = 0; i < 30; i++)
		stats_histogram_record(&other, 7);
	stats_histogram_collect(&other, &both);
	stats_snapshot_add(&snapshot, &both);
	assert_int_equal(snapshot.count, 40);
	assert_int_equal(stats_snapshot_percentile(&snapshot, 75), 7);
	assert_int_equal(stats_snapshot_percentile(&snapshot, 76), 20);
}

#define NR_RECORDED 200000

static void *record(void *arg)
{
	(void)arg;
	for (uint64_t i = 0; i < NR_RECORDED; i++)
		stats_histogram_record(&histogram, i);
	return NULL;
}

/* Snapshots while somebody records never run backwards, and the last one has everything. */
static void test_concurrent(void **state)
{
	uint64_t last = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, record, NULL), 0);
	for (int i = 0; i < 100; i++) {
		memset(&snapshot, 0, sizeof(snapshot));
		stats_histogram_collect(&histogram, &snapshot);
		assert_true(snapshot.count >= last && snapshot.count <= NR_RECORDED);
		assert_true(stats_snapshot_percentile(&snapshot, 50) <= stats_snapshot_percentile(&snapshot, 99));
		last = snapshot.count;
	}
	pthread_join(thread, NULL);
	memset(&snapshot, 0, sizeof(snapshot));
	stats_histogram_collect(&histogram, &snapshot);
	assert_int_equal(snapshot.count, NR_RECORDED);
	assert_int_equal(snapshot.max, NR_RECORDED - 1);
}

static void test_counter(void **state)
{
	struct {
		struct stats_counter pages;
		struct stats_counter errors;
	} queue[3] = { 0 };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		stats_counter_add(&queue[i].pages, i + 1);
		stats_counter_add(&queue[i].pages, 10);
		stats_counter_add(&queue[i].errors, 1);
	}
	assert_int_equal(stats_counter_read(&queue[2].pages), 13);
	assert_int_equal(stats_counter_sum(&queue[0].pages, 3, sizeof(queue[0])), 36);
	assert_int_equal(stats_counter_sum(&queue[0].errors, 3, sizeof(queue[0])), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_buckets, clear),	  cmocka_unit_test_setup(test_percentiles, clear),
		cmocka_unit_test_setup(test_few, clear),	  cmocka_unit_test_setup(test_add_subtract, clear),
		cmocka_unit_test_setup(test_concurrent, clear), cmocka_unit_test(test_counter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

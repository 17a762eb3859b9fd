/* deps: client_ctl */

/* The rule by which slabs are fetched and given back. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/supply.h"

#define SLAB_SLOTS 16384u
#define GIB (1ull << 30)
#define NR_TRIES 10000u

/* A server in use that can give, past its slow start. */
static struct supply_source server(uint64_t lendable_bytes)
{
	return (struct supply_source){
		.kind = BACKEND_REMOTE,
		.in_use = true,
		.can_give = true,
		.nr_given = 100,
		.slab_slots = SLAB_SLOTS,
		.lendable_bytes = lendable_bytes,
	};
}

/* How often each server is chosen, every time with the one before as the last. */
static void choose_often(const struct supply_source *sources, unsigned nr, unsigned *ret_chosen)
{
	struct rand_state rand = { .s = 1 };
	int last = -1;

	memset(ret_chosen, 0, nr * sizeof(*ret_chosen));
	for (unsigned i = 0; i < NR_TRIES; i++) {
		last = supply_choose(sources, nr, last, &rand);
		assert_in_range(last, 0, nr - 1);
		ret_chosen[last]++;
	}
}

static void test_chooses_only_who_can_give(void **state)
{
	struct supply_source sources[4] = { server(GIB), server(GIB), server(GIB), server(GIB) };
	struct rand_state rand = { .s = 1 };
	unsigned chosen[4];

	(void)state;
	sources[0].can_give = false;
	sources[1].in_use = false;
	sources[3].kind = BACKEND_DISK;
	choose_often(sources, 4, chosen);
	assert_int_equal(chosen[2], NR_TRIES);
	sources[2].can_give = false;
	assert_int_equal(supply_choose(sources, 4, 2, &rand), -1);
	assert_int_equal(supply_choose(sources, 0, -1, &rand), -1);
}

static void test_prefers_who_has_more(void **state)
{
	struct supply_source sources[3] = { server(GIB), server(GIB), server(8 * GIB) };
	unsigned chosen[3];

	(void)state;
	choose_often(sources, 3, chosen);
	/* The best of two at random: it wins whenever it is among them, five times of nine. */
	assert_in_range(chosen[2], NR_TRIES * 52 / 100, NR_TRIES * 59 / 100);
	assert_true(chosen[0] > NR_TRIES / 8);
	assert_true(chosen[1] > NR_TRIES / 8);
}

static void test_prefers_who_is_quick(void **state)
{
	struct supply_source sources[2] = { server(GIB), server(GIB) };
	unsigned chosen[2];

	(void)state;
	sources[0].latency_ns = 5000000;
	sources[1].latency_ns = 20000;
	choose_often(sources, 2, chosen);
	assert_true(chosen[1] > NR_TRIES * 70 / 100);
	assert_true(chosen[0] > 0);
}

static void test_slow_start_is_never_chosen_twice_in_a_row(void **state)
{
	struct supply_source sources[2] = { server(GIB), server(64 * GIB) };
	struct rand_state rand = { .s = 3 };
	unsigned nr_old = 0;
	int last = -1;

	(void)state;
	/* The second came back empty: without the rule it would get three of four slabs. */
	sources[1].nr_given = 0;
	for (unsigned i = 0; i < NR_TRIES; i++) {
		int next = supply_choose(sources, 2, last, &rand);

		assert_false(next == 1 && last == 1);
		nr_old += next == 0;
		last = next;
	}
	assert_true(nr_old >= NR_TRIES / 2);
	/* Alone it may. */
	sources[0].can_give = false;
	assert_int_equal(supply_choose(sources, 2, 1, &rand), 1);
	/* And when it has got enough of them. */
	sources[0].can_give = true;
	sources[1].nr_given = SUPPLY_SLOW_START_SLABS;
	last = 0;
	for (unsigned i = 0; i < 100; i++)
		last += supply_choose(sources, 2, 1, &rand);
	assert_true(last > 50);
}

static void test_returns_to_who_has_least(void **state)
{
	struct supply_source sources[3] = { server(4 * GIB), server(GIB), server(2 * GIB) };

	(void)state;
	assert_int_equal(supply_choose_return(sources, 3), -1);
	for (unsigned i = 0; i < 3; i++)
		sources[i].nr_empty_slabs = 1;
	assert_int_equal(supply_choose_return(sources, 3), 1);
	sources[1].nr_empty_slabs = 0;
	assert_int_equal(supply_choose_return(sources, 3), 2);
	sources[2].in_use = false;
	assert_int_equal(supply_choose_return(sources, 3), 0);
	sources[0].kind = BACKEND_DISK;
	assert_int_equal(supply_choose_return(sources, 3), -1);
}

static void test_adds_up_what_is_in_use(void **state)
{
	struct supply_source sources[4] = { server(GIB), server(GIB), server(GIB), server(0) };
	struct supply_totals totals;

	(void)state;
	sources[0].free_slots = 10;
	sources[0].coming_slots = 5;
	sources[0].used_slots = 7;
	sources[1].in_use = false; /* out of reach or draining: nothing of it counts but what leaves it */
	sources[1].free_slots = 1000;
	sources[1].used_slots = 1000;
	sources[1].leaving_slots = 900;
	sources[2].free_slots = 1;
	sources[2].slab_slots = 2 * SLAB_SLOTS;
	sources[3].kind = BACKEND_DISK;
	sources[3].free_slots = 100;
	sources[3].used_slots = 3;
	sources[3].slab_slots = 4 * SLAB_SLOTS;
	supply_add_up(sources, 4, &totals);
	assert_int_equal(totals.remote_free, 11);
	assert_int_equal(totals.remote_coming, 5);
	assert_int_equal(totals.disk_free, 100);
	assert_int_equal(totals.used, 10);
	assert_int_equal(totals.leaving, 900);
	assert_int_equal(totals.slab_slots, 2 * SLAB_SLOTS);
	supply_add_up(&sources[3], 1, &totals);
	assert_int_equal(totals.slab_slots, 4 * SLAB_SLOTS);
	supply_add_up(sources, 0, &totals);
	assert_int_equal(totals.slab_slots, 0);
}

static void test_target(void **state)
{
	struct supply_config config = { .nr_pages = 1 << 24, .nr_queues = 3, .cluster_slots = 512 };
	struct supply_totals totals = { .slab_slots = SLAB_SLOTS };

	(void)state;
	assert_int_equal(supply_target(&config, &totals), 4 * SLAB_SLOTS);
	config.ahead_slots = 100000;
	assert_int_equal(supply_target(&config, &totals), 100000);
	/* A drain looks for room as well, within bounds. */
	totals.leaving = 50000;
	assert_int_equal(supply_target(&config, &totals), 150000);
	totals.leaving = 1 << 23;
	assert_int_equal(supply_target(&config, &totals), 400000);
	/* Never less than what the queues hold for themselves. */
	totals.leaving = 0;
	config.ahead_slots = 1;
	assert_int_equal(supply_target(&config, &totals), 2 * 3 * 512);
	/* What the device cannot fill is not needed. */
	config.ahead_slots = 1 << 20;
	totals.used = config.nr_pages - 10;
	assert_int_equal(supply_target(&config, &totals), 10 + SLAB_SLOTS);
	totals.used = config.nr_pages + 10; /* retired slots count as used */
	assert_int_equal(supply_target(&config, &totals), SLAB_SLOTS);
}

static void test_giving_back_leaves_no_reason_to_fetch(void **state)
{
	(void)state;
	for (uint64_t target = 1; target < 1000000; target = target * 3 + 1) {
		assert_true(supply_low(target) < target);
		assert_true(supply_high(target, SLAB_SLOTS) >= target + 2ull * SLAB_SLOTS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chooses_only_who_can_give),
		cmocka_unit_test(test_prefers_who_has_more),
		cmocka_unit_test(test_prefers_who_is_quick),
		cmocka_unit_test(test_slow_start_is_never_chosen_twice_in_a_row),
		cmocka_unit_test(test_returns_to_who_has_least),
		cmocka_unit_test(test_adds_up_what_is_in_use),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_giving_back_leaves_no_reason_to_fetch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

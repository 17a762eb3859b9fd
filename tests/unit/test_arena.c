/* deps: server_arena */

/* Slabs go round FREE, LEASED, FENCED, SCRUBBING, and none is lent again before it has been zeroed. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "server/arena/arena.h"

#define SLAB_BYTES ARENA_SLAB_BYTES_MIN
#define NR_SLABS 3u

static int setup(void **state)
{
	struct arena *arena;

	assert_int_equal(arena_open(NR_SLABS * SLAB_BYTES, SLAB_BYTES, &arena), 0);
	*state = arena;
	return 0;
}

static int teardown(void **state)
{
	arena_close(*state);
	return 0;
}

static void expect_counts(struct arena *arena, uint32_t nr_free, uint32_t nr_leased, uint32_t nr_fenced,
			  uint32_t nr_scrubbing)
{
	struct arena_counts counts;

	arena_counts(arena, &counts);
	assert_int_equal(counts.nr[ARENA_SLAB_FREE], nr_free);
	assert_int_equal(counts.nr[ARENA_SLAB_LEASED], nr_leased);
	assert_int_equal(counts.nr[ARENA_SLAB_FENCED], nr_fenced);
	assert_int_equal(counts.nr[ARENA_SLAB_SCRUBBING], nr_scrubbing);
}

static bool slab_is_zero(struct arena *arena, uint32_t slab)
{
	const unsigned char *base = arena_slab_base(arena, slab);

	for (uint64_t i = 0; i < SLAB_BYTES; i++) {
		if (base[i] != 0)
			return false;
	}
	return true;
}

static void test_sizes(void **state)
{
	struct arena *arena = NULL;

	(void)state;
	assert_int_equal(arena_size_check(128 << 20, 64 << 20), 0);
	assert_int_equal(arena_size_check(1ull << 44, 1ull << 20), 0);
	assert_int_equal(arena_size_check((1ull << 44) + (1ull << 20), 1ull << 20), -ERANGE);
	assert_int_equal(arena_size_check(0, 1 << 20), -ERANGE);
	assert_int_equal(arena_size_check(3 << 20, 2 << 20), -ERANGE);
	assert_int_equal(arena_size_check(1 << 20, 2 << 20), -ERANGE);
	assert_int_equal(arena_size_check(3 << 20, 3 << 20), -EINVAL);
	assert_int_equal(arena_size_check(1 << 20, 0), -EINVAL);
	assert_int_equal(arena_size_check(1 << 20, 1 << 19), -EINVAL);
	assert_int_equal(arena_size_check(1ull << 34, 1ull << 33), -EINVAL);
	assert_int_equal(arena_open(0, 1 << 20, &arena), -ERANGE);
	/* 16 TiB: more than any machine that runs this. */
	assert_int_equal(arena_open(1ull << 44, 1ull << 20, &arena), -ENOMEM);
	assert_null(arena);
	arena_close(NULL);
}

static void test_starts_zeroed_and_free(void **state)
{
	struct arena *arena = *state;

	assert_int_equal(arena_nr_slabs(arena), NR_SLABS);
	assert_int_equal(arena_slab_bytes(arena), SLAB_BYTES);
	expect_counts(arena, NR_SLABS, 0, 0, 0);
	for (uint32_t i = 0; i < NR_SLABS; i++) {
		assert_int_equal(arena_slab_state(arena, i), ARENA_SLAB_FREE);
		assert_true(slab_is_zero(arena, i));
		assert_ptr_equal(arena_slab_base(arena, i), (char *)arena_slab_base(arena, 0) + i * SLAB_BYTES);
	}
}

static void test_take_gives_each_slab_once(void **state)
{
	struct arena *arena = *state;
	uint32_t slabs[NR_SLABS + 2];
	bool seen[NR_SLABS] = { false };

	assert_int_equal(arena_take(arena, 1, slabs), 1);
	assert_int_equal(arena_take(arena, NR_SLABS + 1, slabs + 1), NR_SLABS - 1);
	for (uint32_t i = 0; i < NR_SLABS; i++) {
		assert_in_range(slabs[i], 0, NR_SLABS - 1);
		assert_false(seen[slabs[i]]);
		seen[slabs[i]] = true;
		assert_int_equal(arena_slab_state(arena, slabs[i]), ARENA_SLAB_LEASED);
	}
	assert_int_equal(arena_take(arena, 1, slabs), 0);
	expect_counts(arena, 0, NR_SLABS, 0, 0);
}

static void test_dirty_slab_is_zeroed_before_it_is_lent_again(void **state)
{
	struct arena *arena = *state;
	struct arena_counts counts;
	uint32_t slabs[NR_SLABS];
	uint32_t again;

	assert_int_equal(arena_take(arena, NR_SLABS, slabs), NR_SLABS);
	memset(arena_slab_base(arena, slabs[1]), 0xa5, SLAB_BYTES);
	arena_fence(arena, slabs[1]);
	expect_counts(arena, 0, NR_SLABS - 1, 1, 0);
	assert_false(arena_scrub_one(arena)); /* fenced: somebody may still be using it */
	assert_int_equal(arena_take(arena, 1, &again), 0);

	arena_scrub(arena, slabs[1]);
	expect_counts(arena, 0, NR_SLABS - 1, 0, 1);
	assert_int_equal(arena_take(arena, 1, &again), 0);
	assert_false(slab_is_zero(arena, slabs[1]));

	assert_true(arena_scrub_one(arena));
	assert_false(arena_scrub_one(arena));
	expect_counts(arena, 1, NR_SLABS - 1, 0, 0);
	assert_int_equal(arena_take(arena, 2, &again), 1);
	assert_int_equal(again, slabs[1]);
	assert_true(slab_is_zero(arena, again));
	arena_counts(arena, &counts);
	assert_int_equal(counts.nr_scrubbed, 1);
}

static void test_scrub_leaves_the_neighbours_alone(void **state)
{
	struct arena *arena = *state;
	uint32_t slabs[NR_SLABS];

	assert_int_equal(arena_take(arena, NR_SLABS, slabs), NR_SLABS);
	for (uint32_t i = 0; i < NR_SLABS; i++)
		memset(arena_slab_base(arena, i), (int)i + 1, SLAB_BYTES);
	arena_fence(arena, 1);
	arena_scrub(arena, 1);
	assert_true(arena_scrub_one(arena));
	for (uint32_t i = 0; i < NR_SLABS; i += 2) {
		const unsigned char *base = arena_slab_base(arena, i);

		assert_int_equal(base[0], i + 1);
		assert_int_equal(base[SLAB_BYTES - 1], i + 1);
	}
	assert_true(slab_is_zero(arena, 1));
}

/* The real thread: every slab that comes back is seen zeroed by the next one who gets it. */
static void test_scrubber_thread(void **state)
{
	struct arena *arena = *state;
	unsigned nr_left = 20;
	uint32_t slab;

	assert_int_equal(arena_scrubber_start(arena), 0);
	while (nr_left > 0) {
		if (arena_take(arena, 1, &slab) == 0)
			continue;
		assert_true(slab_is_zero(arena, slab));
		memset(arena_slab_base(arena, slab), 0x5a, SLAB_BYTES);
		arena_fence(arena, slab);
		arena_scrub(arena, slab);
		nr_left--;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test_setup_teardown(test_starts_zeroed_and_free, setup, teardown),
		cmocka_unit_test_setup_teardown(test_take_gives_each_slab_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dirty_slab_is_zeroed_before_it_is_lent_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scrub_leaves_the_neighbours_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scrubber_thread, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

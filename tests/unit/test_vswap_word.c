/* deps: client_vswap */
/* The forward word: its fields, and what a change does to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "client/vswap/word.h"

static const enum word_tag all_tags[] = { WORD_SAME, WORD_REMOTE, WORD_DISK, WORD_POISON };

static void test_fields_keep_apart(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(all_tags) / sizeof(all_tags[0]); i++) {
		uint64_t word = word_next(0, all_tags[i], WORD_PAYLOAD_MAX);

		assert_int_equal(word_tag(word), all_tags[i]);
		assert_int_equal(word_payload(word), WORD_PAYLOAD_MAX);
		assert_int_equal(word_count(word), 1);
		assert_int_equal(word_generation(word), 1);
		assert_false(word_is_claimed(word));
		assert_true(word_is_claimed(word | WORD_CLAIMED));
		assert_int_equal(word_payload(word | WORD_CLAIMED), WORD_PAYLOAD_MAX);
		assert_int_equal(word_tag(word | WORD_CLAIMED), all_tags[i]);
		assert_int_equal(word_has_slot(word), all_tags[i] == WORD_REMOTE || all_tags[i] == WORD_DISK);
	}
}

static void test_none_is_only_a_generation(void **state)
{
	uint64_t word = word_next(word_next(0, WORD_REMOTE, 77), WORD_NONE, 0);

	(void)state;
	assert_int_equal(word_tag(word), WORD_NONE);
	assert_int_equal(word_count(word), 0);
	assert_int_equal(word_payload(word), 0);
	assert_int_equal(word_generation(word), 2);
	assert_false(word_has_slot(word));
}

static void test_slot_takes_apart_what_it_makes(void **state)
{
	static const uint32_t slabs[] = { 0, 1, 4711, WORD_MAX_SLABS - 1 };
	static const uint32_t slots[] = { 0, 1, 511, WORD_MAX_SLOTS - 1 };
	unsigned i, j;

	(void)state;
	for (i = 0; i < 4; i++)
		for (j = 0; j < 4; j++) {
			uint64_t word = word_next(0, WORD_DISK, swp_slot(slabs[i], slots[j]).val);

			assert_int_equal(swp_slot_slab(word_slot(word)), slabs[i]);
			assert_int_equal(swp_slot_index(word_slot(word)), slots[j]);
			assert_int_equal(word_tag(word), WORD_DISK);
			assert_int_equal(word_generation(word), 1);
		}
}

static void test_generation_wraps_into_nothing_else(void **state)
{
	uint64_t word = word_next(0, WORD_SAME, 5);
	unsigned i;

	(void)state;
	for (i = 1; i < 1u << WORD_GENERATION_BITS; i++) {
		assert_int_equal(word_generation(word), i);
		word = word_next(word, WORD_SAME, 5);
	}
	assert_int_equal(word_generation(word), 0);
	assert_int_equal(word_tag(word), WORD_SAME);
	assert_false(word_is_claimed(word));
	assert_int_equal(word_count(word), 1);
}

/* A claim that is given up keeps the backing, and still no compare-and-swap from before it succeeds. */
static void test_release_moves_the_generation_only(void **state)
{
	uint64_t word = word_next(0, WORD_REMOTE, 99), released = word_release(word | WORD_CLAIMED);
	uint64_t last = word | WORD_GENERATION_MASK << WORD_GENERATION_SHIFT | WORD_CLAIMED;

	(void)state;
	assert_false(word_is_claimed(released));
	assert_int_equal(word_generation(released), 2);
	assert_int_equal(word_tag(released), WORD_REMOTE);
	assert_int_equal(word_payload(released), 99);
	assert_int_equal(word_count(released), 1);
	assert_true(released != word);
	assert_int_equal(word_generation(word_release(last)), 0);
	assert_false(word_is_claimed(word_release(last)));
	assert_int_equal(word_tag(word_release(last)), WORD_REMOTE);
}

static void test_next_ignores_who_had_it_claimed(void **state)
{
	uint64_t claimed = word_next(0, WORD_REMOTE, 3) | WORD_CLAIMED;

	(void)state;
	assert_int_equal(word_next(claimed, WORD_DISK, 4), word_next(claimed & ~WORD_CLAIMED, WORD_DISK, 4));
	assert_false(word_is_claimed(word_next(claimed, WORD_DISK, 4)));
}

/* Who holds an entry is not asked when its backing changes, and goes on holding it. */
static void test_holders_survive_a_change_of_backing(void **state)
{
	uint64_t word = word_next(0, WORD_SAME, 1), held = (word & ~WORD_HOLDERS) | WORD_CACHED | 7 * WORD_COUNT_ONE, moved;

	(void)state;
	assert_true(word_is_same_backing(word, held));
	assert_int_equal(word_count(held), 7);
	assert_true(word_is_cached(held));
	moved = word_next(held, WORD_DISK, WORD_PAYLOAD_MAX);
	assert_int_equal(word_count(moved), 7);
	assert_true(word_is_cached(moved));
	assert_int_equal(word_payload(moved), WORD_PAYLOAD_MAX);
	assert_false(word_is_same_backing(moved, held));
	assert_false(word_is_same_backing(held, held | WORD_CLAIMED));
	assert_int_equal(word_next(held, WORD_NONE, 0) & WORD_HOLDERS, 0);
	assert_true(word_is_cached(word_release(held | WORD_CLAIMED)));
	assert_int_equal(word_with_holders(word, held), held);
	assert_int_equal(word_with_holders(word, WORD_CLAIMED), word); /* the first write of a page is its first holder */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields_keep_apart),
		cmocka_unit_test(test_none_is_only_a_generation),
		cmocka_unit_test(test_slot_takes_apart_what_it_makes),
		cmocka_unit_test(test_generation_wraps_into_nothing_else),
		cmocka_unit_test(test_release_moves_the_generation_only),
		cmocka_unit_test(test_next_ignores_who_had_it_claimed),
		cmocka_unit_test(test_holders_survive_a_change_of_backing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

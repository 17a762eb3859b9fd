/* deps: client_ctl */

/* How long keepers wait between attempts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "client/ctl/backoff.h"

static void assert_bases(unsigned last_ms, const unsigned *bases, size_t nr)
{
	struct backoff backoff;

	for (uint64_t seed = 0; seed < 200; seed++) {
		backoff_init(&backoff, seed, last_ms);
		for (size_t i = 0; i < nr; i++)
			assert_in_range(backoff_next_ms(&backoff), bases[i] / 2, bases[i] / 2 + bases[i]);
	}
}

static void test_doubles_up_to_the_longest(void **state)
{
	static const unsigned usual[] = { 20, 40, 80, 160, 320, 640, 1280, 2000, 2000, 2000 };
	static const unsigned shorter[] = { 20, 40, 50, 50 };

	(void)state;
	assert_bases(BACKOFF_LAST_MS, usual, BASE_ARRAY_SIZE(usual));
	assert_bases(50, shorter, BASE_ARRAY_SIZE(shorter));
}

static void test_jitter_uses_its_whole_range(void **state)
{
	unsigned lowest = BACKOFF_FIRST_MS, highest = BACKOFF_FIRST_MS;
	struct backoff backoff;

	(void)state;
	for (uint64_t seed = 0; seed < 2000; seed++) {
		unsigned ms;

		backoff_init(&backoff, seed, BACKOFF_LAST_MS);
		ms = backoff_next_ms(&backoff);
		lowest = ms < lowest ? ms : lowest;
		highest = ms > highest ? ms : highest;
	}
	assert_int_equal(lowest, BACKOFF_FIRST_MS / 2);
	assert_int_equal(highest, BACKOFF_FIRST_MS / 2 + BACKOFF_FIRST_MS);
}

static void test_success_begins_anew(void **state)
{
	struct backoff backoff;

	(void)state;
	backoff_init(&backoff, 7, BACKOFF_LAST_MS);
	for (unsigned i = 0; i < 20; i++)
		(void)backoff_next_ms(&backoff);
	backoff_reset(&backoff);
	assert_in_range(backoff_next_ms(&backoff), BACKOFF_FIRST_MS / 2, BACKOFF_FIRST_MS / 2 + BACKOFF_FIRST_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_doubles_up_to_the_longest),
		cmocka_unit_test(test_jitter_uses_its_whole_range),
		cmocka_unit_test(test_success_begins_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

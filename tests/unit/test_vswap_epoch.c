/* deps: client_vswap */
/* I/O epochs: what keeps the number from moving, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "client/vswap/epoch.h"

struct epochs {
	struct epoch epoch;
	struct epoch_queue queue[2];
	struct epoch_queue *queues[2];
};

static void epochs_init(struct epochs *e)
{
	memset(e, 0, sizeof(*e));
	e->queues[0] = &e->queue[0];
	e->queues[1] = &e->queue[1];
}

static bool advance(struct epochs *e)
{
	return epoch_advance(&e->epoch, e->queues, 2);
}

static void test_it_moves_when_nobody_is_inside(void **state)
{
	struct epochs e;
	unsigned i;

	(void)state;
	epochs_init(&e);
	for (i = 0; i < 10; i++) {
		assert_int_equal(epoch_now(&e.epoch), i);
		assert_true(advance(&e));
	}
}

/* What was retired in epoch r is free at r + 2: never while somebody is inside who entered in r or before. */
static void test_who_is_inside_holds_it_after_one_step(void **state)
{
	struct epochs e;
	unsigned start, q;

	(void)state;
	for (q = 0; q < 2; q++)
		for (start = 0; start < 7; start++) {
			unsigned i;
			uint8_t bucket;

			epochs_init(&e);
			for (i = 0; i < start; i++)
				assert_true(advance(&e));
			bucket = epoch_enter(&e.epoch, &e.queue[q]);
			assert_true(advance(&e));
			for (i = 0; i < 5; i++)
				assert_false(advance(&e));
			assert_int_equal(epoch_now(&e.epoch), start + 1);
			epoch_exit(&e.queue[q], bucket);
			assert_true(advance(&e));
			assert_true(advance(&e));
		}
}

static void test_new_ones_do_not_hold_up_the_old(void **state)
{
	struct epochs e;
	uint8_t first, second, third;

	(void)state;
	epochs_init(&e);
	first = epoch_enter(&e.epoch, &e.queue[0]);
	assert_true(advance(&e));
	second = epoch_enter(&e.epoch, &e.queue[1]);
	third = epoch_enter(&e.epoch, &e.queue[0]);
	assert_false(advance(&e));
	epoch_exit(&e.queue[0], first);
	assert_true(advance(&e)); /* the second and third are of the epoch that is now the one before */
	assert_false(advance(&e));
	epoch_exit(&e.queue[1], second);
	assert_false(advance(&e));
	epoch_exit(&e.queue[0], third);
	assert_true(advance(&e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_moves_when_nobody_is_inside),
		cmocka_unit_test(test_who_is_inside_holds_it_after_one_step),
		cmocka_unit_test(test_new_ones_do_not_hold_up_the_old),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

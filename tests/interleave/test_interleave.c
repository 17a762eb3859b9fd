/* deps: tests_interleave */
/*
 * The explorer itself: that it runs every schedule, that its reductions lose none, and that it finds what goes wrong in only
 * one of them.
 */
#include "tests/interleave/points.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/interleave/coroutine.h"

/* In the world. */
struct shared {
	_Atomic unsigned counter, flag;
	_Atomic unsigned own[INTERLEAVE_MAX_SCRIPTS];
	struct lock_mutex lock[2];
	struct sys_rcu_head head;
	_Atomic(unsigned *) published;
	unsigned object;
	unsigned seen[2];
	bool called;
	unsigned *nowhere;
};

static struct shared *s;

static void prepare(void)
{
	s = world_calloc(1, sizeof(*s));
	lock_mutex_init(&s->lock[0]);
	lock_mutex_init(&s->lock[1]);
	s->object = 1;
	s->nowhere = (unsigned *)(uintptr_t)sizeof(*s);
	atomic_store(&s->published, &s->object);
}

static void check_nothing(void)
{
}

/* Those which need more than the one preemption that there is with AddressSanitizer. */
static void skip_if_sanitized(void)
{
	if (COROUTINE_SANITIZED)
		skip();
}

static struct interleave_result explore(struct interleave_scenario scenario, bool wanted)
{
	struct interleave_result result;

	scenario.name = wanted ? "good" : "bad";
	scenario.prepare = prepare;
	if (!scenario.check)
		scenario.check = check_nothing;
	assert_true(interleave_explore(&scenario, &result) == wanted);
	return result;
}

/* ---- how many schedules there are ---- */

static void add_three(void)
{
	unsigned i;

	for (i = 0; i < 3; i++)
		atomic_fetch_add(&s->counter, 1);
}

static void add_and_look_at_own(unsigned script)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		atomic_fetch_add(&s->own[script], 1);
		atomic_fetch_add(&s->counter, 1);
		(void)atomic_load(&s->flag); /* which nobody writes */
	}
}

static void add_by_0(void)
{
	add_and_look_at_own(0);
}

static void add_by_1(void)
{
	add_and_look_at_own(1);
}

static void check_six(void)
{
	interleave_expect(atomic_load(&s->counter) == 6);
}

/*
 * Four steps each: up to the first point, and three more. 8! / (4! 4!) orders; with a third script 12! / (4! 4! 4!). Where the
 * first step is, which meets no other, makes no difference: at least 6! / (3! 3!) and 9! / (3! 3! 3!) are left.
 */
static void test_every_schedule_is_run_and_counted(void **state)
{
	struct interleave_result result;

	(void)state;
	skip_if_sanitized();
	result = explore((struct interleave_scenario){ .script = { add_three, add_three }, .check = check_six,
						       .each = true }, true);
	assert_int_equal(result.nr_run, 70);
	result = explore((struct interleave_scenario){ .script = { add_three, add_three }, .check = check_six }, true);
	assert_true(result.nr_schedules >= 20 && result.nr_schedules < 70 && result.nr_run < 20);
	result = explore((struct interleave_scenario){ .script = { add_three, add_three, add_three },
						       .each = true }, true);
	assert_int_equal(result.nr_run, 34650);
	result = explore((struct interleave_scenario){ .script = { add_three, add_three, add_three } }, true);
	assert_true(result.nr_schedules >= 1680 && result.nr_schedules < 34650 && result.nr_run < 1680);
}

static void test_what_is_not_shared_adds_no_schedule(void **state)
{
	struct interleave_result result;

	(void)state;
	skip_if_sanitized();
	result = explore((struct interleave_scenario){ .script = { add_by_0, add_by_1 }, .check = check_six,
						       .each = true }, true);
	assert_int_equal(result.nr_run, 70);
}

/* ---- what goes wrong ---- */

static void add_by_load_and_store(void)
{
	unsigned counter = atomic_load(&s->counter);

	atomic_store(&s->counter, counter + 1);
}

static void add_under_lock(void)
{
	lock_acquire(&s->lock[0]);
	atomic_store_explicit(&s->counter, atomic_load_explicit(&s->counter, memory_order_relaxed) + 1, memory_order_relaxed);
	lock_release(&s->lock[0]);
}

static void check_two(void)
{
	interleave_expect(atomic_load(&s->counter) == 2);
}

static void write_and_look_again(void)
{
	atomic_store(&s->counter, 1);
	(void)atomic_load(&s->counter);
	(void)atomic_load(&s->counter);
}

static void look_once(void)
{
	(void)atomic_load(&s->counter);
}

/* Two steps each: up to the lock, or to what the other does as well, and from there. 4! / (2! 2!) orders. */
static void test_what_nobody_can_come_between_adds_no_schedule(void **state)
{
	struct interleave_result result;

	(void)state;
	skip_if_sanitized();
	result = explore((struct interleave_scenario){ .script = { add_under_lock, add_under_lock }, .check = check_two,
						       .each = true }, true);
	assert_int_equal(result.nr_run, 6);
	result = explore((struct interleave_scenario){ .script = { write_and_look_again, look_once }, .each = true }, true);
	assert_int_equal(result.nr_run, 6);
}

static void add_under_lock_of_its_own(unsigned own)
{
	lock_acquire(&s->lock[own]);
	add_by_load_and_store();
	lock_release(&s->lock[own]);
}

static void add_under_0(void)
{
	add_under_lock_of_its_own(0);
}

static void add_under_1(void)
{
	add_under_lock_of_its_own(1);
}

static void add_under_1_within_0(void)
{
	lock_acquire(&s->lock[0]);
	add_under_lock_of_its_own(1);
	lock_release(&s->lock[0]);
}

static void add_under_0_and_then_without(void)
{
	lock_acquire(&s->lock[0]);
	(void)atomic_load(&s->counter);
	lock_release(&s->lock[0]);
	add_by_load_and_store();
}

static void test_a_lock_guards_only_what_all_take_it_for(void **state)
{
	(void)state;
	(void)explore((struct interleave_scenario){ .script = { add_under_0, add_under_1 }, .check = check_two }, false);
	(void)explore((struct interleave_scenario){ .script = { add_under_0, add_by_load_and_store },
						    .check = check_two }, false);
	(void)explore((struct interleave_scenario){ .script = { add_under_0, add_under_0_and_then_without },
						    .check = check_two }, false);
	(void)explore((struct interleave_scenario){ .script = { add_under_1, add_under_1_within_0 }, .check = check_two },
		      true);
	(void)explore((struct interleave_scenario){ .script = { add_under_0, add_under_1_within_0 }, .check = check_two },
		      true);
}

static void test_a_lost_update_is_found_and_runs_again(void **state)
{
	struct interleave_scenario scenario = { .script = { add_by_load_and_store, add_by_load_and_store },
						.check = check_two };
	struct interleave_result result;

	(void)state;
	result = explore(scenario, false);
	assert_int_equal(setenv("FARSWAP_SCHEDULE", result.schedule, 1), 0);
	(void)explore(scenario, false);
	assert_true(explore((struct interleave_scenario){ .script = { add_three } }, true).left_out);
	scenario.check = check_nothing;
	scenario.name = "bad";
	scenario.prepare = prepare;
	assert_true(interleave_explore(&scenario, &result) && !result.left_out);
	unsetenv("FARSWAP_SCHEDULE");
	(void)explore((struct interleave_scenario){ .script = { add_under_lock, add_under_lock }, .check = check_two }, true);
}

static void test_what_is_not_a_schedule_is_a_failure(void **state)
{
	/* A script ends before; all do; there is no such script; it is cut off; it is of another kind. */
	static const char *const wrong[] = { "good 0:9 1:9", "good 0:4 1:9", "good 3:1", "good 0:4 1:", "good 0-4" };
	unsigned i;

	(void)state;
	assert_int_equal(setenv("FARSWAP_SCHEDULE", "good 0:4 1:4", 1), 0);
	(void)explore((struct interleave_scenario){ .script = { add_three, add_three }, .check = check_six }, true);
	for (i = 0; i < BASE_ARRAY_SIZE(wrong); i++) {
		struct interleave_scenario scenario = { .name = "good", .script = { add_three, add_three }, .prepare = prepare,
							.check = check_six };
		struct interleave_result result;

		assert_int_equal(setenv("FARSWAP_SCHEDULE", wrong[i], 1), 0);
		assert_false(interleave_explore(&scenario, &result));
	}
	unsetenv("FARSWAP_SCHEDULE");
}

/* They take turns: a schedule of a thousand legs. */
static bool counter_is_even(void *arg)
{
	(void)arg;
	return atomic_load(&s->counter) % 2 == 0;
}

static bool counter_is_odd(void *arg)
{
	return !counter_is_even(arg);
}

static void add_when_even(void)
{
	unsigned i;

	for (i = 0; i < 500; i++) {
		interleave_wait(counter_is_even, NULL);
		atomic_fetch_add(&s->counter, 1);
	}
}

static void add_when_odd(void)
{
	unsigned i;

	for (i = 0; i < 500; i++) {
		interleave_wait(counter_is_odd, NULL);
		atomic_fetch_add(&s->counter, 1);
	}
}

static void check_never(void)
{
	interleave_expect(false);
}

static void test_a_long_schedule_is_told_whole(void **state)
{
	struct interleave_scenario scenario = { .script = { add_when_even, add_when_odd }, .check = check_never };

	(void)state;
	assert_int_equal(setenv("FARSWAP_SCHEDULE", explore(scenario, false).schedule, 1), 0);
	assert_true(strlen(getenv("FARSWAP_SCHEDULE")) > 4096);
	assert_string_equal(explore(scenario, false).schedule, getenv("FARSWAP_SCHEDULE"));
	unsetenv("FARSWAP_SCHEDULE");
}

static void test_a_bound_that_is_none_is_refused(void **state)
{
	static const char *const wrong[] = { "", "two", "2x", "-1", " 2", "99999999999" };
	struct interleave_scenario scenario = { .name = "good", .script = { add_three, add_three }, .prepare = prepare,
						.check = check_six, .max_preemptions = 2 };
	struct interleave_result result;
	unsigned i;

	(void)state;
	for (i = 0; i < BASE_ARRAY_SIZE(wrong); i++) {
		assert_int_equal(setenv("FARSWAP_PREEMPTIONS", wrong[i], 1), 0);
		assert_false(interleave_explore(&scenario, &result));
	}
	assert_int_equal(setenv("FARSWAP_PREEMPTIONS", "1", 1), 0);
	assert_true(interleave_explore(&scenario, &result));
	assert_int_equal(setenv("FARSWAP_PREEMPTIONS", "all", 1), 0);
	assert_true(interleave_explore(&scenario, &result));
	unsetenv("FARSWAP_PREEMPTIONS");
}

static void look_until_flag(void)
{
	while (atomic_load(&s->flag) == 0) {
		s->seen[0] = 1;
		interleave_quiescent();
	}
	atomic_fetch_add(&s->counter, 1);
}

static void check_never_in_vain(void)
{
	interleave_expect(s->seen[0] == 0);
}

static void set_flag_and_add(void)
{
	atomic_store(&s->flag, 1);
	atomic_fetch_add(&s->counter, 1);
}

/* Whoever looks may look for ever, which must not put the other off. */
static void test_going_round_in_a_circle_loses_nothing(void **state)
{
	struct interleave_scenario scenario = { .script = { set_flag_and_add, look_until_flag }, .check = check_two };

	(void)state;
	skip_if_sanitized();
	scenario.at_once = true;
	(void)explore(scenario, true);
	scenario.check = check_never_in_vain;
	(void)explore(scenario, false);
}

static void lock_both(unsigned first)
{
	lock_acquire(&s->lock[first]);
	lock_acquire(&s->lock[1 - first]);
	lock_release(&s->lock[1 - first]);
	lock_release(&s->lock[first]);
}

static void lock_0_then_1(void)
{
	lock_both(0);
}

static void lock_1_then_0(void)
{
	lock_both(1);
}

static void test_a_deadlock_is_found(void **state)
{
	(void)state;
	(void)explore((struct interleave_scenario){ .script = { lock_0_then_1, lock_1_then_0 } }, false);
	(void)explore((struct interleave_scenario){ .script = { lock_0_then_1, lock_0_then_1 } }, true);
}

static bool flag_is_set(void *arg)
{
	(void)arg;
	return s->flag != 0;
}

static void wait_for_flag(void)
{
	interleave_wait(flag_is_set, NULL);
}

static void set_flag(void)
{
	atomic_store(&s->flag, 1);
}

static void test_who_waits_in_vain_is_found(void **state)
{
	(void)state;
	(void)explore((struct interleave_scenario){ .script = { wait_for_flag, add_three } }, false);
	(void)explore((struct interleave_scenario){ .script = { wait_for_flag, set_flag } }, true);
}

static void store_one_then_two(void)
{
	atomic_store(&s->counter, 1);
	atomic_store(&s->counter, 2);
}

static void see_one_then_two(void)
{
	s->seen[0] = atomic_load(&s->counter);
	s->seen[1] = atomic_load(&s->counter);
}

static void check_never_both(void)
{
	interleave_expect(s->seen[0] != 1 || s->seen[1] != 2);
}

/* In between the two stores and, from there, in between the two loads. */
static void test_the_bound_is_one_of_preemptions(void **state)
{
	struct interleave_scenario scenario = { .script = { store_one_then_two, see_one_then_two }, .check = check_never_both,
						.max_preemptions = 1, .each = true };

	(void)state;
	skip_if_sanitized();
	(void)explore(scenario, true);
	scenario.max_preemptions = 2;
	(void)explore(scenario, false);
	scenario.each = false;
	(void)explore(scenario, false);
}

static void fail_an_assertion(void)
{
	if (atomic_load(&s->counter) == 2)
		abort();
}

static void follow_a_wild_pointer(void)
{
	volatile unsigned *nowhere = atomic_load(&s->counter) == 2 ? s->nowhere : &s->object;

	*nowhere = 1;
}

static void test_a_crash_is_a_failure_like_any_other(void **state)
{
	(void)state;
	(void)explore((struct interleave_scenario){ .script = { add_three, fail_an_assertion } }, false);
	(void)explore((struct interleave_scenario){ .script = { add_three, follow_a_wild_pointer } }, false);
	(void)explore((struct interleave_scenario){ .script = { add_three, add_three }, .check = check_six }, true);
}

/* ---- grace periods ---- */

static void object_ends(struct sys_rcu_head *head)
{
	interleave_gives_up();
	interleave_expect(head == &s->head && !s->called);
	s->called = true;
	s->object = 0;
}

static void unpublish(void)
{
	atomic_store(&s->published, NULL);
	sys_rcu_call(&s->head, object_ends);
	interleave_expect(!s->called); /* never inside the section that gives it */
	interleave_quiescent();
}

static void unpublish_and_synchronize(void)
{
	atomic_store(&s->published, NULL);
	sys_rcu_synchronize();
	s->object = 0;
}

static void read_object(bool leaves_too_early)
{
	unsigned *object = atomic_load(&s->published);

	if (leaves_too_early)
		interleave_quiescent();
	atomic_fetch_add(&s->counter, 1);
	if (object)
		interleave_expect(*object == 1);
	interleave_quiescent();
}

static void read_well(void)
{
	read_object(false);
}

static void read_badly(void)
{
	read_object(true);
}

/* Who has come in between is not waited for. */
static void unpublish_too_late(void)
{
	atomic_fetch_add(&s->counter, 1);
	sys_rcu_call(&s->head, object_ends);
	atomic_store(&s->published, NULL);
	interleave_quiescent();
}

/* What the preparation has given to RCU has had its grace period. */
static void prepare_and_call(void)
{
	prepare();
	sys_rcu_call(&s->head, object_ends);
}

static void check_called(void)
{
	interleave_expect(s->called);
}

static void test_grace_periods_are_kept_and_no_longer(void **state)
{
	(void)state;
	(void)explore((struct interleave_scenario){ .script = { unpublish, read_well, read_well }, .check = check_called },
		      true);
	(void)explore((struct interleave_scenario){ .script = { unpublish, read_badly, read_well } }, false);
	(void)explore((struct interleave_scenario){ .script = { unpublish_and_synchronize, read_well, read_well } }, true);
	(void)explore((struct interleave_scenario){ .script = { unpublish_and_synchronize, read_well, read_badly } }, false);
	skip_if_sanitized();
	(void)explore((struct interleave_scenario){ .script = { unpublish_too_late, read_well }, .at_once = true }, false);
}

static void expect_called(void)
{
	interleave_expect(s->called);
	interleave_quiescent();
}

static void test_what_a_preparation_has_given_up_is_gone(void **state)
{
	struct interleave_scenario scenario = { .name = "good", .prepare = prepare_and_call, .check = check_called,
						.script = { expect_called, expect_called } };
	struct interleave_result result;

	(void)state;
	assert_true(interleave_explore(&scenario, &result));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_schedule_is_run_and_counted),
		cmocka_unit_test(test_what_is_not_shared_adds_no_schedule),
		cmocka_unit_test(test_what_nobody_can_come_between_adds_no_schedule),
		cmocka_unit_test(test_a_lock_guards_only_what_all_take_it_for),
		cmocka_unit_test(test_a_lost_update_is_found_and_runs_again),
		cmocka_unit_test(test_what_is_not_a_schedule_is_a_failure),
		cmocka_unit_test(test_a_long_schedule_is_told_whole),
		cmocka_unit_test(test_a_bound_that_is_none_is_refused),
		cmocka_unit_test(test_going_round_in_a_circle_loses_nothing),
		cmocka_unit_test(test_a_deadlock_is_found),
		cmocka_unit_test(test_who_waits_in_vain_is_found),
		cmocka_unit_test(test_the_bound_is_one_of_preemptions),
		cmocka_unit_test(test_a_crash_is_a_failure_like_any_other),
		cmocka_unit_test(test_grace_periods_are_kept_and_no_longer),
		cmocka_unit_test(test_what_a_preparation_has_given_up_is_gone),
	};

	unsetenv("FARSWAP_PREEMPTIONS"); /* the bounds here are what is tested */
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

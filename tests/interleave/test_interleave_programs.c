/* deps: tests_interleave */
/*
 * The explorer's reductions against all schedules, for small programs at random: what can come out of each is the same.
 */
#include "tests/interleave/points.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "tests/interleave/coroutine.h"

#define MAX_OPS 4u
#define NR_VALUES 3u
#define MAX_OUTCOMES 4096u

enum op_kind { OP_LOAD, OP_STORE, OP_ADD, OP_SWAP, OP_UNDER_LOCK, OP_QUIESCENT, OP_CALL, OP_SYNCHRONIZE, OP_WAIT, NR_OP_KINDS };

struct op {
	enum op_kind kind;
	unsigned value, lock;
};

/* In the world. */
struct outcome {
	_Atomic unsigned value[NR_VALUES];
	unsigned seen[INTERLEAVE_MAX_SCRIPTS];
	unsigned after_grace[INTERLEAVE_MAX_SCRIPTS]; /* what value 0 was then */
};

struct call {
	struct sys_rcu_head head;
	unsigned script;
};

static struct outcome *outcome;
static struct call *calls;
static struct lock_mutex *locks;

static struct {
	struct op op[INTERLEAVE_MAX_SCRIPTS][MAX_OPS];
	unsigned nr_ops;
} program;

static struct {
	struct outcome found[MAX_OUTCOMES];
	unsigned nr;
} outcomes;

static void program_prepare(void)
{
	unsigned i;

	outcome = world_calloc(1, sizeof(*outcome));
	calls = world_calloc(INTERLEAVE_MAX_SCRIPTS, sizeof(*calls));
	locks = world_calloc(2, sizeof(*locks));
	for (i = 0; i < INTERLEAVE_MAX_SCRIPTS; i++)
		calls[i].script = i;
	for (i = 0; i < 2; i++)
		lock_mutex_init(&locks[i]);
}

static void call_ends(struct sys_rcu_head *head)
{
	const struct call *call = BASE_CONTAINER_OF(head, struct call, head);

	outcome->after_grace[call->script] = 1 + atomic_load(&outcome->value[0]);
}

static bool value_is_even(void *arg)
{
	return atomic_load((_Atomic unsigned *)arg) % 2 == 0;
}

static void see(unsigned script, unsigned value)
{
	outcome->seen[script] = outcome->seen[script] * 31 + value + 1;
}

static void op_run(unsigned script, unsigned n)
{
	const struct op *op = &program.op[script][n];
	_Atomic unsigned *value = &outcome->value[op->value];
	unsigned zero = 0;

	switch (op->kind) {
	case OP_LOAD:
		see(script, atomic_load(value));
		break;
	case OP_STORE:
		atomic_store(value, script * MAX_OPS + n + 1);
		break;
	case OP_ADD:
		see(script, atomic_fetch_add(value, 1));
		break;
	case OP_SWAP:
		see(script, atomic_compare_exchange_strong(value, &zero, script + 1));
		break;
	case OP_UNDER_LOCK:
		lock_acquire(&locks[op->lock]);
		see(script, atomic_load(value));
		atomic_store(value, outcome->seen[script] % 5);
		lock_release(&locks[op->lock]);
		break;
	case OP_QUIESCENT:
		interleave_quiescent();
		break;
	case OP_CALL:
		sys_rcu_call(&calls[script].head, call_ends);
		break;
	case OP_SYNCHRONIZE:
		sys_rcu_synchronize();
		break;
	case OP_WAIT:
		interleave_wait(value_is_even, value);
		break;
	case NR_OP_KINDS:
		break;
	}
}

static void program_run(unsigned script)
{
	unsigned n;

	for (n = 0; n < program.nr_ops; n++)
		op_run(script, n);
	interleave_quiescent();
}

static void program_run_0(void)
{
	program_run(0);
}

static void program_run_1(void)
{
	program_run(1);
}

static void program_run_2(void)
{
	program_run(2);
}

static unsigned outcome_find(const struct outcome *wanted)
{
	unsigned i = 0;

	while (i < outcomes.nr && memcmp(&outcomes.found[i], wanted, sizeof(*wanted)) != 0)
		i++;
	return i;
}

static void program_check(void)
{
	if (outcome_find(outcome) < outcomes.nr)
		return;
	assert_true(outcomes.nr < MAX_OUTCOMES);
	memcpy(&outcomes.found[outcomes.nr++], outcome, sizeof(*outcome));
}

/* What a script gives to RCU it gives only once. */
static void program_make(struct rand_state *rand, unsigned nr_ops)
{
	unsigned script, n;

	program.nr_ops = nr_ops;
	for (script = 0; script < INTERLEAVE_MAX_SCRIPTS; script++) {
		bool has_called = false;

		for (n = 0; n < nr_ops; n++) {
			struct op *op = &program.op[script][n];

			do
				op->kind = (enum op_kind)rand_below(rand, NR_OP_KINDS);
			while (op->kind == OP_CALL && has_called);
			has_called |= op->kind == OP_CALL;
			op->value = (unsigned)rand_below(rand, NR_VALUES);
			op->lock = (unsigned)rand_below(rand, 2);
		}
	}
}

/* Those that deadlock do so both ways. */
static bool program_compare(unsigned nr_scripts)
{
	struct interleave_scenario scenario = { .name = "program", .prepare = program_prepare, .check = program_check,
						.script = { program_run_0, program_run_1, program_run_2 }, .at_once = true };
	struct interleave_result result;
	unsigned nr_reduced;
	bool good;

	if (nr_scripts < INTERLEAVE_MAX_SCRIPTS)
		scenario.script[nr_scripts] = NULL;
	outcomes.nr = 0;
	good = interleave_explore(&scenario, &result);
	nr_reduced = outcomes.nr;
	scenario.each = true;
	assert_int_equal(interleave_explore(&scenario, &result), good);
	if (good)
		assert_int_equal(outcomes.nr, nr_reduced);
	return good;
}

/* Seeds with which each part of what decides who meets a step is needed. */
static void test_no_outcome_of_a_program_is_lost(void **state)
{
	struct rand_state rand = { .s = 1 };
	unsigned i, nr_good = 0;

	(void)state;
	if (COROUTINE_SANITIZED) /* nothing is reduced */
		skip();
	for (i = 0; i < 400; i++) {
		program_make(&rand, 1 + i % MAX_OPS);
		nr_good += program_compare(2);
	}
	rand.s = 100;
	for (i = 0; i < 40; i++) {
		program_make(&rand, 2);
		nr_good += program_compare(3);
	}
	assert_true(nr_good > 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_outcome_of_a_program_is_lost),
	};

	unsetenv("FARSWAP_PREEMPTIONS");
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The checked longjmp takes a jump off a coroutine's stack for a mistake. */
#undef _FORTIFY_SOURCE

#include "tests/interleave/interleave.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/interleave/address.h"
#include "tests/interleave/choice.h"
#include "tests/interleave/coroutine.h"
#include "tests/interleave/world.h"

#define MAX_GRACES 32u

/* A thread. */
struct script {
	struct coroutine coroutine;
	bool ended;
	bool reads;		/* it is in a read-side section */
	uint8_t synchronizes;	/* scripts that it waits for to leave theirs */
	bool asks;		/* whether what it has waited for is so: no points inside */
	struct lock_mutex *wants;
	bool (*ready)(void *arg);
	void *arg;
};

/* What is to be called after a grace period. */
struct grace {
	struct sys_rcu_head *head;
	void (*fn)(struct sys_rcu_head *head);
	uint8_t waits; /* for scripts to leave their read-side sections */
};

/* In the world. */
struct machine {
	struct script script[INTERLEAVE_MAX_SCRIPTS];
	unsigned nr_scripts;
	struct grace grace[MAX_GRACES];
	unsigned nr_graces;
	bool quietly; /* a step of several operations: no points inside */
};

static struct machine *machine;
static const struct interleave_scenario *scenario;
static const struct script *asked; /* whether it is ready */
static bool reading; /* this thread is in a read-side section, from the preparation of a scenario to its end */

/* Where a failure goes. */
static sigjmp_buf failure;
static char failure_text[512];

/* ---- points ---- */

static unsigned script_number(const struct script *script)
{
	return (unsigned)(script - machine->script);
}

static struct script *script_self(void)
{
	struct coroutine *coroutine = coroutine_self();

	return coroutine ? BASE_CONTAINER_OF(coroutine, struct script, coroutine) : NULL;
}

/* From here on it is in a read-side section, which matters to who asks for the readers. */
static void script_reads(struct script *script)
{
	if (!script->reads)
		choice_goes_to_shared(script_number(script), (uintptr_t)&machine->script, false);
	script->reads = true;
}

/* The script has come to a point: others may be chosen before it goes on. */
static void script_arrives(struct script *script, const volatile void *at, enum interleave_access access, const char *what,
			   const char *function, int line)
{
	script_reads(script);
	if (choice_is_open(script_number(script), (uintptr_t)at, access == INTERLEAVE_WRITE) && !machine->quietly) {
		choice_print(script_number(script), what, (uintptr_t)at, function, line);
		coroutine_yield();
	}
}

void *interleave_point(const volatile void *at, enum interleave_access access, const char *function, int line)
{
	struct script *script = script_self();

	if (!script || access == INTERLEAVE_UNSEEN)
		return (void *)(uintptr_t)at;
	if (script->asks)
		(void)choice_is_open(script_number(script), (uintptr_t)at, access == INTERLEAVE_WRITE);
	else
		script_arrives(script, at, access, access == INTERLEAVE_READ ? "reads" : "changes", function, line);
	choice_goes_to(script_number(script), (uintptr_t)at, access == INTERLEAVE_WRITE);
	return (void *)(uintptr_t)at;
}

static bool lock_is_free(struct lock_mutex *lock)
{
	if (pthread_mutex_trylock(&lock->m) != 0)
		return false;
	pthread_mutex_unlock(&lock->m);
	return true;
}

void interleave_lock(struct lock_mutex *lock, const char *function, int line) LOCK_NO_ANALYSIS
{
	struct script *script = script_self();

	if (script) {
		script->wants = lock;
		script_arrives(script, lock, INTERLEAVE_WRITE, "locks", function, line);
		script->wants = NULL;
		choice_goes_to(script_number(script), (uintptr_t)lock, true);
	}
	if (pthread_mutex_trylock(&lock->m) != 0)
		interleave_fail("%s:%d: a lock is taken that is held", function, line);
	if (script)
		addresses_locked(script_number(script), (uintptr_t)lock);
}

void interleave_unlock(struct lock_mutex *lock) LOCK_NO_ANALYSIS
{
	struct script *script = script_self();

	if (script)
		addresses_unlocked(script_number(script), (uintptr_t)lock);
	pthread_mutex_unlock(&lock->m);
}

void interleave_gives_up(void)
{
	const struct script *script = script_self();

	if (script)
		choice_goes_everywhere(script_number(script));
}

void interleave_wait(bool (*ready)(void *arg), void *arg)
{
	struct script *script = script_self();

	if (script->reads)
		interleave_quiescent();
	script->ready = ready;
	script->arg = arg;
	choice_print(script_number(script), "waits", 0, __func__, __LINE__);
	choice_arrived(script_number(script));
	coroutine_yield();
	script->ready = NULL;
	script->arg = NULL;
	/* Once more, for what it reads: who writes there may come before. */
	script->asks = true;
	interleave_expect(ready(arg));
	script->asks = false;
}

bool interleave_others_ended(void)
{
	const struct script *self = asked ? asked : script_self();
	unsigned i;

	for (i = 0; i < machine->nr_scripts; i++)
		if (!machine->script[i].ended && &machine->script[i] != self)
			return false;
	return true;
}

/* ---- RCU ---- */

static uint8_t readers(void)
{
	const struct script *self = script_self();
	uint8_t mask = 0;
	unsigned i;

	if (self)
		choice_goes_to_shared(script_number(self), (uintptr_t)&machine->script, true);
	for (i = 0; i < machine->nr_scripts; i++)
		if (!machine->script[i].ended && machine->script[i].reads)
			mask |= (uint8_t)(1u << i);
	return mask;
}

/* Runs what waits for nobody. That is one step: nobody sees the state in between. */
static void graces_run(void)
{
	bool quietly = machine->quietly;
	unsigned i = 0;

	machine->quietly = true;
	while (i < machine->nr_graces) {
		struct grace grace = machine->grace[i];

		if (grace.waits) {
			i++;
			continue;
		}
		machine->nr_graces--;
		memmove(&machine->grace[i], &machine->grace[i + 1], (machine->nr_graces - i) * sizeof(grace));
		memset(&machine->grace[machine->nr_graces], 0, sizeof(grace));
		grace.fn(grace.head);
	}
	machine->quietly = quietly;
}

/* Those who leave while nobody waits for them may do so in any order. */
static void script_reads_no_more(struct script *script)
{
	uint8_t bit = (uint8_t)(1u << script_number(script)), waited_for = 0;
	unsigned i;

	script->reads = false;
	for (i = 0; i < machine->nr_graces; i++) {
		waited_for |= machine->grace[i].waits & bit;
		machine->grace[i].waits &= (uint8_t)~bit;
	}
	for (i = 0; i < machine->nr_scripts; i++) {
		waited_for |= machine->script[i].synchronizes & bit;
		machine->script[i].synchronizes &= (uint8_t)~bit;
	}
	choice_goes_to_shared(script_number(script), (uintptr_t)machine->grace, waited_for != 0);
	graces_run();
	script->reads = false;
}

void interleave_quiescent(void)
{
	struct script *script = script_self();

	if (!script)
		return;
	script_arrives(script, machine->grace, INTERLEAVE_WRITE, "is quiescent", __func__, __LINE__);
	script_reads_no_more(script);
}

void interleave_rcu_call(struct sys_rcu_head *head, void (*fn)(struct sys_rcu_head *head))
{
	struct script *script = script_self();

	if (script) {
		script_arrives(script, machine->grace, INTERLEAVE_WRITE, "gives to RCU", __func__, __LINE__);
		choice_goes_to_shared(script_number(script), (uintptr_t)machine->grace, true);
	}
	if (machine->nr_graces == MAX_GRACES)
		interleave_fail("more than %u wait for a grace period", MAX_GRACES);
	machine->grace[machine->nr_graces++] = (struct grace){ head, fn, readers() };
}

void interleave_rcu_synchronize(void)
{
	struct script *script = script_self();

	if (!script) {
		interleave_grace();
		return;
	}
	script_arrives(script, machine->grace, INTERLEAVE_WRITE, "synchronizes", __func__, __LINE__);
	choice_goes_to_shared(script_number(script), (uintptr_t)machine->grace, true);
	script_reads_no_more(script);
	script->synchronizes = readers();
	choice_arrived(script_number(script));
	coroutine_yield();
}

void interleave_rcu_barrier(void)
{
	interleave_rcu_synchronize();
}

void interleave_grace(void)
{
	unsigned i;

	for (i = 0; i < machine->nr_graces; i++)
		machine->grace[i].waits = 0;
	graces_run();
}

/* ---- one schedule ---- */

static void script_main(void)
{
	struct script *script = script_self();

	coroutine_yield();
	scenario->script[script_number(script)]();
	script_reads_no_more(script);
	memset(script, 0, sizeof(*script));
	script->ended = true;
	choice_arrived(script_number(script));
	for (;;)
		coroutine_yield();
}

static bool script_is_ready(const struct script *script)
{
	bool ready;

	asked = script;
	ready = !script->ready || script->ready(script->arg);
	asked = NULL;
	return ready;
}

static uint8_t scripts_that_can_go_on(void)
{
	uint8_t mask = 0;
	unsigned i;

	for (i = 0; i < machine->nr_scripts; i++) {
		const struct script *script = &machine->script[i];

		if (!script->ended && !script->synchronizes && (!script->wants || lock_is_free(script->wants)) &&
		    script_is_ready(script))
			mask |= (uint8_t)(1u << i);
	}
	return mask;
}

/* All memory, and of each stack what is in use. */
static struct world_hash state_hash(void)
{
	struct world_hash hash = world_hash();
	unsigned i;

	for (i = 0; i < machine->nr_scripts; i++) {
		const struct coroutine *coroutine = &machine->script[i].coroutine;

		if (!machine->script[i].ended)
			hash = world_hash_more(hash, coroutine->bottom, (size_t)(coroutine->top - coroutine->bottom));
	}
	return hash;
}

/* From the beginning to its end, or to a state that is known. */
static void schedule_run(void)
{
	unsigned next;
	uint8_t mask;

	world_restore();
	choice_begin();
	while ((mask = scripts_that_can_go_on()) != 0) {
		if (!choice_make(mask, &next, state_hash))
			return;
		coroutine_resume(&machine->script[next].coroutine);
	}
	if (!interleave_others_ended())
		interleave_fail("nobody can go on, and not all have ended");
	scenario->check();
	choice_ended();
}

/* ---- failures ---- */

void interleave_fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(failure_text, sizeof(failure_text), fmt, args);
	va_end(args);
	siglongjmp(failure, 1);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (number == SIGSEGV && world_note_write(info->si_addr))
		return;
	/* What the signal has come out of is left for good: the next world is another one. */
	interleave_fail("%s", number == SIGABRT ? "an assertion, see above" : "a wild pointer");
}

static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT };

#define NR_SIGNALS BASE_ARRAY_SIZE(signals)

static void catch_signals(struct sigaction *before)
{
	static char stack[64u << 10];
	stack_t alternative = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	unsigned i;

	/* Not the stack of who writes: that is a part of the state. */
	sigaltstack(&alternative, NULL);
	for (i = 0; i < NR_SIGNALS; i++)
		sigaction(signals[i], &action, &before[i]);
}

static void release_signals(const struct sigaction *before)
{
	unsigned i;

	for (i = 0; i < NR_SIGNALS; i++)
		sigaction(signals[i], &before[i], NULL);
}

/* ---- the exploration ---- */

static void machine_make(void)
{
	unsigned i;

	world_open(INTERLEAVE_MAX_SCRIPTS);
	machine = world_calloc(1, sizeof(*machine));
	scenario->prepare();
	interleave_grace(); /* nobody of the scripts is waited for */
	sys_rcu_online();
	reading = true;
	while (machine->nr_scripts < INTERLEAVE_MAX_SCRIPTS && scenario->script[machine->nr_scripts])
		machine->nr_scripts++;
	for (i = 0; i < machine->nr_scripts; i++)
		coroutine_start(&machine->script[i].coroutine, world_stack(i), WORLD_STACK_BYTES, script_main);
	world_snapshot();
}

bool interleave_explore(const struct interleave_scenario *what, struct interleave_result *ret_result)
{
	struct sigaction before[NR_SIGNALS];
	bool good;
	int err;

	scenario = what;
	err = choice_open(what, !COROUTINE_SANITIZED);
	if (err < 0) {
		*ret_result = (struct interleave_result){ .left_out = true };
		return err == -ENOENT;
	}
	catch_signals(before);
	good = sigsetjmp(failure, 1) == 0;
	if (good) {
		machine_make();
		do
			schedule_run();
		while (choice_next());
		world_release();
	} else {
		coroutine_abandon();
	}
	if (reading)
		sys_rcu_offline();
	reading = false;
	release_signals(before);
	choice_close(good ? NULL : failure_text, ret_result);
	return good;
}

/*
 * Runs code that is meant for several threads under a scheduler of ours, and explores every order in which the threads can
 * take their steps.
 *
 * The code under test is compiled once more, with points.h in front, which puts a point before each of its atomic operations,
 * loads included, and before each lock. A scenario has up to three scripts, which stand for threads; each is a coroutine,
 * all on one thread of the system. At a point the scheduler may go on with another script. So an order of steps, a schedule,
 * is a sequence of choices, and is run again by making the same choices from the same state of memory, see world.h.
 *
 * The exploration is depth first, and runs each schedule from the start (Godefroid, "Model checking for programming languages
 * using VeriSoft", 1997), with four reductions, none of which loses an outcome:
 *
 * - Others are only let in where it matters: before a write to an address that another script goes to as well, before a read
 *   of one that another writes, and not where a lock keeps them apart, one that is held by whoever goes there (Stoller,
 *   "Model-checking multi-threaded distributed Java programs", 2000). Which these are is learned by running; when there is
 *   another one, the exploration begins anew. (Take the first step, in any order, that meets another's in a way that is not
 *   known yet: what came before it commutes into an order that is explored, and there the two meet.)
 * - There is no point before a lock is released: that step can as well come at once after the one before it (Lipton, 1975).
 * - A state that was seen before is not gone on from. Two states are the same when all memory of the world is, and all stacks,
 *   by a hash of 128 bits.
 * - Of orders that differ only in steps which do not meet, one is run: see choice.c (Flanagan and Godefroid, "Dynamic
 *   partial-order reduction for model checking software", 2005; with what is known of a state that was seen before, as Yang,
 *   Chen, Gopalakrishnan and Kirby, "Efficient stateful dynamic partial order reduction", 2008). Not where there is a bound.
 *
 * What is left is bounded, where a scenario says so, by the number of preemptions: switches away from a script that could have
 * gone on (Musuvathi and Qadeer, "Iterative context bounding for systematic testing of multithreaded programs", 2007).
 *
 * What scripts share and do not go to by atomic operations or under locks has to be shown as if they did (interleave_point,
 * interleave_gives_up), or orders in which only that differs are left out. What scripts allocate has different addresses in
 * different orders, which nothing may depend on.
 *
 * Memory is sequentially consistent. Grace periods of RCU are as short as they may be: what sys_rcu_call was given runs as soon
 * as every script that was in a read-side section has left it, as one step.
 *
 * With AddressSanitizer states are not compared (coroutine.h), and at most one preemption is allowed, whatever a scenario says.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_INTERLEAVE_H
#define FARSWAP_TESTS_INTERLEAVE_INTERLEAVE_H

#include "common/base/base.h"
#include "common/base/lock.h"
#include "common/sys/rcu.h"

#define INTERLEAVE_MAX_SCRIPTS 3u

struct interleave_scenario {
	const char *name;
	void (*prepare)(void); /* makes the world that every schedule starts with */
	/* NULL from the first that there is not. Each begins and ends outside of a read-side section. */
	void (*script[INTERLEAVE_MAX_SCRIPTS])(void);
	void (*check)(void); /* when all scripts of a schedule have ended */
	uint32_t max_preemptions; /* 0: no bound */
	bool at_once; /* no schedules at random first, to learn which addresses matter */
	bool each; /* the same, and every schedule is run: states are not compared, and no order is left out */
};

struct interleave_result {
	bool left_out; /* FARSWAP_SCHEDULE is for another scenario, or none */
	double nr_schedules; /* without a bound: how many there are, of those that were not left out; exact up to 2^53 */
	uint64_t nr_run;     /* of these, without those of an exploration that had to begin anew */
	uint32_t nr_states;
	uint32_t most_points;
	const char *schedule; /* the one that failed, for FARSWAP_SCHEDULE; until the next exploration */
};

/*
 * Explores, and prints a line about it. False: a schedule failed, which is printed as well, and nothing is run after it.
 *
 * FARSWAP_SCHEDULE, what was printed then: that one schedule is run, and each of its steps printed; scenarios that it is not
 * for are left out, and one that its scenario cannot follow is a failure. FARSWAP_PREEMPTIONS, a number or "all": the bound,
 * where there is one; anything else is a failure.
 */
bool interleave_explore(const struct interleave_scenario *scenario, struct interleave_result *ret_result) BASE_MUST_CHECK;

/* ---- from scripts and checks ---- */

/* Ends the schedule, which has failed. */
_Noreturn void interleave_fail(const char *fmt, ...) BASE_PRINTF(1, 2);

#define interleave_expect(condition) \
	((condition) ? (void)0 : interleave_fail("%s:%d: not so: %s", __func__, __LINE__, #condition))

/* An object's life ends, after which another script might still use it by mistake, and not by atomic operations. */
void interleave_gives_up(void);

/* The script holds nothing that it has found by a lookup: its read-side section ends here, and the next one begins. */
void interleave_quiescent(void);

/*
 * Goes on when ready(arg) is true. What makes it true is either one word, which it reads by an atomic operation; or other
 * scripts can only make it true, and never false again. If nobody can go on, and not all have ended, the schedule has failed.
 */
void interleave_wait(bool (*ready)(void *arg), void *arg);

/* For the functions that interleave_wait is given: whether all scripts have ended but the one that waits. */
bool interleave_others_ended(void);

/* For checks and preparations: runs what waits for a grace period. */
void interleave_grace(void);

/* ---- from points.h: outside of schedules they do what they stand for, and no more ---- */

enum interleave_access { INTERLEAVE_READ, INTERLEAVE_WRITE, INTERLEAVE_UNSEEN };

/* Something is about to be done to what is at this address; UNSEEN: there is nobody who could know. Returns the address. */
void *interleave_point(const volatile void *at, enum interleave_access access, const char *function, int line);
void interleave_lock(struct lock_mutex *lock, const char *function, int line) LOCK_ACQUIRE(*lock);
void interleave_unlock(struct lock_mutex *lock) LOCK_RELEASE(*lock);
void interleave_rcu_call(struct sys_rcu_head *head, void (*fn)(struct sys_rcu_head *head));
void interleave_rcu_synchronize(void);
void interleave_rcu_barrier(void);

#endif

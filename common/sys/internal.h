/*
 * The inside of a reactor, for the files of this room: reactor.c has its life and its turns, and watch.c, timer.c,
 * poller.c and message.c each have one of the things that a turn looks after.
 */
#ifndef FARSWAP_COMMON_SYS_INTERNAL_H
#define FARSWAP_COMMON_SYS_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include <urcu/system.h>

#include "common/base/lock.h"
#include "common/sys/reactor.h"

#define REACTOR_NAME_MAX 16
#define REACTOR_EVENTS_MAX 64 /* taken from epoll at a time; what is left comes with the next turn */
#define REACTOR_SKIP_MAX 3    /* turns, one after the other, in which only pollers are asked */
#define REACTOR_OWN_WATCHES 2 /* wake and alarm */

struct sys_reactor {
	char name[REACTOR_NAME_MAX];
	int cpu;
	bool manual;
	uint64_t spin_ns;
	struct sys_clock *clock;

	uint64_t now_ns;    /* as of the current turn */
	uint64_t worked_ns; /* the last turn that found something to do */
	bool worked;	    /* the last turn did */
	bool pending;	    /* a poller was never asked, or the thread has just begun: no sleep before a turn */

	int epoll_fd;
	struct epoll_event events[REACTOR_EVENTS_MAX]; /* fetched, not all delivered yet */
	int nr_events;
	int next_event;
	unsigned nr_watches;
	unsigned nr_skipped; /* turns since epoll was asked */

	TAILQ_HEAD(, sys_poller) pollers;
	struct sys_poller *next_poller; /* while pollers run: the one after this */
	STAILQ_HEAD(sys_deferred_list, sys_deferred) deferred;
	struct sys_deferred_list due; /* while they run: what is left of this turn's */
	TAILQ_HEAD(sys_timer_list, sys_timer) timers; /* by time */
	struct sys_timer *timer_limit;	/* while timers fire: the end of those that were due before */

	/* Messages that have been taken over from the inbox; only the reactor touches them. */
	struct __cds_wfcq_head taken_head;
	struct cds_wfcq_tail taken_tail;

	struct sys_watch wake;	/* of an eventfd; not for manual reactors */
	struct sys_watch alarm; /* of a timerfd, which ends a sleep when a timer is due; not for manual reactors */
	uint64_t alarm_ns;	/* when it rings, by the reactor's clock; UINT64_MAX: it does not */
	struct lock_mutex control;
	pthread_t thread; /* under control */
	atomic_bool running; /* written under control; read by anybody who checks on which thread he is */
	atomic_bool stop;

	/* What senders write, away from what the reactor works on, and from each other. */
	struct __cds_wfcq_head inbox_head __attribute__((aligned(FSW_CACHE_LINE)));
	struct cds_wfcq_tail inbox_tail __attribute__((aligned(FSW_CACHE_LINE)));
	atomic_int sleeping __attribute__((aligned(FSW_CACHE_LINE)));
};

/* Programmer's mistakes: the wrong thread. */
static inline void reactor_assert_owned(const struct sys_reactor *reactor)
{
	assert(!atomic_load_explicit(&reactor->running, memory_order_relaxed) || sys_reactor_self() == reactor);
	(void)reactor;
}

/* While the calling thread stands in for the reactor's own, which does not run. */
struct reactor_stand_in {
	struct sys_reactor *before;
	bool registered;
};
void reactor_enter(struct sys_reactor *reactor, struct reactor_stand_in *stand_in);
void reactor_leave(const struct reactor_stand_in *stand_in);

/* The parts of a turn. Each returns the number of things it did. */
unsigned reactor_messages_run(struct sys_reactor *reactor);
unsigned reactor_watches_run(struct sys_reactor *reactor);
unsigned reactor_pollers_run(struct sys_reactor *reactor);
/* Before a sleep. */
unsigned reactor_pollers_arm(struct sys_reactor *reactor);
unsigned reactor_timers_run(struct sys_reactor *reactor);
unsigned reactor_deferred_run(struct sys_reactor *reactor);

void reactor_messages_init(struct sys_reactor *reactor);
/* A queue of liburcu's: each sender puts itself at the tail first. Without a call into the library, since every turn asks. */
static inline bool reactor_queue_is_empty(const struct __cds_wfcq_head *head, const struct cds_wfcq_tail *tail)
{
	return CMM_LOAD_SHARED(tail->p) == &head->node;
}

/* True when there are messages, one that is still being sent included. */
static inline bool reactor_messages_waiting(const struct sys_reactor *reactor)
{
	return !reactor_queue_is_empty(&reactor->inbox_head, &reactor->inbox_tail) ||
	       !reactor_queue_is_empty(&reactor->taken_head, &reactor->taken_tail);
}

/* Any thread, after what the reactor is to find has been stored: ends its sleep. */
void reactor_wake(struct sys_reactor *reactor);

#endif

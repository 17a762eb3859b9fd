/*
 * A reactor: one thread that serves what it owns by turns and never blocks inside a turn.
 *
 * A turn is: messages from other threads, ready file descriptors, pollers, timers, then what was deferred (the place
 * where a connection sends all that the turn queued, in one system call). After a turn that found nothing it spins for
 * spin_us, then sleeps in epoll until a descriptor, a message or a timer wakes it.
 *
 * Unless a function says otherwise it is called on the reactor's own thread (or before the thread is started, or after
 * it has ended). Callbacks may add and remove any watch, poller or timer, their own included. Nothing allocates after
 * sys_reactor_create.
 *
 * In manual mode there is no thread and no epoll: a test calls sys_reactor_turn, under a clock of its own.
 */
#ifndef FARSWAP_COMMON_SYS_REACTOR_H
#define FARSWAP_COMMON_SYS_REACTOR_H

#include <sys/queue.h>

#include <urcu/wfcqueue.h>

#include "common/base/base.h"
#include "common/sys/clock.h"

struct sys_reactor;

struct sys_reactor_options {
	const char *name;	 /* of the thread; at most 15 characters; copied */
	int cpu;		 /* processor to stay on, -1 for any */
	unsigned spin_us;	 /* how long to look for work before sleeping; 0: sleep at once */
	/* NULL: sys_clock_monotonic(). With a thread it must run as fast as that: after a jump a timer may be late. */
	struct sys_clock *clock;
	bool manual;		 /* no thread, no epoll: turns are called for */
};

/* A file descriptor that is watched. Embedded by its owner, which sets fd and ready. Not for manual reactors. */
struct sys_watch {
	int fd;
	/* events: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP as epoll reports them (level triggered). */
	void (*ready)(struct sys_watch *watch, uint32_t events);
	struct sys_reactor *reactor; /* NULL when not added */
	uint32_t events;
};

/*
 * Something that is asked in every turn, and that keeps the reactor from sleeping for spin_us after each time it found
 * work. poll returns the number of things it did.
 */
struct sys_poller {
	unsigned (*poll)(struct sys_poller *poller);
	/*
	 * Optional (NULL). The reactor is about to sleep: from here on a descriptor that it watches must tell of what poll
	 * would find. Returns the number of things that it did after all; when it did any, the reactor does not sleep.
	 */
	unsigned (*arm)(struct sys_poller *poller);
	TAILQ_ENTRY(sys_poller) link;
	struct sys_reactor *reactor; /* NULL when not added */
};

/* Work for the end of the current turn, once, however often it is asked for. */
struct sys_deferred {
	void (*run)(struct sys_deferred *deferred);
	STAILQ_ENTRY(sys_deferred) link;
	bool queued;
};

struct sys_timer {
	void (*fire)(struct sys_timer *timer);
	TAILQ_ENTRY(sys_timer) link;
	uint64_t at_ns;
	bool armed;
};

/* Something to be run on the reactor, sent by another thread. Belongs to the reactor until run is called. */
struct sys_message {
	void (*run)(struct sys_message *message);
	struct cds_wfcq_node node;
};

/* 0, -ENOMEM, -EMFILE, -ENFILE. */
int sys_reactor_create(const struct sys_reactor_options *options, struct sys_reactor **ret_reactor) BASE_MUST_CHECK;

/* The thread must have been stopped, and every watch, poller and timer removed. Accepts NULL. */
void sys_reactor_free(struct sys_reactor *reactor);

/* Control thread. Starts the thread (signals blocked, registered with RCU). 0 or a negative errno of pthread_create. */
int sys_reactor_start(struct sys_reactor *reactor) BASE_MUST_CHECK;

/* Control thread. Ends the thread after its current turn and joins it. Safe if never started. */
void sys_reactor_stop(struct sys_reactor *reactor);

/* Manual mode: one turn. Returns the number of things done. */
unsigned sys_reactor_turn(struct sys_reactor *reactor);

/* The reactor whose thread this is, or NULL. In manual mode, the one whose turn is running. */
struct sys_reactor *sys_reactor_self(void);

/* The time, read once per turn: cheap, and at most one turn old. */
uint64_t sys_reactor_now_ns(const struct sys_reactor *reactor);
struct sys_clock *sys_reactor_clock(const struct sys_reactor *reactor);

/* When the first armed timer fires, or UINT64_MAX: how far a simulated clock may go at once. Not inside a turn. */
uint64_t sys_reactor_next_timer_ns(const struct sys_reactor *reactor);

/* 0, -ENOMEM or -ENOSPC from epoll. `events` as for epoll; EPOLLERR and EPOLLHUP always come. */
int sys_watch_add(struct sys_reactor *reactor, struct sys_watch *watch, uint32_t events) BASE_MUST_CHECK;
/* A no-op when the events are the same. */
void sys_watch_modify(struct sys_watch *watch, uint32_t events);
/* Before the descriptor is closed. No call of ready comes after it. Safe if not added. */
void sys_watch_remove(struct sys_watch *watch);

void sys_poller_add(struct sys_reactor *reactor, struct sys_poller *poller);
void sys_poller_remove(struct sys_poller *poller);

/* sys_reactor_defer's own, for one that is not queued. */
void sys_reactor_defer_unqueued(struct sys_reactor *reactor, struct sys_deferred *deferred);

static inline void sys_reactor_defer(struct sys_reactor *reactor, struct sys_deferred *deferred)
{
	if (!deferred->queued)
		sys_reactor_defer_unqueued(reactor, deferred);
}

/* Safe if it is not put off. Looks at what is: not for the data path. */
void sys_reactor_undefer(struct sys_reactor *reactor, struct sys_deferred *deferred);

/* At or after at_ns of the reactor's clock, once. Arming an armed timer moves it. */
void sys_timer_arm(struct sys_reactor *reactor, struct sys_timer *timer, uint64_t at_ns);
void sys_timer_cancel(struct sys_reactor *reactor, struct sys_timer *timer);

/* Any thread; wait-free. Messages of one sender arrive in order. Also safe when the reactor is manual. */
void sys_reactor_send(struct sys_reactor *reactor, struct sys_message *message);

/*
 * Control thread, not the reactor's own: runs fn(arg) on the reactor and returns when it has run. Runs it directly when
 * the reactor's thread is not running.
 */
void sys_reactor_call(struct sys_reactor *reactor, void (*fn)(void *arg), void *arg);

#endif

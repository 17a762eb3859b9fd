#include "common/sys/reactor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/sys/internal.h"
#include "common/sys/rcu.h"
#include "common/sys/thread.h"

static _Thread_local struct sys_reactor *self;

struct sys_reactor *sys_reactor_self(void)
{
	return self;
}

uint64_t sys_reactor_now_ns(const struct sys_reactor *reactor)
{
	return reactor->now_ns;
}

struct sys_clock *sys_reactor_clock(const struct sys_reactor *reactor)
{
	return reactor->clock;
}

/* Empties an eventfd or a timerfd, if there is anything in it. */
static void drain(const struct sys_watch *watch)
{
	uint64_t count;

	while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

static void on_wake(struct sys_watch *watch, uint32_t events)
{
	(void)events;
	/* Empty when a slow sender's write comes twice; the message itself is in the queue. */
	drain(watch);
}

static void on_alarm(struct sys_watch *watch, uint32_t events)
{
	(void)events;
	drain(watch);
	BASE_CONTAINER_OF(watch, struct sys_reactor, alarm)->alarm_ns = UINT64_MAX;
}

/* fd: of a watch of the reactor's own, or below 0, with errno. Takes it. */
static int open_watch(struct sys_reactor *reactor, struct sys_watch *watch, int fd,
		      void (*ready)(struct sys_watch *watch, uint32_t events))
{
	int ret;

	if (fd < 0)
		return -errno;
	watch->fd = fd;
	watch->ready = ready;
	ret = sys_watch_add(reactor, watch, EPOLLIN);
	if (ret < 0)
		close(fd);
	return ret;
}

static void close_watch(struct sys_watch *watch)
{
	sys_watch_remove(watch);
	close(watch->fd);
}

static int open_epoll(struct sys_reactor *reactor)
{
	int ret;

	reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (reactor->epoll_fd < 0)
		return -errno;
	ret = open_watch(reactor, &reactor->wake, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_wake);
	if (ret < 0)
		goto out_epoll;
	ret = open_watch(reactor, &reactor->alarm, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), on_alarm);
	if (ret < 0)
		goto out_wake;
	return 0;

out_wake:
	close_watch(&reactor->wake);
out_epoll:
	close(reactor->epoll_fd);
	return ret;
}

int sys_reactor_create(const struct sys_reactor_options *options, struct sys_reactor **ret_reactor)
{
	struct sys_reactor *reactor;
	int ret;

	reactor = aligned_alloc(FSW_CACHE_LINE, base_align_up(sizeof(*reactor), FSW_CACHE_LINE));
	if (!reactor)
		return -ENOMEM;
	*reactor = (struct sys_reactor){
		.cpu = options->cpu,
		.manual = options->manual,
		.spin_ns = options->spin_us * SYS_NS_PER_US,
		.clock = options->clock ? options->clock : sys_clock_monotonic(),
		.epoll_fd = -1,
		.alarm_ns = UINT64_MAX,
	};
	snprintf(reactor->name, sizeof(reactor->name), "%s", options->name ? options->name : "reactor");
	TAILQ_INIT(&reactor->pollers);
	STAILQ_INIT(&reactor->deferred);
	STAILQ_INIT(&reactor->due);
	TAILQ_INIT(&reactor->timers);
	reactor_messages_init(reactor);
	lock_mutex_init(&reactor->control);
	reactor->now_ns = sys_clock_now_ns(reactor->clock);
	if (!reactor->manual) {
		ret = open_epoll(reactor);
		if (ret < 0)
			goto out_free;
	}
	*ret_reactor = reactor;
	return 0;

out_free:
	lock_mutex_done(&reactor->control);
	free(reactor);
	return ret;
}

void sys_reactor_free(struct sys_reactor *reactor)
{
	if (!reactor)
		return;
	assert(!atomic_load_explicit(&reactor->running, memory_order_relaxed));
	assert(TAILQ_EMPTY(&reactor->pollers) && TAILQ_EMPTY(&reactor->timers) && STAILQ_EMPTY(&reactor->deferred));
	if (!reactor->manual) {
		close_watch(&reactor->alarm);
		close_watch(&reactor->wake);
		close(reactor->epoll_fd);
	}
	assert(reactor->nr_watches == 0);
	lock_mutex_done(&reactor->control);
	free(reactor);
}

void reactor_enter(struct sys_reactor *reactor, struct reactor_stand_in *stand_in)
{
	stand_in->before = self;
	stand_in->registered = sys_rcu_thread_registered();
	if (!stand_in->before) {
		sys_rcu_thread_init();
		sys_rcu_online();
	}
	self = reactor;
	reactor->now_ns = sys_clock_now_ns(reactor->clock);
}

void reactor_leave(const struct reactor_stand_in *stand_in)
{
	self = stand_in->before;
	if (stand_in->before)
		return;
	sys_rcu_offline();
	if (!stand_in->registered)
		sys_rcu_thread_done();
}

static unsigned run_turn(struct sys_reactor *reactor)
{
	unsigned nr = 0;

	reactor->now_ns = sys_clock_now_ns(reactor->clock);
	reactor->pending = false;
	if (reactor_messages_waiting(reactor))
		nr += reactor_messages_run(reactor);
	if (reactor->nr_events > 0)
		nr += reactor_watches_run(reactor);
	nr += reactor_pollers_run(reactor);
	if (!TAILQ_EMPTY(&reactor->timers) && TAILQ_FIRST(&reactor->timers)->at_ns <= reactor->now_ns)
		nr += reactor_timers_run(reactor);
	if (!STAILQ_EMPTY(&reactor->deferred))
		nr += reactor_deferred_run(reactor);
	reactor->worked = nr > 0;
	if (nr > 0)
		reactor->worked_ns = reactor->now_ns;
	return nr;
}

unsigned sys_reactor_turn(struct sys_reactor *reactor)
{
	struct reactor_stand_in stand_in;
	unsigned nr;

	assert(reactor->manual);
	reactor_enter(reactor, &stand_in);
	nr = run_turn(reactor);
	reactor_leave(&stand_in);
	return nr;
}

static void wait_events(struct sys_reactor *reactor, bool sleep)
{
	int nr = epoll_wait(reactor->epoll_fd, reactor->events, REACTOR_EVENTS_MAX, sleep ? -1 : 0);

	reactor->nr_events = nr < 0 ? 0 : nr;
}

/*
 * Before a sleep: the alarm rings when the first timer is due, or earlier, for one that is not there any more (a turn with
 * nothing to do). So it is set about once for each timer that fires, and not, as a timeout would be, for each sleep. False: a
 * timer is due, and no alarm will tell of it.
 */
static bool set_alarm(struct sys_reactor *reactor)
{
	uint64_t at_ns = sys_reactor_next_timer_ns(reactor);
	struct itimerspec rings = { .it_value.tv_sec = 0 };
	uint64_t now_ns;
	int ret;

	if (at_ns >= reactor->alarm_ns)
		return true;
	now_ns = sys_clock_now_ns(reactor->clock);
	if (at_ns <= now_ns)
		return false;
	rings.it_value.tv_sec = (time_t)((at_ns - now_ns) / SYS_NS_PER_S);
	rings.it_value.tv_nsec = (long)((at_ns - now_ns) % SYS_NS_PER_S);
	ret = timerfd_settime(reactor->alarm.fd, 0, &rings, NULL);
	assert(ret == 0);
	(void)ret;
	reactor->alarm_ns = at_ns;
	return true;
}

static void sleep_until_event(struct sys_reactor *reactor)
{
	bool sleep = set_alarm(reactor);

	sys_rcu_offline();
	/* Relaxed: the barrier orders it, see message.c. */
	atomic_store_explicit(&reactor->sleeping, 1, memory_order_relaxed);
	cmm_smp_mb();
	if (reactor_messages_waiting(reactor) || atomic_load_explicit(&reactor->stop, memory_order_relaxed))
		sleep = false;
	wait_events(reactor, sleep);
	atomic_store_explicit(&reactor->sleeping, 0, memory_order_relaxed);
	sys_rcu_online();
}

/*
 * While there are pollers, they are asked in every turn and epoll only in some: what a reactor waits for most is with
 * them, and each look at epoll costs as much as a poller's look at its socket. Nobody else waits longer than these few
 * turns.
 */
static bool may_skip_events(struct sys_reactor *reactor)
{
	if (TAILQ_EMPTY(&reactor->pollers) || reactor->nr_skipped == REACTOR_SKIP_MAX) {
		reactor->nr_skipped = 0;
		return false;
	}
	reactor->nr_skipped++;
	return true;
}

/* A poller is asked once more, without result, before anybody sleeps. */
static bool may_sleep(const struct sys_reactor *reactor)
{
	return !reactor->pending && STAILQ_EMPTY(&reactor->deferred) && (!reactor->worked || TAILQ_EMPTY(&reactor->pollers)) &&
	       reactor->now_ns - reactor->worked_ns >= reactor->spin_ns;
}

static void *reactor_main(void *arg)
{
	struct sys_reactor *reactor = arg;

	self = reactor;
	sys_rcu_thread_init();
	sys_rcu_online();
	reactor->worked_ns = sys_clock_now_ns(reactor->clock);
	reactor->pending = true; /* whatever was set up before the start is looked at once before the first sleep */
	while (!atomic_load_explicit(&reactor->stop, memory_order_relaxed)) {
		if (may_sleep(reactor) && reactor_pollers_arm(reactor) == 0)
			sleep_until_event(reactor);
		else if (reactor->nr_watches > REACTOR_OWN_WATCHES && !may_skip_events(reactor))
			/* Nobody wakes a reactor that is awake, and it looks at its timers by itself. */
			wait_events(reactor, false);
		run_turn(reactor);
		sys_rcu_quiescent();
	}
	sys_rcu_offline();
	sys_rcu_thread_done();
	self = NULL;
	return NULL;
}

int sys_reactor_start(struct sys_reactor *reactor)
{
	int ret;

	assert(!reactor->manual);
	lock_acquire(&reactor->control);
	assert(!atomic_load_explicit(&reactor->running, memory_order_relaxed));
	/* Relaxed: the start of the thread orders both. */
	atomic_store_explicit(&reactor->stop, false, memory_order_relaxed);
	atomic_store_explicit(&reactor->running, true, memory_order_relaxed);
	ret = sys_thread_start(&reactor->thread, reactor->name, reactor->cpu, reactor_main, reactor);
	if (ret < 0)
		atomic_store_explicit(&reactor->running, false, memory_order_relaxed);
	lock_release(&reactor->control);
	return ret;
}

/* What was sent to a thread that has ended is run by who ended it, so that nobody waits for ever. */
static void run_left_over(struct sys_reactor *reactor)
{
	struct reactor_stand_in stand_in;

	reactor_enter(reactor, &stand_in);
	while (reactor_messages_waiting(reactor) || !STAILQ_EMPTY(&reactor->deferred)) {
		reactor_messages_run(reactor);
		reactor_deferred_run(reactor);
	}
	reactor_leave(&stand_in);
}

void sys_reactor_stop(struct sys_reactor *reactor)
{
	pthread_t thread;

	lock_acquire(&reactor->control);
	if (!atomic_load_explicit(&reactor->running, memory_order_relaxed)) {
		lock_release(&reactor->control);
		return;
	}
	assert(self != reactor);
	thread = reactor->thread;
	/* Relaxed: nothing is read on the strength of it; the barrier in reactor_wake orders it before the wake. */
	atomic_store_explicit(&reactor->stop, true, memory_order_relaxed);
	reactor_wake(reactor);
	lock_release(&reactor->control);
	pthread_join(thread, NULL);

	lock_acquire(&reactor->control);
	atomic_store_explicit(&reactor->running, false, memory_order_relaxed);
	run_left_over(reactor);
	lock_release(&reactor->control);
}

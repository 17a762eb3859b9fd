/* Timers in one list, ordered by time. There are a few tens of them, nearly all armed for later than the rest. */
#include "common/sys/internal.h"

void sys_timer_arm(struct sys_reactor *reactor, struct sys_timer *timer, uint64_t at_ns)
{
	struct sys_timer *before;

	reactor_assert_owned(reactor);
	assert(timer->fire);
	sys_timer_cancel(reactor, timer);
	timer->at_ns = at_ns;
	timer->armed = true;
	/*
	 * While timers fire, a new one goes behind the limit however early it is: it waits for the next turn, so that a timer
	 * that is always due cannot hold the reactor.
	 */
	before = TAILQ_LAST(&reactor->timers, sys_timer_list);
	while (before && before != reactor->timer_limit && before->at_ns > at_ns)
		before = TAILQ_PREV(before, sys_timer_list, link);
	if (before)
		TAILQ_INSERT_AFTER(&reactor->timers, before, timer, link);
	else
		TAILQ_INSERT_HEAD(&reactor->timers, timer, link);
}

void sys_timer_cancel(struct sys_reactor *reactor, struct sys_timer *timer)
{
	reactor_assert_owned(reactor);
	if (!timer->armed)
		return;
	TAILQ_REMOVE(&reactor->timers, timer, link);
	timer->armed = false;
}

uint64_t sys_reactor_next_timer_ns(const struct sys_reactor *reactor)
{
	const struct sys_timer *first = TAILQ_FIRST(&reactor->timers);

	return first ? first->at_ns : UINT64_MAX;
}

unsigned reactor_timers_run(struct sys_reactor *reactor)
{
	struct sys_timer *timer = TAILQ_FIRST(&reactor->timers);
	struct sys_timer limit;
	unsigned nr = 0;

	if (!timer || timer->at_ns > reactor->now_ns)
		return 0;
	while (timer && timer->at_ns <= reactor->now_ns)
		timer = TAILQ_NEXT(timer, link);
	if (timer)
		TAILQ_INSERT_BEFORE(timer, &limit, link);
	else
		TAILQ_INSERT_TAIL(&reactor->timers, &limit, link);

	reactor->timer_limit = &limit;
	while ((timer = TAILQ_FIRST(&reactor->timers)) != &limit) {
		TAILQ_REMOVE(&reactor->timers, timer, link);
		timer->armed = false;
		timer->fire(timer);
		nr++;
	}
	TAILQ_REMOVE(&reactor->timers, &limit, link);
	reactor->timer_limit = NULL;
	return nr;
}

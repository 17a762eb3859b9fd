/* What is asked in every turn, and what is put off to the end of one. */
#include "common/sys/internal.h"

void sys_poller_add(struct sys_reactor *reactor, struct sys_poller *poller)
{
	reactor_assert_owned(reactor);
	assert(poller->poll && !poller->reactor);
	TAILQ_INSERT_TAIL(&reactor->pollers, poller, link);
	poller->reactor = reactor;
	reactor->pending = true;
}

void sys_poller_remove(struct sys_poller *poller)
{
	struct sys_reactor *reactor = poller->reactor;

	if (!reactor)
		return;
	reactor_assert_owned(reactor);
	if (reactor->next_poller == poller)
		reactor->next_poller = TAILQ_NEXT(poller, link);
	TAILQ_REMOVE(&reactor->pollers, poller, link);
	poller->reactor = NULL;
}

unsigned reactor_pollers_run(struct sys_reactor *reactor)
{
	struct sys_poller *poller = TAILQ_FIRST(&reactor->pollers);
	unsigned nr = 0;

	while (poller) {
		reactor->next_poller = TAILQ_NEXT(poller, link);
		nr += poller->poll(poller);
		poller = reactor->next_poller;
	}
	return nr;
}

unsigned reactor_pollers_arm(struct sys_reactor *reactor)
{
	struct sys_poller *poller = TAILQ_FIRST(&reactor->pollers);
	unsigned nr = 0;

	while (poller) {
		reactor->next_poller = TAILQ_NEXT(poller, link);
		if (poller->arm)
			nr += poller->arm(poller);
		poller = reactor->next_poller;
	}
	return nr;
}

void sys_reactor_defer_unqueued(struct sys_reactor *reactor, struct sys_deferred *deferred)
{
	reactor_assert_owned(reactor);
	assert(deferred->run && !deferred->queued);
	TAILQ_INSERT_TAIL(&reactor->deferred, deferred, link);
	deferred->queued = true;
	reactor->pending = true;
}

void sys_reactor_undefer(struct sys_reactor *reactor, struct sys_deferred *deferred)
{
	reactor_assert_owned(reactor);
	if (!deferred->queued)
		return;
	TAILQ_REMOVE(&reactor->deferred, deferred, link);
	deferred->queued = false;
}

unsigned reactor_deferred_run(struct sys_reactor *reactor)
{
	/* What is deferred meanwhile waits behind the limit for the next turn, which comes without a sleep. */
	struct sys_deferred limit = { .queued = true };
	struct sys_deferred *deferred;
	unsigned nr = 0;

	if (TAILQ_EMPTY(&reactor->deferred))
		return 0;
	TAILQ_INSERT_TAIL(&reactor->deferred, &limit, link);
	while ((deferred = TAILQ_FIRST(&reactor->deferred)) != &limit) {
		TAILQ_REMOVE(&reactor->deferred, deferred, link);
		deferred->queued = false;
		deferred->run(deferred);
		nr++;
	}
	TAILQ_REMOVE(&reactor->deferred, &limit, link);
	return nr;
}

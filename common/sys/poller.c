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
	STAILQ_INSERT_TAIL(&reactor->deferred, deferred, link);
	deferred->queued = true;
}

static bool deferred_remove(struct sys_deferred_list *list, struct sys_deferred *deferred)
{
	const struct sys_deferred *at;

	STAILQ_FOREACH(at, list, link) {
		if (at == deferred) {
			STAILQ_REMOVE(list, deferred, sys_deferred, link);
			return true;
		}
	}
	return false;
}

void sys_reactor_undefer(struct sys_reactor *reactor, struct sys_deferred *deferred)
{
	bool found;

	reactor_assert_owned(reactor);
	if (!deferred->queued)
		return;
	found = deferred_remove(&reactor->due, deferred) || deferred_remove(&reactor->deferred, deferred);
	assert(found);
	(void)found;
	deferred->queued = false;
}

unsigned reactor_deferred_run(struct sys_reactor *reactor)
{
	struct sys_deferred *deferred;
	unsigned nr = 0;

	/* What is deferred meanwhile waits for the next turn, which comes without a sleep. */
	STAILQ_CONCAT(&reactor->due, &reactor->deferred);
	while ((deferred = STAILQ_FIRST(&reactor->due))) {
		STAILQ_REMOVE_HEAD(&reactor->due, link);
		deferred->queued = false;
		deferred->run(deferred);
		nr++;
	}
	return nr;
}

#include <errno.h>

#include "common/base/err.h"
#include "common/sys/internal.h"

static int control(struct sys_watch *watch, struct sys_reactor *reactor, int what, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };

	return err_from_libc(epoll_ctl(reactor->epoll_fd, what, watch->fd, &event));
}

int sys_watch_add(struct sys_reactor *reactor, struct sys_watch *watch, uint32_t events)
{
	int ret;

	reactor_assert_owned(reactor);
	assert(!reactor->manual && !watch->reactor && watch->ready);
	ret = control(watch, reactor, EPOLL_CTL_ADD, events);
	if (ret < 0)
		return ret;
	watch->reactor = reactor;
	watch->events = events;
	reactor->nr_watches++;
	return 0;
}

void sys_watch_modify(struct sys_watch *watch, uint32_t events)
{
	int ret;

	reactor_assert_owned(watch->reactor);
	if (watch->events == events)
		return;
	ret = control(watch, watch->reactor, EPOLL_CTL_MOD, events);
	assert(ret == 0);
	(void)ret;
	watch->events = events;
}

void sys_watch_remove(struct sys_watch *watch)
{
	struct sys_reactor *reactor = watch->reactor;
	int ret;

	if (!reactor)
		return;
	reactor_assert_owned(reactor);
	ret = control(watch, reactor, EPOLL_CTL_DEL, 0);
	assert(ret == 0);
	(void)ret;
	/* What was fetched for it already is not delivered any more. */
	for (int i = reactor->next_event; i < reactor->nr_events; i++) {
		if (reactor->events[i].data.ptr == watch)
			reactor->events[i].data.ptr = NULL;
	}
	watch->reactor = NULL;
	reactor->nr_watches--;
}

unsigned reactor_watches_run(struct sys_reactor *reactor)
{
	unsigned nr = 0;

	for (reactor->next_event = 0; reactor->next_event < reactor->nr_events;) {
		const struct epoll_event *event = &reactor->events[reactor->next_event++];
		struct sys_watch *watch = event->data.ptr;
		uint32_t events;

		if (!watch)
			continue;
		/* It may have been modified by a callback of this turn. */
		events = event->events & (watch->events | EPOLLERR | EPOLLHUP);
		if (events == 0)
			continue;
		watch->ready(watch, events);
		nr++;
	}
	reactor->nr_events = 0;
	reactor->next_event = 0;
	return nr;
}

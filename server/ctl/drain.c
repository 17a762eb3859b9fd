/*
 * Drains, and those who watch: each watch remembers what it has told its client, so that nothing has to be queued for
 * it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/log/log.h"
#include "server/ctl/lender_private.h"

struct lender_watch {
	LIST_ENTRY(lender_watch) link;
	struct lease *lease;  /* NULL once it has ended */
	uint64_t drain_seen;  /* drain.number when the client was last told */
	bool drain_told;      /* what the client believes */
	char ended_reason[LENDER_REASON_MAX];
};

int lender_request_drain(struct lender *lender, uint64_t deadline_ms, const char *reason, bool stopping,
			 uint32_t *ret_nr_leases)
{
	uint64_t now_ns = sys_clock_now_ns(lender->clock);
	struct lender_drain *drain = &lender->drain;
	int ret = lease_text_check(reason, LENDER_REASON_MAX);

	if (ret < 0)
		return ret;
	deadline_ms = base_min_u64(deadline_ms, (UINT64_MAX - now_ns) / SYS_NS_PER_MS);
	lock_acquire(&lender->lock);
	if (drain->stopping) {
		ret = -ESHUTDOWN;
	} else {
		drain->number++;
		drain->on = true;
		drain->stopping = stopping;
		drain->deadline_ns = deadline_ms ? now_ns + deadline_ms * SYS_NS_PER_MS : 0;
		snprintf(drain->reason, sizeof(drain->reason), "%s", reason);
		*ret_nr_leases = lease_table_nr_leases(lender->leases);
		log_notice("drain requested (%s): %u leases are asked to give their slabs back",
			   *reason ? reason : "no reason given", *ret_nr_leases);
	}
	lock_release(&lender->lock);
	if (ret == 0)
		lender_notify(lender);
	return ret;
}

int lender_cancel_drain(struct lender *lender)
{
	struct lender_drain *drain = &lender->drain;
	bool changed = false;
	int ret = 0;

	lock_acquire(&lender->lock);
	if (drain->stopping) {
		ret = -ESHUTDOWN;
	} else if (drain->on) {
		drain->number++;
		drain->on = false;
		changed = true;
		log_notice("drain cancelled: slabs are lent again");
	}
	lock_release(&lender->lock);
	if (changed)
		lender_notify(lender);
	return ret;
}

uint32_t lender_nr_watches_locked(struct lender *lender, const struct lease *lease)
{
	const struct lender_watch *watch;
	uint32_t nr = 0;

	LIST_FOREACH(watch, &lender->watches, link)
		nr += watch->lease == lease;
	return nr;
}

void lender_watches_end_locked(struct lender *lender, const struct lease *lease, const char *reason)
{
	struct lender_watch *watch;

	LIST_FOREACH(watch, &lender->watches, link) {
		if (watch->lease != lease)
			continue;
		watch->lease = NULL;
		snprintf(watch->ended_reason, sizeof(watch->ended_reason), "%s", reason);
	}
}

int lender_watch_open(struct lender *lender, const struct lender_proof *proof, struct lender_watch **ret_watch)
{
	struct lender_watch *watch = calloc(1, sizeof(*watch));
	int ret;

	if (!watch)
		return -ENOMEM;
	lock_acquire(&lender->lock);
	ret = lender_find_locked(lender, proof, &watch->lease);
	if (ret == 0 && lender_nr_watches_locked(lender, watch->lease) >= LENDER_MAX_WATCHES)
		ret = -EMFILE;
	if (ret == 0)
		LIST_INSERT_HEAD(&lender->watches, watch, link);
	lock_release(&lender->lock);
	if (ret < 0) {
		free(watch);
		return ret;
	}
	*ret_watch = watch;
	return 0;
}

/* What is left of the deadline, and 1 when nothing is: 0 would say that there is none. */
static uint64_t drain_left_ms(const struct lender_drain *drain, uint64_t now_ns)
{
	if (drain->deadline_ns == 0)
		return 0;
	return drain->deadline_ns > now_ns ? (drain->deadline_ns - now_ns) / SYS_NS_PER_MS + 1 : 1;
}

void lender_watch_next(struct lender *lender, struct lender_watch *watch, struct lender_event *ret_event)
{
	uint64_t now_ns = sys_clock_now_ns(lender->clock);
	const struct lender_drain *drain = &lender->drain;
	struct lender_event event = { .type = LENDER_EVENT_NONE };

	lock_acquire(&lender->lock);
	if (!watch->lease) {
		event.type = LENDER_EVENT_LEASE_ENDED;
		memcpy(event.reason, watch->ended_reason, sizeof(event.reason));
	} else if (watch->drain_seen != drain->number) {
		watch->drain_seen = drain->number;
		if (drain->on) {
			event.type = LENDER_EVENT_DRAIN_REQUESTED;
			event.deadline_ms = drain_left_ms(drain, now_ns);
			memcpy(event.reason, drain->reason, sizeof(event.reason));
		} else if (watch->drain_told) {
			event.type = LENDER_EVENT_DRAIN_CANCELLED;
		}
		watch->drain_told = drain->on;
	}
	lock_release(&lender->lock);
	*ret_event = event;
}

void lender_watch_close(struct lender *lender, struct lender_watch *watch)
{
	if (!watch)
		return;
	lock_acquire(&lender->lock);
	LIST_REMOVE(watch, link);
	lock_release(&lender->lock);
	free(watch);
}

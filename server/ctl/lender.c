#include "server/ctl/lender.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/thread.h"
#include "server/ctl/lender_private.h"

/* How often leases are looked at: a sixteenth of the term, within these bounds. */
#define TICK_MIN_MS 5u
#define TICK_MAX_MS 500u

/* After so many ticks' worth of silence the server itself did not run (it was stopped, suspended or starved). */
#define TICKS_MISSED 4u

static struct expose_lease *lease_exposed(const struct lease *lease)
{
	return lease->owner;
}

void lender_notify(struct lender *lender)
{
	if (lender->changed)
		lender->changed(lender->user);
}

void lender_on_change(struct lender *lender, void (*changed)(void *user), void *user)
{
	lender->changed = changed;
	lender->user = user;
}

int lender_create(const struct lender_options *options, struct lender **ret_lender)
{
	struct lease_limits limits = {
		.max_leases = options->max_leases,
		.max_slabs = options->max_lease_slabs,
		.nr_slabs = arena_nr_slabs(options->arena),
		.term_ns = options->term_ms * SYS_NS_PER_MS,
	};
	pthread_condattr_t monotonic;
	struct lender *lender;
	int ret;

	lender = calloc(1, sizeof(*lender));
	if (!lender)
		return -ENOMEM;
	ret = lease_table_create(&limits, &lender->leases);
	if (ret < 0) {
		free(lender);
		return ret;
	}
	lender->arena = options->arena;
	lender->expose = options->expose;
	lender->clock = options->clock;
	lender->tick_ms = (uint32_t)base_min_u64(base_max_u64(options->term_ms / 16, TICK_MIN_MS), TICK_MAX_MS);
	lock_mutex_init(&lender->lock);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&lender->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	lock_acquire(&lender->lock);
	lender->ticked_ns = sys_clock_now_ns(lender->clock);
	lock_release(&lender->lock);
	*ret_lender = lender;
	return 0;
}

/*
 * The first half of a lease's end: it is shut, and its slabs are out of reach from the next resolve on. Whoever calls
 * this for an active lease has to call lender_finish_lease, without the lock.
 */
static void lender_end_lease_locked(struct lender *lender, struct lease *lease, const char *reason)
	LOCK_REQUIRES(lender->lock)
{
	struct lease_slab *slab;

	assert(lease->state == LEASE_ACTIVE);
	lease_end(lease);
	LIST_FOREACH(slab, &lease->slabs, link) {
		uint32_t number = lease_slab_number(lender->leases, slab);

		expose_revoke(lender->expose, number);
		arena_fence(lender->arena, number);
	}
	expose_lease_end(lender->expose, lease_exposed(lease));
	lender_watches_end_locked(lender, lease, reason);
	log_notice("lease %016" PRIx64 " of %s ends (%s): %u slabs come back", lease->id, lease->client_name, reason,
		   lease->nr_slabs);
}

/* Nobody can be using the slab any more, unless a device does not let go of it: then it stays fenced. */
static void lender_scrub(struct lender *lender, uint32_t slab)
{
	if (!expose_is_stuck(lender->expose, slab))
		arena_scrub(lender->arena, slab);
}

/* The second half: when nobody can be using the slabs any more, they are scrubbed and the lease is forgotten. */
static void lender_finish_lease(struct lender *lender, struct lease *lease) LOCK_EXCLUDES(lender->lock)
{
	struct lease_slab *slab;

	expose_synchronize(lender->expose);
	lock_acquire(&lender->lock);
	while ((slab = LIST_FIRST(&lease->slabs)) != NULL) {
		uint32_t number = lease_slab_number(lender->leases, slab);

		lease_slab_remove(lender->leases, lease, number);
		lender_scrub(lender, number);
	}
	expose_lease_remove(lender->expose, lease_exposed(lease));
	lease_remove(lender->leases, lease);
	lock_release(&lender->lock);
	lender_notify(lender);
}

void lender_free(struct lender *lender)
{
	struct lease *lease;

	if (!lender)
		return;
	lender_ticker_stop(lender);
	do {
		lock_acquire(&lender->lock);
		lease = lease_next(lender->leases, NULL);
		if (lease)
			lender_end_lease_locked(lender, lease, "the server stops");
		lock_release(&lender->lock);
		if (lease)
			lender_finish_lease(lender, lease);
	} while (lease);
	pthread_cond_destroy(&lender->wake);
	lock_mutex_done(&lender->lock);
	lease_table_free(lender->leases);
	free(lender);
}

/*
 * What the data connections renewed, and for all alike the time in which this server itself did not run and so could
 * not be shown any life.
 */
static void lender_renew_locked(struct lender *lender, uint64_t now_ns) LOCK_REQUIRES(lender->lock)
{
	uint64_t gap_ns = now_ns - lender->ticked_ns;

	lender->ticked_ns = now_ns;
	for (struct lease *lease = NULL; (lease = lease_next(lender->leases, lease)) != NULL;) {
		struct expose_lease_info info;

		expose_lease_info(lease_exposed(lease), &info);
		lease_renew(lease, info.renewed_ns);
	}
	if (gap_ns > TICKS_MISSED * lender->tick_ms * SYS_NS_PER_MS) {
		log_warning("this server did not run for %" PRIu64 " ms: leases last so much longer",
			    (uint64_t)(gap_ns / SYS_NS_PER_MS));
		lease_forgive(lender->leases, gap_ns);
	}
}

void lender_tick(struct lender *lender)
{
	uint64_t now_ns = sys_clock_now_ns(lender->clock);
	struct lease *lease;

	lock_acquire(&lender->lock);
	lender_renew_locked(lender, now_ns);
	while ((lease = lease_find_expired(lender->leases, now_ns)) != NULL) {
		lender_end_lease_locked(lender, lease, "not renewed within its term");
		lock_release(&lender->lock);
		lender_finish_lease(lender, lease);
		lock_acquire(&lender->lock);
	}
	lock_release(&lender->lock);
}

/* True when the ticker is to stop; false after one tick's time. */
static bool lender_sleep(struct lender *lender)
{
	struct timespec until;
	bool stop;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)(lender->tick_ms * SYS_NS_PER_MS);
	until.tv_sec += until.tv_nsec / (long)SYS_NS_PER_S;
	until.tv_nsec %= (long)SYS_NS_PER_S;
	lock_acquire(&lender->lock);
	while (!lender->stop && ret == 0)
		ret = pthread_cond_timedwait(&lender->wake, &lender->lock.m, &until);
	stop = lender->stop;
	lock_release(&lender->lock);
	return stop;
}

static void *ticker_main(void *arg)
{
	struct lender *lender = arg;

	while (!lender_sleep(lender))
		lender_tick(lender);
	return NULL;
}

int lender_ticker_start(struct lender *lender)
{
	int ret;

	assert(!lender->ticker_runs);
	lender->ticker_runs = true;
	ret = sys_thread_start(&lender->ticker, "lease-ticker", -1, ticker_main, lender);
	if (ret < 0)
		lender->ticker_runs = false;
	return ret;
}

void lender_ticker_stop(struct lender *lender)
{
	if (!lender->ticker_runs)
		return;
	lock_acquire(&lender->lock);
	lender->stop = true;
	pthread_cond_signal(&lender->wake);
	lock_release(&lender->lock);
	pthread_join(lender->ticker, NULL);
	lender->ticker_runs = false;
}

int lender_find_locked(struct lender *lender, const struct lender_proof *proof, struct lease **ret_lease)
{
	return lease_find(lender->leases, proof->lease_id, proof->token, proof->token_bytes, ret_lease);
}

int lender_open_lease(struct lender *lender, const char *client_name, uint64_t client_id,
		      struct lender_lease *ret_lease)
{
	uint64_t now_ns = sys_clock_now_ns(lender->clock);
	struct expose_lease *exposed;
	struct lease *lease;
	int ret;

	lock_acquire(&lender->lock);
	ret = lender->drain.on ? -EBUSY : lease_open(lender->leases, client_name, client_id, now_ns, &lease);
	if (ret < 0)
		goto unlock;
	ret = expose_lease_add(lender->expose, lease->id, lease->token, now_ns, &exposed);
	if (ret < 0) {
		lease_end(lease);
		lease_remove(lender->leases, lease);
		goto unlock;
	}
	lease->owner = exposed;
	ret_lease->id = lease->id;
	memcpy(ret_lease->token, lease->token, sizeof(ret_lease->token));
	log_notice("lease %016" PRIx64 " opened by %s", lease->id, lease->client_name);
unlock:
	lock_release(&lender->lock);
	return ret;
}

/*
 * What the lease still holds of what it got under its last request number. As that only grows, these are the first slabs
 * of its list.
 */
static uint32_t lender_repeat_locked(struct lender *lender, struct lease *lease, struct lender_grant ret_grants[])
	LOCK_REQUIRES(lender->lock)
{
	struct lease_slab *slab;
	uint32_t nr = 0;

	LIST_FOREACH(slab, &lease->slabs, link) {
		if (slab->request_number != lease->request_number)
			break;
		ret_grants[nr++] = (struct lender_grant){ .slab = lease_slab_number(lender->leases, slab),
							  .key = slab->key };
	}
	return nr;
}

/* Under a request number that is new to the lease. As lender_lease_slabs; nr is not 0. */
static int lender_lend_locked(struct lender *lender, struct lease *lease, uint64_t request_number, uint32_t nr,
			      struct lender_grant ret_grants[]) LOCK_REQUIRES(lender->lock)
{
	uint32_t nr_lent = 0;
	uint32_t slab;

	if (lender->drain.on)
		return -EBUSY;
	if (lease_room(lender->leases, lease) == 0)
		return -EDQUOT;
	nr = (uint32_t)base_min_u64(base_min_u64(nr, lease_room(lender->leases, lease)), LENDER_MAX_GRANTS);
	while (nr_lent < nr && arena_take(lender->arena, 1, &slab) == 1) {
		uint32_t key;

		lease->request_number = request_number;
		key = lease_slab_add(lender->leases, lease, slab);
		expose_grant(lender->expose, lease_exposed(lease), slab, key);
		ret_grants[nr_lent++] = (struct lender_grant){ .slab = slab, .key = key };
	}
	return nr_lent ? (int)nr_lent : -ENOSPC;
}

int lender_lease_slabs(struct lender *lender, const struct lender_proof *proof, uint64_t request_number, uint32_t nr,
		       struct lender_grant ret_grants[])
{
	struct lease *lease;
	int ret;

	lock_acquire(&lender->lock);
	ret = lender_find_locked(lender, proof, &lease);
	if (ret < 0)
		goto unlock;
	if (request_number < lease->request_number) {
		ret = -ESTALE;
	} else if (request_number == lease->request_number) {
		ret = (int)lender_repeat_locked(lender, lease, ret_grants);
		if (ret == 0 && nr > 0)
			ret = -ESTALE;
	} else if (nr == 0) {
		lease->request_number = request_number;
	} else {
		ret = lender_lend_locked(lender, lease, request_number, nr, ret_grants);
	}
unlock:
	lock_release(&lender->lock);
	return ret;
}

int lender_release_slabs(struct lender *lender, const struct lender_proof *proof, struct lender_grant *grants,
			 uint32_t nr)
{
	struct lease *lease;
	uint32_t nr_released = 0;
	int ret;

	lock_acquire(&lender->lock);
	ret = lender_find_locked(lender, proof, &lease);
	for (uint32_t i = 0; ret == 0 && i < nr; i++) {
		if (!lease_slab_held(lender->leases, lease, grants[i].slab, grants[i].key))
			continue;
		expose_revoke(lender->expose, grants[i].slab);
		arena_fence(lender->arena, grants[i].slab);
		lease_slab_remove(lender->leases, lease, grants[i].slab);
		grants[nr_released++] = grants[i];
	}
	lock_release(&lender->lock);
	if (ret < 0)
		return ret;
	if (nr_released == 0)
		return 0;
	expose_synchronize(lender->expose);
	for (uint32_t i = 0; i < nr_released; i++)
		lender_scrub(lender, grants[i].slab);
	return (int)nr_released;
}

int lender_close_lease(struct lender *lender, const struct lender_proof *proof)
{
	struct lease *lease;
	int ret;

	lock_acquire(&lender->lock);
	ret = lender_find_locked(lender, proof, &lease);
	if (ret == 0)
		lender_end_lease_locked(lender, lease, "closed by its client");
	lock_release(&lender->lock);
	if (ret == 0)
		lender_finish_lease(lender, lease);
	return ret;
}

void lender_capacity(struct lender *lender, struct lender_capacity *ret_capacity)
{
	lock_acquire(&lender->lock);
	arena_counts(lender->arena, &ret_capacity->slabs);
	ret_capacity->nr_leases = lease_table_nr_leases(lender->leases);
	ret_capacity->accepting = !lender->drain.on;
	lock_release(&lender->lock);
}

uint32_t lender_list(struct lender *lender, uint32_t max, struct lender_lease_info ret_infos[])
{
	uint64_t now_ns = sys_clock_now_ns(lender->clock);
	uint32_t nr = 0;

	lock_acquire(&lender->lock);
	for (struct lease *lease = NULL; nr < max && (lease = lease_next(lender->leases, lease)) != NULL;) {
		struct lender_lease_info *info = &ret_infos[nr];

		if (lease->state != LEASE_ACTIVE)
			continue;
		nr++;
		info->id = lease->id;
		info->client_id = lease->client_id;
		memcpy(info->client_name, lease->client_name, sizeof(info->client_name));
		info->nr_slabs = lease->nr_slabs;
		info->nr_watches = lender_nr_watches_locked(lender, lease);
		expose_lease_info(lease_exposed(lease), &info->data);
		/* A reactor's clock may be a turn ahead of what this thread read, and forgiven time lies ahead. */
		lease_renew(lease, info->data.renewed_ns);
		info->age_ns = now_ns - base_min_u64(now_ns, lease->opened_ns);
		info->renewed_ago_ns = now_ns - base_min_u64(now_ns, lease->renewed_ns);
	}
	lock_release(&lender->lock);
	return nr;
}

#include "client/ctl/provision.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl/provision_private.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "common/sys/thread.h"

#define IDLE_MS 100u
#define HASTE_MS 5u
/* Between two looks at whether room is being used up: writes can do that in a few dozen ms. */
#define WATCH_MS 10u
/* Too much has to have been too much for so long before it is given back. */
#define LINGER_NS SYS_NS_PER_S
/* Of one keeper at a time: what is asked for one by one is spread by the rule. */
#define MAX_COMING_SLABS 8u
/* What a queue of vswap holds for itself at a time. */
#define QUEUE_HOLDS_SLOTS 512u
/* At the start servers have so long to answer before the disk stands in for them. */
#define SETTLE_NS (2 * SYS_NS_PER_S)

/* ---- what there is ---- */

static void look_at_space(struct provision *provision, struct backend *backend, struct supply_source *source)
{
	enum vswap_drain_target target;
	struct vswap_space space;

	vswap_space(provision->options.vswap, backend, &space);
	source->kind = backend->kind;
	source->in_use = backend_state(backend) == BACKEND_UP && !vswap_backend_draining(backend);
	source->free_slots = space.nr_slots - space.nr_used_slots;
	source->used_slots = space.nr_used_slots;
	source->nr_empty_slabs = space.nr_empty_slabs;
	source->leaving_slots =
		drains_running(provision->options.drains, backend, &target) ? space.nr_used_slots : 0;
	source->latency_ns = atomic_load_explicit(&backend->latency_ns, memory_order_relaxed);
}

static void look_at_keeper(struct provision *provision, unsigned i)
{
	struct supply_source *source = &provision->source[i];
	struct keeper_info info;

	keeper_info(provision->keeper[i], &info);
	memset(source, 0, sizeof(*source));
	look_at_space(provision, keeper_backend(provision->keeper[i]), source);
	source->slab_slots = (uint32_t)(info.slab_bytes >> FSW_PAGE_SHIFT);
	source->coming_slots = (uint64_t)info.nr_asked * source->slab_slots;
	source->nr_given = info.nr_given + info.nr_asked;
	source->lendable_bytes = (uint64_t)info.slabs_free * info.slab_bytes;
	/* By its own count it may be full, and by now it is not: it is asked now and then all the same. */
	source->can_give = source->in_use && info.can_give && info.nr_asked < MAX_COMING_SLABS;
}

static unsigned look(struct provision *provision)
{
	unsigned nr = provision->nr_keepers;

	for (unsigned i = 0; i < nr; i++)
		look_at_keeper(provision, i);
	if (!provision->options.disk)
		return nr;
	memset(&provision->source[nr], 0, sizeof(provision->source[nr]));
	look_at_space(provision, provision->options.disk, &provision->source[nr]);
	provision->source[nr].slab_slots = (uint32_t)(provision->options.disk_slab_bytes >> FSW_PAGE_SHIFT);
	return nr + 1;
}

/* ---- the servers ---- */

/* Asks for one slab after the other until enough is coming or nobody can give. */
static void fetch(struct provision *provision, struct supply_totals *totals, uint64_t target)
{
	while (totals->remote_free + totals->remote_coming < target) {
		int i = supply_choose(provision->source, provision->nr_keepers, provision->last, &provision->rand);
		struct supply_source *source;

		if (i < 0)
			return;
		source = &provision->source[i];
		keeper_fetch(provision->keeper[i], 1);
		provision->last = i;
		source->nr_given++;
		source->coming_slots += source->slab_slots;
		source->can_give = source->coming_slots < (uint64_t)MAX_COMING_SLABS * source->slab_slots;
		source->lendable_bytes -=
			base_min_u64(source->lendable_bytes, (uint64_t)source->slab_slots << FSW_PAGE_SHIFT);
		totals->remote_coming += source->slab_slots;
	}
}

static void give_back(struct provision *provision, uint64_t excess_slots)
{
	unsigned nr_slabs[PROVISION_MAX_KEEPERS] = { 0 };

	for (;;) {
		int i = supply_choose_return(provision->source, provision->nr_keepers);
		struct supply_source *source;

		if (i < 0)
			break;
		source = &provision->source[i];
		if (source->slab_slots == 0 || source->slab_slots > excess_slots) {
			source->nr_empty_slabs = 0;
			continue;
		}
		source->nr_empty_slabs--;
		source->lendable_bytes += (uint64_t)source->slab_slots << FSW_PAGE_SHIFT;
		excess_slots -= source->slab_slots;
		nr_slabs[i]++;
	}
	for (unsigned i = 0; i < provision->nr_keepers; i++)
		if (nr_slabs[i])
			keeper_give_back(provision->keeper[i], nr_slabs[i]);
}

/* ---- the thread ---- */

bool provision_has_settled(const struct provision *provision)
{
	return provision->nr_keepers == 0 ||
	       sys_clock_now_ns(sys_clock_monotonic()) - provision->started_ns >= SETTLE_NS;
}

static void look_for_excess(struct provision *provision, const struct supply_totals *totals, uint64_t target)
{
	uint64_t now = sys_clock_now_ns(sys_clock_monotonic());
	uint64_t have = totals->remote_free + totals->remote_coming;

	if (have <= supply_high(target, totals->slab_slots)) {
		provision->excess_ns = 0;
		return;
	}
	if (provision->excess_ns == 0)
		provision->excess_ns = now;
	if (now - provision->excess_ns < LINGER_NS)
		return;
	give_back(provision, have - target);
	provision->excess_ns = 0;
}

static void say_if_dry(struct provision *provision, const struct supply_totals *totals, uint64_t target)
{
	bool dry = target > 0 && totals->remote_free + totals->disk_free == 0;

	if (dry && !provision->dry && totals->used > 0)
		log_error("no room left anywhere: writes of new pages fail until a server or the disk gives some");
	if (!dry && provision->dry)
		log_notice("there is room again");
	provision->dry = dry && totals->used > 0;
}

static void refill(struct provision *provision)
{
	int ret = vswap_refill(provision->options.vswap);

	if (ret < 0 && !provision->refill_failed)
		log_error("no memory for tables: writes to parts of the device that are not yet in use may fail: %s",
			  err_text(ret));
	provision->refill_failed = ret < 0;
}

/* A turn that leaves nothing to be hurried: all is well, or nobody has more to give for the moment. */
static bool is_content(const struct provision *provision, const struct supply_totals *totals, bool enough)
{
	bool can_give = false;

	for (unsigned i = 0; i < provision->nr_keepers; i++)
		can_give = can_give || provision->source[i].can_give;
	return (enough && totals->remote_coming == 0) || (!can_give && totals->remote_coming == 0);
}

/*
 * Pages that a dead daemon has left behind can be read, as far as they ever can: each server that has some is there or lost.
 * And there is room for others, or there was time enough to get some.
 */
static bool is_resumed_and_reached(const struct provision *provision, uint64_t free_slots)
{
	if (free_slots == 0 && !provision_has_settled(provision))
		return false;
	for (unsigned i = 0; i < provision->nr_keepers; i++)
		if (provision->source[i].used_slots > 0 &&
		    backend_state(keeper_backend(provision->keeper[i])) == BACKEND_DOWN)
			return false;
	return provision->is_resumed;
}

/* True when the next turn may wait. */
static bool provision_turn(struct provision *provision)
{
	uint64_t nr_asked = vswap_supply_begin(provision->options.vswap), target;
	struct supply_totals totals;
	unsigned nr;
	bool enough;

	refill(provision);
	drains_tick(provision->options.drains);
	nr = look(provision);
	supply_add_up(provision->source, nr, &totals);
	target = supply_target(&provision->config, &totals);
	fetch(provision, &totals, target);
	provision_look_after_disk(provision, &totals, target);
	vswap_supply_end(provision->options.vswap, nr_asked, totals.remote_coming > 0);
	look_for_excess(provision, &totals, target);
	say_if_dry(provision, &totals, target);
	enough = totals.slab_slots > 0 && totals.remote_free + totals.disk_free >= target &&
		 (totals.remote_free >= target || provision_has_settled(provision));

	lock_acquire(&provision->lock);
	provision->ready = enough || is_resumed_and_reached(provision, totals.remote_free + totals.disk_free);
	provision->free_slots = totals.remote_free + totals.disk_free;
	provision->nr_turns++;
	pthread_cond_broadcast(&provision->changed);
	lock_release(&provision->lock);
	return is_content(provision, &totals, enough);
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / SYS_NS_PER_S), .tv_nsec = (long)(ns % SYS_NS_PER_S) };
}

/* Until something has changed or it is over, at most until then. True when that time has come. */
static bool sleep_until_locked(struct provision *provision, uint64_t until) LOCK_REQUIRES(provision->lock)
{
	struct timespec at = timespec_of(until);

	while (!provision->stopping && !provision->woken)
		if (pthread_cond_timedwait(&provision->changed, &provision->lock.m, &at) == ETIMEDOUT)
			return true;
	return false;
}

/* Sleeps until the next turn; less when room is being used up. False: it is over. */
static bool provision_sleep(struct provision *provision, bool content)
{
	struct sys_clock *clock = sys_clock_monotonic();
	uint64_t until = sys_clock_now_ns(clock) + (content ? IDLE_MS : HASTE_MS) * SYS_NS_PER_MS;
	uint64_t opened = vswap_nr_clusters_opened(provision->options.vswap);
	bool goes_on, alone = true;

	while (alone && sys_clock_now_ns(clock) < until &&
	       vswap_nr_clusters_opened(provision->options.vswap) == opened) {
		lock_acquire(&provision->lock);
		alone = sleep_until_locked(
			provision, base_min_u64(until, sys_clock_now_ns(clock) + WATCH_MS * SYS_NS_PER_MS));
		lock_release(&provision->lock);
	}
	lock_acquire(&provision->lock);
	provision->woken = false;
	goes_on = !provision->stopping;
	lock_release(&provision->lock);
	return goes_on;
}

static void *provision_run(void *arg)
{
	struct provision *provision = arg;
	bool content;

	sys_rcu_thread_init();
	do
		content = provision_turn(provision);
	while (provision_sleep(provision, content));
	sys_rcu_thread_done();
	return NULL;
}

/* ---- from outside ---- */

static void provision_wanted(void *arg)
{
	provision_wake(arg);
}

int provision_create(const struct provision_options *options, struct provision **ret_provision)
{
	struct provision *provision = calloc(1, sizeof(*provision));
	pthread_condattr_t monotonic;

	if (!provision)
		return -ENOMEM;
	provision->options = *options;
	provision->config = (struct supply_config){
		.nr_pages = options->nr_pages,
		.ahead_slots = options->ahead_bytes >> FSW_PAGE_SHIFT,
		.nr_queues = options->nr_queues,
		.cluster_slots = QUEUE_HOLDS_SLOTS,
	};
	provision->rand.s = options->seed;
	provision->last = -1;
	if (provision_disk_init(provision) < 0) {
		free(provision);
		return -ENOMEM;
	}
	lock_mutex_init(&provision->lock);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&provision->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	vswap_set_supplier(options->vswap, &(struct vswap_supplier){ .wanted = provision_wanted, .arg = provision });
	*ret_provision = provision;
	return 0;
}

int provision_add_keeper(struct provision *provision, struct keeper *keeper)
{
	if (provision->nr_keepers == PROVISION_MAX_KEEPERS)
		return -ENOSPC;
	provision->keeper[provision->nr_keepers++] = keeper;
	return 0;
}

int provision_start(struct provision *provision)
{
	int ret;

	provision->started_ns = sys_clock_now_ns(sys_clock_monotonic());
	ret = sys_thread_start(&provision->thread, "provision", -1, provision_run, provision);

	provision->started = ret == 0;
	return ret;
}

void provision_stop(struct provision *provision)
{
	if (!provision->started)
		return;
	lock_acquire(&provision->lock);
	provision->stopping = true;
	pthread_cond_broadcast(&provision->changed);
	lock_release(&provision->lock);
	pthread_join(provision->thread, NULL);
	provision->started = false;
}

void provision_free(struct provision *provision)
{
	if (!provision)
		return;
	provision_disk_done(provision);
	pthread_cond_destroy(&provision->changed);
	lock_mutex_done(&provision->lock);
	free(provision);
}

void provision_wake(struct provision *provision)
{
	lock_acquire(&provision->lock);
	provision->woken = true;
	pthread_cond_broadcast(&provision->changed);
	lock_release(&provision->lock);
}

int provision_wait(struct provision *provision, unsigned timeout_ms, uint64_t *ret_free_slots)
{
	struct timespec at =
		timespec_of(sys_clock_now_ns(sys_clock_monotonic()) + (uint64_t)timeout_ms * SYS_NS_PER_MS);
	int ret = 0;

	lock_acquire(&provision->lock);
	while (!provision->ready && ret == 0)
		if (pthread_cond_timedwait(&provision->changed, &provision->lock.m, &at) == ETIMEDOUT)
			ret = -ETIMEDOUT;
	*ret_free_slots = provision->free_slots;
	lock_release(&provision->lock);
	return ret;
}

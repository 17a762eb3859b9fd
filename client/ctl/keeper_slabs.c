#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "client/backend/remote/remote.h"
#include "client/ctl/keeper_private.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"

/* Empty slabs that are taken back at a time. */
#define RECLAIM_BATCH 64u
/* Between two looks at slabs that I/O still holds. */
#define GIVE_UP_POLL_MS 5u

static struct keeper_slab *slab_of(struct backend_slab *lent)
{
	return BASE_CONTAINER_OF(lent, struct keeper_slab, lent);
}

static uint32_t current_generation(struct keeper *keeper)
{
	uint32_t generation;

	lock_acquire(&keeper->lock);
	generation = keeper->generation;
	lock_release(&keeper->lock);
	return generation;
}

/* ---- fetching ---- */

static void fetch_failed(struct keeper *keeper, const struct rpc_status *status)
{
	bool drains = status->code == RPC_FAILED_PRECONDITION;

	if (status->code == RPC_NOT_FOUND || status->code == RPC_PERMISSION_DENIED) {
		keeper_session_is_over(keeper, current_generation(keeper), status->message);
		return;
	}
	lock_acquire(&keeper->lock);
	keeper->info.nr_asked = 0;
	keeper->barren_ns = keeper_now_ns() + backoff_next_ms(&keeper->fetch_backoff) * SYS_NS_PER_MS;
	if (drains)
		keeper->accepting = false;
	if (status->code == RPC_RESOURCE_EXHAUSTED)
		keeper->info.slabs_free = 0;
	lock_release(&keeper->lock);
	/* A server that is full or drains has nothing wrong with it. */
	if (drains || status->code == RPC_RESOURCE_EXHAUSTED)
		log_debug("%s: %s", keeper->address, status->message);
	else
		keeper_error(keeper, "slabs: %s", status->message);
}

/* As many as one call can bring, before it is made: no slab is lent to us without a note of it. */
static int spare_fill(struct keeper *keeper)
{
	while (keeper->nr_spare < MEMSERVER_MAX_GRANTS) {
		struct keeper_slab *slab = calloc(1, sizeof(*slab));

		if (!slab)
			return -ENOMEM;
		LIST_INSERT_HEAD(&keeper->spare, slab, link);
		keeper->nr_spare++;
	}
	return 0;
}

static struct keeper_slab *spare_use(struct keeper *keeper)
{
	struct keeper_slab *slab = LIST_FIRST(&keeper->spare);

	LIST_REMOVE(slab, link);
	keeper->nr_spare--;
	return slab;
}

/* 0, or what keeps vswap from taking it; the slab then goes back to the server. */
static int slab_take(struct keeper *keeper, const struct memserver_grant *grant)
{
	struct keeper_slab *slab = spare_use(keeper);
	int ret;

	slab->lent = (struct backend_slab){
		.backend = keeper->options.backend,
		.index = grant->index,
		.key = grant->key,
		.nr_slots = (uint32_t)(keeper->lease.slab_bytes >> FSW_PAGE_SHIFT),
		.session = remote_session_number(keeper->options.backend),
	};
	lock_acquire(&keeper->lock);
	keeper->info.nr_held++;
	lock_release(&keeper->lock);
	ret = vswap_slab_add(keeper->options.vswap, &slab->lent);
	slab->on_record = ret == 0;
	if (ret < 0)
		LIST_INSERT_HEAD(&keeper->returning, slab, link);
	else
		LIST_INSERT_HEAD(&keeper->held, slab, link);
	return ret;
}

static int slab_resume(struct keeper *keeper, const struct state_slab *record, uint32_t id, enum state_slab_status status)
{
	struct keeper_slab *slab = calloc(1, sizeof(*slab));
	int ret = 0;

	if (!slab)
		return -ENOMEM;
	slab->on_record = true;
	slab->lent = (struct backend_slab){
		.backend = keeper->options.backend,
		.index = record->index,
		.key = record->key,
		.nr_slots = record->nr_slots,
		.session = remote_session_number(keeper->options.backend),
		.id = id,
	};
	if (status == STATE_SLAB_HELD)
		ret = vswap_slab_add_again(keeper->options.vswap, &slab->lent);
	if (ret < 0) {
		free(slab);
		return ret == -EINVAL ? -EUCLEAN : ret;
	}
	LIST_INSERT_HEAD(status == STATE_SLAB_HELD ? &keeper->held : &keeper->returning, slab, link);
	lock_acquire(&keeper->lock);
	keeper->info.nr_held++;
	lock_release(&keeper->lock);
	return 0;
}

int keeper_slabs_resume(struct keeper *keeper)
{
	struct state *state = keeper->options.state;
	uint32_t number = state_session_number(state, keeper->record);
	int ret = 0;

	for (uint32_t id = 0; id < state_max_slabs(state) && ret == 0; id++) {
		const struct state_slab *record = state_slab(state, id);
		uint32_t status = atomic_load(&record->status);

		if (record->session == number && (status == STATE_SLAB_HELD || status == STATE_SLAB_RETURNING))
			ret = slab_resume(keeper, record, id, (enum state_slab_status)status);
	}
	return ret;
}

/* A daemon that died between a call's answer and the record of it may have put some of its slabs on record. */
static bool slab_is_known(const struct keeper *keeper, const struct memserver_grant *grant)
{
	const struct keeper_slab_list *lists[] = { &keeper->held, &keeper->returning };
	const struct keeper_slab *slab;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(lists); i++)
		LIST_FOREACH(slab, lists[i], link)
			if (slab->lent.index == grant->index && slab->lent.key == grant->key)
				return true;
	return false;
}

static void fetch_done(struct keeper *keeper, unsigned nr_granted, unsigned nr_taken, int err)
{
	lock_acquire(&keeper->lock);
	keeper->info.nr_asked -= (uint32_t)base_min_u64(keeper->info.nr_asked, nr_granted);
	keeper->info.slabs_free -= (uint32_t)base_min_u64(keeper->info.slabs_free, nr_granted);
	keeper->info.nr_given += nr_taken;
	if (err < 0) {
		keeper->info.nr_asked = 0;
		keeper->barren_ns = keeper_now_ns() + backoff_next_ms(&keeper->fetch_backoff) * SYS_NS_PER_MS;
	}
	lock_release(&keeper->lock);
	if (err < 0)
		keeper_error(keeper, "slabs: cannot take more: %s", err_text(err));
	else if (nr_taken)
		backoff_reset(&keeper->fetch_backoff);
	keeper->options.changed(keeper->options.user);
}

/* From before a call until what it has lent is on record. */
static void record_request(struct keeper *keeper)
{
	if (!keeper->record)
		return;
	atomic_store(&keeper->record->request_number, keeper->request_number);
	atomic_store(&keeper->record->unanswered, keeper->unanswered);
}

/* One call with the present number. False when it has failed. */
static bool fetch_call(struct keeper *keeper, unsigned count)
{
	struct memserver_grant grants[MEMSERVER_MAX_GRANTS];
	struct rpc_status status;
	unsigned nr = 0, nr_taken = 0;
	int err = 0;

	if (spare_fill(keeper) < 0) {
		fetch_done(keeper, 0, 0, -ENOMEM);
		return false;
	}
	keeper->unanswered = true;
	record_request(keeper);
	if (memserver_lease_slabs(keeper->client, &keeper->lease, keeper->request_number, count, grants, &nr, &status) !=
	    RPC_OK) {
		fetch_failed(keeper, &status);
		keeper->options.changed(keeper->options.user);
		return false;
	}
	keeper->unanswered = false;
	for (unsigned i = 0; i < nr; i++) {
		int ret;

		if (slab_is_known(keeper, &grants[i]))
			continue;
		ret = slab_take(keeper, &grants[i]);

		if (ret < 0)
			err = ret;
		else
			nr_taken++;
	}
	record_request(keeper);
	fetch_done(keeper, nr, nr_taken, err);
	return true;
}

/*
 * A call that failed may have lent slabs all the same, when it is its answer that was lost, or may lend them later. Its
 * number is closed before the next one is used: this brings what it has lent, and bars the rest. False when that has to wait.
 */
static bool fetch_unanswered(struct keeper *keeper)
{
	bool barren;

	if (!keeper->unanswered)
		return true;
	lock_acquire(&keeper->lock);
	barren = keeper_now_ns() < keeper->barren_ns;
	lock_release(&keeper->lock);
	return !barren && fetch_call(keeper, 0);
}

void keeper_slabs_fetch(struct keeper *keeper)
{
	unsigned count;

	if (!fetch_unanswered(keeper))
		return;
	lock_acquire(&keeper->lock);
	count = (unsigned)base_min_u64(keeper->info.nr_asked, MEMSERVER_MAX_GRANTS);
	lock_release(&keeper->lock);
	if (count == 0)
		return;
	keeper->request_number++;
	(void)fetch_call(keeper, count);
}

/* ---- giving back ---- */

/* Of a server that is drained every empty slab goes back, of another as many as provision says. */
static unsigned nr_to_reclaim(struct keeper *keeper)
{
	unsigned nr;

	lock_acquire(&keeper->lock);
	nr = keeper->nr_return;
	keeper->nr_return = 0;
	lock_release(&keeper->lock);
	return vswap_backend_draining(keeper->options.backend) ? UINT32_MAX : nr;
}

/* Takes back up to nr empty slabs. How many it got. */
static unsigned reclaim(struct keeper *keeper, unsigned nr)
{
	struct backend_slab *batch[RECLAIM_BATCH];
	unsigned nr_batch, i;

	nr_batch = vswap_slab_reclaim(keeper->options.vswap, keeper->options.backend, 0,
				      (unsigned)base_min_u64(nr, RECLAIM_BATCH), batch);
	for (i = 0; i < nr_batch; i++) {
		struct keeper_slab *slab = slab_of(batch[i]);

		LIST_REMOVE(slab, link);
		LIST_INSERT_HEAD(&keeper->returning, slab, link);
	}
	if (nr_batch == 0)
		return 0;
	sys_rcu_synchronize();
	return nr_batch;
}

/* Its server has it again. One that vswap has never taken is not on record, and its number may be another's. */
static void record_forget(struct keeper *keeper, const struct keeper_slab *slab)
{
	if (keeper->record && slab->on_record)
		atomic_store(&state_slab(keeper->options.state, slab->lent.id)->status, STATE_SLAB_NONE);
}

/* The first nr slabs of a list are the server's again. */
static void forget(struct keeper *keeper, struct keeper_slab_list *list, unsigned nr)
{
	struct keeper_slab *slab;
	unsigned nr_gone = 0;

	for (; nr_gone < nr && (slab = LIST_FIRST(list)); nr_gone++) {
		LIST_REMOVE(slab, link);
		record_forget(keeper, slab);
		free(slab);
	}
	lock_acquire(&keeper->lock);
	keeper->info.nr_held -= nr_gone;
	lock_release(&keeper->lock);
}

/* Up to MEMSERVER_MAX_GRANTS go home. False when there is nothing to be done now. */
static bool release_some(struct keeper *keeper)
{
	struct memserver_grant grants[MEMSERVER_MAX_GRANTS];
	const struct keeper_slab *slab;
	struct rpc_status status;
	enum rpc_code code;
	unsigned nr = 0;

	if (keeper_now_ns() < keeper->release_ns)
		return false;
	LIST_FOREACH(slab, &keeper->returning, link) {
		if (nr == MEMSERVER_MAX_GRANTS)
			break;
		grants[nr++] = (struct memserver_grant){ slab->lent.index, slab->lent.key };
	}
	if (nr == 0)
		return false;
	code = memserver_release_slabs(keeper->client, &keeper->lease, grants, nr, &status);
	if (code == RPC_OK) {
		forget(keeper, &keeper->returning, nr);
		backoff_reset(&keeper->release_backoff);
		keeper->capacity_ns = 0;
		return true;
	}
	if (code == RPC_NOT_FOUND || code == RPC_PERMISSION_DENIED)
		keeper_session_is_over(keeper, current_generation(keeper), status.message);
	else
		keeper_error(keeper, "giving slabs back: %s", status.message);
	keeper->release_ns = keeper_now_ns() + backoff_next_ms(&keeper->release_backoff) * SYS_NS_PER_MS;
	return false;
}

void keeper_slabs_return(struct keeper *keeper)
{
	unsigned nr = nr_to_reclaim(keeper), nr_got;

	while (nr > 0 && (nr_got = reclaim(keeper, nr)) > 0)
		nr -= nr_got;
	while (release_some(keeper))
		;
}

/* ---- the end ---- */

bool keeper_slabs_give_up(struct keeper *keeper)
{
	uint64_t nr_poisoned = 0;

	while (vswap_backend_lost(keeper->options.vswap, keeper->options.backend, &nr_poisoned) < 0) {
		if (keeper_stopping(keeper))
			return false;
		keeper_sleep(keeper, 0, GIVE_UP_POLL_MS);
	}
	while (!LIST_EMPTY(&keeper->held)) {
		if (keeper_stopping(keeper))
			return false;
		if (reclaim(keeper, UINT32_MAX) == 0)
			keeper_sleep(keeper, 0, GIVE_UP_POLL_MS);
	}
	forget(keeper, &keeper->returning, UINT32_MAX);
	if (nr_poisoned)
		log_error("%s: %" PRIu64 " pages were lost with it; reading them fails until they are written again",
			  keeper->address, nr_poisoned);
	else
		log_notice("%s: nothing was lost with it", keeper->address);
	return true;
}

void keeper_slabs_free(struct keeper *keeper)
{
	forget(keeper, &keeper->held, UINT32_MAX);
	forget(keeper, &keeper->returning, UINT32_MAX);
	while (keeper->nr_spare > 0)
		free(spare_use(keeper));
}

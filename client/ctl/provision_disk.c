/*
 * The disk's slabs: one stands ready always, more when no server can give.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/backend/disk/disk.h"
#include "client/ctl/provision_private.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"

#define DISK_BATCH 16u

int provision_disk_init(struct provision *provision)
{
	struct backend *disk = provision->options.disk;

	if (!disk)
		return 0;
	provision->disk_slabs = calloc(disk_nr_slabs(disk), sizeof(struct backend_slab *));
	return provision->disk_slabs ? 0 : -ENOMEM;
}

void provision_disk_done(struct provision *provision)
{
	for (uint32_t i = 0; i < provision->nr_disk_slabs; i++)
		disk_slab_put(provision->options.disk, provision->disk_slabs[i]);
	free(provision->disk_slabs);
}

uint32_t provision_nr_disk_slabs(struct provision *provision)
{
	uint32_t nr;

	lock_acquire(&provision->lock);
	nr = provision->nr_disk_slabs;
	lock_release(&provision->lock);
	return nr;
}

static void disk_slabs_set(struct provision *provision, uint32_t nr)
{
	lock_acquire(&provision->lock);
	provision->nr_disk_slabs = nr;
	lock_release(&provision->lock);
}

static void disk_fetch(struct provision *provision, struct supply_totals *totals, uint64_t wanted)
{
	struct backend *disk = provision->options.disk;
	uint32_t nr = provision_nr_disk_slabs(provision);

	while (totals->disk_free < wanted) {
		struct backend_slab *slab = disk_slab_get(disk);
		int ret;

		if (!slab)
			break;
		ret = vswap_slab_add(provision->options.vswap, slab);
		if (ret < 0) {
			disk_slab_put(disk, slab);
			log_warning("disk: cannot take more slabs: %s", err_text(ret));
			break;
		}
		provision->disk_slabs[nr++] = slab;
		totals->disk_free += slab->nr_slots;
	}
	disk_slabs_set(provision, nr);
}

int provision_resume(struct provision *provision, struct state *state)
{
	uint32_t nr = 0;

	for (uint32_t id = 0; id < state_max_slabs(state); id++) {
		const struct state_slab *record = state_slab(state, id);
		struct backend_slab *slab;
		int ret;

		if (record->session != STATE_DISK || atomic_load(&record->status) != STATE_SLAB_HELD)
			continue;
		slab = provision->options.disk ? disk_slab_take(provision->options.disk, record->index) : NULL;
		if (!slab)
			return -EUCLEAN;
		slab->id = id;
		ret = vswap_slab_add_again(provision->options.vswap, slab);
		if (ret < 0) {
			disk_slab_put(provision->options.disk, slab);
			return ret == -EINVAL ? -EUCLEAN : ret;
		}
		provision->disk_slabs[nr++] = slab;
	}
	disk_slabs_set(provision, nr);
	provision->is_resumed = true;
	return 0;
}

static void disk_slab_forget(struct provision *provision, const struct backend_slab *slab)
{
	uint32_t nr = provision_nr_disk_slabs(provision), i;

	for (i = 0; i < nr && provision->disk_slabs[i] != slab; i++)
		;
	if (i == nr)
		return;
	provision->disk_slabs[i] = provision->disk_slabs[nr - 1];
	disk_slabs_set(provision, nr - 1);
}

static void disk_give_back(struct provision *provision, uint64_t keep_free_slots)
{
	struct backend_slab *batch[DISK_BATCH];
	unsigned nr;

	nr = vswap_slab_reclaim(provision->options.vswap, provision->options.disk, keep_free_slots, DISK_BATCH, batch);
	if (nr == 0)
		return;
	sys_rcu_synchronize();
	for (unsigned i = 0; i < nr; i++) {
		disk_slab_forget(provision, batch[i]);
		disk_slab_put(provision->options.disk, batch[i]);
	}
}

/* How much room on the disk there should be. */
static uint64_t disk_wanted(struct provision *provision, const struct supply_totals *totals, uint64_t target,
			    uint64_t slab_slots)
{
	uint64_t have = totals->remote_free, coming = totals->remote_coming;
	enum vswap_drain_target to;

	for (unsigned i = 0; i < provision->nr_keepers; i++)
		if (provision->source[i].leaving_slots &&
		    drains_running(provision->options.drains, keeper_backend(provision->keeper[i]), &to) &&
		    to == VSWAP_DRAIN_TO_DISK)
			return base_max_u64(target, slab_slots);
	/* One slab stands ready always: servers may fall away faster than slabs can be made. */
	if (!provision_has_settled(provision))
		return slab_slots;
	if (have + coming < target)
		return base_max_u64(target - have - coming, slab_slots);
	if (have < supply_low(target))
		return base_max_u64(target - have, slab_slots);
	return slab_slots;
}

void provision_look_after_disk(struct provision *provision, struct supply_totals *totals, uint64_t target)
{
	const struct supply_source *source = &provision->source[provision->nr_keepers];
	uint64_t wanted;

	if (!provision->options.disk)
		return;
	if (!source->in_use) {
		disk_give_back(provision, 0);
		return;
	}
	wanted = disk_wanted(provision, totals, target, source->slab_slots);
	if (totals->disk_free < wanted)
		disk_fetch(provision, totals, wanted);
	else if (totals->disk_free >= wanted + 2ull * source->slab_slots && source->nr_empty_slabs > 1)
		disk_give_back(provision, wanted);
}

/*
 * Making and ending the device, its backends and its slabs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/vswap/drain.h"
#include "client/vswap/internal.h"
#include "client/vswap/mover.h"
#include "client/vswap/swapcache.h"

#define VSWAP_DEFAULT_RESERVE 64u
#define VSWAP_DEFAULT_FOLIO_IOS 64u
#define VSWAP_MAX_FOLIO_IOS 4096u

uint64_t vswap_nr_pages(const struct vswap *vswap)
{
	return vswap->nr_pages;
}

struct vswap_queue *vswap_queue(struct vswap *vswap, unsigned index)
{
	assert(index < vswap->nr_queues);
	return &vswap->queue[index];
}

struct sys_reactor *vswap_queue_reactor(const struct vswap_queue *queue)
{
	return queue->reactor;
}

static void vswap_queue_release(struct sys_message *message)
{
	struct vswap_queue *queue = BASE_CONTAINER_OF(message, struct vswap_queue, release);

	atomic_store(&queue->release_sent, false);
	slot_cursor_close(&queue->vswap->slabs, &queue->cursor);
	cluster_cursors_close(&queue->vswap->clusters, queue->allocating);
}

void vswap_queue_ask_release(struct vswap_queue *queue)
{
	if (queue->reactor && !atomic_exchange(&queue->release_sent, true))
		sys_reactor_send(queue->reactor, &queue->release);
}

static void vswap_queue_init(struct vswap *vswap, unsigned index, uint64_t seed)
{
	struct vswap_queue *queue = &vswap->queue[index];

	queue->vswap = vswap;
	queue->index = index;
	queue->cursor.rand.s = seed + index;
	queue->release.run = vswap_queue_release;
	TAILQ_INIT(&queue->completed);
	vswap->epoch_queues[index] = &queue->epoch;
}

/* The entries that can be allocated: whole clusters behind the device, but never entry 0, which is none. */
static int vswap_create_entries(struct vswap *vswap, const struct vswap_options *options)
{
	uint64_t first = base_max_u64((options->nr_pages + TABLE_ENTRIES - 1) >> TABLE_SHIFT, 1);
	uint64_t nr = (options->nr_entries + TABLE_ENTRIES - 1) >> TABLE_SHIFT;
	uint64_t nr_all = nr ? (first + nr) << TABLE_SHIFT : options->nr_pages;
	int err;

	if (nr_all > VSWAP_MAX_PAGES)
		return -EINVAL;
	err = table_map_init(&vswap->tables, nr_all,
			     options->reserve_tables ? options->reserve_tables : VSWAP_DEFAULT_RESERVE, options->state);
	if (err < 0)
		return err;
	err = cluster_map_init(&vswap->clusters, &vswap->tables, first, nr);
	if (err < 0)
		goto fail_tables;
	err = count_map_create(&vswap->counts);
	if (err < 0)
		goto fail_clusters;
	if (nr == 0)
		return 0;
	err = store_init(vswap, options->nr_folio_ios ? options->nr_folio_ios : VSWAP_DEFAULT_FOLIO_IOS);
	if (err < 0)
		goto fail_counts;
	return 0;

fail_counts:
	count_map_free(vswap->counts);
fail_clusters:
	cluster_map_done(&vswap->clusters);
fail_tables:
	table_map_done(&vswap->tables);
	return err;
}

/* The compressed pool, if there is to be one. */
static int vswap_create_comp(struct vswap *vswap, const struct vswap_options *options)
{
	struct comp_pool_options comp = { .limit_bytes = options->comp_limit_bytes, .algorithm = options->comp_algorithm,
					  .level = options->comp_level, .nr_queues = vswap->nr_queues };
	int err;

	if (comp.limit_bytes == 0)
		return 0;
	err = comp_pool_create(&comp, &vswap->comp);
	if (err < 0)
		return err;
	err = writeback_init(vswap);
	if (err < 0)
		comp_pool_free(vswap->comp);
	return err;
}

static void vswap_free_comp(struct vswap *vswap)
{
	writeback_done(vswap);
	comp_pool_free(vswap->comp);
}

static void vswap_free_entries(struct vswap *vswap)
{
	store_done(vswap);
	count_map_free(vswap->counts);
	cluster_map_done(&vswap->clusters);
	table_map_done(&vswap->tables);
}

int vswap_create(const struct vswap_options *options, struct vswap **ret_vswap)
{
	uint64_t seed = options->seed;
	struct vswap *vswap;
	unsigned i;
	int err;

	if ((options->nr_pages == 0 && options->nr_entries == 0) || options->nr_pages > VSWAP_MAX_PAGES ||
	    options->nr_entries > VSWAP_MAX_PAGES || options->nr_folio_ios > VSWAP_MAX_FOLIO_IOS ||
	    options->nr_queues == 0 || options->nr_queues >= BACKEND_MAX_QUEUES || options->max_slabs == 0 ||
	    options->max_slabs > WORD_MAX_SLABS || (options->state && (options->nr_entries || options->comp_limit_bytes)))
		return -EINVAL;
	if (seed == 0 && getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return -errno;
	vswap = calloc(1, sizeof(*vswap));
	if (!vswap)
		return -ENOMEM;
	vswap->nr_pages = options->nr_pages;
	vswap->nr_queues = options->nr_queues + 1;
	lock_mutex_init(&vswap->lock);
	err = mem_region_open(&vswap->queue_region, vswap->nr_queues * sizeof(*vswap->queue), MEM_REGION_TOUCH);
	if (err < 0)
		goto fail_vswap;
	vswap->queue = vswap->queue_region.base;
	for (i = 0; i < vswap->nr_queues; i++)
		vswap_queue_init(vswap, i, seed);
	err = vswap_create_entries(vswap, options);
	if (err < 0)
		goto fail_queues;
	err = slab_map_init(&vswap->slabs, options->max_slabs, options->state);
	if (err < 0)
		goto fail_entries;
	room_init(vswap);
	err = reap_init(vswap);
	if (err < 0)
		goto fail_slabs;
	err = vswap_create_comp(vswap, options);
	if (err < 0)
		goto fail_reaper;
	err = mover_init(vswap);
	if (err < 0)
		goto fail_comp;
	*ret_vswap = vswap;
	return 0;

fail_comp:
	vswap_free_comp(vswap);
fail_reaper:
	reap_done(vswap);
fail_slabs:
	slab_map_done(&vswap->slabs);
fail_entries:
	vswap_free_entries(vswap);
fail_queues:
	mem_region_close(&vswap->queue_region);
fail_vswap:
	lock_mutex_done(&vswap->lock);
	free(vswap);
	return err;
}

void vswap_free(struct vswap *vswap) LOCK_NO_ANALYSIS
{
	unsigned i;

	if (!vswap)
		return;
	vswap_free_comp(vswap);
	mover_done(vswap);
	reap_done(vswap);
	for (i = 0; i < vswap->nr_backends; i++) {
		struct place *place = place_of(vswap->backends[i]);

		vswap->backends[i]->vswap = NULL;
		drain_free(place->drain);
		free(place);
	}
	slab_map_done(&vswap->slabs);
	vswap_free_entries(vswap);
	mem_region_close(&vswap->queue_region);
	lock_mutex_done(&vswap->lock);
	free(vswap);
}

void vswap_queue_bind(struct vswap *vswap, unsigned index, struct sys_reactor *reactor)
{
	vswap_queue(vswap, index)->reactor = reactor;
}

int vswap_refill(struct vswap *vswap)
{
	return table_refill(&vswap->tables);
}

/* ---- backends ---- */

int vswap_backend_add(struct vswap *vswap, struct backend *backend)
{
	struct place *place = calloc(1, sizeof(*place));
	int err = 0;

	if (!place)
		return -ENOMEM;
	place->backend = backend;
	place->drain = drain_create(vswap, place);
	if (!place->drain) {
		free(place);
		return -ENOMEM;
	}
	lock_acquire(&vswap->lock);
	if (vswap->nr_backends == VSWAP_MAX_BACKENDS) {
		err = -ENOSPC;
	} else {
		backend->vswap = place;
		vswap->backends[vswap->nr_backends++] = backend;
	}
	lock_release(&vswap->lock);
	if (err < 0) {
		drain_free(place->drain);
		free(place);
	}
	return err;
}

int vswap_backend_remove(struct vswap *vswap, struct backend *backend)
{
	struct place *place = place_of(backend);
	struct vswap_space space;
	unsigned i;

	vswap_space(vswap, backend, &space);
	if (space.nr_slabs)
		return -EBUSY;
	lock_acquire(&vswap->lock);
	for (i = 0; i < vswap->nr_backends && vswap->backends[i] != backend; i++)
		;
	assert(i < vswap->nr_backends);
	vswap->backends[i] = vswap->backends[--vswap->nr_backends];
	backend->vswap = NULL;
	lock_release(&vswap->lock);
	sys_rcu_synchronize();
	drain_free(place->drain);
	free(place);
	return 0;
}

/* ---- slabs ---- */

static void vswap_room_added(void *arg)
{
	mover_slots_freed(arg);
}

static int vswap_slab_take(struct vswap *vswap, struct backend_slab *slab,
			   int (*add)(struct slab_map *map, struct backend_slab *lent))
{
	struct sys_reactor *reactor = vswap_mover_queue(vswap)->reactor;
	int err;

	lock_acquire(&vswap->lock);
	err = add(&vswap->slabs, slab);
	lock_release(&vswap->lock);
	if (err == 0 && reactor)
		sys_reactor_call(reactor, vswap_room_added, vswap->mover);
	return err;
}

int vswap_slab_add(struct vswap *vswap, struct backend_slab *slab)
{
	return vswap_slab_take(vswap, slab, slab_add);
}

int vswap_slab_add_again(struct vswap *vswap, struct backend_slab *slab)
{
	return vswap_slab_take(vswap, slab, slab_add_again);
}

/* On the queue's reactor: gives its open cluster back if its slab is leaving. */
static void vswap_cursor_check(void *arg)
{
	struct vswap_queue *queue = arg;

	if (queue->cursor.slab && atomic_load(&queue->cursor.slab->state) == SLAB_LEAVING)
		slot_cursor_close(&queue->vswap->slabs, &queue->cursor);
}

/* Marks slabs without a used slot as leaving: at most `max`, and so that keep_free_slots stay free on the backend. */
static unsigned vswap_slabs_mark(struct vswap *vswap, const struct backend *backend, uint64_t keep_free_slots,
				 unsigned max, struct slab **ret_slabs)
{
	const struct slab_list *list = atomic_load(&vswap->slabs.list);
	uint64_t nr_free = 0;
	unsigned nr = 0;
	uint32_t i;

	for (i = 0; i < list->nr; i++)
		if (list->slab[i]->backend == backend)
			nr_free += list->slab[i]->nr_slots - atomic_load(&list->slab[i]->nr_used);
	for (i = 0; i < list->nr && nr < max; i++) {
		struct slab *slab = list->slab[i];

		if (slab->backend != backend || atomic_load(&slab->nr_used) != 0 ||
		    nr_free < keep_free_slots + slab->nr_slots)
			continue;
		atomic_store(&slab->state, SLAB_LEAVING);
		nr_free -= slab->nr_slots;
		ret_slabs[nr++] = slab;
	}
	return nr;
}

#define VSWAP_RECLAIM_BATCH 64u

static unsigned vswap_reclaim_batch(struct vswap *vswap, struct backend *backend, uint64_t keep_free_slots, unsigned max,
				    struct backend_slab **ret_slabs) LOCK_REQUIRES(vswap->lock)
{
	struct slab *slabs[VSWAP_RECLAIM_BATCH];
	unsigned i, nr, nr_taken = 0;

	nr = vswap_slabs_mark(vswap, backend, keep_free_slots, (unsigned)base_min_u64(max, VSWAP_RECLAIM_BATCH), slabs);
	if (nr == 0)
		return 0;
	/* An allocation that began before the mark has ended after this; one that begins later sees it. */
	sys_rcu_synchronize();
	for (i = 0; i < vswap->nr_queues; i++)
		if (vswap->queue[i].reactor)
			sys_reactor_call(vswap->queue[i].reactor, vswap_cursor_check, &vswap->queue[i]);
	for (i = 0; i < nr; i++) {
		if (atomic_load(&slabs[i]->nr_used) != 0) {
			atomic_store(&slabs[i]->state, SLAB_ACTIVE);
			continue;
		}
		ret_slabs[nr_taken++] = slabs[i]->lent;
		slab_remove(&vswap->slabs, slabs[i]);
	}
	return nr_taken;
}

unsigned vswap_slab_reclaim(struct vswap *vswap, struct backend *backend, uint64_t keep_free_slots, unsigned max,
			    struct backend_slab **ret_slabs)
{
	unsigned nr = 0, nr_batch;

	lock_acquire(&vswap->lock);
	do {
		nr_batch = vswap_reclaim_batch(vswap, backend, keep_free_slots, max - nr, ret_slabs + nr);
		nr += nr_batch;
	} while (nr_batch && nr < max);
	lock_release(&vswap->lock);
	return nr;
}

uint64_t vswap_nr_clusters_opened(const struct vswap *vswap)
{
	uint64_t nr = 0;
	unsigned i;

	for (i = 0; i < vswap->nr_queues; i++)
		nr += atomic_load_explicit(&vswap->queue[i].cursor.nr_opened, memory_order_relaxed);
	return nr;
}

void vswap_space(struct vswap *vswap, const struct backend *backend, struct vswap_space *ret_space)
{
	const struct slab_list *list;
	uint32_t i;

	memset(ret_space, 0, sizeof(*ret_space));
	sys_rcu_read_lock();
	list = atomic_load_explicit(&vswap->slabs.list, memory_order_acquire);
	for (i = 0; i < list->nr; i++) {
		const struct slab *slab = list->slab[i];
		uint32_t used = atomic_load_explicit(&slab->nr_used, memory_order_relaxed);

		if (backend && slab->backend != backend)
			continue;
		ret_space->nr_slabs++;
		ret_space->nr_empty_slabs += used == 0;
		ret_space->nr_slots += slab->nr_slots;
		ret_space->nr_used_slots += used;
	}
	sys_rcu_read_unlock();
}

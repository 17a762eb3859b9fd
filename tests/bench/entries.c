/*
 * What the calls of client/vswap/swap.h cost: allocation and release, holders, lookups, and whole clusters freed.
 */
#include <stdlib.h>

#include "common/sys/rcu.h"
#include "tests/bench/device.h"

#define ENTRIES_NR (1u << 20)
#define ENTRIES_STEPS 1000000u
#define ENTRIES_LARGE_STEPS 10000u /* of 512 entries each */
#define ENTRIES_TURN 1024u	   /* steps between two quiescent states, as a reactor's turn has them */
#define ENTRIES_CLUSTERS 256u

static void released(struct folio *folio, void *arg)
{
	(void)arg;
	free(folio);
}

/* Locked; without memory of its own, since no step looks at a byte. */
static struct folio *folio_new(unsigned order, void *data)
{
	struct folio *folio = malloc(sizeof(*folio));

	folio_init(folio, data, order, released, NULL);
	bench_check("folio", folio_trylock(folio) ? 0 : -1);
	return folio;
}

static struct vswap_queue *worker_queue(const struct worker *worker)
{
	return vswap_queue(worker->device->vswap, worker->number);
}

static void worker_turn(const struct worker *worker, unsigned step)
{
	(void)worker;
	if (step % ENTRIES_TURN == 0) {
		sys_rcu_read_unlock();
		sys_rcu_read_lock();
	}
}

static void run_alloc(struct worker *worker, unsigned order)
{
	struct folio *folio = folio_new(order, worker->device->io.buf);
	swp_entry_t entry;
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		worker_turn(worker, i);
		bench_check("alloc", folio_alloc_swap(worker_queue(worker), folio, order, &entry));
		worker->sum += folio_free_swap(worker_queue(worker), folio);
	}
	folio_unlock(worker_queue(worker), folio);
	folio_put(folio);
}

static void run_alloc_0(struct worker *worker)
{
	run_alloc(worker, 0);
}

static void run_alloc_9(struct worker *worker)
{
	run_alloc(worker, 9);
}

/* Entries that exist, of this worker: with holders, and out of the cache unless it is kept. */
static struct folio *entries_new(struct worker *worker, swp_entry_t *ret_entry)
{
	struct folio *folio = folio_new(FOLIO_MAX_ORDER, worker->device->io.buf);
	uint32_t i;

	bench_check("alloc", folio_alloc_swap(worker_queue(worker), folio, FOLIO_MAX_ORDER, ret_entry));
	bench_check("dup", folio_dup_swap(worker_queue(worker), folio, FOLIO_ALL));
	for (i = 0; i < folio_nr_pages(folio); i++)
		bench_check("same", vswap_set_same(worker_queue(worker), folio, i, i));
	return folio;
}

static void entries_free(struct worker *worker, struct folio *folio, swp_entry_t entry)
{
	bench_check("put", swap_put_entries_direct(worker_queue(worker), entry, folio_nr_pages(folio)));
	worker->sum += folio_free_swap(worker_queue(worker), folio);
	folio_unlock(worker_queue(worker), folio);
	folio_put(folio);
}

static void run_dup_and_put(struct worker *worker)
{
	swp_entry_t entry;
	struct folio *folio = entries_new(worker, &entry);
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		swp_entry_t one = { entry.val + i % SWP_CLUSTER_ENTRIES };

		worker_turn(worker, i);
		bench_check("dup", swap_dup_entry_direct(worker_queue(worker), one));
		bench_check("put", swap_put_entries_direct(worker_queue(worker), one, 1));
	}
	entries_free(worker, folio, entry);
}

static void run_cache_lookup(struct worker *worker)
{
	swp_entry_t entry;
	struct folio *folio = entries_new(worker, &entry);
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		struct folio *found = swap_cache_get_folio(worker_queue(worker),
							   (swp_entry_t){ entry.val + i * 37 % SWP_CLUSTER_ENTRIES });

		worker_turn(worker, i);
		folio_put(found);
	}
	entries_free(worker, folio, entry);
}

/* ---- clusters of stored pages, freed by one call ---- */

struct clusters {
	struct device *device;
	swp_entry_t entry[ENTRIES_CLUSTERS];
	unsigned nr_stored;
	uint64_t elapsed_ns;
};

static void cluster_stored(struct folio *folio, int status, void *arg)
{
	struct clusters *clusters = arg;
	struct vswap_queue *queue = vswap_queue(clusters->device->vswap, 0);

	bench_check("store", status);
	bench_check("clear", put_swap_folio(queue, folio, folio->swap));
	folio_unlock(queue, folio);
	folio_put(folio);
	clusters->nr_stored++;
}

static void cluster_store(void *arg)
{
	struct clusters *clusters = arg;
	struct vswap_queue *queue = vswap_queue(clusters->device->vswap, 0);
	struct folio *folio = folio_new(FOLIO_MAX_ORDER, clusters->device->io.buf);

	bench_check("alloc", folio_alloc_swap(queue, folio, FOLIO_MAX_ORDER, &clusters->entry[clusters->nr_stored]));
	bench_check("dup", folio_dup_swap(queue, folio, FOLIO_ALL));
	bench_check("store", vswap_store_folio(queue, folio, cluster_stored, clusters));
}

static void clusters_put(void *arg)
{
	struct clusters *clusters = arg;
	struct vswap_queue *queue = vswap_queue(clusters->device->vswap, 0);
	uint64_t began = bench_now_ns();
	unsigned i;

	for (i = 0; i < ENTRIES_CLUSTERS; i++)
		bench_check("put", swap_put_entries_direct(queue, clusters->entry[i], SWP_CLUSTER_ENTRIES));
	clusters->elapsed_ns = bench_now_ns() - began;
}

static json_t *measure_clusters(struct device *device, const struct bench_options *options)
{
	struct clusters clusters = { .device = device };
	double ns[BENCH_MAX_RUNS];
	unsigned i, nr;

	for (i = 0; i < options->nr_runs; i++) {
		for (clusters.nr_stored = 0; clusters.nr_stored < ENTRIES_CLUSTERS;) {
			bench_check("refill", vswap_refill(device->vswap));
			nr = clusters.nr_stored;
			sys_reactor_call(device->reactor[0], cluster_store, &clusters);
			while (clusters.nr_stored == nr)
				device_turn(device);
		}
		sys_reactor_call(device->reactor[0], clusters_put, &clusters);
		ns[i] = (double)clusters.elapsed_ns / (ENTRIES_CLUSTERS * SWP_CLUSTER_ENTRIES);
		for (nr = 0; nr < 8; nr++) /* the slots come back */
			device_turn(device);
	}
	return json_real(bench_median(ns, options->nr_runs));
}

void bench_entries(const struct bench_options *options, json_t *object)
{
	struct device *device = device_create(0, ENTRIES_NR);

	device_add_slabs(device, 0, 2 * ENTRIES_CLUSTERS * SWP_CLUSTER_ENTRIES / DEVICE_SLAB_SLOTS);
	json_object_set_new(object, "alloc_and_free_order_0",
			    measure_step(device, options, 1, ENTRIES_STEPS, run_alloc_0, NULL));
	json_object_set_new(object, "alloc_and_free_order_9",
			    measure_step(device, options, 1, ENTRIES_LARGE_STEPS, run_alloc_9, NULL));
	json_object_set_new(object, "dup_and_put", measure_step(device, options, 1, ENTRIES_STEPS, run_dup_and_put, NULL));
	json_object_set_new(object, "cache_lookup",
			    measure_step(device, options, 1, ENTRIES_STEPS, run_cache_lookup, NULL));
	json_object_set_new(object, "free_of_clusters_ns_per_entry", measure_clusters(device, options));
	device_free(device);
}

/*
 * The virtual swap layer by itself: what its steps cost, and its memory, on a device of 32 GiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sys/rcu.h"
#include "tests/bench/device.h"

#define VSWAP_QUARTERS 4u
#define VSWAP_WARM_PAGES 16384u /* 64 MiB: their tables stay in the cache */
#define VSWAP_STEPS 2000000u	/* of one measurement */
#define VSWAP_DISCARDS 256u

/* ---- memory ---- */

static size_t resident_bytes(void)
{
	unsigned long size, resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (!file || fscanf(file, "%lu %lu", &size, &resident) != 2)
		bench_die("/proc/self/statm", 0);
	fclose(file);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static json_t *memory_json(struct device *device, size_t before_bytes, uint64_t nr_stored)
{
	size_t bytes = resident_bytes() - before_bytes;
	json_t *object = json_object();
	struct vswap_stats stats;

	vswap_stats(device->vswap, &stats);
	json_object_set_new(object, "stored_pages", json_integer((json_int_t)nr_stored));
	json_object_set_new(object, "resident_bytes", json_integer((json_int_t)bytes));
	json_object_set_new(object, "metadata_bytes", json_integer((json_int_t)stats.metadata_bytes));
	if (nr_stored)
		json_object_set_new(object, "resident_bytes_per_stored_page", json_real((double)bytes / (double)nr_stored));
	else
		json_object_set_new(object, "resident_bytes_per_page_of_the_device",
				    json_real((double)bytes / (double)DEVICE_PAGES));
	return object;
}

/* Fills the device by quarters. What the process has more than before it had a device is the device's. */
static json_t *measure_memory(struct device *device, size_t before_bytes)
{
	json_t *list = json_array();
	unsigned quarter;
	uint64_t page = 0;

	json_array_append_new(list, memory_json(device, before_bytes, 0));
	for (quarter = 1; quarter <= VSWAP_QUARTERS; quarter++) {
		device_add_slabs(device, 0, DEVICE_SLABS / VSWAP_QUARTERS);
		device_fill(device, page, DEVICE_PAGES / VSWAP_QUARTERS);
		page += DEVICE_PAGES / VSWAP_QUARTERS;
		json_array_append_new(list, memory_json(device, before_bytes, page));
	}
	return list;
}

/* ---- steps ---- */

/* Its own part of the range, so that two threads do not change the same words. */
static uint64_t worker_page(const struct worker *worker, struct rand_state *rand)
{
	return worker->number * worker->range_pages + rand_below(rand, worker->range_pages);
}

static void run_lookup(struct worker *worker)
{
	const struct table_map *tables = &worker->device->vswap->tables;
	struct rand_state rand = { .s = worker->number + 1 };
	struct table_recent recent = { 0 };
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		uint64_t page = worker_page(worker, &rand);
		struct table_look look;

		table_look_in(table_find(tables, &recent, page), page, &look);
		worker->sum += look.word + look.checksum;
	}
}

/* What it takes without a recent cluster. */
static void run_walk(struct worker *worker)
{
	struct rand_state rand = { .s = worker->number + 1 };
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		struct table_look look;

		table_look(&worker->device->vswap->tables, worker_page(worker, &rand), &look);
		worker->sum += look.word + look.checksum;
	}
}

static void run_nothing(struct worker *worker)
{
	struct rand_state rand = { .s = worker->number + 1 };
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++)
		worker->sum += worker_page(worker, &rand);
}

static void run_swing(struct worker *worker)
{
	struct rand_state rand = { .s = worker->number + 1 };
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		uint64_t page = worker_page(worker, &rand);
		_Atomic uint64_t *place = table_word(table_lookup(&worker->device->vswap->tables, page), page);
		uint64_t word = atomic_load(place);

		worker->sum += atomic_compare_exchange_strong(place, &word, word_release(word));
	}
}

static void run_slot(struct worker *worker)
{
	struct vswap *vswap = worker->device->vswap;
	struct slot_cursor cursor = { .rand = { .s = worker->number + 1 } };
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		struct slab *slab;
		uint32_t slot;

		bench_check("slot", slot_alloc(&vswap->slabs, &cursor, SLOT_ANYWHERE, 0, &slab, &slot));
		slot_free_unused(&vswap->slabs, slab, slot, 1);
	}
	slot_cursor_close(&vswap->slabs, &cursor);
}

static void run_lookup_in_order(struct worker *worker)
{
	const struct table_map *tables = &worker->device->vswap->tables;
	uint64_t first = worker->number * worker->range_pages;
	struct table_recent recent = { 0 };
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		uint64_t page = first + i % worker->range_pages;
		struct table_look look;

		table_look_in(table_find(tables, &recent, page), page, &look);
		worker->sum += look.word + look.checksum;
	}
}

static void run_walk_in_order(struct worker *worker)
{
	uint64_t first = worker->number * worker->range_pages;
	unsigned i;

	for (i = 0; i < worker->nr_steps; i++) {
		struct table_look look;

		table_look(&worker->device->vswap->tables, first + i % worker->range_pages, &look);
		worker->sum += look.word + look.checksum;
	}
}

/* By way of the thread's recent table, and without one. */
struct lookup_case {
	const char *name;
	const char *walk_name;
	uint64_t range_pages;
	bool in_order;
};

static void measure_lookups(struct device *device, const struct bench_options *options, json_t *object)
{
	static const struct lookup_case cases[] = {
		{ "lookup_in_cluster", "lookup_in_cluster_by_walk", TABLE_ENTRIES, false },
		{ "lookup_in_order", "lookup_in_order_by_walk", VSWAP_WARM_PAGES, true },
		{ "lookup_warm", "lookup_warm_by_walk", VSWAP_WARM_PAGES, false },
		{ "lookup_anywhere", "lookup_anywhere_by_walk", DEVICE_PAGES / 2, false },
	};

	for (unsigned i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		const struct lookup_case *one = &cases[i];
		void (*find)(struct worker *) = one->in_order ? run_lookup_in_order : run_lookup;
		void (*walk)(struct worker *) = one->in_order ? run_walk_in_order : run_walk;
		void (*empty)(struct worker *) = one->in_order ? NULL : run_nothing;

		json_object_set_new(object, one->name,
				    measure_step(device, options, one->range_pages, VSWAP_STEPS, find, empty));
		json_object_set_new(object, one->walk_name,
				    measure_step(device, options, one->range_pages, VSWAP_STEPS, walk, empty));
	}
}

/* ---- freeing whole clusters, and the rebuild ---- */

struct discarding {
	struct device *device;
	uint64_t page;
	uint64_t elapsed_ns;
};

static void discard_on_reactor(void *arg)
{
	struct discarding *discarding = arg;
	struct device *device = discarding->device;
	uint64_t began;

	device->io = (struct fsw_io){ .op = IO_DISCARD, .page = discarding->page, .nr_pages = DEVICE_RUN,
				      .done = device_done, .buf = device->io.buf };
	began = bench_now_ns();
	vswap_submit(vswap_queue(device->vswap, 0), &device->io);
	discarding->elapsed_ns += bench_now_ns() - began;
}

/* ns per entry: on the front end's queue, and on the mover's, which makes the slots free again. */
static void discard_once(struct device *device, double *ret_ns, double *ret_reap_ns)
{
	struct discarding discarding = { .device = device };
	uint64_t began;
	unsigned i;

	for (i = 0; i < VSWAP_DISCARDS; i++) {
		discarding.page = (uint64_t)i * DEVICE_RUN;
		device->done = false;
		sys_reactor_call(device->reactor[0], discard_on_reactor, &discarding);
		while (!device->done)
			sys_reactor_turn(device->reactor[0]);
	}
	began = bench_now_ns();
	for (i = 0; i < 4; i++)
		sys_reactor_turn(device->reactor[DEVICE_QUEUES]);
	*ret_reap_ns = (double)(bench_now_ns() - began) / (VSWAP_DISCARDS * DEVICE_RUN);
	*ret_ns = (double)discarding.elapsed_ns / (VSWAP_DISCARDS * DEVICE_RUN);
	for (i = 0; i < VSWAP_DISCARDS; i++) {
		bench_check("refill", vswap_refill(device->vswap));
		device_do(device, IO_WRITE, (uint64_t)i * DEVICE_RUN);
	}
}

static json_t *measure_discard(struct device *device, const struct bench_options *options)
{
	double ns[BENCH_MAX_RUNS], reap_ns[BENCH_MAX_RUNS];
	json_t *object = json_object();
	unsigned i;

	for (i = 0; i < options->nr_runs; i++)
		discard_once(device, &ns[i], &reap_ns[i]);
	json_object_set_new(object, "ns_per_entry", json_real(bench_median(ns, options->nr_runs)));
	json_object_set_new(object, "reap_ns_per_entry", json_real(bench_median(reap_ns, options->nr_runs)));
	return object;
}

static json_t *measure_rebuild(struct device *device, const struct bench_options *options)
{
	double rate[BENCH_MAX_RUNS];
	uint64_t began, nr_poisoned;
	unsigned i;

	for (i = 0; i < options->nr_runs; i++) {
		began = bench_now_ns();
		bench_check("rebuild", vswap_rebuild(device->vswap, &nr_poisoned));
		rate[i] = (double)DEVICE_PAGES * 1e3 / (double)(bench_now_ns() - began);
		if (nr_poisoned || vswap_check(device->vswap))
			bench_die("rebuild: the books are wrong", 0);
	}
	return json_real(bench_median(rate, options->nr_runs));
}

json_t *bench_vswap(const struct bench_options *options)
{
	size_t before_bytes;
	struct device *device;
	json_t *object = json_object();

	sys_rcu_thread_init();
	before_bytes = resident_bytes() + DEVICE_RUN * FSW_PAGE_SIZE; /* the request's own pages are not metadata */
	device = device_create(DEVICE_PAGES, 0);
	json_object_set_new(object, "memory", measure_memory(device, before_bytes));
	measure_lookups(device, options, object);
	json_object_set_new(object, "word_cas",
			    measure_step(device, options, VSWAP_WARM_PAGES, VSWAP_STEPS, run_swing, run_nothing));
	device_add_slabs(device, 0, DEVICE_SPARE_SLABS);
	json_object_set_new(object, "slot_alloc_and_free", measure_step(device, options, 1, VSWAP_STEPS, run_slot, NULL));
	json_object_set_new(object, "discard_of_clusters", measure_discard(device, options));
	json_object_set_new(object, "rebuild_million_entries_per_s", measure_rebuild(device, options));
	device_free(device);
	bench_entries(options, object);
	bench_drain_cost(options, object);
	return object;
}

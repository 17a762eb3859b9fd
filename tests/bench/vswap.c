/*
 * The virtual swap layer by itself: what its steps cost, and its memory, on a device of 32 GiB. The backend behind it keeps
 * no bytes and completes at once, so what is measured is ours.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/vswap/internal.h"
#include "common/sys/rcu.h"
#include "common/sys/thread.h"
#include "tests/bench/bench.h"

#define VSWAP_PAGES (8ull << 20) /* 32 GiB */
#define VSWAP_SLAB_SLOTS 16384u
#define VSWAP_SLABS (VSWAP_PAGES / VSWAP_SLAB_SLOTS)
#define VSWAP_SPARE_SLABS 8u /* for allocations on the full device */
#define VSWAP_QUARTERS 4u
#define VSWAP_QUEUES 2u
#define VSWAP_RUN 512u
#define VSWAP_WARM_PAGES 16384u /* 64 MiB: their tables stay in the cache */
#define VSWAP_STEPS 2000000u	/* of one measurement */
#define VSWAP_DISCARDS 256u
#define VSWAP_THREADS 2u

/* ---- a backend that forgets ---- */

struct null_queue {
	struct sys_poller poller;
	struct backend_io_list pending;
};

struct device {
	struct backend backend;
	struct null_queue queue[VSWAP_QUEUES + 1];
	struct backend_slab slab[VSWAP_SLABS + VSWAP_SPARE_SLABS];
	unsigned nr_slabs;
	struct sys_reactor *reactor[VSWAP_QUEUES + 1];
	struct vswap *vswap;
	struct fsw_io io;
	bool done;
};

static int null_submit(struct backend *backend, unsigned queue, struct backend_io *io)
{
	struct device *device = BASE_CONTAINER_OF(backend, struct device, backend);

	TAILQ_INSERT_TAIL(&device->queue[queue].pending, io, link);
	return 0;
}

static unsigned null_poll(struct sys_poller *poller)
{
	struct null_queue *queue = BASE_CONTAINER_OF(poller, struct null_queue, poller);
	struct backend_io *io;
	unsigned nr = 0;

	for (; (io = TAILQ_FIRST(&queue->pending)) != NULL; nr++) {
		TAILQ_REMOVE(&queue->pending, io, link);
		io->done(io, 0);
	}
	return nr;
}

static const struct backend_ops null_ops = { .name = "null", .submit = null_submit };

static void device_turn(struct device *device)
{
	unsigned i;

	for (i = 0; i <= VSWAP_QUEUES; i++)
		sys_reactor_turn(device->reactor[i]);
}

static void device_create(struct device *device)
{
	struct vswap_options options = { .nr_pages = VSWAP_PAGES, .nr_queues = VSWAP_QUEUES, .max_slabs = 1024 };
	unsigned i;

	bench_check("vswap", vswap_create(&options, &device->vswap));
	device->backend.ops = &null_ops;
	device->backend.kind = BACKEND_REMOTE;
	device->backend.nr_queues = VSWAP_QUEUES + 1;
	atomic_store(&device->backend.state, BACKEND_UP);
	for (i = 0; i <= VSWAP_QUEUES; i++) {
		struct sys_reactor_options reactor = { .name = "bench", .cpu = -1, .manual = true };

		bench_check("reactor", sys_reactor_create(&reactor, &device->reactor[i]));
		vswap_queue_bind(device->vswap, i, device->reactor[i]);
		TAILQ_INIT(&device->queue[i].pending);
		device->queue[i].poller.poll = null_poll;
		sys_poller_add(device->reactor[i], &device->queue[i].poller);
	}
	bench_check("backend", vswap_backend_add(device->vswap, &device->backend));
}

static void device_free(struct device *device)
{
	unsigned i;

	vswap_free(device->vswap);
	for (i = 0; i <= VSWAP_QUEUES; i++) {
		sys_poller_remove(&device->queue[i].poller);
		sys_reactor_free(device->reactor[i]);
	}
	free(device->io.buf);
	free(device);
}

static void device_add_slabs(struct device *device, unsigned nr)
{
	for (; nr; nr--) {
		struct backend_slab *slab = &device->slab[device->nr_slabs];

		*slab = (struct backend_slab){ .backend = &device->backend, .index = device->nr_slabs++,
					       .nr_slots = VSWAP_SLAB_SLOTS };
		bench_check("slab", vswap_slab_add(device->vswap, slab));
	}
}

static void device_done(struct fsw_io *io, int status)
{
	BASE_CONTAINER_OF(io, struct device, io)->done = true;
	bench_check("request", status);
}

static void device_submit_on_reactor(void *arg)
{
	struct device *device = arg;

	vswap_submit(vswap_queue(device->vswap, 0), &device->io);
}

static void device_do(struct device *device, enum io_op op, uint64_t page)
{
	device->io.op = (uint8_t)op;
	device->io.page = page;
	device->io.nr_pages = VSWAP_RUN;
	device->io.done = device_done;
	device->done = false;
	sys_reactor_call(device->reactor[0], device_submit_on_reactor, device);
	while (!device->done)
		device_turn(device);
}

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
				    json_real((double)bytes / (double)VSWAP_PAGES));
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
		device_add_slabs(device, VSWAP_SLABS / VSWAP_QUARTERS);
		for (; page < VSWAP_PAGES / VSWAP_QUARTERS * quarter; page += VSWAP_RUN) {
			if (page % (VSWAP_RUN * 32) == 0)
				bench_check("refill", vswap_refill(device->vswap));
			device_do(device, IO_WRITE, page);
		}
		json_array_append_new(list, memory_json(device, before_bytes, page));
	}
	return list;
}

/* ---- steps ---- */

struct worker {
	struct device *device;
	unsigned number;
	uint64_t range_pages;
	void (*run)(struct worker *worker);
	pthread_t thread;
	pthread_barrier_t *barrier;
	uint64_t elapsed_ns;
	uint64_t sum; /* so that nothing is optimised away */
};

/* Its own part of the range, so that two threads do not change the same words. */
static uint64_t worker_page(const struct worker *worker, struct rand_state *rand)
{
	return worker->number * worker->range_pages + rand_below(rand, worker->range_pages);
}

static void run_lookup(struct worker *worker)
{
	struct rand_state rand = { .s = worker->number + 1 };
	unsigned i;

	for (i = 0; i < VSWAP_STEPS; i++) {
		struct table_look look;

		table_look(&worker->device->vswap->tables, worker_page(worker, &rand), &look);
		worker->sum += look.word + look.checksum;
	}
}

static void run_nothing(struct worker *worker)
{
	struct rand_state rand = { .s = worker->number + 1 };
	unsigned i;

	for (i = 0; i < VSWAP_STEPS; i++)
		worker->sum += worker_page(worker, &rand);
}

static void run_swing(struct worker *worker)
{
	struct rand_state rand = { .s = worker->number + 1 };
	unsigned i;

	for (i = 0; i < VSWAP_STEPS; i++) {
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

	for (i = 0; i < VSWAP_STEPS; i++) {
		struct slab *slab;
		uint32_t slot;

		bench_check("slot", slot_alloc(&vswap->slabs, &cursor, SLOT_ANYWHERE, 0, &slab, &slot));
		slot_free_unused(&vswap->slabs, slab, slot, 1);
	}
	slot_cursor_close(&vswap->slabs, &cursor);
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	uint64_t began;

	sys_rcu_thread_init();
	sys_rcu_read_lock();
	pthread_barrier_wait(worker->barrier);
	began = bench_now_ns();
	worker->run(worker);
	worker->elapsed_ns = bench_now_ns() - began;
	sys_rcu_read_unlock();
	sys_rcu_thread_done();
	return NULL;
}

/* ns per step of each of so many threads. */
static double step_ns(struct device *device, const struct bench_options *options, unsigned nr_threads,
		      uint64_t range_pages, void (*run)(struct worker *worker))
{
	struct worker worker[VSWAP_THREADS];
	pthread_barrier_t barrier;
	uint64_t sum_ns = 0;
	unsigned i;

	pthread_barrier_init(&barrier, NULL, nr_threads);
	for (i = 0; i < nr_threads; i++) {
		worker[i] = (struct worker){ .device = device, .number = i, .range_pages = range_pages, .run = run,
					     .barrier = &barrier };
		bench_check("thread", sys_thread_start(&worker[i].thread, "bench-step", bench_cpu(options, (int)i),
						       worker_main, &worker[i]));
	}
	for (i = 0; i < nr_threads; i++) {
		pthread_join(worker[i].thread, NULL);
		sum_ns += worker[i].elapsed_ns;
	}
	pthread_barrier_destroy(&barrier);
	return (double)sum_ns / nr_threads / VSWAP_STEPS;
}

/* The empty loop is taken off, run by run. */
static json_t *measure_step(struct device *device, const struct bench_options *options, uint64_t range_pages,
			    void (*run)(struct worker *worker))
{
	static const char *const name[VSWAP_THREADS] = { "ns_1_thread", "ns_2_threads" };
	json_t *object = json_object();
	double ns[BENCH_MAX_RUNS];
	unsigned nr, i;

	for (nr = 1; nr <= VSWAP_THREADS; nr++) {
		for (i = 0; i < options->nr_runs; i++)
			ns[i] = step_ns(device, options, nr, range_pages, run) -
				(run == run_slot ? 0 : step_ns(device, options, nr, range_pages, run_nothing));
		json_object_set_new(object, name[nr - 1], json_real(bench_median(ns, options->nr_runs)));
	}
	return object;
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

	device->io = (struct fsw_io){ .op = IO_DISCARD, .page = discarding->page, .nr_pages = VSWAP_RUN,
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
		discarding.page = (uint64_t)i * VSWAP_RUN;
		device->done = false;
		sys_reactor_call(device->reactor[0], discard_on_reactor, &discarding);
		while (!device->done)
			sys_reactor_turn(device->reactor[0]);
	}
	began = bench_now_ns();
	for (i = 0; i < 4; i++)
		sys_reactor_turn(device->reactor[VSWAP_QUEUES]);
	*ret_reap_ns = (double)(bench_now_ns() - began) / (VSWAP_DISCARDS * VSWAP_RUN);
	*ret_ns = (double)discarding.elapsed_ns / (VSWAP_DISCARDS * VSWAP_RUN);
	for (i = 0; i < VSWAP_DISCARDS; i++) {
		bench_check("refill", vswap_refill(device->vswap));
		device_do(device, IO_WRITE, (uint64_t)i * VSWAP_RUN);
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
		rate[i] = (double)VSWAP_PAGES * 1e3 / (double)(bench_now_ns() - began);
		if (nr_poisoned || vswap_check(device->vswap))
			bench_die("rebuild: the books are wrong", 0);
	}
	return json_real(bench_median(rate, options->nr_runs));
}

json_t *bench_vswap(const struct bench_options *options)
{
	size_t before_bytes;
	struct device *device = calloc(1, sizeof(*device));
	struct rand_state rand = { .s = 1 };
	json_t *object = json_object();
	unsigned i;

	sys_rcu_thread_init();
	device->io.buf = aligned_alloc(FSW_PAGE_SIZE, VSWAP_RUN * FSW_PAGE_SIZE);
	for (i = 0; i < VSWAP_RUN * FSW_PAGE_SIZE / 8; i++) /* nothing that a SAME page could hold */
		((uint64_t *)device->io.buf)[i] = rand_next(&rand);
	before_bytes = resident_bytes();
	device_create(device);
	json_object_set_new(object, "memory", measure_memory(device, before_bytes));
	json_object_set_new(object, "lookup_warm", measure_step(device, options, VSWAP_WARM_PAGES, run_lookup));
	json_object_set_new(object, "lookup_anywhere", measure_step(device, options, VSWAP_PAGES / 2, run_lookup));
	json_object_set_new(object, "word_cas", measure_step(device, options, VSWAP_WARM_PAGES, run_swing));
	device_add_slabs(device, VSWAP_SPARE_SLABS);
	json_object_set_new(object, "slot_alloc_and_free", measure_step(device, options, 1, run_slot));
	json_object_set_new(object, "discard_of_clusters", measure_discard(device, options));
	json_object_set_new(object, "rebuild_million_entries_per_s", measure_rebuild(device, options));
	device_free(device);
	return object;
}

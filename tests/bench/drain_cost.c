/*
 * What it costs to empty one server of two, in the time of the processor: the kernel's swapoff in our terms. It is to depend on
 * what lies on that server, and not on the size of the device, on what lies elsewhere, or on who has how much mapped.
 *
 * The servers keep no bytes, so that 16 GiB fit: a copy and a checksum per page are in the figures, a network is not.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/sys/rcu.h"
#include "tests/bench/device.h"

#define GIB_PAGES (1ull << 18)
#define HOLDER_BYTES (128ull << 30)

struct drain_case {
	const char *name;
	uint64_t device_gib;
	uint64_t drained_gib; /* on the server that is emptied */
	uint64_t other_gib;   /* on the other one */
	bool holder;	      /* 128 GiB are mapped beside it, and have nothing to do with it */
};

static double thread_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Time of the processor for one drain; all reactors turn on this thread, and only the mover's has anything to do. */
static double drain_seconds(struct device *device)
{
	struct vswap_drain_options options = { 0 };
	struct vswap_drain_progress progress;
	struct backend *backend = &device->server[0].backend;
	double began = thread_seconds();

	bench_check("drain", vswap_drain(device->vswap, backend, &options));
	do {
		unsigned i;

		for (i = 0; i < 1000; i++)
			sys_reactor_turn(device->reactor[DEVICE_QUEUES]);
		vswap_drain_progress(device->vswap, backend, &progress);
	} while (progress.state == VSWAP_DRAIN_RUNNING);
	if (progress.state != VSWAP_DRAIN_DRAINED)
		bench_die("the drain did not end well", 0);
	return thread_seconds() - began;
}

static double case_seconds(const struct drain_case *c)
{
	struct device *device = device_create(c->device_gib * GIB_PAGES, 0);
	unsigned slabs_per_gib = GIB_PAGES / DEVICE_SLAB_SLOTS;
	void *holder = MAP_FAILED;
	double seconds;

	if (c->holder) {
		holder = mmap(NULL, HOLDER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (holder == MAP_FAILED)
			bench_die("128 GiB of address space", 0);
	}
	/* Each server has just the room for what is put there, when it is put there. */
	device_add_slabs(device, 0, (unsigned)c->drained_gib * slabs_per_gib);
	device_fill(device, 0, c->drained_gib * GIB_PAGES);
	device_add_slabs(device, 1, (unsigned)(c->other_gib + c->drained_gib) * slabs_per_gib);
	device_fill(device, c->drained_gib * GIB_PAGES, c->other_gib * GIB_PAGES);
	seconds = drain_seconds(device);
	if (holder != MAP_FAILED)
		munmap(holder, HOLDER_BYTES);
	device_free(device);
	return seconds;
}

void bench_drain_cost(const struct bench_options *options, json_t *object)
{
	static const struct drain_case cases[] = {
		{ .name = "1_gib_of_2_on_4", .device_gib = 4, .drained_gib = 1, .other_gib = 1 },
		{ .name = "1_gib_of_16_on_32", .device_gib = 32, .drained_gib = 1, .other_gib = 15 },
		{ .name = "1_gib_of_16_on_32_beside_128_mapped", .device_gib = 32, .drained_gib = 1, .other_gib = 15,
		  .holder = true },
		{ .name = "1_gib_of_2_on_1024", .device_gib = 1024, .drained_gib = 1, .other_gib = 1 },
		{ .name = "8_gib_of_16_on_32", .device_gib = 32, .drained_gib = 8, .other_gib = 8 },
	};
	double seconds[BASE_ARRAY_SIZE(cases)][BENCH_MAX_RUNS];
	json_t *costs = json_object();
	unsigned run, i;

	for (run = 0; run < options->nr_runs; run++)
		for (i = 0; i < BASE_ARRAY_SIZE(cases); i++)
			seconds[i][run] = case_seconds(&cases[i]);
	for (i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		double median = bench_median(seconds[i], options->nr_runs);
		json_t *one = json_object();

		json_object_set_new(one, "cpu_seconds", json_real(median));
		json_object_set_new(one, "cpu_ns_per_page",
				    json_real(median * 1e9 / (double)(cases[i].drained_gib * GIB_PAGES)));
		json_object_set_new(costs, cases[i].name, one);
	}
	json_object_set_new(object, "drain_cost", costs);
}

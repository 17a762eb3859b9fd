/* deps: tests_lib client_vswap */
/* What the virtual swap layer costs in memory: unused, and per stored page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/vswap/admin.h"
#include "common/base/rand.h"
#include "common/sys/rcu.h"
#include "tests/lib/ram_backend.h"

#define MIB (1u << 20)
#define FULL_PAGES 65536u /* 256 MiB */
#define SLAB_SLOTS 4096u
#define RUN 256u

static size_t resident_bytes(void)
{
	unsigned long size, resident;
	FILE *file = fopen("/proc/self/statm", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
	fclose(file);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static void test_unused_16_tib(void **state)
{
	struct vswap_options options = { .nr_pages = 1ull << 32, .nr_queues = 4, .max_slabs = 1u << 18 };
	size_t before = resident_bytes();
	struct vswap_stats stats;
	struct vswap *vswap;

	(void)state;
	assert_int_equal(vswap_create(&options, &vswap), 0);
	vswap_stats(vswap, &stats);
	assert_true(stats.metadata_bytes < 32 * MIB);
	assert_true(resident_bytes() - before < 32 * MIB);
	vswap_free(vswap);
}

struct device {
	struct sys_reactor *reactor[2];
	struct vswap *vswap;
	struct ram_backend *ram;
	struct fsw_io io;
	bool done;
	int status;
};

static void io_done(struct fsw_io *io, int status)
{
	struct device *device = BASE_CONTAINER_OF(io, struct device, io);

	device->done = true;
	device->status = status;
}

static void submit(struct device *device, uint8_t op, uint64_t page, uint64_t nr_pages)
{
	device->io.op = op;
	device->io.page = page;
	device->io.nr_pages = nr_pages;
	device->io.done = io_done;
	device->done = false;
	vswap_submit(vswap_queue(device->vswap, 0), &device->io);
	while (!device->done) {
		sys_reactor_turn(device->reactor[0]);
		sys_reactor_turn(device->reactor[1]);
	}
	assert_int_equal(device->status, 0);
}

static void device_open(struct device *device)
{
	struct vswap_options options = { .nr_pages = FULL_PAGES, .nr_queues = 1, .max_slabs = 16, .reserve_tables = 1,
					 .seed = 1 };
	unsigned i;

	assert_int_equal(vswap_create(&options, &device->vswap), 0);
	for (i = 0; i < 2; i++) {
		struct sys_reactor_options reactor = { .name = "test", .manual = true, .cpu = -1 };

		assert_int_equal(sys_reactor_create(&reactor, &device->reactor[i]), 0);
		vswap_queue_bind(device->vswap, i, device->reactor[i]);
	}
	device->ram = ram_backend_create("ram", BACKEND_REMOTE, SLAB_SLOTS, device->reactor, 2, 1);
	assert_int_equal(vswap_backend_add(device->vswap, ram_backend_backend(device->ram)), 0);
	for (i = 0; i < FULL_PAGES / SLAB_SLOTS; i++)
		assert_int_equal(vswap_slab_add(device->vswap, ram_backend_slab_new(device->ram)), 0);
	device->io.buf = aligned_alloc(FSW_PAGE_SIZE, RUN * FSW_PAGE_SIZE);
	assert_non_null(device->io.buf);
}

static void device_close(struct device *device)
{
	vswap_free(device->vswap);
	ram_backend_free(device->ram);
	sys_reactor_free(device->reactor[0]);
	sys_reactor_free(device->reactor[1]);
	free(device->io.buf);
}

static void fill(struct device *device)
{
	struct rand_state rand = { .s = 1 };
	uint64_t page;
	size_t i;

	for (page = 0; page < FULL_PAGES; page += RUN) {
		for (i = 0; i < RUN * FSW_PAGE_SIZE / 8; i++)
			((uint64_t *)device->io.buf)[i] = rand_next(&rand);
		assert_int_equal(vswap_refill(device->vswap), 0);
		submit(device, IO_WRITE, page, RUN);
	}
}

static void test_per_stored_page(void **state)
{
	static struct device device;
	struct vswap_stats stats;

	(void)state;
	device_open(&device);
	fill(&device);
	vswap_stats(device.vswap, &stats);
	assert_int_equal(stats.nr_remote, FULL_PAGES);
	print_message("%.2f bytes per stored page\n", (double)stats.metadata_bytes / FULL_PAGES);
	assert_true(stats.metadata_bytes <= 20ull * FULL_PAGES);
	device_close(&device);
}

/* A run of pages is a run of slots, and one operation; so is its discard one of memory. */
static void test_runs_stay_runs(void **state)
{
	static struct device device;
	struct vswap_space space;
	uint64_t before;
	unsigned i;

	(void)state;
	device_open(&device);
	fill(&device);
	before = ram_backend_nr_ops(device.ram);
	submit(&device, IO_READ, 1024, RUN);
	submit(&device, IO_WRITE, 1024, RUN);
	assert_int_equal(ram_backend_nr_ops(device.ram) - before, 2);
	submit(&device, IO_DISCARD, 0, FULL_PAGES);
	for (i = 0; i < 100; i++)
		sys_reactor_turn(device.reactor[1]);
	vswap_space(device.vswap, NULL, &space);
	assert_int_equal(space.nr_used_slots, 0);
	assert_int_equal(vswap_check(device.vswap), 0);
	device_close(&device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unused_16_tib),
		cmocka_unit_test(test_per_stored_page),
		cmocka_unit_test(test_runs_stay_runs),
	};

	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: common_transport_verbs tests_fakes_fabric common_log common_mem common_sys */

/* The memory that a device knows: found by its key, or not, and then the log says so. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/log/log.h"
#include "common/mem/region.h"
#include "common/transport/verbs/device.h"
#include "tests/fakes/fabric.h"

#define REGION_BYTES (4 * FSW_PAGE_SIZE)

static struct transport_driver *head;
static char warning[512];
static unsigned nr_warnings;

static void take_warning(enum log_level level, const char *text, void *arg)
{
	(void)arg;
	if (level != LOG_LEVEL_WARNING)
		return;
	snprintf(warning, sizeof(warning), "%s", text);
	nr_warnings++;
}

static int set_up(void **state)
{
	struct verbs_driver_options options = { .gid_index = -1, .service_level = -1 };

	(void)state;
	fabric_reset();
	nr_warnings = 0;
	log_set_writer(take_warning, NULL);
	return verbs_driver_create(&options, &head);
}

static int tear_down(void **state)
{
	(void)state;
	verbs_driver_free(head);
	log_set_writer(NULL, NULL);
	assert_int_equal(fabric_nr_objects(), 0);
	return 0;
}

static struct verbs_device *open_device(void)
{
	struct verbs_driver *driver = BASE_CONTAINER_OF(head, struct verbs_driver, head);
	struct ibv_context **contexts = rdma_get_devices(NULL);
	struct verbs_device *device;

	assert_int_equal(verbs_device_get(driver, contexts[0], &device), 0);
	rdma_free_devices(contexts);
	return device;
}

static bool knows(const struct verbs_device *device, const void *bytes, size_t len_bytes)
{
	unsigned hint = 0;
	uint32_t lkey;

	return verbs_device_find(device, bytes, len_bytes, &hint, &lkey);
}

static void within_a_region(void **state)
{
	struct mem_region region;
	struct verbs_device *device;
	char *bytes;

	(void)state;
	assert_int_equal(mem_region_open(&region, REGION_BYTES, MEM_REGION_IO), 0);
	device = open_device();
	bytes = region.base;
	assert_true(knows(device, bytes, REGION_BYTES));
	assert_true(knows(device, bytes + REGION_BYTES - 1, 1));
	assert_false(knows(device, bytes - 1, 1));
	assert_false(knows(device, bytes + 1, REGION_BYTES));
	assert_false(knows(device, bytes + REGION_BYTES, 1));
	mem_region_close(&region);
	assert_false(knows(device, bytes, 1));
	assert_int_equal(nr_warnings, 0);
}

/* There is an end to how many regions a device knows, and operations on others are slower: each is told of once. */
static void beyond_the_last_region(void **state)
{
	static struct mem_region regions[MEM_IO_MAX + 3];
	struct verbs_device *device;

	(void)state;
	for (unsigned i = 0; i < MEM_IO_MAX + 2; i++)
		assert_int_equal(mem_region_open(&regions[i], REGION_BYTES, MEM_REGION_IO), 0);
	assert_int_equal(nr_warnings, 0); /* without a device nothing is copied */
	device = open_device();
	assert_int_equal(nr_warnings, 1);
	assert_non_null(strstr(warning, "fake0: 32 KiB of memory are beyond the 128 regions"));
	assert_ptr_equal(open_device(), device);
	assert_int_equal(nr_warnings, 1);
	assert_int_equal(mem_region_open(&regions[MEM_IO_MAX + 2], REGION_BYTES, MEM_REGION_IO), 0);
	assert_int_equal(nr_warnings, 2);
	assert_non_null(strstr(warning, "fake0: 16 KiB of memory are beyond the 128 regions"));
	for (unsigned i = 0; i < MEM_IO_MAX + 3; i++)
		assert_int_equal(knows(device, regions[i].base, 1), i < MEM_IO_MAX);
	for (unsigned i = 0; i < MEM_IO_MAX + 3; i++)
		mem_region_close(&regions[i]);
	assert_int_equal(nr_warnings, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(within_a_region),
		TEST(beyond_the_last_region),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

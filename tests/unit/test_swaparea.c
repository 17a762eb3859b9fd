/* deps: client_frontend */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/frontend/swaparea.h"

static const unsigned char uuid[SWAP_AREA_UUID_BYTES] = "0123456789abcdef";

static uint32_t word_at(const unsigned char *page, size_t at)
{
	uint32_t word;

	memcpy(&word, page + at, sizeof(word));
	return word;
}

/* Offsets of the kernel's union swap_header. */
static void test_header(void **state)
{
	unsigned char page[FSW_PAGE_SIZE];

	(void)state;
	memset(page, 0xff, sizeof(page));
	assert_int_equal(swap_area_pack(page, 65536, uuid, "farswap"), 0);
	assert_memory_equal(page + 4086, "SWAPSPACE2", 10);
	assert_int_equal(word_at(page, 1024), 1);
	assert_int_equal(word_at(page, 1028), 65535);
	assert_int_equal(word_at(page, 1032), 0);
	assert_memory_equal(page + 1036, uuid, 16);
	assert_memory_equal(page + 1052, "farswap\0\0\0\0\0\0\0\0\0", 16);
	for (size_t i = 0; i < 1024; i++)
		assert_int_equal(page[i], 0);
	for (size_t i = 1068; i < 4086; i++)
		assert_int_equal(page[i], 0);
}

static void test_limits(void **state)
{
	unsigned char page[FSW_PAGE_SIZE];

	(void)state;
	assert_int_equal(swap_area_pack(page, 0, uuid, ""), -EINVAL);
	assert_int_equal(swap_area_pack(page, SWAP_AREA_MIN_PAGES - 1, uuid, ""), -EINVAL);
	assert_int_equal(swap_area_pack(page, SWAP_AREA_MIN_PAGES, uuid, ""), 0);
	assert_int_equal(swap_area_pack(page, 1ull << 32, uuid, "a label of more than 16 bytes"), 0);
	assert_true(word_at(page, 1028) == UINT32_MAX);
	assert_memory_equal(page + 1052, "a label of more ", 16);
	assert_int_equal(page[1068], 0);
	assert_int_equal(swap_area_pack(page, (1ull << 32) + 1, uuid, ""), -EINVAL);
}

static void test_write(void **state)
{
	char path[] = "test_swaparea_XXXXXX";
	unsigned char page[FSW_PAGE_SIZE];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 16 * (int)FSW_PAGE_SIZE), 0);
	int ret = swap_area_write(path, 16, "farswap");

	unlink(path);
	/* A file system without O_DIRECT (an old tmpfs) cannot show more. */
	if (ret == 0) {
		assert_int_equal(pread(fd, page, sizeof(page), 0), sizeof(page));
		assert_memory_equal(page + 4086, "SWAPSPACE2", 10);
		assert_int_equal(word_at(page, 1028), 15);
		assert_int_equal(page[1036 + 6] & 0xf0, 0x40);
		assert_int_equal(page[1036 + 8] & 0xc0, 0x80);
	} else {
		assert_int_equal(ret, -EINVAL);
	}
	close(fd);
	assert_int_equal(swap_area_write("/nonexistent/device", 16, ""), -ENOENT);
}

static void test_proc_swaps_line(void **state)
{
	uint64_t used = 4711;

	(void)state;
	assert_true(swap_area_match_line("/dev/loop1                              partition\t65532\t\t12\t\t-2\n",
					 "/dev/loop1", &used));
	assert_true(used == 12 * 1024);
	assert_true(swap_area_match_line("/dev/loop1\\040(deleted) partition 65532 8 -2", "/dev/loop1", &used));
	assert_true(used == 8 * 1024);
	assert_true(swap_area_match_line("/dev/loop1 partition 17179869180 17179869176 5", "/dev/loop1", &used));
	assert_true(used == 17179869176ull * 1024);
	/* As the kernel writes it when the /dev in which it was turned on is gone. */
	assert_true(swap_area_match_line("/loop1\\040(deleted)\t\tpartition\t65532\t\t16\t\t-2\n", "/dev/loop1", &used));
	assert_true(used == 16 * 1024);
	assert_true(swap_area_match_line("/loop1 partition 65532 4 -2", "/dev/loop1", &used));
	assert_true(used == 4 * 1024);
	used = 4711;
	assert_false(swap_area_match_line("/loop1 file 65532 12 -2", "/dev/loop1", &used));
	assert_false(swap_area_match_line("/loop10 partition 65532 12 -2", "/dev/loop1", &used));
	assert_false(swap_area_match_line("/dev/loop10 partition 65532 12 -2", "/dev/loop1", &used));
	assert_false(swap_area_match_line("/dev/loop1", "/dev/loop1", &used));
	assert_false(swap_area_match_line("/dev/loop1 partition", "/dev/loop1", &used));
	assert_false(swap_area_match_line("Filename Type Size Used Priority", "/dev/loop1", &used));
	assert_true(used == 4711);
}

static void test_not_in_use(void **state)
{
	uint64_t used = 4711;

	(void)state;
	assert_int_equal(swap_area_used_bytes("/dev/no such device", &used), -ENOENT);
	assert_true(used == 4711);
	assert_int_equal(swap_area_on("/dev/null", SWAP_AREA_PRIORITY_MAX + 1), -EINVAL);
	assert_int_equal(swap_area_on("/dev/null", -2), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header), cmocka_unit_test(test_limits),	      cmocka_unit_test(test_write),
		cmocka_unit_test(test_proc_swaps_line), cmocka_unit_test(test_not_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

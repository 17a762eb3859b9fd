/* deps: client_frontend */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/frontend/blockdev.h"

/* A folder that stands for a device's in sysfs. */
static char dir[32];

static void path_of(const char *attr, char path[64])
{
	snprintf(path, 64, "%s/%s", dir, attr);
}

static void put(const char *attr, const char *text)
{
	char path[64];
	FILE *file;

	path_of(attr, path);
	file = fopen(path, "we");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void expect(const char *attr, const char *text)
{
	char found[BLOCKDEV_TEXT_BYTES];

	assert_int_equal(blockdev_attr_read(dir, attr, found), 0);
	/* What is written to a file leaves behind it what was there, unlike in sysfs. */
	assert_int_equal(strncmp(found, text, strlen(text)), 0);
}

static int set_up(void **state)
{
	char path[64];

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_blockdev_XXXXXX");
	assert_non_null(mkdtemp(dir));
	path_of("queue", path);
	return mkdir(path, 0700);
}

static int tear_down(void **state)
{
	static const char *const names[] = { "queue/max_sectors_kb", "queue/scheduler", "queue/rotational",
					     "queue/read_ahead_kb", "size", "queue" };
	char path[64];

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(names); i++) {
		path_of(names[i], path);
		if (unlink(path) < 0)
			(void)rmdir(path);
	}
	return rmdir(dir);
}

static void test_read(void **state)
{
	char text[BLOCKDEV_TEXT_BYTES];
	uint64_t value = 5;

	(void)state;
	assert_int_equal(blockdev_attr_read(dir, "size", text), -ENOENT);
	put("size", "163840\n");
	assert_int_equal(blockdev_attr_read(dir, "size", text), 0);
	assert_string_equal(text, "163840");
	assert_int_equal(blockdev_attr_read_u64(dir, "size", &value), 0);
	assert_int_equal(value, 163840);
	put("size", "-1\n");
	assert_int_equal(blockdev_attr_read_u64(dir, "size", &value), -EPROTO);
	put("size", "12 13\n");
	assert_int_equal(blockdev_attr_read_u64(dir, "size", &value), -EPROTO);
	put("size", "");
	assert_int_equal(blockdev_attr_read_u64(dir, "size", &value), -EPROTO);
	assert_int_equal(value, 163840);
}

static void test_tune(void **state)
{
	(void)state;
	put("queue/max_sectors_kb", "4096");
	put("queue/scheduler", "[mq-deadline] none");
	put("queue/rotational", "1");
	put("queue/read_ahead_kb", "128");
	/* The two that are not there are no reason not to go on. A file keeps "96" behind "64". */
	assert_int_equal(blockdev_tune(dir, 64 << 10), -EOPNOTSUPP);
	put("queue/max_sectors_kb", "32");
	assert_int_equal(blockdev_tune(dir, 64 << 10), 0);
	expect("queue/max_sectors_kb", "64");
	expect("queue/scheduler", "none");
	expect("queue/rotational", "0");
	expect("queue/read_ahead_kb", "0");
}

static void test_requests_that_cannot_be_limited(void **state)
{
	(void)state;
	assert_int_equal(blockdev_tune(dir, 64 << 10), -EOPNOTSUPP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tune, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_requests_that_cannot_be_limited, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

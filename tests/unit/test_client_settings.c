/* deps: client_settings */

/* farswapd's settings: what the table cannot say is checked, and each mistake is named. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "client/settings.h"

#define NR_CPUS 4u

static struct settings good(void)
{
	struct settings settings = {
		.size_bytes = 1ull << 30,
		.servers = { .nr = 2, .item = { "10.0.0.1:7770", "host.example:7770" } },
		.disk_slab_bytes = 64ull << 20,
		.frontend = SETTINGS_FUSE,
		.mount_dir = "/run/farswap/device",
		.nbd_listen = "unix:/run/farswap/nbd.sock",
		.nbd_index_text = "auto",
		.swap_priority_text = "auto",
		.rdma_gid_index_text = "auto",
		.rdma_service_level_text = "auto",
		.name = "client",
		.admin_socket = "/run/farswap/farswapd.sock",
		.state_file = "auto",
	};

	return settings;
}

static void assert_wrong(struct settings settings, const char *setting, const char *text)
{
	char error[CONFIG_ERROR_MAX] = "";

	assert_int_equal(settings_check(&settings, NR_CPUS, error), -EINVAL);
	assert_ptr_equal(strstr(error, setting), error);
	assert_non_null(strstr(error, text));
	assert_null(strchr(error, '\n'));
}

static void test_good_settings_are_completed(void **state)
{
	struct settings settings = good();
	char error[CONFIG_ERROR_MAX];

	(void)state;
	assert_int_equal(settings_check(&settings, NR_CPUS, error), 0);
	assert_int_equal(settings.nr_queues, 4);
	assert_int_equal(settings.swap_priority, -1);
	assert_int_equal(settings.max_slabs, 2048);
	assert_int_equal(settings.cpus[0], -1);

	settings = good();
	settings.size_bytes = 16ull << 40;
	snprintf(settings.swap_priority_text, sizeof(settings.swap_priority_text), "32767");
	snprintf(settings.admin_socket, sizeof(settings.admin_socket), "unix:/x/y.sock");
	settings.nr_queues = 2;
	settings.cpu_texts.nr = 3;
	for (unsigned i = 0; i < 3; i++)
		snprintf(settings.cpu_texts.item[i], CONFIG_STRING_MAX, "%u", 3 - i);
	assert_int_equal(settings_check(&settings, NR_CPUS, error), 0);
	assert_int_equal(settings.swap_priority, 32767);
	assert_string_equal(settings.admin_socket, "/x/y.sock");
	assert_int_equal(settings.max_slabs, 1 << 18);
	assert_int_equal(settings.cpus[0], 3);
	assert_int_equal(settings.cpus[2], 1);
	assert_int_equal(settings.cpus[3], -1);
}

static void test_sizes(void **state)
{
	struct settings settings = good();

	(void)state;
	settings.size_bytes = 0;
	assert_wrong(settings, "size:", "must be given");
	settings.size_bytes = 4097;
	assert_wrong(settings, "size:", "4097");
	settings.size_bytes = (16ull << 40) + 4096;
	assert_wrong(settings, "size:", "16T");
	settings = good();
	settings.disk_bytes = 64ull << 20;
	assert_wrong(settings, "disk_size:", "without a disk");
	snprintf(settings.disk, sizeof(settings.disk), "/swap");
	settings.disk_bytes += 4096;
	assert_wrong(settings, "disk_size:", "64M");
}

static void test_servers(void **state)
{
	static const char *const bad[] = { "", "host", ":7770", "host:", "host:0", "host:65536", "host:77x",
					   "unix:/run/x.sock" };
	struct settings settings = good();

	(void)state;
	settings.servers.nr = 0;
	assert_wrong(settings, "servers:", "nowhere");
	settings = good();
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(bad); i++) {
		snprintf(settings.servers.item[1], CONFIG_STRING_MAX, "%s", bad[i]);
		assert_wrong(settings, "servers:", "host:port");
	}
	snprintf(settings.servers.item[1], CONFIG_STRING_MAX, "%s", settings.servers.item[0]);
	assert_wrong(settings, "servers:", "twice");
	memset(settings.servers.item[1], 'a', 200);
	snprintf(settings.servers.item[1] + 200, 8, ":7770");
	assert_wrong(settings, "servers:", "host:port");
}

static void test_state_file(void **state)
{
	static const char *const files[] = { "", "relative", "/", "/run/farswap/" };
	struct settings settings = good();
	char error[CONFIG_ERROR_MAX];

	(void)state;
	snprintf(settings.state_file, sizeof(settings.state_file), "none");
	assert_int_equal(settings_check(&settings, NR_CPUS, error), 0);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(files); i++) {
		snprintf(settings.state_file, sizeof(settings.state_file), "%s", files[i]);
		assert_wrong(settings, "state_file:", "neither auto nor none");
	}
	snprintf(settings.state_file, sizeof(settings.state_file), "/run/farswap/state");
	assert_wrong(settings, "state_file:", "frontend fuse");
	settings.frontend = SETTINGS_NBD;
	assert_int_equal(settings_check(&settings, NR_CPUS, error), 0);
	settings.comp_limit_bytes = 1ull << 30;
	assert_wrong(settings, "state_file:", "compress_limit");
}

static void test_the_rest(void **state)
{
	struct settings settings = good();

	(void)state;
	snprintf(settings.swap_priority_text, sizeof(settings.swap_priority_text), "32768");
	assert_wrong(settings, "swap_priority:", "32768");
	settings = good();
	snprintf(settings.nbd_index_text, sizeof(settings.nbd_index_text), "/dev/nbd0");
	assert_wrong(settings, "nbd_index:", "/dev/nbd0");
	snprintf(settings.nbd_index_text, sizeof(settings.nbd_index_text), "1048576");
	assert_wrong(settings, "nbd_index:", "1048575");
	settings = good();
	snprintf(settings.mount_dir, sizeof(settings.mount_dir), "relative");
	assert_wrong(settings, "mount_dir:", "relative");
	settings = good();
	settings.frontend = SETTINGS_NBD;
	settings.nbd_listen[0] = '\0';
	assert_wrong(settings, "nbd_listen:", "must be given");
	settings = good();
	snprintf(settings.admin_socket, sizeof(settings.admin_socket), "relative");
	assert_wrong(settings, "admin_socket:", "relative");
	memset(settings.admin_socket, '/', 150);
	settings.admin_socket[150] = '\0';
	assert_wrong(settings, "admin_socket:", "longer");
	settings = good();
	snprintf(settings.rdma_gid_index_text, sizeof(settings.rdma_gid_index_text), "65536");
	assert_wrong(settings, "rdma_gid_index:", "65536");
	settings = good();
	snprintf(settings.rdma_service_level_text, sizeof(settings.rdma_service_level_text), "8");
	assert_wrong(settings, "rdma_service_level:", "neither auto nor 0 to 7");
	settings = good();
	settings.nr_queues = 2;
	settings.cpu_texts.nr = 1;
	assert_wrong(settings, "cpus:", "1 processors for 2 queues");
	settings.nr_queues = 1;
	snprintf(settings.cpu_texts.item[0], CONFIG_STRING_MAX, "%u", NR_CPUS);
	assert_wrong(settings, "cpus:", "0 to 3");
	settings = good();
	memset(settings.name, 'n', 64);
	settings.name[64] = '\0';
	assert_wrong(settings, "name:", "longer");
}

/* The table itself, its defaults, and what the command line leads to. */
static void test_command_line(void **state)
{
	char *args[] = { (char[]){ "farswapd" }, (char[]){ "--config" }, (char[]){ "/dev/null" },
			 (char[]){ "--size" },	 (char[]){ "64M" },	 (char[]){ "--servers" },
			 (char[]){ "a:1,b:2" },	 (char[]){ "--servers" }, (char[]){ "c:3" }, NULL };
	static struct settings settings;
	int exit_status = -1;

	(void)state;
	assert_int_equal(settings_load(9, args, &settings, &exit_status), 0);
	assert_int_equal(settings.size_bytes, 64 << 20);
	assert_int_equal(settings.servers.nr, 3);
	assert_int_equal(settings.frontend, SETTINGS_AUTO_FRONTEND);
	assert_true(settings.swap);
	assert_int_equal(settings.dead_ms, 800);
	assert_string_not_equal(settings.name, "");
	assert_int_equal(settings_load(5, args, &settings, &exit_status), -EINVAL);
	assert_int_equal(exit_status, 2);
}

static unsigned longest_request_s(const char *patience, const char *dead_after)
{
	char *args[] = { (char[]){ "farswapd" }, (char[]){ "--config" },    (char[]){ "/dev/null" }, (char[]){ "--size" },
			 (char[]){ "64M" },	 (char[]){ "--servers" },   (char[]){ "a:1" },	     (char[]){ "--patience" },
			 (char *)patience,	 (char[]){ "--dead-after" }, (char *)dead_after,     NULL };
	static struct settings settings;
	int exit_status = -1;

	assert_int_equal(settings_load(patience ? 11 : 7, args, &settings, &exit_status), 0);
	return settings_longest_request_s(&settings);
}

/* What a request may have to wait for one after the other, with one failure on the way, is over by then: with a minute left. */
static void test_longest_request(void **state)
{
	static const uint64_t times_ms[] = { 0, 1, 50, 799, 800, 999, 1000, 12000, 3600000, 86400000 };
	enum { MINUTE_MS = 60000, SLOTS_MS = 1000 };

	(void)state;
	assert_int_equal(longest_request_s(NULL, NULL), 74); /* docs/operating.md says so */
	assert_int_equal(longest_request_s("0", "50ms"), 61);
	assert_int_equal(longest_request_s("24h", "24h"), 3 * 86400 + 61); /* more is not taken */
	for (size_t i = 0; i < BASE_ARRAY_SIZE(times_ms); i++)
		for (size_t j = 0; j < BASE_ARRAY_SIZE(times_ms); j++) {
			struct settings settings = { .patience_ms = times_ms[i], .dead_ms = times_ms[j] };
			uint64_t longest_ms = 1000ull * settings_longest_request_s(&settings);
			uint64_t read_ms = times_ms[j] + times_ms[i] + times_ms[j];
			uint64_t write_ms = times_ms[j] + times_ms[i] + SLOTS_MS + times_ms[j];

			assert_true(longest_ms > read_ms + MINUTE_MS);
			assert_true(longest_ms > write_ms + MINUTE_MS - SLOTS_MS);
			assert_true(longest_ms <= read_ms + MINUTE_MS + 1000);
			assert_true(longest_ms <= UINT32_MAX);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_settings_are_completed), cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_servers),			    cmocka_unit_test(test_state_file),
		cmocka_unit_test(test_the_rest),
		cmocka_unit_test(test_command_line),
		cmocka_unit_test(test_longest_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: common_transport_verbs tests_fakes_fabric tests_conform_transport common_sys */

/* Where RDMA connections begin, and what the connection manager is told before. */

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/transport/verbs/source.h"
#include "common/transport/verbs/status.h"
#include "tests/conform/client.h"
#include "tests/fakes/fabric.h"

static void sources(void **state)
{
	struct verbs_driver_options options = { .gid_index = -1, .service_level = -1 };
	struct sockaddr_in6 *in6;
	struct sys_address v4;
	struct sys_address v6;
	struct sys_address local;
	struct sys_address from;

	(void)state;
	assert_int_equal(sys_address_parse("10.0.0.1:7", false, &v4), 0);
	assert_int_equal(sys_address_parse("[fd00::1]:7", false, &v6), 0);
	assert_int_equal(sys_address_parse("[::1]:7", false, &local), 0);
	in6 = (struct sockaddr_in6 *)&local.addr;
	in6->sin6_addr.s6_addr[0] = 0xfe;
	in6->sin6_addr.s6_addr[1] = 0x80;
	/* Nothing is asked for: the routing table decides. */
	assert_int_equal(verbs_source(&options, &v4, &from), 0);
	assert_int_equal(from.len, 0);
	options.device = "fake1";
	assert_int_equal(verbs_source(&options, &v4, &from), 0);
	assert_int_equal(from.addr.ss_family, AF_INET);
	assert_int_equal(ntohl(((struct sockaddr_in *)&from.addr)->sin_addr.s_addr), 0x7f000002);
	/* An address of the link alone reaches no other network. */
	assert_int_equal(verbs_source(&options, &v6, &from), -EADDRNOTAVAIL);
	assert_int_equal(verbs_source(&options, &local, &from), 0);
	in6 = (struct sockaddr_in6 *)&from.addr;
	assert_int_equal(in6->sin6_family, AF_INET6);
	assert_int_equal(in6->sin6_scope_id, 7);
	options.gid_index = 2;
	options.port = 1;
	assert_int_equal(verbs_source(&options, &v4, &from), 0);
	assert_int_equal(verbs_source(&options, &local, &from), -EADDRNOTAVAIL);
	options.gid_index = 1;
	assert_int_equal(verbs_source(&options, &v4, &from), -EADDRNOTAVAIL);
	options.gid_index = 3;
	assert_int_equal(verbs_source(&options, &v4, &from), -EADDRNOTAVAIL);
	/* RoCE v1 is for who asks for it. */
	options.gid_index = 0;
	assert_int_equal(verbs_source(&options, &v4, &from), 0);
	assert_int_equal(ntohl(((struct sockaddr_in *)&from.addr)->sin_addr.s_addr), 0x7f000165);
	options.gid_index = -1;
	options.port = 2;
	assert_int_equal(verbs_source(&options, &v4, &from), 0);
	assert_int_equal(ntohl(((struct sockaddr_in *)&from.addr)->sin_addr.s_addr), 0x7f000102);
	options.gid_index = 2;
	options.port = 3;
	assert_int_equal(verbs_source(&options, &v4, &from), -EADDRNOTAVAIL);
	options.port = 0;
	options.device = "fake7";
	assert_int_equal(verbs_source(&options, &v4, &from), -ENODEV);
	options.device = NULL;
	assert_int_equal(verbs_source(&options, &v4, &from), 0);
	assert_int_equal(ntohl(((struct sockaddr_in *)&from.addr)->sin_addr.s_addr), 0x7f000001);
}

/* InfiniBand's GIDs stand for no address: the routing table decides, whatever GID is asked for. What there is not is missed. */
static void sources_of_infiniband(void **state)
{
	struct verbs_driver_options options = { .device = "fake1", .gid_index = -1, .service_level = -1 };
	struct sys_address to;
	struct sys_address from;

	(void)state;
	fabric_set_infiniband(true);
	assert_int_equal(sys_address_parse("10.0.0.1:7", false, &to), 0);
	for (options.gid_index = -1; options.gid_index <= 1; options.gid_index++)
		for (options.port = 0; options.port <= 2; options.port++) {
			from.len = sizeof(struct sockaddr_in);
			assert_int_equal(verbs_source(&options, &to, &from), 0);
			assert_int_equal(from.len, 0);
		}
	options.port = 3;
	assert_int_equal(verbs_source(&options, &to, &from), -EADDRNOTAVAIL);
	options.device = "fake7";
	options.port = 0;
	assert_int_equal(verbs_source(&options, &to, &from), -ENODEV);
	assert_int_equal(sys_address_parse("[fe80::1]:7", false, &to), 0);
	options.device = "fake0";
	assert_int_equal(verbs_source(&options, &to, &from), 0);
	assert_int_equal(from.len, 0);
}

static int set_up(void **state)
{
	(void)state;
	fabric_reset();
	return 0;
}

/* Nobody listens: a connection goes as far as its REQ, and all has been said by then. */
static int connect_by(const struct verbs_driver_options *driver_options, unsigned dead_ms)
{
	struct transport_connect_options options = client_options("127.0.0.1:1", 1, 1, 0, 1);
	struct transport_driver *driver;
	struct transport_conn *conn;
	int err;

	options.dead_ms = dead_ms;
	assert_int_equal(verbs_driver_create(driver_options, &driver), 0);
	err = transport_connect(driver, &options, &conn);
	verbs_driver_free(driver);
	assert_int_equal(fabric_nr_objects(), 0);
	return err;
}

static struct fabric_options asked(const struct verbs_driver_options *driver_options, unsigned dead_ms)
{
	struct fabric_options told;

	assert_int_equal(connect_by(driver_options, dead_ms), -ECONNREFUSED);
	fabric_last_req_options(&told);
	return told;
}

/* The upper three bits of the type of service. */
static void service_levels(void **state)
{
	struct verbs_driver_options options = { .gid_index = -1, .service_level = -1 };

	(void)state;
	assert_int_equal(asked(&options, 800).tos, -1);
	for (options.service_level = 0; options.service_level <= 7; options.service_level++)
		assert_int_equal(asked(&options, 800).tos, options.service_level * 32);
}

/* 4.096 us * 2^n each time, and so often: see rdma_set_option(3). */
static void how_long_a_device_tries(void **state)
{
	static const struct {
		unsigned dead_ms;
		int exponent;
	} rows[] = { { 50, 10 }, { 800, 14 }, { 12000, 18 }, { 86400000, 21 } };
	struct verbs_driver_options options = { .gid_index = -1, .service_level = -1 };

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(rows); i++) {
		struct fabric_options told = asked(&options, rows[i].dead_ms);

		assert_int_equal(told.ack_timeout, rows[i].exponent);
		assert_int_equal(told.retry_count, VERBS_RETRY_COUNT);
		assert_true((4096ull << told.ack_timeout) * (VERBS_RETRY_COUNT + 1) <= rows[i].dead_ms * 1000000ull);
	}
}

static uint32_t address_of(const struct sockaddr_storage *address)
{
	assert_int_equal(address->ss_family, AF_INET);
	return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
}

/* The source is bound to what was asked for, and only then; its port is the kernel's choice. */
static void where_it_begins(void **state)
{
	struct verbs_driver_options options = { .gid_index = -1, .service_level = -1 };
	struct fabric_options told;

	(void)state;
	told = asked(&options, 800);
	assert_int_equal(told.from.ss_family, AF_UNSPEC);
	assert_int_equal(told.reuse_address, 1);
	options.device = "fake0";
	told = asked(&options, 800);
	assert_int_equal(address_of(&told.from), 0x7f000001);
	assert_int_equal(((struct sockaddr_in *)&told.from)->sin_port, 0);
	options = (struct verbs_driver_options){ .port = 1, .gid_index = 2, .service_level = -1 };
	told = asked(&options, 800);
	assert_int_equal(address_of(&told.from), 0x7f000001);
	/* There is such an address, but the way to the lender is by port 1. */
	options.port = 2;
	assert_int_equal(connect_by(&options, 800), -EADDRNOTAVAIL);
	/* No address of the lender's family. */
	options = (struct verbs_driver_options){ .gid_index = 1, .service_level = -1 };
	assert_int_equal(connect_by(&options, 800), -EADDRNOTAVAIL);
}

static void where_it_begins_on_infiniband(void **state)
{
	struct verbs_driver_options options = { .device = "fake0", .port = 1, .gid_index = 0, .service_level = 5 };
	struct fabric_options told;

	(void)state;
	fabric_set_infiniband(true);
	told = asked(&options, 800);
	assert_int_equal(told.from.ss_family, AF_UNSPEC);
	assert_int_equal(told.tos, 5 << 5);
	/* The routing table has decided otherwise. */
	options.port = 2;
	assert_int_equal(connect_by(&options, 800), -EADDRNOTAVAIL);
	options = (struct verbs_driver_options){ .device = "fake1", .gid_index = -1, .service_level = -1 };
	assert_int_equal(connect_by(&options, 800), -EADDRNOTAVAIL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(sources, set_up),
		cmocka_unit_test_setup(sources_of_infiniband, set_up),
		cmocka_unit_test_setup(service_levels, set_up),
		cmocka_unit_test_setup(how_long_a_device_tries, set_up),
		cmocka_unit_test_setup(where_it_begins, set_up),
		cmocka_unit_test_setup(where_it_begins_on_infiniband, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

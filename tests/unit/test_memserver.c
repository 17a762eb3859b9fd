/* deps: client_ctl */

/* The data address that a server's answer leads to. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/memserver.h"

static void assert_address(const char *advertised, const char *control, const char *expected)
{
	char address[SYS_ADDRESS_MAX];

	assert_int_equal(memserver_data_address(advertised, control, address), 0);
	assert_string_equal(address, expected);
}

static void test_addresses(void **state)
{
	char address[SYS_ADDRESS_MAX], longest[SYS_ADDRESS_MAX + 1];

	(void)state;
	assert_address("10.0.0.7:7771", "host:7770", "10.0.0.7:7771");
	assert_address("0.0.0.0:7771", "host.example:7770", "host.example:7771");
	assert_address(":7771", "host.example:7770", "host.example:7771");
	assert_address(":7771", "[fe80::1]:7770", "[fe80::1]:7771");
	assert_address("[::]:7771", "[fe80::1]:7770", "[fe80::1]:7771");
	assert_address("0.0.0.0:7771", "unix:/run/x.sock", "0.0.0.0:7771");
	assert_address("unix:/run/y.sock", "host:7770", "unix:/run/y.sock");
	assert_address("10.0.0.0:7771", "host:7770", "10.0.0.0:7771");
	memset(longest, 'a', SYS_ADDRESS_MAX);
	longest[SYS_ADDRESS_MAX] = '\0';
	assert_int_equal(memserver_data_address(longest, "host:7770", address), -ENAMETOOLONG);
	longest[SYS_ADDRESS_MAX - 1] = '\0';
	assert_address(longest, "host:7770", longest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: server_lease */

/* Which names of clients may go into a log. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/base.h"
#include "server/lease/name.h"

static void test_good_names(void **state)
{
	static const char *const names[] = {
		"a", "node-7.example", "two words", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\xa7", "~",
		"\xc2\xa0", "\xf4\x8f\xbf\xbd", /* U+10FFFD */
	};

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(names); i++)
		assert_int_equal(lease_name_check(names[i]), 0);
}

static void test_bad_names(void **state)
{
	static const char *const names[] = {
		"",
		"a\nb",
		"\x1b[31m",
		"\x7f",
		"\xc2\x85",	    /* U+0085, a control character */
		"\xe2\x80\xa8",	    /* U+2028, a line separator */
		"\xe2\x80\xae",	    /* U+202E, right to left */
		"\xe2\x81\xa6",	    /* U+2066, an isolate */
		"\x80",		    /* a continuation byte alone */
		"\xc3",		    /* cut short by the end */
		"\xe2\x82",
		"\xf0\x9f\x90",
		"\xc3(",	    /* or by something else */
		"\xc0\xaf",	    /* longer than need be */
		"\xe0\x80\xaf",
		"\xf0\x80\x80\xaf",
		"\xed\xa0\x80",	    /* a surrogate */
		"\xf4\x90\x80\x80", /* above U+10FFFF */
		"\xef\xbf\xbf",	    /* U+FFFF */
		"\xff",
	};

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(names); i++)
		assert_int_equal(lease_name_check(names[i]), -EINVAL);
}

static void test_length(void **state)
{
	char name[LEASE_NAME_MAX + 1];

	(void)state;
	memset(name, 'x', sizeof(name));
	name[LEASE_NAME_MAX] = '\0';
	assert_int_equal(lease_name_check(name), -ENAMETOOLONG);
	name[LEASE_NAME_MAX - 1] = '\0';
	assert_int_equal(lease_name_check(name), 0);
	assert_int_equal(lease_text_check(name, LEASE_NAME_MAX - 1), -ENAMETOOLONG);
	assert_int_equal(lease_text_check("", 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_names),
		cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

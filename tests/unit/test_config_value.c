/* deps: common_config */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/config/value.h"

struct sample {
	const char *text;
	int ret;
	uint64_t value;
};

static void check(const struct sample *samples, size_t nr, int (*parse)(const char *text, uint64_t *ret_value))
{
	for (size_t i = 0; i < nr; i++) {
		uint64_t value = 0xabad1dea;
		int ret = parse(samples[i].text, &value);

		if (ret != samples[i].ret || value != (ret == 0 ? samples[i].value : 0xabad1dea))
			fail_msg("'%s': %d, %llu", samples[i].text, ret, (unsigned long long)value);
	}
}

static void test_u64(void **state)
{
	static const struct sample samples[] = {
		{ "0", 0, 0 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "99999999999999999999999x", -EINVAL, 0 },
	};

	(void)state;
	check(samples, BASE_ARRAY_SIZE(samples), config_parse_u64);
}

static void test_size(void **state)
{
	static const struct sample samples[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "1K", 0, 1 << 10 },
		{ "64M", 0, 64 << 20 },
		{ "64m", 0, 64 << 20 },
		{ "64MiB", 0, 64 << 20 },
		{ "3G", 0, (uint64_t)3 << 30 },
		{ "16T", 0, (uint64_t)16 << 40 },
		{ "16383P", 0, (uint64_t)16383 << 50 },
		{ "16384P", -ERANGE, 0 },
		{ "99999999999999999999K", -ERANGE, 0 },
		{ "64MB", -EINVAL, 0 },
		{ "64 M", -EINVAL, 0 },
		{ "M", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "-1G", -EINVAL, 0 },
		{ "1E", -EINVAL, 0 },
	};

	(void)state;
	check(samples, BASE_ARRAY_SIZE(samples), config_parse_size);
}

static void test_duration(void **state)
{
	static const struct sample samples[] = {
		{ "0", 0, 0 },	       { "500ms", 0, 500 },    { "10s", 0, 10000 },
		{ "5min", 0, 300000 }, { "2h", 0, 7200000 },   { "18446744073709551615s", -ERANGE, 0 },
		{ "5", -EINVAL, 0 },   { "5m", -EINVAL, 0 },   { "ms", -EINVAL, 0 },
		{ "", -EINVAL, 0 },    { "1h30min", -EINVAL, 0 },
	};

	(void)state;
	check(samples, BASE_ARRAY_SIZE(samples), config_parse_duration);
}

static void test_bool(void **state)
{
	bool value = true;

	(void)state;
	assert_int_equal(config_parse_bool("off", &value), 0);
	assert_false(value);
	assert_int_equal(config_parse_bool("1", &value), 0);
	assert_true(value);
	assert_int_equal(config_parse_bool("YES", &value), -EINVAL);
	assert_int_equal(config_parse_bool("", &value), -EINVAL);
	assert_true(value);
}

/* Whatever is written is read back as the same. */
static void test_format(void **state)
{
	struct rand_state r = { 3 };
	char text[CONFIG_VALUE_MAX];
	uint64_t value;

	(void)state;
	config_format_size(64 << 20, text);
	assert_string_equal(text, "64M");
	config_format_size(1536 << 10, text);
	assert_string_equal(text, "1536K");
	config_format_size(1000, text);
	assert_string_equal(text, "1000");
	config_format_size(0, text);
	assert_string_equal(text, "0");
	config_format_duration(90000, text);
	assert_string_equal(text, "90s");
	config_format_duration(1500, text);
	assert_string_equal(text, "1500ms");
	for (int i = 0; i < 1000; i++) {
		uint64_t random = rand_next(&r) >> rand_below(&r, 64) << rand_below(&r, 64);

		config_format_size(random, text);
		assert_int_equal(config_parse_size(text, &value), 0);
		assert_true(value == random);
		config_format_duration(random, text);
		assert_int_equal(config_parse_duration(text, &value), 0);
		assert_true(value == random);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_u64),  cmocka_unit_test(test_size),   cmocka_unit_test(test_duration),
		cmocka_unit_test(test_bool), cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

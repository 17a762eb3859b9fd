/* deps: common_wire */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/base.h"
#include "common/base/rand.h"
#include "common/wire/crc32c.h"

/* RFC 3720, appendix B.4; the values there are bytes in the order of the wire, least significant first. */
static void test_rfc3720(void **state)
{
	static const uint8_t read_command[48] = {
		0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
		0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	};
	uint8_t bytes[32];

	(void)state;
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(wire_crc32c(bytes, sizeof(bytes)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(wire_crc32c(bytes, sizeof(bytes)), 0x62a8ab43);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(wire_crc32c(bytes, sizeof(bytes)), 0x46dd794e);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(31 - i);
	assert_int_equal(wire_crc32c(bytes, sizeof(bytes)), 0x113fdb5c);
	assert_int_equal(wire_crc32c(read_command, sizeof(read_command)), 0xd9963a56);
	assert_int_equal(wire_crc32c("123456789", 9), 0xe3069283);
	assert_int_equal(wire_crc32c(bytes, 0), 0);
}

/* Bit by bit, from the polynomial. */
static uint32_t reference(const uint8_t *bytes, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= bytes[i];
		for (int k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	}
	return ~crc;
}

static void test_reference(void **state)
{
	static uint8_t bytes[FSW_PAGE_SIZE + 64];
	struct rand_state r = { 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)rand_next(&r);
	assert_int_equal(wire_crc32c(bytes, FSW_PAGE_SIZE), reference(bytes, FSW_PAGE_SIZE));
	/* Every alignment, and lengths that the wide instructions do not divide. */
	for (int i = 0; i < 2000; i++) {
		size_t at = rand_below(&r, 64);
		size_t len = rand_below(&r, 700);
		size_t cut = rand_below(&r, len + 1);
		uint32_t crc = wire_crc32c(bytes + at, len);

		assert_int_equal(crc, reference(bytes + at, len));
		assert_int_equal(wire_crc32c_extend(wire_crc32c(bytes + at, cut), bytes + at + cut, len - cut), crc);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc3720),
		cmocka_unit_test(test_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

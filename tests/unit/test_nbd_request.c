/* deps: client_frontend_nbd tests_fake_vswap */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/frontend/nbd/request.h"

#define EXPORT_BYTES (64ull << 20)
#define KIB 1024u
#define MIB (1024u * KIB)

static void test_unpack(void **state)
{
	unsigned char buf[NBD_REQUEST_BYTES];
	struct nbd_request request;
	unsigned char *p;

	(void)state;
	p = nbd_put32(buf, NBD_REQUEST_MAGIC);
	p = nbd_put16(p, NBD_CMD_FLAG_FUA);
	p = nbd_put16(p, NBD_CMD_WRITE);
	p = nbd_put_bytes(p, "12345678", 8);
	p = nbd_put64(p, 0x1122334455667788);
	p = nbd_put32(p, 0x99aabbcc);
	assert_int_equal(p - buf, NBD_REQUEST_BYTES);
	assert_int_equal(nbd_request_unpack(buf, &request), 0);
	assert_int_equal(request.flags, NBD_CMD_FLAG_FUA);
	assert_int_equal(request.type, NBD_CMD_WRITE);
	assert_memory_equal(&request.handle, "12345678", 8);
	assert_true(request.offset_bytes == 0x1122334455667788);
	assert_true(request.len_bytes == 0x99aabbcc);
	for (unsigned i = 0; i < 4; i++) {
		buf[i] ^= 0x80;
		assert_int_equal(nbd_request_unpack(buf, &request), -EPROTO);
		buf[i] ^= 0x80;
	}
}

static void test_check(void **state)
{
	static const struct {
		uint16_t type, flags;
		uint64_t offset;
		uint32_t len;
		bool structured;
		enum nbd_error expected;
	} cases[] = {
		{ NBD_CMD_READ, 0, 0, 4096, false, NBD_SUCCESS },
		{ NBD_CMD_READ, NBD_CMD_FLAG_FUA, EXPORT_BYTES - 4096, 4096, false, NBD_SUCCESS },
		{ NBD_CMD_READ, 0, 0, 2 * MIB, false, NBD_SUCCESS },
		{ NBD_CMD_READ, 0, 0, 2 * MIB + 4096, false, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 0, 0, false, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 512, 4096, false, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 0, 512, false, NBD_EINVAL },
		{ NBD_CMD_READ, 0, EXPORT_BYTES, 4096, false, NBD_EINVAL },
		{ NBD_CMD_READ, 0, EXPORT_BYTES - 4096, 8192, false, NBD_EINVAL },
		{ NBD_CMD_READ, 0, UINT64_MAX - 4095, 4096, false, NBD_EINVAL },
		{ NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 4096, false, NBD_EINVAL },
		{ NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 4096, true, NBD_SUCCESS },
		{ NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 4096, true, NBD_EINVAL },
		{ NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 2 * MIB, false, NBD_SUCCESS },
		{ NBD_CMD_WRITE, 0, 0, 2 * MIB + 4096, false, NBD_EINVAL },
		{ NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 4096, true, NBD_EINVAL },
		{ NBD_CMD_WRITE, 0, EXPORT_BYTES, 4096, false, NBD_ENOSPC },
		{ NBD_CMD_WRITE, 0, UINT64_MAX - 4095, 8192, false, NBD_ENOSPC },
		{ NBD_CMD_TRIM, 0, 0, 64 * MIB, false, NBD_SUCCESS },
		{ NBD_CMD_TRIM, 0, 4096, 64 * MIB, false, NBD_EINVAL },
		{ NBD_CMD_TRIM, 0, 0, 0, false, NBD_EINVAL },
		{ NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0, 64 * MIB, false, NBD_SUCCESS },
		{ NBD_CMD_WRITE_ZEROES, 0, 4096, 64 * MIB, false, NBD_ENOSPC },
		{ NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_DF, 0, 4096, true, NBD_EINVAL },
		{ NBD_CMD_WRITE_ZEROES, 0, 1, 4096, false, NBD_EINVAL },
		{ NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0, 0, false, NBD_SUCCESS },
		{ NBD_CMD_FLUSH, 0, 0, 4096, false, NBD_EINVAL },
		{ NBD_CMD_FLUSH, 0, 4096, 0, false, NBD_EINVAL },
		{ 5 /* CACHE */, 0, 0, 4096, false, NBD_EINVAL },
		{ 7 /* BLOCK_STATUS */, 0, 0, 4096, true, NBD_EINVAL },
		{ 0xffff, 0, 0, 4096, false, NBD_EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		struct nbd_request request = { .type = cases[i].type, .flags = cases[i].flags,
					       .offset_bytes = cases[i].offset, .len_bytes = cases[i].len };
		const char *text = NULL;
		enum nbd_error error = nbd_request_check(&request, EXPORT_BYTES, cases[i].structured, &text);

		if (error != cases[i].expected)
			fail_msg("case %zu: %d instead of %d", i, error, cases[i].expected);
		assert_true((error == NBD_SUCCESS) == (text == NULL));
	}
}

static void test_status(void **state)
{
	const char *text = NULL;

	(void)state;
	assert_int_equal(nbd_error_of_status(0, &text), NBD_SUCCESS);
	assert_null(text);
	assert_int_equal(nbd_error_of_status(-EIO, &text), NBD_EIO);
	assert_non_null(text);
	assert_int_equal(nbd_error_of_status(-ENOSPC, &text), NBD_ENOSPC);
	assert_int_equal(nbd_error_of_status(-ERANGE, &text), NBD_EINVAL);
	assert_int_equal(nbd_error_of_status(-ENODATA, &text), NBD_EIO);
}

static struct nbd_request make_request(uint16_t type)
{
	struct nbd_request request = { .type = type, .offset_bytes = 0x5000, .len_bytes = 8192 };

	memcpy(&request.handle, "handle!!", 8);
	return request;
}

static void test_simple_replies(void **state)
{
	struct nbd_request request = make_request(NBD_CMD_READ);
	unsigned char head[NBD_REPLY_HEAD_BYTES];

	(void)state;
	assert_int_equal(nbd_reply_pack(head, &request, false, NBD_SUCCESS, NULL), NBD_SIMPLE_REPLY_BYTES);
	assert_int_equal(nbd_get32(head), NBD_SIMPLE_REPLY_MAGIC);
	assert_int_equal(nbd_get32(head + 4), 0);
	assert_memory_equal(head + 8, "handle!!", 8);
	assert_int_equal(nbd_reply_pack(head, &request, false, NBD_EIO, "text"), NBD_SIMPLE_REPLY_BYTES);
	assert_int_equal(nbd_get32(head + 4), NBD_EIO);
	/* Also with structured replies, when there is nothing to say. */
	request = make_request(NBD_CMD_WRITE);
	assert_int_equal(nbd_reply_pack(head, &request, true, NBD_SUCCESS, NULL), NBD_SIMPLE_REPLY_BYTES);
	assert_int_equal(nbd_get32(head), NBD_SIMPLE_REPLY_MAGIC);
}

static void test_structured_replies(void **state)
{
	struct nbd_request request = make_request(NBD_CMD_READ);
	unsigned char head[NBD_REPLY_HEAD_BYTES];
	char text[200];
	size_t len;

	(void)state;
	assert_int_equal(nbd_reply_pack(head, &request, true, NBD_SUCCESS, NULL), 28);
	assert_int_equal(nbd_get32(head), NBD_STRUCTURED_REPLY_MAGIC);
	assert_int_equal(nbd_get16(head + 4), NBD_REPLY_FLAG_DONE);
	assert_int_equal(nbd_get16(head + 6), NBD_REPLY_TYPE_OFFSET_DATA);
	assert_memory_equal(head + 8, "handle!!", 8);
	assert_int_equal(nbd_get32(head + 16), 8 + 8192);
	assert_true(nbd_get64(head + 20) == 0x5000);

	len = nbd_reply_pack(head, &request, true, NBD_EIO, "lost");
	assert_int_equal(len, 20 + 4 + 2 + 4 + 8);
	assert_int_equal(nbd_get16(head + 6), NBD_REPLY_TYPE_ERROR_OFFSET);
	assert_int_equal(nbd_get32(head + 16), len - 20);
	assert_int_equal(nbd_get32(head + 20), NBD_EIO);
	assert_int_equal(nbd_get16(head + 24), 4);
	assert_memory_equal(head + 26, "lost", 4);
	assert_true(nbd_get64(head + 30) == 0x5000);

	/* A request that is wrong names no place within the export; and no text is too long. */
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	len = nbd_reply_pack(head, &request, true, NBD_EINVAL, text);
	assert_int_equal(nbd_get16(head + 6), NBD_REPLY_TYPE_ERROR);
	assert_int_equal(nbd_get32(head + 16), len - 20);
	assert_int_equal(nbd_get16(head + 24), len - 26);
	assert_true(len <= NBD_REPLY_HEAD_BYTES);

	request = make_request(NBD_CMD_TRIM);
	nbd_reply_pack(head, &request, true, NBD_EIO, "lost");
	assert_int_equal(nbd_get16(head + 6), NBD_REPLY_TYPE_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unpack),	       cmocka_unit_test(test_check),
		cmocka_unit_test(test_status),	       cmocka_unit_test(test_simple_replies),
		cmocka_unit_test(test_structured_replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

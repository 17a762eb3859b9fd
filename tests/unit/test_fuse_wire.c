/* deps: client_frontend_fuse tests_fake_vswap */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/frontend/fuse/internal.h"
#include "client/frontend/fuse/wire.h"

#define NR_PAGES 1000ull
#define PAGE 4096ull

struct message {
	struct fuse_in_header header;
	union {
		struct fuse_read_in read;
		struct fuse_write_in write;
		struct fuse_fallocate_in fallocate;
		char bytes[64];
	} body;
};

static struct message make(uint32_t opcode, size_t body_bytes)
{
	struct message m;

	memset(&m, 0, sizeof(m));
	m.header.len = (uint32_t)(sizeof(m.header) + body_bytes);
	m.header.opcode = opcode;
	m.header.unique = 0x123456789abcdef0;
	m.header.nodeid = FUSE_WIRE_FILE_NODE;
	return m;
}

static struct fuse_wire_request decode(const struct message *m)
{
	struct fuse_wire_request request;

	assert_int_equal(fuse_wire_decode(m, m->header.len, NR_PAGES, &request), 0);
	assert_true(request.unique == m->header.unique || request.kind == FUSE_WIRE_IGNORE);
	return request;
}

static struct fuse_wire_request decode_read(uint64_t offset, uint32_t size)
{
	struct message m = make(FUSE_READ, sizeof(struct fuse_read_in));

	m.body.read.offset = offset;
	m.body.read.size = size;
	return decode(&m);
}

static struct fuse_wire_request decode_write(uint64_t offset, uint32_t size, uint32_t payload)
{
	struct message m = make(FUSE_WRITE, sizeof(struct fuse_write_in) + payload);

	m.body.write.offset = offset;
	m.body.write.size = size;
	return decode(&m);
}

static struct fuse_wire_request decode_fallocate(uint64_t offset, uint64_t length, uint32_t mode)
{
	struct message m = make(FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in));

	m.body.fallocate.offset = offset;
	m.body.fallocate.length = length;
	m.body.fallocate.mode = mode;
	return decode(&m);
}

static void expect(struct fuse_wire_request r, enum fuse_wire_kind kind, uint64_t page, uint64_t nr_pages)
{
	assert_int_equal(r.kind, kind);
	assert_true(r.page == page);
	assert_true(r.nr_pages == nr_pages);
}

static void expect_error(struct fuse_wire_request r, int error)
{
	assert_int_equal(r.kind, FUSE_WIRE_REPLY);
	assert_int_equal(r.error, error);
}

static void test_read(void **state)
{
	(void)state;
	expect(decode_read(0, 4096), FUSE_WIRE_READ, 0, 1);
	expect(decode_read(8 * PAGE, 1 << 20), FUSE_WIRE_READ, 8, 256);
	/* Cut at the end, and nothing behind it. */
	expect(decode_read(999 * PAGE, 8192), FUSE_WIRE_READ, 999, 1);
	expect(decode_read(1000 * PAGE, 8192), FUSE_WIRE_READ, 1000, 0);
	expect(decode_read(UINT64_MAX - 4095, 8192), FUSE_WIRE_READ, (UINT64_MAX - 4095) / PAGE, 0);
	expect_error(decode_read(0, 0), -EINVAL);
	expect_error(decode_read(0, (1 << 20) + 4096), -EINVAL);
	expect_error(decode_read(512, 4096), -EINVAL);
	expect_error(decode_read(0, 512), -EINVAL);
}

static void test_write(void **state)
{
	(void)state;
	expect(decode_write(0, 4096, 4096), FUSE_WIRE_WRITE, 0, 1);
	expect(decode_write(744 * PAGE, 1 << 20, 1 << 20), FUSE_WIRE_WRITE, 744, 256);
	expect_error(decode_write(745 * PAGE, 1 << 20, 1 << 20), -EFBIG);
	expect_error(decode_write(UINT64_MAX - 4095, 4096, 4096), -EFBIG);
	expect_error(decode_write(0, 8192, 4096), -EIO);
	expect_error(decode_write(0, 4096, 8192), -EIO);
	expect_error(decode_write(0, 0, 0), -EINVAL);
	expect_error(decode_write(1, 4096, 4096), -EINVAL);
	expect_error(decode_write(0, 100, 100), -EINVAL);
	expect_error(decode_write(0, 2 << 20, 2 << 20), -EINVAL);
}

static void test_fallocate(void **state)
{
	const uint32_t punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	(void)state;
	expect(decode_fallocate(4096, 999 * PAGE, punch), FUSE_WIRE_DISCARD, 1, 999);
	expect(decode_fallocate(0, 4096, FALLOC_FL_ZERO_RANGE), FUSE_WIRE_WRITE_ZEROES, 0, 1);
	expect(decode_fallocate(0, 4096, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE), FUSE_WIRE_WRITE_ZEROES, 0, 1);
	expect_error(decode_fallocate(0, 4096, 0), -EOPNOTSUPP);
	expect_error(decode_fallocate(0, 4096, FALLOC_FL_COLLAPSE_RANGE), -EOPNOTSUPP);
	expect_error(decode_fallocate(0, 0, punch), -EINVAL);
	expect_error(decode_fallocate(0, 100, punch), -EINVAL);
	expect_error(decode_fallocate(4096, 1000 * PAGE, punch), -EINVAL);
	expect_error(decode_fallocate(4096, UINT64_MAX - 4095, punch), -EINVAL);
}

static void test_others(void **state)
{
	static const struct {
		uint32_t opcode;
		enum fuse_wire_kind kind;
	} cases[] = {
		{ FUSE_FSYNC, FUSE_WIRE_SYNC },	     { FUSE_OPEN, FUSE_WIRE_OPEN },
		{ FUSE_FLUSH, FUSE_WIRE_REPLY },     { FUSE_FORGET, FUSE_WIRE_IGNORE },
		{ FUSE_BATCH_FORGET, FUSE_WIRE_IGNORE }, { FUSE_INTERRUPT, FUSE_WIRE_IGNORE },
		{ FUSE_INIT, FUSE_WIRE_LIBRARY },    { FUSE_GETATTR, FUSE_WIRE_LIBRARY },
		{ FUSE_RELEASE, FUSE_WIRE_LIBRARY }, { 4711, FUSE_WIRE_LIBRARY },
	};
	struct message m;

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		m = make(cases[i].opcode, 0);
		assert_int_equal(decode(&m).kind, cases[i].kind);
		assert_int_equal(decode(&m).error, 0);
	}
	/* The directory's are not ours. */
	m = make(FUSE_READ, sizeof(struct fuse_read_in));
	m.header.nodeid = FUSE_ROOT_ID;
	assert_int_equal(decode(&m).kind, FUSE_WIRE_LIBRARY);
}

static void test_short_and_wrong_lengths(void **state)
{
	struct fuse_wire_request request;
	struct message m = make(FUSE_WRITE, 10);

	(void)state;
	expect_error(decode(&m), -EIO);
	m = make(FUSE_READ, sizeof(struct fuse_read_in) - 1);
	expect_error(decode(&m), -EIO);
	m = make(FUSE_FALLOCATE, 0);
	expect_error(decode(&m), -EIO);
	m = make(FUSE_FSYNC, 0);
	for (size_t len = 0; len < sizeof(m.header); len++)
		assert_int_equal(fuse_wire_decode(&m, len, NR_PAGES, &request), -EPROTO);
	assert_int_equal(fuse_wire_decode(&m, m.header.len + 1u, NR_PAGES, &request), -EPROTO);
}

static void test_mountinfo(void **state)
{
	const char *line = "36 35 98:0 / /run/far\\040swap rw,noatime master:1 - fuse.farswap farswap rw,errors=x\n";
	char type[16];

	(void)state;
	assert_true(fuse_mountpoint_match_line(line, "/run/far swap", type, sizeof(type)));
	assert_string_equal(type, "fuse.farswap");
	assert_false(fuse_mountpoint_match_line(line, "/run/far", type, sizeof(type)));
	assert_false(fuse_mountpoint_match_line(line, "/run/far swap/x", type, sizeof(type)));
	assert_false(fuse_mountpoint_match_line(line, "/run/far swap", type, 12));
	assert_false(fuse_mountpoint_match_line("36 35 98:0 / ", "/", type, sizeof(type)));
	assert_false(fuse_mountpoint_match_line("", "/", type, sizeof(type)));
	assert_true(fuse_mountpoint_match_line("1 2 0:1 / / rw - tmpfs none rw", "/", type, sizeof(type)));
	assert_string_equal(type, "tmpfs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),	  cmocka_unit_test(test_write),
		cmocka_unit_test(test_fallocate), cmocka_unit_test(test_others),
		cmocka_unit_test(test_short_and_wrong_lengths), cmocka_unit_test(test_mountinfo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: client_frontend_nbd tests_fake_vswap */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/frontend/nbd/handshake.h"

#define EXPORT_BYTES (1ull << 30)

struct machine {
	struct nbd_handshake handshake;
	unsigned char out[4096];
	size_t nr_out;
};

static void drain(struct machine *m)
{
	assert_true(m->nr_out + m->handshake.nr_out <= sizeof(m->out));
	memcpy(m->out + m->nr_out, m->handshake.out, m->handshake.nr_out);
	m->nr_out += m->handshake.nr_out;
	m->handshake.nr_out = 0;
}

/* Feeds as a connection does: what is not taken stays and grows. Returns what was taken. */
static size_t feed(struct machine *m, const unsigned char *bytes, size_t len, size_t step)
{
	size_t head = 0, tail = 0, taken;

	while (tail < len) {
		tail = tail + step < len ? tail + step : len;
		do {
			drain(m);
			taken = nbd_handshake_feed(&m->handshake, bytes + head, tail - head);
			head += taken;
		} while (taken > 0);
		drain(m);
	}
	return head;
}

static void start(struct machine *m)
{
	memset(m, 0, sizeof(*m));
	nbd_handshake_init(&m->handshake, EXPORT_BYTES);
	drain(m);
	assert_int_equal(m->nr_out, 18);
	assert_true(nbd_get64(m->out) == NBD_MAGIC);
	assert_true(nbd_get64(m->out + 8) == NBD_OPTION_MAGIC);
	assert_int_equal(nbd_get16(m->out + 16), NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	m->nr_out = 0;
}

static void start_options(struct machine *m, uint32_t flags)
{
	unsigned char buf[4];

	start(m);
	nbd_put32(buf, flags);
	assert_int_equal(feed(m, buf, 4, 4), 4);
	assert_int_equal(m->handshake.state, NBD_HANDSHAKE_OPTIONS);
	assert_int_equal(m->nr_out, 0);
}

static size_t pack_option(unsigned char *buf, uint32_t option, const void *data, uint32_t len)
{
	unsigned char *p = nbd_put64(buf, NBD_OPTION_MAGIC);

	p = nbd_put32(p, option);
	p = nbd_put32(p, len);
	if (len > 0)
		p = nbd_put_bytes(p, data, len);
	return (size_t)(p - buf);
}

/* Data of INFO and GO. */
static uint32_t pack_info(unsigned char *buf, const char *name, unsigned nr_infos, uint16_t info)
{
	unsigned char *p = nbd_put32(buf, (uint32_t)strlen(name));

	p = nbd_put_bytes(p, name, strlen(name));
	p = nbd_put16(p, (uint16_t)nr_infos);
	for (unsigned i = 0; i < nr_infos; i++)
		p = nbd_put16(p, info);
	return (uint32_t)(p - buf);
}

static void send_option(struct machine *m, uint32_t option, const void *data, uint32_t len)
{
	unsigned char buf[8192];
	size_t whole = pack_option(buf, option, data, len);

	m->nr_out = 0;
	assert_int_equal(feed(m, buf, whole, whole), whole);
}

/* The reply at *p: its type; *ret_data and *ret_len its data. *p moves on. */
static uint32_t next_reply(const struct machine *m, size_t *at, uint32_t option, const unsigned char **ret_data,
			   uint32_t *ret_len)
{
	const unsigned char *p = m->out + *at;

	assert_true(*at + NBD_OPTION_REPLY_HEADER_BYTES <= m->nr_out);
	assert_true(nbd_get64(p) == NBD_OPTION_REPLY_MAGIC);
	assert_int_equal(nbd_get32(p + 8), option);
	*ret_len = nbd_get32(p + 16);
	*ret_data = p + 20;
	*at += NBD_OPTION_REPLY_HEADER_BYTES + *ret_len;
	assert_true(*at <= m->nr_out);
	return nbd_get32(p + 12);
}

static void expect_only(const struct machine *m, uint32_t option, uint32_t type)
{
	const unsigned char *data;
	uint32_t len;
	size_t at = 0;

	assert_int_equal(next_reply(m, &at, option, &data, &len), type);
	assert_int_equal(at, m->nr_out);
}

static void test_go_gives_export_and_block_sizes(void **state)
{
	unsigned char data[64];
	const unsigned char *info;
	struct machine m;
	uint32_t len;
	size_t at = 0;

	(void)state;
	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	send_option(&m, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	expect_only(&m, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	send_option(&m, NBD_OPT_GO, data, pack_info(data, "farswap", 1, NBD_INFO_NAME));
	assert_int_equal(next_reply(&m, &at, NBD_OPT_GO, &info, &len), NBD_REP_INFO);
	assert_int_equal(len, 12);
	assert_int_equal(nbd_get16(info), NBD_INFO_EXPORT);
	assert_true(nbd_get64(info + 2) == EXPORT_BYTES);
	assert_int_equal(nbd_get16(info + 10), 0x9ed);
	assert_int_equal(next_reply(&m, &at, NBD_OPT_GO, &info, &len), NBD_REP_INFO);
	assert_int_equal(nbd_get16(info), NBD_INFO_NAME);
	assert_memory_equal(info + 2, "farswap", 7);
	assert_int_equal(next_reply(&m, &at, NBD_OPT_GO, &info, &len), NBD_REP_INFO);
	assert_int_equal(nbd_get16(info), NBD_INFO_BLOCK_SIZE);
	assert_int_equal(nbd_get32(info + 2), 4096);
	assert_int_equal(nbd_get32(info + 6), 4096);
	assert_int_equal(nbd_get32(info + 10), 2 << 20);
	assert_int_equal(next_reply(&m, &at, NBD_OPT_GO, &info, &len), NBD_REP_ACK);
	assert_int_equal(at, m.nr_out);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_TRANSMISSION);
	assert_true(m.handshake.structured_replies);
}

static void test_info_does_not_end_the_handshake(void **state)
{
	unsigned char data[64];
	const unsigned char *info;
	struct machine m;
	uint32_t len;
	size_t at = 0;

	(void)state;
	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	send_option(&m, NBD_OPT_INFO, data, pack_info(data, "", 0, 0));
	assert_int_equal(next_reply(&m, &at, NBD_OPT_INFO, &info, &len), NBD_REP_INFO);
	/* SEND_DF belongs to structured replies. */
	assert_int_equal(nbd_get16(info + 10) & NBD_FLAG_SEND_DF, 0);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_OPTIONS);
}

static void test_export_name(void **state)
{
	struct machine m;

	(void)state;
	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	send_option(&m, NBD_OPT_EXPORT_NAME, NULL, 0);
	assert_int_equal(m.nr_out, 10);
	assert_true(nbd_get64(m.out) == EXPORT_BYTES);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_TRANSMISSION);

	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	send_option(&m, NBD_OPT_EXPORT_NAME, "farswap", 7);
	assert_int_equal(m.nr_out, 134);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_TRANSMISSION);

	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	send_option(&m, NBD_OPT_EXPORT_NAME, "farswaq", 7);
	assert_int_equal(m.nr_out, 0);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_REFUSED);
}

static void test_list_abort_and_unknown_options(void **state)
{
	const unsigned char *data;
	struct machine m;
	uint32_t len;
	size_t at = 0;

	(void)state;
	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	send_option(&m, NBD_OPT_LIST, NULL, 0);
	assert_int_equal(next_reply(&m, &at, NBD_OPT_LIST, &data, &len), NBD_REP_SERVER);
	assert_int_equal(nbd_get32(data), 7);
	assert_memory_equal(data + 4, "farswap", 7);
	assert_int_equal(next_reply(&m, &at, NBD_OPT_LIST, &data, &len), NBD_REP_ACK);
	send_option(&m, NBD_OPT_LIST, "x", 1);
	expect_only(&m, NBD_OPT_LIST, NBD_REP_ERR_INVALID);
	send_option(&m, NBD_OPT_STRUCTURED_REPLY, "x", 1);
	expect_only(&m, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
	assert_false(m.handshake.structured_replies);
	send_option(&m, 5 /* STARTTLS */, NULL, 0);
	expect_only(&m, 5, NBD_REP_ERR_UNSUP);
	send_option(&m, 0xffffffff, "data", 4);
	expect_only(&m, 0xffffffff, NBD_REP_ERR_UNSUP);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_OPTIONS);
	send_option(&m, NBD_OPT_ABORT, NULL, 0);
	expect_only(&m, NBD_OPT_ABORT, NBD_REP_ACK);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_LEAVING);
}

static void test_malformed_info_requests(void **state)
{
	unsigned char data[64];
	struct machine m;
	uint32_t len;

	(void)state;
	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	len = pack_info(data, "farswap", 2, NBD_INFO_NAME);
	/* Cut anywhere, or with a byte too many. */
	for (uint32_t cut = 0; cut <= len + 1; cut++) {
		if (cut == len)
			continue;
		send_option(&m, NBD_OPT_GO, data, cut);
		expect_only(&m, NBD_OPT_GO, NBD_REP_ERR_INVALID);
		assert_int_equal(m.handshake.state, NBD_HANDSHAKE_OPTIONS);
	}
	/* Lengths of the name that overflow. */
	for (unsigned i = 0; i < 3; i++) {
		static const uint32_t lengths[] = { 0xffffffff, 0xfffffffa, 4097 };

		nbd_put32(data, lengths[i]);
		send_option(&m, NBD_OPT_INFO, data, len);
		expect_only(&m, NBD_OPT_INFO, NBD_REP_ERR_INVALID);
	}
	send_option(&m, NBD_OPT_GO, data, pack_info(data, "nosuch", 0, 0));
	expect_only(&m, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_OPTIONS);
}

static void test_long_options_are_passed_over(void **state)
{
	static unsigned char big[NBD_OPTION_HEADER_BYTES + NBD_OPTION_SKIP_MAX_BYTES];
	struct machine m;
	size_t len;

	(void)state;
	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	len = pack_option(big, NBD_OPT_GO, NULL, 0) + NBD_OPTION_SKIP_MAX_BYTES;
	nbd_put32(big + 12, NBD_OPTION_SKIP_MAX_BYTES);
	assert_int_equal(feed(&m, big, len, 1000), len);
	expect_only(&m, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_OPTIONS);
	send_option(&m, NBD_OPT_ABORT, NULL, 0);
	expect_only(&m, NBD_OPT_ABORT, NBD_REP_ACK);

	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	nbd_put32(big + 12, NBD_OPTION_SKIP_MAX_BYTES + 1);
	feed(&m, big, len, len);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_GARBAGE);
	assert_int_equal(m.nr_out, 0);

	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	nbd_put32(big + 8, NBD_OPT_EXPORT_NAME);
	nbd_put32(big + 12, NBD_OPTION_MAX_BYTES + 1);
	feed(&m, big, len, len);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_REFUSED);
}

static void test_garbage(void **state)
{
	unsigned char buf[64];
	struct machine m;

	(void)state;
	start(&m);
	nbd_put32(buf, 4);
	feed(&m, buf, 4, 4);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_GARBAGE);

	start_options(&m, NBD_FLAG_FIXED_NEWSTYLE);
	pack_option(buf, NBD_OPT_LIST, NULL, 0);
	buf[7] ^= 1;
	feed(&m, buf, 16, 16);
	assert_int_equal(m.handshake.state, NBD_HANDSHAKE_GARBAGE);
	assert_int_equal(m.nr_out, 0);
}

static void test_pieces_make_no_difference(void **state)
{
	unsigned char bytes[512], data[64], *p;
	struct machine whole, pieces;
	size_t len;

	(void)state;
	p = nbd_put32(bytes, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	p += pack_option(p, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	p += pack_option(p, NBD_OPT_LIST, NULL, 0);
	p += pack_option(p, 77, "what", 4);
	p += pack_option(p, NBD_OPT_INFO, data, pack_info(data, "nosuch", 1, NBD_INFO_BLOCK_SIZE));
	p += pack_option(p, NBD_OPT_GO, data, pack_info(data, "", 1, NBD_INFO_BLOCK_SIZE));
	len = (size_t)(p - bytes);
	start(&whole);
	/* A request that follows at once is not the handshake's. */
	memset(p, 0x25, 28);
	assert_int_equal(feed(&whole, bytes, len + 28, len + 28), len);
	for (size_t step = 1; step < 40; step++) {
		start(&pieces);
		assert_int_equal(feed(&pieces, bytes, len + 28, step), len);
		assert_int_equal(pieces.handshake.state, NBD_HANDSHAKE_TRANSMISSION);
		assert_int_equal(pieces.nr_out, whole.nr_out);
		assert_memory_equal(pieces.out, whole.out, whole.nr_out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_go_gives_export_and_block_sizes),
		cmocka_unit_test(test_info_does_not_end_the_handshake),
		cmocka_unit_test(test_export_name),
		cmocka_unit_test(test_list_abort_and_unknown_options),
		cmocka_unit_test(test_malformed_info_requests),
		cmocka_unit_test(test_long_options_are_passed_over),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_pieces_make_no_difference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

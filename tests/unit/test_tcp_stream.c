/* deps: tests_conform_transport common_transport_tcp common_wire common_mem common_base */
/*
 * The two byte streams of the TCP transport against each other, without a socket: bytes are handed over in pieces of any
 * size, and the lender's turns end anywhere.
 */
#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/transport/tcp/initiator.h"
#include "common/transport/tcp/lender.h"
#include "tests/conform/target.h"

#define DEPTH 8
#define KEY 3
#define SLAB_BYTES (8u << 20)

struct line {
	struct target target;
	struct transport_session *session;
	struct tcp_lender lender;
	struct tcp_initiator initiator;
	unsigned in_flight;
	struct rand_state rand;
	unsigned max_chunk_bytes;
};

struct item {
	struct transport_op op;
	struct iovec iov[4];
	int status;
	char *bytes;
};

static unsigned nr_pongs;

static void on_pong(struct transport_op *op, int status)
{
	(void)op;
	assert_int_equal(status, 0);
	nr_pongs++;
}

static void on_done(struct transport_op *op, int status)
{
	struct item *item = BASE_CONTAINER_OF(op, struct item, op);

	assert_int_equal(item->status, 1);
	item->status = status;
}

static void line_open(struct line *line, uint64_t seed, unsigned max_chunk_bytes)
{
	memset(line, 0, sizeof(*line));
	line->rand.s = seed;
	line->max_chunk_bytes = max_chunk_bytes;
	target_init(&line->target, 1);
	target_lease_add(&line->target, 1);
	target_slab_add(&line->target, 1, KEY, SLAB_BYTES);
	assert_int_equal(line->target.head.ops->join(&line->target.head, 1, 0, "test", &line->session), 0);
	assert_int_equal(tcp_lender_open(&line->lender, &line->target.head, DEPTH), 0);
	tcp_lender_begin(&line->lender, line->session, DEPTH);
	assert_int_equal(tcp_initiator_open(&line->initiator, DEPTH, &line->in_flight), 0);
	line->initiator.ping.done = on_pong;
	nr_pongs = 0;
}

static void line_close(struct line *line)
{
	tcp_initiator_close(&line->initiator);
	tcp_lender_close(&line->lender);
	line->target.head.ops->leave(&line->target.head, line->session);
	target_done(&line->target);
}

/* Copies at most max_bytes from one list of pieces into the other. */
static size_t copy_pieces(const struct iovec *to, unsigned nr_to, const struct iovec *from, unsigned nr_from,
			  size_t max_bytes)
{
	size_t at_to = 0;
	size_t at_from = 0;
	size_t sum = 0;
	unsigned t = 0;
	unsigned f = 0;

	while (sum < max_bytes && t < nr_to && f < nr_from) {
		size_t len = base_min_u64(base_min_u64(to[t].iov_len - at_to, from[f].iov_len - at_from), max_bytes - sum);

		memcpy((char *)to[t].iov_base + at_to, (char *)from[f].iov_base + at_from, len);
		sum += len;
		at_to += len;
		at_from += len;
		if (at_to == to[t].iov_len) {
			t++;
			at_to = 0;
		}
		if (at_from == from[f].iov_len) {
			f++;
			at_from = 0;
		}
	}
	return sum;
}

static size_t line_chunk(struct line *line)
{
	return 1 + rand_below(&line->rand, line->max_chunk_bytes);
}

/* Some bytes to the lender. False when there are none, or it takes none. */
static bool line_forth(struct line *line)
{
	struct iovec from[16];
	struct iovec to[TCP_LENDER_SPACE_IOV];
	size_t from_bytes;
	size_t to_bytes;
	size_t len_bytes;
	unsigned nr_from = tcp_initiator_gather(&line->initiator, from, 1 + (unsigned)rand_below(&line->rand, 16), &from_bytes);
	unsigned nr_to = tcp_lender_space(&line->lender, to, &to_bytes);

	assert_int_equal(nr_to > 0, tcp_lender_wants_bytes(&line->lender));
	len_bytes = copy_pieces(to, nr_to, from, nr_from, line_chunk(line));
	if (len_bytes == 0)
		return false;
	tcp_initiator_sent(&line->initiator, len_bytes);
	assert_int_equal(tcp_lender_received(&line->lender, len_bytes), 0);
	return true;
}

/* Some bytes back. */
static bool line_back(struct line *line)
{
	struct iovec from[16];
	struct iovec to[TCP_INITIATOR_MAX_IOV];
	size_t from_bytes;
	size_t to_bytes;
	size_t len_bytes;
	int nr_from = tcp_lender_gather(&line->lender, from, 2 + (unsigned)rand_below(&line->rand, 15), &from_bytes);
	unsigned nr_to = tcp_initiator_space(&line->initiator, to, &to_bytes);

	assert_true(nr_from >= 0);
	len_bytes = copy_pieces(to, nr_to, from, (unsigned)nr_from, line_chunk(line));
	if (len_bytes == 0)
		return false;
	assert_true(tcp_initiator_received(&line->initiator, len_bytes) >= 0);
	assert_int_equal(tcp_lender_sent(&line->lender, len_bytes), 0);
	return true;
}

static void line_run(struct line *line)
{
	unsigned nr_still = 0;

	/* Until neither way has anything left to move. */
	while (nr_still < 16 || line->in_flight > 0) {
		nr_still = (rand_below(&line->rand, 2) ? line_forth(line) : line_back(line)) ? 0 : nr_still + 1;
		if (rand_below(&line->rand, 3) == 0)
			tcp_lender_turn_end(&line->lender);
	}
}

static void item_init(struct item *item, struct line *line, uint8_t opcode, uint64_t offset_bytes, uint32_t len_bytes)
{
	uint32_t cut[5] = { 0 };

	cut[4] = len_bytes;
	for (unsigned i = 1; i < 4; i++)
		cut[i] = cut[i - 1] + (uint32_t)rand_below(&line->rand, len_bytes - cut[i - 1] + 1);
	item->op = (struct transport_op){
		.opcode = opcode,
		.slab = 0,
		.key = KEY,
		.offset_bytes = offset_bytes,
		.len_bytes = len_bytes,
		.iov = item->iov,
		.nr_iov = 4,
		.done = on_done,
	};
	for (unsigned i = 0; i < 4; i++)
		item->iov[i] = (struct iovec){ item->bytes + cut[i], cut[i + 1] - cut[i] };
	item->status = 1;
}

static uint32_t any_len(struct line *line)
{
	static const uint32_t bounds[] = { 64, 5000, 70000, 300000 };

	return 1 + (uint32_t)rand_below(&line->rand, bounds[rand_below(&line->rand, BASE_ARRAY_SIZE(bounds))]);
}

static void exchange(uint64_t seed, unsigned max_chunk_bytes, unsigned nr_rounds)
{
	struct line *line = malloc(sizeof(*line));
	struct item items[DEPTH];

	line_open(line, seed, max_chunk_bytes);
	for (unsigned i = 0; i < DEPTH; i++) {
		items[i].bytes = malloc(SLAB_BYTES / DEPTH);
		assert_non_null(items[i].bytes);
	}
	for (unsigned round = 0; round < nr_rounds; round++) {
		for (unsigned i = 0; i < DEPTH; i++) {
			uint64_t start_bytes = (uint64_t)i * (SLAB_BYTES / DEPTH);
			bool write = rand_below(&line->rand, 2);
			uint32_t len_bytes = any_len(line);

			item_init(&items[i], line, write ? TRANSPORT_WRITE : TRANSPORT_READ, start_bytes, len_bytes);
			memset(items[i].bytes, (int)(round * 8 + i), len_bytes);
			if (!write)
				memset(line->target.slabs[0].bytes + start_bytes, (int)(round * 8 + i + 100), len_bytes);
			assert_int_equal(tcp_initiator_submit(&line->initiator, &items[i].op), 0);
			if (rand_below(&line->rand, 4) == 0)
				tcp_initiator_ping(&line->initiator);
		}
		assert_int_equal(tcp_initiator_submit(&line->initiator, &items[0].op), -EAGAIN);
		line_run(line);
		for (unsigned i = 0; i < DEPTH; i++) {
			assert_int_equal(items[i].status, 0);
			assert_memory_equal(items[i].bytes, line->target.slabs[0].bytes + (size_t)i * (SLAB_BYTES / DEPTH),
					    items[i].op.len_bytes);
		}
		assert_int_equal(line->in_flight, 0);
		assert_false(tcp_initiator_waits(&line->initiator));
	}
	assert_true(nr_pongs > 0);
	for (unsigned i = 0; i < DEPTH; i++)
		free(items[i].bytes);
	line_close(line);
	free(line);
}

static void byte_by_byte(void **state)
{
	(void)state;
	exchange(1, 1, 2);
}

static void small_chunks(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 6; seed++)
		exchange(seed, 50, 3);
}

static void any_chunks(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++)
		exchange(seed, 1u << (6 + seed % 14), 5);
}

/* Nothing reaches a slab that was revoked between two turns, and what of a response has left cannot be ended. */
static void revoked_between_turns(void **state)
{
	struct line *line = malloc(sizeof(*line));
	struct item item = { .bytes = malloc(SLAB_BYTES) };
	struct iovec iov[4];
	size_t len_bytes;
	uint8_t *slab;

	(void)state;
	/* A WRITE of which half has come: the rest is dropped, and the answer is no. */
	line_open(line, 1, 1000);
	slab = line->target.slabs[0].bytes;
	memset(item.bytes, 7, 100000);
	item_init(&item, line, TRANSPORT_WRITE, 0, 100000);
	assert_int_equal(tcp_initiator_submit(&line->initiator, &item.op), 0);
	while (slab[50000] == 0)
		assert_true(line_forth(line));
	tcp_lender_turn_end(&line->lender);
	atomic_store(&line->target.slabs[0].revoked, true);
	line_run(line);
	assert_int_equal(item.status, -EACCES);
	assert_int_equal(slab[99999], 0);
	assert_int_equal(atomic_load(&line->target.accounted_bytes), 0);
	line_close(line);

	/* A READ that has been taken, and of which nothing has left: the answer is no. */
	line_open(line, 1, 1000);
	item_init(&item, line, TRANSPORT_READ, 0, 100000);
	assert_int_equal(tcp_initiator_submit(&line->initiator, &item.op), 0);
	while (line_forth(line))
		;
	tcp_lender_turn_end(&line->lender);
	atomic_store(&line->target.slabs[0].revoked, true);
	line_run(line);
	assert_int_equal(item.status, -EACCES);
	line_close(line);

	/* One of which something has: the connection has to go. */
	line_open(line, 1, 1000);
	item_init(&item, line, TRANSPORT_READ, 0, 100000);
	assert_int_equal(tcp_initiator_submit(&line->initiator, &item.op), 0);
	while (line_forth(line))
		;
	assert_true(line_back(line));
	tcp_lender_turn_end(&line->lender);
	atomic_store(&line->target.slabs[0].revoked, true);
	assert_int_equal(tcp_lender_gather(&line->lender, iov, 4, &len_bytes), -EACCES);
	tcp_initiator_cancel(&line->initiator, -ECONNRESET);
	assert_int_equal(item.status, -ECONNRESET);
	line_close(line);
	free(item.bytes);
	free(line);
}

/* Requests wait while too much has been answered and not taken. */
static void backpressure(void **state)
{
	struct line *line = malloc(sizeof(*line));
	struct item items[DEPTH];

	(void)state;
	line_open(line, 1, 1u << 20);
	for (unsigned i = 0; i < DEPTH; i++) {
		items[i].bytes = malloc(TRANSPORT_MAX_OP_BYTES);
		item_init(&items[i], line, TRANSPORT_READ, 0, TRANSPORT_MAX_OP_BYTES);
		assert_int_equal(tcp_initiator_submit(&line->initiator, &items[i].op), 0);
	}
	while (line_forth(line))
		;
	assert_false(tcp_lender_wants_bytes(&line->lender));
	assert_true(line->lender.nr_replies < DEPTH);
	line_run(line);
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_int_equal(items[i].status, 0);
		free(items[i].bytes);
	}
	line_close(line);
	free(line);
}

static int lender_takes(struct line *line, const struct wire_request *request)
{
	struct iovec iov[TCP_LENDER_SPACE_IOV];
	size_t len_bytes;

	assert_true(tcp_lender_space(&line->lender, iov, &len_bytes) > 0);
	wire_request_pack(request, iov[0].iov_base);
	return tcp_lender_received(&line->lender, WIRE_REQUEST_BYTES);
}

static void lender_refuses_tags(void **state)
{
	struct line *line = malloc(sizeof(*line));
	struct wire_request request = { .opcode = TRANSPORT_READ, .key = KEY, .len_bytes = 64, .tag = DEPTH - 1 };

	(void)state;
	line_open(line, 1, 1);
	assert_int_equal(lender_takes(line, &request), 0);
	assert_int_equal(lender_takes(line, &request), -EPROTO); /* in flight */
	tcp_lender_begin(&line->lender, line->session, DEPTH);
	request.tag = DEPTH; /* the ping's */
	assert_int_equal(lender_takes(line, &request), -EPROTO);
	tcp_lender_begin(&line->lender, line->session, DEPTH);
	request.tag = UINT32_MAX;
	assert_int_equal(lender_takes(line, &request), -EPROTO);
	tcp_lender_begin(&line->lender, line->session, DEPTH);
	request = (struct wire_request){ .opcode = WIRE_OPCODE_PING, .tag = 0 };
	assert_int_equal(lender_takes(line, &request), -EPROTO);
	tcp_lender_begin(&line->lender, line->session, DEPTH);
	request.tag = DEPTH;
	assert_int_equal(lender_takes(line, &request), 0);
	assert_int_equal(lender_takes(line, &request), -EPROTO); /* in flight */
	/* A shorter queue than the lender could serve. */
	tcp_lender_begin(&line->lender, line->session, 2);
	request = (struct wire_request){ .opcode = TRANSPORT_READ, .key = KEY, .len_bytes = 64, .tag = 2 };
	assert_int_equal(lender_takes(line, &request), -EPROTO);
	line_close(line);
	free(line);
}

static int initiator_takes(struct line *line, const struct wire_response *response)
{
	struct iovec iov[TCP_INITIATOR_MAX_IOV];
	size_t len_bytes;

	assert_int_equal(tcp_initiator_space(&line->initiator, iov, &len_bytes), 1);
	wire_response_pack(response, iov[0].iov_base);
	return tcp_initiator_received(&line->initiator, WIRE_RESPONSE_BYTES);
}

/* A response must be what was asked for, to the letter. */
static void initiator_refuses_responses(void **state)
{
	static const struct {
		struct wire_response response;
		bool sent;
		int ret;
	} cases[] = {
		{ { .opcode = TRANSPORT_READ, .tag = 1, .len_bytes = 64 }, true, -EPROTO }, /* nothing has that tag */
		{ { .opcode = TRANSPORT_READ, .tag = DEPTH, .len_bytes = 64 }, true, -EPROTO },
		{ { .opcode = TRANSPORT_READ, .tag = DEPTH + 1, .len_bytes = 64 }, true, -EPROTO },
		{ { .opcode = TRANSPORT_READ, .tag = UINT32_MAX, .len_bytes = 64 }, true, -EPROTO },
		{ { .opcode = WIRE_OPCODE_PING, .tag = DEPTH }, true, -EPROTO },
		{ { .opcode = TRANSPORT_WRITE, .tag = 0 }, true, -EPROTO },
		{ { .opcode = TRANSPORT_READ, .tag = 0, .len_bytes = 63 }, true, -EPROTO },
		{ { .opcode = TRANSPORT_READ, .tag = 0, .len_bytes = 65 }, true, -EPROTO },
		{ { .opcode = TRANSPORT_READ, .tag = 0, .len_bytes = 64 }, false, -EPROTO }, /* not asked yet */
		{ { .opcode = TRANSPORT_READ, .tag = 0, .len_bytes = 64 }, true, 0 },
		{ { .opcode = TRANSPORT_READ, .tag = 0, .status = WIRE_STATUS_FAILED }, true, 1 },
	};
	struct line *line = malloc(sizeof(*line));
	struct item item = { .bytes = malloc(64) };

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		line_open(line, 1, 1);
		item_init(&item, line, TRANSPORT_READ, 0, 64);
		assert_int_equal(tcp_initiator_submit(&line->initiator, &item.op), 0);
		assert_int_equal(item.op.tag, 0);
		if (cases[i].sent)
			tcp_initiator_sent(&line->initiator, WIRE_REQUEST_BYTES);
		assert_int_equal(initiator_takes(line, &cases[i].response), cases[i].ret);
		if (cases[i].ret == 1)
			assert_int_equal(item.status, -EIO);
		tcp_initiator_cancel(&line->initiator, -EPROTO);
		if (cases[i].ret != 1)
			assert_int_equal(item.status, -EPROTO);
		line_close(line);
	}
	free(item.bytes);
	free(line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(small_chunks),
		cmocka_unit_test(any_chunks),
		cmocka_unit_test(revoked_between_turns),
		cmocka_unit_test(backpressure),
		cmocka_unit_test(lender_refuses_tags),
		cmocka_unit_test(initiator_refuses_responses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

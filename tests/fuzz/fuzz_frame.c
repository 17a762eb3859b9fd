/*
 * libFuzzer target: the two parsers of the data connection's byte stream.
 *
 * The first byte of the input chooses the side, the second the size of the pieces in which the rest is handed over.
 * Inputs get through the CRC of headers by a transformation: with the top bit of the first byte, the checksum of every
 * frame's header is put right before the parser sees it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/transport/tcp/initiator.h"
#include "common/transport/tcp/lender.h"
#include "common/wire/crc32c.h"

#define DEPTH 8
#define SLAB_BYTES 65536
#define PAYLOAD_BYTES 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t slab[SLAB_BYTES];
static unsigned nr_resolved;

struct transport_session {
	int unused;
};

/* Slabs 0 and 1 are granted, but for every seventeenth time, so that all that follows a refusal is reached too. */
static int resolve(struct transport_target *target, struct transport_session *session, enum transport_opcode opcode,
		   uint32_t slab_number, uint32_t key, uint64_t offset_bytes, uint32_t len_bytes, void **ret_bytes)
{
	(void)target;
	(void)session;
	(void)opcode;
	(void)key;
	if (slab_number > 1 || ++nr_resolved % 17 == 0)
		return -EACCES;
	if (offset_bytes > SLAB_BYTES || len_bytes > SLAB_BYTES - offset_bytes)
		return -ERANGE;
	*ret_bytes = slab + offset_bytes;
	return 0;
}

static void account(struct transport_target *target, struct transport_session *session, enum transport_opcode opcode,
		    uint64_t len_bytes)
{
	(void)target;
	(void)session;
	(void)opcode;
	assert(len_bytes > 0 && len_bytes <= SLAB_BYTES);
}

static const struct transport_target_ops ops = { .resolve = resolve, .account = account };
static struct transport_target target = { .ops = &ops };

static void fuzz_lender(const uint8_t *data, size_t size, size_t piece_bytes)
{
	static struct tcp_lender lender;
	static struct transport_session session;
	struct iovec space[TCP_LENDER_SPACE_IOV];
	struct iovec out[32];
	size_t space_bytes;
	size_t out_bytes;
	int err = 0;

	if (!lender.region.base && tcp_lender_open(&lender, &target, DEPTH) < 0)
		abort();
	tcp_lender_begin(&lender, &session, DEPTH);
	nr_resolved = 0;
	while (size > 0 && err == 0) {
		unsigned nr = tcp_lender_space(&lender, space, &space_bytes);

		assert((nr > 0) == tcp_lender_wants_bytes(&lender));
		if (nr > 0) {
			size_t len_bytes = base_min_u64(base_min_u64(piece_bytes, size), space[0].iov_len);

			memcpy(space[0].iov_base, data, len_bytes);
			data += len_bytes;
			size -= len_bytes;
			err = tcp_lender_received(&lender, len_bytes);
			if (err < 0)
				break;
		}
		err = tcp_lender_gather(&lender, out, 32, &out_bytes);
		if (err < 0)
			break;
		for (int i = 0; i < err; i++)
			assert(out[i].iov_len > 0 && out[i].iov_len <= TRANSPORT_MAX_OP_BYTES);
		err = tcp_lender_sent(&lender, base_min_u64(out_bytes, piece_bytes * 5));
		tcp_lender_turn_end(&lender);
	}
}

static unsigned nr_done;

static void done(struct transport_op *op, int status)
{
	(void)op;
	(void)status;
	nr_done++;
}

static void fuzz_initiator(const uint8_t *data, size_t size, size_t piece_bytes)
{
	static struct tcp_initiator initiator;
	static unsigned in_flight;
	struct transport_op submitted[DEPTH];
	struct iovec pieces[DEPTH];
	struct iovec space[TCP_INITIATOR_MAX_IOV];
	struct iovec out[64];
	uint8_t payload[DEPTH][PAYLOAD_BYTES];
	size_t len_bytes;

	if (!initiator.region.base && tcp_initiator_open(&initiator, DEPTH, &in_flight) < 0)
		abort();
	initiator.ping.done = done;
	initiator.inbox.start = initiator.inbox.end = 0;
	nr_done = 0;
	for (unsigned i = 0; i < DEPTH; i++) {
		pieces[i] = (struct iovec){ payload[i], PAYLOAD_BYTES };
		submitted[i] = (struct transport_op){
			.opcode = i % 2 ? TRANSPORT_READ : TRANSPORT_WRITE,
			.len_bytes = PAYLOAD_BYTES,
			.iov = &pieces[i],
			.nr_iov = 1,
			.done = done,
		};
		if (tcp_initiator_submit(&initiator, &submitted[i]) < 0)
			abort();
	}
	tcp_initiator_ping(&initiator);
	while (tcp_initiator_has_unsent(&initiator)) {
		tcp_initiator_gather(&initiator, out, 64, &len_bytes);
		tcp_initiator_sent(&initiator, len_bytes);
	}
	while (size > 0) {
		unsigned nr = tcp_initiator_space(&initiator, space, &len_bytes);

		assert(nr > 0);
		len_bytes = base_min_u64(base_min_u64(piece_bytes, size), space[0].iov_len);
		memcpy(space[0].iov_base, data, len_bytes);
		data += len_bytes;
		size -= len_bytes;
		if (tcp_initiator_received(&initiator, len_bytes) < 0)
			break;
	}
	tcp_initiator_cancel(&initiator, -ECONNRESET);
	assert(nr_done == DEPTH + 1 && in_flight == 0);
}

/* Walks over the frames as far as they can be told apart, and puts their checksums right. */
static void repair(uint8_t *data, size_t size, bool requests)
{
	size_t header_bytes = requests ? WIRE_REQUEST_BYTES : WIRE_RESPONSE_BYTES;
	size_t len_at = requests ? 24 : 8;

	while (size >= header_bytes) {
		uint32_t crc = wire_crc32c(data, header_bytes - 4);
		uint32_t payload_bytes;
		size_t frame_bytes = header_bytes;

		memcpy(data + header_bytes - 4, &crc, sizeof(crc));
		memcpy(&payload_bytes, data + len_at, sizeof(payload_bytes));
		if (data[0] == (requests ? WIRE_OPCODE_WRITE : WIRE_OPCODE_READ))
			frame_bytes += payload_bytes;
		if (frame_bytes > size)
			return;
		data += frame_bytes;
		size -= frame_bytes;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool requests;
	size_t piece_bytes;
	uint8_t *copy;

	if (size < 2)
		return 0;
	requests = data[0] & 1;
	piece_bytes = (size_t)data[1] * data[1] + 1;
	copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data + 2, size - 2);
	if (data[0] & 0x80)
		repair(copy, size - 2, requests);
	if (requests)
		fuzz_lender(copy, size - 2, piece_bytes);
	else
		fuzz_initiator(copy, size - 2, piece_bytes);
	free(copy);
	return 0;
}

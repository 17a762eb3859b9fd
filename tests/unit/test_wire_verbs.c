/* deps: common_wire common_base */

/* What is said over RDMA beside the operations: layouts, checks, and that a proof is good for nothing but what it is of. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/wire/proof.h"
#include "common/wire/verbs.h"

#define INSTANCE 0x0123456789abcdefull

static const struct wire_verbs_req req = {
	.version = WIRE_VERBS_VERSION,
	.channel = 0x0102,
	.instance_tag = 0x1112,
	.lease_id = 0x2122232425262728,
	.counter = 0x3132333435363738,
	.proof = { 0x41, 0x42 },
};

static const struct wire_verbs_rep rep = {
	.version = WIRE_VERBS_VERSION,
	.silence_ms = 4000,
	.beat_address = 0x5152535455565758,
	.beat_rkey = 0x61626364,
	.proof = { 0x71, 0x72 },
};

static const struct wire_verbs_mapped mapped = {
	.slab = 1, .key = 2, .status = WIRE_STATUS_OK, .rkey = 3, .address = 0x7000, .len_bytes = 64 << 20
};

/* The layout is a promise to every other version: byte by byte. */
static void req_layout(void **state)
{
	static const uint8_t expected[26] = {
		0x5a, 0xfa, 1,	  1,				  /* magic, kind, version */
		0x02, 0x01, 0x12, 0x11,				  /* channel, instance */
		0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,	  /* lease */
		0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,	  /* counter */
		0x41, 0x42,					  /* proof */
	};
	uint8_t bytes[WIRE_VERBS_REQ_BYTES];

	(void)state;
	wire_verbs_req_pack(&req, bytes);
	assert_memory_equal(bytes, expected, sizeof(expected));
}

static void round_trips(void **state)
{
	/* As a connection manager delivers it: padded with zeros. */
	uint8_t bytes[196] = { 0 };
	struct wire_verbs_map map = { .slab = 7, .key = 8 };
	struct wire_verbs_mapped mapped_out;
	struct wire_verbs_map map_out;
	struct wire_verbs_req req_out;
	struct wire_verbs_rep rep_out;
	uint32_t refusal;

	(void)state;
	wire_verbs_req_pack(&req, bytes);
	assert_int_equal(wire_verbs_req_unpack(bytes, WIRE_VERBS_REQ_BYTES, &req_out), 0);
	assert_int_equal(req_out.version, req.version);
	assert_int_equal(req_out.channel, req.channel);
	assert_int_equal(req_out.instance_tag, req.instance_tag);
	assert_true(req_out.lease_id == req.lease_id && req_out.counter == req.counter);
	assert_memory_equal(req_out.proof, req.proof, sizeof(req.proof));
	assert_int_equal(wire_verbs_req_unpack(bytes, WIRE_VERBS_REQ_BYTES - 1, &req_out), -EPROTO);
	wire_verbs_rep_pack(&rep, bytes);
	assert_int_equal(wire_verbs_rep_unpack(bytes, sizeof(bytes), &rep_out), 0);
	assert_int_equal(rep_out.silence_ms, rep.silence_ms);
	assert_int_equal(rep_out.beat_rkey, rep.beat_rkey);
	assert_true(rep_out.beat_address == rep.beat_address);
	assert_memory_equal(rep_out.proof, rep.proof, sizeof(rep.proof));
	assert_int_equal(wire_verbs_rep_unpack(bytes, WIRE_VERBS_REP_BYTES - 1, &rep_out), -EPROTO);
	for (unsigned i = 1; i < WIRE_NR_REFUSALS; i++) {
		wire_verbs_rej_pack((enum wire_refusal)i, bytes);
		assert_int_equal(wire_verbs_rej_unpack(bytes, sizeof(bytes), &refusal), 0);
		assert_int_equal(refusal, i);
	}
	wire_verbs_map_pack(&map, bytes);
	assert_int_equal(wire_verbs_map_unpack(bytes, WIRE_VERBS_MAP_BYTES, &map_out), 0);
	assert_memory_equal(&map_out, &map, sizeof(map));
	wire_verbs_mapped_pack(&mapped, bytes);
	assert_int_equal(wire_verbs_mapped_unpack(bytes, WIRE_VERBS_MAPPED_BYTES, &mapped_out), 0);
	assert_int_equal(mapped_out.rkey, mapped.rkey);
	assert_true(mapped_out.address == mapped.address && mapped_out.len_bytes == mapped.len_bytes);
}

static void garbage_is_refused(void **state)
{
	struct rand_state rand = { .s = 5 };
	struct wire_verbs_mapped wrong = mapped;
	struct wire_verbs_mapped mapped_out;
	struct wire_verbs_map map_out;
	struct wire_verbs_req req_out;
	struct wire_verbs_rep rep_out;
	uint8_t bytes[196];
	uint32_t refusal;

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		for (size_t j = 0; j < sizeof(bytes); j++)
			bytes[j] = (uint8_t)rand_next(&rand);
		assert_int_equal(wire_verbs_req_unpack(bytes, sizeof(bytes), &req_out), -EPROTO);
		assert_int_equal(wire_verbs_rep_unpack(bytes, sizeof(bytes), &rep_out), -EPROTO);
		assert_int_equal(wire_verbs_rej_unpack(bytes, sizeof(bytes), &refusal), -EPROTO);
		assert_int_equal(wire_verbs_map_unpack(bytes, WIRE_VERBS_MAP_BYTES, &map_out), -EPROTO);
		assert_int_equal(wire_verbs_mapped_unpack(bytes, WIRE_VERBS_MAPPED_BYTES, &mapped_out), -EPROTO);
	}
	/* A slab that would reach around the end of all addresses. */
	wrong.address = UINT64_MAX - 4095;
	wire_verbs_mapped_pack(&wrong, bytes);
	assert_int_equal(wire_verbs_mapped_unpack(bytes, WIRE_VERBS_MAPPED_BYTES, &mapped_out), -EPROTO);
	wrong = mapped;
	wrong.status = WIRE_STATUS_DENIED;
	wire_verbs_mapped_pack(&wrong, bytes);
	assert_int_equal(wire_verbs_mapped_unpack(bytes, WIRE_VERBS_MAPPED_BYTES, &mapped_out), -EPROTO);
	wire_verbs_rej_pack(WIRE_REFUSAL_NONE, bytes);
	assert_int_equal(wire_verbs_rej_unpack(bytes, sizeof(bytes), &refusal), -EPROTO);
}

/* Every field that a proof covers changes it. */
static void proofs_cover_everything(void **state)
{
	uint8_t token[WIRE_TOKEN_BYTES] = { 1, 2, 3 };
	uint8_t proofs[12][WIRE_PROOF_BYTES];
	struct wire_verbs_req other = req;
	struct wire_verbs_rep answer = rep;
	unsigned nr = 0;

	(void)state;
	assert_int_equal(wire_proof_init(), 0);
	wire_verbs_proof_initiator(token, INSTANCE, &req, proofs[nr++]);
	wire_verbs_proof_initiator(token, INSTANCE + 1, &req, proofs[nr++]);
	other.counter++;
	wire_verbs_proof_initiator(token, INSTANCE, &other, proofs[nr++]);
	other = req;
	other.channel++;
	wire_verbs_proof_initiator(token, INSTANCE, &other, proofs[nr++]);
	other = req;
	other.lease_id++;
	wire_verbs_proof_initiator(token, INSTANCE, &other, proofs[nr++]);
	other = req;
	other.version++;
	wire_verbs_proof_initiator(token, INSTANCE, &other, proofs[nr++]);
	wire_verbs_proof_lender(token, INSTANCE, &req, &rep, proofs[nr++]);
	wire_verbs_proof_lender(token, INSTANCE, &other, &rep, proofs[nr++]);
	answer.beat_rkey++;
	wire_verbs_proof_lender(token, INSTANCE, &req, &answer, proofs[nr++]);
	answer = rep;
	answer.silence_ms++;
	wire_verbs_proof_lender(token, INSTANCE, &req, &answer, proofs[nr++]);
	token[0]++;
	wire_verbs_proof_initiator(token, INSTANCE, &req, proofs[nr++]);
	wire_verbs_proof_lender(token, INSTANCE, &req, &rep, proofs[nr++]);
	assert_int_equal(nr, BASE_ARRAY_SIZE(proofs));
	for (unsigned i = 0; i < nr; i++)
		for (unsigned j = 0; j < i; j++)
			assert_false(wire_proof_equal(proofs[i], proofs[j]));
	/* But for the field that it goes into. */
	token[0]--;
	other = req;
	other.proof[0]++;
	wire_verbs_proof_initiator(token, INSTANCE, &other, proofs[1]);
	assert_true(wire_proof_equal(proofs[0], proofs[1]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(req_layout),
		cmocka_unit_test(round_trips),
		cmocka_unit_test(garbage_is_refused),
		cmocka_unit_test(proofs_cover_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

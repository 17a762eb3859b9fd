/* deps: common_wire common_base */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/wire/crc32c.h"
#include "common/wire/frame.h"
#include "common/wire/proof.h"

static const struct wire_request request = {
	.opcode = WIRE_OPCODE_WRITE,
	.tag = 0x01020304,
	.slab = 0x11121314,
	.key = 0x21222324,
	.offset_bytes = 0x3132333435363738,
	.len_bytes = 0x00101112,
};

/* The layout is a promise to every other version: byte by byte. */
static void request_layout(void **state)
{
	static const uint8_t expected[28] = {
		2,    0,    0,	  0,			      /* opcode */
		4,    3,    2,	  1,			      /* tag */
		0x14, 0x13, 0x12, 0x11,			      /* slab */
		0x24, 0x23, 0x22, 0x21,			      /* key */
		0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31, /* offset */
		0x12, 0x11, 0x10, 0,			      /* length */
	};
	uint8_t bytes[WIRE_REQUEST_BYTES];
	uint32_t crc;

	(void)state;
	wire_request_pack(&request, bytes);
	assert_memory_equal(bytes, expected, sizeof(expected));
	crc = (uint32_t)bytes[28] | (uint32_t)bytes[29] << 8 | (uint32_t)bytes[30] << 16 | (uint32_t)bytes[31] << 24;
	assert_int_equal(crc, wire_crc32c(expected, sizeof(expected)));
}

static void response_layout(void **state)
{
	static const uint8_t expected[12] = { 1, 0, 0, 0, 4, 3, 2, 1, 0, 0x10, 0, 0 };
	struct wire_response response = { .opcode = WIRE_OPCODE_READ, .tag = 0x01020304, .len_bytes = 4096 };
	uint8_t bytes[WIRE_RESPONSE_BYTES];

	(void)state;
	wire_response_pack(&response, bytes);
	assert_memory_equal(bytes, expected, sizeof(expected));
}

static void request_round_trip(void **state)
{
	uint8_t bytes[WIRE_REQUEST_BYTES];
	struct wire_request out;

	(void)state;
	wire_request_pack(&request, bytes);
	assert_int_equal(wire_request_unpack(bytes, &out), 0);
	assert_int_equal(out.opcode, request.opcode);
	assert_int_equal(out.tag, request.tag);
	assert_int_equal(out.slab, request.slab);
	assert_int_equal(out.key, request.key);
	assert_int_equal(out.offset_bytes, request.offset_bytes);
	assert_int_equal(out.len_bytes, request.len_bytes);
}

static void any_flipped_bit_is_seen(void **state)
{
	struct wire_response response = { .opcode = WIRE_OPCODE_READ, .tag = 7, .len_bytes = 4096 };
	uint8_t bytes[WIRE_REQUEST_BYTES];
	struct wire_request out_request;
	struct wire_response out_response;

	(void)state;
	wire_request_pack(&request, bytes);
	for (unsigned bit = 0; bit < WIRE_REQUEST_BYTES * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(wire_request_unpack(bytes, &out_request), -EPROTO);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	wire_response_pack(&response, bytes);
	for (unsigned bit = 0; bit < WIRE_RESPONSE_BYTES * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(wire_response_unpack(bytes, &out_response), -EPROTO);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static int unpack_request(const struct wire_request *in)
{
	uint8_t bytes[WIRE_REQUEST_BYTES];
	struct wire_request out;

	wire_request_pack(in, bytes);
	return wire_request_unpack(bytes, &out);
}

/* With a good CRC, so that the values themselves are what is refused. */
static void request_ranges(void **state)
{
	struct wire_request r = request;

	(void)state;
	r.len_bytes = 0;
	assert_int_equal(unpack_request(&r), -EPROTO);
	r.len_bytes = WIRE_MAX_PAYLOAD_BYTES;
	assert_int_equal(unpack_request(&r), 0);
	r.len_bytes = WIRE_MAX_PAYLOAD_BYTES + 1;
	assert_int_equal(unpack_request(&r), -EPROTO);
	r.len_bytes = UINT32_MAX;
	assert_int_equal(unpack_request(&r), -EPROTO);
	r = request;
	r.offset_bytes = UINT64_MAX - r.len_bytes;
	assert_int_equal(unpack_request(&r), 0);
	r.offset_bytes++;
	assert_int_equal(unpack_request(&r), -EPROTO);
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		r = request;
		r.opcode = (uint8_t)opcode;
		assert_int_equal(unpack_request(&r), opcode == 1 || opcode == 2 ? 0 : -EPROTO);
	}
	r = (struct wire_request){ .opcode = WIRE_OPCODE_PING, .tag = 9 };
	assert_int_equal(unpack_request(&r), 0);
	r.len_bytes = 1;
	assert_int_equal(unpack_request(&r), -EPROTO);
	r = (struct wire_request){ .opcode = WIRE_OPCODE_PING, .key = 1 };
	assert_int_equal(unpack_request(&r), -EPROTO);
}

static int unpack_response(uint8_t opcode, uint8_t status, uint32_t len_bytes)
{
	struct wire_response in = { .opcode = opcode, .status = status, .len_bytes = len_bytes };
	struct wire_response out;
	uint8_t bytes[WIRE_RESPONSE_BYTES];

	wire_response_pack(&in, bytes);
	return wire_response_unpack(bytes, &out);
}

static void response_ranges(void **state)
{
	(void)state;
	assert_int_equal(unpack_response(WIRE_OPCODE_READ, 0, 4096), 0);
	assert_int_equal(unpack_response(WIRE_OPCODE_READ, 0, 0), -EPROTO);
	assert_int_equal(unpack_response(WIRE_OPCODE_READ, 0, WIRE_MAX_PAYLOAD_BYTES + 1), -EPROTO);
	assert_int_equal(unpack_response(WIRE_OPCODE_READ, WIRE_STATUS_RANGE, 0), 0);
	assert_int_equal(unpack_response(WIRE_OPCODE_READ, WIRE_STATUS_RANGE, 4096), -EPROTO);
	assert_int_equal(unpack_response(WIRE_OPCODE_WRITE, 0, 0), 0);
	assert_int_equal(unpack_response(WIRE_OPCODE_WRITE, 0, 4096), -EPROTO);
	assert_int_equal(unpack_response(WIRE_OPCODE_WRITE, WIRE_NR_STATUSES, 0), -EPROTO);
	assert_int_equal(unpack_response(WIRE_OPCODE_PING, 0, 0), 0);
	assert_int_equal(unpack_response(0, 0, 0), -EPROTO);
	assert_int_equal(unpack_response(4, 0, 0), -EPROTO);
}

static struct wire_hello some_hello(void)
{
	struct wire_hello hello = { .min_version = 1, .max_version = 1, .instance_id = 42 };

	memset(hello.nonce, 0x11, sizeof(hello.nonce));
	return hello;
}

static struct wire_auth some_auth(void)
{
	struct wire_auth auth = {
		.version = 1,
		.channel = 2,
		.lease_id = 3,
		.instance_id = 42,
		.queue_depth = 32,
		.heartbeat_ms = 100,
	};

	memset(auth.nonce, 0x22, sizeof(auth.nonce));
	memset(auth.proof, 0x33, sizeof(auth.proof));
	return auth;
}

static void handshake_round_trip(void **state)
{
	struct wire_ready ready = { .max_payload_bytes = 1, .queue_depth = 2, .silence_ms = 3, .proof = { 4 } };
	struct wire_hello hello = some_hello();
	struct wire_hello hello_out = { 0 };
	struct wire_auth auth = some_auth();
	struct wire_auth auth_out = { 0 };
	struct wire_ready ready_out = { 0 };
	uint8_t bytes[WIRE_AUTH_BYTES];

	(void)state;
	wire_hello_pack(&hello, bytes);
	assert_int_equal(wire_hello_unpack(bytes, &hello_out), 0);
	assert_int_equal(hello_out.min_version, hello.min_version);
	assert_int_equal(hello_out.max_version, hello.max_version);
	assert_int_equal(hello_out.instance_id, hello.instance_id);
	assert_memory_equal(hello_out.nonce, hello.nonce, sizeof(hello.nonce));
	assert_int_equal(wire_auth_unpack(bytes, &auth_out), -EPROTO);
	assert_int_equal(wire_ready_unpack(bytes, &ready_out), -EPROTO);
	wire_auth_pack(&auth, bytes);
	assert_int_equal(wire_auth_unpack(bytes, &auth_out), 0);
	assert_int_equal(auth_out.lease_id, auth.lease_id);
	assert_int_equal(auth_out.channel, auth.channel);
	assert_int_equal(auth_out.instance_id, auth.instance_id);
	assert_int_equal(auth_out.queue_depth, auth.queue_depth);
	assert_int_equal(auth_out.heartbeat_ms, auth.heartbeat_ms);
	assert_memory_equal(auth_out.nonce, auth.nonce, sizeof(auth.nonce));
	assert_memory_equal(auth_out.proof, auth.proof, sizeof(auth.proof));
	assert_int_equal(wire_hello_unpack(bytes, &hello_out), -EPROTO);
	wire_ready_pack(&ready, bytes);
	assert_int_equal(wire_ready_unpack(bytes, &ready_out), 0);
	assert_memory_equal(&ready, &ready_out, sizeof(ready));
}

static void handshake_ranges(void **state)
{
	struct wire_ready ready = { .refusal = WIRE_REFUSAL_STALE };
	struct wire_hello hello = some_hello();
	struct wire_auth auth = some_auth();
	uint8_t bytes[WIRE_AUTH_BYTES];

	(void)state;
	hello.min_version = 0;
	wire_hello_pack(&hello, bytes);
	assert_int_equal(wire_hello_unpack(bytes, &hello), -EPROTO);
	hello.min_version = 3;
	hello.max_version = 2;
	wire_hello_pack(&hello, bytes);
	assert_int_equal(wire_hello_unpack(bytes, &hello), -EPROTO);
	auth.queue_depth = 0;
	wire_auth_pack(&auth, bytes);
	assert_int_equal(wire_auth_unpack(bytes, &auth), -EPROTO);
	wire_ready_pack(&ready, bytes);
	assert_int_equal(wire_ready_unpack(bytes, &ready), 0);
	assert_int_equal(ready.refusal, WIRE_REFUSAL_STALE);
	ready.proof[31] = 1;
	wire_ready_pack(&ready, bytes);
	assert_int_equal(wire_ready_unpack(bytes, &ready), -EPROTO);
	ready = (struct wire_ready){ .refusal = WIRE_NR_REFUSALS };
	wire_ready_pack(&ready, bytes);
	assert_int_equal(wire_ready_unpack(bytes, &ready), -EPROTO);
	ready = (struct wire_ready){ .max_payload_bytes = 1, .queue_depth = 0, .silence_ms = 1 };
	wire_ready_pack(&ready, bytes);
	assert_int_equal(wire_ready_unpack(bytes, &ready), -EPROTO);
}

static void versions(void **state)
{
	struct wire_hello hello = some_hello();
	uint16_t version = 0;

	(void)state;
	assert_int_equal(wire_version_choose(&hello, &version), 0);
	assert_int_equal(version, 1);
	hello.max_version = 9;
	assert_int_equal(wire_version_choose(&hello, &version), 0);
	assert_int_equal(version, WIRE_VERSION_MAX);
	hello.min_version = WIRE_VERSION_MAX + 1;
	assert_int_equal(wire_version_choose(&hello, &version), -EPROTONOSUPPORT);
}

static void errors_there_and_back(void **state)
{
	static const int statuses[] = { 0, -EACCES, -ERANGE, -EIO };
	static const int refusals[] = { 0, -ESTALE, -EACCES, -EPROTONOSUPPORT, -EMFILE, -EPROTO };

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(statuses); i++)
		assert_int_equal(wire_status_to_err((uint8_t)wire_status_from_err(statuses[i])), statuses[i]);
	assert_int_equal(wire_status_from_err(-ENOMEM), WIRE_STATUS_FAILED);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(refusals); i++)
		assert_int_equal(wire_refusal_to_err(wire_refusal_from_err(refusals[i])), refusals[i]);
}

static void random_bytes_are_refused(void **state)
{
	struct rand_state rand = { .s = 1 };
	uint8_t bytes[WIRE_AUTH_BYTES];
	struct wire_response response;
	struct wire_request r;
	struct wire_hello hello;
	struct wire_ready ready;
	struct wire_auth auth;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		for (size_t j = 0; j < sizeof(bytes); j++)
			bytes[j] = (uint8_t)rand_next(&rand);
		assert_int_equal(wire_request_unpack(bytes, &r), -EPROTO);
		assert_int_equal(wire_response_unpack(bytes, &response), -EPROTO);
		assert_int_equal(wire_hello_unpack(bytes, &hello), -EPROTO);
		assert_int_equal(wire_auth_unpack(bytes, &auth), -EPROTO);
		assert_int_equal(wire_ready_unpack(bytes, &ready), -EPROTO);
	}
}

struct proofs {
	uint8_t initiator[WIRE_PROOF_BYTES];
	uint8_t lender[WIRE_PROOF_BYTES];
};

static struct proofs proofs_of(const uint8_t *token, const struct wire_hello *hello, const struct wire_auth *auth,
			       const struct wire_ready *ready)
{
	struct proofs proofs;

	wire_proof_initiator(token, hello, auth, proofs.initiator);
	wire_proof_lender(token, hello, auth, ready, proofs.lender);
	return proofs;
}

/* Whatever of the conversation changes, both proofs do; and neither is ever the other. */
static void proofs_cover_everything(void **state)
{
	const struct wire_ready ready = { .max_payload_bytes = 1, .queue_depth = 2, .silence_ms = 3 };
	const struct wire_hello hello = some_hello();
	const struct wire_auth auth = some_auth();
	const uint8_t token[WIRE_TOKEN_BYTES] = { 1, 2, 3 };
	struct proofs first = proofs_of(token, &hello, &auth, &ready);

	(void)state;
	assert_false(wire_proof_equal(first.initiator, first.lender));
	for (unsigned i = 0; i < 11; i++) {
		uint8_t t[WIRE_TOKEN_BYTES];
		struct wire_hello h = hello;
		struct wire_auth a = auth;
		struct proofs other;

		memcpy(t, token, sizeof(t));
		switch (i) {
		case 0: t[31] ^= 1; break;
		case 1: h.nonce[0] ^= 1; break;
		case 2: h.instance_id++; break;
		case 3: h.min_version++; break;
		case 4: h.max_version++; break;
		case 5: a.nonce[31] ^= 1; break;
		case 6: a.lease_id++; break;
		case 7: a.channel++; break;
		case 8: a.version++; break;
		case 9: a.queue_depth++; break;
		case 10: a.heartbeat_ms++; break;
		}
		other = proofs_of(t, &h, &a, &ready);
		assert_false(wire_proof_equal(first.initiator, other.initiator));
		assert_false(wire_proof_equal(first.lender, other.lender));
		assert_false(wire_proof_equal(first.initiator, other.lender));
	}
	for (unsigned i = 0; i < 3; i++) {
		struct wire_ready r = ready;
		struct proofs other;

		*(i == 0 ? &r.max_payload_bytes : i == 1 ? &r.queue_depth : &r.silence_ms) += 1;
		other = proofs_of(token, &hello, &auth, &r);
		assert_true(wire_proof_equal(first.initiator, other.initiator));
		assert_false(wire_proof_equal(first.lender, other.lender));
	}
}

static void nonces_differ(void **state)
{
	uint8_t a[WIRE_NONCE_BYTES] = { 0 };
	uint8_t b[WIRE_NONCE_BYTES] = { 0 };

	(void)state;
	assert_int_equal(wire_proof_init(), 0);
	wire_nonce_make(a);
	wire_nonce_make(b);
	assert_memory_not_equal(a, b, sizeof(a));
}

static void wiped_token_is_zero(void **state)
{
	static const uint8_t zero[WIRE_TOKEN_BYTES];
	uint8_t token[WIRE_TOKEN_BYTES] = { 1, 2, 3 };

	(void)state;
	wire_token_wipe(token);
	assert_memory_equal(token, zero, sizeof(zero));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_layout),
		cmocka_unit_test(response_layout),
		cmocka_unit_test(request_round_trip),
		cmocka_unit_test(any_flipped_bit_is_seen),
		cmocka_unit_test(request_ranges),
		cmocka_unit_test(response_ranges),
		cmocka_unit_test(handshake_round_trip),
		cmocka_unit_test(handshake_ranges),
		cmocka_unit_test(versions),
		cmocka_unit_test(errors_there_and_back),
		cmocka_unit_test(random_bytes_are_refused),
		cmocka_unit_test(proofs_cover_everything),
		cmocka_unit_test(nonces_differ),
		cmocka_unit_test(wiped_token_is_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

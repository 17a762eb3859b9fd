/*
 * The frames of the data connection: their layout, and the checks that every byte from the network goes through.
 *
 * A connection begins with three frames, HELLO (lender), AUTH (initiator), READY (lender; with a reason when refused).
 * After READY the initiator sends requests and the lender answers each with one response; a WRITE's request and a
 * successful READ's response are followed by their payload. All numbers are little-endian. Headers carry a CRC32C of
 * themselves, so that a stream out of step is noticed at once; payloads do not: their owner checks them end to end.
 *
 * Pure functions: no state, no allocation, any thread.
 */
#ifndef FARSWAP_COMMON_WIRE_FRAME_H
#define FARSWAP_COMMON_WIRE_FRAME_H

#include "common/base/base.h"

#define WIRE_VERSION_MIN 1
#define WIRE_VERSION_MAX 1

#define WIRE_TOKEN_BYTES 32
#define WIRE_NONCE_BYTES 32
#define WIRE_PROOF_BYTES 32

#define WIRE_HELLO_BYTES 56
#define WIRE_AUTH_BYTES 104
#define WIRE_READY_BYTES 56
#define WIRE_REQUEST_BYTES 32
#define WIRE_RESPONSE_BYTES 16

#define WIRE_MAX_PAYLOAD_BYTES (2u << 20)

/* Lender to initiator, as soon as the connection stands. */
struct wire_hello {
	uint16_t min_version;
	uint16_t max_version;
	uint64_t instance_id;
	uint8_t nonce[WIRE_NONCE_BYTES];
};

/* Initiator to lender. */
struct wire_auth {
	uint16_t version; /* the one that both will speak */
	uint32_t channel;
	uint64_t lease_id;
	uint64_t instance_id; /* of the lender that the initiator means */
	uint32_t queue_depth; /* wished */
	uint32_t heartbeat_ms;
	uint8_t nonce[WIRE_NONCE_BYTES];
	uint8_t proof[WIRE_PROOF_BYTES];
};

/* Why a connection was not admitted. */
enum wire_refusal {
	WIRE_REFUSAL_NONE = 0,	   /* admitted */
	WIRE_REFUSAL_STALE = 1,	   /* no such lease, or another instance */
	WIRE_REFUSAL_DENIED = 2,   /* the proof is wrong */
	WIRE_REFUSAL_VERSION = 3,  /* a version that was not offered */
	WIRE_REFUSAL_LIMIT = 4,	   /* no more connections */
	WIRE_REFUSAL_PROTOCOL = 5, /* not what was to come */
	WIRE_NR_REFUSALS,
};

/* Lender to initiator. When refusal is not NONE everything else is 0. */
struct wire_ready {
	uint32_t refusal;
	uint32_t max_payload_bytes;
	uint32_t queue_depth; /* accepted, at most the one wished */
	uint32_t silence_ms;  /* after which the lender cuts a connection that shows no life */
	uint8_t proof[WIRE_PROOF_BYTES];
};

enum wire_opcode {
	WIRE_OPCODE_READ = 1,
	WIRE_OPCODE_WRITE = 2,
	WIRE_OPCODE_PING = 3,
};

enum wire_status {
	WIRE_STATUS_OK = 0,
	WIRE_STATUS_DENIED = 1, /* -EACCES */
	WIRE_STATUS_RANGE = 2,	/* -ERANGE */
	WIRE_STATUS_FAILED = 3, /* -EIO */
	WIRE_NR_STATUSES,
};

struct wire_request {
	uint8_t opcode;
	uint32_t tag;
	uint32_t slab; /* these four are 0 in a PING */
	uint32_t key;
	uint64_t offset_bytes;
	uint32_t len_bytes; /* 1 .. WIRE_MAX_PAYLOAD_BYTES */
};

struct wire_response {
	uint8_t opcode; /* of the request */
	uint8_t status;
	uint32_t tag;
	uint32_t len_bytes; /* of the payload that follows: all of a successful READ, else 0 */
};

/* The caller has made sure that the values are in range. */
void wire_hello_pack(const struct wire_hello *hello, uint8_t ret_bytes[WIRE_HELLO_BYTES]);
void wire_auth_pack(const struct wire_auth *auth, uint8_t ret_bytes[WIRE_AUTH_BYTES]);
void wire_ready_pack(const struct wire_ready *ready, uint8_t ret_bytes[WIRE_READY_BYTES]);
void wire_request_pack(const struct wire_request *request, uint8_t ret_bytes[WIRE_REQUEST_BYTES]);
void wire_response_pack(const struct wire_response *response, uint8_t ret_bytes[WIRE_RESPONSE_BYTES]);

/*
 * 0, or -EPROTO for anything that the pack above could not have made: another magic, a wrong CRC, an unknown opcode,
 * reserved bytes that are not 0, a length out of range.
 */
int wire_hello_unpack(const uint8_t bytes[WIRE_HELLO_BYTES], struct wire_hello *ret_hello) BASE_MUST_CHECK;
int wire_auth_unpack(const uint8_t bytes[WIRE_AUTH_BYTES], struct wire_auth *ret_auth) BASE_MUST_CHECK;
int wire_ready_unpack(const uint8_t bytes[WIRE_READY_BYTES], struct wire_ready *ret_ready) BASE_MUST_CHECK;
int wire_request_unpack(const uint8_t bytes[WIRE_REQUEST_BYTES], struct wire_request *ret_request) BASE_MUST_CHECK;
int wire_response_unpack(const uint8_t bytes[WIRE_RESPONSE_BYTES], struct wire_response *ret_response) BASE_MUST_CHECK;

/* The highest version that both speak: 0 or -EPROTONOSUPPORT. */
int wire_version_choose(const struct wire_hello *hello, uint16_t *ret_version) BASE_MUST_CHECK;

/* Between negative errnos and what goes over the wire. An errno without a code of its own becomes FAILED or LIMIT. */
enum wire_status wire_status_from_err(int err);
int wire_status_to_err(uint8_t status);
enum wire_refusal wire_refusal_from_err(int err);
int wire_refusal_to_err(uint32_t refusal);

#endif

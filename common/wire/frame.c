#include "common/wire/frame.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/wire/crc32c.h"

/* The frames as they are on the wire. Every field is naturally aligned, so nothing is packed by force. */

enum frame_kind { FRAME_KIND_HELLO = 1, FRAME_KIND_AUTH = 2, FRAME_KIND_READY = 3 };

struct frame_magic {
	uint8_t text[7];
	uint8_t kind;
};

struct frame_hello {
	struct frame_magic magic;
	uint16_t min_version;
	uint16_t max_version;
	uint32_t zero;
	uint64_t instance_id;
	uint8_t nonce[WIRE_NONCE_BYTES];
};

struct frame_auth {
	struct frame_magic magic;
	uint16_t version;
	uint16_t zero;
	uint32_t channel;
	uint64_t lease_id;
	uint64_t instance_id;
	uint32_t queue_depth;
	uint32_t heartbeat_ms;
	uint8_t nonce[WIRE_NONCE_BYTES];
	uint8_t proof[WIRE_PROOF_BYTES];
};

struct frame_ready {
	struct frame_magic magic;
	uint32_t refusal;
	uint32_t max_payload_bytes;
	uint32_t queue_depth;
	uint32_t silence_ms;
	uint8_t proof[WIRE_PROOF_BYTES];
};

struct frame_request {
	uint8_t opcode;
	uint8_t zero[3];
	uint32_t tag;
	uint32_t slab;
	uint32_t key;
	uint64_t offset_bytes;
	uint32_t len_bytes;
	uint32_t crc;
};

struct frame_response {
	uint8_t opcode;
	uint8_t status;
	uint16_t zero;
	uint32_t tag;
	uint32_t len_bytes;
	uint32_t crc;
};

static_assert(sizeof(struct frame_hello) == WIRE_HELLO_BYTES, "HELLO on the wire");
static_assert(offsetof(struct frame_hello, nonce) == 24, "HELLO on the wire");
static_assert(sizeof(struct frame_auth) == WIRE_AUTH_BYTES, "AUTH on the wire");
static_assert(offsetof(struct frame_auth, lease_id) == 16, "AUTH on the wire");
static_assert(offsetof(struct frame_auth, nonce) == 40, "AUTH on the wire");
static_assert(sizeof(struct frame_ready) == WIRE_READY_BYTES, "READY on the wire");
static_assert(offsetof(struct frame_ready, proof) == 24, "READY on the wire");
static_assert(sizeof(struct frame_request) == WIRE_REQUEST_BYTES, "REQUEST on the wire");
static_assert(offsetof(struct frame_request, offset_bytes) == 16, "REQUEST on the wire");
static_assert(offsetof(struct frame_request, crc) == 28, "REQUEST on the wire");
static_assert(sizeof(struct frame_response) == WIRE_RESPONSE_BYTES, "RESPONSE on the wire");
static_assert(offsetof(struct frame_response, crc) == 12, "RESPONSE on the wire");

static const uint8_t frame_magic_text[7] = { 'f', 'a', 'r', 's', 'w', 'a', 'p' };

static struct frame_magic frame_magic_make(enum frame_kind kind)
{
	struct frame_magic magic = { .kind = (uint8_t)kind };

	memcpy(magic.text, frame_magic_text, sizeof(magic.text));
	return magic;
}

static bool frame_magic_is(const struct frame_magic *magic, enum frame_kind kind)
{
	return memcmp(magic->text, frame_magic_text, sizeof(magic->text)) == 0 && magic->kind == kind;
}

static bool frame_all_zero(const uint8_t *bytes, size_t len_bytes)
{
	for (size_t i = 0; i < len_bytes; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

void wire_hello_pack(const struct wire_hello *hello, uint8_t ret_bytes[WIRE_HELLO_BYTES])
{
	struct frame_hello frame = {
		.magic = frame_magic_make(FRAME_KIND_HELLO),
		.min_version = htole16(hello->min_version),
		.max_version = htole16(hello->max_version),
		.instance_id = htole64(hello->instance_id),
	};

	memcpy(frame.nonce, hello->nonce, sizeof(frame.nonce));
	memcpy(ret_bytes, &frame, sizeof(frame));
}

int wire_hello_unpack(const uint8_t bytes[WIRE_HELLO_BYTES], struct wire_hello *ret_hello)
{
	struct frame_hello frame;

	memcpy(&frame, bytes, sizeof(frame));
	if (!frame_magic_is(&frame.magic, FRAME_KIND_HELLO) || frame.zero != 0)
		return -EPROTO;
	if (frame.min_version == 0 || le16toh(frame.min_version) > le16toh(frame.max_version))
		return -EPROTO;
	ret_hello->min_version = le16toh(frame.min_version);
	ret_hello->max_version = le16toh(frame.max_version);
	ret_hello->instance_id = le64toh(frame.instance_id);
	memcpy(ret_hello->nonce, frame.nonce, sizeof(frame.nonce));
	return 0;
}

void wire_auth_pack(const struct wire_auth *auth, uint8_t ret_bytes[WIRE_AUTH_BYTES])
{
	struct frame_auth frame = {
		.magic = frame_magic_make(FRAME_KIND_AUTH),
		.version = htole16(auth->version),
		.channel = htole32(auth->channel),
		.lease_id = htole64(auth->lease_id),
		.instance_id = htole64(auth->instance_id),
		.queue_depth = htole32(auth->queue_depth),
		.heartbeat_ms = htole32(auth->heartbeat_ms),
	};

	memcpy(frame.nonce, auth->nonce, sizeof(frame.nonce));
	memcpy(frame.proof, auth->proof, sizeof(frame.proof));
	memcpy(ret_bytes, &frame, sizeof(frame));
}

int wire_auth_unpack(const uint8_t bytes[WIRE_AUTH_BYTES], struct wire_auth *ret_auth)
{
	struct frame_auth frame;

	memcpy(&frame, bytes, sizeof(frame));
	if (!frame_magic_is(&frame.magic, FRAME_KIND_AUTH) || frame.zero != 0)
		return -EPROTO;
	if (frame.version == 0 || frame.queue_depth == 0 || frame.heartbeat_ms == 0)
		return -EPROTO;
	ret_auth->version = le16toh(frame.version);
	ret_auth->channel = le32toh(frame.channel);
	ret_auth->lease_id = le64toh(frame.lease_id);
	ret_auth->instance_id = le64toh(frame.instance_id);
	ret_auth->queue_depth = le32toh(frame.queue_depth);
	ret_auth->heartbeat_ms = le32toh(frame.heartbeat_ms);
	memcpy(ret_auth->nonce, frame.nonce, sizeof(frame.nonce));
	memcpy(ret_auth->proof, frame.proof, sizeof(frame.proof));
	return 0;
}

void wire_ready_pack(const struct wire_ready *ready, uint8_t ret_bytes[WIRE_READY_BYTES])
{
	struct frame_ready frame = {
		.magic = frame_magic_make(FRAME_KIND_READY),
		.refusal = htole32(ready->refusal),
		.max_payload_bytes = htole32(ready->max_payload_bytes),
		.queue_depth = htole32(ready->queue_depth),
		.silence_ms = htole32(ready->silence_ms),
	};

	memcpy(frame.proof, ready->proof, sizeof(frame.proof));
	memcpy(ret_bytes, &frame, sizeof(frame));
}

int wire_ready_unpack(const uint8_t bytes[WIRE_READY_BYTES], struct wire_ready *ret_ready)
{
	struct frame_ready frame;
	uint32_t refusal;

	memcpy(&frame, bytes, sizeof(frame));
	refusal = le32toh(frame.refusal);
	if (!frame_magic_is(&frame.magic, FRAME_KIND_READY) || refusal >= WIRE_NR_REFUSALS)
		return -EPROTO;
	if (refusal == WIRE_REFUSAL_NONE) {
		if (frame.max_payload_bytes == 0 || frame.queue_depth == 0 || frame.silence_ms == 0)
			return -EPROTO;
	} else if (frame.max_payload_bytes != 0 || frame.queue_depth != 0 || frame.silence_ms != 0 ||
		   !frame_all_zero(frame.proof, sizeof(frame.proof))) {
		return -EPROTO;
	}
	ret_ready->refusal = refusal;
	ret_ready->max_payload_bytes = le32toh(frame.max_payload_bytes);
	ret_ready->queue_depth = le32toh(frame.queue_depth);
	ret_ready->silence_ms = le32toh(frame.silence_ms);
	memcpy(ret_ready->proof, frame.proof, sizeof(frame.proof));
	return 0;
}

void wire_request_pack(const struct wire_request *request, uint8_t ret_bytes[WIRE_REQUEST_BYTES])
{
	struct frame_request frame = {
		.opcode = request->opcode,
		.tag = htole32(request->tag),
		.slab = htole32(request->slab),
		.key = htole32(request->key),
		.offset_bytes = htole64(request->offset_bytes),
		.len_bytes = htole32(request->len_bytes),
	};

	frame.crc = htole32(wire_crc32c(&frame, offsetof(struct frame_request, crc)));
	memcpy(ret_bytes, &frame, sizeof(frame));
}

int wire_request_unpack(const uint8_t bytes[WIRE_REQUEST_BYTES], struct wire_request *ret_request)
{
	struct frame_request frame;
	uint32_t len_bytes;
	uint64_t offset_bytes;

	memcpy(&frame, bytes, sizeof(frame));
	if (le32toh(frame.crc) != wire_crc32c(&frame, offsetof(struct frame_request, crc)))
		return -EPROTO;
	if ((frame.zero[0] | frame.zero[1] | frame.zero[2]) != 0)
		return -EPROTO;
	len_bytes = le32toh(frame.len_bytes);
	offset_bytes = le64toh(frame.offset_bytes);
	switch (frame.opcode) {
	case WIRE_OPCODE_READ:
	case WIRE_OPCODE_WRITE:
		if (len_bytes == 0 || len_bytes > WIRE_MAX_PAYLOAD_BYTES || offset_bytes > UINT64_MAX - len_bytes)
			return -EPROTO;
		break;
	case WIRE_OPCODE_PING:
		if (len_bytes != 0 || offset_bytes != 0 || frame.slab != 0 || frame.key != 0)
			return -EPROTO;
		break;
	default:
		return -EPROTO;
	}
	ret_request->opcode = frame.opcode;
	ret_request->tag = le32toh(frame.tag);
	ret_request->slab = le32toh(frame.slab);
	ret_request->key = le32toh(frame.key);
	ret_request->offset_bytes = offset_bytes;
	ret_request->len_bytes = len_bytes;
	return 0;
}

void wire_response_pack(const struct wire_response *response, uint8_t ret_bytes[WIRE_RESPONSE_BYTES])
{
	struct frame_response frame = {
		.opcode = response->opcode,
		.status = response->status,
		.tag = htole32(response->tag),
		.len_bytes = htole32(response->len_bytes),
	};

	frame.crc = htole32(wire_crc32c(&frame, offsetof(struct frame_response, crc)));
	memcpy(ret_bytes, &frame, sizeof(frame));
}

int wire_response_unpack(const uint8_t bytes[WIRE_RESPONSE_BYTES], struct wire_response *ret_response)
{
	struct frame_response frame;
	uint32_t len_bytes;
	bool payload;

	memcpy(&frame, bytes, sizeof(frame));
	if (le32toh(frame.crc) != wire_crc32c(&frame, offsetof(struct frame_response, crc)))
		return -EPROTO;
	if (frame.zero != 0 || frame.status >= WIRE_NR_STATUSES)
		return -EPROTO;
	if (frame.opcode < WIRE_OPCODE_READ || frame.opcode > WIRE_OPCODE_PING)
		return -EPROTO;
	len_bytes = le32toh(frame.len_bytes);
	payload = frame.opcode == WIRE_OPCODE_READ && frame.status == WIRE_STATUS_OK;
	if (payload != (len_bytes != 0) || len_bytes > WIRE_MAX_PAYLOAD_BYTES)
		return -EPROTO;
	ret_response->opcode = frame.opcode;
	ret_response->status = frame.status;
	ret_response->tag = le32toh(frame.tag);
	ret_response->len_bytes = len_bytes;
	return 0;
}

int wire_version_choose(const struct wire_hello *hello, uint16_t *ret_version)
{
	if (hello->min_version > WIRE_VERSION_MAX || hello->max_version < WIRE_VERSION_MIN)
		return -EPROTONOSUPPORT;
	*ret_version = hello->max_version < WIRE_VERSION_MAX ? hello->max_version : WIRE_VERSION_MAX;
	return 0;
}

enum wire_status wire_status_from_err(int err)
{
	switch (err) {
	case 0:
		return WIRE_STATUS_OK;
	case -EACCES:
		return WIRE_STATUS_DENIED;
	case -ERANGE:
		return WIRE_STATUS_RANGE;
	default:
		return WIRE_STATUS_FAILED;
	}
}

int wire_status_to_err(uint8_t status)
{
	static const int errs[WIRE_NR_STATUSES] = { 0, -EACCES, -ERANGE, -EIO };

	return status < WIRE_NR_STATUSES ? errs[status] : -EPROTO;
}

enum wire_refusal wire_refusal_from_err(int err)
{
	switch (err) {
	case 0:
		return WIRE_REFUSAL_NONE;
	case -ESTALE:
		return WIRE_REFUSAL_STALE;
	case -EACCES:
		return WIRE_REFUSAL_DENIED;
	case -EPROTONOSUPPORT:
		return WIRE_REFUSAL_VERSION;
	case -EPROTO:
		return WIRE_REFUSAL_PROTOCOL;
	default:
		return WIRE_REFUSAL_LIMIT;
	}
}

int wire_refusal_to_err(uint32_t refusal)
{
	static const int errs[WIRE_NR_REFUSALS] = { 0, -ESTALE, -EACCES, -EPROTONOSUPPORT, -EMFILE, -EPROTO };

	return refusal < WIRE_NR_REFUSALS ? errs[refusal] : -EPROTO;
}

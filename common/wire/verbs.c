#include "common/wire/verbs.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#define VERBS_MAGIC 0xfa5au

enum verbs_kind { VERBS_KIND_REQ = 1, VERBS_KIND_REP = 2, VERBS_KIND_REJ = 3, VERBS_KIND_MAP = 4, VERBS_KIND_MAPPED = 5 };

struct verbs_head {
	uint16_t magic;
	uint8_t kind;
	uint8_t version; /* a message's: 0 */
};

struct verbs_req {
	struct verbs_head head;
	uint16_t channel;
	uint16_t instance_tag;
	uint64_t lease_id;
	uint64_t counter;
	uint8_t proof[WIRE_PROOF_BYTES];
};

struct verbs_rep {
	struct verbs_head head;
	uint32_t silence_ms;
	uint64_t beat_address;
	uint32_t beat_rkey;
	uint32_t zero[3];
	uint8_t proof[WIRE_PROOF_BYTES];
};

struct verbs_rej {
	struct verbs_head head;
	uint32_t refusal;
};

struct verbs_map {
	struct verbs_head head;
	uint32_t slab;
	uint32_t key;
	uint32_t zero;
};

struct verbs_mapped {
	struct verbs_head head;
	uint32_t slab;
	uint32_t key;
	uint32_t status;
	uint64_t address;
	uint64_t len_bytes;
	uint32_t rkey;
	uint32_t zero;
};

static_assert(sizeof(struct verbs_req) == WIRE_VERBS_REQ_BYTES, "REQ on the wire");
static_assert(offsetof(struct verbs_req, proof) == 24, "REQ on the wire");
static_assert(sizeof(struct verbs_rep) == WIRE_VERBS_REP_BYTES, "REP on the wire");
static_assert(offsetof(struct verbs_rep, proof) == 32, "REP on the wire");
static_assert(sizeof(struct verbs_rej) == WIRE_VERBS_REJ_BYTES, "REJ on the wire");
static_assert(sizeof(struct verbs_map) == WIRE_VERBS_MAP_BYTES, "MAP on the wire");
static_assert(sizeof(struct verbs_mapped) == WIRE_VERBS_MAPPED_BYTES, "MAPPED on the wire");
static_assert(sizeof(struct wire_verbs_beat) == 32, "the beat on the wire");

static const char verbs_label_initiator[] = "farswap verbs initiator";
static const char verbs_label_lender[] = "farswap verbs lender   ";

static_assert(sizeof(verbs_label_initiator) == sizeof(verbs_label_lender), "labels of one length");

static struct verbs_head head_make(enum verbs_kind kind, uint8_t version)
{
	return (struct verbs_head){ .magic = htole16(VERBS_MAGIC), .kind = (uint8_t)kind, .version = version };
}

static bool head_is(const struct verbs_head *head, enum verbs_kind kind)
{
	return le16toh(head->magic) == VERBS_MAGIC && head->kind == kind;
}

uint16_t wire_verbs_instance_tag(uint64_t instance_id)
{
	return (uint16_t)(instance_id ^ instance_id >> 16 ^ instance_id >> 32 ^ instance_id >> 48);
}

void wire_verbs_req_pack(const struct wire_verbs_req *req, uint8_t ret_bytes[WIRE_VERBS_REQ_BYTES])
{
	struct verbs_req wire = {
		.head = head_make(VERBS_KIND_REQ, req->version),
		.channel = htole16(req->channel),
		.instance_tag = htole16(req->instance_tag),
		.lease_id = htole64(req->lease_id),
		.counter = htole64(req->counter),
	};

	memcpy(wire.proof, req->proof, sizeof(wire.proof));
	memcpy(ret_bytes, &wire, sizeof(wire));
}

int wire_verbs_req_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_req *ret_req)
{
	struct verbs_req wire;

	if (len_bytes < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, bytes, sizeof(wire));
	if (!head_is(&wire.head, VERBS_KIND_REQ) || wire.head.version == 0 || wire.counter == 0)
		return -EPROTO;
	ret_req->version = wire.head.version;
	ret_req->channel = le16toh(wire.channel);
	ret_req->instance_tag = le16toh(wire.instance_tag);
	ret_req->lease_id = le64toh(wire.lease_id);
	ret_req->counter = le64toh(wire.counter);
	memcpy(ret_req->proof, wire.proof, sizeof(wire.proof));
	return 0;
}

void wire_verbs_rep_pack(const struct wire_verbs_rep *rep, uint8_t ret_bytes[WIRE_VERBS_REP_BYTES])
{
	struct verbs_rep wire = {
		.head = head_make(VERBS_KIND_REP, rep->version),
		.silence_ms = htole32(rep->silence_ms),
		.beat_address = htole64(rep->beat_address),
		.beat_rkey = htole32(rep->beat_rkey),
	};

	memcpy(wire.proof, rep->proof, sizeof(wire.proof));
	memcpy(ret_bytes, &wire, sizeof(wire));
}

int wire_verbs_rep_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_rep *ret_rep)
{
	struct verbs_rep wire;

	if (len_bytes < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, bytes, sizeof(wire));
	if (!head_is(&wire.head, VERBS_KIND_REP) || wire.head.version == 0 || wire.silence_ms == 0 || wire.zero[0] != 0 ||
	    wire.zero[1] != 0 || wire.zero[2] != 0)
		return -EPROTO;
	ret_rep->version = wire.head.version;
	ret_rep->silence_ms = le32toh(wire.silence_ms);
	ret_rep->beat_address = le64toh(wire.beat_address);
	ret_rep->beat_rkey = le32toh(wire.beat_rkey);
	memcpy(ret_rep->proof, wire.proof, sizeof(wire.proof));
	return 0;
}

void wire_verbs_rej_pack(enum wire_refusal refusal, uint8_t ret_bytes[WIRE_VERBS_REJ_BYTES])
{
	struct verbs_rej wire = {
		.head = head_make(VERBS_KIND_REJ, WIRE_VERBS_VERSION),
		.refusal = htole32((uint32_t)refusal),
	};

	memcpy(ret_bytes, &wire, sizeof(wire));
}

int wire_verbs_rej_unpack(const uint8_t *bytes, size_t len_bytes, uint32_t *ret_refusal)
{
	struct verbs_rej wire;

	if (len_bytes < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, bytes, sizeof(wire));
	if (!head_is(&wire.head, VERBS_KIND_REJ) || wire.refusal == 0 || le32toh(wire.refusal) >= WIRE_NR_REFUSALS)
		return -EPROTO;
	*ret_refusal = le32toh(wire.refusal);
	return 0;
}

void wire_verbs_beat_pack(const struct wire_verbs_beat *beat, uint8_t ret_bytes[sizeof(struct wire_verbs_beat)])
{
	struct wire_verbs_beat wire = {
		.counter = htole64(beat->counter),
		.read_bytes = htole64(beat->read_bytes),
		.written_bytes = htole64(beat->written_bytes),
	};

	memcpy(ret_bytes, &wire, sizeof(wire));
}

void wire_verbs_map_pack(const struct wire_verbs_map *map, uint8_t ret_bytes[WIRE_VERBS_MAP_BYTES])
{
	struct verbs_map wire = {
		.head = head_make(VERBS_KIND_MAP, 0),
		.slab = htole32(map->slab),
		.key = htole32(map->key),
	};

	memcpy(ret_bytes, &wire, sizeof(wire));
}

int wire_verbs_map_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_map *ret_map)
{
	struct verbs_map wire;

	if (len_bytes != sizeof(wire))
		return -EPROTO;
	memcpy(&wire, bytes, sizeof(wire));
	if (!head_is(&wire.head, VERBS_KIND_MAP) || wire.head.version != 0 || wire.zero != 0)
		return -EPROTO;
	ret_map->slab = le32toh(wire.slab);
	ret_map->key = le32toh(wire.key);
	return 0;
}

void wire_verbs_mapped_pack(const struct wire_verbs_mapped *mapped, uint8_t ret_bytes[WIRE_VERBS_MAPPED_BYTES])
{
	struct verbs_mapped wire = {
		.head = head_make(VERBS_KIND_MAPPED, 0),
		.slab = htole32(mapped->slab),
		.key = htole32(mapped->key),
		.status = htole32(mapped->status),
		.address = htole64(mapped->address),
		.len_bytes = htole64(mapped->len_bytes),
		.rkey = htole32(mapped->rkey),
	};

	memcpy(ret_bytes, &wire, sizeof(wire));
}

int wire_verbs_mapped_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_mapped *ret_mapped)
{
	struct verbs_mapped wire;
	uint32_t status;

	if (len_bytes != sizeof(wire))
		return -EPROTO;
	memcpy(&wire, bytes, sizeof(wire));
	status = le32toh(wire.status);
	if (!head_is(&wire.head, VERBS_KIND_MAPPED) || wire.head.version != 0 || wire.zero != 0 || status >= WIRE_NR_STATUSES)
		return -EPROTO;
	if (status == WIRE_STATUS_OK ? wire.len_bytes == 0 : wire.address != 0 || wire.len_bytes != 0 || wire.rkey != 0)
		return -EPROTO;
	ret_mapped->slab = le32toh(wire.slab);
	ret_mapped->key = le32toh(wire.key);
	ret_mapped->status = (uint8_t)status;
	ret_mapped->address = le64toh(wire.address);
	ret_mapped->len_bytes = le64toh(wire.len_bytes);
	ret_mapped->rkey = le32toh(wire.rkey);
	/* Offsets into it are added to the address. */
	return ret_mapped->len_bytes > UINT64_MAX - ret_mapped->address ? -EPROTO : 0;
}

/* Hashed as it goes over the wire, with a blank proof, and behind it the instance, which does not. */
static void proof_begin(crypto_auth_hmacsha256_state *state, const uint8_t *token, const char *label, uint64_t instance_id,
			const struct wire_verbs_req *req)
{
	struct wire_verbs_req blank = *req;
	uint8_t bytes[WIRE_VERBS_REQ_BYTES];

	memset(blank.proof, 0, sizeof(blank.proof));
	wire_verbs_req_pack(&blank, bytes);
	instance_id = htole64(instance_id);
	crypto_auth_hmacsha256_init(state, token, WIRE_TOKEN_BYTES);
	crypto_auth_hmacsha256_update(state, (const unsigned char *)label, sizeof(verbs_label_initiator));
	crypto_auth_hmacsha256_update(state, bytes, sizeof(bytes));
	crypto_auth_hmacsha256_update(state, (const unsigned char *)&instance_id, sizeof(instance_id));
}

void wire_verbs_proof_initiator(const uint8_t token[WIRE_TOKEN_BYTES], uint64_t instance_id,
				const struct wire_verbs_req *req, uint8_t ret_proof[WIRE_PROOF_BYTES])
{
	crypto_auth_hmacsha256_state state;

	proof_begin(&state, token, verbs_label_initiator, instance_id, req);
	crypto_auth_hmacsha256_final(&state, ret_proof);
	sodium_memzero(&state, sizeof(state));
}

void wire_verbs_proof_lender(const uint8_t token[WIRE_TOKEN_BYTES], uint64_t instance_id, const struct wire_verbs_req *req,
			     const struct wire_verbs_rep *rep, uint8_t ret_proof[WIRE_PROOF_BYTES])
{
	crypto_auth_hmacsha256_state state;
	struct wire_verbs_rep blank = *rep;
	uint8_t bytes[WIRE_VERBS_REP_BYTES];

	memset(blank.proof, 0, sizeof(blank.proof));
	wire_verbs_rep_pack(&blank, bytes);
	proof_begin(&state, token, verbs_label_lender, instance_id, req);
	crypto_auth_hmacsha256_update(&state, bytes, sizeof(bytes));
	crypto_auth_hmacsha256_final(&state, ret_proof);
	sodium_memzero(&state, sizeof(state));
}

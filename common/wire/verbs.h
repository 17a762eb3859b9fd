/*
 * What is said over RDMA beside the operations themselves: the private data of the connection manager's REQ, REP and REJ, and
 * the two messages by which an initiator learns where a slab is.
 *
 * REQ has room for 56 bytes only, so that there is no challenge. Instead each REQ has a counter, which is the initiator's
 * clock and grows with every connection on a lease and channel; the lender takes none that is not above the last, so that a
 * recorded REQ opens nothing. Both sides prove by HMAC-SHA-256, keyed with the lease's token, that they know it: the
 * initiator over its REQ and the instance that it means, the lender over that and its REP, each under a label of its own.
 *
 * All numbers are little-endian. Pure functions; any thread.
 */
#ifndef FARSWAP_COMMON_WIRE_VERBS_H
#define FARSWAP_COMMON_WIRE_VERBS_H

#include "common/wire/frame.h"

#define WIRE_VERBS_VERSION 1

#define WIRE_VERBS_REQ_BYTES 56 /* all that a REQ has room for, for a port of RDMA_PS_TCP */
#define WIRE_VERBS_REP_BYTES 64
#define WIRE_VERBS_REJ_BYTES 8
#define WIRE_VERBS_MAP_BYTES 16
#define WIRE_VERBS_MAPPED_BYTES 40

/* Map requests that an initiator may have under way, and so the receives that both sides keep posted. */
#define WIRE_VERBS_MAX_MAPS 16

struct wire_verbs_req {
	uint8_t version;
	uint16_t channel;
	uint16_t instance_tag; /* wire_verbs_instance_tag: tells an instance that has gone from a proof that is wrong */
	uint64_t lease_id;
	uint64_t counter; /* not 0 */
	uint8_t proof[WIRE_PROOF_BYTES];
};

struct wire_verbs_rep {
	uint8_t version;
	uint32_t silence_ms;	/* after which the lender cuts a connection that shows no life */
	uint64_t beat_address;	/* where the initiator writes its struct wire_verbs_beat */
	uint32_t beat_rkey;
	uint8_t proof[WIRE_PROOF_BYTES];
};

/*
 * The heartbeat: written as a whole, as it stands here, by one RDMA WRITE. What the device does for the initiator the lender
 * does not see, so the books come with it.
 */
struct wire_verbs_beat {
	uint64_t counter; /* grows with every beat; the first is 1 */
	uint64_t read_bytes; /* on this connection so far */
	uint64_t written_bytes;
	uint64_t zero;
};

/* Initiator to lender: where is this slab? */
struct wire_verbs_map {
	uint32_t slab;
	uint32_t key;
};

/* Lender to initiator: there. When status is not OK everything behind it is 0. */
struct wire_verbs_mapped {
	uint32_t slab;
	uint32_t key;
	uint8_t status; /* enum wire_status */
	uint32_t rkey;
	uint64_t address;
	uint64_t len_bytes;
};

uint16_t wire_verbs_instance_tag(uint64_t instance_id);

void wire_verbs_req_pack(const struct wire_verbs_req *req, uint8_t ret_bytes[WIRE_VERBS_REQ_BYTES]);
void wire_verbs_rep_pack(const struct wire_verbs_rep *rep, uint8_t ret_bytes[WIRE_VERBS_REP_BYTES]);
void wire_verbs_rej_pack(enum wire_refusal refusal, uint8_t ret_bytes[WIRE_VERBS_REJ_BYTES]);
void wire_verbs_beat_pack(const struct wire_verbs_beat *beat, uint8_t ret_bytes[sizeof(struct wire_verbs_beat)]);
void wire_verbs_map_pack(const struct wire_verbs_map *map, uint8_t ret_bytes[WIRE_VERBS_MAP_BYTES]);
void wire_verbs_mapped_pack(const struct wire_verbs_mapped *mapped, uint8_t ret_bytes[WIRE_VERBS_MAPPED_BYTES]);

/*
 * 0, or -EPROTO for what is not ours or too short. len_bytes may be more than a message has: the connection manager pads
 * private data. A REQ or REP of another version is taken apart all the same, for its version to be refused.
 */
int wire_verbs_req_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_req *ret_req) BASE_MUST_CHECK;
int wire_verbs_rep_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_rep *ret_rep) BASE_MUST_CHECK;
int wire_verbs_rej_unpack(const uint8_t *bytes, size_t len_bytes, uint32_t *ret_refusal) BASE_MUST_CHECK;
int wire_verbs_map_unpack(const uint8_t *bytes, size_t len_bytes, struct wire_verbs_map *ret_map) BASE_MUST_CHECK;
int wire_verbs_mapped_unpack(const uint8_t *bytes, size_t len_bytes,
			     struct wire_verbs_mapped *ret_mapped) BASE_MUST_CHECK;

/* The proofs of both sides; after wire_proof_init. The proof inside of req and rep is not read. */
void wire_verbs_proof_initiator(const uint8_t token[WIRE_TOKEN_BYTES], uint64_t instance_id,
				const struct wire_verbs_req *req, uint8_t ret_proof[WIRE_PROOF_BYTES]);
void wire_verbs_proof_lender(const uint8_t token[WIRE_TOKEN_BYTES], uint64_t instance_id, const struct wire_verbs_req *req,
			     const struct wire_verbs_rep *rep, uint8_t ret_proof[WIRE_PROOF_BYTES]);

#endif

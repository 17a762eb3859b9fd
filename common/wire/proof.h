/*
 * How both ends of a data connection prove that they know the lease's token, without sending it.
 *
 * Each end hashes (HMAC-SHA-256, RFC 2104, keyed with the token) everything that was said so far, under a label of its
 * own: the lender's nonce and offer, the initiator's nonce and wishes, and for the lender's proof also its answer. The
 * lender's nonce is fresh for each connection, so a recorded AUTH proves nothing; the labels differ, so neither end's
 * proof can be sent back to it; the offered versions are inside, so nobody can talk the two into an older one.
 *
 * Any thread, after wire_proof_init.
 */
#ifndef FARSWAP_COMMON_WIRE_PROOF_H
#define FARSWAP_COMMON_WIRE_PROOF_H

#include "common/wire/frame.h"

/* Before anything else here; any number of times, any thread. 0 or -EIO when the system gives no randomness. */
int wire_proof_init(void) BASE_MUST_CHECK;

/* A nonce that nobody can foretell. */
void wire_nonce_make(uint8_t ret_nonce[WIRE_NONCE_BYTES]);

/* The initiator's proof. auth->proof is not read. */
void wire_proof_initiator(const uint8_t token[WIRE_TOKEN_BYTES], const struct wire_hello *hello,
			  const struct wire_auth *auth, uint8_t ret_proof[WIRE_PROOF_BYTES]);

/* The lender's proof. ready->proof and auth->proof are not read. */
void wire_proof_lender(const uint8_t token[WIRE_TOKEN_BYTES], const struct wire_hello *hello,
		       const struct wire_auth *auth, const struct wire_ready *ready,
		       uint8_t ret_proof[WIRE_PROOF_BYTES]);

/* In constant time. */
bool wire_proof_equal(const uint8_t a[WIRE_PROOF_BYTES], const uint8_t b[WIRE_PROOF_BYTES]);

/* Forgets a token that is no longer needed; the compiler may not leave it out. */
void wire_token_wipe(uint8_t token[WIRE_TOKEN_BYTES]);

#endif

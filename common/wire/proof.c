#include "common/wire/proof.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

static_assert(WIRE_TOKEN_BYTES == crypto_auth_hmacsha256_KEYBYTES, "a token is a key of HMAC-SHA-256");
static_assert(WIRE_PROOF_BYTES == crypto_auth_hmacsha256_BYTES, "a proof is what HMAC-SHA-256 gives");

/* With their final zeros both have the same length. */
static const char proof_label_initiator[] = "farswap data initiator";
static const char proof_label_lender[] = "farswap data lender   ";

static_assert(sizeof(proof_label_initiator) == sizeof(proof_label_lender), "labels of one length");

int wire_proof_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

void wire_nonce_make(uint8_t ret_nonce[WIRE_NONCE_BYTES])
{
	randombytes_buf(ret_nonce, WIRE_NONCE_BYTES);
}

/* The frames are hashed as they go over the wire, with their proofs blank: of fixed length, so nothing is ambiguous. */
static void proof_begin(crypto_auth_hmacsha256_state *state, const uint8_t *token, const char *label,
			const struct wire_hello *hello, const struct wire_auth *auth)
{
	struct wire_auth blank = *auth;
	uint8_t hello_bytes[WIRE_HELLO_BYTES];
	uint8_t auth_bytes[WIRE_AUTH_BYTES];

	memset(blank.proof, 0, sizeof(blank.proof));
	wire_hello_pack(hello, hello_bytes);
	wire_auth_pack(&blank, auth_bytes);
	crypto_auth_hmacsha256_init(state, token, WIRE_TOKEN_BYTES);
	crypto_auth_hmacsha256_update(state, (const unsigned char *)label, sizeof(proof_label_initiator));
	crypto_auth_hmacsha256_update(state, hello_bytes, sizeof(hello_bytes));
	crypto_auth_hmacsha256_update(state, auth_bytes, sizeof(auth_bytes));
}

void wire_proof_initiator(const uint8_t token[WIRE_TOKEN_BYTES], const struct wire_hello *hello,
			  const struct wire_auth *auth, uint8_t ret_proof[WIRE_PROOF_BYTES])
{
	crypto_auth_hmacsha256_state state;

	proof_begin(&state, token, proof_label_initiator, hello, auth);
	crypto_auth_hmacsha256_final(&state, ret_proof);
	sodium_memzero(&state, sizeof(state));
}

void wire_proof_lender(const uint8_t token[WIRE_TOKEN_BYTES], const struct wire_hello *hello,
		       const struct wire_auth *auth, const struct wire_ready *ready,
		       uint8_t ret_proof[WIRE_PROOF_BYTES])
{
	crypto_auth_hmacsha256_state state;
	struct wire_ready blank = *ready;
	uint8_t ready_bytes[WIRE_READY_BYTES];

	memset(blank.proof, 0, sizeof(blank.proof));
	wire_ready_pack(&blank, ready_bytes);
	proof_begin(&state, token, proof_label_lender, hello, auth);
	crypto_auth_hmacsha256_update(&state, ready_bytes, sizeof(ready_bytes));
	crypto_auth_hmacsha256_final(&state, ret_proof);
	sodium_memzero(&state, sizeof(state));
}

bool wire_proof_equal(const uint8_t a[WIRE_PROOF_BYTES], const uint8_t b[WIRE_PROOF_BYTES])
{
	return sodium_memcmp(a, b, WIRE_PROOF_BYTES) == 0;
}

void wire_token_wipe(uint8_t token[WIRE_TOKEN_BYTES])
{
	sodium_memzero(token, WIRE_TOKEN_BYTES);
}

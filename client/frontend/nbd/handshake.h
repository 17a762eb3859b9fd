/*
 * The server's side of the NBD handshake, fixed newstyle, without the socket: bytes in, bytes out.
 *
 * One export, called "farswap" and "" (the default). Touches nothing but the structure it is given; the same bytes in
 * give the same bytes out, which is what lets a fuzzer drive it.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_HANDSHAKE_H
#define FARSWAP_CLIENT_FRONTEND_NBD_HANDSHAKE_H

#include "client/frontend/nbd/wire.h"
#include "common/base/base.h"

#define NBD_EXPORT_NAME "farswap"

/* The longest data of an option that is looked at: a name of the greatest length and a generous list of infos. */
#define NBD_OPTION_MAX_BYTES (4u + NBD_NAME_MAX_BYTES + 2u + 2u * 64u)
/* Longer ones up to this are passed over and refused; behind it the connection is cut. */
#define NBD_OPTION_SKIP_MAX_BYTES 65536u
/* What the caller must be able to hold of input at a time, and the most that one message is answered with. */
#define NBD_HANDSHAKE_IN_BYTES (NBD_OPTION_HEADER_BYTES + NBD_OPTION_MAX_BYTES)
#define NBD_HANDSHAKE_OUT_BYTES 512u

enum nbd_handshake_state {
	NBD_HANDSHAKE_CLIENT_FLAGS,
	NBD_HANDSHAKE_OPTIONS,
	NBD_HANDSHAKE_SKIPPING,	    /* the data of an option that is too long */
	NBD_HANDSHAKE_TRANSMISSION, /* over: requests follow */
	NBD_HANDSHAKE_LEAVING,	    /* over: send what is in out, then close */
	NBD_HANDSHAKE_REFUSED,	    /* over: close; the protocol has no way to say that the export does not exist */
	NBD_HANDSHAKE_GARBAGE,	    /* over: close; this is not NBD */
};

struct nbd_handshake {
	enum nbd_handshake_state state;
	uint64_t export_bytes;
	bool no_zeroes;
	bool structured_replies; /* negotiated */
	uint32_t option;	 /* that is being passed over */
	uint32_t skip_bytes;
	/* For the client: the caller sends it, sets nr_out to 0, and only then feeds again. */
	size_t nr_out;
	unsigned char out[NBD_HANDSHAKE_OUT_BYTES];
};

/* Begins; the server's greeting is in out afterwards. */
void nbd_handshake_init(struct nbd_handshake *handshake, uint64_t export_bytes);

/*
 * Takes at most one message from the start of buf. Returns the bytes it took; 0 when the message is not complete yet
 * (one of NBD_HANDSHAKE_IN_BYTES always is) or the handshake is over. nr_out must be 0.
 */
size_t nbd_handshake_feed(struct nbd_handshake *handshake, const void *buf, size_t len_bytes);

static inline bool nbd_handshake_over(const struct nbd_handshake *handshake)
{
	return handshake->state >= NBD_HANDSHAKE_TRANSMISSION;
}

#endif

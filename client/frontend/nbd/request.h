/*
 * NBD's transmission phase without the socket: requests are unpacked and checked, replies are packed.
 *
 * Pure functions on the memory they are given.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_REQUEST_H
#define FARSWAP_CLIENT_FRONTEND_NBD_REQUEST_H

#include "client/frontend/nbd/wire.h"
#include "common/base/base.h"

/* The most that stands before (or instead of) the data of a reply. */
#define NBD_REPLY_HEAD_BYTES 128u

/*
 * The payload of a WRITE that is refused is read and thrown away up to this length (which the protocol's document names
 * as the least that may be taken for an attack); a longer one ends the connection.
 */
#define NBD_SKIP_MAX_BYTES (32u << 20)

struct nbd_request {
	uint16_t flags;
	uint16_t type;
	uint32_t len_bytes;
	uint64_t offset_bytes;
	uint64_t handle; /* the client's; bytes, not a number */
};

/* From NBD_REQUEST_BYTES bytes. 0, or -EPROTO when they are no request. */
int nbd_request_unpack(const unsigned char *buf, struct nbd_request *ret_request) BASE_MUST_CHECK;

/*
 * Whether a request may be served by an export of that size: an error of enum nbd_error, with a text (static) for the
 * client's user when it is not NBD_SUCCESS. DISC is not asked about.
 */
enum nbd_error nbd_request_check(const struct nbd_request *request, uint64_t export_bytes, bool structured_replies,
				 const char **ret_text);

/* The protocol's number for the status of a finished fsw_io, and words for it. */
enum nbd_error nbd_error_of_status(int status, const char **ret_text);

/*
 * Packs what precedes the data of a successful READ, or the whole reply of all else, into head. Returns its length. text
 * (up to 80 bytes are sent) is for errors and may be NULL otherwise.
 */
size_t nbd_reply_pack(unsigned char head[NBD_REPLY_HEAD_BYTES], const struct nbd_request *request,
		      bool structured_replies, enum nbd_error error, const char *text);

#endif

/*
 * What the kernel asks of a FUSE file system with one file, told apart: the few requests that move pages, which we serve
 * ourselves, and all others, which libfuse answers.
 *
 * Pure functions on the memory they are given.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_FUSE_WIRE_H
#define FARSWAP_CLIENT_FRONTEND_FUSE_WIRE_H

#include <linux/fuse.h>

#include "common/base/base.h"

#define FUSE_WIRE_FILE_NODE (FUSE_ROOT_ID + 1ull) /* the node of the file */
#define FUSE_WIRE_MAX_BYTES (1u << 20)		  /* of one READ or WRITE */
/* In front of a WRITE's payload. The head of every request that is decoded is no longer. */
#define FUSE_WIRE_HEAD_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

enum fuse_wire_kind {
	FUSE_WIRE_READ,
	FUSE_WIRE_WRITE,
	FUSE_WIRE_DISCARD,
	FUSE_WIRE_WRITE_ZEROES,
	FUSE_WIRE_SYNC,
	FUSE_WIRE_OPEN,
	FUSE_WIRE_REPLY,   /* answer with error (0: success) and nothing else */
	FUSE_WIRE_IGNORE,  /* wants no answer */
	FUSE_WIRE_LIBRARY, /* libfuse's */
};

struct fuse_wire_request {
	enum fuse_wire_kind kind;
	int error; /* negative errno; REPLY only */
	uint64_t unique;
	uint64_t page;
	uint64_t nr_pages; /* READ: cut at the end of the file; may be 0 there */
};

/*
 * Decodes a request of len_bytes, of which at least the first FUSE_WIRE_HEAD_BYTES (or all) are at head, to a file of
 * nr_pages. 0; -EPROTO when not even the header is right: there is nobody to answer then.
 */
int fuse_wire_decode(const void *head, size_t len_bytes, uint64_t nr_pages,
		     struct fuse_wire_request *ret_request) BASE_MUST_CHECK;

#endif

#include "client/frontend/fuse/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

_Static_assert(FUSE_WIRE_HEAD_BYTES == 80, "as on the wire");

static void refuse(struct fuse_wire_request *request, int error)
{
	request->kind = FUSE_WIRE_REPLY;
	request->error = error;
}

/* Offset and length into pages. False when they are not whole pages. */
static bool take_range(struct fuse_wire_request *request, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (offset_bytes % FSW_PAGE_SIZE != 0 || len_bytes % FSW_PAGE_SIZE != 0)
		return false;
	request->page = offset_bytes >> FSW_PAGE_SHIFT;
	request->nr_pages = len_bytes >> FSW_PAGE_SHIFT;
	return true;
}

static bool within(const struct fuse_wire_request *request, uint64_t nr_pages)
{
	return request->page <= nr_pages && request->nr_pages <= nr_pages - request->page;
}

static void decode_read(const void *body, size_t body_bytes, uint64_t nr_pages, struct fuse_wire_request *request)
{
	struct fuse_read_in in;

	if (body_bytes < sizeof(in)) {
		refuse(request, -EIO);
		return;
	}
	memcpy(&in, body, sizeof(in));
	if (in.size == 0 || in.size > FUSE_WIRE_MAX_BYTES || !take_range(request, in.offset, in.size)) {
		refuse(request, -EINVAL);
		return;
	}
	request->kind = FUSE_WIRE_READ;
	if (request->page >= nr_pages)
		request->nr_pages = 0;
	else
		request->nr_pages = base_min_u64(request->nr_pages, nr_pages - request->page);
}

static void decode_write(const void *body, size_t body_bytes, uint64_t nr_pages, struct fuse_wire_request *request)
{
	struct fuse_write_in in;

	if (body_bytes < sizeof(in)) {
		refuse(request, -EIO);
		return;
	}
	memcpy(&in, body, sizeof(in));
	if (in.size != body_bytes - sizeof(in))
		refuse(request, -EIO);
	else if (in.size == 0 || in.size > FUSE_WIRE_MAX_BYTES || !take_range(request, in.offset, in.size))
		refuse(request, -EINVAL);
	else if (!within(request, nr_pages))
		refuse(request, -EFBIG);
	else
		request->kind = FUSE_WIRE_WRITE;
}

static void decode_fallocate(const void *body, size_t body_bytes, uint64_t nr_pages,
			     struct fuse_wire_request *request)
{
	struct fuse_fallocate_in in;

	if (body_bytes < sizeof(in)) {
		refuse(request, -EIO);
		return;
	}
	memcpy(&in, body, sizeof(in));
	switch (in.mode) {
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		request->kind = FUSE_WIRE_DISCARD;
		break;
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		request->kind = FUSE_WIRE_WRITE_ZEROES;
		break;
	default:
		refuse(request, -EOPNOTSUPP);
		return;
	}
	if (in.length == 0 || !take_range(request, in.offset, in.length) || !within(request, nr_pages))
		refuse(request, -EINVAL);
}

int fuse_wire_decode(const void *head, size_t len_bytes, uint64_t nr_pages, struct fuse_wire_request *ret_request)
{
	struct fuse_wire_request request = { .kind = FUSE_WIRE_LIBRARY };
	const char *body = (const char *)head + sizeof(struct fuse_in_header);
	struct fuse_in_header header;
	size_t body_bytes;

	if (len_bytes < sizeof(header))
		return -EPROTO;
	memcpy(&header, head, sizeof(header));
	if (header.len != len_bytes)
		return -EPROTO;
	body_bytes = len_bytes - sizeof(header);
	request.unique = header.unique;

	switch (header.opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		/* Nodes live as long as the mount, and nothing waits long enough to be worth interrupting. */
		request.kind = FUSE_WIRE_IGNORE;
		goto out;
	default:
		break;
	}
	if (header.nodeid != FUSE_WIRE_FILE_NODE)
		goto out;
	switch (header.opcode) {
	case FUSE_READ:
		decode_read(body, body_bytes, nr_pages, &request);
		break;
	case FUSE_WRITE:
		decode_write(body, body_bytes, nr_pages, &request);
		break;
	case FUSE_FALLOCATE:
		decode_fallocate(body, body_bytes, nr_pages, &request);
		break;
	case FUSE_FSYNC:
		request.kind = FUSE_WIRE_SYNC;
		break;
	case FUSE_FLUSH:
		refuse(&request, 0);
		break;
	case FUSE_OPEN:
		request.kind = FUSE_WIRE_OPEN;
		break;
	default:
		break;
	}
out:
	*ret_request = request;
	return 0;
}

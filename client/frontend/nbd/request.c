#include "client/frontend/nbd/request.h"

#include <errno.h>

#include "client/io.h"

#define TEXT_MAX_BYTES 80u

_Static_assert(NBD_CHUNK_HEADER_BYTES + 4 + 2 + TEXT_MAX_BYTES + 8 <= NBD_REPLY_HEAD_BYTES, "an error chunk fits");

int nbd_request_unpack(const unsigned char *buf, struct nbd_request *ret_request)
{
	if (nbd_get32(buf) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	ret_request->flags = nbd_get16(buf + 4);
	ret_request->type = nbd_get16(buf + 6);
	memcpy(&ret_request->handle, buf + 8, sizeof(ret_request->handle));
	ret_request->offset_bytes = nbd_get64(buf + 16);
	ret_request->len_bytes = nbd_get32(buf + 24);
	return 0;
}

static unsigned allowed_flags(const struct nbd_request *request, bool structured_replies)
{
	switch (request->type) {
	case NBD_CMD_READ:
		return NBD_CMD_FLAG_FUA | (structured_replies ? NBD_CMD_FLAG_DF : 0);
	case NBD_CMD_WRITE_ZEROES:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
	default:
		return NBD_CMD_FLAG_FUA;
	}
}

static enum nbd_error check_range(const struct nbd_request *request, uint64_t export_bytes, const char **ret_text)
{
	bool writes = request->type == NBD_CMD_WRITE || request->type == NBD_CMD_WRITE_ZEROES;
	bool has_data = request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE;

	if (request->len_bytes == 0) {
		*ret_text = "length of zero";
		return NBD_EINVAL;
	}
	if (request->len_bytes % FSW_PAGE_SIZE != 0 || request->offset_bytes % FSW_PAGE_SIZE != 0) {
		*ret_text = "not aligned to the block size of 4096";
		return NBD_EINVAL;
	}
	if (has_data && request->len_bytes > IO_MAX_PAGES * FSW_PAGE_SIZE) {
		*ret_text = "longer than the greatest block size";
		return NBD_EINVAL;
	}
	if (request->offset_bytes > export_bytes || request->len_bytes > export_bytes - request->offset_bytes) {
		*ret_text = "beyond the end of the export";
		return writes ? NBD_ENOSPC : NBD_EINVAL;
	}
	return NBD_SUCCESS;
}

enum nbd_error nbd_request_check(const struct nbd_request *request, uint64_t export_bytes, bool structured_replies,
				 const char **ret_text)
{
	if ((request->flags & ~allowed_flags(request, structured_replies)) != 0) {
		*ret_text = "command flag not supported";
		return NBD_EINVAL;
	}
	switch (request->type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		return check_range(request, export_bytes, ret_text);
	case NBD_CMD_FLUSH:
		if (request->len_bytes == 0 && request->offset_bytes == 0)
			return NBD_SUCCESS;
		*ret_text = "FLUSH takes neither offset nor length";
		return NBD_EINVAL;
	default:
		*ret_text = "command not supported";
		return NBD_EINVAL;
	}
}

enum nbd_error nbd_error_of_status(int status, const char **ret_text)
{
	switch (status) {
	case 0:
		return NBD_SUCCESS;
	case -ENOSPC:
		*ret_text = "no room to store the page";
		return NBD_ENOSPC;
	case -EINVAL:
	case -ERANGE:
		*ret_text = "bad request";
		return NBD_EINVAL;
	case -ENOMEM:
		*ret_text = "out of memory";
		return NBD_ENOMEM;
	default:
		*ret_text = "input/output error";
		return NBD_EIO;
	}
}

static size_t pack_simple(unsigned char *head, const struct nbd_request *request, enum nbd_error error)
{
	unsigned char *p = nbd_put32(head, NBD_SIMPLE_REPLY_MAGIC);

	p = nbd_put32(p, error);
	p = nbd_put_bytes(p, &request->handle, sizeof(request->handle));
	return (size_t)(p - head);
}

static unsigned char *pack_chunk(unsigned char *head, const struct nbd_request *request, enum nbd_reply_type type,
				 size_t len_bytes)
{
	unsigned char *p = nbd_put32(head, NBD_STRUCTURED_REPLY_MAGIC);

	p = nbd_put16(p, NBD_REPLY_FLAG_DONE);
	p = nbd_put16(p, (uint16_t)type);
	p = nbd_put_bytes(p, &request->handle, sizeof(request->handle));
	return nbd_put32(p, (uint32_t)len_bytes);
}

size_t nbd_reply_pack(unsigned char head[NBD_REPLY_HEAD_BYTES], const struct nbd_request *request,
		      bool structured_replies, enum nbd_error error, const char *text)
{
	bool read = request->type == NBD_CMD_READ;
	/* A bad request names no place of the export; a failed read says that from its first byte on nothing is known. */
	bool with_offset = read && error != NBD_EINVAL;
	size_t text_bytes;
	unsigned char *p;

	if (!structured_replies || (error == NBD_SUCCESS && !read))
		return pack_simple(head, request, error);
	if (error == NBD_SUCCESS) {
		p = pack_chunk(head, request, NBD_REPLY_TYPE_OFFSET_DATA, 8ul + request->len_bytes);
		p = nbd_put64(p, request->offset_bytes);
		return (size_t)(p - head);
	}
	text_bytes = strnlen(text, TEXT_MAX_BYTES);
	p = pack_chunk(head, request, with_offset ? NBD_REPLY_TYPE_ERROR_OFFSET : NBD_REPLY_TYPE_ERROR,
		       4 + 2 + text_bytes + (with_offset ? 8 : 0));
	p = nbd_put32(p, error);
	p = nbd_put16(p, (uint16_t)text_bytes);
	p = nbd_put_bytes(p, text, text_bytes);
	if (with_offset)
		p = nbd_put64(p, request->offset_bytes);
	return (size_t)(p - head);
}

/*
 * The NBD server's parsers on arbitrary bytes: the handshake, fed in pieces of a size taken from the first byte, and the
 * requests that follow it, checked and answered.
 */
#include <stdint.h>
#include <stdlib.h>

#include "client/frontend/nbd/handshake.h"
#include "client/frontend/nbd/request.h"
#include "client/io.h"

#define EXPORT_BYTES (1ull << 30)

/* Also in a build without assertions. */
static void require(bool condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Returns where the requests begin. */
static size_t fuzz_handshake(struct nbd_handshake *handshake, const uint8_t *data, size_t size, size_t step)
{
	size_t head = 0, tail = 0, taken;

	while (!nbd_handshake_over(handshake) && tail < size) {
		tail = base_min_u64(tail + step, size);
		do {
			require(handshake->nr_out <= sizeof(handshake->out));
			handshake->nr_out = 0;
			taken = nbd_handshake_feed(handshake, data + head, tail - head);
			require(taken <= tail - head);
			head += taken;
		} while (taken > 0);
		/* What is left has to fit what a connection holds. */
		require(nbd_handshake_over(handshake) || tail - head < NBD_HANDSHAKE_IN_BYTES);
	}
	return head;
}

static void fuzz_request(const uint8_t *data, bool structured)
{
	unsigned char head[NBD_REPLY_HEAD_BYTES];
	struct nbd_request request;
	const char *text = NULL;
	enum nbd_error error;

	if (nbd_request_unpack(data, &request) < 0)
		return;
	error = nbd_request_check(&request, EXPORT_BYTES, structured, &text);
	require((error == NBD_SUCCESS) == (text == NULL));
	if (error == NBD_SUCCESS && request.type != NBD_CMD_FLUSH) {
		require(request.len_bytes > 0 && request.offset_bytes + request.len_bytes <= EXPORT_BYTES);
		require(request.type > NBD_CMD_WRITE || request.len_bytes <= IO_MAX_PAGES * FSW_PAGE_SIZE);
	}
	require(nbd_reply_pack(head, &request, structured, error, text) <= sizeof(head));
	require(nbd_reply_pack(head, &request, structured, NBD_EIO, "input/output error") <= sizeof(head));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_handshake handshake;
	size_t step, at;

	if (size < 1)
		return 0;
	step = data[0] ? data[0] : 8192;
	data++;
	size--;
	nbd_handshake_init(&handshake, EXPORT_BYTES);
	at = fuzz_handshake(&handshake, data, size, step);
	if (handshake.state != NBD_HANDSHAKE_TRANSMISSION)
		return 0;
	for (; size - at >= NBD_REQUEST_BYTES; at += NBD_REQUEST_BYTES)
		fuzz_request(data + at, handshake.structured_replies);
	return 0;
}

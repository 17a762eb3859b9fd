/*
 * The decoder of FUSE requests on arbitrary bytes. The kernel is no enemy, but what it sends changes from version to
 * version.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/frontend/fuse/wire.h"

#define NR_PAGES (1ull << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuse_wire_request request;
	uint32_t len = (uint32_t)size;
	char *message;

	/* On the heap, with nothing behind it; the length is right, or nothing else would ever be looked at. */
	message = malloc(size > 0 ? size : 1);
	if (!message)
		return 0;
	memcpy(message, data, size);
	if (size >= sizeof(len))
		memcpy(message, &len, sizeof(len));
	if (fuse_wire_decode(message, size, NR_PAGES, &request) < 0)
		goto out;
	switch (request.kind) {
	case FUSE_WIRE_WRITE:
	case FUSE_WIRE_DISCARD:
	case FUSE_WIRE_WRITE_ZEROES:
		if (request.nr_pages == 0 || request.page > NR_PAGES || request.nr_pages > NR_PAGES - request.page)
			abort();
		break;
	case FUSE_WIRE_READ:
		if (request.nr_pages > 0 && (request.page > NR_PAGES || request.nr_pages > NR_PAGES - request.page))
			abort();
		break;
	case FUSE_WIRE_REPLY:
		if (request.error > 0)
			abort();
		break;
	default:
		break;
	}
out:
	free(message);
	return 0;
}

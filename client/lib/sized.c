#include <errno.h>
#include <string.h>

#include "client/lib/private.h"

/* No version will have more: what claims to was never set. */
#define MAX_BYTES 4096u

/* The size that the caller has set, or a negative errno. */
static int size_of(const void *given, size_t first_bytes)
{
	uint64_t size;

	memcpy(&size, given, sizeof(size));
	if (size < first_bytes)
		return -EINVAL;
	return size > MAX_BYTES ? -E2BIG : (int)size;
}

int sized_take(const void *given, void *ret_known, size_t known_bytes, size_t first_bytes)
{
	int size = size_of(given, first_bytes);

	if (size < 0)
		return size;
	for (size_t i = known_bytes; i < (size_t)size; i++)
		if (((const char *)given)[i] != 0)
			return -E2BIG;
	memset(ret_known, 0, known_bytes);
	memcpy(ret_known, given, base_min_u64((size_t)size, known_bytes));
	return 0;
}

int sized_give(const void *known, size_t known_bytes, size_t first_bytes, void *ret_given)
{
	const size_t head = sizeof(uint64_t);
	int size = size_of(ret_given, first_bytes);

	if (size < 0)
		return size;
	memset((char *)ret_given + head, 0, (size_t)size - head);
	memcpy((char *)ret_given + head, (const char *)known + head, base_min_u64((size_t)size, known_bytes) - head);
	return 0;
}

/*
 * What a page holds: is it one repeated value, and what is its checksum?
 */
#ifndef FARSWAP_CLIENT_VSWAP_PAGE_H
#define FARSWAP_CLIENT_VSWAP_PAGE_H

#include <string.h>

#include "common/base/base.h"
#include "common/wire/crc32c.h"

/* True when the page is one 64-bit value over and over. Nearly every other page differs in its first words. */
static inline bool page_is_same(const void *page, uint64_t *ret_value)
{
	const uint64_t *words = page;

	if (BASE_LIKELY(words[0] != words[1] || words[0] != words[FSW_PAGE_SIZE / 8 - 1]))
		return false;
	if (memcmp(page, (const char *)page + 8, FSW_PAGE_SIZE - 8) != 0)
		return false;
	*ret_value = words[0];
	return true;
}

static inline void page_fill(void *page, uint64_t value)
{
	uint64_t *words = page;
	unsigned i;

	for (i = 0; i < FSW_PAGE_SIZE / 8; i++)
		words[i] = value;
}

/*
 * Before page_checksum of the page in front of it, in a run: the hardware prefetches within a page, not beyond, and from
 * runs that are larger than the second-level cache the checksum is otherwise as slow as memory (farswap-bench, write_1m).
 */
static inline void page_prefetch(const void *page)
{
	unsigned i;

	for (i = 0; i < FSW_PAGE_SIZE; i += FSW_CACHE_LINE)
		__builtin_prefetch((const char *)page + i);
}

static inline uint32_t page_checksum(const void *page)
{
	return wire_crc32c(page, FSW_PAGE_SIZE);
}

#endif

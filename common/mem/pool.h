/*
 * A pool of objects of one size, all allocated at start. One thread gets and puts; nothing is ever given back to the
 * system before mem_pool_done.
 */
#ifndef FARSWAP_COMMON_MEM_POOL_H
#define FARSWAP_COMMON_MEM_POOL_H

#include "common/base/base.h"
#include "common/mem/region.h"

struct mem_pool {
	struct mem_region region;
	void *free; /* first free object; each holds a pointer to the next in its first bytes */
	size_t object_bytes;
	uint32_t nr_objects;
	uint32_t nr_free;
};

/*
 * Objects are aligned to `align` (a power of two, at least 8) and zeroed once, here; what a user leaves in an object
 * stays there but for its first 8 bytes. Locked and touched. Errors of mem_region_open.
 */
int mem_pool_init(struct mem_pool *pool, size_t object_bytes, size_t align, uint32_t nr_objects) BASE_MUST_CHECK;
void mem_pool_done(struct mem_pool *pool);

/* NULL when none is free: a state to be handled, never waited for. */
void *mem_pool_get(struct mem_pool *pool);
void mem_pool_put(struct mem_pool *pool, void *object);

#endif

#include "client/comp/comp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/comp/internal.h"

static int queues_init(struct comp_pool *pool, const struct comp_pool_options *options)
{
	int err;

	if (options->nr_queues == 0 || options->nr_queues > COMP_QUEUES_MAX)
		return -EINVAL;
	if (mem_region_open(&pool->queues_region, options->nr_queues * sizeof(*pool->queues), MEM_REGION_TOUCH) < 0)
		return -ENOMEM;
	pool->queues = pool->queues_region.base;
	for (; pool->nr_queues < options->nr_queues; pool->nr_queues++) {
		err = comp_codec_init(&pool->queues[pool->nr_queues].codec, options->algorithm, options->level);
		if (err < 0)
			return err;
	}
	return 0;
}

int comp_pool_create(const struct comp_pool_options *options, struct comp_pool **ret_pool)
{
	struct comp_pool *pool;
	int err;

	pool = aligned_alloc(FSW_CACHE_LINE, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	memset(pool, 0, sizeof(*pool));
	/* The queues first, so that a wrong option is not found out after gigabytes have been touched. */
	err = queues_init(pool, options);
	if (err == 0)
		err = comp_space_open(&pool->space, options->limit_bytes);
	if (err == 0)
		err = comp_retired_open(&pool->retired, pool->space.nr_blocks);
	if (err < 0) {
		comp_pool_free(pool);
		return err;
	}
	*ret_pool = pool;
	return 0;
}

void comp_pool_free(struct comp_pool *pool)
{
	unsigned i;

	if (!pool)
		return;
	for (i = 0; i < pool->nr_queues; i++)
		comp_codec_done(&pool->queues[i].codec);
	mem_region_close(&pool->queues_region);
	comp_retired_close(&pool->retired);
	comp_space_close(&pool->space);
	free(pool);
}

void comp_pool_usage(const struct comp_pool *pool, struct comp_usage *ret_usage)
{
	comp_space_usage(&pool->space, ret_usage);
}

/* Through the queue's own buffer: what room is needed is known only afterwards, and no lock may be held until then. */
int comp_store(struct comp_pool *pool, unsigned queue, const void *page, uint64_t owner, uint64_t *ret_handle)
{
	struct comp_queue *q = &pool->queues[queue];
	uint64_t handle;
	void *bytes;
	int len, err;

	assert(queue < pool->nr_queues);
	len = comp_codec_pack(&q->codec, page, q->packed);
	if (len < 0)
		return len;
	err = comp_space_alloc(&pool->space, (uint32_t)len, owner, &handle, &bytes);
	if (err < 0)
		return err;
	memcpy(bytes, q->packed, (size_t)len);
	*ret_handle = handle;
	return 0;
}

int comp_load(struct comp_pool *pool, unsigned queue, uint64_t handle, void *page)
{
	uint32_t len_bytes;
	void *bytes;

	assert(queue < pool->nr_queues);
	len_bytes = comp_space_find(&pool->space, handle, &bytes);
	if (len_bytes == 0)
		return -EBADMSG;
	return comp_codec_unpack(&pool->queues[queue].codec, bytes, len_bytes, page);
}

void comp_free(struct comp_pool *pool, uint64_t handle)
{
	comp_space_free(&pool->space, handle);
}

unsigned comp_oldest(struct comp_pool *pool, struct comp_object *objects, unsigned nr_max)
{
	return comp_space_oldest(&pool->space, objects, nr_max);
}

unsigned comp_pool_fullness(const struct comp_pool *pool, unsigned parts)
{
	uint64_t nr_used = atomic_load_explicit(&pool->space.nr_used_blocks, memory_order_relaxed);

	return (unsigned)(nr_used * parts / pool->space.nr_blocks);
}

bool comp_is_used(struct comp_pool *pool, uint64_t handle, uint64_t *ret_owner)
{
	return comp_space_is_used(&pool->space, handle, ret_owner);
}

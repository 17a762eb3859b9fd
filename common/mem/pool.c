#include "common/mem/pool.h"

#include <assert.h>
#include <errno.h>

/* With AddressSanitizer, an object that was put back may not be touched until it is got again. */
#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#define pool_hide(ptr, len_bytes) ASAN_POISON_MEMORY_REGION(ptr, len_bytes)
#define pool_show(ptr, len_bytes) ASAN_UNPOISON_MEMORY_REGION(ptr, len_bytes)
#else
#define pool_hide(ptr, len_bytes) ((void)(ptr), (void)(len_bytes))
#define pool_show(ptr, len_bytes) ((void)(ptr), (void)(len_bytes))
#endif

static void push(struct mem_pool *pool, void *object)
{
	*(void **)object = pool->free;
	pool->free = object;
	pool->nr_free++;
	pool_hide(object, pool->object_bytes);
}

int mem_pool_init(struct mem_pool *pool, size_t object_bytes, size_t align, uint32_t nr_objects)
{
	struct mem_pool made = { .nr_objects = nr_objects };
	int ret;

	assert(align >= sizeof(void *) && base_is_power_of_two(align) && align <= FSW_PAGE_SIZE);
	if (object_bytes == 0 || nr_objects == 0)
		return -EINVAL;
	if (object_bytes > SIZE_MAX / 4 / nr_objects - align)
		return -ENOMEM;
	made.object_bytes = base_align_up(object_bytes, align);
	ret = mem_region_open(&made.region, made.object_bytes * nr_objects,
			      MEM_REGION_LOCK | MEM_REGION_TOUCH | MEM_REGION_TRY_HUGE);
	if (ret < 0)
		return ret;
	*pool = made;
	/* From the end, so that the first to be got is the first in memory. */
	for (uint32_t i = nr_objects; i-- > 0;)
		push(pool, (char *)pool->region.base + i * pool->object_bytes);
	return 0;
}

void mem_pool_done(struct mem_pool *pool)
{
	pool_show(pool->region.base, pool->region.len_bytes);
	mem_region_close(&pool->region);
	*pool = (struct mem_pool){ 0 };
}

void *mem_pool_get(struct mem_pool *pool)
{
	void *object = pool->free;

	if (!object)
		return NULL;
	pool_show(object, pool->object_bytes);
	pool->free = *(void **)object;
	pool->nr_free--;
	return object;
}

void mem_pool_put(struct mem_pool *pool, void *object)
{
	size_t offset_bytes = (size_t)((char *)object - (char *)pool->region.base);

	assert(pool->nr_free < pool->nr_objects);
	assert(offset_bytes / pool->object_bytes < pool->nr_objects && offset_bytes % pool->object_bytes == 0);
	(void)offset_bytes;
	push(pool, object);
}

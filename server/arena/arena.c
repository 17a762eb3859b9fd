#include "server/arena/arena.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/base/err.h"
#include "common/base/lock.h"

/* How much is zeroed between two looks at whether the scrubber is to stop. */
#define SCRUB_STEP_BYTES (1ull << 20)
#define SCRUBBER_STACK_BYTES (256u << 10)

struct arena_slab {
	STAILQ_ENTRY(arena_slab) link; /* of `free` or `dirty`, when FREE or waiting in SCRUBBING */
	enum arena_slab_state state;
};

STAILQ_HEAD(arena_slab_list, arena_slab);

struct arena {
	struct mem_region region;
	unsigned slab_shift;
	uint32_t nr_slabs;
	struct arena_slab *slabs; /* the array stays where it is; what is in it is under the lock */

	struct lock_mutex lock;
	/* First in, first out, both: a slab rests as long as it can, and no client's dirt waits for ever. */
	struct arena_slab_list free LOCK_GUARDED_BY(lock);
	struct arena_slab_list dirty LOCK_GUARDED_BY(lock);
	struct arena_counts counts LOCK_GUARDED_BY(lock);

	pthread_cond_t wake; /* a slab became dirty, or stop */
	pthread_t scrubber;
	bool scrubber_runs;
	atomic_bool stop; /* set under the lock; read without it between two steps, where a late look costs one step */
};

int arena_size_check(uint64_t size_bytes, uint64_t slab_bytes)
{
	if (!base_is_power_of_two(slab_bytes) || slab_bytes < ARENA_SLAB_BYTES_MIN || slab_bytes > ARENA_SLAB_BYTES_MAX)
		return -EINVAL;
	if (size_bytes == 0 || size_bytes % slab_bytes != 0 || size_bytes / slab_bytes > ARENA_MAX_SLABS)
		return -ERANGE;
	return 0;
}

int arena_open(uint64_t size_bytes, uint64_t slab_bytes, struct arena **ret_arena)
{
	struct arena *arena;
	int ret = arena_size_check(size_bytes, slab_bytes);

	if (ret < 0)
		return ret;
	arena = calloc(1, sizeof(*arena));
	if (!arena)
		return -ENOMEM;
	arena->slab_shift = base_log2(slab_bytes);
	arena->nr_slabs = (uint32_t)(size_bytes / slab_bytes);
	arena->slabs = calloc(arena->nr_slabs, sizeof(*arena->slabs));
	if (!arena->slabs) {
		ret = -ENOMEM;
		goto free_arena;
	}
	/* Fresh from the kernel, so every byte is zero. */
	ret = mem_region_open(&arena->region, size_bytes, MEM_REGION_LOCK | MEM_REGION_TOUCH | MEM_REGION_TRY_HUGE);
	if (ret < 0)
		goto free_slabs;

	lock_mutex_init(&arena->lock);
	pthread_cond_init(&arena->wake, NULL);
	lock_acquire(&arena->lock);
	STAILQ_INIT(&arena->free);
	STAILQ_INIT(&arena->dirty);
	for (uint32_t i = 0; i < arena->nr_slabs; i++)
		STAILQ_INSERT_TAIL(&arena->free, &arena->slabs[i], link);
	arena->counts.nr[ARENA_SLAB_FREE] = arena->nr_slabs;
	lock_release(&arena->lock);
	*ret_arena = arena;
	return 0;

free_slabs:
	free(arena->slabs);
free_arena:
	free(arena);
	return ret;
}

static void arena_scrubber_stop(struct arena *arena)
{
	if (!arena->scrubber_runs)
		return;
	lock_acquire(&arena->lock);
	atomic_store_explicit(&arena->stop, true, memory_order_relaxed);
	pthread_cond_signal(&arena->wake);
	lock_release(&arena->lock);
	pthread_join(arena->scrubber, NULL);
	arena->scrubber_runs = false;
}

void arena_close(struct arena *arena)
{
	if (!arena)
		return;
	arena_scrubber_stop(arena);
	mem_region_close(&arena->region);
	pthread_cond_destroy(&arena->wake);
	lock_mutex_done(&arena->lock);
	free(arena->slabs);
	free(arena);
}

uint32_t arena_nr_slabs(const struct arena *arena)
{
	return arena->nr_slabs;
}

uint64_t arena_slab_bytes(const struct arena *arena)
{
	return 1ull << arena->slab_shift;
}

void *arena_slab_base(const struct arena *arena, uint32_t slab)
{
	assert(slab < arena->nr_slabs);
	return (char *)arena->region.base + ((uint64_t)slab << arena->slab_shift);
}

enum mem_region_pages arena_pages(const struct arena *arena)
{
	return arena->region.pages;
}

static void slab_set_state_locked(struct arena *arena, struct arena_slab *slab, enum arena_slab_state from,
				  enum arena_slab_state to) LOCK_REQUIRES(arena->lock)
{
	/* A caller that is wrong about a slab's state would lend one client's bytes to another: better to stop. */
	assert(slab->state == from);
	arena->counts.nr[from]--;
	arena->counts.nr[to]++;
	slab->state = to;
}

/* False when it was told to stop half way; the slab is then neither clean nor free. */
static bool slab_zero(struct arena *arena, uint32_t slab)
{
	char *base = arena_slab_base(arena, slab);
	uint64_t len_bytes = arena_slab_bytes(arena);

	for (uint64_t at_bytes = 0; at_bytes < len_bytes; at_bytes += SCRUB_STEP_BYTES) {
		if (atomic_load_explicit(&arena->stop, memory_order_relaxed))
			return false;
		memset(base + at_bytes, 0, SCRUB_STEP_BYTES);
	}
	return true;
}

static_assert(ARENA_SLAB_BYTES_MIN % SCRUB_STEP_BYTES == 0, "a slab is a whole number of steps");

bool arena_scrub_one(struct arena *arena)
{
	struct arena_slab *slab;

	lock_acquire(&arena->lock);
	slab = STAILQ_FIRST(&arena->dirty);
	if (slab)
		STAILQ_REMOVE_HEAD(&arena->dirty, link);
	lock_release(&arena->lock);
	if (!slab || !slab_zero(arena, (uint32_t)(slab - arena->slabs)))
		return false;

	/* Taking the lock after the memset orders the zeroes before whatever the next holder does. */
	lock_acquire(&arena->lock);
	slab_set_state_locked(arena, slab, ARENA_SLAB_SCRUBBING, ARENA_SLAB_FREE);
	STAILQ_INSERT_TAIL(&arena->free, slab, link);
	arena->counts.nr_scrubbed++;
	lock_release(&arena->lock);
	return true;
}

static void *scrubber_main(void *arg)
{
	struct arena *arena = arg;
	bool stop = false;

	while (!stop) {
		while (arena_scrub_one(arena))
			continue;
		lock_acquire(&arena->lock);
		while (STAILQ_EMPTY(&arena->dirty) && !atomic_load_explicit(&arena->stop, memory_order_relaxed))
			pthread_cond_wait(&arena->wake, &arena->lock.m);
		stop = atomic_load_explicit(&arena->stop, memory_order_relaxed);
		lock_release(&arena->lock);
	}
	return NULL;
}

int arena_scrubber_start(struct arena *arena)
{
	pthread_attr_t attr;
	int ret;

	assert(!arena->scrubber_runs);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, base_max_u64(SCRUBBER_STACK_BYTES, (uint64_t)PTHREAD_STACK_MIN));
	ret = err_from_pthread(pthread_create(&arena->scrubber, &attr, scrubber_main, arena));
	pthread_attr_destroy(&attr);
	if (ret < 0)
		return ret;
	pthread_setname_np(arena->scrubber, "scrubber");
	arena->scrubber_runs = true;
	return 0;
}

uint32_t arena_take(struct arena *arena, uint32_t nr, uint32_t ret_slabs[])
{
	struct arena_slab *slab;
	uint32_t nr_taken = 0;

	lock_acquire(&arena->lock);
	while (nr_taken < nr && (slab = STAILQ_FIRST(&arena->free)) != NULL) {
		STAILQ_REMOVE_HEAD(&arena->free, link);
		slab_set_state_locked(arena, slab, ARENA_SLAB_FREE, ARENA_SLAB_LEASED);
		ret_slabs[nr_taken++] = (uint32_t)(slab - arena->slabs);
	}
	lock_release(&arena->lock);
	return nr_taken;
}

void arena_fence(struct arena *arena, uint32_t slab)
{
	assert(slab < arena->nr_slabs);
	lock_acquire(&arena->lock);
	slab_set_state_locked(arena, &arena->slabs[slab], ARENA_SLAB_LEASED, ARENA_SLAB_FENCED);
	lock_release(&arena->lock);
}

void arena_scrub(struct arena *arena, uint32_t slab)
{
	assert(slab < arena->nr_slabs);
	lock_acquire(&arena->lock);
	slab_set_state_locked(arena, &arena->slabs[slab], ARENA_SLAB_FENCED, ARENA_SLAB_SCRUBBING);
	STAILQ_INSERT_TAIL(&arena->dirty, &arena->slabs[slab], link);
	pthread_cond_signal(&arena->wake);
	lock_release(&arena->lock);
}

enum arena_slab_state arena_slab_state(struct arena *arena, uint32_t slab)
{
	enum arena_slab_state state;

	assert(slab < arena->nr_slabs);
	lock_acquire(&arena->lock);
	state = arena->slabs[slab].state;
	lock_release(&arena->lock);
	return state;
}

void arena_counts(struct arena *arena, struct arena_counts *ret_counts)
{
	lock_acquire(&arena->lock);
	*ret_counts = arena->counts;
	lock_release(&arena->lock);
}

/*
 * Objects that nothing names any more, and that a load may still look at: they wait for their epoch. A bit per object and
 * epoch, and above it a bit per block with such objects: nothing is allocated to retire, and little is looked at to free.
 *
 * Ordering. The object's bit is set before its block's; who frees takes the block's bit first, then the objects'. So a bit that
 * comes late makes the block be looked at once more.
 */
#include <errno.h>
#include <string.h>

#include "client/comp/internal.h"

#define WORDS_PER_BLOCK (COMP_INDEX_MAX / 64)

static size_t block_words(const struct comp_retired *retired)
{
	return (retired->nr_blocks + 63) / 64;
}

int comp_retired_open(struct comp_retired *retired, uint32_t nr_blocks)
{
	size_t nr_words;
	unsigned i;

	retired->nr_blocks = nr_blocks;
	nr_words = block_words(retired) + (size_t)nr_blocks * WORDS_PER_BLOCK;
	if (mem_region_open(&retired->region, COMP_EPOCHS * nr_words * sizeof(uint64_t), MEM_REGION_TOUCH) < 0)
		return -ENOMEM;
	for (i = 0; i < COMP_EPOCHS; i++) {
		retired->blocks[i] = (_Atomic uint64_t *)retired->region.base + i * nr_words;
		retired->objects[i] = retired->blocks[i] + block_words(retired);
	}
	return 0;
}

void comp_retired_close(struct comp_retired *retired)
{
	mem_region_close(&retired->region);
}

void comp_retire(struct comp_pool *pool, uint64_t handle, uint64_t epoch)
{
	struct comp_retired *retired = &pool->retired;
	unsigned e = epoch % COMP_EPOCHS;
	uint64_t block = handle >> COMP_INDEX_BITS;

	assert(block < retired->nr_blocks);
	atomic_fetch_or(&retired->objects[e][handle / 64], UINT64_C(1) << handle % 64);
	atomic_fetch_or(&retired->blocks[e][block / 64], UINT64_C(1) << block % 64);
	atomic_store(&retired->any[e], true);
}

/* Frees what is retired of one block. */
static uint64_t free_block(struct comp_pool *pool, unsigned e, uint64_t block)
{
	_Atomic uint64_t *objects = &pool->retired.objects[e][block * WORDS_PER_BLOCK];
	uint64_t nr = 0, i, bits;

	for (i = 0; i < WORDS_PER_BLOCK; i++)
		for (bits = atomic_exchange(&objects[i], 0); bits; bits &= bits - 1, nr++)
			comp_free(pool, block << COMP_INDEX_BITS | (i * 64 + (uint64_t)__builtin_ctzll(bits)));
	return nr;
}

uint64_t comp_free_retired(struct comp_pool *pool, uint64_t epoch)
{
	struct comp_retired *retired = &pool->retired;
	unsigned e = epoch % COMP_EPOCHS;
	uint64_t nr = 0, i, bits;

	if (!atomic_exchange(&retired->any[e], false))
		return 0;
	for (i = 0; i < block_words(retired); i++)
		for (bits = atomic_exchange(&retired->blocks[e][i], 0); bits; bits &= bits - 1)
			nr += free_block(pool, e, i * 64 + (uint64_t)__builtin_ctzll(bits));
	return nr;
}

void comp_forget_retired(struct comp_pool *pool)
{
	unsigned i;

	memset(pool->retired.region.base, 0, pool->retired.region.len_bytes);
	for (i = 0; i < COMP_EPOCHS; i++)
		atomic_store(&pool->retired.any[i], false);
}

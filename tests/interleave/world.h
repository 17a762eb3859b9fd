/*
 * The memory that a scenario works on, which can be put back to what it was: stacks, and a heap from which nothing is ever
 * given back. Pages that are written for the first time after the snapshot are noted by the fault that this is (they are write
 * protected), so putting back costs as much as there is to put back; and a state is told from another by these pages alone.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_WORLD_H
#define FARSWAP_TESTS_INTERLEAVE_WORLD_H

#include "common/base/base.h"
#include "common/mem/region.h"

#define WORLD_STACK_BYTES (64u << 10)

struct world_hash {
	uint64_t a, b;
};

/* A new world, with stacks and an empty heap, all zeros, in place of the one before. */
void world_open(unsigned nr_stacks);
/* The lowest address of a stack. */
char *world_stack(unsigned index);

/* ---- in place of what the code under test would use ---- */

void *world_alloc(size_t len_bytes, size_t align);
void *world_calloc(size_t nr, size_t len_bytes);
void world_free(void *p);
int world_region_open(struct mem_region *region, size_t len_bytes) BASE_MUST_CHECK;
void world_region_close(struct mem_region *region);

/* Memory from elsewhere that belongs to the world, too. */
void world_adopt(void *p, size_t len_bytes);

/* ---- the state ---- */

void world_snapshot(void);
void world_restore(void);
/* From here on it is memory like any other, and stays what it is. */
void world_release(void);
/* All but the stacks. */
struct world_hash world_hash(void);
struct world_hash world_hash_more(struct world_hash hash, const void *p, size_t len_bytes);
/* From the handler of SIGSEGV: true when it was the first write to a page. */
bool world_note_write(const void *at);

#endif

/*
 * The memory of one call: chunks that are freed together. It has a cap, since what a peer sends may grow twentyfold
 * when it is unpacked (an empty submessage takes two bytes on the wire and a structure here).
 */
#include <stdlib.h>
#include <string.h>

#include "common/rpc/internal.h"

#define ARENA_CHUNK_BYTES 4096

struct rpc_arena_chunk {
	struct rpc_arena_chunk *older;
	size_t used_bytes;
	size_t size_bytes;
	max_align_t data[];
};

static void *arena_allocator_alloc(void *arena, size_t len_bytes)
{
	return rpc_arena_alloc(arena, len_bytes);
}

static void arena_allocator_free(void *arena, void *ptr)
{
	(void)arena;
	(void)ptr;
}

void rpc_arena_init(struct rpc_arena *arena)
{
	memset(arena, 0, sizeof(*arena));
	arena->allocator.alloc = arena_allocator_alloc;
	arena->allocator.free = arena_allocator_free;
	arena->allocator.allocator_data = arena;
}

void rpc_arena_done(struct rpc_arena *arena)
{
	while (arena->newest) {
		struct rpc_arena_chunk *chunk = arena->newest;

		arena->newest = chunk->older;
		free(chunk);
	}
}

static struct rpc_arena_chunk *arena_grow(struct rpc_arena *arena, size_t len_bytes)
{
	size_t size_bytes = len_bytes > ARENA_CHUNK_BYTES ? len_bytes : ARENA_CHUNK_BYTES;
	struct rpc_arena_chunk *chunk;

	if (size_bytes > RPC_ARENA_MAX_BYTES - arena->total_bytes)
		return NULL;
	chunk = malloc(sizeof(*chunk) + size_bytes);
	if (!chunk)
		return NULL;
	chunk->older = arena->newest;
	chunk->used_bytes = 0;
	chunk->size_bytes = size_bytes;
	arena->newest = chunk;
	arena->total_bytes += size_bytes;
	return chunk;
}

void *rpc_arena_alloc(struct rpc_arena *arena, size_t len_bytes)
{
	struct rpc_arena_chunk *chunk = arena->newest;
	void *ptr;

	if (len_bytes > RPC_ARENA_MAX_BYTES) {
		arena->exhausted = true;
		return NULL;
	}
	len_bytes = (size_t)base_align_up(len_bytes, sizeof(max_align_t));
	if (!chunk || chunk->size_bytes - chunk->used_bytes < len_bytes)
		chunk = arena_grow(arena, len_bytes);
	if (!chunk) {
		arena->exhausted = true;
		return NULL;
	}
	ptr = (char *)chunk->data + chunk->used_bytes;
	chunk->used_bytes += len_bytes;
	return ptr;
}

void rpc_arena_reset(struct rpc_arena *arena)
{
	while (arena->newest && (arena->newest->older || arena->newest->size_bytes > ARENA_CHUNK_BYTES)) {
		struct rpc_arena_chunk *chunk = arena->newest;

		arena->newest = chunk->older;
		free(chunk);
	}
	arena->total_bytes = 0;
	if (arena->newest) {
		arena->newest->used_bytes = 0;
		arena->total_bytes = arena->newest->size_bytes;
	}
	arena->exhausted = false;
}

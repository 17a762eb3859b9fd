/*
 * What the files of the compressed pool share: space.c (where objects lie), codec.c (the libraries), comp.c (both).
 *
 * Lock order: a class, then the space.
 */
#ifndef FARSWAP_CLIENT_COMP_INTERNAL_H
#define FARSWAP_CLIENT_COMP_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "client/comp/comp.h"
#include "common/base/lock.h"
#include "common/mem/region.h"

/*
 * Size classes are a step of 128 bytes apart, and a block holds as many objects of its class as fit, each with a head
 * of 8 bytes. What that wastes: up to 127 bytes behind an object, its head, and its share of the end of the block, at
 * worst 216 bytes together (5.3 % of the page it stands for; at 2305 bytes). Averaged over the sizes from 200 to 3072
 * bytes, an object takes 5.7 % more than itself. Steps of 64 would make that 4.1 %, but each class keeps a block that
 * it is filling, so that twice as many classes keep 3 MiB in place of 1.5; blocks of 128 KiB (5.2 %) cost as much,
 * those of 32 KiB waste more at their ends (7.4 %).
 */
#define COMP_CLASS_STEP_BYTES 128u
#define COMP_NR_CLASSES (COMP_OBJECT_BYTES_MAX / COMP_CLASS_STEP_BYTES)
#define COMP_INDEX_BITS 9
#define COMP_INDEX_MAX (1u << COMP_INDEX_BITS)

/* A handle is the number of a block, and which of its objects. */
static_assert(COMP_BLOCK_BYTES / (COMP_CLASS_STEP_BYTES + 8) <= COMP_INDEX_MAX, "every object of a block has an index");
static_assert(COMP_LIMIT_BYTES_MAX / COMP_BLOCK_BYTES <= UINT64_C(1) << (COMP_HANDLE_BITS - COMP_INDEX_BITS),
	      "every object has a handle");
static_assert(COMP_OBJECT_BYTES_MAX % COMP_CLASS_STEP_BYTES == 0, "the last class is full");

/* What is known of a block, outside of it; under the lock of its class, where nothing else is said. */
struct comp_block {
	uint64_t used[COMP_INDEX_MAX / 64]; /* one bit per object */
	TAILQ_ENTRY(comp_block) age_link;   /* in by_age or in unused; under the lock of the space */
	TAILQ_ENTRY(comp_block) room_link;  /* in with_room, unless it is full */
	uint16_t nr_used;
	/* Changes under both locks while nothing is in it: either is enough to read it, and so is holding an object. */
	uint8_t class;
} __attribute__((aligned(FSW_CACHE_LINE)));

static_assert(sizeof(struct comp_block) == 2 * FSW_CACHE_LINE, "0.2 % of what it describes");

TAILQ_HEAD(comp_block_list, comp_block);

struct comp_class {
	struct lock_mutex lock;
	struct comp_block_list with_room LOCK_GUARDED_BY(lock); /* the one to be filled first comes first */
	uint32_t object_bytes;
	uint32_t nr_per_block;
	/* Written under the lock, read without: relaxed, since nothing else is read by them. */
	_Atomic uint64_t nr_objects;
	_Atomic uint64_t stored_bytes;
} __attribute__((aligned(FSW_CACHE_LINE)));

struct comp_space {
	struct comp_class classes[COMP_NR_CLASSES];
	char *base; /* of the blocks */
	struct comp_block *blocks;
	uint32_t nr_blocks;
	struct mem_region region;
	struct mem_region blocks_region;
	struct lock_mutex lock;
	struct comp_block_list unused LOCK_GUARDED_BY(lock);
	struct comp_block_list by_age LOCK_GUARDED_BY(lock); /* those in use, by when they came into use */
	/* Where comp_oldest goes on: a block of by_age, or NULL for the first. */
	struct comp_block *hand LOCK_GUARDED_BY(lock);
	uint32_t hand_index LOCK_GUARDED_BY(lock);
	_Atomic uint32_t nr_used_blocks; /* written under the lock, read without: relaxed, as in the classes */
};

/* The contexts of one queue, taken at its start; the thread of the queue. */
struct comp_codec {
	enum comp_algorithm algorithm;
	int level;
	struct mem_region lz4_state;
	struct ZSTD_CCtx_s *zstd_packer;
	struct ZSTD_DCtx_s *zstd_unpacker;
};

/* What a page may grow to while it is compressed, by any of the libraries. */
#define COMP_PACKED_BYTES_MAX (FSW_PAGE_SIZE + 256)

struct comp_queue {
	struct comp_codec codec;
	char packed[COMP_PACKED_BYTES_MAX];
} __attribute__((aligned(FSW_CACHE_LINE)));

struct comp_retired {
	struct mem_region region;
	uint32_t nr_blocks;
	/* Per epoch: bits of blocks with retired objects, and of the objects by their handles; whether there are any. */
	_Atomic uint64_t *blocks[COMP_EPOCHS];
	_Atomic uint64_t *objects[COMP_EPOCHS];
	_Atomic bool any[COMP_EPOCHS];
};

struct comp_pool {
	struct comp_space space;
	struct comp_retired retired;
	struct comp_queue *queues;
	unsigned nr_queues;
	struct mem_region queues_region;
};

/* ---- space.c ---- */

/* 0, -EINVAL for a limit out of its range, -ENOMEM. */
int comp_space_open(struct comp_space *space, uint64_t limit_bytes) BASE_MUST_CHECK;
/* Accepts a zeroed space. */
void comp_space_close(struct comp_space *space);

/*
 * Takes room for an object of len_bytes, 1 .. COMP_OBJECT_BYTES_MAX, and writes its head. *ret_bytes is where the
 * caller puts it. 0 or -ENOSPC. Any thread.
 */
int comp_space_alloc(struct comp_space *space, uint32_t len_bytes, uint64_t owner, uint64_t *ret_handle,
		     void **ret_bytes) BASE_MUST_CHECK;

/*
 * Where an object lies and how long it is; 0 for a length that its class cannot hold, since the head has been
 * overwritten. Without a lock: the head does not change as long as the object is there.
 */
uint32_t comp_space_find(const struct comp_space *space, uint64_t handle, void **ret_bytes) BASE_MUST_CHECK;

/* comp_free and comp_oldest. */
void comp_space_free(struct comp_space *space, uint64_t handle);
unsigned comp_space_oldest(struct comp_space *space, struct comp_object *objects, unsigned nr_max) BASE_MUST_CHECK;

void comp_space_usage(const struct comp_space *space, struct comp_usage *ret_usage);

/* comp_is_used, for a handle that may be anything. */
bool comp_space_is_used(struct comp_space *space, uint64_t handle, uint64_t *ret_owner);

/* ---- retire.c ---- */

/* 0 or -ENOMEM. */
int comp_retired_open(struct comp_retired *retired, uint32_t nr_blocks) BASE_MUST_CHECK;
/* Accepts a zeroed one. */
void comp_retired_close(struct comp_retired *retired);

/* ---- codec.c ---- */

/* 0, -EINVAL for an algorithm or a level that there is not, -ENOMEM. */
int comp_codec_init(struct comp_codec *codec, enum comp_algorithm algorithm, int level) BASE_MUST_CHECK;
/* Accepts a zeroed codec. */
void comp_codec_done(struct comp_codec *codec);

/* Compresses one page into `packed`, COMP_PACKED_BYTES_MAX. The length, at most COMP_OBJECT_BYTES_MAX, or -E2BIG. */
int comp_codec_pack(struct comp_codec *codec, const void *page, void *packed) BASE_MUST_CHECK;

/* Decompresses len_bytes into one page; reads and writes nothing beyond either. 0 or -EBADMSG. */
int comp_codec_unpack(struct comp_codec *codec, const void *packed, uint32_t len_bytes, void *page) BASE_MUST_CHECK;

#endif

/*
 * The compressed pool: pages in the memory of this machine, compressed, on their way to the servers or instead of it.
 *
 * Owns that memory. All of it, up to the limit, is taken and touched at creation and given back when the pool is freed,
 * and nothing is allocated in between, by the libraries neither. Only reserving it would not do: its pages would be
 * asked of the kernel at the very moment when the kernel stores a page because it has none left. The daemon's mlockall
 * keeps it in place.
 *
 * Knows nothing of what a page is for: it never moves, writes back or frees an object by itself, and keeps no checksum.
 * Whoever must be sure of the bytes checks them (client/vswap keeps a CRC32C of every page).
 *
 * Threads: each queue is one thread, with contexts of compression of its own. A load takes no lock at all. A store and
 * a free take the lock of one size class, and where a block comes into use or becomes empty that of the blocks inside
 * it, for a few dozen instructions without a call; nothing is compressed, decompressed or copied under either.
 * comp_oldest holds the lock of one class while it reads the heads of one block, 4 KiB at most.
 */
#ifndef FARSWAP_CLIENT_COMP_COMP_H
#define FARSWAP_CLIENT_COMP_COMP_H

#include "common/base/base.h"

/*
 * The largest object: three quarters of a page. What is larger saves less than a quarter of what a page elsewhere
 * costs, takes the room of two pages that shrink well, and must still be decompressed by every read. The kernel draws
 * its line near by: zsmalloc keeps a page whole when it takes more than 3264 bytes of 4096.
 */
#define COMP_OBJECT_BYTES_MAX (FSW_PAGE_SIZE / 4 * 3)

/* Memory is dealt out in blocks of this size; the limit is a number of them. */
#define COMP_BLOCK_BYTES (64u << 10)

#define COMP_HANDLE_BITS 36 /* as many as a word of the virtual swap layer has to spare */
#define COMP_OWNER_BITS 52  /* enough to number the pages of 2^64 bytes */
#define COMP_LIMIT_BYTES_MAX (UINT64_C(1) << 43)
#define COMP_QUEUES_MAX 1024u

enum comp_algorithm { COMP_LZ4, COMP_ZSTD };

struct comp_pool_options {
	uint64_t limit_bytes; /* COMP_BLOCK_BYTES .. COMP_LIMIT_BYTES_MAX, rounded down to whole blocks */
	enum comp_algorithm algorithm;
	/*
	 * 0: the library's default. COMP_LZ4: its acceleration, 1 (smallest) .. 64 (fastest). COMP_ZSTD: its level,
	 * ZSTD_minCLevel() (fastest) .. ZSTD_maxCLevel() (smallest).
	 */
	int level;
	unsigned nr_queues; /* 1 .. COMP_QUEUES_MAX */
};

#define COMP_EPOCHS 3u /* an object that is retired in one is free when the next but one begins */

struct comp_object {
	uint64_t handle;
	uint64_t owner;
};

struct comp_usage {
	uint64_t nr_objects;
	uint64_t stored_bytes; /* of the compressed pages themselves */
	uint64_t used_bytes;   /* of the blocks that hold any: with all rounding, and the room that is left in them */
	uint64_t limit_bytes;  /* of all blocks; used_bytes never exceeds it */
};

struct comp_pool;

/* ---- control threads ---- */

/*
 * Makes a pool, empty, with all of its memory: the limit, 0.5 % of it for what is known of the blocks, and per queue 20
 * KiB for COMP_LZ4, or what a context of zstd takes. 0; -EINVAL for options out of their range; -ENOMEM when the
 * machine does not have or does not give that memory. The pool is the caller's until comp_pool_free.
 */
int comp_pool_create(const struct comp_pool_options *options, struct comp_pool **ret_pool) BASE_MUST_CHECK;

/* Frees it, with what is in it. Nobody is inside any call. Accepts NULL. */
void comp_pool_free(struct comp_pool *pool);

/* What is in the pool, on any thread, without a lock: each number was true at some moment, not all at the same one. */
void comp_pool_usage(const struct comp_pool *pool, struct comp_usage *ret_usage);

/* How much of the blocks is in use, in `parts` parts of the limit, rounded down. Any thread; cheap. */
unsigned comp_pool_fullness(const struct comp_pool *pool, unsigned parts);

/* Whether there is such an object, and whose it is. Any thread; any handle. */
bool comp_is_used(struct comp_pool *pool, uint64_t handle, uint64_t *ret_owner);

/* ---- data path ---- */

/*
 * Compresses a page into the pool. `page` is FSW_PAGE_SIZE bytes, read before the call returns. `owner`, below
 * 2^COMP_OWNER_BITS, is whatever the caller wants comp_oldest to say of it. On the thread of `queue`.
 *
 * 0: *ret_handle, below 2^COMP_HANDLE_BITS, names the object until comp_free. Any value may be a handle, 0 too.
 * -E2BIG: it does not shrink to COMP_OBJECT_BYTES_MAX. -ENOSPC: no block of its size class has room, and no block is
 * unused; an object of another size may still fit. After an error nothing is stored.
 *
 * Another thread may use the handle when it has learnt of it by a release and an acquire.
 */
int comp_store(struct comp_pool *pool, unsigned queue, const void *page, uint64_t owner,
	       uint64_t *ret_handle) BASE_MUST_CHECK;

/*
 * Decompresses an object into `page`, FSW_PAGE_SIZE bytes. On the thread of `queue`, which need not be the one that
 * stored it; other objects may be stored and freed meanwhile, this one must not be freed before the call returns.
 *
 * 0; -EBADMSG: what is stored is not a page that was compressed, and `page` holds anything. Most damage does
 * not show here.
 */
int comp_load(struct comp_pool *pool, unsigned queue, uint64_t handle, void *page) BASE_MUST_CHECK;

/*
 * Frees an object, on any thread. Its memory is used again at once, and its handle is given out again: no load of it is
 * under way, and every one has ended in the order of release and acquire.
 */
void comp_free(struct comp_pool *pool, uint64_t handle);

/*
 * Marks an object, which nothing names any more and loads may still look at, to be freed with its epoch (any number that
 * the caller lets grow, by steps of one): when comp_free_retired is called for that. It allocates nothing. Any thread.
 */
void comp_retire(struct comp_pool *pool, uint64_t handle, uint64_t epoch);
/* Frees what was retired in an epoch that no load is left of. Returns the number of objects. One thread at a time. */
uint64_t comp_free_retired(struct comp_pool *pool, uint64_t epoch);
/* Nobody is at work: what is retired is not freed by that, but is like any other object again. */
void comp_forget_retired(struct comp_pool *pool);

/*
 * Writes the next objects to be written back into `objects`, at most nr_max, and returns their number. They stay where
 * they are: the caller checks each, since it may be freed by now, or so new that its comp_store has not yet returned.
 *
 * The order is that in which the blocks came into use, oldest first, so it is roughly that of the stores: an object may
 * take the place of one that was freed in an older block. Block by block, since what helps is a block that becomes
 * empty. A hand moves on over what it has yielded and begins again at the oldest block behind the last, so what cannot
 * be moved comes again only after everything else. One call goes round at most once: fewer than nr_max means that the
 * hand has come round, and 0 that the pool is empty. One thread at a time.
 */
unsigned comp_oldest(struct comp_pool *pool, struct comp_object *objects, unsigned nr_max) BASE_MUST_CHECK;

#endif

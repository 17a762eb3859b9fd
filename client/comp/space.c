/*
 * Ordering. A class' lock orders a free with the store that takes the same room next. What a load reads needs no lock:
 * the head and the class of its block were written before comp_space_alloc returned, the bytes before comp_store did,
 * and neither changes while the object is there; the caller has published the handle by a release, and frees the object
 * only after its loads have ended (comp.h).
 *
 * The hand, and the blocks' lists by age and of those that are unused, are the space's: its lock is taken when a block
 * comes into use, when it is given back, and per block that the hand goes over. A block is given back under its class'
 * lock too, so whoever holds that keeps the hand on a block of the class.
 *
 * A block begins with the heads of its objects, so that the hand reads them in one go; the objects follow.
 */
#include <errno.h>
#include <string.h>

#include "client/comp/internal.h"

/* Owner and length of an object in one word. */
#define HEAD_LEN_BITS 12
#define HEAD_LEN_MASK ((UINT64_C(1) << HEAD_LEN_BITS) - 1)

static_assert(COMP_OBJECT_BYTES_MAX <= HEAD_LEN_MASK, "every length fits");
static_assert(COMP_OWNER_BITS + HEAD_LEN_BITS == 64, "and every owner");

static uint64_t *block_heads(const struct comp_space *space, const struct comp_block *block)
{
	return (uint64_t *)(void *)(space->base + (size_t)(block - space->blocks) * COMP_BLOCK_BYTES);
}

static void *block_object(const struct comp_space *space, const struct comp_block *block, uint32_t index)
{
	const struct comp_class *class = &space->classes[block->class];

	return (char *)(block_heads(space, block) + class->nr_per_block) + (size_t)index * class->object_bytes;
}

static struct comp_block *block_of(const struct comp_space *space, uint64_t handle)
{
	uint64_t number = handle >> COMP_INDEX_BITS;

	assert(number < space->nr_blocks);
	return &space->blocks[number];
}

static uint64_t handle_of(const struct comp_space *space, const struct comp_block *block, uint32_t index)
{
	return (uint64_t)(block - space->blocks) << COMP_INDEX_BITS | index;
}

static void class_init(struct comp_class *class, uint32_t object_bytes)
{
	lock_mutex_init(&class->lock);
	TAILQ_INIT(&class->with_room);
	class->object_bytes = object_bytes;
	class->nr_per_block = COMP_BLOCK_BYTES / (object_bytes + (uint32_t)sizeof(uint64_t));
}

int comp_space_open(struct comp_space *space, uint64_t limit_bytes)
{
	uint32_t i;

	if (limit_bytes < COMP_BLOCK_BYTES || limit_bytes > COMP_LIMIT_BYTES_MAX)
		return -EINVAL;
	*space = (struct comp_space){ .nr_blocks = (uint32_t)(limit_bytes / COMP_BLOCK_BYTES) };
	if (mem_region_open(&space->region, (size_t)space->nr_blocks * COMP_BLOCK_BYTES,
			    MEM_REGION_TOUCH | MEM_REGION_TRY_HUGE) < 0)
		return -ENOMEM;
	if (mem_region_open(&space->blocks_region, space->nr_blocks * sizeof(*space->blocks), MEM_REGION_TOUCH) < 0) {
		mem_region_close(&space->region);
		return -ENOMEM;
	}
	space->base = space->region.base;
	space->blocks = space->blocks_region.base;
	for (i = 0; i < COMP_NR_CLASSES; i++)
		class_init(&space->classes[i], (i + 1) * COMP_CLASS_STEP_BYTES);
	lock_mutex_init(&space->lock);
	TAILQ_INIT(&space->unused);
	TAILQ_INIT(&space->by_age);
	for (i = 0; i < space->nr_blocks; i++)
		TAILQ_INSERT_TAIL(&space->unused, &space->blocks[i], age_link);
	return 0;
}

void comp_space_close(struct comp_space *space)
{
	uint32_t i;

	if (!space->base)
		return;
	for (i = 0; i < COMP_NR_CLASSES; i++)
		lock_mutex_done(&space->classes[i].lock);
	lock_mutex_done(&space->lock);
	mem_region_close(&space->blocks_region);
	mem_region_close(&space->region);
	space->base = NULL;
}

/* Brings a block into use. NULL: all are. */
static struct comp_block *block_take(struct comp_space *space, struct comp_class *class) LOCK_REQUIRES(class->lock)
{
	struct comp_block *block;

	lock_acquire(&space->lock);
	block = TAILQ_FIRST(&space->unused);
	if (block) {
		TAILQ_REMOVE(&space->unused, block, age_link);
		TAILQ_INSERT_TAIL(&space->by_age, block, age_link);
		block->class = (uint8_t)(class - space->classes);
		atomic_fetch_add_explicit(&space->nr_used_blocks, 1, memory_order_relaxed);
	}
	lock_release(&space->lock);
	/* First: the youngest is filled before the holes of older ones, which would make their order meaningless. */
	if (block)
		TAILQ_INSERT_HEAD(&class->with_room, block, room_link);
	return block;
}

/* An empty block is for every class again. The one that was used last is the next to be used: it is in the caches. */
static void block_give_back(struct comp_space *space, struct comp_class *class, struct comp_block *block)
	LOCK_REQUIRES(class->lock)
{
	TAILQ_REMOVE(&class->with_room, block, room_link);
	lock_acquire(&space->lock);
	if (space->hand == block) {
		space->hand = TAILQ_NEXT(block, age_link);
		space->hand_index = 0;
	}
	TAILQ_REMOVE(&space->by_age, block, age_link);
	TAILQ_INSERT_HEAD(&space->unused, block, age_link);
	atomic_fetch_sub_explicit(&space->nr_used_blocks, 1, memory_order_relaxed);
	lock_release(&space->lock);
}

/* Marks an object as used in a block that has room. */
static uint32_t block_fill(struct comp_class *class, struct comp_block *block) LOCK_REQUIRES(class->lock)
{
	uint32_t i, index;

	for (i = 0; block->used[i] == UINT64_MAX; i++)
		;
	index = i * 64 + (uint32_t)__builtin_ctzll(~block->used[i]);
	assert(index < class->nr_per_block);
	block->used[i] |= UINT64_C(1) << index % 64;
	block->nr_used++;
	if (block->nr_used == class->nr_per_block)
		TAILQ_REMOVE(&class->with_room, block, room_link);
	return index;
}

int comp_space_alloc(struct comp_space *space, uint32_t len_bytes, uint64_t owner, uint64_t *ret_handle,
		     void **ret_bytes)
{
	struct comp_class *class = &space->classes[(len_bytes - 1) / COMP_CLASS_STEP_BYTES];
	struct comp_block *block;
	uint32_t index;

	assert(len_bytes > 0 && len_bytes <= COMP_OBJECT_BYTES_MAX && owner >> COMP_OWNER_BITS == 0);
	lock_acquire(&class->lock);
	block = TAILQ_FIRST(&class->with_room);
	if (!block)
		block = block_take(space, class);
	if (!block) {
		lock_release(&class->lock);
		return -ENOSPC;
	}
	index = block_fill(class, block);
	block_heads(space, block)[index] = owner << HEAD_LEN_BITS | len_bytes;
	atomic_fetch_add_explicit(&class->nr_objects, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&class->stored_bytes, len_bytes, memory_order_relaxed);
	lock_release(&class->lock);
	*ret_handle = handle_of(space, block, index);
	*ret_bytes = block_object(space, block, index);
	return 0;
}

uint32_t comp_space_find(const struct comp_space *space, uint64_t handle, void **ret_bytes)
{
	const struct comp_block *block = block_of(space, handle);
	uint32_t index = handle % COMP_INDEX_MAX;
	uint32_t len_bytes;

	assert(index < space->classes[block->class].nr_per_block);
	len_bytes = block_heads(space, block)[index] & HEAD_LEN_MASK;
	*ret_bytes = block_object(space, block, index);
	return len_bytes <= space->classes[block->class].object_bytes ? len_bytes : 0;
}

void comp_space_free(struct comp_space *space, uint64_t handle)
{
	struct comp_block *block = block_of(space, handle);
	struct comp_class *class = &space->classes[block->class];
	uint32_t index = handle % COMP_INDEX_MAX;
	uint64_t bit = UINT64_C(1) << index % 64;

	lock_acquire(&class->lock);
	assert(block->used[index / 64] & bit);
	block->used[index / 64] &= ~bit;
	/* Behind those that have room already: they are younger, or have waited longer. */
	if (block->nr_used == class->nr_per_block)
		TAILQ_INSERT_TAIL(&class->with_room, block, room_link);
	block->nr_used--;
	atomic_fetch_sub_explicit(&class->nr_objects, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&class->stored_bytes, block_heads(space, block)[index] & HEAD_LEN_MASK,
				  memory_order_relaxed);
	if (block->nr_used == 0)
		block_give_back(space, class, block);
	lock_release(&class->lock);
}

/* Of a block that nothing may be in. It can be another the next moment, unless the class' lock is held. */
static struct comp_class *block_class(struct comp_space *space, const struct comp_block *block)
{
	struct comp_class *class;

	lock_acquire(&space->lock);
	class = &space->classes[block->class];
	lock_release(&space->lock);
	return class;
}

bool comp_space_is_used(struct comp_space *space, uint64_t handle, uint64_t *ret_owner)
{
	uint32_t index = handle % COMP_INDEX_MAX;
	struct comp_block *block;
	struct comp_class *class;
	bool used;

	if (handle >> COMP_INDEX_BITS >= space->nr_blocks)
		return false;
	block = block_of(space, handle);
	class = block_class(space, block);
	lock_acquire(&class->lock);
	/* If the class is another one by now, the block was empty in between. */
	used = block_class(space, block) == class && (block->used[index / 64] >> index % 64 & 1);
	if (used)
		*ret_owner = block_heads(space, block)[index] >> HEAD_LEN_BITS;
	lock_release(&class->lock);
	return used;
}

/* Reads what is used of a block from *index on, and moves that on. */
static unsigned block_read(const struct comp_space *space, const struct comp_class *class,
			   const struct comp_block *block, uint32_t *index, struct comp_object *objects,
			   unsigned nr_max) LOCK_REQUIRES(class->lock)
{
	const uint64_t *heads = block_heads(space, block);
	unsigned nr = 0;
	uint32_t i;

	for (i = *index; i < class->nr_per_block && nr < nr_max; i++) {
		if (!(block->used[i / 64] >> i % 64 & 1))
			continue;
		objects[nr++] = (struct comp_object){ .handle = handle_of(space, block, i),
						      .owner = heads[i] >> HEAD_LEN_BITS };
	}
	*index = i;
	return nr;
}

/* The block under the hand, put on the first of all if it was behind the last. NULL: none is in use. */
static struct comp_block *hand_block(struct comp_space *space, uint32_t *ret_index) LOCK_REQUIRES(space->lock)
{
	if (!space->hand) {
		space->hand = TAILQ_FIRST(&space->by_age);
		space->hand_index = 0;
	}
	*ret_index = space->hand_index;
	return space->hand;
}

/* Reads the block under the hand, whose class was `class` a moment ago. True when the hand has left the block. */
static bool hand_read(struct comp_space *space, struct comp_class *class, const struct comp_block *block,
		      struct comp_object *objects, unsigned *nr, unsigned nr_max)
{
	uint32_t index;
	bool stays;

	lock_acquire(&class->lock);
	lock_acquire(&space->lock);
	stays = hand_block(space, &index) == block && &space->classes[block->class] == class;
	lock_release(&space->lock);
	if (!stays) {
		lock_release(&class->lock);
		return true;
	}
	*nr += block_read(space, class, block, &index, objects + *nr, nr_max - *nr);
	lock_acquire(&space->lock);
	stays = index < class->nr_per_block;
	space->hand = stays ? space->hand : TAILQ_NEXT(space->hand, age_link);
	space->hand_index = stays ? index : 0;
	lock_release(&space->lock);
	lock_release(&class->lock);
	return !stays;
}

unsigned comp_space_oldest(struct comp_space *space, struct comp_object *objects, unsigned nr_max)
{
	uint32_t nr_left = atomic_load_explicit(&space->nr_used_blocks, memory_order_relaxed);
	struct comp_class *class;
	struct comp_block *block;
	unsigned nr = 0;
	uint32_t index;

	/*
	 * Once round, by count, since the block that the hand began at may be anywhere by now. No block that is in use
	 * is empty: where nothing was found, the hand stood behind the last object of its block, or the block went
	 * away.
	 */
	while (nr < nr_max && nr_left > 0) {
		lock_acquire(&space->lock);
		block = hand_block(space, &index);
		class = block ? &space->classes[block->class] : NULL;
		lock_release(&space->lock);
		if (!block)
			break;
		if (hand_read(space, class, block, objects, &nr, nr_max) && nr > 0)
			nr_left--;
	}
	return nr;
}

void comp_space_usage(const struct comp_space *space, struct comp_usage *ret_usage)
{
	struct comp_usage usage = { .limit_bytes = (uint64_t)space->nr_blocks * COMP_BLOCK_BYTES };
	uint32_t i;

	for (i = 0; i < COMP_NR_CLASSES; i++) {
		const struct comp_class *class = &space->classes[i];

		usage.nr_objects += atomic_load_explicit(&class->nr_objects, memory_order_relaxed);
		usage.stored_bytes += atomic_load_explicit(&class->stored_bytes, memory_order_relaxed);
	}
	usage.used_bytes =
		(uint64_t)atomic_load_explicit(&space->nr_used_blocks, memory_order_relaxed) * COMP_BLOCK_BYTES;
	*ret_usage = usage;
}

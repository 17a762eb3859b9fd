#include "tests/interleave/world.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#define WORLD_BYTES (256u << 20) /* of addresses; what is used is a hundredth of it */
#define WORLD_PAGE 4096u
#define WORLD_PAGES (WORLD_BYTES / WORLD_PAGE)
#define WORLD_MAX_ADOPTED 8u

struct adopted {
	char *p;
	char *before; /* in the copy */
	size_t len_bytes;
};

/* Not of the world itself: nothing here is put back, but for what world_open makes anew. */
static struct {
	char *base; /* stacks, then the heap */
	char *copy; /* the same addresses, further on: what pages were at the snapshot */
	size_t stacks_bytes;
	size_t used_bytes;
	size_t used_at_snapshot;
	bool guarded; /* after the snapshot */
	struct adopted adopted[WORLD_MAX_ADOPTED];
	unsigned nr_adopted;
	uint32_t written[WORLD_PAGES]; /* page numbers, in the order in which they were noted */
	struct world_hash before[WORLD_PAGES]; /* of these, as they were */
	uint32_t nr_written;
} world;

static char *map(void)
{
	void *p = mmap(NULL, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

void world_release(void)
{
	int ret = mprotect(world.base, WORLD_BYTES, PROT_READ | PROT_WRITE);

	assert(ret == 0);
	(void)ret;
	world.guarded = false;
}

void world_open(unsigned nr_stacks)
{
	int ret;

	if (!world.base) {
		world.base = map();
		world.copy = map();
	}
	world_release();
	ret = madvise(world.base, WORLD_BYTES, MADV_DONTNEED); /* zeros again */
	assert(ret == 0);
	(void)ret;
	world.nr_adopted = 0;
	world.nr_written = 0;
	world.stacks_bytes = nr_stacks * WORLD_STACK_BYTES;
	world.used_bytes = world.stacks_bytes;
}

char *world_stack(unsigned index)
{
	return world.base + index * WORLD_STACK_BYTES;
}

static bool world_owns(const void *p)
{
	return (const char *)p >= world.base && (const char *)p < world.base + WORLD_BYTES;
}

/* ---- memory ---- */

void *world_alloc(size_t len_bytes, size_t align)
{
	size_t at = base_align_up(world.used_bytes, align);

	assert(world.base && len_bytes <= WORLD_BYTES - at);
	world.used_bytes = at + len_bytes;
	return world.base + at;
}

void *world_calloc(size_t nr, size_t len_bytes)
{
	return world_alloc(nr * len_bytes, nr * len_bytes >= WORLD_PAGE ? WORLD_PAGE : FSW_CACHE_LINE);
}

void world_free(void *p)
{
	assert(!p || world_owns(p));
}

int world_region_open(struct mem_region *region, size_t len_bytes)
{
	*region = (struct mem_region){ .len_bytes = base_align_up(len_bytes, WORLD_PAGE) };
	region->base = world_alloc(region->len_bytes, WORLD_PAGE);
	return 0;
}

void world_region_close(struct mem_region *region)
{
	memset(region, 0, sizeof(*region));
}

void world_adopt(void *p, size_t len_bytes)
{
	struct adopted *adopted = &world.adopted[world.nr_adopted++];

	assert(world.nr_adopted <= WORLD_MAX_ADOPTED && !world.guarded);
	adopted->p = p;
	adopted->len_bytes = len_bytes;
	adopted->before = world_alloc(len_bytes, FSW_CACHE_LINE);
}

/* ---- the hash: each word counts, by a multiplication in one of eight lanes, which do not wait for each other ---- */

#define HASH_LANES 8u
#define HASH_FACTOR 0x9e3779b97f4a7c15u

static uint64_t rotate(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static uint64_t scramble(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

static uint64_t hash_word(uint64_t lane, const char *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word));
	return rotate(lane ^ word, 29) * HASH_FACTOR;
}

static struct world_hash hash_block(const char *block, size_t len_bytes, uint64_t seed)
{
	uint64_t l0 = seed, l1 = seed + 1, l2 = seed + 2, l3 = seed + 3, l4 = seed + 4, l5 = seed + 5, l6 = seed + 6,
		 l7 = seed + 7;
	const char *at = block, *end = block + len_bytes;

	for (; at + HASH_LANES * sizeof(uint64_t) <= end; at += HASH_LANES * sizeof(uint64_t)) {
		l0 = hash_word(l0, at);
		l1 = hash_word(l1, at + 8);
		l2 = hash_word(l2, at + 16);
		l3 = hash_word(l3, at + 24);
		l4 = hash_word(l4, at + 32);
		l5 = hash_word(l5, at + 40);
		l6 = hash_word(l6, at + 48);
		l7 = hash_word(l7, at + 56);
	}
	for (; at + sizeof(uint64_t) <= end; at += sizeof(uint64_t))
		l0 = hash_word(l0, at);
	l0 = scramble(l0 + scramble(l1 + scramble(l2 + scramble(l3))));
	l4 = scramble(l4 + scramble(l5 + scramble(l6 + scramble(l7))));
	return (struct world_hash){ scramble(l0 + rotate(l4, 17)), scramble(l4 ^ rotate(l0, 41)) };
}

struct world_hash world_hash_more(struct world_hash hash, const void *p, size_t len_bytes)
{
	struct world_hash more = hash_block(p, len_bytes, len_bytes);

	return (struct world_hash){ scramble(hash.a + more.a), scramble(hash.b ^ more.b) + more.a };
}

static struct world_hash hash_page(const char *page, uint32_t number)
{
	return hash_block(page, WORLD_PAGE, (uint64_t)number << 32);
}

/* A page that is what it was adds nothing, so that it does not matter when it was first written. */
struct world_hash world_hash(void)
{
	struct world_hash sum = { 0, 0 };
	uint32_t i;

	for (i = 0; i < world.nr_written; i++) {
		uint32_t number = world.written[i];
		struct world_hash hash;

		if (number < world.stacks_bytes / WORLD_PAGE)
			continue;
		hash = hash_page(world.base + (size_t)number * WORLD_PAGE, number);
		sum.a += hash.a - world.before[i].a;
		sum.b += hash.b - world.before[i].b;
	}
	for (i = 0; i < world.nr_adopted; i++)
		sum = world_hash_more(sum, world.adopted[i].p, world.adopted[i].len_bytes);
	return sum;
}

/* ---- there and back ---- */

void world_snapshot(void)
{
	unsigned i;
	int ret;

	for (i = 0; i < world.nr_adopted; i++)
		memcpy(world.adopted[i].before, world.adopted[i].p, world.adopted[i].len_bytes);
	world.used_at_snapshot = world.used_bytes;
	ret = mprotect(world.base, WORLD_BYTES, PROT_READ);
	assert(ret == 0);
	(void)ret;
	world.guarded = true;
}

bool world_note_write(const void *at)
{
	uint32_t number;
	char *page, *copy;

	if (!world.guarded || !world_owns(at))
		return false;
	number = (uint32_t)((size_t)((const char *)at - world.base) / WORLD_PAGE);
	page = world.base + (size_t)number * WORLD_PAGE;
	copy = world.copy + (size_t)number * WORLD_PAGE;
	memcpy(copy, page, WORLD_PAGE);
	world.before[world.nr_written] = hash_page(copy, number);
	world.written[world.nr_written++] = number;
	return mprotect(page, WORLD_PAGE, PROT_READ | PROT_WRITE) == 0;
}

void world_restore(void)
{
	uint32_t i;

	for (i = 0; i < world.nr_written; i++) {
		size_t offset = (size_t)world.written[i] * WORLD_PAGE;

		memcpy(world.base + offset, world.copy + offset, WORLD_PAGE);
	}
	for (i = 0; i < world.nr_adopted; i++)
		memcpy(world.adopted[i].p, world.adopted[i].before, world.adopted[i].len_bytes);
	world.used_bytes = world.used_at_snapshot;
}

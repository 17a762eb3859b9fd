/* deps: client_comp */

/* The compressed pool gives back what was put in, deals its memory out again, and yields the oldest, all in turn. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>

#include "client/comp/internal.h"
#include "tests/unit/comp_fixture.h"

#define MAX_OBJECTS 8192u /* that any pool of these tests holds, but for the random ones */

/* A page that LZ4 makes exactly `len` bytes of. */
static void page_of_len(struct page *page, unsigned len)
{
	const int bound = LZ4_COMPRESSBOUND(FSW_PAGE_SIZE);
	char packed[LZ4_COMPRESSBOUND(FSW_PAGE_SIZE)];

	/* The random bytes, one more for each 255 of them, the text once, and a few. */
	for (unsigned nr = len > 160 ? len - 160 : 0; nr <= len; nr++) {
		for (unsigned seed = 1; seed < 20; seed++) {
			page_make(page, seed, nr);
			if (LZ4_compress_default((char *)page->bytes, packed, FSW_PAGE_SIZE, bound) == (int)len)
				return;
		}
	}
	fail_msg("no page of %u bytes", len);
}

static void expect_page(struct comp_pool *pool, uint64_t handle, const struct page *page)
{
	struct page loaded;

	assert_int_equal(comp_load(pool, 0, handle, loaded.bytes), 0);
	assert_memory_equal(loaded.bytes, page->bytes, FSW_PAGE_SIZE);
}

/* Stores the page until there is no room. Returns how often. */
static unsigned fill(struct comp_pool *pool, const struct page *page, uint64_t *handles)
{
	unsigned nr = 0;
	int ret;

	while ((ret = comp_store(pool, 0, page->bytes, nr, &handles[nr])) == 0) {
		assert_true(handles[nr] >> COMP_HANDLE_BITS == 0);
		nr++;
		assert_true(nr < MAX_OBJECTS);
	}
	assert_int_equal(ret, -ENOSPC);
	return nr;
}

static void free_all(struct comp_pool *pool, const uint64_t *handles, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		comp_free(pool, handles[i]);
}

static void test_options(void **state)
{
	const struct comp_pool_options good = { .limit_bytes = BLOCK, .algorithm = COMP_LZ4, .nr_queues = 1 };
	struct comp_pool_options options[] = { good, good, good, good, good, good, good, good, good };
	struct comp_pool *pool = NULL;
	struct comp_usage usage;

	(void)state;
	options[0].limit_bytes = 0;
	options[1].limit_bytes = BLOCK - 1;
	options[2].limit_bytes = COMP_LIMIT_BYTES_MAX + 1;
	options[3].nr_queues = 0;
	options[4].nr_queues = COMP_QUEUES_MAX + 1;
	options[5].level = -1;
	options[6].level = 65;
	options[7].algorithm = (enum comp_algorithm)2;
	options[8].algorithm = COMP_ZSTD;
	options[8].level = 23;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(options); i++) {
		assert_int_equal(comp_pool_create(&options[i], &pool), -EINVAL);
		assert_null(pool);
	}
	options[0].limit_bytes = COMP_LIMIT_BYTES_MAX; /* 8 TiB: more than any machine that runs this */
	assert_int_equal(comp_pool_create(&options[0], &pool), -ENOMEM);
	assert_null(pool);
	comp_pool_free(NULL);

	pool = pool_of(3 * BLOCK - 1, COMP_LZ4, 1);
	comp_pool_usage(pool, &usage);
	assert_int_equal(usage.limit_bytes, 2 * BLOCK);
	expect_usage(pool, 0, 0, 0);
	comp_pool_free(pool);
}

static void test_every_level_gives_back_what_it_got(void **state)
{
	static const struct {
		enum comp_algorithm algorithm;
		int level;
	} kinds[] = { { COMP_LZ4, 0 },	{ COMP_LZ4, 1 },  { COMP_LZ4, 8 },  { COMP_LZ4, 16 }, { COMP_ZSTD, -5 },
		      { COMP_ZSTD, 0 }, { COMP_ZSTD, 1 }, { COMP_ZSTD, 3 }, { COMP_ZSTD, 9 }, { COMP_ZSTD, 19 } };

	(void)state;
	for (unsigned k = 0; k < BASE_ARRAY_SIZE(kinds); k++) {
		struct comp_pool_options options = { 16 * BLOCK, kinds[k].algorithm, kinds[k].level, 2 };
		uint64_t handles[4];
		struct comp_pool *pool;
		struct page page, loaded;

		assert_int_equal(comp_pool_create(&options, &pool), 0);
		for (unsigned i = 0; i < 4; i++) {
			page_make(&page, i, i * 800);
			assert_int_equal(comp_store(pool, i % 2, page.bytes, i, &handles[i]), 0);
		}
		/* On either queue, whichever stored it. */
		for (unsigned i = 0; i < 4; i++) {
			page_make(&page, i, i * 800);
			expect_page(pool, handles[i], &page);
			assert_int_equal(comp_load(pool, 1, handles[i], loaded.bytes), 0);
			assert_memory_equal(loaded.bytes, page.bytes, FSW_PAGE_SIZE);
		}
		free_all(pool, handles, 4);
		expect_usage(pool, 0, 0, 0);
		comp_pool_free(pool);
	}
}

/* The last size of each class and the first of the next: as many as internal.h says fit into a block, and all whole. */
static void test_class_boundaries(void **state)
{
	static uint64_t handles[MAX_OBJECTS];
	struct comp_pool *pool = pool_of(BLOCK, COMP_LZ4, 1);
	struct page page;

	(void)state;
	for (unsigned size = 128; size <= COMP_OBJECT_BYTES_MAX; size += 128) {
		for (unsigned len = size; len <= size + 1; len++) {
			unsigned nr, class_bytes = (unsigned)base_align_up(len, 128);

			page_of_len(&page, len);
			if (len > COMP_OBJECT_BYTES_MAX) {
				assert_int_equal(comp_store(pool, 0, page.bytes, 0, handles), -E2BIG);
				continue;
			}
			nr = fill(pool, &page, handles);
			assert_int_equal(nr, BLOCK / (class_bytes + 8));
			expect_usage(pool, nr, (uint64_t)nr * len, 1);
			for (unsigned i = 0; i < nr; i++)
				expect_page(pool, handles[i], &page);
			free_all(pool, handles, nr);
			expect_usage(pool, 0, 0, 0);
		}
	}
	comp_pool_free(pool);
}

static void test_what_does_not_shrink_is_refused(void **state)
{
	(void)state;
	for (unsigned algorithm = COMP_LZ4; algorithm <= COMP_ZSTD; algorithm++) {
		struct comp_pool *pool = pool_of(BLOCK, (enum comp_algorithm)algorithm, 1);
		uint64_t handle = 7;
		struct page page;

		page_make(&page, 1, FSW_PAGE_SIZE);
		assert_int_equal(comp_store(pool, 0, page.bytes, 0, &handle), -E2BIG);
		page_make(&page, 1, COMP_OBJECT_BYTES_MAX); /* and the text comes on top */
		assert_int_equal(comp_store(pool, 0, page.bytes, 0, &handle), -E2BIG);
		assert_int_equal(handle, 7);
		expect_usage(pool, 0, 0, 0);
		/* And the next page is none the worse for it. */
		page_make(&page, 1, 100);
		assert_int_equal(comp_store(pool, 0, page.bytes, 0, &handle), 0);
		expect_page(pool, handle, &page);
		comp_pool_free(pool);
	}
}

static void test_limit(void **state)
{
	static uint64_t handles[MAX_OBJECTS];
	struct comp_pool *pool = pool_of(3 * BLOCK, COMP_LZ4, 1);
	struct page page, other;
	unsigned nr;

	(void)state;
	page_of_len(&page, 1000);
	page_of_len(&other, 901);
	nr = fill(pool, &page, handles);
	assert_int_equal(nr, 3 * 63);
	expect_usage(pool, nr, nr * 1000, 3);
	/* What was freed has room for exactly one, of other content. */
	for (unsigned i = 0; i < nr; i += 20) {
		uint64_t extra = UINT64_MAX;

		comp_free(pool, handles[i]);
		assert_int_equal(comp_store(pool, 0, other.bytes, i, &handles[i]), 0);
		assert_int_equal(comp_store(pool, 0, other.bytes, i, &extra), -ENOSPC);
		assert_int_equal(extra, UINT64_MAX);
	}
	for (unsigned i = 0; i < nr; i++)
		expect_page(pool, handles[i], i % 20 == 0 ? &other : &page);
	free_all(pool, handles, nr);
	expect_usage(pool, 0, 0, 0);
	comp_pool_free(pool);
}

static void test_blocks_go_from_class_to_class(void **state)
{
	static uint64_t handles[MAX_OBJECTS], others[MAX_OBJECTS];
	struct comp_pool *pool = pool_of(2 * BLOCK, COMP_LZ4, 1);
	struct page large, small;
	unsigned nr, nr_others;

	(void)state;
	page_of_len(&large, 3000);
	page_of_len(&small, 300);
	nr = fill(pool, &large, handles);
	assert_int_equal(nr, 2 * 21);
	assert_int_equal(fill(pool, &small, others), 0);
	/* One object keeps a whole block from the others. */
	free_all(pool, handles + 21, 20);
	expect_usage(pool, 22, 22 * 3000, 2);
	assert_int_equal(fill(pool, &small, others), 0);
	comp_free(pool, handles[41]);
	expect_usage(pool, 21, 21 * 3000, 1);
	nr_others = fill(pool, &small, others);
	assert_int_equal(nr_others, BLOCK / (384 + 8));
	for (unsigned i = 0; i < 21; i++)
		expect_page(pool, handles[i], &large);
	for (unsigned i = 0; i < nr_others; i++)
		expect_page(pool, others[i], &small);
	free_all(pool, handles, 21);
	free_all(pool, others, nr_others);
	expect_usage(pool, 0, 0, 0);
	comp_pool_free(pool);
}

/* In the order of the stores where nothing was freed, owners beside them, and round and round. */
static void test_oldest_first(void **state)
{
	static uint64_t handles[MAX_OBJECTS];
	struct comp_pool *pool = pool_of(4 * BLOCK, COMP_LZ4, 1);
	struct comp_object objects[100];
	struct page page;
	unsigned nr, at = 0;

	(void)state;
	assert_int_equal(comp_oldest(pool, objects, 100), 0);
	page_of_len(&page, 2000);
	nr = fill(pool, &page, handles);
	assert_int_equal(nr, 4 * 31);
	for (unsigned call = 0; call < 100; call++) {
		unsigned nr_yielded = comp_oldest(pool, objects, 7);

		assert_int_equal(nr_yielded, 7);
		for (unsigned i = 0; i < nr_yielded; i++, at++) {
			assert_int_equal(objects[i].handle, handles[at % nr]);
			assert_int_equal(objects[i].owner, at % nr);
		}
	}
	assert_int_equal(comp_oldest(pool, objects, 0), 0);
	free_all(pool, handles, nr);
	assert_int_equal(comp_oldest(pool, objects, 100), 0);
	/* The largest owner. */
	assert_int_equal(comp_store(pool, 0, page.bytes, (UINT64_C(1) << COMP_OWNER_BITS) - 1, handles), 0);
	/* One call goes round once, and the next begins again, wherever the hand stood. */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(comp_oldest(pool, objects, i == 0 ? 1 : 100), 1);
		assert_int_equal(objects[0].handle, handles[0]);
		assert_int_equal(objects[0].owner, (UINT64_C(1) << COMP_OWNER_BITS) - 1);
	}
	comp_pool_free(pool);
}

/* Blocks are freed in front of the hand, under it and behind it, and one that comes into use again is the youngest. */
static void test_hand_and_freed_blocks(void **state)
{
	static uint64_t handles[MAX_OBJECTS];
	struct comp_pool *pool = pool_of(4 * BLOCK, COMP_LZ4, 1);
	struct comp_object objects[200];
	struct page page;
	unsigned nr;

	(void)state;
	page_of_len(&page, 2000);
	nr = fill(pool, &page, handles);
	assert_int_equal(comp_oldest(pool, objects, 40), 40); /* the hand is in the second block */
	free_all(pool, handles + 31, 31);
	assert_int_equal(comp_oldest(pool, objects, 1), 1);
	assert_int_equal(objects[0].owner, 62);
	free_all(pool, handles, 31);
	free_all(pool, handles + 93, 31);
	for (unsigned i = 0; i < 31; i++)
		assert_int_equal(comp_store(pool, 0, page.bytes, 1000 + i, &handles[i]), 0);
	/* The rest of the third block, the one that is new, and no more: the third was begun in this round. */
	assert_int_equal(comp_oldest(pool, objects, 200), 30 + 31);
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(objects[i].owner, 63 + i);
	for (unsigned i = 0; i < 31; i++)
		assert_int_equal(objects[30 + i].owner, 1000 + i);
	assert_int_equal(comp_oldest(pool, objects, 200), 62);
	assert_int_equal(objects[0].owner, 62);
	free_all(pool, handles, 31);
	free_all(pool, handles + 62, 31);
	expect_usage(pool, 0, 0, 0);
	assert_true(nr == 4 * 31);
	comp_pool_free(pool);
}

/* What cannot be a page is noticed; what can is the business of whoever keeps checksums. */
static void test_damage(void **state)
{
	(void)state;
	for (unsigned algorithm = COMP_LZ4; algorithm <= COMP_ZSTD; algorithm++) {
		struct comp_pool *pool = pool_of(BLOCK, (enum comp_algorithm)algorithm, 1);
		struct page page, packed, loaded[2];
		struct rand_state rand = { 11 };
		unsigned nr_noticed = 0;
		uint64_t handle;
		uint32_t len;
		void *bytes;

		page_make(&page, 3, 1000);
		assert_int_equal(comp_store(pool, 0, page.bytes, 0, &handle), 0);
		len = comp_space_find(&pool->space, handle, &bytes);
		assert_in_range(len, 1000, 1200);
		memcpy(packed.bytes, bytes, len);

		memset(bytes, 0xff, len);
		assert_int_equal(comp_load(pool, 0, handle, loaded[0].bytes), -EBADMSG);
		/* Bits at random: noticed or not, and nothing is written behind the page. */
		memset(loaded[1].bytes, 0x5a, FSW_PAGE_SIZE);
		for (unsigned i = 0; i < 5000; i++) {
			uint64_t bit = rand_below(&rand, len * 8);
			int ret;

			memcpy(bytes, packed.bytes, len);
			((unsigned char *)bytes)[bit / 8] ^= (unsigned char)(1 << bit % 8);
			ret = comp_load(pool, 0, handle, loaded[0].bytes);
			assert_true(ret == 0 || ret == -EBADMSG);
			nr_noticed += ret < 0;
		}
		print_message("%u of 5000 flipped bits noticed\n", nr_noticed);
		assert_true(nr_noticed > 0);
		for (unsigned i = 0; i < FSW_PAGE_SIZE; i++)
			assert_int_equal(loaded[1].bytes[i], 0x5a);
		/* And the context is as good as before. */
		memcpy(bytes, packed.bytes, len);
		expect_page(pool, handle, &page);
		comp_pool_free(pool);
	}
}

/* Lengths in the head that are not those of a whole object. */
static void test_damaged_head(void **state)
{
	struct comp_pool *pool = pool_of(BLOCK, COMP_LZ4, 1);
	struct page page, loaded;
	uint64_t handle, *head;
	void *bytes;

	(void)state;
	page_of_len(&page, 1000);
	assert_int_equal(comp_store(pool, 0, page.bytes, 5, &handle), 0);
	head = (uint64_t *)pool->space.region.base; /* of the first object of the first block */
	assert_int_equal(*head, 5 << 12 | 1000);
	for (unsigned len = 0; len < 4096; len++) {
		*head = 5 << 12 | len;
		if (len < 1000 || len > 1024)
			assert_int_equal(comp_load(pool, 0, handle, loaded.bytes), -EBADMSG);
		/* Nothing behind the object's room is looked at. */
		assert_int_equal(comp_space_find(&pool->space, handle, &bytes), len <= 1024 ? len : 0);
	}
	*head = 5 << 12 | 1000;
	expect_page(pool, handle, &page);
	comp_pool_free(pool);
}

/* ---- nothing allocates after the start ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifndef SANITIZED
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t nr, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static __thread unsigned nr_allocations;

void *malloc(size_t size)
{
	nr_allocations++;
	return __libc_malloc(size);
}

void *calloc(size_t nr, size_t size)
{
	nr_allocations++;
	return __libc_calloc(nr, size);
}

void *realloc(void *old, size_t size)
{
	nr_allocations++;
	return __libc_realloc(old, size);
}

static void test_nothing_is_allocated(void **state)
{
	(void)state;
	for (unsigned algorithm = COMP_LZ4; algorithm <= COMP_ZSTD; algorithm++) {
		struct comp_pool *pool = pool_of(BLOCK, (enum comp_algorithm)algorithm, 1);
		struct comp_object object;
		struct page page;
		unsigned nr_before = nr_allocations, nr_stored = 0;
		uint64_t handle;

		assert_true(nr_before > 0); /* the watch is on */
		for (unsigned i = 0; i < 5000; i++) {
			page_make(&page, i, i % FSW_PAGE_SIZE);
			if (comp_store(pool, 0, page.bytes, i, &handle) < 0)
				continue;
			nr_stored++;
			if (comp_load(pool, 0, handle, page.bytes) < 0 || comp_oldest(pool, &object, 1) != 1)
				break;
			comp_free(pool, handle);
		}
		assert_int_equal(nr_allocations, nr_before);
		assert_in_range(nr_stored, 3000, 4500);
		expect_usage(pool, 0, 0, 0);
		comp_pool_free(pool);
	}
}
#else
static void test_nothing_is_allocated(void **state)
{
	(void)state;
	skip(); /* the sanitizer allocates itself */
}
#endif

/* ---- against a model ---- */

#define MODEL_OBJECTS 2000u
#define MODEL_BLOCKS 40u

struct model_object {
	bool stored;
	bool yielded;
	uint64_t handle;
	uint64_t seed;
	unsigned nr_random;
};

struct model {
	struct comp_pool *pool;
	struct rand_state rand;
	struct model_object objects[MODEL_OBJECTS]; /* by owner */
	unsigned nr_stored;
	unsigned nr_refused;
	uint64_t nr_loads;
};

static void model_store(struct model *m, uint64_t owner)
{
	struct model_object *object = &m->objects[owner];
	struct page page;
	int ret;

	object->seed = rand_next(&m->rand);
	/* Sizes come in waves, so that blocks must change hands. */
	object->nr_random = (unsigned)rand_below(&m->rand, rand_below(&m->rand, 8) ? 2200 : FSW_PAGE_SIZE);
	page_make(&page, object->seed, object->nr_random);
	ret = comp_store(m->pool, (unsigned)(owner % 2), page.bytes, owner, &object->handle);
	object->stored = ret == 0;
	m->nr_stored += ret == 0;
	m->nr_refused += ret == -ENOSPC;
	if (ret == -E2BIG)
		assert_true(object->nr_random > 2900);
	else if (ret != 0)
		assert_int_equal(ret, -ENOSPC);
}

static void model_load(struct model *m, uint64_t owner)
{
	const struct model_object *object = &m->objects[owner];
	struct page page;

	page_make(&page, object->seed, object->nr_random);
	expect_page(m->pool, object->handle, &page);
	m->nr_loads++;
}

static void model_free(struct model *m, uint64_t owner)
{
	comp_free(m->pool, m->objects[owner].handle);
	m->objects[owner].stored = false;
	m->nr_stored--;
}

/* Writes some back: what the hand yields is what the model has. */
static void model_write_back(struct model *m)
{
	struct comp_object objects[64];
	unsigned nr = comp_oldest(m->pool, objects, BASE_ARRAY_SIZE(objects));

	assert_true(nr > 0 || m->nr_stored == 0);
	for (unsigned i = 0; i < nr; i++) {
		assert_true(objects[i].owner < MODEL_OBJECTS && m->objects[objects[i].owner].stored);
		assert_true(m->objects[objects[i].owner].handle == objects[i].handle);
		model_load(m, objects[i].owner);
		if (rand_below(&m->rand, 8)) /* some cannot be moved */
			model_free(m, objects[i].owner);
	}
}

/* All objects, each once, in one round; and the counts. */
static void model_check(struct model *m)
{
	static struct comp_object objects[MODEL_OBJECTS + 1];
	struct comp_usage usage;
	unsigned nr;

	comp_pool_usage(m->pool, &usage);
	assert_int_equal(usage.nr_objects, m->nr_stored);
	assert_true(usage.stored_bytes <= usage.used_bytes && usage.used_bytes <= usage.limit_bytes);
	/* The first round ends in front of the block in which it has begun, so that the next is a whole one. */
	nr = comp_oldest(m->pool, objects, MODEL_OBJECTS + 1);
	assert_true(nr <= m->nr_stored);
	nr = comp_oldest(m->pool, objects, MODEL_OBJECTS + 1);
	assert_int_equal(nr, m->nr_stored);
	for (unsigned i = 0; i < MODEL_OBJECTS; i++)
		m->objects[i].yielded = false;
	for (unsigned i = 0; i < nr; i++) {
		struct model_object *object = &m->objects[objects[i].owner];

		assert_true(object->stored && !object->yielded && object->handle == objects[i].handle);
		object->yielded = true;
	}
}

static void model_run(enum comp_algorithm algorithm, unsigned nr_ops)
{
	static struct model m;
	uint64_t seed = seed_of_run();

	m = (struct model){ .pool = pool_of(MODEL_BLOCKS * BLOCK, algorithm, 2), .rand = { seed } };
	for (unsigned op = 0; op < nr_ops; op++) {
		uint64_t owner = rand_below(&m.rand, MODEL_OBJECTS), what = rand_below(&m.rand, 1000);

		if (!m.objects[owner].stored)
			model_store(&m, owner);
		else if (what < 700)
			model_load(&m, owner);
		else if (what < 998)
			model_free(&m, owner);
		else
			model_write_back(&m);
		if (op % 5000 == 0)
			model_check(&m);
	}
	print_message("%u refused, %" PRIu64 " loads\n", m.nr_refused, m.nr_loads);
	assert_true(m.nr_refused > 0 && m.nr_loads > nr_ops / 4);
	for (uint64_t owner = 0; owner < MODEL_OBJECTS; owner++) {
		if (!m.objects[owner].stored)
			continue;
		model_load(&m, owner);
		model_free(&m, owner);
	}
	expect_usage(m.pool, 0, 0, 0);
	comp_pool_free(m.pool);
}

static void test_random(void **state)
{
	(void)state;
	model_run(COMP_LZ4, 200000);
	model_run(COMP_ZSTD, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_every_level_gives_back_what_it_got),
		cmocka_unit_test(test_class_boundaries),
		cmocka_unit_test(test_what_does_not_shrink_is_refused),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_blocks_go_from_class_to_class),
		cmocka_unit_test(test_oldest_first),
		cmocka_unit_test(test_hand_and_freed_blocks),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_damaged_head),
		cmocka_unit_test(test_nothing_is_allocated),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

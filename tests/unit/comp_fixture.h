/*
 * Pools of compressed pages, and pages for them that shrink more or less.
 */
#ifndef FARSWAP_TESTS_UNIT_COMP_FIXTURE_H
#define FARSWAP_TESTS_UNIT_COMP_FIXTURE_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "client/comp/comp.h"
#include "common/base/rand.h"

#define BLOCK COMP_BLOCK_BYTES

struct page {
	_Alignas(8) unsigned char bytes[FSW_PAGE_SIZE];
};

/*
 * Text that repeats itself, and as many random bytes as told: in this order, since LZ4 takes larger and larger steps
 * through what it cannot shrink, and would find the text later or sooner.
 */
static inline void page_make(struct page *page, uint64_t seed, unsigned nr_random)
{
	static const char text[] = "a page of a program: pointers, counters, and strings such as this one; ";
	struct rand_state rand = { seed };
	unsigned i;

	for (i = 0; i < FSW_PAGE_SIZE - nr_random; i++)
		page->bytes[i] = (unsigned char)text[i % (sizeof(text) - 1)];
	for (; i + 8 <= FSW_PAGE_SIZE; i += 8) {
		uint64_t value = rand_next(&rand);

		memcpy(page->bytes + i, &value, sizeof(value));
	}
	for (; i < FSW_PAGE_SIZE; i++)
		page->bytes[i] = (unsigned char)rand_next(&rand);
}

static inline struct comp_pool *pool_of(uint64_t limit_bytes, enum comp_algorithm algorithm, unsigned nr_queues)
{
	struct comp_pool_options options = { .limit_bytes = limit_bytes,
					     .algorithm = algorithm,
					     .nr_queues = nr_queues };
	struct comp_pool *pool = NULL;

	assert_int_equal(comp_pool_create(&options, &pool), 0);
	return pool;
}

static inline void expect_usage(const struct comp_pool *pool, uint64_t nr_objects, uint64_t stored_bytes, uint64_t nr_blocks)
{
	struct comp_usage usage;

	comp_pool_usage(pool, &usage);
	assert_int_equal(usage.nr_objects, nr_objects);
	assert_int_equal(usage.stored_bytes, stored_bytes);
	assert_int_equal(usage.used_bytes, nr_blocks * BLOCK);
}

/* FARSWAP_SEED, or another one each time; it is printed. */
static inline uint64_t seed_of_run(void)
{
	const char *given = getenv("FARSWAP_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	print_message("FARSWAP_SEED=%" PRIu64 "\n", seed);
	return seed;
}

#endif

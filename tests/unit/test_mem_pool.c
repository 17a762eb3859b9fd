/* deps: common_mem */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem/pool.h"

#define NR_OBJECTS 100

static void test_get_put(void **state)
{
	struct mem_pool pool;
	unsigned char *object[NR_OBJECTS];

	(void)state;
	assert_int_equal(mem_pool_init(&pool, 72, 64, NR_OBJECTS), 0);
	assert_true(pool.region.locked);
	for (unsigned i = 0; i < NR_OBJECTS; i++) {
		object[i] = mem_pool_get(&pool);
		assert_non_null(object[i]);
		assert_int_equal((uintptr_t)object[i] % 64, 0);
		for (unsigned k = sizeof(void *); k < 72; k++)
			assert_int_equal(object[i][k], 0);
		memset(object[i], (int)i, 72);
	}
	assert_int_equal(pool.nr_free, 0);
	assert_null(mem_pool_get(&pool));
	/* Nobody's object overlaps another's. */
	for (unsigned i = 0; i < NR_OBJECTS; i++) {
		for (unsigned k = 0; k < 72; k++)
			assert_int_equal(object[i][k], i);
	}
	for (unsigned i = 0; i < NR_OBJECTS; i++)
		mem_pool_put(&pool, object[i]);
	assert_int_equal(pool.nr_free, NR_OBJECTS);
	/* What was left in the last one is still there, but for its head. */
	object[0] = mem_pool_get(&pool);
	for (unsigned k = sizeof(void *); k < 72; k++)
		assert_int_equal(object[0][k], NR_OBJECTS - 1);
	mem_pool_put(&pool, object[0]);
	mem_pool_done(&pool);
	assert_null(pool.region.base);
}

static void test_refused(void **state)
{
	struct mem_pool pool;

	(void)state;
	assert_int_equal(mem_pool_init(&pool, 0, 8, 1), -EINVAL);
	assert_int_equal(mem_pool_init(&pool, 8, 8, 0), -EINVAL);
	assert_int_equal(mem_pool_init(&pool, SIZE_MAX / 2, 8, 3), -ENOMEM);
	assert_int_equal(mem_pool_init(&pool, (size_t)1 << 40, 4096, UINT32_MAX), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get_put),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

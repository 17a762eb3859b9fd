/* deps: client_comp */
/*
 * The compressed pool on real threads: four store, load and free the same objects, each with a queue of its own, while a fifth
 * asks for the oldest, as the mover does. For ThreadSanitizer above all.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/comp_fixture.h"

#define NR_THREADS 4u
#define NR_SHARED 512u
#define NR_TURNS 20000u

/* Objects that any thread may take, load, free, or put back. */
struct shared {
	struct comp_pool *pool;
	_Atomic uint64_t handles[NR_SHARED]; /* handle + 1 with the seed above it, or 0 */
	_Atomic bool stop;
	_Atomic unsigned nr_wrong;
	_Atomic uint64_t nr_loads;
	uint64_t seed;
};

struct worker {
	struct shared *shared;
	unsigned queue;
	pthread_t thread;
};

static void shared_page(struct page *page, uint64_t seed)
{
	page_make(page, seed, (unsigned)(seed * 37 % 3000));
}

/* Not cmocka's assertions, which are for the test's own thread. */
static void *worker_main(void *arg)
{
	const struct worker *worker = arg;
	struct shared *s = worker->shared;
	struct rand_state rand = { s->seed + worker->queue };
	struct page page, loaded;

	for (unsigned turn = 0; turn < NR_TURNS; turn++) {
		_Atomic uint64_t *place = &s->handles[rand_below(&rand, NR_SHARED)];
		uint64_t taken = atomic_exchange(place, 0), handle, seed;

		if (taken) {
			handle = (taken & ((UINT64_C(1) << 37) - 1)) - 1;
			shared_page(&page, taken >> 37);
			if (comp_load(s->pool, worker->queue, handle, loaded.bytes) < 0 ||
			    memcmp(page.bytes, loaded.bytes, FSW_PAGE_SIZE) != 0)
				atomic_fetch_add(&s->nr_wrong, 1);
			atomic_fetch_add(&s->nr_loads, 1);
		} else {
			seed = rand_below(&rand, 1 << 20);
			shared_page(&page, seed);
			if (comp_store(s->pool, worker->queue, page.bytes, seed, &handle) < 0)
				continue;
			taken = (handle + 1) | seed << 37;
		}
		if (rand_below(&rand, 3) == 0 || (taken = atomic_exchange(place, taken)) != 0)
			comp_free(s->pool, (taken & ((UINT64_C(1) << 37) - 1)) - 1);
	}
	return NULL;
}

/* The mover's part, with nothing moved. */
static void *hand_main(void *arg)
{
	struct shared *s = arg;
	struct comp_object objects[50];
	struct comp_usage usage;

	while (!atomic_load(&s->stop)) {
		unsigned nr = comp_oldest(s->pool, objects, BASE_ARRAY_SIZE(objects));

		for (unsigned i = 0; i < nr; i++) {
			if (objects[i].owner >> 20 != 0 || objects[i].handle >> COMP_HANDLE_BITS != 0)
				atomic_fetch_add(&s->nr_wrong, 1);
		}
		comp_pool_usage(s->pool, &usage);
		if (usage.used_bytes > usage.limit_bytes)
			atomic_fetch_add(&s->nr_wrong, 1);
	}
	return NULL;
}

static void threads_run(enum comp_algorithm algorithm)
{
	static struct shared s;
	struct worker workers[NR_THREADS];
	pthread_t hand;

	memset(&s, 0, sizeof(s));
	s.pool = pool_of(8 * BLOCK, algorithm, NR_THREADS);
	s.seed = seed_of_run();
	assert_int_equal(pthread_create(&hand, NULL, hand_main, &s), 0);
	for (unsigned i = 0; i < NR_THREADS; i++) {
		workers[i] = (struct worker){ .shared = &s, .queue = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	atomic_store(&s.stop, true);
	pthread_join(hand, NULL);
	assert_int_equal(s.nr_wrong, 0);
	assert_true(s.nr_loads > NR_TURNS / 2);
	for (unsigned i = 0; i < NR_SHARED; i++) {
		if (s.handles[i])
			comp_free(s.pool, (s.handles[i] & ((UINT64_C(1) << 37) - 1)) - 1);
	}
	expect_usage(s.pool, 0, 0, 0);
	comp_pool_free(s.pool);
}

static void test_threads(void **state)
{
	(void)state;
	threads_run(COMP_LZ4);
	threads_run(COMP_ZSTD);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

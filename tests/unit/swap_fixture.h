/*
 * Folios for tests of the swap cache, on the device of vswap_fixture.h. A test calls the functions of swap.h directly, as the
 * thread of a queue would within a turn: in a read-side section, which swap_turns ends for a while.
 */
#ifndef FARSWAP_TESTS_UNIT_SWAP_FIXTURE_H
#define FARSWAP_TESTS_UNIT_SWAP_FIXTURE_H

#include "client/vswap/folio.h"
#include "client/vswap/swapcache.h"
#include "tests/unit/vswap_fixture.h"

struct test_folio {
	struct folio folio;
	_Atomic unsigned nr_released;
	int status; /* of the last I/O; FIXTURE_PENDING meanwhile */
	unsigned nr_done;
};

static inline void swap_fixture_free(struct fixture *f)
{
	sys_rcu_read_unlock();
	fixture_free(f);
	sys_rcu_barrier();
}

static inline struct vswap_queue *swap_queue(struct fixture *f)
{
	return vswap_queue(f->vswap, 0);
}

/* Time passes: what waits for a grace period or for a turn happens. */
static inline void swap_turns(struct fixture *f, unsigned nr)
{
	sys_rcu_read_unlock();
	fixture_turns(f, nr);
	sys_rcu_barrier();
	sys_rcu_read_lock();
}

static inline void test_folio_released(struct folio *folio, void *arg)
{
	struct test_folio *test = arg;

	assert(folio == &test->folio);
	atomic_fetch_add(&test->nr_released, 1);
}

/* As fixture_used and fixture_add_slab, for who is in a read-side section. */
static inline uint64_t swap_used(struct fixture *f)
{
	uint64_t nr;

	sys_rcu_read_unlock();
	nr = fixture_used(f, -1);
	sys_rcu_read_lock();
	return nr;
}

static inline void swap_add_slab(struct fixture *f, unsigned b, uint32_t nr_slots)
{
	sys_rcu_read_unlock();
	fixture_add_slab(f, b, nr_slots);
	sys_rcu_read_lock();
}

static inline struct fixture *swap_fixture_create(uint64_t nr_entries, uint32_t reserve_tables)
{
	struct vswap_options options = { .nr_entries = nr_entries, .nr_queues = FIXTURE_QUEUES, .max_slabs = 64,
					 .reserve_tables = reserve_tables, .seed = 1 };
	struct fixture *f = fixture_create_with(&options);

	sys_rcu_read_lock();
	swap_add_slab(f, 0, 1024);
	return f;
}

/* Locked, with bytes of `value`. */
static inline struct test_folio *test_folio_new(unsigned order, uint64_t value)
{
	struct test_folio *test = calloc(1, sizeof(*test));
	void *data = aligned_alloc(FSW_PAGE_SIZE, (size_t)FSW_PAGE_SIZE << order);

	assert_true(test && data);
	fixture_fill(data, 1u << order, value);
	folio_init(&test->folio, data, order, test_folio_released, test);
	assert_true(folio_trylock(&test->folio));
	return test;
}

/* The last reference of each: it must be released by that, and once. */
static inline void test_folios_free(struct fixture *f, struct test_folio **test, unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		folio_put(&test[i]->folio);
	swap_turns(f, 1);
	for (i = 0; i < nr; i++) {
		assert_int_equal(atomic_load(&test[i]->nr_released), 1);
		free(test[i]->folio.data);
		free(test[i]);
	}
}

static inline void test_folio_free(struct fixture *f, struct test_folio *test)
{
	test_folios_free(f, &test, 1);
}

static inline bool test_folio_holds(const struct test_folio *test, uint64_t value)
{
	size_t len = (size_t)FSW_PAGE_SIZE << test->folio.order;
	void *expected = aligned_alloc(FSW_PAGE_SIZE, len);
	bool same;

	fixture_fill(expected, 1u << test->folio.order, value);
	same = memcmp(expected, test->folio.data, len) == 0;
	free(expected);
	return same;
}

static inline void test_folio_done(struct folio *folio, int status, void *arg)
{
	struct test_folio *test = arg;

	assert(folio == &test->folio);
	test->status = status;
	test->nr_done++;
}

static inline int test_folio_wait(struct fixture *f, struct test_folio *test)
{
	unsigned n;

	for (n = 0; n < 1000 && test->status == FIXTURE_PENDING; n++)
		swap_turns(f, 1);
	assert_int_equal(test->nr_done, 1);
	return test->status;
}

typedef int (*test_folio_io)(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);

/* Stores it, or reads it in, and waits. The error of the call, or the status. */
static inline int test_folio_do(struct fixture *f, struct test_folio *test, test_folio_io io)
{
	int err;

	test->status = FIXTURE_PENDING;
	test->nr_done = 0;
	err = io(swap_queue(f), &test->folio, test_folio_done, test);
	assert_int_equal(test->nr_done, 0); /* never inside the call */
	return err < 0 ? err : test_folio_wait(f, test);
}

static inline unsigned swap_tag(struct fixture *f, swp_entry_t entry)
{
	struct table_look look;

	table_look(&f->vswap->tables, entry.val, &look);
	return word_tag(look.word);
}

#endif

/* deps: client_vswap */
#include "tests/unit/swap_fixture.h"

#define ENTRIES 4096u
#define RESERVE 64u

static void test_allocation_is_cached_and_held_by_nobody(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *test = test_folio_new(3, 1);
	swp_entry_t entry = { 0 };
	struct folio *found;
	swp_slot_t slot;

	(void)state;
	assert_int_equal(folio_alloc_swap(swap_queue(f), &test->folio, 2, &entry), -EINVAL); /* not its order */
	assert_int_equal(folio_alloc_swap(swap_queue(f), &test->folio, 3, &entry), 0);
	assert_true(entry.val != 0 && entry.val % 8 == 0);
	assert_int_equal(folio_alloc_swap(swap_queue(f), &test->folio, 3, &entry), -EINVAL); /* it has entries */
	assert_int_equal(folio_flags(&test->folio), FOLIO_UPTODATE | FOLIO_DIRTY | FOLIO_SWAPCACHE);
	assert_int_equal(swp_swapcount(swap_queue(f), entry), 0);
	assert_int_equal(swap_dup_entry_direct(swap_queue(f), entry), -ENOENT); /* nobody holds it who could fork */
	assert_int_equal(swap_duplicate_nr(swap_queue(f), entry, 8), -ENOENT);
	assert_false(folio_swapped(swap_queue(f), &test->folio));
	assert_int_equal(vswap_swapcache_only(swap_queue(f), entry, 100), 8);
	assert_int_equal(non_swapcache_batch(swap_queue(f), entry, 100), 0);
	assert_int_equal(swp_entry_to_swp_slot(swap_queue(f), entry, &slot), -ENODATA);
	found = swap_cache_get_folio(swap_queue(f), (swp_entry_t){ entry.val + 7 });
	assert_ptr_equal(found, &test->folio);
	folio_put(found);
	assert_null(swap_cache_get_folio(swap_queue(f), (swp_entry_t){ entry.val + 8 }));
	assert_true(folio_free_swap(swap_queue(f), &test->folio));
	assert_int_equal(swp_entry_to_swp_slot(swap_queue(f), entry, &slot), -ENOENT);
	assert_int_equal(folio_flags(&test->folio), FOLIO_UPTODATE | FOLIO_DIRTY);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

/* Out, evicted, and in again: by a folio of another order, and the bytes are the same. */
static void test_a_page_goes_out_and_comes_in(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *out = test_folio_new(2, 7), *in = test_folio_new(2, 99), *late = test_folio_new(2, 98);
	swp_entry_t entry, back;
	swp_slot_t slot;

	(void)state;
	assert_int_equal(folio_alloc_swap(swap_queue(f), &out->folio, 2, &entry), 0);
	assert_int_equal(folio_dup_swap(swap_queue(f), &out->folio, FOLIO_ALL), 0);
	assert_int_equal(put_swap_folio(swap_queue(f), &out->folio, entry), -EBUSY); /* its bytes are nowhere else */
	assert_int_equal(test_folio_do(f, out, vswap_store_folio), 0);
	assert_int_equal(folio_flags(&out->folio), FOLIO_UPTODATE | FOLIO_SWAPCACHE);
	assert_int_equal(swp_entry_to_swp_slot(swap_queue(f), entry, &slot), 0);
	assert_int_equal(swp_slot_to_swp_entry(swap_queue(f), slot, &back), 0);
	assert_int_equal(back.val, entry.val);
	assert_int_equal(put_swap_folio(swap_queue(f), &out->folio, entry), 0);
	folio_unlock(swap_queue(f), &out->folio);
	test_folio_free(f, out);

	assert_null(swap_cache_get_folio(swap_queue(f), entry));
	assert_int_equal(non_swapcache_batch(swap_queue(f), entry, 100), 4);
	assert_int_equal(swapcache_prepare(swap_queue(f), entry, 4, &in->folio), 0);
	assert_int_equal(swapcache_prepare(swap_queue(f), entry, 4, &late->folio), -EEXIST);
	assert_int_equal(test_folio_do(f, in, swap_read_folio), 0);
	assert_true(test_folio_holds(in, 7));
	assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, 4), 0);
	assert_int_equal(swap_tag(f, entry), WORD_REMOTE); /* locked: it stays until it is unlocked */
	folio_unlock(swap_queue(f), &in->folio);
	assert_int_equal(swap_tag(f, entry), WORD_NONE);
	assert_int_equal(swapcache_prepare(swap_queue(f), entry, 4, &late->folio), -ENOENT);
	swap_turns(f, 8);
	assert_int_equal(swap_used(f), 0);
	folio_unlock(swap_queue(f), &late->folio);
	test_folio_free(f, late);
	test_folio_free(f, in);
	swap_fixture_free(f);
}

/* Two passes: what cannot be inserted whole is not inserted at all, wherever the obstacle is. */
static void test_insertion_is_all_or_nothing(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	unsigned i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct test_folio *whole = test_folio_new(2, 1), *one = test_folio_new(0, 2), *again = test_folio_new(2, 3);
		swp_entry_t entry, middle;

		assert_int_equal(folio_alloc_swap(swap_queue(f), &whole->folio, 2, &entry), 0);
		assert_int_equal(folio_dup_swap(swap_queue(f), &whole->folio, FOLIO_ALL), 0);
		assert_int_equal(test_folio_do(f, whole, vswap_store_folio), 0);
		assert_int_equal(swapcache_clear(swap_queue(f), &whole->folio, entry, 4), 0);
		middle.val = entry.val + i;
		assert_int_equal(swap_cache_add_folio(swap_queue(f), &one->folio, middle), 0);
		assert_int_equal(swap_cache_add_folio(swap_queue(f), &again->folio, entry), -EEXIST);
		assert_int_equal(non_swapcache_batch(swap_queue(f), entry, 4), i);
		assert_int_equal(folio_flags(&again->folio) & FOLIO_SWAPCACHE, 0);
		assert_int_equal(put_swap_folio(swap_queue(f), &one->folio, middle), 0);
		assert_int_equal(swap_free_nr(swap_queue(f), middle, 1), 0);
		assert_int_equal(swap_cache_add_folio(swap_queue(f), &again->folio, entry), -ENOENT);
		assert_int_equal(swap_duplicate_nr(swap_queue(f), entry, 4), -ENOENT);
		if (i > 0)
			assert_int_equal(swp_swapcount(swap_queue(f), entry), 1);
		assert_int_equal(swap_free_nr(swap_queue(f), entry, 4), -ENOENT);
		if (i > 0)
			assert_int_equal(swap_free_nr(swap_queue(f), entry, i), 0);
		if (i < 3)
			assert_int_equal(swap_free_nr(swap_queue(f), (swp_entry_t){ middle.val + 1 }, 3 - i), 0);
		folio_unlock(swap_queue(f), &whole->folio);
		folio_unlock(swap_queue(f), &one->folio);
		folio_unlock(swap_queue(f), &again->folio);
		test_folio_free(f, whole);
		test_folio_free(f, one);
		test_folio_free(f, again);
	}
	swap_fixture_free(f);
}

/* A range that begins in the middle of a folio and goes on over others: each is dropped by itself. */
static void test_puts_from_the_middle_of_a_folio(void **state)
{
	static const unsigned order[3] = { 2, 1, 1 }, at[3] = { 0, 4, 6 };
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *whole = test_folio_new(3, 1), *part[3];
	swp_entry_t entry;
	unsigned i;

	(void)state;
	assert_int_equal(folio_alloc_swap(swap_queue(f), &whole->folio, 3, &entry), 0);
	assert_int_equal(folio_dup_swap(swap_queue(f), &whole->folio, FOLIO_ALL), 0);
	assert_int_equal(test_folio_do(f, whole, vswap_store_folio), 0);
	assert_int_equal(put_swap_folio(swap_queue(f), &whole->folio, entry), 0);
	for (i = 0; i < 3; i++) {
		part[i] = test_folio_new(order[i], 0);
		assert_int_equal(swap_cache_add_folio(swap_queue(f), &part[i]->folio, (swp_entry_t){ entry.val + at[i] }), 0);
		folio_unlock(swap_queue(f), &part[i]->folio);
	}
	assert_int_equal(swap_free_nr(swap_queue(f), entry, 2), 0);
	for (i = 0; i < 3; i++)
		assert_int_equal(folio_flags(&part[i]->folio) & FOLIO_SWAPCACHE, FOLIO_SWAPCACHE);
	assert_int_equal(swap_free_nr(swap_queue(f), (swp_entry_t){ entry.val + 2 }, 6), 0);
	for (i = 0; i < 3; i++)
		assert_int_equal(folio_flags(&part[i]->folio) & FOLIO_SWAPCACHE, 0);
	assert_int_equal(swap_tag(f, entry), WORD_NONE);
	folio_unlock(swap_queue(f), &whole->folio);
	test_folio_free(f, whole);
	test_folios_free(f, part, 3);
	swap_fixture_free(f);
}

/* Entries in a row whose slots are not: what one put frees is all that they had, and nothing of the one that stays. */
static void test_one_put_frees_slots_that_are_not_in_a_row(void **state)
{
	/* Single ones, three in a row, fourteen: fewer and more than are freed at once. The last has a slot of the middle. */
	static const unsigned in_order_of_slots[] = { 0,  2,  1,  3,  4,  5,  24, 7,  8,  9,  10, 11, 12,
						      13, 14, 15, 16, 17, 18, 19, 20, 22, 21, 23, 6 };
	const unsigned nr = BASE_ARRAY_SIZE(in_order_of_slots);
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *test[BASE_ARRAY_SIZE(in_order_of_slots)];
	swp_entry_t entry[BASE_ARRAY_SIZE(in_order_of_slots)];
	swp_entry_t back;
	swp_slot_t slot;
	unsigned i;

	(void)state;
	for (i = 0; i < nr; i++) {
		test[i] = test_folio_new(0, 1 + i);
		assert_int_equal(folio_alloc_swap(swap_queue(f), &test[i]->folio, 0, &entry[i]), 0);
		assert_int_equal(folio_dup_swap(swap_queue(f), &test[i]->folio, FOLIO_ALL), 0);
		assert_int_equal(entry[i].val, entry[0].val + i);
	}
	for (i = 0; i < nr; i++) {
		struct test_folio *next = test[in_order_of_slots[i]];

		assert_int_equal(test_folio_do(f, next, vswap_store_folio), 0);
		assert_int_equal(put_swap_folio(swap_queue(f), &next->folio, next->folio.swap), 0);
		folio_unlock(swap_queue(f), &next->folio);
	}
	assert_int_equal(swap_used(f), nr);
	assert_int_equal(swap_free_nr(swap_queue(f), entry[0], nr - 1), 0);
	swap_turns(f, 8);
	assert_int_equal(swap_used(f), 1);
	assert_int_equal(swp_entry_to_swp_slot(swap_queue(f), entry[nr - 1], &slot), 0);
	assert_int_equal(swp_slot_to_swp_entry(swap_queue(f), slot, &back), 0); /* it is still allocated, for this one */
	assert_int_equal(back.val, entry[nr - 1].val);
	assert_int_equal(swap_free_nr(swap_queue(f), entry[nr - 1], 1), 0);
	swap_turns(f, 8);
	assert_int_equal(swap_used(f), 0);
	test_folios_free(f, test, nr);
	swap_fixture_free(f);
}

/* The last entries that there can be: a range that ends at 2^32, and one that begins in front of 2^31. */
static void test_ranges_that_end_at_the_end(void **state)
{
	static const uint64_t first[2] = { (1ull << 31) - 1024, (1ull << 32) - 1024 };
	unsigned i, j;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct vswap_options options = { .nr_pages = first[i], .nr_entries = i ? 1024 : 2048,
						 .nr_queues = FIXTURE_QUEUES, .max_slabs = 64, .reserve_tables = RESERVE,
						 .seed = 1 };
		struct fixture *f = fixture_create_with(&options);
		unsigned nr = (unsigned)options.nr_entries >> 9;
		struct test_folio *test[4];
		swp_entry_t entry;

		sys_rcu_read_lock();
		for (j = 0; j < nr; j++) {
			test[j] = test_folio_new(9, j);
			assert_int_equal(folio_alloc_swap(swap_queue(f), &test[j]->folio, 9, &entry), 0);
			assert_int_equal(folio_dup_swap(swap_queue(f), &test[j]->folio, FOLIO_ALL), 0);
		}
		entry.val = first[i];
		assert_int_equal(vswap_swapcache_only(swap_queue(f), entry, UINT64_MAX), 0);
		assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, options.nr_entries + 1), -EINVAL);
		assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, UINT64_MAX), -EINVAL);
		assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, options.nr_entries), 0);
		assert_int_equal(vswap_swapcache_only(swap_queue(f), entry, UINT64_MAX), options.nr_entries);
		for (j = 0; j < nr; j++) {
			assert_true(folio_free_swap(swap_queue(f), &test[j]->folio));
			folio_unlock(swap_queue(f), &test[j]->folio);
		}
		test_folios_free(f, test, nr);
		swap_fixture_free(f);
	}
}

static struct test_folio *stored(struct fixture *f, uint64_t value, swp_entry_t *ret_entry)
{
	struct test_folio *test = test_folio_new(0, value);

	assert_int_equal(folio_alloc_swap(swap_queue(f), &test->folio, 0, ret_entry), 0);
	assert_int_equal(folio_dup_swap(swap_queue(f), &test->folio, 0), 0);
	assert_int_equal(test_folio_do(f, test, vswap_store_folio), 0);
	return test;
}

/* Counts go beyond what a word holds, and come back; one too many is an error that changes nothing. */
static void test_counts_overflow_to_the_side(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	const uint32_t many = 5000;
	swp_entry_t entry;
	struct test_folio *test = stored(f, 5, &entry);
	uint32_t i;

	(void)state;
	assert_int_equal(put_swap_folio(swap_queue(f), &test->folio, entry), 0);
	for (i = 1; i < many; i++) {
		assert_int_equal(swap_dup_entry_direct(swap_queue(f), entry), 0);
		assert_int_equal(swp_swapcount(swap_queue(f), entry), i + 1);
	}
	for (; i > 1; i--) {
		assert_int_equal(swp_swapcount(swap_queue(f), entry), i);
		assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, 1), 0);
	}
	assert_int_equal(swap_tag(f, entry), WORD_REMOTE);
	assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, 1), 0);
	assert_int_equal(swap_tag(f, entry), WORD_NONE);
	assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, 1), -ENOENT);
	assert_int_equal(swap_duplicate(swap_queue(f), entry), -ENOENT);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

struct test_waiter {
	struct folio_waiter waiter;
	unsigned *order;
	unsigned got;
};

static void test_waiter_locked(struct folio_waiter *waiter)
{
	struct test_waiter *test = BASE_CONTAINER_OF(waiter, struct test_waiter, waiter);

	test->got = ++*test->order;
	folio_unlock(waiter->queue, waiter->folio);
}

/* Losers queue on the folio and are called back in the order in which they came, on their own queues. */
static void test_who_waits_for_a_folio_is_called_in_order(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *test = test_folio_new(0, 1);
	struct test_waiter waiter[6] = { 0 };
	unsigned order = 0, i;

	(void)state;
	for (i = 0; i < 6; i++) {
		waiter[i].waiter.locked = test_waiter_locked;
		waiter[i].order = &order;
		assert_false(folio_lock(vswap_queue(f->vswap, i % 2), &test->folio, &waiter[i].waiter));
	}
	swap_turns(f, 3);
	assert_int_equal(order, 0);
	folio_unlock(swap_queue(f), &test->folio);
	assert_int_equal(order, 0); /* never inside the call */
	swap_turns(f, 12);
	for (i = 0; i < 6; i++)
		assert_int_equal(waiter[i].got, i + 1);
	assert_true(folio_lock(swap_queue(f), &test->folio, &waiter[0].waiter));
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

static void test_same_pages_need_no_slot(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *test = test_folio_new(1, 1);
	uint64_t *words = test->folio.data;
	swp_entry_t entry;
	unsigned i;

	(void)state;
	for (i = 0; i < FSW_PAGE_SIZE / 8; i++)
		words[i] = 0x123456789;
	assert_int_equal(folio_alloc_swap(swap_queue(f), &test->folio, 1, &entry), 0);
	assert_int_equal(folio_dup_swap(swap_queue(f), &test->folio, FOLIO_ALL), 0);
	assert_int_equal(test_folio_do(f, test, vswap_store_folio), 0);
	assert_int_equal(swap_tag(f, entry), WORD_SAME);
	assert_int_equal(swap_tag(f, (swp_entry_t){ entry.val + 1 }), WORD_REMOTE);
	assert_int_equal(vswap_set_same(swap_queue(f), &test->folio, 1, WORD_PAYLOAD_MAX + 1), -ERANGE);
	assert_int_equal(vswap_set_same(swap_queue(f), &test->folio, 2, 0), -EINVAL);
	assert_int_equal(vswap_set_same(swap_queue(f), &test->folio, 1, 0), 0);
	swap_turns(f, 8);
	assert_int_equal(swap_used(f), 0);
	assert_int_equal(test_folio_do(f, test, swap_read_folio), 0);
	assert_int_equal(words[FSW_PAGE_SIZE / 8 - 1], 0x123456789);
	assert_int_equal(words[FSW_PAGE_SIZE / 8], 0);
	assert_int_equal(test_folio_do(f, test, vswap_assign_slot), 0);
	assert_int_equal(swap_used(f), 2);
	assert_int_equal(swap_put_entries_direct(swap_queue(f), entry, 2), 0);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

/* An entry that is duplicated while its server is emptied keeps its holders, and the drain its pace. */
static void test_a_drain_moves_what_is_held_and_cached(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct vswap_drain_options options = { 0 };
	struct vswap_drain_progress progress;
	struct test_folio *test[8];
	swp_entry_t entry[8];
	unsigned i;

	(void)state;
	for (i = 0; i < 8; i++) {
		test[i] = stored(f, i, &entry[i]);
		if (i % 2)
			assert_int_equal(put_swap_folio(swap_queue(f), &test[i]->folio, entry[i]), 0);
	}
	swap_add_slab(f, 1, 256);
	f->hand[0]->hold = true;
	sys_rcu_read_unlock();
	assert_int_equal(vswap_drain(f->vswap, &f->hand[0]->backend, &options), 0);
	fixture_turns(f, 2);
	sys_rcu_read_lock();
	for (i = 0; i < 8; i++)
		assert_int_equal(swap_dup_entry_direct(swap_queue(f), entry[i]), 0);
	f->hand[0]->hold = false;
	swap_turns(f, 50);
	sys_rcu_read_unlock();
	vswap_drain_progress(f->vswap, &f->hand[0]->backend, &progress);
	sys_rcu_read_lock();
	assert_int_equal(progress.state, VSWAP_DRAIN_DRAINED);
	assert_int_equal(progress.nr_moved, 8); /* each once: none was refused for its holders */
	for (i = 0; i < 8; i++) {
		assert_int_equal(swp_swapcount(swap_queue(f), entry[i]), 2);
		assert_int_equal(swap_tag(f, entry[i]), WORD_DISK);
		if (i % 2)
			assert_int_equal(swap_cache_add_folio(swap_queue(f), &test[i]->folio, entry[i]), 0);
		memset(test[i]->folio.data, 0, FSW_PAGE_SIZE);
		assert_int_equal(test_folio_do(f, test[i], swap_read_folio), 0);
		assert_true(test_folio_holds(test[i], i));
		assert_int_equal(swap_free_nr(swap_queue(f), entry[i], 1), 0);
		assert_int_equal(swap_free_nr(swap_queue(f), entry[i], 1), 0);
		folio_unlock(swap_queue(f), &test[i]->folio);
		test_folio_free(f, test[i]);
	}
	swap_fixture_free(f);
}

/* A clean folio whose bytes could not be stored once more is dirty: what was there may be lost, and it must not be dropped. */
static void test_a_failed_store_leaves_a_dirty_folio(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	swp_entry_t entry;
	struct test_folio *test = stored(f, 6, &entry);

	(void)state;
	f->hand[0]->nr_fail = 100;
	assert_true(test_folio_do(f, test, vswap_assign_slot) < 0);
	assert_int_equal(folio_flags(&test->folio) & FOLIO_DIRTY, FOLIO_DIRTY);
	assert_int_equal(put_swap_folio(swap_queue(f), &test->folio, entry), -EBUSY);
	f->hand[0]->nr_fail = 0;
	atomic_fetch_add(&f->hand[0]->backend.fence, 1);
	assert_int_equal(test_folio_do(f, test, vswap_store_folio), 0);
	memset(test->folio.data, 0, FSW_PAGE_SIZE);
	assert_int_equal(test_folio_do(f, test, swap_read_folio), 0);
	assert_true(test_folio_holds(test, 6));
	assert_int_equal(swap_free_nr(swap_queue(f), entry, 1), 0);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

/* An entry that a folio stands for is no hibernation slot, whoever holds it. */
static void test_hibernation_keeps_off_the_cache(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	swp_entry_t entry;
	struct test_folio *test = stored(f, 6, &entry);

	(void)state;
	assert_int_equal(swap_write_hibernation_slot(swap_queue(f), entry, test->folio.data, NULL, NULL), -EINVAL);
	assert_int_equal(swap_read_hibernation_slot(swap_queue(f), entry, test->folio.data, NULL, NULL), -EINVAL);
	assert_int_equal(swap_free_hibernation_slot(swap_queue(f), entry), -ENOENT);
	assert_int_equal(swap_free_nr(swap_queue(f), entry, 1), 0);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

static void test_a_failed_read_is_not_up_to_date(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	swp_entry_t entry;
	struct test_folio *test = stored(f, 6, &entry);

	(void)state;
	f->hand[0]->nr_fail = 100;
	assert_true(test_folio_do(f, test, swap_read_folio) < 0);
	assert_int_equal(folio_flags(&test->folio) & FOLIO_UPTODATE, 0);
	assert_int_equal(test_folio_do(f, test, vswap_store_folio), -EINVAL); /* there is nothing to store */
	f->hand[0]->nr_fail = 0;
	assert_int_equal(test_folio_do(f, test, swap_read_folio), 0);
	assert_true(test_folio_holds(test, 6));
	assert_int_equal(swap_free_nr(swap_queue(f), entry, 1), 0);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

struct hibernation {
	swp_entry_t entry;
	int status;
};

static void hibernated(struct vswap_queue *queue, swp_entry_t entry, int status, void *arg)
{
	struct hibernation *hibernation = arg;

	(void)queue;
	hibernation->entry = entry;
	hibernation->status = status;
}

static void test_a_hibernation_slot_is_its_own(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	struct test_folio *test = test_folio_new(0, 3), *page = test_folio_new(0, 4);
	struct hibernation got = { .status = FIXTURE_PENDING };
	struct vswap_stats stats;
	swp_slot_t slot;

	(void)state;
	assert_int_equal(swap_alloc_hibernation_slot(swap_queue(f), hibernated, &got), 0);
	swap_turns(f, 4);
	assert_int_equal(got.status, 0);
	assert_int_equal(swp_entry_to_swp_slot(swap_queue(f), got.entry, &slot), 0);
	assert_int_equal(swp_swapcount(swap_queue(f), got.entry), 1);
	assert_int_equal(non_swapcache_batch(swap_queue(f), got.entry, 9), 1);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_hibernation, 1);
	got.status = FIXTURE_PENDING;
	assert_int_equal(swap_write_hibernation_slot(swap_queue(f), got.entry, test->folio.data, hibernated, &got), 0);
	assert_int_equal(swap_free_hibernation_slot(swap_queue(f), got.entry), -EBUSY);
	swap_turns(f, 4);
	assert_int_equal(got.status, 0);
	assert_int_equal(swap_read_hibernation_slot(swap_queue(f), got.entry, page->folio.data, hibernated, &got), 0);
	swap_turns(f, 4);
	assert_true(test_folio_holds(page, 3));
	assert_int_equal(swap_free_hibernation_slot(swap_queue(f), got.entry), 0);
	assert_int_equal(swap_free_hibernation_slot(swap_queue(f), got.entry), -ENOENT);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_hibernation, 0);

	/* Also while the write has claimed nothing: it waits for a slot, and there is none. */
	got.status = FIXTURE_PENDING;
	assert_int_equal(swap_alloc_hibernation_slot(swap_queue(f), hibernated, &got), 0);
	swap_turns(f, 4);
	atomic_store(&f->hand[0]->backend.state, BACKEND_DOWN);
	assert_int_equal(swap_write_hibernation_slot(swap_queue(f), got.entry, test->folio.data, hibernated, &got), 0);
	assert_int_equal(swap_free_hibernation_slot(swap_queue(f), got.entry), -EBUSY);
	assert_int_equal(swap_read_hibernation_slot(swap_queue(f), got.entry, page->folio.data, hibernated, &got), -EBUSY);
	atomic_store(&f->hand[0]->backend.state, BACKEND_UP);
	swap_turns(f, 900);
	assert_int_equal(swap_free_hibernation_slot(swap_queue(f), got.entry), 0);

	f->hand[0]->nr_fail = 100;
	got.status = FIXTURE_PENDING;
	assert_int_equal(swap_alloc_hibernation_slot(swap_queue(f), hibernated, &got), 0);
	swap_turns(f, 40);
	assert_true(got.status < 0 && got.status != FIXTURE_PENDING);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_hibernation, 0);
	assert_int_equal(swap_tag(f, got.entry), WORD_NONE);
	atomic_fetch_add(&f->hand[0]->backend.fence, 1);
	swap_turns(f, 8);
	folio_unlock(swap_queue(f), &test->folio);
	folio_unlock(swap_queue(f), &page->folio);
	test_folio_free(f, test);
	test_folio_free(f, page);
	swap_fixture_free(f);
}

/* Every order, until nothing is left; then all of it comes back, whatever the order in which it was freed. */
static void test_all_entries_can_be_allocated_at_every_order(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES, RESERVE);
	unsigned order;

	(void)state;
	for (order = 0; order <= FOLIO_MAX_ORDER; order++) {
		unsigned nr = ENTRIES >> order, i;
		struct test_folio **test = calloc(nr + 1, sizeof(struct test_folio *));
		swp_entry_t entry;

		for (i = 0; i < nr; i++) {
			test[i] = test_folio_new(order, i);
			assert_int_equal(folio_alloc_swap(swap_queue(f), &test[i]->folio, order, &entry), 0);
			assert_int_equal(entry.val % (1u << order), 0);
		}
		test[nr] = test_folio_new(order, 0);
		assert_int_equal(folio_alloc_swap(swap_queue(f), &test[nr]->folio, order, &entry), -ENOSPC);
		for (i = 0; i < nr; i++) {
			/* nr is a power of two: all of them, in a strange order */
			assert_true(folio_free_swap(swap_queue(f), &test[i * 5 % nr]->folio));
		}
		for (i = 0; i <= nr; i++)
			folio_unlock(swap_queue(f), &test[i]->folio);
		test_folios_free(f, test, nr + 1);
		cluster_cursor_close(&f->vswap->clusters, &swap_queue(f)->allocating[order]);
		assert_int_equal(atomic_load(&f->vswap->clusters.nr_in_use), 0);
		free(test);
	}
	swap_turns(f, 2);
	assert_int_equal(atomic_load(&f->vswap->tables.nr_tables), 1); /* the node of the directory */
	swap_fixture_free(f);
}

/* What a queue keeps for itself is had when nothing else is left: at once if it is one's own, soon if it is another's. */
static void test_the_last_entries_are_found_wherever_they_are(void **state)
{
	struct fixture *f = swap_fixture_create(1024, RESERVE);
	struct test_folio **test = calloc(1024, sizeof(struct test_folio *));
	struct vswap_queue *other = vswap_queue(f->vswap, 1);
	unsigned nr = 0, nr_asked = 0, i;
	swp_entry_t entry;
	int err = 0;

	(void)state;
	test[nr] = test_folio_new(3, nr);
	assert_int_equal(folio_alloc_swap(swap_queue(f), &test[nr++]->folio, 3, &entry), 0);
	test[nr] = test_folio_new(0, nr);
	assert_int_equal(folio_alloc_swap(other, &test[nr++]->folio, 0, &entry), 0);
	for (test[nr] = test_folio_new(0, nr);; test[nr] = test_folio_new(0, nr)) {
		while ((err = folio_alloc_swap(swap_queue(f), &test[nr]->folio, 0, &entry)) == -ENOMEM && nr_asked++ < 10)
			swap_turns(f, 1);
		if (err < 0)
			break;
		nr++;
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(nr, 1024 - 7); /* one of them has eight */
	assert_int_equal(nr_asked, 1);
	for (i = 0; i < nr; i++)
		assert_true(folio_free_swap(swap_queue(f), &test[i]->folio));
	for (i = 0; i <= nr; i++)
		folio_unlock(swap_queue(f), &test[i]->folio);
	test_folios_free(f, test, nr + 1);
	free(test);
	swap_fixture_free(f);
}

/* Without a table for a new cluster nothing is lost: the next call, when there is one, finds everything as it was. */
static void test_no_cluster_is_lost_without_memory(void **state)
{
	struct fixture *f = swap_fixture_create(ENTRIES * 4, 4);
	uint64_t far = ENTRIES * 4; /* the last cluster's entries */
	struct test_folio *test[32];
	unsigned nr = 0, nr_denied = 0, i;
	swp_entry_t entry;
	struct table *held;
	int err;

	(void)state;
	/* A cluster takes a table, and one for its folios. With one taken away, it is the cluster's that is lacking. */
	held = table_pin(&f->vswap->tables, far, true);
	assert_non_null(held);
	while (nr < 32) {
		test[nr] = test_folio_new(9, nr);
		while ((err = folio_alloc_swap(swap_queue(f), &test[nr]->folio, 9, &entry)) == -ENOMEM) {
			assert_int_equal(folio_alloc_swap(swap_queue(f), &test[nr]->folio, 9, &entry), -ENOMEM);
			assert_int_equal(vswap_refill(f->vswap), 0);
			nr_denied++;
		}
		assert_int_equal(err, 0);
		nr++;
	}
	assert_true(nr_denied > 2);
	table_unpin(held, 0);
	for (i = 0; i < nr; i++) {
		assert_true(folio_free_swap(swap_queue(f), &test[i]->folio));
		folio_unlock(swap_queue(f), &test[i]->folio);
	}
	test_folios_free(f, test, nr);
	swap_fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocation_is_cached_and_held_by_nobody),
		cmocka_unit_test(test_a_page_goes_out_and_comes_in),
		cmocka_unit_test(test_insertion_is_all_or_nothing),
		cmocka_unit_test(test_puts_from_the_middle_of_a_folio),
		cmocka_unit_test(test_one_put_frees_slots_that_are_not_in_a_row),
		cmocka_unit_test(test_ranges_that_end_at_the_end),
		cmocka_unit_test(test_counts_overflow_to_the_side),
		cmocka_unit_test(test_who_waits_for_a_folio_is_called_in_order),
		cmocka_unit_test(test_same_pages_need_no_slot),
		cmocka_unit_test(test_a_drain_moves_what_is_held_and_cached),
		cmocka_unit_test(test_a_failed_store_leaves_a_dirty_folio),
		cmocka_unit_test(test_hibernation_keeps_off_the_cache),
		cmocka_unit_test(test_a_failed_read_is_not_up_to_date),
		cmocka_unit_test(test_a_hibernation_slot_is_its_own),
		cmocka_unit_test(test_all_entries_can_be_allocated_at_every_order),
		cmocka_unit_test(test_the_last_entries_are_found_wherever_they_are),
		cmocka_unit_test(test_no_cluster_is_lost_without_memory),
	};

	sys_rcu_thread_init();
	log_init("test_swapcache", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

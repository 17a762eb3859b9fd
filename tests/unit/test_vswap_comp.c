/* deps: client_vswap */
/* Compressed pages as the first tier: what goes there, what comes back, and how the pool makes room. */
#include "client/comp/comp.h"
#include "tests/unit/swap_fixture.h"

#define NR_PAGES 8192u
#define SLOTS 4096u
#define LIMIT (1u << 20)

static struct fixture *comp_create(uint64_t limit_bytes)
{
	struct vswap_options options = { .nr_pages = NR_PAGES, .nr_queues = FIXTURE_QUEUES, .max_slabs = 64,
					 .reserve_tables = 64, .seed = 1, .comp_limit_bytes = limit_bytes,
					 .comp_algorithm = COMP_LZ4 };

	return fixture_create_with(&options);
}

/* Half of each page is random: it shrinks to half. */
static void fill_half(void *buf, uint64_t nr_pages, uint64_t value)
{
	uint64_t i;

	memset(buf, 0, nr_pages * FSW_PAGE_SIZE);
	for (i = 0; i < nr_pages; i++) {
		struct rand_state rand = { .s = value + i };
		uint64_t *words = (uint64_t *)((char *)buf + i * FSW_PAGE_SIZE);
		unsigned w;

		for (w = 0; w < FSW_PAGE_SIZE / 16; w++)
			words[w] = rand_next(&rand);
	}
}

static int write_half(struct fixture *f, uint64_t page, uint64_t nr_pages, uint64_t value)
{
	struct fixture_io *fio = fixture_io_new(IO_WRITE, page, nr_pages, 0);
	int status;

	fill_half(fio->io.buf, nr_pages, value);
	fixture_submit(f, 0, fio);
	status = fixture_wait(f, 0, fio);
	fixture_io_free(fio);
	return status;
}

static int read_half(struct fixture *f, uint64_t page, uint64_t nr_pages, uint64_t value)
{
	struct fixture_io *fio = fixture_io_new(IO_READ, page, nr_pages, ~value);
	char *expected = aligned_alloc(FSW_PAGE_SIZE, nr_pages * FSW_PAGE_SIZE);
	int status;

	fixture_submit(f, 1, fio);
	status = fixture_wait(f, 1, fio);
	fill_half(expected, nr_pages, value);
	if (status == 0 && memcmp(expected, fio->io.buf, nr_pages * FSW_PAGE_SIZE) != 0)
		status = -EBADMSG;
	free(expected);
	fixture_io_free(fio);
	return status;
}

static struct vswap_stats stats_of(struct fixture *f)
{
	struct vswap_stats stats;

	vswap_stats(f->vswap, &stats);
	return stats;
}

static void test_what_shrinks_stays_here(void **state)
{
	struct fixture *f = comp_create(LIMIT);

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	assert_int_equal(write_half(f, 100, 64, 1), 0);
	assert_int_equal(f->hand[0]->nr_ops, 0);
	assert_int_equal(stats_of(f).nr_comp, 64);
	assert_int_equal(stats_of(f).comp.nr_objects, 64);
	assert_int_equal(read_half(f, 100, 64, 1), 0);
	assert_int_equal(write_half(f, 110, 10, 77), 0); /* over what is there already */
	assert_int_equal(read_half(f, 110, 10, 77), 0);
	assert_int_equal(read_half(f, 100, 10, 1), 0);
	fixture_turns(f, 8);
	assert_int_equal(stats_of(f).comp.nr_objects, 64);
	assert_int_equal(fixture_do(f, IO_DISCARD, 100, 64, 0), 0);
	assert_int_equal(stats_of(f).nr_comp, 0);
	fixture_turns(f, 8);
	assert_int_equal(stats_of(f).comp.nr_objects, 0);
	assert_int_equal(stats_of(f).comp.used_bytes, 0);
	fixture_free(f);
}

/* A read that is under way may still look at what was compressed: it stays until the read has ended. */
static void test_an_object_waits_for_its_epoch(void **state)
{
	struct fixture *f = comp_create(LIMIT);
	struct fixture_io *read = fixture_io_new(IO_READ, 0, 20, 0);

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 10, 1), 0); /* random: in slots */
	assert_int_equal(write_half(f, 10, 10, 2), 0);
	f->hand[0]->hold = true;
	fixture_submit(f, 1, read);
	fixture_turns(f, 2);
	assert_int_equal(fixture_do(f, IO_DISCARD, 10, 10, 0), 0);
	fixture_turns(f, 20);
	assert_int_equal(stats_of(f).nr_comp, 0);
	assert_int_equal(stats_of(f).comp.nr_objects, 10);
	f->hand[0]->hold = false;
	assert_int_equal(fixture_wait(f, 1, read), 0);
	fixture_turns(f, 8);
	assert_int_equal(stats_of(f).comp.nr_objects, 0);
	fixture_io_free(read);
	fixture_free(f);
}

/* Random pages go straight to the server; those among them that shrink do not, and no page is taken for another. */
static void test_what_does_not_shrink_goes_on(void **state)
{
	struct fixture *f = comp_create(LIMIT);
	struct fixture_io *fio = fixture_io_new(IO_WRITE, 0, 64, 5), *back = fixture_io_new(IO_READ, 0, 64, 6);
	unsigned i;

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	for (i = 0; i < 64; i += 1 + i % 3) /* alone, in pairs, at both ends */
		fill_half((char *)fio->io.buf + i * FSW_PAGE_SIZE, 1, i);
	fixture_submit(f, 0, fio);
	assert_int_equal(fixture_wait(f, 0, fio), 0);
	assert_true(stats_of(f).nr_comp > 20 && stats_of(f).nr_remote > 20);
	assert_int_equal(stats_of(f).nr_comp + stats_of(f).nr_remote, 64);
	fixture_submit(f, 1, back);
	assert_int_equal(fixture_wait(f, 1, back), 0);
	assert_memory_equal(back->io.buf, fio->io.buf, 64 * FSW_PAGE_SIZE);
	/* The other way round: each page that was in a slot is compressed now, and gives the slot back. */
	assert_int_equal(write_half(f, 0, 64, 9), 0);
	assert_int_equal(read_half(f, 0, 64, 9), 0);
	fixture_turns(f, 8);
	assert_int_equal(fixture_used(f, -1), 0);
	assert_int_equal(stats_of(f).comp.nr_objects, 64);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 64, 3), 0);
	assert_int_equal(fixture_read(f, 0, 64, 3), 0);
	fixture_turns(f, 8);
	assert_int_equal(stats_of(f).comp.nr_objects, 0);
	fixture_io_free(fio);
	fixture_io_free(back);
	fixture_free(f);
}

/* Four times as much as there is room for: the oldest are moved to slots meanwhile, and the limit is kept. */
static void test_a_full_pool_is_written_back(void **state)
{
	struct fixture *f = comp_create(LIMIT);
	uint64_t page;

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	for (page = 0; page < 2048; page += 32) {
		assert_int_equal(write_half(f, page, 32, page), 0);
		fixture_turns(f, 4);
		assert_true(stats_of(f).comp.used_bytes <= LIMIT);
	}
	fixture_turns(f, 50);
	assert_true(stats_of(f).nr_written_back > 500);
	assert_true(stats_of(f).comp.used_bytes <= LIMIT / 16 * 15);
	assert_int_equal(stats_of(f).nr_comp + stats_of(f).nr_remote, 2048);
	assert_true(stats_of(f).nr_comp > 200);
	for (page = 0; page < 2048; page += 32)
		assert_int_equal(read_half(f, page, 32, page), 0);
	fixture_free(f);
}

/* No slot anywhere: what is in the pool stays there, and writes beyond it are refused, not lost. */
static void test_a_full_pool_without_slots(void **state)
{
	struct fixture *f = comp_create(LIMIT);
	uint64_t page, nr = 0;

	(void)state;
	for (page = 0; page < 2048; page++) {
		if (write_half(f, page, 1, page) < 0)
			break;
		nr++;
	}
	assert_true(nr > 200 && nr < 2048);
	fixture_turns(f, 100);
	for (page = 0; page < nr; page++)
		assert_int_equal(read_half(f, page, 1, page), 0);
	assert_int_equal(read_half(f, nr, 1, nr), -EBADMSG); /* zeros: it was never accepted */
	fixture_add_slab(f, 0, SLOTS);
	fixture_turns(f, 100);
	assert_true(stats_of(f).nr_written_back > 0);
	assert_int_equal(write_half(f, nr, 1, nr), 0);
	for (page = 0; page <= nr; page++)
		assert_int_equal(read_half(f, page, 1, page), 0);
	fixture_free(f);
}

/* A page that is written while it is being written back stays what was written last. */
static void test_a_write_is_quicker_than_the_writeback(void **state)
{
	struct fixture *f = comp_create(LIMIT);
	uint64_t page, nr_written = 0;

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	f->hand[0]->hold = true;
	while (!writeback_is_due(f->vswap)) {
		assert_int_equal(write_half(f, nr_written, 16, nr_written), 0);
		nr_written += 16;
	}
	fixture_turns(f, 2); /* the oldest are on their way */
	assert_true(f->hand[0]->nr_writes > 0);
	for (page = 0; page < 64; page += 2)
		assert_int_equal(fixture_do(f, IO_WRITE_ZEROES, page, 1, 0), 0);
	f->hand[0]->hold = false;
	fixture_turns(f, 60);
	for (page = 0; page < 64; page++) {
		if (page % 2)
			assert_int_equal(read_half(f, page, 1, page), 0);
		else
			assert_int_equal(read_half(f, page, 1, page), -EBADMSG);
	}
	fixture_free(f);
}

/* The pool's bytes are checked like a server's: what is not what was written is an error, never other bytes. */
static void test_a_damaged_object_is_an_error(void **state)
{
	struct fixture *f = comp_create(LIMIT);

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	assert_int_equal(write_half(f, 7, 2, 7), 0);
	sys_rcu_read_lock();
	atomic_fetch_xor(table_checksum(table_lookup(&f->vswap->tables, 7), 7), 1);
	sys_rcu_read_unlock();
	assert_int_equal(read_half(f, 7, 1, 7), -EIO);
	assert_int_equal(stats_of(f).nr_checksum_errors, 1);
	assert_int_equal(stats_of(f).nr_poisoned, 1);
	assert_int_equal(read_half(f, 8, 1, 8), 0);
	assert_int_equal(write_half(f, 7, 1, 70), 0);
	assert_int_equal(read_half(f, 7, 1, 70), 0);
	fixture_free(f);
}

static void test_rebuild_knows_what_is_compressed(void **state)
{
	struct fixture *f = comp_create(LIMIT);
	uint64_t nr_poisoned;

	(void)state;
	fixture_add_slab(f, 0, SLOTS);
	assert_int_equal(write_half(f, 0, 100, 1), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, 200, 50, 2), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 50, 50, 0), 0); /* retired, and perhaps not yet free */
	assert_int_equal(vswap_rebuild(f->vswap, &nr_poisoned), 0);
	assert_int_equal(nr_poisoned, 0);
	assert_int_equal(vswap_check(f->vswap), 0);
	assert_int_equal(stats_of(f).comp.nr_objects, 50);
	assert_int_equal(read_half(f, 0, 50, 1), 0);
	assert_int_equal(fixture_read(f, 200, 50, 2), 0);
	fixture_free(f);
}

/* A folio of `order` with pages that shrink, but the last `nr_hard`; what vswap_store_compressed makes of it. */
static struct test_folio *store_compressed(struct fixture *f, unsigned order, unsigned nr_hard, int status)
{
	struct test_folio *test = test_folio_new(order, 7);
	swp_entry_t entry;

	fill_half(test->folio.data, (1u << order) - nr_hard, 7);
	assert_int_equal(folio_alloc_swap(swap_queue(f), &test->folio, order, &entry), 0);
	assert_int_equal(folio_dup_swap(swap_queue(f), &test->folio, FOLIO_ALL), 0);
	assert_int_equal(test_folio_do(f, test, vswap_store_compressed), status);
	assert_int_equal(folio_flags(&test->folio) & FOLIO_DIRTY, status < 0 ? FOLIO_DIRTY : 0);
	return test;
}

static void drop_compressed(struct fixture *f, struct test_folio *test)
{
	assert_int_equal(swap_free_nr(swap_queue(f), test->folio.swap, folio_nr_pages(&test->folio)), 0);
	assert_int_equal(put_swap_folio(swap_queue(f), &test->folio, test->folio.swap), 0); /* a dirty one stays until then */
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
}

static void test_a_folio_is_compressed_or_keeps_its_backing(void **state)
{
	struct vswap_options options = { .nr_entries = NR_PAGES, .nr_queues = FIXTURE_QUEUES, .max_slabs = 64,
					 .reserve_tables = 64, .seed = 1, .comp_limit_bytes = LIMIT,
					 .comp_algorithm = COMP_LZ4 };
	struct fixture *f = fixture_create_with(&options);
	struct test_folio *test;
	swp_entry_t last;

	(void)state;
	sys_rcu_read_lock();
	drop_compressed(f, store_compressed(f, 3, 0, 0));
	test = store_compressed(f, 3, 1, -ENOSPC);
	last.val = test->folio.swap.val + 7;
	assert_int_equal(swap_tag(f, test->folio.swap), WORD_COMP);
	assert_int_equal(swap_tag(f, last), WORD_FOLIO); /* although no slab could have held it either */
	swap_add_slab(f, 0, SLOTS);
	assert_int_equal(test_folio_do(f, test, vswap_store_compressed), -ENOSPC);
	assert_int_equal(swap_used(f), 0);
	assert_int_equal(test_folio_do(f, test, vswap_store_folio), 0);
	assert_int_equal(swap_tag(f, last), WORD_REMOTE);
	assert_int_equal(swap_used(f), 1);
	assert_int_equal(test_folio_do(f, test, vswap_store_compressed), -ENOSPC);
	assert_int_equal(swap_tag(f, last), WORD_REMOTE);
	drop_compressed(f, test);
	swap_turns(f, 8);
	assert_int_equal(swap_used(f), 0);
	assert_int_equal(stats_of(f).comp.nr_objects, 0);
	swap_fixture_free(f);

	f = swap_fixture_create(NR_PAGES, 16); /* no pool */
	test = test_folio_new(0, 1);
	assert_int_equal(test_folio_do(f, test, vswap_store_compressed), -ENOSPC);
	folio_unlock(swap_queue(f), &test->folio);
	test_folio_free(f, test);
	swap_fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_shrinks_stays_here),
		cmocka_unit_test(test_an_object_waits_for_its_epoch),
		cmocka_unit_test(test_what_does_not_shrink_goes_on),
		cmocka_unit_test(test_a_full_pool_is_written_back),
		cmocka_unit_test(test_a_full_pool_without_slots),
		cmocka_unit_test(test_a_write_is_quicker_than_the_writeback),
		cmocka_unit_test(test_a_damaged_object_is_an_error),
		cmocka_unit_test(test_rebuild_knows_what_is_compressed),
		cmocka_unit_test(test_a_folio_is_compressed_or_keeps_its_backing),
	};

	log_init("test_vswap_comp", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

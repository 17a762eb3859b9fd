/* deps: client_vswap */
/* Claims of several entries by one write: what is waited for meanwhile, and what is left of them when it fails. */
#include "tests/unit/vswap_fixture.h"

#define NR_PAGES 20000u
#define SERVER 0

/* Each page of a write that finds no place is let go, and who waits for it is woken, the last one's as well. */
static void test_a_failed_write_lets_all_go(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 1000, 4, 2), *read = fixture_io_new(IO_READ, 1003, 1, 3);
	static const char zeros[FSW_PAGE_SIZE];
	unsigned i;

	(void)state;
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, SLAB_MIN_SLOTS - 4, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, write); /* takes the last slots */
	fixture_submit(f, 1, read);
	fixture_turns(f, 2);
	assert_int_equal(read->status, FIXTURE_PENDING);
	hand_end(f, SERVER, 0, -EIO); /* and they are in quarantine */
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait_for_room(f, write), -ENOSPC);
	assert_int_equal(fixture_wait(f, 1, read), 0);
	assert_memory_equal(read->io.buf, zeros, FSW_PAGE_SIZE);
	for (i = 0; i < 4; i++)
		assert_int_equal(fixture_word(f, 1000 + i) & WORD_CLAIMED, 0);
	fixture_io_free(write);
	fixture_io_free(read);
	fixture_free(f);
}

/* What a write has claimed is on its way before it waits for somebody else's entry: two never wait for one another. */
static void test_claims_leave_before_their_write_waits(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *one = fixture_io_new(IO_WRITE, 52, 1, 1), *all = fixture_io_new(IO_WRITE, 50, 4, 2);

	(void)state;
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS); /* each queue has a cluster */
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, one);
	fixture_submit(f, 1, all);
	fixture_turns(f, 2);
	assert_int_equal(f->hand[SERVER]->nr_writes, 3); /* page 53 goes as well, 52 alone is waited for */
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 0, one), 0);
	assert_int_equal(fixture_wait(f, 1, all), 0);
	assert_int_equal(fixture_read(f, 50, 4, 2), 0);
	fixture_io_free(one);
	fixture_io_free(all);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_failed_write_lets_all_go),
		cmocka_unit_test(test_claims_leave_before_their_write_waits),
	};

	log_init("test_vswap_claims", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

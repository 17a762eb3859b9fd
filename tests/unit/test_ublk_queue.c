/* deps: tests_fakes_ublk client_frontend_ublk client_vswap tests_lib */
/*
 * A queue of the ublk front end, between a driver of tests/fakes that is short of memory, and the virtual swap layer over
 * memory. Every page is written, then read: the driver compares it, and ends the program if it is another's.
 */
#include "tests/unit/ublk_fixture.h"

#define SPIN_US 1000u /* a queue that was just busy is looked at in every turn */
#define SMALL_PAGES (UBLK_SMALL_BYTES / FSW_PAGE_SIZE)

struct fixture {
	struct served served;
	struct ublk_queue *queue;
	int fd;
	unsigned nr_free_big;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vswap_queue *vqueue;

	assert_non_null(f);
	served_open(&f->served);
	vqueue = vswap_queue(f->served.vswap, 0);
	f->queue = aligned_alloc(FSW_CACHE_LINE, sizeof(*f->queue));
	assert_non_null(f->queue);
	memset(f->queue, 0, sizeof(*f->queue));
	f->fd = fake_ublk_open(NR_TAGS);
	assert_int_equal(ublk_queue_init(f->queue, vqueue, f->served.reactors[0], 0, NR_TAGS, SPIN_US), 0);
	assert_int_equal(ublk_queue_open(f->queue, f->fd, true), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_ublk_stop(f->served.reactors[0]);
	assert_true(ublk_queue_close(f->queue));
	ublk_queue_done(f->queue);
	free(f->queue);
	fake_ublk_close(f->fd);
	served_close(&f->served);
	free(f);
	return 0;
}

static uint64_t nr_writes(struct fixture *f)
{
	return stats_counter_sum(&f->queue->counters.writes, 1, sizeof(*f->queue));
}

/* In a turn after the one that has ended the last request. */
static void count_buffers(void *arg)
{
	struct fixture *f = arg;

	f->nr_free_big = f->queue->nr_free_big;
}

/* nr_wanted: writes that the front end is to have seen. */
static void write_and_read(struct fixture *f, struct fake_ublk_load load, uint64_t nr_wanted)
{
	uint64_t before = nr_writes(f);
	struct vswap_stats stats;

	load.write = true;
	served_run(&f->served, load);
	assert_int_equal(nr_writes(f) - before, nr_wanted);
	vswap_stats(f->served.vswap, &stats);
	assert_int_equal(stats.nr_remote, NR_PAGES);
	load.write = false;
	served_run(&f->served, load);
	sys_reactor_call(f->served.reactors[0], count_buffers, f);
	assert_int_equal(f->nr_free_big, UBLK_QUEUE_NR_BIG);
	assert_int_equal(stats_counter_sum(&f->queue->counters.io_errors, 1, sizeof(*f->queue)), 0);
}

static const struct fake_ublk_load small = { .depth = 8, .nr_pages_each = SMALL_PAGES };
/* More of them than there are big buffers: some wait. */
static const struct fake_ublk_load big = { .depth = 2 * UBLK_QUEUE_NR_BIG, .nr_pages_each = 4 * SMALL_PAGES };

static void test_writes_and_reads_of_every_size(void **state)
{
	static const unsigned sizes[] = { 1, SMALL_PAGES, 4 * SMALL_PAGES, IO_MAX_PAGES };

	for (unsigned i = 0; i < BASE_ARRAY_SIZE(sizes); i++)
		write_and_read(*state, (struct fake_ublk_load){ .depth = 8, .nr_pages_each = sizes[i] }, NR_PAGES / sizes[i]);
	write_and_read(*state, big, NR_PAGES / big.nr_pages_each);
}

/* What is in the buffer when the driver asks again is not the write's data. */
static void test_a_write_not_copied_is_asked_for_again(void **state)
{
	struct fake_ublk_load load = small;

	load.copies = FAKE_UBLK_COPIES_NOTHING_FIRST;
	write_and_read(*state, load, NR_PAGES / load.nr_pages_each);
	load = big;
	load.copies = FAKE_UBLK_COPIES_NOTHING_FIRST;
	write_and_read(*state, load, NR_PAGES / load.nr_pages_each);
}

/* 16 pages are 8 + 4 + 2 + 1 + 1. */
static void test_a_write_copied_in_part_is_answered_for_that_part(void **state)
{
	struct fake_ublk_load load = small;

	static_assert(SMALL_PAGES == 16, "as is counted here");
	load.copies = FAKE_UBLK_COPIES_HALF;
	write_and_read(*state, load, NR_PAGES / SMALL_PAGES * 5);
	load = big;
	load.copies = FAKE_UBLK_COPIES_HALF;
	write_and_read(*state, load, NR_PAGES / big.nr_pages_each * 7);
}

static void test_commands_that_are_not_taken_go_out_later(void **state)
{
	struct fake_ublk_load load = big;

	load.nr_refused = 5;
	write_and_read(*state, load, NR_PAGES / load.nr_pages_each);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_writes_and_reads_of_every_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_write_not_copied_is_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_write_copied_in_part_is_answered_for_that_part, setup, teardown),
		cmocka_unit_test_setup_teardown(test_commands_that_are_not_taken_go_out_later, setup, teardown),
	};

	sys_rcu_thread_init();
	log_init("test_ublk_queue", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

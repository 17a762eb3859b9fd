/* deps: client_vswap */
/* A write without room: for what it waits, for how long, and when it is told that there is none. */
#include <pthread.h>
#include <semaphore.h>

#include "client/vswap/page.h"
#include "client/vswap/place.h"
#include "tests/unit/vswap_fixture.h"

#define NR_PAGES 20000u
#define SLOTS SLAB_MIN_SLOTS
#define SERVER 0

/* A device of one slab, all of it written, and page 0 on its way back behind a read that does not end. */
static struct fixture *full_device(struct fixture_io *read)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);

	fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, SLOTS, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 1, read);
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 1, 0), 0);
	fixture_turns(f, 10);
	return f;
}

static void test_a_slot_on_its_way_back_is_waited_for(void **state)
{
	struct fixture_io *read = fixture_io_new(IO_READ, 0, 1, 0), *write = fixture_io_new(IO_WRITE, 4000, 1, 7);
	struct fixture *f = full_device(read);
	struct vswap_stats stats;

	(void)state;
	fixture_submit(f, 0, write);
	fixture_turns(f, 100); /* 210 ms */
	assert_int_equal(write->status, FIXTURE_PENDING);
	vswap_stats(f->vswap, &stats);
	assert_true(stats.nr_room_waits > 50);
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 1, read), 0);
	fixture_turns(f, 6);
	assert_int_equal(write->nr_done, 1);
	assert_int_equal(write->status, 0);
	assert_int_equal(fixture_read(f, 4000, 1, 7), 0);
	fixture_io_free(read);
	fixture_io_free(write);
	fixture_free(f);
}

/* The read hangs: after a second the front end learns that there is no room, and nothing has changed. */
static void test_not_for_ever(void **state)
{
	struct fixture_io *read = fixture_io_new(IO_READ, 0, 1, 0), *write = fixture_io_new(IO_WRITE, 4000, 3, 7);
	struct fixture *f = full_device(read);

	(void)state;
	fixture_submit(f, 0, write);
	fixture_turns(f, 600); /* 1.26 s */
	assert_int_equal(write->nr_done, 1);
	assert_int_equal(write->status, -ENOSPC);
	assert_int_equal(word_tag(fixture_word(f, 4000)), WORD_NONE);
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 1, read), 0);
	fixture_io_free(read);
	fixture_io_free(write);
	fixture_free(f);
}

/* A write that has to go elsewhere holds no entry while it waits, so that a read of it can end and free the slot. */
static void test_nothing_is_claimed_while_waiting(void **state)
{
	struct fixture_io *read = fixture_io_new(IO_READ, 0, 1, 0), *write = fixture_io_new(IO_WRITE, 100, 4, 7);
	struct fixture *f = full_device(read);

	(void)state;
	/* Refused once claimed: the backend goes down between the look and the submission only by such a failure. */
	fixture_submit(f, 0, write);
	hand_end(f, SERVER, 0, -EIO);
	fixture_turns(f, 3);
	assert_int_equal(write->status, FIXTURE_PENDING);
	assert_false(word_is_claimed(fixture_word(f, 100)));
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 1, read), 0);
	atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1); /* the failed write is settled, its slots come back as well */
	fixture_turns(f, 20);
	assert_int_equal(write->nr_done, 1);
	assert_int_equal(write->status, 0);
	assert_int_equal(fixture_read(f, 100, 4, 7), 0);
	fixture_io_free(read);
	fixture_io_free(write);
	fixture_free(f);
}

/* ---- servers that are out of reach ---- */

#define PATIENCE_NS (3 * SYS_NS_PER_S)
#define TURNS_PER_S 500u /* a little more, see fixture_turns */

static void set_server(struct fixture *f, enum backend_state state)
{
	f->hand[SERVER]->backend.patience_ns = PATIENCE_NS;
	atomic_store(&f->hand[SERVER]->backend.state, state);
}

/* A device of one slab with pages 0 .. nr - 1 in it, whose server is out of reach. */
static struct fixture *device_out_of_reach(uint64_t nr)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);

	fixture_add_slab(f, SERVER, SLOTS);
	if (nr)
		assert_int_equal(fixture_do(f, IO_WRITE, 0, nr, 1), 0);
	set_server(f, BACKEND_DOWN);
	return f;
}

static void expect_waiting(struct fixture *f, struct fixture_io *io)
{
	fixture_submit(f, 0, io);
	fixture_turns(f, 2 * TURNS_PER_S);
	assert_int_equal(io->status, FIXTURE_PENDING);
	assert_false(word_is_claimed(fixture_word(f, io->io.page)));
}

static void test_a_server_out_of_reach_is_waited_for(void **state)
{
	struct fixture *f = device_out_of_reach(10);
	/* The end of what is there, in place, and what is new: all of it needs the server. */
	struct fixture_io *write = fixture_io_new(IO_WRITE, 5, 10, 7);

	(void)state;
	expect_waiting(f, write);
	set_server(f, BACKEND_UP);
	assert_int_equal(fixture_wait(f, 0, write), 0);
	assert_int_equal(fixture_read(f, 0, 5, 1), 0);
	assert_int_equal(fixture_read(f, 5, 10, 7), 0);
	assert_int_equal(fixture_used(f, SERVER), 15);
	fixture_io_free(write);
	fixture_free(f);
}

/* As long as a read. */
static void test_not_longer_than_its_patience(void **state)
{
	struct fixture *f = device_out_of_reach(0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 0, 1, 7);

	(void)state;
	expect_waiting(f, write);
	fixture_turns(f, TURNS_PER_S);
	assert_int_equal(write->nr_done, 1);
	assert_int_equal(write->status, -ENOSPC);
	fixture_io_free(write);
	fixture_free(f);
}

static void test_a_lost_server_is_not_waited_for(void **state)
{
	struct fixture *f = device_out_of_reach(0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 0, 1, 7);

	(void)state;
	expect_waiting(f, write);
	set_server(f, BACKEND_LOST);
	fixture_turns(f, 3);
	assert_int_equal(write->status, -ENOSPC);
	fixture_io_free(write);
	fixture_free(f);
}

/* Nor one that takes no pages when it is back. */
static void test_a_drained_server_is_not_waited_for(void **state)
{
	struct fixture *f = device_out_of_reach(1);

	(void)state;
	atomic_store(&place_of(&f->hand[SERVER]->backend)->draining, true);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 2, 7), -ENOSPC);
	fixture_free(f);
}

/* A full one has no room for what is new; what is there can be written when it is back. */
static void test_a_full_server_is_waited_for_by_its_own(void **state)
{
	struct fixture *f = device_out_of_reach(SLOTS);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 5, 2, 7);

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 1000, 1, 7), -ENOSPC);
	expect_waiting(f, write);
	set_server(f, BACKEND_UP);
	assert_int_equal(fixture_wait(f, 0, write), 0);
	assert_int_equal(fixture_read(f, 5, 2, 7), 0);
	fixture_io_free(write);
	fixture_free(f);
}

/* What fails because the server goes out of reach has nowhere else to go: it waits, and begins again on that one. */
static void test_a_failed_write_waits_for_its_server(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 0, SLOTS, 7);
	unsigned i;

	(void)state;
	fixture_add_slab(f, SERVER, SLOTS);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, write);
	fixture_turns(f, 1);
	/*
	 * All of the slab is in quarantine then, till the server is back, and a moment longer. More often than a write is sent
	 * elsewhere; the first time for longer than it waits for what is on its way here.
	 */
	for (i = 0; i < 10; i++) {
		set_server(f, BACKEND_DOWN);
		while (!TAILQ_EMPTY(&f->hand[SERVER]->queue[0].pending))
			hand_end(f, SERVER, 0, -EIO);
		fixture_turns(f, i == 0 ? 2 * TURNS_PER_S : 10);
		assert_int_equal(write->status, FIXTURE_PENDING);
		set_server(f, BACKEND_UP);
		atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1);
		fixture_turns(f, 20);
		assert_int_equal(write->status, FIXTURE_PENDING);
	}
	f->hand[SERVER]->hold = false;
	fixture_turns(f, 20);
	assert_int_equal(write->status, 0);
	assert_int_equal(fixture_read(f, 0, SLOTS, 7), 0);
	fixture_io_free(write);
	fixture_free(f);
}

/* Nor does it matter that all was full, as everybody knew, before the server went out of reach. */
static void test_a_search_before_says_nothing_of_a_server(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 0, 1, 7);

	(void)state;
	fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, SLOTS, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, write);
	fixture_turns(f, 1);
	assert_int_equal(fixture_do(f, IO_WRITE, 1000, 1, 1), -ENOSPC);
	set_server(f, BACKEND_DOWN);
	hand_end(f, SERVER, 0, -EIO);
	fixture_turns(f, 2 * TURNS_PER_S);
	assert_int_equal(write->status, FIXTURE_PENDING);
	f->hand[SERVER]->hold = false;
	set_server(f, BACKEND_UP);
	atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1);
	assert_int_equal(fixture_wait_for_room(f, write), 0);
	assert_int_equal(fixture_read(f, 0, 1, 7), 0);
	fixture_io_free(write);
	fixture_free(f);
}

/* ---- tables, and who supplies room ---- */

static sem_t may_end, is_inside;

static void *reader_main(void *arg)
{
	sys_rcu_thread_init();
	sys_rcu_read_lock();
	sem_post(&is_inside);
	while (sem_wait(&may_end) < 0)
		;
	sys_rcu_read_unlock();
	sys_rcu_thread_done();
	return arg;
}

/* A table that was freed is ready again after a grace period, not at once. */
static void test_a_table_on_its_way_back_is_waited_for(void **state)
{
	struct fixture *f = fixture_create(VSWAP_MAX_PAGES, 1);
	struct fixture_io *write;
	pthread_t reader;
	uint64_t nr = 0;

	(void)state;
	fixture_add_slab(f, SERVER, SLOTS);
	while (fixture_do(f, IO_WRITE, nr * TABLE_ENTRIES, 1, nr) == 0)
		nr++;
	sem_init(&may_end, 0, 0);
	sem_init(&is_inside, 0, 0);
	assert_int_equal(pthread_create(&reader, NULL, reader_main, NULL), 0);
	while (sem_wait(&is_inside) < 0)
		;
	/* While the reader is inside, no grace period ends. */
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 1, 0), 0);
	write = fixture_io_new(IO_WRITE, nr * TABLE_ENTRIES, 1, 9);
	fixture_submit(f, 0, write);
	fixture_turns(f, 10);
	assert_int_equal(write->status, FIXTURE_PENDING);
	sem_post(&may_end);
	pthread_join(reader, NULL);
	sys_rcu_barrier();
	fixture_turns(f, 3);
	assert_int_equal(write->status, 0);
	assert_int_equal(fixture_read(f, nr * TABLE_ENTRIES, 1, 9), 0);
	fixture_io_free(write);
	fixture_free(f);
}

struct supply {
	unsigned nr_wanted;
};

static void wanted(void *arg)
{
	struct supply *supply = arg;

	supply->nr_wanted++;
}

static void test_the_supplier_is_asked_and_answers(void **state)
{
	struct supply supply = { 0 };
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 0, 1, 7);
	uint64_t nr_asked;

	(void)state;
	vswap_set_supplier(f->vswap, &(struct vswap_supplier){ .wanted = wanted, .arg = &supply });
	nr_asked = vswap_supply_begin(f->vswap);
	fixture_submit(f, 0, write);
	assert_int_equal(supply.nr_wanted, 1);
	/* A look that began before does not count as an answer, and it is asked again. */
	vswap_supply_end(f->vswap, nr_asked, false);
	fixture_turns(f, 5);
	assert_int_equal(write->status, FIXTURE_PENDING);
	assert_true(supply.nr_wanted > 1);
	vswap_supply_end(f->vswap, vswap_supply_begin(f->vswap), true);
	supply.nr_wanted = 0;
	fixture_turns(f, 5);
	assert_int_equal(write->status, FIXTURE_PENDING);
	assert_int_equal(supply.nr_wanted, 0); /* it knows */
	fixture_add_slab(f, SERVER, SLOTS);
	fixture_turns(f, 3);
	assert_int_equal(write->status, 0);
	assert_int_equal(fixture_read(f, 0, 1, 7), 0);
	fixture_io_free(write);
	fixture_free(f);
}

static void test_the_supplier_says_no(void **state)
{
	struct supply supply = { 0 };
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 0, 5, 7);

	(void)state;
	vswap_set_supplier(f->vswap, &(struct vswap_supplier){ .wanted = wanted, .arg = &supply });
	fixture_submit(f, 0, write);
	fixture_turns(f, 5);
	assert_int_equal(write->status, FIXTURE_PENDING);
	vswap_supply_end(f->vswap, vswap_supply_begin(f->vswap), false);
	fixture_turns(f, 3);
	assert_int_equal(write->nr_done, 1);
	assert_int_equal(write->status, -ENOSPC);
	/* It does not come back from the answer that it got: it waits for one of its own. */
	fixture_submit(f, 0, write);
	fixture_turns(f, 5);
	assert_int_equal(write->status, FIXTURE_PENDING);
	vswap_supply_end(f->vswap, vswap_supply_begin(f->vswap), false);
	fixture_turns(f, 3);
	assert_int_equal(write->status, -ENOSPC);
	fixture_io_free(write);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_slot_on_its_way_back_is_waited_for),
		cmocka_unit_test(test_not_for_ever),
		cmocka_unit_test(test_nothing_is_claimed_while_waiting),
		cmocka_unit_test(test_a_server_out_of_reach_is_waited_for),
		cmocka_unit_test(test_not_longer_than_its_patience),
		cmocka_unit_test(test_a_lost_server_is_not_waited_for),
		cmocka_unit_test(test_a_drained_server_is_not_waited_for),
		cmocka_unit_test(test_a_full_server_is_waited_for_by_its_own),
		cmocka_unit_test(test_a_failed_write_waits_for_its_server),
		cmocka_unit_test(test_a_search_before_says_nothing_of_a_server),
		cmocka_unit_test(test_a_table_on_its_way_back_is_waited_for),
		cmocka_unit_test(test_the_supplier_is_asked_and_answers),
		cmocka_unit_test(test_the_supplier_says_no),
	};

	log_init("test_vswap_room", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

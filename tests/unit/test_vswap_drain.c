/* deps: client_vswap */
/* A drain, row by row of what it may find in a slot, and each way in which it ends. */
#include "client/vswap/mover.h"
#include "tests/unit/vswap_fixture.h"

#define NR_PAGES 20000u
#define SLOTS 1024u

#define SERVER 0
#define DISK 1

static struct backend *backend_of(struct fixture *f, unsigned b)
{
	return &f->hand[b]->backend;
}

/* A server with pages 0 .. nr_pages - 1 in it, and a disk with room. */
static struct fixture *device(uint64_t nr_pages, uint32_t disk_slots)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);

	fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, nr_pages, 1), 0);
	if (disk_slots)
		fixture_add_slab(f, DISK, disk_slots);
	return f;
}

static void drain_begin(struct fixture *f, unsigned b, uint64_t deadline_ms)
{
	struct vswap_drain_options options = { .deadline_ms = deadline_ms };

	assert_int_equal(vswap_drain(f->vswap, backend_of(f, b), &options), 0);
}

static struct vswap_drain_progress drain_look_at(struct fixture *f, unsigned b)
{
	struct vswap_drain_progress progress;

	vswap_drain_progress(f->vswap, backend_of(f, b), &progress);
	return progress;
}

static enum vswap_drain_state drain_run(struct fixture *f, unsigned b)
{
	unsigned n;

	for (n = 0; n < 3000 && drain_look_at(f, b).state == VSWAP_DRAIN_RUNNING; n++)
		fixture_turns(f, 1);
	return drain_look_at(f, b).state;
}

static void test_every_page_moves(void **state)
{
	struct fixture *f = device(500, SLOTS);
	struct vswap_drain_progress progress;
	struct vswap_stats stats;

	(void)state;
	assert_int_equal(fixture_do(f, IO_DISCARD, 100, 7, 0), 0); /* with holes */
	drain_begin(f, SERVER, 0);
	assert_int_equal(vswap_drain(f->vswap, backend_of(f, SERVER), &(struct vswap_drain_options){ 0 }), -EALREADY);
	assert_int_equal(vswap_drain(f->vswap, backend_of(f, DISK), &(struct vswap_drain_options){ 0 }), -EBUSY);
	assert_int_equal(vswap_undrain(f->vswap, backend_of(f, SERVER)), -EBUSY);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	progress = drain_look_at(f, SERVER);
	assert_int_equal(progress.nr_moved, 493);
	assert_int_equal(progress.nr_left, 0);
	assert_int_equal(fixture_used(f, SERVER), 0);
	assert_int_equal(fixture_used(f, DISK), 493);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_disk, 493);
	assert_int_equal(fixture_read(f, 0, 100, 1), 0);
	/* It stays closed for new pages until it is taken back into use. */
	assert_int_equal(fixture_do(f, IO_WRITE, 5000, 1, 3), 0);
	assert_int_equal(fixture_used(f, SERVER), 0);
	assert_int_equal(vswap_undrain(f->vswap, backend_of(f, SERVER)), 0);
	fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 6000, SLOTS / 2, 3), 0);
	assert_true(fixture_used(f, SERVER) > 0);
	fixture_free(f);
}

/* Row: the entry is claimed. The drain queues on it; the write that was under way in place counts, and is moved. */
static void test_an_entry_that_is_being_written(void **state)
{
	struct fixture *f = device(4, SLOTS);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 2, 1, 9);

	(void)state;
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, write);
	f->hand[SERVER]->hold = false;
	drain_begin(f, SERVER, 0);
	/* Only the mover and the other queue go on: the write stays where it is. */
	for (unsigned n = 0; n < 200; n++) {
		f->now_ns += 1000000;
		sys_reactor_turn(f->reactors[2]);
		sys_reactor_turn(f->reactors[1]);
	}
	assert_int_equal(drain_look_at(f, SERVER).state, VSWAP_DRAIN_RUNNING);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 3);
	assert_int_equal(fixture_used(f, SERVER), 1);
	assert_int_equal(fixture_wait(f, 0, write), 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 4);
	assert_int_equal(fixture_read(f, 2, 1, 9), 0);
	fixture_io_free(write);
	fixture_free(f);
}

/* Row: the entry changes while its copy is under way. Ours is dropped, and the newer one is what is read. */
static void test_a_write_is_quicker_than_the_move(void **state)
{
	struct fixture *f = device(4, SLOTS);

	(void)state;
	f->hand[SERVER]->hold = true; /* the mover's read waits */
	drain_begin(f, SERVER, 0);
	fixture_turns(f, 3);
	assert_int_equal(f->hand[SERVER]->nr_reads, 1);
	assert_int_equal(fixture_do(f, IO_WRITE, 1, 1, 7), 0); /* writes never wait for a move */
	assert_int_equal(fixture_do(f, IO_DISCARD, 2, 1, 0), 0);
	f->hand[SERVER]->hold = false;
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 2);
	assert_int_equal(fixture_read(f, 1, 1, 7), 0);
	assert_int_equal(word_tag(fixture_word(f, 2)), WORD_NONE);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, DISK), 3);
	fixture_free(f);
}

/* The same while the copy is being written: the swing of the word is refused. */
static void test_a_write_is_quicker_than_the_swing(void **state)
{
	struct fixture *f = device(2, SLOTS);

	(void)state;
	fixture_add_slab(f, DISK, SLOTS);
	drain_begin(f, SERVER, 0);
	f->hand[DISK]->hold = true;
	fixture_turns(f, 3);
	assert_int_equal(f->hand[DISK]->nr_writes, 1);
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 1, 0), 0);
	f->hand[DISK]->hold = false;
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 1, 8), 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 1);
	assert_int_equal(fixture_read(f, 0, 1, 8), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, DISK), 2);
	fixture_free(f);
}

/* Row: wrong bytes. The slot is kept and reported; it is the only copy, whatever it is worth. */
static void test_bad_bytes_are_kept_and_reported(void **state)
{
	struct fixture *f = device(300, SLOTS);
	uint32_t slot = swp_slot_index(word_slot(fixture_word(f, 200)));
	struct vswap_drain_progress progress;
	char *byte = &f->hand[SERVER]->slab[0]->bytes[(size_t)slot * FSW_PAGE_SIZE + 1000];

	(void)state;
	*byte ^= 1;
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_FAILED);
	progress = drain_look_at(f, SERVER);
	assert_int_equal(progress.nr_moved, 299);
	assert_int_equal(progress.nr_left, 1);
	assert_int_equal(progress.nr_stuck, 1);
	assert_int_equal(progress.nr_stuck_listed, 1);
	assert_int_equal(progress.stuck[0].slot, slot);
	assert_int_equal(progress.stuck[0].err, -EBADMSG);
	assert_int_equal(swp_slot_index(word_slot(fixture_word(f, 200))), slot);
	*byte ^= 1; /* made whole, and run again: it goes on */
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(fixture_read(f, 0, 300, 1), 0);
	fixture_free(f);
}

/* Row: the read fails. One failed read is no lost page. */
static void test_a_failed_read_loses_nothing(void **state)
{
	struct fixture *f = device(10, SLOTS);

	(void)state;
	f->hand[SERVER]->nr_fail = UINT32_MAX;
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_FAILED);
	assert_int_equal(drain_look_at(f, SERVER).nr_stuck, 10);
	assert_int_equal(drain_look_at(f, SERVER).stuck[9].err, -EIO);
	assert_int_equal(fixture_used(f, SERVER), 10);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, DISK), 0);
	f->hand[SERVER]->nr_fail = 0;
	assert_int_equal(fixture_read(f, 0, 10, 1), 0);
	fixture_free(f);
}

/* The writes of the copies fail: the slots that they took are in quarantine, the pages stay where they are. */
static void test_a_failed_copy_loses_nothing(void **state)
{
	struct fixture *f = device(10, SLOTS);

	(void)state;
	f->hand[DISK]->nr_fail = UINT32_MAX;
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_FAILED);
	assert_int_equal(drain_look_at(f, SERVER).nr_left, 10);
	f->hand[DISK]->nr_fail = 0;
	assert_int_equal(fixture_read(f, 0, 10, 1), 0);
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(fixture_read(f, 0, 10, 1), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, DISK), 10);
	fixture_free(f);
}

/* Copies that cannot even be submitted: no slot, no job and no I/O epoch is left behind. */
static void test_a_refused_copy_leaves_nothing_behind(void **state)
{
	static const unsigned refusing[] = { SERVER, DISK }; /* the reads, and the writes */
	unsigned i;

	(void)state;
	for (i = 0; i < BASE_ARRAY_SIZE(refusing); i++) {
		struct fixture *f = device(10, SLOTS);

		f->hand[refusing[i]]->nr_refuse = UINT32_MAX;
		drain_begin(f, SERVER, 0);
		assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_FAILED);
		assert_int_equal(drain_look_at(f, SERVER).nr_stuck, 10);
		assert_int_equal(fixture_used(f, SERVER), 10);
		assert_int_equal(fixture_used(f, DISK), 0);
		f->hand[refusing[i]]->nr_refuse = 0;
		drain_begin(f, SERVER, 0);
		assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
		assert_int_equal(fixture_read(f, 0, 10, 1), 0);
		fixture_free(f);
	}
}

/* However much there is to move, no more is read ahead than the window has room for. */
static void test_the_window_bounds_what_is_read_ahead(void **state)
{
	struct fixture *f = device(IO_MAX_PAGES, SLOTS);
	struct vswap_drain_options options = { .window_pages = 2 * MOVE_MAX_PAGES };

	(void)state;
	f->hand[SERVER]->hold = true;
	assert_int_equal(vswap_drain(f->vswap, backend_of(f, SERVER), &options), 0);
	fixture_turns(f, 20);
	assert_int_equal(f->hand[SERVER]->nr_reads, 2);
	f->hand[SERVER]->hold = false;
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	fixture_free(f);
}

/* Pages that lie one by one between free slots fill the window, too, as far as there are jobs. */
static void test_scattered_pages_go_side_by_side(void **state)
{
	struct fixture *f = device(4 * MOVER_NR_JOBS, SLOTS);
	unsigned i;

	(void)state;
	for (i = 0; i < 4 * MOVER_NR_JOBS; i += 2)
		assert_int_equal(fixture_do(f, IO_DISCARD, i, 1, 0), 0);
	fixture_turns(f, 20);
	f->hand[SERVER]->hold = true;
	drain_begin(f, SERVER, 0);
	fixture_turns(f, 20);
	assert_int_equal(f->hand[SERVER]->nr_reads, MOVER_NR_JOBS);
	f->hand[SERVER]->hold = false;
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 2 * MOVER_NR_JOBS);
	fixture_free(f);
}

static void test_no_room_and_then_some(void **state)
{
	struct fixture *f = device(300, SLAB_MIN_SLOTS);

	(void)state;
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_NO_ROOM);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, SLAB_MIN_SLOTS);
	assert_int_equal(drain_look_at(f, SERVER).nr_left, 300 - SLAB_MIN_SLOTS);
	assert_int_equal(fixture_read(f, 0, 300, 1), 0);
	drain_begin(f, SERVER, 0);
	fixture_turns(f, 20);
	assert_int_equal(drain_look_at(f, SERVER).state, VSWAP_DRAIN_RUNNING); /* it has patience */
	fixture_add_slab(f, DISK, SLOTS);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(fixture_read(f, 0, 300, 1), 0);
	fixture_free(f);
}

static void test_where_to_is_obeyed(void **state)
{
	struct fixture *f = device(10, SLOTS);
	struct vswap_drain_options options = { .target = VSWAP_DRAIN_TO_REMOTE };

	(void)state;
	assert_int_equal(vswap_drain(f->vswap, backend_of(f, SERVER), &options), 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_NO_ROOM);
	assert_int_equal(fixture_used(f, DISK), 0);
	options.target = VSWAP_DRAIN_TO_DISK;
	assert_int_equal(vswap_drain(f->vswap, backend_of(f, SERVER), &options), 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(fixture_used(f, DISK), 10);
	fixture_free(f);
}

static void test_cancelled_and_resumed(void **state)
{
	struct fixture *f = device(500, SLOTS);

	(void)state;
	assert_int_equal(vswap_drain_cancel(f->vswap, backend_of(f, SERVER)), -ENOENT);
	f->hand[SERVER]->hold = true;
	drain_begin(f, SERVER, 0);
	fixture_turns(f, 3);
	assert_int_equal(vswap_drain_cancel(f->vswap, backend_of(f, SERVER)), 0);
	f->hand[SERVER]->hold = false;
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_CANCELLED);
	assert_true(drain_look_at(f, SERVER).nr_left > 0 || fixture_used(f, DISK) == 500);
	assert_int_equal(fixture_read(f, 0, 500, 1), 0);
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(fixture_read(f, 0, 500, 1), 0);
	fixture_free(f);
}

static void test_a_deadline_ends_it(void **state)
{
	struct fixture *f = device(10, SLOTS);

	(void)state;
	f->hand[SERVER]->hold = true;
	drain_begin(f, SERVER, 30);
	fixture_turns(f, 100);
	f->hand[SERVER]->hold = false;
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DEADLINE);
	assert_int_equal(fixture_read(f, 0, 10, 1), 0);
	fixture_free(f);
}

/* Row: a slot that is allocated and has no entry. It is not waited for without an end, and never counted as drained. */
static void test_a_slot_without_an_entry_ends_it(void **state)
{
	struct fixture *f = device(10, SLOTS);
	struct slab *slab = NULL;
	uint32_t id;

	(void)state;
	for (id = 0; !slab || slab->backend != backend_of(f, SERVER); id++)
		slab = slab_by_id(&f->vswap->slabs, id);
	atomic_fetch_or(&slab->used[SLOTS / 64 - 1], 1ull << 63);
	atomic_fetch_add(&slab->nr_used, 1);
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_FAILED);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 10);
	assert_int_equal(drain_look_at(f, SERVER).nr_left, 1);
	slot_free_unused(&f->vswap->slabs, slab, SLOTS - 1, 1);
	drain_begin(f, SERVER, 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	fixture_free(f);
}

/* DRAINED is counted: a slot that a read may still be at is not free yet, though every page has moved. */
static void test_drained_waits_for_readers(void **state)
{
	struct fixture *f = device(10, SLOTS);
	struct fixture_io *read = fixture_io_new(IO_READ, 3, 1, 0);
	unsigned n;

	(void)state;
	fixture_submit(f, 1, read); /* and its queue gets no turn */
	drain_begin(f, SERVER, 0);
	for (n = 0; n < 100; n++) {
		f->now_ns += 1000000;
		sys_reactor_turn(f->reactors[2]);
		sys_reactor_turn(f->reactors[0]);
	}
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 10);
	assert_int_equal(drain_look_at(f, SERVER).state, VSWAP_DRAIN_RUNNING);
	assert_int_equal(fixture_used(f, SERVER), 10);
	assert_int_equal(fixture_wait(f, 1, read), 0);
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	fixture_io_free(read);
	fixture_free(f);
}

/* The mover's own reads count as well: a slab stays while one is under way, though nothing in it is used any more. */
static void test_a_slab_that_a_move_reads_stays(void **state)
{
	struct fixture *f = device(10, SLOTS);
	struct backend_slab *slab;

	(void)state;
	f->hand[SERVER]->hold = true;
	drain_begin(f, SERVER, 0);
	fixture_turns(f, 3);
	assert_int_equal(f->hand[SERVER]->nr_reads, 1);
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 10, 0), 0);
	fixture_turns(f, 20);
	assert_int_equal(fixture_used(f, SERVER), 10);
	assert_int_equal(vswap_slab_reclaim(f->vswap, backend_of(f, SERVER), 0, 1, &slab), 0);
	f->hand[SERVER]->hold = false;
	assert_int_equal(drain_run(f, SERVER), VSWAP_DRAIN_DRAINED);
	assert_int_equal(drain_look_at(f, SERVER).nr_moved, 0);
	assert_int_equal(vswap_slab_reclaim(f->vswap, backend_of(f, SERVER), 0, 1, &slab), 1);
	hand_slab_free(f->hand[SERVER], slab);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_page_moves),
		cmocka_unit_test(test_an_entry_that_is_being_written),
		cmocka_unit_test(test_a_write_is_quicker_than_the_move),
		cmocka_unit_test(test_a_write_is_quicker_than_the_swing),
		cmocka_unit_test(test_bad_bytes_are_kept_and_reported),
		cmocka_unit_test(test_a_failed_read_loses_nothing),
		cmocka_unit_test(test_a_failed_copy_loses_nothing),
		cmocka_unit_test(test_a_refused_copy_leaves_nothing_behind),
		cmocka_unit_test(test_the_window_bounds_what_is_read_ahead),
		cmocka_unit_test(test_scattered_pages_go_side_by_side),
		cmocka_unit_test(test_no_room_and_then_some),
		cmocka_unit_test(test_where_to_is_obeyed),
		cmocka_unit_test(test_cancelled_and_resumed),
		cmocka_unit_test(test_a_deadline_ends_it),
		cmocka_unit_test(test_a_slot_without_an_entry_ends_it),
		cmocka_unit_test(test_drained_waits_for_readers),
		cmocka_unit_test(test_a_slab_that_a_move_reads_stays),
	};

	log_init("test_vswap_drain", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

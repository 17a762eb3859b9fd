/* deps: client_vswap */
/* Requests, one at a time: what goes to the backends, what comes back, and what is left behind when something fails. */
#include "client/vswap/page.h"
#include "tests/unit/vswap_fixture.h"

#define NR_PAGES 20000u
#define SLOTS 1024u

#define SERVER 0
#define DISK 1

static struct fixture *device(void)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);

	fixture_add_slab(f, SERVER, SLOTS);
	return f;
}

/* ---- what is asked for ---- */

static void test_bad_requests_change_nothing(void **state)
{
	static const struct {
		enum io_op op;
		uint64_t page, nr_pages;
		unsigned skew;
		int expected;
	} bad[] = {
		{ IO_FLUSH + 1, 0, 1, 0, -EINVAL },
		{ IO_READ, 0, 0, 0, -EINVAL },
		{ IO_WRITE, 0, 0, 0, -EINVAL },
		{ IO_DISCARD, 0, 0, 0, -EINVAL },
		{ IO_READ, 0, IO_MAX_PAGES + 1, 0, -EINVAL },
		{ IO_WRITE, 0, IO_MAX_PAGES + 1, 0, -EINVAL },
		{ IO_READ, 0, 1, 8, -EINVAL },
		{ IO_WRITE, 0, 1, 512, -EINVAL },
		{ IO_READ, NR_PAGES, 1, 0, -ERANGE },
		{ IO_WRITE, NR_PAGES - 1, 2, 0, -ERANGE },
		{ IO_DISCARD, 1, NR_PAGES, 0, -ERANGE },
		{ IO_DISCARD, 1, UINT64_MAX, 0, -ERANGE },
		{ IO_WRITE_ZEROES, UINT64_MAX, 2, 0, -ERANGE },
	};
	struct fixture *f = device();
	struct vswap_stats stats;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct fixture_io *fio = fixture_io_new(bad[i].op, bad[i].page, bad[i].nr_pages, 1);
		void *buf = fio->io.buf;

		fio->io.buf = (char *)buf + bad[i].skew;
		fixture_submit(f, 0, fio);
		assert_int_equal(fixture_wait(f, 0, fio), bad[i].expected);
		fio->io.buf = buf;
		fixture_io_free(fio);
	}
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_reads + stats.nr_writes + stats.nr_discards, 0);
	assert_int_equal(f->hand[SERVER]->nr_ops, 0);
	assert_int_equal(fixture_do(f, IO_FLUSH, UINT64_MAX, 0, 0), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, NR_PAGES - 1, 1, 5), 0);
	assert_int_equal(fixture_read(f, NR_PAGES - 1, 1, 5), 0);
	fixture_free(f);
}

static void test_a_long_run_is_one_operation(void **state)
{
	struct fixture *f = device();

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 512, 512, 1), 0);
	assert_int_equal(f->hand[SERVER]->nr_writes, 1);
	assert_int_equal(fixture_read(f, 512, 512, 1), 0);
	assert_int_equal(f->hand[SERVER]->nr_reads, 1);
	assert_int_equal(fixture_do(f, IO_WRITE, 512, 512, 2), 0); /* in place */
	assert_int_equal(f->hand[SERVER]->nr_writes, 2);
	assert_int_equal(fixture_used(f, SERVER), 512);
	assert_int_equal(fixture_read(f, 512, 512, 2), 0);
	fixture_free(f);
}

static void test_over_the_edge_of_a_cluster_it_is_two(void **state)
{
	struct fixture *f = device();

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 512 + 100, 512, 1), 0);
	assert_int_equal(f->hand[SERVER]->nr_writes, 2);
	assert_int_equal(fixture_read(f, 512 + 100, 512, 1), 0);
	assert_true(f->hand[SERVER]->nr_reads <= 2);
	assert_int_equal(fixture_used(f, SERVER), 512);
	fixture_free(f);
}

static void test_pages_of_one_value_take_no_slot(void **state)
{
	struct fixture *f = device();
	struct fixture_io *fio = fixture_io_new(IO_WRITE, 10, 4, 1);
	struct vswap_stats stats;

	(void)state;
	page_fill(request_page(&fio->io, 0), 0);
	page_fill(request_page(&fio->io, 1), 0xabcdef);
	page_fill(request_page(&fio->io, 2), UINT64_MAX); /* too large for a word */
	page_fill(request_page(&fio->io, 3), WORD_PAYLOAD_MAX);
	fixture_submit(f, 0, fio);
	assert_int_equal(fixture_wait(f, 0, fio), 0);
	assert_int_equal(fixture_used(f, SERVER), 1);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_same, 3);
	assert_int_equal(stats.nr_remote, 1);
	memset(fio->io.buf, 0x55, 4 * FSW_PAGE_SIZE);
	fio->io.op = IO_READ;
	fixture_submit(f, 0, fio);
	assert_int_equal(fixture_wait(f, 0, fio), 0);
	assert_int_equal(((uint64_t *)request_page(&fio->io, 0))[511], 0);
	assert_int_equal(((uint64_t *)request_page(&fio->io, 1))[511], 0xabcdef);
	assert_true(((uint64_t *)request_page(&fio->io, 2))[511] == UINT64_MAX);
	assert_true(((uint64_t *)request_page(&fio->io, 3))[511] == WORD_PAYLOAD_MAX);
	/* A slot that a page of one value was in before comes back. */
	page_fill(request_page(&fio->io, 2), 7);
	fio->io.op = IO_WRITE;
	fixture_submit(f, 0, fio);
	assert_int_equal(fixture_wait(f, 0, fio), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 0);
	fixture_io_free(fio);
	fixture_free(f);
}

static void test_what_was_never_written_is_zeros(void **state)
{
	static const char zeros[FSW_PAGE_SIZE];
	struct fixture *f = device();
	struct fixture_io *fio = fixture_io_new(IO_READ, 500, 500, 3);
	unsigned i;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 600, 1, 9), 0);
	f->hand[SERVER]->nr_ops = 0;
	fixture_submit(f, 0, fio);
	assert_int_equal(fixture_wait(f, 0, fio), 0);
	assert_int_equal(f->hand[SERVER]->nr_ops, 1);
	for (i = 0; i < 500; i++)
		assert_int_equal(memcmp(request_page(&fio->io, i), zeros, FSW_PAGE_SIZE) == 0, i != 100);
	fixture_io_free(fio);
	fixture_free(f);
}

/* ---- discard ---- */

static void test_discard_gives_slots_and_tables_back(void **state)
{
	struct fixture *f = device();
	struct vswap_stats stats;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 100, 512, 1), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, 5000, 300, 2), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 110, 2, 0), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 810);
	assert_int_equal(fixture_read(f, 100, 10, 1), 0);
	assert_int_equal(fixture_read(f, 5000, 300, 2), 0);
	assert_int_equal(fixture_do(f, IO_WRITE_ZEROES, 0, NR_PAGES, 0), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 0);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_remote, 0);
	assert_int_equal(stats.nr_tables, 1); /* the node of the directory */
	fixture_free(f);
}

/* From the middle of a cluster to the middle of the next: what it names, on both sides of the edge, and nothing else. */
static void test_discard_over_the_edge_of_a_cluster(void **state)
{
	struct fixture *f = device();

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 512, 100, 1), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, 1000, 100, 2), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 1010, 50, 0), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 150);
	assert_int_equal(word_tag(fixture_word(f, 1009)), WORD_REMOTE);
	assert_int_equal(word_tag(fixture_word(f, 1010)), WORD_NONE);
	assert_int_equal(word_tag(fixture_word(f, 1059)), WORD_NONE);
	assert_int_equal(word_tag(fixture_word(f, 1060)), WORD_REMOTE);
	assert_int_equal(fixture_read(f, 512, 100, 1), 0);
	assert_int_equal(fixture_read(f, 1000, 10, 2), 0);
	fixture_free(f);
}

static void test_discard_of_16_tib_takes_few_turns(void **state)
{
	struct fixture *f = fixture_create(VSWAP_MAX_PAGES, 512);
	struct fixture_io *fio = fixture_io_new(IO_DISCARD, 0, VSWAP_MAX_PAGES, 0);
	unsigned i, n;

	(void)state;
	fixture_add_slab(f, SERVER, SLOTS);
	for (i = 0; i < 200; i++) /* 200 clusters, 50 of them in far corners */
		assert_int_equal(fixture_do(f, IO_WRITE, i < 150 ? i * 512u : (uint64_t)i * 20000000, 1, i), 0);
	fixture_submit(f, 0, fio);
	for (n = 0; fio->status == FIXTURE_PENDING && n < 100; n++)
		fixture_turn(f, 0);
	assert_int_equal(fio->status, 0);
	assert_in_range(n, 3, 8); /* in portions, so that others get a turn; but not many */
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 0);
	fixture_io_free(fio);
	fixture_free(f);
}

/* ---- requests that meet ---- */

static void test_a_read_waits_for_the_write_under_way(void **state)
{
	struct fixture *f = device();
	struct fixture_io *write = fixture_io_new(IO_WRITE, 50, 4, 2), *read = fixture_io_new(IO_READ, 50, 4, 77);

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 50, 4, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, write);
	fixture_submit(f, 1, read);
	fixture_turns(f, 5);
	assert_int_equal(read->status, FIXTURE_PENDING);
	assert_int_equal(f->hand[SERVER]->nr_reads, 0); /* it queues on the entries, not on the server */
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 0, write), 0);
	assert_int_equal(fixture_wait(f, 1, read), 0);
	assert_true(fixture_holds(read, 2));
	fixture_io_free(write);
	fixture_io_free(read);
	fixture_free(f);
}

static void test_a_write_and_a_discard_wait_as_well(void **state)
{
	struct fixture *f = device();
	struct fixture_io *first = fixture_io_new(IO_WRITE, 50, 1, 1), *second = fixture_io_new(IO_WRITE, 50, 1, 2),
			  *discard = fixture_io_new(IO_DISCARD, 50, 1, 0);

	(void)state;
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, first);
	fixture_submit(f, 1, second);
	fixture_turns(f, 3);
	assert_int_equal(f->hand[SERVER]->nr_writes, 1);
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 0, first), 0);
	assert_int_equal(fixture_wait(f, 1, second), 0);
	assert_int_equal(fixture_read(f, 50, 1, 2), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, first);
	fixture_submit(f, 1, discard);
	fixture_turns(f, 3);
	assert_int_equal(discard->status, FIXTURE_PENDING);
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 0, first), 0);
	assert_int_equal(fixture_wait(f, 1, discard), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 0);
	fixture_io_free(first);
	fixture_io_free(second);
	fixture_io_free(discard);
	fixture_free(f);
}

/* A slot that a read may still be at is given to nobody else, however long the read takes. */
static void test_a_slot_that_is_read_is_not_given_away(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *read = fixture_io_new(IO_READ, 7, 1, 77), *write = fixture_io_new(IO_WRITE, 3000, 1, 1);
	unsigned i;

	(void)state;
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 1, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 1, read);
	assert_int_equal(fixture_do(f, IO_DISCARD, 7, 1, 0), 0);
	fixture_turns(f, 20);
	assert_int_equal(fixture_used(f, SERVER), 1);
	f->hand[SERVER]->hold = false;
	/* Every other slot is taken; the read's operation stays at the head of its own queue. */
	for (i = 0; i < SLAB_MIN_SLOTS - 1; i++)
		assert_int_equal(fixture_do(f, IO_WRITE, 1000 + i, 1, i), 0);
	fixture_submit(f, 0, write);
	for (i = 0; i < 50; i++) {
		fixture_turn(f, 0);
		fixture_turn(f, FIXTURE_QUEUES);
	}
	assert_int_equal(write->status, FIXTURE_PENDING);
	assert_int_equal(fixture_wait(f, 1, read), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_wait(f, 0, write), 0);
	fixture_io_free(read);
	fixture_io_free(write);
	fixture_free(f);
}

/* ---- failures ---- */

static void test_a_bad_transfer_is_tried_again(void **state)
{
	struct fixture *f = device();
	struct vswap_stats stats;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 3, 1), 0);
	f->hand[SERVER]->nr_corrupt = 2;
	assert_int_equal(fixture_read(f, 7, 3, 1), 0);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_checksum_errors, 0);
	assert_int_equal(stats.nr_poisoned, 0);
	fixture_free(f);
}

/* That a page has moved meanwhile is no wrong fetch: at its new place it is fetched as often as anywhere. */
static void test_a_bad_transfer_after_a_move_is_tried_again(void **state)
{
	struct fixture *f = device();
	struct fixture_io *read = fixture_io_new(IO_READ, 7, 1, 0);
	struct vswap_drain_options options = { 0 };
	struct vswap_stats stats;

	(void)state;
	fixture_add_slab(f, DISK, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 1, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 1, read);
	assert_int_equal(vswap_drain(f->vswap, &f->hand[SERVER]->backend, &options), 0);
	fixture_turns(f, 1);
	hand_end(f, SERVER, FIXTURE_QUEUES, 0); /* the mover's read */
	fixture_turns(f, 3);
	assert_int_equal(word_tag(fixture_word(f, 7)), WORD_DISK);
	f->hand[DISK]->nr_corrupt = 2;
	hand_end(f, SERVER, 1, -EIO);
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 1, read), 0);
	assert_true(fixture_holds(read, 1));
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_checksum_errors, 0);
	fixture_turns(f, 30);
	fixture_io_free(read);
	fixture_free(f);
}

static void test_bad_bytes_are_an_error_until_written(void **state)
{
	struct fixture *f = device();
	struct vswap_stats stats;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 3, 1), 0);
	f->hand[SERVER]->slab[0]->bytes[swp_slot_index(word_slot(fixture_word(f, 8))) * FSW_PAGE_SIZE + 99] ^= 4;
	assert_int_equal(fixture_read(f, 7, 3, 1), -EIO);
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_checksum_errors, 1);
	assert_int_equal(stats.nr_poisoned, 1);
	assert_int_equal(stats.nr_remote, 2);
	assert_int_equal(word_tag(fixture_word(f, 8)), WORD_POISON);
	assert_int_equal(fixture_read(f, 8, 1, 1), -EIO);
	assert_int_equal(fixture_read(f, 7, 1, 1), 0); /* its neighbour is as it was */
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), 2);
	assert_int_equal(fixture_do(f, IO_WRITE, 8, 1, 5), 0);
	assert_int_equal(fixture_read(f, 8, 1, 5), 0);
	fixture_free(f);
}

static void flip(struct fixture *f, uint64_t page)
{
	f->hand[SERVER]->slab[0]->bytes[swp_slot_index(word_slot(fixture_word(f, page))) * FSW_PAGE_SIZE + 99] ^= 4;
}

/*
 * Each time the read looks, gets other bytes, and looks again, the page has been written again with what it held before:
 * same slot, same checksum. That is no bad transfer, however often it happens.
 */
static void test_what_is_written_again_is_not_bad(void **state)
{
	struct fixture *f = device();
	struct fixture_io *read = fixture_io_new(IO_READ, 7, 1, 77), *write = fixture_io_new(IO_WRITE, 7, 1, 1);
	struct vswap_stats stats;
	unsigned i;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 1, 1), 0);
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 1, read);
	for (i = 0; i < 8; i++) {
		fixture_submit(f, 0, write);
		hand_end(f, SERVER, 0, 0);
		assert_int_equal(fixture_wait(f, 0, write), 0);
		flip(f, 7);
		hand_end(f, SERVER, 1, 0);
		flip(f, 7);
		assert_int_equal(read->status, FIXTURE_PENDING);
	}
	hand_end(f, SERVER, 1, 0);
	assert_int_equal(fixture_wait(f, 1, read), 0);
	assert_true(fixture_holds(read, 1));
	vswap_stats(f->vswap, &stats);
	assert_int_equal(stats.nr_checksum_errors + stats.nr_poisoned, 0);
	f->hand[SERVER]->hold = false;
	fixture_io_free(read);
	fixture_io_free(write);
	fixture_free(f);
}

static void test_a_failed_read_poisons_nothing(void **state)
{
	struct fixture *f = device();

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 3, 1), 0);
	f->hand[SERVER]->nr_fail = 1;
	assert_int_equal(fixture_read(f, 7, 3, 1), -EIO);
	assert_int_equal(fixture_read(f, 7, 3, 1), 0);
	fixture_free(f);
}

static void test_no_room_leaves_the_old_readable(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 1, 1), -ENOSPC);
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, SLAB_MIN_SLOTS, 1), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, 1000, 1, 2), -ENOSPC);
	assert_int_equal(word_tag(fixture_word(f, 1000)), WORD_NONE);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, SLAB_MIN_SLOTS, 3), 0); /* in place there is room */
	/* Out of reach, it cannot be written in place, and there is nowhere else: what is there stays. */
	atomic_store(&f->hand[SERVER]->backend.state, BACKEND_DOWN);
	assert_int_equal(fixture_do(f, IO_WRITE, 5, 2, 4), -ENOSPC);
	atomic_store(&f->hand[SERVER]->backend.state, BACKEND_UP);
	assert_int_equal(fixture_read(f, 0, SLAB_MIN_SLOTS, 3), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 1, 0), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_do(f, IO_WRITE, 1000, 1, 2), 0);
	fixture_free(f);
}

static void test_an_empty_reserve_of_tables_is_no_room(void **state)
{
	struct fixture *f = fixture_create(VSWAP_MAX_PAGES, 1);
	uint64_t nr = 0;

	(void)state;
	fixture_add_slab(f, SERVER, SLOTS);
	while (fixture_do(f, IO_WRITE, nr * TABLE_ENTRIES, 1, nr) == 0)
		assert_true(++nr < SLOTS);
	assert_true(nr > 0);
	assert_int_equal(fixture_used(f, SERVER), nr);
	assert_int_equal(vswap_refill(f->vswap), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, nr * TABLE_ENTRIES, 1, nr), 0);
	fixture_free(f);
}

/* The answer to a write in place was lost: its bytes may come yet, so the slot is nobody's until the fence has moved. */
static void test_a_failed_write_goes_elsewhere(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *last = fixture_io_new(IO_WRITE, 3000, 1, 3);
	uint64_t old, i;

	(void)state;
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 1, 1), 0);
	old = word_payload(fixture_word(f, 7));
	f->hand[SERVER]->nr_fail = 1;
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 1, 2), 0);
	assert_int_equal(f->hand[SERVER]->nr_writes, 3);
	assert_true(word_payload(fixture_word(f, 7)) != old);
	fixture_turns(f, 10);
	assert_int_equal(fixture_used(f, SERVER), 2);
	for (i = 0; i < SLAB_MIN_SLOTS - 2; i++) {
		assert_int_equal(fixture_do(f, IO_WRITE, 1000 + i, 1, i), 0);
		assert_true(word_payload(fixture_word(f, 1000 + i)) != old);
	}
	fixture_submit(f, 0, last);
	fixture_turns(f, 10);
	assert_int_equal(last->status, FIXTURE_PENDING);
	atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1);
	assert_int_equal(fixture_wait_for_room(f, last), 0);
	assert_int_equal(word_payload(fixture_word(f, 3000)), old);
	assert_int_equal(fixture_read(f, 7, 1, 2), 0);
	fixture_io_free(last);
	fixture_free(f);
}

/* Nowhere to go: what the slot holds is unknown, so the page is an error and not the old bytes, nor the new. */
static void test_a_failed_write_in_place_without_room(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct fixture_io *write = fixture_io_new(IO_WRITE, 3, 1, 2);

	(void)state;
	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, SLAB_MIN_SLOTS, 1), 0);
	f->hand[SERVER]->nr_fail = 1;
	fixture_submit(f, 0, write);
	assert_int_equal(fixture_wait_for_room(f, write), -ENOSPC);
	assert_int_equal(word_tag(fixture_word(f, 3)), WORD_POISON);
	fixture_turns(f, 10);
	assert_int_equal(fixture_used(f, SERVER), SLAB_MIN_SLOTS); /* in quarantine */
	atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1);
	fixture_turns(f, 10);
	assert_int_equal(fixture_used(f, SERVER), SLAB_MIN_SLOTS - 1);
	assert_int_equal(fixture_do(f, IO_WRITE, 3, 1, 4), 0);
	assert_int_equal(fixture_read(f, 3, 1, 4), 0);
	fixture_io_free(write);
	fixture_free(f);
}

static void test_a_write_that_fails_everywhere_is_an_error(void **state)
{
	struct fixture *f = device();

	(void)state;
	f->hand[SERVER]->nr_fail = UINT32_MAX;
	assert_int_equal(fixture_do(f, IO_WRITE, 7, 2, 1), -EIO);
	f->hand[SERVER]->nr_fail = 0;
	assert_int_equal(word_tag(fixture_word(f, 7)), WORD_NONE);
	assert_true(fixture_used(f, SERVER) > 0);
	atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1);
	fixture_turns(f, 10);
	assert_int_equal(fixture_used(f, SERVER), 0);
	fixture_free(f);
}

static void test_a_lost_server_and_its_return(void **state)
{
	struct fixture *f = device();
	struct backend_slab *slabs[4];
	struct backend *server = &f->hand[SERVER]->backend;
	uint64_t poisoned = 0;
	unsigned n;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 20, 1), 0);
	atomic_store(&server->state, BACKEND_LOST);
	assert_int_equal(fixture_read(f, 0, 1, 1), -EIO); /* poisons what it meets before the pass comes */
	assert_int_equal(vswap_slab_reclaim(f->vswap, server, 0, 4, slabs), 0);
	for (n = 0; vswap_backend_lost(f->vswap, server, &poisoned) == -EAGAIN; n++) {
		assert_true(n < 50);
		fixture_turns(f, 1);
	}
	assert_int_equal(poisoned, 19);
	assert_int_equal(fixture_used(f, SERVER), 0);
	assert_int_equal(vswap_slab_reclaim(f->vswap, server, 0, 4, slabs), 1);
	hand_slab_free(f->hand[SERVER], slabs[0]);
	atomic_store(&server->state, BACKEND_UP);
	fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(fixture_read(f, 10, 1, 1), -EIO);
	assert_int_equal(fixture_do(f, IO_WRITE, 10, 1, 2), 0);
	assert_int_equal(fixture_read(f, 10, 1, 2), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 10, 0), 0);
	fixture_free(f);
}

/* What others hold is none of a lost server's business. */
static void test_a_lost_server_takes_only_its_own(void **state)
{
	struct fixture *f = device();
	struct backend *server = &f->hand[SERVER]->backend;
	uint64_t poisoned = 0;
	unsigned n;

	(void)state;
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 10, 1), 0);
	atomic_store(&server->state, BACKEND_DOWN);
	fixture_add_slab(f, DISK, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 50, 10, 2), 0);
	assert_int_equal(fixture_used(f, DISK), 10);
	atomic_store(&server->state, BACKEND_LOST);
	for (n = 0; n < 50 && vswap_backend_lost(f->vswap, server, &poisoned) == -EAGAIN; n++)
		fixture_turns(f, 1);
	assert_int_equal(poisoned, 10);
	assert_int_equal(fixture_read(f, 0, 1, 1), -EIO);
	assert_int_equal(fixture_read(f, 50, 10, 2), 0);
	fixture_free(f);
}

/* ---- slabs ---- */

static void test_reclaim_keeps_what_it_is_told(void **state)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	struct backend *server = &f->hand[SERVER]->backend;
	struct backend_slab *slabs[4];
	unsigned i, nr;

	(void)state;
	for (i = 0; i < 4; i++)
		fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(vswap_backend_remove(f->vswap, server), -EBUSY);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 10, 1), 0); /* one slab is used, three are not */
	assert_int_equal(vswap_slab_reclaim(f->vswap, server, 4 * SLOTS, 4, slabs), 0);
	nr = vswap_slab_reclaim(f->vswap, server, 2 * SLOTS, 4, slabs);
	assert_int_equal(nr, 1);
	nr += vswap_slab_reclaim(f->vswap, server, 0, 1, slabs + nr);
	assert_int_equal(nr, 2);
	nr += vswap_slab_reclaim(f->vswap, server, 0, 2, slabs + nr);
	assert_int_equal(nr, 3); /* not the one with pages */
	for (i = 0; i < nr; i++)
		hand_slab_free(f->hand[SERVER], slabs[i]);
	assert_int_equal(fixture_read(f, 0, 10, 1), 0);
	/* The cursor is open in it: its slots are free, and it can go. */
	assert_int_equal(fixture_do(f, IO_DISCARD, 0, 10, 0), 0);
	fixture_turns(f, 6);
	assert_int_equal(vswap_slab_reclaim(f->vswap, server, 0, 4, slabs), 1);
	hand_slab_free(f->hand[SERVER], slabs[0]);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 1, 1), -ENOSPC);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_requests_change_nothing),
		cmocka_unit_test(test_a_long_run_is_one_operation),
		cmocka_unit_test(test_over_the_edge_of_a_cluster_it_is_two),
		cmocka_unit_test(test_pages_of_one_value_take_no_slot),
		cmocka_unit_test(test_what_was_never_written_is_zeros),
		cmocka_unit_test(test_discard_gives_slots_and_tables_back),
		cmocka_unit_test(test_discard_over_the_edge_of_a_cluster),
		cmocka_unit_test(test_discard_of_16_tib_takes_few_turns),
		cmocka_unit_test(test_a_read_waits_for_the_write_under_way),
		cmocka_unit_test(test_a_write_and_a_discard_wait_as_well),
		cmocka_unit_test(test_a_slot_that_is_read_is_not_given_away),
		cmocka_unit_test(test_a_bad_transfer_is_tried_again),
		cmocka_unit_test(test_a_bad_transfer_after_a_move_is_tried_again),
		cmocka_unit_test(test_bad_bytes_are_an_error_until_written),
		cmocka_unit_test(test_what_is_written_again_is_not_bad),
		cmocka_unit_test(test_a_failed_read_poisons_nothing),
		cmocka_unit_test(test_no_room_leaves_the_old_readable),
		cmocka_unit_test(test_an_empty_reserve_of_tables_is_no_room),
		cmocka_unit_test(test_a_failed_write_goes_elsewhere),
		cmocka_unit_test(test_a_failed_write_in_place_without_room),
		cmocka_unit_test(test_a_write_that_fails_everywhere_is_an_error),
		cmocka_unit_test(test_a_lost_server_and_its_return),
		cmocka_unit_test(test_a_lost_server_takes_only_its_own),
		cmocka_unit_test(test_reclaim_keeps_what_it_is_told),
	};

	log_init("test_vswap_requests", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

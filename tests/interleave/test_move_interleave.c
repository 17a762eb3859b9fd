/* deps: client_vswap_interleaved tests_interleave */
/*
 * What backs an entry changes while it is held, stored, read, written and let go of, in every order. The mover's script has one
 * page moved, or a whole server drained, and then frees slots as it is asked to until the others have ended.
 */
#include "tests/interleave/swap_world.h"

#define BOUND 2
#define DEVICE_PAGES 512u
/* Of pages, so that a read can tell them apart. */
#define OLD 7u
#define NEW 8u
#define OTHER 9u

/* ---- the mover ---- */

static void move_has_moved(struct move_owner *owner)
{
	(void)owner;
	w->nr_moved++;
}

static void move_is_stuck(struct move_owner *owner, const struct move *move, uint32_t item, int err)
{
	(void)owner;
	interleave_fail("item %u of slot %u cannot be moved: %d", item, move->slot, err);
}

static void move_has_no_room(struct move_owner *owner)
{
	(void)owner;
	interleave_fail("a move finds no room");
}

static void move_has_ended(struct move_owner *owner, uint32_t nr_pages)
{
	(void)owner;
	interleave_expect(nr_pages == 1);
	w->move_has_ended = true;
}

/* As drain_look, for the one page that slot 0 of the server is for. True: the job is under way. */
static bool move_begin(void)
{
	struct vswap *vswap = w->f->vswap;
	struct move *move;
	struct table_look look;

	w->owner = (struct move_owner){ SLOT_DISK_ONLY, move_has_moved, move_is_stuck, move_has_no_room, move_has_ended };
	move = mover_get(vswap->mover, &w->owner);
	move->epoch = epoch_enter(&vswap->epoch, &queue_of(WORLD_MOVER)->epoch);
	move->from = slab_by_id(&vswap->slabs, 0);
	move->slot = w->moved_slot;
	move->nr = 1;
	move->item[0].page = atomic_load_explicit(&move->from->reverse[move->slot], memory_order_relaxed);
	table_look(&vswap->tables, move->item[0].page, &look);
	move->item[0].word = look.word;
	move->item[0].checksum = look.checksum;
	move->item[0].wanted = !word_is_claimed(look.word) && vswap_word_is_at(look.word, move->from, move->slot);
	if (move->item[0].wanted)
		return move_start(move) == 0;
	epoch_exit(&queue_of(WORLD_MOVER)->epoch, move->epoch);
	move->owner = NULL;
	return false;
}

static bool mover_has_work(void *arg)
{
	return queue_has_work(arg) || interleave_others_ended();
}

static void mover_turns(void)
{
	for (;;) {
		interleave_wait(mover_has_work, queue_of(WORLD_MOVER));
		if (!queue_has_work(queue_of(WORLD_MOVER)))
			return;
		turn(WORLD_MOVER);
	}
}

static void move_one(void)
{
	if (move_begin())
		while (!w->move_has_ended)
			turn_when_there_is_work(WORLD_MOVER);
	interleave_quiescent();
	mover_turns();
}

static void drain(void)
{
	const struct vswap_drain_options options = { .window_pages = 1 };

	interleave_expect(vswap_drain(w->f->vswap, &w->f->hand[0]->backend, &options) == 0);
	interleave_quiescent();
	mover_turns();
}

/* Time passes, and then nothing is left on the server. */
static void expect_drained(void)
{
	struct vswap_drain_progress progress;

	world_settle();
	vswap_drain_progress(w->f->vswap, &w->f->hand[0]->backend, &progress);
	interleave_expect(progress.state == VSWAP_DRAIN_DRAINED && progress.nr_stuck == 0);
	interleave_expect(fixture_used(w->f, 0) == 0);
}

/* ---- entries and folios ---- */

static void note_slot(uint64_t page)
{
	uint64_t word = word_of((swp_entry_t){ page });

	interleave_expect(word_tag(word) == WORD_REMOTE && swp_slot_slab(word_slot(word)) == 0);
	w->moved_slot = swp_slot_index(word_slot(word));
}

static void prepare_held_by(unsigned count)
{
	world_make(0, 0);
	world_held(0, count, OLD);
	world_folio(0, NEW);
	note_slot(w->entry[0].val);
}

static void prepare_held(void)
{
	prepare_held_by(1);
}

/* The last put gives up the cluster, and its table goes. */
static void prepare_held_listed(void)
{
	prepare_held_by(1);
	cluster_cursor_close(&w->f->vswap->clusters, &queue_of(0)->allocating[0]);
}

static void prepare_held_twice(void)
{
	prepare_held_by(2);
}

static void prepare_stored_by(unsigned count)
{
	struct test_folio *test;

	world_make(0, 0);
	test = world_stored(0, count, OLD);
	fixture_fill(test->folio.data, 1, NEW);
	folio_mark_dirty(&test->folio);
	note_slot(w->entry[0].val);
}

static void prepare_stored(void)
{
	prepare_stored_by(1);
}

static void prepare_stored_twice(void)
{
	prepare_stored_by(2);
}

static void dup_twice(void)
{
	world_dup(0, 0);
	world_dup(0, 0);
}

static void dup_put_put(void)
{
	world_dup(1, 0);
	world_put(1, 0);
	world_put(1, 0);
}

static void put_last_by_0(void)
{
	world_put(0, 0);
}

static void put_last_by_1(void)
{
	world_put(1, 0);
}

static void wait_for_io(unsigned script)
{
	while (w->nr_done[script] == 0)
		turn_when_there_is_work(script);
}

/* Puts the folio in and reads it, if the entry is still there. */
static void read_in(void)
{
	struct folio *folio = &w->folio[0]->folio;

	world_insert(0, 0, 0);
	if (w->err[0][0] == 0) {
		interleave_expect(swap_read_folio(queue_of(0), folio, world_folio_done, &w->nr_done[0]) == 0);
		interleave_quiescent();
		wait_for_io(0);
		interleave_expect(test_folio_holds(w->folio[0], OLD));
	}
	world_unlock(0, 0);
}

static void store(void)
{
	struct folio *folio = &w->folio[0]->folio;

	interleave_expect(vswap_store_folio(queue_of(0), folio, world_folio_done, &w->nr_done[0]) == 0);
	interleave_quiescent();
	wait_for_io(0);
	world_unlock(0, 0);
}

static void set_same(void)
{
	interleave_expect(vswap_set_same(queue_of(0), &w->folio[0]->folio, 0, NEW) == 0);
	interleave_quiescent();
	world_unlock(0, 0);
}

static void check_held_thrice(void)
{
	interleave_expect(w->nr_moved == 1 && count_of(0) == 3);
	interleave_expect(word_tag(word_of(w->entry[0])) == WORD_DISK && entry_holds(w->entry[0], OLD));
	world_end();
}

static void check_put(void)
{
	interleave_expect(entry_is_free(w->entry[0]));
	world_end();
}

static void check_read(void)
{
	interleave_expect(w->err[0][0] == 0 && w->nr_moved == 1 && folio_is_in(0));
	world_end();
}

static void check_read_put(void)
{
	interleave_expect(w->err[0][0] == 0 || w->err[0][0] == -ENOENT);
	check_put();
}

static void clear_cache(void)
{
	interleave_expect(folio_trylock(&w->folio[0]->folio));
	interleave_expect(put_swap_folio(queue_of(0), &w->folio[0]->folio, w->entry[0]) == 0);
	folio_unlock(queue_of(0), &w->folio[0]->folio);
}

static void check_stored(void)
{
	interleave_expect(count_of(0) == 1 && !(folio_flags(&w->folio[0]->folio) & FOLIO_DIRTY));
	clear_cache();
	interleave_expect(entry_holds(w->entry[0], NEW));
	world_end();
}

static void check_stored_and_drained(void)
{
	expect_drained();
	check_stored();
}

static void check_put_and_drained(void)
{
	expect_drained();
	check_put();
}

static void check_same(void)
{
	interleave_expect(word_tag(word_of(w->entry[0])) == WORD_SAME && word_payload(word_of(w->entry[0])) == NEW);
	world_end();
}

/* ---- the block device ---- */

/* A page that is to be compressed is random only in its first half. */
static void io_fill(struct fixture_io *fio, uint64_t value)
{
	fixture_fill(fio->io.buf, 1, value);
	if (w->packs)
		memset((char *)fio->io.buf + FSW_PAGE_SIZE / 2, 0, FSW_PAGE_SIZE / 2);
}

static bool io_holds(const struct fixture_io *fio, uint64_t value)
{
	struct fixture_io *expected = fixture_io_new(IO_READ, 0, 1, 0);

	io_fill(expected, value);
	return memcmp(expected->io.buf, fio->io.buf, FSW_PAGE_SIZE) == 0;
}

static bool io_has_zeros(const struct fixture_io *fio)
{
	uint64_t value;

	return page_is_same(fio->io.buf, &value) && value == 0;
}

static struct fixture_io *io_new(enum io_op op, uint64_t value)
{
	struct fixture_io *fio = fixture_io_new(op, 0, 1, 0);

	if (op == IO_READ || op == IO_WRITE)
		io_fill(fio, value);
	fio->status = FIXTURE_PENDING;
	return fio;
}

static void prepare_device(enum io_op first, enum io_op second)
{
	struct fixture_io *fio;

	world_make(DEVICE_PAGES, 0);
	fio = io_new(IO_WRITE, OLD);
	vswap_submit(queue_of(0), &fio->io);
	world_settle();
	interleave_expect(fio->nr_done == 1 && fio->status == 0);
	w->io[0] = io_new(first, NEW);
	w->io[1] = io_new(second, OTHER);
	note_slot(0);
}

/* The page is compressed, which has filled the pool: the mover has been asked to write it back. */
static void prepare_packed(enum io_op first, enum io_op second)
{
	struct fixture_io *fio;

	world_make(DEVICE_PAGES, COMP_BLOCK_BYTES);
	w->packs = true;
	fio = io_new(IO_WRITE, OLD);
	vswap_submit(queue_of(0), &fio->io);
	turn(0);
	interleave_expect(fio->nr_done == 1 && fio->status == 0);
	interleave_expect(word_tag(word_of((swp_entry_t){ 0 })) == WORD_COMP && queue_has_work(queue_of(WORLD_MOVER)));
	w->io[0] = io_new(first, NEW);
	w->io[1] = io_new(second, OTHER);
}

static void prepare_two_writes(void)
{
	prepare_device(IO_WRITE, IO_WRITE);
}

static void prepare_write_read(void)
{
	prepare_device(IO_WRITE, IO_READ);
}

static void prepare_write_discard(void)
{
	prepare_device(IO_WRITE, IO_DISCARD);
}

static void prepare_read_discard(void)
{
	prepare_device(IO_READ, IO_DISCARD);
}

static void prepare_packed_writes(void)
{
	prepare_packed(IO_WRITE, IO_WRITE);
}

/* The second write is one of a repeated word, which needs no slot and no I/O. */
static void prepare_packed_write_same(void)
{
	prepare_packed(IO_WRITE, IO_WRITE);
	page_fill(w->io[1]->io.buf, OTHER);
}

static void prepare_packed_write_read(void)
{
	prepare_packed(IO_WRITE, IO_READ);
}

static void prepare_packed_read_discard(void)
{
	prepare_packed(IO_READ, IO_DISCARD);
}

static void submit_and_wait(unsigned script)
{
	vswap_submit(queue_of(script), &w->io[script]->io);
	interleave_quiescent();
	while (w->io[script]->status == FIXTURE_PENDING)
		turn_when_there_is_work(script);
	interleave_expect(w->io[script]->status == 0 && w->io[script]->nr_done == 1);
}

static void submit_first(void)
{
	submit_and_wait(0);
}

static void submit_second(void)
{
	submit_and_wait(1);
}

/* What page 0 holds in the end, the bytes of a value or nothing but it; 0 for zeros. */
static uint64_t page_value(void)
{
	static const uint64_t values[] = { OLD, NEW, OTHER };
	struct fixture_io *fio = fixture_io_new(IO_READ, 0, 1, 1);
	uint64_t same = 1;
	unsigned i;

	vswap_submit(queue_of(0), &fio->io);
	world_settle();
	interleave_expect(fio->nr_done == 1 && fio->status == 0);
	for (i = 0; i < BASE_ARRAY_SIZE(values); i++)
		if (io_holds(fio, values[i]))
			return values[i];
	interleave_expect(page_is_same(fio->io.buf, &same) && (same == 0 || same == OTHER));
	return same;
}

/* Everything is discarded in the end. */
static void device_end(void)
{
	struct fixture_io *fio = fixture_io_new(IO_DISCARD, 0, 1, 0);

	interleave_expect(vswap_check(w->f->vswap) == 0);
	vswap_submit(queue_of(0), &fio->io);
	world_end();
}

static void check_two_writes(void)
{
	uint64_t value = page_value();

	interleave_expect(value == NEW || value == OTHER);
	device_end();
}

static void check_write_read(void)
{
	interleave_expect(page_value() == NEW);
	interleave_expect(io_holds(w->io[1], OLD) || io_holds(w->io[1], NEW));
	device_end();
}

static void check_write_discard(void)
{
	uint64_t value = page_value();

	interleave_expect(value == NEW || value == 0);
	device_end();
}

static void check_read_discard(void)
{
	interleave_expect(page_value() == 0);
	interleave_expect(io_holds(w->io[0], OLD) || io_has_zeros(w->io[0]));
	device_end();
}

static void check_read_alone(void)
{
	interleave_expect(io_holds(w->io[0], OLD) && page_value() == OLD);
	device_end();
}

static void check_write_alone(void)
{
	interleave_expect(page_value() == NEW);
	device_end();
}

static void check_two_writes_drained(void)
{
	expect_drained();
	check_two_writes();
}

static void check_write_read_drained(void)
{
	expect_drained();
	check_write_read();
}

static const struct interleave_scenario scenarios[] = {
	SCENARIO(move_dup, prepare_held, check_held_thrice, dup_twice, move_one),
	SCENARIO(move_put, prepare_held, check_put, put_last_by_0, move_one),
	SCENARIO(move_put_listed, prepare_held_listed, check_put, put_last_by_0, move_one),
	SCENARIO(move_read, prepare_held, check_read, read_in, move_one),
	SCENARIO(move_store, prepare_stored, check_stored, store, move_one),
	SCENARIO(move_same, prepare_stored, check_same, set_same, move_one),
	SCENARIO(move_dup_put, prepare_held_twice, check_put, put_last_by_0, dup_put_put, move_one),
	SCENARIO(move_read_put, prepare_held, check_read_put, read_in, put_last_by_1, move_one),
	SCENARIO(move_store_dup, prepare_stored_twice, check_stored, store, dup_put_put, move_one),
	SCENARIO(drain_put, prepare_held, check_put_and_drained, put_last_by_0, drain),
	SCENARIO(drain_store, prepare_stored, check_stored_and_drained, store, drain),
	SCENARIO(move_write_write, prepare_two_writes, check_two_writes,
		submit_first, submit_second, move_one),
	SCENARIO(move_write_read, prepare_write_read, check_write_read,
		submit_first, submit_second, move_one),
	SCENARIO_BOUNDED(move_write_discard, BOUND, prepare_write_discard, check_write_discard,
		submit_first, submit_second, move_one),
	SCENARIO(move_read_discard, prepare_read_discard, check_read_discard,
		submit_first, submit_second, move_one),
	SCENARIO(writeback_read, prepare_packed_read_discard, check_read_alone, submit_first, mover_turns),
	SCENARIO(writeback_write, prepare_packed_writes, check_write_alone, submit_first, mover_turns),
	SCENARIO_BOUNDED(writeback_write_write, BOUND, prepare_packed_writes, check_two_writes,
		submit_first, submit_second, mover_turns),
	SCENARIO_BOUNDED(writeback_write_same, BOUND, prepare_packed_write_same, check_two_writes,
		submit_first, submit_second, mover_turns),
	SCENARIO(writeback_write_read, prepare_packed_write_read, check_write_read,
		submit_first, submit_second, mover_turns),
	SCENARIO(writeback_read_discard, prepare_packed_read_discard, check_read_discard,
		submit_first, submit_second, mover_turns),
	SCENARIO_BOUNDED(drain_write_write, BOUND, prepare_two_writes, check_two_writes_drained,
		submit_first, submit_second, drain),
	SCENARIO(drain_write_read, prepare_write_read, check_write_read_drained,
		submit_first, submit_second, drain),
};

int main(void)
{
	return world_run("test_move_interleave", scenarios, BASE_ARRAY_SIZE(scenarios));
}

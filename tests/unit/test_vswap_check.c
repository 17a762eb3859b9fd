/* deps: client_vswap */
/* The check of the books: each kind of damage to what is derived is found, on a quiet device and on one in use. */
#include "tests/unit/vswap_fixture.h"

#define NR_PAGES 20000u
#define SLOTS 1024u
#define SERVER 0

/* Pages 0 to 9 are stored, in a row of slots. */
static struct fixture *device(struct slab **ret_slab, uint32_t *ret_slot)
{
	struct fixture *f = fixture_create(NR_PAGES, 0);
	uint64_t word;

	fixture_add_slab(f, SERVER, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 10, 1), 0);
	word = fixture_word(f, 0);
	sys_rcu_read_lock();
	*ret_slab = slab_by_id(&f->vswap->slabs, swp_slot_slab(word_slot(word)));
	sys_rcu_read_unlock();
	*ret_slot = swp_slot_index(word_slot(word));
	return f;
}

static uint64_t live_differences(struct fixture *f)
{
	static struct vswap_check_result result;

	assert_int_equal(vswap_check_live(f->vswap, &result), 0);
	assert_int_equal(result.nr_unsettled, 0);
	assert_true(result.nr_differences == 0 || result.difference[0][0] != '\0');
	return result.nr_differences;
}

/* So many differences in either way. */
static void assert_found(struct fixture *f, uint64_t nr)
{
	assert_int_equal(vswap_check(f->vswap), nr);
	assert_int_equal(live_differences(f), nr);
}

static void test_nothing_is_found_where_nothing_is(void **state)
{
	static struct vswap_check_result result;
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);

	(void)state;
	assert_found(f, 0);
	assert_int_equal(vswap_check_live(f->vswap, &result), 0);
	assert_int_equal(result.nr_entries, 10);
	assert_int_equal(result.nr_slots, 10);
	fixture_free(f);
}

static void test_a_slot_that_is_named_and_free(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);

	(void)state;
	atomic_fetch_and(&slab->used[slot / 64], ~(1ull << slot % 64));
	assert_found(f, 2); /* and the count of used slots is one too many */
	atomic_fetch_or(&slab->used[slot / 64], 1ull << slot % 64);
	fixture_free(f);
}

static void test_a_slot_that_nobody_names(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);

	(void)state;
	atomic_fetch_or(&slab->used[(slot + 700) / 64 % 16], 1ull << (slot + 700) % 64);
	atomic_fetch_add(&slab->nr_used, 1);
	assert_found(f, 1);
	atomic_fetch_and(&slab->used[(slot + 700) / 64 % 16], ~(1ull << (slot + 700) % 64));
	atomic_fetch_sub(&slab->nr_used, 1);
	fixture_free(f);
}

static void test_a_wrong_reverse_map(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);

	(void)state;
	atomic_store(&slab->reverse[slot], 5); /* the entry's view, and the slot's */
	assert_found(f, 2);
	atomic_store(&slab->reverse[slot], UINT32_MAX);
	assert_found(f, 2);
	atomic_store(&slab->reverse[slot], 0);
	fixture_free(f);
}

/* Two entries name one slot: its reverse map can be right for one of them only, and the other's own slot is nobody's. */
static void test_two_entries_with_one_slot(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);
	struct table *table;
	uint64_t word = fixture_word(f, 1);

	(void)state;
	sys_rcu_read_lock();
	table = table_lookup(&f->vswap->tables, 0);
	sys_rcu_read_unlock();
	atomic_store(table_word(table, 1), word_next(word, WORD_REMOTE, word_payload(fixture_word(f, 0))));
	assert_found(f, 2);
	atomic_store(table_word(table, 1), word);
	fixture_free(f);
}

static void test_wrong_counts(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);
	struct table *table;

	(void)state;
	atomic_fetch_add(&slab->nr_used, 1);
	assert_found(f, 1);
	atomic_fetch_sub(&slab->nr_used, 1);
	sys_rcu_read_lock();
	table = table_lookup(&f->vswap->tables, 0);
	sys_rcu_read_unlock();
	atomic_fetch_sub(&table->live, 1);
	assert_found(f, 1);
	atomic_fetch_add(&table->live, 1);
	atomic_fetch_add(&f->vswap->queue[0].counters.nr_tag[WORD_REMOTE], 3);
	assert_found(f, 1);
	atomic_fetch_sub(&f->vswap->queue[0].counters.nr_tag[WORD_REMOTE], 3);
	fixture_free(f);
}

/* A write and a move that are under way are nothing wrong. */
static void test_work_under_way_is_no_difference(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);
	struct fixture_io *in_place = fixture_io_new(IO_WRITE, 3, 2, 7), *new_slot = fixture_io_new(IO_WRITE, 600, 1, 8);

	(void)state;
	f->hand[SERVER]->hold = true;
	fixture_submit(f, 0, in_place);
	fixture_submit(f, 0, new_slot);
	fixture_turns(f, 3);
	assert_int_equal(live_differences(f), 0);
	f->hand[SERVER]->hold = false;
	assert_int_equal(fixture_wait(f, 0, new_slot), 0);
	assert_int_equal(fixture_wait(f, 0, in_place), 0);
	assert_found(f, 0);
	fixture_io_free(in_place);
	fixture_io_free(new_slot);
	fixture_free(f);
}

/* ---- the rebuild ---- */

static void rebuild(struct fixture *f, uint64_t nr_poisoned)
{
	uint64_t nr = UINT64_MAX;

	assert_int_equal(vswap_rebuild(f->vswap, &nr), 0);
	assert_int_equal(nr, nr_poisoned);
	assert_found(f, 0);
}

static void scribble(void *bytes, size_t len, uint64_t seed)
{
	struct rand_state rand = { .s = seed };
	size_t i;

	for (i = 0; i < len; i++)
		((uint8_t *)bytes)[i] = (uint8_t)rand_next(&rand);
}

/* Of all kinds of entries, on two servers; then nothing derived is left as it was. */
static void test_everything_comes_back_from_the_words(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);
	struct vswap_stats before, after;
	struct table *table;

	(void)state;
	fixture_add_slab(f, 1, SLOTS);
	assert_int_equal(fixture_do(f, IO_WRITE, 500, 40, 2), 0); /* over the edge of a table */
	atomic_store(&f->hand[SERVER]->backend.state, BACKEND_DOWN);
	assert_int_equal(fixture_do(f, IO_WRITE, 1030, 5, 3), 0);
	atomic_store(&f->hand[SERVER]->backend.state, BACKEND_UP);
	assert_int_equal(fixture_do(f, IO_WRITE_ZEROES, 2, 1, 0), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 505, 3, 0), 0);
	fixture_turns(f, 8);
	vswap_stats(f->vswap, &before);
	scribble((void *)slab->used, SLOTS / 8, 1);
	scribble((void *)slab->retired[1], SLOTS / 8, 2);
	scribble((void *)slab->reverse, SLOTS * sizeof(uint32_t), 3);
	memset((void *)slab->owned, 1, slab->nr_clusters);
	atomic_store(&slab->nr_used, 12345);
	sys_rcu_read_lock();
	table = table_lookup(&f->vswap->tables, 500);
	sys_rcu_read_unlock();
	atomic_store(&table->live, 3);
	atomic_fetch_add(&f->vswap->queue[1].counters.nr_tag[WORD_DISK], 77);
	rebuild(f, 0);
	vswap_stats(f->vswap, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(fixture_read(f, 1030, 5, 3), 0);
	/* And it goes on: what is written now takes no slot that is in use. */
	assert_int_equal(fixture_do(f, IO_WRITE, 3000, 200, 4), 0);
	assert_int_equal(fixture_read(f, 3000, 200, 4), 0);
	assert_int_equal(fixture_read(f, 1030, 5, 3), 0);
	fixture_free(f);
}

static void test_an_entry_without_a_slot_is_lost(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);
	struct table *table;
	uint64_t nr;

	(void)state;
	sys_rcu_read_lock();
	table = table_lookup(&f->vswap->tables, 0);
	sys_rcu_read_unlock();
	/* The slot of another entry, a slot behind the slab, a slab that is not there. */
	atomic_store(table_word(table, 1), word_next(0, WORD_REMOTE, word_payload(fixture_word(f, 0))));
	atomic_store(table_word(table, 2), word_next(0, WORD_REMOTE, swp_slot(slab->id, SLOTS).val));
	atomic_store(table_word(table, 3), word_next(0, WORD_REMOTE, swp_slot(63, 0).val));
	rebuild(f, 3);
	for (nr = 1; nr <= 3; nr++)
		assert_int_equal(fixture_read(f, nr, 1, 0), -EIO);
	assert_int_equal(fixture_do(f, IO_WRITE, 1, 3, 9), 0);
	assert_int_equal(fixture_read(f, 1, 3, 9), 0);
	fixture_free(f);
}

/* Its bytes may still arrive: only the quarantine knows. */
static void test_not_while_a_write_is_unsettled(void **state)
{
	struct slab *slab;
	uint32_t slot;
	struct fixture *f = device(&slab, &slot);
	uint64_t nr;

	(void)state;
	f->hand[SERVER]->nr_fail = 1;
	assert_int_equal(fixture_do(f, IO_WRITE, 600, 1, 2), 0);
	assert_int_equal(vswap_rebuild(f->vswap, &nr), -EBUSY);
	atomic_fetch_add(&f->hand[SERVER]->backend.fence, 1);
	fixture_turns(f, 10);
	rebuild(f, 0);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_found_where_nothing_is),
		cmocka_unit_test(test_a_slot_that_is_named_and_free),
		cmocka_unit_test(test_a_slot_that_nobody_names),
		cmocka_unit_test(test_a_wrong_reverse_map),
		cmocka_unit_test(test_two_entries_with_one_slot),
		cmocka_unit_test(test_wrong_counts),
		cmocka_unit_test(test_work_under_way_is_no_difference),
		cmocka_unit_test(test_everything_comes_back_from_the_words),
		cmocka_unit_test(test_an_entry_without_a_slot_is_lost),
		cmocka_unit_test(test_not_while_a_write_is_unsettled),
	};

	log_init("test_vswap_check", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

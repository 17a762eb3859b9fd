/* deps: client_vswap */
/* The cluster tables: when they come, when they go, and who waits on them. */
#include "tests/unit/vswap_fixture.h"

#define DEVICE_PAGES (1ull << 32)

struct waiting {
	struct io_waiter waiter;
	unsigned nr_woken;
};

static void woken(struct sys_message *message)
{
	BASE_CONTAINER_OF(message, struct waiting, waiter.wake)->nr_woken++;
}

static struct sys_reactor *reactor_new(void)
{
	struct sys_reactor_options options = { .name = "test", .manual = true, .cpu = -1 };
	struct sys_reactor *reactor;

	assert_int_equal(sys_reactor_create(&options, &reactor), 0);
	return reactor;
}

static void map_init(struct table_map *map, uint32_t reserve)
{
	assert_int_equal(table_map_init(map, DEVICE_PAGES, reserve, NULL), 0);
	sys_rcu_read_lock();
}

static void map_done(struct table_map *map)
{
	sys_rcu_read_unlock();
	table_map_done(map);
}

/* Ends the read-side section, waits for what was freed, and begins another. */
static void map_settle(void)
{
	sys_rcu_read_unlock();
	sys_rcu_barrier();
	sys_rcu_read_lock();
}

static void set_word(struct table *table, uint64_t page, enum word_tag tag)
{
	bool none = word_tag(atomic_load(table_word(table, page))) == WORD_NONE;

	if (none && tag != WORD_NONE)
		table_book(table, 1);
	atomic_store(table_word(table, page), word_next(atomic_load(table_word(table, page)), tag, 0));
	if (!none && tag == WORD_NONE)
		table_book(table, -1);
}

static void test_root_of_16_tib_is_small(void **state)
{
	struct table_map map;

	(void)state;
	map_init(&map, 1);
	assert_int_equal(map.nr_nodes, 16384);
	assert_true(map.root_region.len_bytes <= 128 << 10);
	assert_null(table_lookup(&map, 0));
	assert_null(table_lookup(&map, DEVICE_PAGES - 1));
	assert_null(table_pin(&map, DEVICE_PAGES - 1, false));
	assert_int_equal(atomic_load(&map.nr_tables), 0);
	map_done(&map);
}

static void test_a_table_lives_while_pinned_or_used(void **state)
{
	struct table_map map;
	struct table *table, *again;

	(void)state;
	map_init(&map, 8);
	table = table_pin(&map, 5 * TABLE_ENTRIES + 7, true);
	assert_non_null(table);
	assert_ptr_equal(table_lookup(&map, 5 * TABLE_ENTRIES), table);
	assert_null(table_lookup(&map, 6 * TABLE_ENTRIES));
	again = table_pin(&map, 5 * TABLE_ENTRIES, true);
	assert_ptr_equal(again, table);
	table_unpin(again, 0);
	assert_ptr_equal(table_lookup(&map, 5 * TABLE_ENTRIES), table); /* the other pin */
	set_word(table, 5 * TABLE_ENTRIES + 7, WORD_SAME);
	table_unpin(table, 0);
	assert_ptr_equal(table_lookup(&map, 5 * TABLE_ENTRIES), table); /* the word */
	table = table_pin(&map, 5 * TABLE_ENTRIES, false);
	atomic_store(table_word(table, 5 * TABLE_ENTRIES + 7), 0);
	table_unpin(table, -1);
	assert_null(table_lookup(&map, 5 * TABLE_ENTRIES));
	map_done(&map);
}

/* Who finds a table that was unpublished puts a new one in its place; the old one is not used again before a grace period. */
static void test_a_dead_table_is_replaced(void **state)
{
	struct table_map map;
	struct table *dead, *fresh;
	uint32_t nr_free;
	unsigned i;

	(void)state;
	map_init(&map, 64);
	dead = table_pin(&map, 9, true);
	table_unpin(dead, 0);
	nr_free = atomic_load(&map.nr_free);
	/* As if the one who frees it had not come to take it out of the directory yet. */
	atomic_store(&atomic_load(&map.root[0])->table[0], dead);
	assert_null(table_pin(&map, 9, false));
	fresh = table_pin(&map, 9, true);
	assert_non_null(fresh);
	assert_ptr_not_equal(fresh, dead);
	assert_ptr_equal(table_lookup(&map, 9), fresh);
	for (i = 0; i < TABLE_ENTRIES; i++)
		assert_int_equal(atomic_load(&fresh->word[i]), 0);
	assert_int_equal(atomic_load(&map.nr_free), nr_free - 1);
	table_unpin(fresh, 0);
	map_settle();
	assert_int_equal(atomic_load(&map.nr_free), nr_free + 1);
	map_done(&map);
}

/* A table that has died is not found by who remembers it, even while its memory and its words are as they were. */
static void test_a_dead_table_is_not_remembered(void **state)
{
	struct table_recent recent = { 0 };
	struct table_map map;
	struct table *dead, *fresh;

	(void)state;
	map_init(&map, 64);
	assert_null(table_find(&map, &recent, 9));
	dead = table_pin(&map, 9, true);
	assert_ptr_equal(table_find(&map, &recent, 9), dead);
	assert_ptr_equal(table_find(&map, &recent, 10), dead);
	assert_null(table_find(&map, &recent, TABLE_ENTRIES + 9));
	table_unpin(dead, 0);
	assert_null(table_find(&map, &recent, 9));
	/* One that is found dead, since it has not been taken out of the directory yet, is found until it has a successor. */
	atomic_store(&atomic_load(&map.root[0])->table[0], dead);
	assert_ptr_equal(table_find(&map, &recent, 9), dead);
	fresh = table_pin(&map, 9, true);
	assert_ptr_not_equal(fresh, dead);
	assert_ptr_equal(table_find(&map, &recent, 9), fresh);
	table_unpin(fresh, 0);
	map_done(&map);
}

/* The memory of a table that is remembered is that of another cluster by now, or of the same one in another life. */
static void test_memory_used_again_is_not_remembered(void **state)
{
	struct table_recent recent = { 0 };
	struct table_map map;
	struct table *table, *other, *again;

	(void)state;
	map_init(&map, 1);
	table = table_pin(&map, 9, true);
	assert_ptr_equal(table_find(&map, &recent, 9), table);
	table_unpin(table, 0);
	map_settle();
	other = table_pin(&map, TABLE_ENTRIES + 9, true);
	assert_ptr_equal(other, table); /* the reserve gives what came last first */
	assert_null(table_find(&map, &recent, 9));
	table_unpin(other, 0);
	map_settle();

	table = table_pin(&map, 9, true);
	assert_ptr_equal(table_find(&map, &recent, 9), table);
	table_unpin(table, 0);
	map_settle();
	again = table_pin(&map, 9, true);
	assert_ptr_equal(again, table);
	/* As if another thread had been first to publish one. */
	atomic_store(&atomic_load(&map.root[0])->table[0], NULL);
	assert_null(table_find(&map, &recent, 9));
	atomic_store(&atomic_load(&map.root[0])->table[0], again);
	table_unpin(again, 0);
	map_done(&map);
}

static void test_memory_used_again_is_clean(void **state)
{
	struct table_map map;
	struct table *table;
	unsigned n, i;

	(void)state;
	map_init(&map, 1);
	for (n = 0; n < 200; n++) {
		uint64_t page = (uint64_t)n * TABLE_ENTRIES;

		table = table_pin(&map, page, true);
		assert_non_null(table);
		for (i = 0; i < TABLE_ENTRIES; i++) {
			assert_int_equal(atomic_load(&table->word[i]), 0);
			assert_int_equal(atomic_load(&table->checksum[i]), 0);
			set_word(table, page + i, WORD_SAME);
			atomic_store(&table->checksum[i], 7);
		}
		for (i = 0; i < TABLE_ENTRIES; i++)
			set_word(table, page + i, WORD_NONE);
		table_unpin(table, 0);
		if (n % 8 == 7)
			map_settle();
	}
	map_done(&map);
}

static void count_low(void *arg)
{
	++*(unsigned *)arg;
}

static void test_an_empty_reserve_says_so(void **state)
{
	struct table_map map;
	uint32_t nr = 0, nr_free;
	unsigned nr_low = 0;

	(void)state;
	map_init(&map, 2);
	nr_free = atomic_load(&map.nr_free);
	map.low = count_low;
	map.low_arg = &nr_low;
	while (table_pin(&map, (uint64_t)nr * TABLE_ENTRIES, true))
		nr++;
	assert_int_equal(nr + 1, nr_free); /* and one node of the directory */
	assert_int_equal(atomic_load(&map.nr_free), 0);
	assert_int_equal(nr_low, 1); /* on the way, once */
	assert_false(table_is_coming(&map));
	assert_null(table_pin(&map, DEVICE_PAGES - 1, true)); /* not even the node */
	assert_non_null(table_pin(&map, 0, true)); /* what is there can still be pinned */
	assert_int_equal(table_refill(&map), 0);
	assert_true(table_is_coming(&map));
	assert_non_null(table_pin(&map, (uint64_t)nr * TABLE_ENTRIES, true));
	map_done(&map);
}

static void test_skip_empty_over_nodes(void **state)
{
	static const uint64_t used[] = { 0, 3 * TABLE_ENTRIES, 1ull << 18, (1ull << 31) + 5, (1ull << 32) - 1 };
	struct table_map map;
	uint64_t page = 0;
	unsigned i;

	(void)state;
	map_init(&map, 32);
	assert_true(table_skip_empty(&map, 0) >= DEVICE_PAGES);
	for (i = 0; i < 5; i++)
		assert_non_null(table_pin(&map, used[i], true));
	for (i = 0; i < 5; i++) {
		page = table_skip_empty(&map, page);
		assert_int_equal(page, used[i] & ~(uint64_t)(TABLE_ENTRIES - 1));
		page += TABLE_ENTRIES;
	}
	assert_true(table_skip_empty(&map, page) >= DEVICE_PAGES);
	assert_int_equal(table_skip_empty(&map, 5), 5); /* stays where it is when there is a table */
	assert_int_equal(table_skip_empty(&map, (1ull << 31) - 1), 1ull << 31);
	map_done(&map);
}

static void wait_on(struct table *table, uint64_t page, struct waiting *waiting, struct sys_reactor *reactor, bool waits)
{
	waiting->nr_woken = 0;
	waiting->waiter.reactor = reactor;
	waiting->waiter.wake.run = woken;
	assert_int_equal(table_wait(table, page, &waiting->waiter), waits);
}

static void test_waiters_are_woken_once(void **state)
{
	struct sys_reactor *reactor = reactor_new();
	struct waiting on_one[2], on_two;
	struct table_map map;
	struct table *table;
	unsigned i;

	(void)state;
	map_init(&map, 4);
	table = table_pin(&map, 0, true);
	wait_on(table, 1, &on_one[0], reactor, false); /* nobody has it: look again */
	assert_int_equal(atomic_load(&table->nr_waiters), 0);
	set_word(table, 1, WORD_REMOTE);
	set_word(table, 2, WORD_REMOTE);
	atomic_fetch_or(table_word(table, 1), WORD_CLAIMED);
	atomic_fetch_or(table_word(table, 2), WORD_CLAIMED);
	wait_on(table, 1, &on_one[0], reactor, true);
	wait_on(table, 2, &on_two, reactor, true);
	wait_on(table, 1, &on_one[1], reactor, true);
	sys_rcu_read_unlock();
	sys_reactor_turn(reactor);
	sys_rcu_read_lock();
	assert_int_equal(on_one[0].nr_woken + on_one[1].nr_woken + on_two.nr_woken, 0);
	table_publish(table, 1, atomic_load(table_word(table, 1)), word_release(atomic_load(table_word(table, 1))));
	sys_rcu_read_unlock();
	for (i = 0; i < 3; i++)
		sys_reactor_turn(reactor);
	sys_rcu_read_lock();
	assert_int_equal(on_one[0].nr_woken, 1);
	assert_int_equal(on_one[1].nr_woken, 1);
	assert_int_equal(on_two.nr_woken, 0);
	assert_int_equal(atomic_load(&table->nr_waiters), 1);
	table_publish(table, 2, atomic_load(table_word(table, 2)), word_release(atomic_load(table_word(table, 2))));
	sys_rcu_read_unlock();
	sys_reactor_turn(reactor);
	sys_rcu_read_lock();
	assert_int_equal(on_two.nr_woken, 1);
	assert_int_equal(atomic_load(&table->nr_waiters), 0);
	map_done(&map);
	sys_reactor_free(reactor);
}

/* An entry that was duplicated since is still swung, and stays duplicated; one that is backed by something else is not. */
static void test_swing_asks_for_the_backing_alone(void **state)
{
	uint64_t seen, fresh, moved;
	struct table_map map;
	struct table *table;

	(void)state;
	map_init(&map, 4);
	table = table_pin(&map, 7, true);
	set_word(table, 7, WORD_REMOTE);
	seen = atomic_load(table_word(table, 7));
	fresh = word_next(seen, WORD_DISK, 5);
	atomic_store(table_word(table, 7), (seen & ~WORD_HOLDERS) | WORD_CACHED | 3 * WORD_COUNT_ONE);
	assert_true(table_swing(table, 7, seen, fresh));
	moved = atomic_load(table_word(table, 7));
	assert_true(word_is_same_backing(moved, fresh));
	assert_int_equal(word_count(moved), 3);
	assert_true(word_is_cached(moved));
	assert_false(table_swing(table, 7, seen, fresh));
	assert_int_equal(atomic_load(table_word(table, 7)), moved);
	map_done(&map);
}

static void test_look_pairs_word_and_checksum(void **state)
{
	struct table_map map;
	struct table_look look;
	struct table *table;

	(void)state;
	map_init(&map, 4);
	table_look(&map, 3, &look);
	assert_null(look.table);
	assert_int_equal(look.word, 0);
	table = table_pin(&map, 3, true);
	set_word(table, 3, WORD_DISK);
	atomic_store(table_checksum(table, 3), 0xabcd);
	table_look(&map, 3, &look);
	assert_ptr_equal(look.table, table);
	assert_int_equal(look.word, atomic_load(table_word(table, 3)));
	assert_int_equal(look.checksum, 0xabcd);
	map_done(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_root_of_16_tib_is_small),
		cmocka_unit_test(test_a_table_lives_while_pinned_or_used),
		cmocka_unit_test(test_a_dead_table_is_replaced),
		cmocka_unit_test(test_a_dead_table_is_not_remembered),
		cmocka_unit_test(test_memory_used_again_is_not_remembered),
		cmocka_unit_test(test_memory_used_again_is_clean),
		cmocka_unit_test(test_an_empty_reserve_says_so),
		cmocka_unit_test(test_skip_empty_over_nodes),
		cmocka_unit_test(test_waiters_are_woken_once),
		cmocka_unit_test(test_swing_asks_for_the_backing_alone),
		cmocka_unit_test(test_look_pairs_word_and_checksum),
	};

	log_init("test_vswap_table", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

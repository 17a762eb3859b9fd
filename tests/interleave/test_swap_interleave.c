/* deps: client_vswap_interleaved tests_interleave */
/*
 * Two and three threads on the same few entries and folios, in every order. What each scenario allows is in its check; what is
 * always wanted is in world_end.
 */
#include "tests/interleave/swap_world.h"

/* ---- insertion: all or nothing, and exactly one for each entry ---- */

static void prepare_two_entries(void)
{
	world_make(0, 0);
	world_held(1, 1, 7);
	world_folio(1, 1);
	world_folio(0, 2);
	world_folio(0, 3);
}

static void insert_whole(void)
{
	world_insert(0, 0, 0);
}

static void insert_second(void)
{
	world_insert(1, 1, 1);
}

static void insert_first(void)
{
	world_insert(2, 0, 2);
}

static void check_overlaps(void)
{
	bool whole = w->err[0][0] == 0;
	unsigned i;

	interleave_expect(whole || w->err[0][0] == -EEXIST);
	for (i = 0; i < 3; i++) {
		if (i > 0)
			interleave_expect(w->err[i][0] == (whole ? -EEXIST : 0));
		interleave_expect(folio_is_in(i) == (w->err[i][0] == 0));
		folio_unlock(queue_of(0), &w->folio[i]->folio);
	}
	world_end();
}

/* ---- insertion and the last put: freed, or in the cache, never both ---- */

static void prepare_insert_put(void)
{
	world_make(0, 0);
	world_held(0, 1, 7);
	world_folio(0, 1);
	world_folio(0, 2);
}

static void insert_and_unlock(void)
{
	world_insert(0, 0, 0);
	world_unlock(0, 0);
}

static void insert_dirty_and_unlock(void)
{
	world_insert(0, 0, 0);
	if (w->err[0][0] == 0)
		folio_mark_dirty(&w->folio[0]->folio);
	world_unlock(0, 0);
}

static void put_last(void)
{
	world_put(1, 0);
}

static void insert_other_and_unlock(void)
{
	world_insert(2, 0, 1);
	world_unlock(2, 1);
}

/* Whoever was in the cache was clean, and so is not there any more. */
static void check_insert_put(void)
{
	int one = w->err[0][0], other = w->err[2][0];

	interleave_expect(one == 0 || one == -ENOENT || (one == -EEXIST && other == 0));
	interleave_expect(entry_is_free(w->entry[0]) && !folio_is_in(0) && !folio_is_in(1));
	world_end();
}

static void check_insert_put_insert(void)
{
	int one = w->err[0][0], other = w->err[2][0];

	interleave_expect(one != 0 || other == -EEXIST || other == -ENOENT);
	interleave_expect(other == 0 || other == -ENOENT || (other == -EEXIST && one == 0));
	check_insert_put();
}

static void check_insert_dirty_put(void)
{
	bool in = w->err[0][0] == 0;

	interleave_expect(in || w->err[0][0] == -ENOENT);
	interleave_expect(folio_is_in(0) == in && entry_is_free(w->entry[0]) == !in);
	interleave_expect(vswap_swapcache_only(queue_of(0), w->entry[0], 2) == (in ? 1u : 0u));
	folio_unlock(queue_of(0), &w->folio[1]->folio);
	world_end();
}

/* ---- counts ---- */

static void prepare_three_holders(void)
{
	world_make(0, 0);
	world_held(0, 3, 7);
}

static void dup_put_put(void)
{
	world_dup(0, 0);
	world_put(0, 0);
	world_put(0, 0);
}

static void put_by_1(void)
{
	world_put(1, 0);
}

static void put_by_2(void)
{
	world_put(2, 0);
}

static void check_freed(void)
{
	interleave_expect(entry_is_free(w->entry[0]));
	world_end();
}

/* Ranges that overlap, of which one fails. */
static void prepare_ranges(void)
{
	world_make(0, 0);
	world_held(1, 1, 7);
	interleave_expect(swap_duplicate(queue_of(0), w->entry[1]) == 0);
}

static void dup_range(void)
{
	world_call(0, 0, swap_duplicate_nr(queue_of(0), w->entry[0], 2));
}

static void dup_range_in_vain(void)
{
	world_call(1, 0, swap_duplicate_nr(queue_of(1), w->entry[1], 2));
}

static void put_second(void)
{
	world_put(2, 1);
}

static void check_ranges(void)
{
	interleave_expect(w->err[0][0] == 0 && w->err[1][0] == -ENOENT);
	interleave_expect(count_of(0) == 2 && count_of(1) == 2);
	world_end();
}

/* Counts that are too large for the word. */
static void hold_so_often(unsigned entry, uint32_t nr)
{
	while (count_of(entry) < nr)
		interleave_expect(swap_duplicate(queue_of(0), w->entry[entry]) == 0);
	while (count_of(entry) > nr)
		interleave_expect(swap_free_nr(queue_of(0), w->entry[entry], 1) == 0);
}

static void prepare_full_word(void)
{
	world_make(0, 0);
	world_held(0, 1, 7);
	hold_so_often(0, WORD_COUNT_MAX);
}

/* The next put takes back what is kept at the side. */
static void prepare_low_word(void)
{
	world_make(0, 0);
	world_held(0, 1, 7);
	hold_so_often(0, WORD_COUNT_MAX + 1);
	hold_so_often(0, (WORD_COUNT_MAX + 1) / 4 * 3);
	interleave_expect(word_count(word_of(w->entry[0])) == (WORD_COUNT_MAX + 1) / 2);
}

static void dup_by_0(void)
{
	world_dup(0, 0);
}

static void dup_by_1(void)
{
	world_dup(1, 0);
}

static void dup_by_2(void)
{
	world_dup(2, 0);
}

static void put_and_count(void)
{
	world_put(1, 0);
	w->err[1][0] = (int)swp_swapcount(queue_of(1), w->entry[0]);
	interleave_quiescent();
}

static void check_full_word(void)
{
	int seen = w->err[1][0] - (int)WORD_COUNT_MAX;

	interleave_expect(seen >= -1 && seen <= 1);
	interleave_expect(count_of(0) == WORD_COUNT_MAX + 1);
	world_end();
}

static void check_low_word(void)
{
	interleave_expect(count_of(0) == (WORD_COUNT_MAX + 1) / 4 * 3 - 1);
	world_end();
}

static void prepare_ranges_full_word(void)
{
	world_make(0, 0);
	world_held(1, 1, 7);
	hold_so_often(1, WORD_COUNT_MAX);
}

static void check_ranges_full_word(void)
{
	interleave_expect(w->err[0][0] == 0 && w->err[1][0] == -ENOENT);
	interleave_expect(count_of(0) == 2 && count_of(1) == WORD_COUNT_MAX);
	world_end();
}

/* ---- the last holders of a folio that is in the cache ---- */

static void prepare_locked(void)
{
	world_make(0, 0);
	world_stored(0, 1, 7);
}

static void prepare_unlocked(void)
{
	world_make(0, 0);
	world_stored(1, 1, 7);
	folio_unlock(queue_of(0), &w->folio[0]->folio);
}

static void unlock(void)
{
	world_unlock(0, 0);
}

static void put_first_by_0(void)
{
	world_put(0, 0);
}

static void put_second_by_1(void)
{
	world_put(1, 1);
}

/* The folio that is found stays while it is referenced, and while it is locked and in the cache it is for that entry. */
static void look_up(unsigned script)
{
	struct folio *folio = swap_cache_get_folio(queue_of(script), w->entry[0]);

	if (folio) {
		interleave_expect(folio == &w->folio[0]->folio && !w->folio[0]->nr_released);
		if (folio_trylock(folio)) {
			interleave_expect(!(folio_flags(folio) & FOLIO_SWAPCACHE) || folio->swap.val == w->entry[0].val);
			folio_unlock(queue_of(script), folio);
		}
		interleave_quiescent(); /* the reference is enough */
		interleave_expect(!w->folio[0]->nr_released);
		folio_put(folio);
	}
	interleave_quiescent();
}

static void look_up_by_1(void)
{
	look_up(1);
}

static void look_up_by_2(void)
{
	look_up(2);
}

static void check_dropped(void)
{
	unsigned i;

	for (i = 0; i < w->nr_entries; i++)
		interleave_expect(entry_is_free(w->entry[i]));
	interleave_expect(!folio_is_in(0) && folio_trylock(&w->folio[0]->folio));
	folio_unlock(queue_of(0), &w->folio[0]->folio);
	world_end();
}

/* Stored while its last holder goes: clean when it is unlocked, so nothing of it stays. */
static void prepare_dirty(void)
{
	world_make(0, 0);
	world_cached(0, 1, 7);
}

static void store_and_unlock(void)
{
	interleave_expect(vswap_store_folio(queue_of(0), &w->folio[0]->folio, world_folio_done, &w->nr_done[0]) == 0);
	interleave_quiescent();
	while (!w->nr_done[0])
		turn_when_there_is_work(0);
	world_unlock(0, 0);
}

/* Its swap space is dropped, if its last holder has gone; else it is in the cache alone in the end, since it is dirty. */
static void free_swap_and_unlock(void)
{
	w->err[0][0] = folio_free_swap(queue_of(0), &w->folio[0]->folio);
	world_unlock(0, 0);
}

static void check_free_swap(void)
{
	bool freed = w->err[0][0] != 0;

	interleave_expect(folio_is_in(0) == !freed && entry_is_free(w->entry[0]) == freed);
	interleave_expect(folio_flags(&w->folio[0]->folio) & FOLIO_DIRTY);
	world_end();
}

/* The owner of a folio adds a holder and takes it off again, while another holder goes. */
static void dup_and_put_folio(void)
{
	interleave_expect(folio_dup_swap(queue_of(0), &w->folio[0]->folio, FOLIO_ALL) == 0);
	interleave_quiescent();
	interleave_expect(folio_put_swap(queue_of(0), &w->folio[0]->folio, 0) == 0);
	world_unlock(0, 0);
}

/* Whoever was the last: what folio_put_swap takes off stays in the cache. */
static void check_put_swap(void)
{
	interleave_expect(count_of(0) == 0 && entry_is_free(w->entry[0]) == !folio_is_in(0));
	world_end();
}

/*
 * A folio leaves the cache and comes into it again, for an entry that nobody holds yet, while the last holder of the entry that
 * it was for goes. That holder may have found the folio before it left, and must not take the other entry for its own.
 */
static void allocate_again(void)
{
	struct folio *folio = &w->folio[0]->folio;
	swp_entry_t entry;

	interleave_expect(put_swap_folio(queue_of(0), folio, w->entry[0]) == 0);
	interleave_quiescent();
	interleave_expect(folio_alloc_swap(queue_of(0), folio, 0, &entry) == 0);
	interleave_quiescent();
	store_and_unlock();
}

static void check_allocated_again(void)
{
	interleave_expect(folio_is_in(0));
	interleave_expect(vswap_swapcache_only(queue_of(0), w->folio[0]->folio.swap, 1) == 1);
	world_end();
}

/* ---- the lock of a folio ---- */

/* The time in events, which whoever asks for it makes one of. */
static unsigned tick(void)
{
	return ++*(unsigned *)interleave_point(&w->now, INTERLEAVE_WRITE, __func__, __LINE__);
}

static void waiter_call(unsigned script, unsigned n, void (*locked)(struct folio_waiter *waiter))
{
	struct folio_waiter *waiter = &w->waiter[n];
	bool at_once;

	waiter->locked = locked;
	w->called_at[n] = tick();
	at_once = folio_lock(queue_of(script), &w->folio[0]->folio, waiter);
	w->returned_at[n] = tick();
	if (at_once) {
		waiter->queue = queue_of(script);
		waiter->folio = &w->folio[0]->folio;
		locked(waiter);
	}
	interleave_quiescent();
}

static void waiter_locked(struct folio_waiter *waiter)
{
	unsigned n = (unsigned)(waiter - w->waiter);

	w->nr_locked[n]++;
	w->locked_at[n] = tick();
	interleave_expect(++w->nr_inside == 1);
	interleave_point(&w->nr_inside, INTERLEAVE_WRITE, __func__, __LINE__);
	w->nr_inside--;
	folio_unlock(waiter->queue, waiter->folio);
}

static void lock_twice(void)
{
	waiter_call(1, 0, waiter_locked);
	waiter_call(1, 1, waiter_locked);
	while (!w->nr_locked[0] || !w->nr_locked[1])
		turn_when_there_is_work(1);
}

static void lock_once(void)
{
	waiter_call(2, 2, waiter_locked);
	while (!w->nr_locked[2])
		turn_when_there_is_work(2);
}

static void check_waiters(unsigned nr)
{
	unsigned i, j;

	for (i = 0; i < WORLD_MAX_WAITERS; i++) {
		if (!w->called_at[i])
			continue;
		interleave_expect(w->nr_locked[i] == 1);
		nr--;
		for (j = 0; j < WORLD_MAX_WAITERS; j++)
			if (w->called_at[j] && w->returned_at[i] < w->called_at[j])
				interleave_expect(w->locked_at[i] < w->locked_at[j]);
	}
	interleave_expect(nr == 0);
}

static void check_three_waiters(void)
{
	check_waiters(3);
	interleave_expect(count_of(0) == 1 && folio_is_in(0));
	world_end();
}

static void check_dropped_by_waiter(void)
{
	check_waiters(1);
	check_dropped();
}

/* ---- lookups, and the end of a folio ---- */

static void clear_and_put(void)
{
	interleave_expect(swapcache_clear(queue_of(0), &w->folio[0]->folio, w->entry[0], 1) == 0);
	folio_unlock(queue_of(0), &w->folio[0]->folio);
	world_put_folio(0);
	interleave_quiescent();
}

static void check_gone(void)
{
	world_settle();
	interleave_expect(w->folio[0]->nr_released == 1);
	interleave_expect(count_of(0) == 1 && entry_holds(w->entry[0], 7));
	world_end();
}

/* Holders come without the cluster's lock while the entry enters the cache or leaves it: none is lost. */
static void check_inserted_and_held(void)
{
	struct folio *folio = &w->folio[0]->folio;

	interleave_expect(w->err[0][0] == 0 && folio_is_in(0) && folio_trylock(folio));
	interleave_expect(put_swap_folio(queue_of(0), folio, w->entry[0]) == 0);
	folio_unlock(queue_of(0), folio);
	interleave_expect(count_of(0) == 3 && entry_holds(w->entry[0], 7));
	world_end();
}

static void check_cleared_and_held(void)
{
	world_settle();
	interleave_expect(w->folio[0]->nr_released == 1);
	interleave_expect(count_of(0) == 3 && entry_holds(w->entry[0], 7));
	world_end();
}

/* ---- clusters: opened, closed, given up ---- */

static void prepare_owned(void)
{
	world_make(0, 0);
	world_held(0, 1, 7);
	world_folio(0, 1);
	world_folio(0, 2);
}

static void prepare_listed(void)
{
	prepare_owned();
	cluster_cursor_close(&w->f->vswap->clusters, &queue_of(0)->allocating[0]);
}

static void close_cluster(void)
{
	cluster_cursor_close(&w->f->vswap->clusters, &queue_of(0)->allocating[0]);
	interleave_quiescent();
}

static void allocate(unsigned script, unsigned folio)
{
	swp_entry_t entry = { 0 };

	world_call(script, 1, folio_alloc_swap(queue_of(script), &w->folio[folio]->folio, 0, &entry));
	interleave_expect(w->err[script][1] == 0);
	interleave_expect(w->folio[folio]->folio.swap.val == entry.val);
	folio_unlock(queue_of(script), &w->folio[folio]->folio);
	interleave_quiescent();
}

static void close_and_allocate(void)
{
	close_cluster();
	allocate(0, 0);
}

static void allocate_by_0(void)
{
	allocate(0, 0);
}

static void allocate_by_2(void)
{
	allocate(2, 1);
}

static void look_at_cluster(void)
{
	uint32_t count = swp_swapcount(queue_of(0), w->entry[0]);
	struct folio *folio;

	interleave_expect(count <= 1);
	if (vswap_tryget(queue_of(0), w->entry[0])) {
		interleave_quiescent(); /* it exists, whoever else leaves it */
		interleave_expect(swp_swapcount(queue_of(0), w->entry[0]) <= 1);
		folio = swap_cache_get_folio(queue_of(0), w->entry[0]);
		if (folio)
			folio_put(folio);
		vswap_put(queue_of(0), w->entry[0]);
	}
	interleave_quiescent();
}

static void check_given_up(void)
{
	world_settle();
	interleave_expect(entry_is_free(w->entry[0]));
	interleave_expect(atomic_load(&w->f->vswap->clusters.nr_in_use) == 0);
	interleave_expect(atomic_load(&w->f->vswap->tables.nr_tables) == 1);
	world_end();
}

/* Entry 0 has been freed; it may be a folio's again. */
static void check_allocated(void)
{
	struct folio *one = &w->folio[0]->folio, *other = &w->folio[1]->folio;

	if (folio_is_in(0) && folio_is_in(1))
		interleave_expect(one->swap.val != other->swap.val);
	interleave_expect(count_of(0) == 0);
	world_end();
}

/* A cluster with one free entry: whoever takes it fills it. */
static void prepare_nearly_full(void)
{
	swp_entry_t entry;
	unsigned i;

	world_make(0, 0);
	world_folio(0, 1);
	world_folio(0, 2);
	for (i = 0; i + 1 < SWP_CLUSTER_ENTRIES; i++)
		interleave_expect(swap_alloc_held(queue_of(0), &entry) == 0);
	w->entry[w->nr_entries++] = entry;
}

static void allocate_twice(void)
{
	allocate(0, 0);
	allocate(0, 1);
}

/* All but the last of those that were allocated, which was put. */
static void check_filled(void)
{
	swp_entry_t first = { w->entry[0].val & ~(uint64_t)(SWP_CLUSTER_ENTRIES - 1) };

	interleave_expect(count_of(0) == 0);
	interleave_expect(vswap_check(w->f->vswap) == 0);
	interleave_expect(swap_put_entries_direct(queue_of(0), first, SWP_CLUSTER_ENTRIES - 2) == 0);
	world_end();
}

static const struct interleave_scenario scenarios[] = {
	SCENARIO(insert_whole_part, prepare_two_entries, check_overlaps, insert_whole, insert_second, insert_first),
	SCENARIO(insert_put, prepare_insert_put, check_insert_put, insert_and_unlock, put_last),
	SCENARIO(insert_put_insert, prepare_insert_put, check_insert_put_insert,
		insert_and_unlock, put_last, insert_other_and_unlock),
	SCENARIO(insert_dirty_put, prepare_insert_put, check_insert_dirty_put, insert_dirty_and_unlock, put_last),
	SCENARIO(dup_put_put, prepare_three_holders, check_freed, dup_put_put, put_by_1, put_by_2),
	SCENARIO(unlock_put, prepare_locked, check_dropped, unlock, put_last),
	SCENARIO(unlock_put_lookup, prepare_locked, check_dropped, unlock, put_last, look_up_by_2),
	SCENARIO(unlock_put_wait, prepare_locked, check_dropped_by_waiter, unlock, put_last, lock_once),
	SCENARIO(store_put, prepare_dirty, check_dropped, store_and_unlock, put_last),
	SCENARIO(free_swap_put, prepare_dirty, check_free_swap, free_swap_and_unlock, put_last),
	SCENARIO(put_swap_put, prepare_locked, check_put_swap, dup_and_put_folio, put_last, look_up_by_2),
	SCENARIO(alloc_again_put, prepare_locked, check_allocated_again, allocate_again, put_last),
	SCENARIO(put_put_of_a_folio, prepare_unlocked, check_dropped, put_first_by_0, put_second_by_1),
	SCENARIO(put_put_lookup, prepare_unlocked, check_dropped, put_first_by_0, put_second_by_1, look_up_by_2),
	SCENARIO(unlock_wait_wait, prepare_locked, check_three_waiters, unlock, lock_twice, lock_once),
	SCENARIO(close_put, prepare_owned, check_given_up, close_cluster, put_last),
	SCENARIO(close_put_alloc, prepare_owned, check_allocated, close_and_allocate, put_last, allocate_by_2),
	SCENARIO(alloc_put_alloc, prepare_owned, check_allocated, allocate_by_0, put_last, allocate_by_2),
	SCENARIO(fill_put, prepare_nearly_full, check_filled, allocate_twice, put_last),
	SCENARIO(dup_ranges, prepare_ranges, check_ranges, dup_range, dup_range_in_vain, put_second),
	SCENARIO(dup_ranges_full_word, prepare_ranges_full_word, check_ranges_full_word,
		dup_range, dup_range_in_vain, put_second),
	SCENARIO(dup_put_dup_full_word, prepare_full_word, check_full_word, dup_by_0, put_and_count, dup_by_2),
	SCENARIO(put_put_dup_low_word, prepare_low_word, check_low_word, put_first_by_0, put_by_1, dup_by_2),
	SCENARIO(clear_lookup, prepare_locked, check_gone, clear_and_put, look_up_by_1),
	SCENARIO(clear_lookup_lookup, prepare_locked, check_gone, clear_and_put, look_up_by_1, look_up_by_2),
	SCENARIO(insert_dup_dup, prepare_insert_put, check_inserted_and_held, insert_and_unlock, dup_by_1, dup_by_2),
	SCENARIO(clear_dup_dup, prepare_locked, check_cleared_and_held, clear_and_put, dup_by_1, dup_by_2),
	SCENARIO(lookup_put_alloc, prepare_listed, check_allocated, look_at_cluster, put_last, allocate_by_2),
};

int main(void)
{
	return world_run("test_swap_interleave", scenarios, BASE_ARRAY_SIZE(scenarios));
}

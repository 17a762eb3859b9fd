/*
 * Entries become free: their words NONE, their slots retired, their folios dropped.
 *
 * Ordering: see swapcache.c. Nobody else changes words without holders under the cluster's lock, nor those of a last holder who
 * is the caller; so they need no atomic operation each, and are looked at and written eight at a time.
 */
#include "client/vswap/freeing.h"

#include <errno.h>

#include "client/vswap/cluster.h"
#include "client/vswap/folio.h"
#include "client/vswap/swapcache.h"

void swap_freeing_begin(struct swap_freeing *freeing, struct vswap_queue *queue, struct table *table) LOCK_NO_ANALYSIS
{
	*freeing = (struct swap_freeing){ .queue = queue, .table = table };
	lock_acquire(&table->lock);
}

/* What of a word tells the backing of an entry from that of its neighbour. */
#define WORD_BACKING (~0ull << WORD_TAG_SHIFT | WORD_PAYLOAD_MAX)

/*
 * What a word becomes, to be stored with release. Not sequentially consistent: reap_run_flush and reap_run_add have the barrier
 * before the epoch is read.
 */
static uint64_t word_freed(uint64_t word)
{
	assert(!word_is_claimed(word));
	return word_next(word, WORD_NONE, 0);
}

#define WORDS_AT_ONCE 8u /* as many as a cache line has, wherever they begin */

/* Makes NONE of so many words, if they are backed by `backing` and what is `stride` more from each to the next. */
static bool words_free(_Atomic uint64_t *place, uint64_t backing, uint64_t stride)
{
	uint64_t word[WORDS_AT_ONCE], others = 0;
	uint32_t i;

#pragma GCC unroll 8
	for (i = 0; i < WORDS_AT_ONCE; i++) {
		word[i] = atomic_load_explicit(&place[i], memory_order_relaxed);
		others |= (word[i] ^ (backing + i * stride)) & WORD_BACKING;
	}
	if (others)
		return false;
#pragma GCC unroll 8
	for (i = 0; i < WORDS_AT_ONCE; i++)
		atomic_store_explicit(&place[i], word_freed(word[i]), memory_order_release);
	return true;
}

/*
 * Makes NONE of a word and of those behind it, nr at most, that are backed alike: by the same slab's slots in a row, by one
 * value, by a folio. How many. Without a branch for each word: most often all are.
 */
static uint32_t swap_freeing_step(_Atomic uint64_t *place, uint64_t word, uint32_t nr)
{
	uint64_t backing = word & WORD_BACKING, stride = word_has_slot(word) ? 1 : 0;
	uint32_t i = 0;

	if (word_has_slot(word))
		nr = (uint32_t)base_min_u64(nr, WORD_MAX_SLOTS - swp_slot_index(word_slot(word)));
	else if (word_is_stored(word))
		nr = 1;
	while (i + WORDS_AT_ONCE <= nr && words_free(&place[i], backing + i * stride, stride))
		i += WORDS_AT_ONCE;
	for (; i < nr; i++) {
		word = atomic_load_explicit(&place[i], memory_order_relaxed);
		if ((word & WORD_BACKING) != backing + i * stride)
			break;
		atomic_store_explicit(&place[i], word_freed(word), memory_order_release);
	}
	return i;
}

void swap_freeing_add(struct swap_freeing *freeing, uint64_t entry, uint32_t nr)
{
	struct vswap_queue *queue = freeing->queue;
	_Atomic uint64_t *place = table_word(freeing->table, entry);
	uint32_t i, step;

	for (i = 0; i < nr; i += step) {
		uint64_t word = atomic_load_explicit(&place[i], memory_order_relaxed);

		if (word_is_stored(word) && !freeing->in_epoch) {
			freeing->epoch = epoch_enter(&queue->vswap->epoch, &queue->epoch);
			freeing->in_epoch = true;
		}
		step = swap_freeing_step(&place[i], word, nr - i);
		freeing->nr_tag[word_tag(word)] += step;
		if (word_is_stored(word))
			reap_run_add(queue, &freeing->run, word, step);
	}
	freeing->nr += nr;
}

/* The books of what was freed. Under the lock. True when the map gives the cluster up. */
static bool swap_freeing_account(struct swap_freeing *freeing)
{
	struct vswap_queue *queue = freeing->queue;
	struct table *table = freeing->table;
	unsigned tag;

	table->nr_entries -= (uint16_t)freeing->nr;
	for (tag = 0; tag < WORD_NR_TAGS; tag++)
		if (freeing->nr_tag[tag])
			vswap_add_tag(queue, (enum word_tag)tag, -(int64_t)freeing->nr_tag[tag]);
	vswap_add_tag(queue, WORD_NONE, freeing->nr);
	return cluster_entries_freed(&queue->vswap->clusters, table);
}

void swap_freeing_end(struct swap_freeing *freeing) LOCK_NO_ANALYSIS
{
	struct vswap_queue *queue = freeing->queue;
	struct table *table = freeing->table;
	bool given_up;

	if (freeing->in_epoch) {
		reap_run_flush(queue, &freeing->run);
		epoch_exit(&queue->epoch, freeing->epoch);
	}
	given_up = freeing->nr && swap_freeing_account(freeing);
	if (table->nr_folios == 0 && atomic_load_explicit(&table->place, memory_order_relaxed) != CLUSTER_OWNED)
		table_folios_drop(table);
	lock_release(&table->lock);
	/* What was freed has kept the table until now; and so has the map. */
	if (freeing->nr)
		table_unpin(table, 1 - (int32_t)freeing->nr);
	if (given_up)
		table_unpin(table, 0);
}

/* ---- folios without holders ---- */

/*
 * Entries of a range have lost their last holder: marks the folios that stand for them. Under the lock, while they are certain
 * to stand for these and for no others; a folio that leaves the cache loses the mark under it.
 */
static void swapcache_mark_unheld(struct table *table, uint64_t entry, uint32_t nr)
{
	struct table_folios *folios = atomic_load_explicit(&table->folios, memory_order_relaxed);
	uint32_t i;

	for (i = 0; i < nr; i++) {
		uint64_t word = atomic_load_explicit(table_word(table, entry + i), memory_order_relaxed);

		if (word_is_cached(word) && word_count(word) == 0)
			folio_set_flags(atomic_load_explicit(&folios->folio[(entry + i) % TABLE_ENTRIES],
							     memory_order_relaxed),
					FOLIO_UNHELD);
	}
}

/* Without the lock: sees to the marked folios at once, or leaves it to who has them locked. */
static void swapcache_see_to_unheld(struct vswap_queue *queue, struct table *table, uint64_t entry, uint32_t nr)
{
	struct folio *last = NULL;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		uint64_t word = atomic_load_explicit(table_word(table, entry + i), memory_order_acquire);
		struct folio *folio;

		if (!word_is_cached(word) || word_count(word) != 0)
			continue;
		folio = swapcache_find(table, entry + i);
		if (!folio || folio == last || !folio_tryget(folio))
			continue;
		last = folio;
		/* The mark went when the folio left the cache; what it stands for by now is not for us to see to. */
		if (folio_is_unheld(folio) && folio_trylock(folio))
			folio_unlock(queue, folio);
		folio_put(folio);
	}
}

/* ---- holders go ---- */

/* The last holder is the caller: nobody duplicates the entry meanwhile. */
static bool word_is_of_last(uint64_t word)
{
	return (word & WORD_HOLDERS) == WORD_COUNT_ONE;
}

/* How many of the first words are such. Without a branch for each: most often all are. */
static uint32_t words_of_last(const _Atomic uint64_t *place, uint32_t nr)
{
	uint32_t i, j;

	for (i = 0; i + WORDS_AT_ONCE <= nr; i += WORDS_AT_ONCE) {
		uint64_t others = 0;

#pragma GCC unroll 8
		for (j = 0; j < WORDS_AT_ONCE; j++)
			others |= (atomic_load_explicit(&place[i + j], memory_order_relaxed) ^ WORD_COUNT_ONE) & WORD_HOLDERS;
		if (others)
			break;
	}
	while (i < nr && word_is_of_last(atomic_load_explicit(&place[i], memory_order_relaxed)))
		i++;
	return i;
}

/*
 * One holder less for each of entries that have some; the first nr_last have but one. Under the lock. True when folios are all
 * that is left of some.
 */
static bool swap_put_held(struct swap_freeing *freeing, uint64_t entry, uint32_t nr, uint32_t nr_last)
{
	_Atomic uint64_t *place = table_word(freeing->table, entry);
	bool unheld = false;
	uint32_t i, end;

	for (i = 0; i < nr; i = end) {
		end = i + (i == 0 ? nr_last : words_of_last(&place[i], nr - i));
		if (end > i)
			swap_freeing_add(freeing, entry + i, end - i);
		else
			unheld |= word_count(swap_count_down(freeing->queue->vswap, freeing->table, entry + end++)) == 0;
	}
	return unheld;
}

/* Takes one holder off each of the entries of one cluster; none when one of them has none. */
static int swap_put_run(struct vswap_queue *queue, uint64_t entry, uint32_t nr) LOCK_NO_ANALYSIS
{
	struct table *table = table_pin(&queue->vswap->tables, entry, false);
	struct swap_freeing freeing;
	bool unheld = false;
	uint32_t i, nr_last;
	int err = 0;

	if (!table)
		return -ENOENT;
	/* To be written; all at once, so that they are not waited for one by one. */
	for (i = 0; i < nr + entry % WORDS_AT_ONCE; i += WORDS_AT_ONCE)
		__builtin_prefetch(table_word(table, entry - entry % WORDS_AT_ONCE + i), 1);
	swap_freeing_begin(&freeing, queue, table);
	nr_last = words_of_last(table_word(table, entry), nr);
	for (i = nr_last; i < nr && err == 0; i++)
		if (word_count(atomic_load_explicit(table_word(table, entry + i), memory_order_relaxed)) == 0)
			err = -ENOENT;
	if (err == 0)
		unheld = swap_put_held(&freeing, entry, nr, nr_last);
	if (unheld)
		swapcache_mark_unheld(table, entry, nr);
	swap_freeing_end(&freeing);
	if (unheld)
		swapcache_see_to_unheld(queue, table, entry, nr);
	table_unpin(table, 0);
	return err;
}

int swap_put_entries_direct(struct vswap_queue *queue, swp_entry_t entry, uint64_t nr)
{
	uint64_t at = entry.val, end = entry.val + nr;
	int err = 0;

	if (!swap_range_is_valid(queue->vswap, entry.val, nr))
		return -EINVAL;
	while (at < end && err == 0) {
		uint32_t run = (uint32_t)base_min_u64(TABLE_ENTRIES - at % TABLE_ENTRIES, end - at);

		err = swap_put_run(queue, at, run);
		at += run;
	}
	return err;
}

int swap_free_nr(struct vswap_queue *queue, swp_entry_t entry, uint64_t nr)
{
	return swap_put_entries_direct(queue, entry, nr);
}

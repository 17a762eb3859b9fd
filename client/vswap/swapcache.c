/*
 * Ordering. Entries become live and die, and folios come and go, under the cluster's lock; so what the first pass of a
 * call has seen is still so in the second. Counts above 0 are raised without it, and backings change without it: neither makes
 * an entry live or dead. A lookup reads the array of folios with acquire and takes a reference only if there still is one;
 * a folio's memory is its owner's again only after a grace period.
 */
#include "client/vswap/swapcache.h"

#include <errno.h>

#include "client/vswap/cluster.h"
#include "client/vswap/folio.h"

bool swap_range_is_valid(const struct vswap *vswap, uint64_t entry, uint64_t nr)
{
	uint64_t first = vswap->clusters.first << TABLE_SHIFT, end = first + (vswap->clusters.nr << TABLE_SHIFT);

	return nr != 0 && entry >= first && entry < end && nr <= end - entry;
}

/* A range of one cluster. */
static bool swap_run_is_valid(const struct vswap *vswap, uint64_t entry, uint64_t nr)
{
	return swap_range_is_valid(vswap, entry, nr) && nr <= TABLE_ENTRIES - entry % TABLE_ENTRIES;
}

static bool folio_is_in_cache(const struct folio *folio)
{
	return folio_is_locked(folio) && (folio_flags(folio) & FOLIO_SWAPCACHE);
}

/* ---- freeing ---- */

void swap_freeing_begin(struct swap_freeing *freeing, struct vswap_queue *queue, struct table *table) LOCK_NO_ANALYSIS
{
	*freeing = (struct swap_freeing){ .queue = queue, .table = table };
	lock_acquire(&table->lock);
}

/* What of a word tells the backing of an entry from that of its neighbour. */
#define WORD_BACKING (~0ull << WORD_TAG_SHIFT | WORD_PAYLOAD_MAX)

/*
 * Makes NONE of a word and of those behind it, nr at most, that are backed alike: by the same slab's slots in a row, by one
 * value, by a folio. How many.
 */
static uint32_t swap_freeing_step(_Atomic uint64_t *place, uint64_t word, uint32_t nr)
{
	uint64_t backing = word & WORD_BACKING, stride = word_has_slot(word) ? 1 : 0;
	uint32_t i = 0;

	if (word_has_slot(word))
		nr = (uint32_t)base_min_u64(nr, WORD_MAX_SLOTS - swp_slot_index(word_slot(word)));
	else if (word_is_stored(word))
		nr = 1;
	do {
		assert(!word_is_claimed(word));
		/* Not sequentially consistent: reap_run_flush has the barrier before it reads the epoch. */
		atomic_store_explicit(&place[i], word_next(word, WORD_NONE, 0), memory_order_release);
		backing += stride;
		if (++i == nr)
			break;
		word = atomic_load_explicit(&place[i], memory_order_relaxed);
	} while ((word & WORD_BACKING) == backing);
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

/* ---- allocation ---- */

/* The folio stands for entries that are live from now on. Under the lock. */
static void swapcache_set(struct table *table, struct table_folios *folios, uint64_t entry, struct folio *folio, uint32_t flags)
{
	uint32_t nr = folio_nr_pages(folio), i;

	for (i = 0; i < nr; i++)
		atomic_store_explicit(&folios->folio[(entry + i) % TABLE_ENTRIES], folio, memory_order_release);
	table->nr_folios += (uint16_t)nr;
	folio->swap.val = entry;
	folio_get(folio);
	folio_set_flags(folio, FOLIO_SWAPCACHE | flags);
}

/* Entries that cluster_find has found become what `fresh` makes of their words. Under the lock. */
static void swap_entries_set(struct vswap_queue *queue, struct table *table, uint32_t offset, uint32_t nr,
			     uint64_t (*fresh)(uint64_t none))
{
	uint32_t i;
	uint64_t word = 0;

	table_book(table, (int32_t)nr);
	table->nr_entries += (uint16_t)nr;
	for (i = 0; i < nr; i++) {
		word = fresh(atomic_load_explicit(&table->word[offset + i], memory_order_relaxed));
		atomic_store_explicit(&table->word[offset + i], word, memory_order_release);
	}
	vswap_add_tag(queue, WORD_NONE, -(int64_t)nr);
	vswap_add_tag(queue, word_tag(word), nr);
}

/*
 * As cluster_find. What is left belongs to other queues, if to anybody: they are asked for it. One entry is found then, in a
 * moment; that a run is, is not so certain that one should wait for it.
 */
static int swap_find(struct vswap_queue *queue, unsigned order, struct table **ret_table, uint32_t *ret_offset)
{
	struct vswap *vswap = queue->vswap;
	int err = cluster_find(&vswap->clusters, queue->allocating, order, ret_table, ret_offset);
	unsigned i;

	if (BASE_LIKELY(err != -EAGAIN))
		return err;
	for (i = 0; i < vswap->nr_queues; i++)
		vswap_queue_ask_release(&vswap->queue[i]);
	return order == 0 ? -ENOMEM : -ENOSPC;
}

int folio_alloc_swap(struct vswap_queue *queue, struct folio *folio, unsigned order, swp_entry_t *ret_entry)
{
	struct table_folios *folios;
	struct table *table;
	uint32_t offset;
	int err;

	if (order != folio->order || !folio_is_locked(folio) || (folio_flags(folio) & FOLIO_SWAPCACHE))
		return -EINVAL;
	err = swap_find(queue, order, &table, &offset);
	if (err < 0)
		return err;
	lock_acquire(&table->lock);
	folios = table_folios_get(table);
	if (folios) {
		ret_entry->val = ((uint64_t)table->cluster << TABLE_SHIFT) + offset;
		swap_entries_set(queue, table, offset, folio_nr_pages(folio), word_allocated);
		swapcache_set(table, folios, ret_entry->val, folio, FOLIO_DIRTY | FOLIO_UPTODATE);
	} else {
		queue->allocating[order].next = offset; /* it is still free */
		err = -ENOMEM;
	}
	lock_release(&table->lock);
	return err;
}

static uint64_t word_held_zeros(uint64_t none)
{
	return word_next(none, WORD_SAME, 0);
}

int swap_alloc_held(struct vswap_queue *queue, swp_entry_t *ret_entry)
{
	struct table *table;
	uint32_t offset;
	int err = swap_find(queue, 0, &table, &offset);

	if (err < 0)
		return err;
	lock_acquire(&table->lock);
	swap_entries_set(queue, table, offset, 1, word_held_zeros);
	lock_release(&table->lock);
	ret_entry->val = ((uint64_t)table->cluster << TABLE_SHIFT) + offset;
	return 0;
}

/* ---- in and out ---- */

int swapcache_prepare(struct vswap_queue *queue, swp_entry_t entry, uint32_t nr, struct folio *folio)
{
	struct vswap *vswap = queue->vswap;
	struct table_folios *folios;
	struct table *table;
	uint32_t i;
	int err = 0;

	if (nr != folio_nr_pages(folio) || !swap_run_is_valid(vswap, entry.val, nr) || entry.val % nr != 0 ||
	    !folio_is_locked(folio) || (folio_flags(folio) & FOLIO_SWAPCACHE))
		return -EINVAL;
	table = table_pin(&vswap->tables, entry.val, false);
	if (!table)
		return -ENOENT;
	lock_acquire(&table->lock);
	for (i = 0; i < nr && err == 0; i++) {
		uint64_t word = atomic_load_explicit(table_word(table, entry.val + i), memory_order_acquire);

		if (word_tag(word) == WORD_NONE)
			err = -ENOENT;
		else if (word_is_cached(word))
			err = -EEXIST;
	}
	folios = err == 0 ? table_folios_get(table) : NULL;
	if (folios) {
		for (i = 0; i < nr; i++)
			atomic_fetch_or(table_word(table, entry.val + i), WORD_CACHED);
		folio_clear_flags(folio, FOLIO_UPTODATE | FOLIO_DIRTY);
		swapcache_set(table, folios, entry.val, folio, 0);
	} else if (err == 0) {
		err = -ENOMEM;
	}
	lock_release(&table->lock);
	table_unpin(table, 0);
	return err;
}

int swap_cache_add_folio(struct vswap_queue *queue, struct folio *folio, swp_entry_t entry)
{
	return swapcache_prepare(queue, entry, folio_nr_pages(folio), folio);
}

/* Whether no entry of the folio has a holder. Under the lock, or by who has the folio locked: only he adds the first one. */
static bool swapcache_is_unheld(const struct folio *folio, struct table *table)
{
	uint32_t i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		if (word_count(atomic_load_explicit(table_word(table, folio->swap.val + i), memory_order_acquire)) != 0)
			return false;
	return true;
}

/* Out of the cache; entries without a holder become free. */
static void swapcache_remove(struct vswap_queue *queue, struct folio *folio, struct table *table) LOCK_NO_ANALYSIS
{
	struct table_folios *folios;
	struct swap_freeing freeing;
	uint64_t entry = folio->swap.val;
	uint32_t i, end, nr = folio_nr_pages(folio);

	swap_freeing_begin(&freeing, queue, table);
	folios = atomic_load_explicit(&table->folios, memory_order_relaxed);
	table->nr_folios -= (uint16_t)nr;
	for (i = 0; i < nr; i++) {
		assert(atomic_load_explicit(&folios->folio[(entry + i) % TABLE_ENTRIES], memory_order_relaxed) == folio);
		atomic_store_explicit(&folios->folio[(entry + i) % TABLE_ENTRIES], NULL, memory_order_release);
	}
	for (i = 0; i < nr; i = end) {
		/* Only who has the folio locked could raise a count of 0. */
		for (end = i; end < nr && word_count(atomic_load(table_word(table, entry + end))) == 0; end++)
			;
		if (end > i)
			swap_freeing_add(&freeing, entry + i, end - i);
		else
			atomic_fetch_and(table_word(table, entry + end++), ~WORD_CACHED);
	}
	folio_clear_flags(folio, FOLIO_SWAPCACHE | FOLIO_UNHELD);
	swap_freeing_end(&freeing);
	folio_put(folio);
}

int swapcache_clear(struct vswap_queue *queue, struct folio *folio, swp_entry_t entry, uint32_t nr)
{
	struct table *table;

	if (!folio_is_locked(folio))
		return -EINVAL;
	if (!(folio_flags(folio) & FOLIO_SWAPCACHE) || folio->swap.val != entry.val || folio_nr_pages(folio) != nr)
		return -ENOENT;
	if (folio_flags(folio) & FOLIO_UNDER_IO)
		return -EBUSY;
	table = vswap_table(queue, entry.val); /* stays: its entries are live */
	if ((folio_flags(folio) & FOLIO_DIRTY) && !swapcache_is_unheld(folio, table))
		return -EBUSY;
	swapcache_remove(queue, folio, table);
	return 0;
}

int put_swap_folio(struct vswap_queue *queue, struct folio *folio, swp_entry_t entry)
{
	return swapcache_clear(queue, folio, entry, folio_nr_pages(folio));
}

bool folio_free_swap(struct vswap_queue *queue, struct folio *folio)
{
	struct table *table;

	if (!folio_is_in_cache(folio) || (folio_flags(folio) & FOLIO_UNDER_IO))
		return false;
	table = vswap_table(queue, folio->swap.val);
	if (!swapcache_is_unheld(folio, table))
		return false;
	folio_set_flags(folio, FOLIO_DIRTY);
	swapcache_remove(queue, folio, table);
	return true;
}

void swapcache_drop_unheld(struct vswap_queue *queue, struct folio *folio)
{
	uint32_t flags = folio_clear_flags(folio, FOLIO_UNHELD);
	struct table *table;

	if (!(flags & FOLIO_SWAPCACHE) || (flags & (FOLIO_DIRTY | FOLIO_UNDER_IO)))
		return;
	table = vswap_table(queue, folio->swap.val);
	if (swapcache_is_unheld(folio, table))
		swapcache_remove(queue, folio, table);
}

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

/* ---- lookups ---- */

struct folio *swapcache_find(struct table *table, uint64_t entry)
{
	struct table_folios *folios = table ? atomic_load_explicit(&table->folios, memory_order_acquire) : NULL;

	return folios ? atomic_load_explicit(&folios->folio[entry % TABLE_ENTRIES], memory_order_acquire) : NULL;
}

struct folio *swap_cache_get_folio(struct vswap_queue *queue, swp_entry_t entry)
{
	struct folio *folio;

	if (!swap_range_is_valid(queue->vswap, entry.val, 1))
		return NULL;
	folio = swapcache_find(vswap_table(queue, entry.val), entry.val);
	return folio && folio_tryget(folio) ? folio : NULL;
}

static uint64_t swap_word(struct vswap_queue *queue, uint64_t entry)
{
	struct table *table = vswap_table(queue, entry);

	return table ? atomic_load_explicit(table_word(table, entry), memory_order_acquire) : 0;
}

static bool word_is_cache_only(uint64_t word)
{
	return word_tag(word) != WORD_NONE && word_is_cached(word) && word_count(word) == 0;
}

static bool word_is_not_in_cache(uint64_t word)
{
	return word_tag(word) != WORD_NONE && !word_is_cached(word);
}

static uint64_t swap_batch(struct vswap_queue *queue, uint64_t entry, uint64_t max, bool (*holds)(uint64_t word))
{
	uint64_t nr = 0;

	while (nr < max && swap_range_is_valid(queue->vswap, entry + nr, 1) && holds(swap_word(queue, entry + nr)))
		nr++;
	return nr;
}

uint64_t vswap_swapcache_only(struct vswap_queue *queue, swp_entry_t entry, uint64_t nr)
{
	return swap_batch(queue, entry.val, nr, word_is_cache_only);
}

uint64_t non_swapcache_batch(struct vswap_queue *queue, swp_entry_t entry, uint64_t max)
{
	return swap_batch(queue, entry.val, max, word_is_not_in_cache);
}

/* ---- counts ---- */

int folio_dup_swap(struct vswap_queue *queue, struct folio *folio, uint32_t page)
{
	struct table *table;

	if (!folio_is_in_cache(folio) || (page != FOLIO_ALL && page >= folio_nr_pages(folio)))
		return -EINVAL;
	table = vswap_table(queue, folio->swap.val); /* stays: the entries are live */
	if (page == FOLIO_ALL)
		return swap_count_up_run(queue->vswap, table, folio->swap.val, folio_nr_pages(folio), 0);
	return swap_count_up(queue->vswap, table, folio->swap.val + page, 0);
}

int folio_put_swap(struct vswap_queue *queue, struct folio *folio, uint32_t page)
{
	uint32_t first = page == FOLIO_ALL ? 0 : page, end = page == FOLIO_ALL ? folio_nr_pages(folio) : page + 1, i;
	struct table *table;
	int err = 0;

	if (!folio_is_in_cache(folio) || (page != FOLIO_ALL && page >= folio_nr_pages(folio)))
		return -EINVAL;
	table = vswap_table(queue, folio->swap.val);
	lock_acquire(&table->lock);
	for (i = first; i < end && err == 0; i++)
		if (word_count(atomic_load_explicit(table_word(table, folio->swap.val + i), memory_order_relaxed)) == 0)
			err = -ENOENT;
	for (i = first; i < end && err == 0; i++)
		swap_count_down(queue->vswap, table, folio->swap.val + i);
	lock_release(&table->lock);
	return err;
}

int swap_dup_entry_direct(struct vswap_queue *queue, swp_entry_t entry)
{
	struct table *table;

	if (!swap_range_is_valid(queue->vswap, entry.val, 1))
		return -ENOENT;
	table = vswap_table(queue, entry.val); /* stays: the caller holds an entry of it */
	return table ? swap_count_up(queue->vswap, table, entry.val, 1) : -ENOENT;
}

int swap_duplicate(struct vswap_queue *queue, swp_entry_t entry)
{
	return swap_dup_entry_direct(queue, entry);
}

int swap_duplicate_nr(struct vswap_queue *queue, swp_entry_t entry, uint32_t nr)
{
	struct table *table;

	if (!swap_run_is_valid(queue->vswap, entry.val, nr))
		return -EINVAL;
	table = vswap_table(queue, entry.val);
	return table ? swap_count_up_run(queue->vswap, table, entry.val, nr, 1) : -ENOENT;
}

/* The last holder is the caller: nobody duplicates the entry meanwhile. */
static bool word_is_of_last(uint64_t word)
{
	return (word & WORD_HOLDERS) == WORD_COUNT_ONE;
}

#define WORDS_PER_LINE (FSW_CACHE_LINE / sizeof(uint64_t))

/* How many of the first words are such. By lines, without a branch for each word: most often all are. */
static uint32_t words_of_last(const _Atomic uint64_t *place, uint32_t nr)
{
	uint32_t i, j;

	for (i = 0; i + WORDS_PER_LINE <= nr; i += WORDS_PER_LINE) {
		uint64_t others = 0;

		for (j = 0; j < WORDS_PER_LINE; j++)
			others |= (atomic_load_explicit(&place[i + j], memory_order_relaxed) ^ WORD_COUNT_ONE) & WORD_HOLDERS;
		if (others)
			break;
	}
	while (i < nr && word_is_of_last(atomic_load_explicit(&place[i], memory_order_relaxed)))
		i++;
	return i;
}

/* One holder less for each of entries that have some. Under the lock. True when folios are all that is left of some. */
static bool swap_put_held(struct swap_freeing *freeing, uint64_t entry, uint32_t nr)
{
	_Atomic uint64_t *place = table_word(freeing->table, entry);
	bool unheld = false;
	uint32_t i, end;

	for (i = 0; i < nr; i = end) {
		end = i + words_of_last(&place[i], nr - i);
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
	uint32_t i;
	int err = 0;

	if (!table)
		return -ENOENT;
	/* To be written; all at once, so that they are not waited for one by one. */
	for (i = 0; i < nr; i += WORDS_PER_LINE)
		__builtin_prefetch(table_word(table, entry + i), 1);
	swap_freeing_begin(&freeing, queue, table);
	for (i = words_of_last(table_word(table, entry), nr); i < nr && err == 0; i++)
		if (word_count(atomic_load_explicit(table_word(table, entry + i), memory_order_relaxed)) == 0)
			err = -ENOENT;
	if (err == 0)
		unheld = swap_put_held(&freeing, entry, nr);
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

uint32_t swp_swapcount(struct vswap_queue *queue, swp_entry_t entry)
{
	struct table *table = NULL;

	if (swap_range_is_valid(queue->vswap, entry.val, 1))
		table = vswap_table(queue, entry.val);
	return table ? swap_count(queue->vswap, table, entry.val) : 0;
}

bool folio_swapped(struct vswap_queue *queue, struct folio *folio)
{
	struct table *table;

	if (!folio_is_in_cache(folio))
		return false;
	table = vswap_table(queue, folio->swap.val);
	return !swapcache_is_unheld(folio, table);
}

/* ---- existence ---- */

bool vswap_tryget(struct vswap_queue *queue, swp_entry_t entry)
{
	return swap_range_is_valid(queue->vswap, entry.val, 1) && table_pin(&queue->vswap->tables, entry.val, false) != NULL;
}

void vswap_put(struct vswap_queue *queue, swp_entry_t entry)
{
	table_unpin(vswap_table(queue, entry.val), 0);
}

int swp_entry_to_swp_slot(struct vswap_queue *queue, swp_entry_t entry, swp_slot_t *ret_slot)
{
	uint64_t word = swap_range_is_valid(queue->vswap, entry.val, 1) ? swap_word(queue, entry.val) : 0;

	if (word_tag(word) == WORD_NONE)
		return -ENOENT;
	if (!word_has_slot(word))
		return -ENODATA;
	*ret_slot = word_slot(word);
	return 0;
}

int swp_slot_to_swp_entry(struct vswap_queue *queue, swp_slot_t slot, swp_entry_t *ret_entry)
{
	struct vswap *vswap = queue->vswap;
	uint32_t id = swp_slot_slab(slot), index = swp_slot_index(slot);
	struct slab *slab;
	uint64_t entry;

	if (slot.val > WORD_PAYLOAD_MAX || id >= vswap->slabs.max_slabs)
		return -ENOENT;
	slab = slab_by_id(&vswap->slabs, id);
	if (!slab || index >= slab->nr_slots ||
	    !(atomic_load_explicit(&slab->used[index / 64], memory_order_acquire) >> index % 64 & 1))
		return -ENOENT;
	entry = atomic_load_explicit(&slab->reverse[index], memory_order_relaxed);
	if (!vswap_word_is_at(swap_word(queue, entry), slab, index))
		return -ENODATA;
	ret_entry->val = entry;
	return 0;
}

/*
 * Ordering. Entries become live and die, and folios come and go, under the cluster's lock; so what the first pass of a
 * call has seen is still so in the second. Counts above 0 are raised without it, which makes no entry live or dead. Backings
 * change under it (table_swing); but a write claims without it, and publishes a value, where a folio under I/O stands for the
 * entry or it has a holder of its own: nobody frees it meanwhile. A lookup reads the array of folios with acquire and takes a
 * reference only if there still is one; a folio's memory is its owner's again only after a grace period.
 */
#include "client/vswap/swapcache.h"

#include <errno.h>

#include "client/vswap/cluster.h"
#include "client/vswap/folio.h"
#include "client/vswap/freeing.h"

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

/* ---- allocation ---- */

/* The folio, with these flags, stands for entries that are live from now on. Under the lock. */
static void swapcache_set(struct table *table, struct table_folios *folios, uint64_t entry, struct folio *folio, uint32_t flags)
{
	uint32_t nr = folio_nr_pages(folio), i;

	for (i = 0; i < nr; i++)
		atomic_store_explicit(&folios->folio[(entry + i) % TABLE_ENTRIES], folio, memory_order_release);
	table->nr_folios += (uint16_t)nr;
	folio->swap.val = entry;
	folio_get(folio);
	folio_change_flags(folio, FOLIO_UPTODATE | FOLIO_DIRTY, FOLIO_SWAPCACHE | flags);
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

/* Out of the cache, and `flags` added to its own; entries without a holder become free. */
static void swapcache_remove(struct vswap_queue *queue, struct folio *folio, struct table *table, uint32_t flags)
	LOCK_NO_ANALYSIS
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
	folio_change_flags(folio, FOLIO_SWAPCACHE | FOLIO_UNHELD, flags);
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
	swapcache_remove(queue, folio, table, 0);
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
	swapcache_remove(queue, folio, table, FOLIO_DIRTY);
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
		swapcache_remove(queue, folio, table, 0);
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

/*
 * Everything derived, made anew from the forward words: the proof that they are the only truth, and the way back when
 * vswap_check finds a difference.
 *
 * One pass over the tables that there are, in order of the pages. Nobody else is at work, so plain loads and stores of
 * the atomic fields do.
 */
#include <errno.h>
#include <string.h>

#include "client/vswap/mover.h"
#include "client/vswap/swapcache.h"
#include "common/log/log.h"

struct rebuild {
	struct vswap *vswap;
	int64_t nr_tag[WORD_NR_TAGS];
	uint64_t nr_poisoned;
};

/* A failed write that may yet reach its slot is known to the quarantine alone: without it, nothing can be rebuilt. */
static bool rebuild_is_possible(struct vswap *vswap, const struct slab_list *list)
{
	uint32_t i;

	for (i = 0; i < list->nr; i++)
		if (atomic_load(&list->slab[i]->has_quarantine))
			return false;
	return vswap->mover->running == NULL;
}

static void rebuild_forget_slab(struct slab *slab)
{
	size_t bitmap_bytes = (slab->nr_slots + 63) / 64 * sizeof(uint64_t);
	unsigned i;

	memset((void *)slab->used, 0, bitmap_bytes);
	memset((void *)slab->quarantined, 0, bitmap_bytes);
	for (i = 0; i < SLAB_EPOCHS; i++) {
		memset((void *)slab->retired[i], 0, bitmap_bytes);
		atomic_store_explicit(&slab->has_retired[i], false, memory_order_relaxed);
	}
	memset((void *)slab->reverse, 0, slab->nr_slots * sizeof(uint32_t));
	memset((void *)slab->owned, 0, slab->nr_clusters);
	atomic_store_explicit(&slab->nr_used, 0, memory_order_relaxed);
}

/* Gives the entry its slot. False: there is no such slot, or an entry before it has it. */
static bool rebuild_take_slot(struct vswap *vswap, uint64_t page, uint64_t word)
{
	uint32_t id = swp_slot_slab(word_slot(word)), slot = swp_slot_index(word_slot(word));
	struct slab *slab = id < vswap->slabs.max_slabs ? slab_by_id(&vswap->slabs, id) : NULL;
	uint64_t bits, bit = 1ull << slot % 64;

	if (!slab || slot >= slab->nr_slots || slab->tag != word_tag(word))
		return false;
	bits = atomic_load_explicit(&slab->used[slot / 64], memory_order_relaxed);
	if (bits & bit)
		return false;
	atomic_store_explicit(&slab->used[slot / 64], bits | bit, memory_order_relaxed);
	atomic_store_explicit(&slab->reverse[slot], (uint32_t)page, memory_order_relaxed);
	return true;
}

/* The same for whatever the word names. */
static bool rebuild_take(struct vswap *vswap, uint64_t page, uint64_t word)
{
	uint64_t owner;

	if (word_has_slot(word))
		return rebuild_take_slot(vswap, page, word);
	return vswap->comp && comp_is_used(vswap->comp, word_payload(word), &owner) && owner == page;
}

/* Objects of the pool that no word names. */
static void rebuild_pool(struct vswap *vswap)
{
	struct comp_usage usage;
	struct comp_object object;
	struct table_look look;
	uint64_t i;

	if (!vswap->comp)
		return;
	comp_forget_retired(vswap->comp);
	comp_pool_usage(vswap->comp, &usage);
	for (i = 0; i < usage.nr_objects && comp_oldest(vswap->comp, &object, 1) == 1; i++) {
		table_look(&vswap->tables, object.owner, &look);
		if (word_tag(look.word) != WORD_COMP || word_payload(look.word) != object.handle)
			comp_free(vswap->comp, object.handle);
	}
}

/* A folio that is not there any more holds nothing. False when nobody holds the entry then. */
static bool rebuild_holders(struct table *table, uint64_t entry, uint64_t *word)
{
	if (word_is_cached(*word) && !swapcache_find(table, entry))
		*word &= ~WORD_CACHED;
	if (word_tag(*word) == WORD_FOLIO && !word_is_cached(*word) && word_count(*word) != 0)
		*word = word_next(*word, WORD_POISON, 0);
	return word_is_cached(*word) || word_count(*word) != 0;
}

/* The number of words of the table that are something. */
static uint32_t rebuild_table(struct rebuild *rebuild, struct table *table, uint64_t first)
{
	uint32_t i, nr = 0;

	for (i = 0; i < TABLE_ENTRIES; i++) {
		uint64_t word = atomic_load_explicit(&table->word[i], memory_order_relaxed);

		/* Nobody is at work: the claim is that of a daemon that has died. */
		if (word_is_claimed(word)) {
			word = word_release(word);
			atomic_store_explicit(&table->word[i], word, memory_order_relaxed);
		}
		if (word_tag(word) == WORD_NONE)
			continue;
		if (!rebuild_holders(table, first + i, &word)) {
			atomic_store_explicit(&table->word[i], word_next(word, WORD_NONE, 0), memory_order_relaxed);
			continue;
		}
		if (word_is_stored(word) && !rebuild_take(rebuild->vswap, first + i, word)) {
			log_error("rebuild: page %llu has lost its place; it reads as an error from now on",
				  (unsigned long long)(first + i));
			word = word_next(word, WORD_POISON, 0);
			rebuild->nr_poisoned++;
		}
		atomic_store_explicit(&table->word[i], word, memory_order_relaxed);
		rebuild->nr_tag[word_tag(word)]++;
		nr++;
	}
	return nr;
}

static void rebuild_tables(struct rebuild *rebuild)
{
	struct table_map *tables = &rebuild->vswap->tables;
	uint64_t page;

	for (page = table_skip_empty(tables, 0); page < tables->nr_pages;
	     page = table_skip_empty(tables, page + TABLE_ENTRIES)) {
		struct table *table = table_lookup(tables, page);
		uint32_t nr = rebuild_table(rebuild, table, page);

		atomic_store(&table->live, nr + 1); /* pinned, so that an empty one is freed as always */
		if (swap_range_is_valid(rebuild->vswap, page, 1) && nr) {
			table->nr_entries = (uint16_t)nr;
			cluster_map_adopt(&rebuild->vswap->clusters, table); /* the pin is the map's */
		} else {
			table_folios_drop(table);
			table_unpin(table, 0);
		}
	}
}

static void rebuild_count_slab(struct slab *slab)
{
	uint32_t i, nr = 0;

	for (i = 0; i < slab->nr_slots / 64; i++)
		nr += (uint32_t)__builtin_popcountll(atomic_load_explicit(&slab->used[i], memory_order_relaxed));
	atomic_store(&slab->nr_used, nr);
}

/* The counts of all queues together are what counts: the first has them all. */
static void rebuild_queues(struct rebuild *rebuild)
{
	unsigned i, tag;

	for (i = 0; i < rebuild->vswap->nr_queues; i++) {
		struct vswap_queue *queue = &rebuild->vswap->queue[i];

		queue->cursor.slab = NULL; /* nobody owns a cluster any more */
		memset(queue->allocating, 0, sizeof(queue->allocating));
		for (tag = 0; tag < WORD_NR_TAGS; tag++)
			atomic_store(&queue->counters.nr_tag[tag], i == 0 ? rebuild->nr_tag[tag] : 0);
	}
}

int vswap_rebuild(struct vswap *vswap, uint64_t *ret_poisoned)
{
	struct rebuild rebuild = { .vswap = vswap };
	const struct slab_list *list;
	int err = -EBUSY;
	uint32_t i;

	lock_acquire(&vswap->lock);
	sys_rcu_read_lock();
	list = atomic_load(&vswap->slabs.list);
	if (rebuild_is_possible(vswap, list)) {
		for (i = 0; i < list->nr; i++)
			rebuild_forget_slab(list->slab[i]);
		cluster_map_forget(&vswap->clusters);
		rebuild_tables(&rebuild);
		for (i = 0; i < list->nr; i++)
			rebuild_count_slab(list->slab[i]);
		rebuild_queues(&rebuild);
		rebuild_pool(vswap);
		atomic_fetch_add(&vswap->slabs.generation, 1);
		*ret_poisoned = rebuild.nr_poisoned;
		err = 0;
	}
	sys_rcu_read_unlock();
	lock_release(&vswap->lock);
	return err;
}

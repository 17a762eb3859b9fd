#include "client/vswap/cluster.h"

#include <errno.h>
#include <string.h>

#define CLUSTER_ROOMY_FREE (TABLE_ENTRIES / 4)
/* Clusters with free entries that are looked at in vain, for an order above 0, before there is said to be no room. */
#define CLUSTER_MAX_TRIES 8u

static uint64_t level_words(uint64_t nr, unsigned level)
{
	unsigned i;

	for (i = 0; i <= level; i++)
		nr = (nr + 63) / 64;
	return nr;
}

static bool cluster_map_manages(const struct cluster_map *map)
{
	return map->nr != 0;
}

static void cluster_map_reset(struct cluster_map *map)
{
	uint64_t bits = map->nr, i;
	unsigned level, order;

	memset(map->region.base, 0, map->region.len_bytes);
	/* What is behind the end of each level counts as used. */
	for (level = 0; level < CLUSTER_LEVELS; level++) {
		for (i = bits; i < level_words(map->nr, level) * 64; i++)
			map->in_use[level][i / 64] |= 1ull << i % 64;
		bits = level_words(map->nr, level);
	}
	for (order = 0; order < CLUSTER_NR_ORDERS; order++) {
		TAILQ_INIT(&map->roomy[order]);
		TAILQ_INIT(&map->tight[order]);
	}
	atomic_store(&map->nr_in_use, 0);
	atomic_store(&map->nr_owned, 0);
}

int cluster_map_init(struct cluster_map *map, struct table_map *tables, uint64_t first, uint64_t nr)
{
	uint64_t nr_words = 0;
	unsigned level;
	int err;

	memset(map, 0, sizeof(*map));
	map->tables = tables;
	map->first = first;
	map->nr = nr;
	lock_mutex_init(&map->lock);
	if (nr == 0)
		return 0;
	for (level = 0; level < CLUSTER_LEVELS; level++)
		nr_words += level_words(nr, level);
	err = mem_region_open(&map->region, nr_words * sizeof(uint64_t), MEM_REGION_TOUCH);
	if (err < 0) {
		lock_mutex_done(&map->lock);
		return err;
	}
	map->in_use[0] = map->region.base;
	for (level = 1; level < CLUSTER_LEVELS; level++)
		map->in_use[level] = map->in_use[level - 1] + level_words(nr, level - 1);
	cluster_map_reset(map);
	return 0;
}

void cluster_map_done(struct cluster_map *map)
{
	if (!map->tables)
		return;
	mem_region_close(&map->region);
	lock_mutex_done(&map->lock);
	map->tables = NULL;
}

/* ---- the bits ---- */

static void bit_set(struct cluster_map *map, uint64_t index)
{
	unsigned level;

	for (level = 0; level < CLUSTER_LEVELS; level++, index /= 64) {
		map->in_use[level][index / 64] |= 1ull << index % 64;
		if (map->in_use[level][index / 64] != ~0ull)
			return;
	}
}

static void bit_clear(struct cluster_map *map, uint64_t index)
{
	unsigned level;

	for (level = 0; level < CLUSTER_LEVELS; level++, index /= 64)
		map->in_use[level][index / 64] &= ~(1ull << index % 64);
}

/* The lowest cluster that is not in use, or UINT64_MAX. Low ones first: so what is used stays together. */
static uint64_t bit_find_clear(const struct cluster_map *map)
{
	unsigned level = CLUSTER_LEVELS;
	uint64_t index = 0;

	while (level-- > 0) {
		uint64_t word = map->in_use[level][index];

		if (word == ~0ull)
			return UINT64_MAX; /* only at the top */
		index = index * 64 + (uint64_t)__builtin_ctzll(~word);
	}
	return index;
}

bool cluster_is_in_use(const struct cluster_map *map, uint64_t cluster)
{
	uint64_t index = cluster - map->first;

	return cluster >= map->first && index < map->nr && (map->in_use[0][index / 64] >> index % 64 & 1);
}

/* ---- the lists ---- */

enum cluster_place cluster_place_for(uint32_t nr_entries)
{
	if (nr_entries == 0)
		return CLUSTER_UNUSED;
	if (nr_entries == TABLE_ENTRIES)
		return CLUSTER_FULL;
	return TABLE_ENTRIES - nr_entries >= CLUSTER_ROOMY_FREE ? CLUSTER_ROOMY : CLUSTER_TIGHT;
}

static enum cluster_place cluster_place(const struct table *table)
{
	return (enum cluster_place)atomic_load_explicit(&table->place, memory_order_relaxed);
}

static struct table_list *cluster_list(struct cluster_map *map, enum cluster_place place, unsigned order)
{
	if (place == CLUSTER_ROOMY)
		return &map->roomy[order];
	return place == CLUSTER_TIGHT ? &map->tight[order] : NULL;
}

static void cluster_set_place(struct cluster_map *map, struct table *table, enum cluster_place to)
{
	if (cluster_place(table) == CLUSTER_OWNED)
		atomic_fetch_sub_explicit(&map->nr_owned, 1, memory_order_relaxed);
	if (to == CLUSTER_OWNED)
		atomic_fetch_add_explicit(&map->nr_owned, 1, memory_order_relaxed);
	atomic_store_explicit(&table->place, (uint8_t)to, memory_order_relaxed);
}

/* Under the map's lock. */
static void cluster_move(struct cluster_map *map, struct table *table, enum cluster_place to)
{
	struct table_list *from_list = cluster_list(map, cluster_place(table), table->order);
	struct table_list *to_list = cluster_list(map, to, table->order);

	if (from_list)
		TAILQ_REMOVE(from_list, table, link);
	if (to_list)
		TAILQ_INSERT_TAIL(to_list, table, link);
	if (to == CLUSTER_UNUSED) {
		bit_clear(map, table->cluster - map->first);
		atomic_fetch_sub_explicit(&map->nr_in_use, 1, memory_order_relaxed);
	}
	cluster_set_place(map, table, to);
}

bool cluster_entries_freed(struct cluster_map *map, struct table *table)
{
	enum cluster_place to = cluster_place_for(table->nr_entries);
	bool given_up = false;

	/* Who owns it puts it where it belongs when he closes it; he needs the cluster's lock for that, which is ours. */
	if (cluster_place(table) == CLUSTER_OWNED || cluster_place(table) == to)
		return false;
	lock_acquire(&map->lock);
	/* Meanwhile somebody may have opened it. */
	if (cluster_place(table) != CLUSTER_OWNED) {
		cluster_move(map, table, to);
		given_up = to == CLUSTER_UNUSED;
	}
	lock_release(&map->lock);
	return given_up;
}

/* ---- opening and closing ---- */

static struct table *cluster_take_first(struct cluster_map *map, struct table_list *list)
{
	struct table *table = TAILQ_FIRST(list);

	if (table)
		cluster_move(map, table, CLUSTER_OWNED);
	return table;
}

static struct table *cluster_open_listed(struct cluster_map *map, struct table_list *list)
{
	struct table *table;

	lock_acquire(&map->lock);
	table = cluster_take_first(map, list);
	lock_release(&map->lock);
	return table;
}

/* A cluster that was not in use. NULL: there is none; or, with *ret_no_table, no table for it. */
static struct table *cluster_open_unused(struct cluster_map *map, bool *ret_no_table)
{
	struct table *table;
	uint64_t index;

	lock_acquire(&map->lock);
	index = bit_find_clear(map);
	if (index != UINT64_MAX) {
		bit_set(map, index);
		atomic_fetch_add_explicit(&map->nr_in_use, 1, memory_order_relaxed);
	}
	lock_release(&map->lock);
	if (index == UINT64_MAX)
		return NULL;
	table = table_pin(map->tables, (map->first + index) << TABLE_SHIFT, true);
	lock_acquire(&map->lock);
	if (table) {
		cluster_set_place(map, table, CLUSTER_OWNED);
	} else { /* nobody has seen it: it is as it was */
		bit_clear(map, index);
		atomic_fetch_sub_explicit(&map->nr_in_use, 1, memory_order_relaxed);
		*ret_no_table = true;
	}
	lock_release(&map->lock);
	return table;
}

/* What was opened for another order: larger ones first, where aligned runs are whole. */
static struct table *cluster_open_other(struct cluster_map *map, unsigned order)
{
	struct table *table = NULL;
	unsigned i;

	lock_acquire(&map->lock);
	for (i = CLUSTER_NR_ORDERS; i-- > 0 && !table;) {
		if (i == order)
			continue;
		table = cluster_take_first(map, &map->roomy[i]);
		if (!table)
			table = cluster_take_first(map, &map->tight[i]);
	}
	lock_release(&map->lock);
	return table;
}

static struct table *cluster_open(struct cluster_map *map, unsigned order, unsigned nr_tries, bool *ret_no_table)
{
	struct table *table = NULL;

	if (order < FOLIO_MAX_ORDER && nr_tries == 0)
		table = cluster_open_listed(map, &map->roomy[order]);
	if (!table)
		table = cluster_open_unused(map, ret_no_table);
	if (!table && order < FOLIO_MAX_ORDER)
		table = cluster_open_listed(map, nr_tries % 2 ? &map->roomy[order] : &map->tight[order]);
	if (!table && order < FOLIO_MAX_ORDER)
		table = cluster_open_other(map, order);
	return table;
}

void cluster_cursor_close(struct cluster_map *map, struct cluster_cursor *cursor)
{
	struct table *table = cursor->table;
	enum cluster_place to;

	if (!table)
		return;
	cursor->table = NULL;
	lock_acquire(&table->lock);
	to = cluster_place_for(table->nr_entries);
	lock_acquire(&map->lock);
	cluster_move(map, table, to);
	lock_release(&map->lock);
	if (table->nr_folios == 0)
		table_folios_drop(table);
	lock_release(&table->lock);
	if (to == CLUSTER_UNUSED)
		table_unpin(table, 0);
}

/* The first aligned run at or after `from`, or TABLE_ENTRIES. */
static uint32_t cluster_scan(const struct table *table, uint32_t from, unsigned order)
{
	uint32_t nr = 1u << order, i;

	for (; from + nr <= TABLE_ENTRIES; from += nr) {
		for (i = 0; i < nr; i++)
			if (word_tag(atomic_load_explicit(&table->word[from + i], memory_order_acquire)) != WORD_NONE)
				break;
		if (i == nr)
			return from;
	}
	return TABLE_ENTRIES;
}

/* The scan has come to the end, but much of what is behind the cursor has become free meanwhile: begins anew. */
static bool cluster_cursor_rewind(struct cluster_cursor *cursor)
{
	enum cluster_place place;

	if (cursor->next == 0)
		return false;
	lock_acquire(&cursor->table->lock);
	place = cluster_place_for(cursor->table->nr_entries);
	lock_release(&cursor->table->lock);
	cursor->next = 0;
	return place == CLUSTER_UNUSED || place == CLUSTER_ROOMY;
}

void cluster_cursors_close(struct cluster_map *map, struct cluster_cursor *cursors)
{
	unsigned order;

	for (order = 0; order < CLUSTER_NR_ORDERS; order++)
		cluster_cursor_close(map, &cursors[order]);
}

static int cluster_cursor_find(struct cluster_map *map, struct cluster_cursor *cursor, unsigned order,
			       struct table **ret_table, uint32_t *ret_offset)
{
	bool no_table = false;
	unsigned nr_tries;
	uint32_t offset;

	for (nr_tries = 0; nr_tries <= CLUSTER_MAX_TRIES; nr_tries++) {
		if (cursor->table) {
			offset = cluster_scan(cursor->table, cursor->next, order);
			if (offset == TABLE_ENTRIES && cluster_cursor_rewind(cursor))
				offset = cluster_scan(cursor->table, 0, order);
			if (offset < TABLE_ENTRIES) {
				cursor->next = offset + (1u << order);
				*ret_table = cursor->table;
				*ret_offset = offset;
				return 0;
			}
			cluster_cursor_close(map, cursor);
		}
		cursor->table = cluster_open(map, order, nr_tries, &no_table);
		if (!cursor->table)
			break;
		cursor->table->order = (uint8_t)order;
		cursor->next = 0;
	}
	cluster_cursor_close(map, cursor);
	return no_table ? -ENOMEM : -ENOSPC;
}

int cluster_find(struct cluster_map *map, struct cluster_cursor *cursors, unsigned order, struct table **ret_table,
		 uint32_t *ret_offset)
{
	int err;

	if (!cluster_map_manages(map))
		return -ENOSPC;
	err = cluster_cursor_find(map, &cursors[order], order, ret_table, ret_offset);
	if (BASE_LIKELY(err != -ENOSPC))
		return err;
	cluster_cursors_close(map, cursors);
	err = cluster_cursor_find(map, &cursors[order], order, ret_table, ret_offset);
	if (err == -ENOSPC && atomic_load_explicit(&map->nr_owned, memory_order_relaxed) != 0)
		return -EAGAIN;
	return err;
}

/* ---- from the words alone ---- */

void cluster_map_forget(struct cluster_map *map)
{
	if (cluster_map_manages(map))
		cluster_map_reset(map);
}

void cluster_map_adopt(struct cluster_map *map, struct table *table)
{
	bit_set(map, table->cluster - map->first);
	atomic_fetch_add_explicit(&map->nr_in_use, 1, memory_order_relaxed);
	/* For it is on no list yet, whatever it says. */
	atomic_store_explicit(&table->place, CLUSTER_UNUSED, memory_order_relaxed);
	cluster_set_place(map, table, CLUSTER_OWNED);
	cluster_move(map, table, cluster_place_for(table->nr_entries));
}

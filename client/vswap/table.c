/*
 * Ordering. `live` decides a table's life: pins and counts go up only while it is not TABLE_DEAD (a compare-and-swap), and
 * the one thread that swings it from 0 to TABLE_DEAD unpublishes the table. Words are published with release (table_swing_word:
 * by a sequentially consistent compare-and-swap, since the retirement of the old slot must not be ordered before it) and read
 * with acquire, so that a word's checksum is there when the word is.
 *
 * Waiting. The waiter counts itself, then looks at the word again; the owner publishes the word, then looks at the count.
 * Both in sequentially consistent order, so at least one of the two sees the other.
 */
#include "client/vswap/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/tsan.h"

/* Tables of one region: few at first, then a sixteenth of what there is, so that neither waste nor mappings pile up. */
#define TABLE_REGION_MIN 16u
#define TABLE_REGION_MAX 4096u

static size_t table_stride(void)
{
	return base_align_up(sizeof(struct table), FSW_CACHE_LINE);
}

static void table_give(struct table_map *map, struct table *table)
{
	cds_lfs_node_init(&table->free_link);
	atomic_fetch_add_explicit(&map->nr_free, 1, memory_order_relaxed);
	sys_tsan_release(&table->free_link); /* the push and the pop are full barriers, which TSan does not see */
	cds_lfs_push(&map->free, &table->free_link);
}

bool table_is_coming(const struct table_map *map)
{
	/* In this order: a table is counted as free before it is no longer counted as returning. */
	return atomic_load(&map->nr_returning) != 0 || atomic_load(&map->nr_free) != 0;
}

static int table_region_open(struct table_map *map, struct table_region *region, uint64_t nr)
{
	if (map->state)
		return state_items_add(map->state, nr, &region->region);
	return mem_region_open(&region->region, nr * table_stride(), MEM_REGION_TOUCH);
}

int table_refill(struct table_map *map)
{
	int err = 0;

	lock_acquire(&map->refill_lock);
	while (atomic_load_explicit(&map->nr_free, memory_order_relaxed) < map->reserve) {
		struct table_region *region = calloc(1, sizeof(*region));
		uint64_t nr = atomic_load_explicit(&map->reserved_bytes, memory_order_relaxed) / table_stride() / 16;
		uint64_t i;

		nr = base_max_u64(TABLE_REGION_MIN, base_min_u64(TABLE_REGION_MAX, nr));
		if (map->state)
			nr = base_align_up(nr, STATE_ITEMS_UNIT);
		err = region ? table_region_open(map, region, nr) : -ENOMEM;
		if (err < 0) {
			free(region);
			break;
		}
		for (i = 0; i < nr; i++) {
			struct table *table = (void *)((char *)region->region.base + i * table_stride());

			table->map = map;
			table_give(map, table);
		}
		atomic_fetch_add_explicit(&map->reserved_bytes, region->region.len_bytes, memory_order_relaxed);
		region->next = map->regions;
		map->regions = region;
	}
	lock_release(&map->refill_lock);
	return err;
}

/* From the reserve; the caller is in a read-side section, which is what makes the lock-free pop safe. */
static struct table *table_take(struct table_map *map)
{
	struct cds_lfs_node *node = __cds_lfs_pop(&map->free);

	if (!node)
		return NULL;
	sys_tsan_acquire(node);
	/* Before anything is written to where words were: see table_is_left. */
	atomic_store_explicit(&BASE_CONTAINER_OF(node, struct table, free_link)->kind, 0, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	if (atomic_fetch_sub_explicit(&map->nr_free, 1, memory_order_relaxed) == map->reserve / 2 + 1 && map->low)
		map->low(map->low_arg);
	return BASE_CONTAINER_OF(node, struct table, free_link);
}

static void table_give_after_grace(struct sys_rcu_head *head)
{
	struct table *table = BASE_CONTAINER_OF(head, struct table, rcu);
	struct table_map *map = table->map; /* once it is given, the table is somebody else's */

	table_give(map, table);
	atomic_fetch_sub(&map->nr_returning, 1);
}

/* A lock-free stack may see the same node again only after a grace period. */
static void table_return(struct table_map *map, struct table *table)
{
	atomic_fetch_add(&map->nr_returning, 1);
	atomic_fetch_sub_explicit(&map->nr_tables, 1, memory_order_relaxed);
	sys_rcu_call(&table->rcu, table_give_after_grace);
}

static struct table_node *table_node_get(struct table_map *map, uint64_t cluster, bool allocate)
{
	_Atomic(struct table_node *) *place = &map->root[cluster >> TABLE_NODE_SHIFT];
	struct table_node *node = atomic_load_explicit(place, memory_order_acquire);
	struct table *memory;

	if (node || !allocate)
		return node;
	memory = table_take(map);
	if (!memory)
		return NULL;
	atomic_fetch_add_explicit(&map->nr_tables, 1, memory_order_relaxed);
	memset(memory, 0, sizeof(struct table_node));
	if (atomic_compare_exchange_strong(place, &node, (struct table_node *)memory))
		return (struct table_node *)memory;
	table_return(map, memory);
	return node;
}

/* Everything of a table that does not outlive a daemon. `live` comes last: see table_find. */
static void table_init_rest(struct table *table, uint32_t live)
{
	atomic_store_explicit(&table->nr_waiters, 0, memory_order_relaxed);
	lock_mutex_init(&table->lock);
	TAILQ_INIT(&table->waiters);
	atomic_store_explicit(&table->folios, NULL, memory_order_relaxed);
	table->nr_folios = 0;
	table->nr_entries = 0;
	atomic_store_explicit(&table->place, 0, memory_order_relaxed);
	atomic_fetch_add_explicit(&table->life, 1, memory_order_relaxed);
	atomic_store_explicit(&table->live, live, memory_order_release);
}

static struct table *table_new(struct table_map *map, uint64_t cluster)
{
	struct table *table = table_take(map);
	unsigned i;

	if (!table)
		return NULL;
	atomic_fetch_add_explicit(&map->nr_tables, 1, memory_order_relaxed);
	for (i = 0; i < TABLE_ENTRIES; i++) {
		atomic_store_explicit(&table->word[i], 0, memory_order_relaxed);
		atomic_store_explicit(&table->checksum[i], 0, memory_order_relaxed);
	}
	table->cluster = (uint32_t)cluster;
	table_init_rest(table, 1); /* the pin of who asks */
	atomic_store_explicit(&table->kind, TABLE_KIND, memory_order_release);
	return table;
}

/* ---- tables that a dead daemon has left ---- */

TAILQ_HEAD(table_list, table);

/* Whether it is one, and not empty. A daemon that dies may leave anything but words in it. */
static bool table_is_left(const struct table *table)
{
	uint64_t words = 0;

	if (atomic_load_explicit(&table->kind, memory_order_relaxed) != TABLE_KIND)
		return false;
	for (unsigned i = 0; i < TABLE_ENTRIES && words == 0; i++)
		words = word_tag(atomic_load_explicit(&table->word[i], memory_order_relaxed)) != WORD_NONE;
	return words != 0;
}

/* Sorts the memory that is there into tables and what is free. */
static int table_map_left(struct table_map *map, uint64_t nr, struct table_list *ret_left)
{
	struct table_region *region = calloc(1, sizeof(*region));
	int err = region ? state_items_map(map->state, nr, &region->region) : -ENOMEM;

	if (err < 0) {
		free(region);
		return err;
	}
	region->next = map->regions;
	map->regions = region;
	atomic_fetch_add_explicit(&map->reserved_bytes, region->region.len_bytes, memory_order_relaxed);
	for (uint64_t i = 0; i < nr; i++) {
		struct table *table = (void *)((char *)region->region.base + i * table_stride());

		table->map = map;
		if (table_is_left(table))
			TAILQ_INSERT_TAIL(ret_left, table, link);
		else
			table_give(map, table);
	}
	return 0;
}

static int table_adopt(struct table_map *map, struct table *table)
{
	uint64_t cluster = table->cluster;
	_Atomic(struct table *) *place;
	struct table_node *node = NULL;
	uint32_t nr_live = 0;
	int err = 0;

	if (cluster >= (map->nr_pages + TABLE_ENTRIES - 1) >> TABLE_SHIFT)
		return -EUCLEAN;
	while (err == 0 && !(node = table_node_get(map, cluster, true)))
		err = table_refill(map);
	if (err < 0)
		return err;
	place = &node->table[cluster & (TABLE_NODE_FANOUT - 1)];
	if (atomic_load_explicit(place, memory_order_relaxed))
		return -EUCLEAN;
	for (unsigned i = 0; i < TABLE_ENTRIES; i++)
		nr_live += word_tag(atomic_load_explicit(&table->word[i], memory_order_relaxed)) != WORD_NONE;
	table_init_rest(table, nr_live);
	atomic_fetch_add_explicit(&map->nr_tables, 1, memory_order_relaxed);
	atomic_store_explicit(place, table, memory_order_release);
	return 0;
}

static int table_map_adopt(struct table_map *map)
{
	struct table_list left = TAILQ_HEAD_INITIALIZER(left);
	struct table *table;
	uint64_t nr = 0;
	int err = state_items_begin(map->state, table_stride(), &nr);

	if (err == 0 && nr > 0)
		err = table_map_left(map, nr, &left);
	while (err == 0 && (table = TAILQ_FIRST(&left))) {
		TAILQ_REMOVE(&left, table, link);
		err = table_adopt(map, table);
	}
	return err;
}

/* ---- the map ---- */

int table_map_init(struct table_map *map, uint64_t nr_pages, uint32_t reserve, struct state *state)
{
	uint64_t nr_clusters = (nr_pages + TABLE_ENTRIES - 1) >> TABLE_SHIFT;
	int err;

	memset(map, 0, sizeof(*map));
	map->nr_pages = nr_pages;
	map->nr_nodes = (uint32_t)((nr_clusters + TABLE_NODE_FANOUT - 1) >> TABLE_NODE_SHIFT);
	map->reserve = reserve;
	map->state = state;
	lock_mutex_init(&map->refill_lock);
	cds_lfs_init(&map->free);
	err = mem_region_open(&map->root_region, map->nr_nodes * sizeof(*map->root), MEM_REGION_TOUCH);
	if (err < 0)
		goto fail_lock;
	map->root = map->root_region.base;
	if (state)
		err = table_map_adopt(map);
	if (err == 0)
		err = table_refill(map);
	if (err < 0)
		goto fail_root;
	return 0;

fail_root:
	table_map_done(map);
	return err;
fail_lock:
	lock_mutex_done(&map->refill_lock);
	cds_lfs_destroy(&map->free);
	return err;
}

void table_map_done(struct table_map *map) LOCK_NO_ANALYSIS
{
	struct table_region *region;

	sys_rcu_barrier();
	while ((region = map->regions) != NULL) {
		map->regions = region->next;
		mem_region_close(&region->region);
		free(region);
	}
	mem_region_close(&map->root_region);
	cds_lfs_destroy(&map->free);
	lock_mutex_done(&map->refill_lock);
}

/* ---- tables in use ---- */

struct table_folios *table_folios_get(struct table *table)
{
	struct table_folios *folios = atomic_load_explicit(&table->folios, memory_order_relaxed);
	struct table *memory;

	if (BASE_LIKELY(folios))
		return folios;
	memory = table_take(table->map);
	if (!memory)
		return NULL;
	atomic_fetch_add_explicit(&table->map->nr_tables, 1, memory_order_relaxed);
	folios = (struct table_folios *)memory;
	memset(folios, 0, sizeof(*folios));
	atomic_store_explicit(&table->folios, folios, memory_order_release);
	return folios;
}

void table_folios_drop(struct table *table)
{
	struct table_folios *folios = atomic_load_explicit(&table->folios, memory_order_relaxed);

	if (!folios)
		return;
	atomic_store_explicit(&table->folios, NULL, memory_order_relaxed);
	table_return(table->map, (struct table *)folios);
}

struct table *table_pin_or_new(struct table_map *map, uint64_t page, bool allocate)
{
	uint64_t cluster = page >> TABLE_SHIFT;
	struct table_node *node = table_node_get(map, cluster, allocate);
	_Atomic(struct table *) *place;
	struct table *table, *fresh;

	if (!node)
		return NULL;
	place = &node->table[cluster & (TABLE_NODE_FANOUT - 1)];
	table = atomic_load_explicit(place, memory_order_acquire);
	for (;;) {
		if (table && table_try_pin(table))
			return table;
		if (!allocate)
			return NULL;
		/* None, or one that is just being unpublished: in its place comes a new one. */
		fresh = table_new(map, cluster);
		if (!fresh)
			return NULL;
		if (atomic_compare_exchange_strong(place, &table, fresh))
			return fresh;
		table_return(map, fresh);
	}
}

static void table_free(struct table *table)
{
	struct table_map *map = table->map;
	uint64_t cluster = table->cluster;
	struct table_node *node = atomic_load_explicit(&map->root[cluster >> TABLE_NODE_SHIFT], memory_order_acquire);
	struct table *expected = table;

	/* Fails when a successor has been put in its place already. */
	atomic_compare_exchange_strong(&node->table[cluster & (TABLE_NODE_FANOUT - 1)], &expected, NULL);
	table_return(map, table);
}

void table_unpin(struct table *table, int32_t nr_delta)
{
	uint32_t change = (uint32_t)(nr_delta - 1), live, dead = 0;

	live = atomic_fetch_add_explicit(&table->live, change, memory_order_acq_rel) + change;
	assert(!(live & TABLE_DEAD));
	if (live == 0 && atomic_compare_exchange_strong(&table->live, &dead, TABLE_DEAD))
		table_free(table);
}

struct table *table_walk(const struct table_map *map, struct table_recent *recent, uint64_t page)
{
	struct table *table = table_lookup(map, page);

	if (table) {
		recent->table = table;
		recent->cluster = page >> TABLE_SHIFT;
		recent->life = atomic_load_explicit(&table->life, memory_order_relaxed);
	}
	return table;
}

uint64_t table_skip_empty(const struct table_map *map, uint64_t page)
{
	while (page < map->nr_pages) {
		uint64_t cluster = page >> TABLE_SHIFT;
		const struct table_node *node =
			atomic_load_explicit(&map->root[cluster >> TABLE_NODE_SHIFT], memory_order_acquire);

		if (!node) {
			page = ((cluster >> TABLE_NODE_SHIFT) + 1) << (TABLE_NODE_SHIFT + TABLE_SHIFT);
			continue;
		}
		if (atomic_load_explicit(&node->table[cluster & (TABLE_NODE_FANOUT - 1)], memory_order_acquire))
			return page;
		page = (cluster + 1) << TABLE_SHIFT;
	}
	return page;
}

bool table_wait(struct table *table, uint64_t page, struct io_waiter *waiter)
{
	bool waits;

	lock_acquire(&table->lock);
	waiter->page = page;
	TAILQ_INSERT_TAIL(&table->waiters, waiter, link);
	atomic_fetch_add(&table->nr_waiters, 1);
	waits = word_is_claimed(atomic_load(table_word(table, page)));
	if (!waits) {
		TAILQ_REMOVE(&table->waiters, waiter, link);
		atomic_fetch_sub(&table->nr_waiters, 1);
	}
	lock_release(&table->lock);
	return waits;
}

void table_wake(struct table *table, uint64_t page)
{
	struct io_waiter *waiter, *next;

	lock_acquire(&table->lock);
	for (waiter = TAILQ_FIRST(&table->waiters); waiter; waiter = next) {
		next = TAILQ_NEXT(waiter, link);
		if (waiter->page != page)
			continue;
		TAILQ_REMOVE(&table->waiters, waiter, link);
		atomic_fetch_sub(&table->nr_waiters, 1);
		sys_reactor_send(waiter->reactor, &waiter->wake);
	}
	lock_release(&table->lock);
}

bool table_lock_and_swing(struct table *table, uint64_t page, uint64_t old, uint64_t fresh)
{
	bool done;

	lock_acquire(&table->lock);
	done = table_swing_word(table, page, old, fresh);
	lock_release(&table->lock);
	return done;
}

/*
 * The cluster tables: forward words and checksums of 512 entries each, allocated when a cluster is first used and freed
 * when it is empty.
 *
 * Lookups are lock-free and safe inside an RCU read-side section (a reactor's turn). Who changes words holds a pin on the
 * table; a table that nobody pins and whose words are all NONE is unpublished, and its memory used again after a grace
 * period. So a reader finds no table or a table of NONE, never another cluster's words.
 *
 * Memory comes from a reserve that a control thread fills (table_refill); the data path only takes from it.
 *
 * With a state file (client/state) that memory lies in it, and the tables of a daemon that was killed are found again: what
 * is used as a table says so (`kind`), from when its words have been cleared until it is taken from the reserve anew.
 */
#ifndef FARSWAP_CLIENT_VSWAP_TABLE_H
#define FARSWAP_CLIENT_VSWAP_TABLE_H

#include <stdatomic.h>
#include <sys/queue.h>

#include <urcu/lfstack.h>

#include "client/io.h"
#include "client/state/state.h"
#include "client/vswap/word.h"
#include "common/base/base.h"
#include "common/base/lock.h"
#include "common/mem/region.h"
#include "common/sys/rcu.h"
#include "common/sys/reactor.h"

#define TABLE_SHIFT 9
#define TABLE_ENTRIES (1u << TABLE_SHIFT)
#define TABLE_KIND 0x7461626cu
#define TABLE_DEAD 0x80000000u

TAILQ_HEAD(io_waiter_list, io_waiter);

struct folio;

/* The swap cache of one cluster: the folio that stands for each entry, or NULL. It is there while there is one. */
struct table_folios {
	_Atomic(struct folio *) folio[TABLE_ENTRIES];
};

struct table {
	_Atomic uint64_t word[TABLE_ENTRIES];
	_Atomic uint32_t checksum[TABLE_ENTRIES]; /* CRC32C of what the page held; meaningful with a slot */
	/* Words that are not NONE, plus pins; TABLE_DEAD from when it is unpublished until it is a table again. */
	_Atomic uint32_t live;
	_Atomic uint32_t nr_waiters;
	uint32_t cluster;
	/* The cluster's lock. For a block device, it is taken only where two operations meet on one entry. */
	struct lock_mutex lock;
	struct io_waiter_list waiters;
	/* Of entries that are allocated: see cluster.h and swapcache.h. */
	_Atomic(struct table_folios *) folios;
	uint16_t nr_folios;  /* entries in the cache */
	uint16_t nr_entries; /* words that are not NONE */
	uint8_t order;	     /* of the allocations that it was last opened for */
	_Atomic uint8_t place; /* enum cluster_place; changes under the lock of the map of clusters */
	_Atomic uint32_t kind; /* TABLE_KIND, or not a table (now) */
	_Atomic uint32_t life; /* how often it has been made a table: another number each time */
	TAILQ_ENTRY(table) link;
	struct sys_rcu_head rcu;
	struct cds_lfs_node free_link;
	struct table_map *map; /* set when the memory came, and never again */
};

#define TABLE_NODE_SHIFT 9 /* tables under one node of the directory */
#define TABLE_NODE_FANOUT (1u << TABLE_NODE_SHIFT)

struct table_node {
	_Atomic(struct table *) table[TABLE_NODE_FANOUT];
};

static_assert(sizeof(struct table_node) <= offsetof(struct table, live), "both come from one reserve, and the map stays");
static_assert(sizeof(struct table_folios) <= offsetof(struct table, live), "and so do these");

struct table_region {
	struct mem_region region;
	struct table_region *next;
};

struct table_map {
	_Atomic(struct table_node *) *root;
	struct mem_region root_region;
	uint64_t nr_pages;
	uint32_t nr_nodes;
	struct cds_lfs_stack free; /* popped inside read-side sections, pushed after a grace period */
	_Atomic uint32_t nr_free;
	_Atomic uint32_t nr_returning; /* freed, and waiting for the end of their grace period */
	_Atomic uint32_t nr_tables; /* in use, nodes included */
	uint32_t reserve;
	struct state *state; /* where the memory comes from; NULL: from the system */
	/* The reserve has become half used. Called by who took the table, in its read-side section. NULL: nobody asks. */
	void (*low)(void *arg);
	void *low_arg;
	struct lock_mutex refill_lock;
	struct table_region *regions LOCK_GUARDED_BY(refill_lock);
	_Atomic uint64_t reserved_bytes;
};

/*
 * Control thread. state: NULL, or the file that the tables are to lie in, and the tables that are in it already: their words
 * are those of a daemon that has died, and what is derived from them is not there yet (vswap_rebuild). 0; -ENOMEM; -EUCLEAN:
 * the file is damaged.
 */
int table_map_init(struct table_map *map, uint64_t nr_pages, uint32_t reserve, struct state *state) BASE_MUST_CHECK;
/* Nothing runs any more. Waits for frees that are under way. */
void table_map_done(struct table_map *map);

/* Control thread: fills the reserve up. 0 or -ENOMEM. */
int table_refill(struct table_map *map) BASE_MUST_CHECK;
/* A table that was not there a moment ago is there now, or will be after a grace period. */
bool table_is_coming(const struct table_map *map);

/* The table of a page, or NULL when the whole cluster is NONE. Read-side section. */
static inline struct table *table_lookup(const struct table_map *map, uint64_t page)
{
	uint64_t cluster = page >> TABLE_SHIFT;
	struct table_node *node = atomic_load_explicit(&map->root[cluster >> TABLE_NODE_SHIFT], memory_order_acquire);

	if (BASE_UNLIKELY(!node))
		return NULL;
	return atomic_load_explicit(&node->table[cluster & (TABLE_NODE_FANOUT - 1)], memory_order_acquire);
}

/* What a thread has looked up last, so that the next lookup in the same cluster does not walk. All zeros: nothing. */
struct table_recent {
	struct table *table;
	uint64_t cluster;
	uint32_t life;
};

/* The same by way of the directory, and remembers it. */
struct table *table_walk(const struct table_map *map, struct table_recent *recent, uint64_t page);

/*
 * table_lookup of who has looked up before; `recent` is the thread's own, and of no other map. Read-side section.
 *
 * A table is remembered that the directory had. It is that of its cluster as long as it lives that life: a successor comes only
 * when it is dead, and its memory is another table only after a grace period, with another number then, which is there when
 * `live` is no longer TABLE_DEAD.
 */
static inline struct table *table_find(const struct table_map *map, struct table_recent *recent, uint64_t page)
{
	struct table *table = recent->table;

	if (BASE_LIKELY(table && recent->cluster == page >> TABLE_SHIFT) &&
	    BASE_LIKELY(!(atomic_load_explicit(&table->live, memory_order_acquire) & TABLE_DEAD)) &&
	    BASE_LIKELY(atomic_load_explicit(&table->life, memory_order_relaxed) == recent->life))
		return table;
	return table_walk(map, recent, page);
}

/*
 * First page at or after `page` whose cluster may have a table; skips whole nodes that were never used. May be beyond the
 * device's end. Read-side section.
 */
uint64_t table_skip_empty(const struct table_map *map, uint64_t page);

/* False: it is dying. Read-side section. */
static inline bool table_try_pin(struct table *table)
{
	uint32_t live = atomic_load_explicit(&table->live, memory_order_relaxed);

	do {
		if (live & TABLE_DEAD)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&table->live, &live, live + 1, memory_order_acquire,
							memory_order_relaxed));
	return true;
}

/* The rest of table_pin, when its look has found none, or one that is dying: looks again, and makes one with `allocate`. */
struct table *table_pin_or_new(struct table_map *map, uint64_t page, bool allocate);

/*
 * Pins the table of a page so that its words may be changed. With `allocate`, makes it if there is none; NULL then means
 * that the reserve is empty (-ENOMEM to the caller), else that there is no table. Read-side section; the pin outlives it.
 */
static inline struct table *table_pin(struct table_map *map, uint64_t page, bool allocate)
{
	struct table *table = table_lookup(map, page);

	return BASE_LIKELY(table && table_try_pin(table)) ? table : table_pin_or_new(map, page, allocate);
}

/*
 * The array of the cluster's folios, made of a table of the reserve if there is none. NULL: the reserve is empty. Under the
 * cluster's lock, in a read-side section.
 */
struct table_folios *table_folios_get(struct table *table);
/* Gives it back, after a grace period. No folio is in it. Under the cluster's lock. */
void table_folios_drop(struct table *table);

/*
 * Books a change in the number of words that are not NONE, of a table that the caller pins and goes on pinning. A word that
 * becomes something is booked before it is published, one that becomes NONE after: else a discard by somebody else, who
 * books what it took away, would make `live` say that the table is empty while it is pinned.
 */
static inline void table_book(struct table *table, int32_t nr_delta)
{
	atomic_fetch_add_explicit(&table->live, (uint32_t)nr_delta, memory_order_relaxed);
}

/*
 * Gives one pin back and books the words that have become NONE meanwhile: nr_delta is minus their number. Frees the table
 * when nothing is left.
 */
void table_unpin(struct table *table, int32_t nr_delta);

static inline _Atomic uint64_t *table_word(struct table *table, uint64_t page)
{
	return &table->word[page & (TABLE_ENTRIES - 1)];
}

static inline _Atomic uint32_t *table_checksum(struct table *table, uint64_t page)
{
	return &table->checksum[page & (TABLE_ENTRIES - 1)];
}

/* An entry as it was at one moment: a word and the checksum that belongs to it. */
struct table_look {
	struct table *table; /* NULL: the whole cluster is NONE */
	uint64_t word;
	uint32_t checksum;
};

/*
 * table: what a lookup of the page has found. Read-side section. A word and a checksum belong together when the word is the
 * same before and after the checksum was read: who changes the checksum has the entry claimed from before until after.
 */
static inline void table_look_in(struct table *table, uint64_t page, struct table_look *ret_look)
{
	uint64_t word = 0;

	ret_look->table = table;
	ret_look->checksum = 0;
	if (table) {
		_Atomic uint64_t *place = table_word(table, page);

		do {
			word = atomic_load_explicit(place, memory_order_acquire);
			ret_look->checksum = atomic_load_explicit(table_checksum(table, page), memory_order_relaxed);
			atomic_thread_fence(memory_order_acquire);
		} while (BASE_UNLIKELY(atomic_load_explicit(place, memory_order_relaxed) != word));
	}
	ret_look->word = word;
}

static inline void table_look(const struct table_map *map, uint64_t page, struct table_look *ret_look)
{
	table_look_in(table_lookup(map, page), page, ret_look);
}

/*
 * Queues on an entry that was seen claimed. True: the waiter will be sent to its reactor once. False: the entry is no longer
 * claimed, look again. Read-side section (the table cannot go while the entry is claimed: its owner pins it).
 */
bool table_wait(struct table *table, uint64_t page, struct io_waiter *waiter) BASE_MUST_CHECK;

/* Wakes who queues on the entry. Takes the cluster's lock. */
void table_wake(struct table *table, uint64_t page);

/* table_swing's own: for the entries of a block device, or under the cluster's lock. */
static inline BASE_MUST_CHECK bool table_swing_word(struct table *table, uint64_t page, uint64_t old, uint64_t fresh)
{
	_Atomic uint64_t *place = table_word(table, page);
	uint64_t seen = old;

	/* Sequentially consistent: the epoch is read after it. */
	while (!atomic_compare_exchange_strong(place, &seen, word_with_holders(fresh, seen)))
		if (!word_is_same_backing(seen, old))
			return false;
	return true;
}

/* The same, and takes the lock for it. */
bool table_lock_and_swing(struct table *table, uint64_t page, uint64_t old, uint64_t fresh) BASE_MUST_CHECK;

/*
 * Changes what backs an entry that has something behind it, from exactly what `old` says to what `fresh` does; whoever holds
 * it goes on holding it, also who has begun to meanwhile. False when the backing is no longer that of `old`. After it, a
 * load of the I/O epoch sees no older value than any reader that could have seen the old word.
 *
 * The caller pins the table, or is in a read-side section: in a table that has gone no word has a backing any more. For entries
 * that are allocated it takes the cluster's lock, under which the last holder's put needs no atomic operation per entry then.
 */
static inline BASE_MUST_CHECK bool table_swing(struct table *table, uint64_t page, uint64_t old, uint64_t fresh)
{
	/* A block device's entries: nobody has the lock to change them. */
	if (BASE_LIKELY(atomic_load_explicit(&table->place, memory_order_relaxed) == 0))
		return table_swing_word(table, page, old, fresh);
	return table_lock_and_swing(table, page, old, fresh);
}

/* The same for an entry that the caller has claimed; ends the claim and wakes who queues on it. The caller pins the table. */
static inline void table_publish(struct table *table, uint64_t page, uint64_t old, uint64_t fresh)
{
	bool swung = table_swing(table, page, old, fresh);

	assert(swung && word_is_claimed(old) && !word_is_claimed(fresh));
	(void)swung;
	if (BASE_UNLIKELY(atomic_load(&table->nr_waiters) != 0))
		table_wake(table, page);
}

#endif

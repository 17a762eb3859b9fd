/*
 * Which clusters have entries to allocate: the virtual side of what slab.h is for slots.
 *
 * A cluster in use is owned by one queue, which allocates from it; or it has free entries and is on a list, by the order of the
 * allocations that it was opened for and by how many are free; or it is full and on none. So a cluster in which entries
 * became free is found without looking at any other. A cluster that is not in use has no table and costs one bit.
 *
 * Threads: a cursor belongs to its queue; the lists have a lock, taken once per cluster opened, closed, or moved from list to
 * list. Lock order: a cluster's lock, then the map's. A cluster in use is pinned by the map.
 */
#ifndef FARSWAP_CLIENT_VSWAP_CLUSTER_H
#define FARSWAP_CLIENT_VSWAP_CLUSTER_H

#include "client/vswap/swap.h"
#include "client/vswap/table.h"

#define CLUSTER_NR_ORDERS (FOLIO_MAX_ORDER + 1u)
#define CLUSTER_LEVELS 4u /* 64^4 clusters are 2^33 entries */

enum cluster_place {
	CLUSTER_UNUSED, /* no entry of it is allocated, and nobody owns it */
	CLUSTER_OWNED,
	CLUSTER_ROOMY, /* a quarter of it or more is free */
	CLUSTER_TIGHT,
	CLUSTER_FULL,
};

TAILQ_HEAD(table_list, table);

struct cluster_map {
	struct table_map *tables;
	uint64_t first; /* cluster number; those before it are a block device's, or none */
	uint64_t nr;
	struct lock_mutex lock;
	struct mem_region region;
	/* A bit per cluster in use; above it a bit per word of 64 that are all set, and so on. */
	uint64_t *in_use[CLUSTER_LEVELS];
	struct table_list roomy[CLUSTER_NR_ORDERS];
	struct table_list tight[CLUSTER_NR_ORDERS];
	_Atomic uint64_t nr_in_use;
	_Atomic uint64_t nr_owned; /* of these */
};

/* Where a queue allocates entries of one order. */
struct cluster_cursor {
	struct table *table; /* NULL: it owns none */
	uint32_t next;
};

/* Clusters first .. first + nr - 1; nr may be 0. 0 or -ENOMEM. Control thread. */
int cluster_map_init(struct cluster_map *map, struct table_map *tables, uint64_t first, uint64_t nr) BASE_MUST_CHECK;
/* Nothing runs any more. Accepts one that was never made. */
void cluster_map_done(struct cluster_map *map);

/*
 * Finds 2^order free entries in a row, aligned, in a cluster that the queue owns, and moves its cursor behind them. They are
 * free until the caller changes their words: nobody else allocates there. cursors are those of one queue, one per order; when
 * nothing else is left, the queue gives up what it owns for other orders.
 *
 * 0; -ENOSPC, -ENOMEM as folio_alloc_swap; -EAGAIN: nothing is left but, perhaps, in clusters that other queues own. Read-side
 * section.
 */
int cluster_find(struct cluster_map *map, struct cluster_cursor *cursors, unsigned order, struct table **ret_table,
		 uint32_t *ret_offset) BASE_MUST_CHECK;

/*
 * Entries of the table have become free; the caller has taken them off nr_entries, and pins the table. Under the cluster's
 * lock. True: the map has given the cluster up, and the caller gives the map's pin back (table_unpin).
 */
bool cluster_entries_freed(struct cluster_map *map, struct table *table) BASE_MUST_CHECK;

/* Gives the cursor's cluster back, so that others may allocate from it. Read-side section. */
void cluster_cursor_close(struct cluster_map *map, struct cluster_cursor *cursor);
/* All of a queue's. */
void cluster_cursors_close(struct cluster_map *map, struct cluster_cursor *cursors);

/* ---- vswap_check and vswap_rebuild: nobody is at work ---- */

bool cluster_is_in_use(const struct cluster_map *map, uint64_t cluster);
/* Where a cluster with so many entries belongs that nobody owns. */
enum cluster_place cluster_place_for(uint32_t nr_entries);
/* Forgets everything but the tables. */
void cluster_map_forget(struct cluster_map *map);
/* Takes a table in again by its nr_entries, which is not 0; the caller pins it for the map. */
void cluster_map_adopt(struct cluster_map *map, struct table *table);

#endif

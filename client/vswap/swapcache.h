/*
 * The swap cache, as the rest of the room sees it. What swap.h says of it is implemented in swapcache.c and freeing.c.
 *
 * An entry's cached bit is set exactly while the cluster's array of folios names one for it; both change under the cluster's
 * lock. Lookups take no lock.
 */
#ifndef FARSWAP_CLIENT_VSWAP_SWAPCACHE_H
#define FARSWAP_CLIENT_VSWAP_SWAPCACHE_H

#include "client/vswap/internal.h"

/* The folio that stands for an entry, without a reference. table: what a lookup of it has found. Read-side section. */
struct folio *swapcache_find(struct table *table, uint64_t entry);

/* Whether [entry, entry + nr) are entries that can be allocated. */
bool swap_range_is_valid(const struct vswap *vswap, uint64_t entry, uint64_t nr);

/* An entry outside the cache, held once, a page of zeros. 0, -ENOSPC, -ENOMEM. */
int swap_alloc_held(struct vswap_queue *queue, swp_entry_t *ret_entry) BASE_MUST_CHECK;

/*
 * Some entries of the folio may have lost their last holder: drops it from the cache when all have, and it is clean. The caller
 * has it locked, and a reference.
 */
void swapcache_drop_unheld(struct vswap_queue *queue, struct folio *folio);

/* ---- count.c ---- */

/* Holders beyond what a word can count. */
struct count_map;

int count_map_create(struct count_map **ret_map) BASE_MUST_CHECK;
void count_map_free(struct count_map *map);

/*
 * One holder more for a live entry that had at least `floor`. 0, -ENOENT, -EOVERFLOW. The caller keeps the entry, or the folio
 * that stands for it, from going. Takes the table's lock only when the word is full.
 */
int swap_count_up(struct vswap *vswap, struct table *table, uint64_t entry, unsigned floor) BASE_MUST_CHECK;
/* The same for nr entries of the table, all or none. */
int swap_count_up_run(struct vswap *vswap, struct table *table, uint64_t entry, uint32_t nr, unsigned floor) BASE_MUST_CHECK;
/* One less, of one that has some and will have some, or is in the cache. Under the table's lock. The word that is there now. */
uint64_t swap_count_down(struct vswap *vswap, struct table *table, uint64_t entry);
uint32_t swap_count(struct vswap *vswap, struct table *table, uint64_t entry);

#endif

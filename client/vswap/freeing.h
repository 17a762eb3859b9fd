/*
 * How entries are freed that have neither holder nor folio any more: many of one table with one lock, one I/O epoch and a few
 * runs of slots.
 */
#ifndef FARSWAP_CLIENT_VSWAP_FREEING_H
#define FARSWAP_CLIENT_VSWAP_FREEING_H

#include "client/vswap/internal.h"

/* What becomes of freed entries of one table: gathered under its lock, and carried out. */
struct swap_freeing {
	struct vswap_queue *queue;
	struct table *table;
	struct reap_run run;
	uint32_t nr_tag[WORD_NR_TAGS];
	uint32_t nr;
	bool in_epoch; /* once the first slot is to be retired */
	uint8_t epoch;
};

/*
 * Takes the table's lock, which stays until swap_freeing_end. The caller pins the table, or owns an entry of it that is live
 * until then.
 */
void swap_freeing_begin(struct swap_freeing *freeing, struct vswap_queue *queue, struct table *table);
/*
 * Makes nr entries NONE, which are all of the table: nobody holds them any more, nor stands for them, so that nobody else
 * changes their words who does not take the lock.
 */
void swap_freeing_add(struct swap_freeing *freeing, uint64_t entry, uint32_t nr);
/* Releases the lock. The table may be gone afterwards, unless it is pinned. */
void swap_freeing_end(struct swap_freeing *freeing);

#endif

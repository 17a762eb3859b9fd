/*
 * Swap entries and the swap cache: what the kernel calls mm/swapfile.c and mm/swap_state.c, for processes.
 *
 * A holder (a page table, a region of a process) keeps a virtual entry, a swp_entry_t. What backs it, a physical slot
 * somewhere or nothing at all, can change at any time without the holder noticing. An entry is *live* while its count is
 * above 0 or a folio stands for it in the swap cache; it is freed when neither is true any more.
 *
 * The names are those of the kernel's mm/, and so is what they mean; where the kernel has the current processor, here is the
 * caller's queue. Nothing here blocks: what would wait is called back.
 *
 * Threads. Each queue belongs to one thread, its reactor's, and every function that is given a queue is called on that
 * thread; any thread may work on any entry and any folio. The functions on a folio alone may be called on the thread of any
 * queue. A cluster is 512 entries; a range of entries that is changed by one call lies in one cluster where it says so.
 *
 * Errors are negative errno values: -EINVAL is always the caller's mistake (a folio that is not locked, a range that is not
 * the folio's), found before anything is changed, and every function that returns int may return it.
 *
 * This header stands for itself: it is installed as <farswap/swap.h>.
 */
#ifndef FARSWAP_CLIENT_VSWAP_SWAP_H
#define FARSWAP_CLIENT_VSWAP_SWAP_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vswap;
struct vswap_queue;

/* A virtual entry: cluster number << 9 | offset in the cluster. 0 is none. */
typedef struct {
	uint64_t val;
} swp_entry_t;

/* A physical slot: slab << 18 | slot in the slab. */
typedef struct {
	uint64_t val;
} swp_slot_t;

#define SWP_CLUSTER_SHIFT 9
#define SWP_CLUSTER_ENTRIES (1u << SWP_CLUSTER_SHIFT)

/* ---- folios ---- */

#define FOLIO_MAX_ORDER SWP_CLUSTER_SHIFT
#define FOLIO_ALL UINT32_MAX /* every page of the folio */

enum folio_flag {
	FOLIO_UPTODATE = 1u << 0,  /* data is what the entries hold */
	FOLIO_DIRTY = 1u << 1,	   /* data has not been stored since it was changed */
	FOLIO_SWAPCACHE = 1u << 2, /* it stands for its entries in the swap cache */
	FOLIO_UNDER_IO = 1u << 3,  /* it is being stored, or read in */
};

/*
 * 2^order pages of memory of the caller's, and who works on them. The caller owns the structure and the memory, until
 * release; it sets data, order, release and arg by folio_init, and reads them and `swap`. All else is the library's.
 */
struct folio {
	void *data;	  /* page aligned */
	swp_entry_t swap; /* first entry, while FOLIO_SWAPCACHE; changes only while it is locked */
	uint8_t order;
	uint32_t flags_; /* see folio_flags */
	uint32_t refs_;
	uintptr_t lock_;   /* locked, and who has come to wait */
	void *waiting_;	   /* who waits, in order: of whoever has it locked */
	void (*release)(struct folio *folio, void *arg);
	void *arg;
	void *rcu_[4];
};

/* Somebody who waits for the lock of a folio. Embedded by its owner, and the library's from folio_lock until `locked`. */
struct folio_waiter {
	/* On the thread of the queue that it waited with, once: the folio is locked for it now. */
	void (*locked)(struct folio_waiter *waiter);
	struct folio *folio;
	struct vswap_queue *queue;
	struct folio_waiter *next_;
	void *message_[2];
};

/*
 * A new folio: unlocked, not up to date, with one reference, the caller's. data is page aligned, order 0 .. FOLIO_MAX_ORDER.
 * release is called when the last reference has gone and no lookup can see it any more, on a thread of the library's: from
 * then on structure and memory are the caller's again.
 */
void folio_init(struct folio *folio, void *data, unsigned order, void (*release)(struct folio *folio, void *arg),
		void *arg);
uint32_t folio_nr_pages(const struct folio *folio);
void folio_get(struct folio *folio);
void folio_put(struct folio *folio);
/* enum folio_flag, of this moment; of those that only the lock's owner changes, his own are certain. */
uint32_t folio_flags(const struct folio *folio);
/*
 * Locked, and not being stored or read. The bytes were changed by the caller: they are up to date, and have to be stored. They
 * must not change while they are stored.
 */
void folio_mark_dirty(struct folio *folio);

/* True when the folio is now locked by the caller. */
bool folio_trylock(struct folio *folio);
/*
 * True when it is locked at once, and waiter is not used. False: waiter->locked is called later, in the order in which they
 * came, never inside this call. Whoever looked the folio up has to look again whether it still is what was looked for.
 */
bool folio_lock(struct vswap_queue *queue, struct folio *folio, struct folio_waiter *waiter);
/* Hands the lock to who waits longest. Entries that lost their last holder meanwhile are freed, see swap_put_entries_direct. */
void folio_unlock(struct vswap_queue *queue, struct folio *folio);

/* ---- allocation ---- */

/*
 * The one way to allocate: 2^order entries in a row, naturally aligned, in one cluster, for a locked folio of this order that
 * is not in the swap cache, and the folio into the swap cache in the same step. Their count is 0, their bytes are the folio's,
 * which becomes up to date and dirty. The swap cache has a reference to the folio from now on.
 *
 * 0; -ENOSPC: no such run was found (one of a smaller order may be; for order 0 there is not one entry); -ENOMEM: no table is
 * ready for a new cluster and more are being made, or what is left belongs to queues that have been asked for it: soon again.
 */
int folio_alloc_swap(struct vswap_queue *queue, struct folio *folio, unsigned order, swp_entry_t *ret_entry);

/*
 * Drops the swap space of a locked folio that is in the cache and that nobody else holds (no count above 0, not being
 * stored): it leaves the cache, its entries are freed, and it is dirty, since its bytes are nowhere else now. True if it did.
 */
bool folio_free_swap(struct vswap_queue *queue, struct folio *folio);

/* ---- reference counts ---- */

/*
 * One more holder for the entry of page number `page` of a folio that is locked and in the cache, or for all (FOLIO_ALL).
 * 0; -EOVERFLOW: more than 2^31 holders, or no room to count above 1023; nothing is changed then.
 */
int folio_dup_swap(struct vswap_queue *queue, struct folio *folio, uint32_t page);
/* One holder less. The entries stay in the cache. 0; -ENOENT when one of them has no holder: nothing is changed. */
int folio_put_swap(struct vswap_queue *queue, struct folio *folio, uint32_t page);

/*
 * One more holder, without a folio (fork). The caller holds what refers to the entry, so its count is at least 1.
 * 0; -ENOENT when it is not; -EOVERFLOW as above.
 */
int swap_dup_entry_direct(struct vswap_queue *queue, swp_entry_t entry);
/* The older name of the same. */
int swap_duplicate(struct vswap_queue *queue, swp_entry_t entry);
/* For nr entries of one cluster, all or none. */
int swap_duplicate_nr(struct vswap_queue *queue, swp_entry_t entry, uint32_t nr);

/*
 * One holder less for each of nr entries, across clusters (unmap, truncate). What then has neither holder nor folio is freed,
 * with one lock and one I/O epoch per cluster. A folio whose entries have all lost their holders is dropped from the cache
 * when it is clean; at once when nobody has it locked, else when it is unlocked. One that is dirty then stays, also when it has
 * been stored later: whoever has it uses folio_free_swap or put_swap_folio.
 *
 * 0; -ENOENT: an entry had no holder; its cluster, and those behind it, are as they were, those before it are done.
 */
int swap_put_entries_direct(struct vswap_queue *queue, swp_entry_t entry, uint64_t nr);
/* The older name of the same. */
int swap_free_nr(struct vswap_queue *queue, swp_entry_t entry, uint64_t nr);

/* Holders of an entry; 0 also for one that does not exist. */
uint32_t swp_swapcount(struct vswap_queue *queue, swp_entry_t entry);
/* Whether any entry of a folio that is locked and in the cache has a holder; false for any other folio. */
bool folio_swapped(struct vswap_queue *queue, struct folio *folio);

/* ---- the swap cache: the one place where operations on an entry meet ---- */

/*
 * Puts a locked folio, which is in no cache, in for nr entries (those of its order, aligned to it). Who succeeds does the work:
 * reads the bytes in by swap_read_folio, and unlocks. Two passes under the cluster's lock: all or nothing.
 *
 * 0; -EEXIST: a folio is there, look it up and queue on it; -ENOENT: an entry is not live; -ENOMEM as for folio_alloc_swap.
 */
int swapcache_prepare(struct vswap_queue *queue, swp_entry_t entry, uint32_t nr, struct folio *folio);
int swap_cache_add_folio(struct vswap_queue *queue, struct folio *folio, swp_entry_t entry);

/*
 * Takes a locked folio out of the cache; entries without a holder are freed. entry and nr are what it was put in for.
 *
 * 0; -ENOENT when it does not stand for them; -EBUSY while it is being stored or read, or when an entry has holders and its
 * bytes are only here (the folio is dirty): nothing is changed, no byte is lost.
 */
int swapcache_clear(struct vswap_queue *queue, struct folio *folio, swp_entry_t entry, uint32_t nr);
int put_swap_folio(struct vswap_queue *queue, struct folio *folio, swp_entry_t entry);

/*
 * The folio that stands for an entry, with a reference for the caller, or NULL. It has to be locked, and looked at again: is it
 * still in the cache, for this entry, and up to date?
 */
struct folio *swap_cache_get_folio(struct vswap_queue *queue, swp_entry_t entry);

/*
 * The longest run from `entry` on, at most nr, of entries that are live in the cache alone: cached, without a holder. Stops at
 * the first that is not.
 */
uint64_t vswap_swapcache_only(struct vswap_queue *queue, swp_entry_t entry, uint64_t nr);
/* The longest run from `entry` on, at most max, of live entries without a folio. Stops at the first that is not. */
uint64_t non_swapcache_batch(struct vswap_queue *queue, swp_entry_t entry, uint64_t max);

/* ---- existence ---- */

/*
 * Pins the entry's cluster, so that it exists, with whatever backing, until vswap_put. False when there is none. Any number
 * of pins; each costs the memory of a cluster's table while it lasts.
 */
bool vswap_tryget(struct vswap_queue *queue, swp_entry_t entry);
void vswap_put(struct vswap_queue *queue, swp_entry_t entry);

/* 0; -ENOENT: no live entry; -ENODATA: it is live and not backed by a slot. What is said may be different the next moment. */
int swp_entry_to_swp_slot(struct vswap_queue *queue, swp_entry_t entry, swp_slot_t *ret_slot);
/* 0; -ENOENT: no such slot, or it is free; -ENODATA: it is allocated, and no entry is backed by it (yet, or any more). */
int swp_slot_to_swp_entry(struct vswap_queue *queue, swp_slot_t slot, swp_entry_t *ret_entry);

/* ---- backing: the folio is locked and in the cache, from the call until done ---- */

/*
 * On the queue's thread, once, never inside the call that it belongs to. status: 0; -EIO: the bytes cannot be had, or are not
 * what was stored; -ENOSPC: no room to store them, and nothing lost.
 */
typedef void (*folio_done)(struct folio *folio, int status, void *arg);

/*
 * Stores a folio that is up to date: each page in a slot, compressed, or as the one value that it repeats. The old backing is
 * released after the new one is published. With status 0 the folio is clean, with another it is dirty.
 *
 * 0: done is called; -EBUSY: it is being stored already, or all requests of the queue are in use (their number is set where
 * the vswap is made, as nr_folio_ios).
 */
int vswap_store_folio(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);
/* The same, but every page into a slot of its own, whatever it holds: for what must be on a server or on the disk. */
int vswap_assign_slot(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);
/*
 * The same, but every page into the compressed pool, or as the one value that it repeats. -ENOSPC where no pool is configured.
 * Status -ENOSPC: a page did not shrink enough, or the pool has no room. It is backed by what it was, and so may others be of
 * the folio, which is dirty, and can be stored by vswap_store_folio.
 */
int vswap_store_compressed(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);
/*
 * At once, without I/O: page number `page` holds the 64-bit `value` over and over, which fits 36 bits. The folio's memory is
 * not looked at. 0; -EBUSY while it is being stored; -ERANGE for a larger value.
 */
int vswap_set_same(struct vswap_queue *queue, struct folio *folio, uint32_t page, uint64_t value);

/*
 * Reads the folio's bytes in, over what it holds, dirty or not. With status 0 it is up to date and clean. 0: done is called;
 * -EBUSY as above; -EINVAL: the bytes of a page are in the folio and nowhere else.
 */
int swap_read_folio(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);

/* ---- hibernation ---- */

/* As folio_done. */
typedef void (*hibernation_done)(struct vswap_queue *queue, swp_entry_t entry, int status, void *arg);

/*
 * An entry with a slot that is its own, outside the swap cache: allocated by the same allocators as all others, held once, by
 * the caller, and counted in vswap_stats.nr_hibernation. It is a page of zeros in that slot when done is called with status 0;
 * after another status there is none. 0: done is called; -ENOSPC, -ENOMEM as folio_alloc_swap; -EBUSY as vswap_store_folio.
 */
int swap_alloc_hibernation_slot(struct vswap_queue *queue, hibernation_done done, void *arg);
/* Writes and reads its page; page aligned, the caller's again when done is called. One at a time for each. 0 or -EBUSY. */
int swap_write_hibernation_slot(struct vswap_queue *queue, swp_entry_t entry, const void *page, hibernation_done done,
				void *arg);
int swap_read_hibernation_slot(struct vswap_queue *queue, swp_entry_t entry, void *page, hibernation_done done, void *arg);
/* 0; -ENOENT when it is in the cache or held by nobody; -EBUSY while it is being written or read, or held by another. */
int swap_free_hibernation_slot(struct vswap_queue *queue, swp_entry_t entry);

#ifdef __cplusplus
}
#endif

#endif

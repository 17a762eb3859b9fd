/*
 * What the files of this room share: the device, its queues, and the steps of a request.
 */
#ifndef FARSWAP_CLIENT_VSWAP_INTERNAL_H
#define FARSWAP_CLIENT_VSWAP_INTERNAL_H

#include "client/comp/comp.h"
#include "client/vswap/admin.h"
#include "client/vswap/cluster.h"
#include "client/vswap/epoch.h"
#include "client/vswap/place.h"
#include "client/vswap/slab.h"
#include "client/vswap/table.h"
#include "client/vswap/vswap.h"

#define VSWAP_MAX_BACKENDS 64u
#define VSWAP_MAX_PAGES (1ull << 32) /* what the reverse map can name: 16 TiB */

/* Written by the queue's reactor only, read by anybody; all relaxed. */
struct vswap_counters {
	_Atomic uint64_t nr_requests[IO_FLUSH + 1];
	_Atomic uint64_t nr_pages[IO_FLUSH + 1];
	_Atomic uint64_t nr_read_errors;
	_Atomic uint64_t nr_write_errors;
	_Atomic uint64_t nr_checksum_errors;
	_Atomic uint64_t nr_relocated;
	_Atomic uint64_t nr_room_waits;
	_Atomic uint64_t nr_written_back; /* the mover's queue */
	_Atomic uint64_t longest_read_ns; /* since the last drain began */
	_Atomic int64_t nr_hibernation; /* slots allocated less slots freed, by this queue */
	_Atomic int64_t nr_tag[WORD_NR_TAGS]; /* change in the number of entries of each kind, by this queue */
};

struct vswap_queue {
	struct vswap *vswap;
	struct sys_reactor *reactor;
	unsigned index;
	struct table_recent recent;
	struct slot_cursor cursor;
	struct cluster_cursor allocating[CLUSTER_NR_ORDERS];
	struct store *stores; /* requests for folios, see store.c */
	struct fsw_io_list completed; /* requests that ended inside vswap_submit */
	struct sys_deferred complete;
	/* "There is something to free": to the mover's reactor, at most one under way. */
	struct sys_message reap;
	_Atomic bool reap_sent;
	/* "Give your open cluster back", at most one under way. */
	struct sys_message release;
	_Atomic bool release_sent;
	/* Writes that wait for room, and what makes them look again; armed while there are any. */
	struct io_waiter_list starved;
	struct sys_timer room_timer;
	struct epoch_queue epoch;
	struct vswap_counters counters;
	struct stats_histogram reads;
	struct stats_histogram writes;
};

struct vswap {
	struct table_map tables;
	struct slab_map slabs;
	struct cluster_map clusters;
	struct count_map *counts;
	struct comp_pool *comp; /* NULL: no page is compressed */
	struct writeback *writeback; /* out of it */
	struct epoch epoch;
	uint64_t nr_pages; /* of the block device; entries that can be allocated come behind it, from a whole cluster on */
	unsigned nr_queues; /* the mover's included */
	struct vswap_queue *queue;
	struct mem_region queue_region;
	struct mem_region store_region;
	void *zero_page; /* NULL without entries to allocate */
	struct epoch_queue *epoch_queues[BACKEND_MAX_QUEUES];
	struct reaper *reaper;
	struct mover *mover;
	struct vswap_supplier supplier;
	_Atomic uint64_t nr_room_asked;	   /* writes that have begun to wait for room */
	_Atomic uint64_t nr_room_answered; /* of those, how many the supplier knew of when it last looked */
	_Atomic bool room_is_coming;
	struct lock_mutex lock; /* of all that control threads change: backends, slabs, drains */
	struct backend *backends[VSWAP_MAX_BACKENDS] LOCK_GUARDED_BY(lock);
	unsigned nr_backends LOCK_GUARDED_BY(lock);
};

static inline struct vswap_queue *vswap_mover_queue(struct vswap *vswap)
{
	return &vswap->queue[vswap->nr_queues - 1];
}

/* table_find and table_look of the queue's own thread. Read-side section. */
static inline struct table *vswap_table(struct vswap_queue *queue, uint64_t page)
{
	return table_find(&queue->vswap->tables, &queue->recent, page);
}

static inline void vswap_look(struct vswap_queue *queue, uint64_t page, struct table_look *ret_look)
{
	table_look_in(vswap_table(queue, page), page, ret_look);
}

static inline void vswap_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void vswap_add_tag(struct vswap_queue *queue, enum word_tag tag, int64_t n)
{
	_Atomic int64_t *nr = &queue->counters.nr_tag[tag];

	atomic_store_explicit(nr, atomic_load_explicit(nr, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void vswap_count_tag(struct vswap_queue *queue, enum word_tag from, enum word_tag to)
{
	vswap_add_tag(queue, from, -1);
	vswap_add_tag(queue, to, 1);
}

/* Whether the word is backed by exactly this slot, and by nobody's unfinished write. */
static inline bool vswap_word_is_at(uint64_t word, const struct slab *slab, uint32_t slot)
{
	return word_has_slot(word) && word_payload(word) == swp_slot(slab->id, slot).val;
}

/* Asks a queue to give back the clusters of slots and of entries that it allocates from. Any reactor. */
void vswap_queue_ask_release(struct vswap_queue *queue);

/* ---- request.c ---- */

/* Where a page that is written may go. */
enum request_where {
	REQUEST_ANYWHERE,
	REQUEST_SLOT, /* also where the word alone would do */
	REQUEST_HERE, /* into the word or the pool, or not at all: -ENOSPC */
};

/* Starts a request on pages or entries that exist; io->done as for vswap_submit. `where` is for writes. */
void request_start(struct vswap_queue *queue, struct fsw_io *io, enum request_where where);

/* Goes on with a segment: until it has a run under way, waits, or has done its share. */
void request_segment_step(struct io_segment *segment);
/* Begins to wait for the entry of page `next`. False: look again. */
bool request_segment_wait(struct io_segment *segment, struct table *table) BASE_MUST_CHECK;
/* The request has failed: no more of it is started. */
void request_fail(struct fsw_io *io, int err);
void *request_page(const struct fsw_io *io, uint64_t index);
/* Fills in the segment's backend operation for its run. */
void request_fill(struct io_segment *segment, void (*done)(struct backend_io *bio, int status));

/* ---- read.c, write.c, discard.c: one step each, of a segment with pages left; true when it is under way or waits ---- */

bool read_segment_step(struct io_segment *segment);
bool write_segment_step(struct io_segment *segment);
/* The request is done, or has failed: what was compressed in vain is given up. */
void write_unpack(struct fsw_io *io);
/* Works off the request itself; it has no segments but the first, for waiting. */
bool discard_segment_step(struct io_segment *segment);

/* ---- reap.c: slots come back ---- */

/* Retires what an unpublished word has stood for: a slot, a compressed page, or nothing. The queue is inside an epoch. */
void reap_retire(struct vswap_queue *queue, uint64_t old_word);
void reap_retire_run(struct vswap_queue *queue, struct slab *slab, uint32_t slot, uint32_t nr_slots);

/* Slots of words that are unpublished one after the other, of which those in a row are retired together. */
struct reap_run {
	struct slab *slab;
	uint32_t slot;
	uint32_t nr; /* 0 at the start */
};

/*
 * As reap_retire, but perhaps only at the flush, before which the epoch is not left. nr_slots: as many words, with slots in a
 * row of which this word has the first; 1 for a word without a slot.
 */
void reap_run_add(struct vswap_queue *queue, struct reap_run *run, uint64_t old_word, uint32_t nr_slots);
void reap_run_flush(struct vswap_queue *queue, struct reap_run *run);
void reap_quarantine(struct vswap_queue *queue, struct slab *slab, uint32_t slot, uint64_t fence);
int reap_init(struct vswap *vswap) BASE_MUST_CHECK;
void reap_done(struct vswap *vswap);

/* ---- room.c ---- */

enum room_kind { ROOM_TABLE, ROOM_SLOT };

void room_init(struct vswap *vswap);
/*
 * The segment, which has claimed nothing, has found no room for its page `next`. True: some is to be expected, and the
 * segment will be stepped again. False: there is none.
 */
bool room_wait(struct io_segment *segment, enum room_kind kind) BASE_MUST_CHECK;

/* ---- store.c ---- */

/* Makes the requests of all queues. 0 or -ENOMEM. Control thread. */
int store_init(struct vswap *vswap, uint32_t nr_per_queue) BASE_MUST_CHECK;
void store_done(struct vswap *vswap);

/* ---- writeback.c: compressed pages make room ---- */

int writeback_init(struct vswap *vswap) BASE_MUST_CHECK;
void writeback_done(struct vswap *vswap);
/* The pool is full, or nearly. Any queue. */
void writeback_want(struct vswap_queue *queue);
/* Whether it is. */
bool writeback_is_due(const struct vswap *vswap);

/* ---- poison.c ---- */

/* Makes an entry that still has this word POISON, and retires its slot. Inside an epoch. True if it did. */
bool poison_entry(struct vswap_queue *queue, uint64_t page, uint64_t word);

#endif

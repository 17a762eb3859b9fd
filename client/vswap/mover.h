/*
 * The mover: copies runs of pages from one slab to others while everybody goes on reading and writing them.
 *
 * Order of a move: allocate the new slot -> copy, wait for completion, verify the checksum -> swing the forward word from
 * exactly what it was (generation included) -> retire the old slot, which is free when every I/O that may have loaded the
 * old word has ended. Any failure before the swing frees the new slot and changes nothing; a swing that is refused means
 * that somebody wrote, discarded or moved the page: their word is the truth, our copy is dropped.
 *
 * Threads: the mover's reactor, but for what says otherwise.
 */
#ifndef FARSWAP_CLIENT_VSWAP_MOVER_H
#define FARSWAP_CLIENT_VSWAP_MOVER_H

#include "client/vswap/internal.h"

#define MOVE_MAX_PAGES TRANSPORT_MAX_IOV /* of one job: in the worst case every page is a piece of its own */
#define MOVER_NR_JOBS 16u

struct mover;
struct move;

/* Whoever has jobs of the mover done: a drain. Called on the mover's reactor. All required. */
struct move_owner {
	enum slot_where where; /* to be moved to */
	void (*moved)(struct move_owner *owner); /* one page */
	/* An item that cannot be moved, and has not changed meanwhile. */
	void (*stuck)(struct move_owner *owner, const struct move *move, uint32_t item, int err);
	/* The rest of a job has nowhere to go. */
	void (*no_room)(struct move_owner *owner);
	/* The job is done with: nr_pages fewer are on their way. */
	void (*ended)(struct move_owner *owner, uint32_t nr_pages);
};

/* One page of a job. */
struct move_item {
	uint64_t page;
	uint64_t word; /* what the forward word must still be */
	uint32_t checksum;
	bool wanted; /* still to be moved */
};

/* A run of slots on its way from one slab to others. */
struct move {
	struct mover *mover;
	struct move_owner *owner; /* NULL: the job is free */
	struct slab *from;
	uint32_t slot;
	uint32_t nr;
	uint8_t epoch;
	uint8_t attempt;
	uint32_t first; /* items of the write under way: [first, last) of which the wanted ones go */
	uint32_t last;
	struct slab *to;
	uint32_t to_slot;
	uint32_t nr_to;
	char *buf;
	struct backend_io bio;
	struct iovec iov[TRANSPORT_MAX_IOV];
	struct move_item item[MOVE_MAX_PAGES];
};

struct mover {
	struct vswap *vswap;
	struct mem_region region;
	struct move job[MOVER_NR_JOBS];
	struct drain *running; /* the drain under way */
};

/* Control thread. 0 or -ENOMEM. */
int mover_init(struct vswap *vswap) BASE_MUST_CHECK;
void mover_done(struct vswap *vswap);

/* The buffer of an item. */
void *move_page(const struct move *move, uint32_t i);

/* NULL when all jobs are busy. */
struct move *mover_get(struct mover *mover, struct move_owner *owner);

/*
 * Starts moving what is wanted of the job's items to where its owner says; the caller has entered an epoch for it. 0:
 * `ended` is called when the job is done with, never inside this call. Below 0 the job is free again, its items are
 * reported as stuck.
 */
int move_start(struct move *move) BASE_MUST_CHECK;

/*
 * The same for a job whose bytes are in its buffer already, and verified; `from` and `slot` are not looked at. `ended` may be
 * called inside this call.
 */
void move_start_loaded(struct move *move);

/* Slots became free, or a slab was added: a drain that waits for either goes on. */
void mover_slots_freed(struct mover *mover);

#endif

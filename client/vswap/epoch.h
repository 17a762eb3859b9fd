/*
 * I/O epochs: when may a slot that no word names any more be used again? When every I/O that may have loaded the old word
 * has ended. RCU does not answer that, since an I/O outlives the turn that started it.
 *
 * A global number, and per queue a count of the I/Os that entered in each epoch. The number moves from e to e + 1 only when
 * no I/O of epoch e - 1 is left, so what was unpublished in epoch e is free of readers when the number has reached e + 2
 * (Fraser, "Practical lock-freedom", 2004, section 5.2.3; here the critical section is an I/O and not a function call).
 *
 * Threads: enter and exit on the queue's reactor; advance on the mover's reactor only.
 */
#ifndef FARSWAP_CLIENT_VSWAP_EPOCH_H
#define FARSWAP_CLIENT_VSWAP_EPOCH_H

#include <stdatomic.h>

#include "common/base/base.h"

#define EPOCH_BUCKETS 3u

struct epoch {
	_Atomic uint64_t now;
};

/* One per queue, on cache lines of its own. */
struct epoch_queue {
	_Atomic uint32_t nr_inside[EPOCH_BUCKETS];
} __attribute__((aligned(FSW_CACHE_LINE)));

/*
 * Enters the current epoch; to be handed to epoch_exit. What the caller loads after this stays what it was until epoch_exit.
 * The increment is sequentially consistent: it is seen before anything the caller loads next. The second look at the
 * number keeps a caller that was held up between the two from being counted in a bucket that is already used again.
 */
static inline uint8_t epoch_enter(struct epoch *epoch, struct epoch_queue *queue)
{
	for (;;) {
		uint64_t now = atomic_load(&epoch->now);

		atomic_fetch_add(&queue->nr_inside[now % EPOCH_BUCKETS], 1);
		if (BASE_LIKELY(atomic_load(&epoch->now) == now))
			return (uint8_t)(now % EPOCH_BUCKETS);
		atomic_fetch_sub(&queue->nr_inside[now % EPOCH_BUCKETS], 1);
	}
}

static inline void epoch_exit(struct epoch_queue *queue, uint8_t bucket)
{
	atomic_fetch_sub_explicit(&queue->nr_inside[bucket], 1, memory_order_release);
}

/* The epoch to retire in: after the word has been unpublished by a sequentially consistent operation, inside an epoch. */
static inline uint64_t epoch_now(struct epoch *epoch)
{
	return atomic_load(&epoch->now);
}

/*
 * The mover: one step, if no I/O of the epoch before is left on any of the queues. True when it has moved; what was retired
 * in epoch now - 2 is then free of readers.
 */
static inline bool epoch_advance(struct epoch *epoch, struct epoch_queue *const *queues, unsigned nr_queues)
{
	uint64_t now = atomic_load(&epoch->now);
	unsigned i;

	for (i = 0; i < nr_queues; i++)
		if (atomic_load(&queues[i]->nr_inside[(now + EPOCH_BUCKETS - 1) % EPOCH_BUCKETS]) != 0)
			return false;
	atomic_store(&epoch->now, now + 1);
	return true;
}

#endif

/*
 * Slots come back: the mover's reactor advances the I/O epochs and frees what is old enough. A queue that has retired
 * something sends it one message; while I/Os of an old epoch, or writes that are not settled, hold something back, a timer
 * looks again.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/vswap/internal.h"
#include "client/vswap/mover.h"

#define REAP_INTERVAL_NS SYS_NS_PER_MS

struct reaper {
	struct vswap *vswap;
	struct sys_timer timer;
	unsigned nr_steps_left; /* epochs to go until everything that is retired now is free */
};

static void reap_send(struct vswap_queue *queue)
{
	struct vswap_queue *mover = vswap_mover_queue(queue->vswap);

	if (!mover->reactor || atomic_load_explicit(&queue->reap_sent, memory_order_relaxed) ||
	    atomic_exchange(&queue->reap_sent, true))
		return;
	sys_reactor_send(mover->reactor, &queue->reap);
}

void reap_retire_run(struct vswap_queue *queue, struct slab *slab, uint32_t slot, uint32_t nr_slots)
{
	slot_retire(slab, slot, nr_slots, epoch_now(&queue->vswap->epoch));
	reap_send(queue);
}

static void reap_retire_object(struct vswap_queue *queue, uint64_t old_word)
{
	comp_retire(queue->vswap->comp, word_payload(old_word), epoch_now(&queue->vswap->epoch));
	reap_send(queue);
}

void reap_retire(struct vswap_queue *queue, uint64_t old_word)
{
	struct slab *slab;

	if (word_tag(old_word) == WORD_COMP)
		reap_retire_object(queue, old_word);
	if (!word_has_slot(old_word))
		return;
	slab = slab_by_id(&queue->vswap->slabs, swp_slot_slab(word_slot(old_word)));
	assert(slab); /* its slot is allocated, so it cannot have gone */
	reap_retire_run(queue, slab, swp_slot_index(word_slot(old_word)), 1);
}

void reap_run_flush(struct vswap_queue *queue, struct reap_run *run)
{
	if (run->nr) {
		/* The words were not all unpublished by an operation that orders them before the epoch. */
		atomic_thread_fence(memory_order_seq_cst);
		reap_retire_run(queue, run->slab, run->slot, run->nr);
	}
	run->nr = 0;
}

void reap_run_add(struct vswap_queue *queue, struct reap_run *run, uint64_t old_word, uint32_t nr_slots)
{
	uint32_t slot = swp_slot_index(word_slot(old_word));

	if (!word_has_slot(old_word)) {
		atomic_thread_fence(memory_order_seq_cst); /* as in reap_run_flush */
		reap_retire(queue, old_word);
		return;
	}
	if (run->nr && run->slab->id == swp_slot_slab(word_slot(old_word)) && run->slot + run->nr == slot) {
		run->nr += nr_slots;
		return;
	}
	reap_run_flush(queue, run);
	run->slab = slab_by_id(&queue->vswap->slabs, swp_slot_slab(word_slot(old_word)));
	run->slot = slot;
	run->nr = nr_slots;
}

void reap_quarantine(struct vswap_queue *queue, struct slab *slab, uint32_t slot, uint64_t fence)
{
	slot_quarantine(slab, slot, fence);
	reap_send(queue);
}

/* Frees what can be freed; arms the timer when something is left. */
static void reap_step(struct reaper *reaper)
{
	struct vswap *vswap = reaper->vswap;
	struct vswap_queue *mover = vswap_mover_queue(vswap);
	bool unsettled;
	uint8_t bucket = epoch_enter(&vswap->epoch, &mover->epoch);

	if (slab_retire_quarantined(&vswap->slabs, epoch_now(&vswap->epoch), &unsettled))
		reaper->nr_steps_left = EPOCH_BUCKETS;
	epoch_exit(&mover->epoch, bucket);
	while (reaper->nr_steps_left && epoch_advance(&vswap->epoch, vswap->epoch_queues, vswap->nr_queues)) {
		uint64_t now = epoch_now(&vswap->epoch);

		reaper->nr_steps_left--;
		if (now >= 2 && vswap->comp)
			comp_free_retired(vswap->comp, now - 2);
		if (now >= 2 && slab_free_retired(&vswap->slabs, now - 2))
			mover_slots_freed(vswap->mover);
	}
	if (reaper->nr_steps_left || unsettled)
		sys_timer_arm(mover->reactor, &reaper->timer,
			      sys_reactor_now_ns(mover->reactor) + REAP_INTERVAL_NS);
}

static void reap_tick(struct sys_timer *timer)
{
	reap_step(BASE_CONTAINER_OF(timer, struct reaper, timer));
}

static void reap_asked(struct sys_message *message)
{
	struct vswap_queue *queue = BASE_CONTAINER_OF(message, struct vswap_queue, reap);
	struct reaper *reaper = queue->vswap->reaper;

	atomic_store(&queue->reap_sent, false);
	/* What was retired now becomes free when the number has moved by two; one more, since it may have been in between. */
	reaper->nr_steps_left = EPOCH_BUCKETS;
	reap_step(reaper);
}

int reap_init(struct vswap *vswap)
{
	unsigned i;

	vswap->reaper = calloc(1, sizeof(*vswap->reaper));
	if (!vswap->reaper)
		return -ENOMEM;
	vswap->reaper->vswap = vswap;
	vswap->reaper->timer.fire = reap_tick;
	for (i = 0; i < vswap->nr_queues; i++)
		vswap->queue[i].reap.run = reap_asked;
	return 0;
}

void reap_done(struct vswap *vswap)
{
	struct vswap_queue *mover = vswap_mover_queue(vswap);

	if (vswap->reaper && mover->reactor)
		sys_timer_cancel(mover->reactor, &vswap->reaper->timer);
	free(vswap->reaper);
	vswap->reaper = NULL;
}

/*
 * Entries whose bytes are lost: reading them is an error for ever, until they are written or discarded.
 */
#include <errno.h>

#include "client/vswap/internal.h"
#include "common/log/log.h"

bool poison_entry(struct vswap_queue *queue, uint64_t page, uint64_t word)
{
	struct table *table = table_pin(&queue->vswap->tables, page, false);
	bool done;

	if (!table)
		return false;
	done = table_swing(table, page, word, word_next(word, WORD_POISON, 0));
	if (done) {
		vswap_count_tag(queue, word_tag(word), WORD_POISON);
		reap_retire(queue, word);
	}
	table_unpin(table, 0);
	return done;
}

/* A pass over one slab, on the mover's reactor. */
struct poison_pass {
	struct vswap *vswap;
	struct slab *slab;
	uint64_t nr_poisoned;
};

static void poison_slab(void *arg)
{
	struct poison_pass *pass = arg;
	struct vswap_queue *queue = vswap_mover_queue(pass->vswap);
	struct slab *slab = pass->slab;
	uint8_t bucket = epoch_enter(&pass->vswap->epoch, &queue->epoch);
	uint32_t i;

	for (i = 0; i < slab->nr_slots / 64; i++) {
		uint64_t bits = slab_live_bits(slab, i);

		for (; bits; bits &= bits - 1) {
			uint32_t slot = i * 64 + (uint32_t)__builtin_ctzll(bits);
			uint64_t page = atomic_load_explicit(&slab->reverse[slot], memory_order_relaxed);
			struct table_look look;

			table_look(&pass->vswap->tables, page, &look);
			/* A claimed entry is being written: its write will fail here and find the entry another place. */
			if (!word_is_claimed(look.word) && vswap_word_is_at(look.word, slab, slot))
				pass->nr_poisoned += poison_entry(queue, page, look.word);
		}
	}
	epoch_exit(&queue->epoch, bucket);
}

int vswap_backend_lost(struct vswap *vswap, struct backend *backend, uint64_t *ret_poisoned)
{
	struct poison_pass pass = { .vswap = vswap };
	const struct slab_list *list;
	uint64_t nr_used = 0;
	uint32_t i;

	lock_acquire(&vswap->lock); /* the list stays as it is */
	list = atomic_load(&vswap->slabs.list);
	for (i = 0; i < list->nr; i++) {
		pass.slab = list->slab[i];
		if (pass.slab->backend != backend)
			continue;
		if (atomic_load(&pass.slab->nr_used))
			sys_reactor_call(vswap_mover_queue(vswap)->reactor, poison_slab, &pass);
		nr_used += atomic_load(&pass.slab->nr_used);
	}
	lock_release(&vswap->lock);
	*ret_poisoned += pass.nr_poisoned;
	return nr_used ? -EAGAIN : 0;
}

/*
 * Discarding: each entry of the range becomes NONE and its slot comes back. Clusters that were never used cost nothing;
 * in the others each run of slots is retired by a few operations on its bitmap. A long discard works in portions, so that
 * no other request of the queue waits for it.
 */
#include "client/vswap/internal.h"

#define DISCARD_CLUSTERS_PER_TURN 64u

/* Discards from page `next` to the end of its cluster. False when an entry on the way is claimed: it stands at `next`. */
static bool discard_cluster(struct io_segment *segment, struct table *table, uint64_t end, int32_t *delta)
{
	struct vswap_queue *queue = segment->io->vs.queue;
	struct reap_run run = { 0 };
	int64_t nr_tag[WORD_NR_TAGS] = { 0 };
	uint8_t bucket = epoch_enter(&queue->vswap->epoch, &queue->epoch);
	bool done = true;
	unsigned tag;

	while (segment->next < end) {
		_Atomic uint64_t *place = table_word(table, segment->io->page + segment->next);
		uint64_t word = atomic_load_explicit(place, memory_order_acquire);

		if (word_is_claimed(word)) {
			done = false;
			break;
		}
		if (word_tag(word) != WORD_NONE) {
			/* Sequentially consistent: before the epoch is read in which the slot is retired. */
			if (!atomic_compare_exchange_strong(place, &word, word_next(word, WORD_NONE, 0)))
				continue;
			nr_tag[word_tag(word)]++;
			if (word_is_stored(word))
				reap_run_add(queue, &run, word, 1);
		}
		segment->next++;
	}
	reap_run_flush(queue, &run);
	for (tag = 0; tag < WORD_NR_TAGS; tag++)
		if (nr_tag[tag]) {
			*delta -= (int32_t)nr_tag[tag];
			vswap_add_tag(queue, (enum word_tag)tag, -nr_tag[tag]);
			vswap_add_tag(queue, WORD_NONE, nr_tag[tag]);
		}
	epoch_exit(&queue->epoch, bucket);
	return done;
}

static void discard_resume(struct sys_message *message)
{
	request_segment_step(BASE_CONTAINER_OF(message, struct io_segment, waiter.wake));
}

bool discard_segment_step(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;
	struct vswap *vswap = io->vs.queue->vswap;
	unsigned nr_clusters = 0;

	while (segment->next < segment->end) {
		uint64_t page = table_skip_empty(&vswap->tables, io->page + segment->next);
		struct table *table;
		int32_t delta = 0;
		uint64_t end;

		if (page >= io->page + io->nr_pages) {
			segment->next = segment->end;
			break;
		}
		segment->next = page - io->page;
		if (nr_clusters++ == DISCARD_CLUSTERS_PER_TURN) {
			segment->waiter.wake.run = discard_resume;
			sys_reactor_send(io->vs.queue->reactor, &segment->waiter.wake);
			return true;
		}
		end = base_min_u64(segment->end, (((page >> TABLE_SHIFT) + 1) << TABLE_SHIFT) - io->page);
		table = table_pin(&vswap->tables, page, false);
		if (!table) {
			segment->next = end;
			continue;
		}
		if (!discard_cluster(segment, table, end, &delta) && request_segment_wait(segment, table)) {
			table_unpin(table, delta);
			return true;
		}
		table_unpin(table, delta);
	}
	return false;
}

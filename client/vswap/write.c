/*
 * Writing. A run of pages is claimed (the claimed bit of each word), sent to slots that lie in a row, and published: word,
 * checksum, and the old slot's retirement. Nothing that is acknowledged before depends on what a write does until then.
 *
 * A page whose slot is stable is written in place. One without a slot, or whose slot is on its way out (its server drains,
 * is out of reach or lost), takes a new slot: a write never waits for a move. A run that fails is placed elsewhere.
 */
#include <errno.h>

#include "client/vswap/internal.h"
#include "client/vswap/page.h"

#define WRITE_MAX_ATTEMPTS 8

static void write_done(struct backend_io *bio, int status);

/* A page of one value needs no slot: its word says it all. True when published; false: the word has changed, look again. */
static bool write_same(struct io_segment *segment, struct table *table, uint64_t word, uint64_t value)
{
	struct vswap_queue *queue = segment->io->vs.queue;
	uint64_t page = segment->io->page + segment->next;
	/* A page of zeros is SAME and not NONE: it was written, and a table with only such pages must not vanish. */
	uint64_t fresh = word_next(word, WORD_SAME, value);
	bool first = word_tag(word) == WORD_NONE;
	uint8_t bucket = epoch_enter(&queue->vswap->epoch, &queue->epoch);
	bool done;

	if (first)
		table_book(table, 1);
	done = atomic_compare_exchange_strong(table_word(table, page), &word, fresh);
	if (done) {
		vswap_count_tag(queue, word_tag(word), WORD_SAME);
		reap_retire(queue, word);
	} else if (first) {
		table_book(table, -1);
	}
	epoch_exit(&queue->epoch, bucket);
	return done;
}

/*
 * Compresses page `index`. True when it lies in the pool, and io->vs.packed names it: until it is published, or turns out not
 * to be wanted. It may be asked for again when a run has to end before it.
 */
static bool write_pack(struct fsw_io *io, uint64_t index)
{
	struct vswap_queue *queue = io->vs.queue;
	struct comp_pool *comp = queue->vswap->comp;

	if (!comp || io->vs.where == REQUEST_SLOT)
		return false;
	if (io->vs.has_packed && io->vs.packed_index == index)
		return true;
	if (io->vs.has_packed)
		comp_free(comp, io->vs.packed);
	io->vs.has_packed = comp_store(comp, queue->index, request_page(io, index), io->page + index, &io->vs.packed) == 0;
	io->vs.packed_index = index;
	if (BASE_UNLIKELY(writeback_is_due(queue->vswap)))
		writeback_want(queue);
	return io->vs.has_packed;
}

/* Nobody has seen the object: it is free at once. */
void write_unpack(struct fsw_io *io)
{
	if (io->vs.has_packed)
		comp_free(io->vs.queue->vswap->comp, io->vs.packed);
	io->vs.has_packed = false;
}

/* Publishes the page that was compressed: it is in no run, and needs no I/O. False: the word has changed, look again. */
static bool write_packed(struct io_segment *segment, struct table *table, uint64_t word)
{
	struct fsw_io *io = segment->io;
	struct vswap_queue *queue = io->vs.queue;
	uint64_t page = io->page + segment->next, claimed = word | WORD_CLAIMED;
	uint8_t bucket;

	if (!atomic_compare_exchange_strong_explicit(table_word(table, page), &word, claimed, memory_order_acq_rel,
						     memory_order_relaxed))
		return false;
	bucket = epoch_enter(&queue->vswap->epoch, &queue->epoch);
	atomic_thread_fence(memory_order_release); /* the claimed bit is seen before the new checksum */
	atomic_store_explicit(table_checksum(table, page), page_checksum(request_page(io, segment->next)),
			      memory_order_relaxed);
	if (word_tag(word) == WORD_NONE)
		table_book(table, 1);
	table_publish(table, page, claimed, word_next(claimed, WORD_COMP, io->vs.packed));
	vswap_count_tag(queue, word_tag(word), WORD_COMP);
	reap_retire(queue, word);
	epoch_exit(&queue->epoch, bucket);
	io->vs.has_packed = false;
	return true;
}

/*
 * Where page `next + nr_run` is to go, as part of the run. 0: its slot is segment->slot + nr_run (and *ret_new tells whether
 * that was allocated); -EAGAIN: it does not fit behind the run; -ENOSPC: no slot is left anywhere.
 */
static int write_place(struct io_segment *segment, uint64_t word, bool *ret_new)
{
	struct vswap_queue *queue = segment->io->vs.queue;
	uint64_t page = segment->io->page + segment->next + segment->nr_run;
	struct slab *slab = NULL;

	*ret_new = false;
	if (word_has_slot(word))
		slab = slab_by_id(&queue->vswap->slabs, swp_slot_slab(word_slot(word)));
	if (slab && slab_is_stable(slab)) {
		uint32_t slot = swp_slot_index(word_slot(word));

		if (segment->nr_run == 0) {
			segment->slab = slab;
			segment->slot = slot;
			return 0;
		}
		return slab == segment->slab && slot == segment->slot + segment->nr_run ? 0 : -EAGAIN;
	}
	*ret_new = true;
	if (segment->nr_run == 0)
		return slot_alloc(&queue->vswap->slabs, &queue->cursor, SLOT_ANYWHERE, page, &segment->slab,
				  &segment->slot);
	return slot_alloc_at(&queue->cursor, segment->slab, segment->slot + segment->nr_run, page) ? 0 : -EAGAIN;
}

/* Claims page `next + nr_run` for the run. 0; -EAGAIN: the run ends before it; -EBUSY: the word changed; -ENOSPC. */
static int write_claim(struct io_segment *segment, struct table *table, uint64_t word, const void *bytes)
{
	struct fsw_io *io = segment->io;
	uint64_t index = segment->next + segment->nr_run;
	bool fresh;
	int err = write_place(segment, word, &fresh);

	if (err < 0)
		return err;
	if (!atomic_compare_exchange_strong_explicit(table_word(table, io->page + index), &word, word | WORD_CLAIMED,
						     memory_order_acq_rel, memory_order_relaxed)) {
		if (fresh)
			slot_free_unused(&io->vs.queue->vswap->slabs, segment->slab, segment->slot + segment->nr_run,
					 1);
		return -EBUSY;
	}
	if (fresh && word_has_slot(word))
		vswap_count(&io->vs.queue->counters.nr_relocated, 1);
	if (index + 1 < segment->end)
		page_prefetch(request_page(io, index + 1));
	io->vs.checksum[index] = page_checksum(bytes);
	segment->nr_run++;
	return 0;
}

/*
 * Claims as long a run from `next` on as lies in one table and in a row of slots; pages of one value on the way are done at
 * once. 0; -EBUSY when the first page of it is claimed by somebody else; -ENOSPC.
 */
static int write_claim_run(struct io_segment *segment, struct table *table)
{
	struct fsw_io *io = segment->io;
	uint64_t first = io->page + segment->next;
	uint64_t end = segment->next + base_min_u64(TABLE_ENTRIES - first % TABLE_ENTRIES, segment->end - segment->next);
	int err = 0;

	while (segment->next + segment->nr_run < end) {
		uint64_t index = segment->next + segment->nr_run, value;
		const void *bytes = request_page(io, index);
		uint64_t word = atomic_load_explicit(table_word(table, io->page + index), memory_order_acquire);

		if (word_is_claimed(word)) {
			err = -EBUSY;
			break;
		}
		if (io->vs.where != REQUEST_SLOT && page_is_same(bytes, &value) && value <= WORD_PAYLOAD_MAX) {
			if (segment->nr_run)
				break;
			if (write_same(segment, table, word, value))
				segment->next++;
			continue;
		}
		if (write_pack(io, index)) {
			if (segment->nr_run)
				break;
			if (write_packed(segment, table, word))
				segment->next++;
			continue;
		}
		if (io->vs.where == REQUEST_HERE) {
			request_fail(io, -ENOSPC);
			break;
		}
		err = write_claim(segment, table, word, bytes);
		if (err == -EBUSY)
			continue;
		if (err < 0)
			break;
	}
	return segment->nr_run ? 0 : err == -EAGAIN ? 0 : err;
}

/* Starts the run that stands in slab, slot and nr_run. 0 or the error of backend_submit. */
static int write_start_run(struct io_segment *segment)
{
	request_fill(segment, write_done);
	return backend_submit(segment->slab->backend, segment->io->vs.queue->index, &segment->bio);
}

/*
 * Takes the slots of a failed run out of use: those that were taken for it. A slot that was written in place is still what
 * the word says; it is remembered as tainted, since the write may reach it yet. That can be only the first of the places
 * that a run is sent to.
 */
static void write_drop_slots(struct io_segment *segment, int err, bool submitted)
{
	struct fsw_io *io = segment->io;
	struct vswap_queue *queue = io->vs.queue;
	uint64_t fence = atomic_load(&segment->slab->backend->fence);
	bool unsettled = submitted && err != -ENODATA;
	uint32_t i;

	for (i = 0; i < segment->nr_run; i++) {
		uint64_t word = atomic_load_explicit(table_word(segment->table, io->page + segment->next + i),
						     memory_order_relaxed);

		if (vswap_word_is_at(word, segment->slab, segment->slot + i)) {
			if (unsettled) {
				segment->tainted_slab = segment->slab;
				segment->tainted_fence = fence;
			}
		} else if (unsettled) {
			reap_quarantine(queue, segment->slab, segment->slot + i, fence);
		} else {
			slot_free_unused(&queue->vswap->slabs, segment->slab, segment->slot + i, 1);
		}
	}
	segment->nr_run = 0;
}

static bool write_is_tainted(const struct io_segment *segment, uint64_t word)
{
	return segment->tainted_slab && word_has_slot(word) &&
	       swp_slot_slab(word_slot(word)) == segment->tainted_slab->id;
}

/*
 * Lets go of what is claimed and not published. Each entry is what it was; but for one whose slot a failed write may have
 * changed, or may yet change: that one is lost.
 */
static void write_let_go(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;
	struct vswap_queue *queue = io->vs.queue;
	uint32_t i;

	for (i = 0; i < segment->nr_claimed; i++) {
		uint64_t page = io->page + segment->next + i;
		uint64_t word = atomic_load_explicit(table_word(segment->table, page), memory_order_relaxed);

		if (!write_is_tainted(segment, word)) {
			table_publish(segment->table, page, word, word_release(word));
			continue;
		}
		table_publish(segment->table, page, word, word_next(word, WORD_POISON, 0));
		vswap_count_tag(queue, word_tag(word), WORD_POISON);
		reap_quarantine(queue, segment->tainted_slab, swp_slot_index(word_slot(word)), segment->tainted_fence);
	}
	segment->nr_claimed = 0;
	segment->tainted_slab = NULL;
}

/*
 * Waits for a slot if one is to be expected (true), or the request has failed. Nothing is claimed; but the table, which the
 * caller pins, is kept meanwhile: else each look would take one from the reserve, and give it back to a grace period.
 */
static bool write_wait_for_slot(struct io_segment *segment, struct table *table)
{
	segment->held = table;
	segment->attempt = 0;
	if (room_wait(segment, ROOM_SLOT))
		return true;
	segment->held = NULL;
	table_unpin(table, 0);
	request_fail(segment->io, -ENOSPC);
	return false;
}

static void write_unhold(struct io_segment *segment)
{
	if (segment->held)
		table_unpin(segment->held, 0);
	segment->held = NULL;
}

/* Pins the table of page `next`; the one that was held while the segment waited no longer needs to be. */
static struct table *write_pin(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;
	struct table *table = table_pin(&io->vs.queue->vswap->tables, io->page + segment->next, true);

	write_unhold(segment);
	return table;
}

/* Finds new slots for the claimed pages, as many in a row as there are. */
static int write_relocate(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;
	struct vswap_queue *queue = io->vs.queue;
	uint64_t page = io->page + segment->next;
	int err = slot_alloc(&queue->vswap->slabs, &queue->cursor, SLOT_ANYWHERE, page, &segment->slab, &segment->slot);

	if (err < 0)
		return err;
	segment->nr_run = 1;
	while (segment->nr_run < segment->nr_claimed &&
	       slot_alloc_at(&queue->cursor, segment->slab, segment->slot + segment->nr_run, page + segment->nr_run))
		segment->nr_run++;
	vswap_count(&queue->counters.nr_relocated, segment->nr_run);
	return 0;
}

/* Sends what is claimed somewhere else, until it is under way (true) or given up (false). */
static bool write_elsewhere(struct io_segment *segment)
{
	while (segment->attempt++ < WRITE_MAX_ATTEMPTS) {
		int err = write_relocate(segment);

		if (err < 0) {
			write_let_go(segment);
			return write_wait_for_slot(segment, segment->table);
		}
		err = write_start_run(segment);
		if (err == 0)
			return true;
		write_drop_slots(segment, err, false);
	}
	write_let_go(segment);
	table_unpin(segment->table, 0);
	request_fail(segment->io, -EIO);
	return false;
}

bool write_segment_step(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;

	if (segment->nr_claimed)
		return write_elsewhere(segment); /* the rest of a run that had to be cut in two */
	while (segment->next < segment->end && io->vs.status == 0) {
		struct table *table = write_pin(segment);
		int err;

		if (!table) {
			if (room_wait(segment, ROOM_TABLE))
				return true;
			request_fail(io, -ENOSPC);
			break;
		}
		segment->nr_run = 0;
		err = write_claim_run(segment, table);
		if (segment->nr_run) {
			segment->table = table; /* the pin stays with the run */
			segment->nr_claimed = segment->nr_run;
			err = write_start_run(segment);
			if (err == 0)
				return true;
			write_drop_slots(segment, err, false);
			return write_elsewhere(segment);
		}
		if (err == -EBUSY && request_segment_wait(segment, table)) {
			table_unpin(table, 0);
			return true;
		}
		if (err == -ENOSPC)
			return write_wait_for_slot(segment, table);
		table_unpin(table, 0);
	}
	write_unhold(segment);
	return false;
}

static void write_publish_page(struct io_segment *segment, uint32_t i)
{
	struct fsw_io *io = segment->io;
	struct vswap_queue *queue = io->vs.queue;
	uint64_t index = segment->next + i, page = io->page + index;
	uint64_t old = atomic_load_explicit(table_word(segment->table, page), memory_order_relaxed);

	atomic_thread_fence(memory_order_release); /* the claimed bit is seen before the new checksum */
	atomic_store_explicit(table_checksum(segment->table, page), io->vs.checksum[index], memory_order_relaxed);
	table_publish(segment->table, page, old,
		      word_next(old, segment->slab->tag, swp_slot(segment->slab->id, segment->slot + i).val));
	vswap_count_tag(queue, word_tag(old), segment->slab->tag);
	if (vswap_word_is_at(old, segment->slab, segment->slot + i))
		return;
	if (write_is_tainted(segment, old))
		reap_quarantine(queue, segment->tainted_slab, swp_slot_index(word_slot(old)), segment->tainted_fence);
	else
		reap_retire(queue, old);
}

/* Entries of the run that are NONE until it is published. They are claimed: nobody else changes that. */
static int32_t write_count_first(const struct io_segment *segment)
{
	uint64_t page = segment->io->page + segment->next;
	int32_t nr = 0;
	uint32_t i;

	for (i = 0; i < segment->nr_run; i++)
		nr += word_tag(atomic_load_explicit(table_word(segment->table, page + i), memory_order_relaxed)) ==
		      WORD_NONE;
	return nr;
}

static void write_publish_run(struct io_segment *segment)
{
	struct vswap_queue *queue = segment->io->vs.queue;
	uint8_t bucket = epoch_enter(&queue->vswap->epoch, &queue->epoch);
	uint32_t i;

	table_book(segment->table, write_count_first(segment));
	for (i = 0; i < segment->nr_run; i++)
		write_publish_page(segment, i);
	epoch_exit(&queue->epoch, bucket);
	segment->next += segment->nr_run;
	segment->nr_claimed -= segment->nr_run;
	segment->nr_run = 0;
	segment->attempt = 0;
	segment->starved_ns = 0;
	if (segment->nr_claimed)
		return;
	table_unpin(segment->table, 0);
	segment->tainted_slab = NULL;
}

static void write_done(struct backend_io *bio, int status)
{
	struct io_segment *segment = BASE_CONTAINER_OF(bio, struct io_segment, bio);

	if (status == 0)
		write_publish_run(segment);
	else
		write_drop_slots(segment, status, true);
	request_segment_step(segment);
}

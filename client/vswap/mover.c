#include "client/vswap/mover.h"

#include <errno.h>
#include <stdlib.h>

#include "client/vswap/drain.h"
#include "client/vswap/page.h"

#define MOVE_MAX_ATTEMPTS 4

int mover_init(struct vswap *vswap)
{
	struct mover *mover = calloc(1, sizeof(*mover));
	unsigned i;
	int err;

	if (!mover)
		return -ENOMEM;
	err = mem_region_open(&mover->region, (size_t)MOVER_NR_JOBS * MOVE_MAX_PAGES * FSW_PAGE_SIZE,
			      MEM_REGION_TOUCH | MEM_REGION_IO);
	if (err < 0) {
		free(mover);
		return err;
	}
	mover->vswap = vswap;
	for (i = 0; i < MOVER_NR_JOBS; i++) {
		mover->job[i].mover = mover;
		mover->job[i].buf = (char *)mover->region.base + (size_t)i * MOVE_MAX_PAGES * FSW_PAGE_SIZE;
	}
	vswap->mover = mover;
	return 0;
}

void mover_done(struct vswap *vswap)
{
	if (!vswap->mover)
		return;
	mem_region_close(&vswap->mover->region);
	free(vswap->mover);
	vswap->mover = NULL;
}

struct move *mover_get(struct mover *mover, struct move_owner *owner)
{
	unsigned i;

	for (i = 0; i < MOVER_NR_JOBS; i++)
		if (!mover->job[i].owner) {
			mover->job[i].owner = owner;
			return &mover->job[i];
		}
	return NULL;
}

void mover_slots_freed(struct mover *mover)
{
	if (mover->running)
		drain_resume(mover->running);
}

void *move_page(const struct move *move, uint32_t i)
{
	return move->buf + (size_t)i * FSW_PAGE_SIZE;
}

static bool move_item_unchanged(const struct move *move, const struct move_item *item)
{
	struct table_look look;

	vswap_look(vswap_mover_queue(move->mover->vswap), item->page, &look);
	return word_is_same_backing(look.word, item->word);
}

static void move_end(struct move *move)
{
	struct move_owner *owner = move->owner;

	epoch_exit(&vswap_mover_queue(move->mover->vswap)->epoch, move->epoch);
	move->owner = NULL;
	owner->ended(owner, move->nr);
}

/* Reports what cannot be moved; what has changed meanwhile needs no moving by us. */
static void move_give_up(struct move *move, uint32_t first, uint32_t last, int err)
{
	uint32_t i;

	for (i = first; i < last; i++) {
		struct move_item *item = &move->item[i];

		if (item->wanted && move_item_unchanged(move, item))
			move->owner->stuck(move->owner, move, i, err);
		item->wanted = false;
	}
}

static void move_write(struct move *move);

/* Swings the word of one page to its new slot, and retires the old one. */
static bool move_commit(struct move *move, const struct move_item *item, uint32_t to_slot)
{
	struct vswap *vswap = move->mover->vswap;
	struct vswap_queue *queue = vswap_mover_queue(vswap);
	struct table *table = vswap_table(queue, item->page);
	uint64_t fresh = word_next(item->word, move->to->tag, swp_slot(move->to->id, to_slot).val);

	/* Without a pin: in a table that has gone, or is about to, the word is NONE and the swing is refused. */
	if (!table || !table_swing(table, item->page, item->word, fresh))
		return false;
	vswap_count_tag(queue, word_tag(item->word), move->to->tag);
	reap_retire(queue, item->word);
	return true;
}

static void move_written(struct backend_io *bio, int status)
{
	struct move *move = BASE_CONTAINER_OF(bio, struct move, bio);
	struct vswap *vswap = move->mover->vswap;
	struct vswap_queue *queue = vswap_mover_queue(vswap);
	uint64_t fence = atomic_load(&move->to->backend->fence);
	uint32_t i, to_slot = move->to_slot;

	for (i = move->first; i < move->last; i++) {
		struct move_item *item = &move->item[i];

		if (!item->wanted)
			continue;
		if (status == 0) {
			item->wanted = false;
			if (move_commit(move, item, to_slot))
				move->owner->moved(move->owner);
			else
				slot_free_unused(&vswap->slabs, move->to, to_slot, 1);
		} else if (status == -ENODATA) {
			slot_free_unused(&vswap->slabs, move->to, to_slot, 1);
		} else {
			reap_quarantine(queue, move->to, to_slot, fence);
		}
		to_slot++;
	}
	if (status == 0) {
		move->first = move->last;
		move->attempt = 0;
	} else if (++move->attempt == MOVE_MAX_ATTEMPTS) {
		move_give_up(move, move->first, move->nr, status);
	}
	move_write(move);
}

static void move_add_piece(struct move *move, uint32_t i)
{
	struct iovec *last = move->bio.nr_iov ? &move->iov[move->bio.nr_iov - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == move_page(move, i))
		last->iov_len += FSW_PAGE_SIZE;
	else
		move->iov[move->bio.nr_iov++] =
			(struct iovec){ .iov_base = move_page(move, i), .iov_len = FSW_PAGE_SIZE };
	move->nr_to++;
}

/* Takes slots in a row for as many of the wanted items from `first` on as it can. 0 or -ENOSPC. */
static int move_allocate(struct move *move)
{
	struct vswap *vswap = move->mover->vswap;
	struct slot_cursor *cursor = &vswap_mover_queue(vswap)->cursor;
	int err = slot_alloc(&vswap->slabs, cursor, move->owner->where, move->item[move->first].page, &move->to,
			     &move->to_slot);
	uint32_t i;

	if (err < 0)
		return err;
	move->nr_to = 0;
	move->bio.nr_iov = 0;
	move_add_piece(move, move->first);
	for (i = move->first + 1; i < move->nr; i++) {
		if (!move->item[i].wanted)
			continue;
		if (!slot_alloc_at(cursor, move->to, move->to_slot + move->nr_to, move->item[i].page))
			break;
		move_add_piece(move, i);
	}
	move->last = i;
	return 0;
}

/* Writes what is still wanted, or ends the job. */
static void move_write(struct move *move)
{
	struct vswap *vswap = move->mover->vswap;
	int err;

	for (;;) {
		while (move->first < move->nr && !move->item[move->first].wanted)
			move->first++;
		if (move->first == move->nr)
			break;
		err = move_allocate(move);
		if (err < 0) {
			move->owner->no_room(move->owner);
			break;
		}
		move->bio.op = IO_WRITE;
		move->bio.slab = move->to->lent;
		move->bio.slot = move->to_slot;
		move->bio.nr_slots = move->nr_to;
		move->bio.iov = move->iov;
		move->bio.done = move_written;
		err = backend_submit(move->to->backend, vswap_mover_queue(vswap)->index, &move->bio);
		if (err == 0)
			return;
		slot_free_unused(&vswap->slabs, move->to, move->to_slot, move->nr_to);
		if (++move->attempt == MOVE_MAX_ATTEMPTS)
			move_give_up(move, move->first, move->nr, err);
	}
	move_end(move);
}

static void move_read_done(struct backend_io *bio, int status)
{
	struct move *move = BASE_CONTAINER_OF(bio, struct move, bio);
	uint32_t i;

	if (status < 0) {
		move_give_up(move, 0, move->nr, status);
	} else {
		for (i = 0; i < move->nr; i++) {
			if (i + 1 < move->nr)
				page_prefetch(move_page(move, i + 1));
			if (move->item[i].wanted && page_checksum(move_page(move, i)) != move->item[i].checksum)
				move_give_up(move, i, i + 1, -EBADMSG); /* never release the only copy for a bad one */
		}
	}
	move->first = 0;
	move->attempt = 0;
	move_write(move);
}

int move_start(struct move *move)
{
	struct vswap_queue *queue = vswap_mover_queue(move->mover->vswap);
	int err;

	move->iov[0] = (struct iovec){ .iov_base = move->buf, .iov_len = (size_t)move->nr * FSW_PAGE_SIZE };
	move->bio.op = IO_READ;
	move->bio.slab = move->from->lent;
	move->bio.slot = move->slot;
	move->bio.nr_slots = move->nr;
	move->bio.iov = move->iov;
	move->bio.nr_iov = 1;
	move->bio.done = move_read_done;
	err = backend_submit(move->from->backend, queue->index, &move->bio);
	if (err < 0) {
		move_give_up(move, 0, move->nr, err);
		epoch_exit(&queue->epoch, move->epoch);
		move->owner = NULL;
	}
	return err;
}

void move_start_loaded(struct move *move)
{
	move->first = 0;
	move->attempt = 0;
	move_write(move);
}

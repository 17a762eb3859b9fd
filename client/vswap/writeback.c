/*
 * Compressed pages make room: when the pool is nearly full, the oldest of its pages are moved to slots by the mover, until an
 * eighth of it is free. Meanwhile, and when there are no slots, new pages go to slots themselves.
 *
 * Room comes back with the I/O epochs, a little later than a page is moved. So there is a pause after each batch in which the
 * epochs move on; else far more would be moved than has to be.
 *
 * Threads: the mover's reactor, but for writeback_want and writeback_is_due.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/vswap/mover.h"
#include "client/vswap/page.h"

#define WRITEBACK_BATCH_JOBS 2u
#define WRITEBACK_PAUSE_NS (2 * SYS_NS_PER_MS)
#define WRITEBACK_NO_ROOM_NS (100 * SYS_NS_PER_MS)

struct writeback {
	struct move_owner owner;
	struct vswap *vswap;
	struct sys_message wake;
	_Atomic bool wanted; /* a message is under way, or it runs */
	struct sys_timer timer;
	unsigned nr_jobs;
	bool starting; /* jobs that end meanwhile do not end the batch */
	bool no_room;
};

bool writeback_is_due(const struct vswap *vswap)
{
	return comp_pool_fullness(vswap->comp, 16) >= 15;
}

static bool writeback_is_enough(const struct vswap *vswap)
{
	return comp_pool_fullness(vswap->comp, 16) < 14;
}

/* Whether the object is what the page says, and its bytes are what was written; they are in the job's buffer then. */
static bool writeback_load(struct writeback *writeback, struct move *move, const struct comp_object *object)
{
	struct vswap *vswap = writeback->vswap;
	struct move_item *item = &move->item[move->nr];
	struct table_look look;

	vswap_look(vswap_mover_queue(vswap), object->owner, &look);
	if (word_is_claimed(look.word) || word_tag(look.word) != WORD_COMP || word_payload(look.word) != object->handle)
		return false;
	/* A page that is wrong stays what it is: whoever reads it is told. */
	if (comp_load(vswap->comp, vswap_mover_queue(vswap)->index, object->handle, move_page(move, move->nr)) < 0 ||
	    page_checksum(move_page(move, move->nr)) != look.checksum)
		return false;
	*item = (struct move_item){ .page = object->owner, .word = look.word, .checksum = look.checksum, .wanted = true };
	return true;
}

/* Starts one job. False when there is nothing to be moved, or no job to be had. */
static bool writeback_start_job(struct writeback *writeback)
{
	struct vswap *vswap = writeback->vswap;
	struct vswap_queue *queue = vswap_mover_queue(vswap);
	struct comp_object object[MOVE_MAX_PAGES];
	struct move *move = mover_get(vswap->mover, &writeback->owner);
	unsigned nr, i;

	if (!move)
		return false;
	move->epoch = epoch_enter(&vswap->epoch, &queue->epoch);
	move->from = NULL;
	move->nr = 0;
	nr = comp_oldest(vswap->comp, object, MOVE_MAX_PAGES);
	for (i = 0; i < nr; i++)
		move->nr += writeback_load(writeback, move, &object[i]);
	if (move->nr == 0) {
		epoch_exit(&queue->epoch, move->epoch);
		move->owner = NULL;
		return false;
	}
	writeback->nr_jobs++;
	move_start_loaded(move);
	return true;
}

static void writeback_pause(struct writeback *writeback)
{
	struct sys_reactor *reactor = vswap_mover_queue(writeback->vswap)->reactor;

	sys_timer_arm(reactor, &writeback->timer,
		      sys_reactor_now_ns(reactor) + (writeback->no_room ? WRITEBACK_NO_ROOM_NS : WRITEBACK_PAUSE_NS));
}

static void writeback_batch(struct writeback *writeback)
{
	writeback->no_room = false;
	if (writeback_is_enough(writeback->vswap)) {
		atomic_store(&writeback->wanted, false);
		return;
	}
	writeback->starting = true;
	while (writeback->nr_jobs < WRITEBACK_BATCH_JOBS && !writeback->no_room && writeback_start_job(writeback))
		;
	writeback->starting = false;
	if (writeback->nr_jobs == 0)
		writeback_pause(writeback);
}

static void writeback_moved(struct move_owner *owner)
{
	struct writeback *writeback = BASE_CONTAINER_OF(owner, struct writeback, owner);

	vswap_count(&vswap_mover_queue(writeback->vswap)->counters.nr_written_back, 1);
}

/* It stays in the pool; the hand of the pool comes back to it last. */
static void writeback_stuck(struct move_owner *owner, const struct move *move, uint32_t item, int err)
{
	(void)owner;
	(void)move;
	(void)item;
	(void)err;
}

static void writeback_no_room(struct move_owner *owner)
{
	BASE_CONTAINER_OF(owner, struct writeback, owner)->no_room = true;
}

static void writeback_ended(struct move_owner *owner, uint32_t nr_pages)
{
	struct writeback *writeback = BASE_CONTAINER_OF(owner, struct writeback, owner);

	(void)nr_pages;
	if (--writeback->nr_jobs == 0 && !writeback->starting)
		writeback_pause(writeback);
}

static void writeback_tick(struct sys_timer *timer)
{
	writeback_batch(BASE_CONTAINER_OF(timer, struct writeback, timer));
}

static void writeback_woken(struct sys_message *message)
{
	writeback_batch(BASE_CONTAINER_OF(message, struct writeback, wake));
}

void writeback_want(struct vswap_queue *queue)
{
	struct writeback *writeback = queue->vswap->writeback;
	struct vswap_queue *mover = vswap_mover_queue(queue->vswap);

	if (!mover->reactor || atomic_load_explicit(&writeback->wanted, memory_order_relaxed) ||
	    atomic_exchange(&writeback->wanted, true))
		return;
	sys_reactor_send(mover->reactor, &writeback->wake);
}

int writeback_init(struct vswap *vswap)
{
	struct writeback *writeback = calloc(1, sizeof(*writeback));

	if (!writeback)
		return -ENOMEM;
	writeback->vswap = vswap;
	writeback->owner = (struct move_owner){ .where = SLOT_ANYWHERE, .moved = writeback_moved, .stuck = writeback_stuck,
						.no_room = writeback_no_room, .ended = writeback_ended };
	writeback->wake.run = writeback_woken;
	writeback->timer.fire = writeback_tick;
	vswap->writeback = writeback;
	return 0;
}

void writeback_done(struct vswap *vswap)
{
	struct vswap_queue *mover = vswap_mover_queue(vswap);

	if (vswap->writeback && mover->reactor)
		sys_timer_cancel(mover->reactor, &vswap->writeback->timer);
	free(vswap->writeback);
	vswap->writeback = NULL;
}

#include "client/vswap/drain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log/log.h"

#define DRAIN_ROOM_PATIENCE_NS (2 * SYS_NS_PER_S) /* for a slab that the control plane may be fetching */
#define DRAIN_LOOK_AGAIN_NS (10 * SYS_NS_PER_MS)
#define DRAIN_MAX_IDLE_PASSES 200u
/*
 * A compromise between a drain and the reads meanwhile. farswap-bench drain, with two servers and the client on two
 * processors: 64 pages move at 0.17 of a bare stream's rate while the p99 of reads is 1.2 times what it was; 128 at
 * 0.26 and 2 times; 256 no faster, and 4 times. Runs of half the length in the same window are no faster, and 8 times.
 * It depends on the machine: elsewhere 128 were measured at 0.27 and 6 times, 256 at 0.32 and 12 times.
 */
#define DRAIN_DEFAULT_WINDOW 128u
/* So many runs fit into the window: one is read while another is written. */
#define DRAIN_RUNS_PER_WINDOW 2u
#define DRAIN_SLOTS_PER_STEP (1u << 16) /* that are looked at before others get a turn */

struct drain *drain_create(struct vswap *vswap, struct place *place)
{
	struct drain *drain = calloc(1, sizeof(*drain));

	if (!drain)
		return NULL;
	drain->vswap = vswap;
	drain->place = place;
	lock_mutex_init(&drain->lock);
	return drain;
}

void drain_free(struct drain *drain)
{
	if (!drain)
		return;
	lock_mutex_done(&drain->lock);
	free(drain);
}

static struct sys_reactor *drain_reactor(const struct drain *drain)
{
	return vswap_mover_queue(drain->vswap)->reactor;
}

static struct drain *drain_of(struct move_owner *owner)
{
	return BASE_CONTAINER_OF(owner, struct drain, owner);
}

static enum slot_where drain_where(const struct drain *drain)
{
	switch (drain->options.target) {
	case VSWAP_DRAIN_TO_REMOTE:
		return SLOT_REMOTE_ONLY;
	case VSWAP_DRAIN_TO_DISK:
		return SLOT_DISK_ONLY;
	default:
		return SLOT_ANYWHERE;
	}
}

static void drain_moved(struct move_owner *owner)
{
	struct drain *drain = drain_of(owner);

	lock_acquire(&drain->lock);
	drain->progress.nr_moved++;
	lock_release(&drain->lock);
}

static void drain_stuck(struct move_owner *owner, const struct move *move, uint32_t item, int err)
{
	struct drain *drain = drain_of(owner);
	struct vswap_drain_progress *progress = &drain->progress;

	lock_acquire(&drain->lock);
	progress->nr_stuck++;
	if (progress->nr_stuck_listed < VSWAP_DRAIN_MAX_STUCK) {
		progress->stuck[progress->nr_stuck_listed].slab = move->from->lent->index;
		progress->stuck[progress->nr_stuck_listed].slot = move->slot + item;
		progress->stuck[progress->nr_stuck_listed].err = err;
		progress->nr_stuck_listed++;
	}
	lock_release(&drain->lock);
}

static void drain_no_room(struct move_owner *owner)
{
	struct drain *drain = drain_of(owner);
	struct vswap *vswap = drain->vswap;
	unsigned i;

	drain->no_room = true;
	if (drain->no_room_since_ns)
		return;
	drain->no_room_since_ns = sys_reactor_now_ns(drain_reactor(drain));
	/* Nothing is left but, perhaps, in the clusters that the queues keep for themselves. */
	for (i = 0; i < vswap->nr_queues; i++)
		vswap_queue_ask_release(&vswap->queue[i]);
}

/* ---- the walk ---- */

/* The slab of the backend with the lowest number from slab_id on. */
static struct slab *drain_current_slab(struct drain *drain)
{
	const struct slab_list *list = atomic_load_explicit(&drain->vswap->slabs.list, memory_order_acquire);
	struct slab *best = NULL;
	uint32_t i;

	for (i = 0; i < list->nr; i++) {
		struct slab *slab = list->slab[i];

		if (slab->backend == drain->place->backend && slab->id >= drain->slab_id && (!best || slab->id < best->id))
			best = slab;
	}
	return best;
}

/* Sums over the slabs of the backend: slots that are live, and slots that are not free. */
static void drain_count(struct drain *drain, uint64_t *ret_live, uint64_t *ret_used)
{
	const struct slab_list *list = atomic_load_explicit(&drain->vswap->slabs.list, memory_order_acquire);
	uint64_t live = 0, used = 0;
	uint32_t i, j;

	for (i = 0; i < list->nr; i++) {
		struct slab *slab = list->slab[i];

		if (slab->backend != drain->place->backend)
			continue;
		for (j = 0; j < slab->nr_slots / 64; j++) {
			live += (uint64_t)__builtin_popcountll(slab_live_bits(slab, j));
			used += (uint64_t)__builtin_popcountll(
				atomic_load_explicit(&slab->used[j], memory_order_acquire));
		}
	}
	*ret_live = live;
	*ret_used = used;
}

static uint32_t drain_max_run(const struct drain *drain)
{
	return (uint32_t)base_min_u64(base_max_u64(drain->options.window_pages / DRAIN_RUNS_PER_WINDOW, 1), MOVE_MAX_PAGES);
}

/* The next run of live slots from where the walk stands. 0: the slab's end. */
static uint32_t drain_next_run(struct drain *drain, const struct slab *slab)
{
	uint32_t max = drain_max_run(drain);
	uint32_t nr = 0;

	while (drain->slot < slab->nr_slots) {
		uint64_t bits = slab_live_bits(slab, drain->slot / 64) >> drain->slot % 64;

		if (bits) {
			drain->slot += (uint32_t)__builtin_ctzll(bits);
			break;
		}
		drain->slot = (drain->slot / 64 + 1) * 64;
	}
	while (nr < max && drain->slot + nr < slab->nr_slots &&
	       slab_live_bits(slab, (drain->slot + nr) / 64) >> (drain->slot + nr) % 64 & 1)
		nr++;
	return nr;
}

/* What is to be done with one slot of a run: see the table in the design's contract of the drain. */
static bool drain_look(struct drain *drain, const struct slab *slab, uint32_t slot, struct move_item *item)
{
	struct table_look look;

	item->page = atomic_load_explicit(&slab->reverse[slot], memory_order_relaxed);
	vswap_look(vswap_mover_queue(drain->vswap), item->page, &look);
	item->word = look.word;
	item->checksum = look.checksum;
	item->wanted = false;
	if (word_is_claimed(look.word)) {
		/* Somebody writes it: to this slot, or away from it. Waited for when nothing else is left to do. */
		if (drain->nr_busy++ == 0)
			drain->busy_page = item->page;
	} else if (vswap_word_is_at(look.word, slab, slot)) {
		item->wanted = true;
	} else {
		drain->nr_orphans++;
	}
	return item->wanted;
}

/* For the longest run there may be. Scattered pages, each a run of its own, fill the window as well as runs do. */
static bool drain_window_has_room(const struct drain *drain)
{
	return drain->nr_pages_moving + drain_max_run(drain) <= drain->options.window_pages;
}

/* Starts jobs until the window is full or the walk is at its end. True when it should be called again in a later turn. */
static bool drain_start_jobs(struct drain *drain)
{
	struct vswap_queue *queue = vswap_mover_queue(drain->vswap);
	uint32_t nr_looked = 0;

	while (!drain->at_end && !drain->no_room && drain_window_has_room(drain)) {
		struct slab *slab = drain_current_slab(drain);
		bool wanted = false;
		struct move *move;
		uint32_t nr, i;

		if (!slab) {
			drain->at_end = true;
			break;
		}
		if (slab->id != drain->slab_id) {
			drain->slab_id = slab->id;
			drain->slot = 0;
		}
		nr = drain_next_run(drain, slab);
		if (nr == 0) {
			drain->slab_id++;
			drain->slot = 0;
			continue;
		}
		if (nr_looked >= DRAIN_SLOTS_PER_STEP)
			return true;
		move = mover_get(drain->vswap->mover, &drain->owner);
		if (!move)
			break;
		move->epoch = epoch_enter(&drain->vswap->epoch, &queue->epoch);
		move->from = slab;
		move->slot = drain->slot;
		move->nr = nr;
		for (i = 0; i < nr; i++)
			wanted |= drain_look(drain, slab, drain->slot + i, &move->item[i]);
		drain->slot += nr;
		nr_looked += nr;
		if (!wanted) {
			epoch_exit(&queue->epoch, move->epoch);
			move->owner = NULL;
		} else if (move_start(move) == 0) {
			drain->nr_jobs++;
			drain->nr_pages_moving += nr;
		}
	}
	return false;
}

/* ---- passes ---- */

static void drain_begin_pass(struct drain *drain)
{
	lock_acquire(&drain->lock);
	drain->progress.nr_stuck = 0;
	drain->progress.nr_stuck_listed = 0;
	drain->nr_moved_before = drain->progress.nr_moved;
	lock_release(&drain->lock);
	drain->slab_id = 0;
	drain->slot = 0;
	drain->at_end = false;
	drain->nr_busy = 0;
	drain->nr_orphans = 0;
	drain->no_room = false;
}

static uint64_t drain_longest_read(const struct vswap *vswap)
{
	uint64_t longest = 0;
	unsigned i;

	for (i = 0; i < vswap->nr_queues; i++)
		longest = base_max_u64(longest, atomic_load_explicit(&vswap->queue[i].counters.longest_read_ns,
								     memory_order_relaxed));
	return longest;
}

static void drain_finish(struct drain *drain, enum vswap_drain_state state)
{
	struct vswap_queue *queue = vswap_mover_queue(drain->vswap);
	uint64_t live, used;

	drain_count(drain, &live, &used);
	slot_cursor_close(&drain->vswap->slabs, &queue->cursor);
	sys_timer_cancel(queue->reactor, &drain->timer);
	drain->vswap->mover->running = NULL;
	lock_acquire(&drain->lock);
	drain->progress.nr_left = live;
	drain->progress.elapsed_ns = sys_reactor_now_ns(queue->reactor) - drain->started_ns;
	drain->progress.longest_read_ns = drain_longest_read(drain->vswap);
	drain->progress.state = state;
	lock_release(&drain->lock);
	log_info("drain of %s ended: %llu slots left", drain->place->backend->name, (unsigned long long)live);
}

static void drain_woken(struct sys_message *message)
{
	struct drain *drain = BASE_CONTAINER_OF(message, struct drain, waiter.wake);

	drain->waits = false;
	drain_resume(drain);
}

/* Somebody works on an entry that is in the way. True: the drain is called when he has done. */
static bool drain_wait(struct drain *drain)
{
	struct table_look look;

	vswap_look(vswap_mover_queue(drain->vswap), drain->busy_page, &look);
	if (!look.table || !word_is_claimed(look.word))
		return false;
	drain->waiter.reactor = drain_reactor(drain);
	drain->waiter.wake.run = drain_woken;
	drain->waits = table_wait(look.table, drain->busy_page, &drain->waiter);
	return drain->waits;
}

static void drain_set_timer(struct drain *drain, uint64_t at_ns)
{
	if (drain->options.deadline_ms)
		at_ns = base_min_u64(at_ns, drain->started_ns + drain->options.deadline_ms * SYS_NS_PER_MS);
	if (at_ns != UINT64_MAX)
		sys_timer_arm(drain_reactor(drain), &drain->timer, at_ns);
}

/* A reason to stop before the work is done. */
static bool drain_should_stop(struct drain *drain, enum vswap_drain_state *ret_state)
{
	uint64_t now = sys_reactor_now_ns(drain_reactor(drain));

	if (atomic_load(&drain->cancel))
		*ret_state = VSWAP_DRAIN_CANCELLED;
	else if (drain->options.deadline_ms && now - drain->started_ns >= drain->options.deadline_ms * SYS_NS_PER_MS)
		*ret_state = VSWAP_DRAIN_DEADLINE;
	else
		return false;
	return true;
}

/* Every slot has been looked at and every job has ended. True: go on with another pass at once. */
static bool drain_end_pass(struct drain *drain)
{
	uint64_t now = sys_reactor_now_ns(drain_reactor(drain)), live, used, nr_stuck;
	bool moved;

	drain_count(drain, &live, &used);
	lock_acquire(&drain->lock);
	moved = drain->progress.nr_moved != drain->nr_moved_before;
	nr_stuck = drain->progress.nr_stuck;
	drain->progress.nr_left = live;
	lock_release(&drain->lock);
	if (used == 0) { /* not one is even waiting for I/O to end: the memory can be given back */
		drain_finish(drain, VSWAP_DRAIN_DRAINED);
		return false;
	}
	if (moved || !drain->no_room)
		drain->no_room_since_ns = drain->no_room ? now : 0;
	if (drain->no_room) {
		if (now - drain->no_room_since_ns >= DRAIN_ROOM_PATIENCE_NS) {
			drain_finish(drain, VSWAP_DRAIN_NO_ROOM);
			return false;
		}
		drain_set_timer(drain, now + DRAIN_LOOK_AGAIN_NS);
		return false; /* mover_slots_freed, or the timer */
	}
	if (moved) {
		drain->nr_idle_passes = 0;
		return true;
	}
	if (drain->nr_busy)
		return !drain_wait(drain);
	if (live == 0 || drain->nr_orphans) {
		/* Only I/O that has not ended yet, or a step of somebody else's, holds what is left. */
		if (live != 0 && ++drain->nr_idle_passes >= DRAIN_MAX_IDLE_PASSES) {
			drain_finish(drain, VSWAP_DRAIN_FAILED);
			return false;
		}
		drain_set_timer(drain, now + DRAIN_LOOK_AGAIN_NS);
		return false;
	}
	if (nr_stuck) {
		drain_finish(drain, VSWAP_DRAIN_FAILED);
		return false;
	}
	return true; /* what the pass saw as live has gone by itself or is new to it */
}

static void drain_pump(struct drain *drain)
{
	enum vswap_drain_state state;

	for (;;) {
		bool stop = drain_should_stop(drain, &state);

		if (drain->waits && !stop)
			return;
		if (!stop && drain_start_jobs(drain)) {
			drain_set_timer(drain, sys_reactor_now_ns(drain_reactor(drain)));
			return;
		}
		if (drain->nr_jobs)
			return;
		if (stop) {
			if (!drain->waits) /* the waiter is in an entry's queue: its owner sends it here soon */
				drain_finish(drain, state);
			return;
		}
		if (!drain_end_pass(drain))
			return;
		drain_begin_pass(drain);
	}
}

void drain_resume(struct drain *drain)
{
	if (drain->vswap->mover->running != drain)
		return;
	if (drain->nr_jobs == 0 && !drain->waits && (drain->at_end || drain->no_room))
		drain_begin_pass(drain);
	drain_pump(drain);
}

static void drain_tick(struct sys_timer *timer)
{
	struct drain *drain = BASE_CONTAINER_OF(timer, struct drain, timer);

	drain_set_timer(drain, UINT64_MAX);
	drain_resume(drain);
}

static void drain_move_ended(struct move_owner *owner, uint32_t nr_pages)
{
	struct drain *drain = drain_of(owner);

	drain->nr_jobs--;
	drain->nr_pages_moving -= nr_pages;
	drain_pump(drain);
}

/* ---- the operator's side: control threads ---- */

static void drain_started(struct sys_message *message)
{
	struct drain *drain = BASE_CONTAINER_OF(message, struct drain, start);

	drain->timer.fire = drain_tick;
	drain->owner = (struct move_owner){ .where = drain_where(drain), .moved = drain_moved, .stuck = drain_stuck,
					    .no_room = drain_no_room, .ended = drain_move_ended };
	drain->nr_idle_passes = 0;
	drain->no_room_since_ns = 0;
	drain->waits = false;
	drain->vswap->mover->running = drain;
	drain_begin_pass(drain);
	drain_set_timer(drain, UINT64_MAX);
	drain_pump(drain);
}

static enum vswap_drain_state drain_state(struct drain *drain)
{
	enum vswap_drain_state state;

	lock_acquire(&drain->lock);
	state = drain->progress.state;
	lock_release(&drain->lock);
	return state;
}

static void drain_reset(struct drain *drain, const struct vswap_drain_options *options)
{
	uint64_t live, used;

	sys_rcu_read_lock();
	drain_count(drain, &live, &used);
	sys_rcu_read_unlock();
	drain->options = *options;
	if (drain->options.window_pages == 0)
		drain->options.window_pages = DRAIN_DEFAULT_WINDOW;
	drain->options.window_pages =
		(uint32_t)base_min_u64(drain->options.window_pages, MOVER_NR_JOBS * MOVE_MAX_PAGES);
	atomic_store(&drain->cancel, false);
	drain->start.run = drain_started;
	drain->started_ns = sys_clock_now_ns(sys_reactor_clock(drain_reactor(drain)));
	lock_acquire(&drain->lock);
	memset(&drain->progress, 0, sizeof(drain->progress));
	drain->progress.state = VSWAP_DRAIN_RUNNING;
	drain->progress.nr_start = live;
	drain->progress.nr_left = live;
	lock_release(&drain->lock);
}

int vswap_drain(struct vswap *vswap, struct backend *backend, const struct vswap_drain_options *options)
{
	struct place *place = place_of(backend);
	int err = 0;
	unsigned i;

	if (!place || !place->drain)
		return -ENOENT;
	lock_acquire(&vswap->lock);
	for (i = 0; i < vswap->nr_backends && err == 0; i++)
		if (drain_state(place_of(vswap->backends[i])->drain) == VSWAP_DRAIN_RUNNING)
			err = vswap->backends[i] == backend ? -EALREADY : -EBUSY;
	if (err == 0) {
		for (i = 0; i < vswap->nr_queues; i++)
			atomic_store_explicit(&vswap->queue[i].counters.longest_read_ns, 0, memory_order_relaxed);
		atomic_store(&place->draining, true);
		/* Every allocation that began before has ended when each reactor has ended its turn. */
		sys_rcu_synchronize();
		drain_reset(place->drain, options);
		sys_reactor_send(vswap_mover_queue(vswap)->reactor, &place->drain->start);
	}
	lock_release(&vswap->lock);
	return err;
}

int vswap_drain_cancel(struct vswap *vswap, struct backend *backend)
{
	struct place *place = place_of(backend);

	(void)vswap;
	if (!place || drain_state(place->drain) != VSWAP_DRAIN_RUNNING)
		return -ENOENT;
	atomic_store(&place->drain->cancel, true);
	return 0;
}

void vswap_hold_back(struct vswap *vswap, struct backend *backend)
{
	lock_acquire(&vswap->lock);
	atomic_store(&place_of(backend)->draining, true);
	lock_release(&vswap->lock);
}

int vswap_undrain(struct vswap *vswap, struct backend *backend)
{
	struct place *place = place_of(backend);
	int err = 0;

	lock_acquire(&vswap->lock);
	if (drain_state(place->drain) == VSWAP_DRAIN_RUNNING) {
		err = -EBUSY;
	} else {
		lock_acquire(&place->drain->lock);
		place->drain->progress.state = VSWAP_DRAIN_NONE;
		lock_release(&place->drain->lock);
		atomic_store(&place->draining, false);
		atomic_fetch_add(&vswap->slabs.generation, 1);
	}
	lock_release(&vswap->lock);
	return err;
}

bool vswap_backend_draining(const struct backend *backend)
{
	return place_of(backend) && place_is_draining(backend);
}

void vswap_drain_progress(struct vswap *vswap, struct backend *backend, struct vswap_drain_progress *ret_progress)
{
	struct drain *drain = place_of(backend)->drain;
	uint64_t live, used;

	sys_rcu_read_lock();
	drain_count(drain, &live, &used);
	sys_rcu_read_unlock();
	lock_acquire(&drain->lock);
	*ret_progress = drain->progress;
	lock_release(&drain->lock);
	if (ret_progress->state == VSWAP_DRAIN_RUNNING) {
		ret_progress->nr_left = live;
		ret_progress->elapsed_ns =
			sys_clock_now_ns(sys_reactor_clock(drain_reactor(drain))) - drain->started_ns;
		ret_progress->longest_read_ns = drain_longest_read(vswap);
	}
}

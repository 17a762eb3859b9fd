/*
 * A write that finds no room fails only when none is to be expected. Slots that were retired, and tables that were freed,
 * come back when the I/O and the readers that may still look at them have ended, and slots of failed writes when these are
 * settled; more slots, and a filled reserve, come from the thread that supplies them; servers that are out of reach may be
 * back. So long the write waits, and looks again every few milliseconds. It has claimed nothing meanwhile: a read that holds
 * the I/O epoch, and with it retired slots, never waits for such a write.
 */
#include "client/vswap/internal.h"

#define ROOM_INTERVAL_NS SYS_NS_PER_MS
#define ROOM_SERVER_INTERVAL_NS (10 * SYS_NS_PER_MS) /* of those that wait for a server */
/* Behind a read that a silent server holds up, room may be long in coming: then the front end is told that there is none. */
#define ROOM_PATIENCE_NS SYS_NS_PER_S

static void room_want(struct vswap *vswap)
{
	if (vswap->supplier.wanted)
		vswap->supplier.wanted(vswap->supplier.arg);
}

static bool room_is_supplied(const struct vswap *vswap, uint64_t ask)
{
	return vswap->supplier.wanted &&
	       (atomic_load(&vswap->nr_room_answered) < ask || atomic_load(&vswap->room_is_coming));
}

static bool room_may_come(const struct io_segment *segment, enum room_kind kind)
{
	const struct vswap_queue *queue = segment->io->vs.queue;
	const struct vswap *vswap = queue->vswap;

	if (room_is_supplied(vswap, segment->room_ask))
		return true;
	if (kind == ROOM_TABLE)
		return table_is_coming(&vswap->tables);
	return slot_is_coming(&vswap->slabs, &queue->cursor);
}

/* For servers out of reach: those with room, and the one where the page is, which can be written in place. As a read does. */
static uint64_t room_patience_ns(const struct io_segment *segment)
{
	const struct vswap_queue *queue = segment->io->vs.queue;
	uint64_t word = atomic_load_explicit(table_word(segment->held, segment->io->page + segment->next),
					     memory_order_acquire);
	const struct slab *slab =
		word_has_slot(word) ? slab_by_id(&queue->vswap->slabs, swp_slot_slab(word_slot(word))) : NULL;

	return base_max_u64(slot_patience_ns(&queue->vswap->slabs), slab ? slab_patience_ns(slab) : 0);
}

static void room_ask(struct io_segment *segment, uint64_t now)
{
	struct vswap *vswap = segment->io->vs.queue->vswap;

	segment->room_asked_ns = now;
	segment->room_ask = atomic_fetch_add(&vswap->nr_room_asked, 1) + 1;
	room_want(vswap);
}

/* Every write that waits looks again; what finds nothing waits anew. */
static void room_tick(struct sys_timer *timer)
{
	struct vswap_queue *queue = BASE_CONTAINER_OF(timer, struct vswap_queue, room_timer);
	struct io_waiter_list starved = TAILQ_HEAD_INITIALIZER(starved);
	struct io_waiter *waiter;

	/* The supplier may have begun to look before the last of them asked. */
	if (atomic_load(&queue->vswap->nr_room_answered) < atomic_load(&queue->vswap->nr_room_asked))
		room_want(queue->vswap);
	TAILQ_CONCAT(&starved, &queue->starved, link);
	while ((waiter = TAILQ_FIRST(&starved)) != NULL) {
		TAILQ_REMOVE(&starved, waiter, link);
		request_segment_step(BASE_CONTAINER_OF(waiter, struct io_segment, waiter));
	}
}

bool room_wait(struct io_segment *segment, enum room_kind kind)
{
	struct vswap_queue *queue = segment->io->vs.queue;
	uint64_t now = sys_reactor_now_ns(queue->reactor), look_ns;
	bool awaits;

	assert(segment->nr_claimed == 0);
	if (segment->starved_ns == 0) {
		segment->starved_ns = base_max_u64(now, 1);
		segment->awaits_server = false;
		room_ask(segment, now);
	}
	awaits = kind == ROOM_SLOT && now - segment->starved_ns < room_patience_ns(segment);
	/* No longer: what it has brought, or not, may have yet to come here. */
	if (segment->awaits_server && !awaits)
		room_ask(segment, now);
	segment->awaits_server = awaits;
	if (!awaits && (now - segment->room_asked_ns >= ROOM_PATIENCE_NS || !room_may_come(segment, kind)))
		return false;
	look_ns = now + (awaits ? ROOM_SERVER_INTERVAL_NS : ROOM_INTERVAL_NS);
	if (!queue->room_timer.armed || look_ns < queue->room_timer.at_ns)
		sys_timer_arm(queue->reactor, &queue->room_timer, look_ns);
	segment->nr_run = 0;
	TAILQ_INSERT_TAIL(&queue->starved, &segment->waiter, link);
	vswap_count(&queue->counters.nr_room_waits, 1);
	return true;
}

static void room_tables_low(void *arg)
{
	room_want(arg);
}

void room_init(struct vswap *vswap)
{
	unsigned i;

	vswap->tables.low = room_tables_low;
	vswap->tables.low_arg = vswap;
	for (i = 0; i < vswap->nr_queues; i++) {
		TAILQ_INIT(&vswap->queue[i].starved);
		vswap->queue[i].room_timer.fire = room_tick;
	}
}

void vswap_set_supplier(struct vswap *vswap, const struct vswap_supplier *supplier)
{
	vswap->supplier = *supplier;
}

uint64_t vswap_supply_begin(struct vswap *vswap)
{
	return atomic_load(&vswap->nr_room_asked);
}

void vswap_supply_end(struct vswap *vswap, uint64_t nr_asked, bool coming)
{
	atomic_store(&vswap->room_is_coming, coming);
	atomic_store(&vswap->nr_room_answered, nr_asked);
}

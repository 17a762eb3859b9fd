/*
 * Every operation has a slot of ours, with an operation of ours that goes to the connection below in its place. A slot
 * is free again when the submitter's done has run, which is never before the connection below has let go of its
 * operation: it points at the submitter's memory.
 */
#include "common/transport/fault/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/transport/op.h"

static struct fault_conn *fault_conn_from_head(struct transport_conn *head)
{
	return BASE_CONTAINER_OF(head, struct fault_conn, head);
}

static uint64_t fault_now_ns(const struct fault_conn *conn)
{
	return sys_reactor_now_ns(conn->head.reactor);
}

void fault_conn_fail(struct fault_conn *conn, int err)
{
	if (conn->err)
		return;
	conn->err = err;
	sys_reactor_defer(conn->head.reactor, &conn->fall);
}

/* The end of an operation. */
static void fault_slot_finish(struct fault_slot *slot, int status)
{
	struct fault_conn *conn = slot->conn;
	struct transport_op *outer = slot->outer;

	assert(!slot->inside);
	sys_timer_cancel(conn->head.reactor, &slot->timer);
	if (slot->inner.iov == &slot->scrap)
		conn->scrap_taken = false;
	TAILQ_REMOVE(&conn->busy, slot, link);
	TAILQ_INSERT_HEAD(&conn->free, slot, link);
	conn->head.in_flight--;
	if (conn->starved && !conn->err)
		sys_reactor_defer(conn->head.reactor, &conn->wake);
	outer->done(outer, status);
}

static void fault_conn_wake(struct sys_deferred *deferred)
{
	struct fault_conn *conn = BASE_CONTAINER_OF(deferred, struct fault_conn, wake);

	conn->starved = false;
	conn->head.writable(&conn->head); /* which may close it */
}

/* Lets go of the connection below and of every operation. */
static void fault_conn_cancel(struct fault_conn *conn, int err)
{
	struct fault_slot *slot;

	conn->err = err;
	sys_timer_cancel(conn->head.reactor, &conn->tick);
	sys_timer_cancel(conn->head.reactor, &conn->hang);
	sys_reactor_undefer(conn->head.reactor, &conn->wake);
	if (conn->inner)
		transport_close(conn->inner);
	conn->inner = NULL;
	while ((slot = TAILQ_FIRST(&conn->busy)))
		fault_slot_finish(slot, err);
}

static void fault_conn_fall(struct sys_deferred *deferred)
{
	struct fault_conn *conn = BASE_CONTAINER_OF(deferred, struct fault_conn, fall);
	int err = conn->err;

	fault_conn_cancel(conn, err);
	conn->head.down(&conn->head, err);
}

static void fault_inner_down(struct transport_conn *inner, int err)
{
	fault_conn_fail(inner->owner, err);
}

/* Ours is never more than one operation ahead of what goes below, so this is only news for those who wait for us. */
static void fault_inner_writable(struct transport_conn *inner)
{
	(void)inner;
}

/* One byte of what the operation has brought. */
static void fault_corrupt(struct fault_conn *conn, const struct transport_op *op)
{
	uint32_t at = (uint32_t)rand_below(&conn->rand, op->len_bytes);
	uint8_t byte;

	transport_op_copy_out(op, at, &byte, 1);
	byte ^= (uint8_t)(1 + rand_below(&conn->rand, 255));
	transport_op_copy_in(op, at, &byte, 1);
}

static void fault_inner_done(struct transport_op *inner, int status)
{
	struct fault_slot *slot = BASE_CONTAINER_OF(inner, struct fault_slot, inner);
	struct fault_conn *conn = slot->conn;

	slot->inside = false;
	if (conn->err)
		return; /* fault_conn_cancel finishes all of them, in order */
	switch (slot->fate) {
	case FAULT_FATE_CORRUPT:
		if (status == 0 && slot->outer->opcode == TRANSPORT_READ)
			fault_corrupt(conn, slot->outer);
		break;
	case FAULT_FATE_DELAY:
		if (!slot->late) {
			slot->status = status;
			return; /* the timer tells */
		}
		break;
	case FAULT_FATE_NONE:
		break;
	case FAULT_FATE_DISCONNECT:
		fault_conn_fail(conn, -ECONNRESET);
		return;
	default:
		return; /* lost */
	}
	if (!conn->hung)
		fault_slot_finish(slot, status);
}

/* To the connection below. When that refuses, it is going down and will say so. */
static void fault_slot_enter(struct fault_slot *slot)
{
	slot->inside = transport_submit(slot->conn->inner, &slot->inner) == 0;
}

static void fault_slot_fire(struct sys_timer *timer)
{
	struct fault_slot *slot = BASE_CONTAINER_OF(timer, struct fault_slot, timer);
	struct fault_conn *conn = slot->conn;

	if (conn->err)
		return;
	if (slot->fate == FAULT_FATE_DROP) {
		fault_conn_fail(conn, -ETIMEDOUT);
	} else if (conn->hung) {
		return;
	} else if (slot->fate == FAULT_FATE_DELAY && slot->late) {
		fault_slot_enter(slot);
	} else if (slot->inside) { /* delayed, and below it takes longer still: as if it had been late */
		slot->late = true;
	} else {
		fault_slot_finish(slot, slot->status);
	}
}

static void fault_conn_hang(struct sys_timer *timer)
{
	fault_conn_fail(BASE_CONTAINER_OF(timer, struct fault_conn, hang), -ETIMEDOUT);
}

static void fault_conn_tick(struct sys_timer *timer)
{
	struct fault_conn *conn = BASE_CONTAINER_OF(timer, struct fault_conn, tick);

	if (conn->err)
		return;
	if (!conn->hung)
		conn->head.heartbeat_rtt_ns = conn->inner->heartbeat_rtt_ns;
	sys_timer_arm(conn->head.reactor, timer, fault_now_ns(conn) + conn->heartbeat_ns);
}

/* What becomes of the next operation. Draws once for every operation, so that a change of one number moves little. */
static enum fault_fate fault_conn_draw(struct fault_conn *conn, struct fault_plan *ret_plan)
{
	struct fault_driver *driver = conn->driver;
	struct fault_counters *counters = &driver->counters;
	uint64_t draw = rand_below(&conn->rand, FAULT_PPM);
	enum fault_fate fate = FAULT_FATE_NONE;

	lock_acquire(&driver->lock);
	*ret_plan = driver->plan;
	counters->ops++;
	const struct {
		enum fault_fate fate;
		uint32_t ppm;
		uint64_t *counter;
	} fates[] = {
		{ FAULT_FATE_FAIL, ret_plan->fail_ppm, &counters->failed },
		{ FAULT_FATE_DELAY, ret_plan->delay_ppm, &counters->delayed },
		{ FAULT_FATE_DROP, ret_plan->drop_ppm, &counters->dropped },
		{ FAULT_FATE_CORRUPT, ret_plan->corrupt_ppm, &counters->corrupted },
		{ FAULT_FATE_HANG, ret_plan->hang_ppm, &counters->hung },
		{ FAULT_FATE_DISCONNECT, ret_plan->disconnect_ppm, &counters->disconnected },
	};

	for (size_t i = 0; i < BASE_ARRAY_SIZE(fates) && !conn->hung; i++) {
		if (draw < fates[i].ppm) {
			fate = fates[i].fate;
			(*fates[i].counter)++;
			break;
		}
		draw -= fates[i].ppm;
	}
	lock_release(&driver->lock);
	return fate;
}

/* A WRITE that stores one wrong byte: from a copy, the submitter's bytes are his. Only one at a time can be so. */
static void fault_slot_corrupt_write(struct fault_slot *slot)
{
	struct fault_conn *conn = slot->conn;
	uint32_t at = (uint32_t)rand_below(&conn->rand, slot->inner.len_bytes);
	uint8_t flip = (uint8_t)(1 + rand_below(&conn->rand, 255));

	if (conn->scrap_taken) {
		slot->fate = FAULT_FATE_NONE;
		lock_acquire(&conn->driver->lock);
		conn->driver->counters.corrupted--;
		lock_release(&conn->driver->lock);
		return;
	}
	conn->scrap_taken = true;
	transport_op_copy_out(slot->outer, 0, conn->scrap, slot->inner.len_bytes);
	conn->scrap[at] = (char)(conn->scrap[at] ^ flip);
	slot->scrap = (struct iovec){ .iov_base = conn->scrap, .iov_len = slot->inner.len_bytes };
	slot->inner.iov = &slot->scrap;
	slot->inner.nr_iov = 1;
}

static void fault_slot_begin(struct fault_slot *slot, const struct fault_plan *plan)
{
	struct fault_conn *conn = slot->conn;
	struct sys_reactor *reactor = conn->head.reactor;
	uint64_t now_ns = fault_now_ns(conn);
	uint64_t delay_ns;

	switch (slot->fate) {
	case FAULT_FATE_FAIL:
		slot->status = plan->fail_err ? plan->fail_err : -EIO;
		sys_timer_arm(reactor, &slot->timer, now_ns);
		return;
	case FAULT_FATE_DELAY:
		delay_ns = plan->delay_min_ns;
		if (plan->delay_max_ns > plan->delay_min_ns)
			delay_ns += rand_below(&conn->rand, plan->delay_max_ns - plan->delay_min_ns + 1);
		sys_timer_arm(reactor, &slot->timer, now_ns + delay_ns);
		slot->late = rand_below(&conn->rand, 2) == 0;
		if (slot->late)
			return;
		break;
	case FAULT_FATE_DROP:
		sys_timer_arm(reactor, &slot->timer, now_ns + conn->dead_ns);
		break;
	case FAULT_FATE_HANG:
		conn->hung = true;
		sys_timer_arm(reactor, &conn->hang, now_ns + conn->dead_ns);
		break;
	case FAULT_FATE_DISCONNECT: /* before it gets there, or when it has been done */
		if (rand_below(&conn->rand, 2) == 0)
			fault_conn_fail(conn, -ECONNRESET);
		else
			fault_slot_enter(slot);
		return;
	case FAULT_FATE_CORRUPT:
		if (slot->outer->opcode == TRANSPORT_WRITE)
			fault_slot_corrupt_write(slot);
		fault_slot_enter(slot);
		return;
	case FAULT_FATE_NONE:
		if (!conn->hung)
			fault_slot_enter(slot);
		return;
	}
	/* The response comes back late or not at all. Of those that are lost, half never get there. */
	if (slot->fate == FAULT_FATE_DELAY || rand_below(&conn->rand, 2) == 0)
		fault_slot_enter(slot);
}

static int fault_conn_submit(struct transport_conn *head, struct transport_op *op)
{
	struct fault_conn *conn = fault_conn_from_head(head);
	struct fault_slot *slot = TAILQ_FIRST(&conn->free);
	struct fault_plan plan;
	int err;

	if (conn->err)
		return -ENOTCONN;
	err = transport_op_check(op);
	if (err < 0)
		return err;
	if (!slot) {
		conn->starved = true;
		return -EAGAIN;
	}
	TAILQ_REMOVE(&conn->free, slot, link);
	TAILQ_INSERT_TAIL(&conn->busy, slot, link);
	head->in_flight++;
	slot->outer = op;
	slot->inside = false;
	slot->late = false;
	slot->status = 0;
	slot->inner = (struct transport_op){
		.opcode = op->opcode,
		.slab = op->slab,
		.key = op->key,
		.len_bytes = op->len_bytes,
		.offset_bytes = op->offset_bytes,
		.iov = op->iov,
		.nr_iov = op->nr_iov,
		.done = fault_inner_done,
	};
	op->submitted_ns = fault_now_ns(conn);
	slot->fate = fault_conn_draw(conn, &plan);
	fault_slot_begin(slot, &plan);
	return 0;
}

static int fault_conn_attach(struct transport_conn *head, struct sys_reactor *reactor)
{
	struct fault_conn *conn = fault_conn_from_head(head);
	struct fault_driver *driver = conn->driver;
	int err;

	assert(head->down && head->writable && !head->reactor);
	conn->inner->owner = conn;
	conn->inner->down = fault_inner_down;
	conn->inner->writable = fault_inner_writable;
	err = transport_attach(conn->inner, reactor);
	if (err < 0)
		return err;
	head->reactor = reactor;
	sys_timer_arm(reactor, &conn->tick, sys_clock_now_ns(sys_reactor_clock(reactor)) + conn->heartbeat_ns);
	lock_acquire(&driver->lock);
	TAILQ_INSERT_TAIL(&driver->conns, conn, link);
	lock_release(&driver->lock);
	return 0;
}

static void fault_conn_free(struct fault_conn *conn)
{
	free(conn->slots);
	free(conn->scrap);
	free(conn);
}

static void fault_conn_close(struct transport_conn *head)
{
	struct fault_conn *conn = fault_conn_from_head(head);
	struct fault_driver *driver = conn->driver;

	if (head->reactor) {
		lock_acquire(&driver->lock);
		TAILQ_REMOVE(&driver->conns, conn, link);
		lock_release(&driver->lock);
		sys_reactor_undefer(head->reactor, &conn->fall);
		fault_conn_cancel(conn, -ECANCELED);
	} else {
		transport_close(conn->inner);
	}
	fault_conn_free(conn);
}

static const struct transport_ops fault_ops = {
	.name = "fault",
	.attach = fault_conn_attach,
	.submit = fault_conn_submit,
	.close = fault_conn_close,
};

struct transport_conn *fault_conn_create(struct fault_driver *driver, struct transport_conn *inner,
					 const struct transport_connect_options *options)
{
	struct fault_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		goto err_inner;
	conn->slots = calloc(inner->queue_depth, sizeof(*conn->slots));
	conn->scrap = malloc(TRANSPORT_MAX_OP_BYTES);
	if (!conn->slots || !conn->scrap)
		goto err_conn;
	conn->head.ops = &fault_ops;
	conn->head.queue_depth = inner->queue_depth;
	conn->inner = inner;
	conn->driver = driver;
	conn->heartbeat_ns = options->heartbeat_ms * SYS_NS_PER_MS;
	conn->dead_ns = options->dead_ms * SYS_NS_PER_MS;
	conn->fall.run = fault_conn_fall;
	conn->wake.run = fault_conn_wake;
	conn->tick.fire = fault_conn_tick;
	conn->hang.fire = fault_conn_hang;
	TAILQ_INIT(&conn->free);
	TAILQ_INIT(&conn->busy);
	for (unsigned i = 0; i < inner->queue_depth; i++) {
		conn->slots[i].conn = conn;
		conn->slots[i].timer.fire = fault_slot_fire;
		TAILQ_INSERT_TAIL(&conn->free, &conn->slots[i], link);
	}
	lock_acquire(&driver->lock);
	conn->number = driver->nr_conns++;
	lock_release(&driver->lock);
	conn->rand.s = driver->seed ^ (conn->number + 1) * 0xd1342543de82ef95u;
	return &conn->head;

err_conn:
	fault_conn_free(conn);
err_inner:
	transport_close(inner);
	return NULL;
}

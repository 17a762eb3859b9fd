/*
 * Life of a connection: it is in the driver's list from connect to close. Two parties may hold it, its owner and a
 * connect that fences it; it is freed when neither does. What both look at changes under the driver's lock, the rest
 * belongs to the reactor once there is one.
 */
#include "common/transport/loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/lock.h"
#include "common/transport/op.h"

struct loop_driver {
	struct transport_driver head;
	struct transport_target *target;
	struct lock_mutex connecting; /* one connect at a time; taken before lock */
	struct lock_mutex lock;
	TAILQ_HEAD(loop_conn_list, loop_conn) conns LOCK_GUARDED_BY(lock);
};

struct loop_conn {
	struct transport_conn head;
	struct loop_driver *driver;
	uint64_t lease_id;
	uint32_t channel;
	uint64_t heartbeat_ns;
	int err; /* why it is down; 0 while it is not */
	bool starved;
	struct transport_op_list queue;
	struct sys_poller poller; /* added while there are operations */
	struct sys_deferred fall;
	struct sys_timer timer;

	/* Changed under the driver's lock. */
	TAILQ_ENTRY(loop_conn) link;
	struct transport_session *session; /* NULL when it has left */
	struct sys_reactor *reactor; /* what attach has set, for who fences */
	unsigned nr_holders;
};

static struct loop_conn *loop_conn_from_head(struct transport_conn *head)
{
	return BASE_CONTAINER_OF(head, struct loop_conn, head);
}

static void loop_conn_put(struct loop_conn *conn)
{
	struct loop_driver *driver = conn->driver;
	bool last;

	lock_acquire(&driver->lock);
	last = --conn->nr_holders == 0;
	lock_release(&driver->lock);
	if (last)
		free(conn);
}

/* No operation touches memory after this. */
static void loop_conn_leave(struct loop_conn *conn)
{
	struct loop_driver *driver = conn->driver;

	/* Under the lock as a whole: who finds no session here may join. */
	lock_acquire(&driver->lock);
	if (conn->session)
		driver->target->ops->leave(driver->target, conn->session);
	conn->session = NULL;
	lock_release(&driver->lock);
}

static void loop_conn_detach(struct loop_conn *conn)
{
	sys_poller_remove(&conn->poller);
	sys_timer_cancel(conn->head.reactor, &conn->timer);
}

static void loop_conn_cancel(struct loop_conn *conn, int err)
{
	struct transport_op *op;

	while ((op = TAILQ_FIRST(&conn->queue))) {
		TAILQ_REMOVE(&conn->queue, op, link);
		conn->head.in_flight--;
		op->done(op, err);
	}
}

static void loop_conn_fail(struct loop_conn *conn, int err)
{
	if (conn->err)
		return;
	conn->err = err;
	loop_conn_leave(conn);
	loop_conn_detach(conn);
	sys_reactor_defer(conn->head.reactor, &conn->fall);
}

static void loop_conn_fall(struct sys_deferred *deferred)
{
	struct loop_conn *conn = BASE_CONTAINER_OF(deferred, struct loop_conn, fall);

	loop_conn_cancel(conn, conn->err);
	conn->head.down(&conn->head, conn->err);
}

static int loop_conn_renew(struct loop_conn *conn)
{
	struct transport_target *target = conn->driver->target;
	int err = target->ops->renew(target, conn->session, true, sys_reactor_now_ns(conn->head.reactor));

	/* As over a network: a connection whose lease has ended is cut, and does not learn why. */
	if (err < 0)
		loop_conn_fail(conn, -ECONNRESET);
	return err;
}

static int loop_conn_move(struct loop_conn *conn, const struct transport_op *op)
{
	struct transport_target *target = conn->driver->target;
	void *bytes;
	int err;

	err = target->ops->resolve(target, conn->session, (enum transport_opcode)op->opcode, op->slab, op->key,
				   op->offset_bytes, op->len_bytes, &bytes);
	if (err < 0)
		return err == -EACCES || err == -ERANGE ? err : -EIO;
	if (op->opcode == TRANSPORT_READ)
		transport_op_copy_in(op, 0, bytes, op->len_bytes);
	else
		transport_op_copy_out(op, 0, bytes, op->len_bytes);
	target->ops->account(target, conn->session, (enum transport_opcode)op->opcode, op->len_bytes);
	return 0;
}

/* Does what was queued when it began; what done submits is for the next turn. */
static unsigned loop_conn_poll(struct sys_poller *poller)
{
	struct loop_conn *conn = BASE_CONTAINER_OF(poller, struct loop_conn, poller);
	struct transport_op *last = TAILQ_LAST(&conn->queue, transport_op_list);
	struct transport_op *op;
	unsigned nr = 0;
	bool end = false;
	int status;

	if (loop_conn_renew(conn) < 0)
		return 1;
	while (!end) {
		op = TAILQ_FIRST(&conn->queue);
		end = op == last;
		status = loop_conn_move(conn, op);
		TAILQ_REMOVE(&conn->queue, op, link);
		conn->head.in_flight--;
		op->done(op, status);
		nr++;
	}
	if (TAILQ_EMPTY(&conn->queue))
		sys_poller_remove(poller);
	if (conn->starved) {
		conn->starved = false;
		conn->head.writable(&conn->head); /* which may close it */
	}
	return nr;
}

static void loop_conn_tick(struct sys_timer *timer)
{
	struct loop_conn *conn = BASE_CONTAINER_OF(timer, struct loop_conn, timer);

	if (loop_conn_renew(conn) < 0)
		return;
	conn->head.heartbeat_rtt_ns = 1;
	sys_timer_arm(conn->head.reactor, timer, sys_reactor_now_ns(conn->head.reactor) + conn->heartbeat_ns);
}

static int loop_conn_attach(struct transport_conn *head, struct sys_reactor *reactor)
{
	struct loop_conn *conn = loop_conn_from_head(head);
	struct loop_driver *driver = conn->driver;

	assert(head->down && head->writable && !head->reactor);
	lock_acquire(&driver->lock);
	head->reactor = conn->reactor = reactor;
	lock_release(&driver->lock);
	if (conn->err) /* fenced before it was attached */
		sys_reactor_defer(reactor, &conn->fall);
	else
		sys_timer_arm(reactor, &conn->timer, sys_clock_now_ns(sys_reactor_clock(reactor)) + conn->heartbeat_ns);
	return 0;
}

static int loop_conn_submit(struct transport_conn *head, struct transport_op *op)
{
	struct loop_conn *conn = loop_conn_from_head(head);
	int err;

	if (conn->err)
		return -ENOTCONN;
	err = transport_op_check(op);
	if (err < 0)
		return err;
	if (head->in_flight == head->queue_depth) {
		conn->starved = true;
		return -EAGAIN;
	}
	op->submitted_ns = sys_reactor_now_ns(head->reactor);
	TAILQ_INSERT_TAIL(&conn->queue, op, link);
	head->in_flight++;
	if (!conn->poller.reactor)
		sys_poller_add(head->reactor, &conn->poller);
	return 0;
}

static void loop_conn_close(struct transport_conn *head)
{
	struct loop_conn *conn = loop_conn_from_head(head);
	struct loop_driver *driver = conn->driver;

	lock_acquire(&driver->lock);
	TAILQ_REMOVE(&driver->conns, conn, link);
	lock_release(&driver->lock);
	if (head->reactor) {
		loop_conn_detach(conn);
		sys_reactor_undefer(head->reactor, &conn->fall);
	}
	conn->err = -ECANCELED;
	loop_conn_leave(conn);
	loop_conn_cancel(conn, -ECANCELED);
	loop_conn_put(conn);
}

static const struct transport_ops loop_ops = {
	.name = "loop",
	.attach = loop_conn_attach,
	.submit = loop_conn_submit,
	.close = loop_conn_close,
};

static void loop_conn_fenced(void *arg)
{
	struct loop_conn *conn = arg;

	loop_conn_fail(conn, -ECONNRESET);
}

/* A connection on the lease and channel that has a session, held for the caller; NULL when there is none. */
static struct loop_conn *loop_driver_find(struct loop_driver *driver, uint64_t lease_id, uint32_t channel,
					  struct sys_reactor **ret_reactor)
{
	struct loop_conn *conn;

	lock_acquire(&driver->lock);
	TAILQ_FOREACH(conn, &driver->conns, link)
		if (conn->session && conn->lease_id == lease_id && conn->channel == channel)
			break;
	if (conn) {
		conn->nr_holders++;
		*ret_reactor = conn->reactor;
		if (!conn->reactor) /* attach will see it */
			conn->err = -ECONNRESET;
	}
	lock_release(&driver->lock);
	return conn;
}

/* Under driver->connecting, so that nobody joins behind its back. */
static void loop_driver_fence(struct loop_driver *driver, uint64_t lease_id, uint32_t channel)
{
	struct sys_reactor *reactor;
	struct loop_conn *old;

	while ((old = loop_driver_find(driver, lease_id, channel, &reactor))) {
		if (reactor)
			sys_reactor_call(reactor, loop_conn_fenced, old);
		else
			loop_conn_leave(old);
		loop_conn_put(old);
	}
}

/* What challenge and response would prove. */
static int loop_driver_prove(struct loop_driver *driver, const struct transport_connect_options *options)
{
	struct transport_target *target = driver->target;
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	int err;

	if (options->instance_id != target->instance_id)
		return -ESTALE;
	err = target->ops->lookup(target, options->lease_id, token);
	if (err < 0)
		return err;
	if (memcmp(token, options->token, sizeof(token)) == 0)
		return 0;
	target->ops->refused(target, "loop", -EACCES);
	return -EACCES;
}

static struct loop_conn *loop_conn_create(struct loop_driver *driver, const struct transport_connect_options *options)
{
	struct loop_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->head.ops = &loop_ops;
	conn->head.queue_depth = options->queue_depth;
	conn->driver = driver;
	conn->lease_id = options->lease_id;
	conn->channel = options->channel;
	conn->heartbeat_ns = options->heartbeat_ms * SYS_NS_PER_MS;
	conn->nr_holders = 1;
	conn->poller.poll = loop_conn_poll;
	conn->fall.run = loop_conn_fall;
	conn->timer.fire = loop_conn_tick;
	TAILQ_INIT(&conn->queue);
	return conn;
}

static int loop_connect(struct transport_driver *head, const struct transport_connect_options *options,
			struct transport_conn **ret_conn)
{
	struct loop_driver *driver = BASE_CONTAINER_OF(head, struct loop_driver, head);
	struct transport_target *target = driver->target;
	struct loop_conn *conn;
	int err;

	err = transport_connect_options_check(options);
	if (err == 0)
		err = loop_driver_prove(driver, options);
	if (err < 0)
		return err;
	conn = loop_conn_create(driver, options);
	if (!conn)
		return -ENOMEM;
	lock_acquire(&driver->connecting);
	loop_driver_fence(driver, options->lease_id, options->channel);
	err = target->ops->join(target, options->lease_id, options->channel, "loop", &conn->session);
	if (err == 0) {
		lock_acquire(&driver->lock);
		TAILQ_INSERT_TAIL(&driver->conns, conn, link);
		lock_release(&driver->lock);
	}
	lock_release(&driver->connecting);
	if (err < 0) {
		free(conn);
		return err;
	}
	*ret_conn = &conn->head;
	return 0;
}

struct transport_driver *loop_driver_create(struct transport_target *target)
{
	struct loop_driver *driver = calloc(1, sizeof(*driver));

	if (!driver)
		return NULL;
	driver->head = (struct transport_driver){ .name = "loop", .connect = loop_connect };
	driver->target = target;
	lock_mutex_init(&driver->connecting);
	lock_mutex_init(&driver->lock);
	lock_acquire(&driver->lock);
	TAILQ_INIT(&driver->conns);
	lock_release(&driver->lock);
	return &driver->head;
}

void loop_driver_free(struct transport_driver *head)
{
	struct loop_driver *driver;

	if (!head)
		return;
	driver = BASE_CONTAINER_OF(head, struct loop_driver, head);
	lock_acquire(&driver->lock);
	assert(TAILQ_EMPTY(&driver->conns));
	lock_release(&driver->lock);
	lock_mutex_done(&driver->lock);
	lock_mutex_done(&driver->connecting);
	free(driver);
}

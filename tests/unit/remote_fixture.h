/*
 * A remote backend over a driver that does only what the test says: what the tests of client/backend/remote share. The
 * reactors are manual ones under a clock of the test, so that everything happens when it is called for.
 */
#ifndef FARSWAP_TESTS_UNIT_REMOTE_FIXTURE_H
#define FARSWAP_TESTS_UNIT_REMOTE_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/backend/remote/remote.h"

#define FIXTURE_QUEUES 2
#define FIXTURE_DEPTH 2
#define FIXTURE_PATIENCE_MS 500
#define FIXTURE_DEAD_MS 900
#define FIXTURE_TIMEOUT_MS 100
#define FIXTURE_SLAB 7
#define FIXTURE_KEY 0x55aau
#define FIXTURE_SLOTS 1024
#define FIXTURE_PENDING 1

struct fixture;

/* A connection that holds what it is given. */
struct fake_conn {
	struct transport_conn head;
	struct fixture *fixture;
	struct transport_op_list ops;
	unsigned channel;
	bool failed;
	bool starved;
};

struct fixture_io {
	struct backend_io bio;
	struct iovec iov;
	struct fixture *fixture;
	unsigned queue;
	int status; /* FIXTURE_PENDING until done */
	unsigned order; /* which of all dones it was */
	/* As seen in done. */
	enum backend_state state;
	uint64_t fence;
	struct fixture_io *then; /* what done submits */
	int then_ret;
};

struct fixture {
	struct transport_driver driver;
	struct sys_clock clock;
	uint64_t now_ns;
	struct sys_reactor *reactors[FIXTURE_QUEUES];
	struct backend *backend;
	struct backend_slab slab;
	/* The driver's script and books. */
	int connect_err[FIXTURE_QUEUES]; /* by channel */
	int attach_err[FIXTURE_QUEUES];
	void (*on_connect)(struct fixture *fixture, unsigned channel);
	struct transport_connect_options options[FIXTURE_QUEUES]; /* of the last connect */
	char address[SYS_ADDRESS_MAX];
	struct fake_conn *conns[FIXTURE_QUEUES]; /* attached */
	unsigned nr_connects;
	unsigned nr_conns;
	unsigned nr_done;
	char page[FSW_PAGE_SIZE];
};

static inline struct fake_conn *fake_of(struct transport_conn *head)
{
	return BASE_CONTAINER_OF(head, struct fake_conn, head);
}

static inline void fake_end(struct fake_conn *conn, int status)
{
	struct transport_op *op = TAILQ_FIRST(&conn->ops);

	TAILQ_REMOVE(&conn->ops, op, link);
	conn->head.in_flight--;
	op->done(op, status);
}

static inline int fake_attach(struct transport_conn *head, struct sys_reactor *reactor)
{
	struct fake_conn *conn = fake_of(head);

	assert_non_null(head->down);
	assert_non_null(head->writable);
	assert_ptr_equal(sys_reactor_self(), reactor);
	if (conn->fixture->attach_err[conn->channel])
		return conn->fixture->attach_err[conn->channel];
	assert_null(conn->fixture->conns[conn->channel]);
	conn->fixture->conns[conn->channel] = conn;
	head->reactor = reactor;
	return 0;
}

static inline int fake_submit(struct transport_conn *head, struct transport_op *op)
{
	struct fake_conn *conn = fake_of(head);

	if (conn->failed)
		return -ENOTCONN;
	if (head->in_flight == head->queue_depth) {
		conn->starved = true;
		return -EAGAIN;
	}
	head->in_flight++;
	TAILQ_INSERT_TAIL(&conn->ops, op, link);
	return 0;
}

static inline void fake_close(struct transport_conn *head)
{
	struct fake_conn *conn = fake_of(head);

	conn->failed = true;
	while (!TAILQ_EMPTY(&conn->ops))
		fake_end(conn, -ECANCELED);
	if (conn->fixture->conns[conn->channel] == conn)
		conn->fixture->conns[conn->channel] = NULL;
	conn->fixture->nr_conns--;
	free(conn);
}

static const struct transport_ops fake_ops = {
	.name = "fake",
	.attach = fake_attach,
	.submit = fake_submit,
	.close = fake_close,
};

static inline int fake_connect(struct transport_driver *driver, const struct transport_connect_options *options,
			       struct transport_conn **ret_conn)
{
	struct fixture *fixture = BASE_CONTAINER_OF(driver, struct fixture, driver);
	unsigned channel = options->channel;
	struct fake_conn *conn;

	assert_in_range(channel, 0, FIXTURE_QUEUES - 1);
	fixture->nr_connects++;
	fixture->options[channel] = *options;
	strcpy(fixture->address, options->address);
	if (fixture->on_connect)
		fixture->on_connect(fixture, channel);
	if (fixture->connect_err[channel])
		return fixture->connect_err[channel];
	conn = calloc(1, sizeof(*conn));
	assert_non_null(conn);
	conn->head.ops = &fake_ops;
	conn->head.queue_depth = options->queue_depth;
	conn->fixture = fixture;
	conn->channel = channel;
	TAILQ_INIT(&conn->ops);
	fixture->nr_conns++;
	*ret_conn = &conn->head;
	return 0;
}

/* ---- what a test says, each on the queue's reactor ---- */

struct fixture_call {
	struct fixture *fixture;
	struct fixture_io *io;
	unsigned queue;
	unsigned nr;
	int status;
	int ret;
};

static inline void fixture_finish_here(void *arg)
{
	struct fixture_call *call = arg;
	struct fake_conn *conn = call->fixture->conns[call->queue];

	for (unsigned i = 0; i < call->nr; i++)
		fake_end(conn, call->status);
	if (conn->starved) {
		conn->starved = false;
		conn->head.writable(&conn->head);
	}
}

/* The first nr operations of the connection end with the status. */
static inline void fixture_finish(struct fixture *fixture, unsigned queue, unsigned nr, int status)
{
	struct fixture_call call = { .fixture = fixture, .queue = queue, .nr = nr, .status = status };

	sys_reactor_call(fixture->reactors[queue], fixture_finish_here, &call);
}

static inline void fixture_fail_here(void *arg)
{
	struct fixture_call *call = arg;
	struct fake_conn *conn = call->fixture->conns[call->queue];

	conn->failed = true;
	while (!TAILQ_EMPTY(&conn->ops))
		fake_end(conn, call->status);
	conn->head.down(&conn->head, call->status);
}

/* The connection goes down. */
static inline void fixture_fail(struct fixture *fixture, unsigned queue, int err)
{
	struct fixture_call call = { .fixture = fixture, .queue = queue, .status = err };

	sys_reactor_call(fixture->reactors[queue], fixture_fail_here, &call);
}

/* The number of operations that the connection holds. */
static inline unsigned fixture_held(const struct fixture *fixture, unsigned queue)
{
	return fixture->conns[queue]->head.in_flight;
}

/* Lets time pass, and then every reactor make a turn. */
static inline void fixture_pass(struct fixture *fixture, uint64_t ns)
{
	fixture->now_ns += ns;
	for (unsigned i = 0; i < FIXTURE_QUEUES; i++)
		sys_reactor_turn(fixture->reactors[i]);
}

static inline void fixture_done(struct backend_io *bio, int status)
{
	struct fixture_io *io = BASE_CONTAINER_OF(bio, struct fixture_io, bio);
	struct fixture *fixture = io->fixture;

	assert_int_equal(io->status, FIXTURE_PENDING);
	assert_true(status <= 0);
	assert_ptr_equal(sys_reactor_self(), fixture->reactors[io->queue]);
	io->status = status;
	io->order = fixture->nr_done++;
	io->state = backend_state(fixture->backend);
	io->fence = atomic_load(&fixture->backend->fence);
	if (io->then)
		io->then_ret = backend_submit(fixture->backend, io->then->queue, &io->then->bio);
}

static inline void fixture_io(struct fixture *fixture, struct fixture_io *io, unsigned queue, enum io_op op,
			      uint32_t slot)
{
	memset(io, 0, sizeof(*io));
	io->fixture = fixture;
	io->queue = queue;
	io->status = FIXTURE_PENDING;
	io->iov = (struct iovec){ .iov_base = fixture->page, .iov_len = FSW_PAGE_SIZE };
	io->bio = (struct backend_io){
		.op = (uint8_t)op,
		.slot = slot,
		.nr_slots = 1,
		.slab = &fixture->slab,
		.iov = &io->iov,
		.nr_iov = 1,
		.done = fixture_done,
	};
}

static inline void fixture_submit_here(void *arg)
{
	struct fixture_call *call = arg;

	call->ret = backend_submit(call->fixture->backend, call->io->queue, &call->io->bio);
	if (call->ret == 0)
		assert_int_equal(call->io->status, FIXTURE_PENDING); /* never inside submit */
}

/* Submits an operation as it is. */
static inline int fixture_submit(struct fixture_io *io)
{
	struct fixture_call call = { .fixture = io->fixture, .io = io };

	sys_reactor_call(io->fixture->reactors[io->queue], fixture_submit_here, &call);
	return call.ret;
}

/* Makes an operation of one page and submits it. */
static inline int fixture_start(struct fixture *fixture, struct fixture_io *io, unsigned queue, enum io_op op,
				uint32_t slot)
{
	fixture_io(fixture, io, queue, op, slot);
	return fixture_submit(io);
}

/* ---- setting up ---- */

static inline uint64_t fixture_now(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct fixture, clock)->now_ns;
}

static inline int fixture_begin(struct fixture *fixture)
{
	struct remote_session session = {
		.data_address = "192.0.2.1:7700",
		.lease_id = 11,
		.instance_id = 12,
		.heartbeat_ms = 200,
	};
	int ret;

	memset(session.token, 0x5a, sizeof(session.token));
	ret = remote_session_begin(fixture->backend, &session, FIXTURE_TIMEOUT_MS);
	fixture->slab = (struct backend_slab){
		.backend = fixture->backend,
		.index = FIXTURE_SLAB,
		.key = FIXTURE_KEY,
		.nr_slots = FIXTURE_SLOTS,
		.session = remote_session_number(fixture->backend),
	};
	return ret;
}

static inline int fixture_create(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct remote_options options = {
		.name = "192.0.2.1:7700",
		.driver = &fixture->driver,
		.reactors = fixture->reactors,
		.nr_queues = FIXTURE_QUEUES,
		.queue_depth = FIXTURE_DEPTH,
		.dead_ms = FIXTURE_DEAD_MS,
		.patience_ms = FIXTURE_PATIENCE_MS,
	};
	struct sys_reactor_options reactor = { .name = "manual", .cpu = -1, .manual = true, .clock = &fixture->clock };

	assert_non_null(fixture);
	fixture->driver = (struct transport_driver){ .name = "fake", .connect = fake_connect };
	fixture->clock.now_ns = fixture_now;
	fixture->now_ns = SYS_NS_PER_S;
	for (unsigned i = 0; i < FIXTURE_QUEUES; i++)
		assert_int_equal(sys_reactor_create(&reactor, &fixture->reactors[i]), 0);
	assert_int_equal(remote_create(&options, &fixture->backend), 0);
	*state = fixture;
	return 0;
}

/* The same, with a session. */
static inline int fixture_connect(void **state)
{
	fixture_create(state);
	assert_int_equal(fixture_begin(*state), 0);
	return 0;
}

static inline int fixture_destroy(void **state)
{
	struct fixture *fixture = *state;

	remote_session_end(fixture->backend);
	assert_int_equal(fixture->nr_conns, 0);
	remote_free(fixture->backend);
	for (unsigned i = 0; i < FIXTURE_QUEUES; i++)
		sys_reactor_free(fixture->reactors[i]);
	free(fixture);
	return 0;
}

#endif

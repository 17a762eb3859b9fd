/* deps: tests_conform_transport common_transport_fault common_transport_loop common_sys common_base */
/*
 * The fault transport over the loop transport, on a manual reactor under a simulated clock: every kind of fault, the
 * contract kept under all of them, and the same run again from the same seed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/transport/fault/fault.h"
#include "common/transport/loop/loop.h"
#include "tests/conform/target.h"

#define LEASE 1
#define KEY 2
#define DEPTH 8
#define OP_BYTES 4096
#define DEAD_MS 500
#define PENDING 1

struct manual_clock {
	struct sys_clock head;
	uint64_t now_ns;
};

struct item {
	struct transport_op op;
	struct iovec iov;
	char bytes[OP_BYTES];
	int status;
};

struct rig {
	struct target target;
	struct manual_clock clock;
	struct sys_reactor *reactor;
	struct transport_driver *loop;
	struct transport_driver *driver;
	struct transport_conn *conn;
	struct item items[DEPTH];
	bool submitting;
	unsigned nr_pending;
	unsigned nr_writable;
	unsigned nr_down;
	int down_err;
	uint64_t down_ns;
};

static uint64_t clock_now(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct manual_clock, head)->now_ns;
}

static struct rig *rig; /* of the test that runs */

static void on_down(struct transport_conn *conn, int err)
{
	assert_ptr_equal(conn, rig->conn);
	assert_int_equal(rig->nr_pending, 0);
	assert_int_equal(conn->in_flight, 0);
	rig->nr_down++;
	rig->down_err = err;
	rig->down_ns = rig->clock.now_ns;
}

static void on_writable(struct transport_conn *conn)
{
	(void)conn;
	rig->nr_writable++;
}

static void on_done(struct transport_op *op, int status)
{
	struct item *item = BASE_CONTAINER_OF(op, struct item, op);

	assert_false(rig->submitting);
	assert_int_equal(item->status, PENDING);
	item->status = status;
	rig->nr_pending--;
}

static int rig_connect(void)
{
	struct transport_connect_options options = {
		.address = "anywhere",
		.lease_id = LEASE,
		.instance_id = 1,
		.queue_depth = DEPTH,
		.heartbeat_ms = 100,
		.dead_ms = DEAD_MS,
		.timeout_ms = 1000,
	};
	int err;

	target_token(LEASE, options.token);
	err = transport_connect(rig->driver, &options, &rig->conn);
	if (err < 0)
		return err;
	rig->conn->down = on_down;
	rig->conn->writable = on_writable;
	rig->nr_down = 0;
	assert_int_equal(transport_attach(rig->conn, rig->reactor), 0);
	return 0;
}

static void rig_open(uint64_t seed)
{
	struct sys_reactor_options options = { .name = "manual", .manual = true };

	rig = calloc(1, sizeof(*rig));
	assert_non_null(rig);
	rig->clock.head.now_ns = clock_now;
	rig->clock.now_ns = SYS_NS_PER_S;
	options.clock = &rig->clock.head;
	assert_int_equal(sys_reactor_create(&options, &rig->reactor), 0);
	target_init(&rig->target, 1);
	target_lease_add(&rig->target, LEASE);
	target_slab_add(&rig->target, LEASE, KEY, DEPTH * OP_BYTES);
	rig->loop = loop_driver_create(&rig->target.head);
	rig->driver = fault_driver_create(rig->loop, seed);
	assert_int_equal(rig_connect(), 0);
}

static void rig_close(void)
{
	transport_close(rig->conn);
	assert_int_equal(rig->nr_pending, 0);
	fault_driver_free(rig->driver);
	loop_driver_free(rig->loop);
	sys_reactor_free(rig->reactor);
	target_done(&rig->target);
	free(rig);
}

/* Lets time pass, a turn in each millisecond. */
static void rig_pass(unsigned ms)
{
	for (unsigned i = 0; i < ms; i++) {
		rig->clock.now_ns += SYS_NS_PER_MS;
		sys_reactor_turn(rig->reactor);
	}
}

/* The item's own page of the slab. */
static int rig_submit(unsigned i, uint8_t opcode)
{
	struct item *item = &rig->items[i];
	int err;

	item->iov = (struct iovec){ item->bytes, OP_BYTES };
	item->op = (struct transport_op){
		.opcode = opcode,
		.key = KEY,
		.offset_bytes = (uint64_t)i * OP_BYTES,
		.len_bytes = OP_BYTES,
		.iov = &item->iov,
		.nr_iov = 1,
		.done = on_done,
	};
	item->status = PENDING;
	rig->nr_pending++;
	rig->submitting = true;
	err = transport_submit(rig->conn, &item->op);
	rig->submitting = false;
	if (err < 0) {
		item->status = err;
		rig->nr_pending--;
	}
	return err;
}

static uint8_t *rig_page(unsigned i)
{
	return rig->target.slabs[0].bytes + (size_t)i * OP_BYTES;
}

static void rig_plan(struct fault_plan plan)
{
	fault_driver_set_plan(rig->driver, &plan);
}

static struct fault_counters rig_counters(void)
{
	struct fault_counters counters;

	fault_driver_counters(rig->driver, &counters);
	return counters;
}

static unsigned nr_different(const void *a, const void *b)
{
	unsigned nr = 0;

	for (size_t i = 0; i < OP_BYTES; i++)
		nr += ((const uint8_t *)a)[i] != ((const uint8_t *)b)[i];
	return nr;
}

static void no_plan_no_fault(void **state)
{
	(void)state;
	rig_open(1);
	memset(rig->items[0].bytes, 7, OP_BYTES);
	assert_int_equal(rig_submit(0, TRANSPORT_WRITE), 0);
	assert_int_equal(rig->items[0].status, PENDING);
	rig_pass(1);
	assert_int_equal(rig->items[0].status, 0);
	assert_int_equal(nr_different(rig_page(0), rig->items[0].bytes), 0);
	rig_pass(1000);
	assert_true(rig->conn->heartbeat_rtt_ns > 0);
	assert_int_equal(rig->nr_down, 0);
	rig_close();
}

static void failing(void **state)
{
	(void)state;
	rig_open(1);
	rig_plan((struct fault_plan){ .fail_ppm = 1000000, .fail_err = -ERANGE });
	memset(rig->items[0].bytes, 7, OP_BYTES);
	assert_int_equal(rig_submit(0, TRANSPORT_WRITE), 0);
	rig_pass(1);
	assert_int_equal(rig->items[0].status, -ERANGE);
	assert_int_equal(rig_page(0)[0], 0);
	rig_plan((struct fault_plan){ .fail_ppm = 1000000 });
	assert_int_equal(rig_submit(0, TRANSPORT_READ), 0);
	rig_pass(1);
	assert_int_equal(rig->items[0].status, -EIO);
	assert_int_equal(rig_counters().failed, 2);
	assert_int_equal(rig->nr_down, 0);
	rig_close();
}

static void delay(void **state)
{
	struct item extra;

	(void)state;
	for (uint64_t seed = 0; seed < 8; seed++) {
		rig_open(seed);
		rig_plan((struct fault_plan){ .delay_ppm = 1000000,
					      .delay_min_ns = 10 * SYS_NS_PER_MS,
					      .delay_max_ns = 20 * SYS_NS_PER_MS });
		for (unsigned i = 0; i < DEPTH; i++)
			assert_int_equal(rig_submit(i, TRANSPORT_READ), 0);
		extra = rig->items[0];
		extra.op.iov = &extra.iov;
		assert_int_equal(transport_submit(rig->conn, &extra.op), -EAGAIN);
		rig_pass(9);
		assert_int_equal(rig->nr_pending, DEPTH);
		rig_pass(13);
		assert_int_equal(rig->nr_pending, 0);
		assert_int_equal(rig->nr_writable, 1);
		assert_int_equal(rig_counters().delayed, DEPTH);
		rig_close();
	}
}

static void corrupt(void **state)
{
	static char before[OP_BYTES];

	(void)state;
	rig_open(1);
	rig_plan((struct fault_plan){ .corrupt_ppm = 1000000 });
	memset(rig->items[0].bytes, 7, OP_BYTES);
	memcpy(before, rig->items[0].bytes, OP_BYTES);
	assert_int_equal(rig_submit(0, TRANSPORT_WRITE), 0);
	rig_pass(1);
	assert_int_equal(rig->items[0].status, 0);
	assert_memory_equal(rig->items[0].bytes, before, OP_BYTES); /* the submitter's are his */
	assert_int_equal(nr_different(rig_page(0), before), 1);
	assert_int_equal(rig_submit(1, TRANSPORT_READ), 0);
	rig_pass(1);
	assert_int_equal(rig->items[1].status, 0);
	assert_int_equal(nr_different(rig_page(1), rig->items[1].bytes), 1);
	assert_int_equal(rig_counters().corrupted, 2);
	rig_close();
}

static void drop(void **state)
{
	uint64_t start_ns;

	(void)state;
	rig_open(1);
	assert_int_equal(rig_submit(1, TRANSPORT_READ), 0);
	rig_pass(1);
	rig_plan((struct fault_plan){ .drop_ppm = 1000000 });
	start_ns = rig->clock.now_ns;
	assert_int_equal(rig_submit(0, TRANSPORT_WRITE), 0);
	fault_driver_set_plan(rig->driver, NULL);
	rig_pass(10);
	/* The others go on meanwhile. */
	assert_int_equal(rig_submit(1, TRANSPORT_READ), 0);
	rig_pass(1);
	assert_int_equal(rig->items[1].status, 0);
	assert_int_equal(rig->items[0].status, PENDING);
	rig_pass(DEAD_MS);
	assert_int_equal(rig->items[0].status, -ETIMEDOUT);
	assert_int_equal(rig->nr_down, 1);
	assert_int_equal(rig->down_err, -ETIMEDOUT);
	assert_int_equal(rig->down_ns - start_ns, DEAD_MS * SYS_NS_PER_MS);
	assert_int_equal(rig_submit(0, TRANSPORT_READ), -ENOTCONN);
	rig_close();
}

static void hang(void **state)
{
	(void)state;
	rig_open(1);
	rig_plan((struct fault_plan){ .hang_ppm = 1000000 });
	assert_int_equal(rig_submit(0, TRANSPORT_READ), 0);
	fault_driver_set_plan(rig->driver, NULL);
	assert_int_equal(rig_submit(1, TRANSPORT_READ), 0);
	rig_pass(DEAD_MS - 1);
	assert_int_equal(rig_submit(2, TRANSPORT_READ), 0);
	assert_int_equal(rig->nr_pending, 3);
	rig_pass(2);
	assert_int_equal(rig->nr_down, 1);
	assert_int_equal(rig->down_err, -ETIMEDOUT);
	assert_int_equal(rig->items[2].status, -ETIMEDOUT);
	assert_int_equal(rig_counters().hung, 1);
	rig_close();
}

static void disconnect(void **state)
{
	unsigned nr_written = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 16; seed++) {
		rig_open(seed);
		rig_plan((struct fault_plan){ .disconnect_ppm = 1000000 });
		memset(rig->items[0].bytes, 7, OP_BYTES);
		assert_int_equal(rig_submit(0, TRANSPORT_WRITE), 0);
		rig_pass(2);
		assert_int_equal(rig->nr_down, 1);
		assert_int_equal(rig->down_err, -ECONNRESET);
		assert_int_equal(rig->items[0].status, -ECONNRESET);
		nr_written += rig_page(0)[0] == 7;
		rig_close();
	}
	/* Sometimes it has been done, sometimes not. */
	assert_in_range(nr_written, 1, 15);
}

static void disconnect_all(void **state)
{
	(void)state;
	rig_open(1);
	assert_int_equal(rig_submit(0, TRANSPORT_READ), 0);
	assert_int_equal(fault_driver_disconnect_all(rig->driver, -ETIMEDOUT), 0);
	assert_int_equal(rig->nr_down, 0);
	rig_pass(1);
	assert_int_equal(rig->nr_down, 1);
	assert_int_equal(rig->down_err, -ETIMEDOUT);
	/* Again, with one that has gone before the order comes. */
	transport_close(rig->conn);
	assert_int_equal(rig_connect(), 0);
	assert_int_equal(fault_driver_disconnect_all(rig->driver, -ETIMEDOUT), 0);
	transport_close(rig->conn);
	assert_int_equal(rig_connect(), 0);
	rig_pass(1);
	assert_int_equal(rig->nr_down, 0);
	rig_close();
}

static void connects(void **state)
{
	struct transport_conn *conn;

	(void)state;
	rig_open(1);
	conn = rig->conn;
	rig_plan((struct fault_plan){ .connect_fail_ppm = 1000000 });
	assert_int_equal(rig_connect(), -ECONNREFUSED);
	rig_plan((struct fault_plan){ .connect_fail_ppm = 1000000, .connect_err = -ETIMEDOUT });
	assert_int_equal(rig_connect(), -ETIMEDOUT);
	assert_int_equal(rig_counters().connects_failed, 2);
	rig->conn = conn;
	rig_close();
}

/* Everything at once, for a while; reconnects when down. The history of it as one number. */
static uint64_t history(uint64_t seed)
{
	struct rand_state rand = { .s = seed + 1 };
	struct fault_counters counters;
	uint64_t hash = seed;

	rig_open(seed);
	rig_plan((struct fault_plan){
		.fail_ppm = 20000,
		.delay_ppm = 100000,
		.delay_max_ns = 30 * SYS_NS_PER_MS,
		.drop_ppm = 2000,
		.corrupt_ppm = 20000,
		.hang_ppm = 1000,
		.disconnect_ppm = 3000,
	});
	for (unsigned step = 0; step < 5000; step++) {
		unsigned i = (unsigned)rand_below(&rand, DEPTH);

		if (rig->nr_down > 0) {
			transport_close(rig->conn);
			assert_int_equal(rig_connect(), 0);
		}
		if (rig->items[i].status != PENDING) {
			hash = hash * 31 + (uint64_t)rig->items[i].status;
			/* Refused when it has gone down in this turn, and down has not been called yet. */
			hash = hash * 31 + (uint64_t)rig_submit(i, rand_below(&rand, 2) ? TRANSPORT_READ : TRANSPORT_WRITE);
		}
		rig_pass((unsigned)rand_below(&rand, 3));
		hash = hash * 31 + rig->nr_pending;
	}
	rig_pass(2 * DEAD_MS);
	assert_int_equal(rig->nr_pending, 0);
	counters = rig_counters();
	assert_true(counters.failed && counters.delayed && counters.dropped && counters.corrupted && counters.hung &&
		    counters.disconnected);
	for (size_t i = 0; i < OP_BYTES * DEPTH; i++)
		hash = hash * 31 + rig->target.slabs[0].bytes[i];
	rig_close();
	return hash;
}

static void a_seed_replays(void **state)
{
	(void)state;
	assert_true(history(1) == history(1));
	assert_true(history(2) == history(2));
	assert_true(history(1) != history(2));
}

static void close_under_faults(void **state)
{
	(void)state;
	rig_open(3);
	rig_plan((struct fault_plan){ .fail_ppm = 200000, .delay_ppm = 300000, .delay_min_ns = SYS_NS_PER_S,
				      .drop_ppm = 300000, .hang_ppm = 100000 });
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(rig_submit(i, TRANSPORT_WRITE), 0);
	transport_close(rig->conn);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(rig->items[i].status, -ECANCELED);
	assert_int_equal(rig->nr_down, 0);
	assert_int_equal(rig_connect(), 0);
	rig_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_plan_no_fault), cmocka_unit_test(failing),
		cmocka_unit_test(delay),	    cmocka_unit_test(corrupt),
		cmocka_unit_test(drop),		    cmocka_unit_test(hang),
		cmocka_unit_test(disconnect),	    cmocka_unit_test(disconnect_all),
		cmocka_unit_test(connects),	    cmocka_unit_test(a_seed_replays),
		cmocka_unit_test(close_under_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

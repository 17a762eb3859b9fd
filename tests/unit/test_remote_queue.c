/* deps: client_backend_remote common_sys */

/* Operations on a memory server: credit and order, and what becomes of them when the connection or the session ends. */

#include "tests/unit/remote_fixture.h"

static void operation_is_translated(void **state)
{
	struct fixture *fixture = *state;
	struct iovec iov[2] = { { fixture->page, FSW_PAGE_SIZE }, { fixture->page, 2 * FSW_PAGE_SIZE } };
	struct fixture_io write, read;
	const struct transport_op *op;

	fixture_io(fixture, &write, 1, IO_WRITE, 1000);
	write.bio.nr_slots = 3;
	write.bio.iov = iov;
	write.bio.nr_iov = 2;
	assert_int_equal(fixture_submit(&write), 0);
	assert_int_equal(fixture_start(fixture, &read, 1, IO_READ, 3), 0);
	assert_int_equal(fixture_held(fixture, 0), 0);
	op = TAILQ_FIRST(&fixture->conns[1]->ops);
	assert_int_equal(op->opcode, TRANSPORT_WRITE);
	assert_int_equal(op->slab, FIXTURE_SLAB);
	assert_int_equal(op->key, FIXTURE_KEY);
	assert_int_equal(op->offset_bytes, 1000 * FSW_PAGE_SIZE);
	assert_int_equal(op->len_bytes, 3 * FSW_PAGE_SIZE);
	assert_ptr_equal(op->iov, iov);
	assert_int_equal(op->nr_iov, 2);
	op = TAILQ_NEXT(op, link);
	assert_int_equal(op->opcode, TRANSPORT_READ);
	assert_int_equal(op->offset_bytes, 3 * FSW_PAGE_SIZE);
	assert_int_equal(op->len_bytes, FSW_PAGE_SIZE);

	fixture_finish(fixture, 1, 2, 0);
	assert_int_equal(write.status, 0);
	assert_int_equal(read.status, 0);
	assert_int_equal(atomic_load(&fixture->backend->counters[1].pages_written), 3);
	assert_int_equal(atomic_load(&fixture->backend->counters[1].pages_read), 1);
	assert_int_equal(atomic_load(&fixture->backend->counters[0].pages_read), 0);
}

static void out_of_range_is_refused(void **state)
{
	static const struct {
		uint32_t slot, nr_slots, nr_iov;
		uint8_t op;
	} bad[] = {
		{ 0, 0, 1, IO_READ },
		{ FIXTURE_SLOTS, 1, 1, IO_READ },
		{ FIXTURE_SLOTS - 1, 2, 1, IO_WRITE },
		{ UINT32_MAX, 2, 1, IO_WRITE },
		{ 0, IO_MAX_PAGES + 1, 1, IO_READ },
		{ 0, 1, 0, IO_READ },
		{ 0, 1, TRANSPORT_MAX_IOV + 1, IO_READ },
		{ 0, 1, 1, IO_FLUSH },
	};
	struct fixture *fixture = *state;
	struct fixture_io io;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(bad); i++) {
		fixture_io(fixture, &io, 0, bad[i].op, bad[i].slot);
		io.bio.nr_slots = bad[i].nr_slots;
		io.bio.nr_iov = bad[i].nr_iov;
		assert_int_equal(fixture_submit(&io), -EINVAL);
	}
	assert_int_equal(fixture_held(fixture, 0), 0);
	assert_int_equal(fixture_start(fixture, &io, 0, IO_READ, FIXTURE_SLOTS - 1), 0);
	fixture_finish(fixture, 0, 1, 0);
}

static void waits_for_credit_in_order(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io io[6];

	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(fixture_start(fixture, &io[i], 0, i % 2 ? IO_READ : IO_WRITE, i), 0);
	assert_int_equal(fixture_held(fixture, 0), FIXTURE_DEPTH);
	/* What the done of the first submits comes after those that waited before it, though a place has become free. */
	fixture_io(fixture, &io[5], 0, IO_READ, 5);
	io[0].then = &io[5];
	fixture_finish(fixture, 0, 1, 0);
	assert_int_equal(io[0].then_ret, 0);
	assert_int_equal(fixture_held(fixture, 0), FIXTURE_DEPTH);
	assert_int_equal(TAILQ_LAST(&fixture->conns[0]->ops, transport_op_list)->offset_bytes, 2 * FSW_PAGE_SIZE);
	fixture_finish(fixture, 0, 2, 0);
	fixture_finish(fixture, 0, 2, 0);
	fixture_finish(fixture, 0, 1, 0);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(io[i].status, 0);
		assert_int_equal(io[i].order, i);
	}
}

static void writes_fail_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io write[3], late, other;

	for (unsigned i = 0; i < 3; i++) /* two in flight, one that waits for credit */
		assert_int_equal(fixture_start(fixture, &write[i], 0, IO_WRITE, i), 0);
	fixture_io(fixture, &late, 0, IO_WRITE, 3);
	write[0].then = &late;
	fixture_fail(fixture, 0, -ECONNRESET);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(write[i].status, -EIO);
		/* The failure was on record before anybody was told: no fence can pass between the two. */
		assert_int_equal(write[i].state, BACKEND_DOWN);
	}
	assert_int_equal(write[0].then_ret, -ENOTCONN);
	assert_int_equal(backend_state(fixture->backend), BACKEND_DOWN);
	assert_int_equal(fixture_start(fixture, &late, 0, IO_WRITE, 3), -ENOTCONN);
	assert_int_equal(fixture_start(fixture, &other, 1, IO_WRITE, 3), -ENOTCONN);
	assert_int_equal(atomic_load(&fixture->backend->counters[0].write_errors), 3);
}

/* A connection tells of its end at the end of a turn. Nobody else is sent there until then. */
static void a_write_finds_that_it_is_closed(void **state)
{
	struct fixture *fixture = *state;
	struct remote_info info;
	struct fixture_io io;

	fixture->conns[0]->failed = true;
	assert_int_equal(fixture_start(fixture, &io, 0, IO_WRITE, 0), -ENOTCONN);
	assert_int_equal(backend_state(fixture->backend), BACKEND_DOWN);
	fixture_fail(fixture, 0, -ETIMEDOUT);
	remote_info(fixture->backend, &info);
	assert_int_equal(info.last_error, -ETIMEDOUT);
}

static void reads_wait_for_reconnection(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io read[4], elsewhere;
	struct remote_info info;

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(fixture_start(fixture, &read[i], 0, IO_READ, i), 0);
	fixture_fail(fixture, 0, -ECONNRESET);
	assert_int_equal(fixture_start(fixture, &read[3], 0, IO_READ, 3), 0);
	/* A queue that stands serves reads as ever. */
	assert_int_equal(fixture_start(fixture, &elsewhere, 1, IO_READ, 9), 0);
	fixture_finish(fixture, 1, 1, 0);
	assert_int_equal(elsewhere.status, 0);
	remote_info(fixture->backend, &info);
	assert_int_equal(info.nr_waiting, 4);

	fixture_pass(fixture, FIXTURE_PATIENCE_MS * SYS_NS_PER_MS - 1);
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	assert_int_equal(fixture_held(fixture, 0), FIXTURE_DEPTH);
	fixture_pass(fixture, 10 * FIXTURE_PATIENCE_MS * SYS_NS_PER_MS); /* patience is for the server, not for credit */
	fixture_finish(fixture, 0, 2, 0);
	fixture_finish(fixture, 0, 2, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(read[i].status, 0);
	remote_info(fixture->backend, &info);
	assert_int_equal(info.nr_waiting, 0);
}

static void patience_ends(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io first, second, next;

	assert_int_equal(fixture_start(fixture, &first, 0, IO_READ, 0), 0);
	fixture_pass(fixture, 100 * SYS_NS_PER_MS);
	fixture_fail(fixture, 0, -ETIMEDOUT);
	assert_int_equal(fixture_start(fixture, &second, 0, IO_READ, 1), 0);
	fixture_io(fixture, &next, 0, IO_READ, 2);
	first.then = &next;

	fixture_pass(fixture, 400 * SYS_NS_PER_MS - 1);
	assert_int_equal(first.status, FIXTURE_PENDING);
	fixture_pass(fixture, 1); /* from its start, not from when the connection went down */
	assert_int_equal(first.status, -ETIMEDOUT);
	assert_int_equal(first.then_ret, 0);
	assert_int_equal(second.status, FIXTURE_PENDING);
	fixture_pass(fixture, 100 * SYS_NS_PER_MS);
	assert_int_equal(second.status, -ETIMEDOUT);
	assert_int_equal(next.status, FIXTURE_PENDING);
	fixture_pass(fixture, 400 * SYS_NS_PER_MS);
	assert_int_equal(next.status, -ETIMEDOUT);
	assert_int_equal(atomic_load(&fixture->backend->counters[0].read_errors), 3);
}

static void patience_is_not_renewed(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io read;

	assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 0), 0);
	for (unsigned i = 0; i < 4; i++) {
		fixture_fail(fixture, 0, -ECONNRESET);
		fixture_pass(fixture, FIXTURE_PATIENCE_MS / 4 * SYS_NS_PER_MS);
		assert_int_equal(read.status, i < 3 ? FIXTURE_PENDING : -ETIMEDOUT);
		assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	}
	/* One that is too old when its connection fails does not wait at all. */
	assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 0), 0);
	fixture_pass(fixture, FIXTURE_PATIENCE_MS * SYS_NS_PER_MS);
	fixture_fail(fixture, 0, -ECONNRESET);
	assert_int_equal(read.status, -ETIMEDOUT);
}

static void refusals_are_errors(void **state)
{
	static const int refusals[] = { -EACCES, -ERANGE, -EIO };
	struct fixture *fixture = *state;
	struct fixture_io read, write;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(refusals); i++) {
		assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 0), 0);
		assert_int_equal(fixture_start(fixture, &write, 0, IO_WRITE, 1), 0);
		fixture_finish(fixture, 0, 2, refusals[i]);
		assert_int_equal(read.status, -EIO);
		assert_int_equal(write.status, -EIO);
		assert_int_equal(backend_state(fixture->backend), BACKEND_UP);
	}
}

static void session_end_loses_everything(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io in_flight[2], waiting, again, parked;
	struct backend_slab old;

	assert_int_equal(fixture_start(fixture, &in_flight[0], 0, IO_READ, 0), 0);
	assert_int_equal(fixture_start(fixture, &in_flight[1], 0, IO_WRITE, 1), 0);
	assert_int_equal(fixture_start(fixture, &waiting, 0, IO_WRITE, 2), 0);
	fixture_fail(fixture, 1, -ECONNRESET);
	assert_int_equal(fixture_start(fixture, &parked, 1, IO_READ, 3), 0);
	fixture_io(fixture, &again, 0, IO_READ, 0);
	in_flight[0].then = &again;

	remote_session_end(fixture->backend);
	assert_int_equal(in_flight[0].status, -ENODATA);
	assert_int_equal(in_flight[0].state, BACKEND_LOST);
	assert_int_equal(in_flight[0].then_ret, -ENODATA);
	assert_int_equal(in_flight[1].status, -ENODATA);
	assert_int_equal(waiting.status, -ENODATA);
	assert_int_equal(parked.status, -ENODATA);
	assert_int_equal(backend_state(fixture->backend), BACKEND_LOST);
	assert_int_equal(fixture->nr_conns, 0);
	assert_int_equal(fixture_start(fixture, &again, 0, IO_READ, 0), -ENODATA);

	/* In the next session, slabs of the last one are dead as ever. */
	old = fixture->slab;
	assert_int_equal(fixture_begin(fixture), 0);
	assert_int_not_equal(fixture->slab.session, old.session);
	fixture_io(fixture, &again, 0, IO_WRITE, 0);
	again.bio.slab = &old;
	assert_int_equal(fixture_submit(&again), -ENODATA);
	assert_int_equal(fixture_start(fixture, &again, 0, IO_WRITE, 0), 0);
	fixture_finish(fixture, 0, 1, 0);
	assert_int_equal(again.status, 0);
}

static void latency_is_sampled(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io read;

	assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 0), 0);
	fixture_pass(fixture, 5000);
	fixture_finish(fixture, 0, 1, 0);
	assert_int_equal(atomic_load(&fixture->backend->latency_ns), 5000);
	/* One that waited for the server to come back says nothing about its speed, whichever it is that is sampled. */
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 0), 0);
		fixture_fail(fixture, 0, -ECONNRESET);
		fixture_pass(fixture, SYS_NS_PER_MS);
		assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
		fixture_finish(fixture, 0, 1, 0);
	}
	assert_int_equal(atomic_load(&fixture->backend->latency_ns), 5000);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 0), 0);
		fixture_pass(fixture, 13000);
		fixture_finish(fixture, 0, 1, 0);
	}
	assert_in_range(atomic_load(&fixture->backend->latency_ns), 5001, 12999);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_connect, fixture_destroy)
	const struct CMUnitTest tests[] = {
		TEST(operation_is_translated),
		TEST(out_of_range_is_refused),
		TEST(waits_for_credit_in_order),
		TEST(writes_fail_at_once),
		TEST(a_write_finds_that_it_is_closed),
		TEST(reads_wait_for_reconnection),
		TEST(patience_ends),
		TEST(patience_is_not_renewed),
		TEST(refusals_are_errors),
		TEST(session_end_loses_everything),
		TEST(latency_is_sampled),
	};

	return cmocka_run_group_tests_name("remote queue", tests, NULL, NULL);
}

/* deps: client_backend_remote common_sys */

/* Sessions with a memory server: connecting, fences, waiting for trouble, ending. */

#include <pthread.h>

#include "tests/unit/remote_fixture.h"

static bool settled(struct fixture *fixture, const struct fixture_io *io)
{
	return backend_write_settled(fixture->backend, io->fence);
}

static void begin_connects_every_queue(void **state)
{
	struct fixture *fixture = *state;
	struct remote_info info;
	struct fixture_io io;

	assert_int_equal(backend_state(fixture->backend), BACKEND_CONNECTING);
	assert_int_equal(fixture_start(fixture, &io, 0, IO_READ, 0), -EINVAL); /* a slab of no size */
	assert_int_equal(fixture_begin(fixture), 0);
	assert_int_equal(backend_state(fixture->backend), BACKEND_UP);
	assert_int_equal(fixture->nr_connects, FIXTURE_QUEUES);
	for (unsigned i = 0; i < FIXTURE_QUEUES; i++) {
		const struct transport_connect_options *options = &fixture->options[i];

		assert_int_equal(options->lease_id, 11);
		assert_int_equal(options->instance_id, 12);
		assert_int_equal(options->token[0], 0x5a);
		assert_int_equal(options->token[TRANSPORT_TOKEN_BYTES - 1], 0x5a);
		assert_int_equal(options->channel, i);
		assert_int_equal(options->queue_depth, FIXTURE_DEPTH);
		assert_int_equal(options->heartbeat_ms, 200);
		assert_int_equal(options->dead_ms, FIXTURE_DEAD_MS);
		assert_int_equal(options->timeout_ms, FIXTURE_TIMEOUT_MS);
	}
	assert_string_equal(fixture->address, "192.0.2.1:7700");
	remote_info(fixture->backend, &info);
	assert_int_equal(info.nr_connected, FIXTURE_QUEUES);
	assert_int_equal(info.down_since_ns, 0);
	assert_int_equal(info.last_error, 0);
	assert_int_equal(atomic_load(&fixture->backend->fence), 0);
}

/* A server that asks for a heartbeat slower than dead_ms would have every connection die of it. */
static void heartbeat_is_often_enough(void **state)
{
	struct fixture *fixture = *state;
	struct remote_session session = { .data_address = "x:1", .heartbeat_ms = 60000 };

	assert_int_equal(remote_session_begin(fixture->backend, &session, FIXTURE_TIMEOUT_MS), 0);
	assert_int_equal(fixture->options[0].heartbeat_ms, FIXTURE_DEAD_MS / 3);
}

static void begin_fails_as_a_whole(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io io;

	fixture->connect_err[1] = -ECONNREFUSED;
	assert_int_equal(fixture_begin(fixture), -ECONNREFUSED);
	assert_int_equal(fixture->nr_conns, 0);
	assert_int_equal(backend_state(fixture->backend), BACKEND_CONNECTING);
	assert_int_equal(fixture_start(fixture, &io, 0, IO_READ, 0), -ENODATA);

	fixture->connect_err[1] = 0;
	fixture->attach_err[0] = -ENOSPC;
	assert_int_equal(fixture_begin(fixture), -ENOSPC);
	assert_int_equal(fixture->nr_conns, 0);
	assert_false(remote_wait(fixture->backend, 0));

	fixture->attach_err[0] = 0;
	assert_int_equal(fixture_begin(fixture), 0);
	assert_int_equal(backend_state(fixture->backend), BACKEND_UP);
}

static void take_time(struct fixture *fixture, unsigned channel)
{
	(void)channel;
	fixture->now_ns += 70 * SYS_NS_PER_MS;
}

static void fail_the_other(struct fixture *fixture, unsigned channel)
{
	if (fixture->conns[!channel])
		fixture_fail(fixture, !channel, -EPROTO);
}

static void time_limit_is_for_all(void **state)
{
	struct fixture *fixture = *state;

	fixture->on_connect = take_time;
	assert_int_equal(fixture_begin(fixture), 0);
	assert_int_equal(fixture->options[0].timeout_ms, FIXTURE_TIMEOUT_MS);
	assert_int_equal(fixture->options[1].timeout_ms, FIXTURE_TIMEOUT_MS - 70);
	fixture_fail(fixture, 0, -ECONNRESET);
	fixture_fail(fixture, 1, -ECONNRESET);
	fixture->nr_connects = 0;
	assert_int_equal(remote_session_reconnect(fixture->backend, 70), -ETIMEDOUT);
	assert_int_equal(fixture->nr_connects, 1);
	assert_int_equal(remote_session_reconnect(fixture->backend, 70), 0);
	assert_int_equal(fixture->nr_connects, 2);
}

static void begin_notices_a_queue_that_fails_meanwhile(void **state)
{
	struct fixture *fixture = *state;

	fixture->on_connect = fail_the_other;
	assert_int_equal(fixture_begin(fixture), -EPROTO);
	assert_int_equal(backend_state(fixture->backend), BACKEND_CONNECTING);
	assert_int_equal(fixture->nr_conns, 0);
}

static void fence_waits_for_all_queues(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io write;
	struct remote_info info;

	assert_int_equal(fixture_start(fixture, &write, 1, IO_WRITE, 0), 0);
	fixture_fail(fixture, 0, -ECONNRESET);
	fixture_fail(fixture, 1, -ETIMEDOUT);
	assert_int_equal(write.status, -EIO);
	assert_false(settled(fixture, &write));

	fixture->connect_err[1] = -ECONNREFUSED;
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), -ECONNREFUSED);
	assert_int_equal(backend_state(fixture->backend), BACKEND_DOWN);
	assert_false(settled(fixture, &write));
	remote_info(fixture->backend, &info);
	assert_int_equal(info.nr_connected, 1);
	assert_int_equal(info.nr_reconnects, 1);
	assert_int_equal(info.last_error, -ETIMEDOUT);

	fixture->connect_err[1] = 0;
	fixture->nr_connects = 0;
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	assert_int_equal(fixture->nr_connects, 1); /* the queue that stood was left alone */
	assert_int_equal(backend_state(fixture->backend), BACKEND_UP);
	assert_true(settled(fixture, &write));
	assert_int_equal(atomic_load(&fixture->backend->fence), 1);
	/* Nothing was down: nothing is fenced. */
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	assert_int_equal(atomic_load(&fixture->backend->fence), 1);
}

/* A queue that fails while another is connected again is not settled by that. */
static void fence_is_not_fooled(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io write, read;

	assert_int_equal(fixture_start(fixture, &write, 1, IO_WRITE, 0), 0);
	fixture_fail(fixture, 0, -ECONNRESET);
	fixture->on_connect = fail_the_other;
	/* By then the first queue is past: once more for the second. */
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), -EPROTO);
	assert_int_equal(write.status, -EIO);
	assert_false(settled(fixture, &write));
	assert_int_equal(backend_state(fixture->backend), BACKEND_DOWN);
	fixture->on_connect = NULL;
	assert_int_equal(fixture_start(fixture, &read, 1, IO_READ, 0), 0);
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	assert_true(settled(fixture, &write));
	fixture_finish(fixture, 0, fixture_held(fixture, 0), 0);
	fixture_finish(fixture, 1, fixture_held(fixture, 1), 0);
	assert_int_equal(read.status, 0);
}

/* A connection that is known to have failed by one of its operations is replaced, be it that it has not said so itself. */
static void connection_that_keeps_silent_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io write[2], read;

	assert_int_equal(fixture_start(fixture, &write[0], 0, IO_WRITE, 0), 0);
	assert_int_equal(fixture_start(fixture, &write[1], 0, IO_WRITE, 1), 0);
	assert_int_equal(fixture_start(fixture, &read, 0, IO_READ, 2), 0);
	fixture_finish(fixture, 0, 1, -ETIMEDOUT);
	assert_int_equal(write[0].status, -EIO);
	assert_true(remote_wait(fixture->backend, 0));
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	assert_int_equal(write[1].status, -EIO);
	assert_true(settled(fixture, &write[0]));
	assert_true(settled(fixture, &write[1]));
	assert_int_equal(fixture->nr_conns, FIXTURE_QUEUES);
	fixture_finish(fixture, 0, 1, 0);
	assert_int_equal(read.status, 0);
}

static void refused_write_is_settled(void **state)
{
	struct fixture *fixture = *state;
	struct fixture_io write, other;

	assert_int_equal(fixture_start(fixture, &write, 0, IO_WRITE, 0), 0);
	fixture_finish(fixture, 0, 1, -EACCES);
	assert_int_equal(write.status, -EIO);
	assert_true(settled(fixture, &write));

	/* Not at the cost of a write that may be under way on a connection that has failed. */
	assert_int_equal(fixture_start(fixture, &other, 1, IO_WRITE, 1), 0);
	assert_int_equal(fixture_start(fixture, &write, 0, IO_WRITE, 0), 0);
	fixture_fail(fixture, 1, -ECONNRESET);
	fixture_finish(fixture, 0, 1, -EACCES);
	assert_false(settled(fixture, &other));
	assert_false(settled(fixture, &write));
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	assert_true(settled(fixture, &other));
	assert_true(settled(fixture, &write));
}

static void stale_lease_is_told(void **state)
{
	struct fixture *fixture = *state;

	fixture_fail(fixture, 0, -ECONNRESET);
	fixture_fail(fixture, 1, -ECONNRESET);
	fixture->connect_err[0] = -ECONNREFUSED;
	fixture->connect_err[1] = -ESTALE;
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), -ESTALE);
	remote_session_end(fixture->backend);
	assert_int_equal(backend_state(fixture->backend), BACKEND_LOST);
	assert_false(remote_wait(fixture->backend, 0)); /* without a session nothing is down */
	remote_session_end(fixture->backend);
	assert_int_equal(backend_state(fixture->backend), BACKEND_LOST);
}

static void books_are_kept(void **state)
{
	struct fixture *fixture = *state;
	struct remote_info info;

	fixture->conns[1]->head.heartbeat_rtt_ns = 4711;
	fixture_pass(fixture, SYS_NS_PER_S);
	remote_info(fixture->backend, &info);
	assert_int_equal(info.heartbeat_rtt_ns, 4711);
	fixture_fail(fixture, 1, -EPROTO);
	fixture_pass(fixture, SYS_NS_PER_S);
	fixture_fail(fixture, 0, -ECONNRESET);
	remote_info(fixture->backend, &info);
	assert_int_equal(info.nr_connected, 0);
	assert_int_equal(info.last_error, -ECONNRESET);
	assert_int_equal(info.down_since_ns, 2 * SYS_NS_PER_S);
	assert_int_equal(remote_session_reconnect(fixture->backend, FIXTURE_TIMEOUT_MS), 0);
	remote_info(fixture->backend, &info);
	assert_int_equal(info.nr_reconnects, 2);
	assert_int_equal(info.down_since_ns, 0);
}

static void wait_is_ended(void **state)
{
	struct fixture *fixture = *state;

	assert_false(remote_wait(fixture->backend, 0));
	remote_wake(fixture->backend);
	assert_false(remote_wait(fixture->backend, 3600 * 1000));
	assert_false(remote_wait(fixture->backend, 0)); /* the wake was for one */
	fixture_fail(fixture, 1, -ECONNRESET);
	assert_true(remote_wait(fixture->backend, 3600 * 1000));
	assert_true(remote_wait(fixture->backend, 3600 * 1000));
}

static void *wait_for_trouble(void *arg)
{
	struct fixture *fixture = arg;

	return remote_wait(fixture->backend, 3600 * 1000) ? fixture : NULL;
}

static void wait_ends_when_a_connection_fails(void **state)
{
	struct fixture *fixture = *state;
	pthread_t thread;
	void *ret;

	assert_int_equal(pthread_create(&thread, NULL, wait_for_trouble, fixture), 0);
	fixture_fail(fixture, 0, -ECONNRESET);
	assert_int_equal(pthread_join(thread, &ret), 0);
	assert_ptr_equal(ret, fixture);
}

static void options_are_checked(void **state)
{
	struct fixture *fixture = *state;
	const struct remote_options good = {
		.name = "a:1",
		.driver = &fixture->driver,
		.reactors = fixture->reactors,
		.nr_queues = 1,
		.queue_depth = 1,
		.dead_ms = 2,
	};
	char name[BACKEND_NAME_MAX + 1] = { 0 };
	struct remote_options options[6];
	struct backend *backend = NULL;

	memset(name, 'x', BACKEND_NAME_MAX);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(options); i++)
		options[i] = good;
	options[0].nr_queues = 0;
	options[1].nr_queues = BACKEND_MAX_QUEUES + 1;
	options[2].queue_depth = 0;
	options[3].queue_depth = TRANSPORT_MAX_QUEUE_DEPTH + 1;
	options[4].dead_ms = 1;
	options[5].name = name;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(options); i++)
		assert_int_equal(remote_create(&options[i], &backend), -EINVAL);
	assert_null(backend);
	assert_int_equal(remote_create(&good, &backend), 0);
	assert_string_equal(backend->name, "a:1");
	remote_free(backend);
	remote_free(NULL);
}

int main(void)
{
#define NEW(name) cmocka_unit_test_setup_teardown(name, fixture_create, fixture_destroy)
#define UP(name) cmocka_unit_test_setup_teardown(name, fixture_connect, fixture_destroy)
	const struct CMUnitTest tests[] = {
		NEW(begin_connects_every_queue),
		NEW(heartbeat_is_often_enough),
		NEW(begin_fails_as_a_whole),
		NEW(time_limit_is_for_all),
		NEW(begin_notices_a_queue_that_fails_meanwhile),
		UP(fence_waits_for_all_queues),
		UP(fence_is_not_fooled),
		UP(connection_that_keeps_silent_is_replaced),
		UP(refused_write_is_settled),
		UP(stale_lease_is_told),
		UP(books_are_kept),
		UP(wait_is_ended),
		UP(wait_ends_when_a_connection_fails),
		NEW(options_are_checked),
	};

	return cmocka_run_group_tests_name("remote session", tests, NULL, NULL);
}

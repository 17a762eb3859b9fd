/* deps: client_ctl */

/* Who wants which backend empty; over a virtual swap layer that only keeps the states. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/ctl/drains.h"

#define NR 2u

/* What the layer below would say, by the backend's `vswap`. */
struct fake {
	enum vswap_drain_state state;
	bool draining;
	bool cancel;
	unsigned nr_starts;
	struct vswap_drain_options options;
};

static struct backend backends[NR];
static struct fake fakes[NR];
static uint64_t now_ns;

static struct fake *fake_of(const struct backend *backend)
{
	return &fakes[backend - backends];
}

int vswap_drain(struct vswap *vswap, struct backend *backend, const struct vswap_drain_options *options)
{
	(void)vswap;
	for (unsigned i = 0; i < NR; i++)
		if (fakes[i].state == VSWAP_DRAIN_RUNNING)
			return &backends[i] == backend ? -EALREADY : -EBUSY;
	fake_of(backend)->state = VSWAP_DRAIN_RUNNING;
	fake_of(backend)->draining = true;
	fake_of(backend)->options = *options;
	fake_of(backend)->nr_starts++;
	return 0;
}

void vswap_hold_back(struct vswap *vswap, struct backend *backend)
{
	(void)vswap;
	fake_of(backend)->draining = true;
}

int vswap_drain_cancel(struct vswap *vswap, struct backend *backend)
{
	(void)vswap;
	if (fake_of(backend)->state != VSWAP_DRAIN_RUNNING)
		return -ENOENT;
	fake_of(backend)->cancel = true;
	return 0;
}

int vswap_undrain(struct vswap *vswap, struct backend *backend)
{
	(void)vswap;
	if (fake_of(backend)->state == VSWAP_DRAIN_RUNNING)
		return -EBUSY;
	fake_of(backend)->state = VSWAP_DRAIN_NONE;
	fake_of(backend)->draining = false;
	return 0;
}

bool vswap_backend_draining(const struct backend *backend)
{
	return fake_of(backend)->draining;
}

void vswap_drain_progress(struct vswap *vswap, struct backend *backend, struct vswap_drain_progress *ret_progress)
{
	(void)vswap;
	memset(ret_progress, 0, sizeof(*ret_progress));
	ret_progress->state = fake_of(backend)->state;
}

static uint64_t fake_now_ns(struct sys_clock *clock)
{
	(void)clock;
	return now_ns;
}

/* A server, and the disk. */
static struct drains *begin(struct state *state)
{
	static struct sys_clock clock = { .now_ns = fake_now_ns };
	struct drains *drains;

	memset(backends, 0, sizeof(backends));
	memset(fakes, 0, sizeof(fakes));
	assert_int_equal(drains_create(NULL, &clock, state, &drains), 0);
	for (unsigned i = 0; i < NR; i++) {
		atomic_store(&backends[i].state, BACKEND_UP);
		assert_int_equal(drains_add(drains, &backends[i]), 0);
	}
	backends[1].record = STATE_DISK;
	return drains;
}

static int setup(void **state)
{
	now_ns = SYS_NS_PER_S;
	*state = begin(NULL);
	return 0;
}

static int teardown(void **state)
{
	drains_free(*state);
	return 0;
}

static void tick_after(struct drains *drains, uint64_t s)
{
	now_ns += s * SYS_NS_PER_S;
	drains_tick(drains);
}

static void test_operator(void **state)
{
	struct vswap_drain_options options = { .target = VSWAP_DRAIN_TO_DISK };
	const struct backend *busy = NULL;
	enum vswap_drain_target target;
	struct backend stranger = { 0 };

	assert_false(drains_running(*state, &backends[0], &target));
	assert_int_equal(drains_start(*state, &stranger, &options, NULL), -ENOENT);
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), 0);
	assert_true(drains_running(*state, &backends[0], &target));
	assert_int_equal(target, VSWAP_DRAIN_TO_DISK);
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), -EALREADY);
	assert_int_equal(drains_start(*state, &backends[1], &options, &busy), -EBUSY);
	assert_ptr_equal(busy, &backends[0]);
	assert_int_equal(drains_cancel(*state, &backends[1]), -ENOENT);
	assert_int_equal(drains_cancel(*state, &backends[0]), 0);
	assert_true(fakes[0].cancel);
	fakes[0].state = VSWAP_DRAIN_CANCELLED;
	/* Nobody starts it again, and nobody takes the server back into use. */
	tick_after(*state, 100);
	assert_int_equal(fakes[0].nr_starts, 1);
	assert_true(fakes[0].draining);
	assert_int_equal(drains_undrain(*state, &backends[0]), 0);
	assert_false(fakes[0].draining);
	assert_int_equal(drains_undrain(*state, &backends[0]), 0);
}

static void test_lost_servers_are_not_drained(void **state)
{
	struct vswap_drain_options options = { 0 };

	atomic_store(&backends[0].state, BACKEND_LOST);
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), -ENOTCONN);
	atomic_store(&backends[0].state, BACKEND_CONNECTING);
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), -ENOTCONN);
	drains_server_wants(*state, &backends[0], 0);
	tick_after(*state, 1);
	assert_int_equal(fakes[0].nr_starts, 0);
	atomic_store(&backends[0].state, BACKEND_DOWN);
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), 0);
}

static void test_undrain_cancels_first(void **state)
{
	struct vswap_drain_options options = { 0 };

	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), 0);
	assert_int_equal(drains_undrain(*state, &backends[0]), -EINPROGRESS);
	assert_true(fakes[0].cancel);
	assert_int_equal(drains_undrain(*state, &backends[0]), -EINPROGRESS);
	/* Also when the one who asked has gone away. */
	fakes[0].state = VSWAP_DRAIN_CANCELLED;
	tick_after(*state, 1);
	assert_false(fakes[0].draining);
}

static void test_server_drain_is_tried_until_it_succeeds(void **state)
{
	drains_server_wants(*state, &backends[0], 10000);
	tick_after(*state, 0);
	assert_int_equal(fakes[0].nr_starts, 1);
	assert_in_range(fakes[0].options.deadline_ms, 10000, 10001);
	tick_after(*state, 1);
	fakes[0].state = VSWAP_DRAIN_NO_ROOM;
	tick_after(*state, 3);
	assert_int_equal(fakes[0].nr_starts, 2);
	assert_in_range(fakes[0].options.deadline_ms, 6000, 6001);
	fakes[0].state = VSWAP_DRAIN_DEADLINE;
	/* After the deadline what can be saved still is. */
	tick_after(*state, 30);
	assert_int_equal(fakes[0].nr_starts, 3);
	assert_int_equal(fakes[0].options.deadline_ms, 0);
	fakes[0].state = VSWAP_DRAIN_DRAINED;
	tick_after(*state, 30);
	assert_int_equal(fakes[0].nr_starts, 3);
	drains_server_relents(*state, &backends[0]);
	tick_after(*state, 0);
	assert_false(fakes[0].draining);
	tick_after(*state, 30);
	assert_int_equal(fakes[0].nr_starts, 3);
}

static void test_server_drains_take_turns(void **state)
{
	drains_server_wants(*state, &backends[0], 0);
	drains_server_wants(*state, &backends[1], 0);
	tick_after(*state, 0);
	assert_int_equal(fakes[0].nr_starts, 1);
	assert_int_equal(fakes[1].nr_starts, 0);
	fakes[0].state = VSWAP_DRAIN_DRAINED;
	tick_after(*state, 3);
	assert_int_equal(fakes[1].nr_starts, 1);
}

static void test_operator_outlasts_the_server(void **state)
{
	struct vswap_drain_options options = { 0 };

	drains_server_wants(*state, &backends[0], 0);
	tick_after(*state, 0);
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), -EALREADY);
	drains_server_relents(*state, &backends[0]);
	tick_after(*state, 1);
	assert_false(fakes[0].cancel);
	assert_true(fakes[0].draining);
}

static void test_server_relents_while_it_runs(void **state)
{
	drains_server_wants(*state, &backends[0], 0);
	tick_after(*state, 0);
	drains_server_relents(*state, &backends[0]);
	tick_after(*state, 0);
	assert_true(fakes[0].cancel);
	assert_true(fakes[0].draining);
	fakes[0].state = VSWAP_DRAIN_CANCELLED;
	tick_after(*state, 0);
	assert_false(fakes[0].draining);
	/* An operator's drain is not taken back by a server that asked for nothing. */
	fakes[1].state = VSWAP_DRAIN_DRAINED;
	fakes[1].draining = true;
	drains_server_relents(*state, &backends[1]);
	tick_after(*state, 0);
	assert_true(fakes[1].draining);
}

/* ---- a daemon that dies, and the next one ---- */

static struct state *record;

static int setup_record(void **state)
{
	static const struct state_shape shape = { .nr_pages = 1000, .nr_queues = 1, .max_slabs = 4 };
	char path[] = "/tmp/farswap-test-XXXXXX", error[STATE_ERROR_MAX];

	close(mkstemp(path));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(state_open(path, &shape, &record, error), 0);
	assert_int_equal(state_session_number(record, state_session_of(record, "a server")), 0);
	now_ns = SYS_NS_PER_S;
	*state = begin(record);
	return 0;
}

static int teardown_record(void **state)
{
	drains_free(*state);
	state_close(record, true);
	return 0;
}

static void die(void **state)
{
	drains_free(*state);
	*state = begin(record);
	drains_resume(*state);
}

static void test_a_drain_goes_on(void **state)
{
	struct vswap_drain_options options = { .target = VSWAP_DRAIN_TO_REMOTE };

	assert_int_equal(drains_start(*state, &backends[1], &options, NULL), 0);
	die(state);
	assert_false(fakes[0].draining);
	/* At once, before a page is placed there; the drain itself when pages can be read. */
	assert_true(fakes[1].draining);
	assert_int_equal(fakes[1].nr_starts, 0);
	fakes[0].state = VSWAP_DRAIN_RUNNING;
	tick_after(*state, 3);
	assert_int_equal(fakes[1].nr_starts, 0);
	fakes[0].state = VSWAP_DRAIN_NONE;
	tick_after(*state, 3);
	assert_int_equal(fakes[1].nr_starts, 1);
	assert_int_equal(fakes[1].options.target, VSWAP_DRAIN_TO_REMOTE);
	/* Once: how it ends is for the operator to see. */
	fakes[1].state = VSWAP_DRAIN_NO_ROOM;
	tick_after(*state, 3);
	assert_int_equal(fakes[1].nr_starts, 1);
	assert_true(fakes[1].draining);
	assert_int_equal(drains_undrain(*state, &backends[1]), 0);
	die(state);
	assert_false(fakes[1].draining);
	tick_after(*state, 3);
	assert_int_equal(fakes[1].nr_starts, 0);
}

static void test_a_cancelled_drain_does_not_go_on(void **state)
{
	struct vswap_drain_options options = { .target = VSWAP_DRAIN_TO_ANY };
	unsigned i;

	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), 0);
	assert_int_equal(drains_cancel(*state, &backends[0]), 0);
	for (i = 0; i < 2; i++) {
		die(state);
		assert_true(fakes[0].draining);
		tick_after(*state, 3);
		assert_int_equal(fakes[0].nr_starts, 0);
	}
	/* One that has yet to go on can be cancelled, too. */
	assert_int_equal(drains_start(*state, &backends[0], &options, NULL), 0);
	die(state);
	assert_int_equal(drains_cancel(*state, &backends[0]), 0);
	tick_after(*state, 3);
	assert_int_equal(fakes[0].nr_starts, 0);
	assert_true(fakes[0].draining);
}

/* What the servers want is theirs to say again. */
static void test_a_servers_wish_is_not_on_record(void **state)
{
	drains_server_wants(*state, &backends[0], 0);
	tick_after(*state, 0);
	assert_int_equal(fakes[0].nr_starts, 1);
	die(state);
	assert_false(fakes[0].draining);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_operator, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_servers_are_not_drained, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undrain_cancels_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_drain_is_tried_until_it_succeeds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_drains_take_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(test_operator_outlasts_the_server, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_relents_while_it_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_drain_goes_on, setup_record, teardown_record),
		cmocka_unit_test_setup_teardown(test_a_cancelled_drain_does_not_go_on, setup_record, teardown_record),
		cmocka_unit_test_setup_teardown(test_a_servers_wish_is_not_on_record, setup_record, teardown_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

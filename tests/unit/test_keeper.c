/* deps: client_ctl */

/* The keeper's sessions: begun, served, broken, given up and begun anew. */

#include "tests/unit/keeper_fixture.h"

static void on_changed(void *user)
{
	(void)user;
	enter();
	leave();
}

static int setup_with(uint64_t lost_after_ms, struct transport_driver *rdma, bool rdma_only)
{
	struct rpc_server_options server_options = { .methods = methods, .nr_methods = BASE_ARRAY_SIZE(methods) };
	struct keeper_options options = {
		.backend = &backend,
		.client_name = "client",
		.client_id = 7,
		.connect_timeout_ms = 1000,
		.max_heartbeat_ms = 50,
		.lost_after_ms = lost_after_ms,
		.rdma = rdma,
		.rdma_only = rdma_only,
		.changed = on_changed,
	};
	struct rpc_status status;
	char address[32];
	int port;

	memset(&world, 0, sizeof(world));
	memset(&backend, 0, sizeof(backend));
	snprintf(backend.name, sizeof(backend.name), "server");
	pthread_mutex_init(&world.lock, NULL);
	pthread_cond_init(&world.changed, NULL);
	world.instance_id = 1;
	world.slab_bytes = SLAB_BYTES;
	assert_int_equal(rpc_server_create(&server_options, &world.server), 0);
	assert_int_equal(rpc_server_listen(world.server, "127.0.0.1:0", &port, NULL), 0);
	assert_int_equal(rpc_server_start(world.server), 0);
	assert_int_equal(drains_create(NULL, sys_clock_monotonic(), NULL, &drains), 0);
	assert_int_equal(drains_add(drains, &backend), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	options.address = address;
	options.drains = drains;
	assert_int_equal(keeper_create(&options, &keeper, &status), 0);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(3600000, NULL, false);
}

static struct transport_driver rdma_driver = { .name = "verbs" };

static int setup_rdma(void **state)
{
	(void)state;
	return setup_with(3600000, &rdma_driver, false);
}

static int setup_rdma_only(void **state)
{
	(void)state;
	return setup_with(3600000, &rdma_driver, true);
}

static int setup_impatient(void **state)
{
	(void)state;
	return setup_with(1, NULL, false);
}

static int teardown(void **state)
{
	(void)state;
	keeper_stop(keeper);
	keeper_free(keeper);
	drains_free(drains);
	rpc_server_free(world.server);
	pthread_cond_destroy(&world.changed);
	pthread_mutex_destroy(&world.lock);
	return 0;
}

static struct keeper_info info(void)
{
	struct keeper_info now;

	keeper_info(keeper, &now);
	return now;
}

/* Of what the keeper itself says: it is asked again whenever something has happened. */
static void await_info(bool (*holds)(const struct keeper_info *now))
{
	for (;;) {
		struct keeper_info now;
		uint64_t nr_changes;

		pthread_mutex_lock(&world.lock);
		nr_changes = world.nr_changes;
		pthread_mutex_unlock(&world.lock);
		now = info();
		if (holds(&now))
			return;
		pthread_mutex_lock(&world.lock);
		while (world.nr_changes == nr_changes)
			pthread_cond_wait(&world.changed, &world.lock);
		pthread_mutex_unlock(&world.lock);
	}
}

static bool can_give(const struct keeper_info *now)
{
	return now->can_give;
}

static bool cannot_give(const struct keeper_info *now)
{
	return !now->can_give;
}

static bool is_barren(const struct keeper_info *now)
{
	return now->has_session && now->nr_asked == 0 && now->slabs_free == 0;
}

static void start(void)
{
	assert_int_equal(keeper_start(keeper), 0);
	await_info(can_give);
}

static void test_rdma_is_tried_first(void **state)
{
	(void)state;
	world.offers_rdma = true;
	start();
	assert_true(world.by_rdma);
	/* The host is the one by which the server was called. */
	assert_string_equal(world.data_address, "127.0.0.1:2");
	assert_int_equal(world.nr_rdma_tried, 1);
}

static void test_tcp_where_rdma_does_not_work(void **state)
{
	(void)state;
	world.offers_rdma = true;
	world.rdma_result = -ETIMEDOUT;
	start();
	assert_false(world.by_rdma);
	assert_int_equal(world.nr_rdma_tried, 1);
	assert_string_equal(world.data_address, "127.0.0.1:1");
}

static void test_tcp_where_no_rdma_is_offered(void **state)
{
	(void)state;
	start();
	assert_false(world.by_rdma);
	assert_int_equal(world.nr_rdma_tried, 0);
}

static bool wants_rdma(const struct keeper_info *now)
{
	return strstr(now->last_error, "offers no RDMA") != NULL;
}

static void test_never_tcp_when_it_is_to_be_rdma(void **state)
{
	(void)state;
	assert_int_equal(keeper_start(keeper), 0);
	await_info(wants_rdma);
	assert_int_equal(world.nr_begun, 0);
}

static void test_data_port(void **state)
{
	struct memserver_data_port port;

	(void)state;
	assert_false(info().data_port.known);
	start();
	port = info().data_port;
	assert_true(port.known);
	assert_int_equal(port.accepted, 11);
	assert_int_equal(port.connections, 12);
	assert_int_equal(port.admitted, 13);
	assert_int_equal(port.refused, 14);
	assert_int_equal(port.protocol_errors, 15);
	assert_int_equal(port.truncated, 16);
	assert_int_equal(port.timeouts, 17);
	assert_int_equal(port.denied_access, 18);
	assert_int_equal(port.denied_range, 19);
}

static void test_server_that_tells_less(void **state)
{
	(void)state;
	world.silent_port = true;
	start();
	assert_int_equal(info().slabs_free, 100);
	assert_false(info().data_port.known);
}

static void test_fetches_and_gives_back(void **state)
{
	(void)state;
	start();
	assert_int_equal(info().instance_id, 1);
	assert_int_equal(info().slab_bytes, SLAB_BYTES);
	assert_int_equal(world.heartbeat_ms, 50); /* not the server's 100 */
	keeper_fetch(keeper, 20); /* more than one call's worth */
	await(world.nr_slabs == 20);
	enter();
	assert_int_equal(world.slabs[0]->nr_slots, SLAB_BYTES >> FSW_PAGE_SHIFT);
	assert_int_not_equal(world.slabs[0]->index, world.slabs[1]->index);
	leave();
	keeper_give_back(keeper, 3);
	await(world.nr_released == 3);
	assert_int_equal(world.nr_slabs, 17);
	keeper_stop(keeper);
	assert_int_equal(world.nr_closed, 1);
	assert_int_equal(world.nr_ended, 1);
	assert_int_equal(world.nr_lost, 0); /* an orderly end loses nothing that anybody still wants */
}

static void test_full_server_gives_nothing_for_a_while(void **state)
{
	(void)state;
	start();
	enter();
	world.full = true;
	leave();
	keeper_fetch(keeper, 2);
	await_info(is_barren);
	await(world.nr_refused == 1 && world.nr_closes == 1);
	assert_int_equal(world.nr_leases, 1);
	assert_string_equal(info().last_error, ""); /* nothing is wrong with it */
}

static bool was_given_5(const struct keeper_info *now)
{
	return now->nr_given == 5;
}

static bool was_given_6(const struct keeper_info *now)
{
	return now->nr_given == 6;
}

/* The client has each slab that the server has lent, once. */
static void assert_all_are_known(unsigned nr)
{
	enter();
	assert_int_equal(world.next_slab, nr);
	assert_int_equal(world.nr_slabs, nr);
	for (unsigned i = 0; i < nr; i++)
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(world.slabs[i]->index, world.slabs[j]->index);
	leave();
	assert_int_equal(info().nr_held, nr);
}

static void test_lost_answer_leaves_no_slab_behind(void **state)
{
	(void)state;
	start();
	keeper_fetch(keeper, 3);
	await(world.nr_slabs == 3);
	enter();
	world.lose_answers = 3; /* of the call, and of the first two that ask after it */
	leave();
	keeper_fetch(keeper, 2);
	await_info(was_given_5);
	assert_all_are_known(5);
	assert_non_null(strstr(info().last_error, "no slab for you"));
	keeper_fetch(keeper, 1);
	await_info(was_given_6);
	assert_all_are_known(6);
	assert_int_equal(world.nr_closes, 3);
	assert_int_equal(world.nr_stale, 0);
}

/* A call that has never been carried out can still be, until its number is closed. */
static void test_lost_request_is_closed_before_the_next(void **state)
{
	(void)state;
	start();
	enter();
	world.lose_requests = 1;
	leave();
	keeper_fetch(keeper, 2);
	await(world.nr_closes == 1);
	assert_int_equal(world.request_number, 1);
	assert_int_equal(world.nr_slabs, 0);
	keeper_fetch(keeper, 2);
	await(world.nr_slabs == 2);
	assert_int_equal(world.request_number, 2);
	assert_int_equal(world.nr_closes, 1);
	assert_all_are_known(2);
}

static void test_slab_that_cannot_be_taken_goes_back(void **state)
{
	(void)state;
	world.add_result = -ENOSPC;
	start();
	keeper_fetch(keeper, 2);
	await(world.nr_released == 2);
	assert_int_equal(world.nr_slabs, 0);
}

static bool was_given_a_zero_key(const struct keeper_info *now)
{
	return strstr(now->last_error, "with the key 0") != NULL;
}

static void test_slab_without_a_key_is_not_taken(void **state)
{
	(void)state;
	world.gives_zero_keys = true;
	start();
	keeper_fetch(keeper, 1);
	await_info(was_given_a_zero_key);
	assert_int_equal(world.nr_slabs, 0);
}

static void test_connects_again(void **state)
{
	(void)state;
	start();
	keeper_fetch(keeper, 1);
	await(world.nr_slabs == 1);
	connection_breaks(-ECONNREFUSED, 1 + UINT64_MAX / 2); /* just now, for all that matters */
	await(world.nr_reconnects >= 3);
	assert_false(info().can_give);
	connection_breaks(0, 1 + UINT64_MAX / 2);
	await(!world.down);
	await_info(can_give);
	assert_int_equal(world.nr_leases, 1);
	assert_int_equal(world.nr_slabs, 1);
}

static void assert_new_session(void)
{
	await(world.nr_begun == 2);
	await_info(can_give);
	assert_int_equal(world.nr_ended, 1);
	assert_int_equal(world.nr_lost, 1);
	assert_true(world.nr_leases >= 2); /* one more for each connection that was refused before it could be had */
	assert_int_equal(world.nr_slabs, 0);
	assert_int_equal(info().nr_held, 0);
	assert_int_equal(info().nr_given, 0);
	keeper_fetch(keeper, 1);
	await(world.nr_slabs == 1);
}

static void start_with_slab(void)
{
	start();
	keeper_fetch(keeper, 1);
	await(world.nr_slabs == 1);
}

/* Who waits for a control plane that is as far away as all else comes late when the link is back. */
static void test_silence_is_not_asked_about(void **state)
{
	const int errs[] = { -ETIMEDOUT, -EHOSTUNREACH, -ENETUNREACH, -EADDRNOTAVAIL };
	unsigned nr_asked = 0, nr_tried;

	(void)state;
	start_with_slab();
	for (size_t i = 0; i < BASE_ARRAY_SIZE(errs); i++) {
		enter();
		nr_tried = world.nr_reconnects;
		leave();
		connection_breaks(errs[i], 1 + UINT64_MAX / 2);
		/* A question of the time when it stood has been answered: the keeper's thread is trying again. */
		await(world.nr_reconnects > nr_tried);
		enter();
		nr_asked = world.nr_capacity;
		nr_tried = world.nr_reconnects + 2;
		leave();
		await(world.nr_reconnects >= nr_tried);
		assert_int_equal(world.nr_capacity, nr_asked);
	}
	connection_breaks(-ECONNREFUSED, 1 + UINT64_MAX / 2);
	await(world.nr_capacity > nr_asked);
	connection_breaks(0, 1 + UINT64_MAX / 2);
	await_info(can_give);
}

static void test_stale_lease_ends_the_session(void **state)
{
	(void)state;
	start_with_slab();
	enter();
	world.instance_id = 2;
	leave();
	connection_breaks(-ESTALE, 1 + UINT64_MAX / 2);
	/* The first attempt finds it stale; the one that begins anew goes well. */
	await(world.nr_ended == 1);
	enter();
	world.connect_result = 0;
	leave();
	assert_new_session();
	assert_int_equal(info().instance_id, 2);
}

static void test_other_instance_ends_the_session(void **state)
{
	(void)state;
	start_with_slab();
	enter();
	world.instance_id = 2; /* and its data port is another one */
	leave();
	connection_breaks(-ECONNREFUSED, 1 + UINT64_MAX / 2);
	await(world.nr_ended == 1);
	enter();
	world.connect_result = 0;
	leave();
	assert_new_session();
}

static void test_out_of_reach_for_too_long_ends_the_session(void **state)
{
	(void)state;
	start_with_slab();
	connection_breaks(-ETIMEDOUT, 1); /* since the machine was started */
	await(world.nr_ended == 1);
	enter();
	world.connect_result = 0;
	leave();
	assert_new_session();
}

static void test_revoked_lease_ends_the_session(void **state)
{
	(void)state;
	start_with_slab();
	enter();
	world.revoked = true;
	leave();
	rpc_server_wake(world.server);
	assert_new_session();
	assert_non_null(strstr(info().last_error, "somebody wants it"));
}

static void test_forgotten_lease_ends_the_session(void **state)
{
	(void)state;
	start_with_slab();
	enter();
	world.lease_id = 1;
	leave();
	keeper_fetch(keeper, 1);
	assert_new_session();
}

/* What is still open in one session is of no concern to the next one. */
static void test_new_session_counts_anew(void **state)
{
	(void)state;
	start_with_slab();
	enter();
	world.lose_requests = UINT_MAX;
	leave();
	keeper_fetch(keeper, 1);
	await(world.lose_requests < UINT_MAX);
	enter();
	world.lose_requests = 0;
	world.lease_id = 1;
	leave();
	assert_new_session();
	assert_int_equal(world.request_number, 1);
	assert_int_equal(world.nr_closes, 0);
}

static void test_server_wants_its_memory_back(void **state)
{
	(void)state;
	start_with_slab();
	enter();
	world.wants_drain = true;
	leave();
	rpc_server_wake(world.server);
	sys_rcu_thread_init();
	await_info(cannot_give);
	/* The watcher has noted the wish right before, or is about to. */
	while (!vswap_backend_draining(&backend))
		drains_tick(drains);
	await(world.nr_released == 1);
	enter();
	world.wants_drain = false;
	leave();
	rpc_server_wake(world.server);
	while (vswap_backend_draining(&backend))
		drains_tick(drains);
	sys_rcu_thread_done();
	assert_int_equal(world.nr_leases, 1);
}

static void test_useless_slabs_are_refused(void **state)
{
	(void)state;
	world.slab_bytes = SLAB_BYTES + 4096;
	assert_int_equal(keeper_start(keeper), 0);
	await(world.nr_leases >= 2);
	assert_int_equal(world.nr_begun, 0);
	assert_non_null(strstr(info().last_error, "slabs of"));
}

static void test_not_an_address(void **state)
{
	struct keeper_options options = { .backend = &backend, .address = "nonsense", .client_name = "client" };
	struct rpc_status status = { .message = "" };
	struct keeper *none;

	(void)state;
	assert_int_equal(keeper_create(&options, &none, &status), -EINVAL);
	assert_non_null(strstr(status.message, "nonsense"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rdma_is_tried_first, setup_rdma, teardown),
		cmocka_unit_test_setup_teardown(test_tcp_where_rdma_does_not_work, setup_rdma, teardown),
		cmocka_unit_test_setup_teardown(test_tcp_where_no_rdma_is_offered, setup_rdma, teardown),
		cmocka_unit_test_setup_teardown(test_never_tcp_when_it_is_to_be_rdma, setup_rdma_only, teardown),
		cmocka_unit_test_setup_teardown(test_data_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_that_tells_less, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fetches_and_gives_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_server_gives_nothing_for_a_while, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_answer_leaves_no_slab_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_request_is_closed_before_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slab_that_cannot_be_taken_goes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slab_without_a_key_is_not_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connects_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silence_is_not_asked_about, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_lease_ends_the_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_instance_ends_the_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_out_of_reach_for_too_long_ends_the_session, setup_impatient, teardown),
		cmocka_unit_test_setup_teardown(test_revoked_lease_ends_the_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgotten_lease_ends_the_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_new_session_counts_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_wants_its_memory_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_useless_slabs_are_refused, setup, teardown),
		cmocka_unit_test(test_not_an_address),
	};
	int ret;

	rpc_init();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	rpc_done();
	return ret;
}

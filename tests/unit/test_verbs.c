/* deps: common_transport_verbs tests_fakes_fabric tests_conform_transport common_sys common_mem common_wire */

/* The verbs transport over a device that is not there: how it fails, and who is let in. What is posted: test_verbs_send. */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "common/wire/verbs.h"
#include "tests/unit/verbs_fixture.h"

static void nothing(void *arg)
{
	(void)arg;
}

/* What the lender's reactor is doing, or has been told of, is done. */
static void end_of_turn(struct env *env)
{
	for (unsigned i = 0; i < 2; i++)
		sys_reactor_call(env->reactor, nothing, NULL);
}

static void slabs_are_registered_once(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 1);
	struct client *second = calloc(1, sizeof(*second));
	struct verbs_listener_counters counters;
	struct verbs_driver_counters asked;
	struct client_op op;

	connect_to(env);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(run(env, TRANSPORT_READ, i % 2, 0, env->bytes, 4096, 1), 0);
	client_init(second, NULL);
	assert_int_equal(client_connect(second, env->driver, &options), 0);
	client_op_init(&op, TRANSPORT_READ, 1, KEY + 1, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(second, &op), 0);
	client_done(second);
	/* And after the last connection has gone, as long as the lease lasts. */
	client_close(&env->client);
	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	verbs_listener_counters(env->listener, &counters);
	assert_int_equal(counters.windows, 2);
	verbs_driver_counters(env->driver, &asked);
	assert_int_equal(asked.nr_maps, 4);
	target_slab_revoke(&env->target, 1);
	verbs_listener_counters(env->listener, &counters);
	assert_int_equal(counters.windows, 1);
	free(second);
}

static void a_revoked_key_is_dead(void **state)
{
	struct env *env = *state;
	struct client_op ops[8];

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 0, env->bytes, 4096, 1), 0);
	fabric_hold(true);
	submit(env, ops, BASE_ARRAY_SIZE(ops), TRANSPORT_WRITE);
	assert_int_equal(fabric_step(3), 3);
	target_slab_revoke(&env->target, 0);
	memset(env->target.slabs[0].bytes, 0, SLAB_BYTES);
	fabric_hold(false);
	client_wait(&env->client);
	assert_int_equal(client_wait_down(&env->client), -ECONNRESET);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(ops); i++)
		assert_int_equal(ops[i].status, i < 3 ? 0 : i == 3 ? -EACCES : -ECONNRESET);
	for (size_t i = 0; i < SLAB_BYTES; i++)
		assert_int_equal(env->target.slabs[0].bytes[i], 0);
}

static void failures_take_it_down(void **state)
{
	static const struct {
		enum ibv_wc_status status;
		int first;
		int down;
	} rows[] = {
		{ IBV_WC_RETRY_EXC_ERR, -ETIMEDOUT, -ETIMEDOUT },
		{ IBV_WC_REM_ACCESS_ERR, -EACCES, -ECONNRESET },
		{ IBV_WC_REM_INV_REQ_ERR, -EPROTO, -EPROTO },
		{ IBV_WC_LOC_PROT_ERR, -EIO, -EIO },
		{ IBV_WC_WR_FLUSH_ERR, -ECONNRESET, -ECONNRESET },
	};
	struct env *env = *state;
	struct client_op ops[6];

	for (size_t i = 0; i < BASE_ARRAY_SIZE(rows); i++) {
		connect_to(env);
		assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
		fabric_fail_next(IBV_WR_RDMA_READ, rows[i].status);
		submit(env, ops, BASE_ARRAY_SIZE(ops), TRANSPORT_READ);
		client_wait(&env->client);
		assert_int_equal(client_wait_down(&env->client), rows[i].down);
		assert_int_equal(ops[0].status, rows[i].first);
		for (size_t j = 1; j < BASE_ARRAY_SIZE(ops); j++)
			assert_int_equal(ops[j].status, rows[i].down);
		client_close(&env->client);
	}
	/* The question about a slab, too. */
	connect_to(env);
	fabric_fail_next(IBV_WR_SEND, IBV_WC_RETRY_EXC_ERR);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), -ETIMEDOUT);
	assert_int_equal(client_wait_down(&env->client), -ETIMEDOUT);
}

static void silence_is_death(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 0);
	struct client *idle = calloc(1, sizeof(*idle));
	struct client_op op;

	options.dead_ms = 60;
	connect_with(env, &options);
	client_init(idle, NULL);
	options.channel = 1;
	assert_int_equal(client_connect(idle, env->driver, &options), 0);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	fabric_cut();
	client_op_init(&op, TRANSPORT_READ, 0, KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(&env->client, &op), -ETIMEDOUT);
	assert_int_equal(client_wait_down(&env->client), -ETIMEDOUT);
	/* And one without operations, by its heartbeat. */
	assert_int_equal(client_wait_down(idle), -ETIMEDOUT);
	client_done(idle);
	free(idle);
}

/* The lender's device gives up as early as the lender does. */
static void the_lender_has_its_own_patience(void **state)
{
	struct env *env = *state;
	struct fabric_options told;

	connect_to(env);
	fabric_last_rep_options(&told);
	assert_int_equal(told.ack_timeout, 17); /* 537 ms, and 8 times that is within silence_ms */
	assert_int_equal(told.tos, -1); /* it is the initiator's */
	fabric_last_req_options(&told);
	assert_int_equal(told.tos, 3 << 5);
}

static void nobody_listens(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 0);

	verbs_listener_close(env->listener);
	env->listener = NULL;
	assert_int_equal(client_connect(&env->client, env->driver, &options), -ECONNREFUSED);
}

static void the_device_gives_up(void **state)
{
	struct env *env = *state;
	struct client_op ops[4];

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	fabric_cut();
	submit(env, ops, BASE_ARRAY_SIZE(ops), TRANSPORT_READ);
	fabric_give_up();
	client_wait(&env->client);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(ops); i++)
		assert_int_equal(ops[i].status, -ETIMEDOUT);
	assert_int_equal(client_wait_down(&env->client), -ETIMEDOUT);
}

/* A busy connection shows life as well: the lender sees nothing of its operations. */
static void busy_ones_beat(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 0);
	unsigned nr;

	connect_with(env, &options);
	nr = atomic_load(&env->target.nr_renewals);
	while (atomic_load(&env->target.nr_renewals) < nr + 2)
		assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	assert_true(env->client.conn->heartbeat_rtt_ns > 0);
	assert_true(atomic_load(&env->target.accounted_bytes) > 0);
}

/* ---- who is let in ---- */

/* Connects with the private data given, by hand: what the lender answers. */
static int knock(struct env *env, const uint8_t *bytes, size_t len_bytes)
{
	struct rdma_conn_param param = { .private_data = bytes, .private_data_len = (uint8_t)len_bytes };
	struct rdma_event_channel *events = rdma_create_event_channel();
	struct pollfd pollfd = { .fd = events->fd, .events = POLLIN };
	struct rdma_cm_event *event;
	struct rdma_cm_id *id;
	struct sys_address address;
	uint32_t refusal = 0;
	bool rejected = false;

	assert_int_equal(sys_address_parse(env->address, false, &address), 0);
	assert_int_equal(rdma_create_id(events, &id, NULL, RDMA_PS_TCP), 0);
	assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address.addr, 1000), 0);
	assert_int_equal(rdma_resolve_route(id, 1000), 0);
	assert_int_equal(rdma_connect(id, &param), 0);
	while (!rejected) {
		assert_int_equal(poll(&pollfd, 1, 30000), 1);
		assert_int_equal(rdma_get_cm_event(events, &event), 0);
		rejected = event->event == RDMA_CM_EVENT_REJECTED;
		if (rejected)
			assert_int_equal(wire_verbs_rej_unpack(event->param.conn.private_data,
							       event->param.conn.private_data_len, &refusal),
					 0);
		assert_int_not_equal(event->event, RDMA_CM_EVENT_ESTABLISHED);
		rdma_ack_cm_event(event);
	}
	rdma_destroy_id(id);
	rdma_destroy_event_channel(events);
	return wire_refusal_to_err(refusal);
}

static void a_request_is_good_once(void **state)
{
	struct env *env = *state;
	uint8_t bytes[WIRE_VERBS_REQ_BYTES];
	uint8_t later[WIRE_VERBS_REQ_BYTES];

	connect_to(env);
	fabric_last_req(bytes);
	/* While the connection stands, which it does not disturb, and when it is gone. */
	assert_int_equal(knock(env, bytes, sizeof(bytes)), -EACCES);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	client_close(&env->client);
	assert_int_equal(knock(env, bytes, sizeof(bytes)), -EACCES);
	connect_to(env);
	fabric_last_req(later);
	assert_int_equal(knock(env, bytes, sizeof(bytes)), -EACCES);
	/* A counter of its own choice breaks the proof. */
	later[16 + 5] ^= 1;
	assert_int_equal(knock(env, later, sizeof(later)), -EACCES);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	assert_int_equal(env->client.nr_down, 0);
}

static void strangers_are_refused(void **state)
{
	struct env *env = *state;
	struct verbs_listener_counters counters;
	uint8_t bytes[WIRE_VERBS_REQ_BYTES];
	uint8_t changed[WIRE_VERBS_REQ_BYTES];

	connect_to(env);
	fabric_last_req(bytes);
	memcpy(changed, bytes, sizeof(changed));
	changed[0] ^= 1;
	assert_int_equal(knock(env, changed, sizeof(changed)), -EPROTO);
	assert_int_equal(knock(env, bytes, 0), -EPROTO);
	assert_int_equal(knock(env, bytes, 20), -EACCES); /* the connection manager fills it up with zeros */
	memcpy(changed, bytes, sizeof(changed));
	changed[3]++; /* the version */
	assert_int_equal(knock(env, changed, sizeof(changed)), -EPROTONOSUPPORT);
	memcpy(changed, bytes, sizeof(changed));
	changed[8] ^= 0x80; /* the lease */
	assert_int_equal(knock(env, changed, sizeof(changed)), -ESTALE);
	memcpy(changed, bytes, sizeof(changed));
	changed[6] ^= 1; /* the instance */
	assert_int_equal(knock(env, changed, sizeof(changed)), -ESTALE);
	memcpy(changed, bytes, sizeof(changed));
	changed[4] ^= 1; /* the channel */
	assert_int_equal(knock(env, changed, sizeof(changed)), -EACCES);
	verbs_listener_counters(env->listener, &counters);
	assert_int_equal(counters.protocol_errors, 2);
	assert_int_equal(counters.refused, 5);
	assert_int_equal(counters.connections, 1);
	assert_int_equal(atomic_load(&env->target.nr_refused), 7);
}

/* A lender that does not know the token is not ours. */
static void false_lenders_are_left(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 0);
	static const struct {
		unsigned byte;
		int err;
	} rows[] = { { 0, -EPROTO }, { 2, -EPROTO }, { 4, -EACCES }, { 8, -EACCES }, { 16, -EACCES }, { 32, -EACCES } };

	for (size_t i = 0; i < BASE_ARRAY_SIZE(rows); i++) {
		fabric_spoil_next_rep(rows[i].byte);
		assert_int_equal(client_connect(&env->client, env->driver, &options), rows[i].err);
	}
	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
}

static void one_device_per_lease(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 1);
	struct transport_conn *conn;
	char address[SYS_ADDRESS_MAX];

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 0, env->bytes, 4096, 1), 0);
	snprintf(address, sizeof(address), "127.0.0.2%s", strrchr(env->address, ':'));
	options.address = address;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EMFILE);
	client_close(&env->client);
	/* When none is left, all of it moves to the other device. That the old one has gone is news that takes its time. */
	while (atomic_load(&env->target.nr_joined) > 0)
		sched_yield();
	assert_int_equal(client_connect(&env->client, env->driver, &options), 0);
	memset(env->bytes, 0, 4096);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	assert_memory_equal(env->target.slabs[0].bytes, env->bytes, 4096);
}

static void nothing_is_left_of_a_lease(void **state)
{
	struct env *env = *state;
	struct verbs_listener_counters counters;

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 0, env->bytes, 4096, 1), 0);
	target_lease_end(&env->target, LEASE);
	assert_int_equal(client_wait_down(&env->client), -ECONNRESET);
	do {
		verbs_listener_counters(env->listener, &counters);
		sched_yield();
	} while (counters.windows > 0 || counters.connections > 0);
}

static uint64_t stands_still(struct sys_clock *clock)
{
	(void)clock;
	return SYS_NS_PER_S;
}

/* The reactor goes on while the last beat is on its way, by its clock for ever; and then the connection ends. */
static void nobody_waits_for_the_farewell(void **state)
{
	struct env *env = *state;
	static struct sys_clock clock = { .now_ns = stands_still };

	client_done(&env->client);
	client_init(&env->client, &clock);
	for (unsigned i = 0; i < 2; i++) {
		connect_to(env);
		assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
		fabric_hold(i == 0);
		client_close(&env->client);
		/* The device may not have carried it out when the time is over; the connection ends all the same. */
		while (atomic_load(&env->target.nr_joined) > 0)
			sched_yield();
		fabric_hold(false);
	}
	assert_true(atomic_load(&env->target.accounted_bytes) >= 4096);
}

/* A connection that takes the place of an older one is admitted when the lender can serve no more. */
static void a_full_lender_lets_them_come_again(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options;
	struct transport_conn *conns[MAX_CONNECTIONS + 1];

	for (uint32_t i = 0; i < MAX_CONNECTIONS; i++) {
		options = options_for(env, i);
		assert_int_equal(transport_connect(env->driver, &options, &conns[i]), 0);
	}
	options = options_for(env, MAX_CONNECTIONS);
	assert_int_equal(transport_connect(env->driver, &options, &conns[MAX_CONNECTIONS]), -EMFILE);
	options = options_for(env, 3);
	assert_int_equal(transport_connect(env->driver, &options, &conns[MAX_CONNECTIONS]), 0);
	for (unsigned i = 0; i <= MAX_CONNECTIONS; i++)
		transport_close(conns[i]);
}

/* Who has an answer may ask again, also when the lender's device has not told yet that the answer was sent. */
static void late_acks_are_no_offence(void **state)
{
	struct env *env = *state;
	struct client_op ops[DEPTH];
	int err;

	connect_to(env);
	fabric_hold_acks(true);
	for (uint32_t i = 0; i < DEPTH; i++)
		client_op_init(&ops[i], TRANSPORT_READ, 100 + i, KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_submit(&env->client, ops, DEPTH, &err), DEPTH);
	pthread_mutex_lock(&env->client.lock);
	while (env->client.nr_pending > DEPTH - WIRE_VERBS_MAX_MAPS)
		pthread_cond_wait(&env->client.changed, &env->client.lock);
	pthread_mutex_unlock(&env->client.lock);
	/* The next questions are on their way, and the lender looks at them. */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(client_submit(&env->client, NULL, 0, &err), 0);
	end_of_turn(env);
	fabric_hold_acks(false);
	client_wait(&env->client);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(ops[i].status, -EACCES);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	assert_int_equal(env->client.nr_down, 0);
}

/*
 * A device is removed while slabs are lent by it: the connection ends, the daemon goes on, and memory of which the device does
 * not say that it has let go counts as its own, however the slab comes back.
 */
static void a_removed_device_keeps_its_slabs(void **state)
{
	struct env *env = *state;
	struct verbs_listener_counters counters;

	connect_to(env);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(run(env, TRANSPORT_WRITE, i, 0, env->bytes, 4096, 1), 0);
	fabric_remove_devices();
	assert_int_equal(client_wait_down(&env->client), -ENODEV);
	target_slab_revoke(&env->target, 0);
	assert_true(atomic_load(&env->target.slabs[0].stuck));
	/* Nobody can connect, and the lease ends: its windows are given up by the listener. */
	while (atomic_load(&env->target.nr_joined) > 0)
		sched_yield();
	target_lease_end(&env->target, LEASE);
	client_close(&env->client);
	target_wait(&env->target, &env->target.nr_lookups, atomic_load(&env->target.nr_lookups) + 1);
	end_of_turn(env);
	target_slab_revoke(&env->target, 1);
	assert_true(atomic_load(&env->target.slabs[1].stuck));
	verbs_listener_counters(env->listener, &counters);
	assert_int_equal(counters.windows, 2);
	verbs_listener_close(env->listener);
	env->listener = NULL;
	verbs_driver_free(env->driver);
	env->driver = NULL;
	fabric_forget_removed();
}

static void what_cannot_be_is_refused(void **state)
{
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, UINT16_MAX + 1);
	struct verbs_driver_options driver_options = { .gid_index = -1, .service_level = 8 };
	struct transport_driver *driver;
	struct transport_conn *conn;

	assert_int_equal(transport_connect(env->driver, &options, &conn), -EINVAL);
	assert_int_equal(verbs_driver_create(&driver_options, &driver), -EINVAL);
	driver_options = (struct verbs_driver_options){ .device = "fake1", .gid_index = -1, .service_level = -1 };
	assert_int_equal(verbs_driver_create(&driver_options, &driver), 0);
	/* The address is reached by the other one. */
	options = options_for(env, 0);
	assert_int_equal(transport_connect(driver, &options, &conn), -EADDRNOTAVAIL);
	verbs_driver_free(driver);
	/* A device whose queues are too small for anything. */
	fabric_set_limits(16, 8, 128);
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EOPNOTSUPP);
	assert_true(verbs_available());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(slabs_are_registered_once),
		TEST(a_revoked_key_is_dead),
		TEST(failures_take_it_down),
		TEST(silence_is_death),
		TEST(the_lender_has_its_own_patience),
		TEST(nobody_listens),
		TEST(the_device_gives_up),
		TEST(busy_ones_beat),
		TEST(a_request_is_good_once),
		TEST(strangers_are_refused),
		TEST(false_lenders_are_left),
		TEST(one_device_per_lease),
		TEST(nothing_is_left_of_a_lease),
		TEST(a_full_lender_lets_them_come_again),
		TEST(nobody_waits_for_the_farewell),
		TEST(late_acks_are_no_offence),
		TEST(a_removed_device_keeps_its_slabs),
		TEST(what_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

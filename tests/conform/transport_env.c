#include "tests/conform/transport_env.h"

#include "common/base/rand.h"
#include "common/transport/fault/fault.h"
#include "common/transport/loop/loop.h"

static void tcp_open(struct env *env)
{
	struct tcp_listener_options options = {
		.address = "127.0.0.1:0",
		.target = &env->target.head,
		.reactors = env->reactors,
		.nr_reactors = BASE_ARRAY_SIZE(env->reactors),
		.max_connections = 8,
		.handshake_ms = 5000,
		.silence_ms = 5000,
	};
	struct sys_reactor_options reactor_options = { .name = "lender", .cpu = -1 };
	struct sys_address address;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(env->reactors); i++) {
		assert_int_equal(sys_reactor_create(&reactor_options, &env->reactors[i]), 0);
		assert_int_equal(sys_reactor_start(env->reactors[i]), 0);
	}
	assert_int_equal(tcp_listener_open(&options, &env->listener), 0);
	tcp_listener_address(env->listener, &address);
	sys_address_format(&address, env->address);
	env->driver = tcp_driver();
}

static void tcp_close(struct env *env)
{
	tcp_listener_close(env->listener);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(env->reactors); i++) {
		sys_reactor_stop(env->reactors[i]);
		sys_reactor_free(env->reactors[i]);
	}
}

/*
 * Over what was linked in place of the RDMA libraries; or, if FARSWAP_VERBS_ADDRESS is the address of a device, over
 * that, from the one that FARSWAP_VERBS_DEVICE names.
 */
static void verbs_open(struct env *env)
{
	const char *device_address = getenv("FARSWAP_VERBS_ADDRESS");
	struct verbs_listener_options options = {
		.address = device_address ? device_address : "127.0.0.1:0",
		.target = &env->target.head,
		.max_connections = 16,
		.handshake_ms = 5000,
		.silence_ms = 5000,
	};
	struct verbs_driver_options driver_options = { .device = getenv("FARSWAP_VERBS_DEVICE"),
						       .gid_index = -1,
						       .service_level = -1 };
	struct sys_reactor_options reactor_options = { .name = "lender", .cpu = -1 };
	struct sys_address address;

	assert_int_equal(sys_reactor_create(&reactor_options, &env->reactors[0]), 0);
	assert_int_equal(sys_reactor_start(env->reactors[0]), 0);
	options.reactor = env->reactors[0];
	assert_int_equal(verbs_listener_open(&options, &env->verbs_listener), 0);
	verbs_listener_address(env->verbs_listener, &address);
	sys_address_format(&address, env->address);
	assert_int_equal(verbs_driver_create(&driver_options, &env->driver), 0);
}

static void verbs_close(struct env *env)
{
	verbs_listener_close(env->verbs_listener);
	sys_reactor_stop(env->reactors[0]);
	sys_reactor_free(env->reactors[0]);
	verbs_driver_free(env->driver);
}

static void loop_open(struct env *env)
{
	env->driver = loop_driver_create(&env->target.head);
	assert_non_null(env->driver);
}

static void loop_close(struct env *env)
{
	loop_driver_free(env->driver);
}

static void fault_open(struct env *env)
{
	loop_open(env);
	env->inner = env->driver;
	env->driver = fault_driver_create(env->inner, 1);
	assert_non_null(env->driver);
}

static void fault_close(struct env *env)
{
	fault_driver_free(env->driver);
	loop_driver_free(env->inner);
}

const struct factory factories[NR_FACTORIES] = {
	{ .name = "tcp", .open = tcp_open, .close = tcp_close },
	{ .name = "loop", .open = loop_open, .close = loop_close },
	{ .name = "verbs", .open = verbs_open, .close = verbs_close, .revoked_takes_down = true },
	{ .name = "fault over loop", .open = fault_open, .close = fault_close },
};

struct transport_connect_options options_for(struct env *env, uint64_t lease_id, uint32_t channel)
{
	return client_options(env->address, INSTANCE, lease_id, channel, DEPTH);
}

void fill(char *bytes, size_t len_bytes, uint64_t seed)
{
	struct rand_state rand = { .s = seed };

	for (size_t i = 0; i < len_bytes; i++)
		bytes[i] = (char)rand_next(&rand);
}

int env_set_up(void **arg)
{
	const struct factory *factory = *arg;
	struct state *state = calloc(1, sizeof(*state));
	struct transport_connect_options options;
	struct env *env;

	assert_non_null(state);
	state->factory = factory;
	env = &state->env;
	env->bytes = malloc(SLAB_BYTES);
	env->other_bytes = malloc(SLAB_BYTES);
	target_init(&env->target, INSTANCE);
	target_lease_add(&env->target, LEASE);
	target_lease_add(&env->target, OTHER_LEASE);
	assert_int_equal(target_slab_add(&env->target, LEASE, KEY, SLAB_BYTES), SLAB);
	assert_int_equal(target_slab_add(&env->target, OTHER_LEASE, OTHER_KEY, SLAB_BYTES), OTHER_SLAB);
	factory->open(env);
	client_init(&env->client, NULL);
	options = options_for(env, LEASE, 0);
	assert_int_equal(client_connect(&env->client, env->driver, &options), 0);
	*arg = state;
	return 0;
}

int env_tear_down(void **arg)
{
	struct state *state = *arg;
	struct env *env = &state->env;

	client_done(&env->client);
	state->factory->close(env);
	assert_int_equal(atomic_load(&env->target.nr_collided), 0);
	target_done(&env->target);
	free(env->bytes);
	free(env->other_bytes);
	free(state);
	return 0;
}

void check_works(struct env *env, struct client *client, uint64_t offset_bytes)
{
	struct client_op op;

	fill(env->bytes, FSW_PAGE_SIZE, offset_bytes + 1);
	client_op_init(&op, TRANSPORT_WRITE, SLAB, KEY, offset_bytes, env->bytes, FSW_PAGE_SIZE, 1);
	assert_int_equal(client_run(client, &op), 0);
	client_op_init(&op, TRANSPORT_READ, SLAB, KEY, offset_bytes, env->other_bytes, FSW_PAGE_SIZE, 1);
	assert_int_equal(client_run(client, &op), 0);
	assert_memory_equal(env->bytes, env->other_bytes, FSW_PAGE_SIZE);
}

/*
 * A lender and a client of the verbs transport over a device that is not there: what the tests of common/transport/verbs
 * share.
 */
#ifndef FARSWAP_TESTS_UNIT_VERBS_FIXTURE_H
#define FARSWAP_TESTS_UNIT_VERBS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/mem/region.h"
#include "common/transport/verbs/verbs.h"
#include "tests/conform/client.h"
#include "tests/conform/target.h"
#include "tests/fakes/fabric.h"

#define INSTANCE 77
#define LEASE 5
#define KEY 0xabcdef01u
#define SLAB_BYTES (2u << 20)
#define DEPTH 32
#define MAX_CONNECTIONS 8

struct env {
	struct target target;
	struct sys_reactor *reactor;
	struct verbs_listener *listener;
	struct transport_driver *driver;
	struct mem_region memory; /* that devices know */
	struct client client;
	char address[SYS_ADDRESS_MAX];
	char *bytes;
};

static inline struct transport_connect_options options_for(struct env *env, uint32_t channel)
{
	return client_options(env->address, INSTANCE, LEASE, channel, DEPTH);
}

static inline int set_up(void **state)
{
	struct verbs_listener_options options = {
		.address = "127.0.0.1:0",
		.max_connections = MAX_CONNECTIONS,
		.handshake_ms = 5000,
		.silence_ms = 5000,
	};
	struct verbs_driver_options driver_options = { .gid_index = -1, .service_level = 3 };
	struct sys_reactor_options reactor_options = { .name = "lender", .cpu = -1 };
	struct env *env = calloc(1, sizeof(*env));
	struct sys_address address;

	fabric_reset();
	target_init(&env->target, INSTANCE);
	target_lease_add(&env->target, LEASE);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(target_slab_add(&env->target, LEASE, KEY + i, SLAB_BYTES), i);
	assert_int_equal(sys_reactor_create(&reactor_options, &env->reactor), 0);
	assert_int_equal(sys_reactor_start(env->reactor), 0);
	options.target = &env->target.head;
	options.reactor = env->reactor;
	assert_int_equal(verbs_listener_open(&options, &env->listener), 0);
	verbs_listener_address(env->listener, &address);
	sys_address_format(&address, env->address);
	assert_int_equal(verbs_driver_create(&driver_options, &env->driver), 0);
	assert_int_equal(mem_region_open(&env->memory, SLAB_BYTES, MEM_REGION_TOUCH | MEM_REGION_IO), 0);
	env->bytes = env->memory.base;
	for (size_t i = 0; i < SLAB_BYTES; i++)
		env->bytes[i] = (char)(i * 7 + i / 4096);
	client_init(&env->client, NULL);
	*state = env;
	return 0;
}

static inline int tear_down(void **state)
{
	struct env *env = *state;

	client_done(&env->client);
	verbs_listener_close(env->listener);
	verbs_driver_free(env->driver);
	mem_region_close(&env->memory);
	sys_reactor_stop(env->reactor);
	sys_reactor_free(env->reactor);
	target_done(&env->target);
	/* Nothing of a device's is left behind, whatever has happened. */
	assert_int_equal(fabric_nr_objects(), 0);
	free(env);
	return 0;
}

static inline void connect_with(struct env *env, const struct transport_connect_options *options)
{
	assert_int_equal(client_connect(&env->client, env->driver, options), 0);
}

static inline void connect_to(struct env *env)
{
	struct transport_connect_options options = options_for(env, 0);

	options.heartbeat_ms = 20000; /* the test counts work requests */
	connect_with(env, &options);
}

static inline int run(struct env *env, enum transport_opcode opcode, uint32_t slab, uint64_t offset_bytes, void *bytes,
	       uint32_t len_bytes, unsigned nr_iov)
{
	struct client_op op;

	client_op_init(&op, opcode, slab, KEY + slab, offset_bytes, bytes, len_bytes, nr_iov);
	return client_run(&env->client, &op);
}

static inline void submit(struct env *env, struct client_op *ops, unsigned nr, enum transport_opcode opcode)
{
	int err;

	for (unsigned i = 0; i < nr; i++)
		client_op_init(&ops[i], opcode, 0, KEY, i * 4096, env->bytes + (size_t)i * 4096, 4096, 1);
	assert_int_equal(client_submit(&env->client, ops, nr, &err), nr);
	/* Posted at the end of the turn, which is over when the next one has begun. */
	assert_int_equal(client_submit(&env->client, NULL, 0, &err), 0);
}

static inline struct fabric_counters counted(void)
{
	struct fabric_counters counters;

	fabric_counters(&counters);
	return counters;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

/*
 * One suite for every transport: each line of the contract in common/transport/transport.h, over each implementation.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "common/base/rand.h"
#include "tests/conform/transport_env.h"

static void round_trip(void **arg)
{
	static const uint32_t lens[] = { 1,    2,     31,    32,    33,     511,    4095,    4096,
					 4097, 65535, 65536, 65537, 131072, 262145, 1 << 20, TRANSPORT_MAX_OP_BYTES };
	static const unsigned pieces[] = { 1, 2, 7, TRANSPORT_MAX_IOV };
	struct env *env = &((struct state *)*arg)->env;
	const char *slab = (const char *)env->target.slabs[SLAB].bytes;
	uint64_t offset_bytes = 1;
	struct client_op op;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(lens); i++) {
		for (size_t j = 0; j < BASE_ARRAY_SIZE(pieces); j++) {
			uint32_t len_bytes = lens[i];

			offset_bytes = (offset_bytes * 7 + 13) % (SLAB_BYTES - len_bytes + 1);
			fill(env->bytes, len_bytes, i * 10 + j);
			client_op_init(&op, TRANSPORT_WRITE, SLAB, KEY, offset_bytes, env->bytes, len_bytes, pieces[j]);
			assert_int_equal(client_run(&env->client, &op), 0);
			assert_memory_equal(slab + offset_bytes, env->bytes, len_bytes);
			memset(env->other_bytes, 0, len_bytes);
			client_op_init(&op, TRANSPORT_READ, SLAB, KEY, offset_bytes, env->other_bytes, len_bytes,
				       pieces[BASE_ARRAY_SIZE(pieces) - 1 - j]);
			assert_int_equal(client_run(&env->client, &op), 0);
			assert_memory_equal(env->bytes, env->other_bytes, len_bytes);
		}
	}
}

static void whole_slab(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct client_op ops[SLAB_BYTES / TRANSPORT_MAX_OP_BYTES];
	int err;

	fill(env->bytes, SLAB_BYTES, 3);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(ops); i++)
		client_op_init(&ops[i], TRANSPORT_WRITE, SLAB, KEY, (uint64_t)i * TRANSPORT_MAX_OP_BYTES,
			       env->bytes + (size_t)i * TRANSPORT_MAX_OP_BYTES, TRANSPORT_MAX_OP_BYTES, 5);
	assert_int_equal(client_submit(&env->client, ops, BASE_ARRAY_SIZE(ops), &err), BASE_ARRAY_SIZE(ops));
	client_wait(&env->client);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(ops); i++)
		assert_int_equal(ops[i].status, 0);
	assert_memory_equal(env->bytes, env->target.slabs[SLAB].bytes, SLAB_BYTES);
}

/* Each lane has a range of its own, and goes on by itself: write, read, compare, write again. */
struct lane {
	struct client_op op;
	struct rand_state rand;
	uint64_t start_bytes;
	char bytes[3 * 65536];
	char back[3 * 65536];
	unsigned nr_left;
	unsigned nr_wrong;
};

static void lane_next(struct client_op *op)
{
	struct lane *lane = BASE_CONTAINER_OF(op, struct lane, op);
	struct client *client = op->client;
	uint32_t len_bytes = op->op.len_bytes;
	uint64_t offset_bytes = op->op.offset_bytes;

	if (op->status != 0) {
		lane->nr_wrong++;
		return;
	}
	if (op->op.opcode == TRANSPORT_WRITE) {
		client_op_init(op, TRANSPORT_READ, SLAB, KEY, offset_bytes, lane->back, len_bytes,
			       1 + (unsigned)rand_below(&lane->rand, 4));
	} else {
		if (memcmp(lane->bytes, lane->back, len_bytes) != 0)
			lane->nr_wrong++;
		if (--lane->nr_left == 0) {
			op->status = 0;
			return;
		}
		len_bytes = 1 + (uint32_t)rand_below(&lane->rand, rand_below(&lane->rand, 4) ? 6000 : sizeof(lane->bytes));
		offset_bytes = lane->start_bytes + rand_below(&lane->rand, SLAB_BYTES / 16 - len_bytes);
		fill(lane->bytes, len_bytes, rand_next(&lane->rand));
		client_op_init(op, TRANSPORT_WRITE, SLAB, KEY, offset_bytes, lane->bytes, len_bytes,
			       1 + (unsigned)rand_below(&lane->rand, 4));
	}
	op->then = lane_next;
	if (client_submit_here(client, op) != 0)
		lane->nr_wrong++;
}

static void many_in_flight(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct lane *lanes = calloc(16, sizeof(*lanes));
	int err;

	assert_non_null(lanes);
	for (unsigned i = 0; i < 16; i++) {
		lanes[i].rand.s = i + 100;
		lanes[i].nr_left = 40;
		lanes[i].start_bytes = (uint64_t)i * (SLAB_BYTES / 16);
		client_op_init(&lanes[i].op, TRANSPORT_WRITE, SLAB, KEY, lanes[i].start_bytes, lanes[i].bytes, 100, 1);
		lanes[i].op.then = lane_next;
		assert_int_equal(client_submit(&env->client, &lanes[i].op, 1, &err), 1);
	}
	client_wait(&env->client);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(lanes[i].nr_wrong, 0);
		assert_int_equal(lanes[i].nr_left, 0);
	}
	free(lanes);
}

static void full_and_writable(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct client_op *ops = calloc(DEPTH + 1, sizeof(*ops));
	int err;

	assert_int_equal(env->client.conn->queue_depth, DEPTH);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i <= DEPTH; i++)
			client_op_init(&ops[i], TRANSPORT_READ, SLAB, KEY, i * 4096, env->bytes + (size_t)i * 4096, 4096, 1);
		assert_int_equal(client_submit(&env->client, ops, DEPTH + 1, &err), DEPTH);
		assert_int_equal(err, -EAGAIN);
		pthread_mutex_lock(&env->client.lock);
		while (env->client.nr_writable <= round)
			pthread_cond_wait(&env->client.changed, &env->client.lock);
		pthread_mutex_unlock(&env->client.lock);
		assert_int_equal(client_run(&env->client, &ops[DEPTH]), 0);
		assert_int_equal(env->client.nr_writable, round + 1);
		for (unsigned i = 0; i <= DEPTH; i++)
			assert_int_equal(ops[i].status, 0);
	}
	free(ops);
}

static void refused_by_the_lender(void **arg)
{
	static const struct {
		uint32_t slab;
		uint32_t key;
		uint64_t offset_bytes;
		uint32_t len_bytes;
		int status;
	} cases[] = {
		{ SLAB, KEY + 1, 0, 4096, -EACCES },
		{ SLAB, OTHER_KEY, 0, 4096, -EACCES },
		{ SLAB, 0, 0, 4096, -EACCES },
		{ OTHER_SLAB, 0, 0, 4096, -EACCES },
		{ 99, 0, 0, 4096, -EACCES },
		{ OTHER_SLAB, OTHER_KEY, 0, 4096, -EACCES },
		{ 99, KEY, 0, 4096, -EACCES },
		{ UINT32_MAX, KEY, 0, TRANSPORT_MAX_OP_BYTES, -EACCES },
		{ SLAB, KEY, SLAB_BYTES, 1, -ERANGE },
		{ SLAB, KEY, SLAB_BYTES - 4095, 4096, -ERANGE },
		{ SLAB, KEY, SLAB_BYTES - 1, TRANSPORT_MAX_OP_BYTES, -ERANGE },
		{ SLAB, KEY, UINT64_MAX - 4096, 4096, -ERANGE },
		{ SLAB, KEY, 1ull << 32, 4096, -ERANGE },
	};
	struct env *env = &((struct state *)*arg)->env;
	struct client_op ops[3];
	int err;

	memset(env->bytes, 0x5a, TRANSPORT_MAX_OP_BYTES);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		for (unsigned opcode = TRANSPORT_READ; opcode <= TRANSPORT_WRITE; opcode++) {
			client_op_init(&ops[0], TRANSPORT_READ, SLAB, KEY, 0, env->other_bytes, 4096, 1);
			client_op_init(&ops[1], opcode, cases[i].slab, cases[i].key, cases[i].offset_bytes, env->bytes,
				       cases[i].len_bytes, 1);
			client_op_init(&ops[2], TRANSPORT_READ, SLAB, KEY, 0, env->other_bytes, 8192, 2);
			assert_int_equal(client_submit(&env->client, ops, 3, &err), 3);
			client_wait(&env->client);
			assert_int_equal(ops[0].status, 0);
			assert_int_equal(ops[1].status, cases[i].status);
			assert_int_equal(ops[2].status, 0);
		}
	}
	for (size_t i = 0; i < SLAB_BYTES; i++) {
		assert_int_equal(env->target.slabs[SLAB].bytes[i], 0);
		assert_int_equal(env->target.slabs[OTHER_SLAB].bytes[i], 0);
	}
	check_works(env, &env->client, 4096);
	assert_int_equal(env->client.nr_down, 0);
}

static void invalid_operations(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct client_op op;

	for (unsigned i = 0; i < 9; i++) {
		client_op_init(&op, TRANSPORT_READ, SLAB, KEY, 0, env->bytes, 4096, 4);
		switch (i) {
		case 0:
			op.op.opcode = 0;
			break;
		case 1:
			op.op.opcode = 3;
			break;
		case 2:
			op.op.len_bytes = 0;
			break;
		case 3:
			op.op.len_bytes = TRANSPORT_MAX_OP_BYTES + 1;
			op.op.nr_iov = 1;
			op.iov[0].iov_len = TRANSPORT_MAX_OP_BYTES + 1;
			break;
		case 4:
			op.op.nr_iov = 0;
			break;
		case 5:
			op.op.nr_iov = TRANSPORT_MAX_IOV + 1;
			break;
		case 6:
			op.op.len_bytes = 4095;
			break;
		case 7:
			op.iov[3].iov_len = SIZE_MAX - 3071;
			op.op.len_bytes = 1;
			break;
		case 8:
			op.op.offset_bytes = UINT64_MAX - 4095;
			break;
		}
		assert_int_equal(client_run(&env->client, &op), -EINVAL);
	}
	check_works(env, &env->client, 0);
}

static void close_cancels(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct client_op *ops = calloc(DEPTH, sizeof(*ops));

	for (unsigned i = 0; i < DEPTH; i++)
		client_op_init(&ops[i], i % 2 ? TRANSPORT_READ : TRANSPORT_WRITE, SLAB, KEY, i * 65536,
			       env->bytes + (size_t)i * 65536, 65536, 1);
	assert_int_equal(client_submit_and_close(&env->client, ops, DEPTH), DEPTH);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(ops[i].status, -ECANCELED);
	assert_int_equal(env->client.nr_down, 0);
	free(ops);
}

static void close_without_attach(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct transport_connect_options options = options_for(env, LEASE, 1);
	struct transport_conn *conn;

	assert_int_equal(transport_connect(env->driver, &options, &conn), 0);
	transport_close(conn);
	check_works(env, &env->client, 0);
}

static void refused_connects(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct transport_connect_options options;
	struct transport_conn *conn = NULL;

	options = options_for(env, LEASE, 0);
	options.token[31] ^= 1;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EACCES);
	options = options_for(env, 1234, 0);
	assert_int_equal(transport_connect(env->driver, &options, &conn), -ESTALE);
	options = options_for(env, LEASE, 0);
	options.instance_id = INSTANCE + 1;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -ESTALE);
	options = options_for(env, LEASE, 0);
	options.queue_depth = 0;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EINVAL);
	options.queue_depth = TRANSPORT_MAX_QUEUE_DEPTH + 1;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EINVAL);
	options = options_for(env, LEASE, 0);
	options.heartbeat_ms = 0;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EINVAL);
	options = options_for(env, LEASE, 0);
	options.dead_ms = options.heartbeat_ms;
	assert_int_equal(transport_connect(env->driver, &options, &conn), -EINVAL);
	assert_null(conn);
	/* Nobody was fenced by one that was not admitted. */
	check_works(env, &env->client, 8192);
	assert_int_equal(env->client.nr_down, 0);
}

static void fencing(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct transport_connect_options options = options_for(env, LEASE, 0);
	struct client *newer = calloc(1, sizeof(*newer));
	struct client_op *ops = calloc(DEPTH, sizeof(*ops));
	struct client_op op;
	int err;

	client_init(newer, NULL);
	for (unsigned round = 0; round < 5; round++) {
		/* Old writes may or may not be done; once connect has returned, none will. */
		memset(env->bytes, 0xee, SLAB_BYTES);
		for (unsigned i = 0; i < DEPTH; i++)
			client_op_init(&ops[i], TRANSPORT_WRITE, SLAB, KEY, i * 131072, env->bytes, 131072, 1);
		assert_int_equal(client_submit(&env->client, ops, DEPTH, &err), DEPTH);
		assert_int_equal(client_connect(newer, env->driver, &options), 0);
		memset(env->target.slabs[SLAB].bytes, 0x11, SLAB_BYTES);
		assert_int_equal(client_wait_down(&env->client), -ECONNRESET);
		assert_int_equal(env->client.nr_down, 1);
		client_op_init(&op, TRANSPORT_READ, SLAB, KEY, 0, env->other_bytes, 4096, 1);
		assert_int_equal(client_run(&env->client, &op), -ENOTCONN);
		client_close(&env->client);
		for (size_t i = 0; i < SLAB_BYTES; i++)
			assert_int_equal(env->target.slabs[SLAB].bytes[i], 0x11);
		check_works(env, newer, 0);
		client_close(newer);
		assert_int_equal(client_connect(&env->client, env->driver, &options), 0);
	}
	client_done(newer);
	free(newer);
	free(ops);
}

static void fenced_before_attach(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct transport_connect_options options = options_for(env, LEASE, 0);
	struct transport_conn *conns[6];

	for (size_t i = 0; i < BASE_ARRAY_SIZE(conns); i++)
		assert_int_equal(transport_connect(env->driver, &options, &conns[i]), 0);
	assert_int_equal(client_wait_down(&env->client), -ECONNRESET);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(conns); i++)
		transport_close(conns[i]);
	client_close(&env->client);
	assert_int_equal(client_connect(&env->client, env->driver, &options), 0);
	check_works(env, &env->client, 0);
}

static void channels_and_leases(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct transport_connect_options options = options_for(env, LEASE, 1);
	struct client *second = calloc(1, sizeof(*second));
	struct client *stranger = calloc(1, sizeof(*stranger));
	struct client_op op;

	client_init(second, NULL);
	client_init(stranger, NULL);
	assert_int_equal(client_connect(second, env->driver, &options), 0);
	options = options_for(env, OTHER_LEASE, 0);
	assert_int_equal(client_connect(stranger, env->driver, &options), 0);
	check_works(env, &env->client, 0);
	check_works(env, second, 4096);
	client_op_init(&op, TRANSPORT_READ, SLAB, KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(stranger, &op), -EACCES);
	client_op_init(&op, TRANSPORT_READ, OTHER_SLAB, OTHER_KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(stranger, &op), 0);
	client_done(second);
	client_done(stranger);
	check_works(env, &env->client, 0);
	free(second);
	free(stranger);
}

/* A connection that does nothing keeps its lease, and knows how far away the lender is. */
static void idle_renews(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	unsigned nr = atomic_load(&env->target.nr_renewals);

	target_wait(&env->target, &env->target.nr_renewals, nr + 5);
	check_works(env, &env->client, 0);
	assert_true(env->client.conn->heartbeat_rtt_ns > 0);
	assert_int_equal(env->client.nr_down, 0);
}

static void lease_end_cuts(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct transport_connect_options options = options_for(env, OTHER_LEASE, 0);
	struct client *other = calloc(1, sizeof(*other));
	struct transport_conn *conn = NULL;
	struct client_op op;

	client_init(other, NULL);
	assert_int_equal(client_connect(other, env->driver, &options), 0);
	target_lease_end(&env->target, OTHER_LEASE);
	assert_int_equal(client_wait_down(other), -ECONNRESET);
	assert_int_equal(other->nr_down, 1);
	client_op_init(&op, TRANSPORT_READ, OTHER_SLAB, OTHER_KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(other, &op), -ENOTCONN);
	assert_int_equal(transport_connect(env->driver, &options, &conn), -ESTALE);
	assert_null(conn);
	client_done(other);
	free(other);
	check_works(env, &env->client, 0);
}

/* As transport_op.done allows it: the connection that has gone down with the slab comes again. */
static void come_again(struct env *env)
{
	struct transport_connect_options options = options_for(env, LEASE, 0);
	int err;

	/* That it is down is said in the turn in which its operations end. */
	assert_int_equal(client_submit(&env->client, NULL, 0, &err), 0);
	if (env->client.nr_down == 0)
		return;
	assert_int_equal(env->client.down_err, -ECONNRESET);
	client_close(&env->client);
	assert_int_equal(client_connect(&env->client, env->driver, &options), 0);
}

/*
 * The slab is taken back while a lot is in flight on it: every operation has its answer, and the connection stays, unless the
 * transport may lose it; and what comes later is refused.
 */
static void revoked_slab(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	bool takes_down = ((struct state *)*arg)->factory->revoked_takes_down;
	struct client_op *ops = calloc(DEPTH, sizeof(*ops));
	struct client_op op;
	int err;

	for (unsigned i = 0; i < DEPTH; i++)
		client_op_init(&ops[i], TRANSPORT_WRITE, SLAB, KEY, i * 131072, env->bytes, 131072, 1);
	assert_int_equal(client_submit(&env->client, ops, DEPTH, &err), DEPTH);
	target_slab_revoke(&env->target, SLAB);
	/* From here on nothing is written to it. */
	memset(env->target.slabs[SLAB].bytes, 0x11, SLAB_BYTES);
	client_wait(&env->client);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_true(ops[i].status == 0 || ops[i].status == -EACCES || (takes_down && ops[i].status == -ECONNRESET));
	if (takes_down) {
		client_op_init(&op, TRANSPORT_READ, SLAB, KEY, 0, env->bytes, 4096, 1);
		err = client_run(&env->client, &op);
		assert_true(err == -EACCES || err == -ENOTCONN);
		come_again(env);
	}
	client_op_init(&op, TRANSPORT_READ, SLAB, KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(&env->client, &op), -EACCES);
	assert_int_equal(env->client.nr_down, 0);
	for (size_t i = 0; i < SLAB_BYTES; i++)
		assert_int_equal(env->target.slabs[SLAB].bytes[i], 0x11);
	free(ops);
}

static void accounted(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;

	check_works(env, &env->client, 0);
	check_works(env, &env->client, 4096);
	/* The last operation is accounted at the latest when the connection has ended. */
	client_close(&env->client);
	while (atomic_load(&env->target.nr_joined) > 0)
		sched_yield();
	((struct state *)*arg)->factory->close(env);
	((struct state *)*arg)->factory->open(env); /* for the end of this test, whatever comes of it */
	assert_int_equal(atomic_load(&env->target.accounted_bytes), 4 * FSW_PAGE_SIZE);
}

#define TEST(name) { #name, name }

static const struct {
	const char *name;
	CMUnitTestFunction run;
} tests[] = {
	TEST(round_trip),	TEST(whole_slab),	    TEST(many_in_flight),   TEST(full_and_writable),
	TEST(refused_by_the_lender), TEST(invalid_operations), TEST(close_cancels),	TEST(close_without_attach),
	TEST(refused_connects), TEST(fencing),		    TEST(fenced_before_attach), TEST(channels_and_leases),
	TEST(idle_renews),	TEST(lease_end_cuts),	    TEST(revoked_slab),	    TEST(accounted),
};

int main(void)
{
	static char names[NR_FACTORIES * BASE_ARRAY_SIZE(tests)][80];
	struct CMUnitTest all[BASE_ARRAY_SIZE(names)];
	const char *only = getenv("FARSWAP_TRANSPORT"); /* one of them; NULL: all */
	size_t nr = 0;

	for (size_t i = 0; i < NR_FACTORIES; i++) {
		if (only && strcmp(only, factories[i].name) != 0)
			continue;
		for (size_t j = 0; j < BASE_ARRAY_SIZE(tests); j++) {
			snprintf(names[nr], sizeof(names[nr]), "%s: %s", factories[i].name, tests[j].name);
			all[nr] = (struct CMUnitTest){ names[nr], tests[j].run, env_set_up, env_tear_down,
						       (void *)&factories[i] };
			nr++;
		}
	}
	if (nr == 0) {
		fprintf(stderr, "FARSWAP_TRANSPORT: there is no transport '%s'\n", only);
		return 1;
	}
	return _cmocka_run_group_tests("transport", all, nr, NULL, NULL);
}

/* deps: common_transport_verbs tests_fakes_fabric tests_conform_transport common_sys common_mem common_wire */

/* What the verbs transport posts: work requests, bells, copies; and what becomes of it when the device takes none. */

#include <errno.h>
#include <string.h>

#include "tests/unit/verbs_fixture.h"

static void one_bell_per_turn(void **state)
{
	struct env *env = *state;
	struct fabric_counters before, after;
	struct client_op ops[DEPTH];

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0); /* now the slab's place is known */
	before = counted();
	submit(env, ops, DEPTH, TRANSPORT_WRITE);
	client_wait(&env->client);
	after = counted();
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(ops[i].status, 0);
	assert_int_equal(after.nr_doorbells - before.nr_doorbells, 1);
	assert_int_equal(after.nr_writes - before.nr_writes, DEPTH);
	assert_int_equal(after.nr_wrs - before.nr_wrs, DEPTH);
	/* Every fourth tells of its completion. */
	assert_int_equal(after.nr_signalled - before.nr_signalled, DEPTH / 4);
	assert_memory_equal(env->target.slabs[0].bytes, env->bytes, DEPTH * 4096);
}

/* What one turn submits does not all fit into a batch; and one has to be copied, behind which the rest waits its turn. */
static void more_than_a_batch(void **state)
{
	enum { NR = 100, UNKNOWN = 7 };
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 0);
	char *unknown = malloc(4096);
	struct client_op *ops = calloc(NR, sizeof(*ops));
	struct fabric_counters before, after;
	int err;

	options.heartbeat_ms = 20000;
	options.queue_depth = NR;
	connect_with(env, &options);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes + SLAB_BYTES / 2, 4096, 1), 0);
	memset(unknown, 0x55, 4096);
	for (unsigned round = 0; round < 2; round++) {
		before = counted();
		for (unsigned i = 0; i < NR; i++)
			client_op_init(&ops[i], TRANSPORT_WRITE, 0, KEY, i * 4096,
				       round && i == UNKNOWN ? unknown : env->bytes + (size_t)i * 4096, 4096, 1);
		assert_int_equal(client_submit(&env->client, ops, NR, &err), NR);
		client_wait(&env->client);
		after = counted();
		for (unsigned i = 0; i < NR; i++)
			assert_int_equal(ops[i].status, 0);
		assert_int_equal(after.nr_doorbells - before.nr_doorbells, 2);
		assert_int_equal(after.nr_writes - before.nr_writes, NR);
		assert_memory_equal(env->target.slabs[0].bytes, env->bytes, UNKNOWN * 4096);
		assert_memory_equal(env->target.slabs[0].bytes + UNKNOWN * 4096,
				    round ? unknown : env->bytes + UNKNOWN * 4096, 4096);
		assert_memory_equal(env->target.slabs[0].bytes + (UNKNOWN + 1) * 4096, env->bytes + (UNKNOWN + 1) * 4096,
				    (NR - UNKNOWN - 1) * 4096);
	}
	free(ops);
	free(unknown);
}

static void large_ones_are_cut(void **state)
{
	struct env *env = *state;
	struct fabric_counters before, after;

	fabric_set_limits(3, 64, 0); /* pieces, work requests, inline */
	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 0, env->bytes, 64 * 4096, 64), 0);
	assert_memory_equal(env->target.slabs[0].bytes, env->bytes, 64 * 4096);
	before = counted();
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 4096, env->bytes, 64 * 4096, 64), 0);
	after = counted();
	assert_memory_equal(env->target.slabs[0].bytes + 4096, env->bytes, 64 * 4096);
	assert_int_equal(after.nr_writes - before.nr_writes, 22);
	/* More than the send queue has room for: it goes on as they complete. */
	for (unsigned round = 0; round < 3; round++) {
		struct client_op ops[8];
		int err;

		for (unsigned i = 0; i < BASE_ARRAY_SIZE(ops); i++)
			client_op_init(&ops[i], TRANSPORT_READ, 0, KEY, i << 18, env->bytes + (i << 18), 1 << 18, 64);
		assert_int_equal(client_submit(&env->client, ops, BASE_ARRAY_SIZE(ops), &err), BASE_ARRAY_SIZE(ops));
		client_wait(&env->client);
		for (unsigned i = 0; i < BASE_ARRAY_SIZE(ops); i++)
			assert_int_equal(ops[i].status, 0);
		assert_memory_equal(env->target.slabs[0].bytes, env->bytes, SLAB_BYTES);
	}
}

static void small_writes_go_inline(void **state)
{
	struct env *env = *state;
	struct fabric_counters before, after;

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes + 8192, 4096, 1), 0);
	before = counted();
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 100, env->bytes, 128, 3), 0);
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 300, env->bytes, 129, 1), 0);
	after = counted();
	assert_int_equal(after.nr_inline - before.nr_inline, 1);
	assert_memory_equal(env->target.slabs[0].bytes + 100, env->bytes, 128);
	assert_memory_equal(env->target.slabs[0].bytes + 300, env->bytes, 129);
}

/* Memory that no device knows is copied, and counted; memory that comes and goes while connections stand is not. */
static void only_unknown_memory_is_copied(void **state)
{
	struct env *env = *state;
	struct verbs_driver_counters counters;
	struct mem_region late;
	char *unknown = malloc(SLAB_BYTES);

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_WRITE, 0, 0, env->bytes, SLAB_BYTES, 5), 0);
	verbs_driver_counters(env->driver, &counters);
	assert_int_equal(counters.nr_bounced, 0);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, unknown, SLAB_BYTES, 64), 0);
	assert_memory_equal(unknown, env->bytes, SLAB_BYTES);
	verbs_driver_counters(env->driver, &counters);
	assert_int_equal(counters.nr_bounced, 1);
	assert_int_equal(counters.bounced_bytes, SLAB_BYTES);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(mem_region_open(&late, SLAB_BYTES, MEM_REGION_TOUCH | MEM_REGION_IO), 0);
		assert_int_equal(run(env, TRANSPORT_READ, 0, 0, late.base, SLAB_BYTES, 1), 0);
		assert_memory_equal(late.base, env->bytes, SLAB_BYTES);
		mem_region_close(&late);
	}
	/* One operation on both. */
	assert_int_equal(mem_region_open(&late, 8192, MEM_REGION_TOUCH | MEM_REGION_IO), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct client_op op;

		client_op_init(&op, i ? TRANSPORT_READ : TRANSPORT_WRITE, 1, KEY + 1, 0, late.base, 8192, 3);
		memset(late.base, 0x33, 8192);
		op.iov[1].iov_base = unknown;
		memset(unknown, i ? 0 : 0x44, 4096);
		assert_int_equal(client_run(&env->client, &op), 0);
		assert_int_equal(((char *)late.base)[0], 0x33);
		assert_int_equal(unknown[0], 0x44);
		assert_int_equal(unknown[op.iov[1].iov_len - 1], 0x44);
	}
	mem_region_close(&late);
	verbs_driver_counters(env->driver, &counters);
	assert_int_equal(counters.nr_bounced, 3);
	free(unknown);
}

static _Atomic uint64_t moved_ns;

static uint64_t moved(struct sys_clock *clock)
{
	(void)clock;
	return sys_clock_now_ns(sys_clock_monotonic()) + moved_ns;
}

/*
 * The heartbeat is due in a turn that has filled the batch, and finds that the device takes nothing any more: the connection
 * goes down with all that was submitted, and leaves no timer and no flush behind.
 */
static void a_beat_finds_the_device_gone(void **state)
{
	enum { NR = 64, HEARTBEAT_MS = 20000 };
	static struct sys_clock clock = { .now_ns = moved };
	struct env *env = *state;
	struct transport_connect_options options = options_for(env, 0);
	struct client_op *ops = calloc(NR, sizeof(*ops));
	int err;

	client_done(&env->client);
	client_init(&env->client, &clock);
	options.queue_depth = NR;
	options.heartbeat_ms = HEARTBEAT_MS;
	options.dead_ms = 10 * HEARTBEAT_MS;
	connect_with(env, &options);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	for (unsigned i = 0; i < NR; i++)
		client_op_init(&ops[i], TRANSPORT_WRITE, 0, KEY, i * 4096, env->bytes + (size_t)i * 4096, 4096, 1);
	fabric_refuse(true);
	moved_ns += (HEARTBEAT_MS + 1) * SYS_NS_PER_MS;
	assert_int_equal(client_submit(&env->client, ops, NR, &err), NR);
	assert_int_equal(client_wait_down(&env->client), -EIO);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(ops[i].status, -EIO);
	fabric_refuse(false);
	client_close(&env->client);
	connect_with(env, &options);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	free(ops);
}

/* Who submits to a device that takes nothing any more is told so; and who closes then does not wait for the last beat. */
static void a_turn_or_a_close_finds_it_gone(void **state)
{
	struct env *env = *state;
	struct client_op op;

	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	fabric_refuse(true);
	client_op_init(&op, TRANSPORT_READ, 0, KEY, 0, env->bytes, 4096, 1);
	assert_int_equal(client_run(&env->client, &op), -EIO);
	assert_int_equal(client_wait_down(&env->client), -EIO);
	client_close(&env->client);
	fabric_refuse(false);
	connect_to(env);
	assert_int_equal(run(env, TRANSPORT_READ, 0, 0, env->bytes, 4096, 1), 0);
	fabric_refuse(true);
	client_close(&env->client);
	assert_int_equal(env->client.nr_down, 0); /* who has closed it is told nothing */
	fabric_refuse(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_bell_per_turn),
		TEST(more_than_a_batch),
		TEST(large_ones_are_cut),
		TEST(small_writes_go_inline),
		TEST(only_unknown_memory_is_copied),
		TEST(a_beat_finds_the_device_gone),
		TEST(a_turn_or_a_close_finds_it_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

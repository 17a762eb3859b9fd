/*
 * One suite for every backend: the contract in client/backend/backend.h, over memory servers and over a disk; and, over
 * memory servers alone, what they promise when connections fail.
 *
 * FARSWAP_TEST_SEED replays the random parts.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/base/rand.h"
#include "common/transport/fault/fault.h"
#include "tests/conform/backend_env.h"

/* ---- tests of all ---- */

static void round_trip(void **arg)
{
	static const struct {
		uint32_t slab, slot, nr_slots;
		unsigned nr_out, nr_in;
	} runs[] = {
		{ 0, 0, 1, 1, 1 },
		{ 1, SLAB_SLOTS - 1, 1, 1, 1 },
		{ 0, 100, 5, 5, 2 },
		{ 1, 0, IO_MAX_PAGES, 1, TRANSPORT_MAX_IOV },
		{ 0, SLAB_SLOTS - IO_MAX_PAGES, IO_MAX_PAGES, TRANSPORT_MAX_IOV, 1 },
	};
	struct env *env = &((struct state *)*arg)->env;
	char *out = bytes_new(IO_MAX_PAGES), *in = bytes_new(IO_MAX_PAGES);
	struct op op;

	assert_int_equal(backend_state(env->backend), BACKEND_UP);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(runs); i++) {
		for (uint32_t page = 0; page < runs[i].nr_slots; page++)
			page_fill(out + (size_t)page * FSW_PAGE_SIZE, (uint64_t)i << 32 | page);
		op_init(env, &op, 0, IO_WRITE, runs[i].slab, runs[i].slot, runs[i].nr_slots, out, runs[i].nr_out);
		op_run(env, &op, 1);
		assert_int_equal(op.status, 0);
		op_init(env, &op, 1, IO_READ, runs[i].slab, runs[i].slot, runs[i].nr_slots, in, runs[i].nr_in);
		op_run(env, &op, 1);
		assert_int_equal(op.status, 0);
		assert_memory_equal(in, out, (size_t)runs[i].nr_slots * FSW_PAGE_SIZE);
	}
	free(out);
	free(in);
}

static void refuses_what_is_out_of_range(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	char *bytes = bytes_new(2);
	struct op ops[4];

	op_init(env, &ops[0], 0, IO_READ, 0, SLAB_SLOTS, 1, bytes, 1);
	op_init(env, &ops[1], 0, IO_WRITE, 0, SLAB_SLOTS - 1, 2, bytes, 1);
	op_init(env, &ops[2], 0, IO_READ, 0, 0, 1, bytes, 1);
	ops[2].bio.nr_slots = 0;
	op_init(env, &ops[3], 0, IO_WRITE, 0, 0, 1, bytes, 1);
	ops[3].bio.nr_slots = 2; /* more than its pieces */
	op_run(env, ops, BASE_ARRAY_SIZE(ops));
	for (size_t i = 0; i < BASE_ARRAY_SIZE(ops); i++)
		assert_int_equal(ops[i].status, -EINVAL);
	free(bytes);
}

static void takes_more_than_its_depth(void **arg)
{
	enum { NR = 10 * DEPTH * NR_QUEUES };
	struct env *env = &((struct state *)*arg)->env;
	struct op *ops = calloc(NR, sizeof(*ops));
	char *out = bytes_new(NR), *in = bytes_new(NR);
	uint64_t nr_read = 0, nr_written = 0;

	for (unsigned i = 0; i < NR; i++) {
		page_fill(out + (size_t)i * FSW_PAGE_SIZE, i + 1);
		op_init(env, &ops[i], i % NR_QUEUES, IO_WRITE, 0, i, 1, out + (size_t)i * FSW_PAGE_SIZE, 1);
	}
	op_run(env, ops, NR);
	for (unsigned i = 0; i < NR; i++) {
		assert_int_equal(ops[i].status, 0);
		op_init(env, &ops[i], (i + 1) % NR_QUEUES, IO_READ, 0, i, 1, in + (size_t)i * FSW_PAGE_SIZE, 1);
	}
	op_run(env, ops, NR);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(ops[i].status, 0);
	assert_memory_equal(in, out, (size_t)NR * FSW_PAGE_SIZE);
	for (unsigned i = 0; i < NR_QUEUES; i++) {
		nr_read += atomic_load(&env->backend->counters[i].pages_read);
		nr_written += atomic_load(&env->backend->counters[i].pages_written);
		assert_int_equal(atomic_load(&env->backend->counters[i].read_errors), 0);
		assert_int_equal(atomic_load(&env->backend->counters[i].write_errors), 0);
	}
	assert_int_equal(nr_read, NR);
	assert_int_equal(nr_written, NR);
	assert_true(atomic_load(&env->backend->latency_ns) > 0);
	free(ops);
	free(in);
	free(out);
}

/* The runs of one round: disjoint, each from a stretch of the slab of its own, on any queue. */
#define ROUND_OPS 32
#define STRETCH (SLAB_SLOTS * NR_SLABS / ROUND_OPS)
#define MAX_RUN (STRETCH / 2)

struct model {
	uint64_t stamp[NR_SLABS * SLAB_SLOTS]; /* what each slot holds */
	struct op ops[ROUND_OPS];
	char *bytes;
	uint64_t next_stamp;
	struct rand_state rand;
};

static void model_open(struct model **ret_model, uint64_t seed)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	model->bytes = bytes_new(ROUND_OPS * MAX_RUN);
	model->rand.s = seed;
	*ret_model = model;
}

static void model_close(struct model *model)
{
	free(model->bytes);
	free(model);
}

static char *model_page(const struct model *model, unsigned i, uint32_t page)
{
	return model->bytes + ((size_t)i * MAX_RUN + page) * FSW_PAGE_SIZE;
}

static uint64_t *model_stamp(struct model *model, const struct op *op, uint32_t page)
{
	unsigned slab = op->bio.slab == op->env->slabs[0] ? 0 : 1;

	return &model->stamp[slab * SLAB_SLOTS + op->bio.slot + page];
}

/* Operation i is to be a WRITE of new stamps, or a READ. */
static void model_make(struct model *model, struct env *env, unsigned i, enum io_op opcode, uint32_t slot,
		       uint32_t nr_slots)
{
	op_init(env, &model->ops[i], (unsigned)rand_below(&model->rand, NR_QUEUES), opcode, slot / SLAB_SLOTS,
		slot % SLAB_SLOTS, nr_slots, model_page(model, i, 0), 1 + (unsigned)rand_below(&model->rand, 4));
	for (uint32_t page = 0; page < nr_slots; page++)
		page_fill(model_page(model, i, page), opcode == IO_WRITE ? ++model->next_stamp : UINT64_MAX);
}

static void model_make_round(struct model *model, struct env *env)
{
	for (unsigned i = 0; i < ROUND_OPS; i++) {
		uint32_t nr_slots = 1 + (uint32_t)rand_below(&model->rand, MAX_RUN);
		uint32_t slot = i * STRETCH + (uint32_t)rand_below(&model->rand, STRETCH - nr_slots + 1);

		model_make(model, env, i, rand_below(&model->rand, 2) ? IO_WRITE : IO_READ, slot, nr_slots);
	}
}

/* The operation has gone well: a READ has brought what the model says, a WRITE changes it. */
static void model_check(struct model *model, unsigned i)
{
	struct op *op = &model->ops[i];

	for (uint32_t page = 0; page < op->bio.nr_slots; page++) {
		uint64_t *stamp = model_stamp(model, op, page);
		uint64_t first, last;

		memcpy(&first, model_page(model, i, page), sizeof(first));
		memcpy(&last, model_page(model, i, page) + FSW_PAGE_SIZE - sizeof(last), sizeof(last));
		assert_true(first == last);
		if (op->bio.op == IO_WRITE)
			*stamp = first;
		else
			assert_true(first == *stamp);
	}
}

static void random_rounds(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	struct model *model;

	model_open(&model, test_seed());
	for (unsigned round = 0; round < 50; round++) {
		model_make_round(model, env);
		op_run(env, model->ops, ROUND_OPS);
		for (unsigned i = 0; i < ROUND_OPS; i++) {
			assert_int_equal(model->ops[i].status, 0);
			model_check(model, i);
		}
	}
	model_close(model);
}

/* ---- memory servers whose connections fail ---- */

static void *keep(void *arg)
{
	struct env *env = arg;
	bool stop = false;

	while (!stop) {
		if (remote_wait(env->backend, 60000) && remote_session_reconnect(env->backend, 30000) == 0)
			assert(atomic_load(&env->backend->fence) > 0);
		pthread_mutex_lock(&env->lock);
		pthread_cond_broadcast(&env->changed);
		stop = env->stop;
		pthread_mutex_unlock(&env->lock);
	}
	return NULL;
}

static void nothing(void *arg)
{
	(void)arg;
}

static void wait_until_settled(struct env *env, const struct op *op)
{
	/* A write that was refused is settled when the reactor comes back from its done. The keeper tells of the others. */
	sys_reactor_call(env->reactors[op->queue], nothing, NULL);
	pthread_mutex_lock(&env->lock);
	while (!backend_write_settled(env->backend, op->fence))
		pthread_cond_wait(&env->changed, &env->lock);
	pthread_mutex_unlock(&env->lock);
}

static void wait_until_up(struct env *env)
{
	pthread_mutex_lock(&env->lock);
	while (backend_state(env->backend) != BACKEND_UP)
		pthread_cond_wait(&env->changed, &env->lock);
	pthread_mutex_unlock(&env->lock);
}

/* A WRITE that failed may have been done or not, and must have ended when it is settled: then the slots are written anew. */
static void write_again(struct model *model, struct env *env, unsigned i)
{
	struct op *op = &model->ops[i];
	uint32_t slot = (op->bio.slab == env->slabs[0] ? 0 : SLAB_SLOTS) + op->bio.slot;
	uint32_t nr_slots = op->bio.nr_slots;

	while (op->status != 0) {
		assert_true(op->status == -EIO || op->status == -ENOTCONN);
		if (op->status == -EIO)
			wait_until_settled(env, op);
		wait_until_up(env);
		model_make(model, env, i, IO_WRITE, slot, nr_slots);
		op_run(env, op, 1);
	}
}

static void rounds_with_faults(struct env *env, struct transport_driver *faults)
{
	const struct fault_plan plan = {
		.fail_ppm = 5000,
		.delay_ppm = 20000,
		.delay_min_ns = SYS_NS_PER_MS / 10,
		.delay_max_ns = 2 * SYS_NS_PER_MS,
		.disconnect_ppm = 10000,
		.connect_fail_ppm = 100000,
	};
	struct fault_counters counters;
	struct model *model;

	model_open(&model, test_seed());
	fault_driver_set_plan(faults, &plan);
	for (unsigned round = 0; round < 100; round++) {
		if (round % 10 == 5)
			assert_int_equal(fault_driver_disconnect_all(faults, -ECONNRESET), 0);
		model_make_round(model, env);
		op_run(env, model->ops, ROUND_OPS);
		for (unsigned i = 0; i < ROUND_OPS; i++) {
			if (model->ops[i].bio.op == IO_WRITE)
				write_again(model, env, i);
			else if (model->ops[i].status != 0) {
				assert_int_equal(model->ops[i].status, -EIO); /* refused: no connection was lost */
				continue;
			}
			model_check(model, i);
		}
	}
	fault_driver_counters(faults, &counters);
	assert_true(counters.disconnected > 0 && counters.failed > 0 && counters.connects_failed > 0);
	model_close(model);
}

static void faults_change_nothing(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	char address[SYS_ADDRESS_MAX];
	struct remote_info info;
	pthread_t keeper;

	listener_open(env, address);
	env->driver = fault_driver_create(tcp_driver(), test_seed());
	assert_non_null(env->driver);
	remote_open(env, env->driver, address);
	assert_int_equal(pthread_create(&keeper, NULL, keep, env), 0);

	rounds_with_faults(env, env->driver);

	fault_driver_set_plan(env->driver, NULL);
	wait_until_up(env);
	pthread_mutex_lock(&env->lock);
	env->stop = true;
	pthread_mutex_unlock(&env->lock);
	remote_wake(env->backend);
	assert_int_equal(pthread_join(keeper, NULL), 0);
	remote_info(env->backend, &info);
	assert_true(info.nr_reconnects > 0);
	assert_int_equal(info.nr_connected, NR_QUEUES);
	assert_int_equal(info.nr_waiting, 0);
	assert_int_equal(atomic_load(&env->target.nr_collided), 0);
	remote_close(env);
	fault_driver_free(env->driver);
	listener_close(env);
}

/* The lease ends under load: every operation has its answer, and when the session is ended all that is left is lost. */
static void lease_end_loses_the_slabs(void **arg)
{
	struct env *env = &((struct state *)*arg)->env;
	char *bytes = bytes_new(1);
	struct op op;

	loop_open(env);
	op_init(env, &op, 0, IO_WRITE, 0, 0, 1, bytes, 1);
	op_run(env, &op, 1);
	assert_int_equal(op.status, 0);
	target_lease_end(&env->target, LEASE);
	op_init(env, &op, 0, IO_WRITE, 0, 0, 1, bytes, 1);
	op_run(env, &op, 1);
	assert_int_equal(op.status, -EIO);
	assert_true(remote_wait(env->backend, 60000));
	assert_int_equal(remote_session_reconnect(env->backend, 30000), -ESTALE);
	remote_session_end(env->backend);
	for (int opcode = IO_READ; opcode <= IO_WRITE; opcode++) {
		op_init(env, &op, 1, (enum io_op)opcode, 0, 0, 1, bytes, 1);
		op_run(env, &op, 1);
		assert_int_equal(op.status, -ENODATA);
	}
	loop_close(env);
	free(bytes);
}

#define TEST(name) { #name, name }

static const struct {
	const char *name;
	CMUnitTestFunction run;
} tests[] = {
	TEST(round_trip),
	TEST(refuses_what_is_out_of_range),
	TEST(takes_more_than_its_depth),
	TEST(random_rounds),
};

int main(void)
{
	static char names[NR_FACTORIES * BASE_ARRAY_SIZE(tests)][80];
	struct CMUnitTest all[BASE_ARRAY_SIZE(names) + 2];
	size_t nr = 0;

	for (size_t i = 0; i < NR_FACTORIES; i++) {
		for (size_t j = 0; j < BASE_ARRAY_SIZE(tests); j++) {
			snprintf(names[nr], sizeof(names[nr]), "%s: %s", factories[i].name, tests[j].name);
			all[nr] = (struct CMUnitTest){ names[nr], tests[j].run, env_set_up, env_tear_down,
						       (void *)&factories[i] };
			nr++;
		}
	}
	all[nr++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(faults_change_nothing, env_set_up, env_tear_down);
	all[nr++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(lease_end_loses_the_slabs, env_set_up, env_tear_down);
	return cmocka_run_group_tests_name("backend", all, NULL, NULL);
}

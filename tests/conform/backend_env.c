#include "tests/conform/backend_env.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "client/backend/disk/disk.h"
#include "common/transport/loop/loop.h"

/* ---- the backends ---- */

static void reactor_open(struct sys_reactor **ret_reactor)
{
	struct sys_reactor_options options = { .name = "backend", .cpu = -1 };

	assert_int_equal(sys_reactor_create(&options, ret_reactor), 0);
	assert_int_equal(sys_reactor_start(*ret_reactor), 0);
}

static void reactor_close(struct sys_reactor *reactor)
{
	sys_reactor_stop(reactor);
	sys_reactor_free(reactor);
}

static void target_open(struct env *env)
{
	target_init(&env->target, INSTANCE);
	target_lease_add(&env->target, LEASE);
}

void remote_open(struct env *env, struct transport_driver *driver, const char *address)
{
	struct remote_options options = {
		.name = "remote",
		.driver = driver,
		.reactors = env->reactors,
		.nr_queues = NR_QUEUES,
		.queue_depth = DEPTH,
		.dead_ms = 5000,
		.patience_ms = 60000,
	};
	struct remote_session session = { .lease_id = LEASE, .instance_id = INSTANCE, .heartbeat_ms = 1000 };

	strcpy(session.data_address, address);
	target_token(LEASE, session.token);
	assert_int_equal(remote_create(&options, &env->backend), 0);
	assert_int_equal(remote_session_begin(env->backend, &session, 30000), 0);
	for (unsigned i = 0; i < NR_SLABS; i++) {
		env->lent[i] = (struct backend_slab){
			.backend = env->backend,
			.index = target_slab_add(&env->target, LEASE, 100 + i, SLAB_BYTES),
			.key = 100 + i,
			.nr_slots = SLAB_SLOTS,
			.session = remote_session_number(env->backend),
		};
		env->slabs[i] = &env->lent[i];
	}
}

void remote_close(struct env *env)
{
	remote_session_end(env->backend);
	remote_free(env->backend);
}

void loop_open(struct env *env)
{
	target_open(env);
	env->driver = loop_driver_create(&env->target.head);
	assert_non_null(env->driver);
	remote_open(env, env->driver, "loop");
}

void loop_close(struct env *env)
{
	remote_close(env);
	loop_driver_free(env->driver);
	target_done(&env->target);
}

void listener_open(struct env *env, char address[SYS_ADDRESS_MAX])
{
	struct tcp_listener_options options = {
		.address = "127.0.0.1:0",
		.target = &env->target.head,
		.reactors = &env->lender,
		.nr_reactors = 1,
		.max_connections = 8,
		.handshake_ms = 5000,
		.silence_ms = 30000,
	};
	struct sys_address bound;

	target_open(env);
	reactor_open(&env->lender);
	assert_int_equal(tcp_listener_open(&options, &env->listener), 0);
	tcp_listener_address(env->listener, &bound);
	sys_address_format(&bound, address);
}

void listener_close(struct env *env)
{
	tcp_listener_close(env->listener);
	reactor_close(env->lender);
	target_done(&env->target);
}

static void tcp_open(struct env *env)
{
	char address[SYS_ADDRESS_MAX];

	listener_open(env, address);
	remote_open(env, tcp_driver(), address);
}

static void tcp_close(struct env *env)
{
	remote_close(env);
	listener_close(env);
}

static void disk_open(struct env *env)
{
	struct disk_options options = {
		.path = env->path,
		.size_bytes = NR_SLABS * SLAB_BYTES,
		.slab_bytes = SLAB_BYTES,
		.reactors = env->reactors,
		.nr_queues = NR_QUEUES,
		.queue_depth = DEPTH,
	};

	snprintf(env->path, sizeof(env->path), "conform_backend.%d", (int)getpid());
	assert_int_equal(disk_create(&options, &env->backend), 0);
	for (unsigned i = 0; i < NR_SLABS; i++) {
		env->slabs[i] = disk_slab_get(env->backend);
		assert_non_null(env->slabs[i]);
	}
}

static void disk_close(struct env *env)
{
	disk_free(env->backend);
	assert_int_equal(unlink(env->path), 0);
}

const struct factory factories[NR_FACTORIES] = {
	{ "remote over loop", loop_open, loop_close },
	{ "remote over tcp", tcp_open, tcp_close },
	{ "disk", disk_open, disk_close },
};

/* ---- operations ---- */

static void op_done(struct backend_io *bio, int status)
{
	struct op *op = BASE_CONTAINER_OF(bio, struct op, bio);
	struct env *env = op->env;

	assert(op->status == PENDING && status <= 0 && !env->submitting[op->queue]);
	assert(sys_reactor_self() == env->reactors[op->queue]);
	op->fence = atomic_load(&env->backend->fence);
	pthread_mutex_lock(&env->lock);
	op->status = status;
	env->nr_pending--;
	pthread_cond_broadcast(&env->changed);
	pthread_mutex_unlock(&env->lock);
}

void op_init(struct env *env, struct op *op, unsigned queue, enum io_op opcode, unsigned slab, uint32_t slot,
	     uint32_t nr_slots, void *bytes, unsigned nr_iov)
{
	uint32_t nr_taken = 0;

	memset(op, 0, sizeof(*op));
	if (nr_iov > nr_slots)
		nr_iov = nr_slots;
	for (unsigned i = 0; i < nr_iov; i++) {
		uint32_t nr = i == nr_iov - 1 ? nr_slots - nr_taken : nr_slots / nr_iov;

		op->iov[i].iov_base = (char *)bytes + (size_t)nr_taken * FSW_PAGE_SIZE;
		op->iov[i].iov_len = (size_t)nr * FSW_PAGE_SIZE;
		nr_taken += nr;
	}
	op->env = env;
	op->queue = queue;
	op->bio = (struct backend_io){
		.op = (uint8_t)opcode,
		.slot = slot,
		.nr_slots = nr_slots,
		.slab = env->slabs[slab],
		.iov = op->iov,
		.nr_iov = nr_iov,
		.done = op_done,
	};
}

struct op_call {
	struct env *env;
	struct op *ops;
	unsigned nr;
	unsigned queue;
};

static void op_submit_here(void *arg)
{
	struct op_call *call = arg;
	struct env *env = call->env;

	for (unsigned i = 0; i < call->nr; i++) {
		struct op *op = &call->ops[i];
		int ret;

		if (op->queue != call->queue)
			continue;
		pthread_mutex_lock(&env->lock);
		op->status = PENDING;
		env->nr_pending++;
		pthread_mutex_unlock(&env->lock);
		env->submitting[op->queue] = true;
		ret = backend_submit(env->backend, op->queue, &op->bio);
		env->submitting[op->queue] = false;
		if (ret == 0)
			continue;
		assert(ret != -EAGAIN);
		pthread_mutex_lock(&env->lock);
		op->status = ret;
		env->nr_pending--;
		pthread_mutex_unlock(&env->lock);
	}
}

void op_run(struct env *env, struct op *ops, unsigned nr)
{
	for (unsigned queue = 0; queue < NR_QUEUES; queue++) {
		struct op_call call = { .env = env, .ops = ops, .nr = nr, .queue = queue };

		sys_reactor_call(env->reactors[queue], op_submit_here, &call);
	}
	pthread_mutex_lock(&env->lock);
	while (env->nr_pending > 0)
		pthread_cond_wait(&env->changed, &env->lock);
	pthread_mutex_unlock(&env->lock);
}

char *bytes_new(uint32_t nr_pages)
{
	char *bytes = aligned_alloc(FSW_PAGE_SIZE, (size_t)nr_pages * FSW_PAGE_SIZE);

	assert_non_null(bytes);
	memset(bytes, 0, (size_t)nr_pages * FSW_PAGE_SIZE);
	return bytes;
}

void page_fill(char *page, uint64_t stamp)
{
	for (size_t i = 0; i < FSW_PAGE_SIZE; i += sizeof(stamp))
		memcpy(page + i, &stamp, sizeof(stamp));
}

uint64_t test_seed(void)
{
	const char *text = getenv("FARSWAP_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20240607;

	print_message("seed %llu\n", (unsigned long long)seed);
	return seed;
}

/* ---- for cmocka ---- */

int env_set_up(void **arg)
{
	const struct factory *factory = *arg;
	struct state *state = calloc(1, sizeof(*state));

	assert_non_null(state);
	state->factory = factory;
	pthread_mutex_init(&state->env.lock, NULL);
	pthread_cond_init(&state->env.changed, NULL);
	for (unsigned i = 0; i < NR_QUEUES; i++)
		reactor_open(&state->env.reactors[i]);
	if (factory)
		factory->open(&state->env);
	*arg = state;
	return 0;
}

int env_tear_down(void **arg)
{
	struct state *state = *arg;

	if (state->factory)
		state->factory->close(&state->env);
	for (unsigned i = 0; i < NR_QUEUES; i++)
		reactor_close(state->env.reactors[i]);
	pthread_cond_destroy(&state->env.changed);
	pthread_mutex_destroy(&state->env.lock);
	free(state);
	return 0;
}

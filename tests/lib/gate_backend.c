#include "tests/lib/gate_backend.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rand.h"

struct gate_slab {
	struct backend_slab lent;
	char *bytes;
};

/* All of it belongs to the queue's reactor. */
struct gate_queue {
	struct gate_backend *gate;
	struct sys_reactor *reactor;
	struct backend_io_list waiting;
	unsigned nr_waiting;
	struct sys_deferred pass;
	struct rand_state rand;
};

struct gate_backend {
	struct backend backend;
	struct gate_queue queue[BACKEND_MAX_QUEUES];
	struct gate_slab slab[GATE_MAX_SLABS];
	unsigned nr_slabs;
	pthread_mutex_t lock; /* of all below, with changed */
	pthread_cond_t changed;
	unsigned nr_waiting;
	bool shut;
	bool failing;
	enum io_op fail_op;
	uint64_t fail_word;
	int fail_status;
};

static char *gate_slot(const struct backend_io *io, uint32_t index)
{
	struct gate_slab *slab = BASE_CONTAINER_OF(io->slab, struct gate_slab, lent);

	return slab->bytes + (size_t)(io->slot + index) * FSW_PAGE_SIZE;
}

/* Pages are never cut in two, so each lies in one piece. */
static char *gate_page(const struct backend_io *io, uint32_t index)
{
	size_t at = (size_t)index * FSW_PAGE_SIZE;
	uint32_t i;

	for (i = 0; at >= io->iov[i].iov_len; i++)
		at -= io->iov[i].iov_len;
	return (char *)io->iov[i].iov_base + at;
}

static int gate_failure(struct gate_backend *gate, const struct backend_io *io)
{
	uint64_t word;
	int status = 0;

	pthread_mutex_lock(&gate->lock);
	for (uint32_t i = 0; gate->failing && io->op == gate->fail_op && i < io->nr_slots; i++) {
		memcpy(&word, io->op == IO_READ ? gate_slot(io, i) : gate_page(io, i), sizeof(word));
		if (word == gate->fail_word)
			status = gate->fail_status;
	}
	pthread_mutex_unlock(&gate->lock);
	return status;
}

static int gate_perform(struct gate_backend *gate, struct backend_io *io)
{
	int status = gate_failure(gate, io);

	for (uint32_t i = 0; status == 0 && i < io->nr_slots; i++) {
		if (io->op == IO_READ)
			memcpy(gate_page(io, i), gate_slot(io, i), FSW_PAGE_SIZE);
		else
			memcpy(gate_slot(io, i), gate_page(io, i), FSW_PAGE_SIZE);
	}
	return status;
}

/* The next one to pass, or NULL while the gate is shut. */
static struct backend_io *gate_take(struct gate_queue *queue)
{
	struct backend_io *io = TAILQ_FIRST(&queue->waiting);
	struct gate_backend *gate = queue->gate;
	bool shut;

	pthread_mutex_lock(&gate->lock);
	shut = gate->shut;
	gate->nr_waiting -= !shut;
	pthread_mutex_unlock(&gate->lock);
	if (shut)
		return NULL;
	for (uint64_t skip = rand_below(&queue->rand, queue->nr_waiting); skip > 0; skip--)
		io = TAILQ_NEXT(io, link);
	TAILQ_REMOVE(&queue->waiting, io, link);
	queue->nr_waiting--;
	return io;
}

static void gate_pass(struct sys_deferred *deferred)
{
	struct gate_queue *queue = BASE_CONTAINER_OF(deferred, struct gate_queue, pass);
	struct backend_io *io;

	/* What done submits passes in a round of its own. */
	for (unsigned nr = queue->nr_waiting; nr > 0; nr--) {
		io = gate_take(queue);
		if (!io)
			return;
		io->done(io, gate_perform(queue->gate, io));
	}
}

static int gate_submit(struct backend *backend, unsigned index, struct backend_io *io)
{
	struct gate_backend *gate = BASE_CONTAINER_OF(backend, struct gate_backend, backend);
	struct gate_queue *queue = &gate->queue[index];
	size_t len_bytes = 0;

	for (uint32_t i = 0; i < io->nr_iov; i++)
		len_bytes += io->iov[i].iov_len;
	assert(sys_reactor_self() == queue->reactor);
	assert(io->nr_slots > 0 && len_bytes == (size_t)io->nr_slots * FSW_PAGE_SIZE);
	assert(io->slot < io->slab->nr_slots && io->nr_slots <= io->slab->nr_slots - io->slot);
	TAILQ_INSERT_TAIL(&queue->waiting, io, link);
	queue->nr_waiting++;
	pthread_mutex_lock(&gate->lock);
	gate->nr_waiting++;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
	sys_reactor_defer(queue->reactor, &queue->pass);
	return 0;
}

static const struct backend_ops gate_ops = { .name = "gate", .submit = gate_submit };

struct gate_backend *gate_backend_create(struct sys_reactor *const *reactors, unsigned nr_queues)
{
	struct gate_backend *gate = aligned_alloc(FSW_CACHE_LINE, base_align_up(sizeof(*gate), FSW_CACHE_LINE));

	assert(gate && nr_queues <= BACKEND_MAX_QUEUES);
	memset(gate, 0, sizeof(*gate));
	gate->backend.ops = &gate_ops;
	gate->backend.kind = BACKEND_REMOTE;
	gate->backend.nr_queues = nr_queues;
	snprintf(gate->backend.name, sizeof(gate->backend.name), "gate");
	atomic_store(&gate->backend.state, BACKEND_UP);
	pthread_mutex_init(&gate->lock, NULL);
	pthread_cond_init(&gate->changed, NULL);
	for (unsigned i = 0; i < nr_queues; i++) {
		gate->queue[i].gate = gate;
		gate->queue[i].reactor = reactors[i];
		gate->queue[i].pass.run = gate_pass;
		gate->queue[i].rand.s = i;
		TAILQ_INIT(&gate->queue[i].waiting);
	}
	return gate;
}

void gate_backend_free(struct gate_backend *gate)
{
	assert(gate->nr_waiting == 0);
	for (unsigned i = 0; i < gate->nr_slabs; i++)
		free(gate->slab[i].bytes);
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
	free(gate);
}

struct backend *gate_backend_backend(struct gate_backend *gate)
{
	return &gate->backend;
}

struct backend_slab *gate_backend_slab_new(struct gate_backend *gate, uint32_t nr_slots)
{
	struct gate_slab *slab = &gate->slab[gate->nr_slabs];

	assert(gate->nr_slabs < GATE_MAX_SLABS);
	slab->bytes = calloc(nr_slots, FSW_PAGE_SIZE);
	assert(slab->bytes);
	slab->lent.backend = &gate->backend;
	slab->lent.index = gate->nr_slabs++;
	slab->lent.nr_slots = nr_slots;
	return &slab->lent;
}

void gate_backend_shut(struct gate_backend *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->shut = true;
	pthread_mutex_unlock(&gate->lock);
}

static void gate_let_go(void *arg)
{
	struct gate_queue *queue = arg;

	sys_reactor_defer(queue->reactor, &queue->pass);
}

void gate_backend_open(struct gate_backend *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->shut = false;
	pthread_mutex_unlock(&gate->lock);
	for (unsigned i = 0; i < gate->backend.nr_queues; i++)
		sys_reactor_call(gate->queue[i].reactor, gate_let_go, &gate->queue[i]);
}

void gate_backend_wait(struct gate_backend *gate, unsigned nr)
{
	pthread_mutex_lock(&gate->lock);
	while (gate->nr_waiting < nr)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

void gate_backend_fail(struct gate_backend *gate, enum io_op op, uint64_t word, int status)
{
	pthread_mutex_lock(&gate->lock);
	gate->failing = true;
	gate->fail_op = op;
	gate->fail_word = word;
	gate->fail_status = status;
	pthread_mutex_unlock(&gate->lock);
}

void gate_backend_heal(struct gate_backend *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->failing = false;
	pthread_mutex_unlock(&gate->lock);
	atomic_fetch_add(&gate->backend.fence, 1);
}

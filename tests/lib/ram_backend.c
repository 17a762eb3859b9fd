#include "tests/lib/ram_backend.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_MAX_SLABS 1024
#define RAM_MAX_LATE 4096

struct ram_slab {
	struct backend_slab lent;
	char *bytes;
};

/* A failed write whose bytes arrive after all. */
struct ram_late {
	char *to;
	char bytes[FSW_PAGE_SIZE];
};

struct ram_queue {
	struct ram_backend *ram;
	struct sys_poller poller;
	struct backend_io_list pending;
};

struct ram_backend {
	struct backend backend;
	uint32_t slots_per_slab;
	unsigned nr_slabs;
	uint32_t next_index;
	struct ram_slab *slab[RAM_MAX_SLABS];
	struct ram_queue queue[BACKEND_MAX_QUEUES];
	struct ram_backend_plan plan;
	struct rand_state rand;
	struct ram_late *late[RAM_MAX_LATE];
	unsigned nr_late;
	uint64_t nr_ops;
	uint32_t session;
};

static bool ram_chance(struct ram_backend *ram, unsigned ppm)
{
	return ppm && rand_below(&ram->rand, 1000000) < ppm;
}

static struct ram_slab *ram_slab_of(struct backend_slab *lent)
{
	return BASE_CONTAINER_OF(lent, struct ram_slab, lent);
}

static void ram_copy(struct backend_io *io, bool to_slab, uint32_t nr_slots)
{
	char *at = ram_slab_of(io->slab)->bytes + (size_t)io->slot * FSW_PAGE_SIZE;
	size_t left = (size_t)nr_slots * FSW_PAGE_SIZE;
	uint32_t i;

	for (i = 0; i < io->nr_iov && left; i++) {
		size_t len = io->iov[i].iov_len < left ? io->iov[i].iov_len : left;

		memcpy(to_slab ? at : io->iov[i].iov_base, to_slab ? io->iov[i].iov_base : at, len);
		at += len;
		left -= len;
	}
}

/* The bytes of a page of the operation, whatever pieces it is in. */
static char *ram_io_page(struct backend_io *io, uint32_t page)
{
	size_t at = (size_t)page * FSW_PAGE_SIZE;
	uint32_t i;

	for (i = 0; at >= io->iov[i].iov_len; i++)
		at -= io->iov[i].iov_len;
	return (char *)io->iov[i].iov_base + at;
}

static void ram_fail_write(struct ram_backend *ram, struct backend_io *io)
{
	uint32_t i;

	/* The answer of a disk is final: nothing arrives later there. */
	switch (rand_below(&ram->rand, ram->backend.kind == BACKEND_DISK ? 2 : 4)) {
	case 0: /* done, and the answer was lost */
		ram_copy(io, true, io->nr_slots);
		break;
	case 1: /* done in part */
		ram_copy(io, true, (uint32_t)rand_below(&ram->rand, io->nr_slots + 1));
		break;
	case 2: /* done later, page by page */
		for (i = 0; i < io->nr_slots && ram->nr_late < RAM_MAX_LATE; i++) {
			struct ram_late *late = malloc(sizeof(*late));

			assert(late);
			late->to = ram_slab_of(io->slab)->bytes + (size_t)(io->slot + i) * FSW_PAGE_SIZE;
			memcpy(late->bytes, ram_io_page(io, i), FSW_PAGE_SIZE);
			ram->late[ram->nr_late++] = late;
		}
		break;
	default: /* never */
		break;
	}
}

static int ram_execute(struct ram_backend *ram, struct backend_io *io)
{
	if (backend_state(&ram->backend) == BACKEND_LOST || io->slab->session != ram->session)
		return -ENODATA;
	if (ram_chance(ram, ram->plan.fail_ppm)) {
		if (io->op == IO_WRITE)
			ram_fail_write(ram, io);
		return -EIO;
	}
	ram_copy(io, io->op == IO_WRITE, io->nr_slots);
	if (io->op == IO_READ && ram_chance(ram, ram->plan.corrupt_ppm))
		ram_io_page(io, (uint32_t)rand_below(&ram->rand, io->nr_slots))[rand_below(&ram->rand, FSW_PAGE_SIZE)] ^= 1;
	return 0;
}

static void ram_late_one(struct ram_backend *ram)
{
	unsigned i = (unsigned)rand_below(&ram->rand, ram->nr_late);

	memcpy(ram->late[i]->to, ram->late[i]->bytes, FSW_PAGE_SIZE);
	free(ram->late[i]);
	ram->late[i] = ram->late[--ram->nr_late];
}

static unsigned ram_poll(struct sys_poller *poller)
{
	struct ram_queue *queue = BASE_CONTAINER_OF(poller, struct ram_queue, poller);
	struct ram_backend *ram = queue->ram;
	struct backend_io *io, *next;
	unsigned n = 0;

	if (ram->nr_late && rand_below(&ram->rand, 8) == 0)
		ram_late_one(ram);
	for (io = TAILQ_FIRST(&queue->pending); io; io = next) {
		next = TAILQ_NEXT(io, link);
		if (io->started_ns && --io->started_ns)
			continue;
		TAILQ_REMOVE(&queue->pending, io, link);
		io->done(io, ram_execute(ram, io));
		n++;
		/* done may have submitted or completed anything: start over */
		next = TAILQ_FIRST(&queue->pending);
		if (n > 64)
			break;
	}
	return n;
}

static int ram_submit(struct backend *backend, unsigned index, struct backend_io *io)
{
	struct ram_backend *ram = BASE_CONTAINER_OF(backend, struct ram_backend, backend);
	struct ram_queue *queue = &ram->queue[index];
	uint32_t i;
	size_t len = 0;

	for (i = 0; i < io->nr_iov; i++)
		len += io->iov[i].iov_len;
	assert(len == (size_t)io->nr_slots * FSW_PAGE_SIZE && io->nr_iov <= TRANSPORT_MAX_IOV);
	assert(io->slot + io->nr_slots <= io->slab->nr_slots);
	if (backend_state(backend) == BACKEND_LOST || io->slab->session != ram->session)
		return -ENODATA;
	if (io->op == IO_WRITE && ram_chance(ram, ram->plan.refuse_ppm))
		return -ENOTCONN;
	ram->nr_ops++;
	io->queue = queue;
	io->started_ns = rand_below(&ram->rand, ram->plan.max_delay_turns + 1); /* turns to wait */
	TAILQ_INSERT_TAIL(&queue->pending, io, link);
	return 0;
}

static const struct backend_ops ram_ops = { .name = "ram", .submit = ram_submit };

struct ram_backend *ram_backend_create(const char *name, enum backend_kind kind, uint32_t slots_per_slab,
				       struct sys_reactor *const *reactors, unsigned nr_queues, uint64_t seed)
{
	struct ram_backend *ram = calloc(1, sizeof(*ram));
	unsigned i;

	assert(ram);
	ram->backend.ops = &ram_ops;
	ram->backend.kind = kind;
	ram->backend.nr_queues = nr_queues;
	snprintf(ram->backend.name, sizeof(ram->backend.name), "%s", name);
	atomic_store(&ram->backend.state, BACKEND_UP);
	ram->slots_per_slab = slots_per_slab;
	ram->rand.s = seed;
	ram->plan.max_delay_turns = 4;
	for (i = 0; i < nr_queues; i++) {
		ram->queue[i].ram = ram;
		ram->queue[i].poller.poll = ram_poll;
		TAILQ_INIT(&ram->queue[i].pending);
		sys_poller_add(reactors[i], &ram->queue[i].poller);
	}
	return ram;
}

void ram_backend_free(struct ram_backend *ram)
{
	unsigned i;

	for (i = 0; i < ram->backend.nr_queues; i++) {
		assert(TAILQ_EMPTY(&ram->queue[i].pending));
		sys_poller_remove(&ram->queue[i].poller);
	}
	ram_backend_settle(ram);
	for (i = 0; i < RAM_MAX_SLABS; i++)
		if (ram->slab[i])
			ram_backend_slab_free(ram, &ram->slab[i]->lent);
	free(ram);
}

struct backend *ram_backend_backend(struct ram_backend *ram)
{
	return &ram->backend;
}

struct backend_slab *ram_backend_slab_new(struct ram_backend *ram)
{
	struct ram_slab *slab = calloc(1, sizeof(*slab));
	unsigned i;

	assert(slab);
	for (i = 0; i < RAM_MAX_SLABS && ram->slab[i]; i++)
		;
	assert(i < RAM_MAX_SLABS);
	slab->bytes = calloc(ram->slots_per_slab, FSW_PAGE_SIZE);
	assert(slab->bytes);
	slab->lent.backend = &ram->backend;
	slab->lent.index = ram->next_index++;
	slab->lent.nr_slots = ram->slots_per_slab;
	slab->lent.session = ram->session;
	ram->slab[i] = slab;
	ram->nr_slabs++;
	return &slab->lent;
}

void ram_backend_slab_free(struct ram_backend *ram, struct backend_slab *lent)
{
	struct ram_slab *slab = ram_slab_of(lent);
	unsigned i;

	for (i = 0; i < RAM_MAX_SLABS && ram->slab[i] != slab; i++)
		;
	assert(i < RAM_MAX_SLABS);
	ram->slab[i] = NULL;
	ram->nr_slabs--;
	ram_backend_settle(ram); /* a late write must not reach memory that is gone */
	free(slab->bytes);
	free(slab);
}

unsigned ram_backend_nr_slabs(const struct ram_backend *ram)
{
	return ram->nr_slabs;
}

void ram_backend_set_plan(struct ram_backend *ram, const struct ram_backend_plan *plan)
{
	ram->plan = *plan;
}

void ram_backend_settle(struct ram_backend *ram)
{
	while (ram->nr_late) {
		if (rand_below(&ram->rand, 2)) {
			ram_late_one(ram);
		} else {
			free(ram->late[--ram->nr_late]);
		}
	}
	atomic_fetch_add(&ram->backend.fence, 1);
}

void ram_backend_lose(struct ram_backend *ram)
{
	unsigned i;

	atomic_store(&ram->backend.state, BACKEND_LOST);
	for (i = 0; i < RAM_MAX_SLABS; i++)
		if (ram->slab[i])
			memset(ram->slab[i]->bytes, 0xdb, (size_t)ram->slots_per_slab * FSW_PAGE_SIZE);
}

void ram_backend_revive(struct ram_backend *ram)
{
	assert(ram->nr_slabs == 0);
	ram->session++;
	ram_backend_settle(ram);
	atomic_store(&ram->backend.state, BACKEND_UP);
}

uint64_t ram_backend_nr_ops(const struct ram_backend *ram)
{
	return ram->nr_ops;
}

/*
 * A device over backends that do only what the test says: what the tests of client/vswap share. The reactors are manual
 * ones under a clock of the test. A backend does each operation in the next turn of its queue, or holds it until the test
 * ends it.
 */
#ifndef FARSWAP_TESTS_UNIT_VSWAP_FIXTURE_H
#define FARSWAP_TESTS_UNIT_VSWAP_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/vswap/internal.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"

#define FIXTURE_QUEUES 2u
#define FIXTURE_REACTORS (FIXTURE_QUEUES + 1) /* the last is the mover's */
#define FIXTURE_BACKENDS 2u
#define FIXTURE_SLABS 8u
#define FIXTURE_PENDING 1

/* A slab, with the memory that stands for the server's. */
struct hand_slab {
	struct backend_slab lent;
	char *bytes;
};

struct hand_queue {
	struct hand_backend *hand;
	struct sys_poller poller;
	struct backend_io_list pending;
};

struct hand_backend {
	struct backend backend;
	struct hand_queue queue[FIXTURE_REACTORS];
	struct hand_slab *slab[FIXTURE_SLABS];
	uint32_t nr_made;
	bool hold;	  /* operations wait for hand_end */
	unsigned nr_refuse; /* of the next operations: -ENOTCONN, in submit */
	unsigned nr_fail; /* of the next operations: -EIO, and nothing has been done */
	unsigned nr_corrupt; /* of the next reads: bytes changed on the way */
	unsigned nr_ops, nr_reads, nr_writes;
};

struct fixture {
	struct sys_clock clock;
	uint64_t now_ns;
	struct sys_reactor *reactors[FIXTURE_REACTORS];
	struct vswap *vswap;
	struct hand_backend *hand[FIXTURE_BACKENDS];
};

struct fixture_io {
	struct fsw_io io;
	int status; /* FIXTURE_PENDING until done */
	unsigned nr_done;
};

/* ---- backends ---- */

static inline void hand_copy(struct backend_io *io, bool to_slab)
{
	struct hand_slab *slab = BASE_CONTAINER_OF(io->slab, struct hand_slab, lent);
	char *at = slab->bytes + (size_t)io->slot * FSW_PAGE_SIZE;
	uint32_t i;

	for (i = 0; i < io->nr_iov; i++) {
		memcpy(to_slab ? at : io->iov[i].iov_base, to_slab ? io->iov[i].iov_base : at, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
}

static inline int hand_execute(struct hand_backend *hand, struct backend_io *io)
{
	if (backend_state(&hand->backend) == BACKEND_LOST)
		return -ENODATA;
	if (hand->nr_fail) {
		hand->nr_fail--;
		return -EIO;
	}
	hand_copy(io, io->op == IO_WRITE);
	if (io->op == IO_READ && hand->nr_corrupt) {
		hand->nr_corrupt--;
		((char *)io->iov[0].iov_base)[100] ^= 1;
	}
	return 0;
}

/* One operation of a queue, if there is one and it is not held. */
static inline unsigned hand_poll(struct sys_poller *poller)
{
	struct hand_queue *queue = BASE_CONTAINER_OF(poller, struct hand_queue, poller);
	struct backend_io *io = TAILQ_FIRST(&queue->pending);

	if (!io || queue->hand->hold)
		return 0;
	TAILQ_REMOVE(&queue->pending, io, link);
	io->done(io, hand_execute(queue->hand, io));
	return 1;
}

static inline int hand_submit(struct backend *backend, unsigned index, struct backend_io *io)
{
	struct hand_backend *hand = BASE_CONTAINER_OF(backend, struct hand_backend, backend);
	enum backend_state state = backend_state(backend);

	assert_true(io->nr_slots > 0 && io->slot + io->nr_slots <= io->slab->nr_slots);
	if (state == BACKEND_LOST)
		return -ENODATA;
	if (state != BACKEND_UP && io->op == IO_WRITE)
		return -ENOTCONN;
	if (hand->nr_refuse) {
		hand->nr_refuse--;
		return -ENOTCONN;
	}
	hand->nr_ops++;
	*(io->op == IO_READ ? &hand->nr_reads : &hand->nr_writes) += 1;
	TAILQ_INSERT_TAIL(&hand->queue[index].pending, io, link);
	return 0;
}

static const struct backend_ops hand_ops = { .name = "hand", .submit = hand_submit };

struct hand_ending {
	struct backend_io *io;
	int status;
};

static inline void hand_end_on_reactor(void *arg)
{
	struct hand_ending *ending = arg;

	ending->io->done(ending->io, ending->status);
}

/* Ends the oldest operation of a queue; its bytes arrive if the status is 0. */
static inline void hand_end(struct fixture *f, unsigned b, unsigned queue, int status)
{
	struct hand_ending ending = { TAILQ_FIRST(&f->hand[b]->queue[queue].pending), status };

	assert_non_null(ending.io);
	TAILQ_REMOVE(&f->hand[b]->queue[queue].pending, ending.io, link);
	if (status == 0)
		hand_copy(ending.io, ending.io->op == IO_WRITE);
	sys_reactor_call(f->reactors[queue], hand_end_on_reactor, &ending);
}

static inline void hand_slab_free(struct hand_backend *hand, struct backend_slab *lent)
{
	struct hand_slab *slab = BASE_CONTAINER_OF(lent, struct hand_slab, lent);
	unsigned i;

	for (i = 0; i < FIXTURE_SLABS && hand->slab[i] != slab; i++)
		;
	assert_true(i < FIXTURE_SLABS);
	hand->slab[i] = NULL;
	free(slab->bytes);
	free(slab);
}

static inline struct backend_slab *hand_slab_new(struct hand_backend *hand, uint32_t nr_slots)
{
	struct hand_slab *slab = calloc(1, sizeof(*slab));
	unsigned i;

	for (i = 0; i < FIXTURE_SLABS && hand->slab[i]; i++)
		;
	assert_true(slab && i < FIXTURE_SLABS);
	slab->bytes = calloc(nr_slots, FSW_PAGE_SIZE);
	assert_non_null(slab->bytes);
	slab->lent = (struct backend_slab){ .backend = &hand->backend, .index = hand->nr_made++, .nr_slots = nr_slots };
	hand->slab[i] = slab;
	return &slab->lent;
}

/* ---- the device ---- */

static inline uint64_t fixture_now(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct fixture, clock)->now_ns;
}

static inline void fixture_turn(struct fixture *f, unsigned queue)
{
	f->now_ns += 10000;
	sys_reactor_turn(f->reactors[queue]);
}

/* So many turns of every reactor; a turn of all takes two milliseconds, so that timers fire. */
static inline void fixture_turns(struct fixture *f, unsigned nr)
{
	unsigned i;

	for (; nr; nr--)
		for (i = 0; i < FIXTURE_REACTORS; i++) {
			f->now_ns += 700000;
			sys_reactor_turn(f->reactors[i]);
		}
}

static inline void fixture_add_slab(struct fixture *f, unsigned b, uint32_t nr_slots)
{
	assert_int_equal(vswap_slab_add(f->vswap, hand_slab_new(f->hand[b], nr_slots)), 0);
}

static inline struct fixture *fixture_create_with(const struct vswap_options *options)
{
	static const enum backend_kind kind[FIXTURE_BACKENDS] = { BACKEND_REMOTE, BACKEND_DISK };
	struct fixture *f = calloc(1, sizeof(*f));
	unsigned i, b;

	assert_non_null(f);
	f->clock.now_ns = fixture_now;
	f->now_ns = 1000000;
	assert_int_equal(vswap_create(options, &f->vswap), 0);
	for (i = 0; i < FIXTURE_REACTORS; i++) {
		struct sys_reactor_options reactor = { .name = "test", .clock = &f->clock, .manual = true, .cpu = -1 };

		assert_int_equal(sys_reactor_create(&reactor, &f->reactors[i]), 0);
		vswap_queue_bind(f->vswap, i, f->reactors[i]);
	}
	for (b = 0; b < FIXTURE_BACKENDS; b++) {
		struct hand_backend *hand = aligned_alloc(FSW_CACHE_LINE, base_align_up(sizeof(*hand), FSW_CACHE_LINE));

		assert_non_null(hand);
		memset(hand, 0, sizeof(*hand));
		hand->backend.ops = &hand_ops;
		hand->backend.kind = kind[b];
		hand->backend.nr_queues = FIXTURE_REACTORS;
		strcpy(hand->backend.name, b == 0 ? "server" : "disk");
		atomic_store(&hand->backend.state, BACKEND_UP);
		for (i = 0; i < FIXTURE_REACTORS; i++) {
			hand->queue[i].hand = hand;
			hand->queue[i].poller.poll = hand_poll;
			TAILQ_INIT(&hand->queue[i].pending);
			sys_poller_add(f->reactors[i], &hand->queue[i].poller);
		}
		f->hand[b] = hand;
		assert_int_equal(vswap_backend_add(f->vswap, &hand->backend), 0);
	}
	return f;
}

static inline struct fixture *fixture_create(uint64_t nr_pages, uint32_t reserve_tables)
{
	struct vswap_options options = { .nr_pages = nr_pages, .nr_queues = FIXTURE_QUEUES, .max_slabs = 64,
					 .reserve_tables = reserve_tables, .seed = 1 };

	return fixture_create_with(&options);
}

/* The books must be right at the end of every test. */
static inline void fixture_free(struct fixture *f)
{
	unsigned i, b;

	fixture_turns(f, 8);
	assert_int_equal(vswap_check(f->vswap), 0);
	vswap_free(f->vswap);
	for (b = 0; b < FIXTURE_BACKENDS; b++) {
		for (i = 0; i < FIXTURE_REACTORS; i++) {
			assert_true(TAILQ_EMPTY(&f->hand[b]->queue[i].pending));
			sys_poller_remove(&f->hand[b]->queue[i].poller);
		}
		for (i = 0; i < FIXTURE_SLABS; i++)
			if (f->hand[b]->slab[i])
				hand_slab_free(f->hand[b], &f->hand[b]->slab[i]->lent);
		free(f->hand[b]);
	}
	for (i = 0; i < FIXTURE_REACTORS; i++)
		sys_reactor_free(f->reactors[i]);
	free(f);
}

static inline uint64_t fixture_used(struct fixture *f, int b)
{
	struct vswap_space space;

	vswap_space(f->vswap, b < 0 ? NULL : &f->hand[b]->backend, &space);
	return space.nr_used_slots;
}

static inline uint64_t fixture_word(struct fixture *f, uint64_t page)
{
	struct table_look look;

	sys_rcu_read_lock();
	table_look(&f->vswap->tables, page, &look);
	sys_rcu_read_unlock();
	return look.word;
}

/* ---- requests ---- */

static inline void fixture_fill(void *buf, uint64_t nr_pages, uint64_t value)
{
	struct rand_state rand = { .s = value };
	uint64_t *words = buf, i;

	for (i = 0; i < nr_pages * (FSW_PAGE_SIZE / 8); i++)
		words[i] = rand_next(&rand);
}

static inline void fixture_done(struct fsw_io *io, int status)
{
	struct fixture_io *fio = BASE_CONTAINER_OF(io, struct fixture_io, io);

	fio->status = status;
	fio->nr_done++;
}

/* A request with pages of its own that hold `value`. */
static inline struct fixture_io *fixture_io_new(enum io_op op, uint64_t page, uint64_t nr_pages, uint64_t value)
{
	struct fixture_io *fio = calloc(1, sizeof(*fio));
	uint64_t nr_buf = op == IO_READ || op == IO_WRITE ? nr_pages : 0;

	assert_non_null(fio);
	fio->io.op = (uint8_t)op;
	fio->io.page = page;
	fio->io.nr_pages = nr_pages;
	fio->io.done = fixture_done;
	if (nr_buf) {
		fio->io.buf = aligned_alloc(FSW_PAGE_SIZE, nr_buf * FSW_PAGE_SIZE);
		assert_non_null(fio->io.buf);
		fixture_fill(fio->io.buf, nr_buf, value);
	}
	return fio;
}

static inline void fixture_io_free(struct fixture_io *fio)
{
	free(fio->io.buf);
	free(fio);
}

struct fixture_submission {
	struct vswap_queue *queue;
	struct fixture_io *fio;
};

static inline void fixture_submit_on_reactor(void *arg)
{
	struct fixture_submission *submission = arg;

	vswap_submit(submission->queue, &submission->fio->io);
	assert_int_equal(submission->fio->status, FIXTURE_PENDING); /* never inside submit */
}

static inline void fixture_submit(struct fixture *f, unsigned queue, struct fixture_io *fio)
{
	struct fixture_submission submission = { vswap_queue(f->vswap, queue), fio };

	fio->status = FIXTURE_PENDING;
	fio->nr_done = 0;
	sys_reactor_call(f->reactors[queue], fixture_submit_on_reactor, &submission);
}

/* Turns until the request is done; done runs once. */
static inline int fixture_wait(struct fixture *f, unsigned queue, struct fixture_io *fio)
{
	unsigned n;

	for (n = 0; n < 5000 && fio->status == FIXTURE_PENDING; n++)
		fixture_turn(f, queue);
	assert_int_equal(fio->nr_done, 1);
	return fio->status;
}

/* The same of one that waits for room, which may take seconds. */
static inline int fixture_wait_for_room(struct fixture *f, struct fixture_io *fio)
{
	unsigned n;

	for (n = 0; n < 5000 && fio->status == FIXTURE_PENDING; n++)
		fixture_turns(f, 1);
	assert_int_equal(fio->nr_done, 1);
	return fio->status;
}

static inline int fixture_do(struct fixture *f, enum io_op op, uint64_t page, uint64_t nr_pages, uint64_t value)
{
	struct fixture_io *fio = fixture_io_new(op, page, nr_pages, value);
	int status;

	fixture_submit(f, 0, fio);
	status = fixture_wait(f, 0, fio);
	fixture_io_free(fio);
	return status;
}

static inline bool fixture_holds(const struct fixture_io *fio, uint64_t value)
{
	struct fixture_io *expected = fixture_io_new(IO_READ, 0, fio->io.nr_pages, value);
	bool same = memcmp(expected->io.buf, fio->io.buf, fio->io.nr_pages * FSW_PAGE_SIZE) == 0;

	fixture_io_free(expected);
	return same;
}

/* Reads, and compares with what fixture_do wrote with that value. Status, or -EBADMSG. */
static inline int fixture_read(struct fixture *f, uint64_t page, uint64_t nr_pages, uint64_t value)
{
	struct fixture_io *fio = fixture_io_new(IO_READ, page, nr_pages, ~value);
	int status;

	fixture_submit(f, 1, fio);
	status = fixture_wait(f, 1, fio);
	if (status == 0 && !fixture_holds(fio, value))
		status = -EBADMSG;
	fixture_io_free(fio);
	return status;
}

#endif

#include "tests/fakes/uring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct fake_ring {
	struct io_uring_sqe sqes[2 * FAKE_RING_ENTRIES]; /* as many of 128 bytes */
	struct io_uring_cqe cqes[FAKE_RING_ENTRIES];
	unsigned sq_head, sq_flags, cq_head, cq_tail;
	int event_fd;
	unsigned nr_refused;
	void (*carry_out)(const struct io_uring_sqe *sqe);
} rings[FAKE_RING_NR_KINDS];

static enum fake_ring_kind kind_of(unsigned flags)
{
	return flags & IORING_SETUP_SQE128 ? FAKE_RING_128 : FAKE_RING_64;
}

void fake_ring_drive(enum fake_ring_kind kind, void (*carry_out)(const struct io_uring_sqe *sqe))
{
	rings[kind].carry_out = carry_out;
}

void fake_ring_refuse(enum fake_ring_kind kind, unsigned nr)
{
	rings[kind].nr_refused = nr;
}

void fake_ring_complete(enum fake_ring_kind kind, uint64_t user_data, int res)
{
	struct fake_ring *fake = &rings[kind];

	assert(fake->cq_tail - fake->cq_head < FAKE_RING_ENTRIES);
	fake->cqes[fake->cq_tail % FAKE_RING_ENTRIES] = (struct io_uring_cqe){ .user_data = user_data, .res = res };
	io_uring_smp_store_release(&fake->cq_tail, fake->cq_tail + 1);
}

void fake_ring_wake(enum fake_ring_kind kind)
{
	uint64_t one = 1;

	if (write(rings[kind].event_fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

/* ---- what the front end calls of liburing ---- */

int io_uring_submit(struct io_uring *ring)
{
	enum fake_ring_kind kind = kind_of(ring->flags);
	struct fake_ring *fake = &rings[kind];
	unsigned nr = ring->sq.sqe_tail - fake->sq_head;

	if (fake->nr_refused > 0) {
		fake->nr_refused--;
		return -EAGAIN;
	}
	while (fake->sq_head != ring->sq.sqe_tail) {
		const struct io_uring_sqe *sqe = &fake->sqes[(size_t)(fake->sq_head++ % FAKE_RING_ENTRIES) << kind];

		if (sqe->opcode == IORING_OP_NOP)
			fake_ring_complete(kind, sqe->user_data, 0);
		else
			fake->carry_out(sqe);
	}
	ring->sq.sqe_head = fake->sq_head;
	return (int)nr;
}

int io_uring_queue_init(unsigned nr_entries, struct io_uring *ring, unsigned flags)
{
	struct fake_ring *fake = &rings[kind_of(flags)];

	static_assert(FAKE_RING_64 == 0 && FAKE_RING_128 == 1, "is by how much an index is shifted");
	assert(nr_entries <= FAKE_RING_ENTRIES);
	memset(ring, 0, sizeof(*ring));
	fake->sq_head = fake->sq_flags = fake->cq_head = fake->cq_tail = 0;
	ring->flags = flags;
	ring->sq.khead = &fake->sq_head;
	ring->sq.ktail = &ring->sq.sqe_tail;
	ring->sq.kflags = &fake->sq_flags;
	ring->sq.sqes = fake->sqes;
	ring->sq.ring_entries = FAKE_RING_ENTRIES;
	ring->sq.ring_mask = FAKE_RING_ENTRIES - 1;
	ring->cq.khead = &fake->cq_head;
	ring->cq.ktail = &fake->cq_tail;
	ring->cq.cqes = fake->cqes;
	ring->cq.ring_entries = FAKE_RING_ENTRIES;
	ring->cq.ring_mask = FAKE_RING_ENTRIES - 1;
	ring->features = IORING_FEAT_EXT_ARG;
	fake->event_fd = eventfd(0, EFD_CLOEXEC);
	ring->ring_fd = ring->enter_ring_fd = fake->event_fd;
	return fake->event_fd < 0 ? -errno : 0;
}

void io_uring_queue_exit(struct io_uring *ring)
{
	close(ring->ring_fd);
}

int io_uring_register_files(struct io_uring *ring, const int *files, unsigned nr_files)
{
	(void)ring;
	(void)files;
	(void)nr_files;
	return 0;
}

int io_uring_get_events(struct io_uring *ring)
{
	(void)ring;
	return 0;
}

/* What an inline function of liburing.h calls when the ring is empty. */
int __io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **ret_cqe, unsigned nr_submit, unsigned nr_wait,
		       sigset_t *mask)
{
	(void)ring;
	(void)nr_submit;
	(void)nr_wait;
	(void)mask;
	*ret_cqe = NULL;
	return -EAGAIN;
}

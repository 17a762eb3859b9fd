#include "tests/lib/fake_vswap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/rand.h"

/* Also in a build without assertions. */
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "fake_vswap: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

struct vswap_queue {
	struct vswap *vswap;
	struct sys_reactor *reactor;
	struct fsw_io_list pending;
	unsigned nr_pending;
	struct sys_deferred complete;
	struct rand_state rand;
};

struct vswap {
	uint64_t nr_pages;
	unsigned char *memory;
	bool shuffle;
	atomic_bool held;
	atomic_uint nr_held;
	atomic_uint_fast64_t fail_page, fail_nr_pages;
	atomic_uint fail_ops;
	atomic_int fail_status;
	atomic_uint_fast64_t submitted, pages_read, pages_written, pages_discarded, flushes, most_pages;
	unsigned nr_queues;
	struct vswap_queue *queues;
};

static int check(const struct vswap *vswap, const struct fsw_io *io)
{
	bool has_data = io->op == IO_READ || io->op == IO_WRITE;

	if (io->op == IO_FLUSH)
		return 0;
	if (io->op > IO_FLUSH || io->nr_pages == 0 || (has_data && io->nr_pages > IO_MAX_PAGES) ||
	    (has_data && (uintptr_t)io->buf % FSW_PAGE_SIZE != 0))
		return -EINVAL;
	if (io->page >= vswap->nr_pages || io->nr_pages > vswap->nr_pages - io->page)
		return -ERANGE;
	return 0;
}

static int injected(struct vswap *vswap, const struct fsw_io *io)
{
	uint64_t first = atomic_load(&vswap->fail_page);
	uint64_t nr = atomic_load(&vswap->fail_nr_pages);

	if (nr == 0 || !(atomic_load(&vswap->fail_ops) & (1u << io->op)))
		return 0;
	if (io->op != IO_FLUSH && (io->page >= first + nr || first >= io->page + io->nr_pages))
		return 0;
	return atomic_load(&vswap->fail_status);
}

static int perform(struct vswap *vswap, struct fsw_io *io)
{
	size_t len = io->nr_pages << FSW_PAGE_SHIFT;
	int ret = check(vswap, io);

	if (ret == 0)
		ret = injected(vswap, io);
	if (ret < 0)
		return ret;
	switch (io->op) {
	case IO_READ:
		memcpy(io->buf, fake_vswap_page(vswap, io->page), len);
		atomic_fetch_add(&vswap->pages_read, io->nr_pages);
		break;
	case IO_WRITE:
		memcpy(fake_vswap_page(vswap, io->page), io->buf, len);
		atomic_fetch_add(&vswap->pages_written, io->nr_pages);
		break;
	case IO_FLUSH:
		atomic_fetch_add(&vswap->flushes, 1);
		return 0;
	default:
		/* Refused for locked memory. */
		if (madvise(fake_vswap_page(vswap, io->page), len, MADV_DONTNEED) < 0)
			memset(fake_vswap_page(vswap, io->page), 0, len);
		atomic_fetch_add(&vswap->pages_discarded, io->nr_pages);
		return 0;
	}
	if (io->nr_pages > atomic_load(&vswap->most_pages))
		atomic_store(&vswap->most_pages, io->nr_pages);
	return 0;
}

static struct fsw_io *pick(struct vswap_queue *queue)
{
	struct fsw_io *io = TAILQ_FIRST(&queue->pending);

	if (queue->vswap->shuffle)
		for (uint64_t skip = rand_below(&queue->rand, queue->nr_pending); skip > 0; skip--)
			io = TAILQ_NEXT(io, vs.link);
	TAILQ_REMOVE(&queue->pending, io, vs.link);
	queue->nr_pending--;
	return io;
}

static void on_complete(struct sys_deferred *deferred)
{
	struct vswap_queue *queue = BASE_CONTAINER_OF(deferred, struct vswap_queue, complete);
	struct vswap *vswap = queue->vswap;

	/* What done submits completes in a round of its own. */
	for (unsigned nr = queue->nr_pending; nr > 0 && !atomic_load(&vswap->held); nr--) {
		struct fsw_io *io = pick(queue);

		atomic_fetch_sub(&vswap->nr_held, 1);
		io->done(io, perform(vswap, io));
	}
}

uint64_t vswap_nr_pages(const struct vswap *vswap)
{
	return vswap->nr_pages;
}

struct vswap_queue *vswap_queue(struct vswap *vswap, unsigned index)
{
	CHECK(index < vswap->nr_queues);
	return &vswap->queues[index];
}

struct sys_reactor *vswap_queue_reactor(const struct vswap_queue *queue)
{
	return queue->reactor;
}

void vswap_submit(struct vswap_queue *queue, struct fsw_io *io)
{
	CHECK(sys_reactor_self() == queue->reactor);
	CHECK(io->done);
	/* A front end checks before it submits: what vswap would refuse is a mistake here. */
	CHECK(check(queue->vswap, io) == 0);
	TAILQ_INSERT_TAIL(&queue->pending, io, vs.link);
	queue->nr_pending++;
	atomic_fetch_add(&queue->vswap->submitted, 1);
	atomic_fetch_add(&queue->vswap->nr_held, 1);
	sys_reactor_defer(queue->reactor, &queue->complete);
}

struct vswap *fake_vswap_open(const struct fake_vswap_options *options)
{
	struct vswap *vswap = calloc(1, sizeof(*vswap));

	CHECK(vswap && options->nr_queues > 0);
	vswap->nr_pages = options->nr_pages;
	vswap->shuffle = options->shuffle_seed != 0;
	vswap->memory = mmap(NULL, options->nr_pages << FSW_PAGE_SHIFT, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(vswap->memory != MAP_FAILED);
	vswap->nr_queues = options->nr_queues;
	vswap->queues = calloc(options->nr_queues, sizeof(*vswap->queues));
	CHECK(vswap->queues);
	for (unsigned i = 0; i < options->nr_queues; i++) {
		struct vswap_queue *queue = &vswap->queues[i];

		queue->vswap = vswap;
		queue->reactor = options->reactors[i];
		queue->complete.run = on_complete;
		queue->rand.s = options->shuffle_seed + i;
		TAILQ_INIT(&queue->pending);
	}
	return vswap;
}

void fake_vswap_close(struct vswap *vswap)
{
	CHECK(atomic_load(&vswap->nr_held) == 0);
	munmap(vswap->memory, vswap->nr_pages << FSW_PAGE_SHIFT);
	free(vswap->queues);
	free(vswap);
}

unsigned char *fake_vswap_page(struct vswap *vswap, uint64_t page)
{
	return vswap->memory + (page << FSW_PAGE_SHIFT);
}

void fake_vswap_fail(struct vswap *vswap, uint64_t page, uint64_t nr_pages, unsigned op_mask, int status)
{
	atomic_store(&vswap->fail_nr_pages, 0);
	atomic_store(&vswap->fail_page, page);
	atomic_store(&vswap->fail_ops, op_mask);
	atomic_store(&vswap->fail_status, status);
	atomic_store(&vswap->fail_nr_pages, nr_pages);
}

static void let_go(void *arg)
{
	struct vswap_queue *queue = arg;

	sys_reactor_defer(queue->reactor, &queue->complete);
}

void fake_vswap_hold(struct vswap *vswap, bool hold)
{
	atomic_store(&vswap->held, hold);
	if (hold)
		return;
	for (unsigned i = 0; i < vswap->nr_queues; i++)
		sys_reactor_call(vswap->queues[i].reactor, let_go, &vswap->queues[i]);
}

unsigned fake_vswap_nr_held(struct vswap *vswap)
{
	return atomic_load(&vswap->nr_held);
}

void fake_vswap_counters(struct vswap *vswap, struct fake_vswap_counters *ret_counters)
{
	*ret_counters = (struct fake_vswap_counters){
		.submitted = atomic_load(&vswap->submitted),
		.pages_read = atomic_load(&vswap->pages_read),
		.pages_written = atomic_load(&vswap->pages_written),
		.pages_discarded = atomic_load(&vswap->pages_discarded),
		.flushes = atomic_load(&vswap->flushes),
		.most_pages = atomic_load(&vswap->most_pages),
	};
}

/* deps: tests_fault_device */
/*
 * The virtual swap layer on real threads: two queues and the mover, each on a reactor of its own, over the loop transport.
 * Each queue writes, reads back and discards pages that only it touches; both also write the same few pages, of which a
 * read must show one of the whole values; and all the while one backend after the other is drained and the books are
 * checked. For ThreadSanitizer above all.
 */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/rand.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "tests/fault/device.h"

#define NR_QUEUES 2u
#define NR_LENDERS 2u
#define NR_OWN 3000u   /* pages of each queue */
#define NR_SHARED 16u  /* pages of both, at the start of the device */
#define NR_PAGES (NR_SHARED + NR_QUEUES * NR_OWN)
#define NR_IOS 8u
#define NR_OPS 40000u /* of each queue */

struct worker;

struct thread_io {
	struct fsw_io io;
	struct worker *worker;
	uint64_t version[IO_MAX_PAGES]; /* WRITE: what each page gets */
};

struct worker {
	struct vswap_queue *queue;
	unsigned number;
	struct rand_state rand;
	struct sys_message start;
	struct thread_io io[NR_IOS];
	char *buffers;
	uint64_t version[NR_OWN]; /* what each own page holds, 0: zeros */
	bool in_use[NR_OWN];
	uint64_t next_version;
	unsigned nr_started, nr_done;
	unsigned nr_wrong, nr_errors;
	sem_t over;
};

static void fill(void *bytes, uint64_t page, uint64_t version)
{
	struct rand_state rand = { .s = version * 1000003 + page };
	uint64_t *words = bytes;
	unsigned i;

	if (version == 0 || version % 4 == 0) {
		memset(bytes, 0, FSW_PAGE_SIZE);
		return;
	}
	words[0] = version;
	for (i = 1; i < FSW_PAGE_SIZE / 8; i++)
		words[i] = rand_next(&rand);
}

static bool holds(const void *bytes, uint64_t page, uint64_t version)
{
	uint64_t expected[FSW_PAGE_SIZE / 8];

	fill(expected, page, version);
	return memcmp(expected, bytes, FSW_PAGE_SIZE) == 0;
}

static bool is_shared(const struct fsw_io *io)
{
	return io->page < NR_SHARED;
}

static uint64_t own_index(const struct worker *worker, uint64_t page)
{
	return page - NR_SHARED - worker->number * NR_OWN;
}

/* A shared page holds zeros, or exactly what one write put there, which its first word tells. */
static void check(struct worker *worker, struct thread_io *t)
{
	uint64_t i;

	for (i = 0; i < t->io.nr_pages; i++) {
		const char *bytes = (const char *)t->io.buf + i * FSW_PAGE_SIZE;
		uint64_t page = t->io.page + i;
		uint64_t version = is_shared(&t->io) ? *(const uint64_t *)(const void *)bytes
						     : worker->version[own_index(worker, page)];

		worker->nr_wrong += !holds(bytes, page, version);
	}
}

static void submit(struct thread_io *t);

static void done(struct fsw_io *io, int status)
{
	struct thread_io *t = BASE_CONTAINER_OF(io, struct thread_io, io);
	struct worker *worker = t->worker;
	uint64_t i;

	worker->nr_errors += status < 0;
	if (io->op == IO_READ && status == 0)
		check(worker, t);
	for (i = 0; !is_shared(io) && i < io->nr_pages; i++) {
		if (io->op != IO_READ && status == 0)
			worker->version[own_index(worker, io->page + i)] = io->op == IO_WRITE ? t->version[i] : 0;
		worker->in_use[own_index(worker, io->page + i)] = false;
	}
	worker->nr_done++;
	if (worker->nr_started < NR_OPS)
		submit(t);
	else if (worker->nr_done == worker->nr_started)
		sem_post(&worker->over);
}

/* A range of own pages that no other request of this worker is at. */
static void choose(struct worker *worker, struct fsw_io *io)
{
	uint64_t first, nr, i;

	do {
		nr = rand_below(&worker->rand, 4) ? 1 : 1 + rand_below(&worker->rand, 64);
		first = rand_below(&worker->rand, NR_OWN - nr + 1);
		for (i = 0; i < nr && !worker->in_use[first + i]; i++)
			;
	} while (i < nr);
	for (i = 0; i < nr; i++)
		worker->in_use[first + i] = true;
	io->page = NR_SHARED + worker->number * NR_OWN + first;
	io->nr_pages = nr;
}

static void submit(struct thread_io *t)
{
	struct worker *worker = t->worker;
	unsigned what = (unsigned)rand_below(&worker->rand, 10);
	uint64_t i;

	t->io.op = what < 4 ? IO_READ : what < 9 ? IO_WRITE : IO_DISCARD;
	if (rand_below(&worker->rand, 8) == 0) {
		t->io.page = rand_below(&worker->rand, NR_SHARED);
		t->io.nr_pages = 1;
	} else {
		choose(worker, &t->io);
	}
	for (i = 0; t->io.op == IO_WRITE && i < t->io.nr_pages; i++) {
		t->version[i] = ++worker->next_version * NR_QUEUES + worker->number;
		fill((char *)t->io.buf + i * FSW_PAGE_SIZE, t->io.page + i, t->version[i]);
	}
	worker->nr_started++;
	vswap_submit(worker->queue, &t->io);
}

static void start(struct sys_message *message)
{
	struct worker *worker = BASE_CONTAINER_OF(message, struct worker, start);
	unsigned i;

	for (i = 0; i < NR_IOS; i++)
		submit(&worker->io[i]);
}

static struct worker *worker_create(struct vswap *vswap, unsigned number)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	unsigned i;

	assert_non_null(worker);
	worker->queue = vswap_queue(vswap, number);
	worker->number = number;
	worker->rand.s = number + 1;
	worker->buffers = aligned_alloc(FSW_PAGE_SIZE, (size_t)NR_IOS * 64 * FSW_PAGE_SIZE);
	assert_non_null(worker->buffers);
	for (i = 0; i < NR_IOS; i++) {
		worker->io[i].worker = worker;
		worker->io[i].io.buf = worker->buffers + (size_t)i * 64 * FSW_PAGE_SIZE;
		worker->io[i].io.done = done;
	}
	worker->start.run = start;
	sem_init(&worker->over, 0, 0);
	return worker;
}

static void worker_free(struct worker *worker)
{
	sem_destroy(&worker->over);
	free(worker->buffers);
	free(worker);
}

static bool is_over(struct worker *worker)
{
	int value;

	sem_getvalue(&worker->over, &value);
	return value > 0;
}

static struct device *device(uint32_t reserve_tables, unsigned nr_lenders, uint32_t nr_slots)
{
	struct vswap_options options = { .nr_pages = NR_PAGES, .nr_queues = NR_QUEUES, .max_slabs = 16,
					 .reserve_tables = reserve_tables, .seed = 7 };

	return device_create(&options, nr_lenders, nr_slots);
}

static void test_threads(void **state)
{
	struct device *d = device(512, NR_LENDERS, 8192);
	struct worker *worker[NR_QUEUES];
	unsigned i, nr_drains = 0;

	(void)state;
	for (i = 0; i < NR_QUEUES; i++) {
		worker[i] = worker_create(d->vswap, i);
		sys_reactor_send(d->reactor[i], &worker[i]->start);
	}
	while (!is_over(worker[0]) || !is_over(worker[1]))
		device_drain(d, nr_drains++ % NR_LENDERS);
	for (i = 0; i < NR_QUEUES; i++) {
		assert_int_equal(worker[i]->nr_wrong, 0);
		assert_int_equal(worker[i]->nr_errors, 0);
		worker_free(worker[i]);
	}
	device_drain(d, 0); /* and everything that was retired has come back */
	device_free(d);
	print_message("%u drains\n", nr_drains);
}

/* ---- little room, quickly used and given back ---- */

#define SPIN_OPS 3000u
#define SPIN_CLUSTERS 8u
#define SPIN_RUN 64u /* pages that are used at the start of each cluster */

struct spinner {
	struct fsw_io io;
	struct vswap_queue *queue;
	struct rand_state rand;
	struct sys_message start;
	unsigned nr_left, nr_errors;
	sem_t over;
};

static void spin(struct spinner *spinner)
{
	spinner->io.op = rand_below(&spinner->rand, 3) ? IO_WRITE : IO_DISCARD;
	spinner->io.page = rand_below(&spinner->rand, SPIN_CLUSTERS) * 512;
	spinner->io.nr_pages = SPIN_RUN;
	vswap_submit(spinner->queue, &spinner->io);
}

static void spin_done(struct fsw_io *io, int status)
{
	struct spinner *spinner = BASE_CONTAINER_OF(io, struct spinner, io);

	spinner->nr_errors += status < 0;
	if (--spinner->nr_left == 0)
		sem_post(&spinner->over);
	else
		spin(spinner);
}

static void spin_start(struct sys_message *message)
{
	spin(BASE_CONTAINER_OF(message, struct spinner, start));
}

/*
 * What is used at most fits: 8 runs of 64 pages, and one under way in each queue. But slots and tables that were given back
 * come free only after a while, and two queues are quicker than that. No write may be told that there is no room.
 */
static void test_room_on_its_way_back_is_room(void **state)
{
	struct device *d = device(16, 1, 1024);
	struct spinner spinner[NR_QUEUES];
	struct vswap_stats stats;
	unsigned i, j;

	(void)state;
	for (i = 0; i < NR_QUEUES; i++) {
		spinner[i] = (struct spinner){ .queue = vswap_queue(d->vswap, i), .rand = { .s = i + 1 },
					       .start = { .run = spin_start }, .nr_left = SPIN_OPS };
		sem_init(&spinner[i].over, 0, 0);
		spinner[i].io.done = spin_done;
		spinner[i].io.buf = aligned_alloc(FSW_PAGE_SIZE, SPIN_RUN * FSW_PAGE_SIZE);
		assert_non_null(spinner[i].io.buf);
		for (j = 0; j < SPIN_RUN; j++)
			fill((char *)spinner[i].io.buf + j * FSW_PAGE_SIZE, j, i * 4 + 1);
		sys_reactor_send(d->reactor[i], &spinner[i].start);
	}
	for (i = 0; i < NR_QUEUES; i++) {
		while (sem_wait(&spinner[i].over) < 0)
			;
		assert_int_equal(spinner[i].nr_errors, 0);
		sem_destroy(&spinner[i].over);
		free(spinner[i].io.buf);
	}
	vswap_stats(d->vswap, &stats);
	device_free(d);
	print_message("%llu waits for room\n", (unsigned long long)stats.nr_room_waits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_room_on_its_way_back_is_room),
	};

	log_init("test_vswap_threads", LOG_LEVEL_WARNING);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

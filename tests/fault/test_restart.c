/* deps: client_state client_vswap */
/*
 * A daemon that is killed while its device is in use, and the next one: a process writes, reads, discards and drains over two
 * places in memory that it shares with this test, and is ended by SIGKILL at any moment, again and again. The one after it
 * maps the state file, and must find what was acknowledged. A request that was under way then may have been done or not, or
 * its page may not be readable; as the kernel does with a ublk device's, it is made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/backend/books.h"
#include "client/state/state.h"
#include "client/vswap/admin.h"
#include "common/base/rand.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"

#define NR_QUEUES 2u
#define NR_PLACES 2u
#define NR_SLABS 4u /* of each */
#define SLAB_SLOTS 1024u
#define NR_OWN 1500u /* pages of each queue; those of both fit into one place's slabs */
#define NR_PAGES (NR_QUEUES * NR_OWN)
#define NR_IOS 6u
#define MAX_IO_PAGES 16u
#define NR_KILLS 40u
#define MAX_LIFE_MS 60u

/* What a page held or may hold, by the version of its bytes; 0: zeros. In memory that outlives each process. */
struct page_record {
	uint32_t acknowledged;
	uint32_t asked; /* by the last request, if that is not done */
	bool under_way;
};

struct world {
	struct page_record page[NR_PAGES];
	uint32_t next_version;
	uint32_t nr_found[4]; /* of the requests under way: done, not done, unreadable; and moved pages */
	bool ready;
	char slots[NR_PLACES][NR_SLABS][SLAB_SLOTS][FSW_PAGE_SIZE];
};

static struct world *world;
static char state_path[128];

/* ---- the places ---- */

struct place {
	struct backend backend;
	struct backend_slab slab[NR_SLABS];
	unsigned number;
	struct place_queue {
		struct backend_io_list done;
		struct sys_deferred complete;
		struct sys_reactor *reactor;
	} queue[NR_QUEUES + 1];
};

static void place_complete(struct sys_deferred *deferred)
{
	struct place_queue *queue = BASE_CONTAINER_OF(deferred, struct place_queue, complete);
	struct backend_io *io;

	while ((io = TAILQ_FIRST(&queue->done))) {
		TAILQ_REMOVE(&queue->done, io, link);
		io->done(io, 0);
	}
}

static int place_submit(struct backend *backend, unsigned number, struct backend_io *io)
{
	struct place *place = BASE_CONTAINER_OF(backend, struct place, backend);
	struct place_queue *queue = &place->queue[number];
	char *slot = world->slots[place->number][io->slab->index][io->slot];

	if (!backend_io_is_in_range(io))
		return -EINVAL;
	for (uint32_t i = 0; i < io->nr_iov; i++) {
		if (io->op == IO_READ)
			memcpy(io->iov[i].iov_base, slot, io->iov[i].iov_len);
		else
			memcpy(slot, io->iov[i].iov_base, io->iov[i].iov_len);
		slot += io->iov[i].iov_len;
	}
	TAILQ_INSERT_TAIL(&queue->done, io, link);
	sys_reactor_defer(queue->reactor, &queue->complete);
	return 0;
}

static const struct backend_ops place_ops = { .name = "shared", .submit = place_submit };

/* ---- the device ---- */

struct worker;

struct worker_io {
	struct fsw_io io;
	struct worker *worker;
	uint32_t version[MAX_IO_PAGES];
};

struct worker {
	struct vswap_queue *queue;
	uint64_t first;
	struct rand_state rand;
	struct sys_message start;
	struct worker_io io[NR_IOS];
	char *buffers;
	bool in_use[NR_OWN];
	/* While it looks at what was left. */
	uint64_t next;
	sem_t looked;
};

static struct vswap *vswap;
static struct sys_reactor *reactor[NR_QUEUES + 1];
static struct place places[NR_PLACES];
static struct worker workers[NR_QUEUES];

/* In the child: says what is wrong, and ends it. */
#define MUST(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1); \
		} \
	} while (0)

/* Every fourth version is of one word, which needs no slot. */
static void fill(void *bytes, uint64_t page, uint32_t version)
{
	struct rand_state rand = { .s = (uint64_t)version << 32 | page };
	uint64_t *words = bytes;

	for (unsigned i = 0; i < FSW_PAGE_SIZE / 8; i++)
		words[i] = version == 0 ? 0 : version % 4 == 0 ? version : rand_next(&rand);
}

static bool holds(const void *bytes, uint64_t page, uint32_t version)
{
	uint64_t expected[FSW_PAGE_SIZE / 8];

	fill(expected, page, version);
	return memcmp(expected, bytes, FSW_PAGE_SIZE) == 0;
}

static void make_slabs(struct state *state, bool again)
{
	for (unsigned p = 0; p < NR_PLACES; p++) {
		struct place *place = &places[p];

		MUST(vswap_backend_add(vswap, &place->backend) == 0);
		for (unsigned s = 0; s < NR_SLABS; s++) {
			place->slab[s] = (struct backend_slab){ .backend = &place->backend, .index = s, .key = s + 1,
								.nr_slots = SLAB_SLOTS };
			if (!again)
				MUST(vswap_slab_add(vswap, &place->slab[s]) == 0);
		}
	}
	for (uint32_t id = 0; again && id < state_max_slabs(state); id++) {
		const struct state_slab *record = state_slab(state, id);
		struct backend_slab *slab;

		if (atomic_load(&record->status) != STATE_SLAB_HELD)
			continue;
		MUST(record->session < NR_PLACES && record->index < NR_SLABS);
		slab = &places[record->session].slab[record->index];
		MUST(record->key == slab->key && record->nr_slots == slab->nr_slots);
		slab->id = id;
		MUST(vswap_slab_add_again(vswap, slab) == 0);
	}
}

static void make_device(void)
{
	struct state_shape shape = { .nr_pages = NR_PAGES, .nr_queues = NR_QUEUES, .max_slabs = 16 };
	struct vswap_options options = { .nr_pages = NR_PAGES, .nr_queues = NR_QUEUES, .max_slabs = 16 };
	char error[STATE_ERROR_MAX] = "";
	struct state *state;
	uint64_t nr_lost = 0;

	if (state_open(state_path, &shape, &state, error) < 0) {
		fprintf(stderr, "%s\n", error);
		_exit(1);
	}
	MUST(!state_is_left(state) || state_check_shape(state, &shape, error) == 0);
	options.state = state;
	MUST(vswap_create(&options, &vswap) == 0);
	for (unsigned i = 0; i <= NR_QUEUES; i++) {
		struct sys_reactor_options of_thread = { .name = i < NR_QUEUES ? "queue" : "mover", .cpu = -1 };

		MUST(sys_reactor_create(&of_thread, &reactor[i]) == 0);
		vswap_queue_bind(vswap, i, reactor[i]);
	}
	for (unsigned p = 0; p < NR_PLACES; p++) {
		places[p] = (struct place){ .number = p,
					    .backend = { .ops = &place_ops, .kind = BACKEND_REMOTE, .state = BACKEND_UP,
							 .nr_queues = NR_QUEUES + 1, .record = p } };
		snprintf(places[p].backend.name, sizeof(places[p].backend.name), "place-%u", p);
		for (unsigned i = 0; i <= NR_QUEUES; i++) {
			TAILQ_INIT(&places[p].queue[i].done);
			places[p].queue[i].complete.run = place_complete;
			places[p].queue[i].reactor = reactor[i];
		}
	}
	make_slabs(state, state_is_left(state));
	if (state_is_left(state)) {
		MUST(vswap_rebuild(vswap, &nr_lost) == 0);
		MUST(nr_lost == 0);
		MUST(vswap_check(vswap) == 0);
	}
	for (unsigned i = 0; i <= NR_QUEUES; i++)
		MUST(sys_reactor_start(reactor[i]) == 0);
}

/* ---- what was left ---- */

static void look_at_next(struct worker *worker);

static void wrote_again(struct fsw_io *io, int status)
{
	struct worker_io *w = BASE_CONTAINER_OF(io, struct worker_io, io);

	MUST(status == 0);
	world->page[io->page].acknowledged = world->page[io->page].asked;
	world->page[io->page].under_way = false;
	look_at_next(w->worker);
}

static void looked(struct fsw_io *io, int status)
{
	struct worker_io *w = BASE_CONTAINER_OF(io, struct worker_io, io);
	struct page_record *record = &world->page[io->page];

	if (!record->under_way) {
		MUST(status == 0);
		MUST(holds(io->buf, io->page, record->acknowledged));
		look_at_next(w->worker);
		return;
	}
	MUST(status < 0 || holds(io->buf, io->page, record->asked) || holds(io->buf, io->page, record->acknowledged));
	world->nr_found[status < 0 ? 2 : holds(io->buf, io->page, record->asked) ? 0 : 1]++;
	fill(io->buf, io->page, record->asked);
	io->op = IO_WRITE;
	io->done = wrote_again;
	vswap_submit(w->worker->queue, io);
}

static void look_at_next(struct worker *worker)
{
	struct fsw_io *io = &worker->io[0].io;

	if (worker->next == NR_OWN) {
		sem_post(&worker->looked);
		return;
	}
	io->op = IO_READ;
	io->page = worker->first + worker->next++;
	io->nr_pages = 1;
	io->done = looked;
	vswap_submit(worker->queue, io);
}

static void start_to_look(struct sys_message *message)
{
	look_at_next(BASE_CONTAINER_OF(message, struct worker, start));
}

/* ---- use ---- */

static void use(struct worker_io *w);

static void used(struct fsw_io *io, int status)
{
	struct worker_io *w = BASE_CONTAINER_OF(io, struct worker_io, io);

	MUST(status == 0);
	for (uint64_t i = 0; i < io->nr_pages; i++) {
		struct page_record *record = &world->page[io->page + i];

		if (io->op == IO_READ)
			MUST(holds((char *)io->buf + i * FSW_PAGE_SIZE, io->page + i, record->acknowledged));
		else
			record->acknowledged = record->asked;
		atomic_signal_fence(memory_order_seq_cst);
		record->under_way = false;
		w->worker->in_use[io->page + i - w->worker->first] = false;
	}
	use(w);
}

static void choose(struct worker *worker, struct fsw_io *io)
{
	uint64_t first, nr, i;

	do {
		nr = 1 + rand_below(&worker->rand, MAX_IO_PAGES);
		first = rand_below(&worker->rand, NR_OWN - nr + 1);
		for (i = 0; i < nr && !worker->in_use[first + i]; i++)
			;
	} while (i < nr);
	for (i = 0; i < nr; i++)
		worker->in_use[first + i] = true;
	io->page = worker->first + first;
	io->nr_pages = nr;
}

static void use(struct worker_io *w)
{
	struct worker *worker = w->worker;
	unsigned what = (unsigned)rand_below(&worker->rand, 10);

	choose(worker, &w->io);
	w->io.op = what < 3 ? IO_READ : what < 9 ? IO_WRITE : IO_DISCARD;
	w->io.done = used;
	for (uint64_t i = 0; w->io.op != IO_READ && i < w->io.nr_pages; i++) {
		struct page_record *record = &world->page[w->io.page + i];

		record->asked = w->io.op == IO_DISCARD ? 0 : __atomic_add_fetch(&world->next_version, 1, __ATOMIC_RELAXED);
		atomic_signal_fence(memory_order_seq_cst);
		record->under_way = true;
		fill((char *)w->io.buf + i * FSW_PAGE_SIZE, w->io.page + i, record->asked);
	}
	atomic_signal_fence(memory_order_seq_cst);
	vswap_submit(worker->queue, &w->io);
}

static void start_to_use(struct sys_message *message)
{
	struct worker *worker = BASE_CONTAINER_OF(message, struct worker, start);

	for (unsigned i = 0; i < NR_IOS; i++)
		use(&worker->io[i]);
}

static void make_worker(struct worker *worker, unsigned number, uint64_t seed)
{
	*worker = (struct worker){ .queue = vswap_queue(vswap, number), .first = number * NR_OWN };
	worker->rand.s = seed + number;
	worker->buffers = aligned_alloc(FSW_PAGE_SIZE, (size_t)NR_IOS * MAX_IO_PAGES * FSW_PAGE_SIZE);
	MUST(worker->buffers);
	for (unsigned i = 0; i < NR_IOS; i++) {
		worker->io[i].worker = worker;
		worker->io[i].io.buf = worker->buffers + (size_t)i * MAX_IO_PAGES * FSW_PAGE_SIZE;
	}
	sem_init(&worker->looked, 0, 0);
}

/* One place after the other is emptied, so that pages are on their way at every moment. */
static void drain_for_ever(void)
{
	struct vswap_drain_options options = { .window_pages = 64 };
	struct vswap_drain_progress progress;

	for (unsigned p = 0;; p = (p + 1) % NR_PLACES) {
		MUST(vswap_drain(vswap, &places[p].backend, &options) == 0);
		do {
			MUST(vswap_refill(vswap) == 0);
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
			vswap_drain_progress(vswap, &places[p].backend, &progress);
		} while (progress.state == VSWAP_DRAIN_RUNNING);
		MUST(progress.state == VSWAP_DRAIN_DRAINED);
		__atomic_add_fetch(&world->nr_found[3], (uint32_t)progress.nr_moved, __ATOMIC_RELAXED);
		MUST(vswap_undrain(vswap, &places[p].backend) == 0);
	}
}

/* A page that was under way when a daemon died is told of by the next one, rightly. */
static void be_quiet(enum log_level level, const char *text, void *arg)
{
	(void)level;
	(void)text;
	(void)arg;
}

/* The life of one daemon: it ends only by SIGKILL, unless it is the last one, which only looks. */
static _Noreturn void live(uint64_t seed, bool last)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_set_writer(be_quiet, NULL);
	sys_rcu_thread_init();
	make_device();
	for (unsigned i = 0; i < NR_QUEUES; i++)
		make_worker(&workers[i], i, seed);
	for (unsigned i = 0; i < NR_QUEUES; i++) {
		workers[i].start.run = start_to_look;
		sys_reactor_send(reactor[i], &workers[i].start);
	}
	for (unsigned i = 0; i < NR_QUEUES; i++)
		while (sem_wait(&workers[i].looked) < 0)
			;
	if (last)
		_exit(0);
	world->ready = true;
	for (unsigned i = 0; i < NR_QUEUES; i++) {
		workers[i].start.run = start_to_use;
		sys_reactor_send(reactor[i], &workers[i].start);
	}
	drain_for_ever();
	_exit(1);
}

/* ---- the test ---- */

static pid_t begin_life(uint64_t seed, bool last)
{
	pid_t pid;

	world->ready = false;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		live(seed, last);
	return pid;
}

static void pause_us(uint64_t us)
{
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 }, NULL);
}

static void wait_until_ready(pid_t pid)
{
	int status;

	while (!*(volatile bool *)&world->ready) {
		assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
		pause_us(1000);
	}
}

static void test_acknowledged_pages_outlive_the_daemon(void **state)
{
	const char *text = getenv("FARSWAP_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	struct rand_state rand = { .s = seed };
	int status;
	pid_t pid;

	(void)state;
	printf("FARSWAP_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < NR_KILLS; i++) {
		pid = begin_life(rand_next(&rand), false);
		wait_until_ready(pid);
		pause_us(rand_below(&rand, MAX_LIFE_MS * 1000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		/* Not one that has found something wrong. */
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	pid = begin_life(rand_next(&rand), true);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	printf("requests under way: %u done, %u not, %u unreadable until they were made again; %u pages moved\n",
	       world->nr_found[0], world->nr_found[1], world->nr_found[2], world->nr_found[3]);
	assert_true(world->nr_found[0] + world->nr_found[1] + world->nr_found[2] > 0 && world->nr_found[3] > 0);
}

static int setup(void **state)
{
	(void)state;
	log_init("test_restart", LOG_LEVEL_ERROR);
	snprintf(state_path, sizeof(state_path), "/dev/shm/farswap-test-restart.%d", (int)getpid());
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return world == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(state_path);
	return munmap(world, sizeof(*world));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acknowledged_pages_outlive_the_daemon),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

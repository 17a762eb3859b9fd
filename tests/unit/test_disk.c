/* deps: client_backend_disk common_sys */

/* The disk backend on a file of the folder that the test is run in, with reactors of its own. */

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/backend/disk/disk.h"
#include "common/base/rand.h"
#include "common/log/log.h"

#define NR_QUEUES 2
#define DEPTH 4
#define SLAB_BYTES (4ull << 20)
#define NR_SLABS 3
#define SLAB_SLOTS (uint32_t)(SLAB_BYTES >> FSW_PAGE_SHIFT)
#define PENDING 1

struct state {
	char folder[32];
	char path[64];
	struct sys_reactor *reactors[NR_QUEUES];
	struct backend *backend;
	struct backend_slab *slab[NR_SLABS];
	bool submitting[NR_QUEUES]; /* the reactor's own */
	sem_t done;
};

struct test_io {
	struct backend_io bio;
	struct iovec iov[TRANSPORT_MAX_IOV];
	struct state *state;
	unsigned queue;
	int status;
	struct test_io *then; /* what done submits */
};

static struct disk_options options_of(struct state *state)
{
	return (struct disk_options){
		.path = state->path,
		.size_bytes = NR_SLABS * SLAB_BYTES,
		.slab_bytes = SLAB_BYTES,
		.reactors = state->reactors,
		.nr_queues = NR_QUEUES,
		.queue_depth = DEPTH,
	};
}

static int folder_open(void **arg)
{
	struct state *state = calloc(1, sizeof(*state));
	struct sys_reactor_options options = { .name = "test", .cpu = -1 };

	assert_non_null(state);
	strcpy(state->folder, "test_disk.XXXXXX");
	assert_non_null(mkdtemp(state->folder));
	snprintf(state->path, sizeof(state->path), "%s/file", state->folder);
	assert_int_equal(sem_init(&state->done, 0, 0), 0);
	for (unsigned i = 0; i < NR_QUEUES; i++) {
		assert_int_equal(sys_reactor_create(&options, &state->reactors[i]), 0);
		assert_int_equal(sys_reactor_start(state->reactors[i]), 0);
	}
	*arg = state;
	return 0;
}

static int folder_close(void **arg)
{
	struct state *state = *arg;

	for (unsigned i = 0; i < NR_QUEUES; i++) {
		sys_reactor_stop(state->reactors[i]);
		sys_reactor_free(state->reactors[i]);
	}
	sem_destroy(&state->done);
	unlink(state->path);
	assert_int_equal(rmdir(state->folder), 0);
	free(state);
	return 0;
}

static int disk_open(void **arg)
{
	struct disk_options options;
	struct state *state;
	int ret;

	folder_open(arg);
	state = *arg;
	options = options_of(state);
	ret = disk_create(&options, &state->backend);
	if (ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -EPERM) {
		/* A file system without O_DIRECT, or a kernel that keeps io_uring to itself. */
		folder_close(arg);
		printf("no disk here: %s\n", strerror(-ret));
		exit(77);
	}
	assert_int_equal(ret, 0);
	for (unsigned i = 0; i < NR_SLABS; i++) {
		state->slab[i] = disk_slab_get(state->backend);
		assert_non_null(state->slab[i]);
	}
	return 0;
}

static int disk_close(void **arg)
{
	disk_free(((struct state *)*arg)->backend);
	return folder_close(arg);
}

static void test_done(struct backend_io *bio, int status)
{
	struct test_io *io = BASE_CONTAINER_OF(bio, struct test_io, bio);
	struct state *state = io->state;
	int ret;

	/* Not cmocka's, which are for the test's own thread. */
	assert(io->status == PENDING && !state->submitting[io->queue]);
	assert(sys_reactor_self() == state->reactors[io->queue]);
	io->status = status;
	if (io->then) {
		ret = backend_submit(state->backend, io->then->queue, &io->then->bio);
		assert(ret == 0);
		return; /* the one after it tells */
	}
	sem_post(&state->done);
}

/* An operation on nr_slots slots from `slot` on, its bytes cut into nr_iov pieces of whole pages. */
static void io_init(struct state *state, struct test_io *io, enum io_op op, unsigned slab, uint32_t slot,
		    uint32_t nr_slots, char *bytes, unsigned nr_iov)
{
	uint32_t nr_taken = 0;

	memset(io, 0, sizeof(*io));
	io->state = state;
	io->status = PENDING;
	for (unsigned i = 0; i < nr_iov; i++) {
		uint32_t nr = i == nr_iov - 1 ? nr_slots - nr_taken : nr_slots / nr_iov;

		io->iov[i].iov_base = bytes + (size_t)nr_taken * FSW_PAGE_SIZE;
		io->iov[i].iov_len = (size_t)nr * FSW_PAGE_SIZE;
		nr_taken += nr;
	}
	io->bio = (struct backend_io){
		.op = (uint8_t)op,
		.slot = slot,
		.nr_slots = nr_slots,
		.slab = state->slab[slab],
		.iov = io->iov,
		.nr_iov = nr_iov,
		.done = test_done,
	};
}

struct submit_call {
	struct test_io *io;
	unsigned nr;
	int ret;
};

static void submit_here(void *arg)
{
	struct submit_call *call = arg;

	for (unsigned i = 0; i < call->nr; i++) {
		struct test_io *io = &call->io[i];

		io->state->submitting[io->queue] = true;
		call->ret = backend_submit(io->state->backend, io->queue, &io->bio);
		io->state->submitting[io->queue] = false;
	}
}

/* All of one queue, in one turn. What the last submit said. */
static int submit(struct test_io *io, unsigned nr)
{
	struct submit_call call = { .io = io, .nr = nr };

	sys_reactor_call(io->state->reactors[io->queue], submit_here, &call);
	return call.ret;
}

static void wait_for(struct state *state, unsigned nr)
{
	while (nr > 0)
		if (sem_wait(&state->done) == 0)
			nr--;
}

static int run(struct test_io *io)
{
	assert_int_equal(submit(io, 1), 0);
	wait_for(io->state, 1);
	return io->status;
}

static char *pages(uint32_t nr, uint64_t seed)
{
	struct rand_state rand = { seed };
	uint64_t *words = aligned_alloc(FSW_PAGE_SIZE, (size_t)nr * FSW_PAGE_SIZE);

	assert_non_null(words);
	for (size_t i = 0; i < (size_t)nr * FSW_PAGE_SIZE / sizeof(*words); i++)
		words[i] = seed ? rand_next(&rand) : 0;
	return (char *)words;
}

static void round_trips(void **arg)
{
	static const struct {
		uint32_t slab, slot, nr_slots;
		unsigned nr_out, nr_in;
	} runs[] = {
		{ 0, 0, 1, 1, 1 },
		{ 2, SLAB_SLOTS - 1, 1, 1, 1 },
		{ 1, 0, IO_MAX_PAGES, 1, 64 },
		{ 1, SLAB_SLOTS - IO_MAX_PAGES, IO_MAX_PAGES, 64, 1 },
		{ 0, 7, 129, 3, 64 },
		{ 2, 100, 64, 64, 5 },
	};
	struct state *state = *arg;
	struct test_io io;

	for (unsigned i = 0; i < BASE_ARRAY_SIZE(runs); i++) {
		size_t len_bytes = (size_t)runs[i].nr_slots * FSW_PAGE_SIZE;
		char *out = pages(runs[i].nr_slots, i + 1), *in = pages(runs[i].nr_slots, 0);

		io_init(state, &io, IO_WRITE, runs[i].slab, runs[i].slot, runs[i].nr_slots, out, runs[i].nr_out);
		assert_int_equal(run(&io), 0);
		io_init(state, &io, IO_READ, runs[i].slab, runs[i].slot, runs[i].nr_slots, in, runs[i].nr_in);
		io.queue = 1;
		assert_int_equal(run(&io), 0);
		assert_memory_equal(in, out, len_bytes);
		free(out);
		free(in);
	}
	assert_int_equal(atomic_load(&state->backend->counters[0].pages_written), 2 + 2 * IO_MAX_PAGES + 129 + 64);
	assert_int_equal(atomic_load(&state->backend->counters[1].pages_read), 2 + 2 * IO_MAX_PAGES + 129 + 64);
	assert_true(atomic_load(&state->backend->latency_ns) > 0);
}

/* Neither its neighbours nor the same slot of another slab are touched by a write. */
static void stays_in_its_place(void **arg)
{
	struct state *state = *arg;
	char *out = pages(1, 1), *in = pages(3, 1), *zero = pages(1, 0);
	struct test_io io;

	io_init(state, &io, IO_WRITE, 1, 11, 1, out, 1);
	assert_int_equal(run(&io), 0);
	io_init(state, &io, IO_READ, 1, 10, 3, in, 1);
	assert_int_equal(run(&io), 0);
	assert_memory_equal(in, zero, FSW_PAGE_SIZE);
	assert_memory_equal(in + FSW_PAGE_SIZE, out, FSW_PAGE_SIZE);
	assert_memory_equal(in + 2 * FSW_PAGE_SIZE, zero, FSW_PAGE_SIZE);
	for (unsigned slab = 0; slab < NR_SLABS; slab += 2) {
		io_init(state, &io, IO_READ, slab, 11, 1, in, 1);
		assert_int_equal(run(&io), 0);
		assert_memory_equal(in, zero, FSW_PAGE_SIZE);
	}
	free(out);
	free(in);
	free(zero);
}

/* Many more than the ring takes, on both queues. */
static void many_at_once(void **arg)
{
	enum { NR = 50 };
	struct state *state = *arg;
	char *out = pages(2 * NR, 3), *in = pages(2 * NR, 0);
	struct test_io *io = calloc(2 * NR, sizeof(*io));

	for (int op = IO_WRITE; op >= IO_READ; op--) {
		for (unsigned i = 0; i < 2 * NR; i++) {
			io_init(state, &io[i], (enum io_op)op, 0, i, 1,
				(op == IO_WRITE ? out : in) + (size_t)i * FSW_PAGE_SIZE, 1);
			io[i].queue = i / NR;
		}
		assert_int_equal(submit(io, NR), 0);
		assert_int_equal(submit(io + NR, NR), 0);
		wait_for(state, 2 * NR);
		for (unsigned i = 0; i < 2 * NR; i++)
			assert_int_equal(io[i].status, 0);
	}
	assert_memory_equal(in, out, 2 * NR * FSW_PAGE_SIZE);
	free(io);
	free(in);
	free(out);
}

static void done_may_submit(void **arg)
{
	struct state *state = *arg;
	char *out = pages(1, 4), *in = pages(1, 0);
	struct test_io write, read;

	io_init(state, &write, IO_WRITE, 0, 0, 1, out, 1);
	io_init(state, &read, IO_READ, 0, 0, 1, in, 1);
	write.then = &read;
	assert_int_equal(run(&write), 0);
	assert_int_equal(read.status, 0);
	assert_memory_equal(in, out, FSW_PAGE_SIZE);
	free(in);
	free(out);
}

static void bad_operations_are_refused(void **arg)
{
	struct state *state = *arg;
	char *bytes = pages(2, 1);
	struct test_io io;

	io_init(state, &io, IO_READ, 0, SLAB_SLOTS - 1, 2, bytes, 1);
	assert_int_equal(submit(&io, 1), -EINVAL);
	io_init(state, &io, IO_READ, 0, SLAB_SLOTS, 1, bytes, 1);
	assert_int_equal(submit(&io, 1), -EINVAL);
	/* Pieces of more or less than the slots would read, or write, what is somebody else's. */
	io_init(state, &io, IO_WRITE, 0, 0, 2, bytes, 1);
	io.bio.nr_slots = 1;
	assert_int_equal(submit(&io, 1), -EINVAL);
	io_init(state, &io, IO_WRITE, 0, 0, 1, bytes, 1);
	io.bio.nr_slots = 2;
	assert_int_equal(submit(&io, 1), -EINVAL);
	free(bytes);
}

/* The file is cut off by somebody: what is beyond its end is an error, what crosses it too, what is before it is there. */
static void end_of_file_is_an_error(void **arg)
{
	struct state *state = *arg;
	char *bytes = pages(8, 1);
	struct test_io io;

	assert_int_equal(truncate(state->path, (off_t)(SLAB_BYTES + 3 * FSW_PAGE_SIZE)), 0);
	io_init(state, &io, IO_READ, 2, 0, 1, bytes, 1);
	assert_int_equal(run(&io), -EIO);
	for (unsigned nr_iov = 1; nr_iov <= 4; nr_iov++) { /* stops inside a piece, and between two */
		io_init(state, &io, IO_READ, 1, 0, 8, bytes, nr_iov);
		assert_int_equal(run(&io), -EIO);
	}
	io_init(state, &io, IO_READ, 1, 0, 3, bytes, 1);
	assert_int_equal(run(&io), 0);
	assert_int_equal(backend_state(state->backend), BACKEND_UP);
	assert_int_equal(atomic_load(&state->backend->counters[0].read_errors), 5);
	free(bytes);
}

static void slabs_are_lent_once(void **arg)
{
	struct state *state = *arg;

	assert_int_equal(disk_nr_slabs(state->backend), NR_SLABS);
	assert_null(disk_slab_get(state->backend));
	for (unsigned i = 0; i < NR_SLABS; i++) {
		assert_ptr_equal(state->slab[i]->backend, state->backend);
		assert_int_equal(state->slab[i]->nr_slots, SLAB_SLOTS);
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(state->slab[i]->index, state->slab[j]->index);
	}
	disk_slab_put(state->backend, state->slab[1]);
	assert_ptr_equal(disk_slab_get(state->backend), state->slab[1]);
	assert_null(disk_slab_get(state->backend));
}

static void file_is_allocated_and_kept(void **arg)
{
	struct state *state = *arg;
	struct disk_options options = options_of(state);
	struct backend *again = NULL;
	struct stat st;

	assert_int_equal(stat(state->path, &st), 0);
	assert_int_equal(st.st_size, NR_SLABS * SLAB_BYTES);
	assert_true((uint64_t)st.st_blocks * 512 >= NR_SLABS * SLAB_BYTES);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(disk_create(&options, &again), -EBUSY);
	assert_null(again);
	assert_int_equal(stat(state->path, &st), 0);

	disk_free(state->backend);
	state->backend = NULL;
	/* A smaller backend in a file that is there leaves it as long as it was. */
	options.size_bytes = SLAB_BYTES;
	assert_int_equal(disk_create(&options, &state->backend), 0);
	assert_int_equal(disk_nr_slabs(state->backend), 1);
	assert_int_equal(stat(state->path, &st), 0);
	assert_int_equal(st.st_size, NR_SLABS * SLAB_BYTES);
}

static void check_refused(struct state *state, const struct disk_options *options, int err)
{
	struct backend *backend = NULL;

	assert_int_equal(disk_create(options, &backend), err);
	assert_null(backend);
	assert_int_equal(access(state->path, F_OK), -1); /* nothing is left behind */
}

static void bad_options_are_refused(void **arg)
{
	struct state *state = *arg;
	const struct disk_options good = options_of(state);
	struct disk_options options[9];
	struct disk_options other = good;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(options); i++)
		options[i] = good;
	options[0].size_bytes = 0;
	options[1].size_bytes++;
	options[2].slab_bytes = 3u << 20;
	options[3].slab_bytes = 512u << 10;
	options[4].slab_bytes = 2ull << 30;
	options[5].nr_queues = 0;
	options[6].nr_queues = BACKEND_MAX_QUEUES + 1;
	options[7].queue_depth = 0;
	options[8].queue_depth = 1u << 20;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(options); i++)
		check_refused(state, &options[i], -EINVAL);
	other.size_bytes = 1ull << 50;
	check_refused(state, &other, -ENOSPC);
	other = good;
	other.path = state->folder;
	check_refused(state, &other, -ENOTBLK);
	other.path = "test_disk.missing/file";
	check_refused(state, &other, -ENOENT);
	disk_free(NULL);
}

int main(void)
{
#define DISK(name) cmocka_unit_test_setup_teardown(name, disk_open, disk_close)
	const struct CMUnitTest tests[] = {
		DISK(round_trips),
		DISK(stays_in_its_place),
		DISK(many_at_once),
		DISK(done_may_submit),
		DISK(bad_operations_are_refused),
		DISK(end_of_file_is_an_error),
		DISK(slabs_are_lent_once),
		DISK(file_is_allocated_and_kept),
		cmocka_unit_test_setup_teardown(bad_options_are_refused, folder_open, folder_close),
	};

	log_init("test_disk", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}

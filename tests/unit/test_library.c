/* deps: client_lib */

/* The library on a disk, a file in the folder that the test is run in; tests/integ/test_library.py has servers. */

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/lib/farswap.h"
#include "common/base/base.h"
#include "common/rpc/rpc.h"

#define NR_QUEUES 2u
#define SLAB_BYTES (1ull << 20)

struct state {
	char folder[32];
	char path[64];
	struct farswap *farswap;
};

static struct farswap_options options_of(const struct state *state)
{
	return (struct farswap_options){
		.size = sizeof(struct farswap_options),
		.nr_entries = 2000,
		.nr_queues = NR_QUEUES,
		.disk = state->path,
		.disk_bytes = 16 * SLAB_BYTES,
		.disk_slab_bytes = SLAB_BYTES,
	};
}

static void open_it(struct state *state, const struct farswap_options *options)
{
	char error[FARSWAP_ERROR_MAX] = "";
	int ret = farswap_open(options, &state->farswap, error, sizeof(error));

	if (ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -EPERM) {
		/* A file system without O_DIRECT, or a kernel that keeps io_uring to itself. */
		unlink(state->path);
		rmdir(state->folder);
		printf("no disk here: %s\n", error);
		exit(77);
	}
	assert_string_equal(error, "");
	assert_int_equal(ret, 0);
}

static int setup(void **arg)
{
	struct state *state = calloc(1, sizeof(*state));

	assert_non_null(state);
	strcpy(state->folder, "test_library.XXXXXX");
	assert_non_null(mkdtemp(state->folder));
	snprintf(state->path, sizeof(state->path), "%s/file", state->folder);
	*arg = state;
	return 0;
}

static int setup_open(void **arg)
{
	struct farswap_options options;

	setup(arg);
	options = options_of(*arg);
	open_it(*arg, &options);
	return 0;
}

static int teardown(void **arg)
{
	struct state *state = *arg;

	assert_int_equal(farswap_close(state->farswap), 0);
	unlink(state->path);
	assert_int_equal(rmdir(state->folder), 0);
	free(state);
	return 0;
}

static struct farswap_stats stats_of(struct farswap *farswap)
{
	struct farswap_stats stats = { .size = sizeof(stats) };

	assert_int_equal(farswap_stats(farswap, &stats), 0);
	return stats;
}

/* ---- a page, and its steps on the thread of a queue ---- */

struct page {
	struct folio folio;
	struct vswap_queue *queue;
	swp_entry_t entry;
	int err; /* of the last step */
	sem_t io_done;
	_Atomic unsigned nr_released;
};

static void page_released(struct folio *folio, void *arg)
{
	struct page *page = arg;

	free(folio->data);
	atomic_fetch_add(&page->nr_released, 1);
}

static void page_create(struct vswap_queue *queue, void *arg)
{
	struct page *page = arg;
	uint32_t *data = aligned_alloc(FSW_PAGE_SIZE, FSW_PAGE_SIZE);

	assert(data);
	for (uint32_t i = 0; i < FSW_PAGE_SIZE / sizeof(*data); i++)
		data[i] = i * 0x9e3779b9u;
	page->queue = queue;
	folio_init(&page->folio, data, 0, page_released, page);
	if (!folio_trylock(&page->folio))
		abort();
}

static void page_alloc(struct vswap_queue *queue, void *arg)
{
	struct page *page = arg;

	page_create(queue, page);
	page->err = folio_alloc_swap(queue, &page->folio, 0, &page->entry);
}

static void page_hold(struct vswap_queue *queue, void *arg)
{
	struct page *page = arg;

	page->err = folio_dup_swap(queue, &page->folio, FOLIO_ALL);
}

static void page_io_done(struct folio *folio, int status, void *arg)
{
	struct page *page = arg;

	(void)folio;
	page->err = status;
	sem_post(&page->io_done);
}

static void page_store(struct vswap_queue *queue, void *arg)
{
	struct page *page = arg;

	page->err = vswap_store_folio(queue, &page->folio, page_io_done, page);
	if (page->err < 0)
		sem_post(&page->io_done);
}

/* Out of the cache; the folio's last reference is put. */
static void page_drop(struct vswap_queue *queue, void *arg)
{
	struct page *page = arg;

	if (folio_flags(&page->folio) & FOLIO_SWAPCACHE)
		page->err = put_swap_folio(queue, &page->folio, page->entry);
	folio_unlock(queue, &page->folio);
	folio_put(&page->folio);
}

static void page_put(struct vswap_queue *queue, void *arg)
{
	struct page *page = arg;

	page->err = swap_put_entries_direct(queue, page->entry, 1);
}

static void step(struct state *state, struct page *page, void (*fn)(struct vswap_queue *queue, void *arg))
{
	page->err = -EINPROGRESS;
	farswap_call(farswap_queue(state->farswap, 0), fn, page);
	if (fn == page_store)
		sem_wait(&page->io_done);
}

/* What is in the cache, or held, or both, keeps the farswap open, and as it is. */
static void test_it_stays_open_while_anything_is_live(void **arg)
{
	struct state *state = *arg;
	struct page page = { .err = 0 };

	sem_init(&page.io_done, 0, 0);
	step(state, &page, page_alloc);
	assert_int_equal(page.err, 0);
	assert_int_equal(stats_of(state->farswap).nr_folio, 1);
	assert_int_equal(farswap_close(state->farswap), -EBUSY);
	step(state, &page, page_hold);
	assert_int_equal(page.err, 0);
	step(state, &page, page_store);
	assert_int_equal(page.err, 0);
	assert_int_equal(stats_of(state->farswap).nr_disk, 1);
	assert_int_equal(stats_of(state->farswap).nr_pages_written, 1);
	assert_int_equal(farswap_close(state->farswap), -EBUSY);
	step(state, &page, page_drop);
	assert_int_equal(page.err, 0);
	assert_int_equal(farswap_close(state->farswap), -EBUSY);
	step(state, &page, page_put);
	assert_int_equal(page.err, 0);
	assert_int_equal(farswap_close(state->farswap), 0);
	state->farswap = NULL;
	assert_int_equal(atomic_load(&page.nr_released), 1);
	sem_destroy(&page.io_done);
}

/* A reference that was put just before the end is no exception. */
static void test_folios_are_released_by_the_end(void **arg)
{
	struct state *state = *arg;
	struct page page[20] = { { .err = 0 } };

	for (unsigned i = 0; i < BASE_ARRAY_SIZE(page); i++) {
		farswap_call(farswap_queue(state->farswap, i % NR_QUEUES), page_create, &page[i]);
		farswap_call(farswap_queue(state->farswap, (i + 1) % NR_QUEUES), page_drop, &page[i]);
	}
	assert_int_equal(farswap_close(state->farswap), 0);
	state->farswap = NULL;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(page); i++)
		assert_int_equal(atomic_load(&page[i].nr_released), 1);
}

static void test_compressed_pages_are_counted(void **arg)
{
	struct state *state = *arg;
	struct farswap_options options = options_of(state);
	struct page page = { .err = 0 };
	struct farswap_stats stats;

	options.comp_limit_bytes = 4 << 20;
	options.comp_algorithm = FARSWAP_COMP_ZSTD;
	open_it(state, &options);
	sem_init(&page.io_done, 0, 0);
	step(state, &page, page_alloc);
	assert_int_equal(page.err, 0);
	memset((char *)page.folio.data + 64, 7, FSW_PAGE_SIZE - 64);
	step(state, &page, page_hold);
	step(state, &page, page_store);
	assert_int_equal(page.err, 0);
	stats = stats_of(state->farswap);
	assert_int_equal(stats.nr_comp, 1);
	assert_true(stats.comp_used_bytes > 0);
	step(state, &page, page_drop);
	assert_int_equal(farswap_close(state->farswap), -EBUSY);
	step(state, &page, page_put);
	assert_int_equal(farswap_close(state->farswap), 0); /* before the page goes: its release is due */
	state->farswap = NULL;
	sem_destroy(&page.io_done);
}

/* Each has entries, threads and backends of its own. */
static void test_two_at_once(void **arg)
{
	struct state *state = *arg, other = { .farswap = NULL };
	struct farswap_options options;
	struct page page[2] = { { .err = 0 } };
	struct state *states[] = { state, &other };

	snprintf(other.path, sizeof(other.path), "%s/other", state->folder);
	options = options_of(&other);
	open_it(&other, &options);
	for (unsigned i = 0; i < 2; i++) {
		sem_init(&page[i].io_done, 0, 0);
		step(states[i], &page[i], page_alloc);
		step(states[i], &page[i], page_hold);
		step(states[i], &page[i], page_store);
		assert_int_equal(page[i].err, 0);
		step(states[i], &page[i], page_drop);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(stats_of(states[i]->farswap).nr_disk, 1);
		step(states[i], &page[i], page_put);
		assert_int_equal(page[i].err, 0);
		assert_int_equal(farswap_close(states[i]->farswap), 0);
		states[i]->farswap = NULL;
		sem_destroy(&page[i].io_done);
	}
	unlink(other.path);
}

/* ---- queues ---- */

struct round {
	struct farswap_task task;
	pthread_t *thread; /* where the first of the queue ran */
	unsigned *nr;	   /* of its queue that have run */
	unsigned number;
	unsigned nr_runs, nr_wrong;
	sem_t *done;
};

static void round_run(struct vswap_queue *queue, struct farswap_task *task)
{
	struct round *round = BASE_CONTAINER_OF(task, struct round, task);

	if (round->nr_runs++ == 0) {
		if (round->number == 0)
			*round->thread = pthread_self();
		round->nr_wrong += !pthread_equal(*round->thread, pthread_self()) || (*round->nr)++ != round->number;
		farswap_run(queue, task); /* from the queue's own thread: never at once */
		round->nr_wrong += round->nr_runs != 1;
		return;
	}
	sem_post(round->done);
}

static void test_tasks_run_in_order_on_their_queue(void **arg)
{
	struct state *state = *arg;
	struct round rounds[NR_QUEUES][50];
	unsigned nr[NR_QUEUES] = { 0 };
	pthread_t thread[NR_QUEUES];
	sem_t done;

	sem_init(&done, 0, 0);
	for (unsigned i = 0; i < 50; i++) {
		for (unsigned q = 0; q < NR_QUEUES; q++) {
			rounds[q][i] = (struct round){ .task.run = round_run, .thread = &thread[q], .nr = &nr[q],
						       .number = i, .done = &done };
			farswap_run(farswap_queue(state->farswap, q), &rounds[q][i].task);
		}
	}
	for (unsigned i = 0; i < 50 * NR_QUEUES; i++)
		sem_wait(&done);
	for (unsigned i = 0; i < 50; i++)
		for (unsigned q = 0; q < NR_QUEUES; q++)
			assert_int_equal(rounds[q][i].nr_wrong, 0);
	assert_false(pthread_equal(thread[0], thread[1]) || pthread_equal(thread[0], pthread_self()));
	assert_null(farswap_queue(state->farswap, NR_QUEUES));
	assert_null(farswap_queue(state->farswap, UINT32_MAX));
	sem_destroy(&done);
}

/* ---- options ---- */

static void assert_refused(const struct farswap_options *options, int err, const char *text)
{
	struct farswap *farswap = (struct farswap *)1;
	char error[FARSWAP_ERROR_MAX] = "";

	assert_int_equal(farswap_open(options, &farswap, error, sizeof(error)), err);
	if (strncmp(error, text, strlen(text)) != 0)
		fail_msg("'%s' does not begin with '%s'", error, text);
	assert_null(strchr(error, '\n'));
	assert_ptr_equal(farswap, (struct farswap *)1);
	assert_int_equal(farswap_open(options, &farswap, NULL, 0), err);
}

#define REFUSED(text, ...) \
	do { \
		struct farswap_options options = options_of(state); \
		__VA_ARGS__; \
		assert_refused(&options, -EINVAL, text); \
	} while (0)

static void test_each_mistake_is_named(void **arg)
{
	static const char *const twice[] = { "host:1", "host:1" }, *const bad[] = { "host" }, *const none[] = { NULL };
	struct state *state = *arg;
	char longest[65];

	memset(longest, 'n', 64);
	longest[64] = '\0';
	REFUSED("nr_entries: 0 ", options.nr_entries = 0);
	REFUSED("nr_entries: 4294967295 ", options.nr_entries = UINT32_MAX);
	REFUSED("nr_queues: 0 is not 1 to 32", options.nr_queues = 0);
	REFUSED("nr_queues: 33 ", options.nr_queues = 33);
	REFUSED("nr_folio_ios: 4097 ", options.nr_folio_ios = 4097);
	REFUSED("servers: neither a server nor a disk", options.disk = NULL, options.disk_bytes = 0);
	REFUSED("servers: 'host' is not host:port", options.servers = bad, options.nr_servers = 1);
	REFUSED("servers: 'host:1' is given twice", options.servers = twice, options.nr_servers = 2);
	REFUSED("servers: there are none", options.nr_servers = 1);
	REFUSED("servers: number 0 is NULL", options.servers = none, options.nr_servers = 1);
	REFUSED("nr_servers: 64 ", options.nr_servers = 64);
	REFUSED("queue_depth: 1025 ", options.queue_depth = 1025);
	REFUSED("disk_bytes: is given without a disk", options.disk = NULL, options.nr_servers = 1, options.servers = twice);
	REFUSED("disk_bytes: 16777217 ", options.disk_bytes++);
	REFUSED("disk_slab_bytes: 3145728 ", options.disk_slab_bytes = 3 * SLAB_BYTES);
	REFUSED("comp_limit_bytes: 1 ", options.comp_limit_bytes = 1);
	REFUSED("comp_algorithm: 2 ", options.comp_algorithm = 2);
	REFUSED("name: ", options.name = longest);
	REFUSED("max_slabs: 262145 ", options.max_slabs = (1 << 18) + 1);
	REFUSED("spin_us: 1000001 ", options.spin_us = 1000001);
	REFUSED("start_timeout_ms: 9 ", options.start_timeout_ms = 9);
	REFUSED("connect_timeout_ms: 1 ", options.connect_timeout_ms = 1);
	REFUSED("dead_after_ms: 49 ", options.dead_after_ms = 49);
	REFUSED("patience_ms: 86400001 ", options.patience_ms = 86400001);
	REFUSED("lost_after_ms: 86400001 ", options.lost_after_ms = 86400001);
	REFUSED("queues: number 0 cannot be started on cpu 1000000", options.cpus = (const int[]){ 1000000, -1, -1 });
}

static void test_what_cannot_be_had_is_named(void **arg)
{
	static const char *const refusing[] = { "127.0.0.1:1" };
	struct state *state = *arg;
	struct farswap_options options = options_of(state);

	options.disk = "/nonexistent/file";
	assert_refused(&options, -ENOENT, "disk: /nonexistent/file cannot be used: No such file");
	options.disk = NULL;
	options.disk_bytes = 0;
	options.servers = refusing;
	options.nr_servers = 1;
	options.start_timeout_ms = 10;
	assert_refused(&options, -ETIMEDOUT, "servers: none has given any room within start_timeout (10ms)");
}

/* Of this version, of an older one, and of a newer one whose news are not used, or are. */
static void test_structures_may_grow(void **arg)
{
	struct state *state = *arg;
	struct newer_options {
		struct farswap_options options;
		uint64_t news;
	} newer = { .options = options_of(state) };
	struct newer_stats {
		struct farswap_stats stats;
		uint64_t news, behind;
	} stats = { .news = 1, .behind = 2 };

	newer.options.size = 0;
	assert_refused(&newer.options, -EINVAL, "size: 0 ");
	newer.options.size = sizeof(newer.options) - 1;
	assert_refused(&newer.options, -EINVAL, "size: ");
	newer.options.size = UINT64_MAX;
	assert_refused(&newer.options, -E2BIG, "size: ");
	newer.options.size = sizeof(newer);
	newer.news = 1;
	assert_refused(&newer.options, -E2BIG, "size: ");
	newer.news = 0;
	open_it(state, &newer.options);

	stats.stats.size = sizeof(stats.stats) + sizeof(stats.news);
	assert_int_equal(farswap_stats(state->farswap, &stats.stats), 0);
	assert_int_equal(stats.stats.size, sizeof(stats.stats) + sizeof(stats.news));
	assert_int_equal(stats.news, 0);
	assert_int_equal(stats.behind, 2);
	assert_true(stats.stats.nr_slots >= 256);
	stats.stats.size = sizeof(stats.stats) - 8;
	stats.stats.nr_slots = 77;
	assert_int_equal(farswap_stats(state->farswap, &stats.stats), -EINVAL);
	assert_int_equal(stats.stats.nr_slots, 77);
}

static void test_the_disk_has_books(void **arg)
{
	struct farswap_server_stats stats = { .size = sizeof(stats) };
	struct state *state = *arg;
	struct page page = { .err = 0 };

	assert_int_equal(farswap_server_stats(state->farswap, "10.0.0.1:7770", &stats), -ENOENT);
	sem_init(&page.io_done, 0, 0);
	step(state, &page, page_alloc);
	step(state, &page, page_hold);
	step(state, &page, page_store);
	assert_int_equal(page.err, 0);
	assert_int_equal(farswap_server_stats(state->farswap, "disk", &stats), 0);
	assert_int_equal(stats.size, sizeof(stats));
	assert_int_equal(stats.state, FARSWAP_SERVER_UP);
	assert_int_equal(stats.nr_used_slots, 1);
	assert_int_equal(stats.nr_slots, stats_of(state->farswap).nr_slots);
	assert_int_equal(stats.nr_pages_written, 1);
	assert_int_equal(stats.nr_pages_read + stats.nr_read_errors + stats.nr_write_errors, 0);
	step(state, &page, page_drop);
	step(state, &page, page_put);
	assert_int_equal(farswap_close(state->farswap), 0);
	state->farswap = NULL;
	sem_destroy(&page.io_done);
}

/* ---- drain ---- */

static void test_drains_of_the_disk(void **arg)
{
	struct state *state = *arg;
	struct farswap_drain_progress progress = { .size = sizeof(progress) };
	struct farswap_drain_options options = { .size = sizeof(options) };

	assert_int_equal(farswap_drain(state->farswap, "10.0.0.1:7770", NULL), -ENOENT);
	assert_int_equal(farswap_undrain(state->farswap, ""), -ENOENT);
	assert_int_equal(farswap_drain_cancel(state->farswap, "disk"), -ENOENT);
	assert_int_equal(farswap_drain_progress(state->farswap, "disk ", &progress), -ENOENT);
	options.target = FARSWAP_DRAIN_TO_DISK;
	assert_int_equal(farswap_drain(state->farswap, "disk", &options), -EINVAL);
	options.target = 3;
	assert_int_equal(farswap_drain(state->farswap, "disk", &options), -EINVAL);
	options.target = FARSWAP_DRAIN_TO_SERVERS;
	options.window_pages = 1025;
	assert_int_equal(farswap_drain(state->farswap, "disk", &options), -EINVAL);
	options.window_pages = 1;
	options.size = 8;
	assert_int_equal(farswap_drain(state->farswap, "disk", &options), -EINVAL);
	assert_int_equal(farswap_drain_progress(state->farswap, "disk", &progress), 0);
	assert_int_equal(progress.state, FARSWAP_DRAIN_NONE);

	options.size = sizeof(options);
	assert_int_equal(farswap_drain(state->farswap, "disk", &options), 0);
	assert_int_equal(farswap_drain_progress(state->farswap, "disk", &progress), 0);
	assert_int_not_equal(progress.state, FARSWAP_DRAIN_NONE);
	assert_int_equal(progress.nr_left, 0);
	assert_int_equal(farswap_undrain(state->farswap, "disk"), 0);
	assert_int_equal(farswap_drain_progress(state->farswap, "disk", &progress), 0);
	assert_int_equal(progress.state, FARSWAP_DRAIN_NONE);
}

/* ---- the process ---- */

/* What /proc says of a thread in one line of its status, as a number of this base. */
static uint64_t status_of(const char *thread, const char *key, int base)
{
	char path[128], line[256];
	uint64_t value = UINT64_MAX;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%s/status", thread);
	file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtoull(line + strlen(key), NULL, base);
	fclose(file);
	return value;
}

static uint64_t default_stack_bytes(void)
{
	pthread_attr_t attributes;
	size_t bytes;

	assert_int_equal(pthread_getattr_default_np(&attributes), 0);
	assert_int_equal(pthread_attr_getstacksize(&attributes, &bytes), 0);
	pthread_attr_destroy(&attributes);
	return bytes;
}

static int oom_score(void)
{
	FILE *file = fopen("/proc/self/oom_score_adj", "re");
	int score = 0;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%d", &score), 1);
	fclose(file);
	return score;
}

struct process {
	uint64_t caught, ignored, blocked, locked, stack_bytes;
	int score;
};

static struct process look_at_process(const char *self)
{
	/* Beyond them, below SIGRTMIN, are those that the C library keeps for itself. */
	const uint64_t signals = (1ull << SIGSYS) - 1;

	return (struct process){
		.caught = status_of(self, "SigCgt:", 16) & signals,
		.ignored = status_of(self, "SigIgn:", 16) & signals,
		.blocked = status_of(self, "SigBlk:", 16) & signals,
		.locked = status_of(self, "VmLck:", 10),
		.stack_bytes = default_stack_bytes(),
		.score = oom_score(),
	};
}

/* The program keeps its signals, and what it does not block comes to its own threads. Its limits are as they were. */
static void test_the_process_is_left_alone(void **arg)
{
	const uint64_t wanted = 1ull << (SIGTERM - 1) | 1ull << (SIGCHLD - 1) | 1ull << (SIGALRM - 1);
	struct state *state = *arg;
	struct farswap_options options = options_of(state);
	struct process before, after;
	struct dirent *entry;
	unsigned nr_others = 0;
	char self[16];
	DIR *folder;

	snprintf(self, sizeof(self), "%d", (int)gettid());
	before = look_at_process(self);
	open_it(state, &options);
	after = look_at_process(self);
	assert_memory_equal(&before, &after, sizeof(before));
	folder = opendir("/proc/self/task");
	assert_non_null(folder);
	while ((entry = readdir(folder)) != NULL) {
		if (entry->d_name[0] == '.' || strcmp(entry->d_name, self) == 0)
			continue;
		assert_int_equal(status_of(entry->d_name, "SigBlk:", 16) & wanted, wanted);
		nr_others++;
	}
	closedir(folder);
	assert_true(nr_others >= NR_QUEUES + 2); /* the mover, and provision */
}

static _Atomic unsigned nr_messages;

static void take_message(enum farswap_log_level level, const char *text, void *arg)
{
	assert(arg == &nr_messages && level <= FARSWAP_LOG_WARNING && !strchr(text, '\n'));
	atomic_fetch_add(&nr_messages, 1);
}

static int end(void **state)
{
	(void)state;
	rpc_done();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: gRPC is started by the first that opens. */
		cmocka_unit_test_setup_teardown(test_the_process_is_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_it_stays_open_while_anything_is_live, setup_open, teardown),
		cmocka_unit_test_setup_teardown(test_folios_are_released_by_the_end, setup_open, teardown),
		cmocka_unit_test_setup_teardown(test_compressed_pages_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_at_once, setup_open, teardown),
		cmocka_unit_test_setup_teardown(test_tasks_run_in_order_on_their_queue, setup_open, teardown),
		cmocka_unit_test_setup_teardown(test_each_mistake_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_cannot_be_had_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(test_structures_may_grow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_disk_has_books, setup_open, teardown),
		cmocka_unit_test_setup_teardown(test_drains_of_the_disk, setup_open, teardown),
	};
	int failed;

	farswap_set_log(FARSWAP_LOG_WARNING, take_message, &nr_messages);
	failed = cmocka_run_group_tests(tests, NULL, end);
	return failed ? failed : atomic_load(&nr_messages) == 0;
}

/*
 * libfarswap by example: what a program does that keeps its pages on other machines.
 *
 *     cc -std=c11 library_demo.c $(pkg-config --cflags --libs libfarswap)
 *     ./library_demo 10.0.0.1:7770 10.0.0.2:7770
 *
 * It stores some hundred folios, keeps nothing of them but their entries, has a second holder for each, as after a fork, and
 * reads them back while the server that holds most is emptied; then once more when it is. What comes back must be what
 * went out.
 *
 * Every folio goes its way on the thread of a queue, in small steps: each call that does I/O is given the function that is
 * called when it is done. main only sends them off, and waits.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <farswap/farswap.h>

#define PAGE_BYTES 4096u
#define NR_FOLIOS 600u
#define NR_ORDERS 5u /* of 1 page to 16 */

/* What a program keeps of a folio that it has given up: what its page table would. */
struct item {
	swp_entry_t entry;
	unsigned order;
	uint64_t seed; /* of its bytes */

	/* While it is in memory. */
	struct farswap_task task;
	struct vswap_queue *queue;
	struct folio folio;
};

static struct item items[NR_FOLIOS];
static sem_t done;	    /* an item has gone its way */
static atomic_uint nr_wrong; /* calls that failed, and pages with other bytes */

static void complain(const char *what, int err)
{
	fprintf(stderr, "library_demo: %s: %s\n", what, strerror(-err));
	atomic_fetch_add(&nr_wrong, 1);
}

static uint32_t nr_pages(const struct item *item)
{
	return 1u << item->order;
}

/* Word number `i` of the item's bytes. */
static uint64_t word_of(const struct item *item, size_t i)
{
	return (item->seed + i) * 0x9e3779b97f4a7c15u;
}

/* ---- a folio in memory ---- */

/* Its last reference has been put, and nobody can find it any more: on a thread of the library's. */
static void folio_released(struct folio *folio, void *arg)
{
	(void)arg;
	free(folio->data);
	sem_post(&done);
}

/* New, locked, and with one reference: ours. */
static bool folio_create(struct item *item)
{
	void *data = aligned_alloc(PAGE_BYTES, (size_t)PAGE_BYTES << item->order);

	if (!data) {
		complain("a folio", -ENOMEM);
		sem_post(&done);
		return false;
	}
	folio_init(&item->folio, data, item->order, folio_released, item);
	return folio_trylock(&item->folio); /* nobody else has it yet */
}

/* Out of the swap cache, if it is there, and released. Whoever holds the entries can have them read in again. */
static void folio_drop(struct item *item)
{
	if (folio_flags(&item->folio) & FOLIO_SWAPCACHE) {
		int err = put_swap_folio(item->queue, &item->folio, item->entry);

		if (err < 0)
			complain("put_swap_folio", err);
	}
	folio_unlock(item->queue, &item->folio);
	folio_put(&item->folio);
}

/* ---- out ---- */

static void stored(struct folio *folio, int status, void *arg)
{
	(void)folio;
	if (status < 0)
		complain("a folio could not be stored", status);
	folio_drop(arg); /* it is clean, so only its entries are needed from now on */
}

static void store(struct vswap_queue *queue, struct farswap_task *task)
{
	struct item *item = (struct item *)((char *)task - offsetof(struct item, task));
	uint64_t *word;
	int err;

	item->queue = queue;
	if (!folio_create(item))
		return;
	word = item->folio.data;
	for (size_t i = 0; i < nr_pages(item) * PAGE_BYTES / sizeof(*word); i++)
		word[i] = word_of(item, i);
	err = folio_alloc_swap(queue, &item->folio, item->order, &item->entry);
	if (err == 0)
		err = folio_dup_swap(queue, &item->folio, FOLIO_ALL); /* we hold its entries */
	if (err == 0)
		err = vswap_store_folio(queue, &item->folio, stored, item);
	if (err < 0) {
		complain("a folio could not be stored", err);
		folio_drop(item);
	}
}

/* ---- a second holder ---- */

static void fork_entries(struct vswap_queue *queue, struct farswap_task *task)
{
	struct item *item = (struct item *)((char *)task - offsetof(struct item, task));

	for (uint32_t i = 0; i < nr_pages(item); i++) {
		int err = swap_dup_entry_direct(queue, (swp_entry_t){ item->entry.val + i });

		if (err < 0)
			complain("swap_dup_entry_direct", err);
	}
	sem_post(&done);
}

/* ---- in ---- */

static void loaded(struct folio *folio, int status, void *arg)
{
	struct item *item = arg;
	const uint64_t *word = folio->data;
	int err;

	for (size_t i = 0; status == 0 && i < nr_pages(item) * PAGE_BYTES / sizeof(*word); i++)
		if (word[i] != word_of(item, i))
			status = -EBADMSG;
	if (status < 0)
		complain("a folio did not come back as it was", status);
	/* One holder less. The last one takes the entries with it. */
	err = swap_put_entries_direct(item->queue, item->entry, nr_pages(item));
	if (err < 0)
		complain("swap_put_entries_direct", err);
	folio_drop(item);
}

static void load(struct vswap_queue *queue, struct farswap_task *task)
{
	struct item *item = (struct item *)((char *)task - offsetof(struct item, task));
	int err;

	item->queue = queue;
	if (!folio_create(item))
		return;
	err = swapcache_prepare(queue, item->entry, nr_pages(item), &item->folio);
	if (err == 0)
		err = swap_read_folio(queue, &item->folio, loaded, item);
	if (err < 0) {
		complain("a folio could not be read", err);
		folio_drop(item);
	}
}

/* ---- all of it ---- */

/* Sends every item to a queue, and waits until all are done. Any queue can work on any entry. */
static void for_all(struct farswap *farswap, uint32_t nr_queues, uint32_t shift,
		    void (*run)(struct vswap_queue *queue, struct farswap_task *task))
{
	for (uint32_t i = 0; i < NR_FOLIOS; i++) {
		items[i].task.run = run;
		farswap_run(farswap_queue(farswap, (i + shift) % nr_queues), &items[i].task);
	}
	for (uint32_t i = 0; i < NR_FOLIOS; i++)
		while (sem_wait(&done) < 0)
			; /* a signal of the program's own */
}

/* Waits for the end of the drain. */
static bool is_drained(struct farswap *farswap, const char *server)
{
	const struct timespec moment = { .tv_nsec = 5000000 };
	struct farswap_drain_progress progress = { .size = sizeof(progress) };
	int err;

	while ((err = farswap_drain_progress(farswap, server, &progress)) == 0 && progress.state == FARSWAP_DRAIN_RUNNING)
		nanosleep(&moment, NULL);
	if (err < 0)
		complain("farswap_drain_progress", err);
	printf("drained %s: %s, %" PRIu64 " pages moved, %" PRIu64 " left\n", server,
	       progress.state == FARSWAP_DRAIN_DRAINED ? "done" : "not done", progress.nr_moved, progress.nr_left);
	return err == 0 && progress.state == FARSWAP_DRAIN_DRAINED;
}

/* Who holds most of the pages. */
static const char *fullest(struct farswap *farswap, const struct farswap_options *options)
{
	const char *server = options->servers[0];
	uint64_t most = 0;

	for (uint32_t i = 0; i < options->nr_servers; i++) {
		struct farswap_server_stats stats = { .size = sizeof(stats) };
		int err = farswap_server_stats(farswap, options->servers[i], &stats);

		if (err < 0)
			complain("farswap_server_stats", err);
		printf("%s holds %" PRIu64 " pages\n", options->servers[i], stats.nr_used_slots);
		if (stats.nr_used_slots > most) {
			most = stats.nr_used_slots;
			server = options->servers[i];
		}
	}
	return server;
}

static void store_and_load(struct farswap *farswap, const struct farswap_options *options)
{
	struct farswap_stats stats = { .size = sizeof(stats) };
	uint32_t nr_queues = options->nr_queues;
	const char *server;
	int err;

	for_all(farswap, nr_queues, 0, store);
	farswap_stats(farswap, &stats);
	printf("stored %u folios, %" PRIu64 " pages\n", NR_FOLIOS, stats.nr_remote);
	server = fullest(farswap, options);
	err = farswap_drain(farswap, server, NULL);
	if (err < 0)
		complain("farswap_drain", err);
	for_all(farswap, nr_queues, 0, fork_entries);
	for_all(farswap, nr_queues, 1, load); /* one holder, while the server is emptied */
	if (!is_drained(farswap, server))
		complain("the server is not empty", -EIO);
	for_all(farswap, nr_queues, 0, load); /* the other one, from where the pages are now */
	farswap_stats(farswap, &stats);
	printf("read them back twice: %" PRIu64 " pages, %" PRIu64 " read errors, %" PRIu64 " wrong checksums\n",
	       stats.nr_pages_read, stats.nr_read_errors, stats.nr_checksum_errors);
	err = farswap_undrain(farswap, server);
	if (err < 0)
		complain("farswap_undrain", err);
}

int main(int argc, char **argv)
{
	struct farswap_options options = {
		.size = sizeof(options),
		.nr_entries = 1u << 16,
		.nr_queues = 2,
		.nr_folio_ios = NR_FOLIOS, /* all at once */
		.ahead_bytes = 16u << 20, /* it stores that much in one go */
		.name = "library_demo",
	};
	struct farswap *farswap;
	char error[FARSWAP_ERROR_MAX];
	int opt, err;

	while ((opt = getopt(argc, argv, "q:t:")) != -1) {
		if (opt == 'q')
			options.nr_queues = (uint32_t)strtoul(optarg, NULL, 10);
		else if (opt == 't')
			options.start_timeout_ms = (uint32_t)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	options.servers = (const char *const *)&argv[optind];
	options.nr_servers = (uint32_t)(argc - optind);
	for (uint32_t i = 0; i < NR_FOLIOS; i++)
		items[i] = (struct item){ .order = i % NR_ORDERS, .seed = (uint64_t)i << 32 };
	sem_init(&done, 0, 0);

	err = farswap_open(&options, &farswap, error, sizeof(error));
	if (err < 0) {
		fprintf(stderr, "library_demo: %s\n", error);
		return 2;
	}
	printf("libfarswap %s, %" PRIu32 " queues\n", farswap_version(), options.nr_queues);
	store_and_load(farswap, &options);
	err = farswap_close(farswap); /* -EBUSY, had anybody still held an entry */
	if (err < 0)
		complain("farswap_close", err);
	else
		printf("closed: nothing is left\n");
	return atomic_load(&nr_wrong) ? 1 : 0;
}

/*
 * A vswap over a backend that keeps no bytes and completes at once, so that what is measured is ours alone; and steps of it
 * that one or two threads repeat.
 */
#ifndef FARSWAP_TESTS_BENCH_DEVICE_H
#define FARSWAP_TESTS_BENCH_DEVICE_H

#include <pthread.h>

#include "client/vswap/internal.h"
#include "tests/bench/bench.h"

#define DEVICE_PAGES (8ull << 20) /* 32 GiB */
#define DEVICE_SLAB_SLOTS 16384u
#define DEVICE_SLABS (DEVICE_PAGES / DEVICE_SLAB_SLOTS)
#define DEVICE_SPARE_SLABS 8u /* for allocations on the full device */
#define DEVICE_QUEUES 2u
#define DEVICE_RUN 512u
#define DEVICE_THREADS 2u

#define DEVICE_SERVERS 2u

struct null_queue {
	struct null_server *server;
	struct sys_poller poller;
	struct backend_io_list pending;
};

/* A backend that keeps no bytes: every page that is read is the one page that the device writes. */
struct null_server {
	struct backend backend;
	struct device *device;
	struct null_queue queue[DEVICE_QUEUES + 1];
};

struct device {
	struct null_server server[DEVICE_SERVERS];
	struct backend_slab slab[DEVICE_SLABS + DEVICE_SPARE_SLABS];
	unsigned nr_slabs;
	struct sys_reactor *reactor[DEVICE_QUEUES + 1];
	struct vswap *vswap;
	struct fsw_io io;
	bool done;
};

/* With a block device of nr_pages, and nr_entries that can be allocated; no slabs yet. */
struct device *device_create(uint64_t nr_pages, uint64_t nr_entries);
void device_free(struct device *device);
void device_add_slabs(struct device *device, unsigned server, unsigned nr);
/* One turn of each reactor. */
void device_turn(struct device *device);
/* One request of DEVICE_RUN pages, until it is done; its bytes are nothing that a SAME page could hold. */
void device_do(struct device *device, enum io_op op, uint64_t page);
/* Writes the pages from first on, a multiple of DEVICE_RUN. */
void device_fill(struct device *device, uint64_t first, uint64_t nr_pages);
/* What submits a request of the device's own calls as its done. */
void device_done(struct fsw_io *io, int status);

struct worker {
	struct device *device;
	unsigned number; /* the thread's, and its queue's */
	uint64_t range_pages;
	unsigned nr_steps;
	void (*run)(struct worker *worker); /* nr_steps times, in a read-side section */
	pthread_t thread;
	pthread_barrier_t *barrier;
	uint64_t elapsed_ns;
	uint64_t sum; /* so that nothing is optimised away */
} __attribute__((aligned(2 * FSW_CACHE_LINE))); /* two do not write to one line, nor to one that is fetched with it */

/*
 * {"ns_1_thread", "ns_2_threads"}: per step, medians of the runs. What `empty` takes, if it is not NULL, is taken off, run by
 * run.
 */
json_t *measure_step(struct device *device, const struct bench_options *options, uint64_t range_pages, unsigned nr_steps,
		     void (*run)(struct worker *worker), void (*empty)(struct worker *worker));

#endif

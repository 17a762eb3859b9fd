/*
 * The data path of a page through the client in one process: the ublk front end, the virtual swap layer, the remote backend
 * and the verbs transport, as farswapd puts them together, between an ublk driver and an RDMA device of tests/fakes. For
 * tests/bench/instructions, which runs it under callgrind; by itself it only shows that it works.
 *
 * The phases are those of `phases`, in order; each ends with a call of page_path_end, at which callgrind writes what has been
 * counted since page_path_begin.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/backend/remote/remote.h"
#include "client/frontend/ublk/internal.h"
#include "client/vswap/admin.h"
#include "common/log/log.h"
#include "common/transport/verbs/verbs.h"
#include "tests/conform/target.h"
#include "tests/fakes/fabric.h"
#include "tests/fakes/ublk.h"

#define INSTANCE 1
#define LEASE 1
#define KEY 1
/* One, which is asked for in the first page: while a reactor waits for the answer, it turns as often as the host lets it. */
#define SLAB_BYTES (64u << 20)
#define NR_PAGES 8192u /* of the device */
#define NR_TAGS 64u
#define SPIN_US 600000000u /* no reactor that has anything to do goes to sleep */
#define PATIENCE_MS 600000u

struct page_path {
	struct target target;
	struct sys_reactor *lender;
	struct verbs_listener *listener;
	struct transport_driver *driver;
	struct sys_reactor *reactors[2]; /* the queue's, and the mover's */
	struct vswap *vswap;
	struct backend *backend;
	struct backend_slab slab;
	struct ublk_queue *queue;
	int fd;
};

/* Known to callgrind by their names, and to nobody else. */
void page_path_begin(void);
void page_path_end(void);

__attribute__((noinline)) void page_path_begin(void)
{
	__asm__ volatile("");
}

__attribute__((noinline)) void page_path_end(void)
{
	__asm__ volatile("");
}

static const struct phase {
	const char *name;
	struct fake_ublk_load load;
} phases[] = {
	/* Its profile is thrown away: what callgrind says of the first has been seen to be more than was run. */
	{ "first", { .write = true, .depth = 1, .in_order = true, .nr_before = 16, .nr_requests = 16 } },
	/* The table of each cluster of 512 pages, and its slots, are taken on the path. */
	{ "write of a new page", { .write = true, .depth = 1, .in_order = true, .nr_before = 1024, .nr_requests = 2048,
				   .nr_after = NR_PAGES - 3072 } },
	{ "read", { .depth = 1, .nr_before = 200, .nr_requests = 1000 } },
	{ "write", { .write = true, .depth = 1, .nr_before = 200, .nr_requests = 1000 } },
	{ "read, 16 at a time", { .depth = 16, .nr_before = 200, .nr_requests = 1000, .nr_after = 16 } },
	{ "write, 16 at a time", { .write = true, .depth = 16, .nr_before = 200, .nr_requests = 1000, .nr_after = 16 } },
};

static void check(const char *what, int ret)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "page_path: %s: %s\n", what, strerror(-ret));
	exit(1);
}

static struct sys_reactor *reactor_create(const char *name, unsigned spin_us)
{
	struct sys_reactor_options options = { .name = name, .cpu = -1, .spin_us = spin_us };
	struct sys_reactor *reactor;

	check("reactor", sys_reactor_create(&options, &reactor));
	return reactor;
}

static void lender_open(struct page_path *path)
{
	struct verbs_listener_options options = {
		.address = "127.0.0.1:0",
		.target = &path->target.head,
		.max_connections = 4,
		.handshake_ms = PATIENCE_MS,
		.silence_ms = PATIENCE_MS,
	};

	target_init(&path->target, INSTANCE);
	target_lease_add(&path->target, LEASE);
	path->slab.index = target_slab_add(&path->target, LEASE, KEY, SLAB_BYTES);
	path->lender = options.reactor = reactor_create("lender", 0);
	check("reactor", sys_reactor_start(path->lender));
	check("lender", verbs_listener_open(&options, &path->listener));
}

static void client_open(struct page_path *path)
{
	struct vswap_options options = { .nr_pages = NR_PAGES, .nr_queues = 1, .max_slabs = 1 };
	struct verbs_driver_options driver = { .gid_index = -1, .service_level = -1 };
	struct remote_options remote = {
		.name = "lender",
		.reactors = path->reactors,
		.nr_queues = 2,
		.queue_depth = 128,
		.dead_ms = PATIENCE_MS,
		.patience_ms = PATIENCE_MS,
	};
	struct remote_session session = { .lease_id = LEASE, .instance_id = INSTANCE, .heartbeat_ms = PATIENCE_MS / 4 };
	struct sys_address address;

	path->reactors[0] = reactor_create("queue", SPIN_US);
	path->reactors[1] = reactor_create("mover", 0);
	check("vswap", vswap_create(&options, &path->vswap));
	for (unsigned i = 0; i < 2; i++) {
		vswap_queue_bind(path->vswap, i, path->reactors[i]);
		check("reactor", sys_reactor_start(path->reactors[i]));
	}
	check("driver", verbs_driver_create(&driver, &path->driver));
	remote.driver = path->driver;
	check("remote", remote_create(&remote, &path->backend));
	check("backend", vswap_backend_add(path->vswap, path->backend));
	verbs_listener_address(path->listener, &address);
	sys_address_format(&address, session.data_address);
	target_token(LEASE, session.token);
	check("session", remote_session_begin(path->backend, &session, PATIENCE_MS));
	path->slab.backend = path->backend;
	path->slab.key = KEY;
	path->slab.nr_slots = SLAB_BYTES >> FSW_PAGE_SHIFT;
	path->slab.session = remote_session_number(path->backend);
	check("slab", vswap_slab_add(path->vswap, &path->slab));
}

static void queue_open(struct page_path *path)
{
	path->queue = aligned_alloc(FSW_CACHE_LINE, sizeof(*path->queue));
	if (!path->queue)
		abort();
	memset(path->queue, 0, sizeof(*path->queue));
	path->fd = fake_ublk_open(NR_TAGS);
	check("queue", ublk_queue_init(path->queue, vswap_queue(path->vswap, 0), path->reactors[0], 0, NR_TAGS, SPIN_US));
	check("queue", ublk_queue_open(path->queue, path->fd, true));
}

/* What a run is meant to show has happened: a doorbell for each request alone, and no byte copied on the path. */
static void run(struct page_path *path, const struct phase *phase)
{
	struct fake_ublk_load load = phase->load;
	uint64_t nr = load.nr_before + load.nr_requests + load.nr_after;
	struct fabric_counters before, after;
	struct verbs_driver_counters copied;

	load.nr_pages = NR_PAGES;
	load.nr_pages_each = 1;
	load.reactor = path->reactors[0];
	load.begin = page_path_begin;
	load.end = page_path_end;
	fabric_counters(&before);
	fake_ublk_run(&load);
	fabric_counters(&after);
	verbs_driver_counters(path->driver, &copied);
	nr -= load.write ? after.nr_writes - before.nr_writes : after.nr_reads - before.nr_reads;
	if (nr != 0 || copied.nr_bounced != 0) {
		fprintf(stderr, "page_path: %s: %lld pages took another path, and %llu were copied\n", phase->name,
			(long long)nr, (unsigned long long)copied.nr_bounced);
		exit(1);
	}
	printf("%s\t%llu\t%.3f\n", phase->name, (unsigned long long)load.nr_requests,
	       (double)(after.nr_doorbells - before.nr_doorbells) /
		       (double)(load.nr_before + load.nr_requests + load.nr_after));
}

static void page_path_close(struct page_path *path)
{
	fake_ublk_stop(path->reactors[0]);
	if (!ublk_queue_close(path->queue)) {
		fprintf(stderr, "page_path: the queue does not end\n");
		exit(1);
	}
	ublk_queue_done(path->queue);
	free(path->queue);
	fake_ublk_close(path->fd);
	remote_session_end(path->backend);
	sys_reactor_stop(path->reactors[0]);
	sys_reactor_stop(path->reactors[1]);
	vswap_free(path->vswap);
	remote_free(path->backend);
	sys_reactor_free(path->reactors[0]);
	sys_reactor_free(path->reactors[1]);
	verbs_driver_free(path->driver);
	verbs_listener_close(path->listener);
	sys_reactor_stop(path->lender);
	sys_reactor_free(path->lender);
	target_done(&path->target);
}

int main(void)
{
	static struct page_path path;

	log_init("page_path", LOG_LEVEL_ERROR);
	lender_open(&path);
	client_open(&path);
	queue_open(&path);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(phases); i++)
		run(&path, &phases[i]);
	page_path_close(&path);
	return 0;
}

/*
 * The servers and the books: what an operator of the daemon asks by farswapctl, a program asks here.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "client/lib/private.h"
#include "common/sys/rcu.h"

/* Sizes in version 0.1.0. */
#define DRAIN_OPTIONS_FIRST_BYTES 24u
#define DRAIN_PROGRESS_FIRST_BYTES 56u
#define STATS_FIRST_BYTES 136u
#define SERVER_STATS_FIRST_BYTES 72u

static_assert(sizeof(struct farswap_drain_options) == DRAIN_OPTIONS_FIRST_BYTES, "part of the ABI");
static_assert(sizeof(struct farswap_drain_progress) == DRAIN_PROGRESS_FIRST_BYTES, "part of the ABI");
static_assert(sizeof(struct farswap_stats) == STATS_FIRST_BYTES, "part of the ABI");
static_assert(sizeof(struct farswap_server_stats) == SERVER_STATS_FIRST_BYTES, "part of the ABI");

static_assert((int)FARSWAP_DRAIN_TO_ANY == VSWAP_DRAIN_TO_ANY &&
		      (int)FARSWAP_DRAIN_TO_SERVERS == VSWAP_DRAIN_TO_REMOTE &&
		      (int)FARSWAP_DRAIN_TO_DISK == VSWAP_DRAIN_TO_DISK,
	      "the same targets");
static_assert((int)FARSWAP_DRAIN_NONE == VSWAP_DRAIN_NONE && (int)FARSWAP_DRAIN_RUNNING == VSWAP_DRAIN_RUNNING &&
		      (int)FARSWAP_DRAIN_DRAINED == VSWAP_DRAIN_DRAINED &&
		      (int)FARSWAP_DRAIN_CANCELLED == VSWAP_DRAIN_CANCELLED &&
		      (int)FARSWAP_DRAIN_DEADLINE == VSWAP_DRAIN_DEADLINE &&
		      (int)FARSWAP_DRAIN_NO_ROOM == VSWAP_DRAIN_NO_ROOM &&
		      (int)FARSWAP_DRAIN_FAILED == VSWAP_DRAIN_FAILED,
	      "the same states");
static_assert((int)FARSWAP_SERVER_CONNECTING == BACKEND_CONNECTING && (int)FARSWAP_SERVER_UP == BACKEND_UP &&
		      (int)FARSWAP_SERVER_DOWN == BACKEND_DOWN && (int)FARSWAP_SERVER_LOST == BACKEND_LOST,
	      "the same states");

#define MAX_WINDOW_PAGES 1024u

/* How long farswap_undrain waits for the drain that it has cancelled, and how often it looks. */
#define UNDRAIN_WAIT_MS 10000u
#define UNDRAIN_POLL_MS 10u

static struct backend *find(const struct node *node, const char *server)
{
	for (unsigned i = 0; i < node->nr_servers; i++)
		if (strcmp(node->remote[i]->name, server) == 0)
			return node->remote[i];
	return node->disk && strcmp(node->disk->name, server) == 0 ? node->disk : NULL;
}

static int take_drain_options(const struct node *node, const struct backend *backend,
			      const struct farswap_drain_options *options, struct vswap_drain_options *ret_options)
{
	struct farswap_drain_options taken = { .target = FARSWAP_DRAIN_TO_ANY };
	int ret = options ? sized_take(options, &taken, sizeof(taken), DRAIN_OPTIONS_FIRST_BYTES) : 0;

	if (ret < 0)
		return ret;
	if (taken.target > FARSWAP_DRAIN_TO_DISK || taken.window_pages > MAX_WINDOW_PAGES ||
	    taken.deadline_ms > UINT64_MAX / SYS_NS_PER_MS / 2)
		return -EINVAL;
	if (taken.target == FARSWAP_DRAIN_TO_DISK && (!node->disk || backend == node->disk))
		return -EINVAL;
	*ret_options = (struct vswap_drain_options){
		.target = (enum vswap_drain_target)taken.target,
		.deadline_ms = taken.deadline_ms,
		.window_pages = taken.window_pages,
	};
	return 0;
}

int farswap_drain(struct farswap *farswap, const char *server, const struct farswap_drain_options *options)
{
	struct node *node = farswap->node;
	struct backend *backend = find(node, server);
	struct vswap_drain_options taken;
	int ret;

	if (!backend)
		return -ENOENT;
	ret = take_drain_options(node, backend, options, &taken);
	if (ret < 0)
		return ret;
	sys_rcu_thread_init();
	ret = drains_start(node->drains, backend, &taken, NULL);
	sys_rcu_thread_done();
	provision_wake(node->provision);
	return ret;
}

int farswap_drain_progress(struct farswap *farswap, const char *server, struct farswap_drain_progress *ret_progress)
{
	struct backend *backend = find(farswap->node, server);
	struct farswap_drain_progress known;
	struct vswap_drain_progress progress;

	if (!backend)
		return -ENOENT;
	sys_rcu_thread_init();
	vswap_drain_progress(farswap->node->vswap, backend, &progress);
	sys_rcu_thread_done();
	known = (struct farswap_drain_progress){
		.state = (uint64_t)progress.state,
		.nr_start = progress.nr_start,
		.nr_moved = progress.nr_moved,
		.nr_left = progress.nr_left,
		.nr_stuck = progress.nr_stuck,
		.elapsed_ns = progress.elapsed_ns,
	};
	return sized_give(&known, sizeof(known), DRAIN_PROGRESS_FIRST_BYTES, ret_progress);
}

int farswap_drain_cancel(struct farswap *farswap, const char *server)
{
	struct backend *backend = find(farswap->node, server);
	int ret;

	if (!backend)
		return -ENOENT;
	sys_rcu_thread_init();
	ret = drains_cancel(farswap->node->drains, backend);
	sys_rcu_thread_done();
	return ret;
}

int farswap_undrain(struct farswap *farswap, const char *server)
{
	const struct timespec poll = { .tv_nsec = UNDRAIN_POLL_MS * SYS_NS_PER_MS };
	struct backend *backend = find(farswap->node, server);
	unsigned waited_ms = 0;
	int ret;

	if (!backend)
		return -ENOENT;
	sys_rcu_thread_init();
	while ((ret = drains_undrain(farswap->node->drains, backend)) == -EINPROGRESS) {
		if (waited_ms >= UNDRAIN_WAIT_MS) {
			ret = -ETIMEDOUT;
			break;
		}
		nanosleep(&poll, NULL);
		waited_ms += UNDRAIN_POLL_MS;
	}
	sys_rcu_thread_done();
	provision_wake(farswap->node->provision);
	return ret;
}

int farswap_stats(struct farswap *farswap, struct farswap_stats *ret_stats)
{
	struct farswap_stats known;
	struct vswap_stats stats;
	struct vswap_space space;

	sys_rcu_thread_init();
	vswap_stats(farswap->node->vswap, &stats);
	vswap_space(farswap->node->vswap, NULL, &space);
	sys_rcu_thread_done();
	known = (struct farswap_stats){
		.nr_remote = stats.nr_remote,
		.nr_disk = stats.nr_disk,
		.nr_same = stats.nr_same,
		.nr_comp = stats.nr_comp,
		.nr_folio = stats.nr_folio,
		.nr_poisoned = stats.nr_poisoned,
		.nr_hibernation = stats.nr_hibernation,
		.nr_pages_read = stats.nr_pages_read,
		.nr_pages_written = stats.nr_pages_written,
		.nr_read_errors = stats.nr_read_errors,
		.nr_write_errors = stats.nr_write_errors,
		.nr_checksum_errors = stats.nr_checksum_errors,
		.nr_slots = space.nr_slots,
		.nr_used_slots = space.nr_used_slots,
		.comp_used_bytes = stats.comp.used_bytes,
		.metadata_bytes = stats.metadata_bytes,
	};
	return sized_give(&known, sizeof(known), STATS_FIRST_BYTES, ret_stats);
}

int farswap_server_stats(struct farswap *farswap, const char *server, struct farswap_server_stats *ret_stats)
{
	struct backend *backend = find(farswap->node, server);
	struct farswap_server_stats known = { .state = FARSWAP_SERVER_CONNECTING };
	struct vswap_space space;

	if (!backend)
		return -ENOENT;
	sys_rcu_thread_init();
	vswap_space(farswap->node->vswap, backend, &space);
	sys_rcu_thread_done();
	known.state = (uint64_t)backend_state(backend);
	known.nr_slots = space.nr_slots;
	known.nr_used_slots = space.nr_used_slots;
	for (unsigned i = 0; i < backend->nr_queues; i++) {
		const struct backend_counters *counters = &backend->counters[i];

		known.nr_pages_read += atomic_load_explicit(&counters->pages_read, memory_order_relaxed);
		known.nr_pages_written += atomic_load_explicit(&counters->pages_written, memory_order_relaxed);
		known.nr_read_errors += atomic_load_explicit(&counters->read_errors, memory_order_relaxed);
		known.nr_write_errors += atomic_load_explicit(&counters->write_errors, memory_order_relaxed);
	}
	known.latency_ns = atomic_load_explicit(&backend->latency_ns, memory_order_relaxed);
	return sized_give(&known, sizeof(known), SERVER_STATS_FIRST_BYTES, ret_stats);
}

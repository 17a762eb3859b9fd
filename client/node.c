#include "client/node.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "client/backend/disk/disk.h"
#include "client/backend/remote/remote.h"
#include "common/base/err.h"
#include "common/config/value.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "common/transport/tcp/tcp.h"
#include "common/transport/verbs/verbs.h"

/* A connection is dead after three beats without an answer. */
#define BEATS_UNTIL_DEAD 3
/*
 * Cluster tables that are kept ready, 2 MiB of device each: what random writes to a new device can ask for before
 * the reserve has been filled again.
 */
#define RESERVE_TABLES 2048u
#define TABLE_PAGES 512u

/* Says in the error's line what could not be had; returns err. */
static BASE_PRINTF(3, 4) int failed(char error[NODE_ERROR_MAX], int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, NODE_ERROR_MAX, fmt, args);
	va_end(args);
	return err;
}

/* ---- the parts, each made by one step, in their order; what a step made is undone by node_free ---- */

static int create_reactors(struct node *node, char error[NODE_ERROR_MAX])
{
	for (unsigned i = 0; i <= node->options.nr_queues; i++) {
		bool mover = i == node->options.nr_queues;
		struct sys_reactor_options options = {
			.cpu = node->options.cpus[i],
			/* The mover has time; what it would burn belongs to the page faults. */
			.spin_us = mover ? 0 : node->options.spin_us,
		};
		char name[16];
		int ret;

		snprintf(name, sizeof(name), mover ? "mover" : "queue-%u", i);
		options.name = name;
		ret = sys_reactor_create(&options, &node->reactor[i]);
		if (ret < 0)
			return failed(error, ret, "queues: number %u cannot be made: %s", i, err_text(ret));
		node->nr_reactors++;
	}
	return 0;
}

static uint64_t nr_all_pages(const struct node *node)
{
	return node->options.nr_pages + node->options.nr_entries;
}

static int create_vswap(struct node *node, char error[NODE_ERROR_MAX])
{
	struct vswap_options options = {
		.nr_pages = node->options.nr_pages,
		.nr_entries = node->options.nr_entries,
		.nr_folio_ios = node->options.nr_folio_ios,
		.comp_limit_bytes = node->options.comp_limit_bytes,
		.comp_algorithm = node->options.comp_algorithm,
		.nr_queues = node->options.nr_queues,
		.max_slabs = node->options.max_slabs,
		.state = node->options.state,
		.reserve_tables = (uint32_t)base_min_u64(RESERVE_TABLES, nr_all_pages(node) / TABLE_PAGES + 1),
	};
	int ret = vswap_create(&options, &node->vswap);

	if (ret == 0)
		ret = drains_create(node->vswap, sys_clock_monotonic(), node->options.state, &node->drains);
	if (ret < 0)
		return failed(error, ret, "%s cannot be made: %s",
			      options.nr_pages ? "size: the device" : "nr_entries: the entries", err_text(ret));
	for (unsigned i = 0; i < node->nr_reactors; i++)
		vswap_queue_bind(node->vswap, i, node->reactor[i]);
	return 0;
}

static int add_backend(struct node *node, struct backend *backend)
{
	int ret = vswap_backend_add(node->vswap, backend);

	return ret < 0 ? ret : drains_add(node->drains, backend);
}

static int open_disk(struct node *node, char error[NODE_ERROR_MAX])
{
	struct disk_options options = {
		.path = node->options.disk,
		.size_bytes = node->options.disk_bytes,
		.slab_bytes = node->options.disk_slab_bytes,
		.reactors = node->reactor,
		.nr_queues = node->nr_reactors,
		.queue_depth = node->options.queue_depth,
	};
	int ret;

	if (!options.path)
		return 0;
	ret = disk_create(&options, &node->disk);
	if (ret == 0) {
		node->disk->record = STATE_DISK;
		ret = add_backend(node, node->disk);
	}
	if (ret < 0)
		return failed(error, ret, "disk: %s cannot be used: %s", options.path, err_text(ret));
	return 0;
}

static void supply_changed(void *user)
{
	struct node *node = user;

	provision_wake(node->provision);
}

static int create_provision(struct node *node, char error[NODE_ERROR_MAX])
{
	struct provision_options options = {
		.vswap = node->vswap,
		.drains = node->drains,
		.disk = node->disk,
		.disk_slab_bytes = node->options.disk_slab_bytes,
		.nr_pages = nr_all_pages(node),
		.ahead_bytes = node->options.ahead_bytes,
		.nr_queues = node->nr_reactors,
		.seed = node->random,
	};
	int ret = provision_create(&options, &node->provision);

	if (ret < 0)
		return failed(error, ret, "the provision cannot be made: %s", err_text(ret));
	return 0;
}

static int create_rdma(struct node *node, char error[NODE_ERROR_MAX])
{
	struct verbs_driver_options options = {
		.device = node->options.rdma_device,
		.port = node->options.rdma_port,
		.gid_index = node->options.rdma_gid_index,
		.service_level = node->options.rdma_service_level,
	};
	int ret;

	if (node->options.transport == NODE_TRANSPORT_TCP)
		return 0;
	if (!verbs_available()) {
		if (node->options.transport == NODE_TRANSPORT_AUTO) {
			log_info("no RDMA device: data connections are TCP alone");
			return 0;
		}
		return failed(error, -ENODEV, "transport: this machine has no RDMA device (see 'rdma link')");
	}
	ret = verbs_driver_create(&options, &node->rdma);
	if (ret < 0)
		return failed(error, ret, "transport: RDMA cannot be used: %s", err_text(ret));
	return 0;
}

/* In the state file there is one for each server that holds slabs, and room for all that there can be. */
static int create_record(struct node *node, struct backend *backend)
{
	struct state_session *session;

	if (!node->options.state)
		return 0;
	session = state_session_of(node->options.state, backend->name);
	if (!session)
		return -ENOSPC;
	backend->record = state_session_number(node->options.state, session);
	return 0;
}

static int create_server(struct node *node, unsigned i, char error[NODE_ERROR_MAX])
{
	const char *address = node->options.servers[i];
	struct remote_options options = {
		.name = address,
		.driver = tcp_driver(),
		.reactors = node->reactor,
		.nr_queues = node->nr_reactors,
		.queue_depth = node->options.queue_depth,
		.dead_ms = node->options.dead_ms,
		.patience_ms = node->options.patience_ms,
	};
	struct keeper_options keep = {
		.vswap = node->vswap,
		.drains = node->drains,
		.address = address,
		.client_name = node->options.name,
		.client_id = node->random,
		.connect_timeout_ms = node->options.connect_timeout_ms,
		.rdma = node->rdma,
		.rdma_only = node->options.transport == NODE_TRANSPORT_VERBS,
		.max_heartbeat_ms = (unsigned)base_max_u64(node->options.dead_ms / BEATS_UNTIL_DEAD, 1),
		.lost_after_ms = node->options.lost_after_ms,
		.seed = node->random ^ (i + 1) * 0x9e3779b97f4a7c15u,
		.state = node->options.state,
		.changed = supply_changed,
		.user = node,
	};
	struct rpc_status status = { .message = "" };
	int ret = remote_create(&options, &node->remote[i]);

	node->nr_servers = i + 1;
	if (ret == 0)
		ret = add_backend(node, node->remote[i]);
	keep.backend = node->remote[i];
	if (ret == 0)
		ret = create_record(node, node->remote[i]);
	if (ret == 0)
		ret = keeper_create(&keep, &node->keeper[i], &status);
	if (ret == 0)
		ret = provision_add_keeper(node->provision, node->keeper[i]);
	if (ret < 0)
		return failed(error, ret, "servers: %s: %s", address,
			      status.message[0] ? status.message : err_text(ret));
	return 0;
}

static bool is_configured(const struct node *node, const char *server)
{
	for (unsigned i = 0; i < node->options.nr_servers; i++)
		if (strcmp(node->options.servers[i], server) == 0)
			return true;
	return false;
}

/* Servers that hold pages cannot be left out. */
static int check_left_servers(const struct node *node, char error[NODE_ERROR_MAX])
{
	struct state *state = node->options.state;

	for (uint32_t id = 0; id < state_max_slabs(state); id++) {
		const struct state_slab *slab = state_slab(state, id);
		const char *server;

		if (atomic_load(&slab->status) != STATE_SLAB_HELD || slab->session >= STATE_MAX_SESSIONS)
			continue;
		server = state_session(state, slab->session)->server;
		if (!is_configured(node, server))
			return failed(error, -EINVAL, "servers: '%s' holds pages of the device in use, and is not in the list",
				      server);
	}
	return 0;
}

static int create_servers(struct node *node, char error[NODE_ERROR_MAX])
{
	int ret = node_is_resumed(node) ? check_left_servers(node, error) : 0;

	for (unsigned i = 0; i < node->options.nr_servers && ret == 0; i++)
		ret = create_server(node, i, error);
	return ret;
}

/* ---- start and stop ---- */

static int (*const steps[])(struct node *node, char error[NODE_ERROR_MAX]) = {
	/* Memory, and what nobody else sees. */
	create_reactors,
	create_vswap,
	/* What others may have already: refused before anything has begun. */
	open_disk,
	create_provision,
	create_rdma,
	create_servers,
};

int node_create(const struct node_options *options, struct node **ret_node, char ret_error[NODE_ERROR_MAX])
{
	struct node *node;

	assert(options->nr_queues >= 1 && options->nr_queues <= NODE_MAX_QUEUES &&
	       options->nr_servers <= NODE_MAX_SERVERS);
	node = calloc(1, sizeof(*node));
	if (!node)
		return failed(ret_error, -ENOMEM, "out of memory");
	node->options = *options;
	if (getrandom(&node->random, sizeof(node->random), 0) != sizeof(node->random))
		node->random = sys_clock_now_ns(sys_clock_monotonic()) ^ (uint64_t)getpid() << 32;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(steps); i++) {
		int ret = steps[i](node, ret_error);

		if (ret < 0) {
			node_free(node);
			return ret;
		}
	}
	*ret_node = node;
	return 0;
}

/* Slabs, then what the words say of them. The reactors do not turn yet. */
static int resume(struct node *node)
{
	uint64_t nr_lost = 0;
	int ret = 0;

	sys_rcu_thread_init();
	for (unsigned i = 0; i < node->nr_servers && ret == 0; i++)
		ret = keeper_resume(node->keeper[i]);
	if (ret == 0)
		ret = provision_resume(node->provision, node->options.state);
	if (ret == 0)
		ret = vswap_rebuild(node->vswap, &nr_lost);
	if (ret == 0)
		drains_resume(node->drains);
	sys_rcu_thread_done();
	return ret;
}

bool node_is_resumed(const struct node *node)
{
	return node->options.state && state_is_left(node->options.state);
}

/* From the data path upwards. */
int node_start(struct node *node, char ret_error[NODE_ERROR_MAX])
{
	int ret = 0;

	if (node_is_resumed(node)) {
		ret = resume(node);
		if (ret < 0)
			return failed(ret_error, ret, "state_file: cannot go on with what is in it: %s", err_text(ret));
	}
	for (unsigned i = 0; i < node->nr_reactors; i++) {
		ret = sys_reactor_start(node->reactor[i]);
		if (ret < 0)
			return failed(ret_error, ret, "queues: number %u cannot be started on cpu %d: %s", i,
				      node->options.cpus[i], err_text(ret));
	}
	for (unsigned i = 0; i < node->nr_servers && ret == 0; i++)
		ret = keeper_start(node->keeper[i]);
	if (ret == 0)
		ret = provision_start(node->provision);
	if (ret < 0)
		return failed(ret_error, ret, "threads cannot be started: %s", err_text(ret));
	return 0;
}

int node_wait_for_room(struct node *node, unsigned timeout_ms, char ret_error[NODE_ERROR_MAX])
{
	uint64_t nr_free;
	char text[CONFIG_VALUE_MAX];

	if (provision_wait(node->provision, timeout_ms, &nr_free) == 0)
		return 0;
	config_format_duration(timeout_ms, text);
	if (nr_free == 0) {
		for (unsigned i = 0; i < node->nr_servers; i++) {
			struct keeper_info info;

			keeper_info(node->keeper[i], &info);
			log_warning("servers: %s: %s", node->remote[i]->name,
				    info.last_error[0] ? info.last_error : "has no slab to give");
		}
		return failed(ret_error, -ETIMEDOUT, "servers: none has given any room within start_timeout (%s)",
			      text);
	}
	config_format_size(nr_free << FSW_PAGE_SHIFT, text);
	log_warning("servers: there are only %s of room to begin with", text);
	return 0;
}

void node_stop(struct node *node)
{
	if (node->provision)
		provision_stop(node->provision);
	for (unsigned i = 0; i < node->nr_servers; i++)
		if (node->keeper[i])
			keeper_stop_begin(node->keeper[i]);
	for (unsigned i = 0; i < node->nr_servers; i++)
		if (node->keeper[i])
			keeper_stop(node->keeper[i]);
	for (unsigned i = 0; i < node->nr_reactors; i++)
		sys_reactor_stop(node->reactor[i]);
}

void node_free(struct node *node)
{
	if (!node)
		return;
	vswap_free(node->vswap);
	provision_free(node->provision);
	for (unsigned i = 0; i < node->nr_servers; i++) {
		keeper_free(node->keeper[i]);
		remote_free(node->remote[i]);
	}
	verbs_driver_free(node->rdma);
	disk_free(node->disk);
	drains_free(node->drains);
	for (unsigned i = 0; i < node->nr_reactors; i++)
		sys_reactor_free(node->reactor[i]);
	free(node);
}

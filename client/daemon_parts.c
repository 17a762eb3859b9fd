/*
 * The parts of the daemon, each made by one step of the start.
 */
#include <assert.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/backend/disk/disk.h"
#include "client/daemon_private.h"
#include "common/base/err.h"

static_assert(SETTINGS_MAX_QUEUES <= NODE_MAX_QUEUES && SETTINGS_MAX_SERVERS <= NODE_MAX_SERVERS, "a node takes them all");

static_assert((int)SETTINGS_AUTO == (int)NODE_TRANSPORT_AUTO && (int)SETTINGS_TCP == (int)NODE_TRANSPORT_TCP &&
		      (int)SETTINGS_VERBS == (int)NODE_TRANSPORT_VERBS,
	      "one numbering");

int daemon_create_node(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	const char *servers[SETTINGS_MAX_SERVERS];
	struct node_options options = {
		.nr_pages = settings->size_bytes >> FSW_PAGE_SHIFT,
		.max_slabs = settings->max_slabs,
		.comp_limit_bytes = settings->comp_limit_bytes,
		.comp_algorithm = settings->comp_algorithm,
		.nr_queues = settings->nr_queues,
		.cpus = settings->cpus,
		.spin_us = settings->spin_us,
		.queue_depth = settings->queue_depth,
		.disk = settings->disk[0] ? settings->disk : NULL,
		.disk_bytes = settings->disk_bytes,
		.disk_slab_bytes = settings->disk_slab_bytes,
		.servers = servers,
		.nr_servers = settings->servers.nr,
		.name = settings->name,
		.transport = (enum node_transport)settings->transport,
		.rdma_device = settings->rdma_device[0] ? settings->rdma_device : NULL,
		.rdma_port = settings->rdma_port,
		.rdma_gid_index = settings->rdma_gid_index,
		.rdma_service_level = settings->rdma_service_level,
		.dead_ms = (unsigned)settings->dead_ms,
		.patience_ms = (unsigned)settings->patience_ms,
		.connect_timeout_ms = (unsigned)settings->connect_timeout_ms,
		.lost_after_ms = settings->lost_after_ms,
		.ahead_bytes = settings->ahead_bytes,
		.state = daemon->kept,
	};
	char error[NODE_ERROR_MAX];
	int ret;

	for (unsigned i = 0; i < settings->servers.nr; i++)
		servers[i] = settings->servers.item[i];
	ret = node_create(&options, &daemon->node, error);
	if (ret < 0)
		log_error("%s", error);
	return ret;
}

/* /run/farswap does not exist after a boot. Only the last folder is made; what is wrong is found when it is used. */
static void make_folder_of(const char *path)
{
	char copy[CONFIG_STRING_MAX];

	snprintf(copy, sizeof(copy), "%s", path);
	if (mkdir(dirname(copy), 0755) < 0 && errno != EEXIST)
		log_debug("%s: %s", copy, err_text(-errno));
}

int daemon_listen_admin(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	const struct node *node = daemon->node;
	struct admin_options options = {
		.vswap = node->vswap,
		.drains = node->drains,
		.provision = node->provision,
		.keepers = node->keeper,
		.nr_keepers = node->nr_servers,
		.disk = node->disk,
		.disk_bytes = node->disk ? disk_nr_slabs(node->disk) * settings->disk_slab_bytes : 0,
		.disk_slab_bytes = settings->disk_slab_bytes,
		.rights = daemon->rights,
		.owner = daemon_owner(daemon),
	};
	char address[CONFIG_STRING_MAX + 8];
	struct rpc_status status;
	int ret = admin_create(&options, &daemon->admin);

	if (ret < 0) {
		log_error("admin_socket: the service cannot be made: %s", err_text(ret));
		return ret;
	}
	make_folder_of(settings->admin_socket);
	snprintf(address, sizeof(address), "unix:%s", settings->admin_socket);
	ret = admin_listen(daemon->admin, address, &status);
	if (ret < 0)
		log_error("admin_socket: %s", status.message);
	return ret;
}

/* Everything is there: let it run, from the data path upwards. */
int daemon_run(struct daemon *daemon)
{
	char error[NODE_ERROR_MAX];
	int ret = node_start(daemon->node, error);

	if (ret < 0) {
		log_error("%s", error);
		return ret;
	}
	ret = admin_start(daemon->admin);
	if (ret < 0)
		log_error("threads cannot be started: %s", err_text(ret));
	return ret;
}

int daemon_wait_for_room(struct daemon *daemon)
{
	char error[NODE_ERROR_MAX];
	int ret = node_wait_for_room(daemon->node, (unsigned)daemon->settings->start_timeout_ms, error);

	if (ret < 0 && node_is_resumed(daemon->node)) {
		/* Reads of what is there need no room, and who waits for them waits already. */
		log_warning("%s", error);
		return 0;
	}
	if (ret < 0)
		log_error("%s", error);
	return ret;
}

int daemon_open_frontend(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	int ret;

	if (settings->frontend == SETTINGS_NBD && strncmp(settings->nbd_listen, "unix:", 5) == 0)
		make_folder_of(settings->nbd_listen + 5);
	ret = surface_open(settings, daemon->node->vswap, daemon->kept, &daemon->surface);
	if (ret < 0)
		return ret;
	lock_acquire(&daemon->lock);
	daemon->serving = true;
	lock_release(&daemon->lock);
	daemon_set_state(daemon, ADMIN_SERVING);
	return 0;
}

/* Whoever sees the file sees all of it. */
int daemon_write_ready_file(struct daemon *daemon)
{
	const char *path = daemon->settings->ready_file;
	struct admin_frontend frontend;
	char temporary[CONFIG_STRING_MAX + 8];
	int ret = 0;
	FILE *file;

	if (path[0] == '\0')
		return 0;
	surface_look(daemon->surface, &frontend);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	file = fopen(temporary, "we");
	if (!file) {
		ret = -errno;
	} else {
		bool written = fprintf(file, "admin=unix:%s\nfrontend=%s\nendpoint=%s\n",
				       daemon->settings->admin_socket, frontend.kind, frontend.endpoint) > 0;

		errno = EIO;
		if (fclose(file) != 0 || !written || rename(temporary, path) < 0) {
			ret = -errno;
			unlink(temporary);
		}
	}
	if (ret < 0)
		log_error("ready_file: %s cannot be written: %s", path, err_text(ret));
	daemon->ready_file_written = ret == 0;
	return ret;
}

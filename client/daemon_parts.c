/*
 * The parts of the daemon, each made by one step of the start.
 */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/backend/disk/disk.h"
#include "client/backend/remote/remote.h"
#include "client/daemon_private.h"
#include "common/base/err.h"
#include "common/transport/tcp/tcp.h"

/* A connection is dead after three beats without an answer. */
#define BEATS_UNTIL_DEAD 3
/*
 * Cluster tables that are kept ready, 2 MiB of device each: what random writes to a new device can ask for before
 * the reserve has been filled again.
 */
#define RESERVE_TABLES 2048u
#define TABLE_BYTES (2ull << 20)

int daemon_create_reactors(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;

	for (unsigned i = 0; i <= settings->nr_queues; i++) {
		bool mover = i == settings->nr_queues;
		struct sys_reactor_options options = {
			.cpu = settings->cpus[i],
			/* The mover has time; what it would burn belongs to the page faults. */
			.spin_us = mover ? 0 : settings->spin_us,
		};
		char name[16];
		int ret;

		snprintf(name, sizeof(name), mover ? "mover" : "queue-%u", i);
		options.name = name;
		ret = sys_reactor_create(&options, &daemon->reactor[i]);
		if (ret < 0) {
			log_error("queues: number %u cannot be made: %s", i, err_text(ret));
			return ret;
		}
		daemon->nr_reactors++;
	}
	return 0;
}

int daemon_create_device(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct vswap_options options = {
		.nr_pages = settings->size_bytes >> FSW_PAGE_SHIFT,
		.nr_queues = settings->nr_queues,
		.max_slabs = settings->max_slabs,
		.reserve_tables = (uint32_t)base_min_u64(RESERVE_TABLES, settings->size_bytes / TABLE_BYTES + 1),
	};
	int ret = vswap_create(&options, &daemon->vswap);

	if (ret == 0)
		ret = drains_create(daemon->vswap, sys_clock_monotonic(), &daemon->drains);
	if (ret < 0) {
		log_error("size: the device cannot be made: %s", err_text(ret));
		return ret;
	}
	for (unsigned i = 0; i < daemon->nr_reactors; i++)
		vswap_queue_bind(daemon->vswap, i, daemon->reactor[i]);
	return 0;
}

static int daemon_add_backend(struct daemon *daemon, struct backend *backend)
{
	int ret = vswap_backend_add(daemon->vswap, backend);

	return ret < 0 ? ret : drains_add(daemon->drains, backend);
}

int daemon_open_disk(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct disk_options options = {
		.path = settings->disk,
		.size_bytes = settings->disk_bytes,
		.slab_bytes = settings->disk_slab_bytes,
		.reactors = daemon->reactor,
		.nr_queues = daemon->nr_reactors,
		.queue_depth = settings->queue_depth,
	};
	int ret;

	if (settings->disk[0] == '\0')
		return 0;
	ret = disk_create(&options, &daemon->disk);
	if (ret == 0)
		ret = daemon_add_backend(daemon, daemon->disk);
	if (ret < 0)
		log_error("disk: %s cannot be used: %s", settings->disk, err_text(ret));
	return ret;
}

static void daemon_supply_changed(void *user)
{
	struct daemon *daemon = user;

	provision_wake(daemon->provision);
}

int daemon_create_provision(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct provision_options options = {
		.vswap = daemon->vswap,
		.drains = daemon->drains,
		.disk = daemon->disk,
		.disk_slab_bytes = settings->disk_slab_bytes,
		.nr_pages = settings->size_bytes >> FSW_PAGE_SHIFT,
		.ahead_bytes = settings->ahead_bytes,
		.nr_queues = daemon->nr_reactors,
		.seed = daemon->random,
	};
	int ret = provision_create(&options, &daemon->provision);

	if (ret < 0)
		log_error("the provision cannot be made: %s", err_text(ret));
	return ret;
}

static int daemon_create_server(struct daemon *daemon, const char *address, unsigned i)
{
	const struct settings *settings = daemon->settings;
	struct remote_options options = {
		.name = address,
		.driver = tcp_driver(),
		.reactors = daemon->reactor,
		.nr_queues = daemon->nr_reactors,
		.queue_depth = settings->queue_depth,
		.dead_ms = (unsigned)settings->dead_ms,
		.read_patience_ms = (unsigned)settings->read_patience_ms,
	};
	struct keeper_options keep = {
		.vswap = daemon->vswap,
		.drains = daemon->drains,
		.address = address,
		.client_name = settings->name,
		.client_id = daemon->random,
		.connect_timeout_ms = (unsigned)settings->connect_timeout_ms,
		.max_heartbeat_ms = (unsigned)base_max_u64(settings->dead_ms / BEATS_UNTIL_DEAD, 1),
		.lost_after_ms = settings->lost_after_ms,
		.seed = daemon->random ^ (i + 1) * 0x9e3779b97f4a7c15u,
		.changed = daemon_supply_changed,
		.user = daemon,
	};
	struct rpc_status status = { .message = "" };
	int ret = remote_create(&options, &daemon->remote[i]);

	daemon->nr_servers = i + 1;
	if (ret == 0)
		ret = daemon_add_backend(daemon, daemon->remote[i]);
	keep.backend = daemon->remote[i];
	if (ret == 0)
		ret = keeper_create(&keep, &daemon->keeper[i], &status);
	if (ret == 0)
		ret = provision_add_keeper(daemon->provision, daemon->keeper[i]);
	if (ret < 0)
		log_error("servers: %s: %s", address, status.message[0] ? status.message : err_text(ret));
	return ret;
}

int daemon_create_servers(struct daemon *daemon)
{
	int ret = 0;

	for (unsigned i = 0; i < daemon->settings->servers.nr && ret == 0; i++)
		ret = daemon_create_server(daemon, daemon->settings->servers.item[i], i);
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
	struct admin_options options = {
		.vswap = daemon->vswap,
		.drains = daemon->drains,
		.provision = daemon->provision,
		.keepers = daemon->keeper,
		.nr_keepers = daemon->nr_servers,
		.disk = daemon->disk,
		.disk_bytes = daemon->disk ? disk_nr_slabs(daemon->disk) * settings->disk_slab_bytes : 0,
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
	int ret = 0;

	for (unsigned i = 0; i < daemon->nr_reactors; i++) {
		ret = sys_reactor_start(daemon->reactor[i]);
		if (ret < 0) {
			log_error("queues: number %u cannot be started on cpu %d: %s", i, daemon->settings->cpus[i],
				  err_text(ret));
			return ret;
		}
	}
	for (unsigned i = 0; i < daemon->nr_servers && ret == 0; i++)
		ret = keeper_start(daemon->keeper[i]);
	if (ret == 0)
		ret = provision_start(daemon->provision);
	if (ret == 0)
		ret = admin_start(daemon->admin);
	if (ret < 0)
		log_error("threads cannot be started: %s", err_text(ret));
	return ret;
}

int daemon_wait_for_room(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	uint64_t nr_free;
	char text[CONFIG_VALUE_MAX];

	if (provision_wait(daemon->provision, (unsigned)settings->start_timeout_ms, &nr_free) == 0)
		return 0;
	config_format_duration(settings->start_timeout_ms, text);
	if (nr_free == 0) {
		for (unsigned i = 0; i < daemon->nr_servers; i++) {
			struct keeper_info info;

			keeper_info(daemon->keeper[i], &info);
			log_warning("servers: %s: %s", daemon->remote[i]->name,
				    info.last_error[0] ? info.last_error : "has no slab to give");
		}
		log_error("servers: none has given any room within start_timeout (%s)", text);
		return -ETIMEDOUT;
	}
	config_format_size(nr_free << FSW_PAGE_SHIFT, text);
	log_warning("servers: there are only %s of room to begin with", text);
	return 0;
}

int daemon_open_frontend(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	int ret;

	if (settings->frontend == SETTINGS_FUSE)
		make_folder_of(settings->mount_dir);
	if (settings->frontend == SETTINGS_NBD && strncmp(settings->nbd_listen, "unix:", 5) == 0)
		make_folder_of(settings->nbd_listen + 5);
	ret = surface_open(settings, daemon->vswap, &daemon->surface);
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

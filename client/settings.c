#include "client/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/frontend/nbd/kernel.h"
#include "client/frontend/swaparea.h"
#include "client/servers.h"
#include "common/base/err.h"

#define PROGRAM "farswapd"
#define DAY_MS (24ull * 3600 * 1000)
#define MAX_DEVICE_BYTES (16ull << 40)
#define MIN_SLAB_BYTES (1ull << 20)
#define MAX_SLAB_BYTES (1ull << 30)
#define MAX_SLABS (1u << 18)
#define MIN_AUTO_SLABS 1024u
#define MAX_AUTO_QUEUES 4u
#define MAX_NAME_BYTES 63u
#define MAX_GID_INDEX 65535u
#define MAX_SERVICE_LEVEL 7u
#define REQUEST_MARGIN_MS (60ull * 1000)
#define MIN_COMP_BYTES (4u << 20) /* below that the blocks being filled are most of it */

static const char *const log_levels[] = { "error", "warning", "notice", "info", "debug", NULL };
static const char *const algorithms[] = { "lz4", "zstd", NULL }; /* as enum comp_algorithm */
static const char *const frontends[] = { "auto", "ublk", "nbd-kernel", "fuse", "nbd", "none", NULL }; /* as the enum */
static const char *const transports[] = { "auto", "tcp", "verbs", NULL }; /* as enum settings_transport */

#define SETTING(text, kind, member) .name = text, .type = kind, CONFIG_MEMBER(struct settings, member)

static const struct config_option options[] = {
	{ .section = "device", SETTING("size", CONFIG_SIZE, size_bytes), .arg = "SIZE", .default_text = "0",
	  .help = "of the swap device, at most 16T; must be given" },
	{ .section = "device", SETTING("frontend", CONFIG_CHOICE, frontend), .arg = "KIND", .default_text = "auto",
	  .choices = frontends, .help = "how it is offered; auto: ublk, else nbd-kernel, else fuse" },
	{ .section = "device", SETTING("swap", CONFIG_BOOL, swap), .default_text = "yes",
	  .help = "turn swap on over it (ublk, nbd-kernel and fuse)" },
	{ .section = "device", SETTING("swap_priority", CONFIG_STRING, swap_priority_text), .arg = "N",
	  .default_text = "auto", .help = "0 to 32767, the highest is used first; auto: the kernel's choice" },
	{ .section = "device", SETTING("mount_dir", CONFIG_STRING, mount_dir), .arg = "DIR",
	  .default_text = "/run/farswap/device", .help = "where the device's file is mounted (fuse only)" },
	{ .section = "device", SETTING("nbd_listen", CONFIG_STRING, nbd_listen), .arg = "ADDRESS",
	  .default_text = "unix:/run/farswap/nbd.sock", .help = "where NBD clients are served (nbd only)" },
	{ .section = "device", SETTING("nbd_index", CONFIG_STRING, nbd_index_text), .arg = "N", .default_text = "auto",
	  .help = "of /dev/nbdN (nbd-kernel only); auto: one that is free" },
	{ .section = "device", SETTING("nbd_connections", CONFIG_U32, nbd_connections), .arg = "N", .default_text = "0",
	  .max = SETTINGS_MAX_QUEUES, .help = "of the kernel to the daemon (nbd-kernel only); 0: one per queue" },

	{ .section = "servers", SETTING("servers", CONFIG_LIST, servers), .arg = "LIST",
	  .help = "memory servers, host:port each" },
	{ .section = "servers", SETTING("dead_after", CONFIG_DURATION, dead_ms), .arg = "TIME", .default_text = "800ms",
	  .min = 50, .max = DAY_MS, .help = "a connection that is silent for so long is down" },
	{ .section = "servers", SETTING("patience", CONFIG_DURATION, patience_ms), .arg = "TIME",
	  .default_text = "12s", .max = DAY_MS,
	  .help = "how long a page waits for a server that is out of reach; 0: not at all" },
	{ .section = "servers", SETTING("lost_after", CONFIG_DURATION, lost_after_ms), .arg = "TIME",
	  .default_text = "0", .max = DAY_MS,
	  .help = "a server out of reach for so long is given up; 0: when its lease has ended" },
	{ .section = "servers", SETTING("connect_timeout", CONFIG_DURATION, connect_timeout_ms), .arg = "TIME",
	  .default_text = "1s", .min = 10, .max = DAY_MS, .help = "of one attempt at a data connection" },
	{ .section = "servers", SETTING("start_timeout", CONFIG_DURATION, start_timeout_ms), .arg = "TIME",
	  .default_text = "10s", .min = 10, .max = DAY_MS, .help = "how long to wait for room at the start" },

	{ .section = "network", SETTING("transport", CONFIG_CHOICE, transport), .arg = "NAME", .default_text = "auto",
	  .choices = transports, .help = "of data connections; auto: verbs (RDMA) where both sides have it, else tcp" },
	{ .section = "network", SETTING("rdma_device", CONFIG_STRING, rdma_device), .arg = "NAME",
	  .help = "that RDMA connections begin at; empty: by the routing table" },
	{ .section = "network", SETTING("rdma_port", CONFIG_U32, rdma_port), .arg = "N", .default_text = "0", .max = 255,
	  .help = "of the device; 0: any" },
	{ .section = "network", SETTING("rdma_gid_index", CONFIG_STRING, rdma_gid_index_text), .arg = "N",
	  .default_text = "auto", .help = "of the port, whose GID is the address to begin at; auto: any of RoCE v2" },
	{ .section = "network", SETTING("rdma_service_level", CONFIG_STRING, rdma_service_level_text), .arg = "N",
	  .default_text = "auto",
	  .help = "0 to 7, the priority of RDMA connections in the network (InfiniBand: by its QoS classes); auto: its own" },

	{ .section = "disk", SETTING("disk", CONFIG_STRING, disk), .arg = "PATH",
	  .help = "file or partition to fall back on when no server has room; its content is lost" },
	{ .section = "disk", SETTING("disk_size", CONFIG_SIZE, disk_bytes), .arg = "SIZE", .default_text = "0",
	  .help = "how much of it; 0: all of a partition" },
	{ .section = "disk", SETTING("disk_slab_size", CONFIG_SIZE, disk_slab_bytes), .arg = "SIZE",
	  .default_text = "64M", .min = MIN_SLAB_BYTES, .max = MAX_SLAB_BYTES, .flags = CONFIG_POWER_OF_TWO,
	  .help = "the unit in which it is used" },

	{ .section = "memory", SETTING("ahead", CONFIG_SIZE, ahead_bytes), .arg = "SIZE", .default_text = "0",
	  .help = "free room to keep ready on the servers; 0: four slabs" },
	{ .section = "memory", SETTING("compress_limit", CONFIG_SIZE, comp_limit_bytes), .arg = "SIZE", .default_text = "0",
	  .max = COMP_LIMIT_BYTES_MAX,
	  .help = "of this machine's memory for compressed pages, taken at the start; 0: nothing is compressed" },
	{ .section = "memory", SETTING("compress_algorithm", CONFIG_CHOICE, comp_algorithm), .arg = "NAME",
	  .default_text = "lz4", .choices = algorithms, .help = "lz4: quicker; zstd: smaller" },
	{ .section = "memory", SETTING("max_slabs", CONFIG_U32, max_slabs), .arg = "N", .default_text = "0",
	  .max = MAX_SLABS, .help = "slabs in use at a time; 0: by the size of the device" },

	{ .section = "threads", SETTING("queues", CONFIG_U32, nr_queues), .arg = "N", .default_text = "0",
	  .max = SETTINGS_MAX_QUEUES, .help = "threads that serve the device; 0: one per processor, at most four" },
	{ .section = "threads", SETTING("queue_depth", CONFIG_U32, queue_depth), .arg = "N", .default_text = "128",
	  .min = 1, .max = 1024, .help = "operations in flight per queue and server" },
	{ .section = "threads", SETTING("cpus", CONFIG_LIST, cpu_texts), .arg = "LIST",
	  .help = "processors that the queues, and then the mover, stay on; empty: any" },
	{ .section = "threads", SETTING("spin_us", CONFIG_U32, spin_us), .arg = "N", .default_text = "0", .max = 1000000,
	  .help = "microseconds that a queue looks for work before it sleeps" },

	{ .section = "process", SETTING("name", CONFIG_STRING, name), .arg = "TEXT",
	  .help = "what servers know this client by, by default its host's name" },
	{ .section = "process", SETTING("admin_socket", CONFIG_STRING, admin_socket), .arg = "PATH",
	  .default_text = "/run/farswap/farswapd.sock", .flags = CONFIG_REQUIRED, .help = "where farswapctl is served" },
	{ .section = "process", SETTING("log_level", CONFIG_CHOICE, log_level), .arg = "LEVEL",
	  .default_text = "notice", .choices = log_levels, .help = "least urgent lines that are written" },
	{ .section = "process", SETTING("ready_file", CONFIG_STRING, ready_file), .arg = "FILE",
	  .help = "written when the device is served, with where it is; removed at the end" },
	{ .section = "process", SETTING("state_file", CONFIG_STRING, state_file), .arg = "FILE", .default_text = "auto",
	  .help = "in memory, what a restart goes on with while the device is in use (ublk and nbd); "
		  "auto: of ublk, " SETTINGS_STATE_FILE "; none: nothing" },
};

static const struct config_program program = {
	.name = PROGRAM,
	.summary = "gives this machine the memory of others as swap",
	.default_file = "/etc/farswap/farswapd.conf",
	.options = options,
	.nr_options = BASE_ARRAY_SIZE(options),
	.settings_bytes = sizeof(struct settings),
};

static BASE_PRINTF(2, 3) int wrong(char error[CONFIG_ERROR_MAX], const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, CONFIG_ERROR_MAX, fmt, args);
	va_end(args);
	return -EINVAL;
}

static int check_compress(const struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	if (settings->comp_limit_bytes != 0 && settings->comp_limit_bytes < MIN_COMP_BYTES)
		return wrong(error, "compress_limit: less than %u MiB; 0 for none", MIN_COMP_BYTES >> 20);
	return 0;
}

static int check_size(const struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	char size[CONFIG_VALUE_MAX];

	config_format_size(settings->size_bytes, size);
	if (settings->size_bytes == 0)
		return wrong(error, "size: must be given and not be 0, such as --size 8G");
	if (settings->size_bytes % FSW_PAGE_SIZE != 0)
		return wrong(error, "size: %s is not a multiple of the page, %u bytes", size, FSW_PAGE_SIZE);
	if (settings->size_bytes > MAX_DEVICE_BYTES)
		return wrong(error, "size: %s is more than 16T", size);
	return 0;
}

static int check_servers(const struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	const struct config_list *servers = &settings->servers;
	const char *items[SETTINGS_MAX_SERVERS];

	if (servers->nr == 0 && settings->disk[0] == '\0')
		return wrong(error, "servers: neither a server nor a disk is given, so there is nowhere to store anything");
	if (servers->nr > SETTINGS_MAX_SERVERS)
		return wrong(error, "servers: %u are more than %u", servers->nr, SETTINGS_MAX_SERVERS);
	for (unsigned i = 0; i < servers->nr; i++)
		items[i] = servers->item[i];
	return servers_check(items, servers->nr, error, CONFIG_ERROR_MAX);
}

/* A number up to max, or -1 for "auto". */
static int take_number(const char *name, const char *text, unsigned max, int *ret_number, char error[CONFIG_ERROR_MAX])
{
	uint64_t number;

	*ret_number = -1;
	if (strcmp(text, "auto") == 0)
		return 0;
	if (config_parse_u64(text, &number) < 0 || number > max)
		return wrong(error, "%s: '%s' is neither auto nor 0 to %u", name, text, max);
	*ret_number = (int)number;
	return 0;
}

static int check_rdma(struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	int ret = take_number("rdma_gid_index", settings->rdma_gid_index_text, MAX_GID_INDEX, &settings->rdma_gid_index,
			      error);

	if (ret == 0)
		ret = take_number("rdma_service_level", settings->rdma_service_level_text, MAX_SERVICE_LEVEL,
				  &settings->rdma_service_level, error);
	if (ret == 0 && strlen(settings->rdma_device) > MAX_NAME_BYTES)
		ret = wrong(error, "rdma_device: is longer than %u bytes", MAX_NAME_BYTES);
	return ret;
}

static int check_disk(const struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	char size[CONFIG_VALUE_MAX], slab[CONFIG_VALUE_MAX];

	if (settings->disk[0] == '\0' && settings->disk_bytes)
		return wrong(error, "disk_size: is given without a disk");
	config_format_size(settings->disk_bytes, size);
	config_format_size(settings->disk_slab_bytes, slab);
	if (settings->disk_bytes % settings->disk_slab_bytes != 0)
		return wrong(error, "disk_size: %s is not a multiple of disk_slab_size %s", size, slab);
	return 0;
}

static int take_cpus(struct settings *settings, unsigned nr_cpus, char error[CONFIG_ERROR_MAX])
{
	const struct config_list *texts = &settings->cpu_texts;

	if (settings->nr_queues == 0)
		settings->nr_queues = (uint32_t)base_min_u64(nr_cpus, MAX_AUTO_QUEUES);
	for (unsigned i = 0; i <= SETTINGS_MAX_QUEUES; i++)
		settings->cpus[i] = -1;
	if (texts->nr != 0 && texts->nr != settings->nr_queues && texts->nr != settings->nr_queues + 1)
		return wrong(error, "cpus: %u processors for %u queues (and the mover)", texts->nr,
			     settings->nr_queues);
	for (unsigned i = 0; i < texts->nr; i++) {
		uint64_t cpu;

		if (config_parse_u64(texts->item[i], &cpu) < 0 || cpu >= nr_cpus)
			return wrong(error, "cpus: '%s' is not a processor of this machine (0 to %u)", texts->item[i],
				     nr_cpus - 1);
		settings->cpus[i] = (int)cpu;
	}
	return 0;
}

static int check_frontend(struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	int ret = take_number("swap_priority", settings->swap_priority_text, SWAP_AREA_PRIORITY_MAX, &settings->swap_priority,
			      error);

	if (ret == 0)
		ret = take_number("nbd_index", settings->nbd_index_text, NBD_KERNEL_MAX_INDEX, &settings->nbd_index, error);
	if (ret < 0)
		return ret;
	if ((settings->frontend == SETTINGS_FUSE || settings->frontend == SETTINGS_AUTO_FRONTEND) &&
	    settings->mount_dir[0] != '/')
		return wrong(error, "mount_dir: '%s' is not an absolute path", settings->mount_dir);
	if (settings->frontend == SETTINGS_NBD && settings->nbd_listen[0] == '\0')
		return wrong(error, "nbd_listen: must be given");
	return 0;
}

static int check_state_file(const struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	const char *file = settings->state_file;

	if (strcmp(file, "auto") == 0 || strcmp(file, "none") == 0)
		return 0;
	if (file[0] != '/' || file[strlen(file) - 1] == '/')
		return wrong(error, "state_file: '%s' is neither auto nor none nor the absolute path of a file", file);
	if (settings->frontend != SETTINGS_AUTO_FRONTEND && settings->frontend != SETTINGS_UBLK &&
	    settings->frontend != SETTINGS_NBD)
		return wrong(error, "state_file: what frontend %s serves does not outlive the daemon",
			     frontends[settings->frontend]);
	if (settings->comp_limit_bytes != 0)
		return wrong(error, "state_file: compressed pages do not outlive the daemon: compress_limit must be 0");
	return 0;
}

static int check_names(struct settings *settings, char error[CONFIG_ERROR_MAX])
{
	struct sockaddr_un un;

	if (strncmp(settings->admin_socket, "unix:", 5) == 0)
		memmove(settings->admin_socket, settings->admin_socket + 5, strlen(settings->admin_socket + 5) + 1);
	if (settings->admin_socket[0] != '/')
		return wrong(error, "admin_socket: '%s' is not an absolute path", settings->admin_socket);
	if (strlen(settings->admin_socket) >= sizeof(un.sun_path))
		return wrong(error, "admin_socket: '%s' is longer than %zu characters", settings->admin_socket,
			     sizeof(un.sun_path) - 1);
	if (settings->name[0] == '\0' && gethostname(settings->name, sizeof(settings->name) - 1) < 0)
		return wrong(error, "name: the host's name cannot be had (%s) and none is given", err_text(-errno));
	if (strlen(settings->name) > MAX_NAME_BYTES)
		return wrong(error, "name: is longer than %u bytes", MAX_NAME_BYTES);
	return 0;
}

int settings_check(struct settings *settings, unsigned nr_cpus, char ret_error[CONFIG_ERROR_MAX])
{
	uint64_t slabs = 2 * settings->size_bytes / MIN_SLAB_BYTES;
	int ret = check_size(settings, ret_error);

	if (ret == 0)
		ret = check_servers(settings, ret_error);
	if (ret == 0)
		ret = check_rdma(settings, ret_error);
	if (ret == 0)
		ret = check_disk(settings, ret_error);
	if (ret == 0)
		ret = check_compress(settings, ret_error);
	if (ret == 0)
		ret = take_cpus(settings, nr_cpus, ret_error);
	if (ret == 0)
		ret = check_frontend(settings, ret_error);
	if (ret == 0)
		ret = check_state_file(settings, ret_error);
	if (ret == 0)
		ret = check_names(settings, ret_error);
	/* Twice the device, were all slabs of the smallest size: a drain needs room beside what it empties. */
	if (ret == 0 && settings->max_slabs == 0)
		settings->max_slabs = (uint32_t)base_min_u64(base_max_u64(slabs, MIN_AUTO_SLABS), MAX_SLABS);
	return ret;
}

/*
 * A read that finds a write under way waits until that has failed (dead_after); then for a server that is out of reach
 * (patience), which may be silent again when it has come back (dead_after). A write that fails on one server (dead_after) waits
 * for another (patience) and for slots on their way (a second), where it may fail as well (dead_after).
 */
unsigned settings_longest_request_s(const struct settings *settings)
{
	uint64_t longest_ms = settings->patience_ms + 2 * settings->dead_ms + REQUEST_MARGIN_MS;

	static_assert(3 * DAY_MS + REQUEST_MARGIN_MS + 1000 <= UINT32_MAX, "counted in ms, in 32 bits");
	return (unsigned)(longest_ms / 1000 + 1);
}

static void print(enum config_action action)
{
	if (action == CONFIG_PRINT_HELP)
		config_print_help(&program, stdout);
	else if (action == CONFIG_PRINT_EXAMPLE)
		config_print_example(&program, stdout);
	else
		puts(PROGRAM " " FARSWAP_VERSION);
}

int settings_load(int argc, char **argv, struct settings *ret_settings, int *ret_exit_status)
{
	struct settings *settings = calloc(1, sizeof(*settings));
	long nr_cpus = sysconf(_SC_NPROCESSORS_CONF);
	char error[CONFIG_ERROR_MAX] = "out of memory";
	enum config_action action = CONFIG_RUN;
	int ret = -ENOMEM;

	if (settings)
		ret = config_load(&program, argc, argv, settings, &action, error);
	if (ret == 0 && action != CONFIG_RUN) {
		print(action);
		free(settings);
		*ret_exit_status = 0;
		return -ECANCELED;
	}
	if (ret == 0)
		ret = settings_check(settings, nr_cpus > 0 ? (unsigned)nr_cpus : 1, error);
	if (ret == 0) {
		*ret_settings = *settings;
	} else {
		fprintf(stderr, PROGRAM ": %s\n", error);
		*ret_exit_status = 2;
	}
	free(settings);
	return ret;
}

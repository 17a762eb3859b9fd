#include "server/settings.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "server/arena/arena.h"
#include "server/lease/name.h"

#define PROGRAM "farmemd"
#define MAX_CONNECTIONS 4096
#define MAX_LEASES 1024
#define DAY_MS (24ull * 3600 * 1000)
/* The beats that a lease must have room for, so that one lost or late beat never ends it. */
#define BEATS_PER_TERM 4

static const char *const log_levels[] = { "error", "warning", "notice", "info", "debug", NULL };

#define SETTING(text, kind, member) .name = text, .type = kind, CONFIG_MEMBER(struct settings, member)

static const struct config_option options[] = {
	{ .section = "memory", SETTING("memory", CONFIG_SIZE, memory_bytes), .arg = "SIZE", .default_text = "0",
	  .help = "how much to lend, a multiple of slab_size; must be given" },
	{ .section = "memory", SETTING("slab_size", CONFIG_SIZE, slab_bytes), .arg = "SIZE", .default_text = "64M",
	  .min = ARENA_SLAB_BYTES_MIN, .max = ARENA_SLAB_BYTES_MAX, .flags = CONFIG_POWER_OF_TWO,
	  .help = "the unit in which it is lent" },

	{ .section = "network", SETTING("listen", CONFIG_STRING, listen), .arg = "ADDRESS",
	  .default_text = "0.0.0.0:7770", .help = "where the control service (gRPC) is offered" },
	{ .section = "network", SETTING("data_listen", CONFIG_STRING, data_listen), .arg = "ADDRESS",
	  .default_text = "0.0.0.0:7771", .help = "where data connections are taken" },
	{ .section = "network", SETTING("data_advertise", CONFIG_STRING, data_advertise), .arg = "ADDRESS",
	  .help = "the data address that clients are told, if it is not data_listen" },
	{ .section = "network", SETTING("rdma_listen", CONFIG_STRING, rdma_listen), .arg = "ADDRESS",
	  .default_text = "auto", .flags = CONFIG_REQUIRED,
	  .help = "where data connections over RDMA are taken; auto: where data_listen is, if there is a device; or off" },
	{ .section = "network", SETTING("rdma_advertise", CONFIG_STRING, rdma_advertise), .arg = "ADDRESS",
	  .help = "the RDMA address that clients are told, if it is not rdma_listen" },
	{ .section = "network", SETTING("max_connections", CONFIG_U32, max_connections), .arg = "N",
	  .default_text = "256", .min = 1, .max = MAX_CONNECTIONS, .help = "data connections at a time" },

	{ .section = "leases", SETTING("lease_term", CONFIG_DURATION, lease_term_ms), .arg = "TIME",
	  .default_text = "10s", .min = 100, .max = DAY_MS, .help = "a lease that nothing renews for so long ends" },
	{ .section = "leases", SETTING("heartbeat", CONFIG_DURATION, heartbeat_ms), .arg = "TIME",
	  .default_text = "200ms", .min = 10, .max = DAY_MS,
	  .help = "how often an idle client is to show life; at most a quarter of lease_term" },
	{ .section = "leases", SETTING("max_leases", CONFIG_U32, max_leases), .arg = "N",
	  .default_text = "64", .min = 1, .max = MAX_LEASES, .help = "clients at a time" },
	{ .section = "leases", SETTING("max_lease_memory", CONFIG_SIZE, max_lease_bytes), .arg = "SIZE",
	  .default_text = "0", .help = "the most that one client gets, a multiple of slab_size; 0: no limit" },

	{ .section = "threads", SETTING("reactors", CONFIG_U32, nr_reactors), .arg = "N", .default_text = "1", .min = 1,
	  .max = SETTINGS_MAX_REACTORS, .help = "threads that serve data connections" },
	{ .section = "threads", SETTING("cpus", CONFIG_LIST, cpu_texts), .arg = "LIST",
	  .help = "processors that the reactors stay on, one each; empty: any" },
	{ .section = "threads", SETTING("spin_us", CONFIG_U32, spin_us), .arg = "N",
	  .default_text = "0", .max = 1000000, .help = "microseconds that a reactor looks for work before it sleeps" },

	{ .section = "process", SETTING("name", CONFIG_STRING, name), .arg = "TEXT",
	  .help = "what the server is called, by default as its host" },
	{ .section = "process", SETTING("log_level", CONFIG_CHOICE, log_level), .arg = "LEVEL",
	  .default_text = "notice", .choices = log_levels, .help = "the least urgent of what is logged" },
	{ .section = "process", SETTING("stop_grace", CONFIG_DURATION, stop_grace_ms), .arg = "TIME",
	  .default_text = "30s", .max = DAY_MS, .help = "after SIGTERM, how long to wait for clients to move out" },
	{ .section = "process", SETTING("ready_file", CONFIG_STRING, ready_file), .arg = "FILE",
	  .help = "written when the server is ready, with the addresses it got; removed at the end" },
};

static const struct config_program program = {
	.name = PROGRAM,
	.summary = "lends this machine's memory to farswap clients",
	.default_file = "/etc/farswap/farmemd.conf",
	.options = options,
	.nr_options = BASE_ARRAY_SIZE(options),
	.settings_bytes = sizeof(struct settings),
};

static BASE_PRINTF(1, 2) int settings_wrong(const char *fmt, ...)
{
	va_list args;

	fputs(PROGRAM ": ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return -EINVAL;
}

static int settings_check_sizes(const struct settings *settings)
{
	char memory[CONFIG_VALUE_MAX], slab[CONFIG_VALUE_MAX], lease[CONFIG_VALUE_MAX];

	config_format_size(settings->memory_bytes, memory);
	config_format_size(settings->slab_bytes, slab);
	config_format_size(settings->max_lease_bytes, lease);
	if (settings->memory_bytes == 0)
		return settings_wrong("memory: must be given and not be 0, such as --memory 2G");
	if (settings->memory_bytes % settings->slab_bytes != 0)
		return settings_wrong("memory: %s is not a multiple of slab_size %s", memory, slab);
	if (arena_size_check(settings->memory_bytes, settings->slab_bytes) < 0)
		return settings_wrong("memory: %s is more than %u slabs of %s", memory, ARENA_MAX_SLABS, slab);
	if (settings->max_lease_bytes % settings->slab_bytes != 0)
		return settings_wrong("max_lease_memory: %s is not a multiple of slab_size %s", lease, slab);
	if (settings->heartbeat_ms > settings->lease_term_ms / BEATS_PER_TERM)
		return settings_wrong("heartbeat: %" PRIu64 "ms is more than a quarter of lease_term %" PRIu64 "ms",
				      settings->heartbeat_ms, settings->lease_term_ms);
	return 0;
}

static int settings_take_cpus(struct settings *settings)
{
	const struct config_list *texts = &settings->cpu_texts;
	long nr_cpus = sysconf(_SC_NPROCESSORS_CONF);

	for (unsigned i = 0; i < SETTINGS_MAX_REACTORS; i++)
		settings->cpus[i] = -1;
	if (texts->nr != 0 && texts->nr != settings->nr_reactors)
		return settings_wrong("cpus: %u processors for %u reactors", texts->nr, settings->nr_reactors);
	for (unsigned i = 0; i < texts->nr; i++) {
		uint64_t cpu;

		if (config_parse_u64(texts->item[i], &cpu) < 0 || cpu >= (uint64_t)nr_cpus)
			return settings_wrong("cpus: '%s' is not a processor of this machine (0 to %ld)",
					      texts->item[i], nr_cpus - 1);
		settings->cpus[i] = (int)cpu;
	}
	return 0;
}

/* "host:port", with a port that a client can connect to. */
static bool address_is_complete(const char *text)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;

	return colon && colon != text && config_parse_u64(colon + 1, &port) == 0 && port >= 1 && port <= UINT16_MAX;
}

static int settings_check_names(struct settings *settings)
{
	if (settings->name[0] == '\0' && gethostname(settings->name, sizeof(settings->name) - 1) < 0)
		return settings_wrong("name: the host's name cannot be had (%s) and none is given", err_text(-errno));
	if (lease_name_check(settings->name) < 0)
		return settings_wrong("name: must be 1 to %d bytes of printable text", LEASE_NAME_MAX - 1);
	if (settings->data_advertise[0] != '\0' && !address_is_complete(settings->data_advertise))
		return settings_wrong("data_advertise: '%s' is not an address with a port", settings->data_advertise);
	if (settings->rdma_advertise[0] != '\0' && !address_is_complete(settings->rdma_advertise))
		return settings_wrong("rdma_advertise: '%s' is not an address with a port", settings->rdma_advertise);
	return 0;
}

int settings_load(int argc, char **argv, struct settings *ret_settings, int *ret_exit_status)
{
	struct settings *settings = calloc(1, sizeof(*settings));
	char error[CONFIG_ERROR_MAX] = "";
	enum config_action action;
	int ret;

	*ret_exit_status = 2;
	if (!settings)
		return settings_wrong("out of memory");
	ret = config_load(&program, argc, argv, settings, &action, error);
	if (ret < 0) {
		settings_wrong("%s", error);
		goto out;
	}
	if (action != CONFIG_RUN) {
		if (action == CONFIG_PRINT_HELP)
			config_print_help(&program, stdout);
		else if (action == CONFIG_PRINT_EXAMPLE)
			config_print_example(&program, stdout);
		else
			puts(PROGRAM " " FARSWAP_VERSION);
		*ret_exit_status = 0;
		ret = -ECANCELED;
		goto out;
	}
	ret = settings_check_sizes(settings);
	if (ret == 0)
		ret = settings_take_cpus(settings);
	if (ret == 0)
		ret = settings_check_names(settings);
	if (ret == 0)
		*ret_settings = *settings;
out:
	free(settings);
	return ret;
}

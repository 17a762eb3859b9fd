/*
 * What farswapd can be told, and from where: one table for the command line, the configuration file and --help.
 */
#ifndef FARSWAP_CLIENT_SETTINGS_H
#define FARSWAP_CLIENT_SETTINGS_H

#include "client/comp/comp.h"
#include "common/config/config.h"
#include "common/log/log.h"

#define SETTINGS_MAX_QUEUES 32
#define SETTINGS_MAX_SERVERS 63 /* and the disk */
#define SETTINGS_STATE_FILE "/run/farswap/state/farswapd"

enum settings_frontend {
	SETTINGS_AUTO_FRONTEND,
	SETTINGS_UBLK,
	SETTINGS_NBD_KERNEL,
	SETTINGS_FUSE,
	SETTINGS_NBD,
	SETTINGS_NONE,
};

enum settings_transport { SETTINGS_AUTO, SETTINGS_TCP, SETTINGS_VERBS };

struct settings {
	uint64_t size_bytes; /* of the device */

	struct config_list servers;
	uint64_t dead_ms;
	uint64_t patience_ms;
	uint64_t lost_after_ms; /* 0: the lease's term and a margin */
	uint64_t connect_timeout_ms;
	uint64_t start_timeout_ms;
	enum settings_transport transport;
	char rdma_device[CONFIG_STRING_MAX]; /* empty: any */
	uint32_t rdma_port;		     /* 0: any */
	char rdma_gid_index_text[CONFIG_STRING_MAX];
	int rdma_gid_index; /* -1: any */
	char rdma_service_level_text[CONFIG_STRING_MAX];
	int rdma_service_level; /* -1: the network's default */

	char disk[CONFIG_STRING_MAX]; /* empty: none */
	uint64_t disk_bytes;	      /* 0: all of a block device */
	uint64_t disk_slab_bytes;

	uint64_t ahead_bytes; /* 0: four slabs */
	uint64_t comp_limit_bytes; /* 0: nothing is compressed */
	enum comp_algorithm comp_algorithm;
	uint32_t max_slabs;   /* never 0 when loaded */

	enum settings_frontend frontend;
	char nbd_listen[CONFIG_STRING_MAX];
	char nbd_index_text[CONFIG_STRING_MAX];
	int nbd_index; /* of /dev/nbdN; -1: the kernel's choice */
	uint32_t nbd_connections; /* 0: one per queue */
	char mount_dir[CONFIG_STRING_MAX];
	bool swap;
	char swap_priority_text[CONFIG_STRING_MAX];
	int swap_priority; /* -1: the kernel's choice */

	uint32_t nr_queues; /* never 0 when loaded */
	uint32_t queue_depth;
	struct config_list cpu_texts;
	int cpus[SETTINGS_MAX_QUEUES + 1]; /* of each queue, the mover's last; -1: any */
	uint32_t spin_us;

	char name[CONFIG_STRING_MAX];	      /* the host's, unless given */
	char admin_socket[CONFIG_STRING_MAX]; /* a path */
	enum log_level log_level;
	char ready_file[CONFIG_STRING_MAX]; /* empty: none */
	char state_file[CONFIG_STRING_MAX]; /* "auto", "none" or a path */
};

/*
 * Reads the command line and the file, and checks what the table cannot say. Prints what --help and the like ask for. 0
 * and the settings are good; else the exit status that main is to end with is in *ret_exit_status: 0 after printing, 2
 * with one line on stderr that names the setting that is wrong.
 */
int settings_load(int argc, char **argv, struct settings *ret_settings, int *ret_exit_status) BASE_MUST_CHECK;

/*
 * Checks what the table cannot say, and fills in what follows from other settings. 0, or -EINVAL with one line that names
 * the setting. nr_cpus: processors of this machine. Pure.
 */
int settings_check(struct settings *settings, unsigned nr_cpus, char ret_error[CONFIG_ERROR_MAX]) BASE_MUST_CHECK;

/*
 * Seconds in which a request of the device ends, whatever its servers do, and about a minute more for a disk in trouble: who
 * gives up a device on which one takes longer gives up none that works as it was made to. The settings are within the limits of
 * the table. Never 0, and few enough to be counted in thousandths of a second in 32 bits, as kernels do. Pure; any thread.
 */
unsigned settings_longest_request_s(const struct settings *settings);

#endif

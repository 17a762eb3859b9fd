/*
 * What farmemd can be told, and from where: one table for the command line, the configuration file and --help.
 */
#ifndef FARSWAP_SERVER_SETTINGS_H
#define FARSWAP_SERVER_SETTINGS_H

#include "common/config/config.h"
#include "common/log/log.h"

#define SETTINGS_MAX_REACTORS 32

struct settings {
	char name[CONFIG_STRING_MAX]; /* the host's, unless given */
	uint64_t memory_bytes;
	uint64_t slab_bytes;

	char listen[CONFIG_STRING_MAX];
	char data_listen[CONFIG_STRING_MAX];
	char data_advertise[CONFIG_STRING_MAX]; /* empty: what data_listen got */
	char rdma_listen[CONFIG_STRING_MAX];	/* or "auto", or "off" */
	char rdma_advertise[CONFIG_STRING_MAX]; /* empty: what rdma_listen got */
	uint32_t max_connections;

	uint64_t lease_term_ms;
	uint64_t heartbeat_ms;
	uint32_t max_leases;
	uint64_t max_lease_bytes; /* 0: all of the memory */

	uint32_t nr_reactors;
	struct config_list cpu_texts;
	int cpus[SETTINGS_MAX_REACTORS]; /* of each reactor; -1: any */
	uint32_t spin_us;

	enum log_level log_level;
	uint64_t stop_grace_ms;
	char ready_file[CONFIG_STRING_MAX]; /* empty: none */
};

/*
 * Reads the command line and the file, and checks what the table cannot say. Prints what --help and the like ask for. 0
 * and the settings are good; else the exit status that main is to end with is in *ret_exit_status: 0 after printing, 2
 * with one line on stderr that names the setting that is wrong.
 */
int settings_load(int argc, char **argv, struct settings *ret_settings, int *ret_exit_status) BASE_MUST_CHECK;

#endif

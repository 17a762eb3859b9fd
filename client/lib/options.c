#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/private.h"
#include "client/servers.h"
#include "common/base/err.h"

#define FIRST_BYTES 128u /* of struct farswap_options in version 0.1.0 */

static_assert(sizeof(struct farswap_options) == FIRST_BYTES, "part of the ABI");
static_assert((int)FARSWAP_COMP_LZ4 == COMP_LZ4 && (int)FARSWAP_COMP_ZSTD == COMP_ZSTD, "the same algorithms");

#define MAX_ENTRIES ((1ull << 32) - SWP_CLUSTER_ENTRIES)
#define DAY_MS (24u * 3600 * 1000)
#define MIN_SLAB_BYTES (1ull << 20)
#define MAX_SLAB_BYTES (1ull << 30)
#define DEFAULT_SLAB_BYTES (64ull << 20)
#define MIN_COMP_BYTES (4ull << 20) /* below that the blocks being filled are most of it */
#define MAX_SLABS (1u << 18)
#define MIN_AUTO_SLABS 1024u

#define NUMBER(member) .name = #member, .at = offsetof(struct farswap_options, member)

/* The options that are one number: the range, and what 0 stands for. */
static const struct {
	const char *name;
	size_t at;
	uint32_t min, max, otherwise;
} numbers[] = {
	{ NUMBER(nr_queues), .min = 1, .max = NODE_MAX_QUEUES },
	{ NUMBER(nr_folio_ios), .min = 1, .max = 4096, .otherwise = 64 },
	{ NUMBER(nr_servers), .max = NODE_MAX_SERVERS },
	{ NUMBER(queue_depth), .min = 1, .max = 1024, .otherwise = 128 },
	{ NUMBER(max_slabs), .max = MAX_SLABS },
	{ NUMBER(comp_algorithm), .max = FARSWAP_COMP_ZSTD },
	{ NUMBER(spin_us), .max = 1000000 },
	{ NUMBER(start_timeout_ms), .min = 10, .max = DAY_MS, .otherwise = 10000 },
	{ NUMBER(connect_timeout_ms), .min = 10, .max = DAY_MS, .otherwise = 1000 },
	{ NUMBER(dead_after_ms), .min = 50, .max = DAY_MS, .otherwise = 800 },
	{ NUMBER(patience_ms), .min = 1, .max = DAY_MS, .otherwise = 12000 },
	{ NUMBER(lost_after_ms), .max = DAY_MS },
};

static BASE_PRINTF(2, 3) int wrong(char error[NODE_ERROR_MAX], const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, NODE_ERROR_MAX, fmt, args);
	va_end(args);
	return -EINVAL;
}

static int take_numbers(struct farswap_options *options, char error[NODE_ERROR_MAX])
{
	for (size_t i = 0; i < BASE_ARRAY_SIZE(numbers); i++) {
		uint32_t *value = (void *)((char *)options + numbers[i].at);

		if (*value == 0)
			*value = numbers[i].otherwise;
		if (*value < numbers[i].min || *value > numbers[i].max)
			return wrong(error, "%s: %" PRIu32 " is not %" PRIu32 " to %" PRIu32, numbers[i].name, *value,
				     numbers[i].min, numbers[i].max);
	}
	return 0;
}

static int take_entries(struct farswap_options *options, char error[NODE_ERROR_MAX])
{
	uint64_t bytes, slabs;

	if (options->nr_entries == 0 || options->nr_entries > MAX_ENTRIES)
		return wrong(error, "nr_entries: %" PRIu64 " is not 1 to %llu", options->nr_entries, MAX_ENTRIES);
	options->nr_entries = base_align_up(options->nr_entries, SWP_CLUSTER_ENTRIES);
	bytes = options->nr_entries << FSW_PAGE_SHIFT;
	/* Twice what can be stored, were all slabs of the smallest size: a drain needs room beside what it empties. */
	slabs = base_min_u64(base_max_u64(2 * bytes / MIN_SLAB_BYTES, MIN_AUTO_SLABS), MAX_SLABS);
	if (options->max_slabs == 0)
		options->max_slabs = (uint32_t)slabs;
	return 0;
}

static int check_servers(const struct farswap_options *options, char error[NODE_ERROR_MAX])
{
	if (options->nr_servers == 0 && !options->disk)
		return wrong(error,
			     "servers: neither a server nor a disk is given, so there is nowhere to store anything");
	if (options->nr_servers != 0 && !options->servers)
		return wrong(error, "servers: there are none, and nr_servers is %" PRIu32, options->nr_servers);
	for (uint32_t i = 0; i < options->nr_servers; i++)
		if (!options->servers[i])
			return wrong(error, "servers: number %" PRIu32 " is NULL", i);
	return servers_check(options->servers, options->nr_servers, error, NODE_ERROR_MAX);
}

static int take_disk(struct farswap_options *options, char error[NODE_ERROR_MAX])
{
	if (options->disk_slab_bytes == 0)
		options->disk_slab_bytes = DEFAULT_SLAB_BYTES;
	if (!options->disk && options->disk_bytes)
		return wrong(error, "disk_bytes: is given without a disk");
	if (!base_is_power_of_two(options->disk_slab_bytes) || options->disk_slab_bytes < MIN_SLAB_BYTES ||
	    options->disk_slab_bytes > MAX_SLAB_BYTES)
		return wrong(error, "disk_slab_bytes: %" PRIu64 " is not a power of two from %llu to %llu",
			     options->disk_slab_bytes, MIN_SLAB_BYTES, MAX_SLAB_BYTES);
	if (options->disk_bytes % options->disk_slab_bytes != 0)
		return wrong(error, "disk_bytes: %" PRIu64 " is not a multiple of disk_slab_bytes %" PRIu64,
			     options->disk_bytes, options->disk_slab_bytes);
	return 0;
}

static int check_comp(const struct farswap_options *options, char error[NODE_ERROR_MAX])
{
	uint64_t limit = options->comp_limit_bytes;

	if (limit != 0 && (limit < MIN_COMP_BYTES || limit > COMP_LIMIT_BYTES_MAX))
		return wrong(error, "comp_limit_bytes: %" PRIu64 " is neither 0 nor %llu to %" PRIu64, limit,
			     MIN_COMP_BYTES, COMP_LIMIT_BYTES_MAX);
	return 0;
}

static void take_cpus(struct library_options *options)
{
	for (unsigned i = 0; i <= options->given.nr_queues; i++)
		options->cpus[i] = options->given.cpus ? options->given.cpus[i] : -1;
}

static int take_name(struct library_options *options, char error[NODE_ERROR_MAX])
{
	if (!options->given.name) {
		if (gethostname(options->name, sizeof(options->name) - 1) < 0)
			return wrong(error, "name: the host's name cannot be had (%s) and none is given",
				     err_text(-errno));
		return 0;
	}
	if (strlen(options->given.name) >= sizeof(options->name))
		return wrong(error, "name: is longer than %zu bytes", sizeof(options->name) - 1);
	strcpy(options->name, options->given.name);
	return 0;
}

int library_options_take(const struct farswap_options *options, struct library_options *ret_options,
			 char ret_error[NODE_ERROR_MAX])
{
	struct library_options taken = { .name = "" };
	int ret = sized_take(options, &taken.given, sizeof(taken.given), FIRST_BYTES);

	if (ret < 0) {
		(void)wrong(ret_error,
			    ret == -EINVAL ? "size: %" PRIu64 " is not sizeof(struct farswap_options)"
					   : "size: beyond what version " FARSWAP_VERSION " knows, some of the %" PRIu64
					     " bytes are not 0",
			    options->size);
		return ret;
	}
	ret = take_numbers(&taken.given, ret_error);
	if (ret == 0)
		ret = take_entries(&taken.given, ret_error);
	if (ret == 0)
		ret = check_servers(&taken.given, ret_error);
	if (ret == 0)
		ret = take_disk(&taken.given, ret_error);
	if (ret == 0)
		ret = check_comp(&taken.given, ret_error);
	if (ret == 0)
		ret = take_name(&taken, ret_error);
	if (ret < 0)
		return ret;
	take_cpus(&taken);
	*ret_options = taken;
	return 0;
}

struct node_options library_options_of_node(const struct library_options *options)
{
	const struct farswap_options *given = &options->given;

	return (struct node_options){
		.nr_entries = given->nr_entries,
		.nr_folio_ios = given->nr_folio_ios,
		.max_slabs = given->max_slabs,
		.comp_limit_bytes = given->comp_limit_bytes,
		.comp_algorithm = (enum comp_algorithm)given->comp_algorithm,
		.nr_queues = given->nr_queues,
		.cpus = options->cpus,
		.spin_us = given->spin_us,
		.queue_depth = given->queue_depth,
		.disk = given->disk,
		.disk_bytes = given->disk_bytes,
		.disk_slab_bytes = given->disk_slab_bytes,
		.servers = given->servers,
		.rdma_gid_index = -1,
		.rdma_service_level = -1,
		.nr_servers = given->nr_servers,
		.name = options->name,
		.dead_ms = given->dead_after_ms,
		.patience_ms = given->patience_ms,
		.connect_timeout_ms = given->connect_timeout_ms,
		.lost_after_ms = given->lost_after_ms,
		.ahead_bytes = given->ahead_bytes,
	};
}

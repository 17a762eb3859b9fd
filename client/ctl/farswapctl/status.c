#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/farswapctl/cli.h"

typedef Farswap__Admin__V1__Status status_message;

static const char *state_name(const status_message *status)
{
	switch (status->state) {
	case FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_STARTING:
		return "starting";
	case FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_SERVING:
		return "serving";
	case FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_IDLE:
		return "idle";
	case FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_STOPPING:
		return "stopping";
	default:
		return "unknown";
	}
}

/* A daemon of another version may leave parts out. */
static bool is_complete(const status_message *status)
{
	return status->frontend && status->device && status->io && status->io->read_latency && status->io->write_latency &&
	       status->process;
}

static void row(struct libscols_table *table, const char *name, const char *value)
{
	const char *texts[] = { name, value };

	(void)cli_table_row(table, texts);
}

static void row_pages(struct libscols_table *table, const char *name, uint64_t pages)
{
	char text[CLI_TEXT_MAX];

	row(table, name, cli_size(pages << FSW_PAGE_SHIFT, text));
}

static void row_count(struct libscols_table *table, const char *name, uint64_t nr, uint64_t pages)
{
	char text[80], size[CLI_TEXT_MAX];

	snprintf(text, sizeof(text), "%llu (%s)", (unsigned long long)nr, cli_size(pages << FSW_PAGE_SHIFT, size));
	row(table, name, text);
}

static void row_number(struct libscols_table *table, const char *name, uint64_t nr)
{
	char text[CLI_TEXT_MAX];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)nr);
	row(table, name, text);
}

/* How many there are, and how many were turned away or cut, and why. Only NBD has any; the kernel's are never turned away. */
static void rows_connections(struct libscols_table *table, const Farswap__Admin__V1__FrontendStatus *frontend)
{
	const Farswap__Admin__V1__FrontendCounters *counters = frontend->counters;
	char text[6 * CLI_TEXT_MAX];

	if (!counters || strncmp(frontend->kind, "nbd", 3) != 0)
		return;
	row_number(table, "connections", counters->connections);
	if (strcmp(frontend->kind, "nbd") != 0)
		return;
	snprintf(text, sizeof(text),
		 "%" PRIu64 " of %" PRIu64 " (refused %" PRIu64 ", garbage %" PRIu64 ", cut short %" PRIu64
		 ", silent %" PRIu64 ")",
		 counters->refused + counters->protocol_errors + counters->truncated + counters->timeouts,
		 counters->accepted, counters->refused, counters->protocol_errors, counters->truncated,
		 counters->timeouts);
	row(table, "  rejected", text);
}

/* What the front end's clients, or the kernel, got wrong. */
static void rows_frontend_errors(struct libscols_table *table, const Farswap__Admin__V1__FrontendStatus *frontend)
{
	const Farswap__Admin__V1__FrontendCounters *counters = frontend->counters;

	if (!counters || !frontend->kind[0])
		return;
	row_number(table, "bad requests", counters->bad_requests);
	if (strcmp(frontend->kind, "fuse") == 0 || strcmp(frontend->kind, "ublk") == 0)
		row_number(table, "kernel errors", counters->kernel_errors);
}

static void rows_compressed(struct libscols_table *table, const Farswap__Admin__V1__DeviceStatus *device)
{
	char used[CLI_TEXT_MAX], limit[CLI_TEXT_MAX], text[3 * CLI_TEXT_MAX];

	if (!device->compress_limit_bytes)
		return;
	snprintf(text, sizeof(text), "%s of %s", cli_size(device->compressed_bytes, used),
		 cli_size(device->compress_limit_bytes, limit));
	row(table, "compressed pool", text);
	row_number(table, "written back", device->pages_written_back);
}

static void row_latency(struct libscols_table *table, const char *name, const Farswap__Admin__V1__Latency *latency)
{
	char p50[CLI_TEXT_MAX], p99[CLI_TEXT_MAX], p999[CLI_TEXT_MAX], max[CLI_TEXT_MAX], text[5 * CLI_TEXT_MAX];

	snprintf(text, sizeof(text), "p50 %s, p99 %s, p99.9 %s, max %s", cli_time(latency->p50_ns, p50),
		 cli_time(latency->p99_ns, p99), cli_time(latency->p999_ns, p999), cli_time(latency->max_ns, max));
	row(table, name, text);
}

static int status_table(const status_message *status)
{
	static const char *const columns[] = { "name", "value", NULL };
	struct libscols_table *table = cli_table(columns, false);
	const Farswap__Admin__V1__DeviceStatus *device = status->device;
	const Farswap__Admin__V1__FrontendStatus *frontend = status->frontend;
	const Farswap__Admin__V1__IoStatus *io = status->io;
	char text[CLI_TEXT_MAX];

	if (!table)
		return cli_table_print(NULL);
	row(table, "daemon", state_name(status));
	row(table, "version", status->version);
	row_number(table, "pid", status->pid);
	row(table, "uptime", cli_uptime(status->uptime_ms, text));
	row(table, "front end", frontend->kind[0] ? frontend->kind : "none");
	if (frontend->kind[0])
		row(table, "chosen because", frontend->chosen_because);
	row(table, "endpoint", frontend->endpoint);
	row(table, "swap", frontend->swap_on ? "on" : "off");
	row(table, "swap used", cli_size(frontend->swap_used_bytes, text));
	rows_connections(table, frontend);
	row(table, "size", cli_size(device->size_bytes, text));
	row_pages(table, "in use", device->pages_in_use);
	row_pages(table, "  on servers", device->pages_stored_remote);
	row_pages(table, "  on disk", device->pages_stored_disk);
	row_pages(table, "  without a slot", device->pages_same);
	if (device->compress_limit_bytes)
		row_pages(table, "  compressed", device->pages_compressed);
	row_pages(table, "  lost", device->pages_poisoned);
	rows_compressed(table, device);
	row(table, "metadata", cli_size(device->metadata_bytes, text));
	row_count(table, "reads", io->reads, io->read_pages);
	row_count(table, "writes", io->writes, io->write_pages);
	row_count(table, "discards", io->discards, io->discard_pages);
	row_number(table, "read errors", io->read_errors);
	row_number(table, "write errors", io->write_errors);
	row_number(table, "checksum errors", io->checksum_errors);
	rows_frontend_errors(table, frontend);
	row_latency(table, "read latency", io->read_latency);
	row_latency(table, "write latency", io->write_latency);
	row(table, "memory locked", status->process->memory_locked);
	row(table, "I/O flusher", status->process->io_flusher);
	row(table, "OOM protected", status->process->oom_protected);
	return cli_table_print(table);
}

static json_t *latency_json(const Farswap__Admin__V1__Latency *latency)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "p50_ns", cli_json_u64(latency->p50_ns), "p99_ns",
			 cli_json_u64(latency->p99_ns), "p999_ns", cli_json_u64(latency->p999_ns), "max_ns",
			 cli_json_u64(latency->max_ns));
}

static json_t *counters_json(const Farswap__Admin__V1__FrontendCounters *counters)
{
	if (!counters)
		return NULL;
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "accepted", cli_json_u64(counters->accepted),
			 "connections", cli_json_u64(counters->connections), "refused",
			 cli_json_u64(counters->refused), "protocol_errors", cli_json_u64(counters->protocol_errors),
			 "truncated", cli_json_u64(counters->truncated), "timeouts", cli_json_u64(counters->timeouts),
			 "bad_requests", cli_json_u64(counters->bad_requests), "io_errors",
			 cli_json_u64(counters->io_errors), "kernel_errors", cli_json_u64(counters->kernel_errors));
}

static json_t *frontend_json(const Farswap__Admin__V1__FrontendStatus *frontend)
{
	return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:o?}", "kind", frontend->kind, "endpoint", frontend->endpoint,
			 "chosen_because", frontend->chosen_because, "swap_on", (int)frontend->swap_on,
			 "swap_used_bytes", cli_json_u64(frontend->swap_used_bytes), "size_bytes",
			 cli_json_u64(frontend->size_bytes), "counters", counters_json(frontend->counters));
}

static json_t *device_json(const Farswap__Admin__V1__DeviceStatus *device)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "size_bytes",
			 cli_json_u64(device->size_bytes), "pages_in_use", cli_json_u64(device->pages_in_use),
			 "pages_stored_remote",
			 cli_json_u64(device->pages_stored_remote), "pages_stored_disk",
			 cli_json_u64(device->pages_stored_disk), "pages_same", cli_json_u64(device->pages_same),
			 "pages_poisoned", cli_json_u64(device->pages_poisoned), "metadata_bytes",
			 cli_json_u64(device->metadata_bytes), "pages_compressed", cli_json_u64(device->pages_compressed),
			 "pages_written_back", cli_json_u64(device->pages_written_back), "compressed_bytes",
			 cli_json_u64(device->compressed_bytes), "compress_limit_bytes",
			 cli_json_u64(device->compress_limit_bytes));
}

static json_t *io_json(const Farswap__Admin__V1__IoStatus *io)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "reads", cli_json_u64(io->reads),
			 "writes", cli_json_u64(io->writes), "discards", cli_json_u64(io->discards), "read_pages",
			 cli_json_u64(io->read_pages), "write_pages", cli_json_u64(io->write_pages), "discard_pages",
			 cli_json_u64(io->discard_pages), "read_errors", cli_json_u64(io->read_errors), "write_errors",
			 cli_json_u64(io->write_errors), "checksum_errors", cli_json_u64(io->checksum_errors),
			 "read_latency", latency_json(io->read_latency), "write_latency",
			 latency_json(io->write_latency));
}

static json_t *status_json(const status_message *status)
{
	const Farswap__Admin__V1__ProcessStatus *process = status->process;
	json_t *granted = json_pack("{s:s, s:s, s:s}", "memory_locked", process->memory_locked, "io_flusher",
				    process->io_flusher, "oom_protected", process->oom_protected);

	return json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o}", "version", status->version, "pid",
			 cli_json_u64(status->pid), "uptime_ms", cli_json_u64(status->uptime_ms), "state",
			 state_name(status), "frontend", frontend_json(status->frontend), "device",
			 device_json(status->device), "io", io_json(status->io), "process", granted);
}

static int get_status(struct cli *cli, ProtobufCMessage **ret_reply)
{
	Farswap__Admin__V1__GetStatusRequest request = FARSWAP__ADMIN__V1__GET_STATUS_REQUEST__INIT;

	return cli_call(cli, CLI_METHOD("GetStatus"), &request.base, &farswap__admin__v1__status__descriptor, ret_reply);
}

int cli_status(struct cli *cli)
{
	ProtobufCMessage *reply;
	int ret = get_status(cli, &reply);

	if (ret != CLI_DONE)
		return ret;
	if (!is_complete((const status_message *)reply))
		ret = cli_fail(CLI_FAILED, "farswapd at %s gave an incomplete status: is it of another version?",
			       cli->socket);
	else if (cli->json)
		ret = cli_json_print(status_json((const status_message *)reply), false);
	else
		ret = status_table((const status_message *)reply);
	rpc_message_free(reply);
	return ret;
}

/* The tool's own version is known without a daemon, so that is no error here. */
int cli_version(struct cli *cli)
{
	Farswap__Admin__V1__GetStatusRequest request = FARSWAP__ADMIN__V1__GET_STATUS_REQUEST__INIT;
	const char *daemon = NULL;
	ProtobufCMessage *reply = NULL;
	int ret = CLI_DONE;

	if (rpc_client_call(cli->client, CLI_METHOD("GetStatus"), &request.base,
			    &farswap__admin__v1__status__descriptor, 0, CLI_TIMEOUT_MS, &reply, NULL) == RPC_OK)
		daemon = ((const status_message *)reply)->version;
	if (cli->json)
		ret = cli_json_print(json_pack("{s:s, s:s?}", "farswapctl", FARSWAP_VERSION, "farswapd", daemon), false);
	else
		printf("farswapctl %s\nfarswapd %s\n", FARSWAP_VERSION, daemon ? daemon : "(not reachable)");
	rpc_message_free(reply);
	return ret;
}

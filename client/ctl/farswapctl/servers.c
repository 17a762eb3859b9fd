#include <inttypes.h>
#include <stdio.h>

#include "client/ctl/farswapctl/cli.h"

typedef Farswap__Admin__V1__Server server_message;

static const char *state_name(const server_message *server)
{
	switch (server->state) {
	case FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_CONNECTING:
		return "connecting";
	case FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_UP:
		return "up";
	case FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DOWN:
		return "down";
	case FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_LOST:
		return "lost";
	case FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DRAINING:
		return "draining";
	case FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DRAINED:
		return "drained";
	default:
		return "unknown";
	}
}

static const char *kind_name(const server_message *server)
{
	switch (server->kind) {
	case FARSWAP__ADMIN__V1__SERVER_KIND__SERVER_KIND_REMOTE:
		return "remote";
	case FARSWAP__ADMIN__V1__SERVER_KIND__SERVER_KIND_DISK:
		return "disk";
	default:
		return "unknown";
	}
}

static bool is_well(const server_message *server)
{
	return server->state == FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_UP ||
	       server->state == FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DRAINING ||
	       server->state == FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DRAINED;
}

/* Connections that the server turned away or cut, whoever made them. */
static const char *rejected_text(const Farswap__Admin__V1__DataPort *port, char text[CLI_TEXT_MAX])
{
	if (!port)
		return "";
	snprintf(text, CLI_TEXT_MAX, "%" PRIu64,
		 port->refused + port->protocol_errors + port->truncated + port->timeouts);
	return text;
}

static int add_row(struct libscols_table *table, const server_message *server)
{
	char size[CLI_TEXT_MAX], slabs[CLI_TEXT_MAX], used[CLI_TEXT_MAX], free[CLI_TEXT_MAX], in[CLI_TEXT_MAX];
	char out[CLI_TEXT_MAX], errors[CLI_TEXT_MAX], rejected[CLI_TEXT_MAX], latency[CLI_TEXT_MAX];
	const char *texts[] = {
		server->name,
		kind_name(server),
		server->transport,
		state_name(server),
		cli_size(server->capacity_bytes, size),
		slabs,
		cli_size(server->used_slots << FSW_PAGE_SHIFT, used),
		cli_size(server->free_slots << FSW_PAGE_SHIFT, free),
		cli_size(server->pages_in << FSW_PAGE_SHIFT, in),
		cli_size(server->pages_out << FSW_PAGE_SHIFT, out),
		errors,
		rejected_text(server->data_port, rejected),
		cli_time(server->latency_ns, latency),
		/* What went wrong with a server that is well by now is in the JSON. */
		is_well(server) ? "" : server->last_error,
	};

	snprintf(slabs, sizeof(slabs), "%u", server->leased_slabs);
	snprintf(errors, sizeof(errors), "%" PRIu64, server->read_errors + server->write_errors);
	return cli_table_row(table, texts);
}

static int servers_table(server_message *const *servers, size_t nr)
{
	static const char *const columns[] = { "SERVER", "KIND", "VIA", "STATE", ">SIZE", ">SLABS", ">USED", ">FREE",
					       ">IN", ">OUT", ">ERRORS", ">REJECTED", ">LATENCY", "LAST ERROR", NULL };
	struct libscols_table *table = cli_table(columns, true);

	for (size_t i = 0; table && i < nr; i++) {
		if (add_row(table, servers[i]) < 0) {
			scols_unref_table(table);
			table = NULL;
		}
	}
	return cli_table_print(table);
}

static json_t *data_port_json(const Farswap__Admin__V1__DataPort *port)
{
	if (!port)
		return NULL;
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "accepted", cli_json_u64(port->accepted),
			 "connections", cli_json_u64(port->connections), "admitted", cli_json_u64(port->admitted),
			 "refused", cli_json_u64(port->refused), "protocol_errors",
			 cli_json_u64(port->protocol_errors), "truncated", cli_json_u64(port->truncated), "timeouts",
			 cli_json_u64(port->timeouts), "denied_access", cli_json_u64(port->denied_access),
			 "denied_range", cli_json_u64(port->denied_range));
}

static json_t *server_json(const server_message *server)
{
	char instance[CLI_TEXT_MAX];

	/* 64 bits that are no quantity: a number of JSON would lose some of them in most readers. */
	snprintf(instance, sizeof(instance), "%016" PRIx64, server->instance_id);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, "
			 "s:o?}",
			 "name", server->name, "kind", kind_name(server), "transport", server->transport, "state",
			 state_name(server), "instance_id", instance, "capacity_bytes",
			 cli_json_u64(server->capacity_bytes), "leased_slabs", cli_json_u64(server->leased_slabs),
			 "slab_bytes", cli_json_u64(server->slab_bytes), "used_slots", cli_json_u64(server->used_slots),
			 "free_slots", cli_json_u64(server->free_slots), "pages_in", cli_json_u64(server->pages_in),
			 "pages_out", cli_json_u64(server->pages_out), "read_errors", cli_json_u64(server->read_errors),
			 "write_errors", cli_json_u64(server->write_errors), "reconnects",
			 cli_json_u64(server->reconnects), "down_ms", cli_json_u64(server->down_ms), "latency_ns",
			 cli_json_u64(server->latency_ns), "heartbeat_rtt_ns", cli_json_u64(server->heartbeat_rtt_ns),
			 "last_error", server->last_error, "data_port", data_port_json(server->data_port));
}

static json_t *servers_json(server_message *const *servers, size_t nr)
{
	json_t *list = json_array();

	for (size_t i = 0; i < nr; i++)
		json_array_append_new(list, server_json(servers[i]));
	return json_pack("{s:o}", "servers", list);
}

int cli_servers(struct cli *cli)
{
	Farswap__Admin__V1__ListServersRequest request = FARSWAP__ADMIN__V1__LIST_SERVERS_REQUEST__INIT;
	const Farswap__Admin__V1__ListServersResponse *response;
	ProtobufCMessage *reply;
	int ret = cli_call(cli, CLI_METHOD("ListServers"), &request.base,
			   &farswap__admin__v1__list_servers_response__descriptor, &reply);

	if (ret != CLI_DONE)
		return ret;
	response = (const Farswap__Admin__V1__ListServersResponse *)reply;
	if (cli->json)
		ret = cli_json_print(servers_json(response->servers, response->n_servers), false);
	else
		ret = servers_table(response->servers, response->n_servers);
	rpc_message_free(reply);
	return ret;
}

/* Calls that answer with the server. */
static int call_for_server(struct cli *cli, const char *path, const ProtobufCMessage *request, const char *done)
{
	server_message *server;
	ProtobufCMessage *reply;
	int ret = cli_call(cli, path, request, &farswap__admin__v1__server__descriptor, &reply);

	if (ret != CLI_DONE)
		return ret;
	server = (server_message *)reply;
	if (cli->json)
		ret = cli_json_print(server_json(server), false);
	else
		printf("%s: %s\n", server->name, done);
	rpc_message_free(reply);
	return ret;
}

int cli_cancel(struct cli *cli)
{
	Farswap__Admin__V1__CancelDrainRequest request = FARSWAP__ADMIN__V1__CANCEL_DRAIN_REQUEST__INIT;

	request.server = (char *)(uintptr_t)cli->server;
	return call_for_server(cli, CLI_METHOD("CancelDrain"), &request.base,
			       "the drain is being cancelled; 'undrain' takes the server back into use");
}

int cli_undrain(struct cli *cli)
{
	Farswap__Admin__V1__UndrainRequest request = FARSWAP__ADMIN__V1__UNDRAIN_REQUEST__INIT;

	request.server = (char *)(uintptr_t)cli->server;
	return call_for_server(cli, CLI_METHOD("Undrain"), &request.base, "in use");
}

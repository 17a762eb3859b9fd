/*
 * A channel, and what keeps it connected. A channel of gRPC connects when a call asks for it, and sleeps for long
 * between attempts; so an event of ours follows its state and asks again each time it changes.
 */
#include <stdlib.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

#define CLIENT_MAX_MESSAGE_BYTES (4u << 20)
#define CLIENT_MAX_METADATA_BYTES (16 << 10)
#define CLIENT_KEEPALIVE_MS 5000
#define CLIENT_KEEPALIVE_MIN_MS 2000 /* a server of ours cuts off clients that ask more than once a second */
#define CLIENT_KEEPALIVE_TIMEOUT_MS 3000
/* Between attempts to connect: from the first of these to the second, and each attempt gets the third. */
#define CLIENT_BACKOFF_FIRST_MS 100
#define CLIENT_BACKOFF_MAX_MS 1000
#define CLIENT_CONNECT_TIMEOUT_MS 2000

/* An option, or its default, as gRPC takes it. */
static int client_option(uint32_t value, uint32_t otherwise, uint32_t min)
{
	return (int)base_min_u64(base_max_u64(value ? value : otherwise, min), INT32_MAX);
}

static grpc_channel *client_create_channel(const char *target, const struct rpc_client_options *options)
{
	int max_message_bytes = client_option(options ? options->max_message_bytes : 0, CLIENT_MAX_MESSAGE_BYTES, 1);
	int keepalive_ms = client_option(options ? options->keepalive_ms : 0, CLIENT_KEEPALIVE_MS,
					 CLIENT_KEEPALIVE_MIN_MS);
	grpc_arg args[] = {
		/* One client, one connection: a server's name twice in the configuration is two connections. */
		rpc_arg_integer(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
		rpc_arg_integer(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		rpc_arg_integer(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
		rpc_arg_integer(GRPC_ARG_ENABLE_RETRIES, 0),
		rpc_arg_integer(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
		rpc_arg_integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, max_message_bytes),
		rpc_arg_integer(GRPC_ARG_MAX_METADATA_SIZE, CLIENT_MAX_METADATA_BYTES),
		rpc_arg_integer(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, CLIENT_BACKOFF_FIRST_MS),
		rpc_arg_integer(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, CLIENT_BACKOFF_MAX_MS),
		rpc_arg_integer(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CLIENT_CONNECT_TIMEOUT_MS),
		rpc_arg_integer(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, CLIENT_BACKOFF_MAX_MS),
		/* A frozen server is seen on a stream that is silent for hours, too. */
		rpc_arg_integer(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms),
		rpc_arg_integer(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, CLIENT_KEEPALIVE_TIMEOUT_MS),
		rpc_arg_integer(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
		rpc_arg_integer(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
	};
	grpc_channel_args channel_args = { BASE_ARRAY_SIZE(args), args };
	grpc_channel_credentials *credentials = rpc_credentials_for_channel();
	grpc_channel *channel = grpc_channel_create(target, credentials, &channel_args);

	grpc_channel_credentials_release(credentials);
	return channel;
}

/* Asks for a connection, and to be told of the next change. */
static void client_keep(struct rpc_client *client) LOCK_REQUIRES(client->monitor.lock)
{
	grpc_connectivity_state state = grpc_channel_check_connectivity_state(client->channel, 1);

	grpc_channel_watch_connectivity_state(client->channel, state, rpc_deadline(-1), client->queue.cq,
					      &client->keeper);
}

/* The channel's state has changed, or it was destroyed. On the queue's thread. */
static void client_on_change(struct rpc_event *event)
{
	struct rpc_client *client = BASE_CONTAINER_OF(event, struct rpc_client, keeper);

	lock_acquire(&client->monitor.lock);
	if (client->closing) {
		client->keeper.pending = false;
		pthread_cond_broadcast(&client->monitor.changed);
	} else {
		client_keep(client);
	}
	lock_release(&client->monitor.lock);
}

int rpc_client_create(const char *address, const struct rpc_client_options *options, struct rpc_client **ret_client,
		      struct rpc_status *ret_status)
{
	char target[RPC_TARGET_MAX];
	struct rpc_client *client;
	int ret;

	ret = rpc_address_to_target(address, target);
	if (ret < 0)
		return rpc_status_set_errno(ret_status, ret, "cannot connect to %s", address);
	client = calloc(1, sizeof(*client));
	if (!client)
		return rpc_status_set_errno(ret_status, -ENOMEM, "cannot connect to %s", address);
	ret = rpc_queue_start(&client->queue, "rpc-client");
	if (ret < 0) {
		free(client);
		return rpc_status_set_errno(ret_status, ret, "cannot connect to %s", address);
	}
	client->channel = client_create_channel(target, options);
	rpc_monitor_init(&client->monitor);
	rpc_event_init(&client->keeper, &client->monitor);
	client->keeper.fn = client_on_change;
	rpc_event_begin(&client->keeper);
	lock_acquire(&client->monitor.lock);
	client_keep(client);
	lock_release(&client->monitor.lock);
	*ret_client = client;
	return 0;
}

void rpc_client_free(struct rpc_client *client)
{
	if (!client)
		return;
	lock_acquire(&client->monitor.lock);
	client->closing = true;
	lock_release(&client->monitor.lock);
	/* Ends the watch, whose report the keeper waits for. */
	grpc_channel_destroy(client->channel);
	rpc_event_finish(&client->keeper);
	rpc_queue_stop(&client->queue);
	rpc_monitor_done(&client->monitor);
	free(client);
}

bool rpc_client_is_connected(struct rpc_client *client)
{
	return grpc_channel_check_connectivity_state(client->channel, 0) == GRPC_CHANNEL_READY;
}

enum rpc_code rpc_client_call(struct rpc_client *client, const char *path, const ProtobufCMessage *request,
			      const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
			      ProtobufCMessage **ret_reply, struct rpc_status *ret_status)
{
	char field[RPC_FIELD_NAME_MAX];
	struct rpc_stream *stream;
	int ret;

	assert(timeout_ms > 0);
	if (rpc_message_check(request, field) < 0)
		return rpc_status_set(ret_status, RPC_INVALID_ARGUMENT, "%s is not valid UTF-8", field);
	ret = rpc_stream_open(client, path, request, reply, flags, timeout_ms, &stream);
	if (ret < 0) {
		rpc_status_set_errno(ret_status, ret, "%s", path);
		return rpc_code_from_errno(ret);
	}
	return rpc_stream_finish_unary(stream, ret_reply, ret_status);
}

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"
#include "common/sys/socket.h"
#include "common/sys/thread.h"

#define SERVER_MAX_UNARY 4
#define SERVER_MAX_STREAMS 16
#define SERVER_MAX_WORKERS 4096
#define SERVER_MAX_MESSAGE_BYTES (256u << 10)
#define SERVER_REQUEST_TIMEOUT_MS 5000
#define SERVER_MAX_METADATA_BYTES (16 << 10)
#define SERVER_MAX_CALLS_PER_CONNECTION 100
#define SERVER_HANDSHAKE_TIMEOUT_MS 5000
#define SERVER_KEEPALIVE_MS 30000 /* a silent client is asked for life so often, and given this long to answer: */
#define SERVER_KEEPALIVE_TIMEOUT_MS 10000
#define SERVER_MIN_CLIENT_PING_MS 1000 /* clients that ask for life more often are cut off */

static int server_check_methods(const struct rpc_server_options *options)
{
	for (size_t i = 0; i < options->nr_methods; i++) {
		const struct rpc_method *method = &options->methods[i];

		if (!method->path || method->path[0] != '/' || !method->request || !method->reply)
			return -EINVAL;
		if (!method->unary == !method->stream || (method->quick && !method->unary))
			return -EINVAL;
		for (size_t j = 0; j < i; j++)
			if (strcmp(method->path, options->methods[j].path) == 0)
				return -EINVAL;
	}
	return 0;
}

static void server_take_options(struct rpc_server *server, const struct rpc_server_options *options)
{
	struct rpc_server_options *o = &server->options;

	*o = *options;
	if (o->max_unary == 0)
		o->max_unary = SERVER_MAX_UNARY;
	if (o->max_streams == 0)
		o->max_streams = SERVER_MAX_STREAMS;
	if (o->max_message_bytes == 0)
		o->max_message_bytes = SERVER_MAX_MESSAGE_BYTES;
	if (o->request_timeout_ms == 0)
		o->request_timeout_ms = SERVER_REQUEST_TIMEOUT_MS;
}

static grpc_server *server_create_grpc(const struct rpc_server_options *options)
{
	grpc_arg args[] = {
		/* Else a second server on the same port would silently take half of the connections. */
		rpc_arg_integer(GRPC_ARG_ALLOW_REUSEPORT, 0),
		/* Identity only: a megabyte of gzip may unpack to hundreds, before any limit is looked at. */
		rpc_arg_integer(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
		rpc_arg_integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)options->max_message_bytes),
		rpc_arg_integer(GRPC_ARG_MAX_METADATA_SIZE, SERVER_MAX_METADATA_BYTES),
		rpc_arg_integer(GRPC_ARG_MAX_CONCURRENT_STREAMS, SERVER_MAX_CALLS_PER_CONNECTION),
		rpc_arg_integer(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, SERVER_HANDSHAKE_TIMEOUT_MS),
		rpc_arg_integer(GRPC_ARG_KEEPALIVE_TIME_MS, SERVER_KEEPALIVE_MS),
		rpc_arg_integer(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, SERVER_KEEPALIVE_TIMEOUT_MS),
		rpc_arg_integer(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
		rpc_arg_integer(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, SERVER_MIN_CLIENT_PING_MS),
	};
	grpc_channel_args channel_args = { BASE_ARRAY_SIZE(args), args };

	return grpc_server_create(&channel_args, NULL);
}

int rpc_server_create(const struct rpc_server_options *options, struct rpc_server **ret_server)
{
	struct rpc_server *server;
	int ret;

	/* The bound on max_* keeps sums of them in range. */
	if (server_check_methods(options) < 0 || options->max_unary > SERVER_MAX_WORKERS ||
	    options->max_streams > SERVER_MAX_WORKERS || options->max_message_bytes > INT32_MAX ||
	    options->request_timeout_ms > INT32_MAX)
		return -EINVAL;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server_take_options(server, options);
	rpc_monitor_init(&server->monitor);
	rpc_event_init(&server->stopped, &server->monitor);

	server->nr_methods = options->nr_methods + RPC_HEALTH_NR_METHODS;
	server->methods = calloc(server->nr_methods, sizeof(*server->methods));
	if (!server->methods) {
		ret = -ENOMEM;
		goto err_monitor;
	}
	if (options->nr_methods > 0)
		memcpy(server->methods, options->methods, options->nr_methods * sizeof(*server->methods));
	memcpy(server->methods + options->nr_methods, rpc_health_methods, sizeof(rpc_health_methods));

	ret = rpc_health_init(&server->health, options->methods, options->nr_methods);
	if (ret < 0)
		goto err_methods;
	ret = rpc_queue_start(&server->queue, "rpc-server");
	if (ret < 0)
		goto err_health;
	server->grpc = server_create_grpc(&server->options);
	grpc_server_register_completion_queue(server->grpc, server->queue.cq, NULL);
	*ret_server = server;
	return 0;

err_health:
	rpc_health_done(&server->health);
err_methods:
	free(server->methods);
err_monitor:
	rpc_monitor_done(&server->monitor);
	free(server);
	return ret;
}

/* The port, or 0: gRPC only logs why. */
static int server_add_port(struct rpc_server *server, const char *address)
{
	grpc_server_credentials *credentials = rpc_credentials_for_listener();
	int port = grpc_server_add_http2_port(server->grpc, address, credentials);

	grpc_server_credentials_release(credentials);
	return port;
}

static int server_listen_unix(struct rpc_server *server, const char *address)
{
	char target[RPC_TARGET_MAX];
	struct rpc_unix_path *path;
	int ret = rpc_address_to_target(address, target);
	mode_t mask;
	int port;

	if (ret < 0)
		return ret;
	ret = rpc_unix_path_claim(rpc_address_unix_path(address), &path);
	if (ret < 0)
		return ret;
	mask = umask(0177); /* the socket gets its mode as it is made: there is no moment in which others may connect */
	port = server_add_port(server, target);
	umask(mask);
	if (port == 0) {
		/* The lock file beside it could be made, so it is hardly the path. */
		rpc_unix_path_release(path);
		return -EIO;
	}
	path->next = server->unix_paths;
	server->unix_paths = path;
	return 0;
}

/* Why gRPC could not listen there, by trying it ourselves. */
static int server_listen_error(const struct sys_address *address)
{
	int fd = sys_socket_listen(address, 1);

	if (fd < 0)
		return fd;
	close(fd); /* free by now: it was not when it was asked for */
	return -EADDRINUSE;
}

static int server_listen_tcp(struct rpc_server *server, const char *address, int *ret_port)
{
	char numeric[SYS_ADDRESS_MAX];
	struct sys_address parsed;
	int ret = sys_address_parse(address, true, &parsed);
	int port;

	if (ret < 0)
		return ret;
	sys_address_format(&parsed, numeric);
	port = server_add_port(server, numeric);
	if (port <= 0)
		return server_listen_error(&parsed);
	*ret_port = port;
	return 0;
}

int rpc_server_listen(struct rpc_server *server, const char *address, int *ret_port, struct rpc_status *ret_status)
{
	int port = 0;
	int ret;

	assert(!server->started);
	if (rpc_address_unix_path(address))
		ret = server_listen_unix(server, address);
	else
		ret = server_listen_tcp(server, address, &port);
	if (ret < 0)
		return rpc_status_set_errno(ret_status, ret, "cannot listen on %s", address);
	if (ret_port)
		*ret_port = port;
	return 0;
}

static void *server_worker_main(void *arg)
{
	struct rpc_call *call = arg;

	while (rpc_call_accept(call))
		rpc_call_serve(call);
	return NULL;
}

int rpc_server_start(struct rpc_server *server)
{
	/* One more than calls may run: it refuses the others. */
	unsigned nr = server->options.max_unary + server->options.max_streams + 1;
	struct rpc_call *calls;

	assert(!server->started);
	calls = calloc(nr, sizeof(*calls));
	if (!calls)
		return -ENOMEM;
	for (unsigned i = 0; i < nr; i++)
		rpc_call_init(&calls[i], server);
	lock_acquire(&server->monitor.lock); /* rpc_server_wake may look already */
	server->calls = calls;
	server->nr_calls = nr;
	lock_release(&server->monitor.lock);

	server->started = true;
	grpc_server_start(server->grpc);
	for (unsigned i = 0; i < nr; i++) {
		int ret = sys_thread_start(&calls[i].thread, "rpc-worker", -1, server_worker_main, &calls[i]);

		if (ret < 0) {
			rpc_server_stop(server, 0);
			return ret;
		}
		calls[i].has_thread = true;
	}
	return 0;
}

static void server_notify_calls(struct rpc_server *server, bool woken)
{
	lock_acquire(&server->monitor.lock);
	for (unsigned i = 0; i < server->nr_calls; i++)
		rpc_call_notify(&server->calls[i], woken);
	lock_release(&server->monitor.lock);
}

void rpc_server_wake(struct rpc_server *server)
{
	server_notify_calls(server, true);
}

static void server_shut_down(struct rpc_server *server, unsigned grace_ms)
{
	if (server->shut_down)
		return;
	server->shut_down = true;
	lock_acquire(&server->monitor.lock); /* see call_request */
	atomic_store(&server->stopping, true);
	lock_release(&server->monitor.lock);
	/* Whoever waits looks at `stopping` under the monitor of its call, which is taken now to wake it. */
	server_notify_calls(server, false);

	rpc_event_begin(&server->stopped);
	grpc_server_shutdown_and_notify(server->grpc, server->queue.cq, &server->stopped);
	if (!rpc_event_wait(&server->stopped, (int)base_min_u64(grace_ms, INT32_MAX)))
		grpc_server_cancel_all_calls(server->grpc);
	for (unsigned i = 0; i < server->nr_calls; i++)
		if (server->calls[i].has_thread)
			pthread_join(server->calls[i].thread, NULL);
	rpc_event_finish(&server->stopped);
}

void rpc_server_stop(struct rpc_server *server, unsigned grace_ms)
{
	if (server->started)
		server_shut_down(server, grace_ms);
}

void rpc_server_free(struct rpc_server *server)
{
	if (!server)
		return;
	server_shut_down(server, 0);
	grpc_server_destroy(server->grpc);
	rpc_queue_stop(&server->queue);
	while (server->unix_paths) {
		struct rpc_unix_path *path = server->unix_paths;

		server->unix_paths = path->next;
		rpc_unix_path_release(path);
	}
	for (unsigned i = 0; i < server->nr_calls; i++)
		rpc_call_done(&server->calls[i]);
	free(server->calls);
	rpc_health_done(&server->health);
	free(server->methods);
	rpc_monitor_done(&server->monitor);
	free(server);
}

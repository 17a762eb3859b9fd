#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/farswapctl/cli.h"
#include "common/sys/clock.h"

#define RECV_MS 100 /* how long Ctrl-C may go unnoticed */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

int cli_connect(struct cli *cli)
{
	struct rpc_status status = { .message = "" };
	char address[256];

	if (strncmp(cli->socket, "unix:", 5) == 0)
		snprintf(address, sizeof(address), "%s", cli->socket);
	else
		snprintf(address, sizeof(address), "unix:%s", cli->socket);
	if (rpc_client_create(address, NULL, &cli->client, &status) == 0)
		return CLI_DONE;
	return cli_fail(CLI_USAGE, "--socket %s: %s", cli->socket,
			status.message[0] ? status.message : "cannot be used");
}

int cli_call_failed(const struct cli *cli, const struct rpc_status *status)
{
	switch (status->code) {
	case RPC_UNAVAILABLE:
	case RPC_DEADLINE_EXCEEDED:
		return cli_fail(CLI_UNREACHABLE, "farswapd at %s: %s", cli->socket, status->message);
	case RPC_NOT_FOUND:
		return cli_fail(CLI_NO_SERVER, "%s", status->message);
	case RPC_INVALID_ARGUMENT:
		return cli_fail(CLI_USAGE, "%s", status->message);
	default:
		return cli_fail(CLI_FAILED, "%s", status->message);
	}
}

int cli_call_within(struct cli *cli, const char *path, const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *reply_type, int timeout_ms, ProtobufCMessage **ret_reply)
{
	struct rpc_status status;

	if (rpc_client_call(cli->client, path, request, reply_type, 0, timeout_ms, ret_reply, &status) == RPC_OK)
		return CLI_DONE;
	return cli_call_failed(cli, &status);
}

int cli_call(struct cli *cli, const char *path, const ProtobufCMessage *request,
	     const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **ret_reply)
{
	return cli_call_within(cli, path, request, reply_type, CLI_TIMEOUT_MS, ret_reply);
}

/* 1 a message was taken; 0 the stream has ended, or nobody wants to hear more of it; -ETIMEDOUT; -EINTR. */
static int follow_next(struct rpc_stream *stream, bool (*take)(void *arg, const ProtobufCMessage *message), void *arg)
{
	struct sys_clock *clock = sys_clock_monotonic();
	uint64_t until = sys_clock_now_ns(clock) + CLI_TIMEOUT_MS * SYS_NS_PER_MS;
	ProtobufCMessage *message;
	bool goes_on;
	int ret;

	do {
		if (interrupted)
			return -EINTR;
		ret = rpc_stream_recv(stream, RECV_MS, &message);
	} while (ret == -ETIMEDOUT && sys_clock_now_ns(clock) < until);
	if (ret <= 0)
		return ret;
	goes_on = take(arg, message);
	rpc_message_free(message);
	return goes_on;
}

int cli_follow(struct cli *cli, const char *path, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *message_type, bool (*take)(void *arg, const ProtobufCMessage *message),
	       void *arg)
{
	struct sigaction action = { .sa_handler = on_interrupt };
	bool detached = false;
	struct rpc_stream *stream;
	struct rpc_status status;
	int ret;

	sigaction(SIGINT, &action, NULL);
	ret = rpc_stream_open(cli->client, path, request, message_type, 0, RPC_NO_TIMEOUT, &stream);
	if (ret < 0)
		return cli_fail(CLI_FAILED, "%s: the call cannot be made: %s", path, strerror(-ret));
	do {
		ret = follow_next(stream, take, arg);
		detached = ret == 0 || detached;
	} while (ret > 0);
	rpc_stream_close(stream, &status);
	if (ret == -EINTR)
		return CLI_INTERRUPTED;
	if (ret == -ETIMEDOUT)
		return cli_fail(CLI_UNREACHABLE, "farswapd at %s: no answer", cli->socket);
	/* A stream that we have left ends as cancelled, by us. */
	if (status.code == RPC_OK || (status.code == RPC_CANCELLED && detached))
		return CLI_DONE;
	return cli_call_failed(cli, &status);
}

/*
 * A client: a channel to one server, which it keeps connected by itself (a server that comes back is reached again
 * within about a second), and calls on it as blocking code.
 *
 * Any number of threads may make calls on one client at the same time.
 */
#ifndef FARSWAP_COMMON_RPC_CLIENT_H
#define FARSWAP_COMMON_RPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "common/base/base.h"
#include "common/rpc/status.h"

struct rpc_client;
struct rpc_stream;

struct rpc_client_options {
	uint32_t max_message_bytes; /* of a reply; 0: 4 MiB */
	uint32_t keepalive_ms;	    /* how often a silent server is asked for life; 0: 5000; at least 2000 */
};

enum rpc_call_flags {
	RPC_WAIT_FOR_READY = 1, /* a server out of reach is waited for, within the timeout; else the call fails */
};

/* A stream without a deadline; for rpc_stream_open only. */
#define RPC_NO_TIMEOUT (-1)

/*
 * Begins to connect to an address in one of the forms of rpc_server_listen, and goes on for as long as the client
 * lives; a host name is resolved again with each attempt. Does not wait. options may be NULL. 0; -EINVAL for what is
 * not an address, with a message in *ret_status (which may be NULL); -ENAMETOOLONG; -ENOMEM; -EAGAIN (no more threads).
 */
int rpc_client_create(const char *address, const struct rpc_client_options *options, struct rpc_client **ret_client,
		      struct rpc_status *ret_status) BASE_MUST_CHECK;

/* All calls must have returned and all streams been closed. NULL is passed over. */
void rpc_client_free(struct rpc_client *client);

/* Is there a connection just now? */
bool rpc_client_is_connected(struct rpc_client *client);

/*
 * One unary call; blocks for at most timeout_ms (> 0). Returns the code, which is also in *ret_status, with the
 * server's message; ret_status may be NULL. On RPC_OK *ret_reply is a message of type `reply`, which the caller frees
 * by rpc_message_free; all its strings are UTF-8.
 *
 * Codes that this side gives: RPC_INVALID_ARGUMENT a string in the request is not UTF-8; RPC_UNAVAILABLE the server
 * cannot be reached, or the connection broke under the call, with or without RPC_WAIT_FOR_READY: the call may then have
 * run or not; RPC_DEADLINE_EXCEEDED, which leaves that open, too; RPC_RESOURCE_EXHAUSTED the reply is too large;
 * RPC_INTERNAL it is malformed.
 */
enum rpc_code rpc_client_call(struct rpc_client *client, const char *path, const ProtobufCMessage *request,
			      const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
			      ProtobufCMessage **ret_reply, struct rpc_status *ret_status) BASE_MUST_CHECK;

/*
 * Begins a call of a method that answers with a stream; does not wait. timeout_ms bounds the stream as a whole.
 * 0; -EILSEQ a string in the request is not UTF-8; -ENOMEM.
 */
int rpc_stream_open(struct rpc_client *client, const char *path, const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
		    struct rpc_stream **ret_stream) BASE_MUST_CHECK;

/*
 * The next message, waited for at most wait_ms (-1: as long as the stream lasts). 1: *ret_message is the caller's, to
 * be freed by rpc_message_free; 0: the stream has ended, rpc_stream_close says how; -ETIMEDOUT: none has come yet, the
 * stream goes on; -EBADMSG: a message was malformed and is lost, and the stream has been cancelled. One thread at a
 * time.
 */
int rpc_stream_recv(struct rpc_stream *stream, int wait_ms, ProtobufCMessage **ret_message) BASE_MUST_CHECK;

/* Ends the stream from any thread, as long as it is not closed; a thread in rpc_stream_recv returns 0. */
void rpc_stream_cancel(struct rpc_stream *stream);

/*
 * Frees the stream, cancelling it first if rpc_stream_recv has not returned 0. Returns the code the stream ended with,
 * which is also in *ret_status (may be NULL). NULL is passed over (RPC_OK).
 */
enum rpc_code rpc_stream_close(struct rpc_stream *stream, struct rpc_status *ret_status);

#endif

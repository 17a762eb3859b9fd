/*
 * A server: answers calls of a table of methods, each on a worker thread of its own, so that a handler is plain
 * blocking code.
 *
 * How many calls run at a time is bounded, for unary methods and for streams separately, so that streams that last for
 * hours leave room. One more worker is always free: it refuses with RESOURCE_EXHAUSTED what is above the bounds, and
 * runs methods that are marked quick all the same. A peer that is slow, silent or malicious costs at most one worker
 * for request_timeout_ms.
 *
 * The service grpc.health.v1.Health is built in.
 */
#ifndef FARSWAP_COMMON_RPC_SERVER_H
#define FARSWAP_COMMON_RPC_SERVER_H

#include <protobuf-c/protobuf-c.h>

#include "common/base/base.h"
#include "common/rpc/status.h"

struct rpc_server;
struct rpc_call; /* one call; valid only inside its handler, on the handler's thread */

/*
 * Fills `reply`, which comes initialised; what it points to must live until the handler has returned: static, or of
 * rpc_call_alloc. Returns RPC_OK, or rpc_call_fail(...), and then the reply is not sent. `request` has been checked:
 * every string in it is UTF-8 (and is never NULL).
 */
typedef enum rpc_code (*rpc_unary_fn)(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *reply);

/*
 * Sends any number of messages by rpc_call_send and returns as above, which ends the stream. Must return soon when
 * rpc_call_send or rpc_call_wait says that the call or the server is at its end.
 */
typedef enum rpc_code (*rpc_stream_fn)(struct rpc_call *call, const ProtobufCMessage *request);

struct rpc_method {
	const char *path; /* "/package.Service/Method" */
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *reply;
	rpc_unary_fn unary;   /* exactly one of these two */
	rpc_stream_fn stream;
	bool quick; /* a unary method that never waits: it runs even when the server is busy */
};

struct rpc_server_options {
	const struct rpc_method *methods; /* static */
	size_t nr_methods;
	void *user;		     /* the handlers' own, see rpc_call_user */
	unsigned max_unary;	     /* unary calls at a time; 0: 4 */
	unsigned max_streams;	     /* streams at a time; 0: 16 */
	uint32_t max_message_bytes;  /* of a request; 0: 256 KiB */
	uint32_t request_timeout_ms; /* for the request to arrive and the answer to leave; 0: 5000 */
};

/* 0; -EINVAL for a table with a wrong entry (no or two handlers, one path twice); -ENOMEM. */
int rpc_server_create(const struct rpc_server_options *options, struct rpc_server **ret_server) BASE_MUST_CHECK;

/*
 * Adds an address, before start: "127.0.0.1:7700", "[::1]:7700", "host.example:7700", or "unix:/run/x.sock". Port 0
 * takes any free one; *ret_port (which may be NULL) is then the one taken, and 0 for a unix socket. "0.0.0.0" and
 * "[::]" both mean every address of either family.
 *
 * A unix socket gets mode 0600 (the umask of the process is changed for a moment: call it before threads that create
 * files), and is guarded by a lock file beside it, "<path>.lock": a path that a dead server left is taken over, one
 * that is in use never.
 *
 * 0 or a negative errno, then with a message in *ret_status (which may be NULL) that names the address: -EINVAL not
 * such an address, -EADDRINUSE, -EACCES, -ENOENT (no such folder, unknown host), -ENAMETOOLONG, -EEXIST (the path is
 * there and is not a socket), ...
 */
int rpc_server_listen(struct rpc_server *server, const char *address, int *ret_port,
		      struct rpc_status *ret_status) BASE_MUST_CHECK;

/* From now on calls are answered. Once, after at least one address was added. 0, -ENOMEM, -EAGAIN (no more threads). */
int rpc_server_start(struct rpc_server *server) BASE_MUST_CHECK;

/*
 * Makes every rpc_call_wait of this server return 1, now or when it is next called: something has changed that streams
 * tell their clients. Any thread, at any time between create and free; never blocks for long.
 */
void rpc_server_wake(struct rpc_server *server);

/*
 * What the health service answers for `service` ("package.Service", or "" for the whole daemon): serving or not. All
 * services of the table and "" are known, and begin as not serving. 0, or -ENOENT. Any thread.
 */
int rpc_server_set_health(struct rpc_server *server, const char *service, bool serving) BASE_MUST_CHECK;

/* The same for every service that is known, "" among them. Any thread. */
void rpc_server_set_health_all(struct rpc_server *server, bool serving);

/*
 * Takes no new calls, reports every service as not serving, makes rpc_call_wait return -ESHUTDOWN so that streams can
 * say goodbye, lets calls that run finish for grace_ms, then cancels them, and returns when the last handler has
 * returned. A server that was not started, or was stopped before, is passed over. Not from a handler.
 *
 * A client whose own write meets the closed connection before it has read all may hear of that instead of the handler's last
 * words: gRPC gives the connection up then, with RPC_UNAVAILABLE and the text of the error (3 of 570 under load, gRPC 1.51).
 */
void rpc_server_stop(struct rpc_server *server, unsigned grace_ms);

/* Stops the server without grace if it runs, and removes its unix sockets. NULL is passed over. */
void rpc_server_free(struct rpc_server *server);

/* options.user. */
void *rpc_call_user(struct rpc_call *call);

/* Who calls, as gRPC says it ("ipv4:10.0.0.7:51312", "unix:"), for logs; not authenticated. Lives as the call does. */
const char *rpc_call_peer(struct rpc_call *call);

/*
 * Zeroed memory of the call, for replies; freed after the handler has returned. NULL when the call has used up its
 * share (8 MiB, its request included): return rpc_call_fail_memory(call) then.
 */
void *rpc_call_alloc(struct rpc_call *call, size_t len_bytes) BASE_MUST_CHECK;

/* Text in memory of the call, made valid UTF-8; the empty string when the call has used up its share. */
char *rpc_call_printf(struct rpc_call *call, const char *fmt, ...) BASE_PRINTF(2, 3);

/* Sets what the caller is told, and returns the code for the handler to return. */
enum rpc_code rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *fmt, ...) BASE_PRINTF(3, 4);
enum rpc_code rpc_call_fail_errno(struct rpc_call *call, int err, const char *fmt, ...) BASE_PRINTF(3, 4);
enum rpc_code rpc_call_fail_memory(struct rpc_call *call);

/* True when nobody waits for the answer any more: peer gone, call cancelled, deadline passed, server stopped. */
bool rpc_call_cancelled(struct rpc_call *call);

/*
 * Sends one message of a stream, and blocks while the peer takes none. 0; -ECANCELED as rpc_call_cancelled, and nothing
 * can be sent any more; -EILSEQ a string in the message is not UTF-8, and nothing was sent.
 */
int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *message) BASE_MUST_CHECK;

/*
 * Waits until something happens. 1: rpc_server_wake was called since the last wait returned 1 (or since the handler
 * began); 0: timeout_ms (-1: none) passed; -ECANCELED as rpc_call_cancelled; -ESHUTDOWN: the server is stopping, so
 * send what is left to say and return.
 */
int rpc_call_wait(struct rpc_call *call, int timeout_ms) BASE_MUST_CHECK;

#endif

/*
 * The inside of the room, in order of dependence:
 *
 *   utf8.c         is it UTF-8?
 *   status.c       codes and messages
 *   arena.c        the memory of one call
 *   message.c      pack, unpack, check
 *   address.c      text to what gRPC wants
 *   unix_path.c    who owns the path of a unix socket
 *   credentials.c  what a listener or a channel is secured with: one function each
 *   event.c        gRPC's completions, made into something that a thread can wait for
 *   call.c         one call on the server
 *   health.c       the built-in health service
 *   server.c       a server: its life, its addresses, its workers
 *   stream.c       one call on the client
 *   client.c       a channel and what keeps it connected
 *   init.c         the process
 *
 * Waiting. gRPC reports that a batch of operations has ended by a tag in a completion queue. Every server and client
 * has one queue and one thread that empties it; a tag is a struct rpc_event, and whoever started the batch waits for
 * the event on a monitor. (gRPC's pluck queues would save that thread, but who waits in one can be woken only by gRPC,
 * and a stream must also be woken by what it reports on.) The queue's thread is at the same time the one that polls the
 * sockets, so a channel reconnects although nobody makes a call.
 */
#ifndef FARSWAP_COMMON_RPC_INTERNAL_H
#define FARSWAP_COMMON_RPC_INTERNAL_H

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/un.h>

#include "common/base/lock.h"
#include "common/rpc/rpc.h"

/* utf8.c */

/* Only the shortest form of what Unicode has, without surrogates (RFC 3629). */
bool rpc_utf8_is_valid(const char *text);
/* Puts a question mark in the place of each byte that is not part of a valid sequence. */
void rpc_utf8_clean(char *text);

/* arena.c */

#define RPC_ARENA_MAX_BYTES (8u << 20)

struct rpc_arena_chunk;

struct rpc_arena {
	struct rpc_arena_chunk *newest;
	size_t total_bytes;
	bool exhausted; /* something was refused since the last reset */
	ProtobufCAllocator allocator;
};

void rpc_arena_init(struct rpc_arena *arena);
void rpc_arena_done(struct rpc_arena *arena);
/* Aligned for any type, not zeroed; NULL above RPC_ARENA_MAX_BYTES or without memory. */
void *rpc_arena_alloc(struct rpc_arena *arena, size_t len_bytes);
/* Frees all, but keeps one small chunk for the next call. */
void rpc_arena_reset(struct rpc_arena *arena);

/* message.c */

#define RPC_FIELD_NAME_MAX 128

/*
 * 0; -EILSEQ: a string in it is not UTF-8, and *ret_field names it: "farswap.memory.v1.OpenLeaseRequest.client_name".
 */
int rpc_message_check(const ProtobufCMessage *message, char ret_field[RPC_FIELD_NAME_MAX]) BASE_MUST_CHECK;
grpc_byte_buffer *rpc_message_pack(const ProtobufCMessage *message);
/*
 * Unpacks and checks. allocator NULL: malloc. RPC_OK; RPC_INVALID_ARGUMENT with what is wrong in *status;
 * RPC_RESOURCE_EXHAUSTED when the allocator refuses.
 */
enum rpc_code rpc_message_unpack(grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *descriptor,
				 struct rpc_arena *arena, ProtobufCMessage **ret_message,
				 struct rpc_status *status) BASE_MUST_CHECK;

/* address.c */

#define RPC_TARGET_MAX 300

/* The path in "unix:/path", else NULL. */
const char *rpc_address_unix_path(const char *address);
/* What a channel is made for: "ipv4:...", "ipv6:...", "dns:///...", "unix:/...". 0, -EINVAL, -ENAMETOOLONG. */
int rpc_address_to_target(const char *address, char ret_target[RPC_TARGET_MAX]) BASE_MUST_CHECK;

/* unix_path.c */

struct rpc_unix_path {
	struct rpc_unix_path *next;
	int lock_fd;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	char lock_path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + sizeof(".lock")];
};

/*
 * Takes the path for this process, removing what a dead one left there. 0; -EADDRINUSE; -EEXIST it is no socket;
 * -ENAMETOOLONG; -ENOMEM; the errno of the lock file.
 */
int rpc_unix_path_claim(const char *path, struct rpc_unix_path **ret_path) BASE_MUST_CHECK;
/* Removes socket and lock file, and frees. */
void rpc_unix_path_release(struct rpc_unix_path *path);

/* credentials.c */

grpc_server_credentials *rpc_credentials_for_listener(void);
grpc_channel_credentials *rpc_credentials_for_channel(void);

/* event.c */

struct rpc_monitor {
	struct lock_mutex lock;
	pthread_cond_t changed; /* of CLOCK_MONOTONIC */
};

struct rpc_event {
	struct rpc_monitor *monitor;
	bool pending; /* under the monitor: a batch is under way that will report here */
	bool ok;      /* what it reported */
	/*
	 * Passed from rpc_event_begin (release) to the queue's thread (acquire). gRPC's own locks order the two as
	 * well, but not where a sanitizer could see it.
	 */
	atomic_bool begun;
	/* If set, runs on the queue's thread in place of all else. */
	void (*fn)(struct rpc_event *event);
};

struct rpc_queue {
	grpc_completion_queue *cq;
	pthread_t thread;
};

void rpc_monitor_init(struct rpc_monitor *monitor);
void rpc_monitor_done(struct rpc_monitor *monitor);
/* Waits for a change; false when the time is over. until NULL: for ever. */
bool rpc_monitor_wait(struct rpc_monitor *monitor, const struct timespec *until) LOCK_REQUIRES(monitor->lock);
/* timeout_ms from now, of CLOCK_MONOTONIC. */
struct timespec rpc_monitor_deadline(unsigned timeout_ms);

void rpc_event_init(struct rpc_event *event, struct rpc_monitor *monitor);
/* Before the batch is started. */
void rpc_event_begin(struct rpc_event *event);
/* Waits until it is no longer pending: true; or timeout_ms (-1: none): false. */
bool rpc_event_wait(struct rpc_event *event, int timeout_ms) BASE_MUST_CHECK;
/* The same without end; what it reported. */
bool rpc_event_finish(struct rpc_event *event);
bool rpc_event_is_pending(struct rpc_event *event);

/* 0 or a negative errno. */
int rpc_queue_start(struct rpc_queue *queue, const char *thread_name) BASE_MUST_CHECK;
/* Waits for all that is still to be reported. */
void rpc_queue_stop(struct rpc_queue *queue);

/* Where gRPC wants a time; -1: never. */
gpr_timespec rpc_deadline(int timeout_ms);

static inline grpc_arg rpc_arg_integer(const char *key, int value)
{
	return (grpc_arg){ .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value };
}

/* health.c */

struct rpc_health_service {
	char *name;
	bool serving; /* under lock */
};

struct rpc_health {
	struct lock_mutex lock;
	struct rpc_health_service *services;
	size_t nr_services;
};

#define RPC_HEALTH_NR_METHODS 2

extern const struct rpc_method rpc_health_methods[RPC_HEALTH_NR_METHODS];

/* The services of a table of methods, and "". 0 or -ENOMEM. */
int rpc_health_init(struct rpc_health *health, const struct rpc_method *methods, size_t nr_methods) BASE_MUST_CHECK;
void rpc_health_done(struct rpc_health *health);

/* call.c */

struct rpc_call {
	struct rpc_server *server;
	pthread_t thread; /* the worker whose calls pass through here, one after the other */
	bool has_thread;

	struct rpc_monitor monitor;
	struct rpc_event accepted;
	struct rpc_event closed; /* the call is at its end, for whatever reason */
	struct rpc_event op;	 /* the one batch that the worker waits for */
	bool woken;		 /* under the monitor */

	/* Of the present call. */
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array metadata;
	int cancelled; /* where gRPC says so; nobody reads it: the event `closed` is enough */
	const struct rpc_method *method;
	bool headers_sent;
	struct rpc_status status;
	char *peer;
	struct rpc_arena arena;
};

void rpc_call_init(struct rpc_call *call, struct rpc_server *server);
void rpc_call_done(struct rpc_call *call);
/* Waits for the next call; false when the server stops. */
bool rpc_call_accept(struct rpc_call *call) BASE_MUST_CHECK;
/* From the request to the end of the call. */
void rpc_call_serve(struct rpc_call *call);
/* Makes rpc_call_wait look again; woken: and return 1. Any thread. */
void rpc_call_notify(struct rpc_call *call, bool woken);

/* server.c */

struct rpc_server {
	struct rpc_server_options options; /* with the defaults filled in */
	struct rpc_method *methods;	   /* options.methods, then rpc_health_methods */
	size_t nr_methods;
	struct rpc_health health;

	grpc_server *grpc;
	struct rpc_queue queue;
	struct rpc_monitor monitor;
	struct rpc_event stopped;
	struct rpc_unix_path *unix_paths;

	struct rpc_call *calls; /* one per worker */
	unsigned nr_calls;
	bool started;
	bool shut_down;
	atomic_bool stopping;
	atomic_uint nr_unary_running;
	atomic_uint nr_streams_running;
};

/* stream.c */

/*
 * rpc_stream_open for any bytes as the request; bytes NULL: none is sent, and the server is left to wait. For calls
 * that no message would make.
 */
int rpc_stream_open_bytes(struct rpc_client *client, const char *path, const void *bytes, size_t len_bytes,
			  const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
			  struct rpc_stream **ret_stream) BASE_MUST_CHECK;
/* The reply of a unary call, and its end. */
enum rpc_code rpc_stream_finish_unary(struct rpc_stream *stream, ProtobufCMessage **ret_reply,
				      struct rpc_status *ret_status) BASE_MUST_CHECK;

/* client.c */

struct rpc_client {
	grpc_channel *channel;
	struct rpc_queue queue;
	struct rpc_monitor monitor;
	struct rpc_event keeper;
	bool closing; /* under the monitor */
};

#endif

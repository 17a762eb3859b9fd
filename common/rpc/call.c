/*
 * One call on the server, and the worker that it runs on.
 *
 * A worker asks gRPC for the next call, runs it from its request to its end, and asks again. Whatever the peer does,
 * each wait for it has an end: request_timeout_ms for the request and for the answer, and for a message in the middle
 * of a stream the end of the call itself, which gRPC's keepalive brings about when the peer is dead.
 */
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

void rpc_call_init(struct rpc_call *call, struct rpc_server *server)
{
	memset(call, 0, sizeof(*call));
	call->server = server;
	rpc_monitor_init(&call->monitor);
	rpc_event_init(&call->accepted, &call->monitor);
	rpc_event_init(&call->closed, &call->monitor);
	rpc_event_init(&call->op, &call->monitor);
	rpc_arena_init(&call->arena);
}

void rpc_call_done(struct rpc_call *call)
{
	rpc_arena_done(&call->arena);
	rpc_monitor_done(&call->monitor);
}

/*
 * Asks gRPC for a call. Not once the server is stopping, and under the lock with which that is set: gRPC forgets for
 * ever a request that comes while it sweeps out the others.
 */
static bool call_request(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	grpc_completion_queue *cq = server->queue.cq;
	bool ok = false;

	rpc_event_begin(&call->accepted);
	lock_acquire(&server->monitor.lock);
	if (!atomic_load(&server->stopping))
		ok = grpc_server_request_call(server->grpc, &call->call, &call->details, &call->metadata, cq, cq,
					      &call->accepted) == GRPC_CALL_OK;
	lock_release(&server->monitor.lock);
	return ok;
}

bool rpc_call_accept(struct rpc_call *call)
{
	grpc_call_details_init(&call->details);
	grpc_metadata_array_init(&call->metadata);
	if (call_request(call) && rpc_event_finish(&call->accepted))
		return true;
	grpc_call_details_destroy(&call->details);
	grpc_metadata_array_destroy(&call->metadata);
	return false;
}

/* Runs one batch; false when it failed, or did not end in time (-1: any) and the call was given up for it. */
static bool call_batch(struct rpc_call *call, const grpc_op *ops, size_t nr_ops, int timeout_ms, const char *what)
{
	bool in_time;
	bool ok;

	rpc_event_begin(&call->op);
	if (grpc_call_start_batch(call->call, ops, nr_ops, &call->op, NULL) != GRPC_CALL_OK) {
		assert(!"a batch that gRPC does not take");
		return false;
	}
	in_time = rpc_event_wait(&call->op, timeout_ms);
	if (!in_time)
		grpc_call_cancel_with_status(call->call, GRPC_STATUS_DEADLINE_EXCEEDED, what, NULL);
	ok = rpc_event_finish(&call->op);
	return in_time && ok;
}

/* The operation that must come before the first message or the status. Returns how many were put into ops: 0 or 1. */
static size_t call_headers_op(struct rpc_call *call, grpc_op *ops)
{
	if (call->headers_sent)
		return 0;
	call->headers_sent = true;
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	return 1;
}

static enum rpc_code call_receive(struct rpc_call *call, ProtobufCMessage **ret_request)
{
	grpc_byte_buffer *bytes = NULL;
	grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &bytes };
	int timeout_ms = (int)call->server->options.request_timeout_ms;
	enum rpc_code code;

	if (!call_batch(call, &op, 1, timeout_ms, "the request did not arrive in time"))
		code = rpc_call_fail(call, RPC_CANCELLED, "%s: the request did not arrive", call->method->path);
	else if (!bytes)
		code = rpc_call_fail(call, RPC_INVALID_ARGUMENT, "%s: there is no request", call->method->path);
	else
		code = rpc_message_unpack(bytes, call->method->request, &call->arena, ret_request, &call->status);
	if (bytes)
		grpc_byte_buffer_destroy(bytes);
	return code;
}

static const struct rpc_method *call_find_method(struct rpc_call *call)
{
	for (size_t i = 0; i < call->server->nr_methods; i++)
		if (grpc_slice_str_cmp(call->details.method, call->server->methods[i].path) == 0)
			return &call->server->methods[i];
	return NULL;
}

static enum rpc_code call_run_handler(struct rpc_call *call, ProtobufCMessage **ret_reply)
{
	const struct rpc_method *method = call->method;
	ProtobufCMessage *request, *reply;
	enum rpc_code code = call_receive(call, &request);
	char field[RPC_FIELD_NAME_MAX];

	if (code != RPC_OK)
		return code;
	if (method->stream)
		return method->stream(call, request);

	reply = rpc_call_alloc(call, method->reply->sizeof_message);
	if (!reply)
		return rpc_call_fail_memory(call);
	protobuf_c_message_init(method->reply, reply);
	code = method->unary(call, request, reply);
	if (code != RPC_OK)
		return code;
	if (rpc_message_check(reply, field) < 0)
		return rpc_call_fail(call, RPC_INTERNAL, "%s: %s of the reply is not valid UTF-8", method->path, field);
	*ret_reply = reply;
	return RPC_OK;
}

/* Runs the call if there is room for it. */
static enum rpc_code call_run(struct rpc_call *call, ProtobufCMessage **ret_reply)
{
	struct rpc_server *server = call->server;
	atomic_uint *running;
	enum rpc_code code;
	unsigned max;

	call->method = call_find_method(call);
	if (!call->method)
		return rpc_call_fail(call, RPC_UNIMPLEMENTED, "no such method: %.*s",
				     (int)base_min_u64(GRPC_SLICE_LENGTH(call->details.method), 128),
				     (const char *)GRPC_SLICE_START_PTR(call->details.method));

	running = call->method->stream ? &server->nr_streams_running : &server->nr_unary_running;
	max = call->method->stream ? server->options.max_streams : server->options.max_unary;
	/* A plain count: nothing else hangs on its order. A quick method may run above the bound. */
	if (atomic_fetch_add_explicit(running, 1, memory_order_relaxed) >= max && !call->method->quick)
		code = rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "the server is busy with %u %s", max,
				     call->method->stream ? "streams" : "calls");
	else
		code = call_run_handler(call, ret_reply);
	atomic_fetch_sub_explicit(running, 1, memory_order_relaxed);
	return code;
}

/* Sends the reply, if there is one, and the status. */
static void call_answer(struct rpc_call *call, enum rpc_code code, const ProtobufCMessage *reply)
{
	grpc_slice text = grpc_slice_from_copied_string(code == RPC_OK ? "" : call->status.message);
	int timeout_ms = (int)call->server->options.request_timeout_ms;
	grpc_op ops[3] = { 0 };
	size_t nr = call_headers_op(call, ops);
	grpc_byte_buffer *bytes = NULL;

	if (code == RPC_OK && reply) {
		bytes = rpc_message_pack(reply);
		ops[nr].op = GRPC_OP_SEND_MESSAGE;
		ops[nr++].data.send_message.send_message = bytes;
	}
	ops[nr].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[nr].data.send_status_from_server.status = (grpc_status_code)code;
	ops[nr++].data.send_status_from_server.status_details = &text;
	/* Fails when the peer is gone, and then nobody is there to be told. */
	(void)call_batch(call, ops, nr, timeout_ms, "the reply was not taken in time");
	if (bytes)
		grpc_byte_buffer_destroy(bytes);
	grpc_slice_unref(text);
}

static void call_begin(struct rpc_call *call)
{
	grpc_op op = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->cancelled };

	call->method = NULL;
	call->headers_sent = false;
	call->peer = NULL;
	call->status = (struct rpc_status){ .code = RPC_OK };
	lock_acquire(&call->monitor.lock);
	call->woken = false;
	lock_release(&call->monitor.lock);

	rpc_event_begin(&call->closed);
	if (grpc_call_start_batch(call->call, &op, 1, &call->closed, NULL) != GRPC_CALL_OK)
		assert(!"a batch that gRPC does not take");
}

void rpc_call_serve(struct rpc_call *call)
{
	ProtobufCMessage *reply = NULL;
	enum rpc_code code;

	call_begin(call);
	code = call_run(call, &reply);
	call_answer(call, code, reply);
	if (!rpc_event_wait(&call->closed, (int)call->server->options.request_timeout_ms))
		grpc_call_cancel(call->call, NULL);
	rpc_event_finish(&call->closed);

	gpr_free(call->peer);
	grpc_call_unref(call->call);
	grpc_call_details_destroy(&call->details);
	grpc_metadata_array_destroy(&call->metadata);
	rpc_arena_reset(&call->arena);
}

void rpc_call_notify(struct rpc_call *call, bool woken)
{
	lock_acquire(&call->monitor.lock);
	if (woken)
		call->woken = true;
	pthread_cond_broadcast(&call->monitor.changed);
	lock_release(&call->monitor.lock);
}

void *rpc_call_user(struct rpc_call *call)
{
	return call->server->options.user;
}

const char *rpc_call_peer(struct rpc_call *call)
{
	if (!call->peer)
		call->peer = grpc_call_get_peer(call->call);
	return call->peer ? call->peer : "";
}

void *rpc_call_alloc(struct rpc_call *call, size_t len_bytes)
{
	void *ptr = rpc_arena_alloc(&call->arena, len_bytes);

	return ptr ? memset(ptr, 0, len_bytes) : NULL;
}

char *rpc_call_printf(struct rpc_call *call, const char *fmt, ...)
{
	va_list args, again;
	char *text = NULL;
	int len;

	va_start(args, fmt);
	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len >= 0)
		text = rpc_arena_alloc(&call->arena, (size_t)len + 1);
	if (text) {
		vsnprintf(text, (size_t)len + 1, fmt, again);
		rpc_utf8_clean(text);
	}
	va_end(again);
	/* What protobuf-c itself puts where there is no text; nobody writes to it. */
	return text ? text : (char *)(uintptr_t)protobuf_c_empty_string;
}

enum rpc_code rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *fmt, ...)
{
	char text[RPC_STATUS_MESSAGE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return rpc_status_set(&call->status, code, "%s", text);
}

enum rpc_code rpc_call_fail_errno(struct rpc_call *call, int err, const char *fmt, ...)
{
	char text[RPC_STATUS_MESSAGE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	rpc_status_set_errno(&call->status, err, "%s", text);
	return call->status.code;
}

enum rpc_code rpc_call_fail_memory(struct rpc_call *call)
{
	return rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "%s: the reply takes too much memory", call->method->path);
}

bool rpc_call_cancelled(struct rpc_call *call)
{
	return !rpc_event_is_pending(&call->closed);
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	char field[RPC_FIELD_NAME_MAX];
	grpc_op ops[2] = { 0 };
	grpc_byte_buffer *bytes;
	size_t nr;
	bool ok;

	if (rpc_message_check(message, field) < 0)
		return -EILSEQ;
	if (rpc_call_cancelled(call))
		return -ECANCELED;
	nr = call_headers_op(call, ops);
	bytes = rpc_message_pack(message);
	ops[nr].op = GRPC_OP_SEND_MESSAGE;
	ops[nr++].data.send_message.send_message = bytes;
	ok = call_batch(call, ops, nr, -1, NULL);
	grpc_byte_buffer_destroy(bytes);
	return ok && !rpc_call_cancelled(call) ? 0 : -ECANCELED;
}

int rpc_call_wait(struct rpc_call *call, int timeout_ms)
{
	struct timespec until = rpc_monitor_deadline(timeout_ms < 0 ? 0 : (unsigned)timeout_ms);
	bool in_time = true;
	int ret;

	lock_acquire(&call->monitor.lock);
	for (;;) {
		if (!call->closed.pending)
			ret = -ECANCELED;
		else if (call->woken)
			ret = 1;
		else if (atomic_load(&call->server->stopping))
			ret = -ESHUTDOWN;
		else
			ret = 0;
		if (ret != 0 || !in_time)
			break;
		in_time = rpc_monitor_wait(&call->monitor, timeout_ms < 0 ? NULL : &until);
	}
	if (ret == 1)
		call->woken = false;
	lock_release(&call->monitor.lock);
	return ret;
}

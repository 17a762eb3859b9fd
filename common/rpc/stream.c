/*
 * One call on the client. A unary call is a stream of one message.
 *
 * Three batches are under way at most: what is sent (with the first metadata that comes back), one message to receive,
 * and the status at the end. All that they point to lies in the stream, which is freed only when all have reported.
 */
#include <grpc/slice.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

struct rpc_stream {
	const ProtobufCMessageDescriptor *reply;
	struct rpc_monitor monitor;
	struct rpc_event sent;
	struct rpc_event received;
	struct rpc_event finished;

	grpc_call *call;
	grpc_metadata_array first_metadata;
	grpc_metadata_array last_metadata;
	grpc_byte_buffer *out;
	grpc_byte_buffer *in;
	grpc_status_code code;
	grpc_slice text;

	bool receiving; /* a batch for the next message has been started */
	bool ended;	/* no further message will come */
	struct rpc_status failed; /* what went wrong on this side, if its code is not RPC_OK */
};

static void stream_start_batch(struct rpc_stream *stream, const grpc_op *ops, size_t nr_ops, struct rpc_event *event)
{
	rpc_event_begin(event);
	if (grpc_call_start_batch(stream->call, ops, nr_ops, event, NULL) != GRPC_CALL_OK)
		assert(!"a batch that gRPC does not take");
}

static void stream_send(struct rpc_stream *stream, unsigned flags)
{
	grpc_op ops[4] = { 0 };
	size_t nr = 0;

	ops[nr].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (flags & RPC_WAIT_FOR_READY)
		ops[nr].flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY |
				GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
	nr++;
	ops[nr].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[nr++].data.recv_initial_metadata.recv_initial_metadata = &stream->first_metadata;
	if (stream->out) {
		ops[nr].op = GRPC_OP_SEND_MESSAGE;
		ops[nr++].data.send_message.send_message = stream->out;
		ops[nr++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	}
	stream_start_batch(stream, ops, nr, &stream->sent);
}

/* Takes `out`, which may be NULL. */
static int stream_open(struct rpc_client *client, const char *path, grpc_byte_buffer *out,
		       const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
		       struct rpc_stream **ret_stream)
{
	struct rpc_stream *stream = calloc(1, sizeof(*stream));
	grpc_op op = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT };
	grpc_slice method;

	if (!stream) {
		if (out)
			grpc_byte_buffer_destroy(out);
		return -ENOMEM;
	}
	stream->reply = reply;
	stream->out = out;
	stream->text = grpc_empty_slice();
	grpc_metadata_array_init(&stream->first_metadata);
	grpc_metadata_array_init(&stream->last_metadata);
	rpc_monitor_init(&stream->monitor);
	rpc_event_init(&stream->sent, &stream->monitor);
	rpc_event_init(&stream->received, &stream->monitor);
	rpc_event_init(&stream->finished, &stream->monitor);

	method = grpc_slice_from_copied_string(path);
	stream->call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue.cq,
						method, NULL, rpc_deadline(timeout_ms), NULL);
	grpc_slice_unref(method);

	op.data.recv_status_on_client.trailing_metadata = &stream->last_metadata;
	op.data.recv_status_on_client.status = &stream->code;
	op.data.recv_status_on_client.status_details = &stream->text;
	stream_start_batch(stream, &op, 1, &stream->finished);
	stream_send(stream, flags);
	*ret_stream = stream;
	return 0;
}

int rpc_stream_open(struct rpc_client *client, const char *path, const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
		    struct rpc_stream **ret_stream)
{
	char field[RPC_FIELD_NAME_MAX];

	if (rpc_message_check(request, field) < 0)
		return -EILSEQ;
	return stream_open(client, path, rpc_message_pack(request), reply, flags, timeout_ms, ret_stream);
}

int rpc_stream_open_bytes(struct rpc_client *client, const char *path, const void *bytes, size_t len_bytes,
			  const ProtobufCMessageDescriptor *reply, unsigned flags, int timeout_ms,
			  struct rpc_stream **ret_stream)
{
	grpc_byte_buffer *out = NULL;

	if (bytes) {
		grpc_slice slice = grpc_slice_from_copied_buffer(bytes, len_bytes);

		out = grpc_raw_byte_buffer_create(&slice, 1);
		grpc_slice_unref(slice);
	}
	return stream_open(client, path, out, reply, flags, timeout_ms, ret_stream);
}

/* A message that is not what it should be: the stream cannot be trusted any further. */
static int stream_fail(struct rpc_stream *stream, const struct rpc_status *why)
{
	rpc_status_set(&stream->failed, why->code == RPC_RESOURCE_EXHAUSTED ? why->code : RPC_INTERNAL,
		       "from the server: %s", why->message);
	grpc_call_cancel(stream->call, NULL);
	stream->ended = true;
	return -EBADMSG;
}

int rpc_stream_recv(struct rpc_stream *stream, int wait_ms, ProtobufCMessage **ret_message)
{
	struct rpc_status why;
	enum rpc_code code;

	if (stream->ended)
		return 0;
	if (!stream->receiving) {
		grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &stream->in };

		stream_start_batch(stream, &op, 1, &stream->received);
		stream->receiving = true;
	}
	if (!rpc_event_wait(&stream->received, wait_ms))
		return -ETIMEDOUT; /* the batch goes on: the next call finds it */
	stream->receiving = false;
	if (!stream->in) {
		stream->ended = true;
		return 0;
	}
	code = rpc_message_unpack(stream->in, stream->reply, NULL, ret_message, &why);
	grpc_byte_buffer_destroy(stream->in);
	stream->in = NULL;
	return code == RPC_OK ? 1 : stream_fail(stream, &why);
}

void rpc_stream_cancel(struct rpc_stream *stream)
{
	grpc_call_cancel(stream->call, NULL);
}

static void stream_free(struct rpc_stream *stream)
{
	if (stream->in)
		grpc_byte_buffer_destroy(stream->in);
	if (stream->out)
		grpc_byte_buffer_destroy(stream->out);
	grpc_call_unref(stream->call);
	grpc_metadata_array_destroy(&stream->first_metadata);
	grpc_metadata_array_destroy(&stream->last_metadata);
	grpc_slice_unref(stream->text);
	rpc_monitor_done(&stream->monitor);
	free(stream);
}

enum rpc_code rpc_stream_close(struct rpc_stream *stream, struct rpc_status *ret_status)
{
	enum rpc_code code;

	if (!stream)
		return rpc_status_set(ret_status, RPC_OK, "%s", "");
	if (!stream->ended)
		grpc_call_cancel(stream->call, NULL);
	rpc_event_finish(&stream->finished);
	rpc_event_finish(&stream->sent);
	rpc_event_finish(&stream->received);

	if (stream->failed.code != RPC_OK)
		code = rpc_status_set(ret_status, stream->failed.code, "%s", stream->failed.message);
	else if (stream->code == GRPC_STATUS_OK)
		code = rpc_status_set(ret_status, RPC_OK, "%s", "");
	else
		code = rpc_status_set(ret_status, (enum rpc_code)stream->code, "%.*s",
				      (int)base_min_u64(GRPC_SLICE_LENGTH(stream->text), RPC_STATUS_MESSAGE_MAX),
				      (const char *)GRPC_SLICE_START_PTR(stream->text));
	stream_free(stream);
	return code;
}

enum rpc_code rpc_stream_finish_unary(struct rpc_stream *stream, ProtobufCMessage **ret_reply,
				      struct rpc_status *ret_status)
{
	ProtobufCMessage *reply = NULL, *second = NULL;
	int nr = rpc_stream_recv(stream, -1, &reply);
	const char *wrong = NULL;
	enum rpc_code code;

	if (nr == 1 && rpc_stream_recv(stream, -1, &second) == 1)
		wrong = "two replies";
	code = rpc_stream_close(stream, ret_status);
	rpc_message_free(second);
	if (code == RPC_OK && nr != 1)
		wrong = "no reply";
	if (wrong)
		code = rpc_status_set(ret_status, RPC_INTERNAL, "from the server: %s", wrong);
	if (code == RPC_OK)
		*ret_reply = reply;
	else
		rpc_message_free(reply);
	return code;
}

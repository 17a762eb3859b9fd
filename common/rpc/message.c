#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

static int message_check_at(const ProtobufCMessageDescriptor *descriptor, const ProtobufCFieldDescriptor *field,
			    const void *at, char ret_name[RPC_FIELD_NAME_MAX])
{
	if (field->type == PROTOBUF_C_TYPE_STRING) {
		const char *text = *(const char *const *)at;

		if (!text || rpc_utf8_is_valid(text))
			return 0;
		snprintf(ret_name, RPC_FIELD_NAME_MAX, "%s.%s", descriptor->name, field->name);
		return -EILSEQ;
	}
	if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)at;

		return sub ? rpc_message_check(sub, ret_name) : 0;
	}
	return 0;
}

/* As deep as the types are nested: none of ours contains itself. */
int rpc_message_check(const ProtobufCMessage *message, char ret_field[RPC_FIELD_NAME_MAX])
{
	const ProtobufCMessageDescriptor *descriptor = message->descriptor;
	const char *base = (const char *)message;

	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		const void *at = base + field->offset;
		int ret = 0;

		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t nr = *(const size_t *)(const void *)(base + field->quantifier_offset);
			/* Both kinds of field that are looked at are pointers. */
			const void *const *items = *(const void *const *const *)at;

			if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
				continue;
			for (size_t j = 0; j < nr && ret == 0; j++)
				ret = message_check_at(descriptor, field, &items[j], ret_field);
		} else if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			/* The members share their place: only the one that is set is there. */
			uint32_t set = *(const uint32_t *)(const void *)(base + field->quantifier_offset);

			if (set == field->id)
				ret = message_check_at(descriptor, field, at, ret_field);
		} else {
			ret = message_check_at(descriptor, field, at, ret_field);
		}
		if (ret)
			return ret;
	}
	return 0;
}

grpc_byte_buffer *rpc_message_pack(const ProtobufCMessage *message)
{
	grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
	grpc_byte_buffer *bytes;

	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	bytes = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return bytes;
}

enum rpc_code rpc_message_unpack(grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *descriptor,
				 struct rpc_arena *arena, ProtobufCMessage **ret_message, struct rpc_status *status)
{
	ProtobufCAllocator *allocator = arena ? &arena->allocator : NULL;
	char field[RPC_FIELD_NAME_MAX];
	grpc_byte_buffer_reader reader;
	ProtobufCMessage *message;
	grpc_slice slice;

	if (!grpc_byte_buffer_reader_init(&reader, bytes))
		return rpc_status_set(status, RPC_INVALID_ARGUMENT, "%s: the bytes cannot be read", descriptor->name);
	slice = grpc_byte_buffer_reader_readall(&reader);
	message = protobuf_c_message_unpack(descriptor, allocator, GRPC_SLICE_LENGTH(slice),
					    GRPC_SLICE_START_PTR(slice));
	grpc_slice_unref(slice);
	grpc_byte_buffer_reader_destroy(&reader);

	if (!message && arena && arena->exhausted)
		return rpc_status_set(status, RPC_RESOURCE_EXHAUSTED, "%s: the message takes too much memory",
				      descriptor->name);
	if (!message)
		return rpc_status_set(status, RPC_INVALID_ARGUMENT, "malformed %s", descriptor->name);
	if (rpc_message_check(message, field) < 0) {
		protobuf_c_message_free_unpacked(message, allocator);
		return rpc_status_set(status, RPC_INVALID_ARGUMENT, "%s is not valid UTF-8", field);
	}
	*ret_message = message;
	return RPC_OK;
}

void rpc_message_free(ProtobufCMessage *message)
{
	protobuf_c_message_free_unpacked(message, NULL); /* takes NULL */
}

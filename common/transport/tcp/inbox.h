/*
 * What has been received and not yet understood: the staging buffer of a byte stream.
 *
 * Frames are parsed in it and small payloads copied out of it; what is left of a large payload goes past it, straight
 * to where it belongs. Belongs to one stream; memory comes from the stream's owner.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TCP_INBOX_H
#define FARSWAP_COMMON_TRANSPORT_TCP_INBOX_H

#include <string.h>
#include <sys/uio.h>

#include "common/base/base.h"

struct tcp_inbox {
	uint8_t *bytes;
	uint32_t capacity_bytes;
	uint32_t start; /* first byte not understood */
	uint32_t end;	/* behind the last byte received */
};

static inline uint32_t tcp_inbox_len_bytes(const struct tcp_inbox *inbox)
{
	return inbox->end - inbox->start;
}

static inline const uint8_t *tcp_inbox_head(const struct tcp_inbox *inbox)
{
	return inbox->bytes + inbox->start;
}

static inline void tcp_inbox_consume(struct tcp_inbox *inbox, uint32_t len_bytes)
{
	inbox->start += len_bytes;
	if (inbox->start == inbox->end)
		inbox->start = inbox->end = 0;
}

/* Where to receive, after what is there has been moved to the front (the rest of one header, so next to nothing). */
static inline struct iovec tcp_inbox_space(struct tcp_inbox *inbox, uint32_t max_bytes)
{
	uint32_t len_bytes = tcp_inbox_len_bytes(inbox);
	uint32_t room_bytes;

	if (inbox->start != 0) {
		memmove(inbox->bytes, inbox->bytes + inbox->start, len_bytes);
		inbox->start = 0;
		inbox->end = len_bytes;
	}
	room_bytes = inbox->capacity_bytes - len_bytes;
	return (struct iovec){
		.iov_base = inbox->bytes + len_bytes,
		.iov_len = room_bytes < max_bytes ? room_bytes : max_bytes,
	};
}

#endif

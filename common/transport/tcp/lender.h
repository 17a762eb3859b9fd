/*
 * The lender's byte stream, after the handshake: requests in, memory moved, responses out.
 *
 * No socket, no clock, no reactor: the peer (peer.c) moves the bytes, a fuzzer can do it as well. Everything is
 * allocated by open and used again for one session after the other; one thread uses it at a time.
 *
 * Pointers into slabs come from the target's resolve and are used within one turn of the reactor: whoever moves the
 * bytes says when a turn ends (tcp_lender_turn_end), and what goes on in the next one is resolved again.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TCP_LENDER_H
#define FARSWAP_COMMON_TRANSPORT_TCP_LENDER_H

#include "common/mem/region.h"
#include "common/transport/target.h"
#include "common/transport/tcp/inbox.h"
#include "common/wire/frame.h"

/* The rest of a WRITE's payload, and the staging buffer. */
#define TCP_LENDER_SPACE_IOV 2

/* A response that has not left, or not all of it. */
struct tcp_lender_reply {
	uint8_t header[WIRE_RESPONSE_BYTES];
	void *bytes;	/* a READ's, valid while epoch is the stream's */
	uint64_t epoch;
	struct wire_request request;
	uint32_t payload_bytes; /* that follow the header */
	int32_t status;
};

struct tcp_lender {
	struct mem_region region; /* holds what the pointers below point at */
	struct transport_target *target;
	struct transport_session *session;
	uint32_t max_queue_depth;
	uint32_t queue_depth;	       /* of this session; also the tag of its ping */
	struct tcp_lender_reply *ring; /* max_queue_depth + 1 */
	uint32_t ring_first;
	uint32_t nr_replies;
	uint32_t first_progress_bytes; /* of the first reply that have left */
	size_t replies_bytes;	       /* that all of them have to send */
	uint64_t *tags;		       /* one bit each: in flight */
	uint64_t epoch;
	bool writing; /* a WRITE's payload comes in: */
	struct wire_request write;
	void *write_bytes; /* all of its range, valid while write_epoch is epoch */
	uint64_t write_epoch;
	uint32_t write_progress_bytes;
	int write_status; /* when refused, the payload is dropped */
	struct tcp_inbox inbox;
};

/* 0 or -ENOMEM. */
int tcp_lender_open(struct tcp_lender *lender, struct transport_target *target, uint32_t max_queue_depth)
	BASE_MUST_CHECK;
/* Accepts a zeroed one. */
void tcp_lender_close(struct tcp_lender *lender);

/* A new session, at most max_queue_depth deep; whatever was left of the one before is forgotten. */
void tcp_lender_begin(struct tcp_lender *lender, struct transport_session *session, uint32_t queue_depth);

/*
 * Where to put what comes next: the number of pieces, and their sum. 0: nothing is read before some of the responses
 * have left.
 */
unsigned tcp_lender_space(struct tcp_lender *lender, struct iovec ret_iov[TCP_LENDER_SPACE_IOV], size_t *ret_len_bytes);
/* True when that is not 0. */
bool tcp_lender_wants_bytes(const struct tcp_lender *lender);
/* So many bytes have been put there. 0, or -EPROTO when they are not ours: the connection must be cut. */
int tcp_lender_received(struct tcp_lender *lender, size_t len_bytes) BASE_MUST_CHECK;

/* True when the stream ends within a frame if it ends now. After a tcp_lender_space that was not 0. */
static inline bool tcp_lender_is_midway(const struct tcp_lender *lender)
{
	return lender->writing || tcp_inbox_len_bytes(&lender->inbox) > 0;
}

/*
 * What is to be sent next: the number of pieces, and their sum. -EACCES or -ERANGE when a response that has left in part
 * can not be continued: the connection must be cut.
 */
int tcp_lender_gather(struct tcp_lender *lender, struct iovec *ret_iov, unsigned max_iov, size_t *ret_len_bytes)
	BASE_MUST_CHECK;
/* So many bytes of it have left. Goes on with requests that had to wait for it; 0 or -EPROTO as above. */
int tcp_lender_sent(struct tcp_lender *lender, size_t len_bytes) BASE_MUST_CHECK;

/* True when there is something to send. */
static inline bool tcp_lender_has_replies(const struct tcp_lender *lender)
{
	return lender->nr_replies > 0;
}

/* The reactor's turn ends: no pointer into a slab is used any more. */
static inline void tcp_lender_turn_end(struct tcp_lender *lender)
{
	lender->epoch++;
}

#endif

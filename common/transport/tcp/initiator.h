/*
 * The initiator's byte stream: operations in, bytes out; bytes in, operations done.
 *
 * No socket, no clock, no reactor: the connection (conn.c) moves the bytes, a fuzzer can do it as well. Everything is
 * allocated by open; one thread uses it at a time.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TCP_INITIATOR_H
#define FARSWAP_COMMON_TRANSPORT_TCP_INITIATOR_H

#include "common/mem/region.h"
#include "common/transport/tcp/inbox.h"
#include "common/transport/transport.h"
#include "common/wire/frame.h"

/* The operations' own, at most, and the staging buffer. */
#define TCP_INITIATOR_MAX_IOV (TRANSPORT_MAX_IOV + 1)

struct tcp_initiator_slot {
	struct transport_op *op; /* NULL when the tag is free */
	bool sent;		 /* the request has left, all of it */
	uint8_t header[WIRE_REQUEST_BYTES];
};

struct tcp_initiator {
	struct mem_region region; /* holds what the pointers below point at */
	struct tcp_initiator_slot *slots; /* by tag; the last one is the ping's */
	uint32_t *free_tags;
	uint32_t nr_free_tags;
	uint32_t queue_depth;
	unsigned *in_flight; /* of the connection */
	struct transport_op_list unsent;   /* in order; of the first, unsent_progress_bytes have left */
	struct transport_op_list awaiting; /* a response */
	uint32_t unsent_progress_bytes;
	struct transport_op *receiving; /* whose payload comes in now */
	struct transport_op ping; /* its done, set by the owner, runs when the pong is here */
	bool pinging;
	struct tcp_inbox inbox;
};

/* *in_flight is kept at the number of operations submitted and not done. 0 or -ENOMEM. */
int tcp_initiator_open(struct tcp_initiator *initiator, uint32_t queue_depth, unsigned *in_flight) BASE_MUST_CHECK;
void tcp_initiator_close(struct tcp_initiator *initiator);

/* 0, or -EAGAIN when all tags are taken. The operation has been checked. */
int tcp_initiator_submit(struct tcp_initiator *initiator, struct transport_op *op) BASE_MUST_CHECK;
/* Queues a ping, unless one is under way. */
void tcp_initiator_ping(struct tcp_initiator *initiator);
/* True when there is something to send. */
static inline bool tcp_initiator_has_unsent(const struct tcp_initiator *initiator)
{
	return !TAILQ_EMPTY(&initiator->unsent);
}
/* True when a response is still to come. */
static inline bool tcp_initiator_waits(const struct tcp_initiator *initiator)
{
	return *initiator->in_flight > 0 || initiator->pinging;
}

/* What is to be sent next, in order: the number of pieces, and their sum. */
unsigned tcp_initiator_gather(struct tcp_initiator *initiator, struct iovec *ret_iov, unsigned max_iov,
			      size_t *ret_len_bytes);
/* So many bytes of it have left. */
void tcp_initiator_sent(struct tcp_initiator *initiator, size_t len_bytes);

/* Where to put what comes next: the number of pieces (at least 1), and their sum. */
unsigned tcp_initiator_space(struct tcp_initiator *initiator, struct iovec ret_iov[TCP_INITIATOR_MAX_IOV],
			     size_t *ret_len_bytes);
/*
 * So many bytes have been put there. Runs done of what they complete. The number of operations done, or -EPROTO when
 * they are not what was asked for: the stream cannot be used any more.
 */
int tcp_initiator_received(struct tcp_initiator *initiator, size_t len_bytes) BASE_MUST_CHECK;

/* Runs done with err for every operation. */
void tcp_initiator_cancel(struct tcp_initiator *initiator, int err);

#endif

/*
 * The TCP transport: framed one-sided READ and WRITE, many in flight on one connection.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TCP_TCP_H
#define FARSWAP_COMMON_TRANSPORT_TCP_TCP_H

#include "common/sys/socket.h"
#include "common/transport/target.h"
#include "common/transport/transport.h"

/* The initiator's side. Static; lives for ever. */
struct transport_driver *tcp_driver(void);

/* The lender's side: a port, and the connections that came in by it, spread over reactors. */
struct tcp_listener;

struct tcp_listener_options {
	const char *address; /* port 0: any free one */
	struct transport_target *target;
	struct sys_reactor *const *reactors; /* created, not yet started or running */
	unsigned nr_reactors;
	unsigned max_connections; /* all memory for them is taken here */
	unsigned handshake_ms;	  /* a peer that has not proven itself by then is cut */
	unsigned silence_ms;	  /* a peer that shows no life for so long is cut */
};

/* Counters since the start, for the books. */
struct tcp_listener_counters {
	uint64_t accepted;	/* connections that came in */
	uint64_t admitted;	/* that proved their token */
	uint64_t refused;	/* no lease, wrong token, wrong version, too many */
	uint64_t protocol_errors; /* cut for bytes that were not ours */
	uint64_t truncated;	/* went away in the middle of a frame */
	uint64_t timeouts;	/* cut for silence, in the handshake or later */
	uint64_t connections;	/* now */
};

/* Control thread. 0; -EADDRINUSE and so on from listen; -ENOMEM; -EINVAL. */
int tcp_listener_open(const struct tcp_listener_options *options, struct tcp_listener **ret_listener) BASE_MUST_CHECK;
/* Control thread. Cuts all connections (the target's leave has run for each) and frees it. Accepts NULL. */
void tcp_listener_close(struct tcp_listener *listener);
/* The address it listens on, with the port that it got. */
void tcp_listener_address(const struct tcp_listener *listener, struct sys_address *ret_address);
/* Any thread. */
void tcp_listener_counters(struct tcp_listener *listener, struct tcp_listener_counters *ret_counters);

#endif

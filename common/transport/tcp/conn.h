/*
 * The initiator's connection, between connect.c (which makes it, on a control thread) and conn.c (which runs it, on its
 * reactor).
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TCP_CONN_H
#define FARSWAP_COMMON_TRANSPORT_TCP_CONN_H

#include "common/transport/tcp/initiator.h"

struct tcp_conn {
	struct transport_conn head;
	struct tcp_initiator initiator;
	int err; /* why it is down; 0 while it is not */
	bool starved; /* a submit has been answered -EAGAIN: writable is owed */
	bool polling; /* the poller is added: while operations are in flight */
	struct sys_watch watch;
	struct sys_poller poller;
	struct sys_deferred flush;
	struct sys_deferred fall; /* tells operations and owner that it is down */
	struct sys_timer timer; /* the next heartbeat, or the end of patience */
	uint64_t heartbeat_ns;
	uint64_t dead_ns;
	uint64_t polled_ns; /* the turn in which the socket was read last */
	uint64_t sent_ns; /* when something was sent last */
	uint64_t received_ns; /* when something was received last */
	uint64_t unanswered_ns; /* since when a response is due and nothing came; 0: none is */
	uint64_t ping_ns; /* when the ping under way was sent */
};

/*
 * A connection on a socket that has been through the handshake. Takes the descriptor, also on failure. 0 or -ENOMEM.
 * heartbeat_ms is below dead_ms.
 */
int tcp_conn_create(int fd, unsigned queue_depth, unsigned heartbeat_ms, unsigned dead_ms,
		    struct transport_conn **ret_conn) BASE_MUST_CHECK;

#endif

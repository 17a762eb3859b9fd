/*
 * The NBD front end: the device as an export of a server for the NBD protocol, on a unix or TCP socket.
 *
 * Fixed newstyle; READ, WRITE (with FUA), FLUSH, TRIM, WRITE_ZEROES, DISC; structured replies; several connections of
 * one client. Blocks of 4096 bytes, requests of up to 2 MiB. There is neither encryption nor a password: a TCP address
 * belongs on loopback or on a network whose every host is trusted.
 *
 * Connections are spread over the reactors of the vswap's queues. All memory is taken by nbd_server_open. What a client
 * does wrong ends that client's connection at most.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_NBD_H
#define FARSWAP_CLIENT_FRONTEND_NBD_NBD_H

#include "client/vswap/vswap.h"
#include "common/base/base.h"
#include "common/sys/socket.h"

struct nbd_server;

struct nbd_server_options {
	const char *address; /* a text form of common/sys/socket.h; TCP port 0: any free one */
	struct vswap *vswap;
	unsigned nr_queues;	  /* the vswap's queues 0 .. nr_queues - 1 serve; at least 1 */
	unsigned max_connections; /* 0: 64 */
	unsigned queue_depth;	  /* requests of one connection that are under way, 1 .. 1024; 0: 128 */
	unsigned spin_us;	  /* how long a reactor keeps asking a connection that was just busy; 0: not at all */
	unsigned handshake_ms;	  /* a client that has not finished its handshake by then is cut; 0: 10 s */
	unsigned stall_ms;	  /* one that stops within a message, or takes no replies, for so long is cut; 0: 60 s */
};

struct nbd_server_counters {
	uint64_t accepted;	  /* connections that came in */
	uint64_t refused;	  /* turned away: too many, or an export that does not exist */
	uint64_t protocol_errors; /* cut for bytes that are not NBD */
	uint64_t truncated;	  /* went away in the middle of a message */
	uint64_t timeouts;	  /* cut for silence, in the handshake or within a message */
	uint64_t connections;	  /* now */
	uint64_t reads;		  /* requests that were answered, by command */
	uint64_t writes;
	uint64_t trims; /* and WRITE_ZEROES */
	uint64_t flushes;
	uint64_t bad_requests; /* answered with an error before they reached the device */
	uint64_t io_errors;    /* answered with an error of the device */
};

/*
 * Control thread; the reactors may be running already or be started later. 0; -EINVAL for options out of range or an
 * address that is none; -ENOENT, -EADDRINUSE and so on from the address; -ENOMEM.
 */
int nbd_server_open(const struct nbd_server_options *options, struct nbd_server **ret_server) BASE_MUST_CHECK;

/*
 * Control thread, not a reactor's own; the reactors run. Stops listening, cuts all connections, waits until the requests
 * that are under way have come back, and frees it. Accepts NULL.
 */
void nbd_server_close(struct nbd_server *server);

/* The address it listens on, with the port that it got. */
void nbd_server_address(const struct nbd_server *server, struct sys_address *ret_address);

/* Any thread. */
void nbd_server_counters(const struct nbd_server *server, struct nbd_server_counters *ret_counters);

#endif

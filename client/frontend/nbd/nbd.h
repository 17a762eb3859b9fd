/*
 * The NBD front end: the device as an export of a server for the NBD protocol, on a unix or TCP socket.
 *
 * Fixed newstyle; READ, WRITE (with FUA), FLUSH, TRIM, WRITE_ZEROES, DISC; structured replies; several connections of
 * one client. Blocks of 4096 bytes, requests of up to 2 MiB. There is neither encryption nor a password: a TCP address
 * belongs on loopback or on a network whose every host is trusted.
 *
 * Connections are spread over the reactors of the vswap's queues: those that come in by the address, and sockets that are
 * handed to the server with everything agreed already. All memory is taken by nbd_server_open. What a client does wrong
 * ends that client's connection at most.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_NBD_H
#define FARSWAP_CLIENT_FRONTEND_NBD_NBD_H

#include "client/vswap/vswap.h"
#include "common/base/base.h"
#include "common/sys/socket.h"

struct nbd_server;

struct nbd_server_options {
	const char *address; /* a text form of common/sys/socket.h; TCP port 0: any free one; NULL: nobody can come in */
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

/*
 * Control thread; not while the server is closed. Serves a stream socket on which there was no handshake and will be none:
 * the first byte is a request's, and replies are simple ones. Whoever is at the other end is trusted to be slow: it is
 * never cut for silence. Counts as accepted. 0, and the socket is the server's; -EMFILE when there are max_connections
 * already.
 */
int nbd_server_attach(struct nbd_server *server, int fd) BASE_MUST_CHECK;

/* The address it listens on, with the port that it got. Not without one. */
void nbd_server_address(const struct nbd_server *server, struct sys_address *ret_address);

/* Any thread. */
void nbd_server_counters(const struct nbd_server *server, struct nbd_server_counters *ret_counters);

#endif

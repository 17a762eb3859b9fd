/*
 * A client of the NBD protocol for tests: one connection over a unix socket, with many calls in flight from many threads.
 *
 * It checks what a server must do on the wire (each request answered once, by the kind of reply that was negotiated, with
 * the bytes of the range that was asked for); a server that breaks the protocol fails every call with -EPROTO.
 */
#ifndef FARSWAP_TESTS_CONFORM_NBD_CLIENT_H
#define FARSWAP_TESTS_CONFORM_NBD_CLIENT_H

#include <pthread.h>

#include "client/frontend/nbd/wire.h"
#include "common/base/base.h"

#define NBD_CLIENT_DEPTH 64u

struct nbd_client_call {
	bool begun; /* until its caller has been told */
	bool done;
	bool has_data; /* READ: all of it is in buf */
	enum nbd_command command;
	uint64_t offset_bytes;
	uint32_t len_bytes;
	void *buf;
	int status;
};

struct nbd_client {
	int fd;
	pthread_t receiver;
	pthread_mutex_t send_lock; /* a request goes out in one piece */
	/* What the server said in the handshake. */
	uint64_t export_bytes;
	uint16_t flags;
	uint32_t min_block_bytes, max_block_bytes;
	bool structured_replies;

	pthread_mutex_t lock; /* of all below, with changed */
	pthread_cond_t changed;
	struct nbd_client_call calls[NBD_CLIENT_DEPTH];
	int down; /* 0; -ENOTCONN, -EPROTO: no call is answered any more */
};

/* Control thread. 0; -EPROTO; -ENOTCONN when the server hangs up; others of connect. */
int nbd_client_open(const char *socket_path, bool structured_replies, struct nbd_client **ret_client) BASE_MUST_CHECK;
/* When every call has ended. Says goodbye unless the connection is down. */
void nbd_client_close(struct nbd_client *client);
/* Any thread. Cuts the connection: what is in flight ends with -ENOTCONN. */
void nbd_client_cut(struct nbd_client *client);

/*
 * Any thread. Sends a request, for which there must be room (NBD_CLIENT_DEPTH); buf is read before it returns for a WRITE,
 * and until nbd_client_end for a READ. The number of the call.
 */
unsigned nbd_client_begin(struct nbd_client *client, enum nbd_command command, uint16_t flags, uint64_t offset_bytes,
			  void *buf, uint32_t len_bytes);
/* Blocks until the call has ended. 0; the server's error as a negative errno; -ENOTCONN, -EPROTO. */
int nbd_client_end(struct nbd_client *client, unsigned number) BASE_MUST_CHECK;

#endif

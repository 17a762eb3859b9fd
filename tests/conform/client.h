/*
 * An initiator for tests: a connection on a reactor of its own thread, driven from the test's thread.
 *
 * Every function blocks until what it asks for has happened. What must hold of any transport (done exactly once, never
 * inside submit, down once and after every done) is asserted as things happen.
 */
#ifndef FARSWAP_TESTS_CONFORM_CLIENT_H
#define FARSWAP_TESTS_CONFORM_CLIENT_H

#include <pthread.h>

#include "common/transport/transport.h"

#define CLIENT_PENDING 1 /* the status of an operation that is not done */

struct client;

struct client_op {
	struct transport_op op;
	struct client *client;
	struct iovec iov[TRANSPORT_MAX_IOV];
	int status; /* CLIENT_PENDING until done */
	void (*then)(struct client_op *op); /* on the reactor's thread, after done; may be NULL */
};

struct client {
	struct sys_reactor *reactor;
	struct transport_conn *conn;
	bool submitting;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	unsigned nr_pending;
	unsigned nr_writable;
	unsigned nr_down;
	int down_err;
};

/* For a lender of target.h: of the lease, with its token, and times that no test waits for. */
struct transport_connect_options client_options(const char *address, uint64_t instance_id, uint64_t lease_id, uint32_t channel,
						uint32_t queue_depth);

/* clock: of its reactor; NULL for the real one. */
void client_init(struct client *client, struct sys_clock *clock);
/* Closes the connection if there is one. */
void client_done(struct client *client);

/* Makes the connection and attaches it. What transport_connect says. */
int client_connect(struct client *client, struct transport_driver *driver,
		   const struct transport_connect_options *options);
void client_close(struct client *client);

/* An operation on bytes, cut into nr_iov pieces of about the same length. */
void client_op_init(struct client_op *op, enum transport_opcode opcode, uint32_t slab, uint32_t key,
		    uint64_t offset_bytes, void *bytes, uint32_t len_bytes, unsigned nr_iov);
/* On the reactor's thread: submits. What transport_submit says. */
int client_submit_here(struct client *client, struct client_op *op);
/* All of them in one turn. The number that were taken; *ret_err is what the next one was answered, or 0. */
unsigned client_submit(struct client *client, struct client_op *ops, unsigned nr_ops, int *ret_err);
/* The same, and in the same turn the connection is closed. */
unsigned client_submit_and_close(struct client *client, struct client_op *ops, unsigned nr_ops);
/* Waits until nothing is pending. */
void client_wait(struct client *client);
/* Submits one operation and waits for it: its status. */
int client_run(struct client *client, struct client_op *op);
/* Waits until the connection is down: its error. */
int client_wait_down(struct client *client);

#endif

/*
 * The transport contract: one-sided READ and WRITE on memory that a peer lends in slabs.
 *
 * This header is the initiator's side (the client of a lease); target.h is the lender's. Implementations: tcp/, verbs/, loop/
 * (in process), fault/ (a decorator that injects failures). All of them pass tests/conform.
 *
 * A connection belongs to one reactor. It is made by a blocking call on a control thread, handed to its reactor with
 * transport_attach, and from then on used on that reactor's thread only.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TRANSPORT_H
#define FARSWAP_COMMON_TRANSPORT_TRANSPORT_H

#include <sys/queue.h>
#include <sys/uio.h>

#include "common/base/base.h"
#include "common/sys/reactor.h"

#define TRANSPORT_TOKEN_BYTES 32
#define TRANSPORT_MAX_OP_BYTES (2u << 20) /* of one READ or WRITE */
#define TRANSPORT_MAX_IOV 64		  /* local pieces of one READ or WRITE */
#define TRANSPORT_MAX_QUEUE_DEPTH 1024

enum transport_opcode {
	TRANSPORT_READ = 1,  /* from the slab into the local pieces */
	TRANSPORT_WRITE = 2, /* from the local pieces into the slab */
};

struct transport_conn;

/*
 * One operation: a contiguous range of one slab, any number of local pieces. Embedded by the submitter; everything it
 * points at must live, and the local bytes of a WRITE must not change, until done has run.
 */
struct transport_op {
	uint8_t opcode;
	uint32_t slab; /* the lender's number of the slab */
	uint32_t key;  /* that the lender gave with it */
	uint32_t len_bytes; /* 1 .. TRANSPORT_MAX_OP_BYTES; the pieces add up to it */
	uint64_t offset_bytes; /* into the slab */
	struct iovec *iov;     /* never changed by the transport */
	uint32_t nr_iov;       /* 1 .. TRANSPORT_MAX_IOV */
	/*
	 * Runs exactly once after a submit that returned 0, later, on the reactor's thread, never inside submit. status:
	 *   0            all bytes have been moved
	 *   -EACCES      the lender refused: no lease on that slab, or a wrong key. For a slab that was reached before and has
	 *                been taken back since, the connection may go down as well (-ECONNRESET)
	 *   -ERANGE      the lender refused: outside the slab
	 *   -EIO         the lender could not do it
	 *   another      the connection is down (its error: -ECONNRESET, -ETIMEDOUT, -EPROTO, -ECANCELED after close): a READ
	 *                has filled nothing that may be used, a WRITE may or may not have been done, wholly or in part
	 */
	void (*done)(struct transport_op *op, int status);

	/* The transport's, while the operation is submitted. */
	TAILQ_ENTRY(transport_op) link;
	uint64_t submitted_ns;
	uint32_t tag;
	uint32_t progress_bytes;
};

TAILQ_HEAD(transport_op_list, transport_op);

struct transport_ops {
	const char *name; /* "tcp" */
	/* Required. See transport_attach and so on below. */
	int (*attach)(struct transport_conn *conn, struct sys_reactor *reactor);
	int (*submit)(struct transport_conn *conn, struct transport_op *op);
	void (*close)(struct transport_conn *conn);
};

/* The head of every implementation's connection. The owner sets the callbacks before transport_attach. */
struct transport_conn {
	const struct transport_ops *ops;
	struct sys_reactor *reactor;
	/*
	 * Required. The connection has failed with err (negative), once, never inside submit or attach. Every operation in
	 * flight has had its done before. Nothing may be submitted any more (-ENOTCONN); the owner calls transport_close.
	 */
	void (*down)(struct transport_conn *conn, int err);
	/* Required. There is room again after a submit answered -EAGAIN. */
	void (*writable)(struct transport_conn *conn);
	void *owner;
	unsigned queue_depth; /* operations that may be in flight */
	unsigned in_flight;
	uint64_t heartbeat_rtt_ns; /* of the last heartbeat, 0 before the first */
};

struct transport_connect_options {
	const char *address;	/* text form, see common/sys/socket.h */
	uint64_t lease_id;
	uint64_t instance_id;	/* of the lender that gave the lease */
	uint8_t token[TRANSPORT_TOKEN_BYTES]; /* proven by challenge and response, never sent */
	/*
	 * Which of the client's connections on this lease this is. A new connection on the same lease and channel fences the
	 * one before: when connect returns, no operation of the old one will touch memory any more.
	 */
	uint32_t channel;
	unsigned queue_depth;	/* 1 .. TRANSPORT_MAX_QUEUE_DEPTH */
	unsigned heartbeat_ms;	/* how often an idle connection shows life; renews the lease */
	unsigned dead_ms;	/* silence after which the connection is down, -ETIMEDOUT */
	unsigned timeout_ms;	/* of connect itself */
};

/* A way of making connections. Lives as long as any of them. */
struct transport_driver {
	const char *name;
	/*
	 * Control thread; blocks for at most timeout_ms. 0; -EINVAL for options out of range; -ESTALE when the lender is not
	 * the instance that gave the lease or does not know the lease (its memory is gone); -EACCES when the token is not
	 * accepted or the lender cannot prove that it knows it; -EPROTO when the peer speaks something else;
	 * -EPROTONOSUPPORT when no common version exists; else the error of the network (-ECONNREFUSED, -ETIMEDOUT, ...).
	 */
	int (*connect)(struct transport_driver *driver, const struct transport_connect_options *options,
		       struct transport_conn **ret_conn);
};

static inline BASE_MUST_CHECK int transport_connect(struct transport_driver *driver,
						    const struct transport_connect_options *options,
						    struct transport_conn **ret_conn)
{
	return driver->connect(driver, options, ret_conn);
}

/* On the reactor's thread, after down and writable have been set. 0, -ENOMEM, -ENOSPC (epoll). */
static inline BASE_MUST_CHECK int transport_attach(struct transport_conn *conn, struct sys_reactor *reactor)
{
	return conn->ops->attach(conn, reactor);
}

/*
 * Queues one operation; what one turn of the reactor submits leaves in as few system calls as possible at the end of
 * that turn. 0; -EAGAIN when queue_depth operations are in flight (writable is called when one is not); -ENOTCONN when
 * the connection is down; -EINVAL for an operation out of the ranges above. Below 0, done never runs.
 */
static inline BASE_MUST_CHECK int transport_submit(struct transport_conn *conn, struct transport_op *op)
{
	return conn->ops->submit(conn, op);
}

/*
 * Ends and frees the connection: operations in flight get done with -ECANCELED before it returns; down is not called.
 * On the reactor's thread, never inside a done; or on the control thread for a connection that was never attached.
 */
static inline void transport_close(struct transport_conn *conn)
{
	conn->ops->close(conn);
}

#endif

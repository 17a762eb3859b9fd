/*
 * What the files of the NBD server share: the server, its workers (one per reactor) and their connections.
 *
 * server.c accepts and hands connections over; worker.c owns memory and the set of connections of one reactor; conn.c is
 * one connection's life, receive.c what it receives, reply.c what it sends. But for what says otherwise all of it runs
 * on the worker's reactor.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_INTERNAL_H
#define FARSWAP_CLIENT_FRONTEND_NBD_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>
#include <sys/queue.h>

#include "client/frontend/nbd/handshake.h"
#include "client/frontend/nbd/nbd.h"
#include "client/frontend/nbd/request.h"
#include "common/base/lock.h"
#include "common/mem/region.h"
#include "common/stats/counter.h"

#define NBD_SMALL_BYTES (64u << 10)
#define NBD_BIG_BYTES (IO_MAX_PAGES * FSW_PAGE_SIZE)
#define NBD_NR_BIG 8u /* per worker: enough to keep a stream of 2 MiB requests busy */
#define NBD_STAGING_BYTES (64u << 10)

struct nbd_worker;

/* A request, from its header to the last byte of its reply, and the buffer that goes with it. */
struct nbd_tag {
	struct fsw_io io;
	TAILQ_ENTRY(nbd_tag) link; /* in a free list of the worker, or in the connection's replies */
	struct nbd_conn *conn;
	struct nbd_request request;
	enum nbd_error error; /* decided before the request was submitted: what follows is thrown away */
	const char *text;
	uint32_t head_bytes; /* of the reply */
	uint32_t data_bytes; /* behind it */
	bool big;
	void *buf;
	unsigned char head[NBD_REPLY_HEAD_BYTES];
};

TAILQ_HEAD(nbd_tag_list, nbd_tag);

enum nbd_conn_state {
	NBD_CONN_HANDSHAKE,
	NBD_CONN_TRANSMISSION,
	NBD_CONN_LEAVING, /* nothing more is received; closes when all is answered */
	NBD_CONN_DEAD,	  /* closed; waits for its requests to come back */
};

struct nbd_conn {
	struct sys_watch watch;	     /* while cold */
	struct sys_poller poller;    /* while hot */
	struct sys_deferred work;    /* at the end of the turn: send, leave, be gone */
	struct sys_message adopt;    /* from server.c to the worker */
	TAILQ_ENTRY(nbd_conn) link;  /* among the worker's, or the server's free ones */
	TAILQ_ENTRY(nbd_conn) parked_link;
	struct nbd_worker *worker;
	enum nbd_conn_state state;
	int fd;
	bool hot;
	bool parked;	 /* a request stands at the head of staging and waits for a tag */
	bool want_write; /* the socket is full */
	bool structured_replies;
	bool attached;	  /* by nbd_server_attach: no handshake, and patience without end */
	unsigned nr_tags; /* that it holds */
	unsigned nr_busy; /* of them, in the device */
	uint64_t begun_ns;
	uint64_t progress_ns; /* last time that a byte went in or out */

	struct nbd_tag *rx_tag; /* whose payload is being received */
	uint32_t rx_bytes;	/* of it that are there */
	unsigned char *staging;
	size_t head, tail; /* what staging holds */

	struct nbd_tag_list replies;
	uint64_t sent_bytes; /* of the first one */
	size_t greeted_bytes; /* of handshake.out */
	struct nbd_handshake handshake;
};

TAILQ_HEAD(nbd_conn_list, nbd_conn);

struct nbd_worker_counters {
	struct stats_counter refused, protocol_errors, truncated, timeouts, opened, closed;
	struct stats_counter reads, writes, trims, flushes, bad_requests, io_errors;
};

struct nbd_worker {
	struct nbd_server *server;
	struct vswap_queue *queue;
	struct sys_reactor *reactor;
	struct nbd_tag_list free_small, free_big;
	struct nbd_conn_list conns;
	struct nbd_conn_list parked; /* in the order in which they are served */
	struct sys_deferred resume;
	struct sys_timer tick;
	bool closing;
	sem_t idle; /* posted once, when it is closing and has no connection left */
	struct mem_region tags, buffers;
	struct nbd_worker_counters counters __attribute__((aligned(FSW_CACHE_LINE)));
};

struct nbd_server {
	struct vswap *vswap;
	uint64_t export_bytes;
	unsigned nr_queues, max_connections, queue_depth;
	uint64_t spin_ns, handshake_ns, stall_ns;
	struct sys_address address;
	bool listens;
	int listen_fd;
	int stop_fd; /* an eventfd that ends the accepting thread */
	pthread_t acceptor;
	struct stats_counter accepted, turned_away; /* of the accepting thread */
	struct stats_counter attached;		    /* of the control thread */

	/* Connections come and go rarely: a lock is good enough. */
	struct lock_mutex lock;
	struct nbd_conn_list free_conns LOCK_GUARDED_BY(lock);
	unsigned *nr_conns LOCK_GUARDED_BY(lock); /* by worker, for the choice of the next one's */

	struct mem_region staging;
	struct nbd_conn *conns;	    /* max_connections */
	struct nbd_worker *workers; /* nr_queues */
};

/* server.c. Any reactor: a connection that is over goes back to the free ones. */
void nbd_server_release(struct nbd_conn *conn);

/* worker.c */
int nbd_worker_init(struct nbd_worker *worker, struct nbd_server *server, unsigned index) BASE_MUST_CHECK;
void nbd_worker_done(struct nbd_worker *worker);
/* Runs on the reactor by sys_reactor_call: cuts all; idle is posted when nothing is under way any more. */
void nbd_worker_shut_down(void *worker);
void nbd_worker_adopt(struct nbd_worker *worker, struct nbd_conn *conn);
void nbd_worker_drop(struct nbd_worker *worker, struct nbd_conn *conn);
/* NULL when none is free or the connection has its share. */
struct nbd_tag *nbd_worker_tag_get(struct nbd_worker *worker, struct nbd_conn *conn, uint32_t data_bytes);
void nbd_worker_tag_put(struct nbd_worker *worker, struct nbd_tag *tag);

/* conn.c */
void nbd_conn_init(struct nbd_conn *conn);
void nbd_conn_begin(struct nbd_conn *conn);
void nbd_conn_resume(struct nbd_conn *conn);
void nbd_conn_kill(struct nbd_conn *conn);
void nbd_conn_protocol_error(struct nbd_conn *conn, const char *what);
/* Closes when all that is under way has been answered. */
void nbd_conn_leave(struct nbd_conn *conn);
void nbd_conn_take_options(struct nbd_conn *conn);
bool nbd_conn_may_receive(const struct nbd_conn *conn);
/* Tells epoll what to report, given the connection's state. */
void nbd_conn_update_watch(struct nbd_conn *conn);

/* receive.c */
/* True when it brought something. */
bool nbd_conn_receive(struct nbd_conn *conn);
void nbd_conn_take_requests(struct nbd_conn *conn);

/* reply.c */
void nbd_conn_reply(struct nbd_tag *tag, enum nbd_error error, const char *text);
/* Sends what there is. False when the socket takes no more or the connection is gone. */
bool nbd_conn_send_handshake(struct nbd_conn *conn);
bool nbd_conn_send_replies(struct nbd_conn *conn);

#endif

/*
 * What fabric.c (the whole), device.c and queues.c (libibverbs, and the device itself) and manager.c (librdmacm) share. All of
 * it under fabric.lock.
 */
#ifndef FARSWAP_TESTS_FAKES_INTERNAL_H
#define FARSWAP_TESTS_FAKES_INTERNAL_H

#include <pthread.h>
#include <sys/queue.h>

#include "tests/fakes/fabric.h"

#define FABRIC_REQ_BYTES 56

struct fake_device {
	struct ibv_context context; /* first */
	struct ibv_device device;
};

struct fake_mr {
	struct ibv_mr mr; /* first */
	int access;
	bool lost; /* somebody tried to give it back to a device that was removed */
	LIST_ENTRY(fake_mr) link;
};

struct fake_pd {
	struct ibv_pd pd; /* first */
	bool lost;
	LIST_ENTRY(fake_pd) link;
};

struct fake_channel {
	struct ibv_comp_channel channel; /* first */
	struct fake_cq *told[4096];
	unsigned nr_told;
};

struct fake_wc {
	struct ibv_wc wc;
	struct fake_qp *qp; /* whose send queue has nr_free places more when this has been polled; NULL: none's */
	unsigned nr_free;
};

struct fake_cq {
	struct ibv_cq cq; /* first */
	struct fake_channel *channel;
	struct fake_wc *wcs;
	unsigned nr;
	bool armed;
	unsigned nr_got;
	unsigned nr_acked;
};

struct fake_wr {
	struct ibv_send_wr wr;
	struct ibv_sge sges[32];
	uint8_t bytes[256]; /* inline */
	TAILQ_ENTRY(fake_wr) link;
};

TAILQ_HEAD(fake_wr_list, fake_wr);

struct fake_qp {
	struct ibv_qp qp; /* first */
	struct fake_qp *peer;
	bool stands;
	bool failed;
	unsigned max_recv;
	unsigned max_send;
	unsigned nr_send;   /* places that are taken */
	unsigned nr_silent; /* of them by work requests that are done and do not tell */
	struct fake_wc late[256]; /* while acks are held */
	unsigned nr_late;
	struct ibv_recv_wr recvs[64];
	struct ibv_sge recv_sges[64];
	unsigned nr_recvs;
	struct fake_wr_list waiting;
	LIST_ENTRY(fake_qp) link;
};

struct fake_event {
	struct rdma_cm_event event; /* first */
	uint8_t bytes[256];
	TAILQ_ENTRY(fake_event) link;
};

struct fake_events {
	struct rdma_event_channel channel; /* first */
	TAILQ_HEAD(, fake_event) queue;
};

struct fake_id {
	struct rdma_cm_id id; /* first */
	struct fake_id *peer;
	bool listens;
	bool connected;
	bool routed;
	unsigned nr_unacked;
	struct fabric_options options;
	LIST_ENTRY(fake_id) link;
};

struct fabric {
	pthread_mutex_t lock;
	LIST_HEAD(, fake_id) ids;
	LIST_HEAD(, fake_qp) qps;
	struct fabric_counters counters;
	unsigned nr_objects;
	int limit_sge;
	int limit_wr;
	unsigned limit_inline;
	bool is_infiniband;
	bool is_cut;
	uint8_t last_req[FABRIC_REQ_BYTES];
	struct fabric_options last_req_options;
	struct fabric_options last_rep_options;
	int spoiled_byte; /* of the next REP; -1: none */
};

extern struct fabric fabric;

/* ---- fabric.c ---- */

/* Sets errno; -1. */
int fabric_wrong(int err);
/* Objects that are counted. */
void *fabric_make(size_t len_bytes);
void fabric_unmake(void *object);
/* One event of a descriptor: there is one more, and takes one. */
void fabric_tell(int fd);
bool fabric_told(int fd);

/* ---- device.c ---- */

struct ibv_context *fabric_device(unsigned i);
/* What the device looks at before it touches a byte. */
bool fabric_may(const struct ibv_pd *pd, uint32_t key, uint64_t addr, uint64_t len_bytes, int access);

/* ---- queues.c ---- */

/* The queue pair has failed: all that waits is flushed. */
void fabric_qp_flush(struct fake_qp *qp);
/* What is done with queues goes by the device's table of functions. */
void fabric_queues_ops(struct ibv_context *context);
/* Nothing is held, and nothing fails. */
void fabric_queues_reset(void);

/* ---- manager.c ---- */

/* Every id is told that its device has been removed. */
void fabric_tell_of_removal(void);

#endif

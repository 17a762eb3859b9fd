/*
 * An RDMA network within one process: stands in for libibverbs and librdmacm at link time, so that the verbs transport can be
 * tested on any machine.
 *
 * It keeps what the transport rests on: protection domains, keys and bounds are checked by "the device"; work requests of one
 * queue pair are carried out in order, and only some complete visibly; one has its place in the send queue until the completion
 * of itself or of a later one has been polled; one that fails takes its queue pair down and flushes the rest; a completion
 * queue tells once for each time that it was armed; an id cannot be destroyed with events of it unacknowledged. What a caller
 * does that the real libraries forbid ends the test.
 *
 * Two devices, fake0 and fake1, with two ports each: who connects to an address that ends in .2 goes by fake1, else by fake0,
 * and always by port 1. Any thread.
 */
#ifndef FARSWAP_TESTS_FAKES_FABRIC_H
#define FARSWAP_TESTS_FAKES_FABRIC_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "common/base/base.h"

/* What tests look at, since the last fabric_reset. */
struct fabric_counters {
	unsigned nr_doorbells; /* calls of ibv_post_send */
	unsigned nr_wrs;
	unsigned nr_signalled;
	unsigned nr_inline;
	unsigned nr_sends; /* and of these SEND, */
	unsigned nr_reads;
	unsigned nr_writes;
	unsigned nr_registered; /* calls of ibv_reg_mr */
};

/* What an id was told before it connected, as it was given; -1: nothing. */
struct fabric_options {
	int tos;		      /* RDMA_OPTION_ID_TOS */
	int reuse_address;	      /* RDMA_OPTION_ID_REUSEADDR */
	int ack_timeout;	      /* RDMA_OPTION_ID_ACK_TIMEOUT */
	int retry_count;	      /* by rdma_connect */
	struct sockaddr_storage from; /* by rdma_resolve_addr; AF_UNSPEC: nothing */
};

/* Everything as at the start: no faults, no limits, counters 0. Nothing may be left over from before: aborts if so. */
void fabric_reset(void);
void fabric_counters(struct fabric_counters *ret_counters);

/* Of the devices that are asked from now on. */
void fabric_set_limits(int max_sge, int max_qp_wr, unsigned max_inline);

/*
 * The ports are InfiniBand's, or RoCE's as at the start. Of port p of fake<n>, RoCE's GIDs are 0 for 127.0.p.(100 + n), of
 * RoCE v1; 1 for fe80::p; 2 for 127.0.(p - 1).(n + 1). InfiniBand's only one, 0, stands for no address.
 */
void fabric_set_infiniband(bool is_infiniband);

/* While held, work requests wait in their queue pairs; let go, they are carried out. */
void fabric_hold(bool hold);
/* So many of those that wait are carried out, in order. How many there were. */
unsigned fabric_step(unsigned nr);
/* While held, what has been carried out is not told of as complete to who posted it. Of SENDs, and of all after them. */
void fabric_hold_acks(bool hold);
/* The next operation of this kind ends with that status, and takes its queue pair down. */
void fabric_fail_next(enum ibv_wr_opcode opcode, enum ibv_wc_status status);
/* While it refuses, no work request can be posted: ibv_post_send fails with EIO. */
void fabric_refuse(bool refuse);
/* All that wait for a peer that is gone end with IBV_WC_RETRY_EXC_ERR. */
void fabric_give_up(void);
/* From now on no news of a disconnection arrives, and nobody answers: the network is cut. Until fabric_reset. */
void fabric_cut(void);

/*
 * The devices are removed: every id hears of it, and nothing of a device's can be given back any more: ibv_dereg_mr and
 * ibv_dealloc_pd fail, as they do when the kernel has taken the device from its users.
 */
void fabric_remove_devices(void);
/* What could not be given back goes with the devices, and they are there again. */
void fabric_forget_removed(void);

/* The private data of the REQ that was sent last. */
void fabric_last_req(uint8_t ret_bytes[56]);
/* Of the id whose REQ was sent last, */
void fabric_last_req_options(struct fabric_options *ret_options);
/* and of that whose REP was. */
void fabric_last_rep_options(struct fabric_options *ret_options);
/* The next REP's private data has this byte changed. */
void fabric_spoil_next_rep(unsigned byte);

/* What is left over: protection domains, registrations, queues, ids and channels. */
unsigned fabric_nr_objects(void);

#endif

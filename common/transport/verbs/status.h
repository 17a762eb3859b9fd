/*
 * What the devices and the connection manager say, as the errnos of the contract in transport.h: one table for each. And how
 * long a device may go on trying.
 *
 * Pure functions; any thread.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_VERBS_STATUS_H
#define FARSWAP_COMMON_TRANSPORT_VERBS_STATUS_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "common/base/base.h"

/* A device tries so often again, at most, before it gives the peer up. */
#define VERBS_RETRY_COUNT 7

/*
 * Of a work request that failed: what its operation ends with, when that is the lender's answer to it (-EACCES), or else 0,
 * for an operation that ends with the connection's own error. Whatever the status, the connection is down.
 */
int verbs_status_of_op(enum ibv_wc_status status);
/* The same, for the connection: never 0, but for a success. */
int verbs_status_of_conn(enum ibv_wc_status status);

/*
 * What an event of the connection manager means for a connection that is being made, or stands: 0 when it is the course of
 * things. A refusal of the lender's own comes with private data, and is not in here (-ECONNREFUSED).
 */
int verbs_status_of_event(enum rdma_cm_event_type event, int status);

/*
 * The time in which a device waits for an acknowledgement, as the exponent that it takes (4.096 us * 2^n): so that with all
 * its repetitions it has given up after dead_ms, but waits no less than a network needs.
 */
uint8_t verbs_ack_timeout(unsigned dead_ms);

#endif

/*
 * What every transport does with an operation: checks its ranges, cuts its local pieces, copies into and out of them.
 *
 * Pure functions on what they are given; any thread.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_OP_H
#define FARSWAP_COMMON_TRANSPORT_OP_H

#include "common/transport/transport.h"

/* 0; -EINVAL for what the contract of transport_op does not allow. */
int transport_op_check(const struct transport_op *op) BASE_MUST_CHECK;

/* 0; -EINVAL for options out of range. dead_ms must be above heartbeat_ms. */
int transport_connect_options_check(const struct transport_connect_options *options) BASE_MUST_CHECK;

/*
 * The pieces of op from byte skip_bytes on, at most max_iov of them. The number of pieces, and in *ret_len_bytes what
 * they add up to.
 */
unsigned transport_op_slice(const struct transport_op *op, uint32_t skip_bytes, struct iovec *ret_iov, unsigned max_iov,
			    size_t *ret_len_bytes);

/* Copies len_bytes into the pieces from byte skip_bytes on; the pieces have room for them. */
void transport_op_copy_in(const struct transport_op *op, uint32_t skip_bytes, const void *bytes, uint32_t len_bytes);

/* Copies len_bytes of the pieces from byte skip_bytes on. */
void transport_op_copy_out(const struct transport_op *op, uint32_t skip_bytes, void *ret_bytes, uint32_t len_bytes);

#endif

/*
 * The fault transport: a layer over any other that does, by a seeded plan, what networks and lenders do on bad days.
 *
 * Each connection draws from a generator of its own, made of the driver's seed and the connection's number: on manual
 * reactors the same calls with the same seed bring the same faults. For tests and simulation; it keeps the contract of
 * transport.h itself, whatever it injects.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_FAULT_FAULT_H
#define FARSWAP_COMMON_TRANSPORT_FAULT_FAULT_H

#include "common/transport/transport.h"

/* What happens to an operation: at most one of these, with probabilities in parts per million that add up to one at most. */
struct fault_plan {
	uint32_t fail_ppm; /* not done, and done says fail_err */
	int fail_err;	   /* -EIO, -EACCES or -ERANGE; 0: -EIO */
	uint32_t delay_ppm; /* goes out late or comes back late, by delay_min_ns .. delay_max_ns */
	uint64_t delay_min_ns;
	uint64_t delay_max_ns;
	/* The request or the response is lost: nothing is heard of it until, after dead_ms, the connection is given up. */
	uint32_t drop_ppm;
	/* One byte of what a READ brings, or of what a WRITE stores, is wrong. The submitter's own bytes stay as they are. */
	uint32_t corrupt_ppm;
	/* From this operation on nothing is heard of any, until after dead_ms the connection is given up. */
	uint32_t hang_ppm;
	uint32_t disconnect_ppm; /* -ECONNRESET, with the operation done or not */
	/* What happens to a connect. */
	uint32_t connect_fail_ppm;
	int connect_err; /* 0: -ECONNREFUSED */
};

struct fault_counters {
	uint64_t ops; /* that were submitted */
	uint64_t failed;
	uint64_t delayed;
	uint64_t dropped;
	uint64_t corrupted;
	uint64_t hung;
	uint64_t disconnected;
	uint64_t connects_failed;
};

/* Without a plan it injects nothing. inner lives as long as the driver. NULL when there is no memory. */
struct transport_driver *fault_driver_create(struct transport_driver *inner, uint64_t seed);
/* Every connection has been closed. Accepts NULL. */
void fault_driver_free(struct transport_driver *driver);

/* Any thread. For operations and connects from now on; NULL: no faults. */
void fault_driver_set_plan(struct transport_driver *driver, const struct fault_plan *plan);
/* Any thread. Every attached connection goes down with err in its reactor's next turn. 0, or -ENOMEM. */
int fault_driver_disconnect_all(struct transport_driver *driver, int err) BASE_MUST_CHECK;
/* Any thread. What has been injected so far. */
void fault_driver_counters(struct transport_driver *driver, struct fault_counters *ret_counters);

#endif

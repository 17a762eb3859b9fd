/*
 * The floor: what a bare socket does with the same sizes, the same number in flight and the same way of waiting (both
 * ends look at a non-blocking socket without sleeping), without any of our code.
 */
#ifndef FARSWAP_TESTS_BENCH_FLOOR_H
#define FARSWAP_TESTS_BENCH_FLOOR_H

#include "common/base/base.h"
#include "common/stats/histogram.h"

struct floor_result {
	uint64_t nr_ops;
	uint64_t bytes; /* of payload */
	uint64_t elapsed_ns;
	struct stats_snapshot latency; /* ping-pong only */
};

/* A server thread on processor `cpu`, and one connection to it. Exits the program on an error. */
struct floor *floor_start(int cpu);
void floor_stop(struct floor *floor);

/* Requests of a header, or a header and a page; answers of a header and a page, or a header; `depth` in flight. */
void floor_ping_pong(struct floor *floor, bool write, unsigned depth, uint64_t for_ns, struct floor_result *ret_result);

/* One direction, pieces of 1 MiB. */
void floor_stream(struct floor *floor, bool write, uint64_t for_ns, struct floor_result *ret_result);

#endif

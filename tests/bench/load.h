/*
 * A closed loop of requests on one queue of a device: `depth` in flight, each started when one is done.
 */
#ifndef FARSWAP_TESTS_BENCH_LOAD_H
#define FARSWAP_TESTS_BENCH_LOAD_H

#include "client/vswap/vswap.h"
#include "common/stats/histogram.h"

struct load_options {
	uint8_t op; /* IO_READ or IO_WRITE */
	unsigned depth;
	uint32_t nr_pages; /* of a request */
	uint64_t first_page; /* the range of the device, in whole requests */
	uint64_t range_pages;
	bool in_order; /* else at random */
	uint64_t for_ns; /* 0: nr_requests */
	uint64_t nr_requests;
	uint64_t pause_ns; /* between a request's end and the next one's start */
};

struct load_result {
	uint64_t nr_ops;
	uint64_t nr_errors;
	uint64_t elapsed_ns;
	struct stats_snapshot latency;
};

struct load;

/* Begins; load_wait returns when it is over, load_stop ends it early. */
struct load *load_start(struct vswap_queue *queue, const struct load_options *options);
void load_stop(struct load *load);
void load_wait(struct load *load, struct load_result *ret_result);
void load_run(struct vswap_queue *queue, const struct load_options *options, struct load_result *ret_result);

#endif

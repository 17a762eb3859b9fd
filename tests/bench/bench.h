/*
 * farswap-bench: what the parts share.
 */
#ifndef FARSWAP_TESTS_BENCH_BENCH_H
#define FARSWAP_TESTS_BENCH_BENCH_H

#include <jansson.h>

#include "common/base/base.h"
#include "common/stats/histogram.h"

#define BENCH_CPU_CLIENT 0
#define BENCH_CPU_SERVER 1
#define BENCH_MAX_RUNS 21u

struct bench_options {
	unsigned nr_runs;
	uint64_t for_ns; /* of one measurement */
	const char *farmemd;
	bool pin;
	uint32_t window_pages; /* of drains; 0: the default */
	const char *only;      /* part of the names of the cases to be measured; NULL: all */
};

/* Says what failed (err: positive errno or 0) and ends the program. */
void bench_die(const char *what, int err) __attribute__((noreturn));
/* bench_die if `ret` is a negative errno. */
void bench_check(const char *what, int ret);
uint64_t bench_now_ns(void);
int bench_cpu(const struct bench_options *options, int cpu);

/* One figure, taken once per run for us and once for the reference right before or after it. */
struct bench_pair {
	double ours[BENCH_MAX_RUNS];
	double floor[BENCH_MAX_RUNS];
	unsigned nr;
};

void bench_pair_add(struct bench_pair *pair, double ours, double floor);
double bench_median(const double *values, unsigned nr);
/* {"ours": median, "<reference>": median, "ratio": median of the ratios run by run, "ratios": [...]} */
json_t *bench_pair_json(const struct bench_pair *pair, const char *reference);
/* {"p50_ns", "p99_ns", "p999_ns", "mean_ns"} */
json_t *bench_latency_json(const struct stats_snapshot *latency);

/* ---- the parts; each returns its object ---- */

json_t *bench_pages(const struct bench_options *options);
json_t *bench_drain(const struct bench_options *options);
json_t *bench_vswap(const struct bench_options *options);
/* The part of bench_vswap about entries that are allocated (client/vswap/swap.h): adds its figures to the object. */
void bench_entries(const struct bench_options *options, json_t *object);
/* And the one about what it costs to empty a server, by what there is on it and beside it. */
void bench_drain_cost(const struct bench_options *options, json_t *object);
json_t *bench_nbd(const struct bench_options *options, const char *self);
/* Serves NBD on a unix socket from memory of this process until standard input ends: the other side of bench_nbd. */
int bench_nbd_serve(const char *socket_path, uint64_t size_bytes, int cpu);

#endif

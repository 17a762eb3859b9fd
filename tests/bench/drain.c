/*
 * The cost of a drain: how fast it goes beside a bare stream, and what reads feel of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sys/rcu.h"
#include "tests/bench/bench.h"
#include "tests/bench/floor.h"
#include "tests/bench/lender.h"
#include "tests/bench/load.h"

#define DRAIN_SLABS 8u /* 512 MiB */
#define DRAIN_PAGES (DRAIN_SLABS * 16384u)
#define DRAIN_READ_PAUSE_NS 200000u /* about 4000 reads per second meanwhile */

struct drain_figures {
	struct bench_pair rate;	     /* GB/s, against the bare stream */
	struct bench_pair idle_rate; /* without reads meanwhile */
	struct bench_pair p99;	     /* ns, against the same reads before */
};

static double drain_run(const struct bench_options *options, struct world *world, struct backend *from)
{
	struct vswap_drain_options how = { .window_pages = options->window_pages };
	struct vswap_drain_progress progress;

	bench_check("drain", vswap_drain(world->vswap, from, &how));
	do {
		usleep(1000);
		vswap_drain_progress(world->vswap, from, &progress);
	} while (progress.state == VSWAP_DRAIN_RUNNING);
	if (progress.state != VSWAP_DRAIN_DRAINED) {
		fprintf(stderr, "farswap-bench: drain: state %d, %llu of %llu pages left\n", (int)progress.state,
			(unsigned long long)progress.nr_left, (unsigned long long)progress.nr_start);
		exit(1);
	}
	bench_check("undrain", vswap_undrain(world->vswap, from));
	return (double)progress.nr_moved * FSW_PAGE_SIZE / (double)progress.elapsed_ns;
}

static void drain_measure(struct drain_figures *figures, const struct bench_options *options, struct world *world,
			  struct backend *from, struct backend *to, struct floor *floor)
{
	struct load_options reads = { .op = IO_READ,
				      .depth = 1,
				      .nr_pages = 1,
				      .range_pages = DRAIN_PAGES,
				      .for_ns = options->for_ns,
				      .pause_ns = DRAIN_READ_PAUSE_NS };
	struct load_result before, during;
	struct floor_result bare;
	struct load *load;
	double rate;

	floor_stream(floor, true, options->for_ns, &bare);
	bench_pair_add(&figures->idle_rate, drain_run(options, world, from),
		       (double)bare.bytes / (double)bare.elapsed_ns);
	load_run(vswap_queue(world->vswap, 0), &reads, &before);
	reads.for_ns = UINT64_MAX;
	load = load_start(vswap_queue(world->vswap, 0), &reads);
	rate = drain_run(options, world, to); /* it is the full one now */
	load_stop(load);
	load_wait(load, &during);
	if (before.nr_errors + during.nr_errors)
		bench_die("reads failed", 0);
	bench_pair_add(&figures->rate, rate, (double)bare.bytes / (double)bare.elapsed_ns);
	bench_pair_add(&figures->p99, (double)stats_snapshot_percentile(&during.latency, 99),
		       (double)stats_snapshot_percentile(&before.latency, 99));
}

json_t *bench_drain(const struct bench_options *options)
{
	struct load_options fill = { .op = IO_WRITE,
				     .depth = 4,
				     .nr_pages = 256,
				     .range_pages = DRAIN_PAGES,
				     .in_order = true,
				     .nr_requests = DRAIN_PAGES / 256 };
	struct floor *floor = floor_start(bench_cpu(options, BENCH_CPU_SERVER));
	struct lender *lender[2];
	struct backend *backend[2];
	struct drain_figures figures = { 0 };
	struct load_result filled;
	json_t *object = json_object();
	struct world world;
	unsigned run, i;

	sys_rcu_thread_init();
	for (i = 0; i < 2; i++)
		lender[i] = lender_start(options, (uint64_t)(DRAIN_SLABS + 1) << 26, 0);
	world_create(&world, options, DRAIN_PAGES, 0);
	world_start(&world);
	for (i = 0; i < 2; i++) {
		backend[i] = lender_connect(lender[i], world.reactor, 2);
		bench_check("backend", vswap_backend_add(world.vswap, backend[i]));
	}
	lender_add_slabs(lender[0], world.vswap, DRAIN_SLABS);
	load_run(vswap_queue(world.vswap, 0), &fill, &filled);
	lender_add_slabs(lender[1], world.vswap, DRAIN_SLABS);
	for (run = 0; run < options->nr_runs; run++)
		drain_measure(&figures, options, &world, backend[0], backend[1], floor);
	json_object_set_new(object, "gb_per_s", bench_pair_json(&figures.rate, "stream"));
	json_object_set_new(object, "gb_per_s_without_reads", bench_pair_json(&figures.idle_rate, "stream"));
	json_object_set_new(object, "read_p99_ns", bench_pair_json(&figures.p99, "before"));
	floor_stop(floor);
	world_stop(&world);
	lender_disconnect(lender[0]);
	lender_disconnect(lender[1]);
	world_free(&world);
	lender_stop(lender[0]);
	lender_stop(lender[1]);
	return object;
}

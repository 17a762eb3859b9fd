/*
 * Pages and runs through vswap + remote + TCP to a real farmemd, beside the bare socket.
 */
#include <stdio.h>
#include <string.h>

#include "tests/bench/bench.h"
#include "tests/bench/floor.h"
#include "tests/bench/lender.h"
#include "tests/bench/load.h"

#define PAGES_SLABS 8u
#define PAGES_RANGE (PAGES_SLABS * 16384u / 2)
#define PAGES_SPIN_US 300u

struct pages_case {
	const char *name;
	uint8_t op;
	unsigned depth;
	uint32_t nr_pages;
	struct bench_pair latency; /* p50, ns */
	struct bench_pair rate;	   /* operations per second, or bytes per ns */
	struct stats_snapshot ours, floor;
};

static void pages_measure(struct pages_case *c, const struct bench_options *options, struct vswap_queue *queue,
			  struct floor *floor)
{
	struct load_options load = {
		.op = c->op, .depth = c->depth, .nr_pages = c->nr_pages, .range_pages = PAGES_RANGE, .for_ns = options->for_ns
	};
	struct load_result ours;
	struct floor_result bare;

	if (c->nr_pages == 1)
		floor_ping_pong(floor, c->op == IO_WRITE, c->depth, options->for_ns, &bare);
	else
		floor_stream(floor, c->op == IO_WRITE, options->for_ns, &bare);
	load_run(queue, &load, &ours);
	if (ours.nr_errors)
		bench_die("requests failed", 0);
	if (c->nr_pages == 1) {
		bench_pair_add(&c->latency, (double)stats_snapshot_percentile(&ours.latency, 50),
			       (double)stats_snapshot_percentile(&bare.latency, 50));
		stats_snapshot_add(&c->floor, &bare.latency);
	}
	stats_snapshot_add(&c->ours, &ours.latency);
	bench_pair_add(&c->rate, (double)ours.nr_ops * c->nr_pages * FSW_PAGE_SIZE / (double)ours.elapsed_ns,
		       (double)bare.bytes / (double)bare.elapsed_ns);
}

static json_t *pages_case_json(const struct pages_case *c)
{
	json_t *object = json_object();

	json_object_set_new(object, "depth", json_integer(c->depth));
	json_object_set_new(object, "bytes", json_integer((json_int_t)c->nr_pages * FSW_PAGE_SIZE));
	json_object_set_new(object, "gb_per_s", bench_pair_json(&c->rate, "floor"));
	json_object_set_new(object, "latency", bench_latency_json(&c->ours));
	if (c->latency.nr) {
		json_object_set_new(object, "p50_ns", bench_pair_json(&c->latency, "floor"));
		json_object_set_new(object, "floor_latency", bench_latency_json(&c->floor));
	}
	return object;
}

static bool pages_is_wanted(const struct pages_case *c, const struct bench_options *options)
{
	return !options->only || strstr(c->name, options->only);
}

json_t *bench_pages(const struct bench_options *options)
{
	static struct pages_case cases[] = {
		{ .name = "read_4k_depth_1", .op = IO_READ, .depth = 1, .nr_pages = 1 },
		{ .name = "write_4k_depth_1", .op = IO_WRITE, .depth = 1, .nr_pages = 1 },
		{ .name = "read_4k_depth_32", .op = IO_READ, .depth = 32, .nr_pages = 1 },
		{ .name = "write_4k_depth_32", .op = IO_WRITE, .depth = 32, .nr_pages = 1 },
		{ .name = "read_1m", .op = IO_READ, .depth = 4, .nr_pages = 256 },
		{ .name = "write_1m", .op = IO_WRITE, .depth = 4, .nr_pages = 256 },
	};
	struct load_options fill = { .op = IO_WRITE, .depth = 4, .nr_pages = 256, .range_pages = PAGES_RANGE,
				     .in_order = true, .nr_requests = PAGES_RANGE / 256 };
	struct floor *floor = floor_start(bench_cpu(options, BENCH_CPU_SERVER));
	struct lender *lender = lender_start(options, (uint64_t)PAGES_SLABS << 26, PAGES_SPIN_US);
	struct load_result filled;
	json_t *object = json_object();
	struct world world;
	unsigned run, i;

	world_create(&world, options, PAGES_RANGE, PAGES_SPIN_US);
	world_start(&world);
	bench_check("backend", vswap_backend_add(world.vswap, lender_connect(lender, world.reactor, 2)));
	lender_add_slabs(lender, world.vswap, PAGES_SLABS);
	load_run(vswap_queue(world.vswap, 0), &fill, &filled);
	for (run = 0; run < options->nr_runs; run++)
		for (i = 0; i < BASE_ARRAY_SIZE(cases); i++)
			if (pages_is_wanted(&cases[i], options))
				pages_measure(&cases[i], options, vswap_queue(world.vswap, 0), floor);
	for (i = 0; i < BASE_ARRAY_SIZE(cases); i++)
		if (pages_is_wanted(&cases[i], options))
			json_object_set_new(object, cases[i].name, pages_case_json(&cases[i]));
	floor_stop(floor);
	world_stop(&world);
	lender_disconnect(lender);
	world_free(&world);
	lender_stop(lender);
	return object;
}

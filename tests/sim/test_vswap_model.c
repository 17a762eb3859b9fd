/* deps: tests_sim_model tests_lib client_vswap */
/*
 * The virtual swap layer against the model: random operations from two queues, on backends that are slow, fail, corrupt,
 * fill up, are drained, lost and come back.
 *
 * One seed is one run: printed at the start, replayed with FARSWAP_SEED; FARSWAP_OPS sets the number of operations.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "client/vswap/admin.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "tests/lib/ram_backend.h"
#include "tests/sim/model.h"

#define NR_PAGES 6000u /* not a multiple of a cluster */
#define NR_QUEUES 2u
#define NR_BACKENDS 3u /* two servers, one disk */
#define SLAB_SLOTS 512u
#define MAX_SLABS_EACH 6u

struct sim_clock {
	struct sys_clock clock;
	uint64_t now_ns;
};

struct world {
	struct rand_state rand;
	struct sim_clock clock;
	struct sys_reactor *reactor[NR_QUEUES + 1];
	struct vswap *vswap;
	struct ram_backend *ram[NR_BACKENDS];
	struct model model;
	uint64_t nr_drained, nr_lost;
};

static uint64_t sim_now(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct sim_clock, clock)->now_ns;
}

/* ---- the control plane ---- */

static void add_slab(struct world *w, unsigned b)
{
	struct backend *backend = ram_backend_backend(w->ram[b]);

	if (ram_backend_nr_slabs(w->ram[b]) >= MAX_SLABS_EACH || backend_state(backend) != BACKEND_UP)
		return;
	assert_int_equal(vswap_slab_add(w->vswap, ram_backend_slab_new(w->ram[b])), 0);
}

static void reclaim(struct world *w, unsigned b, unsigned max)
{
	struct backend_slab *slabs[MAX_SLABS_EACH];
	unsigned i, nr = vswap_slab_reclaim(w->vswap, ram_backend_backend(w->ram[b]), 0, max, slabs);

	for (i = 0; i < nr; i++)
		ram_backend_slab_free(w->ram[b], slabs[i]);
}

static void toggle_drain(struct world *w, unsigned b)
{
	struct backend *backend = ram_backend_backend(w->ram[b]);
	struct vswap_drain_options options = {
		.target = (enum vswap_drain_target)rand_below(&w->rand, 3),
		.deadline_ms = rand_below(&w->rand, 2) ? 1 + rand_below(&w->rand, 20) : 0,
		.window_pages = (uint32_t)rand_below(&w->rand, 300),
	};
	struct vswap_drain_progress progress;

	vswap_drain_progress(w->vswap, backend, &progress);
	if (progress.state == VSWAP_DRAIN_RUNNING) {
		if (rand_below(&w->rand, 4) == 0)
			assert_int_equal(vswap_drain_cancel(w->vswap, backend), 0);
		return;
	}
	if (vswap_backend_draining(backend)) {
		struct vswap_space space;

		vswap_space(w->vswap, backend, &space);
		if (progress.state == VSWAP_DRAIN_DRAINED) {
			assert_int_equal(space.nr_used_slots, 0);
			w->nr_drained++;
		}
		assert_int_equal(vswap_undrain(w->vswap, backend), 0);
		return;
	}
	(void)!vswap_drain(w->vswap, backend, &options); /* -EBUSY: another one runs */
}

static void lose(struct world *w, unsigned b)
{
	uint64_t poisoned = 0;
	unsigned i;

	model_set_lossy(&w->model);
	ram_backend_lose(w->ram[b]);
	while (vswap_backend_lost(w->vswap, ram_backend_backend(w->ram[b]), &poisoned) == -EAGAIN) {
		w->clock.now_ns += 100000;
		for (i = 0; i <= NR_QUEUES; i++)
			sys_reactor_turn(w->reactor[i]);
	}
	reclaim(w, b, MAX_SLABS_EACH);
	assert_int_equal(ram_backend_nr_slabs(w->ram[b]), 0);
	ram_backend_revive(w->ram[b]);
	w->nr_lost++;
}

static void control(struct world *w, unsigned hazards)
{
	unsigned b = (unsigned)rand_below(&w->rand, NR_BACKENDS);
	struct ram_backend_plan plan = { .max_delay_turns = (unsigned)rand_below(&w->rand, 12) };

	switch (rand_below(&w->rand, 8)) {
	case 0:
	case 1:
		add_slab(w, b);
		break;
	case 2:
		reclaim(w, b, 1);
		break;
	case 3:
		toggle_drain(w, b);
		break;
	case 4:
		ram_backend_settle(w->ram[b]);
		break;
	case 5:
		if (hazards >= 1) {
			plan.fail_ppm = rand_below(&w->rand, 2) ? 0 : 30000;
			plan.refuse_ppm = rand_below(&w->rand, 2) ? 0 : 50000;
			if (plan.fail_ppm)
				model_set_lossy(&w->model); /* reads fail for good, writes in place leave nothing behind */
		}
		if (hazards >= 2 && rand_below(&w->rand, 3) == 0) {
			plan.corrupt_ppm = 20000;
			model_set_lossy(&w->model);
		}
		ram_backend_set_plan(w->ram[b], &plan);
		break;
	case 6:
		if (hazards >= 2 && b != 2 && rand_below(&w->rand, 10) == 0)
			lose(w, b);
		break;
	default:
		assert_int_equal(vswap_refill(w->vswap), 0);
	}
}

/* ---- the run ---- */

static void turn(struct world *w, unsigned r)
{
	w->clock.now_ns += 10000;
	sys_reactor_turn(w->reactor[r]);
}

static void settle(struct world *w)
{
	struct vswap_drain_progress progress;
	unsigned i, b, n;

	for (b = 0; b < NR_BACKENDS; b++) {
		ram_backend_set_plan(w->ram[b], &(struct ram_backend_plan){ 0 });
		vswap_drain_progress(w->vswap, ram_backend_backend(w->ram[b]), &progress);
		if (progress.state == VSWAP_DRAIN_RUNNING)
			assert_int_equal(vswap_drain_cancel(w->vswap, ram_backend_backend(w->ram[b])), 0);
	}
	for (n = 0; n < 100000; n++) {
		bool busy = false;

		for (b = 0; b < NR_BACKENDS; b++) {
			if (n % 64 == 0)
				ram_backend_settle(w->ram[b]);
			vswap_drain_progress(w->vswap, ram_backend_backend(w->ram[b]), &progress);
			busy |= progress.state == VSWAP_DRAIN_RUNNING;
		}
		for (i = 0; i <= NR_QUEUES; i++) {
			w->clock.now_ns += 300000;
			sys_reactor_turn(w->reactor[i]);
		}
		busy |= model_is_busy(&w->model);
		if (!busy && n > 300)
			return;
	}
	fail_msg("the run does not come to rest");
}

static void verify_turn(void *arg, unsigned queue)
{
	turn(arg, queue);
}

static struct world *world_create(uint64_t seed, uint64_t comp_limit_bytes)
{
	struct world *w = calloc(1, sizeof(*w));
	struct vswap_options options = {
		.nr_pages = NR_PAGES, .nr_queues = NR_QUEUES, .max_slabs = 64, .reserve_tables = 256, .seed = seed | 1,
		.comp_limit_bytes = comp_limit_bytes, .comp_algorithm = seed % 2 ? COMP_LZ4 : COMP_ZSTD, .comp_level = 1
	};
	static const char *const name[NR_BACKENDS] = { "one", "two", "disk" };
	unsigned i;

	assert_non_null(w);
	w->rand.s = seed;
	w->clock.clock.now_ns = sim_now;
	w->clock.now_ns = 1000000;
	assert_int_equal(vswap_create(&options, &w->vswap), 0);
	for (i = 0; i <= NR_QUEUES; i++) {
		struct sys_reactor_options reactor = { .name = "sim", .clock = &w->clock.clock, .manual = true, .cpu = -1 };

		assert_int_equal(sys_reactor_create(&reactor, &w->reactor[i]), 0);
		vswap_queue_bind(w->vswap, i, w->reactor[i]);
	}
	for (i = 0; i < NR_BACKENDS; i++) {
		w->ram[i] = ram_backend_create(name[i], i == 2 ? BACKEND_DISK : BACKEND_REMOTE, SLAB_SLOTS, w->reactor,
					       NR_QUEUES + 1, seed + i);
		assert_int_equal(vswap_backend_add(w->vswap, ram_backend_backend(w->ram[i])), 0);
		add_slab(w, i);
		add_slab(w, i);
	}
	model_init(&w->model, &w->rand, w->vswap, NR_PAGES, NR_QUEUES);
	return w;
}

static void world_free(struct world *w)
{
	unsigned i;

	vswap_free(w->vswap);
	for (i = 0; i < NR_BACKENDS; i++)
		ram_backend_free(w->ram[i]);
	for (i = 0; i <= NR_QUEUES; i++)
		sys_reactor_free(w->reactor[i]);
	model_done(&w->model);
	free(w);
}

/* hazards: 0 nothing fails (and no read may); 1 operations fail; 2 bytes are corrupted and servers lost as well. */
static void run(unsigned hazards, uint64_t nr_ops, uint64_t comp_limit_bytes)
{
	uint64_t seed = model_environment("FARSWAP_SEED", (uint64_t)time(NULL) * 3 + hazards);
	struct vswap_stats stats;
	struct world *w;

	nr_ops = model_environment("FARSWAP_OPS", nr_ops);
	print_message("seed %" PRIu64 "\n", seed);
	w = world_create(seed, comp_limit_bytes);
	while (w->model.nr_done < nr_ops) {
		w->model.step++;
		switch (rand_below(&w->rand, 4)) {
		case 0:
		case 1:
			model_submit(&w->model);
			break;
		default:
			turn(w, (unsigned)rand_below(&w->rand, NR_QUEUES + 1));
		}
		if (w->model.step % 512 == 0)
			control(w, hazards);
	}
	settle(w);
	model_verify(&w->model, verify_turn, w);
	assert_int_equal(vswap_check(w->vswap), 0);
	vswap_stats(w->vswap, &stats);
	print_message("%" PRIu64 " operations, %" PRIu64 " pages checked, %" PRIu64 " read errors, %" PRIu64
		      " write errors, %" PRIu64 " drained, %" PRIu64 " lost, %" PRIu64 " relocated, %" PRIu64 " poisoned\n",
		      w->model.nr_done, w->model.nr_pages_checked, w->model.nr_read_errors, w->model.nr_write_errors,
		      w->nr_drained, w->nr_lost,
		      stats.nr_relocated, stats.nr_poisoned);
	assert_true(hazards == 2 || stats.nr_checksum_errors == 0);
	assert_true(w->nr_drained > 0 && stats.nr_relocated > 0);
	assert_true(!comp_limit_bytes || stats.nr_written_back > 0);
	world_free(w);
}

static void test_nothing_fails(void **state)
{
	(void)state;
	run(0, 250000, 0);
}

static void test_operations_fail(void **state)
{
	(void)state;
	run(1, 250000, 0);
}

/* The first tier is too small for what would fit into it: it is written back all the time. */
static void test_what_shrinks_is_compressed(void **state)
{
	(void)state;
	run(1, 250000, 1u << 20);
}

static void test_bytes_are_lost(void **state)
{
	(void)state;
	run(2, 250000, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_fails),
		cmocka_unit_test(test_operations_fail),
		cmocka_unit_test(test_what_shrinks_is_compressed),
		cmocka_unit_test(test_bytes_are_lost),
	};

	log_init("test_vswap_model", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

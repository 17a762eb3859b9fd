/* deps: tests_sim_model client_vswap client_backend_remote common_transport_loop common_transport_fault server_ctl */
/*
 * A client and its memory servers in one process, under a simulated clock: the real virtual swap layer, remote backends and
 * lenders, with a transport between them that fails, delays, drops, corrupts, hangs and disconnects. The keeper's part is
 * played here: leases, slabs, reconnection, giving a session up. Every read is checked against the model.
 *
 * One seed is one run: printed at the start, replayed with FARSWAP_SEED; FARSWAP_OPS sets the number of operations.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "client/backend/remote/remote.h"
#include "client/vswap/admin.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "common/transport/fault/fault.h"
#include "common/transport/loop/loop.h"
#include "server/ctl/lender.h"
#include "tests/sim/model.h"

#define NR_PAGES 3000u
#define NR_QUEUES 2u
#define NR_SERVERS 3u
#define SLAB_BYTES (1u << 20)
#define SERVER_SLABS 8u
#define TERM_MS 10000u
#define HEARTBEAT_MS 100u

struct sim_clock {
	struct sys_clock clock;
	uint64_t now_ns;
};

struct server {
	struct arena *arena;
	struct expose *expose;
	struct lender *lender;
	struct lender_lease lease;
	uint64_t request_number;
	struct transport_driver *loop;
	struct transport_driver *fault;
	struct backend *backend;
	bool in_session;
	uint64_t retry_ns;
	uint64_t down_since_ns;
};

struct world {
	struct rand_state rand;
	struct sim_clock clock;
	struct sys_reactor *reactor[NR_QUEUES + 1];
	struct vswap *vswap;
	struct server server[NR_SERVERS];
	struct model model;
	bool may_lose; /* sessions may end with pages on them */
	uint64_t next_tick_ns;
	uint64_t nr_drained, nr_sessions, nr_lost_sessions, nr_reconnects;
};

static uint64_t sim_now(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct sim_clock, clock)->now_ns;
}

static void tick(struct world *w)
{
	unsigned i;

	if (w->clock.now_ns < w->next_tick_ns)
		return;
	w->next_tick_ns = w->clock.now_ns + TERM_MS * SYS_NS_PER_MS / 16;
	for (i = 0; i < NR_SERVERS; i++)
		lender_tick(w->server[i].lender);
}

static void turn(struct world *w, unsigned r)
{
	w->clock.now_ns += 20000;
	tick(w);
	sys_reactor_turn(w->reactor[r]);
}

static void turn_all(struct world *w)
{
	unsigned r;

	for (r = 0; r <= NR_QUEUES; r++)
		turn(w, r);
}

/* ---- the keeper's part ---- */

static struct lender_proof proof(const struct server *server)
{
	return (struct lender_proof){ .lease_id = server->lease.id, .token = server->lease.token,
				      .token_bytes = LEASE_TOKEN_BYTES };
}

static void session_begin(struct world *w, struct server *server)
{
	struct remote_session session = { .data_address = "loop", .heartbeat_ms = HEARTBEAT_MS };
	struct lender_proof lease;

	if (lender_open_lease(server->lender, "sim", 1, &server->lease) < 0)
		return;
	session.lease_id = server->lease.id;
	session.instance_id = expose_target(server->expose)->instance_id;
	memcpy(session.token, server->lease.token, sizeof(session.token));
	if (remote_session_begin(server->backend, &session, 100) == 0) {
		server->in_session = true;
		w->nr_sessions++;
		return;
	}
	lease = proof(server);
	(void)!lender_close_lease(server->lender, &lease);
	server->retry_ns = w->clock.now_ns + 5000000;
}

static void slab_fetch(struct world *w, struct server *server)
{
	struct lender_proof lease = proof(server);
	struct backend_slab *slab;
	struct lender_grant grant;

	while (arena_scrub_one(server->arena))
		;
	if (!server->in_session || backend_state(server->backend) != BACKEND_UP ||
	    lender_lease_slabs(server->lender, &lease, ++server->request_number, 1, &grant) != 1)
		return;
	slab = calloc(1, sizeof(*slab));
	assert_non_null(slab);
	*slab = (struct backend_slab){ .backend = server->backend, .index = grant.slab, .key = grant.key,
				       .nr_slots = SLAB_BYTES >> FSW_PAGE_SHIFT,
				       .session = remote_session_number(server->backend) };
	assert_int_equal(vswap_slab_add(w->vswap, slab), 0);
}

static void slabs_return(struct world *w, struct server *server, unsigned max)
{
	struct backend_slab *slabs[SERVER_SLABS];
	struct lender_grant grants[SERVER_SLABS];
	struct lender_proof lease = proof(server);
	unsigned i, nr = vswap_slab_reclaim(w->vswap, server->backend, 0, max, slabs);

	for (i = 0; i < nr; i++) {
		grants[i] = (struct lender_grant){ .slab = slabs[i]->index, .key = slabs[i]->key };
		free(slabs[i]);
	}
	if (nr && server->in_session)
		(void)!lender_release_slabs(server->lender, &lease, grants, nr);
}

/* Gives the session up: what is on the server is lost. */
static void session_end(struct world *w, struct server *server)
{
	struct lender_proof lease = proof(server);
	uint64_t poisoned = 0;

	model_set_lossy(&w->model);
	remote_session_end(server->backend);
	while (vswap_backend_lost(w->vswap, server->backend, &poisoned) == -EAGAIN)
		turn_all(w);
	server->in_session = false;
	slabs_return(w, server, SERVER_SLABS);
	(void)!lender_close_lease(server->lender, &lease);
	server->retry_ns = w->clock.now_ns + 20000000;
	w->nr_lost_sessions++;
}

static void keep(struct world *w, struct server *server)
{
	enum backend_state state = backend_state(server->backend);
	int err;

	if (!server->in_session) {
		if (w->clock.now_ns >= server->retry_ns)
			session_begin(w, server);
		return;
	}
	if (state == BACKEND_UP) {
		server->down_since_ns = 0;
		return;
	}
	if (server->down_since_ns == 0)
		server->down_since_ns = w->clock.now_ns;
	if (w->clock.now_ns < server->retry_ns)
		return;
	err = remote_session_reconnect(server->backend, 100);
	w->nr_reconnects += err == 0;
	if (err == -ESTALE || (w->may_lose && w->clock.now_ns - server->down_since_ns > 3 * SYS_NS_PER_S))
		session_end(w, server);
	server->retry_ns = w->clock.now_ns + 1000000 + rand_below(&w->rand, 5000000);
}

/* ---- what the dice bring ---- */

static void toggle_drain(struct world *w, struct server *server)
{
	struct vswap_drain_options options = { .deadline_ms = rand_below(&w->rand, 3) ? 0 : 1 + rand_below(&w->rand, 50),
					       .window_pages = (uint32_t)rand_below(&w->rand, 300) };
	struct vswap_drain_progress progress;

	vswap_drain_progress(w->vswap, server->backend, &progress);
	if (progress.state == VSWAP_DRAIN_RUNNING) {
		if (rand_below(&w->rand, 4) == 0)
			assert_int_equal(vswap_drain_cancel(w->vswap, server->backend), 0);
	} else if (vswap_backend_draining(server->backend)) {
		w->nr_drained += progress.state == VSWAP_DRAIN_DRAINED;
		assert_int_equal(vswap_undrain(w->vswap, server->backend), 0);
	} else {
		(void)!vswap_drain(w->vswap, server->backend, &options);
	}
}

static struct fault_plan plan_random(struct world *w, bool corrupt)
{
	struct fault_plan plan = { .delay_ppm = 100000, .delay_min_ns = 1000, .delay_max_ns = 2000000 };

	switch (rand_below(&w->rand, 6)) {
	case 0:
		plan.fail_ppm = 20000;
		break;
	case 1:
		plan.drop_ppm = 300;
		break;
	case 2:
		plan.hang_ppm = 100;
		break;
	case 3:
		plan.disconnect_ppm = 1000;
		plan.connect_fail_ppm = 300000;
		break;
	case 4:
		if (corrupt)
			plan.corrupt_ppm = 5000;
		break;
	default:
		break;
	}
	return plan;
}

static void control(struct world *w)
{
	struct server *server = &w->server[rand_below(&w->rand, NR_SERVERS)];
	struct fault_plan plan;

	switch (rand_below(&w->rand, 8)) {
	case 0:
	case 1:
	case 2:
		slab_fetch(w, server);
		break;
	case 3:
		if (server->in_session)
			slabs_return(w, server, 1);
		break;
	case 4:
		toggle_drain(w, server);
		break;
	case 5:
		plan = plan_random(w, w->may_lose);
		/* A write that is answered with an error, or a read that is, may be the end of a page's only copy. */
		if (plan.fail_ppm || plan.corrupt_ppm || plan.drop_ppm || plan.hang_ppm || plan.disconnect_ppm)
			model_set_lossy(&w->model);
		fault_driver_set_plan(server->fault, &plan);
		break;
	case 6:
		if (rand_below(&w->rand, 8) == 0) {
			model_set_lossy(&w->model);
			assert_int_equal(fault_driver_disconnect_all(server->fault, -ECONNRESET), 0);
		} else if (w->may_lose && server->in_session && rand_below(&w->rand, 40) == 0) {
			session_end(w, server);
		}
		break;
	default:
		assert_int_equal(vswap_refill(w->vswap), 0);
	}
}

/* ---- the world ---- */

static void server_create(struct world *w, struct server *server, unsigned number, uint64_t seed)
{
	struct lender_options options = { .clock = &w->clock.clock, .max_leases = 8, .max_lease_slabs = SERVER_SLABS,
					  .term_ms = TERM_MS };
	struct remote_options remote = { .reactors = w->reactor, .nr_queues = NR_QUEUES + 1, .queue_depth = 32,
					 .dead_ms = 500, .patience_ms = 5000 };
	char name[16];
	struct expose_options expose = { .max_sessions = 64, .max_leases = 8 };

	assert_int_equal(arena_open(SERVER_SLABS * SLAB_BYTES, SLAB_BYTES, &server->arena), 0);
	expose.arena = server->arena;
	assert_int_equal(expose_create(&expose, &server->expose), 0);
	options.arena = server->arena;
	options.expose = server->expose;
	assert_int_equal(lender_create(&options, &server->lender), 0);
	server->loop = loop_driver_create(expose_target(server->expose));
	assert_non_null(server->loop);
	server->fault = fault_driver_create(server->loop, seed);
	assert_non_null(server->fault);
	snprintf(name, sizeof(name), "server%u", number);
	remote.name = name;
	remote.driver = server->fault;
	assert_int_equal(remote_create(&remote, &server->backend), 0);
	assert_int_equal(vswap_backend_add(w->vswap, server->backend), 0);
	session_begin(w, server);
	assert_true(server->in_session);
	slab_fetch(w, server);
	slab_fetch(w, server);
}

static struct world *world_create(uint64_t seed)
{
	struct vswap_options options = { .nr_pages = NR_PAGES, .nr_queues = NR_QUEUES, .max_slabs = 64,
					 .reserve_tables = 256, .seed = seed | 1 };
	struct world *w = calloc(1, sizeof(*w));
	unsigned i;

	assert_non_null(w);
	w->rand.s = seed;
	w->clock.clock.now_ns = sim_now;
	w->clock.now_ns = SYS_NS_PER_S;
	assert_int_equal(vswap_create(&options, &w->vswap), 0);
	for (i = 0; i <= NR_QUEUES; i++) {
		struct sys_reactor_options reactor = { .name = "sim", .clock = &w->clock.clock, .manual = true, .cpu = -1 };

		assert_int_equal(sys_reactor_create(&reactor, &w->reactor[i]), 0);
		vswap_queue_bind(w->vswap, i, w->reactor[i]);
	}
	for (i = 0; i < NR_SERVERS; i++)
		server_create(w, &w->server[i], i, seed + i);
	model_init(&w->model, &w->rand, w->vswap, NR_PAGES, NR_QUEUES);
	return w;
}

static void world_free(struct world *w)
{
	struct backend_slab *slabs[SERVER_SLABS];
	unsigned i, j, nr;

	for (i = 0; i < NR_SERVERS; i++)
		if (w->server[i].in_session)
			session_end(w, &w->server[i]);
	for (i = 0; i < NR_SERVERS; i++) {
		nr = vswap_slab_reclaim(w->vswap, w->server[i].backend, 0, SERVER_SLABS, slabs);
		for (j = 0; j < nr; j++)
			free(slabs[j]);
	}
	vswap_free(w->vswap);
	for (i = 0; i < NR_SERVERS; i++) {
		struct server *server = &w->server[i];

		remote_free(server->backend);
		fault_driver_free(server->fault);
		loop_driver_free(server->loop);
		lender_free(server->lender);
		expose_free(server->expose);
		arena_close(server->arena);
	}
	for (i = 0; i <= NR_QUEUES; i++)
		sys_reactor_free(w->reactor[i]);
	model_done(&w->model);
	free(w);
}

/* No more faults; everything that is under way comes to its end. */
static void settle(struct world *w)
{
	struct vswap_drain_progress progress;
	unsigned i, n;

	for (i = 0; i < NR_SERVERS; i++)
		fault_driver_set_plan(w->server[i].fault, NULL);
	for (n = 0; n < 2000000; n++) {
		bool busy = model_is_busy(&w->model);

		for (i = 0; i < NR_SERVERS; i++) {
			keep(w, &w->server[i]);
			vswap_drain_progress(w->vswap, w->server[i].backend, &progress);
			if (progress.state == VSWAP_DRAIN_RUNNING) {
				(void)!vswap_drain_cancel(w->vswap, w->server[i].backend);
				busy = true;
			}
			busy |= w->server[i].in_session && backend_state(w->server[i].backend) != BACKEND_UP;
		}
		turn_all(w);
		if (!busy && n > 1000)
			return;
	}
	fail_msg("the run does not come to rest");
}

static void verify_turn(void *arg, unsigned queue)
{
	turn(arg, queue);
}

static void run(bool may_lose, uint64_t nr_ops)
{
	uint64_t seed = model_environment("FARSWAP_SEED", (uint64_t)time(NULL) * 2 + may_lose);
	struct vswap_stats stats;
	struct world *w;
	unsigned i;

	nr_ops = model_environment("FARSWAP_OPS", nr_ops);
	print_message("seed %" PRIu64 "\n", seed);
	w = world_create(seed);
	w->may_lose = may_lose;
	while (w->model.nr_done < nr_ops) {
		w->model.step++;
		if (rand_below(&w->rand, 2))
			model_submit(&w->model);
		else
			turn(w, (unsigned)rand_below(&w->rand, NR_QUEUES + 1));
		if (w->model.step % 256 == 0)
			control(w);
		/* However the dice fall, once. */
		if (may_lose && w->nr_lost_sessions == 0 && w->model.nr_done > nr_ops / 2 && w->server[0].in_session)
			session_end(w, &w->server[0]);
		if (w->model.step % 64 == 0)
			for (i = 0; i < NR_SERVERS; i++)
				keep(w, &w->server[i]);
	}
	settle(w);
	model_verify(&w->model, verify_turn, w);
	assert_int_equal(vswap_check(w->vswap), 0);
	vswap_stats(w->vswap, &stats);
	print_message("%" PRIu64 " operations, %" PRIu64 " pages checked, %" PRIu64 " read errors, %" PRIu64
		      " write errors, %" PRIu64 " drained, %" PRIu64 " reconnections, %" PRIu64 " sessions, %" PRIu64
		      " lost, %" PRIu64 " checksum errors\n",
		      w->model.nr_done, w->model.nr_pages_checked, w->model.nr_read_errors, w->model.nr_write_errors,
		      w->nr_drained, w->nr_reconnects, w->nr_sessions, w->nr_lost_sessions, stats.nr_checksum_errors);
	assert_true(w->nr_drained > 0 && w->nr_reconnects > 0);
	assert_true(may_lose ? w->nr_lost_sessions > 0 : stats.nr_checksum_errors == 0);
	world_free(w);
}

static void test_connections_fail(void **state)
{
	(void)state;
	run(false, 600000);
}

static void test_servers_are_lost(void **state)
{
	(void)state;
	run(true, 600000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connections_fail),
		cmocka_unit_test(test_servers_are_lost),
	};

	log_init("test_cluster", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

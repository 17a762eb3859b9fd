#include "tests/bench/lender.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/backend/remote/remote.h"
#include "client/ctl/memserver.h"
#include "common/transport/tcp/tcp.h"

#define LENDER_MAX 8u

extern char **environ;

struct lender {
	pid_t pid;
	char ready_file[64];
	char control[SYS_ADDRESS_MAX];
	struct rpc_client *client;
	struct memserver_lease lease;
	struct backend *backend;
	struct backend_slab *slabs;
	unsigned nr_slabs;
};

static struct lender *lenders[LENDER_MAX];
static unsigned nr_lenders;

/* A server never outlives the benchmark. */
static void lenders_kill(void)
{
	unsigned i;

	for (i = 0; i < nr_lenders; i++)
		if (lenders[i])
			kill(lenders[i]->pid, SIGKILL);
}

static void lender_read_ready_file(struct lender *lender)
{
	char line[256];
	unsigned tries;

	for (tries = 0; tries < 6000; tries++) {
		FILE *file = fopen(lender->ready_file, "r");

		while (file && fgets(line, sizeof(line), file))
			if (sscanf(line, "control=%127s", lender->control) == 1) {
				fclose(file);
				return;
			}
		if (file)
			fclose(file);
		if (waitpid(lender->pid, NULL, WNOHANG) == lender->pid)
			bench_die("farmemd ended", 0);
		usleep(10000);
	}
	bench_die("farmemd does not get ready", 0);
}

struct lender *lender_start(const struct bench_options *options, uint64_t memory_bytes, unsigned spin_us)
{
	struct lender *lender = calloc(1, sizeof(*lender));
	char memory[32], spin[32], cpus[32];
	const char *argv[24];
	int n = 0, err;

	snprintf(lender->ready_file, sizeof(lender->ready_file), "/tmp/farswap-bench.%d.%u", getpid(), nr_lenders);
	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)memory_bytes);
	snprintf(spin, sizeof(spin), "%u", spin_us);
	snprintf(cpus, sizeof(cpus), "%d", BENCH_CPU_SERVER);
	argv[n++] = options->farmemd;
	argv[n++] = "--memory";
	argv[n++] = memory;
	argv[n++] = "--spin_us";
	argv[n++] = spin;
	argv[n++] = "--listen";
	argv[n++] = "127.0.0.1:0";
	argv[n++] = "--data_listen";
	argv[n++] = "127.0.0.1:0";
	argv[n++] = "--ready_file";
	argv[n++] = lender->ready_file;
	argv[n++] = "--log_level";
	argv[n++] = "error";
	argv[n++] = "--stop_grace";
	argv[n++] = "0s";
	if (options->pin) {
		argv[n++] = "--cpus";
		argv[n++] = cpus;
	}
	argv[n] = NULL;
	err = posix_spawn(&lender->pid, options->farmemd, NULL, NULL, (char *const *)(uintptr_t)argv, environ);
	if (err)
		bench_die(options->farmemd, err);
	if (nr_lenders == 0)
		atexit(lenders_kill);
	lenders[nr_lenders++] = lender;
	lender_read_ready_file(lender);
	return lender;
}

static void lender_check(const char *what, enum rpc_code code, const struct rpc_status *status)
{
	if (code == RPC_OK)
		return;
	fprintf(stderr, "farswap-bench: %s: %s\n", what, status->message);
	exit(1);
}

struct backend *lender_connect(struct lender *lender, struct sys_reactor *const *reactors, unsigned nr_queues)
{
	struct remote_options options = {
		.name = lender->control,
		.driver = tcp_driver(),
		.reactors = reactors,
		.nr_queues = nr_queues,
		.queue_depth = 128,
		.dead_ms = 5000,
		.patience_ms = 5000,
	};
	struct remote_session session = { 0 };
	struct rpc_status status;

	bench_check("rpc", rpc_client_create(lender->control, NULL, &lender->client, &status));
	lender_check("lease", memserver_open_lease(lender->client, lender->control, "farswap-bench", 1, &lender->lease,
						   &status), &status);
	bench_check("remote", remote_create(&options, &lender->backend));
	snprintf(session.data_address, sizeof(session.data_address), "%s", lender->lease.data_address[0]);
	session.lease_id = lender->lease.lease_id;
	session.instance_id = lender->lease.instance_id;
	memcpy(session.token, lender->lease.token, sizeof(session.token));
	session.heartbeat_ms = lender->lease.heartbeat_ms;
	bench_check("session", remote_session_begin(lender->backend, &session, 5000));
	return lender->backend;
}

void lender_add_slabs(struct lender *lender, struct vswap *vswap, unsigned nr)
{
	lender->slabs = calloc(nr, sizeof(*lender->slabs));
	while (lender->nr_slabs < nr) {
		struct memserver_grant grant[MEMSERVER_MAX_GRANTS];
		unsigned want = (unsigned)base_min_u64(nr - lender->nr_slabs, MEMSERVER_MAX_GRANTS), got, i;
		struct rpc_status status;
		uint64_t request_number = lender->nr_slabs + 1ull; /* each call has brought some */

		lender_check("slabs",
			     memserver_lease_slabs(lender->client, &lender->lease, request_number, want, grant, &got,
						   &status),
			     &status);
		for (i = 0; i < got; i++) {
			struct backend_slab *slab = &lender->slabs[lender->nr_slabs++];

			slab->backend = lender->backend;
			slab->index = grant[i].index;
			slab->key = grant[i].key;
			slab->nr_slots = (uint32_t)(lender->lease.slab_bytes >> FSW_PAGE_SHIFT);
			slab->session = remote_session_number(lender->backend);
			bench_check("slab", vswap_slab_add(vswap, slab));
		}
	}
}

void lender_disconnect(struct lender *lender)
{
	remote_session_end(lender->backend);
}

void lender_stop(struct lender *lender)
{
	unsigned i;

	remote_free(lender->backend);
	rpc_client_free(lender->client);
	kill(lender->pid, SIGKILL);
	waitpid(lender->pid, NULL, 0);
	unlink(lender->ready_file);
	for (i = 0; i < nr_lenders; i++)
		if (lenders[i] == lender)
			lenders[i] = NULL;
	free(lender->slabs);
	free(lender);
}

/* ---- the device ---- */

void world_create(struct world *world, const struct bench_options *options, uint64_t nr_pages, unsigned spin_us)
{
	static const char *const name[2] = { "bench-io", "bench-mover" };
	struct vswap_options vswap = { .nr_pages = nr_pages, .nr_queues = 1, .max_slabs = 256 };
	unsigned i;

	vswap.reserve_tables = (uint32_t)(nr_pages / 512 + 64);
	bench_check("vswap", vswap_create(&vswap, &world->vswap));
	for (i = 0; i < 2; i++) {
		struct sys_reactor_options reactor = {
			.name = name[i], .cpu = bench_cpu(options, BENCH_CPU_CLIENT), .spin_us = i == 0 ? spin_us : 0
		};

		bench_check("reactor", sys_reactor_create(&reactor, &world->reactor[i]));
		vswap_queue_bind(world->vswap, i, world->reactor[i]);
	}
}

void world_start(struct world *world)
{
	bench_check("reactor", sys_reactor_start(world->reactor[0]));
	bench_check("reactor", sys_reactor_start(world->reactor[1]));
}

void world_stop(struct world *world)
{
	sys_reactor_stop(world->reactor[0]);
	sys_reactor_stop(world->reactor[1]);
}

void world_free(struct world *world)
{
	vswap_free(world->vswap);
	sys_reactor_free(world->reactor[0]);
	sys_reactor_free(world->reactor[1]);
}

/*
 * The NBD front end over memory of its own process, beside nbdkit's memory plugin: the same fio job on each in turn.
 */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/backend/remote/remote.h"
#include "client/frontend/nbd/nbd.h"
#include "client/vswap/admin.h"
#include "common/transport/loop/loop.h"
#include "tests/bench/bench.h"
#include "tests/conform/target.h"

#define NBD_BYTES (512ull << 20)
#define NBD_LEASE 1u
#define NBD_SPIN_US 50u

extern char **environ;

/* ---- our server, in a process of its own ---- */

static struct backend *nbd_memory(struct transport_driver *driver, struct sys_reactor *const *reactors)
{
	struct remote_options options = { .name = "memory", .driver = driver, .reactors = reactors, .nr_queues = 2,
					  .queue_depth = 512, .dead_ms = 60000, .patience_ms = 1000 };
	struct remote_session session = { .data_address = "loop", .lease_id = NBD_LEASE, .instance_id = 1,
					  .heartbeat_ms = 1000 };
	struct backend *backend;

	target_token(NBD_LEASE, session.token);
	bench_check("remote", remote_create(&options, &backend));
	bench_check("session", remote_session_begin(backend, &session, 1000));
	return backend;
}

int bench_nbd_serve(const char *socket_path, uint64_t size_bytes, int cpu)
{
	struct vswap_options options = { .nr_pages = size_bytes >> FSW_PAGE_SHIFT, .nr_queues = 1, .max_slabs = 16 };
	static struct target target;
	static struct backend_slab slab;
	struct nbd_server_options server_options = { .nr_queues = 1, .spin_us = NBD_SPIN_US };
	struct sys_reactor *reactors[2];
	struct nbd_server *server;
	struct vswap *vswap;
	char address[200];
	unsigned i;
	char end;

	options.reserve_tables = (uint32_t)(options.nr_pages / 512 + 16);
	bench_check("vswap", vswap_create(&options, &vswap));
	for (i = 0; i < 2; i++) {
		struct sys_reactor_options reactor = { .name = "nbd", .cpu = cpu, .spin_us = i == 0 ? NBD_SPIN_US : 0 };

		bench_check("reactor", sys_reactor_create(&reactor, &reactors[i]));
		vswap_queue_bind(vswap, i, reactors[i]);
		bench_check("reactor", sys_reactor_start(reactors[i]));
	}
	target_init(&target, 1);
	target_lease_add(&target, NBD_LEASE);
	slab.index = target_slab_add(&target, NBD_LEASE, 7, 1u << 30);
	slab.key = 7;
	slab.nr_slots = (1u << 30) >> FSW_PAGE_SHIFT;
	slab.backend = nbd_memory(loop_driver_create(&target.head), reactors);
	slab.session = remote_session_number(slab.backend);
	bench_check("backend", vswap_backend_add(vswap, slab.backend));
	bench_check("slab", vswap_slab_add(vswap, &slab));
	snprintf(address, sizeof(address), "unix:%s", socket_path);
	server_options.address = address;
	server_options.vswap = vswap;
	bench_check(address, nbd_server_open(&server_options, &server));
	while (read(STDIN_FILENO, &end, 1) > 0)
		;
	_exit(0); /* memory of a benchmark needs no tidying */
}

/* ---- the comparison ---- */

static pid_t nbd_spawn(const char *const argv[], int *ret_stdin)
{
	posix_spawn_file_actions_t actions;
	int ends[2], err;
	pid_t pid;

	if (pipe(ends) < 0)
		bench_die("pipe", errno);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	posix_spawn_file_actions_addclose(&actions, ends[1]);
	err = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[0]);
	if (err)
		bench_die(argv[0], err);
	*ret_stdin = ends[1];
	return pid;
}

static void nbd_await_socket(const char *path, pid_t pid)
{
	struct stat st;
	unsigned tries;

	for (tries = 0; tries < 1000; tries++) {
		if (stat(path, &st) == 0)
			return;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			bench_die("an NBD server ended", 0);
		usleep(10000);
	}
	bench_die("an NBD server does not get ready", 0);
}

struct nbd_job {
	const char *name;
	const char *rw;
	const char *bs;
	const char *depth;
	struct bench_pair iops;
};

/* Requests per second of one fio run; without `seconds`, of one pass over the whole device. */
static double nbd_fio(const struct nbd_job *job, const char *socket_path, double seconds)
{
	char command[1024], timed[64] = "", *text = NULL;
	size_t len = 0;
	json_error_t error;
	json_t *report, *first;
	double iops;
	FILE *pipe;

	if (seconds > 0)
		snprintf(timed, sizeof(timed), "--time_based --runtime=%.0fms --ramp_time=200ms", seconds * 1000);
	snprintf(command, sizeof(command),
		 "fio --name=bench --ioengine=nbd '--uri=nbd+unix:///?socket=%s' --rw=%s --bs=%s --iodepth=%s --size=%llu %s "
		 "--randseed=7 --thread --output-format=json",
		 socket_path, job->rw, job->bs, job->depth, NBD_BYTES, timed);
	pipe = popen(command, "r");
	if (!pipe || getdelim(&text, &len, '\0', pipe) < 0 || pclose(pipe) != 0)
		bench_die("fio failed", 0);
	report = json_loads(strchr(text, '{') ? strchr(text, '{') : "", 0, &error);
	first = json_array_get(json_object_get(report, "jobs"), 0);
	if (!first || json_integer_value(json_object_get(first, "error")) != 0)
		bench_die("fio: no result", 0);
	iops = json_number_value(json_object_get(json_object_get(first, "read"), "iops")) +
	       json_number_value(json_object_get(json_object_get(first, "write"), "iops"));
	json_decref(report);
	free(text);
	return iops;
}

json_t *bench_nbd(const struct bench_options *options, const char *self)
{
	static struct nbd_job jobs[] = {
		{ .name = "randread_4k_depth_1", .rw = "randread", .bs = "4k", .depth = "1" },
		{ .name = "randwrite_4k_depth_1", .rw = "randwrite", .bs = "4k", .depth = "1" },
		{ .name = "randread_4k_depth_32", .rw = "randread", .bs = "4k", .depth = "32" },
		{ .name = "randwrite_4k_depth_32", .rw = "randwrite", .bs = "4k", .depth = "32" },
		{ .name = "read_128k_depth_8", .rw = "read", .bs = "128k", .depth = "8" },
		{ .name = "write_128k_depth_8", .rw = "write", .bs = "128k", .depth = "8" },
	};
	static const struct nbd_job fill = { .rw = "write", .bs = "1m", .depth = "4" };
	char ours[64], theirs[64], size[32], cpu[16];
	const char *our_argv[] = { self, "nbd-serve", ours, size, cpu, NULL };
	const char *their_argv[] = { "taskset", "-c",	 cpu,	   "nbdkit", "-f", "--exit-with-parent",
				     "-U",	theirs, "memory", size,	    NULL };
	double seconds = (double)options->for_ns / 1e9;
	int our_stdin, their_stdin;
	pid_t our_pid, their_pid;
	json_t *object = json_object();
	unsigned run, i;

	snprintf(ours, sizeof(ours), "/tmp/farswap-bench.%d.ours", getpid());
	snprintf(theirs, sizeof(theirs), "/tmp/farswap-bench.%d.nbdkit", getpid());
	snprintf(size, sizeof(size), "%llu", NBD_BYTES);
	snprintf(cpu, sizeof(cpu), "%d", BENCH_CPU_SERVER);
	our_pid = nbd_spawn(our_argv, &our_stdin);
	their_pid = nbd_spawn(options->pin ? their_argv : their_argv + 3, &their_stdin);
	nbd_await_socket(ours, our_pid);
	nbd_await_socket(theirs, their_pid);
	/* All of it, or what is measured is a machine that finds memory for the first touch. */
	nbd_fio(&fill, ours, 0);
	nbd_fio(&fill, theirs, 0);
	for (run = 0; run < options->nr_runs; run++)
		for (i = 0; i < BASE_ARRAY_SIZE(jobs); i++) {
			double theirs_iops = nbd_fio(&jobs[i], theirs, seconds);

			bench_pair_add(&jobs[i].iops, nbd_fio(&jobs[i], ours, seconds), theirs_iops);
		}
	for (i = 0; i < BASE_ARRAY_SIZE(jobs); i++)
		json_object_set_new(object, jobs[i].name, bench_pair_json(&jobs[i].iops, "nbdkit"));
	close(our_stdin);
	close(their_stdin);
	kill(their_pid, SIGTERM);
	waitpid(our_pid, NULL, 0);
	waitpid(their_pid, NULL, 0);
	unlink(ours);
	unlink(theirs);
	return object;
}

/*
 * verbs_meter OPTIONS: READs or WRITEs of one size through the verbs transport, to the memory of a real farmemd.
 *
 *     verbs_meter --server ADDRESS:PORT --device NAME --read|--write --bytes N --depth N --nr N [--events]
 *
 * So many are on their way at a time, and `nr` in all; after an eighth as many that are not measured. The reactor polls until
 * all are done; with --events it sleeps whenever it has nothing to do. Prints one line of JSON: the median and the mean of the
 * time from submit to done, and the rate. What was read, and what has been written, is compared with what it must be. Exits
 * with 1 when a byte is wrong.
 */
#include <getopt.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl/memserver.h"
#include "common/log/log.h"
#include "common/mem/region.h"
#include "common/rpc/rpc.h"
#include "common/transport/verbs/verbs.h"

#define AREA_BYTES (8u << 20) /* of the slab, which the operations go through in order, again and again */
#define MAX_DEPTH 256u
#define POLL_US 10000000u
#define PATIENCE_MS 30000u

struct meter {
	struct transport_conn *conn;
	struct sys_reactor *reactor;
	uint32_t slab, key;
	char *ours;   /* AREA_BYTES that are written, */
	char *theirs; /* and as many that are read */
	struct mem_region memory;
};

struct run;

struct operation {
	struct transport_op op;
	struct iovec iov;
	struct run *run;
	uint64_t began_ns;
};

/* A number of operations. */
struct run {
	struct meter *meter;
	uint8_t opcode;
	uint32_t len_bytes;
	unsigned depth;
	uint64_t nr, nr_started, nr_done;
	uint64_t *ns; /* of each; NULL: not wanted */
	uint64_t began_ns, ended_ns;
	sem_t over;
	struct operation operations[MAX_DEPTH];
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "verbs_meter: %s: %s\n", what, why);
	exit(2);
}

static void check(const char *what, int ret)
{
	if (ret < 0)
		die(what, strerror(-ret));
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- operations, on the reactor ---- */

static void operation_start(struct operation *operation)
{
	struct run *run = operation->run;
	uint64_t at = run->nr_started++ * run->len_bytes % AREA_BYTES;
	char *local = (run->opcode == TRANSPORT_READ ? run->meter->theirs : run->meter->ours) + at;

	operation->iov = (struct iovec){ .iov_base = local, .iov_len = run->len_bytes };
	operation->op.offset_bytes = at;
	operation->began_ns = now_ns();
	check("submit", transport_submit(run->meter->conn, &operation->op));
}

static void operation_done(struct transport_op *op, int status)
{
	struct operation *operation = BASE_CONTAINER_OF(op, struct operation, op);
	struct run *run = operation->run;
	uint64_t now = now_ns();

	check("operation", status);
	if (run->ns)
		run->ns[run->nr_done] = now - operation->began_ns;
	run->nr_done++;
	if (run->nr_started < run->nr) {
		operation_start(operation);
	} else if (run->nr_done == run->nr) {
		run->ended_ns = now;
		sem_post(&run->over);
	}
}

static void run_on_reactor(void *arg)
{
	struct run *run = arg;

	run->began_ns = now_ns();
	for (unsigned i = 0; i < run->depth && i < run->nr; i++) {
		run->operations[i] = (struct operation){
			.run = run,
			.op = { .opcode = run->opcode, .slab = run->meter->slab, .key = run->meter->key,
				.len_bytes = run->len_bytes, .iov = &run->operations[i].iov, .nr_iov = 1,
				.done = operation_done },
		};
		operation_start(&run->operations[i]);
	}
}

static void run_all(struct meter *meter, struct run *run)
{
	run->meter = meter;
	sem_init(&run->over, 0, 0);
	sys_reactor_call(meter->reactor, run_on_reactor, run);
	while (sem_wait(&run->over) != 0)
		;
	sem_destroy(&run->over);
}

/* All of the area, as fast as may be. */
static void move_area(struct meter *meter, uint8_t opcode)
{
	static struct run run;

	run = (struct run){ .opcode = opcode, .len_bytes = 1u << 20, .depth = 4, .nr = AREA_BYTES >> 20 };
	run_all(meter, &run);
}

/* ---- the connection ---- */

static void on_down(struct transport_conn *conn, int err)
{
	(void)conn;
	check("connection", err);
}

static void on_writable(struct transport_conn *conn)
{
	(void)conn;
}

static void attach_on_reactor(void *arg)
{
	struct meter *meter = arg;

	check("attach", transport_attach(meter->conn, meter->reactor));
}

static void close_on_reactor(void *arg)
{
	transport_close(arg);
}

static void check_call(const char *what, enum rpc_code code, const struct rpc_status *status)
{
	if (code != RPC_OK)
		die(what, status->message);
}

/* Each word says where it is, so that no other place's bytes could be taken for right. */
static void fill(char *bytes)
{
	for (uint64_t at = 0; at < AREA_BYTES; at += 8) {
		uint64_t word = at * 0x9e3779b97f4a7c15u + 1;

		memcpy(bytes + at, &word, 8);
	}
}

static void memory_open(struct meter *meter)
{
	check("memory", mem_region_open(&meter->memory, 2 * AREA_BYTES, MEM_REGION_IO | MEM_REGION_TOUCH));
	meter->ours = meter->memory.base;
	meter->theirs = meter->ours + AREA_BYTES;
	fill(meter->ours);
	memset(meter->theirs, 0xee, AREA_BYTES);
}

static void connect_to(struct meter *meter, const char *server, struct rpc_client **ret_client, struct memserver_lease *lease,
		       struct transport_driver *driver)
{
	struct transport_connect_options options = {
		.queue_depth = MAX_DEPTH, .dead_ms = PATIENCE_MS, .timeout_ms = PATIENCE_MS
	};
	struct memserver_grant grants[MEMSERVER_MAX_GRANTS];
	struct rpc_status status;
	unsigned nr;

	check("rpc", rpc_client_create(server, NULL, ret_client, &status));
	check_call("lease", memserver_open_lease(*ret_client, server, "verbs_meter", 1, lease, &status), &status);
	check_call("slab", memserver_lease_slabs(*ret_client, lease, 1, 1, grants, &nr, &status), &status);
	if (nr != 1 || lease->slab_bytes < AREA_BYTES || lease->nr_rdma_addresses == 0)
		die(server, "lends no slab of 8 MiB over RDMA");
	meter->slab = grants[0].index;
	meter->key = grants[0].key;
	options.address = lease->rdma_address[0];
	options.lease_id = lease->lease_id;
	options.instance_id = lease->instance_id;
	memcpy(options.token, lease->token, sizeof(options.token));
	options.heartbeat_ms = lease->heartbeat_ms;
	check(options.address, transport_connect(driver, &options, &meter->conn));
	meter->conn->down = on_down;
	meter->conn->writable = on_writable;
	sys_reactor_call(meter->reactor, attach_on_reactor, meter);
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print(const struct run *run, uint64_t nr_wrong)
{
	double elapsed_ns = (double)(run->ended_ns - run->began_ns), sum_ns = 0;

	for (uint64_t i = 0; i < run->nr; i++)
		sum_ns += (double)run->ns[i];
	qsort(run->ns, run->nr, sizeof(*run->ns), compare);
	printf("{\"median_us\": %.3f, \"mean_us\": %.3f, \"min_us\": %.3f, \"max_us\": %.3f, \"mib_per_s\": %.3f, "
	       "\"wrong_bytes\": %llu}\n",
	       (double)run->ns[run->nr / 2] / 1e3, sum_ns / (double)run->nr / 1e3, (double)run->ns[0] / 1e3,
	       (double)run->ns[run->nr - 1] / 1e3, (double)run->nr * run->len_bytes / (1u << 20) / elapsed_ns * 1e9,
	       (unsigned long long)nr_wrong);
}

/* Of the area that was read. What has not been read yet is 0xee all over. */
static uint64_t count_wrong(const struct meter *meter, uint64_t len_bytes)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < len_bytes; i++)
		nr += meter->ours[i] != meter->theirs[i];
	return nr;
}

static uint64_t measure(struct meter *meter, struct run *run)
{
	uint64_t nr = run->nr, touched_bytes = nr * run->len_bytes;

	if (run->opcode == TRANSPORT_READ)
		move_area(meter, TRANSPORT_WRITE);
	run->nr = nr / 8 + run->depth;
	run_all(meter, run);
	if (run->opcode == TRANSPORT_READ)
		memset(meter->theirs, 0xee, AREA_BYTES);
	run->nr = nr;
	run->nr_started = run->nr_done = 0;
	run->ns = calloc(nr, sizeof(*run->ns));
	if (!run->ns)
		die("memory", "none");
	run_all(meter, run);
	if (run->opcode == TRANSPORT_WRITE)
		move_area(meter, TRANSPORT_READ);
	return count_wrong(meter, touched_bytes < AREA_BYTES ? touched_bytes : AREA_BYTES);
}

static const char *server_address;
static struct verbs_driver_options driver_options = { .gid_index = -1, .service_level = -1 };
static struct sys_reactor_options reactor_options = { .name = "meter", .cpu = -1, .spin_us = POLL_US };

static void parse(int argc, char **argv, struct run *run)
{
	static const struct option options[] = {
		{ "server", required_argument, NULL, 's' }, { "device", required_argument, NULL, 'd' },
		{ "read", no_argument, NULL, 'r' },	    { "write", no_argument, NULL, 'w' },
		{ "bytes", required_argument, NULL, 'b' },  { "depth", required_argument, NULL, 'q' },
		{ "nr", required_argument, NULL, 'n' },	    { "events", no_argument, NULL, 'e' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': server_address = optarg; break;
		case 'd': driver_options.device = optarg; break;
		case 'r': run->opcode = TRANSPORT_READ; break;
		case 'w': run->opcode = TRANSPORT_WRITE; break;
		case 'b': run->len_bytes = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'q': run->depth = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'n': run->nr = strtoull(optarg, NULL, 10); break;
		case 'e': reactor_options.spin_us = 0; break;
		default: die("usage", "see the head of tests/vm/verbs_meter.c");
		}
	}
	if (optind < argc || !server_address || !run->opcode || run->len_bytes == 0 || AREA_BYTES % run->len_bytes != 0 ||
	    run->nr == 0 || run->depth == 0 || run->depth > MAX_DEPTH)
		die("usage", "see the head of tests/vm/verbs_meter.c");
}

int main(int argc, char **argv)
{
	static struct run run = { .depth = 1 };
	static struct meter meter;
	struct verbs_driver_counters counters;
	struct transport_driver *driver;
	struct memserver_lease lease;
	struct rpc_client *client;
	struct rpc_status status;
	uint64_t nr_wrong;

	parse(argc, argv, &run);
	log_init("verbs_meter", LOG_LEVEL_WARNING);
	rpc_init();
	check("reactor", sys_reactor_create(&reactor_options, &meter.reactor));
	check("reactor", sys_reactor_start(meter.reactor));
	check("driver", verbs_driver_create(&driver_options, &driver));
	memory_open(&meter);
	connect_to(&meter, server_address, &client, &lease, driver);
	nr_wrong = measure(&meter, &run);
	verbs_driver_counters(driver, &counters);
	if (counters.nr_bounced > 0)
		die("operations", "they were copied, and so are not what was to be measured");
	print(&run, nr_wrong);
	sys_reactor_call(meter.reactor, close_on_reactor, meter.conn);
	check_call("lease", memserver_close_lease(client, &lease, &status), &status);
	rpc_client_free(client);
	sys_reactor_stop(meter.reactor);
	sys_reactor_free(meter.reactor);
	verbs_driver_free(driver);
	mem_region_close(&meter.memory);
	return nr_wrong > 0;
}

/*
 * farswap-bench: speed as ratios, each figure taken beside its reference in the same run. Prints one JSON document.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "common/log/log.h"
#include "common/rpc/rpc.h"
#include "common/sys/rcu.h"
#include "tests/bench/bench.h"

static const char usage[] =
	"usage: farswap-bench [--quick] [--runs N] [--seconds S] [--farmemd FILE] [--no-pin] [--only CASE]\n"
	"                     [--window PAGES] [vswap] [pages] [drain] [nbd]\n"
	"Measures farswap beside the bare socket and nbdkit on this machine, and prints JSON.\n"
	"  --runs N        pairs of measurements, of which the medians are taken (5)\n"
	"  --seconds S     length of one measurement (1)\n"
	"  --quick         one run of 0.2 s each: does it work at all?\n"
	"  --farmemd FILE  the memory server (beside this program)\n"
	"  --no-pin        let the scheduler choose processors\n"
	"  --window PAGES  that a drain has on their way at a time (its default)\n"
	"  --only CASE     of the pages, only the cases whose names contain this\n";

void bench_die(const char *what, int err)
{
	fprintf(stderr, "farswap-bench: %s%s%s\n", what, err ? ": " : "", err ? strerror(err) : "");
	exit(1);
}

void bench_check(const char *what, int ret)
{
	if (ret < 0)
		bench_die(what, -ret);
}

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int bench_cpu(const struct bench_options *options, int cpu)
{
	return options->pin ? cpu : -1;
}

void bench_pair_add(struct bench_pair *pair, double ours, double floor)
{
	if (pair->nr == BENCH_MAX_RUNS)
		return;
	pair->ours[pair->nr] = ours;
	pair->floor[pair->nr++] = floor;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(const double *values, unsigned nr)
{
	double sorted[BENCH_MAX_RUNS];

	if (nr == 0)
		return 0;
	memcpy(sorted, values, nr * sizeof(*values));
	qsort(sorted, nr, sizeof(*sorted), compare);
	return nr % 2 ? sorted[nr / 2] : (sorted[nr / 2 - 1] + sorted[nr / 2]) / 2;
}

json_t *bench_pair_json(const struct bench_pair *pair, const char *reference)
{
	json_t *object = json_object(), *list = json_array();
	double ratio[BENCH_MAX_RUNS];
	unsigned i;

	for (i = 0; i < pair->nr; i++) {
		ratio[i] = pair->floor[i] > 0 ? pair->ours[i] / pair->floor[i] : 0;
		json_array_append_new(list, json_real(ratio[i]));
	}
	json_object_set_new(object, "ratio", json_real(bench_median(ratio, pair->nr)));
	json_object_set_new(object, "ours", json_real(bench_median(pair->ours, pair->nr)));
	json_object_set_new(object, reference, json_real(bench_median(pair->floor, pair->nr)));
	json_object_set_new(object, "ratios", list);
	return object;
}

json_t *bench_latency_json(const struct stats_snapshot *latency)
{
	json_t *object = json_object();

	json_object_set_new(object, "p50_ns", json_integer((json_int_t)stats_snapshot_percentile(latency, 50)));
	json_object_set_new(object, "p99_ns", json_integer((json_int_t)stats_snapshot_percentile(latency, 99)));
	json_object_set_new(object, "p999_ns", json_integer((json_int_t)stats_snapshot_percentile(latency, 99.9)));
	json_object_set_new(object, "max_ns", json_integer((json_int_t)latency->max));
	return object;
}

static json_t *machine_json(const struct bench_options *options)
{
	json_t *object = json_object();
	struct utsname name;
	char model[128] = "", line[256];
	FILE *file = fopen("/proc/cpuinfo", "r");
	double load[3];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "model name : %127[^\n]", model) == 1)
			break;
	if (file)
		fclose(file);
	uname(&name);
	if (getloadavg(load, 3) < 1)
		load[0] = -1;
	json_object_set_new(object, "processor", json_string(model));
	json_object_set_new(object, "processors", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	json_object_set_new(object, "kernel", json_string(name.release));
	json_object_set_new(object, "load_1m", json_real(load[0]));
	json_object_set_new(object, "pinned", json_boolean(options->pin));
	return object;
}

static void parse(int argc, char **argv, struct bench_options *options)
{
	static const struct option longs[] = {
		{ "runs", required_argument, NULL, 'r' },
		{ "seconds", required_argument, NULL, 's' },
		{ "quick", no_argument, NULL, 'q' },
		{ "farmemd", required_argument, NULL, 'f' },
		{ "no-pin", no_argument, NULL, 'n' },
		{ "only", required_argument, NULL, 'o' },
		{ "window", required_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'r':
			options->nr_runs = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			options->for_ns = (uint64_t)(strtod(optarg, NULL) * 1e9);
			break;
		case 'o':
			options->only = optarg;
			break;
		case 'w':
			options->window_pages = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'q':
			options->nr_runs = 1;
			options->for_ns = 200000000;
			break;
		case 'f':
			options->farmemd = optarg;
			break;
		case 'n':
			options->pin = false;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (options->nr_runs == 0 || options->nr_runs > BENCH_MAX_RUNS || options->for_ns == 0) {
		fprintf(stderr, "farswap-bench: --runs is 1 to %u, --seconds more than 0\n", BENCH_MAX_RUNS);
		exit(2);
	}
}

static bool wanted(int argc, char **argv, const char *part)
{
	int i;

	for (i = optind; i < argc; i++)
		if (strcmp(argv[i], part) == 0)
			return true;
	return optind == argc;
}

int main(int argc, char **argv)
{
	struct bench_options options = { .nr_runs = 5, .for_ns = 1000000000, .pin = true };
	static char self[512], farmemd[600];
	json_t *report = json_object();
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	log_init("farswap-bench", LOG_LEVEL_WARNING);
	if (argc >= 4 && strcmp(argv[1], "nbd-serve") == 0)
		return bench_nbd_serve(argv[2], strtoull(argv[3], NULL, 10), argc > 4 ? atoi(argv[4]) : -1);
	if (len > 0 && strrchr(self, '/'))
		snprintf(farmemd, sizeof(farmemd), "%.*sfarmemd", (int)(strrchr(self, '/') - self + 1), self);
	options.farmemd = farmemd;
	parse(argc, argv, &options);
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		options.pin = false;
	if (options.pin) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(BENCH_CPU_CLIENT, &set);
		if (sched_setaffinity(0, sizeof(set), &set) < 0)
			bench_die("sched_setaffinity", errno);
	}
	json_object_set_new(report, "version", json_string(FARSWAP_VERSION));
	json_object_set_new(report, "commit", json_string(FARSWAP_COMMIT));
	json_object_set_new(report, "machine", machine_json(&options));
	json_object_set_new(report, "runs", json_integer(options.nr_runs));
	if (wanted(argc, argv, "vswap"))
		json_object_set_new(report, "vswap", bench_vswap(&options));
	if (wanted(argc, argv, "nbd"))
		json_object_set_new(report, "nbd", bench_nbd(&options, self));
	rpc_init();
	if (wanted(argc, argv, "pages"))
		json_object_set_new(report, "pages", bench_pages(&options));
	if (wanted(argc, argv, "drain"))
		json_object_set_new(report, "drain", bench_drain(&options));
	json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
	putchar('\n');
	json_decref(report);
	return 0;
}

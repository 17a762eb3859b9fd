/*
 * swap_meter OPTIONS: what it costs a program that has less memory than it needs to swap out, to swap in, and to do both.
 *
 * It enters a memory cgroup (version 2), touches its memory page by page in a random order, with words that say which page
 * and turn they are of, checks every word that it reads, and prints a line of JSON for each pass:
 *
 *   out    new pages, beyond the limit, so that the kernel must store others; then it is asked to store the rest; until the
 *          last is written
 *   in     reads all pages, with no limit, so that nothing needs to be stored meanwhile
 *   turn   the limit is back; reads and changes pages until it is reached
 *   both   the rest of them: for each, the kernel must read one and store another
 *   check  reads all pages, with no limit
 *
 * Without a cgroup only out and in, with no swap: what the program itself takes. With --spin a child that does nothing useful
 * runs whenever no one else has anything to do, and its time is told as idle_ns: for machines of one processor whose clock
 * counts instructions, and so would stand still, or follow the host's, when there are none. Exits with 0 when no word is wrong,
 * with 1 when some are and all passes were made, and with 2 when one could not be.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/base/base.h"
#include "common/base/rand.h"

#define WORDS (FSW_PAGE_SIZE / sizeof(uint64_t))
/* So many words of a page are random, and the others alike, so that it compresses to four tenths, as pages of programs do. */
#define RANDOM_WORDS 192u
/* How often the program looks at its cgroup while it fills pages. */
#define PAGES_PER_LOOK 128u
#define MAX_SOURCES 8u
#define STAT_BYTES 16384u
#define PATIENCE_NS 20000000000u

struct source {
	char name[32];
	const char *file; /* of a count */
	clockid_t clock;  /* of a process */
};

struct sources {
	struct source source[MAX_SOURCES];
	unsigned nr;
};

/* All that a pass is the difference of. */
struct sample {
	uint64_t now_ns, idle_ns, pswpin, pswpout;
	uint64_t cpu_ns[MAX_SOURCES], count[MAX_SOURCES];
};

struct meter {
	const char *row, *cgroup;
	unsigned round;
	pid_t spinner; /* 0: there is none */
	clockid_t spinner_clock;
	size_t nr_pages, limit_pages;
	struct sources processes, counts;
	struct rand_state order_state;
	uint64_t *memory;
	uint32_t *order;
	uint64_t nr_wrong;
	struct sample begin;
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "swap_meter: %s: %s\n", what, why);
	exit(2);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t) < 0)
		return 0; /* a process that has ended */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* All of it: files of /proc come in pieces. */
static void read_file(const char *path, char text[STAT_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : 1;
	size_t all = 0;

	while (len > 0 && all < STAT_BYTES - 1) {
		len = read(fd, text + all, STAT_BYTES - 1 - all);
		all += len > 0 ? (size_t)len : 0;
	}
	if (len < 0)
		die(path, strerror(errno));
	text[all] = '\0';
	close(fd);
}

/* The number after a word at the begin of a line; 0 when there is none. */
static uint64_t number_of(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, word, len) == 0 && line[len] == ' ')
			return strtoull(line + len, NULL, 10);
	}
	return 0;
}

static void cgroup_path(const struct meter *meter, const char *name, char path[256])
{
	if (snprintf(path, 256, "%s/%s", meter->cgroup, name) >= 256)
		die(meter->cgroup, "too long");
}

/* Returns whether the kernel took it. */
static bool cgroup_write(const struct meter *meter, const char *name, const char *value)
{
	char path[256];
	bool ok;
	int fd;

	cgroup_path(meter, name, path);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		die(path, strerror(errno));
	ok = write(fd, value, strlen(value)) == (ssize_t)strlen(value);
	close(fd);
	return ok;
}

/*
 * Which also brings the counts that reclaim decides by up to date (docs/operating.md). The pages of this program in memory, and
 * those of them that are being written.
 */
static void cgroup_look(const struct meter *meter, size_t *ret_nr_pages, size_t *ret_nr_writing)
{
	char path[256], text[STAT_BYTES];

	cgroup_path(meter, "memory.stat", path);
	read_file(path, text);
	*ret_nr_pages = (size_t)(number_of(text, "anon") + number_of(text, "swapcached")) >> FSW_PAGE_SHIFT;
	*ret_nr_writing = (size_t)number_of(text, "file_writeback") >> FSW_PAGE_SHIFT;
}

/* Until no more than so many pages are being written. */
static void wait_written(const struct meter *meter, size_t nr_at_most)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + PATIENCE_NS;
	size_t nr_pages, nr_writing;

	for (;;) {
		cgroup_look(meter, &nr_pages, &nr_writing);
		if (nr_writing <= nr_at_most)
			return;
		if (clock_ns(CLOCK_MONOTONIC) > until)
			die("swap", "pages are still being written");
		usleep(1000);
	}
}

static void cgroup_limit(const struct meter *meter, size_t nr_pages)
{
	char text[32] = "max";

	if (nr_pages)
		snprintf(text, sizeof(text), "%zu", nr_pages << FSW_PAGE_SHIFT);
	if (!cgroup_write(meter, "memory.max", text))
		die("memory.max", strerror(errno));
}

/* Until no page of the program is in memory, but for a few that the kernel would not give up. */
static void put_out(const struct meter *meter)
{
	size_t nr_pages, nr_writing;
	char text[32];

	snprintf(text, sizeof(text), "%zu", meter->nr_pages << (FSW_PAGE_SHIFT + 1));
	for (unsigned i = 0; i < 20; i++) {
		/* It says that it could not reclaim as much, and that is true. */
		(void)cgroup_write(meter, "memory.reclaim", text);
		wait_written(meter, 0);
		cgroup_look(meter, &nr_pages, &nr_writing);
		if (nr_pages <= meter->nr_pages / 64)
			return;
	}
	die("swap", "the kernel does not put the pages out");
}

/* A permutation of all pages, drawn anew. */
static void shuffle(struct meter *meter)
{
	for (size_t i = meter->nr_pages - 1; i > 0; i--) {
		size_t j = (size_t)rand_below(&meter->order_state, i + 1);
		uint32_t t = meter->order[i];

		meter->order[i] = meter->order[j];
		meter->order[j] = t;
	}
}

static struct rand_state words_of(size_t page, unsigned turn)
{
	return (struct rand_state){ .s = ((uint64_t)page << 20) ^ ((uint64_t)turn << 52) };
}

static void page_fill(uint64_t *words, size_t page, unsigned turn)
{
	struct rand_state r = words_of(page, turn);
	unsigned i;

	for (i = 0; i < RANDOM_WORDS; i++)
		words[i] = rand_next(&r);
	for (; i < WORDS; i++)
		words[i] = words[0];
}

static uint64_t page_check(const uint64_t *words, size_t page, unsigned turn)
{
	struct rand_state r = words_of(page, turn);
	uint64_t first = rand_next(&r), nr_wrong = words[0] != first;
	unsigned i;

	for (i = 1; i < RANDOM_WORDS; i++)
		nr_wrong += words[i] != rand_next(&r);
	for (; i < WORDS; i++)
		nr_wrong += words[i] != first;
	return nr_wrong;
}

static void take(const struct meter *meter, struct sample *sample)
{
	char text[STAT_BYTES];

	read_file("/proc/vmstat", text);
	sample->pswpin = number_of(text, "pswpin");
	sample->pswpout = number_of(text, "pswpout");
	for (unsigned i = 0; i < meter->processes.nr; i++)
		sample->cpu_ns[i] = clock_ns(meter->processes.source[i].clock);
	for (unsigned i = 0; i < meter->counts.nr; i++) {
		read_file(meter->counts.source[i].file, text);
		sample->count[i] = strtoull(text, NULL, 10);
	}
	sample->idle_ns = meter->spinner ? clock_ns(meter->spinner_clock) : 0;
	sample->now_ns = clock_ns(CLOCK_MONOTONIC);
}

static void pass_end(struct meter *meter, const char *name, size_t nr_pages, uint64_t nr_wrong)
{
	const struct sample *a = &meter->begin;
	struct sample b;

	take(meter, &b);
	printf("{\"row\": \"%s\", \"round\": %u, \"pass\": \"%s\", \"pages\": %zu, \"ns\": %" PRIu64 ", \"idle_ns\": %" PRIu64,
	       meter->row, meter->round, name, nr_pages, b.now_ns - a->now_ns, b.idle_ns - a->idle_ns);
	printf(", \"pswpin\": %" PRIu64 ", \"pswpout\": %" PRIu64 ", \"wrong_words\": %" PRIu64 ", \"cpu_ns\": {",
	       b.pswpin - a->pswpin, b.pswpout - a->pswpout, nr_wrong);
	for (unsigned i = 0; i < meter->processes.nr; i++)
		printf("%s\"%s\": %" PRIu64, i ? ", " : "", meter->processes.source[i].name, b.cpu_ns[i] - a->cpu_ns[i]);
	printf("}, \"counts\": {");
	for (unsigned i = 0; i < meter->counts.nr; i++)
		printf("%s\"%s\": %" PRIu64, i ? ", " : "", meter->counts.source[i].name, b.count[i] - a->count[i]);
	printf("}}\n");
	fflush(stdout);
	meter->nr_wrong += nr_wrong;
}

/*
 * Of the order that was drawn, from `first` on: reads pages of the turn `was`, if any, and fills them for `is`, if any. It
 * waits when a quarter of what it may have is being written: with all of it, the kernel might find nothing to reclaim, and
 * end it. New pages are all out of memory in the end.
 */
static void pass(struct meter *meter, const char *name, size_t first, size_t nr, unsigned was, unsigned is)
{
	uint64_t nr_wrong = 0;

	take(meter, &meter->begin);
	for (size_t i = 0; i < nr; i++) {
		size_t page = meter->order[first + i];
		uint64_t *words = meter->memory + page * WORDS;

		if (was)
			nr_wrong += page_check(words, page, was);
		if (is)
			page_fill(words, page, is);
		if (meter->cgroup && is && i % PAGES_PER_LOOK == 0)
			wait_written(meter, meter->limit_pages / 4);
	}
	if (meter->cgroup && is && !was)
		put_out(meter);
	else if (meter->cgroup && is)
		wait_written(meter, 0);
	pass_end(meter, name, nr, nr_wrong);
}

static void all_passes(struct meter *meter)
{
	size_t nr = meter->nr_pages, warm = meter->limit_pages;

	shuffle(meter);
	pass(meter, "out", 0, nr, 0, 1);
	if (meter->cgroup)
		cgroup_limit(meter, 0);
	shuffle(meter);
	pass(meter, "in", 0, nr, 1, 0);
	if (!meter->cgroup)
		return;
	put_out(meter);
	cgroup_limit(meter, meter->limit_pages);
	pass(meter, "turn", 0, warm, 1, 2);
	pass(meter, "both", warm, nr - warm, 1, 2);
	cgroup_limit(meter, 0);
	pass(meter, "check", 0, nr, 2, 0);
}

static void spinner_start(struct meter *meter)
{
	pid_t parent = getpid();
	volatile unsigned turns = 0;

	meter->spinner = fork();
	if (meter->spinner < 0)
		die("fork", strerror(errno));
	if (meter->spinner > 0) {
		if (clock_getcpuclockid(meter->spinner, &meter->spinner_clock) != 0)
			die("fork", "no clock of the child");
		return;
	}
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent ||
	    sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ .sched_priority = 0 }) < 0)
		_exit(1);
	for (;;)
		turns++;
}

/* NAME=VALUE; returns the value. */
static const char *source_add(struct sources *sources, const char *text, struct source **ret_source)
{
	const char *equals = strchr(text, '=');
	struct source *source = &sources->source[sources->nr];

	if (!equals || equals == text || (size_t)(equals - text) >= sizeof(source->name) || sources->nr == MAX_SOURCES)
		die(text, "not NAME=VALUE, or too many");
	memcpy(source->name, text, (size_t)(equals - text));
	sources->nr++;
	*ret_source = source;
	return equals + 1;
}

static void parse(struct meter *meter, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "mib", required_argument, NULL, 'm' },     { "limit-mib", required_argument, NULL, 'l' },
		{ "cgroup", required_argument, NULL, 'c' },  { "row", required_argument, NULL, 'r' },
		{ "round", required_argument, NULL, 'n' },   { "process", required_argument, NULL, 'p' },
		{ "count", required_argument, NULL, 'f' },   { "spin", no_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	struct source *source;
	const char *value;
	bool spin = false;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'm': meter->nr_pages = strtoul(optarg, NULL, 10) << 8; break;
		case 'l': meter->limit_pages = strtoul(optarg, NULL, 10) << 8; break;
		case 'c': meter->cgroup = optarg; break;
		case 'r': meter->row = optarg; break;
		case 'n': meter->round = (unsigned)atoi(optarg); break;
		case 's': spin = true; break;
		case 'p':
			value = source_add(&meter->processes, optarg, &source);
			if (clock_getcpuclockid((pid_t)atoi(value), &source->clock) != 0)
				die(optarg, "no such process");
			break;
		case 'f':
			value = source_add(&meter->counts, optarg, &source);
			source->file = value;
			break;
		default:
			exit(2);
		}
	}
	if (meter->nr_pages == 0 || meter->nr_pages > UINT32_MAX || (meter->cgroup && meter->limit_pages == 0) ||
	    meter->limit_pages >= meter->nr_pages)
		die("usage", "swap_meter --mib N [--cgroup DIR --limit-mib N] [--row NAME] [--round N] [--process NAME=PID]... "
			     "[--count NAME=FILE]... [--spin]");
	if (spin)
		spinner_start(meter);
}

int main(int argc, char **argv)
{
	struct meter meter = { .row = "", .order_state = { .s = 1 } };
	char pid[16];

	parse(&meter, argc, argv);
	meter.order = malloc(meter.nr_pages * sizeof(*meter.order));
	if (!meter.order)
		die("memory", strerror(errno));
	for (size_t i = 0; i < meter.nr_pages; i++)
		meter.order[i] = (uint32_t)i;
	/* All but what is measured. */
	if (mlockall(MCL_CURRENT) < 0)
		die("mlockall", strerror(errno));
	meter.memory = mmap(NULL, meter.nr_pages << FSW_PAGE_SHIFT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (meter.memory == MAP_FAILED)
		die("memory", strerror(errno));
	(void)madvise(meter.memory, meter.nr_pages << FSW_PAGE_SHIFT, MADV_NOHUGEPAGE);
	if (meter.cgroup) {
		cgroup_limit(&meter, meter.limit_pages);
		snprintf(pid, sizeof(pid), "%d", (int)getpid());
		if (!cgroup_write(&meter, "cgroup.procs", pid))
			die("cgroup.procs", strerror(errno));
	}
	all_passes(&meter);
	free(meter.order);
	if (meter.spinner)
		kill(meter.spinner, SIGKILL);
	return meter.nr_wrong != 0;
}

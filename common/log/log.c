#include "common/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024
#define LOG_LIMIT_NS 1000000000u

static const char *const level_names[] = { "error", "warning", "notice", "info", "debug" };
/* <syslog.h>: LOG_ERR 3 to LOG_DEBUG 7, whose names would collide with ours. */
static const int level_priority[] = { 3, 4, 5, 6, 7 };

atomic_int log_max_level = LOG_LEVEL_INFO;
static const char *log_program = "farswap";
static bool log_to_journal;
static log_writer log_write_to; /* NULL: stderr */
static void *log_write_arg;

/* The journal says which file it reads; stderr may have been sent elsewhere since (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	uintmax_t dev, ino;
	struct stat st;

	return text && sscanf(text, "%" SCNuMAX ":%" SCNuMAX, &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *program, enum log_level max_level)
{
	log_program = program;
	log_to_journal = stderr_is_journal();
	/* gmtime_r reads the time zone, and allocates, the first time. */
	tzset();
	atomic_store_explicit(&log_max_level, (int)max_level, memory_order_relaxed);
}

void log_set_writer(log_writer writer, void *arg)
{
	log_write_to = writer;
	log_write_arg = arg;
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* The number of characters written to line, which has room for any head. */
static size_t format_head(char *line, size_t room, enum log_level level)
{
	struct timespec now;
	struct tm tm;
	int len;

	if (log_to_journal) {
		len = snprintf(line, room, "<%d>", level_priority[level]);
		return (size_t)len;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = snprintf(line, room, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %.64s %s: ", tm.tm_year + 1900, tm.tm_mon + 1,
		       tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000, log_program,
		       level_names[level]);
	return (size_t)len;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	size_t head, len, room;
	int saved_errno = errno;
	va_list args;
	int ret;

	head = log_write_to ? 0 : format_head(line, sizeof(line), level);
	room = sizeof(line) - head - 1; /* the newline takes the place of the final zero or of the last character */
	errno = saved_errno;		/* for %m */
	va_start(args, fmt);
	ret = vsnprintf(line + head, room, fmt, args);
	va_end(args);
	if (ret < 0)
		goto out;
	len = head + base_min_u64((uint64_t)ret, room - 1);
	/* One message is one line: names and texts that came from outside cannot forge another. */
	for (size_t i = head; i < len; i++) {
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	}
	if (log_write_to) {
		log_write_to(level, line + head, log_write_arg);
		goto out;
	}
	line[len++] = '\n';
	while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
		;
out:
	errno = saved_errno;
}

bool log_limit_pass(struct log_limit *limit, uint64_t *ret_left_out)
{
	/* Relaxed: who wins the exchange writes the line; nothing else is published by it. */
	uint_fast64_t last = atomic_load_explicit(&limit->last_ns, memory_order_relaxed);
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	if ((last != 0 && now - last < LOG_LIMIT_NS && now >= last) ||
	    !atomic_compare_exchange_strong_explicit(&limit->last_ns, &last, now, memory_order_relaxed,
						     memory_order_relaxed)) {
		atomic_fetch_add_explicit(&limit->nr_left_out, 1, memory_order_relaxed);
		return false;
	}
	*ret_left_out = atomic_exchange_explicit(&limit->nr_left_out, 0, memory_order_relaxed);
	return true;
}

/*
 * Log lines to stderr, one write each, formatted on the stack: no allocation, any thread. With the priority prefixes of
 * sd-daemon(3) when the journal reads them (JOURNAL_STREAM is set), else with the time and the level. Or to a function, for
 * a program that has a log of its own.
 */
#ifndef FARSWAP_COMMON_LOG_LOG_H
#define FARSWAP_COMMON_LOG_LOG_H

#include <stdatomic.h>

#include "common/base/base.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Program name at the head of each line (static text), and the least urgent level that is written. */
void log_init(const char *program, enum log_level max_level);

/* On any thread. The message alone, one line without its end; text is gone when it returns. It does not log itself. */
typedef void (*log_writer)(enum log_level level, const char *text, void *arg);

/* Where messages go instead of stderr; NULL: to stderr, the default. Before any other thread logs. */
void log_set_writer(log_writer writer, void *arg);

/* "error", "warning", "notice", "info", "debug". 0 or -EINVAL. */
int log_level_parse(const char *text, enum log_level *ret_level) BASE_MUST_CHECK;

extern atomic_int log_max_level;

void log_write(enum log_level level, const char *fmt, ...) BASE_PRINTF(2, 3);

#define LOG_AT(level, ...) \
	do { \
		if ((int)(level) <= atomic_load_explicit(&log_max_level, memory_order_relaxed)) \
			log_write(level, __VA_ARGS__); \
	} while (0)

#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) LOG_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) LOG_AT(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* At most one line per second from this place; what was left out is counted into the next one. */
struct log_limit {
	atomic_uint_fast64_t last_ns;
	atomic_uint_fast64_t nr_left_out;
};
/* True when a line may be written now; *ret_left_out is then the number left out since the last one. */
bool log_limit_pass(struct log_limit *limit, uint64_t *ret_left_out);

#endif

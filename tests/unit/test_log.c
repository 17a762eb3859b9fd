/* deps: common_log */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log/log.h"

static int saved_stderr;
static int pipe_fds[2];

/* stderr goes into a pipe, so that a test can read it back. */
static int capture(void **state)
{
	(void)state;
	saved_stderr = dup(STDERR_FILENO);
	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	dup2(pipe_fds[1], STDERR_FILENO);
	unsetenv("JOURNAL_STREAM");
	log_init("prog", LOG_LEVEL_INFO);
	return 0;
}

static int release(void **state)
{
	(void)state;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	return 0;
}

/* What has been written since, as text. */
static const char *written(void)
{
	static char text[4096];
	ssize_t len = read(pipe_fds[0], text, sizeof(text) - 1);

	text[len > 0 ? len : 0] = '\0';
	return text;
}

static void test_line(void **state)
{
	const char *text;
	int year, month, day, hour, minute, second, ms, end = 0;

	(void)state;
	errno = EBUSY;
	log_warning("server %s is %d", "a", 7);
	assert_int_equal(errno, EBUSY);
	text = written();
	assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms,
				&end),
			 7);
	assert_string_equal(text + end, " prog warning: server a is 7\n");
}

static void test_level(void **state)
{
	enum log_level level = LOG_LEVEL_ERROR;

	(void)state;
	log_debug("not this one");
	assert_string_equal(written(), "");
	assert_int_equal(log_level_parse("debug", &level), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse("loud", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	log_init("prog", level);
	log_debug("this one");
	assert_non_null(strstr(written(), "prog debug: this one\n"));
}

/* Text from outside can neither begin a line of its own nor send codes to a terminal. */
static void test_one_line(void **state)
{
	const char *text;

	(void)state;
	log_error("name %s", "a\nb\033[31m\x7f");
	text = written();
	assert_non_null(strstr(text, "name a?b?[31m?\n"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void test_long_line(void **state)
{
	char big[3000];
	const char *text;

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_error("%s", big);
	text = written();
	assert_int_equal(strlen(text), 1023);
	assert_int_equal(text[1022], '\n');
	assert_int_equal(text[1021], 'x');
}

static void test_journal(void **state)
{
	char stream[64];
	struct stat st;

	(void)state;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init("prog", LOG_LEVEL_DEBUG);
	log_error("e");
	log_debug("d");
	assert_string_equal(written(), "<3>e\n<7>d\n");
	/* The journal reads another file than our stderr. */
	setenv("JOURNAL_STREAM", "1:1", 1);
	log_init("prog", LOG_LEVEL_DEBUG);
	log_error("e");
	assert_non_null(strstr(written(), " prog error: e\n"));
	unsetenv("JOURNAL_STREAM");
}

struct taken {
	enum log_level level;
	char text[2048];
	unsigned nr;
};

static void take(enum log_level level, const char *text, void *arg)
{
	struct taken *taken = arg;

	taken->level = level;
	snprintf(taken->text, sizeof(taken->text), "%s", text);
	taken->nr++;
}

/* The message alone, as one line, and only what the level lets through. */
static void test_writer(void **state)
{
	struct taken taken = { .nr = 0 };
	char big[3000];

	(void)state;
	log_set_writer(take, &taken);
	log_debug("not this one");
	assert_int_equal(taken.nr, 0);
	errno = EBUSY;
	log_warning("server %s\n is %d", "a", 7);
	assert_int_equal(errno, EBUSY);
	assert_int_equal(taken.level, LOG_LEVEL_WARNING);
	assert_string_equal(taken.text, "server a? is 7");
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_error("%s", big);
	assert_int_equal(taken.nr, 2);
	assert_int_equal(strlen(taken.text), 1022);
	assert_string_equal(written(), "");
	log_set_writer(NULL, NULL);
	log_error("e");
	assert_int_equal(taken.nr, 2);
	assert_non_null(strstr(written(), "prog error: e\n"));
}

static void test_limit(void **state)
{
	struct log_limit limit = { 0 };
	uint64_t left_out = 99;
	uint64_t last;

	(void)state;
	assert_true(log_limit_pass(&limit, &left_out));
	assert_int_equal(left_out, 0);
	/* As if it had just been: a place in the future holds everything back however slow this machine is. */
	last = atomic_load(&limit.last_ns) + 100;
	left_out = 99;
	for (int i = 0; i < 3; i++) {
		bool passed = log_limit_pass(&limit, &left_out);

		/* A machine that stood still for a second between two calls lets one through, rightly. */
		if (passed)
			skip();
	}
	assert_int_equal(left_out, 99);
	/* As if the last had been long ago. */
	atomic_store(&limit.last_ns, last > 2000000000u ? last - 2000000000u : 1);
	assert_true(log_limit_pass(&limit, &left_out));
	assert_int_equal(left_out, 3);
	assert_int_equal(atomic_load(&limit.nr_left_out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_line, capture, release),
		cmocka_unit_test_setup_teardown(test_level, capture, release),
		cmocka_unit_test_setup_teardown(test_one_line, capture, release),
		cmocka_unit_test_setup_teardown(test_long_line, capture, release),
		cmocka_unit_test_setup_teardown(test_journal, capture, release),
		cmocka_unit_test_setup_teardown(test_writer, capture, release),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

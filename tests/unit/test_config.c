/* deps: common_config */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/config/config.h"

enum color { RED, GREEN, BLUE };

struct settings {
	char name[CONFIG_STRING_MAX];
	uint64_t memory_bytes;
	uint64_t slab_bytes;
	uint64_t term_ms;
	uint32_t queues;
	uint64_t big;
	bool huge;
	enum color color;
	struct config_list servers;
};

static const char *const colors[] = { "red", "green", "blue", NULL };

static const struct config_option options[] = {
	{ .section = "server", .name = "name", .type = CONFIG_STRING, CONFIG_MEMBER(struct settings, name),
	  .flags = CONFIG_REQUIRED, .arg = "NAME", .help = "What it is called" },
	{ .section = "server", .name = "memory", .type = CONFIG_SIZE, CONFIG_MEMBER(struct settings, memory_bytes),
	  .default_text = "1G", .min = 1 << 20, .arg = "SIZE", .help = "How much it lends" },
	{ .section = "server", .name = "slab_size", .type = CONFIG_SIZE, CONFIG_MEMBER(struct settings, slab_bytes),
	  .default_text = "64M", .min = 1 << 20, .max = 1 << 30, .flags = CONFIG_POWER_OF_TWO, .arg = "SIZE",
	  .help = "The unit it lends in" },
	{ .section = "server", .name = "term", .type = CONFIG_DURATION, CONFIG_MEMBER(struct settings, term_ms),
	  .default_text = "10s", .min = 100, .max = 3600000, .arg = "TIME", .help = "How long a lease lasts" },
	{ .section = "server", .name = "huge", .type = CONFIG_BOOL, CONFIG_MEMBER(struct settings, huge),
	  .default_text = "no", .help = "Ask for huge pages" },
	{ .section = "device", .name = "queues", .type = CONFIG_U32, CONFIG_MEMBER(struct settings, queues),
	  .default_text = "1", .min = 1, .max = 32, .arg = "N", .help = "Number of queues" },
	{ .section = "device", .name = "big", .type = CONFIG_U64, CONFIG_MEMBER(struct settings, big),
	  .default_text = "0", .arg = "N", .help = "Any number" },
	{ .section = "device", .name = "color", .type = CONFIG_CHOICE, CONFIG_MEMBER(struct settings, color),
	  .default_text = "green", .choices = colors, .arg = "COLOR", .help = "Its color" },
	{ .section = "device", .name = "server", .type = CONFIG_LIST, CONFIG_MEMBER(struct settings, servers),
	  .arg = "HOST:PORT", .help = "A server" },
};

static const struct config_program program = {
	.name = "prog",
	.summary = "Does things.",
	.options = options,
	.nr_options = BASE_ARRAY_SIZE(options),
	.settings_bytes = sizeof(struct settings),
};

#define MAX_ARGS 16

static struct settings settings;
static enum config_action action;
static char error[CONFIG_ERROR_MAX];
static char path[64];

static int make_file(void **state)
{
	int fd;

	(void)state;
	memset(&settings, 0, sizeof(settings));
	error[0] = '\0';
	strcpy(path, "/tmp/farswap-test-XXXXXX");
	fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static void write_file(const void *text, size_t len)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

/* config_load with the words of a command line, ended by NULL. */
static int load(const char *first, ...)
{
	char *argv[MAX_ARGS] = { (char[]){ "prog" } };
	char words[MAX_ARGS][CONFIG_STRING_MAX * 2];
	int argc = 1;
	va_list args;

	va_start(args, first);
	for (const char *word = first; word; word = va_arg(args, const char *)) {
		assert_true(argc < MAX_ARGS - 1);
		snprintf(words[argc], sizeof(words[argc]), "%s", word);
		argv[argc] = words[argc];
		argc++;
	}
	va_end(args);
	return config_load(&program, argc, argv, &settings, &action, error);
}

static int load_file(const char *text)
{
	write_file(text, strlen(text));
	return load("--config", path, NULL);
}

/* The error begins with the file's name. */
static void assert_file_error(int ret, int expected, const char *text)
{
	assert_int_equal(ret, expected);
	assert_int_equal(strncmp(error, path, strlen(path)), 0);
	assert_string_equal(error + strlen(path), text);
	assert_null(strchr(error, '\n'));
}

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(load("--name", "x", NULL), 0);
	assert_int_equal(action, CONFIG_RUN);
	assert_string_equal(settings.name, "x");
	assert_int_equal(settings.memory_bytes, 1 << 30);
	assert_int_equal(settings.slab_bytes, 64 << 20);
	assert_int_equal(settings.term_ms, 10000);
	assert_int_equal(settings.queues, 1);
	assert_false(settings.huge);
	assert_int_equal(settings.color, GREEN);
	assert_int_equal(settings.servers.nr, 0);
}

static void test_file(void **state)
{
	(void)state;
	assert_int_equal(load_file("# a comment\n"
				   "; another\n"
				   "[server]\n"
				   "name = a b ; c\n"
				   "memory=4G\n"
				   "slab_size = 1MiB\r\n"
				   "term = 500ms\n"
				   "huge = on\n"
				   "\n"
				   "[device]\n"
				   "queues = 32\n"
				   "big = 18446744073709551615\n"
				   "color = blue\n"
				   "server = 10.0.0.1:7700, 10.0.0.2:7700\n"
				   "server = [::1]:7700"),
			 0);
	assert_string_equal(settings.name, "a b");
	assert_true(settings.memory_bytes == (uint64_t)4 << 30);
	assert_int_equal(settings.slab_bytes, 1 << 20);
	assert_int_equal(settings.term_ms, 500);
	assert_true(settings.huge);
	assert_int_equal(settings.queues, 32);
	assert_true(settings.big == UINT64_MAX);
	assert_int_equal(settings.color, BLUE);
	assert_int_equal(settings.servers.nr, 3);
	assert_string_equal(settings.servers.item[0], "10.0.0.1:7700");
	assert_string_equal(settings.servers.item[1], "10.0.0.2:7700");
	assert_string_equal(settings.servers.item[2], "[::1]:7700");
}

static void test_command_line_wins(void **state)
{
	const char *text = "[server]\nname = file\nmemory = 2G\n[device]\nserver = a:1\nserver = b:2\n";

	(void)state;
	write_file(text, strlen(text));
	assert_int_equal(load("--memory=8G", "--huge", "--server", "c:3,d:4", "--config", path, "--server=e:5", "--queues", "2",
			      "--queues", "3", NULL),
			 0);
	assert_string_equal(settings.name, "file");
	assert_true(settings.memory_bytes == (uint64_t)8 << 30);
	assert_true(settings.huge);
	assert_int_equal(settings.queues, 3);
	assert_int_equal(settings.servers.nr, 3);
	assert_string_equal(settings.servers.item[0], "c:3");
	assert_string_equal(settings.servers.item[2], "e:5");
	assert_int_equal(load("--name", "x", "--huge=no", "--slab-size", "2M", NULL), 0);
	assert_int_equal(settings.slab_bytes, 2 << 20);
	assert_false(settings.huge);
}

static void test_file_errors(void **state)
{
	(void)state;
	assert_file_error(load_file("[server]\nname = x\nmemroy = 1G\n"), -EINVAL, ":3: [server] memroy: unknown setting");
	assert_file_error(load_file("[sever]\n"), -EINVAL, ":1: [sever]: unknown section");
	assert_file_error(load_file("name = x\n"), -EINVAL, ":1: name: a setting before the first [section]");
	assert_file_error(load_file("\n[server]\nhello\nmemory = x\n"), -EINVAL,
			  ":3: neither 'name = value' nor '[section]'");
	assert_file_error(load_file("[server]\nmemory = x\nhello\n"), -EINVAL,
			  ":2: memory = x: not a size such as 512K, 64M or 4G");
	assert_file_error(load_file("[server]\nmemory = 1\n"), -ERANGE, ":2: memory = 1: must be at least 1M");
	assert_file_error(load_file("[server]\nslab_size = 2G\n"), -ERANGE, ":2: slab_size = 2G: must be 1M to 1G");
	assert_file_error(load_file("[server]\nslab_size = 3M\n"), -EINVAL, ":2: slab_size = 3M: must be a power of two");
	assert_file_error(load_file("[server]\nterm = 5\n"), -EINVAL,
			  ":2: term = 5: not a time such as 500ms, 10s or 5min");
	assert_file_error(load_file("[server]\nterm = 2h\n"), -ERANGE, ":2: term = 2h: must be 100ms to 1h");
	assert_file_error(load_file("[server]\nhuge = maybe\n"), -EINVAL, ":2: huge = maybe: must be yes or no");
	assert_file_error(load_file("[device]\nqueues = 33\n"), -ERANGE, ":2: queues = 33: must be 1 to 32");
	assert_file_error(load_file("[device]\nqueues = -1\n"), -EINVAL, ":2: queues = -1: not a number");
	assert_file_error(load_file("[device]\nbig = 18446744073709551616\n"), -ERANGE,
			  ":2: big = 18446744073709551616: must be 0 to 18446744073709551615");
	assert_file_error(load_file("[device]\ncolor = pink\n"), -EINVAL,
			  ":2: color = pink: must be one of red, green, blue");
	assert_file_error(load_file("[device]\nserver = a:1,,b:2\n"), -EINVAL, ":2: server = a:1,,b:2: an empty item");
	assert_file_error(load_file("[device]\nserver = a:1\nserver = b:1,a:1\n"), -EEXIST,
			  ":3: server = b:1,a:1: a:1 is given twice");
	assert_file_error(load_file("[server]\nname = x\nname = y\n"), -EEXIST, ":3: name = y: given twice");
	write_file("[server]\nname = x\0y\n", 20);
	assert_file_error(load("--config", path, NULL), -EINVAL, ":2: longer than 198 characters, or not text");
	/* Whatever went wrong, nothing was set. */
	assert_int_equal(settings.memory_bytes, 0);
	assert_string_equal(settings.name, "");
}

static void test_long_line(void **state)
{
	char text[600] = "[server]\nname = ";

	(void)state;
	memset(text + 16, 'x', 500);
	strcpy(text + 516, "\n");
	assert_file_error(load_file(text), -EINVAL, ":2: longer than 198 characters, or not text");
}

static void test_too_many_items(void **state)
{
	char text[4096] = "[device]\n";

	(void)state;
	for (int i = 0; i <= CONFIG_LIST_MAX; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "server = h:%d\n", i);
	assert_file_error(load_file(text), -ENOSPC, ":66: server = h:64: too many items");
}

static void test_no_file(void **state)
{
	(void)state;
	assert_int_equal(load("--config", "/no/such/file", NULL), -ENOENT);
	assert_string_equal(error, "/no/such/file: No such file or directory");
	assert_int_equal(load("--config", "/tmp", NULL), -EISDIR);
	assert_string_equal(error, "/tmp: Is a directory");
}

static void assert_load_error(int ret, int expected, const char *text)
{
	assert_int_equal(ret, expected);
	assert_string_equal(error, text);
}

static void test_command_line_errors(void **state)
{
	char longer[CONFIG_STRING_MAX + 1];

	(void)state;
	assert_load_error(load("--bogus", NULL), -EINVAL, "--bogus: unknown or ambiguous option");
	assert_load_error(load("--bogus=7", NULL), -EINVAL, "--bogus=7: unknown or ambiguous option");
	assert_load_error(load("-x", NULL), -EINVAL, "-x: unknown option");
	assert_load_error(load("--memory", NULL), -EINVAL, "--memory: needs a value");
	assert_load_error(load("--help=me", NULL), -EINVAL, "--help: takes no value");
	assert_load_error(load("what", NULL), -EINVAL, "what: unexpected argument");
	assert_load_error(load("--name", "x", "--huge", "yes", NULL), -EINVAL, "yes: unexpected argument");
	assert_load_error(load("--memory", "0", NULL), -ERANGE, "--memory 0: must be at least 1M");
	assert_load_error(load("--queues=", NULL), -EINVAL, "--queues : not a number");
	assert_load_error(load("--slab_size=3M", NULL), -EINVAL, "--slab-size 3M: must be a power of two");
	assert_load_error(load(NULL), -EINVAL,
			  "--name: must be given, here or as name in [server] of the configuration file");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(load("--name", longer, NULL), -ERANGE);
	assert_int_equal(settings.memory_bytes, 0);
}

static void test_actions(void **state)
{
	(void)state;
	assert_int_equal(load("--help", NULL), 0);
	assert_int_equal(action, CONFIG_PRINT_HELP);
	assert_int_equal(load("-h", NULL), 0);
	assert_int_equal(action, CONFIG_PRINT_HELP);
	assert_int_equal(load("--config", "/no/such/file", "--version", NULL), 0);
	assert_int_equal(action, CONFIG_PRINT_VERSION);
	assert_int_equal(load("--print-config", NULL), 0);
	assert_int_equal(action, CONFIG_PRINT_EXAMPLE);
	assert_string_equal(settings.name, "");
}

static void test_default_file(void **state)
{
	struct config_program other = program;
	char *argv[] = { (char[]){ "prog" }, NULL };

	(void)state;
	other.default_file = path;
	write_file("[server]\nname = there\n", 22);
	assert_int_equal(config_load(&other, 1, argv, &settings, &action, error), 0);
	assert_string_equal(settings.name, "there");
	/* It need not be there. */
	other.default_file = "/no/such/file";
	assert_int_equal(config_load(&other, 1, argv, &settings, &action, error), -EINVAL);
	assert_int_equal(strncmp(error, "--name: must be given", 21), 0);
}

static char *printed(void (*print)(const struct config_program *, FILE *))
{
	char *text = NULL;
	size_t len;
	FILE *file = open_memstream(&text, &len);

	assert_non_null(file);
	print(&program, file);
	fclose(file);
	return text;
}

static void test_help(void **state)
{
	char *text = printed(config_print_help);

	(void)state;
	assert_non_null(strstr(text, "Usage: prog [OPTION]...\nDoes things.\n"));
	assert_non_null(strstr(text, "\n[server]\n  --name NAME                 What it is called (required)\n"));
	assert_non_null(strstr(text, "  --memory SIZE               How much it lends [1G]\n"));
	assert_non_null(strstr(text, "  --color COLOR               Its color: red, green, blue [green]\n"));
	free(text);
}

/* The example as it is says nothing; with the comment signs taken away it says the defaults. */
static void test_example(void **state)
{
	char *text = printed(config_print_example);
	size_t to = 0;

	(void)state;
	write_file(text, strlen(text));
	assert_int_equal(load("--config", path, "--name", "x", NULL), 0);
	for (size_t from = 0; text[from]; from++) {
		if (text[from] == '#' && text[from + 1] != ' ')
			continue;
		text[to++] = text[from];
	}
	text[to] = '\0';
	assert_non_null(strstr(text, "\nmemory = 1G\n"));
	write_file(text, to);
	assert_int_equal(load("--config", path, "--name", "x", NULL), 0);
	assert_int_equal(settings.slab_bytes, 64 << 20);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_file, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_command_line_wins, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_file_errors, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_long_line, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_too_many_items, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_no_file, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_command_line_errors, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_actions, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_default_file, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_help, make_file, remove_file),
		cmocka_unit_test_setup_teardown(test_example, make_file, remove_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

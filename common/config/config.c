#include "common/config/config.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/config/internal.h"

enum source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_COMMAND_LINE };

/* What getopt_long returns: one of these, or FIRST_OPTION and the index of the option. */
enum { ARG_CONFIG = 256, ARG_HELP, ARG_VERSION, ARG_EXAMPLE, ARG_FIRST_OPTION };

#define NR_OWN_ARGS 4

struct loader {
	const struct config_program *program;
	void *settings; /* a draft, until all is well */
	enum source *source; /* of each option's value */
	struct option *args; /* for getopt_long */
	char (*arg_names)[CONFIG_NAME_MAX]; /* of the options, as the command line has them */
	const char *config_path;
	enum config_action action;

	FILE *file;
	const char *file_name;
	unsigned line;

	char *error;
	int err; /* of the first error; 0: none yet */
	unsigned err_line;
};

static int fail(struct loader *l, int err, const char *fmt, ...) BASE_PRINTF(3, 4);

/* Keeps the first error. Returns err. */
static int fail(struct loader *l, int err, const char *fmt, ...)
{
	va_list args;

	if (l->err == 0) {
		l->err = err;
		l->err_line = l->line;
		va_start(args, fmt);
		vsnprintf(l->error, CONFIG_ERROR_MAX, fmt, args);
		va_end(args);
	}
	return err;
}

/* 0; a negative errno with what is wrong in `reason`. */
static int set(struct loader *l, size_t index, enum source source, const char *text, char reason[CONFIG_REASON_MAX])
{
	const struct config_option *option = &l->program->options[index];
	bool again = l->source[index] == source;
	int ret;

	if (again && source == SOURCE_FILE && option->type != CONFIG_LIST) {
		snprintf(reason, CONFIG_REASON_MAX, "given twice");
		return -EEXIST;
	}
	ret = config_option_set(option, l->settings, text, again, reason);
	if (ret == 0)
		l->source[index] = source;
	return ret;
}

static void set_defaults(struct loader *l)
{
	char reason[CONFIG_REASON_MAX];

	for (size_t i = 0; i < l->program->nr_options; i++) {
		const struct config_option *option = &l->program->options[i];
		int ret;

		config_option_check(option, l->program->settings_bytes);
		ret = config_option_set(option, l->settings, option->default_text ? option->default_text : "", false,
					reason);
		assert(ret == 0);
		(void)ret;
	}
}

/* The file. */

static bool section_is_known(const struct loader *l, const char *section, size_t len)
{
	for (size_t i = 0; i < l->program->nr_options; i++) {
		const char *known = l->program->options[i].section;

		if (strlen(known) == len && memcmp(known, section, len) == 0)
			return true;
	}
	return false;
}

/* inih's own check comes with the first setting of a section; an unknown section may have none. */
static int check_section_line(struct loader *l, const char *text)
{
	size_t len;

	if (text[0] != '[')
		return 0;
	len = strcspn(text + 1, "]");
	if (text[1 + len] == '\0' || section_is_known(l, text + 1, len))
		return 0;
	return fail(l, -EINVAL, "%s:%u: [%.*s]: unknown section", l->file_name, l->line, (int)base_min_u64(len, 64),
		    text + 1);
}

/* The next line into text, with its newline. Its length; 0 at the end of the file; -EINVAL too long or not text. */
static int read_text(FILE *file, char *text, int size)
{
	int len = 0;
	int c;

	while ((c = getc(file)) != EOF) {
		if (c == '\0' || len == size - 1)
			return -EINVAL;
		text[len++] = (char)c;
		if (c == '\n')
			break;
	}
	text[len] = '\0';
	return len;
}

/*
 * fgets for inih, which would take the pieces of a line that is too long for lines, has no place for the number of the
 * line in its callback, and reads on after an error.
 */
static char *read_line(char *text, int size, void *stream)
{
	struct loader *l = stream;
	int len;

	if (l->err != 0)
		return NULL;
	l->line++;
	errno = 0;
	len = read_text(l->file, text, size);
	if (ferror(l->file))
		fail(l, errno ? -errno : -EIO, "%s: %s", l->file_name, err_text(errno ? -errno : -EIO));
	else if (len < 0)
		fail(l, -EINVAL, "%s:%u: longer than %d characters, or not text", l->file_name, l->line, size - 2);
	if (l->err != 0 || len == 0 || check_section_line(l, text) < 0)
		return NULL;
	return text;
}

/* 1 to go on, 0 for an error, as inih wants it. */
static int take_setting(void *user, const char *section, const char *name, const char *value)
{
	struct loader *l = user;
	char reason[CONFIG_REASON_MAX];
	int ret;

	for (size_t i = 0; i < l->program->nr_options; i++) {
		const struct config_option *option = &l->program->options[i];

		if (strcmp(option->section, section) != 0 || strcmp(option->name, name) != 0)
			continue;
		ret = set(l, i, SOURCE_FILE, value, reason);
		if (ret < 0)
			fail(l, ret, "%s:%u: %s = %s: %s", l->file_name, l->line, name, value, reason);
		return ret == 0;
	}
	if (section[0] == '\0')
		fail(l, -EINVAL, "%s:%u: %s: a setting before the first [section]", l->file_name, l->line, name);
	else
		fail(l, -EINVAL, "%s:%u: [%s] %s: unknown setting", l->file_name, l->line, section, name);
	return 0;
}

static int read_file(struct loader *l)
{
	int ret;

	l->file_name = l->config_path ? l->config_path : l->program->default_file;
	if (!l->file_name)
		return 0;
	l->file = fopen(l->file_name, "re");
	if (!l->file && errno == ENOENT && !l->config_path)
		return 0;
	if (!l->file)
		return fail(l, -errno, "%s: %s", l->file_name, err_text(-errno));
	ret = ini_parse_stream(read_line, l, take_setting, l);
	fclose(l->file);
	/* inih gives the line of its first error, which may lie before the first of ours. */
	if (ret > 0 && (l->err == 0 || (unsigned)ret < l->err_line)) {
		l->err = 0;
		return fail(l, -EINVAL, "%s:%d: neither 'name = value' nor '[section]'", l->file_name, ret);
	}
	return ret < 0 && l->err == 0 ? fail(l, -ENOMEM, "%s: out of memory", l->file_name) : l->err;
}

/* The command line. */

static int make_args(struct loader *l)
{
	const struct config_program *program = l->program;
	struct option *at;

	l->args = calloc(2 * program->nr_options + NR_OWN_ARGS + 1, sizeof(*l->args));
	l->arg_names = calloc(program->nr_options, sizeof(*l->arg_names));
	if (!l->args || !l->arg_names)
		return fail(l, -ENOMEM, "out of memory");
	at = l->args;
	*at++ = (struct option){ "config", required_argument, NULL, ARG_CONFIG };
	*at++ = (struct option){ "help", no_argument, NULL, ARG_HELP };
	*at++ = (struct option){ "version", no_argument, NULL, ARG_VERSION };
	*at++ = (struct option){ "print-config", no_argument, NULL, ARG_EXAMPLE };
	for (size_t i = 0; i < program->nr_options; i++) {
		int has_arg = program->options[i].type == CONFIG_BOOL ? optional_argument : required_argument;

		config_option_arg_name(&program->options[i], l->arg_names[i]);
		for (struct option *other = l->args; other < at; other++)
			assert(strcmp(other->name, l->arg_names[i]) != 0);
		*at++ = (struct option){ l->arg_names[i], has_arg, NULL, ARG_FIRST_OPTION + (int)i };
		/* As it stands in the file is good as well. */
		if (strcmp(l->arg_names[i], program->options[i].name) != 0)
			*at++ = (struct option){ program->options[i].name, has_arg, NULL, ARG_FIRST_OPTION + (int)i };
	}
	return 0;
}

static const char *arg_name(const struct loader *l, int value)
{
	for (const struct option *arg = l->args; arg->name; arg++) {
		if (arg->val == value)
			return arg->name;
	}
	return NULL;
}

static int fail_arg(struct loader *l, int result, char **argv)
{
	const char *name = arg_name(l, optopt);

	if (result == ':')
		return fail(l, -EINVAL, "--%s: needs a value", name);
	if (name)
		return fail(l, -EINVAL, "--%s: takes no value", name);
	if (optopt != 0)
		return fail(l, -EINVAL, "-%c: unknown option", optopt);
	return fail(l, -EINVAL, "%s: unknown or ambiguous option", argv[optind - 1]);
}

/* The first pass looks what is asked for and for mistakes; the second takes the values. */
static int read_args(struct loader *l, int argc, char **argv, bool take_values)
{
	char reason[CONFIG_REASON_MAX];
	const char *text;
	int result, ret;

	optind = 0; /* glibc: begin anew */
	opterr = 0;
	while ((result = getopt_long(argc, argv, "+:h", l->args, NULL)) != -1) {
		switch (result) {
		case '?':
		case ':':
			return fail_arg(l, result, argv);
		case 'h':
		case ARG_HELP:
			l->action = CONFIG_PRINT_HELP;
			return 0;
		case ARG_VERSION:
			l->action = CONFIG_PRINT_VERSION;
			return 0;
		case ARG_EXAMPLE:
			l->action = CONFIG_PRINT_EXAMPLE;
			return 0;
		case ARG_CONFIG:
			l->config_path = optarg;
			continue;
		}
		if (!take_values)
			continue;
		text = optarg ? optarg : "yes";
		ret = set(l, (size_t)(result - ARG_FIRST_OPTION), SOURCE_COMMAND_LINE, text, reason);
		if (ret < 0)
			return fail(l, ret, "--%s %s: %s", arg_name(l, result), text, reason);
	}
	if (optind < argc)
		return fail(l, -EINVAL, "%s: unexpected argument", argv[optind]);
	return 0;
}

static int check_required(struct loader *l)
{
	for (size_t i = 0; i < l->program->nr_options; i++) {
		const struct config_option *option = &l->program->options[i];

		if ((option->flags & CONFIG_REQUIRED) && config_option_is_empty(option, l->settings))
			return fail(l, -EINVAL, "--%s: must be given, here or as %s in [%s] of the configuration file",
				    l->arg_names[i], option->name, option->section);
	}
	return 0;
}

static int load(struct loader *l, int argc, char **argv)
{
	int ret;

	ret = make_args(l);
	if (ret < 0)
		return ret;
	ret = read_args(l, argc, argv, false);
	if (ret < 0 || l->action != CONFIG_RUN)
		return ret;
	set_defaults(l);
	ret = read_file(l);
	if (ret < 0)
		return ret;
	ret = read_args(l, argc, argv, true);
	if (ret < 0)
		return ret;
	return check_required(l);
}

int config_load(const struct config_program *program, int argc, char **argv, void *settings,
		enum config_action *ret_action, char ret_error[CONFIG_ERROR_MAX])
{
	struct loader l = { .program = program, .action = CONFIG_RUN, .error = ret_error };
	int ret = -ENOMEM;

	l.settings = calloc(1, program->settings_bytes);
	l.source = calloc(program->nr_options, sizeof(*l.source));
	if (!l.settings || !l.source) {
		snprintf(ret_error, CONFIG_ERROR_MAX, "out of memory");
		goto out;
	}
	ret = load(&l, argc, argv);
	if (ret < 0)
		goto out;
	*ret_action = l.action;
	if (l.action == CONFIG_RUN)
		memcpy(settings, l.settings, program->settings_bytes);
out:
	free(l.args);
	free(l.arg_names);
	free(l.source);
	free(l.settings);
	return ret;
}

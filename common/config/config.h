/*
 * The settings of a program, from one table: how each is called, what it may be, and where it goes. The defaults, the
 * configuration file (INI), the command line, --help and the example file all come from that table.
 *
 * Sources in order, the later one wins: defaults, file, command line. A list is replaced as a whole by a later source,
 * and within one source may be given several times or with commas. A setting other than a list that a file gives twice
 * is an error; on the command line the last one counts.
 *
 * One thread, at start. Nothing is kept: all strings are copied into the settings.
 */
#ifndef FARSWAP_COMMON_CONFIG_CONFIG_H
#define FARSWAP_COMMON_CONFIG_CONFIG_H

#include <stdio.h>

#include "common/base/base.h"
#include "common/config/value.h"

#define CONFIG_STRING_MAX 256 /* of a string or an item of a list, with its end */
#define CONFIG_LIST_MAX 64    /* items */
#define CONFIG_NAME_MAX 64    /* of a setting, with its end */
#define CONFIG_ERROR_MAX 512  /* of an error's line, with its end */

/* What a setting is in the settings structure, and in text. */
enum config_type {
	CONFIG_STRING,	 /* char[CONFIG_STRING_MAX] */
	CONFIG_U32,	 /* uint32_t; digits */
	CONFIG_U64,	 /* uint64_t; digits */
	CONFIG_SIZE,	 /* uint64_t, in bytes; "64M", see config_parse_size */
	CONFIG_DURATION, /* uint64_t, in ms; "500ms", see config_parse_duration */
	CONFIG_BOOL,	 /* bool; "yes" or "no"; on the command line also --name alone for yes */
	CONFIG_CHOICE,	 /* int or enum, the index into `choices` */
	CONFIG_LIST,	 /* struct config_list */
};

struct config_list {
	unsigned nr;
	char item[CONFIG_LIST_MAX][CONFIG_STRING_MAX];
};

enum config_flags {
	CONFIG_REQUIRED = 1 << 0,     /* a string or a list that must not be empty in the end */
	CONFIG_POWER_OF_TWO = 1 << 1, /* a number or a size */
};

struct config_option {
	const char *section; /* of the file, and of --help; the options of one section stand together */
	const char *name;    /* in the file; on the command line behind --, where - may stand for _; unique in the program */
	enum config_type type;
	size_t offset;		    /* into the settings structure; both by CONFIG_MEMBER */
	size_t size_bytes;
	const char *default_text;   /* as it would stand in the file; a good value, NULL for an empty string or list */
	uint64_t min;		    /* numbers, sizes, times, both included */
	uint64_t max;		    /* 0: as much as the type holds */
	unsigned flags;		    /* enum config_flags */
	const char *const *choices; /* CONFIG_CHOICE: ends with NULL */
	const char *arg;	    /* "SIZE"; for --help */
	const char *help;	    /* one line, without a full stop */
};

/* Where an option goes; its size is checked against the type when the table is first used. */
#define CONFIG_MEMBER(settings, member) \
	.offset = offsetof(settings, member), .size_bytes = sizeof(((settings *)NULL)->member)

struct config_program {
	const char *name;	  /* "farmemd" */
	const char *summary;	  /* one line for --help */
	const char *default_file; /* read if it exists and no --config is given; NULL: none */
	const struct config_option *options;
	size_t nr_options;
	size_t settings_bytes;
};

enum config_action {
	CONFIG_RUN,	      /* go on with the settings */
	CONFIG_PRINT_HELP,    /* --help: config_print_help, exit 0 */
	CONFIG_PRINT_VERSION, /* --version */
	CONFIG_PRINT_EXAMPLE, /* --print-config: config_print_example, exit 0 */
};

/*
 * Reads all sources; besides the table's options the command line takes --config FILE, --help, --version and
 * --print-config. *ret_action says what the command line asks for; the settings are written only for CONFIG_RUN.
 * 0, or a negative errno with one line in ret_error that names the setting, the text and the place, and settings as they
 * were: -EINVAL malformed or unknown; -ERANGE out of range; -EEXIST given twice; -ENOSPC too many items; -ENOENT and so on
 * when the file cannot be read; -ENOMEM.
 */
int config_load(const struct config_program *program, int argc, char **argv, void *settings,
		enum config_action *ret_action, char ret_error[CONFIG_ERROR_MAX]) BASE_MUST_CHECK;

/* The text of --help. */
void config_print_help(const struct config_program *program, FILE *file);

/* A configuration file with every setting, its meaning and its default, all commented out. */
void config_print_example(const struct config_program *program, FILE *file);

#endif

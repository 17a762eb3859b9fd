#include <stdio.h>
#include <string.h>

#include "common/config/internal.h"

#define HELP_COLUMN 30

/* "--name ARG", padded to the column where the meaning begins, or on a line of its own when it is too long. */
static void print_arg(FILE *file, const char *name, const char *arg)
{
	int len = fprintf(file, "  --%s%s%s", name, arg ? " " : "", arg ? arg : "");

	if (len >= HELP_COLUMN - 1) {
		fputc('\n', file);
		len = 0;
	}
	fprintf(file, "%*s", HELP_COLUMN - len, "");
}

static void print_choices(FILE *file, const struct config_option *option)
{
	for (unsigned i = 0; option->choices && option->choices[i]; i++)
		fprintf(file, "%s%s", i ? ", " : ": ", option->choices[i]);
}

static void print_option(FILE *file, const struct config_option *option)
{
	const char *arg = option->arg;
	char name[CONFIG_NAME_MAX];

	config_option_arg_name(option, name);
	if (!arg)
		arg = option->type == CONFIG_BOOL ? NULL : "VALUE";
	print_arg(file, name, arg);
	fprintf(file, "%s", option->help);
	print_choices(file, option);
	if (option->flags & CONFIG_REQUIRED)
		fprintf(file, " (required)");
	else if (option->default_text && option->default_text[0])
		fprintf(file, " [%s]", option->default_text);
	fputc('\n', file);
}

void config_print_help(const struct config_program *program, FILE *file)
{
	const char *section = "";

	fprintf(file, "Usage: %s [OPTION]...\n%s\n\n", program->name, program->summary);
	print_arg(file, "config", "FILE");
	fprintf(file, "read this configuration file");
	if (program->default_file)
		fprintf(file, " [%s, if it exists]", program->default_file);
	fputc('\n', file);
	print_arg(file, "print-config", NULL);
	fprintf(file, "print a configuration file with all settings and exit\n");
	print_arg(file, "help", NULL);
	fprintf(file, "print this and exit\n");
	print_arg(file, "version", NULL);
	fprintf(file, "print the version and exit\n");
	for (size_t i = 0; i < program->nr_options; i++) {
		const struct config_option *option = &program->options[i];

		if (strcmp(section, option->section) != 0) {
			section = option->section;
			fprintf(file, "\n[%s]\n", section);
		}
		print_option(file, option);
	}
	fprintf(file, "\nThe same settings stand in the configuration file as 'name = value' below their [section];\n"
		      "the command line wins.\n");
}

void config_print_example(const struct config_program *program, FILE *file)
{
	const char *section = "";

	fprintf(file, "# %s: %s\n# What is commented out is the default.\n", program->name, program->summary);
	for (size_t i = 0; i < program->nr_options; i++) {
		const struct config_option *option = &program->options[i];

		if (strcmp(section, option->section) != 0) {
			section = option->section;
			fprintf(file, "\n[%s]\n", section);
		}
		fprintf(file, "# %s", option->help);
		print_choices(file, option);
		fprintf(file, "%s\n#%s = %s\n", option->flags & CONFIG_REQUIRED ? " (required)" : "", option->name,
			option->default_text ? option->default_text : "");
	}
}

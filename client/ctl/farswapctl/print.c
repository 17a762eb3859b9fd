#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "client/ctl/farswapctl/cli.h"

const char *cli_size(uint64_t bytes, char text[CLI_TEXT_MAX])
{
	static const char units[] = "BKMGTPE";
	unsigned unit = 0;
	double value = (double)bytes;

	for (; value >= 1024 && units[unit + 1]; unit++)
		value /= 1024;
	if (unit == 0)
		snprintf(text, CLI_TEXT_MAX, "%" PRIu64, bytes);
	else
		snprintf(text, CLI_TEXT_MAX, value == (double)(uint64_t)value ? "%.0f%c" : "%.1f%c", value, units[unit]);
	return text;
}

const char *cli_time(uint64_t ns, char text[CLI_TEXT_MAX])
{
	if (ns < 1000)
		snprintf(text, CLI_TEXT_MAX, "%" PRIu64 "ns", ns);
	else if (ns < 1000000)
		snprintf(text, CLI_TEXT_MAX, "%.1fus", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(text, CLI_TEXT_MAX, "%.1fms", (double)ns / 1e6);
	else
		snprintf(text, CLI_TEXT_MAX, "%.1fs", (double)ns / 1e9);
	return text;
}

const char *cli_uptime(uint64_t ms, char text[CLI_TEXT_MAX])
{
	uint64_t s = ms / 1000;

	if (s >= 86400)
		snprintf(text, CLI_TEXT_MAX, "%" PRIu64 "d %02u:%02u:%02u", s / 86400, (unsigned)(s / 3600 % 24),
			 (unsigned)(s / 60 % 60), (unsigned)(s % 60));
	else
		snprintf(text, CLI_TEXT_MAX, "%02u:%02u:%02u", (unsigned)(s / 3600), (unsigned)(s / 60 % 60),
			 (unsigned)(s % 60));
	return text;
}

struct libscols_table *cli_table(const char *const *columns, bool headings)
{
	struct libscols_table *table = scols_new_table();

	if (!table)
		return NULL;
	scols_table_enable_noheadings(table, !headings);
	for (; *columns; columns++) {
		bool right = **columns == '>';

		if (!scols_table_new_column(table, *columns + right, 0, right ? SCOLS_FL_RIGHT : 0)) {
			scols_unref_table(table);
			return NULL;
		}
	}
	return table;
}

int cli_table_row(struct libscols_table *table, const char *const *texts)
{
	struct libscols_line *line = table ? scols_table_new_line(table, NULL) : NULL;
	size_t nr = table ? scols_table_get_ncols(table) : 0;
	int ret = line ? 0 : -ENOMEM;

	for (size_t i = 0; i < nr && ret == 0; i++)
		ret = scols_line_set_data(line, i, texts[i]);
	return ret;
}

int cli_table_print(struct libscols_table *table)
{
	int ret = table ? scols_print_table(table) : -ENOMEM;

	scols_unref_table(table);
	/* An empty table prints nothing, and no end of line either. */
	return ret < 0 ? cli_fail(CLI_FAILED, "the table cannot be printed") : CLI_DONE;
}

json_t *cli_json_u64(uint64_t value)
{
	return json_integer((json_int_t)base_min_u64(value, INT64_MAX));
}

int cli_json_print(json_t *document, bool one_line)
{
	size_t flags = one_line ? JSON_COMPACT : JSON_INDENT(2);
	int ret = document ? json_dumpf(document, stdout, flags) : -1;

	json_decref(document);
	if (ret < 0 || putchar('\n') == EOF || fflush(stdout) == EOF)
		return cli_fail(CLI_FAILED, "the JSON document cannot be written");
	return CLI_DONE;
}

/*
 * farswapctl: the command line. What a command is called, what it takes and what --help says of it stand in one table.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/farswapctl/cli.h"
#include "common/config/value.h"
#include "common/log/log.h"

#define DEFAULT_SOCKET "/run/farswap/farswapd.sock"

enum { OPT_TO = 256, OPT_DEADLINE, OPT_WINDOW, OPT_DETACH, OPT_CANCEL, OPT_WAIT, OPT_EXIT };

enum cli_takes { /* a bit per option that only some commands have */
	TAKES_SERVER = 1 << 0,
	TAKES_DRAIN = 1 << 1,
	TAKES_SWAPOFF = 1 << 2,
};

static const struct command {
	const char *name;
	const char *args;
	const char *summary;
	const char *help; /* what --help says beyond that */
	unsigned takes;
	int (*run)(struct cli *cli);
} commands[] = {
	{ "status", "", "what the daemon serves, how much of it is in use, and how fast it is",
	  "JSON: one document; sizes in bytes, times in ns, 'pages' are 4096 bytes each.\n", 0, cli_status },
	{ "servers", "", "the memory servers and the disk, what they hold, and their state",
	  "States: connecting, up, down (out of reach, what it holds may come back), lost (it does not),\n"
	  "draining and drained (nothing new is placed there).\n"
	  "IN and OUT are what was read from the server and written to it, moves included. REJECTED are connections that\n"
	  "the server has turned away or cut, whoever made them; why is in the JSON.\n", 0, cli_servers },
	{ "drain", "SERVER", "move every page off a server while it is in use",
	  "Follows the drain to its end: a bar on a terminal, a line per second otherwise, with -o json one JSON\n"
	  "object per line. The server takes no new pages until 'undrain', however the drain ends. Nothing is lost\n"
	  "by a drain that does not succeed, and it can be run again. Ctrl-C leaves the drain running.\n\n"
	  "  --to any|remote|disk  where the pages may go: wherever there is room (the default), other memory\n"
	  "                        servers only, the local disk only\n"
	  "  --deadline TIME       give up after it, such as 30s or 5min\n"
	  "  --window PAGES        how many pages may be on their way at a time\n"
	  "  --detach              begin, and do not wait\n"
	  "  --cancel              the same as 'cancel SERVER'\n", TAKES_SERVER | TAKES_DRAIN, cli_drain },
	{ "cancel", "SERVER", "stop a drain; what was moved stays moved", "", TAKES_SERVER, cli_cancel },
	{ "undrain", "SERVER", "take a server back into use; a drain of it that still runs is cancelled", "",
	  TAKES_SERVER, cli_undrain },
	{ "check", "", "compare the daemon's books with what it stores, while it goes on serving",
	  "Every allocated slot must be named by one page, every page that is stored must name an allocated slot, and every\n"
	  "count must be right. A difference is a bug; the exit status is then 1.\n", 0, cli_check },
	{ "swapoff", "", "turn swap off and take the front end down",
	  "The kernel reads every page back first, so there must be room in memory.\n\n"
	  "  --wait                wait until it is off\n"
	  "  --exit                let the daemon exit afterwards\n", TAKES_SWAPOFF, cli_swapoff },
	{ "version", "", "of this tool and of the daemon", "", 0, cli_version },
};

static const struct option long_options[] = {
	{ "socket", required_argument, NULL, 's' },   { "output", required_argument, NULL, 'o' },
	{ "help", no_argument, NULL, 'h' },	      { "version", no_argument, NULL, 'V' },
	{ "to", required_argument, NULL, OPT_TO },    { "deadline", required_argument, NULL, OPT_DEADLINE },
	{ "window", required_argument, NULL, OPT_WINDOW }, { "detach", no_argument, NULL, OPT_DETACH },
	{ "cancel", no_argument, NULL, OPT_CANCEL },  { "wait", no_argument, NULL, OPT_WAIT },
	{ "exit", no_argument, NULL, OPT_EXIT },      { NULL, 0, NULL, 0 },
};

int cli_fail(enum cli_exit status, const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fputs("farswapctl: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < BASE_ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static void print_common(void)
{
	fputs("  -s, --socket PATH     of the daemon [" DEFAULT_SOCKET "]\n"
	      "  -o, --output FORMAT   table (for people, the default) or json\n"
	      "  -h, --help            print this and exit\n"
	      "\nExit status: 0 done; 1 the operation failed (a drain that ended otherwise than 'drained', a check\n"
	      "that found something); 2 wrong usage;\n"
	      "3 the daemon cannot be reached; 4 no such server; 130 interrupted, what was begun goes on.\n", stdout);
}

static int print_help(const struct command *command)
{
	if (command) {
		printf("Usage: farswapctl %s [OPTION]...%s%s\n%s\n\n%s%s", command->name, command->args[0] ? " " : "",
		       command->args, command->summary, command->help, command->help[0] ? "\n" : "");
		print_common();
		return CLI_DONE;
	}
	printf("Usage: farswapctl [OPTION]... COMMAND [ARG]...\nLooks after a farswapd.\n\n");
	for (size_t i = 0; i < BASE_ARRAY_SIZE(commands); i++)
		printf("  %-8s%-7s %s\n", commands[i].name, commands[i].args, commands[i].summary);
	printf("  %-15s %s\n\n", "help [COMMAND]", "the same as --help");
	print_common();
	return CLI_DONE;
}

/* One option's value. CLI_DONE or CLI_USAGE. */
static int take_option(struct cli *cli, const struct command *command, int option, const char *value)
{
	uint64_t number;

	if (option == 's') {
		cli->socket = value;
	} else if (option == 'o') {
		cli->json = strcmp(value, "json") == 0;
		if (!cli->json && strcmp(value, "table") != 0)
			return cli_fail(CLI_USAGE, "--output %s: neither table nor json", value);
	} else if (option == OPT_WAIT || option == OPT_EXIT) {
		if (!(command->takes & TAKES_SWAPOFF))
			return cli_fail(CLI_USAGE, "%s has no --wait and no --exit", command->name);
		*(option == OPT_WAIT ? &cli->wait : &cli->leave) = true;
	} else if (!(command->takes & TAKES_DRAIN)) {
		return cli_fail(CLI_USAGE, "%s has no such option; see 'farswapctl %s --help'", command->name,
				command->name);
	} else if (option == OPT_DETACH || option == OPT_CANCEL) {
		*(option == OPT_DETACH ? &cli->detach : &cli->cancel) = true;
	} else if (option == OPT_TO) {
		if (strcmp(value, "any") != 0 && strcmp(value, "remote") != 0 && strcmp(value, "disk") != 0)
			return cli_fail(CLI_USAGE, "--to %s: none of any, remote, disk", value);
		cli->target = value;
	} else if (option == OPT_DEADLINE) {
		if (config_parse_duration(value, &cli->deadline_ms) < 0)
			return cli_fail(CLI_USAGE, "--deadline %s: not a time, such as 30s", value);
	} else {
		if (config_parse_u64(value, &number) < 0 || number == 0 || number > UINT32_MAX)
			return cli_fail(CLI_USAGE, "--window %s: not a number of pages", value);
		cli->window_pages = (uint32_t)number;
	}
	return CLI_DONE;
}

/*
 * Options may stand before the command or after it, so the command is looked for first. Returns the exit status, or -1
 * when there is something to run.
 */
static int parse(int argc, char **argv, struct cli *cli, const struct command **ret_command)
{
	const struct command *command = NULL;
	bool help = false, wants_help;
	int option, ret;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "s:o:hV", long_options, NULL)) != -1)
		;
	if (optind < argc) {
		command = find_command(argv[optind]);
		wants_help = strcmp(argv[optind], "help") == 0;
		if (wants_help && optind + 1 < argc)
			command = find_command(argv[optind + 1]);
		if (!command && (!wants_help || optind + 1 < argc))
			return cli_fail(CLI_USAGE, "%s: unknown command; see 'farswapctl --help'",
					argv[wants_help ? optind + 1 : optind]);
		if (wants_help)
			return print_help(command);
	}
	optind = 0; /* glibc: begin anew */
	while ((option = getopt_long(argc, argv, "s:o:hV", long_options, NULL)) != -1) {
		if (option == '?')
			return cli_fail(CLI_USAGE, "%s: unknown option, or without its value; see 'farswapctl --help'",
					argv[optind - 1]);
		if (option == 'V') {
			puts("farswapctl " FARSWAP_VERSION);
			return CLI_DONE;
		}
		if (option == 'h') {
			help = true;
			continue;
		}
		if (!command && option != 's' && option != 'o')
			continue;
		ret = take_option(cli, command, option, optarg);
		if (ret != CLI_DONE)
			return ret;
	}
	if (help)
		return print_help(command);
	if (!command)
		return cli_fail(CLI_USAGE, "no command given; see 'farswapctl --help'");
	*ret_command = command;
	return -1;
}

static int take_arguments(int argc, char **argv, const struct command *command, struct cli *cli)
{
	int nr = argc - optind - 1;
	bool needs_server = command->takes & TAKES_SERVER;

	if (needs_server && nr == 0)
		return cli_fail(CLI_USAGE, "%s: which server? 'farswapctl servers' lists them", command->name);
	if (nr > needs_server)
		return cli_fail(CLI_USAGE, "%s: unexpected argument", argv[optind + 1 + needs_server]);
	if (needs_server)
		cli->server = argv[optind + 1];
	return CLI_DONE;
}

int main(int argc, char **argv)
{
	struct cli cli = { .socket = DEFAULT_SOCKET, .target = "" };
	const struct command *command = NULL;
	int ret = parse(argc, argv, &cli, &command);

	if (ret >= 0)
		return ret;
	ret = take_arguments(argc, argv, command, &cli);
	if (ret != CLI_DONE)
		return ret;
	/* What the libraries have to say goes into the error of the call. */
	log_init("farswapctl", LOG_LEVEL_ERROR);
	rpc_init();
	ret = cli_connect(&cli);
	if (ret != CLI_DONE)
		return ret;
	ret = command->run(&cli);
	rpc_client_free(cli.client);
	return ret;
}

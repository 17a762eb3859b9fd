#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/farswapctl/cli.h"

#define BAR_COLUMNS 30
#define LINE_EVERY_MS 1000 /* where there is no terminal to redraw */

typedef Farswap__Admin__V1__DrainProgress progress_message;

struct drain_view {
	const struct cli *cli;
	bool bar; /* stdout is a terminal, on which one line is drawn again and again */
	uint64_t line_ms; /* when the next line is due, in the drain's time */
	Farswap__Admin__V1__DrainState state;
	int print_result;
};

static const char *state_name(Farswap__Admin__V1__DrainState state)
{
	switch (state) {
	case FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_RUNNING:
		return "running";
	case FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_DRAINED:
		return "drained";
	case FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_CANCELLED:
		return "cancelled";
	case FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_DEADLINE:
		return "deadline";
	case FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_NO_ROOM:
		return "no_room";
	case FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_FAILED:
		return "failed";
	default:
		return "unknown";
	}
}

static bool is_final(const progress_message *progress)
{
	return progress->state != FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_RUNNING;
}

static json_t *progress_json(const struct cli *cli, const progress_message *progress)
{
	json_t *stuck = json_array();

	for (size_t i = 0; i < progress->n_stuck; i++)
		json_array_append_new(stuck, json_pack("{s:s, s:s}", "slot", progress->stuck[i]->slot, "reason",
						       progress->stuck[i]->reason));
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "server", cli->server, "state",
			 state_name(progress->state), "pages_total_at_start",
			 cli_json_u64(progress->pages_total_at_start), "pages_moved",
			 cli_json_u64(progress->pages_moved), "pages_left", cli_json_u64(progress->pages_left),
			 "pages_stuck", cli_json_u64(progress->pages_stuck), "bytes_per_second",
			 cli_json_u64(progress->bytes_per_second), "elapsed_ms", cli_json_u64(progress->elapsed_ms),
			 "longest_read_stall_ns", cli_json_u64(progress->longest_read_stall_ns), "stuck", stuck,
			 "message", progress->message);
}

/* What has gone is counted by what is left: pages that were freed meanwhile need not be moved. */
static unsigned percent_done(const progress_message *progress)
{
	uint64_t total = progress->pages_total_at_start, left = progress->pages_left;

	if (total == 0 || left == 0)
		return is_final(progress) && left == 0 ? 100 : total == 0 ? 0 : 99;
	return left >= total ? 0 : (unsigned)((total - left) * 100 / total);
}

static void print_bar(const progress_message *progress)
{
	char full[BAR_COLUMNS + 1], left[CLI_TEXT_MAX], rate[CLI_TEXT_MAX];
	unsigned percent = percent_done(progress);
	unsigned columns = percent * BAR_COLUMNS / 100;

	memset(full, '.', BAR_COLUMNS);
	memset(full, '#', columns);
	full[BAR_COLUMNS] = '\0';
	printf("\r\033[K[%s] %3u%%  %s left  %s/s", full, percent,
	       cli_size(progress->pages_left << FSW_PAGE_SHIFT, left), cli_size(progress->bytes_per_second, rate));
	fflush(stdout);
}

static void print_line(const struct cli *cli, const progress_message *progress)
{
	char moved[CLI_TEXT_MAX], left[CLI_TEXT_MAX], rate[CLI_TEXT_MAX];

	printf("%s: %u%%, %s moved, %s left, %s/s\n", cli->server, percent_done(progress),
	       cli_size(progress->pages_moved << FSW_PAGE_SHIFT, moved),
	       cli_size(progress->pages_left << FSW_PAGE_SHIFT, left), cli_size(progress->bytes_per_second, rate));
	fflush(stdout);
}

static void print_end(const struct cli *cli, const progress_message *progress)
{
	char moved[CLI_TEXT_MAX], rate[CLI_TEXT_MAX], stall[CLI_TEXT_MAX], elapsed[CLI_TEXT_MAX];

	printf("%s: %s: %s\n", cli->server, state_name(progress->state), progress->message);
	printf("%s moved in %s, %s/s; longest read meanwhile %s\n",
	       cli_size(progress->pages_moved << FSW_PAGE_SHIFT, moved),
	       cli_time(progress->elapsed_ms * 1000000, elapsed), cli_size(progress->bytes_per_second, rate),
	       cli_time(progress->longest_read_stall_ns, stall));
	for (size_t i = 0; i < progress->n_stuck; i++)
		printf("  %s: %s\n", progress->stuck[i]->slot, progress->stuck[i]->reason);
	if (progress->pages_stuck > progress->n_stuck)
		printf("  and %" PRIu64 " more\n", progress->pages_stuck - progress->n_stuck);
}

static bool drain_take(void *arg, const ProtobufCMessage *message)
{
	const progress_message *progress = (const progress_message *)message;
	struct drain_view *view = arg;
	const struct cli *cli = view->cli;

	view->state = progress->state;
	if (cli->json) {
		view->print_result = cli_json_print(progress_json(cli, progress), true);
	} else if (is_final(progress)) {
		if (view->bar)
			printf("\r\033[K");
		print_end(cli, progress);
	} else if (view->bar && !cli->detach) {
		print_bar(progress);
	} else if (!cli->detach && progress->elapsed_ms >= view->line_ms) {
		print_line(cli, progress);
		view->line_ms = progress->elapsed_ms + LINE_EVERY_MS;
	}
	return view->print_result == CLI_DONE && !is_final(progress) && !cli->detach;
}

int cli_drain(struct cli *cli)
{
	Farswap__Admin__V1__DrainRequest request = FARSWAP__ADMIN__V1__DRAIN_REQUEST__INIT;
	struct drain_view view = { .cli = cli, .bar = isatty(STDOUT_FILENO) };
	int ret;

	if (cli->cancel)
		return cli_cancel(cli);
	request.server = (char *)(uintptr_t)cli->server;
	request.target = (char *)(uintptr_t)cli->target;
	request.deadline_ms = cli->deadline_ms;
	request.window_pages = cli->window_pages;
	ret = cli_follow(cli, CLI_METHOD("Drain"), &request.base, &farswap__admin__v1__drain_progress__descriptor,
			 drain_take, &view);
	if (ret == CLI_INTERRUPTED) {
		fprintf(stderr, "%sThe drain of %s goes on. To stop it: farswapctl cancel %s\n",
			view.bar && !cli->json ? "\n" : "", cli->server, cli->server);
		return ret;
	}
	if (ret != CLI_DONE)
		return ret;
	if (view.print_result != CLI_DONE)
		return view.print_result;
	if (view.state == FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_DRAINED)
		return CLI_DONE;
	if (view.state == FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_RUNNING && cli->detach) {
		if (!cli->json)
			printf("The drain of %s has begun. To follow it: farswapctl drain %s; to stop it: "
			       "farswapctl cancel %s\n",
			       cli->server, cli->server, cli->server);
		return CLI_DONE;
	}
	return CLI_FAILED;
}

#include <stdio.h>

#include "client/ctl/farswapctl/cli.h"

typedef Farswap__Admin__V1__SwapoffProgress progress_message;

struct swapoff_view {
	const struct cli *cli;
	bool done;
	uint64_t last_bytes;
	int print_result;
};

static bool swapoff_take(void *arg, const ProtobufCMessage *message)
{
	const progress_message *progress = (const progress_message *)message;
	struct swapoff_view *view = arg;

	view->done = progress->done;
	if (view->cli->json)
		view->print_result = cli_json_print(json_pack("{s:o, s:b, s:s}", "swap_used_bytes",
							      cli_json_u64(progress->swap_used_bytes), "done",
							      (int)progress->done, "message", progress->message),
						    true);
	else if (progress->done || progress->swap_used_bytes != view->last_bytes)
		puts(progress->message);
	fflush(stdout);
	view->last_bytes = progress->swap_used_bytes;
	return view->print_result == CLI_DONE && !progress->done && view->cli->wait;
}

int cli_swapoff(struct cli *cli)
{
	Farswap__Admin__V1__SwapoffRequest request = FARSWAP__ADMIN__V1__SWAPOFF_REQUEST__INIT;
	struct swapoff_view view = { .cli = cli, .last_bytes = UINT64_MAX };
	int ret;

	request.exit = cli->leave;
	ret = cli_follow(cli, CLI_METHOD("Swapoff"), &request.base,
			 &farswap__admin__v1__swapoff_progress__descriptor, swapoff_take, &view);
	if (ret == CLI_INTERRUPTED)
		fprintf(stderr, "The swapoff goes on; 'farswapctl status' tells when swap is off.\n");
	if (ret != CLI_DONE)
		return ret;
	if (view.print_result != CLI_DONE)
		return view.print_result;
	if (!view.done && cli->wait)
		return cli_fail(CLI_FAILED, "the daemon ended the stream before swap was off");
	if (!view.done && !cli->json)
		puts("The swapoff has begun; 'farswapctl status' tells when swap is off.");
	return CLI_DONE;
}

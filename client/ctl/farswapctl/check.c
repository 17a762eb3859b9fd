#include <inttypes.h>
#include <stdio.h>

#include "client/ctl/farswapctl/cli.h"

#define CHECK_TIMEOUT_MS (10 * 60 * 1000)

typedef Farswap__Admin__V1__CheckResult check_message;

static int print_json(const check_message *result)
{
	json_t *list = json_array();

	for (size_t i = 0; i < result->n_difference; i++)
		json_array_append_new(list, json_string(result->difference[i]));
	return cli_json_print(json_pack("{s:o, s:o, s:o, s:o, s:o}", "entries", cli_json_u64(result->entries), "slots",
					cli_json_u64(result->slots), "differences", cli_json_u64(result->differences),
					"unsettled", cli_json_u64(result->unsettled), "difference", list), false);
}

static void print_text(const check_message *result)
{
	printf("%" PRIu64 " pages in use, %" PRIu64 " slots: %" PRIu64 " differences", result->entries, result->slots,
	       result->differences);
	if (result->unsettled)
		printf(", %" PRIu64 " could not be settled", result->unsettled);
	putchar('\n');
	for (size_t i = 0; i < result->n_difference; i++)
		printf("  %s\n", result->difference[i]);
	if (result->differences > result->n_difference)
		printf("  and %" PRIu64 " more\n", result->differences - result->n_difference);
}

int cli_check(struct cli *cli)
{
	Farswap__Admin__V1__CheckRequest request = FARSWAP__ADMIN__V1__CHECK_REQUEST__INIT;
	ProtobufCMessage *reply;
	const check_message *result;
	int ret = cli_call_within(cli, CLI_METHOD("Check"), &request.base, &farswap__admin__v1__check_result__descriptor,
				  CHECK_TIMEOUT_MS, &reply);

	if (ret != CLI_DONE)
		return ret;
	result = (const check_message *)reply;
	if (cli->json)
		ret = print_json(result);
	else
		print_text(result);
	if (ret == CLI_DONE && result->differences)
		ret = CLI_FAILED;
	rpc_message_free(reply);
	return ret;
}

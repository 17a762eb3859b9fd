/*
 * farswapctl, the operator's tool: one process, one command, one thread of its own.
 */
#ifndef FARSWAP_CLIENT_CTL_FARSWAPCTL_CLI_H
#define FARSWAP_CLIENT_CTL_FARSWAPCTL_CLI_H

#include <jansson.h>
#include <libsmartcols.h>

#include "common/base/base.h"
#include "common/rpc/rpc.h"
#include "proto/admin.pb-c.h"

#define CLI_TIMEOUT_MS 10000 /* of a call that is no stream */

enum cli_exit {
	CLI_DONE = 0,
	CLI_FAILED = 1,	     /* the operation did not succeed */
	CLI_USAGE = 2,	     /* nothing was asked of the daemon, or it says that the question makes no sense */
	CLI_UNREACHABLE = 3, /* no daemon there */
	CLI_NO_SERVER = 4,   /* no server of that name */
	CLI_INTERRUPTED = 130, /* by Ctrl-C; what was begun goes on */
};

struct cli {
	const char *socket;
	bool json;
	struct rpc_client *client;
	/* Of commands that have them. */
	const char *server;
	const char *target;
	uint64_t deadline_ms;
	uint32_t window_pages;
	bool cancel, detach, wait, leave;
};

#define CLI_METHOD(name) "/farswap.admin.v1.Admin/" name

/* ---- main.c ---- */

/* One line on stderr. Returns the exit status. */
int cli_fail(enum cli_exit status, const char *fmt, ...) BASE_PRINTF(2, 3);

/* ---- call.c ---- */

/* Begins to connect. CLI_DONE or what to exit with, after a line on stderr. */
int cli_connect(struct cli *cli);
/* One call. CLI_DONE and a reply that the caller frees, or what to exit with, after a line on stderr. */
int cli_call(struct cli *cli, const char *path, const ProtobufCMessage *request,
	     const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **ret_reply);
/* The same for a call that may take its time. */
int cli_call_within(struct cli *cli, const char *path, const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *reply_type, int timeout_ms, ProtobufCMessage **ret_reply);
/* What to exit with after a call or a stream that failed, after a line on stderr. */
int cli_call_failed(const struct cli *cli, const struct rpc_status *status);

/*
 * Opens a stream and hands its messages to take() until it ends, take() returns false, or Ctrl-C: CLI_DONE,
 * CLI_INTERRUPTED, or what to exit with, after a line on stderr. No message within CLI_TIMEOUT_MS is an error.
 */
int cli_follow(struct cli *cli, const char *path, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *message_type, bool (*take)(void *arg, const ProtobufCMessage *message),
	       void *arg);

/* ---- print.c ---- */

#define CLI_TEXT_MAX 32

/* "1.5G", "64M", "0": for people. */
const char *cli_size(uint64_t bytes, char text[CLI_TEXT_MAX]);
/* "850ns", "12.5us", "3.2ms", "1.0s". */
const char *cli_time(uint64_t ns, char text[CLI_TEXT_MAX]);
/* "2d 03:04:05". */
const char *cli_uptime(uint64_t ms, char text[CLI_TEXT_MAX]);

/* A table with these columns; a name that begins with '>' stands to the right. NULL: out of memory. */
struct libscols_table *cli_table(const char *const *columns, bool headings);
/* Adds a row; the number of texts is that of the columns. 0 or a negative errno. */
int cli_table_row(struct libscols_table *table, const char *const *texts);
/* Prints and frees it. CLI_DONE or CLI_FAILED. A NULL table is out of memory. */
int cli_table_print(struct libscols_table *table);

/* Prints one document on one line or, for people's eyes, on several, and lets go of it. CLI_DONE or CLI_FAILED. */
int cli_json_print(json_t *document, bool one_line);
json_t *cli_json_u64(uint64_t value);

/* ---- the commands ---- */

int cli_status(struct cli *cli);
int cli_version(struct cli *cli);
int cli_servers(struct cli *cli);
int cli_check(struct cli *cli);
int cli_cancel(struct cli *cli);
int cli_undrain(struct cli *cli);
int cli_drain(struct cli *cli);
int cli_swapoff(struct cli *cli);

#endif

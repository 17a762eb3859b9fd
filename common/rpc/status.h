/*
 * How a call ends: a code and a message that names the thing.
 *
 * Pure, any thread.
 */
#ifndef FARSWAP_COMMON_RPC_STATUS_H
#define FARSWAP_COMMON_RPC_STATUS_H

#include "common/base/base.h"

/* The codes of gRPC, by their numbers on the wire (grpc/doc/statuscodes.md). */
enum rpc_code {
	RPC_OK = 0,
	RPC_CANCELLED = 1,
	RPC_UNKNOWN = 2,
	RPC_INVALID_ARGUMENT = 3,
	RPC_DEADLINE_EXCEEDED = 4,
	RPC_NOT_FOUND = 5,
	RPC_ALREADY_EXISTS = 6,
	RPC_PERMISSION_DENIED = 7,
	RPC_RESOURCE_EXHAUSTED = 8,
	RPC_FAILED_PRECONDITION = 9,
	RPC_ABORTED = 10,
	RPC_OUT_OF_RANGE = 11,
	RPC_UNIMPLEMENTED = 12,
	RPC_INTERNAL = 13,
	RPC_UNAVAILABLE = 14,
	RPC_DATA_LOSS = 15,
	RPC_UNAUTHENTICATED = 16,
};

#define RPC_STATUS_MESSAGE_MAX 256 /* with its end; what is longer is cut */

struct rpc_status {
	enum rpc_code code;
	char message[RPC_STATUS_MESSAGE_MAX]; /* valid UTF-8; empty when the code is RPC_OK */
};

/* "NOT_FOUND"; "UNKNOWN" for a number that is no code. Static text. */
const char *rpc_code_name(enum rpc_code code);

/* The code that says to a caller what a negative errno says to us; RPC_OK for 0 and above. */
enum rpc_code rpc_code_from_errno(int err);

/* The negative errno that comes nearest to a code; 0 for RPC_OK. */
int rpc_code_to_errno(enum rpc_code code);

/*
 * Sets the status and returns its code, so that a function can end with it. Bytes of the message that are not UTF-8
 * become question marks. A NULL status is passed over.
 */
enum rpc_code rpc_status_set(struct rpc_status *status, enum rpc_code code, const char *fmt, ...) BASE_PRINTF(3, 4);

/* The same for a negative errno, whose text is added: "<message>: Address already in use". Returns err. */
int rpc_status_set_errno(struct rpc_status *status, int err, const char *fmt, ...) BASE_PRINTF(3, 4);

#endif

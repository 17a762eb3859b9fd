#include <stdarg.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

const char *rpc_code_name(enum rpc_code code)
{
	switch (code) {
	case RPC_OK: return "OK";
	case RPC_CANCELLED: return "CANCELLED";
	case RPC_UNKNOWN: return "UNKNOWN";
	case RPC_INVALID_ARGUMENT: return "INVALID_ARGUMENT";
	case RPC_DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
	case RPC_NOT_FOUND: return "NOT_FOUND";
	case RPC_ALREADY_EXISTS: return "ALREADY_EXISTS";
	case RPC_PERMISSION_DENIED: return "PERMISSION_DENIED";
	case RPC_RESOURCE_EXHAUSTED: return "RESOURCE_EXHAUSTED";
	case RPC_FAILED_PRECONDITION: return "FAILED_PRECONDITION";
	case RPC_ABORTED: return "ABORTED";
	case RPC_OUT_OF_RANGE: return "OUT_OF_RANGE";
	case RPC_UNIMPLEMENTED: return "UNIMPLEMENTED";
	case RPC_INTERNAL: return "INTERNAL";
	case RPC_UNAVAILABLE: return "UNAVAILABLE";
	case RPC_DATA_LOSS: return "DATA_LOSS";
	case RPC_UNAUTHENTICATED: return "UNAUTHENTICATED";
	}
	return "UNKNOWN"; /* a peer may send any number */
}

enum rpc_code rpc_code_from_errno(int err)
{
	if (err >= 0)
		return RPC_OK;
	switch (-err) {
	case EINVAL:
	case EILSEQ:
	case EBADMSG:
	case ENAMETOOLONG: return RPC_INVALID_ARGUMENT;
	case ERANGE: return RPC_OUT_OF_RANGE;
	case ENOENT:
	case ENODEV:
	case ESTALE: return RPC_NOT_FOUND;
	case EEXIST: return RPC_ALREADY_EXISTS;
	case EACCES:
	case EPERM: return RPC_PERMISSION_DENIED;
	case ENOMEM:
	case ENOSPC:
	case EMFILE:
	case ENFILE: return RPC_RESOURCE_EXHAUSTED;
	case EBUSY: return RPC_FAILED_PRECONDITION;
	case ETIMEDOUT: return RPC_DEADLINE_EXCEEDED;
	case ECANCELED: return RPC_CANCELLED;
	case ENOSYS:
	case EOPNOTSUPP: return RPC_UNIMPLEMENTED;
	case EAGAIN:
	case ENOTCONN:
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EPIPE:
	case ESHUTDOWN: return RPC_UNAVAILABLE;
	case ENODATA: return RPC_DATA_LOSS;
	default: return RPC_INTERNAL;
	}
}

int rpc_code_to_errno(enum rpc_code code)
{
	switch (code) {
	case RPC_OK: return 0;
	case RPC_CANCELLED: return -ECANCELED;
	case RPC_INVALID_ARGUMENT: return -EINVAL;
	case RPC_DEADLINE_EXCEEDED: return -ETIMEDOUT;
	case RPC_NOT_FOUND: return -ENOENT;
	case RPC_ALREADY_EXISTS: return -EEXIST;
	case RPC_PERMISSION_DENIED:
	case RPC_UNAUTHENTICATED: return -EACCES;
	case RPC_RESOURCE_EXHAUSTED: return -ENOSPC;
	case RPC_FAILED_PRECONDITION: return -EBUSY;
	case RPC_OUT_OF_RANGE: return -ERANGE;
	case RPC_UNIMPLEMENTED: return -ENOSYS;
	case RPC_ABORTED: return -EAGAIN;
	case RPC_UNAVAILABLE: return -ENOTCONN;
	case RPC_DATA_LOSS: return -ENODATA;
	case RPC_UNKNOWN:
	case RPC_INTERNAL: break;
	}
	return -EIO;
}

static void BASE_PRINTF(2, 0) status_format(struct rpc_status *status, const char *fmt, va_list args)
{
	vsnprintf(status->message, sizeof(status->message), fmt, args);
	/* Also mends a character that the end of the buffer has cut. */
	rpc_utf8_clean(status->message);
}

enum rpc_code rpc_status_set(struct rpc_status *status, enum rpc_code code, const char *fmt, ...)
{
	va_list args;

	if (!status)
		return code;
	status->code = code;
	va_start(args, fmt);
	status_format(status, fmt, args);
	va_end(args);
	return code;
}

int rpc_status_set_errno(struct rpc_status *status, int err, const char *fmt, ...)
{
	struct rpc_status what = { .code = RPC_OK };
	va_list args;

	va_start(args, fmt);
	status_format(&what, fmt, args);
	va_end(args);
	rpc_status_set(status, rpc_code_from_errno(err), "%s: %s", what.message, err_text(err));
	return err;
}

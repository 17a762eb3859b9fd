/*
 * The Watch stream: what the lender has to tell the holder of a lease, as it happens.
 */
#include <errno.h>
#include <inttypes.h>

#include "proto/memory.pb-c.h"
#include "server/ctl/service_private.h"

static int watch_send_welcome(struct rpc_call *call)
{
	struct service *service = rpc_call_user(call);
	Farswap__Memory__V1__Welcome welcome = FARSWAP__MEMORY__V1__WELCOME__INIT;
	Farswap__Memory__V1__WatchEvent message = FARSWAP__MEMORY__V1__WATCH_EVENT__INIT;
	struct lender_capacity capacity;

	lender_capacity(service->options.lender, &capacity);
	welcome.accepting = capacity.accepting;
	welcome.slabs_free = capacity.slabs.nr[ARENA_SLAB_FREE];
	message.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_WELCOME;
	message.welcome = &welcome;
	return rpc_call_send(call, &message.base);
}

static int watch_send_stopping(struct rpc_call *call)
{
	Farswap__Memory__V1__ServerStopping stopping = FARSWAP__MEMORY__V1__SERVER_STOPPING__INIT;
	Farswap__Memory__V1__WatchEvent message = FARSWAP__MEMORY__V1__WATCH_EVENT__INIT;

	message.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_SERVER_STOPPING;
	message.server_stopping = &stopping;
	return rpc_call_send(call, &message.base);
}

static int watch_send_event(struct rpc_call *call, struct lender_event *event)
{
	Farswap__Memory__V1__DrainRequested requested = FARSWAP__MEMORY__V1__DRAIN_REQUESTED__INIT;
	Farswap__Memory__V1__DrainCancelled cancelled = FARSWAP__MEMORY__V1__DRAIN_CANCELLED__INIT;
	Farswap__Memory__V1__LeaseRevoked revoked = FARSWAP__MEMORY__V1__LEASE_REVOKED__INIT;
	Farswap__Memory__V1__WatchEvent message = FARSWAP__MEMORY__V1__WATCH_EVENT__INIT;

	switch (event->type) {
	case LENDER_EVENT_NONE:
		return 0;
	case LENDER_EVENT_DRAIN_REQUESTED:
		requested.deadline_ms = event->deadline_ms;
		requested.reason = event->reason;
		message.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_REQUESTED;
		message.drain_requested = &requested;
		break;
	case LENDER_EVENT_DRAIN_CANCELLED:
		message.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_CANCELLED;
		message.drain_cancelled = &cancelled;
		break;
	case LENDER_EVENT_LEASE_ENDED:
		revoked.reason = event->reason;
		message.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_LEASE_REVOKED;
		message.lease_revoked = &revoked;
		break;
	}
	return rpc_call_send(call, &message.base);
}

/* 0 when the stream has come to its end; -ECANCELED when there is nobody to tell any more. */
static int watch_loop(struct rpc_call *call, struct lender_watch *watch)
{
	struct service *service = rpc_call_user(call);
	int ret = watch_send_welcome(call);

	while (ret >= 0) {
		struct lender_event event;

		lender_watch_next(service->options.lender, watch, &event);
		ret = watch_send_event(call, &event);
		if (ret < 0 || event.type == LENDER_EVENT_LEASE_ENDED)
			return ret;
		if (event.type == LENDER_EVENT_NONE)
			ret = rpc_call_wait(call, -1);
	}
	return ret == -ESHUTDOWN ? watch_send_stopping(call) : ret;
}

enum rpc_code service_watch(struct rpc_call *call, const ProtobufCMessage *message)
{
	struct service *service = rpc_call_user(call);
	const Farswap__Memory__V1__WatchRequest *request = (const Farswap__Memory__V1__WatchRequest *)message;
	struct lender_proof proof = service_proof(request->lease_id, request->token);
	struct lender_watch *watch;
	int ret = lender_watch_open(service->options.lender, &proof, &watch);

	if (ret == -EMFILE)
		return rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "lease %016" PRIx64 " has %d watches already",
				     request->lease_id, LENDER_MAX_WATCHES);
	if (ret < 0)
		return service_fail(call, ret, request->lease_id);
	ret = watch_loop(call, watch);
	lender_watch_close(service->options.lender, watch);
	return ret < 0 ? rpc_call_fail_errno(call, ret, "watch of lease %016" PRIx64, request->lease_id) : RPC_OK;
}

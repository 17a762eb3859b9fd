#include <errno.h>
#include <stdio.h>

#include "client/ctl/keeper_private.h"
#include "common/log/log.h"

/* Waits for a session. Its generation, or 0 when the keeper stops. */
static uint32_t watch_wait_for_session(struct keeper *keeper, uint32_t after)
{
	uint32_t generation;

	lock_acquire(&keeper->lock);
	while (!keeper->stopping && (keeper->generation == 0 || keeper->generation == after))
		pthread_cond_wait(&keeper->changed, &keeper->lock.m);
	generation = keeper->stopping ? 0 : keeper->generation;
	lock_release(&keeper->lock);
	return generation;
}

static bool watch_session_stands(struct keeper *keeper, uint32_t generation)
{
	bool stands;

	lock_acquire(&keeper->lock);
	stands = !keeper->stopping && !keeper->session_over && keeper->generation == generation;
	lock_release(&keeper->lock);
	return stands;
}

/* Lets the keeper's thread cancel the stream, or says that it is too late for that already. */
static bool watch_publish(struct keeper *keeper, uint32_t generation, struct rpc_stream *stream)
{
	bool stands;

	lock_acquire(&keeper->lock);
	stands = !keeper->stopping && keeper->generation == generation;
	if (stands)
		keeper->stream = stream;
	lock_release(&keeper->lock);
	return stands;
}

static void watch_unpublish(struct keeper *keeper)
{
	lock_acquire(&keeper->lock);
	keeper->stream = NULL;
	lock_release(&keeper->lock);
}

static void watch_take(struct keeper *keeper, uint32_t generation, const struct memserver_event *event)
{
	struct backend *backend = keeper->options.backend;
	char why[KEEPER_ERROR_MAX];

	switch (event->type) {
	case MEMSERVER_EVENT_NONE:
		return;
	case MEMSERVER_EVENT_WELCOME:
		/* A drain may have been taken back while nobody watched. */
		if (event->accepting)
			drains_server_relents(keeper->options.drains, backend);
		return;
	case MEMSERVER_EVENT_DRAIN_REQUESTED:
		log_notice("%s: the server wants its memory back%s%s", keeper->address, event->reason[0] ? ": " : "",
			   event->reason);
		lock_acquire(&keeper->lock);
		keeper->accepting = false;
		lock_release(&keeper->lock);
		drains_server_wants(keeper->options.drains, backend, event->deadline_ms);
		break;
	case MEMSERVER_EVENT_DRAIN_CANCELLED:
		log_notice("%s: the server does not want its memory back any more", keeper->address);
		lock_acquire(&keeper->lock);
		keeper->accepting = true;
		lock_release(&keeper->lock);
		drains_server_relents(keeper->options.drains, backend);
		break;
	case MEMSERVER_EVENT_LEASE_REVOKED:
		snprintf(why, sizeof(why), "the server has ended our lease: %s", event->reason);
		keeper_session_is_over(keeper, generation, why);
		break;
	case MEMSERVER_EVENT_STOPPING:
		/* What is connected may still be read. */
		log_notice("%s: the server stops", keeper->address);
		lock_acquire(&keeper->lock);
		keeper->server_stopping = keeper->generation == generation;
		lock_release(&keeper->lock);
		break;
	}
	keeper->options.changed(keeper->options.user);
}

/* One stream, from its beginning to its end. False: no use in another for this session. */
static bool watch_stream(struct keeper *keeper, uint32_t generation, const struct memserver_lease *lease,
			 struct backoff *backoff)
{
	struct memserver_event event;
	struct rpc_stream *stream;
	struct rpc_status status;
	enum rpc_code code;

	if (memserver_watch_open(keeper->client, lease, &stream) < 0)
		return true;
	if (watch_publish(keeper, generation, stream)) {
		while (memserver_watch_next(stream, &event) > 0) {
			backoff_reset(backoff);
			watch_take(keeper, generation, &event);
		}
		watch_unpublish(keeper);
	}
	code = rpc_stream_close(stream, &status);
	if (code == RPC_NOT_FOUND || code == RPC_PERMISSION_DENIED)
		keeper_session_is_over(keeper, generation, status.message);
	return code != RPC_UNIMPLEMENTED;
}

static void watch_session(struct keeper *keeper, uint32_t generation, struct backoff *backoff)
{
	struct memserver_lease lease;
	bool goes_on = true;

	/* The keeper's thread changes it only when this generation is over, and that is checked under the lock. */
	lock_acquire(&keeper->lock);
	if (keeper->generation == generation)
		lease = keeper->lease;
	else
		goes_on = false;
	lock_release(&keeper->lock);
	while (goes_on && watch_session_stands(keeper, generation)) {
		goes_on = watch_stream(keeper, generation, &lease, backoff);
		keeper_sleep(keeper, generation, backoff_next_ms(backoff));
	}
}

void *keeper_watch_run(void *arg)
{
	struct keeper *keeper = arg;
	struct backoff backoff;
	uint32_t generation = 0;

	backoff_init(&backoff, keeper->options.seed + 3, BACKOFF_LAST_MS);
	while ((generation = watch_wait_for_session(keeper, generation)) != 0)
		watch_session(keeper, generation, &backoff);
	return NULL;
}

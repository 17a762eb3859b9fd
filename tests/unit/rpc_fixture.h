/*
 * A server on a unix socket of a folder of its own, and a client of it: what the tests of common/rpc share. The service
 * borrows the messages of farswap.memory.v1; what a call does is said by the client_id or lease_id in its request.
 */
#ifndef FARSWAP_TESTS_UNIT_RPC_FIXTURE_H
#define FARSWAP_TESTS_UNIT_RPC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"
#include "proto/health.pb-c.h"
#include "proto/memory.pb-c.h"

#define FIXTURE_LONG_MS 20000 /* more than anything here takes, on any machine */

#define FIXTURE_UNARY "/test.v1.Test/Unary"
#define FIXTURE_STREAM "/test.v1.Test/Stream"
#define FIXTURE_RELEASE "/test.v1.Test/Release"
#define FIXTURE_CHECK "/grpc.health.v1.Health/Check"
#define FIXTURE_WATCH "/grpc.health.v1.Health/Watch"

/* What a unary call or a stream is asked to do. */
enum fixture_deed {
	DEED_ANSWER = 1, /* at once; a stream: three messages */
	DEED_FAIL,	 /* with NOT_FOUND; a stream: after two messages */
	DEED_FAIL_ERRNO,
	DEED_BAD_TEXT,	 /* answer with what is not UTF-8 */
	DEED_LARGE,	 /* answer with 100000 bytes */
	DEED_WAIT,	 /* until the call is cancelled */
	DEED_WAIT_FOR_RELEASE,
	DEED_ON_WAKE,	 /* a stream: one message each time the server is woken, a last one when it stops */
};

struct fixture {
	char folder[32];
	char address[64];
	struct rpc_server_options options;
	struct rpc_server *server;
	struct rpc_client *client;

	struct rpc_monitor monitor;
	int nr_entered;	  /* handlers, ever */
	int nr_cancelled; /* handlers that saw that their call was cancelled */
	bool released;
};

static inline void fixture_count(struct fixture *f, int *count)
{
	lock_acquire(&f->monitor.lock);
	(*count)++;
	pthread_cond_broadcast(&f->monitor.changed);
	lock_release(&f->monitor.lock);
}

static inline int fixture_read(struct fixture *f, const int *count)
{
	int now;

	lock_acquire(&f->monitor.lock);
	now = *count;
	lock_release(&f->monitor.lock);
	return now;
}

/* Waits until the count is at least so high. */
static inline void fixture_await(struct fixture *f, const int *count, int at_least)
{
	lock_acquire(&f->monitor.lock);
	while (*count < at_least)
		rpc_monitor_wait(&f->monitor, NULL);
	lock_release(&f->monitor.lock);
}

static inline void fixture_release(struct fixture *f)
{
	lock_acquire(&f->monitor.lock);
	f->released = true;
	pthread_cond_broadcast(&f->monitor.changed);
	lock_release(&f->monitor.lock);
}

/* Until the call is cancelled, whatever else happens. */
static inline void fixture_wait_for_cancel(struct rpc_call *call, struct fixture *f)
{
	int ret;

	do {
		ret = rpc_call_wait(call, 10);
	} while (ret != -ECANCELED);
	assert_true(rpc_call_cancelled(call));
	fixture_count(f, &f->nr_cancelled);
}

static inline enum rpc_code fixture_on_unary(struct rpc_call *call, const ProtobufCMessage *request,
					     ProtobufCMessage *reply)
{
	const Farswap__Memory__V1__OpenLeaseRequest *req = (const void *)request;
	Farswap__Memory__V1__Lease *lease = (void *)reply;
	struct fixture *f = rpc_call_user(call);

	fixture_count(f, &f->nr_entered);
	lease->lease_id = req->client_id;
	lease->n_data_addresses = 1;
	lease->data_addresses = rpc_call_alloc(call, sizeof(char *));
	lease->data_addresses[0] = rpc_call_printf(call, "hello %s", req->client_name);
	switch (req->client_id) {
	case DEED_FAIL:
		return rpc_call_fail(call, RPC_NOT_FOUND, "no \"%s\" here", req->client_name);
	case DEED_FAIL_ERRNO:
		return rpc_call_fail_errno(call, -ENOSPC, "no room for %s", req->client_name);
	case DEED_BAD_TEXT:
		lease->data_addresses[0] = (char *)(uintptr_t) "\xff";
		break;
	case DEED_LARGE:
		lease->token.len = 100000;
		lease->token.data = rpc_call_alloc(call, lease->token.len);
		break;
	case DEED_WAIT:
		fixture_wait_for_cancel(call, f);
		return RPC_CANCELLED;
	case DEED_WAIT_FOR_RELEASE:
		lock_acquire(&f->monitor.lock);
		while (!f->released)
			rpc_monitor_wait(&f->monitor, NULL);
		lock_release(&f->monitor.lock);
		break;
	}
	return RPC_OK;
}

static inline int fixture_send(struct rpc_call *call, uint32_t slabs_free)
{
	Farswap__Memory__V1__Welcome welcome = FARSWAP__MEMORY__V1__WELCOME__INIT;
	Farswap__Memory__V1__WatchEvent event = FARSWAP__MEMORY__V1__WATCH_EVENT__INIT;

	welcome.slabs_free = slabs_free;
	event.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_WELCOME;
	event.welcome = &welcome;
	return rpc_call_send(call, &event.base);
}

/* The first message, 1, says that the handler is there; each wake sends the next number, a stop 99. */
static inline enum rpc_code fixture_stream_on_wake(struct rpc_call *call, struct fixture *f)
{
	uint32_t number = 1;
	int ret;

	do {
		ret = fixture_send(call, number++);
		if (ret == 0)
			ret = rpc_call_wait(call, -1);
	} while (ret == 1);
	if (ret == -ECANCELED)
		fixture_count(f, &f->nr_cancelled);
	if (ret == -ESHUTDOWN && fixture_send(call, 99) < 0)
		return RPC_CANCELLED;
	return rpc_call_fail(call, RPC_UNAVAILABLE, "goodbye");
}

static inline enum rpc_code fixture_on_stream(struct rpc_call *call, const ProtobufCMessage *request)
{
	const Farswap__Memory__V1__WatchRequest *req = (const void *)request;
	struct fixture *f = rpc_call_user(call);
	uint32_t nr = req->lease_id == DEED_FAIL ? 2 : 3;

	fixture_count(f, &f->nr_entered);
	if (req->lease_id == DEED_ON_WAKE)
		return fixture_stream_on_wake(call, f);
	if (req->lease_id == DEED_WAIT) {
		fixture_wait_for_cancel(call, f);
		return RPC_CANCELLED;
	}
	for (uint32_t i = 1; i <= nr; i++)
		if (fixture_send(call, i) < 0)
			return RPC_CANCELLED;
	if (req->lease_id == DEED_FAIL)
		return rpc_call_fail(call, RPC_FAILED_PRECONDITION, "after %u", nr);
	return RPC_OK;
}

static inline enum rpc_code fixture_on_release(struct rpc_call *call, const ProtobufCMessage *request,
					       ProtobufCMessage *reply)
{
	const Farswap__Memory__V1__ReleaseSlabsRequest *req = (const void *)request;
	Farswap__Memory__V1__ReleaseSlabsResponse *rep = (void *)reply;

	(void)call;
	rep->released = (uint32_t)req->n_slabs;
	return RPC_OK;
}

static const struct rpc_method fixture_methods[] = {
	{ .path = FIXTURE_UNARY,
	  .request = &farswap__memory__v1__open_lease_request__descriptor,
	  .reply = &farswap__memory__v1__lease__descriptor,
	  .unary = fixture_on_unary },
	{ .path = FIXTURE_STREAM,
	  .request = &farswap__memory__v1__watch_request__descriptor,
	  .reply = &farswap__memory__v1__watch_event__descriptor,
	  .stream = fixture_on_stream },
	{ .path = FIXTURE_RELEASE,
	  .request = &farswap__memory__v1__release_slabs_request__descriptor,
	  .reply = &farswap__memory__v1__release_slabs_response__descriptor,
	  .unary = fixture_on_release },
};

static inline void fixture_start_server(struct fixture *f)
{
	struct rpc_status status;

	assert_int_equal(rpc_server_create(&f->options, &f->server), 0);
	if (rpc_server_listen(f->server, f->address, NULL, &status) < 0)
		fail_msg("%s", status.message);
	assert_int_equal(rpc_server_start(f->server), 0);
}

static inline int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->folder, sizeof(f->folder), "/tmp/farswap-rpc-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->address, sizeof(f->address), "unix:%s/sock", f->folder);
	rpc_monitor_init(&f->monitor);
	f->options.methods = fixture_methods;
	f->options.nr_methods = BASE_ARRAY_SIZE(fixture_methods);
	f->options.user = f;
	f->options.max_message_bytes = 1 << 20;
	fixture_start_server(f);
	assert_int_equal(rpc_client_create(f->address, NULL, &f->client, NULL), 0);
	*state = f;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	struct fixture *f = *state;

	rpc_client_free(f->client);
	rpc_server_free(f->server);
	/* Nothing may be left in it. */
	assert_int_equal(rmdir(f->folder), 0);
	rpc_monitor_done(&f->monitor);
	free(f);
	return 0;
}

/* The same server with other limits, and a client that knows nothing of the one before. */
static inline void fixture_limit(struct fixture *f, unsigned max_unary, unsigned max_streams,
				 uint32_t request_timeout_ms)
{
	rpc_client_free(f->client);
	rpc_server_free(f->server);
	f->options.max_unary = max_unary;
	f->options.max_streams = max_streams;
	f->options.request_timeout_ms = request_timeout_ms;
	fixture_start_server(f);
	assert_int_equal(rpc_client_create(f->address, NULL, &f->client, NULL), 0);
}

/* One unary call; the reply is freed here. */
static inline enum rpc_code fixture_call(struct fixture *f, enum fixture_deed deed, const char *name, int timeout_ms,
					 struct rpc_status *ret_status)
{
	Farswap__Memory__V1__OpenLeaseRequest request = FARSWAP__MEMORY__V1__OPEN_LEASE_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	enum rpc_code code;

	request.client_id = deed;
	request.client_name = (char *)(uintptr_t)name;
	code = rpc_client_call(f->client, FIXTURE_UNARY, &request.base, &farswap__memory__v1__lease__descriptor,
			       RPC_WAIT_FOR_READY, timeout_ms, &reply, ret_status);
	rpc_message_free(reply);
	return code;
}

static inline struct rpc_stream *fixture_open(struct fixture *f, enum fixture_deed deed)
{
	Farswap__Memory__V1__WatchRequest request = FARSWAP__MEMORY__V1__WATCH_REQUEST__INIT;
	struct rpc_stream *stream = NULL;

	request.lease_id = deed;
	assert_int_equal(rpc_stream_open(f->client, FIXTURE_STREAM, &request.base,
					 &farswap__memory__v1__watch_event__descriptor, RPC_WAIT_FOR_READY,
					 RPC_NO_TIMEOUT, &stream),
			 0);
	return stream;
}

/* The number in the next message of a stream; 0: the stream has ended. */
static inline uint32_t fixture_next(struct rpc_stream *stream)
{
	ProtobufCMessage *message = NULL;
	uint32_t number;
	int ret = rpc_stream_recv(stream, FIXTURE_LONG_MS, &message);

	if (ret == 0)
		return 0;
	assert_int_equal(ret, 1);
	number = ((Farswap__Memory__V1__WatchEvent *)(void *)message)->welcome->slabs_free;
	rpc_message_free(message);
	return number;
}

/* A unary call of any bytes. */
static inline enum rpc_code fixture_call_bytes(struct fixture *f, const char *path, const void *bytes,
					       size_t len_bytes, const ProtobufCMessageDescriptor *descriptor,
					       struct rpc_status *ret_status)
{
	struct rpc_stream *stream;
	ProtobufCMessage *reply = NULL;
	enum rpc_code code;

	assert_int_equal(rpc_stream_open_bytes(f->client, path, bytes, len_bytes, descriptor, RPC_WAIT_FOR_READY,
					       FIXTURE_LONG_MS, &stream),
			 0);
	code = rpc_stream_finish_unary(stream, &reply, ret_status);
	rpc_message_free(reply);
	return code;
}

#endif

/* deps: common_rpc */

/* Calls, as their two ends see them. */

#include "tests/unit/rpc_fixture.h"

static enum rpc_code call_bytes(struct fixture *f, const char *path, const void *bytes, size_t len_bytes,
				struct rpc_status *ret_status)
{
	return fixture_call_bytes(f, path, bytes, len_bytes, &farswap__memory__v1__lease__descriptor, ret_status);
}

static void test_unary(void **state)
{
	Farswap__Memory__V1__OpenLeaseRequest request = FARSWAP__MEMORY__V1__OPEN_LEASE_REQUEST__INIT;
	Farswap__Memory__V1__Lease *lease;
	struct fixture *f = *state;
	ProtobufCMessage *reply = NULL;
	struct rpc_status status;

	request.client_id = DEED_ANSWER;
	request.client_name = (char *)(uintptr_t) "w\xc3\xb6rld";
	assert_int_equal(rpc_client_call(f->client, FIXTURE_UNARY, &request.base,
					 &farswap__memory__v1__lease__descriptor, RPC_WAIT_FOR_READY, FIXTURE_LONG_MS,
					 &reply, &status),
			 RPC_OK);
	assert_int_equal(status.code, RPC_OK);
	assert_string_equal(status.message, "");
	lease = (void *)reply;
	assert_int_equal(lease->lease_id, DEED_ANSWER);
	assert_int_equal(lease->n_data_addresses, 1);
	assert_string_equal(lease->data_addresses[0], "hello w\xc3\xb6rld");
	rpc_message_free(reply);
	assert_true(rpc_client_is_connected(f->client));
}

static void test_unary_fails(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;

	assert_int_equal(fixture_call(f, DEED_FAIL, "moon", FIXTURE_LONG_MS, &status), RPC_NOT_FOUND);
	assert_int_equal(status.code, RPC_NOT_FOUND);
	assert_string_equal(status.message, "no \"moon\" here");
	assert_int_equal(fixture_call(f, DEED_FAIL_ERRNO, "sun", FIXTURE_LONG_MS, &status), RPC_RESOURCE_EXHAUSTED);
	assert_string_equal(status.message, "no room for sun: No space left on device");
	/* A status is optional. */
	assert_int_equal(fixture_call(f, DEED_FAIL, "moon", FIXTURE_LONG_MS, NULL), RPC_NOT_FOUND);
}

static void test_reply_that_is_not_utf8(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;

	assert_int_equal(fixture_call(f, DEED_BAD_TEXT, "x", FIXTURE_LONG_MS, &status), RPC_INTERNAL);
	assert_non_null(strstr(status.message, "farswap.memory.v1.Lease.data_addresses"));
}

static void test_stream(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream = fixture_open(f, DEED_ANSWER);
	struct rpc_status status;

	for (uint32_t i = 1; i <= 3; i++)
		assert_int_equal(fixture_next(stream), i);
	assert_int_equal(fixture_next(stream), 0);
	assert_int_equal(fixture_next(stream), 0); /* the end stays the end */
	assert_int_equal(rpc_stream_close(stream, &status), RPC_OK);
	assert_int_equal(status.code, RPC_OK);
}

static void test_stream_fails(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream = fixture_open(f, DEED_FAIL);
	struct rpc_status status;

	assert_int_equal(fixture_next(stream), 1);
	assert_int_equal(fixture_next(stream), 2);
	assert_int_equal(fixture_next(stream), 0);
	assert_int_equal(rpc_stream_close(stream, &status), RPC_FAILED_PRECONDITION);
	assert_string_equal(status.message, "after 2");
}

static void test_stream_is_woken(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream = fixture_open(f, DEED_ON_WAKE);
	ProtobufCMessage *message;

	assert_int_equal(fixture_next(stream), 1);
	assert_int_equal(rpc_stream_recv(stream, 1, &message), -ETIMEDOUT);
	rpc_server_wake(f->server);
	assert_int_equal(fixture_next(stream), 2);
	rpc_server_wake(f->server);
	assert_int_equal(fixture_next(stream), 3);
	assert_int_equal(rpc_stream_close(stream, NULL), RPC_CANCELLED);
	fixture_await(f, &f->nr_cancelled, 1);
}

static void *cancel_main(void *arg)
{
	rpc_stream_cancel(arg);
	return NULL;
}

static void test_stream_is_cancelled_by_another_thread(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream = fixture_open(f, DEED_WAIT);
	ProtobufCMessage *message;
	pthread_t thread;

	fixture_await(f, &f->nr_entered, 1);
	assert_int_equal(pthread_create(&thread, NULL, cancel_main, stream), 0);
	assert_int_equal(rpc_stream_recv(stream, -1, &message), 0);
	pthread_join(thread, NULL);
	assert_int_equal(rpc_stream_close(stream, NULL), RPC_CANCELLED);
	fixture_await(f, &f->nr_cancelled, 1);
}

static void test_deadline(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;

	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
	assert_int_equal(fixture_call(f, DEED_WAIT, "x", 100, &status), RPC_DEADLINE_EXCEEDED);
	assert_int_equal(status.code, RPC_DEADLINE_EXCEEDED);
	/* The handler hears of it, too. */
	fixture_await(f, &f->nr_cancelled, 1);
}

static void test_unknown_method(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;

	assert_int_equal(call_bytes(f, "/test.v1.Test/Nothing", "", 0, &status), RPC_UNIMPLEMENTED);
	assert_string_equal(status.message, "no such method: /test.v1.Test/Nothing");
	assert_int_equal(fixture_read(f, &f->nr_entered), 0);
}

static void test_malformed_request(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;

	/* A string of more bytes than there are; a field of the wrong kind; a length that never ends. */
	assert_int_equal(call_bytes(f, FIXTURE_UNARY, "\x0a\xff\xff", 3, &status), RPC_INVALID_ARGUMENT);
	assert_string_equal(status.message, "malformed farswap.memory.v1.OpenLeaseRequest");
	assert_int_equal(call_bytes(f, FIXTURE_UNARY, "\x08\x01", 2, &status), RPC_INVALID_ARGUMENT);
	assert_int_equal(call_bytes(f, FIXTURE_UNARY, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, &status),
			 RPC_INVALID_ARGUMENT);
	assert_int_equal(call_bytes(f, FIXTURE_STREAM, "\x0a", 1, &status), RPC_INVALID_ARGUMENT);
	assert_int_equal(fixture_read(f, &f->nr_entered), 0);
	/* Nobody else notices. */
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
}

static void test_request_that_is_not_utf8(void **state)
{
	Farswap__Memory__V1__OpenLeaseRequest request = FARSWAP__MEMORY__V1__OPEN_LEASE_REQUEST__INIT;
	struct fixture *f = *state;
	struct rpc_stream *stream;
	struct rpc_status status;

	assert_int_equal(call_bytes(f, FIXTURE_UNARY, "\x0a\x02\xc0\x80", 4, &status), RPC_INVALID_ARGUMENT);
	assert_string_equal(status.message, "farswap.memory.v1.OpenLeaseRequest.client_name is not valid UTF-8");
	/* A client of ours does not even send it. */
	assert_int_equal(fixture_call(f, DEED_ANSWER, "\xed\xa0\x80", FIXTURE_LONG_MS, &status), RPC_INVALID_ARGUMENT);
	assert_string_equal(status.message, "farswap.memory.v1.OpenLeaseRequest.client_name is not valid UTF-8");
	request.client_name = (char *)(uintptr_t) "\x80";
	assert_int_equal(rpc_stream_open(f->client, FIXTURE_UNARY, &request.base,
					 &farswap__memory__v1__lease__descriptor, 0, RPC_NO_TIMEOUT, &stream),
			 -EILSEQ);
	assert_int_equal(fixture_read(f, &f->nr_entered), 0);
}

static void test_request_that_is_too_large(void **state)
{
	struct fixture *f = *state;
	char *bytes = calloc(1, 2 << 20);
	struct rpc_status status;

	assert_int_equal(call_bytes(f, FIXTURE_UNARY, bytes, 2 << 20, &status), RPC_RESOURCE_EXHAUSTED);
	assert_int_equal(fixture_read(f, &f->nr_entered), 0);
	free(bytes);
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
}

/* Half a million empty submessages are 1 MB on the wire, which is allowed, and 24 MB of structures, which is not. */
static void test_request_that_grows_too_large(void **state)
{
	const size_t nr = 500000;
	struct fixture *f = *state;
	unsigned char *bytes = malloc(2 * nr);
	struct rpc_status status;

	for (size_t i = 0; i < nr; i++) {
		bytes[2 * i] = 3 << 3 | 2; /* field 3, slabs, by length */
		bytes[2 * i + 1] = 0;
	}
	assert_int_equal(call_bytes(f, FIXTURE_RELEASE, bytes, 2 * nr, &status), RPC_RESOURCE_EXHAUSTED);
	assert_string_equal(status.message, "farswap.memory.v1.ReleaseSlabsRequest: the message takes too much memory");
	assert_int_equal(fixture_call_bytes(f, FIXTURE_RELEASE, bytes, 2 * 1000,
					    &farswap__memory__v1__release_slabs_response__descriptor, &status),
			 RPC_OK);
	free(bytes);
}

static void test_reply_that_is_too_large(void **state)
{
	struct rpc_client_options options = { .max_message_bytes = 50000 };
	struct fixture *f = *state;
	struct rpc_status status;

	assert_int_equal(fixture_call(f, DEED_LARGE, "x", FIXTURE_LONG_MS, &status), RPC_OK);
	rpc_client_free(f->client);
	assert_int_equal(rpc_client_create(f->address, &options, &f->client, NULL), 0);
	assert_int_equal(fixture_call(f, DEED_LARGE, "x", FIXTURE_LONG_MS, &status), RPC_RESOURCE_EXHAUSTED);
}

/* A reply of another type than was expected: the field numbers meet, the kinds do not. */
static void test_reply_that_is_malformed(void **state)
{
	Farswap__Memory__V1__WatchRequest request = FARSWAP__MEMORY__V1__WATCH_REQUEST__INIT;
	struct fixture *f = *state;
	ProtobufCMessage *message;
	struct rpc_stream *stream;
	struct rpc_status status;

	request.lease_id = DEED_ANSWER;
	assert_int_equal(rpc_stream_open(f->client, FIXTURE_STREAM, &request.base,
					 &farswap__memory__v1__lease__descriptor, RPC_WAIT_FOR_READY, FIXTURE_LONG_MS,
					 &stream),
			 0);
	assert_int_equal(rpc_stream_recv(stream, -1, &message), -EBADMSG);
	assert_int_equal(rpc_stream_recv(stream, -1, &message), 0);
	assert_int_equal(rpc_stream_close(stream, &status), RPC_INTERNAL);
	assert_string_equal(status.message, "from the server: malformed farswap.memory.v1.Lease");
}

static void test_method_of_the_wrong_kind(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;

	/* A stream called as if it were unary: the second message is one too many, and it is not a Lease anyway. */
	assert_int_equal(call_bytes(f, FIXTURE_STREAM, "\x09\x01\0\0\0\0\0\0\0", 9, &status), RPC_INTERNAL);
}

static void test_nobody_there(void **state)
{
	Farswap__Memory__V1__OpenLeaseRequest request = FARSWAP__MEMORY__V1__OPEN_LEASE_REQUEST__INIT;
	struct fixture *f = *state;
	ProtobufCMessage *reply;
	struct rpc_status status;

	rpc_server_stop(f->server, 0);
	assert_int_equal(rpc_client_call(f->client, FIXTURE_UNARY, &request.base,
					 &farswap__memory__v1__lease__descriptor, 0, FIXTURE_LONG_MS, &reply, &status),
			 RPC_UNAVAILABLE);
	assert_true(status.message[0] != '\0');
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", 100, &status), RPC_DEADLINE_EXCEEDED);
	assert_false(rpc_client_is_connected(f->client));
}

static void *many_main(void *arg)
{
	struct fixture *f = arg;

	for (int i = 0; i < 100; i++) {
		if (fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL) != RPC_OK)
			return arg;
		if (rpc_stream_close(fixture_open(f, DEED_ANSWER), NULL) == RPC_INTERNAL)
			return arg;
	}
	return NULL;
}

static void test_many_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[4];
	void *failed;

	fixture_limit(f, 4 + 1, 4 + 1, 0);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many_main, f), 0);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(threads); i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unary),
		TEST(test_unary_fails),
		TEST(test_reply_that_is_not_utf8),
		TEST(test_stream),
		TEST(test_stream_fails),
		TEST(test_stream_is_woken),
		TEST(test_stream_is_cancelled_by_another_thread),
		TEST(test_deadline),
		TEST(test_unknown_method),
		TEST(test_malformed_request),
		TEST(test_request_that_is_not_utf8),
		TEST(test_request_that_is_too_large),
		TEST(test_request_that_grows_too_large),
		TEST(test_reply_that_is_too_large),
		TEST(test_reply_that_is_malformed),
		TEST(test_method_of_the_wrong_kind),
		TEST(test_nobody_there),
		TEST(test_many_threads),
	};
	int ret;

	rpc_init();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	rpc_done();
	return ret;
}

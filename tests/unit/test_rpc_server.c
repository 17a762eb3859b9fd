/* deps: common_rpc */

/* A server as a whole: its bounds, its health, its end, and its addresses. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/unit/rpc_fixture.h"

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static enum rpc_code health_check(struct fixture *f, const char *service, int *ret_serving)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	enum rpc_code code;

	request.service = (char *)(uintptr_t)service;
	code = rpc_client_call(f->client, FIXTURE_CHECK, &request.base,
			       &grpc__health__v1__health_check_response__descriptor, RPC_WAIT_FOR_READY,
			       FIXTURE_LONG_MS, &reply, NULL);
	if (code == RPC_OK)
		*ret_serving = (int)((Grpc__Health__V1__HealthCheckResponse *)(void *)reply)->status;
	rpc_message_free(reply);
	return code;
}

static struct rpc_stream *health_watch(struct fixture *f, const char *service)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	struct rpc_stream *stream;

	request.service = (char *)(uintptr_t)service;
	assert_int_equal(rpc_stream_open(f->client, FIXTURE_WATCH, &request.base,
					 &grpc__health__v1__health_check_response__descriptor, RPC_WAIT_FOR_READY,
					 RPC_NO_TIMEOUT, &stream),
			 0);
	return stream;
}

/* The next status of a watch; -1: it has ended. */
static int health_next(struct rpc_stream *stream)
{
	ProtobufCMessage *message = NULL;
	int ret = rpc_stream_recv(stream, FIXTURE_LONG_MS, &message);
	int serving;

	if (ret == 0)
		return -1;
	assert_int_equal(ret, 1);
	serving = (int)((Grpc__Health__V1__HealthCheckResponse *)(void *)message)->status;
	rpc_message_free(message);
	return serving;
}

static void test_health_check(void **state)
{
	struct fixture *f = *state;
	int serving = -1;

	assert_int_equal(health_check(f, "", &serving), RPC_OK);
	assert_int_equal(serving, NOT_SERVING);
	assert_int_equal(rpc_server_set_health(f->server, "test.v1.Test", true), 0);
	assert_int_equal(health_check(f, "test.v1.Test", &serving), RPC_OK);
	assert_int_equal(serving, SERVING);
	assert_int_equal(health_check(f, "", &serving), RPC_OK);
	assert_int_equal(serving, NOT_SERVING);
	rpc_server_set_health_all(f->server, true);
	assert_int_equal(health_check(f, "", &serving), RPC_OK);
	assert_int_equal(serving, SERVING);
	assert_int_equal(health_check(f, "test.v1.Test/Unary", &serving), RPC_NOT_FOUND);
	assert_int_equal(rpc_server_set_health(f->server, "test.v1", true), -ENOENT);
}

static void test_health_watch(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *known = health_watch(f, ""), *unknown = health_watch(f, "nothing");

	assert_int_equal(health_next(known), NOT_SERVING);
	assert_int_equal(health_next(unknown), SERVICE_UNKNOWN);
	assert_int_equal(rpc_server_set_health(f->server, "", true), 0);
	assert_int_equal(health_next(known), SERVING);
	/* Another service's change is no news. */
	assert_int_equal(rpc_server_set_health(f->server, "test.v1.Test", true), 0);
	assert_int_equal(rpc_server_set_health(f->server, "", false), 0);
	assert_int_equal(health_next(known), NOT_SERVING);
	assert_int_equal(rpc_server_set_health(f->server, "", true), 0);
	assert_int_equal(health_next(known), SERVING);
	rpc_server_stop(f->server, FIXTURE_LONG_MS);
	assert_int_equal(health_next(known), NOT_SERVING);
	assert_int_equal(health_next(known), -1);
	assert_int_equal(rpc_stream_close(known, NULL), RPC_UNAVAILABLE);
	assert_int_equal(health_next(unknown), -1);
	assert_int_equal(rpc_stream_close(unknown, NULL), RPC_UNAVAILABLE);
}

static void *wait_for_release_main(void *arg)
{
	return (void *)(uintptr_t)fixture_call(arg, DEED_WAIT_FOR_RELEASE, "x", FIXTURE_LONG_MS, NULL);
}

static void test_busy_with_calls(void **state)
{
	struct fixture *f = *state;
	struct rpc_status status;
	pthread_t threads[2];
	int serving;
	void *code;

	fixture_limit(f, 2, 1, 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wait_for_release_main, f), 0);
	fixture_await(f, &f->nr_entered, 2);
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, &status), RPC_RESOURCE_EXHAUSTED);
	assert_string_equal(status.message, "the server is busy with 2 calls");
	/* Busy is not sick, and streams have their own room. */
	assert_int_equal(health_check(f, "", &serving), RPC_OK);
	assert_int_equal(rpc_stream_close(health_watch(f, ""), NULL), RPC_CANCELLED);
	fixture_release(f);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &code);
		assert_int_equal((uintptr_t)code, RPC_OK);
	}
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
}

static void test_busy_with_streams(void **state)
{
	struct rpc_stream *streams[2], *refused;
	struct fixture *f = *state;
	struct rpc_status status;

	fixture_limit(f, 1, 2, 0);
	for (int i = 0; i < 2; i++) {
		streams[i] = fixture_open(f, DEED_ON_WAKE);
		assert_int_equal(fixture_next(streams[i]), 1);
	}
	refused = fixture_open(f, DEED_ON_WAKE);
	assert_int_equal(fixture_next(refused), 0);
	assert_int_equal(rpc_stream_close(refused, &status), RPC_RESOURCE_EXHAUSTED);
	assert_string_equal(status.message, "the server is busy with 2 streams");
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(rpc_stream_close(streams[i], NULL), RPC_CANCELLED);
}

/* Calls until it is answered in another way, which must be RPC_OK. */
static void call_until_not(struct fixture *f, enum rpc_code passing)
{
	enum rpc_code code;

	do {
		code = fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL);
	} while (code == passing);
	assert_int_equal(code, RPC_OK);
}

/* A client that begins a call and sends nothing costs a worker only for a while. */
static void test_silent_client(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *silent;
	ProtobufCMessage *message;

	fixture_limit(f, 1, 1, 50);
	assert_int_equal(rpc_stream_open_bytes(f->client, FIXTURE_UNARY, NULL, 0,
					       &farswap__memory__v1__lease__descriptor, RPC_WAIT_FOR_READY,
					       RPC_NO_TIMEOUT, &silent),
			 0);
	assert_int_equal(rpc_stream_recv(silent, FIXTURE_LONG_MS, &message), 0);
	assert_int_not_equal(rpc_stream_close(silent, NULL), RPC_OK);
	assert_int_equal(fixture_read(f, &f->nr_entered), 0);
	/* The worker lets go of the call after the client has heard of its end. */
	call_until_not(f, RPC_RESOURCE_EXHAUSTED);
}

static void test_stop_lets_streams_say_goodbye(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream = fixture_open(f, DEED_ON_WAKE);
	struct rpc_status status;

	assert_int_equal(fixture_next(stream), 1);
	rpc_server_stop(f->server, FIXTURE_LONG_MS);
	rpc_server_stop(f->server, 0); /* again: nothing */
	assert_int_equal(fixture_next(stream), 99);
	assert_int_equal(fixture_next(stream), 0);
	/* Whether it is the handler's, or of the connection that has been closed: see rpc_server_stop. */
	assert_int_equal(rpc_stream_close(stream, &status), RPC_UNAVAILABLE);
	assert_string_not_equal(status.message, "");
	rpc_server_wake(f->server);
	rpc_server_set_health_all(f->server, true);
}

static void test_stop_cancels_what_goes_on(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream = fixture_open(f, DEED_WAIT);

	fixture_await(f, &f->nr_entered, 1);
	rpc_server_stop(f->server, 10);
	assert_int_equal(fixture_read(f, &f->nr_cancelled), 1);
	assert_int_equal(fixture_next(stream), 0);
	assert_int_not_equal(rpc_stream_close(stream, NULL), RPC_OK);
}

static void test_client_finds_a_restarted_server(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *stream;

	for (int i = 0; i < 3; i++) {
		/* A call under way when the old connection ends fails with it; others wait for the new one. */
		call_until_not(f, RPC_UNAVAILABLE);
		stream = fixture_open(f, DEED_ON_WAKE);
		assert_int_equal(fixture_next(stream), 1);
		rpc_server_free(f->server);
		fixture_start_server(f);
		/* Whether it still heard the goodbye is a matter of luck. */
		assert_int_not_equal(rpc_stream_close(stream, NULL), RPC_OK);
	}
	call_until_not(f, RPC_UNAVAILABLE);
}

static void test_server_that_was_not_started(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *server;

	assert_int_equal(rpc_server_create(&f->options, &server), 0);
	rpc_server_stop(server, 0);
	rpc_server_free(server);
	assert_int_equal(rpc_server_create(&f->options, &server), 0);
	assert_int_equal(rpc_server_listen(server, "127.0.0.1:0", NULL, NULL), 0);
	rpc_server_free(server);
	rpc_server_free(NULL);
	rpc_client_free(NULL);
	assert_int_equal(rpc_stream_close(NULL, NULL), RPC_OK);
}

static void test_wrong_tables(void **state)
{
	struct rpc_method two[2] = { fixture_methods[0], fixture_methods[0] };
	struct rpc_server_options options = { .methods = two, .nr_methods = 2 };
	struct rpc_server *server;

	(void)state;
	assert_int_equal(rpc_server_create(&options, &server), -EINVAL); /* one path twice */
	two[1] = fixture_methods[1];
	two[1].unary = two[0].unary; /* two handlers */
	assert_int_equal(rpc_server_create(&options, &server), -EINVAL);
	two[1].unary = NULL;
	two[1].stream = NULL; /* none */
	assert_int_equal(rpc_server_create(&options, &server), -EINVAL);
	two[1] = fixture_methods[1];
	assert_int_equal(rpc_server_create(&options, &server), 0);
	rpc_server_free(server);
}

/* What listening there gives, and whether the message names the address. */
static int try_listen(struct fixture *f, const char *address)
{
	struct rpc_status status = { .code = RPC_OK };
	struct rpc_server *server;
	int ret;

	assert_int_equal(rpc_server_create(&f->options, &server), 0);
	ret = rpc_server_listen(server, address, NULL, &status);
	if (ret < 0)
		assert_non_null(strstr(status.message, address));
	rpc_server_free(server);
	return ret;
}

static void test_tcp(void **state)
{
	const char *hosts[] = { "127.0.0.1", "[::1]" };
	struct fixture *f = *state;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(hosts); i++) {
		char address[32];
		int port = 0;
		int ret;

		rpc_client_free(f->client);
		f->client = NULL;
		rpc_server_free(f->server);
		assert_int_equal(rpc_server_create(&f->options, &f->server), 0);
		snprintf(address, sizeof(address), "%s:0", hosts[i]);
		ret = rpc_server_listen(f->server, address, &port, NULL);
		if (ret == -EADDRNOTAVAIL && i == 1) {
			print_message("this machine has no IPv6\n");
			break;
		}
		assert_int_equal(ret, 0);
		assert_in_range(port, 1, 65535);
		assert_int_equal(rpc_server_start(f->server), 0);
		snprintf(address, sizeof(address), "%s:%d", hosts[i], port);
		assert_int_equal(rpc_client_create(address, NULL, &f->client, NULL), 0);
		assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
		assert_int_equal(try_listen(f, address), -EADDRINUSE);
		/* The one that was there has lost nothing. */
		assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
	}
}

static void test_bad_addresses(void **state)
{
	const char *listen[] = { "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "[::1:77",
				 "unix:", "unix:relative", "unix:/a%41" };
	const char *connect[] = { "", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "a b:77", "[::1:77", "[x]:77",
				  ":77", "unix:relative", "unix:/a?b" };
	struct fixture *f = *state;
	struct rpc_client *client;
	struct rpc_status status;
	char path[200] = "unix:/tmp/";

	for (size_t i = 0; i < BASE_ARRAY_SIZE(listen); i++)
		assert_int_equal(try_listen(f, listen[i]), -EINVAL);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(connect); i++) {
		assert_int_equal(rpc_client_create(connect[i], NULL, &client, &status), -EINVAL);
		assert_non_null(strstr(status.message, connect[i]));
	}
	memset(path + 10, 'x', sizeof(path) - 11);
	assert_int_equal(try_listen(f, path), -ENAMETOOLONG);
	assert_int_equal(rpc_client_create(path, NULL, &client, NULL), -ENAMETOOLONG);
	assert_int_equal(try_listen(f, "unix:/nowhere/at/all.sock"), -ENOENT);
}

static void test_unix_socket_is_not_stolen(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(stat(f->address + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(try_listen(f, f->address), -EADDRINUSE);
	assert_int_equal(fixture_call(f, DEED_ANSWER, "x", FIXTURE_LONG_MS, NULL), RPC_OK);
}

/* A bound socket of somebody who knows nothing of lock files; the descriptor. */
static int foreign_socket(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void test_unix_socket_of_others(void **state)
{
	struct fixture *f = *state;
	char address[80];
	const char *path = address + 5;
	int fd;

	snprintf(address, sizeof(address), "unix:%s/other", f->folder);
	fd = foreign_socket(path);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(try_listen(f, address), -EADDRINUSE);
	/* Its owner dies and leaves the path: it is taken over, and removed in the end. */
	close(fd);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(try_listen(f, address), 0);
	assert_int_equal(access(path, F_OK), -1);

	/* What is not a socket is nobody's to remove. */
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(try_listen(f, address), -EEXIST);
	assert_int_equal(unlink(path), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_health_check),
		TEST(test_health_watch),
		TEST(test_busy_with_calls),
		TEST(test_busy_with_streams),
		TEST(test_silent_client),
		TEST(test_stop_lets_streams_say_goodbye),
		TEST(test_stop_cancels_what_goes_on),
		TEST(test_client_finds_a_restarted_server),
		TEST(test_server_that_was_not_started),
		cmocka_unit_test(test_wrong_tables),
		TEST(test_tcp),
		TEST(test_bad_addresses),
		TEST(test_unix_socket_is_not_stolen),
		TEST(test_unix_socket_of_others),
	};
	int ret;

	rpc_init();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	rpc_done();
	return ret;
}

/* deps: common_sys */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sys/clock.h"
#include "common/sys/socket.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/farswap-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char path[96];

	(void)state;
	snprintf(path, sizeof(path), "%s/s", folder);
	unlink(path);
	return rmdir(folder);
}

static void test_parse_and_format(void **state)
{
	static const char *const good[] = { "127.0.0.1:7700", "[::1]:65535", "10.1.2.3:1", "unix:/run/x.sock" };
	struct sys_address address;
	char text[SYS_ADDRESS_MAX];

	(void)state;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(good); i++) {
		assert_int_equal(sys_address_parse(good[i], false, &address), 0);
		sys_address_format(&address, text);
		assert_string_equal(text, good[i]);
	}
	assert_int_equal(sys_address_parse("localhost:7700", false, &address), 0);
	assert_int_equal(sys_address_parse("127.0.0.1:0", true, &address), 0);
	sys_address_format(&address, text);
	assert_string_equal(text, "127.0.0.1:0");
}

static void test_parse_refuses(void **state)
{
	static const char *const bad[] = {
		"",	     "127.0.0.1",      "127.0.0.1:",  "127.0.0.1:x",	":7700",       "127.0.0.1:0",
		"::1:7700",  "[::1]",	       "[::1]7700",   "[]:7700",	"[127.0.0.1]:7700", "127.0.0.1:65536",
		"[::1:7700", "127.0.0.1:7700x", "127.0.0.1:-1", "127.0.0.1: 77", "unix:",
	};
	struct sys_address address, before;
	char longer[300];

	(void)state;
	memset(&address, 0x5a, sizeof(address));
	before = address;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(bad); i++) {
		if (sys_address_parse(bad[i], false, &address) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
	}
	memset(longer, 'a', sizeof(longer));
	strcpy(longer + 200, ":7700");
	assert_int_equal(sys_address_parse(longer, false, &address), -EINVAL);
	memcpy(longer, "unix:", 5);
	assert_int_equal(sys_address_parse(longer, false, &address), -ENAMETOOLONG);
	/* Names under .invalid never resolve (RFC 6761). */
	assert_int_equal(sys_address_parse("no-such-host.invalid:7700", false, &address), -ENOENT);
	assert_memory_equal(&address, &before, sizeof(address));
}

/* A listening socket and its address; TCP on whatever port is free. */
static int listen_any(const char *text, struct sys_address *ret_address)
{
	int fd;

	assert_int_equal(sys_address_parse(text, true, ret_address), 0);
	fd = sys_socket_listen(ret_address, 8);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	if (ret_address->addr.ss_family != AF_UNIX)
		assert_int_equal(getsockname(fd, (struct sockaddr *)&ret_address->addr, &ret_address->len), 0);
	return fd;
}

static uint64_t in_seconds(unsigned s)
{
	return sys_clock_now_ns(sys_clock_monotonic()) + s * SYS_NS_PER_S;
}

struct sender {
	int fd;
	const void *bytes;
	size_t len;
	int ret;
};

static void *send_main(void *arg)
{
	struct sender *s = arg;

	s->ret = sys_socket_send_all(s->fd, s->bytes, s->len, in_seconds(30));
	return NULL;
}

/* More than any socket buffer holds, so that both sides have to wait for each other. */
static void exchange(const char *listen_text)
{
	size_t len = 8u << 20;
	uint8_t *sent = malloc(len), *received = calloc(1, len);
	struct sys_address address;
	struct sender sender;
	int listener, client, server;
	struct pollfd pfd;
	pthread_t thread;

	assert_non_null(sent);
	assert_non_null(received);
	for (size_t i = 0; i < len; i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 12));
	listener = listen_any(listen_text, &address);
	client = sys_socket_connect(&address, 5000);
	assert_true(client >= 0);
	assert_int_equal(fcntl(client, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	assert_int_equal(fcntl(client, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	pfd = (struct pollfd){ .fd = listener, .events = POLLIN };
	assert_int_equal(poll(&pfd, 1, 5000), 1);
	server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(server >= 0);
	sys_socket_tune(client, 1 << 16, 0);

	sender = (struct sender){ .fd = client, .bytes = sent, .len = len, .ret = 1 };
	assert_int_equal(pthread_create(&thread, NULL, send_main, &sender), 0);
	assert_int_equal(sys_socket_recv_all(server, received, len, in_seconds(30)), 0);
	pthread_join(thread, NULL);
	assert_int_equal(sender.ret, 0);
	assert_memory_equal(sent, received, len);

	/* Nothing comes; then a part comes and the peer goes. */
	assert_int_equal(sys_socket_recv_all(server, received, 1, 0), -ETIMEDOUT);
	assert_int_equal(sys_socket_send_all(client, sent, 3, in_seconds(30)), 0);
	close(client);
	assert_int_equal(sys_socket_recv_all(server, received, 4, in_seconds(30)), -ECONNRESET);
	close(server);
	close(listener);
	free(sent);
	free(received);
}

static void test_tcp(void **state)
{
	(void)state;
	exchange("127.0.0.1:0");
}

static void test_unix(void **state)
{
	char text[96];

	(void)state;
	snprintf(text, sizeof(text), "unix:%s/s", folder);
	exchange(text);
}

static void test_send_to_nobody(void **state)
{
	char byte = 0;
	int fd[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
	close(fd[1]);
	assert_int_equal(sys_socket_send_all(fd[0], &byte, 1, in_seconds(30)), -ECONNRESET);
	close(fd[0]);
}

static void test_send_timeout(void **state)
{
	static char bytes[4u << 20];
	int fd[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
	assert_int_equal(sys_socket_send_all(fd[0], bytes, sizeof(bytes), 0), -ETIMEDOUT);
	close(fd[0]);
	close(fd[1]);
}

static void test_refused(void **state)
{
	struct sys_address address;
	int fd;

	(void)state;
	fd = listen_any("127.0.0.1:0", &address);
	assert_int_equal(sys_socket_listen(&address, 8), -EADDRINUSE);
	close(fd);
	assert_int_equal(sys_socket_connect(&address, 5000), -ECONNREFUSED);
}

/* A unix socket whose backlog is full takes no more: the time runs out, and the caller is not held. */
static void test_connect_timeout(void **state)
{
	struct sys_address address;
	int listener, fd[64];
	unsigned nr = 0;
	char text[96];

	(void)state;
	snprintf(text, sizeof(text), "unix:%s/s", folder);
	assert_int_equal(sys_address_parse(text, false, &address), 0);
	listener = sys_socket_listen(&address, 1);
	assert_true(listener >= 0);
	while (nr < BASE_ARRAY_SIZE(fd) && (fd[nr] = sys_socket_connect(&address, 1)) >= 0)
		nr++;
	assert_true(nr > 0 && nr < BASE_ARRAY_SIZE(fd));
	assert_int_equal(fd[nr], -ETIMEDOUT);
	while (nr > 0)
		close(fd[--nr]);
	close(listener);
}

/* A path that a dead process left is taken over; one that is alive, or is no socket, is not. */
static void test_stale_path(void **state)
{
	struct sys_address address;
	char text[96];
	struct stat st;
	int fd;

	(void)state;
	snprintf(text, sizeof(text), "unix:%s/s", folder);
	fd = listen_any(text, &address);
	assert_int_equal(sys_socket_listen(&address, 8), -EADDRINUSE);
	close(fd);
	assert_int_equal(stat(text + 5, &st), 0);
	fd = sys_socket_listen(&address, 8);
	assert_true(fd >= 0);
	close(fd);
	unlink(text + 5);

	fd = open(text + 5, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(sys_socket_listen(&address, 8), -EADDRINUSE);
	assert_int_equal(stat(text + 5, &st), 0);
	assert_true(S_ISREG(st.st_mode));

	assert_int_equal(sys_address_parse("unix:/no/such/folder/s", false, &address), 0);
	assert_int_equal(sys_socket_listen(&address, 8), -ENOENT);
	assert_int_equal(sys_socket_connect(&address, 100), -ENOENT);
}

static void test_tune(void **state)
{
	socklen_t len = sizeof(int);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 0;

	(void)state;
	sys_socket_tune(fd, 0, 0);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	assert_int_not_equal(on, 0);
	close(fd);
}

static void test_format_odd(void **state)
{
	struct sys_address address = { .len = sizeof(sa_family_t) };
	char text[SYS_ADDRESS_MAX];
	struct sockaddr_un un;

	(void)state;
	address.addr.ss_family = AF_UNIX;
	memset((char *)&address.addr + sizeof(sa_family_t), 'x', 50);
	sys_address_format(&address, text);
	assert_string_equal(text, "unix:");
	memset(&un, 'x', sizeof(un)); /* a path that fills its place and has no end */
	un.sun_family = AF_UNIX;
	memcpy(&address.addr, &un, sizeof(un));
	address.len = sizeof(un);
	sys_address_format(&address, text);
	assert_int_equal(strlen(text), 5 + sizeof(un.sun_path));
	address.addr.ss_family = AF_UNSPEC;
	sys_address_format(&address, text);
	assert_string_equal(text, "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_format),
		cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test_setup_teardown(test_unix, make_folder, remove_folder),
		cmocka_unit_test(test_send_to_nobody),
		cmocka_unit_test(test_send_timeout),
		cmocka_unit_test(test_refused),
		cmocka_unit_test_setup_teardown(test_connect_timeout, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_stale_path, make_folder, remove_folder),
		cmocka_unit_test(test_tune),
		cmocka_unit_test(test_format_odd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: client_frontend_nbd tests_fake_vswap */
#include <sched.h>

#include "tests/unit/nbd_fixture.h"

#define HANDLE 77u

/* The client's end. */
static int attach(struct fixture *f)
{
	struct timeval patience = { .tv_sec = GIVE_UP_S };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(nbd_server_attach(f->server, fds[1]), 0);
	return fds[0];
}

static void test_requests_without_a_handshake(void **state)
{
	unsigned char out[2 * PAGE], in[2 * PAGE];
	struct fixture f = { 0 };
	int a, b;

	(void)state;
	start_unaddressed(&f, (struct nbd_server_options){ .nr_queues = 2, .max_connections = 2 }, 0);
	a = attach(&f);
	b = attach(&f);
	memset(out, 0x5a, sizeof(out));
	request(a, NBD_CMD_WRITE, HANDLE, 3 * PAGE, 2 * PAGE);
	assert_int_equal(send(a, out, sizeof(out), MSG_NOSIGNAL), sizeof(out));
	assert_int_equal(recv_simple_of(a, HANDLE), NBD_SUCCESS);
	request(b, NBD_CMD_READ, HANDLE, 3 * PAGE, 2 * PAGE);
	assert_int_equal(recv_simple_of(b, HANDLE), NBD_SUCCESS);
	assert_int_equal(recv(b, in, sizeof(in), MSG_WAITALL), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	assert_true(counters_of(&f).accepted == 2);
	assert_true(counters_of(&f).connections == 2);
	close(a);
	request(b, NBD_CMD_DISC, HANDLE, 0, 0);
	while (counters_of(&f).connections > 0)
		sched_yield();
	stop(&f);
	close(b);
}

/* It stops in the middle of a request, before another one that came in by the address and is cut for its silence. */
static void test_never_cut_for_silence(void **state)
{
	unsigned char page[PAGE] = { 1 };
	struct fixture f = { 0 };
	int fd, stranger;

	(void)state;
	start(&f, (struct nbd_server_options){ .handshake_ms = 20, .stall_ms = 20 }, 0);
	fd = attach(&f);
	request(fd, NBD_CMD_WRITE, HANDLE, 0, PAGE);
	assert_int_equal(send(fd, page, 100, MSG_NOSIGNAL), 100);
	stranger = dial(&f);
	while (counters_of(&f).timeouts == 0)
		sched_yield();
	assert_int_equal(send(fd, page + 100, PAGE - 100, MSG_NOSIGNAL), PAGE - 100);
	assert_int_equal(recv_simple_of(fd, HANDLE), NBD_SUCCESS);
	assert_true(counters_of(&f).timeouts == 1);
	stop(&f);
	close(stranger);
	close(fd);
}

static void test_no_more_than_there_may_be(void **state)
{
	struct fixture f = { 0 };
	int fds[2], fd;

	(void)state;
	start_unaddressed(&f, (struct nbd_server_options){ .nr_queues = 1, .max_connections = 1 }, 0);
	fd = attach(&f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(nbd_server_attach(f.server, fds[1]), -EMFILE);
	/* It is the caller's still. */
	assert_int_equal(close(fds[1]), 0);
	close(fds[0]);
	close(fd);
	stop(&f);
}

static void test_close_cuts_them(void **state)
{
	struct fixture f = { 0 };
	char c;
	int fd;

	(void)state;
	start_unaddressed(&f, (struct nbd_server_options){ .nr_queues = 2 }, 0);
	fd = attach(&f);
	stop(&f);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_without_a_handshake),
		cmocka_unit_test(test_never_cut_for_silence),
		cmocka_unit_test(test_no_more_than_there_may_be),
		cmocka_unit_test(test_close_cuts_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

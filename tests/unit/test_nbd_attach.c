/* deps: client_frontend_nbd tests_fake_vswap */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/frontend/nbd/nbd.h"
#include "client/frontend/nbd/wire.h"
#include "tests/lib/fake_vswap.h"

#define NR_PAGES 64ull
#define PAGE 4096u
#define MAX_QUEUES 2u
#define GIVE_UP_S 30 /* of a read that hangs: the test fails then */

struct fixture {
	struct sys_reactor *reactors[MAX_QUEUES];
	unsigned nr_queues;
	struct vswap *vswap;
	struct nbd_server *server;
};

static void start(struct fixture *f, struct nbd_server_options options)
{
	f->nr_queues = options.nr_queues;
	for (unsigned i = 0; i < f->nr_queues; i++) {
		assert_int_equal(sys_reactor_create(&(struct sys_reactor_options){ .name = "nbd", .cpu = -1 },
						    &f->reactors[i]), 0);
		assert_int_equal(sys_reactor_start(f->reactors[i]), 0);
	}
	f->vswap = fake_vswap_open(&(struct fake_vswap_options){ .nr_pages = NR_PAGES, .reactors = f->reactors,
								 .nr_queues = f->nr_queues });
	options.vswap = f->vswap;
	assert_int_equal(nbd_server_open(&options, &f->server), 0);
}

static void stop(struct fixture *f)
{
	nbd_server_close(f->server);
	for (unsigned i = 0; i < f->nr_queues; i++)
		sys_reactor_stop(f->reactors[i]);
	fake_vswap_close(f->vswap);
	for (unsigned i = 0; i < f->nr_queues; i++)
		sys_reactor_free(f->reactors[i]);
}

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

static void send_request(int fd, uint16_t type, uint64_t page, uint32_t nr_pages)
{
	unsigned char head[NBD_REQUEST_BYTES], *p;

	p = nbd_put32(head, NBD_REQUEST_MAGIC);
	p = nbd_put16(p, 0);
	p = nbd_put16(p, type);
	p = nbd_put64(p, 77);
	p = nbd_put64(p, page * PAGE);
	nbd_put32(p, nr_pages * PAGE);
	assert_int_equal(send(fd, head, sizeof(head), MSG_NOSIGNAL), sizeof(head));
}

static void expect_reply(int fd)
{
	unsigned char head[NBD_SIMPLE_REPLY_BYTES];

	assert_int_equal(recv(fd, head, sizeof(head), MSG_WAITALL), sizeof(head));
	assert_int_equal(nbd_get32(head), NBD_SIMPLE_REPLY_MAGIC);
	assert_int_equal(nbd_get32(head + 4), NBD_SUCCESS);
	assert_true(nbd_get64(head + 8) == 77);
}

static struct nbd_server_counters counters_of(const struct fixture *f)
{
	struct nbd_server_counters counters;

	nbd_server_counters(f->server, &counters);
	return counters;
}

static void test_requests_without_a_handshake(void **state)
{
	unsigned char out[2 * PAGE], in[2 * PAGE];
	struct fixture f;
	int a, b;

	(void)state;
	start(&f, (struct nbd_server_options){ .nr_queues = 2, .max_connections = 2 });
	a = attach(&f);
	b = attach(&f);
	memset(out, 0x5a, sizeof(out));
	send_request(a, NBD_CMD_WRITE, 3, 2);
	assert_int_equal(send(a, out, sizeof(out), MSG_NOSIGNAL), sizeof(out));
	expect_reply(a);
	send_request(b, NBD_CMD_READ, 3, 2);
	expect_reply(b);
	assert_int_equal(recv(b, in, sizeof(in), MSG_WAITALL), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	assert_true(counters_of(&f).accepted == 2);
	assert_true(counters_of(&f).connections == 2);
	close(a);
	send_request(b, NBD_CMD_DISC, 0, 0);
	while (counters_of(&f).connections > 0)
		sched_yield();
	stop(&f);
	close(b);
}

/* It stops in the middle of a request, before another one that came in by the address and is cut for its silence. */
static void test_never_cut_for_silence(void **state)
{
	char dir[] = "/tmp/test_nbd_XXXXXX", address[48];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	unsigned char page[PAGE] = { 1 };
	int fd, stranger;
	struct fixture f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/socket", dir);
	snprintf(address, sizeof(address), "unix:%s/socket", dir);
	start(&f, (struct nbd_server_options){ .nr_queues = 1, .address = address, .handshake_ms = 20, .stall_ms = 20 });
	fd = attach(&f);
	send_request(fd, NBD_CMD_WRITE, 0, 1);
	assert_int_equal(send(fd, page, 100, MSG_NOSIGNAL), 100);
	stranger = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(stranger, (struct sockaddr *)&un, sizeof(un)), 0);
	while (counters_of(&f).timeouts == 0)
		sched_yield();
	assert_int_equal(send(fd, page + 100, PAGE - 100, MSG_NOSIGNAL), PAGE - 100);
	expect_reply(fd);
	assert_true(counters_of(&f).timeouts == 1);
	stop(&f);
	close(stranger);
	close(fd);
	assert_int_equal(rmdir(dir), 0);
}

static void test_no_more_than_there_may_be(void **state)
{
	struct fixture f;
	int fds[2], fd;

	(void)state;
	start(&f, (struct nbd_server_options){ .nr_queues = 1, .max_connections = 1 });
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
	struct fixture f;
	char c;
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ .nr_queues = 2 });
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

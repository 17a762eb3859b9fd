/*
 * The NBD server over a device that is an array, and a client of it that sends any bytes.
 *
 * A fixture begins as zeros.
 */
#ifndef FARSWAP_TESTS_UNIT_NBD_FIXTURE_H
#define FARSWAP_TESTS_UNIT_NBD_FIXTURE_H

#include <errno.h>
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

#include "client/frontend/nbd/handshake.h"
#include "client/frontend/nbd/nbd.h"
#include "client/frontend/nbd/wire.h"
#include "tests/lib/fake_vswap.h"

#define NR_PAGES 8192ull
#define PAGE 4096u
#define MIB (1u << 20)
#define GIVE_UP_S 30 /* of a read that hangs: the test fails then */

struct fixture {
	char dir[32]; /* of the address; empty: there is none */
	char address[64];
	struct sys_reactor *reactors[2];
	struct vswap *vswap;
	struct nbd_server *server;
};

/* Without an address: connections are attached. */
static inline void start_unaddressed(struct fixture *f, struct nbd_server_options options, uint64_t shuffle_seed)
{
	unsigned nr = options.nr_queues ? options.nr_queues : 1;

	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(sys_reactor_create(&(struct sys_reactor_options){ .name = "nbd", .cpu = -1 },
						    &f->reactors[i]), 0);
		assert_int_equal(sys_reactor_start(f->reactors[i]), 0);
	}
	f->vswap = fake_vswap_open(&(struct fake_vswap_options){ .nr_pages = NR_PAGES, .reactors = f->reactors,
								 .nr_queues = nr, .shuffle_seed = shuffle_seed });
	options.nr_queues = nr;
	options.vswap = f->vswap;
	assert_int_equal(nbd_server_open(&options, &f->server), 0);
}

static inline void start(struct fixture *f, struct nbd_server_options options, uint64_t shuffle_seed)
{
	snprintf(f->dir, sizeof(f->dir), "/tmp/test_nbd_XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->address, sizeof(f->address), "unix:%s/socket", f->dir);
	options.address = f->address;
	start_unaddressed(f, options, shuffle_seed);
}

static inline void stop(struct fixture *f)
{
	nbd_server_close(f->server);
	for (unsigned i = 0; i < 2 && f->reactors[i]; i++)
		sys_reactor_stop(f->reactors[i]);
	fake_vswap_close(f->vswap);
	for (unsigned i = 0; i < 2; i++)
		sys_reactor_free(f->reactors[i]);
	/* Empty: the socket went with the server. */
	if (f->dir[0])
		assert_int_equal(rmdir(f->dir), 0);
}

static inline struct nbd_server_counters counters_of(const struct fixture *f)
{
	struct nbd_server_counters counters;

	nbd_server_counters(f->server, &counters);
	return counters;
}

/* ---- a client ---- */

static inline int dial(const struct fixture *f)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = GIVE_UP_S };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", f->address + 5);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	return fd;
}

static inline void send_all(int fd, const void *buf, size_t len)
{
	while (len > 0) {
		ssize_t nr = send(fd, buf, len, MSG_NOSIGNAL);

		assert_true(nr > 0);
		buf = (const char *)buf + nr;
		len -= (size_t)nr;
	}
}

static inline void recv_all(int fd, void *buf, size_t len)
{
	/* A receive of nothing would wait for something. */
	if (len > 0)
		assert_int_equal(recv(fd, buf, len, MSG_WAITALL), len);
}

static inline void expect_end(int fd)
{
	char c;
	ssize_t nr = recv(fd, &c, 1, 0);

	assert_true(nr == 0 || (nr < 0 && errno == ECONNRESET));
	close(fd);
}

static inline void send_option(int fd, uint32_t option, const void *data, uint32_t len)
{
	unsigned char head[16], *p;

	p = nbd_put64(head, NBD_OPTION_MAGIC);
	p = nbd_put32(p, option);
	nbd_put32(p, len);
	send_all(fd, head, 16);
	send_all(fd, data, len);
}

/* Returns the reply's type; its data is thrown away. */
static inline uint32_t recv_option_reply(int fd)
{
	unsigned char head[20], data[512];

	recv_all(fd, head, 20);
	assert_true(nbd_get32(head + 16) <= sizeof(data));
	recv_all(fd, data, nbd_get32(head + 16));
	return nbd_get32(head + 12);
}

static inline void greet(int fd)
{
	unsigned char buf[18];

	recv_all(fd, buf, 18);
	assert_true(nbd_get64(buf) == NBD_MAGIC);
	nbd_put32(buf, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	send_all(fd, buf, 4);
}

static inline int open_client(const struct fixture *f, bool structured)
{
	int fd = dial(f);

	greet(fd);
	if (structured) {
		send_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		assert_int_equal(recv_option_reply(fd), NBD_REP_ACK);
	}
	send_option(fd, NBD_OPT_GO, "\0\0\0\0\0\0", 6);
	while (recv_option_reply(fd) != NBD_REP_ACK)
		;
	return fd;
}

static inline void pack_request(unsigned char *head, uint16_t type, uint64_t handle, uint64_t offset, uint32_t len)
{
	unsigned char *p = nbd_put32(head, NBD_REQUEST_MAGIC);

	p = nbd_put16(p, 0);
	p = nbd_put16(p, type);
	p = nbd_put64(p, handle);
	p = nbd_put64(p, offset);
	nbd_put32(p, len);
}

static inline void request(int fd, uint16_t type, uint64_t handle, uint64_t offset, uint32_t len)
{
	unsigned char head[NBD_REQUEST_BYTES];

	pack_request(head, type, handle, offset, len);
	send_all(fd, head, sizeof(head));
}

/* A simple reply: its error; *ret_handle whose it is. */
static inline uint32_t recv_simple(int fd, uint64_t *ret_handle)
{
	unsigned char head[16];

	recv_all(fd, head, 16);
	assert_int_equal(nbd_get32(head), NBD_SIMPLE_REPLY_MAGIC);
	*ret_handle = nbd_get64(head + 8);
	return nbd_get32(head + 4);
}

static inline uint32_t recv_simple_of(int fd, uint64_t handle)
{
	uint64_t got;
	uint32_t error = recv_simple(fd, &got);

	assert_true(got == handle);
	return error;
}

static inline void fill(unsigned char *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = seed * 0x9e3779b97f4a7c15u + i;

		memcpy(buf + i, &word, 8);
	}
}

static inline void write_pages(int fd, uint64_t page, uint32_t len, uint64_t seed)
{
	unsigned char *buf = malloc(len);

	fill(buf, len, seed);
	request(fd, NBD_CMD_WRITE, 1, page * PAGE, len);
	send_all(fd, buf, len);
	assert_int_equal(recv_simple_of(fd, 1), 0);
	free(buf);
}

static inline void expect_pages(int fd, uint64_t page, uint32_t len, uint64_t seed)
{
	unsigned char *buf = malloc(len), *expected = malloc(len);

	fill(expected, len, seed);
	request(fd, NBD_CMD_READ, 2, page * PAGE, len);
	assert_int_equal(recv_simple_of(fd, 2), 0);
	recv_all(fd, buf, len);
	assert_memory_equal(buf, expected, len);
	free(buf);
	free(expected);
}

static inline void expect_zeros(int fd, uint64_t page, uint32_t len)
{
	unsigned char *buf = malloc(len), *expected = calloc(1, len);

	request(fd, NBD_CMD_READ, 3, page * PAGE, len);
	assert_int_equal(recv_simple_of(fd, 3), 0);
	recv_all(fd, buf, len);
	assert_memory_equal(buf, expected, len);
	free(buf);
	free(expected);
}

#endif

#include "tests/bench/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/sys/clock.h"
#include "common/sys/socket.h"
#include "common/sys/thread.h"
#include "tests/bench/bench.h"

#define FLOOR_HEADER 32u /* as long as our request's */
#define FLOOR_ANSWER 16u
#define FLOOR_BUFFER (1u << 20)
#define FLOOR_MAX_DEPTH 64u

enum floor_mode { FLOOR_READ, FLOOR_WRITE, FLOOR_STREAM_READ, FLOOR_STREAM_WRITE, FLOOR_END };

/* What the client says before each measurement; `bytes` is the length of a stream. */
struct floor_order {
	uint64_t mode;
	uint64_t bytes;
	uint64_t nr_requests; /* ping-pong: the server answers so many */
};

struct floor {
	int listener;
	int fd;
	pthread_t thread;
	char *buffer;
};

/* Both ends: without sleeping until it is done. */
static void floor_send(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			bench_die("floor: send", errno);
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
}

/* At least one byte, at most len. */
static size_t floor_recv(int fd, char *bytes, size_t len)
{
	for (;;) {
		ssize_t n = recv(fd, bytes, len, MSG_DONTWAIT);

		if (n > 0)
			return (size_t)n;
		if (n == 0)
			bench_die("floor: the other end is gone", 0);
		if (errno != EAGAIN)
			bench_die("floor: recv", errno);
	}
}

static void floor_recv_all(int fd, void *bytes, size_t len)
{
	size_t have = 0;

	while (have < len)
		have += floor_recv(fd, (char *)bytes + have, len - have);
}

static void floor_serve_ping_pong(int fd, char *buffer, const struct floor_order *order)
{
	size_t request = FLOOR_HEADER + (order->mode == FLOOR_WRITE ? FSW_PAGE_SIZE : 0);
	size_t answer = FLOOR_ANSWER + (order->mode == FLOOR_READ ? FSW_PAGE_SIZE : 0);
	uint64_t left = order->nr_requests;
	size_t have = 0;

	while (left) {
		have += floor_recv(fd, buffer, FLOOR_BUFFER);
		floor_send(fd, buffer, have / request * answer); /* at most FLOOR_MAX_DEPTH pages */
		left -= have / request;
		have %= request;
	}
}

static void floor_serve_stream(int fd, char *buffer, const struct floor_order *order)
{
	uint64_t left = order->bytes;

	while (left) {
		size_t n = (size_t)base_min_u64(left, FLOOR_BUFFER);

		if (order->mode == FLOOR_STREAM_READ)
			floor_send(fd, buffer, n);
		else
			n = floor_recv(fd, buffer, n);
		left -= n;
	}
	if (order->mode == FLOOR_STREAM_WRITE)
		floor_send(fd, buffer, 1);
}

static void *floor_serve(void *arg)
{
	struct floor *floor = arg;
	char *buffer = calloc(1, FLOOR_BUFFER);
	struct floor_order order;
	int fd = -1;

	/* The order comes after a pause: waiting for it sleeps. */
	while (fd < 0) {
		fd = accept4(floor->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			usleep(1000);
	}
	sys_socket_tune(fd, 0, 0);
	for (;;) {
		while (recv(fd, &order, sizeof(order), MSG_PEEK | MSG_DONTWAIT) != sizeof(order))
			usleep(200);
		floor_recv_all(fd, &order, sizeof(order));
		if (order.mode == FLOOR_END)
			break;
		floor_send(fd, buffer, 1);
		if (order.mode == FLOOR_READ || order.mode == FLOOR_WRITE)
			floor_serve_ping_pong(fd, buffer, &order);
		else
			floor_serve_stream(fd, buffer, &order);
	}
	close(fd);
	free(buffer);
	return NULL;
}

struct floor *floor_start(int cpu)
{
	struct floor *floor = calloc(1, sizeof(*floor));
	struct sys_address address;
	int err;

	floor->buffer = calloc(1, FLOOR_BUFFER * 2);
	bench_check("floor: address", sys_address_parse("127.0.0.1:0", true, &address));
	floor->listener = sys_socket_listen(&address, 1);
	bench_check("floor: listen", floor->listener);
	address.len = sizeof(address.addr);
	if (getsockname(floor->listener, (struct sockaddr *)&address.addr, &address.len) < 0)
		bench_die("floor: getsockname", errno);
	err = sys_thread_start(&floor->thread, "floor", cpu, floor_serve, floor);
	bench_check("floor: thread", err);
	floor->fd = sys_socket_connect(&address, 1000);
	bench_check("floor: connect", floor->fd);
	sys_socket_tune(floor->fd, 0, 0);
	return floor;
}

static void floor_give(struct floor *floor, const struct floor_order *order)
{
	char ready;

	floor_send(floor->fd, (const char *)order, sizeof(*order));
	if (order->mode != FLOOR_END)
		floor_recv_all(floor->fd, &ready, 1);
}

void floor_stop(struct floor *floor)
{
	floor_give(floor, &(struct floor_order){ .mode = FLOOR_END });
	pthread_join(floor->thread, NULL);
	close(floor->fd);
	close(floor->listener);
	free(floor->buffer);
	free(floor);
}

/* A fixed number of requests, `depth` in flight. */
static void floor_ping_pong_some(struct floor *floor, bool write, unsigned depth, uint64_t nr,
				 struct stats_histogram *latency)
{
	size_t request = FLOOR_HEADER + (write ? FSW_PAGE_SIZE : 0), answer = FLOOR_ANSWER + (write ? 0 : FSW_PAGE_SIZE);
	uint64_t began[FLOOR_MAX_DEPTH], sent = 0, done = 0;
	size_t have = 0;

	floor_give(floor, &(struct floor_order){ .mode = write ? FLOOR_WRITE : FLOOR_READ, .nr_requests = nr });
	while (done < nr) {
		uint64_t room = base_min_u64(depth - (sent - done), nr - sent), now = bench_now_ns(), i, answers;

		for (i = 0; i < room; i++)
			began[(sent + i) % depth] = now;
		if (room)
			floor_send(floor->fd, floor->buffer, room * request);
		sent += room;
		have += floor_recv(floor->fd, floor->buffer, FLOOR_BUFFER);
		answers = have / answer;
		have %= answer;
		now = answers ? bench_now_ns() : 0;
		for (i = 0; i < answers; i++, done++)
			stats_histogram_record(latency, now - began[done % depth]);
	}
}

void floor_ping_pong(struct floor *floor, bool write, unsigned depth, uint64_t for_ns, struct floor_result *ret_result)
{
	struct stats_histogram *latency = calloc(1, sizeof(*latency));
	uint64_t start = bench_now_ns();

	memset(ret_result, 0, sizeof(*ret_result));
	while (bench_now_ns() - start < for_ns) {
		uint64_t began = bench_now_ns();

		floor_ping_pong_some(floor, write, depth, 20000, latency);
		ret_result->elapsed_ns += bench_now_ns() - began;
		ret_result->nr_ops += 20000;
	}
	ret_result->bytes = ret_result->nr_ops * FSW_PAGE_SIZE;
	stats_histogram_collect(latency, &ret_result->latency);
	free(latency);
}

void floor_stream(struct floor *floor, bool write, uint64_t for_ns, struct floor_result *ret_result)
{
	uint64_t start = bench_now_ns();

	memset(ret_result, 0, sizeof(*ret_result));
	while (bench_now_ns() - start < for_ns) {
		struct floor_order order = { .mode = write ? FLOOR_STREAM_WRITE : FLOOR_STREAM_READ,
					     .bytes = 512ull << 20 };
		uint64_t left = order.bytes, began;
		char end;

		floor_give(floor, &order);
		began = bench_now_ns();
		while (left) {
			size_t n = (size_t)base_min_u64(left, FLOOR_BUFFER);

			if (write)
				floor_send(floor->fd, floor->buffer, n);
			else
				n = floor_recv(floor->fd, floor->buffer, n);
			left -= n;
		}
		if (write)
			floor_recv_all(floor->fd, &end, 1);
		ret_result->elapsed_ns += bench_now_ns() - began;
		ret_result->bytes += order.bytes;
		ret_result->nr_ops += order.bytes >> 20;
	}
}

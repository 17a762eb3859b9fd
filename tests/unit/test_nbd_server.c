/* deps: client_frontend_nbd tests_fake_vswap */
#include <sched.h>

#include "tests/unit/nbd_fixture.h"

static void round_trip(unsigned nr_queues, unsigned spin_us)
{
	static const uint32_t lengths[] = { PAGE, 2 * PAGE, 64 << 10, (64 << 10) + PAGE, MIB, 2 * MIB };
	struct fixture f = { 0 };
	int a, b;

	start(&f, (struct nbd_server_options){ .nr_queues = nr_queues, .spin_us = spin_us }, 0);
	a = open_client(&f, false);
	b = open_client(&f, false);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(lengths); i++) {
		write_pages(a, 512 * i + 1, lengths[i], i + 1);
		expect_pages(b, 512 * i + 1, lengths[i], i + 1);
	}
	request(b, NBD_CMD_FLUSH, 4, 0, 0);
	assert_int_equal(recv_simple_of(b, 4), 0);
	request(b, NBD_CMD_TRIM, 5, PAGE, PAGE);
	assert_int_equal(recv_simple_of(b, 5), 0);
	expect_zeros(a, 1, PAGE);
	request(a, NBD_CMD_WRITE_ZEROES, 6, 0, NR_PAGES * PAGE);
	assert_int_equal(recv_simple_of(a, 6), 0);
	expect_zeros(b, 512 * 5 + 1, 2 * MIB);
	assert_true(counters_of(&f).connections == 2);
	assert_true(counters_of(&f).writes == 6);
	assert_true(counters_of(&f).reads == 8);
	assert_true(counters_of(&f).trims == 2);
	assert_true(counters_of(&f).flushes == 1);
	request(a, NBD_CMD_DISC, 7, 0, 0);
	expect_end(a);
	close(b);
	stop(&f);
}

static void test_round_trip(void **state)
{
	(void)state;
	round_trip(1, 0);
}

static void test_round_trip_two_queues(void **state)
{
	(void)state;
	round_trip(2, 0);
}

static void test_round_trip_spinning(void **state)
{
	(void)state;
	round_trip(2, 2000);
}

static void test_bytes_may_come_in_any_pieces(void **state)
{
	static const size_t steps[] = { 1, 7, 27, 29, 4096, 5000, 70000 };
	size_t len = 3 * (NBD_REQUEST_BYTES + (size_t)9 * PAGE);
	unsigned char *stream = malloc(len);
	struct fixture f = { 0 };
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	fd = open_client(&f, false);
	for (unsigned s = 0; s < BASE_ARRAY_SIZE(steps); s++) {
		unsigned char *p = stream;

		for (unsigned i = 0; i < 3; i++) {
			pack_request(p, NBD_CMD_WRITE, i, (uint64_t)i * 16 * PAGE, 9 * PAGE);
			fill(p + NBD_REQUEST_BYTES, 9 * PAGE, s * 3 + i);
			p += NBD_REQUEST_BYTES + 9 * PAGE;
		}
		for (size_t at = 0; at < len; at += steps[s])
			send_all(fd, stream + at, base_min_u64(steps[s], len - at));
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(recv_simple_of(fd, i), 0);
		for (unsigned i = 0; i < 3; i++)
			expect_pages(fd, i * 16, 9 * PAGE, s * 3 + i);
	}
	close(fd);
	stop(&f);
	free(stream);
}

static void test_many_under_way_complete_in_any_order(void **state)
{
	enum { NR = 64 };
	unsigned char data[PAGE], expected[PAGE];
	bool out_of_order = false;
	struct fixture f = { 0 };
	uint64_t handle;
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 42);
	fd = open_client(&f, false);
	for (uint64_t i = 0; i < NR; i++)
		fill(fake_vswap_page(f.vswap, i), PAGE, i);
	fake_vswap_hold(f.vswap, true);
	for (uint64_t i = 0; i < NR; i++)
		request(fd, NBD_CMD_READ, i, i * PAGE, PAGE);
	while (fake_vswap_nr_held(f.vswap) < NR)
		sched_yield();
	fake_vswap_hold(f.vswap, false);
	for (uint64_t i = 0; i < NR; i++) {
		assert_int_equal(recv_simple(fd, &handle), 0);
		recv_all(fd, data, PAGE);
		fill(expected, PAGE, handle);
		assert_memory_equal(data, expected, PAGE);
		out_of_order |= handle != i;
	}
	assert_true(out_of_order);
	close(fd);
	stop(&f);
}

static void test_structured_replies(void **state)
{
	unsigned char head[28], data[2 * PAGE], expected[2 * PAGE];
	struct fixture f = { 0 };
	uint32_t len;
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	fd = open_client(&f, true);
	write_pages(fd, 3, 2 * PAGE, 9);
	request(fd, NBD_CMD_READ, 8, 3 * PAGE, 2 * PAGE);
	recv_all(fd, head, 28);
	assert_int_equal(nbd_get32(head), NBD_STRUCTURED_REPLY_MAGIC);
	assert_int_equal(nbd_get16(head + 4), NBD_REPLY_FLAG_DONE);
	assert_int_equal(nbd_get16(head + 6), NBD_REPLY_TYPE_OFFSET_DATA);
	assert_true(nbd_get64(head + 8) == 8);
	assert_int_equal(nbd_get32(head + 16), 8 + 2 * PAGE);
	assert_true(nbd_get64(head + 20) == 3 * PAGE);
	recv_all(fd, data, sizeof(data));
	fill(expected, sizeof(expected), 9);
	assert_memory_equal(data, expected, sizeof(data));

	fake_vswap_fail(f.vswap, 4, 1, 1u << IO_READ, -EIO);
	request(fd, NBD_CMD_READ, 9, 3 * PAGE, 2 * PAGE);
	recv_all(fd, head, 20);
	assert_int_equal(nbd_get16(head + 6), NBD_REPLY_TYPE_ERROR_OFFSET);
	len = nbd_get32(head + 16);
	recv_all(fd, data, len);
	assert_int_equal(nbd_get32(data), NBD_EIO);
	assert_int_equal(nbd_get16(data + 4), len - 14);
	assert_true(nbd_get64(data + len - 8) == 3 * PAGE);
	assert_true(counters_of(&f).io_errors == 1);
	close(fd);
	stop(&f);
}

static void test_errors_of_the_device(void **state)
{
	unsigned char data[PAGE] = { 0 };
	struct fixture f = { 0 };
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	fd = open_client(&f, false);
	fake_vswap_fail(f.vswap, 10, 1, 1u << IO_WRITE, -ENOSPC);
	request(fd, NBD_CMD_WRITE, 1, 10 * PAGE, PAGE);
	send_all(fd, data, PAGE);
	assert_int_equal(recv_simple_of(fd, 1), NBD_ENOSPC);
	fake_vswap_fail(f.vswap, 10, 1, 1u << IO_READ, -EIO);
	/* No data follows an error. */
	request(fd, NBD_CMD_READ, 2, 9 * PAGE, 2 * PAGE);
	assert_int_equal(recv_simple_of(fd, 2), NBD_EIO);
	expect_zeros(fd, 9, PAGE);
	close(fd);
	stop(&f);
}

static void test_bad_requests_leave_the_stream_whole(void **state)
{
	unsigned char *data = calloc(1, 3 * MIB);
	struct fixture f = { 0 };
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	fd = open_client(&f, false);
	request(fd, NBD_CMD_READ, 1, 512, 512);
	assert_int_equal(recv_simple_of(fd, 1), NBD_EINVAL);
	request(fd, NBD_CMD_WRITE, 2, 0, 3 * MIB);
	send_all(fd, data, 3 * MIB);
	assert_int_equal(recv_simple_of(fd, 2), NBD_EINVAL);
	request(fd, NBD_CMD_WRITE, 3, NR_PAGES * PAGE, PAGE);
	send_all(fd, data, PAGE);
	assert_int_equal(recv_simple_of(fd, 3), NBD_ENOSPC);
	request(fd, NBD_CMD_WRITE, 4, 0, 0);
	assert_int_equal(recv_simple_of(fd, 4), NBD_EINVAL);
	request(fd, 99, 5, 0, PAGE);
	assert_int_equal(recv_simple_of(fd, 5), NBD_EINVAL);
	write_pages(fd, 0, PAGE, 6);
	expect_pages(fd, 0, PAGE, 6);
	assert_true(counters_of(&f).bad_requests == 5);
	/* What is longer than anybody means is not read to its end. */
	request(fd, NBD_CMD_WRITE, 7, 0, 1u << 31);
	expect_end(fd);
	assert_true(counters_of(&f).protocol_errors == 1);
	stop(&f);
	free(data);
}

static void test_garbage_ends_one_connection(void **state)
{
	unsigned char garbage[4096];
	struct fixture f = { 0 };
	int good, bad;

	(void)state;
	memset(garbage, 0xa5, sizeof(garbage));
	start(&f, (struct nbd_server_options){ 0 }, 0);
	good = open_client(&f, false);
	bad = dial(&f);
	send_all(bad, garbage, sizeof(garbage));
	while (recv(bad, garbage, sizeof(garbage), 0) > 0)
		;
	close(bad);
	bad = open_client(&f, true);
	memset(garbage, 0xa5, sizeof(garbage));
	send_all(bad, garbage, NBD_REQUEST_BYTES);
	expect_end(bad);
	bad = dial(&f);
	greet(bad);
	send_option(bad, NBD_OPT_EXPORT_NAME, "other", 5);
	expect_end(bad);
	assert_true(counters_of(&f).protocol_errors == 2);
	assert_true(counters_of(&f).refused == 1);
	write_pages(good, 0, PAGE, 1);
	expect_pages(good, 0, PAGE, 1);
	close(good);
	stop(&f);
}

/* Sends no more, and waits for the end. How many clients have gone in the middle of a message by now. */
static uint64_t truncated_after(struct fixture *f, int fd)
{
	char c;

	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	while (recv(fd, &c, 1, 0) > 0)
		;
	close(fd);
	return counters_of(f).truncated;
}

static void test_half_a_message_is_counted(void **state)
{
	unsigned char head[NBD_REQUEST_BYTES] = { 0 };
	struct fixture f = { 0 };
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	/* Between two messages a client may go. */
	assert_true(truncated_after(&f, dial(&f)) == 0);
	fd = dial(&f);
	greet(fd);
	assert_true(truncated_after(&f, fd) == 0);
	assert_true(truncated_after(&f, open_client(&f, false)) == 0);
	/* In the client's flags, in an option, in one that is passed over, in a request, in a payload. */
	fd = dial(&f);
	send_all(fd, head, 1);
	assert_true(truncated_after(&f, fd) == 1);
	fd = dial(&f);
	greet(fd);
	send_all(fd, head, 15);
	assert_true(truncated_after(&f, fd) == 2);
	fd = dial(&f);
	greet(fd);
	nbd_put32(nbd_put32(nbd_put64(head, NBD_OPTION_MAGIC), NBD_OPT_LIST), NBD_OPTION_SKIP_MAX_BYTES);
	send_all(fd, head, 16);
	assert_true(truncated_after(&f, fd) == 3);
	fd = open_client(&f, false);
	send_all(fd, head, sizeof(head) - 1);
	assert_true(truncated_after(&f, fd) == 4);
	fd = open_client(&f, false);
	request(fd, NBD_CMD_WRITE, 1, 0, PAGE);
	assert_true(truncated_after(&f, fd) == 5);
	assert_true(counters_of(&f).protocol_errors == 0);
	assert_true(counters_of(&f).accepted == 8);
	stop(&f);
}

static void test_disconnect_waits_for_what_is_under_way(void **state)
{
	struct fixture f = { 0 };
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	fd = open_client(&f, false);
	fake_vswap_hold(f.vswap, true);
	request(fd, NBD_CMD_TRIM, 1, 0, PAGE);
	request(fd, NBD_CMD_TRIM, 2, 0, PAGE);
	request(fd, NBD_CMD_DISC, 3, 0, 0);
	while (fake_vswap_nr_held(f.vswap) < 2)
		sched_yield();
	fake_vswap_hold(f.vswap, false);
	assert_int_equal(recv_simple_of(fd, 1), 0);
	assert_int_equal(recv_simple_of(fd, 2), 0);
	expect_end(fd);
	stop(&f);
}

static void test_client_that_vanishes(void **state)
{
	unsigned char head[NBD_REQUEST_BYTES] = { 0 };
	struct fixture f = { 0 };
	int a, b;

	(void)state;
	start(&f, (struct nbd_server_options){ 0 }, 0);
	a = open_client(&f, false);
	b = open_client(&f, false);
	fake_vswap_hold(f.vswap, true);
	for (uint64_t i = 0; i < 8; i++)
		request(a, NBD_CMD_READ, i, 0, MIB / 16);
	while (fake_vswap_nr_held(f.vswap) < 8)
		sched_yield();
	close(a);
	/* In the middle of a payload. */
	request(b, NBD_CMD_WRITE, 1, 0, MIB);
	send_all(b, head, sizeof(head));
	close(b);
	fake_vswap_hold(f.vswap, false);
	while (counters_of(&f).connections > 0)
		sched_yield();
	a = open_client(&f, false);
	expect_zeros(a, 0, PAGE);
	close(a);
	stop(&f);
}

static void test_close_with_requests_under_way(void **state)
{
	struct fixture f = { 0 };
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ .nr_queues = 2, .spin_us = 1000 }, 0);
	fd = open_client(&f, false);
	for (uint64_t i = 0; i < 32; i++)
		request(fd, NBD_CMD_READ, i, 0, MIB);
	stop(&f);
	close(fd);
}

static void test_queue_depth_is_a_limit_and_no_deadlock(void **state)
{
	enum { NR = 40, DEPTH = 4 };
	unsigned char *data = malloc(MIB);
	struct fixture f = { 0 };
	uint64_t handle;
	int a, b;

	(void)state;
	start(&f, (struct nbd_server_options){ .queue_depth = DEPTH }, 0);
	a = open_client(&f, false);
	b = open_client(&f, false);
	fake_vswap_hold(f.vswap, true);
	for (uint64_t i = 0; i < NR; i++)
		request(a, NBD_CMD_READ, i, i * PAGE, i % 2 ? PAGE : MIB);
	while (fake_vswap_nr_held(f.vswap) < DEPTH)
		sched_yield();
	/* The other connection is served beside it; all of the first one's bytes have been looked at by then. */
	request(b, NBD_CMD_READ, 0, 0, PAGE);
	while (fake_vswap_nr_held(f.vswap) < DEPTH + 1)
		sched_yield();
	assert_int_equal(fake_vswap_nr_held(f.vswap), DEPTH + 1);
	fake_vswap_hold(f.vswap, false);
	assert_int_equal(recv_simple_of(b, 0), 0);
	recv_all(b, data, PAGE);
	for (uint64_t i = 0; i < NR; i++) {
		assert_int_equal(recv_simple(a, &handle), 0);
		recv_all(a, data, handle % 2 ? PAGE : MIB);
	}
	close(a);
	close(b);
	stop(&f);
	free(data);
}

static void test_slow_reader(void **state)
{
	enum { NR = 64 };
	unsigned char *data = malloc(MIB), *expected = malloc(MIB);
	struct fixture f = { 0 };
	uint64_t handle;
	int fd;

	(void)state;
	start(&f, (struct nbd_server_options){ .spin_us = 1000 }, 0);
	fd = open_client(&f, false);
	fill(fake_vswap_page(f.vswap, 0), MIB, 5);
	fill(expected, MIB, 5);
	/* Far more than the socket and the buffers hold: the server must stop and go on. */
	for (uint64_t i = 0; i < NR; i++)
		request(fd, NBD_CMD_READ, i, 0, MIB);
	for (uint64_t i = 0; i < NR; i++) {
		assert_int_equal(recv_simple(fd, &handle), 0);
		recv_all(fd, data, MIB);
		assert_memory_equal(data, expected, MIB);
	}
	close(fd);
	stop(&f);
	free(data);
	free(expected);
}

static void test_handshake_timeout(void **state)
{
	unsigned char greeting[18];
	struct fixture f = { 0 };
	int silent;

	(void)state;
	start(&f, (struct nbd_server_options){ .handshake_ms = 20 }, 0);
	silent = dial(&f);
	recv_all(silent, greeting, sizeof(greeting));
	expect_end(silent);
	assert_true(counters_of(&f).timeouts == 1);
	stop(&f);
}

static void test_stalled_client(void **state)
{
	struct fixture f = { 0 };
	int idle, stalled;

	(void)state;
	start(&f, (struct nbd_server_options){ .stall_ms = 20 }, 0);
	idle = open_client(&f, false);
	stalled = open_client(&f, false);
	/* A client that stops in the middle of a message is cut; one that owes nothing may stay. */
	request(stalled, NBD_CMD_WRITE, 1, 0, PAGE);
	expect_end(stalled);
	assert_true(counters_of(&f).timeouts == 1);
	expect_zeros(idle, 0, PAGE);
	close(idle);
	stop(&f);
}

static void test_too_many_connections(void **state)
{
	struct fixture f = { 0 };
	int a, b;

	(void)state;
	start(&f, (struct nbd_server_options){ .max_connections = 1 }, 0);
	a = open_client(&f, false);
	b = dial(&f);
	expect_end(b);
	assert_true(counters_of(&f).refused == 1);
	assert_true(counters_of(&f).accepted == 2);
	expect_zeros(a, 0, PAGE);
	request(a, NBD_CMD_DISC, 0, 0, 0);
	expect_end(a);
	/* Its place is free again, soon. */
	while (counters_of(&f).connections > 0)
		sched_yield();
	b = open_client(&f, false);
	close(b);
	stop(&f);
}

static void test_bad_options(void **state)
{
	struct nbd_server_options options = { .nr_queues = 1, .address = "unix:/nonexistent/dir/socket" };
	struct nbd_server *server = NULL;
	struct sys_reactor *reactor;

	(void)state;
	assert_int_equal(sys_reactor_create(&(struct sys_reactor_options){ .name = "nbd", .cpu = -1 }, &reactor), 0);
	options.vswap = fake_vswap_open(
		&(struct fake_vswap_options){ .nr_pages = 16, .reactors = &reactor, .nr_queues = 1 });
	assert_int_equal(nbd_server_open(&options, &server), -ENOENT);
	options.address = "somewhere";
	assert_int_equal(nbd_server_open(&options, &server), -EINVAL);
	options.address = "127.0.0.1:0";
	options.queue_depth = 1025;
	assert_int_equal(nbd_server_open(&options, &server), -EINVAL);
	options.queue_depth = 0;
	options.nr_queues = 0;
	assert_int_equal(nbd_server_open(&options, &server), -EINVAL);
	assert_null(server);
	nbd_server_close(NULL);
	fake_vswap_close(options.vswap);
	sys_reactor_free(reactor);
}

static void test_tcp(void **state)
{
	struct nbd_server_options options = { .nr_queues = 1, .address = "127.0.0.1:0" };
	struct sys_address address;
	struct nbd_server *server;
	struct sys_reactor *reactor;
	unsigned char greeting[18];
	int fd;

	(void)state;
	assert_int_equal(sys_reactor_create(&(struct sys_reactor_options){ .name = "nbd", .cpu = -1 }, &reactor), 0);
	assert_int_equal(sys_reactor_start(reactor), 0);
	options.vswap = fake_vswap_open(
		&(struct fake_vswap_options){ .nr_pages = 16, .reactors = &reactor, .nr_queues = 1 });
	assert_int_equal(nbd_server_open(&options, &server), 0);
	nbd_server_address(server, &address);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address.addr, address.len), 0);
	recv_all(fd, greeting, sizeof(greeting));
	assert_true(nbd_get64(greeting) == NBD_MAGIC);
	nbd_server_close(server);
	expect_end(fd);
	sys_reactor_stop(reactor);
	fake_vswap_close(options.vswap);
	sys_reactor_free(reactor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_round_trip_two_queues),
		cmocka_unit_test(test_round_trip_spinning),
		cmocka_unit_test(test_bytes_may_come_in_any_pieces),
		cmocka_unit_test(test_many_under_way_complete_in_any_order),
		cmocka_unit_test(test_structured_replies),
		cmocka_unit_test(test_errors_of_the_device),
		cmocka_unit_test(test_bad_requests_leave_the_stream_whole),
		cmocka_unit_test(test_garbage_ends_one_connection),
		cmocka_unit_test(test_half_a_message_is_counted),
		cmocka_unit_test(test_disconnect_waits_for_what_is_under_way),
		cmocka_unit_test(test_client_that_vanishes),
		cmocka_unit_test(test_close_with_requests_under_way),
		cmocka_unit_test(test_queue_depth_is_a_limit_and_no_deadlock),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_handshake_timeout),
		cmocka_unit_test(test_stalled_client),
		cmocka_unit_test(test_too_many_connections),
		cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_tcp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

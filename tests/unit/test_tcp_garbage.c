/* deps: tests_conform_transport common_transport_tcp common_wire common_base */
/*
 * What strangers can send to a lender's port, and what they get: the door, counted; and nobody else notices.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/rand.h"
#include "common/transport/tcp/tcp.h"
#include "common/wire/crc32c.h"
#include "common/wire/proof.h"
#include "tests/conform/client.h"
#include "tests/conform/target.h"

#define INSTANCE 9
#define LEASE 1
#define KEY 5
#define DEADLINE_NS (30 * SYS_NS_PER_S)

static struct target target;
static struct client client;
static struct sys_reactor *reactors[2];
static struct tcp_listener *listener;
static char address_text[SYS_ADDRESS_MAX];

static void open_lender(unsigned handshake_ms, unsigned silence_ms, unsigned max_connections)
{
	struct sys_reactor_options reactor_options = { .name = "lender", .cpu = -1 };
	struct tcp_listener_options options = {
		.address = "127.0.0.1:0",
		.target = &target.head,
		.reactors = reactors,
		.nr_reactors = 2,
		.max_connections = max_connections,
		.handshake_ms = handshake_ms,
		.silence_ms = silence_ms,
	};
	struct transport_connect_options connect_options = {
		.address = address_text,
		.lease_id = LEASE,
		.instance_id = INSTANCE,
		.queue_depth = 8,
		.heartbeat_ms = 50,
		.dead_ms = 30000,
		.timeout_ms = 30000,
	};
	struct sys_address address;

	target_init(&target, INSTANCE);
	target_lease_add(&target, LEASE);
	target_slab_add(&target, LEASE, KEY, 1 << 20);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(sys_reactor_create(&reactor_options, &reactors[i]), 0);
		assert_int_equal(sys_reactor_start(reactors[i]), 0);
	}
	assert_int_equal(tcp_listener_open(&options, &listener), 0);
	tcp_listener_address(listener, &address);
	sys_address_format(&address, address_text);
	target_token(LEASE, connect_options.token);
	client_init(&client, NULL);
	assert_int_equal(client_connect(&client, tcp_driver(), &connect_options), 0);
}

static int set_up(void **state)
{
	(void)state;
	open_lender(30000, 30000, 4);
	return 0;
}

/* Strangers are soon given up. */
static int set_up_impatient(void **state)
{
	(void)state;
	open_lender(200, 1000, 4);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	client_done(&client);
	tcp_listener_close(listener);
	for (size_t i = 0; i < 2; i++) {
		sys_reactor_stop(reactors[i]);
		sys_reactor_free(reactors[i]);
	}
	target_done(&target);
	return 0;
}

/* The connection that was there before goes on as if nothing had happened. */
static void check_client(void)
{
	static char bytes[8192];
	static char back[8192];
	struct client_op op;

	memset(bytes, (int)(random() & 0xff), sizeof(bytes));
	client_op_init(&op, TRANSPORT_WRITE, 0, KEY, 0, bytes, sizeof(bytes), 1);
	assert_int_equal(client_run(&client, &op), 0);
	client_op_init(&op, TRANSPORT_READ, 0, KEY, 0, back, sizeof(back), 1);
	assert_int_equal(client_run(&client, &op), 0);
	assert_memory_equal(bytes, back, sizeof(bytes));
	assert_int_equal(client.nr_down, 0);
}

static uint64_t deadline(void)
{
	return sys_clock_now_ns(sys_clock_monotonic()) + DEADLINE_NS;
}

static struct tcp_listener_counters counters(void)
{
	struct tcp_listener_counters c;

	tcp_listener_counters(listener, &c);
	return c;
}

/* A stranger's connection, which has read the HELLO. */
static int stranger(struct wire_hello *ret_hello)
{
	uint8_t bytes[WIRE_HELLO_BYTES];
	struct sys_address address;
	int fd;

	assert_int_equal(sys_address_parse(address_text, false, &address), 0);
	fd = sys_socket_connect(&address, 30000);
	assert_true(fd >= 0);
	assert_int_equal(sys_socket_recv_all(fd, bytes, sizeof(bytes), deadline()), 0);
	assert_int_equal(wire_hello_unpack(bytes, ret_hello), 0);
	assert_int_equal(ret_hello->instance_id, INSTANCE);
	return fd;
}

static void send_bytes(int fd, const void *bytes, size_t len_bytes)
{
	assert_int_equal(sys_socket_send_all(fd, bytes, len_bytes, deadline()), 0);
}

/* Reads until the lender has cut the connection. */
static void expect_cut(int fd)
{
	uint8_t byte;

	while (sys_socket_recv_all(fd, &byte, 1, deadline()) == 0)
		;
	assert_int_not_equal(sys_socket_recv_all(fd, &byte, 1, deadline()), -ETIMEDOUT);
	close(fd);
}

static struct wire_auth good_auth(const struct wire_hello *hello)
{
	struct wire_auth auth = {
		.version = 1,
		.channel = 7,
		.lease_id = LEASE,
		.instance_id = INSTANCE,
		.queue_depth = 4,
		.heartbeat_ms = 100,
	};
	uint8_t token[WIRE_TOKEN_BYTES];

	wire_nonce_make(auth.nonce);
	target_token(LEASE, token);
	wire_proof_initiator(token, hello, &auth, auth.proof);
	return auth;
}

static void send_auth(int fd, const struct wire_auth *auth)
{
	uint8_t bytes[WIRE_AUTH_BYTES];

	wire_auth_pack(auth, bytes);
	send_bytes(fd, bytes, sizeof(bytes));
}

static struct wire_ready receive_ready(int fd)
{
	uint8_t bytes[WIRE_READY_BYTES];
	struct wire_ready ready;

	assert_int_equal(sys_socket_recv_all(fd, bytes, sizeof(bytes), deadline()), 0);
	assert_int_equal(wire_ready_unpack(bytes, &ready), 0);
	return ready;
}

/* A stranger who knows the token, and speaks the protocol this far. */
static int insider(void)
{
	struct wire_hello hello;
	struct wire_auth auth;
	int fd = stranger(&hello);

	auth = good_auth(&hello);
	send_auth(fd, &auth);
	assert_int_equal(receive_ready(fd).refusal, WIRE_REFUSAL_NONE);
	return fd;
}

static void random_bytes(void **state)
{
	struct rand_state rand = { .s = 4711 };
	struct wire_hello hello;
	uint8_t bytes[4096];

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		int fd = stranger(&hello);

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)rand_next(&rand);
		send_bytes(fd, bytes, WIRE_AUTH_BYTES + rand_below(&rand, sizeof(bytes) - WIRE_AUTH_BYTES));
		expect_cut(fd);
		check_client();
	}
	assert_int_equal(counters().protocol_errors, 20);
	assert_int_equal(atomic_load(&target.nr_refused), 20);
	assert_int_equal(atomic_load(&target.last_refusal), -EPROTO);
	assert_int_equal(counters().admitted, 1);
}

static void half_a_handshake(void **state)
{
	struct wire_hello hello;
	struct wire_auth auth;
	uint8_t bytes[WIRE_AUTH_BYTES];
	int fd;

	(void)state;
	for (unsigned len = 1; len < WIRE_AUTH_BYTES; len += 17) {
		fd = stranger(&hello);
		auth = good_auth(&hello);
		wire_auth_pack(&auth, bytes);
		send_bytes(fd, bytes, len);
		close(fd);
	}
	target_wait(&target, &target.nr_refused, 7);
	assert_int_equal(counters().truncated, 7);
	assert_int_equal(atomic_load(&target.last_refusal), -EPIPE);
	/* Who only looks at the port and goes has done nothing wrong. */
	fd = stranger(&hello);
	close(fd);
	check_client();
	assert_int_equal(counters().truncated, 7);
	assert_int_equal(counters().protocol_errors, 0);
}

static void refused_with_a_reason(void **state)
{
	static const enum wire_refusal refusals[] = { WIRE_REFUSAL_DENIED, WIRE_REFUSAL_DENIED,	 WIRE_REFUSAL_STALE,
						      WIRE_REFUSAL_STALE,  WIRE_REFUSAL_VERSION, WIRE_REFUSAL_DENIED };

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(refusals); i++) {
		struct wire_hello hello;
		struct wire_auth auth;
		int fd = stranger(&hello);

		auth = good_auth(&hello);
		switch (i) {
		case 0:
			auth.proof[0] ^= 1;
			break;
		case 1:
			auth.channel++; /* not what was proven */
			break;
		case 2:
			auth.lease_id = 99;
			break;
		case 3:
			auth.instance_id++;
			break;
		case 4:
			auth.version = 2;
			break;
		case 5:
			memcpy(auth.proof, auth.nonce, sizeof(auth.proof));
			break;
		}
		send_auth(fd, &auth);
		assert_int_equal(receive_ready(fd).refusal, refusals[i]);
		expect_cut(fd);
		check_client();
	}
	assert_int_equal(counters().refused, BASE_ARRAY_SIZE(refusals));
	assert_int_equal(counters().admitted, 1);
}

static void replayed_handshake(void **state)
{
	struct wire_hello hello;
	struct wire_auth auth;
	struct wire_ready ready;
	struct wire_ready reflected;
	int fd = stranger(&hello);

	(void)state;
	auth = good_auth(&hello);
	send_auth(fd, &auth);
	ready = receive_ready(fd);
	assert_int_equal(ready.refusal, WIRE_REFUSAL_NONE);
	close(fd);
	/* The same bytes again. */
	fd = stranger(&hello);
	send_auth(fd, &auth);
	assert_int_equal(receive_ready(fd).refusal, WIRE_REFUSAL_DENIED);
	expect_cut(fd);
	/* The lender's own proof, sent back. */
	fd = stranger(&hello);
	memcpy(auth.proof, ready.proof, sizeof(auth.proof));
	send_auth(fd, &auth);
	reflected = receive_ready(fd);
	assert_int_equal(reflected.refusal, WIRE_REFUSAL_DENIED);
	expect_cut(fd);
	assert_int_equal(counters().refused, 2);
	assert_int_equal(atomic_load(&target.last_refusal), -EACCES);
	check_client();
}

/* A request with a CRC that is right whatever it says. */
static void craft(uint8_t bytes[WIRE_REQUEST_BYTES], uint8_t opcode, uint32_t tag, uint64_t offset_bytes,
		  uint32_t len_bytes)
{
	uint32_t key = KEY;
	uint32_t crc;

	memset(bytes, 0, WIRE_REQUEST_BYTES);
	bytes[0] = opcode;
	memcpy(bytes + 4, &tag, 4);
	memcpy(bytes + 12, &key, 4);
	memcpy(bytes + 16, &offset_bytes, 8);
	memcpy(bytes + 24, &len_bytes, 4);
	crc = wire_crc32c(bytes, 28);
	memcpy(bytes + 28, &crc, 4);
}

static void bad_frames(void **state)
{
	uint8_t bytes[WIRE_REQUEST_BYTES];

	(void)state;
	for (unsigned i = 0; i < 9; i++) {
		int fd = insider();

		craft(bytes, WIRE_OPCODE_READ, 0, 0, 4096);
		switch (i) {
		case 0:
			bytes[31] ^= 1;
			break;
		case 1:
			craft(bytes, WIRE_OPCODE_WRITE, 0, 0, UINT32_MAX);
			break;
		case 2:
			craft(bytes, WIRE_OPCODE_WRITE, 0, 0, TRANSPORT_MAX_OP_BYTES + 1);
			break;
		case 3:
			craft(bytes, WIRE_OPCODE_READ, 0, 0, 0);
			break;
		case 4:
			craft(bytes, 77, 0, 0, 4096);
			break;
		case 5:
			craft(bytes, WIRE_OPCODE_READ, 4, 0, 4096); /* the queue is 4 deep */
			break;
		case 6:
			craft(bytes, WIRE_OPCODE_READ, UINT32_MAX, 0, 4096);
			break;
		case 7:
			craft(bytes, WIRE_OPCODE_READ, 0, UINT64_MAX - 10, 4096);
			break;
		case 8:
			memset(bytes, 0xff, sizeof(bytes));
			break;
		}
		send_bytes(fd, bytes, sizeof(bytes));
		expect_cut(fd);
		check_client();
		assert_int_equal(counters().protocol_errors, i + 1);
	}
	for (size_t i = 8192; i < 1 << 20; i++)
		assert_int_equal(target.slabs[0].bytes[i], 0);
	assert_int_equal(atomic_load(&target.last_refusal), -EPROTO);
}

/* A peer may go between two frames; in the middle of a header or of a payload it is counted. */
static void half_a_frame(void **state)
{
	uint8_t bytes[2 * WIRE_REQUEST_BYTES];
	unsigned nr_truncated = 0;

	(void)state;
	craft(bytes, WIRE_OPCODE_WRITE, 0, 0, 0x10000);
	memset(bytes + WIRE_REQUEST_BYTES, 1, WIRE_REQUEST_BYTES);
	for (unsigned len = 0; len <= sizeof(bytes); len += 8) {
		int fd = insider();

		send_bytes(fd, bytes, len);
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		expect_cut(fd);
		nr_truncated += len > 0;
		assert_int_equal(counters().truncated, nr_truncated);
	}
	assert_int_equal(atomic_load(&target.last_refusal), -EPIPE);
	assert_int_equal(counters().protocol_errors, 0);
	check_client();
}

/* A peer that goes in the middle of a payload leaves no trace but what it had written. */
static void half_a_payload(void **state)
{
	uint8_t bytes[WIRE_REQUEST_BYTES + 100];
	int fd = insider();

	(void)state;
	memset(bytes, 1, sizeof(bytes));
	craft(bytes, WIRE_OPCODE_WRITE, 0, 65536, 8192);
	send_bytes(fd, bytes, sizeof(bytes));
	close(fd);
	/* The next one on the same lease and channel is let in when that one has left. */
	fd = insider();
	check_client();
	assert_int_equal(target.slabs[0].bytes[65536 + 100], 0);
	assert_int_equal(atomic_load(&target.nr_collided), 0);
	close(fd);
}

/* More of them than there is room for; they say nothing, and the one with a token gets in all the same. */
static void crowd(void **state)
{
	struct transport_connect_options options = {
		.address = address_text,
		.lease_id = LEASE,
		.instance_id = INSTANCE,
		.channel = 3,
		.queue_depth = 8,
		.heartbeat_ms = 50,
		.dead_ms = 30000,
		.timeout_ms = 30000,
	};
	struct transport_conn *conn;
	struct sys_address address;
	int fds[100];

	(void)state;
	assert_int_equal(sys_address_parse(address_text, false, &address), 0);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(fds); i++) {
		fds[i] = sys_socket_connect(&address, 30000);
		assert_true(fds[i] >= 0);
	}
	target_token(LEASE, options.token);
	assert_int_equal(transport_connect(tcp_driver(), &options, &conn), 0);
	transport_close(conn);
	assert_true(counters().refused > 0);
	check_client();
	for (size_t i = 0; i < BASE_ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void too_many_connections(void **state)
{
	struct wire_hello hello;
	struct wire_auth auth;
	uint8_t token[WIRE_TOKEN_BYTES];
	int fds[6];

	(void)state;
	/* The client is one, and three more can be had. Another on a channel that is taken only takes its place. */
	target_token(LEASE, token);
	for (unsigned i = 0; i < 6; i++) {
		fds[i] = stranger(&hello);
		auth = good_auth(&hello);
		auth.channel = i < 5 ? 10 + i : 10;
		wire_proof_initiator(token, &hello, &auth, auth.proof);
		send_auth(fds[i], &auth);
		if (i < 3 || i == 5) {
			assert_int_equal(receive_ready(fds[i]).refusal, WIRE_REFUSAL_NONE);
			continue;
		}
		assert_int_equal(receive_ready(fds[i]).refusal, WIRE_REFUSAL_LIMIT);
		expect_cut(fds[i]);
		assert_int_equal(atomic_load(&target.last_refusal), -EMFILE);
	}
	check_client();
	for (unsigned i = 0; i < 6; i++)
		if (i < 3 || i == 5)
			close(fds[i]);
}

static void silent_strangers(void **state)
{
	struct wire_hello hello;
	int fd = stranger(&hello);

	(void)state;
	expect_cut(fd);
	assert_int_equal(counters().timeouts, 1);
	/* One who has proven himself and then says nothing. */
	fd = insider();
	expect_cut(fd);
	assert_int_equal(counters().timeouts, 2);
	assert_int_equal(atomic_load(&target.last_refusal), -ETIMEDOUT);
	check_client();
}

/* Asks for a lot and reads nothing: it is cut when it has shown no life for long enough. */
static void greedy(void **state)
{
	uint8_t bytes[4 * WIRE_REQUEST_BYTES];
	int fd = insider();

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		craft(bytes + (size_t)i * WIRE_REQUEST_BYTES, WIRE_OPCODE_READ, i, 0, 1 << 20);
	send_bytes(fd, bytes, sizeof(bytes));
	target_wait(&target, &target.nr_refused, 1);
	assert_int_equal(counters().timeouts, 1);
	check_client();
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(half_a_handshake, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refused_with_a_reason, set_up, tear_down),
		cmocka_unit_test_setup_teardown(replayed_handshake, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_frames, set_up, tear_down),
		cmocka_unit_test_setup_teardown(half_a_frame, set_up, tear_down),
		cmocka_unit_test_setup_teardown(half_a_payload, set_up, tear_down),
		cmocka_unit_test_setup_teardown(crowd, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_many_connections, set_up, tear_down),
		cmocka_unit_test_setup_teardown(silent_strangers, set_up_impatient, tear_down),
		cmocka_unit_test_setup_teardown(greedy, set_up_impatient, tear_down),
	};

	if (wire_proof_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: tests_conform_transport common_transport_tcp common_wire common_base */
/*
 * The initiator against lenders that are not what they should be: each is a script, run on a thread, that speaks on the
 * other end of a real socket.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/transport/tcp/tcp.h"
#include "common/wire/proof.h"
#include "tests/conform/client.h"
#include "tests/conform/target.h"

#define INSTANCE 9
#define LEASE 1

struct script {
	int port;
	int fd;
	char address[SYS_ADDRESS_MAX];
	pthread_t thread;
	void (*run)(struct script *script);
	/* Of the handshake. */
	struct wire_hello hello;
	struct wire_auth auth;
	struct wire_ready ready;
	uint8_t token[WIRE_TOKEN_BYTES];
};

static uint64_t deadline(void)
{
	return sys_clock_now_ns(sys_clock_monotonic()) + 30 * SYS_NS_PER_S;
}

/* On the script's thread nothing may be asserted by cmocka. */
static void must(bool good)
{
	if (!good)
		abort();
}

static void say(struct script *script, const void *bytes, size_t len_bytes)
{
	must(sys_socket_send_all(script->fd, bytes, len_bytes, deadline()) == 0);
}

static void hear(struct script *script, void *bytes, size_t len_bytes)
{
	must(sys_socket_recv_all(script->fd, bytes, len_bytes, deadline()) == 0);
}

/* Until the other end has gone. */
static void hear_all(struct script *script)
{
	uint8_t byte;

	while (sys_socket_recv_all(script->fd, &byte, 1, deadline()) == 0)
		;
}

static void say_hello(struct script *script)
{
	uint8_t bytes[WIRE_HELLO_BYTES];

	wire_hello_pack(&script->hello, bytes);
	say(script, bytes, sizeof(bytes));
}

static void shake_hands(struct script *script)
{
	uint8_t auth_bytes[WIRE_AUTH_BYTES];
	uint8_t bytes[WIRE_READY_BYTES];

	say_hello(script);
	hear(script, auth_bytes, sizeof(auth_bytes));
	must(wire_auth_unpack(auth_bytes, &script->auth) == 0);
	if (script->ready.refusal == WIRE_REFUSAL_NONE)
		wire_proof_lender(script->token, &script->hello, &script->auth, &script->ready, script->ready.proof);
	wire_ready_pack(&script->ready, bytes);
	say(script, bytes, sizeof(bytes));
}

static void shake_hands_and_stay(struct script *script)
{
	shake_hands(script);
	hear_all(script);
}

static void *script_thread(void *arg)
{
	struct script *script = arg;

	/* Blocking, on purpose: the port is the kernel's, the rest goes by deadlines. */
	script->fd = accept4(script->port, NULL, NULL, SOCK_CLOEXEC);
	must(script->fd >= 0);
	script->run(script);
	close(script->fd);
	return NULL;
}

static void script_start(struct script *script, void (*run)(struct script *script))
{
	struct sys_address address;

	assert_int_equal(sys_address_parse("127.0.0.1:0", true, &address), 0);
	script->port = socket(address.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(script->port >= 0);
	assert_int_equal(bind(script->port, (struct sockaddr *)&address.addr, address.len), 0);
	assert_int_equal(listen(script->port, 1), 0);
	assert_int_equal(getsockname(script->port, (struct sockaddr *)&address.addr, &address.len), 0);
	sys_address_format(&address, script->address);
	script->run = run;
	assert_int_equal(pthread_create(&script->thread, NULL, script_thread, script), 0);
}

static void script_end(struct script *script)
{
	pthread_join(script->thread, NULL);
	close(script->port);
}

static struct script good_script(void)
{
	struct script script = {
		.hello = { .min_version = 1, .max_version = 1, .instance_id = INSTANCE },
		.ready = { .max_payload_bytes = TRANSPORT_MAX_OP_BYTES, .queue_depth = 4, .silence_ms = 30000 },
	};

	wire_nonce_make(script.hello.nonce);
	target_token(LEASE, script.token);
	return script;
}

static struct transport_connect_options options_for(const struct script *script)
{
	struct transport_connect_options options = {
		.address = script->address,
		.lease_id = LEASE,
		.instance_id = INSTANCE,
		.queue_depth = 8,
		.heartbeat_ms = 30,
		.dead_ms = 200,
		.timeout_ms = 30000,
	};

	target_token(LEASE, options.token);
	return options;
}

/* What connect says to a lender of this kind. */
static int connect_to(struct script *script, void (*run)(struct script *script))
{
	struct transport_connect_options options;
	struct transport_conn *conn = NULL;
	int err;

	script_start(script, run);
	options = options_for(script);
	err = transport_connect(tcp_driver(), &options, &conn);
	if (err == 0)
		transport_close(conn);
	script_end(script);
	return err;
}

static void good_lender(void **state)
{
	struct script script = good_script();

	(void)state;
	assert_int_equal(connect_to(&script, shake_hands_and_stay), 0);
	assert_int_equal(script.auth.lease_id, LEASE);
	assert_int_equal(script.auth.queue_depth, 8);
	assert_int_equal(script.auth.heartbeat_ms, 30);
}

static void hang_up(struct script *script)
{
	(void)script;
}

static void say_garbage(struct script *script)
{
	uint8_t bytes[WIRE_HELLO_BYTES];

	memset(bytes, 'x', sizeof(bytes));
	say(script, bytes, sizeof(bytes));
	hear_all(script);
}

static void say_half_a_hello(struct script *script)
{
	say(script, "farswap\1", 8);
}

static void say_hello_and_stay(struct script *script)
{
	say_hello(script);
	hear_all(script);
}

static void not_a_lender(void **state)
{
	struct script script = good_script();

	(void)state;
	assert_int_equal(connect_to(&script, hang_up), -ECONNRESET);
	assert_int_equal(connect_to(&script, say_half_a_hello), -ECONNRESET);
	assert_int_equal(connect_to(&script, say_garbage), -EPROTO);
}

static void silent_lender(void **state)
{
	struct script script = good_script();
	struct transport_connect_options options;
	struct transport_conn *conn = NULL;

	(void)state;
	script_start(&script, say_hello_and_stay);
	options = options_for(&script);
	options.timeout_ms = 50;
	assert_int_equal(transport_connect(tcp_driver(), &options, &conn), -ETIMEDOUT);
	script_end(&script);
}

static void other_lenders(void **state)
{
	struct script script = good_script();

	(void)state;
	script.hello.instance_id++;
	assert_int_equal(connect_to(&script, say_hello_and_stay), -ESTALE);
	script = good_script();
	script.hello.min_version = script.hello.max_version = 7;
	assert_int_equal(connect_to(&script, say_hello_and_stay), -EPROTONOSUPPORT);
	script = good_script();
	script.token[0] ^= 1; /* it does not know the token */
	assert_int_equal(connect_to(&script, shake_hands_and_stay), -EACCES);
	script = good_script();
	script.ready.queue_depth = 9; /* more than was asked for */
	assert_int_equal(connect_to(&script, shake_hands_and_stay), -EPROTO);
	script = good_script();
	script.ready.max_payload_bytes = 4096;
	assert_int_equal(connect_to(&script, shake_hands_and_stay), -EPROTO);
	for (uint32_t refusal = 1; refusal < WIRE_NR_REFUSALS; refusal++) {
		script = good_script();
		script.ready = (struct wire_ready){ .refusal = refusal };
		assert_int_equal(connect_to(&script, shake_hands_and_stay), wire_refusal_to_err(refusal));
	}
}

static void nobody_there(void **state)
{
	struct script script = good_script();
	struct transport_connect_options options;
	struct transport_conn *conn = NULL;

	(void)state;
	script_start(&script, hang_up);
	options = options_for(&script);
	assert_int_equal(transport_connect(tcp_driver(), &options, &conn), -ECONNRESET);
	script_end(&script);
	assert_int_equal(transport_connect(tcp_driver(), &options, &conn), -ECONNREFUSED);
	options.address = "no port here";
	assert_int_equal(transport_connect(tcp_driver(), &options, &conn), -EINVAL);
}

/* With a client on a connection whose lender does run after the handshake: why it goes down. */
static int goes_down(void (*run)(struct script *script), unsigned nr_ops)
{
	struct client *client = calloc(1, sizeof(*client));
	struct client_op *ops = calloc(4, sizeof(*ops));
	struct script script = good_script();
	struct transport_connect_options options;
	char bytes[4][64];
	int err;

	script_start(&script, run);
	options = options_for(&script);
	client_init(client, NULL);
	assert_int_equal(client_connect(client, tcp_driver(), &options), 0);
	assert_int_equal(client->conn->queue_depth, 4);
	for (unsigned i = 0; i < nr_ops; i++)
		client_op_init(&ops[i], TRANSPORT_READ, 0, 0, 0, bytes[i], 64, 1);
	/* Nothing is taken any more if it went down that fast. */
	nr_ops = client_submit(client, ops, nr_ops, &err);
	err = client_wait_down(client);
	for (unsigned i = 0; i < nr_ops; i++)
		assert_int_equal(ops[i].status, err);
	assert_int_equal(client->nr_down, 1);
	client_done(client);
	script_end(&script);
	free(client);
	free(ops);
	return err;
}

static void shake_hands_and_go(struct script *script)
{
	uint8_t request[WIRE_REQUEST_BYTES];

	shake_hands(script);
	hear(script, request, sizeof(request));
}

static void shake_hands_and_babble(struct script *script)
{
	uint8_t bytes[WIRE_RESPONSE_BYTES];

	shake_hands(script);
	memset(bytes, 0xaa, sizeof(bytes));
	say(script, bytes, sizeof(bytes));
	hear_all(script);
}

static void answer_what_nobody_asked(struct script *script)
{
	struct wire_response response = { .opcode = WIRE_OPCODE_READ, .tag = 3, .len_bytes = 64 };
	uint8_t bytes[WIRE_RESPONSE_BYTES];

	shake_hands(script);
	wire_response_pack(&response, bytes);
	say(script, bytes, sizeof(bytes));
	hear_all(script);
}

static void goes_down_in_the_end(void **state)
{
	(void)state;
	assert_int_equal(goes_down(shake_hands_and_go, 3), -ECONNRESET);
	assert_int_equal(goes_down(shake_hands_and_babble, 1), -EPROTO);
	assert_int_equal(goes_down(answer_what_nobody_asked, 2), -EPROTO);
	/* Neither operations nor heartbeats are answered. */
	assert_int_equal(goes_down(shake_hands_and_stay, 2), -ETIMEDOUT);
	assert_int_equal(goes_down(shake_hands_and_stay, 0), -ETIMEDOUT);
}

/* A clock that a test can put forward, as if everybody had stood still for a while. */
struct jumping_clock {
	struct sys_clock head;
	atomic_uint_fast64_t jumped_ns;
};

static uint64_t jumping_now(struct sys_clock *clock)
{
	return sys_clock_now_ns(sys_clock_monotonic()) +
	       atomic_load(&BASE_CONTAINER_OF(clock, struct jumping_clock, head)->jumped_ns);
}

static sem_t ping_is_here;
static sem_t pong_may_go;

static void answer_one_ping_late(struct script *script)
{
	struct wire_response response = { .opcode = WIRE_OPCODE_PING };
	uint8_t bytes[WIRE_REQUEST_BYTES];
	struct wire_request request;

	shake_hands(script);
	hear(script, bytes, sizeof(bytes));
	must(wire_request_unpack(bytes, &request) == 0 && request.opcode == WIRE_OPCODE_PING);
	sem_post(&ping_is_here);
	while (sem_wait(&pong_may_go) < 0)
		;
	response.tag = request.tag;
	wire_response_pack(&response, bytes);
	say(script, bytes, WIRE_RESPONSE_BYTES);
	/* The next ping says that the pong has come. */
	hear(script, bytes, sizeof(bytes));
	sem_post(&ping_is_here);
	hear_all(script);
}

static void turned(void *arg)
{
	(void)arg;
}

/* The client stands still for a minute while a pong is due: that is not the lender's silence. */
static void a_pause_is_forgiven(void **state)
{
	struct jumping_clock clock = { .head.now_ns = jumping_now };
	struct script script = good_script();
	struct transport_connect_options options;
	struct client client;

	(void)state;
	sem_init(&ping_is_here, 0, 0);
	sem_init(&pong_may_go, 0, 0);
	script_start(&script, answer_one_ping_late);
	options = options_for(&script);
	options.dead_ms = 20000;
	client_init(&client, &clock.head);
	assert_int_equal(client_connect(&client, tcp_driver(), &options), 0);
	while (sem_wait(&ping_is_here) < 0)
		;
	atomic_store(&clock.jumped_ns, 60 * SYS_NS_PER_S);
	sys_reactor_call(client.reactor, turned, NULL); /* the turn in which the timer is late */
	sys_reactor_call(client.reactor, turned, NULL);
	assert_int_equal(client.nr_down, 0);
	sem_post(&pong_may_go);
	while (sem_wait(&ping_is_here) < 0)
		;
	assert_int_equal(client.nr_down, 0);
	assert_true(client.conn->heartbeat_rtt_ns > 0);
	client_done(&client);
	script_end(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_lender),	 cmocka_unit_test(not_a_lender), cmocka_unit_test(silent_lender),
		cmocka_unit_test(other_lenders), cmocka_unit_test(nobody_there), cmocka_unit_test(goes_down_in_the_end),
		cmocka_unit_test(a_pause_is_forgiven),
	};

	if (wire_proof_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * How the initiator's connection is made: connect, HELLO, AUTH, READY, all on a control thread against one deadline.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/transport/op.h"
#include "common/transport/tcp/conn.h"
#include "common/transport/tcp/tcp.h"
#include "common/wire/proof.h"

/* How long before the deadline there is still any sense in beginning. */
static int connect_left_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = sys_clock_now_ns(sys_clock_monotonic());

	return now_ns < deadline_ns ? (int)((deadline_ns - now_ns) / SYS_NS_PER_MS) : 0;
}

static int connect_receive_hello(int fd, const struct transport_connect_options *options, uint64_t deadline_ns,
				 struct wire_hello *ret_hello)
{
	uint8_t bytes[WIRE_HELLO_BYTES];
	int err;

	err = sys_socket_recv_all(fd, bytes, sizeof(bytes), deadline_ns);
	if (err == 0)
		err = wire_hello_unpack(bytes, ret_hello);
	if (err == 0 && ret_hello->instance_id != options->instance_id)
		err = -ESTALE;
	return err;
}

static int connect_send_auth(int fd, const struct transport_connect_options *options, const struct wire_hello *hello,
			     uint64_t deadline_ns, struct wire_auth *ret_auth)
{
	uint8_t bytes[WIRE_AUTH_BYTES];
	int err;

	*ret_auth = (struct wire_auth){
		.channel = options->channel,
		.lease_id = options->lease_id,
		.instance_id = options->instance_id,
		.queue_depth = options->queue_depth,
		.heartbeat_ms = options->heartbeat_ms,
	};
	err = wire_version_choose(hello, &ret_auth->version);
	if (err < 0)
		return err;
	wire_nonce_make(ret_auth->nonce);
	wire_proof_initiator(options->token, hello, ret_auth, ret_auth->proof);
	wire_auth_pack(ret_auth, bytes);
	return sys_socket_send_all(fd, bytes, sizeof(bytes), deadline_ns);
}

static int connect_receive_ready(int fd, const struct transport_connect_options *options, const struct wire_hello *hello,
				 const struct wire_auth *auth, uint64_t deadline_ns, struct wire_ready *ret_ready)
{
	uint8_t bytes[WIRE_READY_BYTES];
	uint8_t proof[WIRE_PROOF_BYTES];
	int err;

	err = sys_socket_recv_all(fd, bytes, sizeof(bytes), deadline_ns);
	if (err == 0)
		err = wire_ready_unpack(bytes, ret_ready);
	if (err < 0)
		return err;
	if (ret_ready->refusal != WIRE_REFUSAL_NONE)
		return wire_refusal_to_err(ret_ready->refusal);
	wire_proof_lender(options->token, hello, auth, ret_ready, proof);
	if (!wire_proof_equal(proof, ret_ready->proof))
		return -EACCES;
	/* A lender that takes less than we may be asked to send, or grants more than was wished, is not ours. */
	if (ret_ready->max_payload_bytes < TRANSPORT_MAX_OP_BYTES || ret_ready->queue_depth > options->queue_depth)
		return -EPROTO;
	return 0;
}

/* Shows life at least three times before the lender would cut us for silence. */
static unsigned connect_heartbeat_ms(const struct transport_connect_options *options, const struct wire_ready *ready)
{
	uint32_t limit_ms = ready->silence_ms / 3 > 0 ? ready->silence_ms / 3 : 1;

	return options->heartbeat_ms < limit_ms ? options->heartbeat_ms : limit_ms;
}

static int tcp_connect(struct transport_driver *driver, const struct transport_connect_options *options,
		       struct transport_conn **ret_conn)
{
	uint64_t deadline_ns = sys_clock_now_ns(sys_clock_monotonic()) + options->timeout_ms * SYS_NS_PER_MS;
	struct sys_address address;
	struct wire_hello hello;
	struct wire_auth auth;
	struct wire_ready ready;
	int err;
	int fd;

	(void)driver;
	err = transport_connect_options_check(options);
	if (err == 0)
		err = wire_proof_init();
	if (err == 0)
		err = sys_address_parse(options->address, false, &address);
	if (err < 0)
		return err;
	fd = sys_socket_connect(&address, connect_left_ms(deadline_ns));
	if (fd < 0)
		return fd;
	sys_socket_tune(fd, 0, 0);
	err = connect_receive_hello(fd, options, deadline_ns, &hello);
	if (err == 0)
		err = connect_send_auth(fd, options, &hello, deadline_ns, &auth);
	if (err == 0)
		err = connect_receive_ready(fd, options, &hello, &auth, deadline_ns, &ready);
	if (err < 0) {
		close(fd);
		return err;
	}
	return tcp_conn_create(fd, ready.queue_depth, connect_heartbeat_ms(options, &ready), options->dead_ms, ret_conn);
}

struct transport_driver *tcp_driver(void)
{
	static struct transport_driver driver = { .name = "tcp", .connect = tcp_connect };

	return &driver;
}

#include "tests/conform/client.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conform/target.h"

struct client_call {
	struct client *client;
	struct transport_conn *conn;
	struct client_op *ops;
	unsigned nr_ops;
	unsigned nr_taken;
	int err;
};

static void client_on_down(struct transport_conn *conn, int err)
{
	struct client *client = conn->owner;

	assert(err < 0 && conn->in_flight == 0);
	pthread_mutex_lock(&client->lock);
	assert(client->nr_pending == 0 && client->nr_down == 0);
	client->nr_down++;
	client->down_err = err;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

static void client_on_writable(struct transport_conn *conn)
{
	struct client *client = conn->owner;

	assert(conn->in_flight < conn->queue_depth);
	pthread_mutex_lock(&client->lock);
	client->nr_writable++;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

static void client_on_done(struct transport_op *top, int status)
{
	struct client_op *op = BASE_CONTAINER_OF(top, struct client_op, op);
	struct client *client = op->client;

	assert(status <= 0 && op->status == CLIENT_PENDING && !client->submitting);
	op->status = status;
	if (op->then)
		op->then(op);
	pthread_mutex_lock(&client->lock);
	client->nr_pending--;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

struct transport_connect_options client_options(const char *address, uint64_t instance_id, uint64_t lease_id, uint32_t channel,
						uint32_t queue_depth)
{
	struct transport_connect_options options = {
		.address = address,
		.lease_id = lease_id,
		.instance_id = instance_id,
		.channel = channel,
		.queue_depth = queue_depth,
		.heartbeat_ms = 20,
		.dead_ms = 30000,
		.timeout_ms = 30000,
	};

	target_token(lease_id, options.token);
	return options;
}

void client_init(struct client *client, struct sys_clock *clock)
{
	struct sys_reactor_options options = { .name = "client", .cpu = -1, .clock = clock };
	int err;

	memset(client, 0, sizeof(*client));
	pthread_mutex_init(&client->lock, NULL);
	pthread_cond_init(&client->changed, NULL);
	err = sys_reactor_create(&options, &client->reactor);
	if (err == 0)
		err = sys_reactor_start(client->reactor);
	if (err < 0)
		abort();
}

void client_done(struct client *client)
{
	client_close(client);
	sys_reactor_stop(client->reactor);
	sys_reactor_free(client->reactor);
	pthread_cond_destroy(&client->changed);
	pthread_mutex_destroy(&client->lock);
}

static void client_attach_here(void *arg)
{
	struct client_call *call = arg;

	call->conn->owner = call->client;
	call->conn->down = client_on_down;
	call->conn->writable = client_on_writable;
	call->err = transport_attach(call->conn, call->client->reactor);
}

int client_connect(struct client *client, struct transport_driver *driver,
		   const struct transport_connect_options *options)
{
	struct client_call call = { .client = client };
	int err;

	assert(!client->conn);
	err = transport_connect(driver, options, &call.conn);
	if (err < 0)
		return err;
	client->nr_down = 0;
	client->down_err = 0;
	sys_reactor_call(client->reactor, client_attach_here, &call);
	client->conn = call.conn;
	return call.err;
}

static void client_close_here(void *arg)
{
	struct client_call *call = arg;

	transport_close(call->client->conn);
	call->client->conn = NULL;
}

void client_close(struct client *client)
{
	struct client_call call = { .client = client };

	if (client->conn)
		sys_reactor_call(client->reactor, client_close_here, &call);
}

void client_op_init(struct client_op *op, enum transport_opcode opcode, uint32_t slab, uint32_t key,
		    uint64_t offset_bytes, void *bytes, uint32_t len_bytes, unsigned nr_iov)
{
	uint32_t at = 0;

	memset(op, 0, sizeof(*op));
	op->op.opcode = (uint8_t)opcode;
	op->op.slab = slab;
	op->op.key = key;
	op->op.offset_bytes = offset_bytes;
	op->op.len_bytes = len_bytes;
	op->op.iov = op->iov;
	op->op.nr_iov = nr_iov;
	op->op.done = client_on_done;
	for (unsigned i = 0; i < nr_iov; i++) {
		uint32_t end = (uint32_t)((uint64_t)len_bytes * (i + 1) / nr_iov);

		op->iov[i] = (struct iovec){ .iov_base = (char *)bytes + at, .iov_len = end - at };
		at = end;
	}
}

int client_submit_here(struct client *client, struct client_op *op)
{
	int err;

	op->client = client;
	op->status = CLIENT_PENDING;
	pthread_mutex_lock(&client->lock);
	client->nr_pending++;
	pthread_mutex_unlock(&client->lock);
	client->submitting = true;
	err = transport_submit(client->conn, &op->op);
	client->submitting = false;
	if (err == 0)
		return 0;
	op->status = err;
	pthread_mutex_lock(&client->lock);
	client->nr_pending--;
	pthread_mutex_unlock(&client->lock);
	return err;
}

static void client_submit_all_here(void *arg)
{
	struct client_call *call = arg;

	while (call->nr_taken < call->nr_ops && call->err == 0) {
		call->err = client_submit_here(call->client, &call->ops[call->nr_taken]);
		if (call->err == 0)
			call->nr_taken++;
	}
}

unsigned client_submit(struct client *client, struct client_op *ops, unsigned nr_ops, int *ret_err)
{
	struct client_call call = { .client = client, .ops = ops, .nr_ops = nr_ops };

	sys_reactor_call(client->reactor, client_submit_all_here, &call);
	*ret_err = call.err;
	return call.nr_taken;
}

static void client_submit_and_close_here(void *arg)
{
	client_submit_all_here(arg);
	client_close_here(arg);
}

unsigned client_submit_and_close(struct client *client, struct client_op *ops, unsigned nr_ops)
{
	struct client_call call = { .client = client, .ops = ops, .nr_ops = nr_ops };

	sys_reactor_call(client->reactor, client_submit_and_close_here, &call);
	return call.nr_taken;
}

void client_wait(struct client *client)
{
	pthread_mutex_lock(&client->lock);
	while (client->nr_pending > 0)
		pthread_cond_wait(&client->changed, &client->lock);
	pthread_mutex_unlock(&client->lock);
}

int client_run(struct client *client, struct client_op *op)
{
	int err;

	if (client_submit(client, op, 1, &err) == 0)
		return err;
	client_wait(client);
	return op->status;
}

int client_wait_down(struct client *client)
{
	pthread_mutex_lock(&client->lock);
	while (client->nr_down == 0)
		pthread_cond_wait(&client->changed, &client->lock);
	pthread_mutex_unlock(&client->lock);
	return client->down_err;
}

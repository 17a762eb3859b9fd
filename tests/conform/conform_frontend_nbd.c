/*
 * The front end suite over the NBD server, on a unix socket: simple and structured replies, one and several connections,
 * reactors that sleep and that ask.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/frontend/nbd/nbd.h"
#include "tests/conform/frontend.h"
#include "tests/conform/nbd_client.h"

#define MAX_BYTES (2u << 20)
#define REQUIRED_FLAGS \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | \
	 NBD_FLAG_CAN_MULTI_CONN)

struct conform_server {
	const struct conform_config *config;
	struct nbd_server *nbd;
	char dir[32];
	char path[48];
};

struct connection {
	struct conform_holder holder;
	struct nbd_client *client;
};

struct conform_victim {
	struct nbd_client *client;
	unsigned call;
};

static const char *nbd_missing(void)
{
	return NULL;
}

static int nbd_start(const struct conform_config *config, struct vswap *vswap, struct conform_server **ret_server)
{
	struct conform_server *server = calloc(1, sizeof(*server));
	struct nbd_server_options options = { .vswap = vswap, .nr_queues = config->nr_queues,
					      .spin_us = config->spin_us };
	char address[64];
	int ret;

	assert(server);
	server->config = config;
	snprintf(server->dir, sizeof(server->dir), "/tmp/conform_nbd_XXXXXX");
	if (!mkdtemp(server->dir)) {
		ret = -errno;
		goto out_server;
	}
	snprintf(server->path, sizeof(server->path), "%s/socket", server->dir);
	snprintf(address, sizeof(address), "unix:%s", server->path);
	options.address = address;
	ret = nbd_server_open(&options, &server->nbd);
	if (ret < 0)
		goto out_dir;
	*ret_server = server;
	return 0;

out_dir:
	rmdir(server->dir);
out_server:
	free(server);
	return ret;
}

static void nbd_stop(struct conform_server *server)
{
	nbd_server_close(server->nbd);
	rmdir(server->dir);
	free(server);
}

static bool nbd_is_up(const struct conform_server *server)
{
	return access(server->path, F_OK) == 0;
}

static int nbd_open(struct conform_server *server, struct conform_holder **ret_holder)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	struct nbd_client *client;
	int ret;

	assert(connection);
	ret = nbd_client_open(server->path, !server->config->simple_replies, &client);
	if (ret < 0) {
		free(connection);
		return ret;
	}
	if ((client->flags & REQUIRED_FLAGS) != REQUIRED_FLAGS || client->max_block_bytes != MAX_BYTES) {
		nbd_client_close(client);
		free(connection);
		return -EPROTO;
	}
	connection->client = client;
	connection->holder.size_bytes = client->export_bytes;
	connection->holder.block_bytes = client->min_block_bytes;
	*ret_holder = &connection->holder;
	return 0;
}

static struct nbd_client *client_of(struct conform_holder *holder)
{
	return BASE_CONTAINER_OF(holder, struct connection, holder)->client;
}

static void nbd_close(struct conform_holder *holder)
{
	nbd_client_close(client_of(holder));
	free(BASE_CONTAINER_OF(holder, struct connection, holder));
}

static int call(struct conform_holder *holder, enum nbd_command command, uint64_t offset_bytes, void *buf,
		uint64_t len_bytes)
{
	struct nbd_client *client = client_of(holder);

	assert(len_bytes <= UINT32_MAX);
	return nbd_client_end(client,
			      nbd_client_begin(client, command, 0, offset_bytes, buf, (uint32_t)len_bytes));
}

static int64_t nbd_read(struct conform_holder *holder, void *buf, size_t len_bytes, uint64_t offset_bytes)
{
	int ret = call(holder, NBD_CMD_READ, offset_bytes, buf, len_bytes);

	return ret < 0 ? ret : (int64_t)len_bytes;
}

static int64_t nbd_write(struct conform_holder *holder, const void *buf, size_t len_bytes, uint64_t offset_bytes)
{
	int ret = call(holder, NBD_CMD_WRITE, offset_bytes, (void *)(uintptr_t)buf, len_bytes);

	return ret < 0 ? ret : (int64_t)len_bytes;
}

static int nbd_discard(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes)
{
	return call(holder, NBD_CMD_TRIM, offset_bytes, NULL, len_bytes);
}

static int nbd_write_zeroes(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes)
{
	return call(holder, NBD_CMD_WRITE_ZEROES, offset_bytes, NULL, len_bytes);
}

static int nbd_flush(struct conform_holder *holder)
{
	return call(holder, NBD_CMD_FLUSH, 0, NULL, 0);
}

static int nbd_doom(struct conform_server *server, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		    struct conform_victim **ret_victim)
{
	struct conform_victim *victim = calloc(1, sizeof(*victim));
	int ret;

	assert(victim);
	ret = nbd_client_open(server->path, !server->config->simple_replies, &victim->client);
	if (ret < 0) {
		free(victim);
		return ret;
	}
	victim->call = nbd_client_begin(victim->client, NBD_CMD_WRITE, 0, offset_bytes, (void *)(uintptr_t)buf,
					(uint32_t)len_bytes);
	*ret_victim = victim;
	return 0;
}

static void nbd_kill(struct conform_victim *victim)
{
	int ret;

	nbd_client_cut(victim->client);
	ret = nbd_client_end(victim->client, victim->call);
	assert(ret == -ENOTCONN);
}

static void nbd_bury(struct conform_victim *victim)
{
	nbd_client_close(victim->client);
	free(victim);
}

static const struct conform_frontend nbd = {
	.max_bytes = MAX_BYTES,
	.outcomes = {
		.misaligned = -EINVAL,
		.empty = -EINVAL,
		.oversized = -EINVAL,
		.read_across = -EINVAL,
		.read_beyond = -EINVAL,
		.write_across = -ENOSPC,
		.write_beyond = -ENOSPC,
		.discard_across = -EINVAL,
		.discard_beyond = -EINVAL,
		.zero_across = -ENOSPC,
		.zero_beyond = -ENOSPC,
		.no_room = -ENOSPC,
	},
	.missing = nbd_missing,
	.start = nbd_start,
	.stop = nbd_stop,
	.is_up = nbd_is_up,
	.open = nbd_open,
	.close = nbd_close,
	.read = nbd_read,
	.write = nbd_write,
	.discard = nbd_discard,
	.write_zeroes = nbd_write_zeroes,
	.flush = nbd_flush,
	.doom = nbd_doom,
	.kill = nbd_kill,
	.bury = nbd_bury,
};

static const struct conform_config configs[] = {
	{ .name = "nbd", .frontend = &nbd, .nr_queues = 1, .nr_holders = 1 },
	{ .name = "nbd, simple replies", .frontend = &nbd, .nr_queues = 1, .nr_holders = 1, .simple_replies = true },
	{ .name = "nbd, four connections", .frontend = &nbd, .nr_queues = 2, .nr_holders = 4 },
	{ .name = "nbd, four with simple replies", .frontend = &nbd, .nr_queues = 2, .nr_holders = 4,
	  .simple_replies = true },
	{ .name = "nbd, reactors that ask", .frontend = &nbd, .nr_queues = 2, .nr_holders = 2, .spin_us = 50 },
};

int main(void)
{
	return conform_frontend_main("conform_frontend_nbd", configs, BASE_ARRAY_SIZE(configs));
}

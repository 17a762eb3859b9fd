/*
 * The front end suite over ublk: a block device. Needs root and the kernel's driver, which is not on every machine: tests/vm
 * runs it where there is one.
 *
 * Should a request never be answered, whoever waits for it cannot be killed; the machine that it runs in can.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/frontend/ublk/ublk.h"
#include "tests/conform/file_holder.h"

struct conform_server {
	struct ublk_frontend *ublk;
	/* The kernel keeps the name until requests in flight have ended: nothing shows before that it has begun to stop. */
	atomic_bool stopping;
	char path[UBLK_FRONTEND_PATH_BYTES];
};

static const char *ublk_missing(void)
{
	if (geteuid() != 0)
		return "not root, and it makes block devices";
	if (access("/dev/ublk-control", R_OK | W_OK) < 0)
		return "there is no /dev/ublk-control";
	return NULL;
}

static int ublk_start(const struct conform_config *config, struct vswap *vswap, struct conform_server **ret_server)
{
	struct ublk_frontend_options options = {
		.vswap = vswap, .nr_queues = config->nr_queues, .spin_us = config->spin_us, .priority = -1
	};
	struct conform_server *server = calloc(1, sizeof(*server));
	int ret;

	if (!server)
		return -ENOMEM;
	ret = ublk_frontend_start(&options, &server->ublk);
	if (ret < 0) {
		free(server);
		return ret;
	}
	snprintf(server->path, sizeof(server->path), "%s", ublk_frontend_device(server->ublk));
	*ret_server = server;
	return 0;
}

static void ublk_stop(struct conform_server *server)
{
	int ret;

	atomic_store(&server->stopping, true);
	ret = ublk_frontend_stop(server->ublk);
	if (ret < 0)
		abort(); /* there is no swap that could stay on */
	free(server);
}

static bool ublk_is_up(const struct conform_server *server)
{
	return !atomic_load(&server->stopping) && access(server->path, F_OK) == 0;
}

static int ublk_open(struct conform_server *server, struct conform_holder **ret_holder)
{
	return file_holder_open(server->path, ret_holder);
}

static int ublk_doom(struct conform_server *server, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		     struct conform_victim **ret_victim)
{
	return file_holder_doom(server->path, buf, len_bytes, offset_bytes, ret_victim);
}

static const struct conform_frontend ublk = {
	.max_bytes = IO_MAX_PAGES << FSW_PAGE_SHIFT,
	.outcomes = FILE_HOLDER_BLOCK_DEVICE_OUTCOMES(-ENOSPC),
	.missing = ublk_missing,
	.start = ublk_start,
	.stop = ublk_stop,
	.is_up = ublk_is_up,
	.open = ublk_open,
	.close = file_holder_close,
	.read = file_holder_read,
	.write = file_holder_write,
	.discard = file_holder_discard,
	.write_zeroes = file_holder_write_zeroes,
	.flush = file_holder_flush,
	.doom = ublk_doom,
	.kill = file_holder_kill,
	.bury = file_holder_bury,
};

static const struct conform_config configs[] = {
	{ .name = "ublk", .frontend = &ublk, .nr_queues = 1, .nr_holders = 1 },
	{ .name = "ublk, two queues", .frontend = &ublk, .nr_queues = 2, .nr_holders = 2 },
	{ .name = "ublk, reactors that look", .frontend = &ublk, .nr_queues = 2, .nr_holders = 2, .spin_us = 50 },
};

int main(void)
{
	return conform_frontend_main("conform_frontend_ublk", configs, BASE_ARRAY_SIZE(configs));
}

/*
 * The front end suite over the kernel's NBD client: /dev/nbdN, served by the process that uses it. Needs root and the nbd
 * module; tests/vm runs it in a machine that has both.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/frontend/nbd/kernel.h"
#include "client/frontend/nbd/netlink.h"
#include "tests/conform/file_holder.h"

/* A request that is never answered ends after so long, with an error. */
#define TIMEOUT_S 60
/* The kernel cuts it into requests of NBD_KERNEL_MAX_BYTES, which its holders do not see. */
#define MAX_BYTES (1u << 20)

struct conform_server {
	struct nbd_kernel *kernel;
	uint64_t last_page;
};

static const char *kernel_missing(void)
{
	struct nbd_netlink *netlink;

	if (geteuid() != 0)
		return "not root, and it sets up a block device";
	if (nbd_netlink_open(NBD_NETLINK_FAMILY, &netlink) < 0)
		return "this kernel has no NBD client: its module nbd is not there, or not loaded";
	nbd_netlink_close(netlink);
	return NULL;
}

static int kernel_start(const struct conform_config *config, struct vswap *vswap, struct conform_server **ret_server)
{
	struct conform_server *server = calloc(1, sizeof(*server));
	struct nbd_kernel_options options = { .vswap = vswap, .nr_queues = config->nr_queues, .index = -1,
					      .spin_us = config->spin_us, .timeout_s = TIMEOUT_S, .priority = -1 };
	int ret;

	assert(server);
	server->last_page = vswap_nr_pages(vswap) - 1;
	ret = nbd_kernel_start(&options, &server->kernel);
	if (ret < 0) {
		free(server);
		return ret;
	}
	*ret_server = server;
	return 0;
}

static void kernel_stop(struct conform_server *server)
{
	int ret = nbd_kernel_stop(server->kernel);

	assert(ret == 0); /* there is no swap that could stay on */
	free(server);
}

/* The name is there as long as somebody has it open: what counts is whether a page that is not stored can be read. */
static bool kernel_is_up(const struct conform_server *server)
{
	_Alignas(FSW_PAGE_SIZE) char page[FSW_PAGE_SIZE];
	int fd = open(nbd_kernel_device(server->kernel), O_RDONLY | O_DIRECT | O_CLOEXEC);
	ssize_t nr;

	if (fd < 0)
		return false;
	nr = pread(fd, page, sizeof(page), (off_t)(server->last_page << FSW_PAGE_SHIFT));
	close(fd);
	return nr == (ssize_t)sizeof(page);
}

static int kernel_open(struct conform_server *server, struct conform_holder **ret_holder)
{
	return file_holder_open(nbd_kernel_device(server->kernel), ret_holder);
}

static int kernel_doom(struct conform_server *server, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		       struct conform_victim **ret_victim)
{
	return file_holder_doom(nbd_kernel_device(server->kernel), buf, len_bytes, offset_bytes, ret_victim);
}

static const struct conform_frontend kernel = {
	.max_bytes = MAX_BYTES,
	.outcomes = FILE_HOLDER_BLOCK_DEVICE_OUTCOMES(-EIO), /* the kernel's NBD client knows one error */
	.missing = kernel_missing,
	.start = kernel_start,
	.stop = kernel_stop,
	.is_up = kernel_is_up,
	.open = kernel_open,
	.close = file_holder_close,
	.read = file_holder_read,
	.write = file_holder_write,
	.discard = file_holder_discard,
	.write_zeroes = file_holder_write_zeroes,
	.flush = file_holder_flush,
	.doom = kernel_doom,
	.kill = file_holder_kill,
	.bury = file_holder_bury,
};

static const struct conform_config configs[] = {
	{ .name = "nbd-kernel, two queues", .frontend = &kernel, .nr_queues = 2, .nr_holders = 2 },
	{ .name = "nbd-kernel, reactors that look", .frontend = &kernel, .nr_queues = 2, .nr_holders = 2, .spin_us = 50 },
};

int main(void)
{
	return conform_frontend_main("conform_frontend_nbd_kernel", configs, BASE_ARRAY_SIZE(configs));
}

/*
 * Puts the device up step by step, and takes it down in the opposite order.
 */
#include "client/frontend/nbd/kernel.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "client/frontend/blockdev.h"
#include "client/frontend/frontend.h"
#include "client/frontend/nbd/internal.h"
#include "client/frontend/nbd/netlink.h"
#include "client/frontend/nbd/wire.h"
#include "client/frontend/owner.h"
#include "client/frontend/swaparea.h"
#include "common/base/err.h"
#include "common/log/log.h"

static_assert(NBD_KERNEL_MAX_BYTES == NBD_SMALL_BYTES, "the longest for which the server has many buffers");

#define WHAT "frontend: nbd-kernel" /* in front of each line in the log */
#define PATH_BYTES 32
/* Of the server's transmission flags those that the kernel has a meaning for; what it does not know yet it passes over. */
#define FLAGS \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)
/* How long somebody else, such as udev, may keep a device open that has been taken down. */
#define GONE_POLLS 50
#define GONE_POLL_NS (40l * 1000 * 1000)

struct nbd_kernel {
	uint64_t nr_pages;
	struct nbd_netlink *netlink;
	struct nbd_server *server;
	uint32_t index;
	char device[PATH_BYTES]; /* "/dev/nbd0" */
	char dir[PATH_BYTES];	 /* "/sys/block/nbd0" */
};

/* ---- what dead daemons have left ---- */

static int clear_one(struct nbd_netlink *netlink, const char *device, uint32_t index)
{
	int ret, unused = frontend_check_unused(WHAT, device);

	/* Also when it is in use: what was under way when its daemon died then fails, instead of waiting for the timeout. */
	ret = nbd_netlink_disconnect(netlink, index);
	if (unused < 0)
		return unused;
	if (ret < 0)
		log_error(WHAT ": cannot take down %s of a process that has died: %s", device, err_text(ret));
	else
		log_notice(WHAT ": took down %s of a process that has died", device);
	return ret;
}

/* By the kernel's list. Where it does not say whose a device is, nothing is found. */
static int clear_remains(struct nbd_netlink *netlink)
{
	char dir[300], device[PATH_BYTES], owner[BLOCKDEV_TEXT_BYTES];
	struct dirent *entry;
	uint32_t index;
	int ret = 0, end;
	DIR *list;

	list = opendir("/sys/block");
	if (!list) {
		ret = -errno;
		log_error(WHAT ": cannot look at /sys/block: %s", err_text(ret));
		return ret;
	}
	while (ret == 0 && (entry = readdir(list))) {
		if (sscanf(entry->d_name, "nbd%u%n", &index, &end) != 1 || entry->d_name[end] != '\0')
			continue;
		snprintf(dir, sizeof(dir), "/sys/block/%s", entry->d_name);
		if (blockdev_attr_read(dir, "backend", owner) < 0 || !frontend_owner_is_dead(owner))
			continue;
		snprintf(device, sizeof(device), "/dev/nbd%u", index);
		ret = clear_one(netlink, device, index);
	}
	closedir(list);
	return ret;
}

/* ---- the device ---- */

static int open_netlink(struct nbd_kernel *kernel)
{
	int ret = nbd_netlink_open(NBD_NETLINK_FAMILY, &kernel->netlink);

	if (ret == -ENOENT || ret == -EPROTONOSUPPORT) {
		log_error(WHAT ": this kernel has no NBD client: load its module nbd ('modprobe nbd')");
		return -ENODEV;
	}
	if (ret < 0)
		log_error(WHAT ": the kernel cannot be spoken to by netlink: %s", err_text(ret));
	return ret;
}

int nbd_kernel_probe(void)
{
	struct nbd_netlink *netlink;
	int ret = nbd_netlink_open(NBD_NETLINK_FAMILY, &netlink);

	if (ret == 0)
		nbd_netlink_close(netlink);
	return ret == -ENOENT || ret == -EPROTONOSUPPORT ? -ENODEV : ret;
}

static void say_why_not(int err, const struct nbd_netlink_device *device)
{
	if (err == -EPERM)
		log_error(WHAT ": the kernel lets only a process with CAP_SYS_ADMIN set up a device");
	else if (device->index == NBD_NETLINK_ANY_INDEX)
		log_error(WHAT ": the kernel has no device to give: %s", err_text(err));
	else if (err == -EBUSY)
		log_error(WHAT ": /dev/nbd%d is in use", device->index);
	else
		log_error(WHAT ": /dev/nbd%d cannot be set up: %s", device->index, err_text(err));
}

/* The pairs: one end to the server, the other to the kernel, which takes a reference, so that we need not keep it. */
static int connect_device(struct nbd_kernel *kernel, const struct nbd_kernel_options *options, const char *owner)
{
	unsigned nr_wanted = options->nr_connections ? options->nr_connections : options->nr_queues;
	int fds[NBD_KERNEL_MAX_CONNECTIONS], pair[2], ret = 0;
	struct nbd_netlink_device device = {
		.index = options->index,
		.size_bytes = kernel->nr_pages << FSW_PAGE_SHIFT,
		.block_bytes = FSW_PAGE_SIZE,
		.flags = FLAGS,
		.timeout_s = options->timeout_s,
		.identifier = owner,
		.fds = fds,
	};

	while (ret == 0 && device.nr_fds < nr_wanted) {
		ret = err_from_libc(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
		if (ret < 0)
			break;
		fds[device.nr_fds++] = pair[0];
		ret = nbd_server_attach(kernel->server, pair[1]);
		if (ret < 0)
			close(pair[1]);
	}
	if (ret < 0) {
		log_error(WHAT ": no sockets for the kernel: %s", err_text(ret));
	} else {
		ret = nbd_netlink_connect(kernel->netlink, &device, &kernel->index);
		if (ret < 0)
			say_why_not(ret, &device);
	}
	/* Before the other ends are closed: it would take that for an accident. */
	if (ret < 0) {
		nbd_server_close(kernel->server);
		kernel->server = NULL;
	}
	for (unsigned i = 0; i < device.nr_fds; i++)
		close(fds[i]);
	return ret;
}

/* That its file is there, and is the device. */
static int check_file(const struct nbd_kernel *kernel)
{
	char text[BLOCKDEV_TEXT_BYTES];
	unsigned major_nr, minor_nr;
	struct stat st;
	int ret = blockdev_attr_read(kernel->dir, "dev", text);

	if (ret < 0 || sscanf(text, "%u:%u", &major_nr, &minor_nr) != 2) {
		log_error(WHAT ": there is no %s/dev: is sysfs mounted?", kernel->dir);
		return -ENODEV;
	}
	if (stat(kernel->device, &st) < 0 || !S_ISBLK(st.st_mode) || st.st_rdev != makedev(major_nr, minor_nr)) {
		log_error(WHAT ": %s is not there, or not the block device %s: is devtmpfs mounted at /dev?", kernel->device,
			  text);
		return -ENODEV;
	}
	return 0;
}

/* What was asked for is read back. */
static int check_size(const struct nbd_kernel *kernel)
{
	uint64_t sectors, block_bytes, discard_bytes;
	int ret = blockdev_attr_read_u64(kernel->dir, "size", &sectors);

	if (ret == 0)
		ret = blockdev_attr_read_u64(kernel->dir, "queue/logical_block_size", &block_bytes);
	if (ret < 0) {
		log_error(WHAT ": cannot read back the size of %s: %s", kernel->device, err_text(ret));
		return ret;
	}
	if (sectors << 9 != kernel->nr_pages << FSW_PAGE_SHIFT || block_bytes != FSW_PAGE_SIZE) {
		log_error(WHAT ": the kernel has given %s another size (%llu sectors, blocks of %llu bytes)", kernel->device,
			  (unsigned long long)sectors, (unsigned long long)block_bytes);
		return -EIO;
	}
	if (blockdev_attr_read_u64(kernel->dir, "queue/discard_max_bytes", &discard_bytes) < 0 || discard_bytes == 0)
		log_warning(WHAT ": the kernel sends no discards to %s: what is freed stays stored", kernel->device);
	return 0;
}

/* "pid" is there for as long as the device is set up, which it stays while somebody has it open. */
static void wait_until_gone(const struct nbd_kernel *kernel)
{
	const struct timespec pause = { .tv_nsec = GONE_POLL_NS };
	char text[BLOCKDEV_TEXT_BYTES];

	for (unsigned i = 0; i < GONE_POLLS; i++) {
		if (blockdev_attr_read(kernel->dir, "pid", text) == -ENOENT)
			return;
		nanosleep(&pause, NULL);
	}
	log_warning(WHAT ": somebody still has %s open, and reads errors from it", kernel->device);
}

static void disconnect_device(struct nbd_kernel *kernel)
{
	int ret = nbd_netlink_disconnect(kernel->netlink, kernel->index);

	if (ret < 0)
		log_error(WHAT ": cannot take down %s: %s", kernel->device, err_text(ret));
}

/* ---- all of it ---- */

static int open_server(struct nbd_kernel *kernel, const struct nbd_kernel_options *options)
{
	struct nbd_server_options server = {
		.vswap = options->vswap,
		.nr_queues = options->nr_queues,
		.max_connections = options->nr_connections ? options->nr_connections : options->nr_queues,
		.spin_us = options->spin_us,
	};
	int ret = nbd_server_open(&server, &kernel->server);

	if (ret < 0)
		log_error(WHAT ": no memory to serve a device from: %s", err_text(ret));
	return ret;
}

static int put_up(struct nbd_kernel *kernel, const struct nbd_kernel_options *options)
{
	char owner[FRONTEND_OWNER_BYTES];
	int ret;

	ret = frontend_owner_format(getpid(), owner);
	if (ret < 0) {
		log_error(WHAT ": cannot look at this process in /proc: %s", err_text(ret));
		return ret;
	}
	ret = open_netlink(kernel);
	if (ret < 0)
		return ret;
	ret = clear_remains(kernel->netlink);
	if (ret < 0)
		goto out_netlink;
	ret = open_server(kernel, options);
	if (ret < 0)
		goto out_netlink;
	ret = connect_device(kernel, options, owner);
	if (ret < 0)
		goto out_server;
	snprintf(kernel->device, sizeof(kernel->device), "/dev/nbd%u", kernel->index);
	snprintf(kernel->dir, sizeof(kernel->dir), "/sys/block/nbd%u", kernel->index);
	ret = check_file(kernel);
	if (ret == 0)
		ret = check_size(kernel);
	if (ret == 0)
		ret = blockdev_tune(kernel->dir, NBD_KERNEL_MAX_BYTES);
	if (ret == 0 && options->swap)
		ret = frontend_swap_on(WHAT, kernel->device, kernel->nr_pages, options->priority);
	if (ret < 0)
		goto out_device;
	return 0;

out_device:
	disconnect_device(kernel);
out_server:
	nbd_server_close(kernel->server);
out_netlink:
	nbd_netlink_close(kernel->netlink);
	return ret;
}

int nbd_kernel_start(const struct nbd_kernel_options *options, struct nbd_kernel **ret_kernel)
{
	struct nbd_kernel *kernel;
	int ret;

	if (options->nr_queues == 0 || options->timeout_s == 0 || options->index < NBD_NETLINK_ANY_INDEX ||
	    options->index > NBD_KERNEL_MAX_INDEX || options->nr_connections > NBD_KERNEL_MAX_CONNECTIONS ||
	    (options->nr_connections == 0 && options->nr_queues > NBD_KERNEL_MAX_CONNECTIONS)) {
		log_error(WHAT ": queues, connections, index or timeout are out of range");
		return -EINVAL;
	}
	kernel = calloc(1, sizeof(*kernel));
	if (!kernel) {
		log_error(WHAT ": out of memory");
		return -ENOMEM;
	}
	kernel->nr_pages = vswap_nr_pages(options->vswap);
	ret = put_up(kernel, options);
	if (ret < 0) {
		free(kernel);
		return ret;
	}
	*ret_kernel = kernel;
	return 0;
}

int nbd_kernel_swap_off(struct nbd_kernel *kernel)
{
	return frontend_swap_off(WHAT, kernel->device);
}

int nbd_kernel_stop(struct nbd_kernel *kernel)
{
	int ret;

	if (!kernel)
		return 0;
	ret = nbd_kernel_swap_off(kernel);
	if (ret < 0)
		return ret;
	/* The kernel says goodbye on each connection: the server sees an end that was meant. */
	disconnect_device(kernel);
	nbd_server_close(kernel->server);
	wait_until_gone(kernel);
	nbd_netlink_close(kernel->netlink);
	free(kernel);
	return 0;
}

const char *nbd_kernel_device(const struct nbd_kernel *kernel)
{
	return kernel->device;
}

int nbd_kernel_swap_used_bytes(const struct nbd_kernel *kernel, uint64_t *ret_used_bytes)
{
	return swap_area_used_bytes(kernel->device, ret_used_bytes);
}

void nbd_kernel_counters(const struct nbd_kernel *kernel, struct nbd_server_counters *ret_counters)
{
	nbd_server_counters(kernel->server, ret_counters);
}

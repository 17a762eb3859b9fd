/*
 * The kernel's NBD client as front end: /dev/nbdN, served by the NBD server in this process over pairs of sockets, and swap
 * on it. No other program takes part, and nothing listens.
 *
 * Each connection is a hardware queue of the device's, served by one of the vswap's queues. The requests are
 * the NBD server's (nbd.h), which begins with them: the kernel does no handshake.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_KERNEL_H
#define FARSWAP_CLIENT_FRONTEND_NBD_KERNEL_H

#include "client/frontend/nbd/nbd.h"
#include "client/vswap/vswap.h"
#include "common/base/base.h"

#define NBD_KERNEL_MAX_CONNECTIONS 32u
#define NBD_KERNEL_MAX_INDEX 1048575 /* as many devices can be told apart by their minor numbers */
/*
 * The longest READ and WRITE, which longer ones are cut into: those that the server has many buffers for. More in one would
 * gain little and make a page fault wait longer behind it.
 */
#define NBD_KERNEL_MAX_BYTES (64u << 10)

struct nbd_kernel;

struct nbd_kernel_options {
	struct vswap *vswap;
	unsigned nr_queues;	 /* the vswap's queues 0 .. nr_queues - 1 serve; at least 1 */
	unsigned nr_connections; /* at most NBD_KERNEL_MAX_CONNECTIONS; 0: one per queue */
	unsigned spin_us;	 /* as in struct nbd_server_options */
	int index;		 /* N of /dev/nbdN, up to NBD_KERNEL_MAX_INDEX; -1: the kernel's choice */
	/*
	 * At least 1, and longer than any request may take: the kernel gives up the connection of one that takes longer,
	 * and asks again on the next, until there is none. It is no help against a dead process, whose sockets are closed by
	 * the kernel; only what was under way on them then waits for so long.
	 */
	unsigned timeout_s;
	bool swap;    /* turn swap on over it */
	int priority; /* of the swap area, 0 .. 32767, or -1: the kernel's choice */
};

/*
 * Control thread, not a reactor's own; the reactors run, for they serve the kernel while this call waits for it. Takes down
 * the devices of daemons that have died. On failure everything is as before.
 *
 * 0; -ENODEV without the nbd module, or without a device file; -EPERM without CAP_SYS_ADMIN; -EBUSY when the device of that
 * index is in use, or a dead daemon's is still in use as swap; -EOPNOTSUPP when requests cannot be kept as short as they
 * must be; -EINVAL; -ENOMEM; others of netlink and swapon. One line in the log says which, and names the device.
 */
int nbd_kernel_start(const struct nbd_kernel_options *options, struct nbd_kernel **ret_kernel) BASE_MUST_CHECK;

/* Whether the kernel has its client, and lets us use it: 0, or why not, as nbd_kernel_start says. Control thread. */
int nbd_kernel_probe(void) BASE_MUST_CHECK;

/* As fuse_frontend_swap_off. */
int nbd_kernel_swap_off(struct nbd_kernel *kernel) BASE_MUST_CHECK;

/*
 * Control thread; the reactors run. Swap off and the device down: 0, and it is freed. When swap cannot be turned off: the
 * error of nbd_kernel_swap_off, and everything stays up. Waits a moment for others who have it open. Accepts NULL.
 */
int nbd_kernel_stop(struct nbd_kernel *kernel) BASE_MUST_CHECK;

/* Such as "/dev/nbd0". Any thread; lives as long as the kernel. */
const char *nbd_kernel_device(const struct nbd_kernel *kernel);

/* Control thread. Bytes in use as swap. 0; -ENOENT when it is not on. */
int nbd_kernel_swap_used_bytes(const struct nbd_kernel *kernel, uint64_t *ret_used_bytes) BASE_MUST_CHECK;

/* Any thread. Of its connections and requests. */
void nbd_kernel_counters(const struct nbd_kernel *kernel, struct nbd_server_counters *ret_counters);

#endif

/*
 * The ublk front end: a block device whose requests the kernel hands to our reactors through io_uring, and swap on it.
 *
 * Each queue of the device has a reactor of its own, with a ring; what one turn answers and asks for goes to the kernel in one
 * system call at its end. The kernel copies between its pages and our buffers, which are locked; nothing on that path
 * allocates.
 *
 * The device outlives its server (UBLK_F_USER_RECOVERY): requests wait then until another one takes it over.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_UBLK_UBLK_H
#define FARSWAP_CLIENT_FRONTEND_UBLK_UBLK_H

#include "client/vswap/vswap.h"
#include "common/base/base.h"

#define UBLK_FRONTEND_PATH_BYTES 24 /* "/dev/ublkb4294967295" */

struct ublk_frontend;

/* What tells a device from all others, also from one that has its number later. */
struct ublk_device_name {
	uint32_t id;
	uint64_t flags; /* that its maker has given it */
};

struct ublk_frontend_options {
	struct vswap *vswap;
	unsigned nr_queues; /* the vswap's queues 0 .. nr_queues - 1 serve; fewer, when there are fewer processors */
	unsigned spin_us;   /* how long a reactor keeps looking for requests after the last; 0: not at all */
	bool swap;	    /* turn swap on over it */
	int priority;	    /* of the swap area, 0 .. 32767, or -1: the kernel's choice */
	/*
	 * The device of a dead server, whose pages the vswap has: it is taken over, and what that server had not answered comes
	 * again. NULL: a new device.
	 */
	const struct ublk_device_name *again;
	/* A number, at most 4095, of the state file with its pages, so that nobody takes it down who has another; 0: none. */
	unsigned kept;
	/* Called before anybody can have pages on a new device. NULL: nobody asks. */
	void (*made)(void *arg, const struct ublk_device_name *name);
	void *made_arg;
};

struct ublk_frontend_counters {
	uint64_t reads; /* requests, by kind */
	uint64_t writes;
	uint64_t discards; /* and ranges of zeroes */
	uint64_t flushes;
	uint64_t bad_requests; /* refused before they reached the device */
	uint64_t io_errors;    /* answered with an error of the device */
	uint64_t kernel_errors; /* commands that the kernel has refused */
};

/*
 * Control thread, not a reactor's own; the reactors run, for they serve the kernel while this call waits for it. Devices that
 * dead servers of ours have left are taken down first: their swap is turned off, and who held pages there loses them. On
 * failure everything is as before, and the log says why.
 *
 * 0; -ENODEV without the driver; -EOPNOTSUPP when the kernel's lacks what is needed; -EPERM; -EBUSY: the swap
 * of a dead server cannot be turned off; -EINVAL; -ENOMEM; others of the control device, io_uring and swapon.
 * A device that was to be taken over, `again`, may be left half so by a failure: only the end of the process frees it then.
 */
int ublk_frontend_start(const struct ublk_frontend_options *options, struct ublk_frontend **ret_frontend) BASE_MUST_CHECK;

/*
 * Whether this very device is there and has not been stopped, so that it can be taken over from a server that is dead. 1; 0:
 * no, for certain; below 0: that cannot be found out. Control thread.
 */
int ublk_frontend_is_there(const struct ublk_device_name *name) BASE_MUST_CHECK;

/* Whether the driver is there, and may be used: 0, or why not, as ublk_frontend_start says. Control thread. */
int ublk_frontend_probe(void) BASE_MUST_CHECK;

/* Control thread; the reactors run. See fuse_frontend_swap_off. */
int ublk_frontend_swap_off(struct ublk_frontend *frontend) BASE_MUST_CHECK;

/*
 * Control thread; the reactors run. Swap off, device deleted, frontend freed: 0. When swap cannot be turned off: the error of
 * ublk_frontend_swap_off, and everything stays up. Accepts NULL.
 */
int ublk_frontend_stop(struct ublk_frontend *frontend) BASE_MUST_CHECK;

/* The block device, such as "/dev/ublkb0". Any thread; lives as long as the frontend. */
const char *ublk_frontend_device(const struct ublk_frontend *frontend);
/* Control thread. Bytes in use as swap. 0; -ENOENT when it is not on. */
int ublk_frontend_swap_used_bytes(const struct ublk_frontend *frontend, uint64_t *ret_used_bytes) BASE_MUST_CHECK;
/* Any thread. */
void ublk_frontend_counters(const struct ublk_frontend *frontend, struct ublk_frontend_counters *ret_counters);

#endif

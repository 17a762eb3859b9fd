/*
 * The FUSE front end: the device as the one file of a FUSE file system, a loop device over that file, and swap on it.
 * It gives real kernel swap where the kernel has neither ublk nor NBD.
 *
 * READ, WRITE and discards go from the reactors straight to the vswap; nothing on that path allocates. All else (mount,
 * lookup, attributes) is libfuse's.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_FUSE_FUSE_H
#define FARSWAP_CLIENT_FRONTEND_FUSE_FUSE_H

#include "client/vswap/vswap.h"
#include "common/base/base.h"

#define FUSE_FRONTEND_FILE "swap" /* in the mount directory */

struct fuse_frontend;

struct fuse_frontend_options {
	const char *mount_dir; /* absolute; made if it does not exist. MOUNT_DIR.lock beside it says that it is taken */
	struct vswap *vswap;
	unsigned nr_queues; /* the vswap's queues 0 .. nr_queues - 1 serve; at least 1 */
	unsigned spin_us;   /* how long a reactor keeps asking the kernel after its last request; 0: not at all */
	bool loop;	    /* attach a loop device */
	bool swap;	    /* and turn swap on over it */
	int priority;	    /* of the swap area, 0 .. 32767, or -1: the kernel's choice */
};

struct fuse_frontend_counters {
	uint64_t reads; /* requests, by kind */
	uint64_t writes;
	uint64_t discards; /* and ranges of zeroes */
	uint64_t syncs;
	uint64_t other;	       /* answered by libfuse */
	uint64_t bad_requests; /* refused before they reached the device */
	uint64_t io_errors;    /* answered with an error of the device */
	uint64_t kernel_errors; /* requests that could not be read, replies that could not be written */
};

/*
 * Control thread, not a reactor's own; the reactors run, for they serve the kernel while this call waits for it. Removes
 * what a dead predecessor has left at mount_dir, unless it is in use as swap. On failure everything is as before, and the log
 * says why.
 *
 * 0; -EBUSY when another process serves mount_dir, something else is mounted there, or a dead one's device is still in
 * use as swap (the log names it); -EPERM without the right to mount; -ENODEV without FUSE or loop devices; -EOPNOTSUPP
 * without direct I/O; -ETIMEDOUT when the kernel does not answer; -EINVAL; -ENOMEM; others of mount, loop and swapon.
 */
int fuse_frontend_start(const struct fuse_frontend_options *options,
			struct fuse_frontend **ret_frontend) BASE_MUST_CHECK;

/*
 * Control thread; the reactors run. Turns swap off, whoever has turned it on, by swapoff(8), which reads everything back and
 * may take long. 0, also when it is off already; below 0 (-ENOMEM above all: no room in memory) it is on as before. See
 * swap_area_off.
 */
int fuse_frontend_swap_off(struct fuse_frontend *frontend) BASE_MUST_CHECK;

/*
 * Control thread; the reactors run. Swap off, loop device and mount gone, frontend freed: 0. When swap cannot be turned
 * off: the error of fuse_frontend_swap_off, and everything stays up. Accepts NULL.
 */
int fuse_frontend_stop(struct fuse_frontend *frontend) BASE_MUST_CHECK;

/* The loop device, such as "/dev/loop0"; "" without one. Any thread; lives as long as the frontend. */
const char *fuse_frontend_device(const struct fuse_frontend *frontend);

/* Control thread. Bytes in use as swap. 0; -ENOENT when it is not on. */
int fuse_frontend_swap_used_bytes(const struct fuse_frontend *frontend, uint64_t *ret_used_bytes) BASE_MUST_CHECK;

/* Any thread. */
void fuse_frontend_counters(const struct fuse_frontend *frontend, struct fuse_frontend_counters *ret_counters);

#endif

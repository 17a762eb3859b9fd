/*
 * Loop devices: a block device whose pages are those of a file, without the page cache in between.
 *
 * Attaching and detaching open the file and may read from it: control threads only, never the reactor that serves it.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_FUSE_LOOP_H
#define FARSWAP_CLIENT_FRONTEND_FUSE_LOOP_H

#include "common/base/base.h"

#define LOOP_PATH_BYTES 24

struct loop_device {
	int fd; /* kept open: the device goes away with the last of its openers */
	char path[LOOP_PATH_BYTES];
};

/*
 * A free loop device over the file, with blocks of 4096 bytes and direct I/O, which is read back. 0; -EOPNOTSUPP when
 * the kernel does not do direct I/O on the file; -ENODEV when there are no loop devices; the errno of what failed.
 */
int loop_device_attach(const char *file, struct loop_device *ret_loop) BASE_MUST_CHECK;

/* Nobody may use the device any more. 0 or the errno of the kernel; the descriptor is closed in either case. */
int loop_device_detach(struct loop_device *loop) BASE_MUST_CHECK;

/*
 * Calls fn for each loop device whose file is at that path, until it returns below 0. Returns that, or 0, or the error
 * of reading the kernel's list.
 */
int loop_device_find(const char *file, int (*fn)(const char *path, void *arg), void *arg) BASE_MUST_CHECK;

/* Detaches a device that this process has not attached. */
int loop_device_clear(const char *path) BASE_MUST_CHECK;

#endif

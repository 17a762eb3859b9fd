/*
 * The kernel's side of a block device that a front end has brought up: its attributes in sysfs.
 *
 * Control threads only. `dir` is the device's folder, such as "/sys/block/nbd0"; attributes are paths below it.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_BLOCKDEV_H
#define FARSWAP_CLIENT_FRONTEND_BLOCKDEV_H

#include "common/base/base.h"

#define BLOCKDEV_TEXT_BYTES 256

/* The first line of an attribute, without its end. 0 or the negative errno of reading it; -ENOENT: there is no such one. */
int blockdev_attr_read(const char *dir, const char *attr, char text[BLOCKDEV_TEXT_BYTES]) BASE_MUST_CHECK;

/* 0; -EPROTO when the attribute is no number; the errors of blockdev_attr_read. */
int blockdev_attr_read_u64(const char *dir, const char *attr, uint64_t *ret_value) BASE_MUST_CHECK;

/* 0 or the negative errno of the kernel. */
int blockdev_attr_write(const char *dir, const char *attr, const char *text) BASE_MUST_CHECK;

/*
 * Sets the device's queue as is right for swap that a process serves: no request of more than max_bytes, no scheduler and no
 * throttling of writes in front of it (there is no head to move, and what reclaim writes must not wait for what it reads),
 * no reading ahead of the swap code's own, nothing of it in the kernel's random numbers.
 *
 * 0; what the kernel does not let itself be told is only told to the log, but for max_bytes: -EOPNOTSUPP, with a line in
 * the log, when requests can be longer.
 */
int blockdev_tune(const char *dir, uint32_t max_bytes) BASE_MUST_CHECK;

#endif

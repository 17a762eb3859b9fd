/*
 * Devices of the kernel's NBD driver, set up and taken down by generic netlink: linux/nbd-netlink.h, in which the kernel
 * documents the messages. libnl carries them.
 *
 * Control threads only, one at a time.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_NETLINK_H
#define FARSWAP_CLIENT_FRONTEND_NBD_NETLINK_H

#include "common/base/base.h"

#define NBD_NETLINK_FAMILY "nbd"
#define NBD_NETLINK_ANY_INDEX (-1) /* the kernel takes a device that is free, or makes one */

struct nl_msg;
struct nlmsghdr;
struct nbd_netlink;

struct nbd_netlink_device {
	int index; /* of /dev/nbdN, or NBD_NETLINK_ANY_INDEX */
	uint64_t size_bytes;
	uint64_t block_bytes;
	uint64_t flags; /* NBD's transmission flags */
	/* What takes longer counts as a dead connection; not 0, for that is 30 s with several connections. */
	uint64_t timeout_s;
	const char *identifier; /* what /sys/block/nbdN/backend is to say, where the kernel has it */
	const int *fds;		/* connected stream sockets, one per hardware queue; the kernel takes references */
	unsigned nr_fds;
};

/*
 * 0; -ENOENT when the kernel does not know the family (NBD_NETLINK_FAMILY; others are for tests), also after it has tried
 * to load a module; -EPROTONOSUPPORT without generic netlink; -ENOMEM; -EIO.
 */
int nbd_netlink_open(const char *family, struct nbd_netlink **ret_netlink) BASE_MUST_CHECK;
/* Accepts NULL. */
void nbd_netlink_close(struct nbd_netlink *netlink);

/*
 * Sets a device up; it can be used from then on. 0 and its index; -EPERM without CAP_SYS_ADMIN; -EBUSY when that device is
 * in use, -EINVAL when there can be none of that index; -ENOSPC when there can be no more; others of the kernel.
 */
int nbd_netlink_connect(struct nbd_netlink *netlink, const struct nbd_netlink_device *device,
			uint32_t *ret_index) BASE_MUST_CHECK;

/*
 * Takes a device down, whoever has set it up: its connections are ended, and requests that are under way fail. 0, also when
 * it was not up; -EINVAL when there is no such device; -EPERM. Whoever has it open keeps it, and reads errors.
 */
int nbd_netlink_disconnect(struct nbd_netlink *netlink, uint32_t index) BASE_MUST_CHECK;

/*
 * The messages themselves. Into a message that is empty; 0 or -EMSGSIZE.
 */
int nbd_netlink_pack_connect(struct nl_msg *msg, int family, const struct nbd_netlink_device *device) BASE_MUST_CHECK;
int nbd_netlink_pack_disconnect(struct nl_msg *msg, int family, uint32_t index) BASE_MUST_CHECK;
/* The answer to the first: 0 and the index, or -EPROTO. */
int nbd_netlink_parse_connected(struct nlmsghdr *header, uint32_t *ret_index) BASE_MUST_CHECK;

#endif

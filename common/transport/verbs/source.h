/*
 * From which of this machine's addresses connections begin, when a device, a port or a GID has been asked for.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_VERBS_SOURCE_H
#define FARSWAP_COMMON_TRANSPORT_VERBS_SOURCE_H

#include "common/sys/socket.h"
#include "common/transport/verbs/verbs.h"

/*
 * Control thread. 0; ret_source->len is 0 when the routing table may decide: nothing was asked for, or the device is
 * InfiniBand, whose GIDs stand for no address. -ENODEV: no such device; -EADDRNOTAVAIL: it has no such port or GID, or none
 * of the family of `to`.
 */
int verbs_source(const struct verbs_driver_options *options, const struct sys_address *to,
		 struct sys_address *ret_source) BASE_MUST_CHECK;

#endif

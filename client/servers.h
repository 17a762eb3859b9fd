/*
 * The list of memory servers as a user writes it. Pure.
 */
#ifndef FARSWAP_CLIENT_SERVERS_H
#define FARSWAP_CLIENT_SERVERS_H

#include "common/base/base.h"

/*
 * Whether each of nr servers is "host:port" with a port to connect to, and none is there twice. 0, or -EINVAL with one
 * line in ret_error that names the server.
 */
int servers_check(const char *const *servers, unsigned nr, char *ret_error, size_t error_bytes) BASE_MUST_CHECK;

#endif

#include "client/servers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config/value.h"

#define MAX_ADDRESS_BYTES 127u

/* "host:port" with a port to connect to. */
static bool address_is_complete(const char *text)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;

	return colon && colon != text && strlen(text) <= MAX_ADDRESS_BYTES && strncmp(text, "unix:", 5) != 0 &&
	       config_parse_u64(colon + 1, &port) == 0 && port >= 1 && port <= UINT16_MAX;
}

int servers_check(const char *const *servers, unsigned nr, char *ret_error, size_t error_bytes)
{
	for (unsigned i = 0; i < nr; i++) {
		if (!address_is_complete(servers[i])) {
			snprintf(ret_error, error_bytes, "servers: '%s' is not host:port", servers[i]);
			return -EINVAL;
		}
		for (unsigned j = 0; j < i; j++) {
			if (strcmp(servers[i], servers[j]) == 0) {
				snprintf(ret_error, error_bytes, "servers: '%s' is given twice", servers[i]);
				return -EINVAL;
			}
		}
	}
	return 0;
}

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

const char *rpc_address_unix_path(const char *address)
{
	return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

static bool address_is_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	long port;

	if (digits == 0 || digits > 5 || text[digits] != '\0')
		return false;
	port = strtol(text, NULL, 10);
	return port >= 1 && port <= 65535;
}

/* What can stand in a name of DNS or /etc/hosts. */
static bool address_is_host(const char *text)
{
	for (const char *c = text; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr(".-_", *c))
			return false;
	return text[0] != '\0';
}

/* gRPC takes a target for a URI: characters that mean something there are refused rather than encoded. */
static int address_unix_target(const char *path, char ret_target[RPC_TARGET_MAX])
{
	if (path[0] != '/' || strpbrk(path, "%?#"))
		return -EINVAL;
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return -ENAMETOOLONG;
	snprintf(ret_target, RPC_TARGET_MAX, "unix:%s", path);
	return 0;
}

int rpc_address_to_target(const char *address, char ret_target[RPC_TARGET_MAX])
{
	const char *path = rpc_address_unix_path(address);
	const char *colon = strrchr(address, ':');
	unsigned char binary[sizeof(struct in6_addr)];
	char host[256]; /* the longest name of DNS has 253 characters */
	size_t len;

	if (path)
		return address_unix_target(path, ret_target);
	if (!colon || !address_is_port(colon + 1))
		return -EINVAL;
	len = (size_t)(colon - address);
	if (len >= sizeof(host))
		return -ENAMETOOLONG;
	memcpy(host, address, len);
	host[len] = '\0';

	if (host[0] == '[') {
		if (host[len - 1] != ']')
			return -EINVAL;
		host[len - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, binary) != 1)
			return -EINVAL;
		snprintf(ret_target, RPC_TARGET_MAX, "ipv6:%%5B%s%%5D%s", host + 1, colon);
		return 0;
	}
	if (inet_pton(AF_INET, host, binary) == 1) {
		snprintf(ret_target, RPC_TARGET_MAX, "ipv4:%s%s", host, colon);
		return 0;
	}
	if (!address_is_host(host))
		return -EINVAL;
	snprintf(ret_target, RPC_TARGET_MAX, "dns:///%s%s", host, colon);
	return 0;
}

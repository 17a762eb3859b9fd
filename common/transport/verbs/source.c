#include "common/transport/verbs/source.h"

#include <errno.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <string.h>

/* A GID of RoCE is an IPv6 address, or an IPv4 one within it. */
static void source_from_gid(const struct ibv_gid_entry *gid, struct sys_address *ret_source)
{
	struct in6_addr ip;

	memset(ret_source, 0, sizeof(*ret_source));
	memcpy(&ip, gid->gid.raw, sizeof(ip));
	if (IN6_IS_ADDR_V4MAPPED(&ip)) {
		struct sockaddr_in *in = (struct sockaddr_in *)&ret_source->addr;

		in->sin_family = AF_INET;
		memcpy(&in->sin_addr, &ip.s6_addr[12], sizeof(in->sin_addr));
		ret_source->len = sizeof(*in);
	} else {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret_source->addr;

		in6->sin6_family = AF_INET6;
		in6->sin6_addr = ip;
		if (IN6_IS_ADDR_LINKLOCAL(&ip))
			in6->sin6_scope_id = gid->ndev_ifindex;
		ret_source->len = sizeof(*in6);
	}
}

/* Whether packets to that address can begin at this one. */
static bool source_fits(const struct sys_address *source, const struct sys_address *to)
{
	const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)&source->addr;
	const struct sockaddr_in6 *b = (const struct sockaddr_in6 *)&to->addr;

	if (source->addr.ss_family != to->addr.ss_family)
		return false;
	return source->addr.ss_family != AF_INET6 ||
	       IN6_IS_ADDR_LINKLOCAL(&a->sin6_addr) == IN6_IS_ADDR_LINKLOCAL(&b->sin6_addr);
}

/* 0 with a source, 1 when there is none to be had of this port and none is needed, or -EADDRNOTAVAIL. */
static int source_of_port(struct ibv_context *context, unsigned port, int gid_index, const struct sys_address *to,
			  struct sys_address *ret_source)
{
	struct ibv_port_attr attr;
	struct ibv_gid_entry gid;
	int end;

	memset(&attr, 0, sizeof(attr));
	if (ibv_query_port(context, (uint8_t)port, &attr) != 0)
		return -EADDRNOTAVAIL;
	if (attr.link_layer == IBV_LINK_LAYER_INFINIBAND)
		return 1;
	end = gid_index >= 0 ? gid_index + 1 : attr.gid_tbl_len;
	for (int i = gid_index >= 0 ? gid_index : 0; i < end; i++) {
		if (ibv_query_gid_ex(context, port, (uint32_t)i, &gid, 0) != 0)
			continue;
		if (gid_index < 0 && gid.gid_type != IBV_GID_TYPE_ROCE_V2)
			continue;
		source_from_gid(&gid, ret_source);
		if (source_fits(ret_source, to))
			return 0;
	}
	return -EADDRNOTAVAIL;
}

static int source_of_device(struct ibv_context *context, const struct verbs_driver_options *options,
			    const struct sys_address *to, struct sys_address *ret_source)
{
	struct ibv_device_attr attr;
	int ret = -EADDRNOTAVAIL;

	if (ibv_query_device(context, &attr) != 0)
		return -ENODEV;
	for (unsigned port = 1; port <= attr.phys_port_cnt && ret == -EADDRNOTAVAIL; port++)
		if (options->port == 0 || options->port == port)
			ret = source_of_port(context, port, options->gid_index, to, ret_source);
	return ret;
}

int verbs_source(const struct verbs_driver_options *options, const struct sys_address *to, struct sys_address *ret_source)
{
	struct ibv_context **contexts;
	int ret = -ENODEV;
	int nr;

	ret_source->len = 0;
	if (!options->device && options->port == 0 && options->gid_index < 0)
		return 0;
	contexts = rdma_get_devices(&nr);
	if (!contexts)
		return -ENODEV;
	for (int i = 0; i < nr && ret < 0; i++)
		if (!options->device || strcmp(ibv_get_device_name(contexts[i]->device), options->device) == 0)
			ret = source_of_device(contexts[i], options, to, ret_source);
	rdma_free_devices(contexts);
	if (ret > 0) {
		ret_source->len = 0;
		ret = 0;
	}
	return ret;
}

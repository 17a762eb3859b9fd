#include "client/frontend/nbd/netlink.h"

#include <errno.h>
#include <linux/nbd-netlink.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdlib.h>

struct nbd_netlink {
	struct nl_sock *sock;
	struct nl_cb *callbacks;
	int family;
	/* Of the request that is under way. */
	bool answered;
	int error;
	bool has_index;
	uint32_t index;
};

/* libnl's errors are those of enum in netlink/errno.h, negated. */
static int err_from_nl(int ret)
{
	if (ret >= 0)
		return ret;
	switch (-ret) {
	case NLE_OBJ_NOTFOUND:
		return -ENOENT;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_AF_NOSUPPORT:
	case NLE_PROTO_MISMATCH:
		return -EPROTONOSUPPORT;
	case NLE_MSGSIZE:
		return -EMSGSIZE;
	default:
		return -EIO;
	}
}

/* ---- messages ---- */

static int pack_sockets(struct nl_msg *msg, const struct nbd_netlink_device *device)
{
	struct nlattr *list = nla_nest_start(msg, NBD_ATTR_SOCKETS);

	if (!list)
		return -EMSGSIZE;
	for (unsigned i = 0; i < device->nr_fds; i++) {
		struct nlattr *item = nla_nest_start(msg, NBD_SOCK_ITEM);

		if (!item || nla_put_u32(msg, NBD_SOCK_FD, (uint32_t)device->fds[i]) < 0)
			return -EMSGSIZE;
		nla_nest_end(msg, item);
	}
	nla_nest_end(msg, list);
	return 0;
}

int nbd_netlink_pack_connect(struct nl_msg *msg, int family, const struct nbd_netlink_device *device)
{
	int ret = 0;

	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, NBD_CMD_CONNECT, NBD_GENL_VERSION))
		return -EMSGSIZE;
	if (device->index != NBD_NETLINK_ANY_INDEX)
		ret = nla_put_u32(msg, NBD_ATTR_INDEX, (uint32_t)device->index);
	if (ret == 0)
		ret = nla_put_u64(msg, NBD_ATTR_SIZE_BYTES, device->size_bytes);
	if (ret == 0)
		ret = nla_put_u64(msg, NBD_ATTR_BLOCK_SIZE_BYTES, device->block_bytes);
	if (ret == 0)
		ret = nla_put_u64(msg, NBD_ATTR_SERVER_FLAGS, device->flags);
	if (ret == 0)
		ret = nla_put_u64(msg, NBD_ATTR_TIMEOUT, device->timeout_s);
	/* Kernels before 5.14 pass over what they do not know. */
	if (ret == 0)
		ret = nla_put_string(msg, NBD_ATTR_BACKEND_IDENTIFIER, device->identifier);
	if (ret < 0)
		return -EMSGSIZE;
	return pack_sockets(msg, device);
}

int nbd_netlink_pack_disconnect(struct nl_msg *msg, int family, uint32_t index)
{
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, NBD_CMD_DISCONNECT, NBD_GENL_VERSION) ||
	    nla_put_u32(msg, NBD_ATTR_INDEX, index) < 0)
		return -EMSGSIZE;
	return 0;
}

int nbd_netlink_parse_connected(struct nlmsghdr *header, uint32_t *ret_index)
{
	struct nla_policy policy[NBD_ATTR_MAX + 1] = { [NBD_ATTR_INDEX] = { .type = NLA_U32 } };
	struct nlattr *attrs[NBD_ATTR_MAX + 1];

	if (!genlmsg_valid_hdr(header, 0) || genlmsg_parse(header, 0, attrs, NBD_ATTR_MAX, policy) < 0 ||
	    genlmsg_hdr(header)->cmd != NBD_CMD_CONNECT || !attrs[NBD_ATTR_INDEX])
		return -EPROTO;
	*ret_index = nla_get_u32(attrs[NBD_ATTR_INDEX]);
	return 0;
}

/* ---- the socket ---- */

static int on_valid(struct nl_msg *msg, void *arg)
{
	struct nbd_netlink *netlink = arg;

	netlink->has_index = nbd_netlink_parse_connected(nlmsg_hdr(msg), &netlink->index) == 0;
	return NL_OK;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	struct nbd_netlink *netlink = arg;

	(void)msg;
	netlink->answered = true;
	return NL_STOP;
}

/* The kernel's errno as it is, which libnl's own numbers would lose. */
static int on_error(struct sockaddr_nl *from, struct nlmsgerr *message, void *arg)
{
	struct nbd_netlink *netlink = arg;

	(void)from;
	netlink->answered = true;
	netlink->error = message->error;
	return NL_STOP;
}

static int connect_socket(struct nbd_netlink *netlink, const char *family)
{
	int ret = genl_connect(netlink->sock);

	if (ret < 0)
		return err_from_nl(ret);
	netlink->family = genl_ctrl_resolve(netlink->sock, family);
	if (netlink->family < 0)
		return err_from_nl(netlink->family);
	nl_cb_set(netlink->callbacks, NL_CB_VALID, NL_CB_CUSTOM, on_valid, netlink);
	nl_cb_set(netlink->callbacks, NL_CB_ACK, NL_CB_CUSTOM, on_ack, netlink);
	nl_cb_err(netlink->callbacks, NL_CB_CUSTOM, on_error, netlink);
	return 0;
}

int nbd_netlink_open(const char *family, struct nbd_netlink **ret_netlink)
{
	struct nbd_netlink *netlink = calloc(1, sizeof(*netlink));
	int ret = -ENOMEM;

	if (!netlink)
		return -ENOMEM;
	netlink->sock = nl_socket_alloc();
	netlink->callbacks = nl_cb_alloc(NL_CB_DEFAULT);
	if (netlink->sock && netlink->callbacks)
		ret = connect_socket(netlink, family);
	if (ret < 0) {
		nbd_netlink_close(netlink);
		return ret;
	}
	*ret_netlink = netlink;
	return 0;
}

void nbd_netlink_close(struct nbd_netlink *netlink)
{
	if (!netlink)
		return;
	nl_cb_put(netlink->callbacks);
	nl_socket_free(netlink->sock);
	free(netlink);
}

/* Sends the message, and takes the answers up to the acknowledgement, which libnl has asked for. */
static int ask(struct nbd_netlink *netlink, struct nl_msg *msg)
{
	int ret;

	netlink->answered = netlink->has_index = false;
	netlink->error = 0;
	ret = nl_send_auto(netlink->sock, msg);
	while (ret >= 0 && !netlink->answered)
		ret = nl_recvmsgs(netlink->sock, netlink->callbacks);
	return netlink->answered ? netlink->error : err_from_nl(ret);
}

int nbd_netlink_connect(struct nbd_netlink *netlink, const struct nbd_netlink_device *device, uint32_t *ret_index)
{
	struct nl_msg *msg = nlmsg_alloc();
	int ret;

	if (!msg)
		return -ENOMEM;
	ret = nbd_netlink_pack_connect(msg, netlink->family, device);
	if (ret == 0)
		ret = ask(netlink, msg);
	nlmsg_free(msg);
	if (ret < 0)
		return ret;
	if (!netlink->has_index)
		return -EPROTO;
	*ret_index = netlink->index;
	return 0;
}

int nbd_netlink_disconnect(struct nbd_netlink *netlink, uint32_t index)
{
	struct nl_msg *msg = nlmsg_alloc();
	int ret;

	if (!msg)
		return -ENOMEM;
	ret = nbd_netlink_pack_disconnect(msg, netlink->family, index);
	if (ret == 0)
		ret = ask(netlink, msg);
	nlmsg_free(msg);
	return ret;
}

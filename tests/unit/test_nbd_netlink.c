/* deps: client_frontend_nbd */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <linux/nbd-netlink.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>

#include "client/frontend/nbd/kernel.h"
#include "client/frontend/nbd/netlink.h"

#define FAMILY 29

static const int fds[] = { 7, 12, 9 };

static struct nbd_netlink_device good(void)
{
	return (struct nbd_netlink_device){
		.index = NBD_NETLINK_ANY_INDEX,
		.size_bytes = (5ull << 30) + 4096,
		.block_bytes = 4096,
		.flags = 0x165,
		.timeout_s = 75,
		.identifier = "somebody",
		.fds = fds,
		.nr_fds = 3,
	};
}

/* As the kernel's own policy has it. */
static void parse(struct nl_msg *msg, uint8_t cmd, struct nlattr **attrs)
{
	struct nla_policy policy[NBD_ATTR_MAX + 1] = {
		[NBD_ATTR_INDEX] = { .type = NLA_U32 },
		[NBD_ATTR_SIZE_BYTES] = { .type = NLA_U64 },
		[NBD_ATTR_BLOCK_SIZE_BYTES] = { .type = NLA_U64 },
		[NBD_ATTR_TIMEOUT] = { .type = NLA_U64 },
		[NBD_ATTR_SERVER_FLAGS] = { .type = NLA_U64 },
		[NBD_ATTR_CLIENT_FLAGS] = { .type = NLA_U64 },
		[NBD_ATTR_SOCKETS] = { .type = NLA_NESTED },
		[NBD_ATTR_DEAD_CONN_TIMEOUT] = { .type = NLA_U64 },
		[NBD_ATTR_BACKEND_IDENTIFIER] = { .type = NLA_STRING },
	};
	struct nlmsghdr *header = nlmsg_hdr(msg);

	assert_int_equal(header->nlmsg_type, FAMILY);
	assert_true(genlmsg_valid_hdr(header, 0));
	assert_int_equal(genlmsg_hdr(header)->cmd, cmd);
	assert_int_equal(genlmsg_hdr(header)->version, NBD_GENL_VERSION);
	assert_int_equal(genlmsg_parse(header, 0, attrs, NBD_ATTR_MAX, policy), 0);
}

/* The descriptors, in their order. */
static unsigned parse_sockets(struct nlattr *list, uint32_t *ret_fds, unsigned max)
{
	struct nla_policy policy[NBD_SOCK_MAX + 1] = { [NBD_SOCK_FD] = { .type = NLA_U32 } };
	struct nlattr *item, *attrs[NBD_SOCK_MAX + 1];
	unsigned nr = 0;
	int rest;

	nla_for_each_nested(item, list, rest) {
		assert_int_equal(nla_type(item), NBD_SOCK_ITEM);
		assert_int_equal(nla_parse_nested(attrs, NBD_SOCK_MAX, item, policy), 0);
		assert_non_null(attrs[NBD_SOCK_FD]);
		assert_true(nr < max);
		ret_fds[nr++] = nla_get_u32(attrs[NBD_SOCK_FD]);
	}
	return nr;
}

static void test_connect(void **state)
{
	struct nbd_netlink_device device = good();
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *msg = nlmsg_alloc();
	uint32_t found[4];

	(void)state;
	assert_int_equal(nbd_netlink_pack_connect(msg, FAMILY, &device), 0);
	parse(msg, NBD_CMD_CONNECT, attrs);
	/* The kernel's choice. */
	assert_null(attrs[NBD_ATTR_INDEX]);
	assert_true(nla_get_u64(attrs[NBD_ATTR_SIZE_BYTES]) == device.size_bytes);
	assert_true(nla_get_u64(attrs[NBD_ATTR_BLOCK_SIZE_BYTES]) == 4096);
	assert_true(nla_get_u64(attrs[NBD_ATTR_SERVER_FLAGS]) == 0x165);
	assert_true(nla_get_u64(attrs[NBD_ATTR_TIMEOUT]) == 75);
	assert_string_equal(nla_get_string(attrs[NBD_ATTR_BACKEND_IDENTIFIER]), "somebody");
	/* What is not asked for: that it goes away by itself, or waits for connections that never come again. */
	assert_null(attrs[NBD_ATTR_CLIENT_FLAGS]);
	assert_null(attrs[NBD_ATTR_DEAD_CONN_TIMEOUT]);
	assert_int_equal(parse_sockets(attrs[NBD_ATTR_SOCKETS], found, 4), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(found[i], fds[i]);
	nlmsg_free(msg);
}

static void test_connect_one_of_an_index(void **state)
{
	struct nbd_netlink_device device = good();
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *msg = nlmsg_alloc();

	(void)state;
	device.index = 0;
	assert_int_equal(nbd_netlink_pack_connect(msg, FAMILY, &device), 0);
	parse(msg, NBD_CMD_CONNECT, attrs);
	assert_int_equal(nla_get_u32(attrs[NBD_ATTR_INDEX]), 0);
	nlmsg_free(msg);
}

static void test_as_many_sockets_as_there_may_be(void **state)
{
	int many[NBD_KERNEL_MAX_CONNECTIONS];
	uint32_t found[NBD_KERNEL_MAX_CONNECTIONS];
	struct nbd_netlink_device device = good();
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *msg = nlmsg_alloc(), *small = nlmsg_alloc_size(64);

	(void)state;
	for (unsigned i = 0; i < NBD_KERNEL_MAX_CONNECTIONS; i++)
		many[i] = 1000 + (int)i;
	device.fds = many;
	device.nr_fds = NBD_KERNEL_MAX_CONNECTIONS;
	assert_int_equal(nbd_netlink_pack_connect(msg, FAMILY, &device), 0);
	parse(msg, NBD_CMD_CONNECT, attrs);
	assert_int_equal(parse_sockets(attrs[NBD_ATTR_SOCKETS], found, NBD_KERNEL_MAX_CONNECTIONS),
			 NBD_KERNEL_MAX_CONNECTIONS);
	assert_int_equal(found[NBD_KERNEL_MAX_CONNECTIONS - 1], 1000 + NBD_KERNEL_MAX_CONNECTIONS - 1);
	assert_int_equal(nbd_netlink_pack_connect(small, FAMILY, &device), -EMSGSIZE);
	nlmsg_free(small);
	nlmsg_free(msg);
}

static void test_disconnect(void **state)
{
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *msg = nlmsg_alloc();

	(void)state;
	assert_int_equal(nbd_netlink_pack_disconnect(msg, FAMILY, 15), 0);
	parse(msg, NBD_CMD_DISCONNECT, attrs);
	assert_int_equal(nla_get_u32(attrs[NBD_ATTR_INDEX]), 15);
	assert_null(attrs[NBD_ATTR_SOCKETS]);
	nlmsg_free(msg);
}

static int parse_answer(uint8_t cmd, int attr, const void *value, int len)
{
	struct nl_msg *msg = nlmsg_alloc();
	uint32_t index = 0;
	int ret;

	assert_non_null(genlmsg_put(msg, 0, 0, FAMILY, 0, 0, cmd, NBD_GENL_VERSION));
	if (len > 0)
		assert_int_equal(nla_put(msg, attr, len, value), 0);
	ret = nbd_netlink_parse_connected(nlmsg_hdr(msg), &index);
	nlmsg_free(msg);
	return ret < 0 ? ret : (int)index;
}

static void test_answers(void **state)
{
	const uint32_t index = 77;

	(void)state;
	assert_int_equal(parse_answer(NBD_CMD_CONNECT, NBD_ATTR_INDEX, &index, 4), 77);
	assert_int_equal(parse_answer(NBD_CMD_STATUS, NBD_ATTR_INDEX, &index, 4), -EPROTO);
	assert_int_equal(parse_answer(NBD_CMD_CONNECT, NBD_ATTR_TIMEOUT, &index, 4), -EPROTO);
	assert_int_equal(parse_answer(NBD_CMD_CONNECT, NBD_ATTR_INDEX, &index, 2), -EPROTO);
	assert_int_equal(parse_answer(NBD_CMD_CONNECT, 0, NULL, 0), -EPROTO);
}

static void test_no_such_family(void **state)
{
	struct nbd_netlink *netlink = NULL;
	int ret = nbd_netlink_open("farswap_none", &netlink);

	(void)state;
	/* The second where there is no generic netlink at all. */
	assert_true(ret == -ENOENT || ret == -EPROTONOSUPPORT);
	assert_null(netlink);
	nbd_netlink_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connect),
		cmocka_unit_test(test_connect_one_of_an_index),
		cmocka_unit_test(test_as_many_sockets_as_there_may_be),
		cmocka_unit_test(test_disconnect),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_no_such_family),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

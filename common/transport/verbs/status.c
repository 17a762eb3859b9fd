#include "common/transport/verbs/status.h"

#include <errno.h>

#include "common/sys/clock.h"

/* InfiniBand's reject reason (IBTA 12.6.7.2, as in the kernel's enum ib_cm_rej_reason) that passes by itself. */
#define REJECT_STALE_CONNECTION 10

#define ACK_TIMEOUT_UNIT_NS 4096u
#define ACK_TIMEOUT_MIN 8u  /* 1 ms */
#define ACK_TIMEOUT_MAX 21u /* 9 s */

struct status_row {
	int of_op;
	int of_conn;
};

static const struct status_row statuses[] = {
	[IBV_WC_SUCCESS] = { 0, 0 },
	/* Our own mistakes: a length, a key or an address of ours that the device does not take. */
	[IBV_WC_LOC_LEN_ERR] = { 0, -EIO },
	[IBV_WC_LOC_QP_OP_ERR] = { 0, -EIO },
	[IBV_WC_LOC_EEC_OP_ERR] = { 0, -EIO },
	[IBV_WC_LOC_PROT_ERR] = { 0, -EIO },
	[IBV_WC_LOC_ACCESS_ERR] = { 0, -EIO },
	[IBV_WC_LOC_RDD_VIOL_ERR] = { 0, -EIO },
	[IBV_WC_MW_BIND_ERR] = { 0, -EIO },
	/* What was under way when the connection ended, for whatever reason. */
	[IBV_WC_WR_FLUSH_ERR] = { 0, -ECONNRESET },
	[IBV_WC_REM_ABORT_ERR] = { 0, -ECONNRESET },
	/* The peer speaks something else. */
	[IBV_WC_BAD_RESP_ERR] = { 0, -EPROTO },
	[IBV_WC_REM_INV_REQ_ERR] = { 0, -EPROTO },
	[IBV_WC_REM_INV_RD_REQ_ERR] = { 0, -EPROTO },
	[IBV_WC_INV_EECN_ERR] = { 0, -EPROTO },
	[IBV_WC_INV_EEC_STATE_ERR] = { 0, -EPROTO },
	/* The key is dead: the slab has been taken back. */
	[IBV_WC_REM_ACCESS_ERR] = { -EACCES, -ECONNRESET },
	[IBV_WC_REM_OP_ERR] = { 0, -ECONNRESET },
	/* Nobody answers. */
	[IBV_WC_RETRY_EXC_ERR] = { 0, -ETIMEDOUT },
	[IBV_WC_RNR_RETRY_EXC_ERR] = { 0, -ETIMEDOUT },
	[IBV_WC_RESP_TIMEOUT_ERR] = { 0, -ETIMEDOUT },
	[IBV_WC_FATAL_ERR] = { 0, -EIO },
	[IBV_WC_GENERAL_ERR] = { 0, -EIO },
};

int verbs_status_of_op(enum ibv_wc_status status)
{
	return (size_t)status < BASE_ARRAY_SIZE(statuses) ? statuses[status].of_op : 0;
}

int verbs_status_of_conn(enum ibv_wc_status status)
{
	if (status == IBV_WC_SUCCESS)
		return 0;
	if ((size_t)status >= BASE_ARRAY_SIZE(statuses) || statuses[status].of_conn == 0)
		return -EIO;
	return statuses[status].of_conn;
}

int verbs_status_of_event(enum rdma_cm_event_type event, int status)
{
	switch (event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
	case RDMA_CM_EVENT_CONNECT_REQUEST:
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
	case RDMA_CM_EVENT_ESTABLISHED:
	case RDMA_CM_EVENT_MULTICAST_JOIN:
	case RDMA_CM_EVENT_MULTICAST_ERROR:
		return 0;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		return status == -ETIMEDOUT ? -ETIMEDOUT : -EHOSTUNREACH;
	case RDMA_CM_EVENT_UNREACHABLE:
		return -ETIMEDOUT;
	case RDMA_CM_EVENT_REJECTED:
		return status == REJECT_STALE_CONNECTION ? -EAGAIN : -ECONNREFUSED;
	case RDMA_CM_EVENT_CONNECT_ERROR:
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
	case RDMA_CM_EVENT_ADDR_CHANGE:
		return -ECONNRESET;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return -ENODEV;
	}
	return -EPROTO;
}

uint8_t verbs_ack_timeout(unsigned dead_ms)
{
	uint64_t once_ns = dead_ms * SYS_NS_PER_MS / (VERBS_RETRY_COUNT + 1);
	unsigned exponent = once_ns > ACK_TIMEOUT_UNIT_NS ? base_log2(once_ns / ACK_TIMEOUT_UNIT_NS) : 0;

	if (exponent < ACK_TIMEOUT_MIN)
		return ACK_TIMEOUT_MIN;
	return (uint8_t)(exponent > ACK_TIMEOUT_MAX ? ACK_TIMEOUT_MAX : exponent);
}

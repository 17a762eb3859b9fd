/* deps: common_transport_verbs tests_fakes_fabric common_sys */

/* What devices and the connection manager say, row by row; and how long a device tries. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/transport/verbs/status.h"

static void completions(void **state)
{
	static const struct {
		enum ibv_wc_status status;
		int of_op;
		int of_conn;
	} rows[] = {
		{ IBV_WC_SUCCESS, 0, 0 },
		{ IBV_WC_LOC_LEN_ERR, 0, -EIO },
		{ IBV_WC_LOC_QP_OP_ERR, 0, -EIO },
		{ IBV_WC_LOC_EEC_OP_ERR, 0, -EIO },
		{ IBV_WC_LOC_PROT_ERR, 0, -EIO },
		{ IBV_WC_WR_FLUSH_ERR, 0, -ECONNRESET },
		{ IBV_WC_MW_BIND_ERR, 0, -EIO },
		{ IBV_WC_BAD_RESP_ERR, 0, -EPROTO },
		{ IBV_WC_LOC_ACCESS_ERR, 0, -EIO },
		{ IBV_WC_REM_INV_REQ_ERR, 0, -EPROTO },
		{ IBV_WC_REM_ACCESS_ERR, -EACCES, -ECONNRESET },
		{ IBV_WC_REM_OP_ERR, 0, -ECONNRESET },
		{ IBV_WC_RETRY_EXC_ERR, 0, -ETIMEDOUT },
		{ IBV_WC_RNR_RETRY_EXC_ERR, 0, -ETIMEDOUT },
		{ IBV_WC_LOC_RDD_VIOL_ERR, 0, -EIO },
		{ IBV_WC_REM_INV_RD_REQ_ERR, 0, -EPROTO },
		{ IBV_WC_REM_ABORT_ERR, 0, -ECONNRESET },
		{ IBV_WC_INV_EECN_ERR, 0, -EPROTO },
		{ IBV_WC_INV_EEC_STATE_ERR, 0, -EPROTO },
		{ IBV_WC_FATAL_ERR, 0, -EIO },
		{ IBV_WC_RESP_TIMEOUT_ERR, 0, -ETIMEDOUT },
		{ IBV_WC_GENERAL_ERR, 0, -EIO },
		{ IBV_WC_TM_ERR, 0, -EIO }, /* of a feature that is not used */
		{ (enum ibv_wc_status)999, 0, -EIO },
	};

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(rows); i++) {
		assert_int_equal(verbs_status_of_op(rows[i].status), rows[i].of_op);
		assert_int_equal(verbs_status_of_conn(rows[i].status), rows[i].of_conn);
	}
}

static void events(void **state)
{
	static const struct {
		enum rdma_cm_event_type event;
		int status;
		int err;
	} rows[] = {
		{ RDMA_CM_EVENT_ADDR_RESOLVED, 0, 0 },
		{ RDMA_CM_EVENT_ROUTE_RESOLVED, 0, 0 },
		{ RDMA_CM_EVENT_CONNECT_REQUEST, 0, 0 },
		{ RDMA_CM_EVENT_CONNECT_RESPONSE, 0, 0 },
		{ RDMA_CM_EVENT_ESTABLISHED, 0, 0 },
		{ RDMA_CM_EVENT_ADDR_ERROR, -ENODEV, -EHOSTUNREACH },
		{ RDMA_CM_EVENT_ADDR_ERROR, -ETIMEDOUT, -ETIMEDOUT },
		{ RDMA_CM_EVENT_ROUTE_ERROR, -EINVAL, -EHOSTUNREACH },
		{ RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, -ETIMEDOUT },
		{ RDMA_CM_EVENT_REJECTED, 8, -ECONNREFUSED },
		{ RDMA_CM_EVENT_REJECTED, 10, -EAGAIN },
		{ RDMA_CM_EVENT_REJECTED, 28, -ECONNREFUSED },
		{ RDMA_CM_EVENT_CONNECT_ERROR, -EINVAL, -ECONNRESET },
		{ RDMA_CM_EVENT_DISCONNECTED, 0, -ECONNRESET },
		{ RDMA_CM_EVENT_TIMEWAIT_EXIT, 0, -ECONNRESET },
		{ RDMA_CM_EVENT_ADDR_CHANGE, 0, -ECONNRESET },
		{ RDMA_CM_EVENT_DEVICE_REMOVAL, 0, -ENODEV },
		{ (enum rdma_cm_event_type)999, 0, -EPROTO },
	};

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(rows); i++)
		assert_int_equal(verbs_status_of_event(rows[i].event, rows[i].status), rows[i].err);
}

/* With all repetitions a device has given up by then, and yet waits no less than a millisecond each time. */
static void patience(void **state)
{
	(void)state;
	for (unsigned dead_ms = 1; dead_ms < 1u << 20; dead_ms += 1 + dead_ms / 3) {
		uint64_t once_us = (4096ull << verbs_ack_timeout(dead_ms)) / 1000;

		assert_true(once_us >= 1000);
		if (dead_ms >= 10)
			assert_true(once_us * (VERBS_RETRY_COUNT + 1) <= dead_ms * 1000ull);
	}
	assert_int_equal(verbs_ack_timeout(800), 14); /* 67 ms */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(completions),
		cmocka_unit_test(events),
		cmocka_unit_test(patience),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

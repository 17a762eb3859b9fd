/*
 * How the initiator's connection is made: address, route, queue pair, REQ and REP, all on a control thread against one
 * deadline. And how it is taken apart again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/transport/op.h"
#include "common/transport/verbs/conn.h"
#include "common/transport/verbs/source.h"
#include "common/transport/verbs/status.h"
#include "common/wire/proof.h"

/*
 * One attempt at the peer's hardware address. The kernel may miss an answer that comes at once, as on a link within one
 * machine, and then looks again only when its time is over; by then it is there.
 */
#define CONNECT_ADDRESS_MS 200
#define CONNECT_MAX_READS 128 /* in flight on one connection, if the device can do so many */
#define CONNECT_RNR_RETRY_COUNT 6 /* the lender always has receives posted; 7 would be for ever */

static uint64_t connect_now_ns(void)
{
	return sys_clock_now_ns(sys_clock_monotonic());
}

static int connect_left_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = connect_now_ns();

	return now_ns < deadline_ns ? (int)((deadline_ns - now_ns + SYS_NS_PER_MS - 1) / SYS_NS_PER_MS) : 0;
}

/* ---- the parts ---- */

static int conn_open_memory(struct verbs_conn *conn)
{
	size_t places_bytes = CONN_PLACE_SETS * sizeof(*conn->places);
	size_t batch_bytes = base_align_up(sizeof(*conn->batch), FSW_CACHE_LINE);
	uint8_t *base;
	int err;

	err = mem_region_open(&conn->own_region, sizeof(*conn->own), MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	conn->own = conn->own_region.base;
	err = mem_region_open(&conn->books_region, places_bytes + batch_bytes + conn->nr_wrs * sizeof(*conn->wrs),
			      MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	base = conn->books_region.base;
	conn->places = (void *)base;
	conn->batch = (void *)(base + places_bytes);
	conn->wrs = (void *)(base + places_bytes + batch_bytes);
	conn->own_mr = ibv_reg_mr(conn->device->pd, conn->own, sizeof(*conn->own), IBV_ACCESS_LOCAL_WRITE);
	return conn->own_mr ? 0 : errno ? -errno : -ENOMEM;
}

static int conn_open_queue(struct verbs_conn *conn, unsigned max_sge, unsigned inline_bytes)
{
	struct ibv_qp_init_attr attr = {
		.send_cq = conn->cq,
		.recv_cq = conn->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = conn->max_wrs,
			.max_recv_wr = WIRE_VERBS_MAX_MAPS,
			.max_send_sge = max_sge,
			.max_recv_sge = 1,
			.max_inline_data = inline_bytes,
		},
	};

	if (rdma_create_qp(conn->id, conn->device->pd, &attr) < 0)
		return errno ? -errno : -ENOMEM;
	conn->max_sge = max_sge;
	conn->max_inline_bytes = (unsigned)base_min_u64(attr.cap.max_inline_data, inline_bytes);
	return 0;
}

/* Everything of the device's. What it has no room for is tried again with less. */
static int conn_open(struct verbs_conn *conn)
{
	const struct ibv_device_attr *attr = &conn->device->attr;
	unsigned max_sge = (unsigned)base_min_u64(CONN_MAX_SGE, base_max_u64(attr->max_sge, 1));
	int err;

	/* Two for each operation, since one that is large, or in many pieces, takes several. */
	conn->max_wrs = (uint32_t)base_min_u64(2 * conn->head.queue_depth + CONN_RESERVE + 1,
					       base_max_u64(attr->max_qp_wr, 0));
	if (attr->max_sge_rd > 0)
		max_sge = (unsigned)base_min_u64(max_sge, attr->max_sge_rd);
	if (conn->max_wrs <= CONN_RESERVE)
		return -EOPNOTSUPP;
	conn->nr_wrs = 2u << base_log2(conn->max_wrs);
	err = conn_open_memory(conn);
	if (err < 0)
		return err;
	conn->channel = ibv_create_comp_channel(conn->device->context);
	if (!conn->channel)
		return errno ? -errno : -ENOMEM;
	err = err_from_libc(fcntl(conn->channel->fd, F_SETFL, O_NONBLOCK));
	if (err < 0)
		return err;
	conn->cq = ibv_create_cq(conn->device->context, (int)conn->max_wrs + WIRE_VERBS_MAX_MAPS, conn, conn->channel, 0);
	if (!conn->cq)
		return errno ? -errno : -ENOMEM;
	err = conn_open_queue(conn, max_sge, CONN_MAX_INLINE);
	if (err < 0)
		err = conn_open_queue(conn, (unsigned)base_min_u64(max_sge, 4), 0);
	while (err < 0 && conn->max_wrs / 2 > CONN_RESERVE) {
		conn->max_wrs /= 2;
		err = conn_open_queue(conn, 1, 0);
	}
	for (unsigned i = 0; err == 0 && i < WIRE_VERBS_MAX_MAPS; i++)
		err = verbs_places_post(conn, i);
	return err;
}

void verbs_conn_sever(struct verbs_conn *conn)
{
	if (!conn->id || !conn->id->qp)
		return;
	/* Whether it can tell the peer does not matter: the peer notices by itself. */
	(void)rdma_disconnect(conn->id);
	rdma_destroy_qp(conn->id);
}

void verbs_conn_free(struct verbs_conn *conn)
{
	if (conn->cq)
		ibv_destroy_cq(conn->cq);
	if (conn->channel)
		ibv_destroy_comp_channel(conn->channel);
	if (conn->own_mr)
		ibv_dereg_mr(conn->own_mr);
	if (conn->id)
		rdma_destroy_id(conn->id);
	if (conn->events)
		rdma_destroy_event_channel(conn->events);
	mem_region_close(&conn->books_region);
	mem_region_close(&conn->own_region);
	free(conn);
}

/* ---- the steps ---- */

/* What the lender said when it refused, or the connection manager's own reason. */
static int connect_refusal(const struct rdma_cm_event *event)
{
	uint32_t refusal;

	if (event->event == RDMA_CM_EVENT_REJECTED && event->param.conn.private_data &&
	    wire_verbs_rej_unpack(event->param.conn.private_data, event->param.conn.private_data_len, &refusal) == 0)
		return wire_refusal_to_err(refusal);
	return verbs_status_of_event(event->event, event->status);
}

/* Waits for one event. 0 when it is the expected one, with its private data; else the error that it means. */
static int connect_wait(struct verbs_conn *conn, enum rdma_cm_event_type expected, uint64_t deadline_ns,
			struct wire_verbs_rep *ret_rep)
{
	struct pollfd pollfd = { .fd = conn->events->fd, .events = POLLIN };
	struct rdma_cm_event *event;
	int left_ms;
	int err;

	while (rdma_get_cm_event(conn->events, &event) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		left_ms = connect_left_ms(deadline_ns);
		if (left_ms == 0)
			return -ETIMEDOUT;
		if (poll(&pollfd, 1, left_ms) < 0 && errno != EINTR)
			return -errno;
	}
	err = connect_refusal(event);
	if (err == 0 && event->event != expected)
		err = -EPROTO;
	if (err == 0 && ret_rep)
		err = event->param.conn.private_data ?
			      wire_verbs_rep_unpack(event->param.conn.private_data, event->param.conn.private_data_len,
						    ret_rep) :
			      -EPROTO;
	rdma_ack_cm_event(event);
	return err;
}

static int connect_set_options(struct verbs_conn *conn, const struct transport_connect_options *options)
{
	uint8_t timeout = verbs_ack_timeout(options->dead_ms);
	uint8_t tos = (uint8_t)((unsigned)conn->driver->options.service_level << 5);
	int reuse = 1;

	(void)rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &reuse, sizeof(reuse));
	/* Kernels before 5.1 have only their own, which is longer; the connection's clock ends it then. */
	(void)rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
	if (conn->driver->options.service_level < 0)
		return 0;
	return err_from_libc(rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof(tos)));
}

/* Whether the route leads over what was asked for. */
static int connect_check_device(const struct verbs_conn *conn)
{
	const struct verbs_driver_options *options = &conn->driver->options;

	if (!conn->id->verbs)
		return -ENODEV;
	if (options->device && strcmp(ibv_get_device_name(conn->id->verbs->device), options->device) != 0)
		return -EADDRNOTAVAIL;
	return options->port != 0 && conn->id->port_num != options->port ? -EADDRNOTAVAIL : 0;
}

static int connect_resolve(struct verbs_conn *conn, const struct transport_connect_options *options, uint64_t deadline_ns)
{
	struct sys_address to;
	struct sys_address from;
	int err;

	err = sys_address_parse(options->address, false, &to);
	if (err == 0 && to.addr.ss_family != AF_INET && to.addr.ss_family != AF_INET6)
		err = -EINVAL;
	if (err == 0)
		err = verbs_source(&conn->driver->options, &to, &from);
	if (err == 0)
		err = connect_set_options(conn, options);
	if (err < 0)
		return err;
	do {
		err = err_from_libc(rdma_resolve_addr(conn->id, from.len ? (struct sockaddr *)&from.addr : NULL,
						      (struct sockaddr *)&to.addr, CONNECT_ADDRESS_MS));
		if (err == 0)
			err = connect_wait(conn, RDMA_CM_EVENT_ADDR_RESOLVED, deadline_ns, NULL);
	} while (err == -ETIMEDOUT && connect_left_ms(deadline_ns) > 0);
	if (err == 0)
		err = connect_check_device(conn);
	if (err == 0)
		err = err_from_libc(rdma_resolve_route(conn->id, connect_left_ms(deadline_ns)));
	if (err == 0)
		err = connect_wait(conn, RDMA_CM_EVENT_ROUTE_RESOLVED, deadline_ns, NULL);
	return err;
}

/* Never the same twice, whichever thread asks, and above all that an earlier one on the same lease can have had. */
static uint64_t connect_counter(struct verbs_driver *driver)
{
	uint64_t last = atomic_load(&driver->last_counter);
	uint64_t next;

	do
		next = base_max_u64(connect_now_ns(), last + 1);
	while (!atomic_compare_exchange_weak(&driver->last_counter, &last, next));
	return next;
}

static int connect_shake_hands(struct verbs_conn *conn, const struct transport_connect_options *options,
			       uint64_t deadline_ns, struct wire_verbs_rep *ret_rep)
{
	struct wire_verbs_req req = {
		.version = WIRE_VERBS_VERSION,
		.channel = (uint16_t)options->channel,
		.instance_tag = wire_verbs_instance_tag(options->instance_id),
		.lease_id = options->lease_id,
		.counter = connect_counter(conn->driver),
	};
	int max_reads = conn->device->attr.max_qp_init_rd_atom;
	uint8_t bytes[WIRE_VERBS_REQ_BYTES];
	uint8_t proof[WIRE_PROOF_BYTES];
	struct rdma_conn_param param = {
		.private_data = bytes,
		.private_data_len = sizeof(bytes),
		.responder_resources = 1,
		.initiator_depth = (uint8_t)base_min_u64(max_reads > 0 ? (unsigned)max_reads : 1, CONNECT_MAX_READS),
		.flow_control = 1,
		.retry_count = VERBS_RETRY_COUNT,
		.rnr_retry_count = CONNECT_RNR_RETRY_COUNT,
	};
	int err;

	wire_verbs_proof_initiator(options->token, options->instance_id, &req, req.proof);
	wire_verbs_req_pack(&req, bytes);
	err = err_from_libc(rdma_connect(conn->id, &param));
	if (err == 0)
		err = connect_wait(conn, RDMA_CM_EVENT_ESTABLISHED, deadline_ns, ret_rep);
	if (err < 0)
		return err;
	if (ret_rep->version != WIRE_VERBS_VERSION)
		return -EPROTONOSUPPORT;
	wire_verbs_proof_lender(options->token, options->instance_id, &req, ret_rep, proof);
	return wire_proof_equal(proof, ret_rep->proof) ? 0 : -EACCES;
}

static int connect_open_id(struct verbs_conn *conn)
{
	int err;

	conn->events = rdma_create_event_channel();
	if (!conn->events)
		return errno == ENOENT || errno == 0 ? -ENODEV : -errno;
	err = err_from_libc(fcntl(conn->events->fd, F_SETFL, O_NONBLOCK));
	if (err == 0)
		err = err_from_libc(rdma_create_id(conn->events, &conn->id, conn, RDMA_PS_TCP));
	return err;
}

static int verbs_connect(struct transport_driver *head, const struct transport_connect_options *options,
			 struct transport_conn **ret_conn)
{
	struct verbs_driver *driver = BASE_CONTAINER_OF(head, struct verbs_driver, head);
	uint64_t deadline_ns = connect_now_ns() + options->timeout_ms * SYS_NS_PER_MS;
	struct wire_verbs_rep rep;
	struct verbs_conn *conn;
	int err;

	err = transport_connect_options_check(options);
	if (err == 0 && options->channel > UINT16_MAX)
		err = -EINVAL;
	if (err == 0)
		err = wire_proof_init();
	if (err < 0)
		return err;
	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return -ENOMEM;
	conn->driver = driver;
	conn->head.queue_depth = options->queue_depth;
	err = connect_open_id(conn);
	if (err == 0)
		err = connect_resolve(conn, options, deadline_ns);
	if (err == 0)
		err = verbs_device_get(driver, conn->id->verbs, &conn->device);
	if (err == 0)
		err = conn_open(conn);
	if (err == 0)
		err = connect_shake_hands(conn, options, deadline_ns, &rep);
	if (err < 0) {
		verbs_conn_sever(conn);
		verbs_conn_free(conn);
		return err;
	}
	conn->beat_address = rep.beat_address;
	conn->beat_rkey = rep.beat_rkey;
	/* Shows life at least three times before the lender would cut us for silence. */
	verbs_conn_init(conn, (unsigned)base_min_u64(options->heartbeat_ms, base_max_u64(rep.silence_ms / 3, 1)),
			options->dead_ms);
	*ret_conn = &conn->head;
	return 0;
}

/* ---- the driver ---- */

bool verbs_available(void)
{
	struct rdma_event_channel *events;
	struct ibv_context **contexts;
	int nr = 0;

	contexts = rdma_get_devices(&nr);
	if (!contexts)
		return false;
	rdma_free_devices(contexts);
	if (nr == 0)
		return false;
	events = rdma_create_event_channel();
	if (events)
		rdma_destroy_event_channel(events);
	return events != NULL;
}

int verbs_driver_create(const struct verbs_driver_options *options, struct transport_driver **ret_driver)
{
	struct verbs_driver *driver;
	int ret;

	if (options->port > UINT8_MAX || options->gid_index < -1 || options->gid_index > UINT16_MAX ||
	    options->service_level < -1 || options->service_level > 7 ||
	    (options->device && strlen(options->device) >= sizeof(driver->device_name)))
		return -EINVAL;
	driver = calloc(1, sizeof(*driver));
	if (!driver)
		return -ENOMEM;
	driver->head = (struct transport_driver){ .name = "verbs", .connect = verbs_connect };
	driver->options = *options;
	if (options->device && options->device[0] != '\0') {
		strcpy(driver->device_name, options->device); /* checked above */
		driver->options.device = driver->device_name;
	} else {
		driver->options.device = NULL;
	}
	lock_mutex_init(&driver->lock);
	lock_acquire(&driver->lock);
	LIST_INIT(&driver->devices);
	lock_release(&driver->lock);
	ret = verbs_farewell_start(driver);
	if (ret < 0) {
		lock_mutex_done(&driver->lock);
		free(driver);
		return ret;
	}
	*ret_driver = &driver->head;
	return 0;
}

void verbs_driver_free(struct transport_driver *head)
{
	struct verbs_driver *driver;

	if (!head)
		return;
	driver = BASE_CONTAINER_OF(head, struct verbs_driver, head);
	verbs_farewell_stop(driver);
	verbs_devices_free(driver);
	lock_mutex_done(&driver->lock);
	free(driver);
}

void verbs_driver_counters(struct transport_driver *head, struct verbs_driver_counters *ret_counters)
{
	struct verbs_driver *driver = BASE_CONTAINER_OF(head, struct verbs_driver, head);

	*ret_counters = (struct verbs_driver_counters){
		.nr_bounced = atomic_load_explicit(&driver->nr_bounced, memory_order_relaxed),
		.bounced_bytes = atomic_load_explicit(&driver->bounced_bytes, memory_order_relaxed),
		.nr_maps = atomic_load_explicit(&driver->nr_maps, memory_order_relaxed),
	};
}

/*
 * What a connection receives.
 *
 * Bytes arrive in staging; the payload of a WRITE goes on from there into the buffer of its tag, and what of it has not
 * arrived yet is received straight into that buffer. A request that finds no free tag stays at the head of staging, and
 * the connection is parked: it receives nothing until a tag is free.
 */
#include "client/frontend/nbd/internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/log/log.h"

/* Receives of one connection in a row, before others get their turn. */
#define RECEIVE_BUDGET 4

_Static_assert(NBD_HANDSHAKE_IN_BYTES <= NBD_STAGING_BYTES, "staging holds any message of the handshake");

static void on_io_done(struct fsw_io *io, int status)
{
	struct nbd_tag *tag = BASE_CONTAINER_OF(io, struct nbd_tag, io);
	struct nbd_conn *conn = tag->conn;
	const char *text = NULL;
	enum nbd_error error;

	conn->nr_busy--;
	if (conn->state == NBD_CONN_DEAD) {
		nbd_worker_tag_put(conn->worker, tag);
		if (conn->nr_busy == 0)
			sys_reactor_defer(conn->worker->reactor, &conn->work);
		return;
	}
	error = nbd_error_of_status(status, &text);
	if (error != NBD_SUCCESS)
		stats_counter_add(&conn->worker->counters.io_errors, 1);
	nbd_conn_reply(tag, error, text);
}

static enum io_op op_of_command(uint16_t type)
{
	switch (type) {
	case NBD_CMD_READ:
		return IO_READ;
	case NBD_CMD_WRITE:
		return IO_WRITE;
	case NBD_CMD_TRIM:
		return IO_DISCARD;
	case NBD_CMD_WRITE_ZEROES:
		return IO_WRITE_ZEROES;
	default:
		assert(type == NBD_CMD_FLUSH);
		return IO_FLUSH;
	}
}

/* All of the request is here. */
static void serve(struct nbd_conn *conn, struct nbd_tag *tag)
{
	const struct nbd_request *request = &tag->request;

	if (tag->error != NBD_SUCCESS) {
		stats_counter_add(&conn->worker->counters.bad_requests, 1);
		nbd_conn_reply(tag, tag->error, tag->text);
		return;
	}
	tag->io.op = (uint8_t)op_of_command(request->type);
	tag->io.page = request->offset_bytes >> FSW_PAGE_SHIFT;
	tag->io.nr_pages = request->len_bytes >> FSW_PAGE_SHIFT;
	tag->io.buf = tag->buf;
	tag->io.done = on_io_done;
	conn->nr_busy++;
	vswap_submit(conn->worker->queue, &tag->io);
}

/* Moves what staging has of the payload on. False when some of it is still to come. */
static bool take_payload(struct nbd_conn *conn)
{
	struct nbd_tag *tag = conn->rx_tag;
	uint32_t nr = (uint32_t)base_min_u64(conn->tail - conn->head, tag->request.len_bytes - conn->rx_bytes);

	if (tag->error == NBD_SUCCESS)
		memcpy((char *)tag->buf + conn->rx_bytes, conn->staging + conn->head, nr);
	conn->head += nr;
	conn->rx_bytes += nr;
	if (conn->rx_bytes < tag->request.len_bytes)
		return false;
	conn->rx_tag = NULL;
	serve(conn, tag);
	return true;
}

/* Takes one header. False when there is none, or it must wait. */
static bool take_request(struct nbd_conn *conn)
{
	struct nbd_worker *worker = conn->worker;
	enum nbd_error error;
	struct nbd_request request;
	const char *text = NULL;
	struct nbd_tag *tag;
	bool has_data;

	if (conn->tail - conn->head < NBD_REQUEST_BYTES)
		return false;
	if (nbd_request_unpack(conn->staging + conn->head, &request) < 0) {
		nbd_conn_protocol_error(conn, "something that is no request");
		return false;
	}
	if (request.type == NBD_CMD_DISC) {
		nbd_conn_leave(conn);
		return false;
	}
	error = nbd_request_check(&request, worker->server->export_bytes, conn->structured_replies, &text);
	if (error != NBD_SUCCESS && request.type == NBD_CMD_WRITE && request.len_bytes > NBD_SKIP_MAX_BYTES) {
		nbd_conn_protocol_error(conn, "a write of unreasonable length");
		return false;
	}
	has_data = error == NBD_SUCCESS && (request.type == NBD_CMD_READ || request.type == NBD_CMD_WRITE);
	tag = nbd_worker_tag_get(worker, conn, has_data ? request.len_bytes : 0);
	if (!tag) {
		conn->parked = true;
		TAILQ_INSERT_TAIL(&worker->parked, conn, parked_link);
		return false;
	}
	conn->head += NBD_REQUEST_BYTES;
	tag->request = request;
	tag->error = error;
	tag->text = text;
	if (request.type == NBD_CMD_WRITE && request.len_bytes > 0) {
		conn->rx_tag = tag;
		conn->rx_bytes = 0;
		return true;
	}
	serve(conn, tag);
	return true;
}

void nbd_conn_take_requests(struct nbd_conn *conn)
{
	while (nbd_conn_may_receive(conn) && (conn->rx_tag ? take_payload(conn) : take_request(conn)))
		;
}

/* Where the next bytes go: the rest of a payload into its buffer, what follows it into staging. */
static size_t receive_space(struct nbd_conn *conn, struct iovec iov[2], size_t *ret_nr_iov)
{
	struct nbd_tag *tag = conn->rx_tag;
	size_t nr_iov = 0, rest = 0;

	/* Less than one message, so little. */
	if (conn->head > 0) {
		memmove(conn->staging, conn->staging + conn->head, conn->tail - conn->head);
		conn->tail -= conn->head;
		conn->head = 0;
	}
	if (tag && tag->error == NBD_SUCCESS) {
		rest = tag->request.len_bytes - conn->rx_bytes;
		iov[nr_iov++] = (struct iovec){ (char *)tag->buf + conn->rx_bytes, rest };
	}
	iov[nr_iov++] = (struct iovec){ conn->staging + conn->tail, NBD_STAGING_BYTES - conn->tail };
	*ret_nr_iov = nr_iov;
	return rest;
}

/* Whether the client owes the rest of a message: staging keeps no whole one, or nothing would be received. */
static bool is_midway(const struct nbd_conn *conn)
{
	return conn->rx_tag || conn->head != conn->tail ||
	       (conn->state == NBD_CONN_HANDSHAKE && conn->handshake.state == NBD_HANDSHAKE_SKIPPING);
}

/* True when it brought something. *ret_more: the socket may have more. */
static bool receive_once(struct nbd_conn *conn, bool *ret_more)
{
	struct iovec iov[2];
	struct msghdr msg = { .msg_iov = iov };
	size_t direct = receive_space(conn, iov, &msg.msg_iovlen);
	size_t offered = direct + NBD_STAGING_BYTES - conn->tail;
	ssize_t nr;

	*ret_more = false;
	do {
		nr = recvmsg(conn->fd, &msg, MSG_DONTWAIT);
	} while (nr < 0 && errno == EINTR);
	if (nr < 0 && errno == EAGAIN)
		return false;
	if (nr <= 0) {
		if (is_midway(conn)) {
			stats_counter_add(&conn->worker->counters.truncated, 1);
			log_info("nbd: a client went away in the middle of a message");
		}
		nbd_conn_kill(conn);
		return false;
	}
	conn->progress_ns = sys_reactor_now_ns(conn->worker->reactor);
	direct = base_min_u64(direct, (size_t)nr);
	conn->rx_bytes += (uint32_t)direct;
	conn->tail += (size_t)nr - direct;
	if (conn->state == NBD_CONN_HANDSHAKE)
		nbd_conn_take_options(conn);
	else
		nbd_conn_take_requests(conn);
	*ret_more = (size_t)nr == offered;
	return true;
}

bool nbd_conn_receive(struct nbd_conn *conn)
{
	bool any = false, more = true;

	for (unsigned i = 0; i < RECEIVE_BUDGET && more && nbd_conn_may_receive(conn); i++)
		any |= receive_once(conn, &more);
	return any;
}

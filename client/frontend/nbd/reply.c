/*
 * What a connection sends. Replies are gathered during a turn and leave at its end, in one system call as far as the
 * socket takes them.
 */
#include "client/frontend/nbd/internal.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define REPLY_IOVS 128

static void count_reply(struct nbd_worker *worker, const struct nbd_tag *tag)
{
	struct nbd_worker_counters *counters = &worker->counters;

	switch (tag->request.type) {
	case NBD_CMD_READ:
		stats_counter_add(&counters->reads, 1);
		break;
	case NBD_CMD_WRITE:
		stats_counter_add(&counters->writes, 1);
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		stats_counter_add(&counters->trims, 1);
		break;
	default:
		stats_counter_add(&counters->flushes, 1);
		break;
	}
}

void nbd_conn_reply(struct nbd_tag *tag, enum nbd_error error, const char *text)
{
	struct nbd_conn *conn = tag->conn;

	tag->head_bytes =
		(uint32_t)nbd_reply_pack(tag->head, &tag->request, conn->structured_replies, error, text);
	tag->data_bytes = error == NBD_SUCCESS && tag->request.type == NBD_CMD_READ ? tag->request.len_bytes : 0;
	if (error == NBD_SUCCESS)
		count_reply(conn->worker, tag);
	TAILQ_INSERT_TAIL(&conn->replies, tag, link);
	sys_reactor_defer(conn->worker->reactor, &conn->work);
}

/* Sends from iov. The bytes that went; 0 when the socket is full; -1 when the connection was killed. */
static ssize_t send_iov(struct nbd_conn *conn, struct iovec *iov, size_t nr_iov)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr_iov };
	ssize_t sent;

	do {
		sent = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0 && errno != EAGAIN) {
		nbd_conn_kill(conn);
		return -1;
	}
	if (sent > 0)
		conn->progress_ns = sys_reactor_now_ns(conn->worker->reactor);
	return sent < 0 ? 0 : sent;
}

static void set_want_write(struct nbd_conn *conn, bool want_write)
{
	if (conn->want_write == want_write)
		return;
	conn->want_write = want_write;
	nbd_conn_update_watch(conn);
}

bool nbd_conn_send_handshake(struct nbd_conn *conn)
{
	struct nbd_handshake *handshake = &conn->handshake;
	struct iovec iov;
	ssize_t sent;

	while (conn->greeted_bytes < handshake->nr_out) {
		iov.iov_base = handshake->out + conn->greeted_bytes;
		iov.iov_len = handshake->nr_out - conn->greeted_bytes;
		sent = send_iov(conn, &iov, 1);
		if (sent <= 0) {
			if (sent == 0)
				set_want_write(conn, true);
			return false;
		}
		conn->greeted_bytes += (size_t)sent;
	}
	conn->greeted_bytes = 0;
	handshake->nr_out = 0;
	set_want_write(conn, false);
	return true;
}

static void add_part(struct iovec *iov, size_t *nr_iov, uint64_t *skip_bytes, void *base, size_t len_bytes)
{
	uint64_t skip = base_min_u64(*skip_bytes, len_bytes);

	*skip_bytes -= skip;
	if (skip == len_bytes)
		return;
	iov[(*nr_iov)++] = (struct iovec){ (char *)base + skip, len_bytes - skip };
}

/* The bytes that are offered to the socket. */
static size_t gather(struct nbd_conn *conn, struct iovec *iov, size_t *ret_nr_iov)
{
	uint64_t skip = conn->sent_bytes;
	size_t nr_iov = 0, bytes = 0;
	struct nbd_tag *tag;

	TAILQ_FOREACH(tag, &conn->replies, link) {
		if (nr_iov + 2 > REPLY_IOVS)
			break;
		add_part(iov, &nr_iov, &skip, tag->head, tag->head_bytes);
		if (tag->data_bytes > 0)
			add_part(iov, &nr_iov, &skip, tag->buf, tag->data_bytes);
	}
	for (size_t i = 0; i < nr_iov; i++)
		bytes += iov[i].iov_len;
	*ret_nr_iov = nr_iov;
	return bytes;
}

static void retire(struct nbd_conn *conn, size_t sent)
{
	struct nbd_tag *tag;

	conn->sent_bytes += sent;
	while ((tag = TAILQ_FIRST(&conn->replies))) {
		uint64_t whole = (uint64_t)tag->head_bytes + tag->data_bytes;

		if (conn->sent_bytes < whole)
			break;
		conn->sent_bytes -= whole;
		TAILQ_REMOVE(&conn->replies, tag, link);
		nbd_worker_tag_put(conn->worker, tag);
	}
}

bool nbd_conn_send_replies(struct nbd_conn *conn)
{
	struct iovec iov[REPLY_IOVS];
	size_t offered, nr_iov;
	ssize_t sent;

	while (!TAILQ_EMPTY(&conn->replies)) {
		offered = gather(conn, iov, &nr_iov);
		sent = send_iov(conn, iov, nr_iov);
		if (sent < 0)
			return false;
		retire(conn, (size_t)sent);
		if ((size_t)sent < offered) {
			set_want_write(conn, true);
			return false;
		}
	}
	set_want_write(conn, false);
	return true;
}

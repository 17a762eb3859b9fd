#include "tests/conform/nbd_client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_MAX_BYTES 4096u /* of an option's reply, or of an error */
#define HANDLE_TAG 0x6661727300000000ull /* so that a handle that was made up is none of ours */

/* ---- bytes ---- */

static int send_parts(struct nbd_client *client, struct iovec *iov, size_t nr_iov)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr_iov };
	ssize_t sent;

	while (msg.msg_iovlen > 0) {
		sent = sendmsg(client->fd, &msg, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -ENOTCONN;
		while (msg.msg_iovlen > 0 && (size_t)sent >= msg.msg_iov->iov_len) {
			sent -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen > 0) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + sent;
			msg.msg_iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static int receive(struct nbd_client *client, void *buf, size_t len_bytes)
{
	while (len_bytes > 0) {
		ssize_t nr = recv(client->fd, buf, len_bytes, 0);

		if (nr < 0 && errno == EINTR)
			continue;
		if (nr <= 0)
			return -ENOTCONN;
		buf = (char *)buf + nr;
		len_bytes -= (size_t)nr;
	}
	return 0;
}

/* ---- handshake ---- */

static int dial(struct nbd_client *client, const char *socket_path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", socket_path);
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0)
		return -errno;
	if (connect(client->fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		int ret = -errno;

		close(client->fd);
		return ret;
	}
	return 0;
}

static int greet(struct nbd_client *client)
{
	unsigned char greeting[18], answer[4];
	struct iovec iov = { answer, sizeof(answer) };
	int ret;

	ret = receive(client, greeting, sizeof(greeting));
	if (ret < 0)
		return ret;
	if (nbd_get64(greeting) != NBD_MAGIC || nbd_get64(greeting + 8) != NBD_OPTION_MAGIC ||
	    nbd_get16(greeting + 16) != (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
		return -EPROTO;
	nbd_put32(answer, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	return send_parts(client, &iov, 1);
}

static void take_info(struct nbd_client *client, const unsigned char *data, uint32_t len_bytes)
{
	if (len_bytes == 12 && nbd_get16(data) == NBD_INFO_EXPORT) {
		client->export_bytes = nbd_get64(data + 2);
		client->flags = nbd_get16(data + 10);
	} else if (len_bytes == 14 && nbd_get16(data) == NBD_INFO_BLOCK_SIZE) {
		client->min_block_bytes = nbd_get32(data + 2);
		client->max_block_bytes = nbd_get32(data + 10);
	}
}

/* Sends an option and takes its replies, up to the acknowledgement. */
static int ask_option(struct nbd_client *client, enum nbd_option option, const void *data, uint32_t len_bytes)
{
	unsigned char head[NBD_OPTION_HEADER_BYTES], reply[NBD_OPTION_REPLY_HEADER_BYTES], text[MESSAGE_MAX_BYTES], *p;
	struct iovec iov[2] = { { head, sizeof(head) }, { (void *)(uintptr_t)data, len_bytes } };
	int ret;

	p = nbd_put64(head, NBD_OPTION_MAGIC);
	p = nbd_put32(p, option);
	nbd_put32(p, len_bytes);
	ret = send_parts(client, iov, 2);
	while (ret == 0) {
		ret = receive(client, reply, sizeof(reply));
		if (ret < 0)
			return ret;
		if (nbd_get64(reply) != NBD_OPTION_REPLY_MAGIC || nbd_get32(reply + 8) != (uint32_t)option ||
		    nbd_get32(reply + 16) > sizeof(text))
			return -EPROTO;
		ret = receive(client, text, nbd_get32(reply + 16));
		if (nbd_get32(reply + 12) == NBD_REP_ACK)
			return ret;
		if (nbd_get32(reply + 12) != NBD_REP_INFO)
			return -EPROTO;
		if (ret == 0)
			take_info(client, text, nbd_get32(reply + 16));
	}
	return ret;
}

static int shake_hands(struct nbd_client *client)
{
	unsigned char go[8], *p;
	int ret;

	ret = greet(client);
	if (ret == 0 && client->structured_replies)
		ret = ask_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	if (ret < 0)
		return ret;
	p = nbd_put32(go, 0); /* of the name: the default export */
	p = nbd_put16(p, 1);
	nbd_put16(p, NBD_INFO_BLOCK_SIZE);
	ret = ask_option(client, NBD_OPT_GO, go, sizeof(go));
	return ret == 0 && client->export_bytes == 0 ? -EPROTO : ret;
}

/* ---- replies ---- */

static int errno_of(uint32_t error)
{
	switch (error) {
	case NBD_SUCCESS:
		return 0;
	case NBD_EIO:
		return -EIO;
	case NBD_ENOMEM:
		return -ENOMEM;
	case NBD_EINVAL:
		return -EINVAL;
	case NBD_ENOSPC:
		return -ENOSPC;
	default:
		return -EPROTO;
	}
}

/* The call that the handle names, if it waits for an answer. */
static struct nbd_client_call *find_call(struct nbd_client *client, const unsigned char *handle)
{
	uint64_t number = nbd_get64(handle) ^ HANDLE_TAG;
	struct nbd_client_call *call = NULL;

	pthread_mutex_lock(&client->lock);
	if (number < NBD_CLIENT_DEPTH && client->calls[number].begun && !client->calls[number].done)
		call = &client->calls[number];
	pthread_mutex_unlock(&client->lock);
	return call;
}

static void end_call(struct nbd_client *client, struct nbd_client_call *call, int status)
{
	pthread_mutex_lock(&client->lock);
	call->status = status;
	call->done = true;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

static int receive_simple(struct nbd_client *client)
{
	unsigned char rest[NBD_SIMPLE_REPLY_BYTES - 4];
	struct nbd_client_call *call;
	int status, ret;

	ret = receive(client, rest, sizeof(rest));
	if (ret < 0)
		return ret;
	status = errno_of(nbd_get32(rest));
	call = find_call(client, rest + 4);
	if (!call || (call->command == NBD_CMD_READ && client->structured_replies))
		return -EPROTO;
	if (call->command == NBD_CMD_READ && status == 0) {
		ret = receive(client, call->buf, call->len_bytes);
		if (ret < 0)
			return ret;
	}
	end_call(client, call, status);
	return 0;
}

/* The data of one chunk. */
static int receive_chunk(struct nbd_client *client, struct nbd_client_call *call, uint16_t type, uint32_t len_bytes)
{
	unsigned char data[MESSAGE_MAX_BYTES];
	int ret;

	switch (type) {
	case NBD_REPLY_TYPE_NONE:
		return len_bytes == 0 ? 0 : -EPROTO;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		ret = receive(client, data, 8);
		if (ret < 0)
			return ret;
		/* It may come in parts, but this server sends it whole. */
		if (call->command != NBD_CMD_READ || call->has_data || len_bytes != 8 + call->len_bytes ||
		    nbd_get64(data) != call->offset_bytes)
			return -EPROTO;
		call->has_data = true;
		return receive(client, call->buf, call->len_bytes);
	case NBD_REPLY_TYPE_ERROR:
	case NBD_REPLY_TYPE_ERROR_OFFSET:
		if (len_bytes < 6 || len_bytes > sizeof(data))
			return -EPROTO;
		ret = receive(client, data, len_bytes);
		if (ret < 0)
			return ret;
		call->status = errno_of(nbd_get32(data));
		return call->status < 0 ? 0 : -EPROTO;
	default:
		return -EPROTO;
	}
}

static int receive_structured(struct nbd_client *client)
{
	unsigned char rest[NBD_CHUNK_HEADER_BYTES - 4];
	struct nbd_client_call *call;
	int ret;

	ret = receive(client, rest, sizeof(rest));
	if (ret < 0)
		return ret;
	call = find_call(client, rest + 4);
	if (!call || !client->structured_replies)
		return -EPROTO;
	ret = receive_chunk(client, call, nbd_get16(rest + 2), nbd_get32(rest + 12));
	if (ret < 0)
		return ret;
	if (!(nbd_get16(rest) & NBD_REPLY_FLAG_DONE))
		return 0;
	if (call->status == 0 && call->command == NBD_CMD_READ && !call->has_data)
		return -EPROTO;
	end_call(client, call, call->status);
	return 0;
}

static int receive_reply(struct nbd_client *client)
{
	unsigned char magic[4];
	int ret;

	ret = receive(client, magic, sizeof(magic));
	if (ret < 0)
		return ret;
	switch (nbd_get32(magic)) {
	case NBD_SIMPLE_REPLY_MAGIC:
		return receive_simple(client);
	case NBD_STRUCTURED_REPLY_MAGIC:
		return receive_structured(client);
	default:
		return -EPROTO;
	}
}

static void *receiver_main(void *arg)
{
	struct nbd_client *client = arg;
	int ret;

	do {
		ret = receive_reply(client);
	} while (ret == 0);
	/* Nobody is to wait for a server that is not listened to. */
	shutdown(client->fd, SHUT_RDWR);
	pthread_mutex_lock(&client->lock);
	client->down = ret;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
	return NULL;
}

/* ---- calls ---- */

static unsigned take_call(struct nbd_client *client, const struct nbd_client_call *call)
{
	unsigned number = 0;

	pthread_mutex_lock(&client->lock);
	while (number < NBD_CLIENT_DEPTH && client->calls[number].begun)
		number++;
	assert(number < NBD_CLIENT_DEPTH);
	client->calls[number] = *call;
	pthread_mutex_unlock(&client->lock);
	return number;
}

unsigned nbd_client_begin(struct nbd_client *client, enum nbd_command command, uint16_t flags, uint64_t offset_bytes,
			  void *buf, uint32_t len_bytes)
{
	unsigned number = take_call(client, &(struct nbd_client_call){ .begun = true, .command = command, .buf = buf,
								       .offset_bytes = offset_bytes,
								       .len_bytes = len_bytes });
	unsigned char head[NBD_REQUEST_BYTES], *p;
	struct iovec iov[2] = { { head, sizeof(head) }, { buf, len_bytes } };

	p = nbd_put32(head, NBD_REQUEST_MAGIC);
	p = nbd_put16(p, flags);
	p = nbd_put16(p, (uint16_t)command);
	p = nbd_put64(p, HANDLE_TAG ^ number);
	p = nbd_put64(p, offset_bytes);
	nbd_put32(p, len_bytes);
	pthread_mutex_lock(&client->send_lock);
	/* Should it fail, the receiver finds out as well, and tells all who wait. */
	(void)!send_parts(client, iov, command == NBD_CMD_WRITE && len_bytes > 0 ? 2 : 1);
	pthread_mutex_unlock(&client->send_lock);
	return number;
}

int nbd_client_end(struct nbd_client *client, unsigned number)
{
	struct nbd_client_call *call = &client->calls[number];
	int status;

	pthread_mutex_lock(&client->lock);
	while (!call->done && client->down == 0)
		pthread_cond_wait(&client->changed, &client->lock);
	status = call->done ? call->status : client->down;
	call->begun = false;
	pthread_mutex_unlock(&client->lock);
	return status;
}

/* ---- life ---- */

int nbd_client_open(const char *socket_path, bool structured_replies, struct nbd_client **ret_client)
{
	struct nbd_client *client = calloc(1, sizeof(*client));
	int ret;

	assert(client);
	client->structured_replies = structured_replies;
	ret = dial(client, socket_path);
	if (ret < 0)
		goto out_client;
	ret = shake_hands(client);
	if (ret < 0)
		goto out_fd;
	pthread_mutex_init(&client->send_lock, NULL);
	pthread_mutex_init(&client->lock, NULL);
	pthread_cond_init(&client->changed, NULL);
	ret = -pthread_create(&client->receiver, NULL, receiver_main, client);
	assert(ret == 0);
	*ret_client = client;
	return 0;

out_fd:
	close(client->fd);
out_client:
	free(client);
	return ret;
}

void nbd_client_cut(struct nbd_client *client)
{
	shutdown(client->fd, SHUT_RDWR);
}

void nbd_client_close(struct nbd_client *client)
{
	unsigned char head[NBD_REQUEST_BYTES] = { 0 };
	struct iovec iov = { head, sizeof(head) };

	nbd_put16(nbd_put16(nbd_put32(head, NBD_REQUEST_MAGIC), 0), NBD_CMD_DISC);
	/* The server hangs up then, and the receiver ends. */
	if (send_parts(client, &iov, 1) < 0)
		nbd_client_cut(client);
	pthread_join(client->receiver, NULL);
	close(client->fd);
	pthread_cond_destroy(&client->changed);
	pthread_mutex_destroy(&client->lock);
	pthread_mutex_destroy(&client->send_lock);
	free(client);
}

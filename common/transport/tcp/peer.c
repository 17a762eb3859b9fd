/*
 * One connection at the lender: the handshake, then the session.
 *
 * Every entry (watch, poll, flush, tick, nudge) ends in peer_check, the one place where a connection is cut for an
 * error; the steps below it only return one.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/transport/tcp/listener.h"
#include "common/wire/proof.h"

#define PEER_MAX_IOV 128
#define PEER_MAX_RECEIVE_BYTES (1u << 20) /* in one turn */
#define PEER_MAX_SENDS 4		  /* system calls in one turn */
#define PEER_HOT_NS (1 * SYS_NS_PER_MS)	  /* a peer that was silent for longer is left to epoll */

static uint64_t peer_now_ns(const struct tcp_peer *peer)
{
	return sys_reactor_now_ns(peer->worker->reactor);
}

static struct transport_target *peer_target(const struct tcp_peer *peer)
{
	return peer->worker->listener->options.target;
}

void tcp_peer_cut(struct tcp_peer *peer, int err)
{
	struct tcp_worker *worker = peer->worker;
	struct tcp_listener *listener = worker->listener;
	struct transport_target *target = peer_target(peer);

	/* A peer that just goes away is nobody's error. */
	if (err != -ECONNRESET && err != -ECANCELED)
		tcp_listener_count(listener, peer->name, err);
	if (peer->session)
		target->ops->leave(target, peer->session);
	peer->session = NULL;
	sys_watch_remove(&peer->watch);
	sys_reactor_undefer(worker->reactor, &peer->flush);
	tcp_worker_cool(worker, peer);
	TAILQ_REMOVE(&worker->peers, peer, worker_link);
	close(peer->watch.fd);
	peer->watch.fd = -1;
	tcp_listener_release(listener, peer);
}

static void peer_check(struct tcp_peer *peer, int err)
{
	if (err < 0)
		tcp_peer_cut(peer, err);
}

/* Frames of the handshake are smaller than any socket's buffer: one that does not fit is a peer that does not read. */
static int peer_send_frame(struct tcp_peer *peer, const void *bytes, size_t len_bytes)
{
	ssize_t ret = send(peer->watch.fd, bytes, len_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (ret < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -ECONNRESET;
	return (size_t)ret == len_bytes ? 0 : -ETIMEDOUT;
}

/* Tells the peer why; whether it listens does not matter. Returns err, for which it is cut. */
static int peer_refuse(struct tcp_peer *peer, int err)
{
	struct wire_ready ready = { .refusal = wire_refusal_from_err(err) };
	uint8_t bytes[WIRE_READY_BYTES];
	int ret;

	wire_ready_pack(&ready, bytes);
	ret = peer_send_frame(peer, bytes, sizeof(bytes));
	(void)ret;
	return err;
}

static int peer_send_ready(struct tcp_peer *peer)
{
	const struct tcp_listener_options *options = &peer->worker->listener->options;
	struct transport_target *target = peer_target(peer);
	struct wire_ready ready = {
		.max_payload_bytes = WIRE_MAX_PAYLOAD_BYTES,
		.queue_depth = peer->lender.queue_depth,
		.silence_ms = options->silence_ms,
	};
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	uint8_t bytes[WIRE_READY_BYTES];
	int err;

	err = target->ops->lookup(target, peer->auth.lease_id, token);
	if (err < 0)
		return peer_refuse(peer, err);
	wire_proof_lender(token, &peer->hello, &peer->auth, &ready, ready.proof);
	wire_token_wipe(token);
	wire_ready_pack(&ready, bytes);
	return peer_send_frame(peer, bytes, sizeof(bytes));
}

/* The peer is proven. Its session begins when none but it is left on its lease and channel. */
static int peer_admit(struct tcp_peer *peer)
{
	struct tcp_listener *listener = peer->worker->listener;
	struct transport_target *target = peer_target(peer);
	uint32_t queue_depth = peer->auth.queue_depth;
	int err;

	if (!tcp_listener_fence(listener, peer)) {
		sys_watch_modify(&peer->watch, 0);
		return 0;
	}
	err = target->ops->join(target, peer->auth.lease_id, peer->auth.channel, peer->name, &peer->session);
	if (err < 0) {
		peer->session = NULL;
		return peer_refuse(peer, err);
	}
	if (queue_depth > peer->lender.max_queue_depth)
		queue_depth = peer->lender.max_queue_depth;
	tcp_lender_begin(&peer->lender, peer->session, queue_depth);
	err = peer_send_ready(peer);
	if (err < 0)
		return err;
	peer->state = TCP_PEER_SERVING;
	peer->life_ns = peer->renewed_ns = peer_now_ns(peer);
	atomic_fetch_add_explicit(&listener->admitted, 1, memory_order_relaxed);
	sys_watch_modify(&peer->watch, EPOLLIN);
	return 0;
}

static int peer_check_proof(struct tcp_peer *peer)
{
	struct transport_target *target = peer_target(peer);
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	uint8_t proof[WIRE_PROOF_BYTES];
	int err;

	if (peer->auth.version < WIRE_VERSION_MIN || peer->auth.version > WIRE_VERSION_MAX)
		return -EPROTONOSUPPORT;
	if (peer->auth.instance_id != target->instance_id)
		return -ESTALE;
	err = target->ops->lookup(target, peer->auth.lease_id, token);
	if (err < 0)
		return err;
	wire_proof_initiator(token, &peer->hello, &peer->auth, proof);
	wire_token_wipe(token);
	return wire_proof_equal(proof, peer->auth.proof) ? 0 : -EACCES;
}

static int peer_authenticate(struct tcp_peer *peer)
{
	int err;

	err = wire_auth_unpack(peer->auth_bytes, &peer->auth);
	if (err < 0)
		return err; /* whoever speaks so does not understand our answer */
	err = peer_check_proof(peer);
	if (err < 0)
		return peer_refuse(peer, err);
	err = tcp_listener_enter(peer->worker->listener, peer);
	if (err < 0)
		return peer_refuse(peer, err);
	peer->state = TCP_PEER_WAITING;
	return peer_admit(peer);
}

static int peer_receive_auth(struct tcp_peer *peer)
{
	ssize_t ret = recv(peer->watch.fd, peer->auth_bytes + peer->auth_len_bytes,
			   sizeof(peer->auth_bytes) - peer->auth_len_bytes, MSG_DONTWAIT);

	if (ret < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -ECONNRESET;
	if (ret == 0) /* half a frame is garbage; a port that was only looked at is not */
		return peer->auth_len_bytes > 0 ? -EPIPE : -ECONNRESET;
	peer->auth_len_bytes += (uint32_t)ret;
	return peer->auth_len_bytes == sizeof(peer->auth_bytes) ? peer_authenticate(peer) : 0;
}

/* One system call: the bytes received, 0 when there are none, or a negative errno. */
static ssize_t peer_receive_once(struct tcp_peer *peer, const struct iovec *iov, unsigned nr_iov)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = nr_iov };
	ssize_t ret;

	if (nr_iov == 1)
		ret = recv(peer->watch.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT);
	else
		ret = recvmsg(peer->watch.fd, &msg, MSG_DONTWAIT);
	if (ret > 0)
		return ret;
	if (ret == 0)
		return -ECONNRESET;
	return errno == EAGAIN || errno == EINTR ? 0 : -ECONNRESET;
}

/* The number of receives that brought something, or a negative errno. */
static int peer_receive(struct tcp_peer *peer)
{
	struct iovec iov[TCP_LENDER_SPACE_IOV];
	uint64_t now_ns = peer_now_ns(peer);
	size_t sum_bytes = 0;
	size_t space_bytes;
	unsigned nr_iov;
	int nr_received = 0;
	ssize_t ret;
	int err;

	peer->polled_ns = now_ns;
	do {
		nr_iov = tcp_lender_space(&peer->lender, iov, &space_bytes);
		if (nr_iov == 0)
			break;
		ret = peer_receive_once(peer, iov, nr_iov);
		if (ret < 0)
			return tcp_lender_is_midway(&peer->lender) ? -EPIPE : (int)ret;
		if (ret == 0)
			break;
		err = tcp_lender_received(&peer->lender, (size_t)ret);
		if (err < 0)
			return err;
		nr_received++;
		sum_bytes += (size_t)ret;
		/* Less than there was room for: the socket is empty, and it need not be asked. */
	} while ((size_t)ret == space_bytes && sum_bytes < PEER_MAX_RECEIVE_BYTES);
	if (nr_received == 0) {
		/* space may have resolved a pointer, which must not live beyond this turn. */
		tcp_lender_turn_end(&peer->lender);
		return 0;
	}
	peer->alive = true;
	peer->life_ns = now_ns;
	sys_reactor_defer(peer->worker->reactor, &peer->flush);
	if (!peer->hot)
		tcp_worker_heat(peer->worker, peer);
	return nr_received;
}

/* EPOLLIN unless the stream is blocked, EPOLLOUT while there is something that did not fit. */
static void peer_update_events(struct tcp_peer *peer)
{
	uint32_t events = 0;

	if (tcp_lender_wants_bytes(&peer->lender))
		events |= EPOLLIN;
	if (tcp_lender_has_replies(&peer->lender))
		events |= EPOLLOUT;
	sys_watch_modify(&peer->watch, events);
}

/* Sends what this turn has answered. 0 or a negative errno. */
static int peer_send(struct tcp_peer *peer)
{
	struct iovec iov[PEER_MAX_IOV];
	struct msghdr msg = { .msg_iov = iov };
	size_t len_bytes;
	ssize_t ret;
	int err;

	for (unsigned i = 0; i < PEER_MAX_SENDS && tcp_lender_has_replies(&peer->lender); i++) {
		err = tcp_lender_gather(&peer->lender, iov, PEER_MAX_IOV, &len_bytes);
		if (err < 0)
			return err;
		msg.msg_iovlen = (size_t)err;
		ret = sendmsg(peer->watch.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (ret < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -ECONNRESET;
		peer->life_ns = peer_now_ns(peer); /* it takes what it asked for */
		err = tcp_lender_sent(&peer->lender, (size_t)ret);
		if (err < 0)
			return err;
		if ((size_t)ret < len_bytes)
			return 0;
	}
	return 0;
}

static int peer_renew(struct tcp_peer *peer, uint64_t now_ns)
{
	struct transport_target *target = peer_target(peer);
	bool alive = peer->alive;

	peer->alive = false;
	peer->renewed_ns = now_ns;
	return target->ops->renew(target, peer->session, alive, now_ns);
}

static void peer_flush(struct sys_deferred *deferred)
{
	struct tcp_peer *peer = BASE_CONTAINER_OF(deferred, struct tcp_peer, flush);
	int err = 0;

	if (peer->alive)
		err = peer_renew(peer, peer_now_ns(peer));
	if (err == 0)
		err = peer_send(peer);
	if (err == 0)
		peer_update_events(peer);
	tcp_lender_turn_end(&peer->lender);
	peer_check(peer, err);
}

static void peer_ready(struct sys_watch *watch, uint32_t events)
{
	struct tcp_peer *peer = BASE_CONTAINER_OF(watch, struct tcp_peer, watch);
	int ret = 0;

	switch (peer->state) {
	case TCP_PEER_GREETED:
		ret = peer_receive_auth(peer);
		break;
	case TCP_PEER_SERVING:
		if (events & EPOLLOUT)
			sys_reactor_defer(peer->worker->reactor, &peer->flush);
		if (events & EPOLLIN)
			ret = peer_receive(peer);
		else if (events & (EPOLLERR | EPOLLHUP))
			ret = -ECONNRESET;
		break;
	default: /* asked for nothing, so it is an error or the peer's end */
		ret = -ECONNRESET;
		break;
	}
	peer_check(peer, ret);
}

unsigned tcp_peer_poll(struct tcp_peer *peer)
{
	uint64_t now_ns = peer_now_ns(peer);
	int ret;

	if (peer->polled_ns == now_ns)
		return 0;
	if (now_ns - peer->life_ns > PEER_HOT_NS) {
		tcp_worker_cool(peer->worker, peer);
		return 0;
	}
	ret = peer_receive(peer);
	peer_check(peer, ret);
	return ret > 0 ? (unsigned)ret : 0;
}

void tcp_peer_tick(struct tcp_peer *peer, uint64_t now_ns)
{
	const struct tcp_listener_options *options = &peer->worker->listener->options;
	int err = 0;

	if (peer->state != TCP_PEER_SERVING) {
		if (now_ns >= peer->deadline_ns)
			err = -ETIMEDOUT;
	} else if (now_ns >= peer->life_ns + options->silence_ms * SYS_NS_PER_MS) {
		err = -ETIMEDOUT;
	} else if (now_ns - peer->renewed_ns >= peer->worker->listener->tick_ns) {
		err = peer_renew(peer, now_ns);
	}
	peer_check(peer, err);
}

/* The listener has accepted the connection and given it to this worker; perhaps it has changed its mind. */
static void peer_start(struct tcp_peer *peer, bool unwanted)
{
	struct tcp_worker *worker = peer->worker;
	uint8_t bytes[WIRE_HELLO_BYTES];
	int err;

	TAILQ_INSERT_TAIL(&worker->peers, peer, worker_link);
	peer->state = TCP_PEER_GREETED;
	peer->flush.run = peer_flush;
	peer->watch.ready = peer_ready;
	peer->deadline_ns = peer_now_ns(peer) + worker->listener->options.handshake_ms * SYS_NS_PER_MS;
	peer->auth_len_bytes = 0;
	peer->polled_ns = 0;
	peer->alive = false;
	peer->hello.min_version = WIRE_VERSION_MIN;
	peer->hello.max_version = WIRE_VERSION_MAX;
	peer->hello.instance_id = peer_target(peer)->instance_id;
	wire_nonce_make(peer->hello.nonce);
	wire_hello_pack(&peer->hello, bytes);
	err = unwanted ? -ECANCELED : sys_watch_add(worker->reactor, &peer->watch, EPOLLIN);
	if (err == 0)
		err = peer_send_frame(peer, bytes, sizeof(bytes));
	peer_check(peer, err);
}

void tcp_peer_nudged(struct sys_message *message)
{
	struct tcp_peer *peer = BASE_CONTAINER_OF(message, struct tcp_peer, nudge);
	struct tcp_listener *listener = peer->worker->listener;
	enum tcp_peer_state state = peer->state;
	bool unwanted;

	/* A peer that was cut may belong to somebody else as soon as its nudge is taken. */
	unwanted = tcp_listener_take_nudge(listener, peer);
	if (state == TCP_PEER_CUT)
		return;
	if (state == TCP_PEER_FREE)
		peer_start(peer, unwanted);
	else if (unwanted) /* evicted, or fenced */
		tcp_peer_cut(peer, state == TCP_PEER_GREETED ? -EMFILE : -ECANCELED);
	else if (state == TCP_PEER_WAITING)
		peer_check(peer, peer_admit(peer));
}

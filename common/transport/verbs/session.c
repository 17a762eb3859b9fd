/*
 * One connection at the lender: REQ, admission, questions about slabs, heartbeats, the end.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/base/err.h"
#include "common/transport/verbs/listener.h"
#include "common/transport/verbs/status.h"
#include "common/wire/proof.h"

#define SESSION_MAX_READS 128 /* of the peer's, in flight; if the device can do so many */
/* All that may be posted, a completion each. */
#define SESSION_MAX_COMPLETIONS (2 * WIRE_VERBS_MAX_MAPS)
#define SESSION_REPLY_ID (1ull << 32) /* in a wr_id: a reply; else a receive, and its number */

static struct transport_target *session_target(const struct verbs_session *session)
{
	return session->listener->options.target;
}

/* ---- the end ---- */

/* What the peer has told of since the last time. Whether it has shown life. */
static bool session_take_beat(struct verbs_session *session)
{
	struct transport_target *target = session_target(session);
	/* Relaxed: in whatever state the peer's write is, each number is only ever compared with the last one. */
	uint64_t counter = le64toh(atomic_load_explicit(&session->slot->beat[0], memory_order_relaxed));
	uint64_t read_bytes = le64toh(atomic_load_explicit(&session->slot->beat[1], memory_order_relaxed));
	uint64_t written_bytes = le64toh(atomic_load_explicit(&session->slot->beat[2], memory_order_relaxed));

	if (read_bytes > session->read_bytes)
		target->ops->account(target, session->session, TRANSPORT_READ, read_bytes - session->read_bytes);
	if (written_bytes > session->written_bytes)
		target->ops->account(target, session->session, TRANSPORT_WRITE, written_bytes - session->written_bytes);
	session->read_bytes = base_max_u64(read_bytes, session->read_bytes);
	session->written_bytes = base_max_u64(written_bytes, session->written_bytes);
	if (counter == session->beat_counter)
		return false;
	session->beat_counter = counter;
	return true;
}

/* The device does nothing for it from here on. False when the device has not said so of the session's slot. */
static bool session_sever(struct verbs_session *session)
{
	bool gone = true;

	if (session->id && session->id->qp) {
		(void)rdma_disconnect(session->id);
		rdma_destroy_qp(session->id);
	}
	if (session->cq)
		ibv_destroy_cq(session->cq);
	if (session->beat_mr)
		gone = ibv_dereg_mr(session->beat_mr) == 0;
	if (session->messages_mr)
		gone = ibv_dereg_mr(session->messages_mr) == 0 && gone;
	session->cq = NULL;
	session->beat_mr = NULL;
	session->messages_mr = NULL;
	return gone;
}

void verbs_session_cut(struct verbs_session *session, int err)
{
	struct verbs_listener *listener = session->listener;
	struct transport_target *target = session_target(session);
	bool gone;

	/* A peer that just goes away is nobody's error. */
	if (err != -ECONNRESET && err != -ECANCELED)
		verbs_listener_count(listener, session->name, err);
	gone = session_sever(session);
	if (session->session) {
		session_take_beat(session);
		target->ops->leave(target, session->session);
		session->client->nr_sessions--;
		atomic_fetch_sub_explicit(&listener->connections, 1, memory_order_relaxed);
	}
	rdma_destroy_id(session->id);
	session->id = NULL;
	session->session = NULL;
	session->client = NULL;
	TAILQ_REMOVE(&listener->serving, session, link);
	/* A slot that a removed device may still write to is nobody else's: the session is not used again. */
	if (gone)
		TAILQ_INSERT_HEAD(&listener->free, session, link);
}

/* ---- the begin ---- */

static int session_post_receive(struct verbs_session *session, unsigned i)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)session->slot->receives[i],
		.length = sizeof(session->slot->receives[i]),
		.lkey = session->messages_mr->lkey,
	};
	struct ibv_recv_wr wr = { .wr_id = i, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	return -ibv_post_recv(session->id->qp, &wr, &bad);
}

static int session_open_queue(struct verbs_session *session)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = WIRE_VERBS_MAX_MAPS,
			.max_recv_wr = WIRE_VERBS_MAX_MAPS,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
	};
	int err = 0;

	attr.send_cq = attr.recv_cq = session->cq;
	if (rdma_create_qp(session->id, session->client->pd, &attr) < 0)
		return errno ? -errno : -ENOMEM;
	for (unsigned i = 0; i < WIRE_VERBS_MAX_MAPS && err == 0; i++)
		err = session_post_receive(session, i);
	return err;
}

/* In the client's domain. The peer may write its beat, and nothing else. */
static int session_open(struct verbs_session *session)
{
	struct verbs_client *client = session->client;
	struct verbs_slot *slot = session->slot;
	struct verbs_port *port = client->port;

	memset(slot, 0, sizeof(*slot));
	session->beat_mr = ibv_reg_mr(client->pd, slot->beat, sizeof(struct wire_verbs_beat),
				      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!session->beat_mr)
		return errno ? -errno : -ENOMEM;
	session->messages_mr = ibv_reg_mr(client->pd, slot->receives, sizeof(*slot) - offsetof(struct verbs_slot, receives),
					  IBV_ACCESS_LOCAL_WRITE);
	if (!session->messages_mr)
		return errno ? -errno : -ENOMEM;
	session->cq = ibv_create_cq(port->context, SESSION_MAX_COMPLETIONS, session, port->channel, 0);
	if (!session->cq)
		return errno ? -errno : -ENOMEM;
	if (ibv_req_notify_cq(session->cq, 0) != 0)
		return -EIO;
	return session_open_queue(session);
}

static int session_accept(struct verbs_session *session, const struct wire_verbs_req *req,
			  const struct rdma_conn_param *theirs, const uint8_t token[TRANSPORT_TOKEN_BYTES])
{
	const struct verbs_listener_options *options = &session->listener->options;
	struct wire_verbs_rep rep = {
		.version = WIRE_VERBS_VERSION,
		.silence_ms = options->silence_ms,
		.beat_address = (uintptr_t)session->slot->beat,
		.beat_rkey = session->beat_mr->rkey,
	};
	int max_reads = session->client->port->attr.max_qp_rd_atom;
	uint8_t bytes[WIRE_VERBS_REP_BYTES];
	uint8_t timeout = verbs_ack_timeout(options->silence_ms);
	struct rdma_conn_param param = {
		.private_data = bytes,
		.private_data_len = sizeof(bytes),
		.responder_resources = (uint8_t)base_min_u64(theirs->responder_resources,
							     base_min_u64(max_reads > 0 ? (unsigned)max_reads : 1,
									  SESSION_MAX_READS)),
		.initiator_depth = 1,
		.flow_control = 1,
		.rnr_retry_count = VERBS_RETRY_COUNT,
	};

	wire_verbs_proof_lender(token, options->target->instance_id, req, &rep, rep.proof);
	wire_verbs_rep_pack(&rep, bytes);
	(void)rdma_set_option(session->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
	return err_from_libc(rdma_accept(session->id, &param));
}

/* A peer has proven itself: whoever had its channel ends, and leaves it a session, however many there are. */
static void session_fence(struct verbs_listener *listener, const struct verbs_client *client, uint16_t channel)
{
	struct verbs_session *other;

	TAILQ_FOREACH(other, &listener->serving, link)
		if (other->client == client && other->channel == channel)
			break;
	if (other)
		verbs_session_cut(other, -ECANCELED);
}

/* 0 or why it is refused. */
static int session_admit(struct verbs_session *session, const struct wire_verbs_req *req)
{
	struct verbs_listener *listener = session->listener;
	struct transport_target *target = listener->options.target;
	int err;

	err = target->ops->join(target, req->lease_id, req->channel, session->name, &session->session);
	if (err < 0) {
		session->session = NULL;
		return err;
	}
	session->client->nr_sessions++;
	atomic_fetch_add_explicit(&listener->connections, 1, memory_order_relaxed);
	return session_open(session);
}

/* 0, with the token; or why it is refused. */
static int request_check(struct verbs_listener *listener, const struct rdma_conn_param *param, struct wire_verbs_req *ret_req,
			 uint8_t ret_token[TRANSPORT_TOKEN_BYTES])
{
	struct transport_target *target = listener->options.target;
	uint8_t proof[WIRE_PROOF_BYTES];
	int err;

	if (!param->private_data)
		return -EPROTO;
	err = wire_verbs_req_unpack(param->private_data, param->private_data_len, ret_req);
	if (err < 0)
		return err;
	if (ret_req->version != WIRE_VERBS_VERSION)
		return -EPROTONOSUPPORT;
	if (ret_req->instance_tag != wire_verbs_instance_tag(target->instance_id))
		return -ESTALE;
	err = target->ops->lookup(target, ret_req->lease_id, ret_token);
	if (err < 0)
		return err;
	wire_verbs_proof_initiator(ret_token, target->instance_id, ret_req, proof);
	return wire_proof_equal(proof, ret_req->proof) ? 0 : -EACCES;
}

static void request_refuse(struct verbs_listener *listener, struct rdma_cm_id *id, const char *name, int err)
{
	uint8_t bytes[WIRE_VERBS_REJ_BYTES];

	/* First, so that who has been refused finds it in the books. */
	verbs_listener_count(listener, name, err);
	wire_verbs_rej_pack(wire_refusal_from_err(err), bytes);
	(void)rdma_reject(id, bytes, sizeof(bytes));
}

static struct verbs_session *session_take(struct verbs_listener *listener, struct rdma_cm_id *id,
					  struct verbs_client *client, uint16_t channel, const char *name)
{
	struct verbs_session *session = TAILQ_FIRST(&listener->free);
	uint64_t now_ns = verbs_listener_now_ns(listener);

	if (!session)
		return NULL;
	TAILQ_REMOVE(&listener->free, session, link);
	TAILQ_INSERT_TAIL(&listener->serving, session, link);
	id->context = session;
	session->id = id;
	session->channel = channel;
	session->established = false;
	session->session = NULL;
	session->client = client;
	session->nr_replies = 0;
	session->first_asked = session->nr_asked = session->next_reply = 0;
	session->beat_counter = session->read_bytes = session->written_bytes = 0;
	session->life_ns = now_ns;
	session->deadline_ns = now_ns + listener->options.handshake_ms * SYS_NS_PER_MS;
	strcpy(session->name, name); /* of the same size */
	return session;
}

void verbs_session_request(struct verbs_listener *listener, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
	uint8_t token[TRANSPORT_TOKEN_BYTES] = { 0 };
	struct verbs_session *session = NULL;
	struct verbs_client *client;
	struct verbs_port *port;
	struct wire_verbs_req req;
	struct sys_address address = { .len = sizeof(address.addr) };
	char name[SYS_ADDRESS_MAX];
	int err;

	memcpy(&address.addr, rdma_get_peer_addr(id), sizeof(address.addr));
	sys_address_format(&address, name);
	atomic_fetch_add_explicit(&listener->accepted, 1, memory_order_relaxed);
	err = request_check(listener, param, &req, token);
	if (err == 0)
		err = verbs_listener_port(listener, id->verbs, &port);
	if (err == 0)
		err = verbs_client_get(listener, req.lease_id, port, &client);
	if (err == 0)
		err = verbs_client_check_counter(client, req.channel, req.counter);
	if (err == 0) {
		session_fence(listener, client, req.channel);
		session = session_take(listener, id, client, req.channel, name);
		err = session ? session_admit(session, &req) : -EMFILE;
	}
	if (err == 0)
		err = session_accept(session, &req, param, token);
	wire_token_wipe(token);
	if (err == 0)
		return;
	request_refuse(listener, id, name, err);
	if (session)
		verbs_session_cut(session, -ECANCELED);
	else
		rdma_destroy_id(id);
}

void verbs_session_event(struct verbs_session *session, enum rdma_cm_event_type event, int status)
{
	int err = verbs_status_of_event(event, status);

	if (event == RDMA_CM_EVENT_ESTABLISHED) {
		session->established = true;
		session->life_ns = verbs_listener_now_ns(session->listener);
		atomic_fetch_add_explicit(&session->listener->admitted, 1, memory_order_relaxed);
	} else if (err < 0) {
		/* Whether it ended before or after it stood: it went away, or cannot be reached. */
		verbs_session_cut(session, err == -ETIMEDOUT ? err : -ECONNRESET);
	}
}

/* ---- questions ---- */

static int session_reply(struct verbs_session *session, const struct wire_verbs_mapped *mapped)
{
	/* Sent in order, so that the oldest has been when there is room for one more. */
	uint8_t *bytes = session->slot->replies[session->next_reply++ % WIRE_VERBS_MAX_MAPS];
	struct ibv_sge sge = {
		.addr = (uintptr_t)bytes, .length = WIRE_VERBS_MAPPED_BYTES, .lkey = session->messages_mr->lkey
	};
	struct ibv_send_wr wr = {
		.wr_id = SESSION_REPLY_ID,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED,
	};
	struct ibv_send_wr *bad;

	session->nr_replies++;
	wire_verbs_mapped_pack(mapped, bytes);
	return -ibv_post_send(session->id->qp, &wr, &bad);
}

/*
 * Answers what has been asked, as far as the send queue has room. A peer has an answer before this device tells that it was
 * sent, and may ask again by then; who asks without bound is held up by receives that are not posted.
 */
static int session_answer(struct verbs_session *session)
{
	struct wire_verbs_mapped mapped;
	int err = 0;

	while (err == 0 && session->nr_asked > 0 && session->nr_replies < WIRE_VERBS_MAX_MAPS) {
		const struct verbs_asked *asked = &session->asked[session->first_asked++ % WIRE_VERBS_MAX_MAPS];

		session->nr_asked--;
		verbs_client_map(session->client, session->session, &asked->map, &mapped);
		/* The receive first: by the answer the peer learns that it may ask again. */
		err = session_post_receive(session, asked->receive);
		if (err == 0)
			err = session_reply(session, &mapped);
	}
	return err;
}

static int session_received(struct verbs_session *session, const struct ibv_wc *wc)
{
	/* There is room: no more are asked than receives were posted. */
	struct verbs_asked *asked = &session->asked[(session->first_asked + session->nr_asked) % WIRE_VERBS_MAX_MAPS];
	int err;

	asked->receive = (unsigned)wc->wr_id;
	err = wire_verbs_map_unpack(session->slot->receives[asked->receive], wc->byte_len, &asked->map);
	if (err == 0)
		session->nr_asked++;
	return err;
}

void verbs_session_complete(struct verbs_session *session)
{
	struct ibv_wc wcs[SESSION_MAX_COMPLETIONS];
	int err = 0;
	int nr;

	/* Armed before the look, so that what comes after it is told of. */
	if (ibv_req_notify_cq(session->cq, 0) != 0)
		err = -EIO;
	nr = ibv_poll_cq(session->cq, SESSION_MAX_COMPLETIONS, wcs);
	if (nr < 0)
		err = -EIO;
	for (int i = 0; i < nr && err == 0; i++) {
		err = verbs_status_of_conn(wcs[i].status);
		if (err == 0 && wcs[i].wr_id == SESSION_REPLY_ID)
			session->nr_replies--;
		else if (err == 0)
			err = session_received(session, &wcs[i]);
	}
	if (err == 0)
		err = session_answer(session);
	if (err < 0)
		verbs_session_cut(session, err);
}

/* ---- life ---- */

void verbs_session_tick(struct verbs_session *session, uint64_t now_ns)
{
	const struct verbs_listener_options *options = &session->listener->options;
	struct transport_target *target = session_target(session);
	bool alive = session_take_beat(session);
	int err;

	if (alive)
		session->life_ns = now_ns;
	err = target->ops->renew(target, session->session, alive, now_ns);
	if (err == 0 && !session->established && now_ns >= session->deadline_ns)
		err = -ETIMEDOUT;
	if (err == 0 && now_ns >= session->life_ns + options->silence_ms * SYS_NS_PER_MS)
		err = -ETIMEDOUT;
	if (err < 0)
		verbs_session_cut(session, err);
}

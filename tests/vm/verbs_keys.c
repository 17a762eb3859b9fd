/*
 * Who can touch what over RDMA: a lender as farmemd has it (arena, expose, verbs), and against it a client that is none of
 * ours, with work requests by hand. Nobody but the holder of a lease reads or writes a byte, and he none after its end.
 *
 *     verbs_keys LENDER_ADDRESS:PORT CLIENT_ADDRESS
 *
 * Prints at the end what it costs here to register a slab, and to bind a memory window to a registration. Exit status 0, or 1
 * with a line that says what was wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "common/base/rand.h"
#include "common/sys/clock.h"
#include "common/transport/verbs/verbs.h"
#include "common/wire/proof.h"
#include "common/wire/verbs.h"
#include "server/expose/expose.h"

#define SLAB_BYTES (64ull << 20)
#define NR_SLABS 3u
#define SECRET 0x5a
#define KEY_A 0x11111111u
#define KEY_B 0x22222222u
#define NR_GUESSES 24u
#define PATIENCE_NS (20 * SYS_NS_PER_S)

static const char *client_address;
static struct sys_address lender_address;
static uint64_t instance_id;

#define CHECK(condition, ...) \
	do { \
		if (!(condition)) { \
			printf("FAIL: %s:%d: ", __FILE__, __LINE__); \
			printf(__VA_ARGS__); \
			printf(" (%s)\n", strerror(errno)); \
			exit(1); \
		} \
	} while (0)

/* ---- a client by hand ---- */

struct raw {
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	struct ibv_cq *send_cq; /* of its own: an answer may be there before the question has completed */
	struct ibv_cq *recv_cq;
	struct ibv_mr *mr;
	uint8_t bytes[3][4096]; /* to move, to send, to receive */
	struct wire_verbs_rep rep;
};

static uint64_t now_ns(void)
{
	return sys_clock_now_ns(sys_clock_monotonic());
}

static void raw_wait(struct raw *raw, enum rdma_cm_event_type expected)
{
	struct rdma_cm_event *event;
	uint32_t refusal = WIRE_REFUSAL_NONE;

	CHECK(rdma_get_cm_event(raw->events, &event) == 0, "no event");
	CHECK(event->event == expected, "%s instead of %s, status %d", rdma_event_str(event->event), rdma_event_str(expected),
	      event->status);
	if (expected == RDMA_CM_EVENT_ESTABLISHED)
		CHECK(wire_verbs_rep_unpack(event->param.conn.private_data, event->param.conn.private_data_len, &raw->rep) == 0,
		      "the REP");
	if (expected == RDMA_CM_EVENT_REJECTED)
		CHECK(wire_verbs_rej_unpack(event->param.conn.private_data, event->param.conn.private_data_len, &refusal) == 0,
		      "the REJ");
	if (expected == RDMA_CM_EVENT_REJECTED)
		CHECK(refusal == WIRE_REFUSAL_STALE, "refused for reason %u", refusal);
	rdma_ack_cm_event(event);
}

static void raw_open(struct raw *raw)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	struct ibv_sge sge = { .addr = (uintptr_t)raw->bytes[2], .length = sizeof(raw->bytes[2]) };
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	raw->pd = ibv_alloc_pd(raw->id->verbs);
	raw->send_cq = ibv_create_cq(raw->id->verbs, 8, NULL, NULL, 0);
	raw->recv_cq = ibv_create_cq(raw->id->verbs, 8, NULL, NULL, 0);
	raw->mr = ibv_reg_mr(raw->pd, raw->bytes, sizeof(raw->bytes), IBV_ACCESS_LOCAL_WRITE);
	CHECK(raw->pd && raw->send_cq && raw->recv_cq && raw->mr, "domain, queues or memory");
	attr.send_cq = raw->send_cq;
	attr.recv_cq = raw->recv_cq;
	CHECK(rdma_create_qp(raw->id, raw->pd, &attr) == 0, "the queue pair");
	sge.lkey = raw->mr->lkey;
	for (unsigned i = 0; i < 4; i++)
		CHECK(ibv_post_recv(raw->id->qp, &wr, &bad) == 0, "a receive");
}

/* Asks for a connection; `expected` is the answer. */
static void raw_ask(struct raw *raw, uint64_t lease_id, const uint8_t token[TRANSPORT_TOKEN_BYTES], uint16_t channel,
		    enum rdma_cm_event_type expected)
{
	struct wire_verbs_req req = {
		.version = WIRE_VERBS_VERSION,
		.channel = channel,
		.instance_tag = wire_verbs_instance_tag(instance_id),
		.lease_id = lease_id,
		.counter = now_ns(),
	};
	struct sockaddr_in from = { .sin_family = AF_INET };
	uint8_t bytes[WIRE_VERBS_REQ_BYTES];
	struct rdma_conn_param param = {
		.private_data = bytes,
		.private_data_len = sizeof(bytes),
		.responder_resources = 1,
		.initiator_depth = 1,
		.retry_count = 7,
		.rnr_retry_count = 7,
	};
	uint8_t timeout = 14; /* 67 ms */
	struct rdma_cm_event *event;
	int ret = -1;

	memset(raw, 0, sizeof(*raw));
	raw->events = rdma_create_event_channel();
	CHECK(raw->events && rdma_create_id(raw->events, &raw->id, NULL, RDMA_PS_TCP) == 0, "an id");
	CHECK(rdma_set_option(raw->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1) == 0, "the timeout");
	CHECK(inet_pton(AF_INET, client_address, &from.sin_addr) == 1, "the address %s", client_address);
	for (unsigned i = 0; i < 50 && ret < 0; i++) {
		CHECK(rdma_resolve_addr(raw->id, (struct sockaddr *)&from, (struct sockaddr *)&lender_address.addr, 200) == 0,
		      "the address");
		CHECK(rdma_get_cm_event(raw->events, &event) == 0, "no event");
		ret = event->event == RDMA_CM_EVENT_ADDR_RESOLVED ? 0 : -1;
		rdma_ack_cm_event(event);
	}
	CHECK(ret == 0, "the address is not resolved");
	CHECK(rdma_resolve_route(raw->id, 2000) == 0, "the route");
	raw_wait(raw, RDMA_CM_EVENT_ROUTE_RESOLVED);
	raw_open(raw);
	wire_verbs_proof_initiator(token, instance_id, &req, req.proof);
	wire_verbs_req_pack(&req, bytes);
	CHECK(rdma_connect(raw->id, &param) == 0, "connect");
	raw_wait(raw, expected);
}

static void raw_connect(struct raw *raw, uint64_t lease_id, const uint8_t token[TRANSPORT_TOKEN_BYTES], uint16_t channel)
{
	raw_ask(raw, lease_id, token, channel, RDMA_CM_EVENT_ESTABLISHED);
}

static void raw_close(struct raw *raw)
{
	rdma_disconnect(raw->id);
	rdma_destroy_qp(raw->id);
	ibv_destroy_cq(raw->send_cq);
	ibv_destroy_cq(raw->recv_cq);
	ibv_dereg_mr(raw->mr);
	ibv_dealloc_pd(raw->pd);
	rdma_destroy_id(raw->id);
	rdma_destroy_event_channel(raw->events);
}

static enum ibv_wc_status raw_poll(const struct raw *raw, struct ibv_cq *cq, uint32_t *ret_len_bytes)
{
	uint64_t until_ns = now_ns() + PATIENCE_NS;
	struct ibv_qp_init_attr init_attr;
	struct ibv_qp_attr attr;
	struct ibv_wc wc;

	while (now_ns() < until_ns)
		if (ibv_poll_cq(cq, 1, &wc) > 0) {
			*ret_len_bytes = wc.byte_len;
			return wc.status;
		}
	CHECK(ibv_query_qp(raw->id->qp, &attr, IBV_QP_STATE, &init_attr) == 0, "the state of the queue pair");
	CHECK(false, "no completion of a %s, queue pair in state %d", cq == raw->send_cq ? "send" : "receive",
	      (int)attr.qp_state);
	return IBV_WC_GENERAL_ERR;
}

static enum ibv_wc_status raw_sent(const struct raw *raw)
{
	uint32_t ignored;

	return raw_poll(raw, raw->send_cq, &ignored);
}

static enum ibv_wc_status raw_post(struct raw *raw, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t address, unsigned buffer,
				   uint32_t len_bytes)
{
	struct ibv_sge sge = { .addr = (uintptr_t)raw->bytes[buffer], .length = len_bytes, .lkey = raw->mr->lkey };
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = opcode,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = address, .rkey = rkey },
	};
	struct ibv_send_wr *bad;

	if (ibv_post_send(raw->id->qp, &wr, &bad) != 0)
		return IBV_WC_WR_FLUSH_ERR;
	return raw_sent(raw);
}

static void raw_map(struct raw *raw, uint32_t slab, uint32_t key, struct wire_verbs_mapped *ret_mapped)
{
	struct wire_verbs_map map = { .slab = slab, .key = key };
	uint32_t len_bytes = 0;

	wire_verbs_map_pack(&map, raw->bytes[1]);
	CHECK(raw_post(raw, IBV_WR_SEND, 0, 0, 1, WIRE_VERBS_MAP_BYTES) == IBV_WC_SUCCESS, "the question");
	CHECK(raw_poll(raw, raw->recv_cq, &len_bytes) == IBV_WC_SUCCESS, "the answer");
	CHECK(wire_verbs_mapped_unpack(raw->bytes[2], len_bytes, ret_mapped) == 0, "what it says");
}

/* ---- the lender ---- */

struct lender {
	struct arena *arena;
	struct expose *expose;
	struct sys_reactor *reactor;
	struct verbs_listener *listener;
	struct expose_lease *a;
	struct expose_lease *b;
	uint8_t token_a[TRANSPORT_TOKEN_BYTES];
	uint8_t token_b[TRANSPORT_TOKEN_BYTES];
};

static void lender_open(struct lender *lender, const char *address)
{
	struct verbs_listener_options options = {
		.address = address, .max_connections = 16, .handshake_ms = 5000, .silence_ms = 60000
	};
	struct sys_reactor_options reactor_options = { .name = "rdma", .cpu = -1 };
	struct expose_options expose_options = { .max_leases = 4, .max_sessions = 16 };

	memset(lender->token_a, 0xa, sizeof(lender->token_a));
	memset(lender->token_b, 0xb, sizeof(lender->token_b));
	CHECK(arena_open(NR_SLABS * SLAB_BYTES, SLAB_BYTES, &lender->arena) == 0, "the arena");
	expose_options.arena = lender->arena;
	CHECK(expose_create(&expose_options, &lender->expose) == 0, "expose");
	options.target = expose_target(lender->expose);
	instance_id = options.target->instance_id;
	CHECK(sys_reactor_create(&reactor_options, &lender->reactor) == 0, "the reactor");
	CHECK(sys_reactor_start(lender->reactor) == 0, "its thread");
	options.reactor = lender->reactor;
	errno = -verbs_listener_open(&options, &lender->listener);
	CHECK(lender->listener, "the listener");
	verbs_listener_address(lender->listener, &lender_address);
	CHECK(expose_lease_add(lender->expose, 1, lender->token_a, now_ns(), &lender->a) == 0, "a lease");
	CHECK(expose_lease_add(lender->expose, 2, lender->token_b, now_ns(), &lender->b) == 0, "a lease");
	expose_grant(lender->expose, lender->a, 0, KEY_A);
	expose_grant(lender->expose, lender->b, 1, KEY_B);
	memset(arena_slab_base(lender->arena, 0), SECRET, NR_SLABS * SLAB_BYTES);
}

static void check_untouched(struct lender *lender, const struct raw *raw, const char *what)
{
	const uint8_t *bytes = arena_slab_base(lender->arena, 0);

	for (size_t i = 0; i < NR_SLABS * SLAB_BYTES; i += 256)
		CHECK(bytes[i] == SECRET, "%s: byte %zu was written", what, i);
	for (size_t i = 0; i < sizeof(raw->bytes[0]); i++)
		CHECK(raw->bytes[0][i] == 0, "%s: a byte was read", what);
}

/* Tries to read and to write there, each on a connection of its own, since a failure ends it. The lender's device refuses. */
static void try_both(struct lender *lender, uint64_t lease_id, const uint8_t *token, uint32_t rkey, uint64_t address,
		     const char *what)
{
	static const enum ibv_wr_opcode opcodes[] = { IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE };
	static struct raw raw;

	for (size_t i = 0; i < BASE_ARRAY_SIZE(opcodes); i++) {
		enum ibv_wc_status status;

		raw_connect(&raw, lease_id, token, 1);
		status = raw_post(&raw, opcodes[i], rkey, address, 0, 4096);
		CHECK(status == IBV_WC_REM_ACCESS_ERR, "%s, opcode %d: %s", what, (int)opcodes[i], ibv_wc_status_str(status));
		check_untouched(lender, &raw, what);
		raw_close(&raw);
	}
	printf("ok: %s\n", what);
}

/* ---- what it costs ---- */

static void print_costs(const struct lender *lender, struct raw *raw)
{
	const unsigned nr = 5;
	void *base = arena_slab_base(lender->arena, 2);
	uint64_t register_ns = 0, deregister_ns = 0, bind_ns = 0, begin_ns;
	struct ibv_mr *mr = NULL;
	struct ibv_mw *mw;

	for (unsigned i = 0; i < nr; i++) {
		begin_ns = now_ns();
		mr = ibv_reg_mr(raw->pd, base, SLAB_BYTES,
				IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
					IBV_ACCESS_MW_BIND);
		register_ns += now_ns() - begin_ns;
		CHECK(mr, "a registration");
		if (i == nr - 1)
			break;
		begin_ns = now_ns();
		ibv_dereg_mr(mr);
		deregister_ns += now_ns() - begin_ns;
	}
	mw = ibv_alloc_mw(raw->pd, IBV_MW_TYPE_2);
	for (unsigned i = 0; mw && i < nr; i++) {
		struct ibv_send_wr wr = {
			.opcode = IBV_WR_BIND_MW,
			.send_flags = IBV_SEND_SIGNALED,
			.bind_mw = { .mw = mw,
				     .rkey = ibv_inc_rkey(mw->rkey),
				     .bind_info = { .mr = mr,
						    .addr = (uintptr_t)base,
						    .length = SLAB_BYTES,
						    .mw_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE } },
		};
		struct ibv_send_wr end = { .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED };
		struct ibv_send_wr *bad;

		begin_ns = now_ns();
		CHECK(ibv_post_send(raw->id->qp, &wr, &bad) == 0 && raw_sent(raw) == IBV_WC_SUCCESS, "a bind");
		bind_ns += now_ns() - begin_ns;
		mw->rkey = wr.bind_mw.rkey;
		end.invalidate_rkey = mw->rkey;
		CHECK(ibv_post_send(raw->id->qp, &end, &bad) == 0 && raw_sent(raw) == IBV_WC_SUCCESS, "its end");
	}
	printf("64 MiB, mean of %u: register %llu us, deregister %llu us, bind a window of type 2 %llu us\n", nr,
	       (unsigned long long)(register_ns / nr / 1000), (unsigned long long)(deregister_ns / (nr - 1) / 1000),
	       (unsigned long long)(bind_ns / nr / 1000));
	if (mw)
		ibv_dealloc_mw(mw);
	ibv_dereg_mr(mr);
}

/* What the holder of a lease can do, and nobody else, while it lasts. */
static void check_while_it_lasts(struct lender *lender, struct raw *holder, struct raw *other,
				 struct wire_verbs_mapped *ret_mapped)
{
	struct wire_verbs_mapped mapped, refused;
	struct rand_state rand = { .s = 7 };
	char what[64];

	raw_connect(holder, 1, lender->token_a, 0);
	raw_map(holder, 1, KEY_B, &refused);
	CHECK(refused.status == WIRE_STATUS_DENIED, "another's slab was given");
	raw_map(holder, 2, KEY_A, &refused);
	CHECK(refused.status == WIRE_STATUS_DENIED, "a slab that is nobody's was given");
	raw_map(holder, 0, KEY_A, &mapped);
	CHECK(mapped.status == WIRE_STATUS_OK && mapped.len_bytes == SLAB_BYTES, "the slab was not given");
	CHECK(raw_post(holder, IBV_WR_RDMA_READ, mapped.rkey, mapped.address, 0, 4096) == IBV_WC_SUCCESS, "a read");
	CHECK(holder->bytes[0][4095] == SECRET, "the wrong bytes were read");
	CHECK(raw_post(holder, IBV_WR_RDMA_WRITE, mapped.rkey, mapped.address, 0, 4096) == IBV_WC_SUCCESS, "a write");
	printf("ok: the holder reads and writes\n");

	try_both(lender, 1, lender->token_a, mapped.rkey, mapped.address + SLAB_BYTES, "behind the slab");
	try_both(lender, 1, lender->token_a, mapped.rkey, mapped.address - 4096, "before the slab");
	try_both(lender, 2, lender->token_b, mapped.rkey, mapped.address, "with the key of another lease");
	raw_connect(other, 2, lender->token_b, 0);
	try_both(lender, 1, lender->token_a, other->rep.beat_rkey, other->rep.beat_address, "on another's heartbeat");
	for (unsigned i = 0; i < NR_GUESSES; i++) {
		uint32_t guess = i % 2 ? (uint32_t)rand_next(&rand) : mapped.rkey + (i + 2) / 4 * (i % 4 ? 0x100 : 1);

		if (guess == mapped.rkey)
			continue;
		snprintf(what, sizeof(what), "with a guess, 0x%x", guess);
		try_both(lender, 2, lender->token_b, guess, mapped.address, what);
	}
	*ret_mapped = mapped;
}

/* And what is left of that when the slab is taken back, and when the lease ends. */
static void check_its_end(struct lender *lender, struct raw *holder, struct raw *other, struct wire_verbs_mapped mapped)
{
	static struct raw reader, late;

	/* The slab is taken back while its holder is connected. */
	expose_revoke(lender->expose, 0);
	expose_synchronize(lender->expose);
	memset(holder->bytes[0], 0, sizeof(holder->bytes[0]));
	CHECK(raw_post(holder, IBV_WR_RDMA_WRITE, mapped.rkey, mapped.address, 0, 4096) == IBV_WC_REM_ACCESS_ERR,
	      "a write after the slab was taken back");
	check_untouched(lender, holder, "taken back");
	try_both(lender, 1, lender->token_a, mapped.rkey, mapped.address, "on a slab that has been taken back");
	raw_close(holder);

	/* And lent to another, who has it now. */
	expose_grant(lender->expose, lender->b, 0, KEY_B);
	try_both(lender, 1, lender->token_a, mapped.rkey, mapped.address, "on a slab that is another's by now");
	raw_map(other, 0, KEY_B, &mapped);
	CHECK(mapped.status == WIRE_STATUS_OK, "its new holder was refused");

	/* The lease ends under two connections that do not care, one for each operation, since a failure ends it. */
	raw_connect(&reader, 2, lender->token_b, 1);
	CHECK(raw_post(&reader, IBV_WR_RDMA_READ, mapped.rkey, mapped.address, 0, 4096) == IBV_WC_SUCCESS, "a read");
	CHECK(reader.bytes[0][4095] == SECRET, "the wrong bytes were read");
	memset(reader.bytes[0], 0, sizeof(reader.bytes[0]));
	expose_revoke(lender->expose, 0);
	expose_revoke(lender->expose, 1);
	expose_lease_end(lender->expose, lender->b);
	expose_synchronize(lender->expose);
	CHECK(raw_post(other, IBV_WR_RDMA_WRITE, mapped.rkey, mapped.address, 0, 4096) != IBV_WC_SUCCESS,
	      "a write after the lease's end");
	check_untouched(lender, other, "after the lease's end");
	CHECK(raw_post(&reader, IBV_WR_RDMA_READ, mapped.rkey, mapped.address, 0, 4096) != IBV_WC_SUCCESS,
	      "a read after the lease's end");
	check_untouched(lender, &reader, "after the lease's end");
	raw_close(other);
	raw_close(&reader);
	raw_ask(&late, 2, lender->token_b, 2, RDMA_CM_EVENT_REJECTED);
	raw_close(&late);
	printf("ok: after the lease's end\n");
}

int main(int argc, char **argv)
{
	static struct lender lender;
	static struct raw holder, other;
	struct wire_verbs_mapped mapped;

	CHECK(argc == 3, "usage: verbs_keys ADDRESS:PORT ADDRESS");
	setvbuf(stdout, NULL, _IOLBF, 0);
	client_address = argv[2];
	CHECK(wire_proof_init() == 0, "libsodium");
	lender_open(&lender, argv[1]);
	check_while_it_lasts(&lender, &holder, &other, &mapped);
	check_its_end(&lender, &holder, &other, mapped);
	raw_connect(&holder, 1, lender.token_a, 0);
	print_costs(&lender, &holder);
	raw_close(&holder);
	verbs_listener_close(lender.listener);
	sys_reactor_stop(lender.reactor);
	sys_reactor_free(lender.reactor);
	expose_free(lender.expose);
	arena_close(lender.arena);
	return 0;
}

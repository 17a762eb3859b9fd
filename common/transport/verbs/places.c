/*
 * Where slabs are: asked once per slab and connection, and kept in a table of fixed size. A slab that has fallen out of it is
 * asked for again.
 */
#include <errno.h>

#include "common/transport/verbs/conn.h"

int verbs_places_post(struct verbs_conn *conn, unsigned i)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)conn->own->receives[i],
		.length = sizeof(conn->own->receives[i]),
		.lkey = conn->own_mr->lkey,
	};
	struct ibv_recv_wr wr = { .wr_id = VERBS_RECEIVE_ID | i, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	return -ibv_post_recv(conn->id->qp, &wr, &bad);
}

const struct verbs_place *verbs_place_find(struct verbs_conn *conn, uint32_t slab, uint32_t key)
{
	const struct verbs_place *set = conn->places[slab % CONN_PLACE_SETS];

	for (unsigned i = 0; i < CONN_PLACE_WAYS; i++)
		if (set[i].len_bytes != 0 && set[i].slab == slab && set[i].key == key)
			return &set[i];
	return NULL;
}

/* In the place of the same slab under an older key, or an unused one, or one after the other. */
static void places_keep(struct verbs_conn *conn, const struct wire_verbs_mapped *mapped)
{
	struct verbs_place *set = conn->places[mapped->slab % CONN_PLACE_SETS];
	unsigned way = CONN_PLACE_WAYS;

	for (unsigned i = 0; i < CONN_PLACE_WAYS; i++) {
		if (set[i].len_bytes == 0 && way == CONN_PLACE_WAYS)
			way = i;
		if (set[i].len_bytes != 0 && set[i].slab == mapped->slab) {
			way = i;
			break;
		}
	}
	if (way == CONN_PLACE_WAYS)
		way = conn->next_way++ % CONN_PLACE_WAYS;
	set[way] = (struct verbs_place){
		.slab = mapped->slab,
		.key = mapped->key,
		.rkey = mapped->rkey,
		.address = mapped->address,
		.len_bytes = mapped->len_bytes,
	};
}

/* The question about a slab that is under way, or NULL. */
static struct verbs_question *places_asked(struct verbs_conn *conn, uint32_t slab, uint32_t key)
{
	for (unsigned i = 0; i < WIRE_VERBS_MAX_MAPS; i++) {
		struct verbs_question *question = &conn->questions[i];

		if (question->asked && question->slab == slab && question->key == key)
			return question;
	}
	return NULL;
}

/* Room for one more question, or NULL. */
static struct verbs_question *places_unasked(struct verbs_conn *conn)
{
	for (unsigned i = 0; i < WIRE_VERBS_MAX_MAPS; i++)
		if (!conn->questions[i].asked)
			return &conn->questions[i];
	return NULL;
}

static void places_put(struct verbs_conn *conn, struct verbs_question *question, const struct transport_op *op)
{
	struct wire_verbs_map map = { .slab = op->slab, .key = op->key };
	struct verbs_wr record = { .kind = VERBS_WR_MAP, .chunk = -1 };
	/* Nobody else's before the answer is here, and by then the device has sent it. */
	uint8_t *bytes = conn->own->maps[question - conn->questions];
	struct ibv_send_wr *wr;

	*question = (struct verbs_question){ .asked = true, .slab = op->slab, .key = op->key };
	conn->nr_asked++;
	atomic_fetch_add_explicit(&conn->driver->nr_maps, 1, memory_order_relaxed);
	wire_verbs_map_pack(&map, bytes);
	wr = verbs_send_add(conn, &record);
	wr->opcode = IBV_WR_SEND;
	wr->sg_list[0] = (struct ibv_sge){
		.addr = (uintptr_t)bytes, .length = WIRE_VERBS_MAP_BYTES, .lkey = conn->own_mr->lkey
	};
	wr->num_sge = 1;
}

void verbs_places_ask(struct verbs_conn *conn)
{
	struct transport_op *op;

	TAILQ_FOREACH(op, &conn->unplaced, link) {
		struct verbs_question *question;

		if (places_asked(conn, op->slab, op->key))
			continue;
		question = places_unasked(conn);
		if (!question || !verbs_send_has_room(conn, 1))
			return;
		places_put(conn, question, op);
	}
}

/* What waited for it goes on, or fails. */
static void places_resume(struct verbs_conn *conn, const struct wire_verbs_mapped *mapped)
{
	struct transport_op_list waited = TAILQ_HEAD_INITIALIZER(waited);
	struct transport_op *op;

	TAILQ_CONCAT(&waited, &conn->unplaced, link);
	while ((op = TAILQ_FIRST(&waited))) {
		bool mine = op->slab == mapped->slab && op->key == mapped->key;

		if (mine && mapped->status != WIRE_STATUS_OK && op->tag > 0) {
			/* It has fallen out of the table in the middle of the operation, and been taken back meanwhile. */
			verbs_conn_fail(conn, -ECONNRESET);
			mine = false;
		}
		if (mine && mapped->status != WIRE_STATUS_OK) {
			verbs_send_finish(conn, &waited, op, wire_status_to_err(mapped->status));
			continue;
		}
		TAILQ_REMOVE(&waited, op, link);
		if (mine)
			TAILQ_INSERT_TAIL(&conn->queue, op, link);
		else
			TAILQ_INSERT_TAIL(&conn->unplaced, op, link);
	}
}

int verbs_places_received(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	unsigned number = (unsigned)(wc->wr_id & ~VERBS_RECEIVE_ID);
	struct wire_verbs_mapped mapped;
	struct verbs_question *question;
	int err;

	err = wire_verbs_mapped_unpack(conn->own->receives[number], wc->byte_len, &mapped);
	if (err == 0)
		err = verbs_places_post(conn, number);
	if (err < 0)
		return err;
	question = places_asked(conn, mapped.slab, mapped.key);
	if (!question)
		return -EPROTO;
	question->asked = false;
	conn->nr_asked--;
	if (mapped.status == WIRE_STATUS_OK)
		places_keep(conn, &mapped);
	places_resume(conn, &mapped);
	return 0;
}

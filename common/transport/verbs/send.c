/*
 * The send queue: work requests are built into a batch and posted together, and only some of them tell of their completion.
 *
 * A reliable connection carries them out in order, so that one that is complete says the same of all before it. Of those that
 * a turn posts the last one tells, and before it one after so many requests or bytes (BATCH_SILENT): fewer completions for
 * the device to write and for us to read, and no operation waits long for news that it is done. One that fails always tells.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/transport/op.h"
#include "common/transport/verbs/conn.h"
#include "common/transport/verbs/status.h"

#define BATCH_SILENT 4
#define BATCH_SILENT_BYTES (64u << 10)

static void batch_post(struct verbs_conn *conn)
{
	struct verbs_batch *batch = conn->batch;
	struct ibv_send_wr *bad;
	int err;

	if (batch->nr == 0)
		return;
	batch->wrs[batch->nr - 1].next = NULL;
	batch->wrs[batch->nr - 1].send_flags |= IBV_SEND_SIGNALED;
	batch->nr = 0;
	batch->nr_silent = 0;
	batch->silent_bytes = 0;
	if (conn->err)
		return;
	if (conn->waits_ns == 0)
		conn->waits_ns = sys_reactor_now_ns(conn->head.reactor);
	err = ibv_post_send(conn->id->qp, batch->wrs, &bad);
	if (err != 0)
		verbs_conn_fail(conn, err == EINVAL ? -ECONNRESET : -EIO);
}

static inline struct ibv_send_wr *send_add(struct verbs_conn *conn, const struct verbs_wr *record)
{
	struct verbs_batch *batch = conn->batch;
	struct ibv_send_wr *wr;

	if (batch->nr == CONN_BATCH)
		batch_post(conn);
	wr = &batch->wrs[batch->nr];
	if (batch->nr > 0)
		batch->wrs[batch->nr - 1].next = wr;
	wr->sg_list = batch->sges[batch->nr++];
	wr->send_flags = 0;
	wr->wr_id = conn->next_wr;
	conn->wrs[conn->next_wr++ & (conn->nr_wrs - 1)] = *record;
	batch->nr_silent++;
	batch->silent_bytes += record->len_bytes;
	if (record->kind == VERBS_WR_BEAT || batch->nr_silent >= BATCH_SILENT || batch->silent_bytes >= BATCH_SILENT_BYTES) {
		wr->send_flags = IBV_SEND_SIGNALED;
		batch->nr_silent = 0;
		batch->silent_bytes = 0;
	}
	return wr;
}

struct ibv_send_wr *verbs_send_add(struct verbs_conn *conn, const struct verbs_wr *record)
{
	return send_add(conn, record);
}

/* ---- operations ---- */

/* The next part of an operation on memory that is registered: how many pieces, and what they add up to. */
static unsigned send_gather(struct verbs_conn *conn, const struct transport_op *op, struct ibv_sge *ret_sges,
			    uint32_t *ret_len_bytes)
{
	struct iovec iov[CONN_MAX_SGE];
	size_t len_bytes;
	unsigned nr_iov = transport_op_slice(op, op->progress_bytes, iov, conn->max_sge, &len_bytes), nr = 0;

	*ret_len_bytes = 0;
	while (nr < nr_iov && verbs_device_find(conn->device, iov[nr].iov_base, iov[nr].iov_len, &conn->memory_hint,
						&ret_sges[nr].lkey)) {
		ret_sges[nr].addr = (uintptr_t)iov[nr].iov_base;
		ret_sges[nr].length = (uint32_t)iov[nr].iov_len;
		*ret_len_bytes += (uint32_t)iov[nr].iov_len;
		nr++;
	}
	return nr;
}

/* So many bytes from progress_bytes on lie in memory that is not; at most a chunk. */
static uint32_t send_unknown_bytes(struct verbs_conn *conn, const struct transport_op *op)
{
	struct iovec iov[CONN_MAX_SGE];
	size_t len_bytes;
	unsigned nr_iov = transport_op_slice(op, op->progress_bytes, iov, CONN_MAX_SGE, &len_bytes);
	size_t sum_bytes = 0;
	uint32_t lkey;

	for (unsigned i = 0; i < nr_iov && sum_bytes < CONN_CHUNK_BYTES; i++) {
		if (verbs_device_find(conn->device, iov[i].iov_base, iov[i].iov_len, &conn->memory_hint, &lkey))
			break;
		sum_bytes += iov[i].iov_len;
	}
	return (uint32_t)base_min_u64(sum_bytes, CONN_CHUNK_BYTES);
}

/* By a chunk. 1 piece, or 0 when no chunk is free. */
static unsigned send_bounce(struct verbs_conn *conn, const struct transport_op *op, struct verbs_wr *record,
			    struct ibv_sge *ret_sge)
{
	uint8_t *chunk;

	if (conn->nr_free_chunks == 0)
		return 0;
	record->chunk = (int16_t)conn->free_chunks[--conn->nr_free_chunks];
	record->len_bytes = send_unknown_bytes(conn, op);
	chunk = conn->own->chunks[record->chunk];
	if (op->opcode == TRANSPORT_WRITE)
		transport_op_copy_out(op, op->progress_bytes, chunk, record->len_bytes);
	*ret_sge = (struct ibv_sge){ .addr = (uintptr_t)chunk, .length = record->len_bytes, .lkey = conn->own_mr->lkey };
	if (!conn->bouncing)
		atomic_fetch_add_explicit(&conn->driver->nr_bounced, 1, memory_order_relaxed);
	conn->bouncing = true;
	atomic_fetch_add_explicit(&conn->driver->bounced_bytes, record->len_bytes, memory_order_relaxed);
	return 1;
}

/* The next work request of an operation: record->len_bytes in `nr` pieces, which are where the batch has its next. */
static inline void send_build(struct verbs_conn *conn, struct transport_op *op, const struct verbs_place *place,
			      const struct verbs_wr *record, unsigned nr)
{
	struct ibv_send_wr *wr = send_add(conn, record);

	wr->num_sge = (int)nr;
	wr->opcode = op->opcode == TRANSPORT_READ ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
	if (op->opcode == TRANSPORT_WRITE && record->len_bytes <= conn->max_inline_bytes)
		wr->send_flags |= IBV_SEND_INLINE;
	wr->wr.rdma.remote_addr = place->address + op->offset_bytes + op->progress_bytes;
	wr->wr.rdma.rkey = place->rkey;
	op->progress_bytes += record->len_bytes;
	op->tag++;
}

/* The next part of an operation. False when there is no chunk for it. */
static bool send_part(struct verbs_conn *conn, struct transport_op *op, const struct verbs_place *place)
{
	struct verbs_wr record = { .kind = VERBS_WR_OP, .op = op, .skip_bytes = op->progress_bytes, .chunk = -1 };
	struct ibv_sge *sges;
	unsigned nr;

	/* They are gathered where the work request will have them. */
	if (conn->batch->nr == CONN_BATCH)
		batch_post(conn);
	sges = conn->batch->sges[conn->batch->nr];
	nr = send_gather(conn, op, sges, &record.len_bytes);
	if (nr == 0)
		nr = send_bounce(conn, op, &record, sges);
	if (nr == 0)
		return false;
	send_build(conn, op, place, &record, nr);
	return true;
}

static bool send_is_in_place(const struct transport_op *op, const struct verbs_place *place)
{
	return op->offset_bytes <= place->len_bytes && op->len_bytes <= place->len_bytes - op->offset_bytes;
}

/* The first of the queue goes on. False when there is no room for all of it. */
static bool send_first(struct verbs_conn *conn)
{
	struct transport_op *op = TAILQ_FIRST(&conn->queue);
	const struct verbs_place *place = verbs_place_find(conn, op->slab, op->key);

	if (!place) {
		/* Parts that are under way already come back to it by themselves. */
		TAILQ_REMOVE(&conn->queue, op, link);
		TAILQ_INSERT_TAIL(&conn->unplaced, op, link);
		return true;
	}
	if (!send_is_in_place(op, place)) {
		verbs_send_finish(conn, &conn->queue, op, -ERANGE);
		return true;
	}
	if (op->progress_bytes == 0)
		conn->bouncing = false;
	while (op->progress_bytes < op->len_bytes)
		if (!verbs_send_has_room(conn, CONN_RESERVE) || !send_part(conn, op, place))
			return false;
	TAILQ_REMOVE(&conn->queue, op, link);
	TAILQ_INSERT_TAIL(&conn->posted, op, link);
	return true;
}

/*
 * Into the batch, as nearly all can: in one piece of registered memory, on a slab whose place is known, with nobody before it.
 * False: it has to wait, and nothing of it has been done.
 */
static bool send_at_once(struct verbs_conn *conn, struct transport_op *op)
{
	struct verbs_wr record = { .kind = VERBS_WR_OP, .op = op, .len_bytes = op->len_bytes, .chunk = -1 };
	const struct verbs_place *place;
	struct ibv_sge *sge;

	if (!TAILQ_EMPTY(&conn->queue) || op->nr_iov != 1 || conn->batch->nr == CONN_BATCH ||
	    !verbs_send_has_room(conn, CONN_RESERVE))
		return false;
	place = verbs_place_find(conn, op->slab, op->key);
	sge = conn->batch->sges[conn->batch->nr];
	if (!place || !send_is_in_place(op, place) ||
	    !verbs_device_find(conn->device, op->iov->iov_base, op->len_bytes, &conn->memory_hint, &sge->lkey))
		return false;
	sge->addr = (uintptr_t)op->iov->iov_base;
	sge->length = op->len_bytes;
	send_build(conn, op, place, &record, 1);
	TAILQ_INSERT_TAIL(&conn->posted, op, link);
	return true;
}

void verbs_send_op(struct verbs_conn *conn, struct transport_op *op)
{
	op->progress_bytes = 0;
	op->tag = 0;
	if (BASE_UNLIKELY(!send_at_once(conn, op)))
		TAILQ_INSERT_TAIL(&conn->queue, op, link);
}

void verbs_send_flush(struct verbs_conn *conn)
{
	while (!conn->err && !TAILQ_EMPTY(&conn->queue) && send_first(conn))
		;
	verbs_places_ask(conn);
	batch_post(conn);
}

void verbs_send_beat(struct verbs_conn *conn)
{
	struct verbs_wr record = { .kind = VERBS_WR_BEAT, .chunk = -1, .len_bytes = sizeof(conn->beat) };
	struct ibv_send_wr *wr;

	if (conn->beating || !verbs_send_has_room(conn, 0))
		return;
	conn->beating = true;
	conn->beat.counter++;
	conn->beat.read_bytes = conn->done_bytes[TRANSPORT_READ];
	conn->beat.written_bytes = conn->done_bytes[TRANSPORT_WRITE];
	conn->told_bytes = conn->beat.read_bytes + conn->beat.written_bytes;
	wire_verbs_beat_pack(&conn->beat, conn->own->beat);
	wr = verbs_send_add(conn, &record);
	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->sg_list[0] = (struct ibv_sge){
		.addr = (uintptr_t)conn->own->beat, .length = sizeof(conn->beat), .lkey = conn->own_mr->lkey
	};
	wr->num_sge = 1;
	if (sizeof(conn->beat) <= conn->max_inline_bytes)
		wr->send_flags |= IBV_SEND_INLINE;
	wr->wr.rdma.remote_addr = conn->beat_address;
	wr->wr.rdma.rkey = conn->beat_rkey;
}

/* ---- what has become of them ---- */

void verbs_send_finish(struct verbs_conn *conn, struct transport_op_list *list, struct transport_op *op, int status)
{
	TAILQ_REMOVE(list, op, link);
	conn->head.in_flight--;
	if (status == 0)
		conn->done_bytes[op->opcode] += op->len_bytes;
	op->done(op, status);
}

/* The oldest work request is complete. */
static void send_complete_first(struct verbs_conn *conn)
{
	struct verbs_wr *wr = &conn->wrs[conn->first_wr++ & (conn->nr_wrs - 1)];
	struct transport_op *op = wr->op;
	uint64_t now_ns = sys_reactor_now_ns(conn->head.reactor);

	if (wr->kind == VERBS_WR_BEAT) {
		conn->beating = false;
		conn->head.heartbeat_rtt_ns = base_max_u64(now_ns - conn->beat_ns, 1); /* 0 means "none yet" */
	}
	if (wr->kind != VERBS_WR_OP)
		return;
	if (wr->chunk >= 0) {
		if (op->opcode == TRANSPORT_READ)
			transport_op_copy_in(op, wr->skip_bytes, conn->own->chunks[wr->chunk], wr->len_bytes);
		conn->free_chunks[conn->nr_free_chunks++] = (uint16_t)wr->chunk;
	}
	assert(op->tag > 0);
	if (--op->tag == 0 && op->progress_bytes == op->len_bytes)
		verbs_send_finish(conn, &conn->posted, op, 0);
}

void verbs_send_completed(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	uint64_t end = wc->wr_id + (wc->status == IBV_WC_SUCCESS);
	const struct verbs_wr *failed;

	/* What is not in the queue cannot complete: the device, or somebody who writes our memory, has gone mad. */
	if (wc->wr_id - conn->first_wr >= conn->next_wr - conn->first_wr) {
		verbs_conn_fail(conn, -EIO);
		return;
	}
	while (conn->first_wr != end)
		send_complete_first(conn);
	if (wc->status == IBV_WC_SUCCESS)
		return;
	failed = &conn->wrs[wc->wr_id & (conn->nr_wrs - 1)];
	if (failed->kind == VERBS_WR_OP && verbs_status_of_op(wc->status) < 0) {
		conn->culprit = failed->op;
		conn->culprit_status = verbs_status_of_op(wc->status);
	}
	verbs_conn_fail(conn, verbs_status_of_conn(wc->status));
}

void verbs_send_cancel(struct verbs_conn *conn, int err)
{
	struct transport_op *op;

	conn->first_wr = conn->next_wr;
	conn->nr_asked = 0;
	TAILQ_CONCAT(&conn->posted, &conn->queue, link);
	TAILQ_CONCAT(&conn->posted, &conn->unplaced, link);
	while ((op = TAILQ_FIRST(&conn->posted)))
		verbs_send_finish(conn, &conn->posted, op, op == conn->culprit ? conn->culprit_status : err);
}

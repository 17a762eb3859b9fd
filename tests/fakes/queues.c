/* Completion queues and queue pairs: what is posted, carried out and told. */
#include "tests/fakes/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static bool holding;
static bool holding_acks;
static bool fail_armed;
static bool refusing;
static enum ibv_wr_opcode fail_opcode;
static enum ibv_wc_status fail_status;

/* The device copies words that are aligned as one: a heartbeat may be read while it is written. */
static void copy(void *to, const void *from, size_t len_bytes)
{
	if (len_bytes <= FSW_CACHE_LINE && ((uintptr_t)to | (uintptr_t)from | len_bytes) % 8 == 0) {
		for (size_t i = 0; i < len_bytes / 8; i++)
			__atomic_store_n((uint64_t *)to + i, __atomic_load_n((const uint64_t *)from + i, __ATOMIC_RELAXED),
					 __ATOMIC_RELAXED);
		return;
	}
	memcpy(to, from, len_bytes);
}

/* ---- completion queues ---- */

static void cq_push(struct fake_cq *cq, const struct fake_wc *wc)
{
	if (cq->nr >= (unsigned)cq->cq.cqe)
		abort(); /* an overrun: the transport has made it too small */
	cq->wcs[cq->nr++] = *wc;
	if (!cq->armed || !cq->channel)
		return;
	cq->armed = false;
	assert(cq->channel->nr_told < BASE_ARRAY_SIZE(cq->channel->told));
	cq->channel->told[cq->channel->nr_told++] = cq;
	fabric_tell(cq->channel->channel.fd);
}

/* The queue pair has gone; its completions may be polled all the same. */
static void cq_forget(struct fake_cq *cq, const struct fake_qp *qp)
{
	for (unsigned i = 0; i < cq->nr; i++)
		if (cq->wcs[i].qp == qp)
			cq->wcs[i].qp = NULL;
}

static int poll_cq(struct ibv_cq *head, int max, struct ibv_wc *ret_wcs)
{
	struct fake_cq *cq = (struct fake_cq *)head;
	int nr;

	pthread_mutex_lock(&fabric.lock);
	nr = (int)base_min_u64(cq->nr, (unsigned)max);
	for (int i = 0; i < nr; i++) {
		ret_wcs[i] = cq->wcs[i].wc;
		if (cq->wcs[i].qp)
			cq->wcs[i].qp->nr_send -= cq->wcs[i].nr_free;
	}
	cq->nr -= (unsigned)nr;
	memmove(cq->wcs, cq->wcs + nr, cq->nr * sizeof(*cq->wcs));
	pthread_mutex_unlock(&fabric.lock);
	return nr;
}

static int req_notify_cq(struct ibv_cq *head, int solicited_only)
{
	(void)solicited_only;
	pthread_mutex_lock(&fabric.lock);
	((struct fake_cq *)head)->armed = true;
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	struct fake_channel *channel;

	pthread_mutex_lock(&fabric.lock);
	channel = fabric_make(sizeof(*channel));
	channel->channel.context = context;
	channel->channel.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	pthread_mutex_unlock(&fabric.lock);
	return &channel->channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	pthread_mutex_lock(&fabric.lock);
	assert(channel->refcnt == 0);
	close(channel->fd);
	fabric_unmake(channel);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			     int vector)
{
	struct fake_cq *cq;

	(void)vector;
	pthread_mutex_lock(&fabric.lock);
	cq = fabric_make(sizeof(*cq));
	cq->cq.context = context;
	cq->cq.cq_context = cq_context;
	cq->cq.cqe = cqe;
	cq->channel = (struct fake_channel *)channel;
	if (channel)
		channel->refcnt++;
	cq->wcs = calloc((size_t)cqe, sizeof(*cq->wcs));
	pthread_mutex_unlock(&fabric.lock);
	return &cq->cq;
}

int ibv_destroy_cq(struct ibv_cq *head)
{
	struct fake_cq *cq = (struct fake_cq *)head;
	struct fake_channel *channel = cq->channel;

	pthread_mutex_lock(&fabric.lock);
	assert(cq->nr_got == cq->nr_acked); /* the library would wait for ever */
	for (unsigned i = 0; channel && i < channel->nr_told;) {
		if (channel->told[i] != cq) {
			i++;
			continue;
		}
		memmove(&channel->told[i], &channel->told[i + 1], (channel->nr_told - i - 1) * sizeof(channel->told[0]));
		channel->nr_told--;
		fabric_told(channel->channel.fd);
	}
	if (channel)
		channel->channel.refcnt--;
	free(cq->wcs);
	fabric_unmake(cq);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *head, struct ibv_cq **ret_cq, void **ret_context)
{
	struct fake_channel *channel = (struct fake_channel *)head;
	struct fake_cq *cq = NULL;

	pthread_mutex_lock(&fabric.lock);
	if (channel->nr_told > 0) {
		fabric_told(head->fd);
		cq = channel->told[0];
		memmove(&channel->told[0], &channel->told[1], --channel->nr_told * sizeof(channel->told[0]));
		cq->nr_got++;
		*ret_cq = &cq->cq;
		*ret_context = cq->cq.cq_context;
	}
	pthread_mutex_unlock(&fabric.lock);
	return cq ? 0 : fabric_wrong(EAGAIN);
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned nr)
{
	pthread_mutex_lock(&fabric.lock);
	((struct fake_cq *)cq)->nr_acked += nr;
	pthread_mutex_unlock(&fabric.lock);
}

/* ---- queue pairs ---- */

static void qp_push_late(struct fake_qp *qp)
{
	for (unsigned i = 0; i < qp->nr_late; i++)
		cq_push((struct fake_cq *)qp->qp.send_cq, &qp->late[i]);
	qp->nr_late = 0;
}

static void qp_complete(struct fake_qp *qp, const struct ibv_send_wr *wr, enum ibv_wc_status status)
{
	struct fake_wc wc = { .wc = { .wr_id = wr->wr_id, .status = status }, .qp = qp };

	qp->nr_silent++;
	if (status == IBV_WC_SUCCESS && !(wr->send_flags & IBV_SEND_SIGNALED))
		return;
	wc.nr_free = qp->nr_silent;
	qp->nr_silent = 0;
	if (status == IBV_WC_SUCCESS && holding_acks && (wr->opcode == IBV_WR_SEND || qp->nr_late > 0)) {
		assert(qp->nr_late < BASE_ARRAY_SIZE(qp->late));
		qp->late[qp->nr_late++] = wc;
		return;
	}
	qp_push_late(qp);
	cq_push((struct fake_cq *)qp->qp.send_cq, &wc);
}

void fabric_qp_flush(struct fake_qp *qp)
{
	struct fake_wr *wr;

	qp->failed = true;
	while ((wr = TAILQ_FIRST(&qp->waiting))) {
		TAILQ_REMOVE(&qp->waiting, wr, link);
		qp_complete(qp, &wr->wr, IBV_WC_WR_FLUSH_ERR);
		free(wr);
	}
	for (unsigned i = 0; i < qp->nr_recvs; i++) {
		struct fake_wc wc = { .wc = { .wr_id = qp->recvs[i].wr_id, .status = IBV_WC_WR_FLUSH_ERR } };

		cq_push((struct fake_cq *)qp->qp.recv_cq, &wc);
	}
	qp->nr_recvs = 0;
}

static enum ibv_wc_status qp_move(struct fake_qp *qp, struct fake_wr *wr, uint64_t remote, uint32_t len_bytes)
{
	bool read = wr->wr.opcode == IBV_WR_RDMA_READ;
	uint64_t at = remote;
	uint8_t *inline_at = wr->bytes;

	for (int i = 0; i < wr->wr.num_sge; i++) {
		const struct ibv_sge *sge = &wr->sges[i];
		void *local = (void *)(uintptr_t)sge->addr;

		if (wr->wr.send_flags & IBV_SEND_INLINE) {
			copy((void *)(uintptr_t)at, inline_at, sge->length);
			inline_at += sge->length;
		} else if (!fabric_may(qp->qp.pd, sge->lkey, sge->addr, sge->length, read ? IBV_ACCESS_LOCAL_WRITE : 0)) {
			return IBV_WC_LOC_PROT_ERR;
		} else {
			copy(read ? local : (void *)(uintptr_t)at, read ? (void *)(uintptr_t)at : local, sge->length);
		}
		at += sge->length;
	}
	assert(at == remote + len_bytes);
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status qp_send(struct fake_qp *qp, struct fake_wr *wr, uint32_t len_bytes)
{
	struct fake_qp *peer = qp->peer;
	struct fake_wc wc = { .wc = { .opcode = IBV_WC_RECV, .byte_len = len_bytes } };
	enum ibv_wc_status status;

	if (peer->nr_recvs == 0)
		return IBV_WC_RNR_RETRY_EXC_ERR;
	if (peer->recv_sges[0].length < len_bytes)
		return IBV_WC_REM_INV_REQ_ERR;
	status = qp_move(qp, wr, peer->recv_sges[0].addr, len_bytes);
	if (status != IBV_WC_SUCCESS)
		return status;
	wc.wc.wr_id = peer->recvs[0].wr_id;
	peer->nr_recvs--;
	memmove(&peer->recvs[0], &peer->recvs[1], peer->nr_recvs * sizeof(peer->recvs[0]));
	memmove(&peer->recv_sges[0], &peer->recv_sges[1], peer->nr_recvs * sizeof(peer->recv_sges[0]));
	cq_push((struct fake_cq *)peer->qp.recv_cq, &wc);
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status qp_carry_out(struct fake_qp *qp, struct fake_wr *wr)
{
	uint32_t len_bytes = 0;
	int access = wr->wr.opcode == IBV_WR_RDMA_READ ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;

	for (int i = 0; i < wr->wr.num_sge; i++) {
		assert(wr->sges[i].length > 0);
		len_bytes += wr->sges[i].length;
	}
	if (fail_armed && wr->wr.opcode == fail_opcode) {
		fail_armed = false;
		return fail_status;
	}
	if (wr->wr.opcode == IBV_WR_SEND)
		return qp_send(qp, wr, len_bytes);
	if (!fabric_may(qp->peer->qp.pd, wr->wr.wr.rdma.rkey, wr->wr.wr.rdma.remote_addr, len_bytes, access))
		return IBV_WC_REM_ACCESS_ERR;
	return qp_move(qp, wr, wr->wr.wr.rdma.remote_addr, len_bytes);
}

/* Carries out up to nr of what waits. Whoever has no peer, or one that has failed, waits for ever. */
static unsigned qp_run(struct fake_qp *qp, unsigned nr)
{
	enum ibv_wc_status status;
	struct fake_wr *wr;
	unsigned done = 0;

	while (done < nr && !fabric.is_cut && qp->peer && !qp->peer->failed && (wr = TAILQ_FIRST(&qp->waiting))) {
		TAILQ_REMOVE(&qp->waiting, wr, link);
		status = qp_carry_out(qp, wr);
		qp_complete(qp, &wr->wr, status);
		free(wr);
		done++;
		if (status != IBV_WC_SUCCESS)
			fabric_qp_flush(qp);
	}
	return done;
}

static void qp_take(struct fake_qp *qp, const struct ibv_send_wr *wr)
{
	struct fake_wr *mine = calloc(1, sizeof(*mine));
	uint8_t *at = mine->bytes;

	assert(wr->num_sge <= fabric.limit_sge && wr->num_sge <= (int)BASE_ARRAY_SIZE(mine->sges));
	mine->wr = *wr;
	memcpy(mine->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(mine->sges[0]));
	for (int i = 0; wr->send_flags & IBV_SEND_INLINE && i < wr->num_sge; i++) {
		assert(at + wr->sg_list[i].length <= mine->bytes + fabric.limit_inline);
		memcpy(at, (const void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
		at += wr->sg_list[i].length;
	}
	fabric.counters.nr_wrs++;
	fabric.counters.nr_signalled += (wr->send_flags & IBV_SEND_SIGNALED) != 0;
	fabric.counters.nr_inline += (wr->send_flags & IBV_SEND_INLINE) != 0;
	fabric.counters.nr_sends += wr->opcode == IBV_WR_SEND;
	fabric.counters.nr_reads += wr->opcode == IBV_WR_RDMA_READ;
	fabric.counters.nr_writes += wr->opcode == IBV_WR_RDMA_WRITE;
	assert(qp->nr_send < qp->max_send);
	qp->nr_send++;
	TAILQ_INSERT_TAIL(&qp->waiting, mine, link);
}

static int post_send(struct ibv_qp *head, struct ibv_send_wr *wr, struct ibv_send_wr **ret_bad)
{
	struct fake_qp *qp = (struct fake_qp *)head;

	*ret_bad = wr;
	pthread_mutex_lock(&fabric.lock);
	assert(qp->stands || qp->failed);
	if (refusing) {
		pthread_mutex_unlock(&fabric.lock);
		return EIO;
	}
	fabric.counters.nr_doorbells++;
	for (; wr; wr = wr->next)
		qp_take(qp, wr);
	if (qp->failed)
		fabric_qp_flush(qp);
	else if (!holding)
		qp_run(qp, UINT32_MAX);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

static int post_recv(struct ibv_qp *head, struct ibv_recv_wr *wr, struct ibv_recv_wr **ret_bad)
{
	struct fake_qp *qp = (struct fake_qp *)head;

	*ret_bad = wr;
	pthread_mutex_lock(&fabric.lock);
	assert(wr->num_sge == 1 && !wr->next && qp->nr_recvs < qp->max_recv);
	assert(fabric_may(qp->qp.pd, wr->sg_list[0].lkey, wr->sg_list[0].addr, wr->sg_list[0].length, IBV_ACCESS_LOCAL_WRITE));
	qp->recv_sges[qp->nr_recvs] = wr->sg_list[0];
	qp->recvs[qp->nr_recvs++] = *wr;
	if (qp->failed)
		fabric_qp_flush(qp);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct fake_qp *qp;

	assert(!id->qp && pd->context == id->verbs);
	if ((int)attr->cap.max_send_wr > fabric.limit_wr || (int)attr->cap.max_send_sge > fabric.limit_sge ||
	    attr->cap.max_inline_data > fabric.limit_inline)
		return fabric_wrong(EINVAL);
	pthread_mutex_lock(&fabric.lock);
	qp = fabric_make(sizeof(*qp));
	qp->qp.context = id->verbs;
	qp->qp.pd = pd;
	qp->qp.send_cq = attr->send_cq;
	qp->qp.recv_cq = attr->recv_cq;
	qp->max_recv = attr->cap.max_recv_wr;
	qp->max_send = attr->cap.max_send_wr;
	assert(qp->max_recv <= BASE_ARRAY_SIZE(qp->recvs));
	TAILQ_INIT(&qp->waiting);
	LIST_INSERT_HEAD(&fabric.qps, qp, link);
	id->qp = &qp->qp;
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *id)
{
	struct fake_qp *qp = (struct fake_qp *)id->qp;
	struct fake_wr *wr;

	pthread_mutex_lock(&fabric.lock);
	if (qp->peer)
		qp->peer->peer = NULL;
	while ((wr = TAILQ_FIRST(&qp->waiting))) {
		TAILQ_REMOVE(&qp->waiting, wr, link);
		free(wr);
	}
	cq_forget((struct fake_cq *)qp->qp.send_cq, qp);
	LIST_REMOVE(qp, link);
	fabric_unmake(qp);
	id->qp = NULL;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_queues_ops(struct ibv_context *context)
{
	context->ops.poll_cq = poll_cq;
	context->ops.req_notify_cq = req_notify_cq;
	context->ops.post_send = post_send;
	context->ops.post_recv = post_recv;
}

void fabric_queues_reset(void)
{
	holding = holding_acks = fail_armed = refusing = false;
}

/* ---- for tests ---- */

unsigned fabric_step(unsigned nr)
{
	struct fake_qp *qp;
	unsigned done = 0;

	pthread_mutex_lock(&fabric.lock);
	LIST_FOREACH(qp, &fabric.qps, link)
		done += qp_run(qp, nr - done);
	pthread_mutex_unlock(&fabric.lock);
	return done;
}

void fabric_hold(bool hold)
{
	pthread_mutex_lock(&fabric.lock);
	holding = hold;
	pthread_mutex_unlock(&fabric.lock);
	if (!hold)
		fabric_step(UINT32_MAX);
}

void fabric_hold_acks(bool hold)
{
	struct fake_qp *qp;

	pthread_mutex_lock(&fabric.lock);
	holding_acks = hold;
	LIST_FOREACH(qp, &fabric.qps, link)
		if (!hold)
			qp_push_late(qp);
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_fail_next(enum ibv_wr_opcode opcode, enum ibv_wc_status status)
{
	pthread_mutex_lock(&fabric.lock);
	fail_armed = true;
	fail_opcode = opcode;
	fail_status = status;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_refuse(bool refuse)
{
	pthread_mutex_lock(&fabric.lock);
	refusing = refuse;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_give_up(void)
{
	struct fake_qp *qp;

	pthread_mutex_lock(&fabric.lock);
	LIST_FOREACH(qp, &fabric.qps, link) {
		struct fake_wr *wr = TAILQ_FIRST(&qp->waiting);

		if (!wr)
			continue;
		TAILQ_REMOVE(&qp->waiting, wr, link);
		qp_complete(qp, &wr->wr, IBV_WC_RETRY_EXC_ERR);
		free(wr);
		fabric_qp_flush(qp);
	}
	pthread_mutex_unlock(&fabric.lock);
}

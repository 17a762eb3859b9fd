#include "tests/fakes/internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#define NR_DEVICES 2

static struct fake_device devices[NR_DEVICES];
static LIST_HEAD(, fake_mr) mrs;
static LIST_HEAD(, fake_pd) pds;
static LIST_HEAD(, fake_qp) qps;
static struct fabric_counters counters;
static unsigned nr_objects;
struct fabric fabric = { .lock = PTHREAD_MUTEX_INITIALIZER, .spoiled_byte = -1 };
static uint32_t last_key;
static bool holding;
static bool holding_acks;
static bool removed;
static bool fail_armed;
static enum ibv_wr_opcode fail_opcode;
static enum ibv_wc_status fail_status;
static int limit_sge = 16;
static int limit_wr = 4096;
static unsigned limit_inline = 128;

int fabric_wrong(int err)
{
	errno = err;
	return -1;
}

void *fabric_make(size_t len_bytes)
{
	void *object = calloc(1, len_bytes);

	if (!object)
		abort();
	nr_objects++;
	return object;
}

void fabric_unmake(void *object)
{
	nr_objects--;
	free(object);
}

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

void fabric_tell(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

bool fabric_told(int fd)
{
	uint64_t one;

	return read(fd, &one, sizeof(one)) == sizeof(one);
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

/* ---- memory ---- */

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct fake_pd *pd;

	pthread_mutex_lock(&fabric.lock);
	pd = fabric_make(sizeof(*pd));
	pd->pd.context = context;
	LIST_INSERT_HEAD(&pds, pd, link);
	pthread_mutex_unlock(&fabric.lock);
	return &pd->pd;
}

static void pd_unmake(struct fake_pd *pd)
{
	struct fake_mr *mr;
	struct fake_qp *qp;

	LIST_FOREACH(mr, &mrs, link)
		assert(mr->mr.pd != &pd->pd);
	LIST_FOREACH(qp, &qps, link)
		assert(qp->qp.pd != &pd->pd);
	LIST_REMOVE(pd, link);
	fabric_unmake(pd);
}

int ibv_dealloc_pd(struct ibv_pd *head)
{
	struct fake_pd *pd = (struct fake_pd *)head;
	int ret = 0;

	pthread_mutex_lock(&fabric.lock);
	if (removed) {
		pd->lost = true;
		ret = EIO;
	} else {
		pd_unmake(pd);
	}
	pthread_mutex_unlock(&fabric.lock);
	return ret;
}

#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t len_bytes, int access)
{
	struct fake_mr *mr;

	pthread_mutex_lock(&fabric.lock);
	mr = fabric_make(sizeof(*mr));
	last_key += 0x101; /* never used again */
	mr->mr = (struct ibv_mr){
		.context = pd->context, .pd = pd, .addr = addr, .length = len_bytes, .lkey = last_key, .rkey = last_key
	};
	mr->access = access;
	LIST_INSERT_HEAD(&mrs, mr, link);
	counters.nr_registered++;
	pthread_mutex_unlock(&fabric.lock);
	return &mr->mr;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len_bytes, uint64_t iova, unsigned access)
{
	assert(iova == (uintptr_t)addr);
	return ibv_reg_mr(pd, addr, len_bytes, (int)access);
}

static void mr_unmake(struct fake_mr *mr)
{
	LIST_REMOVE(mr, link);
	fabric_unmake(mr);
}

int ibv_dereg_mr(struct ibv_mr *head)
{
	struct fake_mr *mr = (struct fake_mr *)head;
	int ret = 0;

	pthread_mutex_lock(&fabric.lock);
	if (removed) {
		mr->lost = true;
		ret = EIO;
	} else {
		mr_unmake(mr);
	}
	pthread_mutex_unlock(&fabric.lock);
	return ret;
}

/* What the device looks at before it touches a byte. */
static bool may(const struct ibv_pd *pd, uint32_t key, uint64_t addr, uint64_t len_bytes, int access)
{
	struct fake_mr *mr;

	LIST_FOREACH(mr, &mrs, link)
		if (mr->mr.lkey == key)
			break;
	return mr && mr->mr.pd == pd && (mr->access & access) == access && addr >= (uintptr_t)mr->mr.addr &&
	       addr - (uintptr_t)mr->mr.addr <= mr->mr.length &&
	       len_bytes <= mr->mr.length - (addr - (uintptr_t)mr->mr.addr);
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
		} else if (!may(qp->qp.pd, sge->lkey, sge->addr, sge->length, read ? IBV_ACCESS_LOCAL_WRITE : 0)) {
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
	if (!may(qp->peer->qp.pd, wr->wr.wr.rdma.rkey, wr->wr.wr.rdma.remote_addr, len_bytes, access))
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

	assert(wr->num_sge <= limit_sge && wr->num_sge <= (int)BASE_ARRAY_SIZE(mine->sges));
	mine->wr = *wr;
	memcpy(mine->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(mine->sges[0]));
	for (int i = 0; wr->send_flags & IBV_SEND_INLINE && i < wr->num_sge; i++) {
		assert(at + wr->sg_list[i].length <= mine->bytes + limit_inline);
		memcpy(at, (const void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
		at += wr->sg_list[i].length;
	}
	counters.nr_wrs++;
	counters.nr_signalled += (wr->send_flags & IBV_SEND_SIGNALED) != 0;
	counters.nr_inline += (wr->send_flags & IBV_SEND_INLINE) != 0;
	counters.nr_sends += wr->opcode == IBV_WR_SEND;
	counters.nr_reads += wr->opcode == IBV_WR_RDMA_READ;
	counters.nr_writes += wr->opcode == IBV_WR_RDMA_WRITE;
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
	counters.nr_doorbells++;
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
	assert(may(qp->qp.pd, wr->sg_list[0].lkey, wr->sg_list[0].addr, wr->sg_list[0].length, IBV_ACCESS_LOCAL_WRITE));
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
	if ((int)attr->cap.max_send_wr > limit_wr || (int)attr->cap.max_send_sge > limit_sge ||
	    attr->cap.max_inline_data > limit_inline)
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
	LIST_INSERT_HEAD(&qps, qp, link);
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

/* ---- devices ---- */

struct ibv_context *fabric_device(unsigned i)
{
	struct fake_device *device = &devices[i];

	if (device->context.device) /* it stands, and others use it without a lock */
		return &device->context;
	strcpy(device->device.name, i ? "fake1" : "fake0");
	device->context.device = &device->device;
	device->context.ops.poll_cq = poll_cq;
	device->context.ops.req_notify_cq = req_notify_cq;
	device->context.ops.post_send = post_send;
	device->context.ops.post_recv = post_recv;
	return &device->context;
}

struct ibv_context **rdma_get_devices(int *ret_nr)
{
	struct ibv_context **list = calloc(NR_DEVICES + 1, sizeof(struct ibv_context *));

	pthread_mutex_lock(&fabric.lock);
	for (unsigned i = 0; i < NR_DEVICES; i++)
		list[i] = fabric_device(i);
	pthread_mutex_unlock(&fabric.lock);
	if (ret_nr)
		*ret_nr = NR_DEVICES;
	return list;
}

void rdma_free_devices(struct ibv_context **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *ret_attr)
{
	(void)context;
	memset(ret_attr, 0, sizeof(*ret_attr));
	ret_attr->max_sge = limit_sge;
	ret_attr->max_qp_wr = limit_wr;
	ret_attr->max_qp_rd_atom = ret_attr->max_qp_init_rd_atom = 16;
	ret_attr->phys_port_cnt = 1;
	return 0;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *ret_attr)
{
	struct ibv_port_attr *attr = (struct ibv_port_attr *)ret_attr;

	(void)context;
	if (port != 1)
		return EINVAL;
	attr->gid_tbl_len = 2;
	attr->link_layer = IBV_LINK_LAYER_ETHERNET;
	return 0;
}

/* GID 0 is fe80::1, GID 1 the IPv4 address 127.0.0.1 or 127.0.0.2. */
int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *ret_entry,
		      uint32_t flags, size_t entry_bytes)
{
	(void)flags;
	if (port != 1 || index > 1)
		return ENODATA;
	memset(ret_entry, 0, entry_bytes);
	ret_entry->gid_index = index;
	ret_entry->gid_type = IBV_GID_TYPE_ROCE_V2;
	ret_entry->ndev_ifindex = 7;
	if (index == 0) {
		ret_entry->gid.raw[0] = 0xfe;
		ret_entry->gid.raw[1] = 0x80;
		ret_entry->gid.raw[15] = 1;
	} else {
		memset(&ret_entry->gid.raw[10], 0xff, 2);
		ret_entry->gid.raw[12] = 127;
		ret_entry->gid.raw[15] = context == &devices[1].context ? 2 : 1;
	}
	return 0;
}

/* ---- for tests ---- */

void fabric_reset(void)
{
	pthread_mutex_lock(&fabric.lock);
	if (nr_objects != 0 || !LIST_EMPTY(&mrs) || !LIST_EMPTY(&qps) || !LIST_EMPTY(&fabric.ids))
		abort();
	memset(&counters, 0, sizeof(counters));
	holding = holding_acks = fabric.is_cut = fail_armed = false;
	fabric.spoiled_byte = -1;
	limit_sge = 16;
	limit_wr = 4096;
	limit_inline = 128;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_counters(struct fabric_counters *ret_counters)
{
	pthread_mutex_lock(&fabric.lock);
	*ret_counters = counters;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_set_limits(int max_sge, int max_qp_wr, unsigned max_inline)
{
	limit_sge = max_sge;
	limit_wr = max_qp_wr;
	limit_inline = max_inline;
}

unsigned fabric_step(unsigned nr)
{
	struct fake_qp *qp;
	unsigned done = 0;

	pthread_mutex_lock(&fabric.lock);
	LIST_FOREACH(qp, &qps, link)
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
	LIST_FOREACH(qp, &qps, link)
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

void fabric_give_up(void)
{
	struct fake_qp *qp;

	pthread_mutex_lock(&fabric.lock);
	LIST_FOREACH(qp, &qps, link) {
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

void fabric_cut(void)
{
	pthread_mutex_lock(&fabric.lock);
	fabric.is_cut = true;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_remove_devices(void)
{
	pthread_mutex_lock(&fabric.lock);
	removed = true;
	fabric_tell_of_removal();
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_forget_removed(void)
{
	struct fake_mr *mr;
	struct fake_mr *next_mr;
	struct fake_pd *pd;
	struct fake_pd *next_pd;

	pthread_mutex_lock(&fabric.lock);
	removed = false;
	for (mr = LIST_FIRST(&mrs); mr; mr = next_mr) {
		next_mr = LIST_NEXT(mr, link);
		if (mr->lost)
			mr_unmake(mr);
	}
	for (pd = LIST_FIRST(&pds); pd; pd = next_pd) {
		next_pd = LIST_NEXT(pd, link);
		if (pd->lost)
			pd_unmake(pd);
	}
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_last_req(uint8_t ret_bytes[FABRIC_REQ_BYTES])
{
	pthread_mutex_lock(&fabric.lock);
	memcpy(ret_bytes, fabric.last_req, sizeof(fabric.last_req));
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_spoil_next_rep(unsigned byte)
{
	pthread_mutex_lock(&fabric.lock);
	fabric.spoiled_byte = (int)byte;
	pthread_mutex_unlock(&fabric.lock);
}

unsigned fabric_nr_objects(void)
{
	unsigned nr;

	pthread_mutex_lock(&fabric.lock);
	nr = nr_objects;
	pthread_mutex_unlock(&fabric.lock);
	return nr;
}

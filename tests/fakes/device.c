/* libibverbs' part that is not queues: devices with their ports and GIDs, and the memory that they know. */
#include "tests/fakes/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NR_DEVICES 2
#define NR_PORTS 2

static struct fake_device devices[NR_DEVICES];
static LIST_HEAD(, fake_mr) mrs;
static LIST_HEAD(, fake_pd) pds;
static uint32_t last_key;
static bool removed;

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
	LIST_FOREACH(qp, &fabric.qps, link)
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
	fabric.counters.nr_registered++;
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

bool fabric_may(const struct ibv_pd *pd, uint32_t key, uint64_t addr, uint64_t len_bytes, int access)
{
	struct fake_mr *mr;

	LIST_FOREACH(mr, &mrs, link)
		if (mr->mr.lkey == key)
			break;
	return mr && mr->mr.pd == pd && (mr->access & access) == access && addr >= (uintptr_t)mr->mr.addr &&
	       addr - (uintptr_t)mr->mr.addr <= mr->mr.length &&
	       len_bytes <= mr->mr.length - (addr - (uintptr_t)mr->mr.addr);
}

/* ---- devices ---- */

struct ibv_context *fabric_device(unsigned i)
{
	struct fake_device *device = &devices[i];

	if (device->context.device) /* it stands, and others use it without a lock */
		return &device->context;
	strcpy(device->device.name, i ? "fake1" : "fake0");
	device->context.device = &device->device;
	fabric_queues_ops(&device->context);
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
	ret_attr->max_sge = fabric.limit_sge;
	ret_attr->max_qp_wr = fabric.limit_wr;
	ret_attr->max_qp_rd_atom = ret_attr->max_qp_init_rd_atom = 16;
	ret_attr->phys_port_cnt = NR_PORTS;
	return 0;
}

static uint32_t nr_gids(void)
{
	return fabric.is_infiniband ? 1 : 3;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *ret_attr)
{
	struct ibv_port_attr *attr = (struct ibv_port_attr *)ret_attr;

	(void)context;
	if (port == 0 || port > NR_PORTS)
		return EINVAL;
	pthread_mutex_lock(&fabric.lock);
	attr->gid_tbl_len = (int)nr_gids();
	attr->link_layer = fabric.is_infiniband ? IBV_LINK_LAYER_INFINIBAND : IBV_LINK_LAYER_ETHERNET;
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

static void gid_of_ipv4(struct ibv_gid_entry *entry, uint8_t net, uint8_t host)
{
	memset(&entry->gid.raw[10], 0xff, 2);
	entry->gid.raw[12] = 127;
	entry->gid.raw[14] = net;
	entry->gid.raw[15] = host;
}

static void gid_of_the_link(struct ibv_gid_entry *entry, uint8_t last)
{
	entry->gid.raw[0] = 0xfe;
	entry->gid.raw[1] = 0x80;
	entry->gid.raw[15] = last;
}

int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *ret_entry,
		      uint32_t flags, size_t entry_bytes)
{
	uint8_t device = context == &devices[1].context;
	bool is_infiniband;
	uint32_t nr;

	(void)flags;
	pthread_mutex_lock(&fabric.lock);
	is_infiniband = fabric.is_infiniband;
	nr = nr_gids();
	pthread_mutex_unlock(&fabric.lock);
	if (port == 0 || port > NR_PORTS || index >= nr)
		return ENODATA;
	memset(ret_entry, 0, entry_bytes);
	ret_entry->gid_index = index;
	ret_entry->port_num = port;
	ret_entry->gid_type = is_infiniband ? IBV_GID_TYPE_IB : index == 0 ? IBV_GID_TYPE_ROCE_V1 : IBV_GID_TYPE_ROCE_V2;
	ret_entry->ndev_ifindex = is_infiniband ? 0 : 7;
	if (is_infiniband || index == 1)
		gid_of_the_link(ret_entry, (uint8_t)port);
	else if (index == 0)
		gid_of_ipv4(ret_entry, (uint8_t)port, (uint8_t)(100 + device));
	else
		gid_of_ipv4(ret_entry, (uint8_t)(port - 1), (uint8_t)(device + 1));
	return 0;
}

/* ---- for tests ---- */

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

#include "common/transport/verbs/device.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"

static void memory_added(struct mem_io_listener *listener, void *base, size_t len_bytes)
{
	struct verbs_device *device = BASE_CONTAINER_OF(listener, struct verbs_device, listener);
	unsigned nr = atomic_load_explicit(&device->nr_memories, memory_order_relaxed);
	struct verbs_memory *memory;
	struct ibv_mr *mr;
	unsigned i = 0;

	while (i < nr && device->memories[i].mr)
		i++;
	assert(i < MEM_IO_MAX); /* the list has no more */
	memory = &device->memories[i];
	mr = ibv_reg_mr(device->pd, base, len_bytes, IBV_ACCESS_LOCAL_WRITE);
	if (!mr) {
		log_warning("%s: %zu KiB of memory cannot be registered (%s): operations on them are copied",
			    ibv_get_device_name(device->context->device), len_bytes >> 10, err_text(-errno));
		return;
	}
	memory->mr = mr;
	atomic_store_explicit(&memory->len_bytes, len_bytes, memory_order_relaxed);
	atomic_store_explicit(&memory->lkey, mr->lkey, memory_order_relaxed);
	atomic_store_explicit(&memory->base, (uintptr_t)base, memory_order_release);
	if (i == nr)
		atomic_store_explicit(&device->nr_memories, nr + 1, memory_order_release);
}

static void memory_removed(struct mem_io_listener *listener, void *base, size_t len_bytes)
{
	struct verbs_device *device = BASE_CONTAINER_OF(listener, struct verbs_device, listener);
	unsigned nr = atomic_load_explicit(&device->nr_memories, memory_order_relaxed);

	(void)len_bytes;
	for (unsigned i = 0; i < nr; i++) {
		struct verbs_memory *memory = &device->memories[i];

		if (!memory->mr || memory->mr->addr != base)
			continue;
		atomic_store_explicit(&memory->base, 0, memory_order_relaxed);
		/* A reactor may be between its look at the base and that at the key, which is the next one's afterwards. */
		sys_rcu_synchronize();
		ibv_dereg_mr(memory->mr);
		memory->mr = NULL;
	}
}

static void memory_missed(struct mem_io_listener *listener, size_t len_bytes)
{
	struct verbs_device *device = BASE_CONTAINER_OF(listener, struct verbs_device, listener);

	log_warning("%s: %zu KiB of memory are beyond the %u regions that can be registered: operations on them are copied",
		    ibv_get_device_name(device->context->device), len_bytes >> 10, MEM_IO_MAX);
}

static int device_create(struct ibv_context *context, struct verbs_device **ret_device)
{
	struct verbs_device *device = calloc(1, sizeof(*device));
	int ret;

	if (!device)
		return -ENOMEM;
	device->context = context;
	device->listener = (struct mem_io_listener){
		.added = memory_added,
		.removed = memory_removed,
		.missed = memory_missed,
	};
	ret = -ibv_query_device(context, &device->attr);
	if (ret < 0)
		goto out_free;
	device->pd = ibv_alloc_pd(context);
	if (!device->pd) {
		ret = errno ? -errno : -ENOMEM;
		goto out_free;
	}
	mem_io_listen(&device->listener);
	*ret_device = device;
	return 0;

out_free:
	free(device);
	return ret;
}

int verbs_device_get(struct verbs_driver *driver, struct ibv_context *context, struct verbs_device **ret_device)
{
	struct verbs_device *device;
	int ret = 0;

	lock_acquire(&driver->lock);
	LIST_FOREACH(device, &driver->devices, link)
		if (device->context == context)
			break;
	if (!device) {
		ret = device_create(context, &device);
		if (ret == 0)
			LIST_INSERT_HEAD(&driver->devices, device, link);
	}
	lock_release(&driver->lock);
	if (ret == 0)
		*ret_device = device;
	return ret;
}

void verbs_devices_free(struct verbs_driver *driver)
{
	struct verbs_device *device;

	lock_acquire(&driver->lock);
	while ((device = LIST_FIRST(&driver->devices))) {
		LIST_REMOVE(device, link);
		mem_io_unlisten(&device->listener);
		ibv_dealloc_pd(device->pd);
		free(device);
	}
	lock_release(&driver->lock);
}

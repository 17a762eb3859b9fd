/*
 * The devices that the initiator's side has used: a protection domain each, and in it all memory of common/mem/io.h,
 * registered once.
 *
 * Devices are found and kept by control threads, under the driver's lock. Which registration an address lies in is asked on
 * reactors, for every piece: by a look at a few words that only change when a region comes or goes, and is not in use then.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_VERBS_DEVICE_H
#define FARSWAP_COMMON_TRANSPORT_VERBS_DEVICE_H

#include <infiniband/verbs.h>
#include <stdatomic.h>

#include <sys/queue.h>

#include "common/base/lock.h"
#include "common/mem/io.h"
#include "common/transport/verbs/verbs.h"

struct verbs_conn;

struct verbs_memory {
	atomic_uintptr_t base; /* 0: unused, or going */
	atomic_size_t len_bytes;
	atomic_uint lkey;
	struct ibv_mr *mr;
};

struct verbs_device {
	LIST_ENTRY(verbs_device) link;
	struct ibv_context *context; /* librdmacm's, one per device and process */
	struct ibv_pd *pd;
	struct ibv_device_attr attr;
	struct mem_io_listener listener;
	atomic_uint nr_memories; /* that have ever been used */
	struct verbs_memory memories[MEM_IO_MAX];
};

TAILQ_HEAD(verbs_leaving, verbs_conn);

struct verbs_driver {
	struct transport_driver head;
	struct verbs_driver_options options;
	char device_name[IBV_SYSFS_NAME_MAX]; /* what options.device points at */
	atomic_uint_fast64_t nr_bounced;
	atomic_uint_fast64_t bounced_bytes;
	atomic_uint_fast64_t nr_maps;
	atomic_uint_fast64_t last_counter; /* of the latest REQ of all */
	struct lock_mutex lock;
	LIST_HEAD(, verbs_device) devices LOCK_GUARDED_BY(lock);

	/* farewell.c */
	pthread_t farewell;
	pthread_cond_t left; /* with lock: there is one more in leaving, or stop is set */
	struct verbs_leaving leaving LOCK_GUARDED_BY(lock);
	bool stop LOCK_GUARDED_BY(lock);
};

/* Control thread. The device with this context, made if it is new. 0, -ENOMEM or the error of the device. */
int verbs_device_get(struct verbs_driver *driver, struct ibv_context *context, struct verbs_device **ret_device)
	BASE_MUST_CHECK;
/* At the driver's end. */
void verbs_devices_free(struct verbs_driver *driver);

/* ---- farewell.c: control threads ---- */

/* 0 or a negative errno of pthread_create. */
int verbs_farewell_start(struct verbs_driver *driver) BASE_MUST_CHECK;
/* Every connection has been closed: returns when those that are leaving have been freed. */
void verbs_farewell_stop(struct verbs_driver *driver);

/*
 * Whether all of the bytes lie in one registration: then its local key. *hint is the caller's own, zero to begin with: where
 * it was found last. On a reactor.
 */
static inline bool verbs_device_find(const struct verbs_device *device, const void *bytes, size_t len_bytes, unsigned *hint,
				     uint32_t *ret_lkey)
{
	unsigned nr = atomic_load_explicit(&device->nr_memories, memory_order_acquire);

	for (unsigned n = 0, i = *hint; n < nr; n++, i = i + 1 < nr ? i + 1 : 0) {
		const struct verbs_memory *memory = &device->memories[i];
		/* Acquire: the length and the key were written before. They are written again only after a grace period. */
		uintptr_t base = atomic_load_explicit(&memory->base, memory_order_acquire);
		size_t at = (uintptr_t)bytes - base;
		size_t room = atomic_load_explicit(&memory->len_bytes, memory_order_relaxed);

		if (base != 0 && (uintptr_t)bytes >= base && at <= room && len_bytes <= room - at) {
			*hint = i;
			*ret_lkey = atomic_load_explicit(&memory->lkey, memory_order_relaxed);
			return true;
		}
	}
	return false;
}

#endif

/*
 * What every kind of place for pages has in common: a memory server (remote/) or the local disk (disk/).
 *
 * A backend lends space in slabs of equal slots (one page each) and moves runs of slots. It knows nothing of entries.
 * Which slots of a slab are used is the virtual swap layer's business; which slabs exist is settled by the control plane
 * (client/ctl), off the data path.
 *
 * Threads: each reactor has its own queue on every backend, number 0 .. nr_queues - 1; backend_submit is called on the
 * queue's reactor. State is written by control threads and by the backend itself, and read by anybody.
 */
#ifndef FARSWAP_CLIENT_BACKEND_BACKEND_H
#define FARSWAP_CLIENT_BACKEND_BACKEND_H

#include <stdatomic.h>

#include "client/io.h"
#include "common/base/base.h"

#define BACKEND_NAME_MAX 128
#define BACKEND_MAX_QUEUES 33 /* 32 front-end queues and the mover's */

struct backend;

enum backend_kind { BACKEND_REMOTE, BACKEND_DISK };

/* Can it be reached? (Whether new pages may be placed there is vswap's to decide, see vswap_backend_set_draining.) */
enum backend_state {
	BACKEND_CONNECTING, /* never yet up in this session; has no slabs */
	BACKEND_UP,
	BACKEND_DOWN, /* out of reach; what it holds may come back */
	BACKEND_LOST, /* what it held is gone; becomes CONNECTING when its slabs have been given up */
};

/*
 * A lent slab. Made by the control plane, handed to vswap_slab_add, alive until vswap hands it back empty
 * (vswap_slab_reclaim) and an RCU grace period has passed.
 */
struct backend_slab {
	struct backend *backend;
	uint32_t index; /* the backend's number of it */
	uint32_t key;	/* remote: the lender's key */
	uint32_t nr_slots; /* a power of two */
	uint32_t session;  /* remote: of which session with the server; an older one is dead */
	uint32_t id;	   /* vswap's number of it, while it has it */
};

struct backend_ops {
	const char *name; /* "remote", "disk" */
	int (*submit)(struct backend *backend, unsigned queue, struct backend_io *io); /* Required. */
};

/* Counters of one queue: written by its reactor only, read by anybody (relaxed). */
struct backend_counters {
	atomic_uint_fast64_t pages_read;
	atomic_uint_fast64_t pages_written;
	atomic_uint_fast64_t read_errors;
	atomic_uint_fast64_t write_errors;
} __attribute__((aligned(FSW_CACHE_LINE)));

struct backend {
	const struct backend_ops *ops;
	enum backend_kind kind;
	char name[BACKEND_NAME_MAX]; /* as configured: "10.0.0.7:7700", "disk" */
	unsigned nr_queues;
	atomic_int state; /* enum backend_state */
	/* How long a READ waits for it when it is DOWN, and a WRITE that nobody else takes; 0: not at all. */
	uint64_t patience_ns;
	/* Moving average of the time of one operation, in ns; for placement. Relaxed; a lost update does no harm. */
	atomic_uint_fast64_t latency_ns;
	/*
	 * Remote: moves on whenever all connections stand again after one had failed, and when all stand and a WRITE was
	 * refused by the server. A connection that has been made again fences the one before it, and what was refused has
	 * ended, so a WRITE whose done failed while fence was f can no longer touch memory once fence > f. Read it in done.
	 */
	atomic_uint_fast64_t fence;
	struct backend_counters counters[BACKEND_MAX_QUEUES];
	uint32_t record; /* with a state file: which of its sessions is that with this server, or STATE_DISK */
	void *vswap; /* the virtual swap layer's own part */
};

static inline enum backend_state backend_state(const struct backend *backend)
{
	return (enum backend_state)atomic_load_explicit(&backend->state, memory_order_acquire);
}

/*
 * Starts one operation. 0: done runs later with
 *   0                 done
 *   -ENODATA          the slab is lost for ever (its server was restarted or its lease ended): no bytes exist any more
 *   -EIO, another     failed; a READ may be tried again later, a WRITE may or may not have been done, and may *still* be
 *                     done until backend_write_settled says otherwise
 * Below 0 done never runs: -ENOTCONN for a WRITE while the backend is not up (a READ is kept for a while instead, and
 * fails with -ETIMEDOUT when its patience ends), -ENODATA as above, -EINVAL for an operation out of range.
 * Never -EAGAIN: a backend queues what its transport does not take yet.
 */
static inline BASE_MUST_CHECK int backend_submit(struct backend *backend, unsigned queue, struct backend_io *io)
{
	return backend->ops->submit(backend, queue, io);
}

/* Whether a WRITE that failed while the fence stood at `fence` can no longer change its slots. Any thread. */
static inline bool backend_write_settled(struct backend *backend, uint64_t fence)
{
	return backend->kind == BACKEND_DISK ||
	       atomic_load_explicit(&backend->fence, memory_order_acquire) > fence;
}

#endif

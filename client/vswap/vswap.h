/*
 * The virtual swap layer, as the block front ends see it: a device of pages whose backing can change at any time without
 * their noticing.
 *
 * Owns the map from entries to what backs them, the checksums, the physical slot maps and the movers. Knows no front end,
 * no transport and no wire. The operator's side is admin.h.
 */
#ifndef FARSWAP_CLIENT_VSWAP_VSWAP_H
#define FARSWAP_CLIENT_VSWAP_VSWAP_H

#include "client/io.h"
#include "common/base/base.h"
#include "common/sys/reactor.h"

struct vswap;
struct vswap_queue;

/* Pages of the device. Any thread. */
uint64_t vswap_nr_pages(const struct vswap *vswap);

/*
 * The queue of the reactor whose number is `index` (the order in which main.c made them). Each front-end queue submits
 * on its own. Any thread; the queue lives as long as the vswap.
 */
struct vswap_queue *vswap_queue(struct vswap *vswap, unsigned index);
struct sys_reactor *vswap_queue_reactor(const struct vswap_queue *queue);

/*
 * Starts a request on the queue's reactor. done runs exactly once, later, on the same thread, never inside this call:
 * also for a request that is refused at once (-EINVAL for an unknown op, no pages, more than IO_MAX_PAGES or a buffer
 * that is not page aligned; -ERANGE when it ends behind the device).
 *
 * A read of a page that was never written, or was discarded, gives zeros. Requests to the same page take effect in some
 * order; one that is submitted after another's done sees that other's effect, whichever queues they used.
 */
void vswap_submit(struct vswap_queue *queue, struct fsw_io *io);

#endif

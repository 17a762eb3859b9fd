/*
 * The local disk as a backend: a file or a raw partition, O_DIRECT, by io_uring.
 *
 * Used when no server has room, and as a target of drains. Its slabs are ranges of the file; there is no session and no
 * lease. The file's content means nothing after a restart.
 */
#ifndef FARSWAP_CLIENT_BACKEND_DISK_DISK_H
#define FARSWAP_CLIENT_BACKEND_DISK_DISK_H

#include "client/backend/backend.h"
#include "common/sys/reactor.h"

struct disk_options {
	const char *path;      /* a regular file (made if missing) or a block device that nobody else has open */
	uint64_t size_bytes;   /* a multiple of slab_bytes; 0 with a block device: all of it */
	uint64_t slab_bytes;   /* power of two, 1 MiB .. 1 GiB */
	struct sys_reactor *const *reactors;
	unsigned nr_queues;
	unsigned queue_depth; /* operations in flight per queue */
};

/*
 * Control thread. State UP. A file is allocated in full (fallocate), so that a write never finds the file system full;
 * it is never removed or truncated, but for a file that a disk_create which fails has made itself. The reactors are not
 * manual ones. 0; -EBUSY when another process has the device or the file (flock); -ENOSPC: the file system has no room for
 * it, or the device is smaller; -EINVAL for sizes; -EOPNOTSUPP when the file system has no O_DIRECT or no fallocate;
 * -ENOTBLK when it is neither a file nor a block device; else the errno of open or io_uring.
 */
int disk_create(const struct disk_options *options, struct backend **ret_backend) BASE_MUST_CHECK;
/* Control thread, reactors stopped, nothing in flight. Accepts NULL. */
void disk_free(struct backend *backend);

/* How many slabs it has in all. */
uint32_t disk_nr_slabs(const struct backend *backend);

/*
 * Takes a slab that is not lent. The slab belongs to the caller until disk_slab_put; NULL when all are lent.
 * Control thread. Given back, its range of a device is discarded where the device can; a file keeps its blocks.
 */
struct backend_slab *disk_slab_get(struct backend *backend);
/* The same of slab number `index`, which a daemon before this one has used. NULL: there is none, or it is lent already. */
struct backend_slab *disk_slab_take(struct backend *backend, uint32_t index);
void disk_slab_put(struct backend *backend, struct backend_slab *slab);

#endif

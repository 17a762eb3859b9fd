/*
 * What the files of the disk backend share: disk.c (making it, slabs), file.c (the file or device), queue.c (operations).
 */
#ifndef FARSWAP_CLIENT_BACKEND_DISK_INTERNAL_H
#define FARSWAP_CLIENT_BACKEND_DISK_INTERNAL_H

#include <liburing.h>

#include "client/backend/disk/disk.h"
#include "common/base/lock.h"

struct disk_file {
	int fd; /* -1 when it is not open */
	bool is_device;
	bool is_new; /* made by disk_file_open */
	uint64_t size_bytes;
};

/* Belongs to its reactor. */
struct disk_queue {
	struct disk *disk;
	struct sys_reactor *reactor;
	unsigned number;
	unsigned nr_in_flight; /* in the ring, at most disk->queue_depth */
	unsigned nr_done;
	bool is_open;
	struct backend_io_list waiting; /* for room in the ring, in order */
	struct io_uring ring;
	struct sys_watch completed; /* an eventfd of the ring */
	struct sys_deferred enter;
	struct sys_timer again;
} __attribute__((aligned(FSW_CACHE_LINE)));

struct disk {
	struct backend backend;
	char *path;
	struct disk_file file;
	unsigned queue_depth;
	uint64_t slab_bytes;
	uint32_t nr_slabs;
	struct backend_slab *slabs;
	struct lock_mutex lock;
	bool *lent LOCK_GUARDED_BY(lock); /* by slab */
	struct disk_queue queues[]; /* backend.nr_queues */
};

static inline struct disk *disk_of(struct backend *backend)
{
	return BASE_CONTAINER_OF(backend, struct disk, backend);
}

/* ---- file.c, control thread ---- */

/* Opens, locks and allocates it. Errors as disk_create; on error nothing is left behind. */
int disk_file_open(const char *path, uint64_t size_bytes, uint64_t slab_bytes, struct disk_file *ret_file)
	BASE_MUST_CHECK;
/* remove: and removes it if disk_file_open has made it. */
void disk_file_close(struct disk_file *file, const char *path, bool remove);
/* Tells a device that a range holds nothing; a file keeps its blocks. 0 or a negative errno, which does no harm. */
int disk_file_discard(const struct disk_file *file, uint64_t offset_bytes, uint64_t len_bytes) BASE_MUST_CHECK;

/* ---- queue.c ---- */

extern const struct backend_ops disk_ops;

/* Control thread. 0 or the negative errno of io_uring, eventfd or epoll. */
int disk_queue_open(struct disk_queue *queue, struct disk *disk, unsigned number, struct sys_reactor *reactor)
	BASE_MUST_CHECK;
/* Control thread, nothing in flight. Safe if it is not open. */
void disk_queue_close(struct disk_queue *queue);

#endif

/*
 * The memory that I/O is done from and into: every region that was opened with MEM_REGION_IO.
 *
 * A transport that must make memory known to a device before it may be used listens here, and so registers each region once,
 * whoever opened it and whenever. Nobody who opens memory has to know of transports.
 *
 * Control threads only: regions are opened and closed by them. One lock, held while listeners are called.
 */
#ifndef FARSWAP_COMMON_MEM_IO_H
#define FARSWAP_COMMON_MEM_IO_H

#include <sys/queue.h>

#include "common/base/base.h"

struct mem_io_listener {
	/* Required. A region is there. */
	void (*added)(struct mem_io_listener *listener, void *base, size_t len_bytes);
	/* Required. A region is about to go; nothing is in flight on it. */
	void (*removed)(struct mem_io_listener *listener, void *base, size_t len_bytes);
	/* Required. A region is there, or several of so many bytes in all, that found the list full: it is never added. */
	void (*missed)(struct mem_io_listener *listener, size_t len_bytes);
	LIST_ENTRY(mem_io_listener) link;
};

/* Calls added for every region in the list, and missed for the others together, before it returns. */
void mem_io_listen(struct mem_io_listener *listener);
/* Calls removed for every region in the list, before it returns. */
void mem_io_unlisten(struct mem_io_listener *listener);

/*
 * For region.c. Of regions beyond the first MEM_IO_MAX listeners learn only the size: they are used as any other memory is,
 * with a copy where a device cannot reach them.
 */
#define MEM_IO_MAX 128
void mem_io_add(void *base, size_t len_bytes);
/* As it was added, also when it has found no room in the list. */
void mem_io_remove(void *base, size_t len_bytes);

#endif

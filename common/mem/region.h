/*
 * Long-lived memory taken once at start: page aligned, zeroed, touched, locked, in huge pages where there are any.
 */
#ifndef FARSWAP_COMMON_MEM_REGION_H
#define FARSWAP_COMMON_MEM_REGION_H

#include "common/base/base.h"

enum mem_region_pages {
	MEM_REGION_PAGES_SMALL,
	MEM_REGION_PAGES_TRANSPARENT, /* ordinary pages, the kernel asked for transparent huge ones */
	MEM_REGION_PAGES_HUGE,	      /* hugetlbfs */
};

struct mem_region {
	void *base;
	size_t len_bytes;
	enum mem_region_pages pages; /* what it was given */
	bool locked;
	bool io; /* in the list of io.h */
};

enum mem_region_flags {
	MEM_REGION_LOCK = 1 << 0,      /* mlock; fails if it cannot be had */
	MEM_REGION_TOUCH = 1 << 1,     /* every page is written once before the call returns */
	MEM_REGION_TRY_HUGE = 1 << 2,  /* hugetlb pages if the machine has them free, else transparent ones */
	MEM_REGION_IO = 1 << 4,	       /* I/O is done from and into it: in the list of io.h until it is closed */
	MEM_REGION_RESERVE = 1 << 3,   /* address space only: neither touched nor counted, not even under mlockall */
};

/*
 * len_bytes is rounded up to whole pages. 0; -ENOMEM when the machine does not have the memory (a region to be touched
 * is compared with what the machine says is available first, so that a size that cannot be had is an error here and
 * not the kernel's out-of-memory killer later); -EPERM or -EAGAIN when it may not be locked; -EINVAL for a length of 0.
 */
int mem_region_open(struct mem_region *region, size_t len_bytes, unsigned flags) BASE_MUST_CHECK;

/*
 * The same of a part of a file in memory (tmpfs, ramfs), which everybody who maps it shares; what is in it already stays.
 * The part is there, and whole pages. Flags: MEM_REGION_TOUCH, which brings pages in that are missing, and MEM_REGION_LOCK.
 * What the machine has is not asked first, since that would count what is there already: new pages are the caller's care.
 */
int mem_region_open_file(struct mem_region *region, int fd, uint64_t offset_bytes, size_t len_bytes,
			 unsigned flags) BASE_MUST_CHECK;

/* Accepts a zeroed region. */
void mem_region_close(struct mem_region *region);

/* Bytes that MemAvailable of /proc/meminfo names, or 0 if it cannot be read. */
uint64_t mem_available_bytes(void);

#endif

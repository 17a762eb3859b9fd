#include "common/mem/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/mem/io.h"

#define HUGE_SHIFT 21
#define HUGE_BYTES ((size_t)1 << HUGE_SHIFT)

/* <asm-generic/mman-common.h>, which the C library of older distributions does not repeat. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

uint64_t mem_available_bytes(void)
{
	static const char key[] = "MemAvailable:";
	char text[1024];
	ssize_t len;
	char *at;
	int fd;

	fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return 0;
	text[len] = '\0';
	at = strstr(text, key);
	return at ? strtoull(at + sizeof(key) - 1, NULL, 10) * 1024 : 0;
}

static void *map_anonymous(size_t len_bytes, int extra_flags)
{
	return mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
}

/* Address space that may be far larger than the machine. */
static int open_reserved(struct mem_region *region, size_t len_bytes)
{
	void *base = map_anonymous(len_bytes, MAP_NORESERVE);
	int err;

	if (base == MAP_FAILED)
		return -errno;
	/* Under mlockall(MCL_FUTURE) the mapping was born locked, and what is touched sparsely must stay sparse. */
	if (munlock(base, len_bytes) < 0) {
		err = -errno;
		munmap(base, len_bytes);
		return err;
	}
	(void)madvise(base, len_bytes, MADV_NOHUGEPAGE);
	*region = (struct mem_region){ .base = base, .len_bytes = len_bytes, .pages = MEM_REGION_PAGES_SMALL };
	return 0;
}

static int map_small(struct mem_region *region, size_t len_bytes)
{
	void *base = map_anonymous(len_bytes, 0);

	if (base == MAP_FAILED)
		return -errno;
	*region = (struct mem_region){ .base = base, .len_bytes = len_bytes, .pages = MEM_REGION_PAGES_SMALL };
	return 0;
}

/* hugetlb pages are taken from the machine's pool when they are mapped, so this fails at once if there are too few. */
static int map_huge(struct mem_region *region, size_t len_bytes)
{
	size_t len = base_align_up(len_bytes, HUGE_BYTES);
	void *base = map_anonymous(len, MAP_HUGETLB | (HUGE_SHIFT << MAP_HUGE_SHIFT));

	if (base == MAP_FAILED)
		return -errno;
	*region = (struct mem_region){ .base = base, .len_bytes = len, .pages = MEM_REGION_PAGES_HUGE };
	return 0;
}

/* Mapped with room to spare and cut to the boundary that transparent huge pages need. */
static int map_transparent(struct mem_region *region, size_t len_bytes)
{
	char *map = map_anonymous(len_bytes + HUGE_BYTES, 0);
	char *base;

	if (map == MAP_FAILED)
		return -errno;
	base = (char *)base_align_up((uintptr_t)map, HUGE_BYTES);
	if (base > map)
		munmap(map, (size_t)(base - map));
	munmap(base + len_bytes, HUGE_BYTES - (size_t)(base - map));
	*region = (struct mem_region){ .base = base, .len_bytes = len_bytes, .pages = MEM_REGION_PAGES_SMALL };
	if (madvise(base, len_bytes, MADV_HUGEPAGE) == 0)
		region->pages = MEM_REGION_PAGES_TRANSPARENT;
	return 0;
}

/* Has every page brought in for writing. Asking the kernel to do it reports what a store could only die of. */
static int populate(struct mem_region *region)
{
	if (madvise(region->base, region->len_bytes, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno == EFAULT || errno == EHWPOISON)
		return -ENOMEM;
	if (errno != EINVAL)
		return -errno;
	/* Before Linux 5.14. */
	for (size_t at = 0; at < region->len_bytes; at += FSW_PAGE_SIZE)
		*((volatile char *)region->base + at) = ((volatile char *)region->base)[at];
	return 0;
}

static int lock(struct mem_region *region)
{
	if (mlock(region->base, region->len_bytes) < 0) {
		/* The memory is there and touched: what is lacking is the right to lock so much of it. */
		return errno == ENOMEM ? -EPERM : -errno;
	}
	region->locked = true;
	return 0;
}

static int map_any(struct mem_region *region, size_t len_bytes, unsigned flags)
{
	uint64_t available;

	if ((flags & MEM_REGION_TRY_HUGE) && len_bytes >= HUGE_BYTES && map_huge(region, len_bytes) == 0)
		return 0;
	/* hugetlb pages are not part of MemAvailable; all others are. To lock is to touch. */
	available = mem_available_bytes();
	if ((flags & (MEM_REGION_TOUCH | MEM_REGION_LOCK)) && available != 0 && len_bytes > available)
		return -ENOMEM;
	if ((flags & MEM_REGION_TRY_HUGE) && len_bytes >= HUGE_BYTES)
		return map_transparent(region, len_bytes);
	return map_small(region, len_bytes);
}

/* Does with what was mapped what the flags say. On failure nothing is left of it. */
static int finish_open(struct mem_region *region, struct mem_region *opened, unsigned flags)
{
	int ret = 0;

	if (flags & MEM_REGION_TOUCH)
		ret = populate(opened);
	if (ret == 0 && (flags & MEM_REGION_LOCK))
		ret = lock(opened);
	if (ret < 0) {
		mem_region_close(opened);
		return ret;
	}
	if (flags & MEM_REGION_IO) {
		mem_io_add(opened->base, opened->len_bytes);
		opened->io = true;
	}
	*region = *opened;
	return 0;
}

int mem_region_open(struct mem_region *region, size_t len_bytes, unsigned flags)
{
	struct mem_region opened;
	int ret;

	if (len_bytes == 0)
		return -EINVAL;
	if (len_bytes > SIZE_MAX / 2)
		return -ENOMEM;
	len_bytes = base_align_up(len_bytes, FSW_PAGE_SIZE);
	if (flags & MEM_REGION_RESERVE)
		return open_reserved(region, len_bytes);

	ret = map_any(&opened, len_bytes, flags);
	if (ret < 0)
		return ret;
	return finish_open(region, &opened, flags);
}

int mem_region_open_file(struct mem_region *region, int fd, uint64_t offset_bytes, size_t len_bytes, unsigned flags)
{
	struct mem_region opened = { .len_bytes = len_bytes, .pages = MEM_REGION_PAGES_SMALL };

	if (len_bytes == 0 || len_bytes % FSW_PAGE_SIZE != 0 || offset_bytes % FSW_PAGE_SIZE != 0)
		return -EINVAL;
	opened.base = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset_bytes);
	if (opened.base == MAP_FAILED)
		return -errno;
	return finish_open(region, &opened, flags);
}

void mem_region_close(struct mem_region *region)
{
	if (region->io)
		mem_io_remove(region->base, region->len_bytes);
	if (region->base)
		munmap(region->base, region->len_bytes);
	*region = (struct mem_region){ 0 };
}

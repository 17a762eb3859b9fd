/*
 * A block device as swap: its header, turning it on and off, and what the kernel says of it.
 *
 * The header is written here and not by mkswap(8): it is one page with a format that the kernel promises to keep
 * (include/linux/swap.h, union swap_header), and no other program has to be there and to find memory.
 *
 * All of these may cause I/O on the device: control threads only, never the reactor that serves it.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_SWAPAREA_H
#define FARSWAP_CLIENT_FRONTEND_SWAPAREA_H

#include "common/base/base.h"

#define SWAP_AREA_UUID_BYTES 16
#define SWAP_AREA_LABEL_BYTES 16
#define SWAP_AREA_MIN_PAGES 10		  /* below that the kernel refuses */
#define SWAP_AREA_MAX_PAGES (1ull << 32) /* the header counts the last page in 32 bits */
#define SWAP_AREA_ANY_PRIORITY (-1)	  /* the kernel chooses: behind all areas that have one */
#define SWAP_AREA_PRIORITY_MAX 32767

/*
 * Fills the first page of an area of nr_pages (the header's own included). 0; -EINVAL when the number is out of range.
 * Pure.
 */
int swap_area_pack(unsigned char page[FSW_PAGE_SIZE], uint64_t nr_pages,
		   const unsigned char uuid[SWAP_AREA_UUID_BYTES], const char *label) BASE_MUST_CHECK;

/*
 * Writes the header, with a new UUID, past all caches. 0; -EBUSY when somebody uses the device; -EINVAL; -ENOSYS on a
 * machine whose pages are not of 4096 bytes; the error of the device.
 */
int swap_area_write(const char *device, uint64_t nr_pages, const char *label) BASE_MUST_CHECK;

/*
 * Turns swap on, with discards of freed pages; priority 0 .. SWAP_AREA_PRIORITY_MAX or SWAP_AREA_ANY_PRIORITY. 0 or the
 * negative errno of swapon(2).
 */
int swap_area_on(const char *device, int priority) BASE_MUST_CHECK;

/*
 * Turns it off: reads everything back, which may take long. By swapoff(8) in a process of its own: the kernel takes
 * the process that calls swapoff(2) for the first to be killed when memory runs out meanwhile, whatever its
 * oom_score_adj, and that must not be the one that serves the device.
 *
 * 0, also when it was not on; -ENOMEM when the pages find no room in memory, and it is on as before; -ENOENT without
 * swapoff(8); -EIO when that fails otherwise (it says why on stderr).
 */
int swap_area_off(const char *device) BASE_MUST_CHECK;

/* What /proc/swaps says. 0; -ENOENT when the device is not in use as swap; the error of reading it. */
int swap_area_used_bytes(const char *device, uint64_t *ret_used_bytes) BASE_MUST_CHECK;

/*
 * One line of /proc/swaps, its end included or not. True when it is about the device, whose name the kernel may have
 * put " (deleted)" behind, or may know without the "/dev" in front. Pure.
 */
bool swap_area_match_line(const char *line, const char *device, uint64_t *ret_used_bytes);

#endif

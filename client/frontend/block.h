/*
 * What the front ends that are a block device of the kernel's have in common: swap on it, and its queue's settings.
 *
 * Control threads only, never the reactor that serves the device. `kind` names the front end in the log.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_BLOCK_H
#define FARSWAP_CLIENT_FRONTEND_BLOCK_H

#include "common/base/base.h"

/*
 * Writes the header of a swap area of nr_pages, and turns swap on. 0, or the error of swap_area_write or swap_area_on, after
 * one line in the log.
 */
int block_swap_on(const char *kind, const char *device, uint64_t nr_pages, int priority) BASE_MUST_CHECK;

/* As swap_area_off, with one line in the log when it fails. */
int block_swap_off(const char *kind, const char *device) BASE_MUST_CHECK;

/*
 * Tells the kernel what it cannot know of the device (/dev/NAME): that requests need not be sorted, that it has no writes of
 * its own to be held back for, and that requests of max_bytes are welcome. What a kernel does not know is left out; what it
 * refuses is logged. Documentation/ABI/stable/sysfs-block of Linux has the names.
 */
void block_tune(const char *kind, const char *device, uint32_t max_bytes);

#endif

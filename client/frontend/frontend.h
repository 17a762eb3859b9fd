/*
 * What the block front ends have in common: the memory that requests are served from, and swap on the device.
 *
 * A front end takes all its memory when it is opened and gives all of it back when it is closed; in between it allocates
 * nothing.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_FRONTEND_H
#define FARSWAP_CLIENT_FRONTEND_FRONTEND_H

#include "common/base/base.h"
#include "common/mem/region.h"

/*
 * Memory for a front end's requests: touched, and locked. Where the process may not lock so much, it is left unlocked
 * and the log says what that means; what is named by `what`. Errors of mem_region_open otherwise.
 */
int frontend_memory_open(struct mem_region *region, size_t len_bytes, const char *what) BASE_MUST_CHECK;

/*
 * Control thread; the reactors run. Writes the header to a device of nr_pages and turns swap on over it, with discards.
 * The errors of swap_area_write and swap_area_on, which the log has by then, in a line of `what`.
 */
int frontend_swap_on(const char *what, const char *device, uint64_t nr_pages, int priority) BASE_MUST_CHECK;

/*
 * Control thread. That a device which a dead process has left is not in use as swap: 0; -EBUSY when it is; the error of
 * looking. The log says which, in a line of `what`.
 */
int frontend_check_unused(const char *what, const char *device) BASE_MUST_CHECK;

/*
 * Control thread; the reactors run. As swap_area_off, whoever has turned it on: an operator may have, by swapon(8). The log
 * says why not, in a line of `what`.
 */
int frontend_swap_off(const char *what, const char *device) BASE_MUST_CHECK;

#endif

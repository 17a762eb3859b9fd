/*
 * What the block front ends have in common: the memory that requests are served from.
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

#endif

#include "client/frontend/frontend.h"

#include <errno.h>

#include "client/frontend/swaparea.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define SWAP_LABEL "farswap"

int frontend_memory_open(struct mem_region *region, size_t len_bytes, const char *what)
{
	const unsigned flags = MEM_REGION_TOUCH | MEM_REGION_TRY_HUGE | MEM_REGION_IO;
	int ret;

	ret = mem_region_open(region, len_bytes, flags | MEM_REGION_LOCK);
	if (ret != -EPERM && ret != -EAGAIN)
		return ret;
	log_warning("%s: may not lock %zu KiB of memory (%s): this machine must not swap onto the device", what,
		    len_bytes >> 10, err_text(ret));
	return mem_region_open(region, len_bytes, flags);
}

int frontend_swap_on(const char *what, const char *device, uint64_t nr_pages, int priority)
{
	int ret = swap_area_write(device, nr_pages, SWAP_LABEL);

	if (ret < 0) {
		log_error("%s: cannot write the swap header to %s: %s", what, device, err_text(ret));
		return ret;
	}
	ret = swap_area_on(device, priority);
	if (ret < 0)
		log_error("%s: cannot turn swap on at %s: %s", what, device, err_text(ret));
	return ret;
}

int frontend_swap_off(const char *what, const char *device)
{
	int ret = swap_area_off(device);

	if (ret < 0)
		log_error("%s: cannot turn swap off at %s: %s", what, device, err_text(ret));
	return ret;
}

int frontend_check_unused(const char *what, const char *device)
{
	uint64_t used_bytes;
	int ret = swap_area_used_bytes(device, &used_bytes);

	if (ret == -ENOENT)
		return 0;
	if (ret < 0) {
		log_error("%s: cannot see whether %s is in use as swap: %s", what, device, err_text(ret));
		return ret;
	}
	log_error("%s: %s of a process that has died is still in use as swap (%llu KiB): turn it off with swapoff(8) first",
		  what, device, (unsigned long long)(used_bytes >> 10));
	return -EBUSY;
}

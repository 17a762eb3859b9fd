#include "client/frontend/frontend.h"

#include "common/base/err.h"
#include "common/log/log.h"

int frontend_memory_open(struct mem_region *region, size_t len_bytes, const char *what)
{
	const unsigned flags = MEM_REGION_TOUCH | MEM_REGION_TRY_HUGE;
	int ret;

	ret = mem_region_open(region, len_bytes, flags | MEM_REGION_LOCK);
	if (ret != -EPERM && ret != -EAGAIN)
		return ret;
	log_warning("%s: may not lock %zu KiB of memory (%s): this machine must not swap onto the device", what,
		    len_bytes >> 10, err_text(ret));
	return mem_region_open(region, len_bytes, flags);
}

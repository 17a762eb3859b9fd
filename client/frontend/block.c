#include "client/frontend/block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/frontend/swaparea.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define SWAP_LABEL "farswap"

int block_swap_on(const char *kind, const char *device, uint64_t nr_pages, int priority)
{
	int ret;

	ret = swap_area_write(device, nr_pages, SWAP_LABEL);
	if (ret < 0) {
		log_error("%s: cannot write the swap header to %s: %s", kind, device, err_text(ret));
		return ret;
	}
	ret = swap_area_on(device, priority);
	if (ret < 0)
		log_error("%s: cannot turn swap on at %s: %s", kind, device, err_text(ret));
	return ret;
}

int block_swap_off(const char *kind, const char *device)
{
	int ret = swap_area_off(device);

	if (ret < 0)
		log_error("%s: cannot turn swap off at %s: %s", kind, device, err_text(ret));
	return ret;
}

/* 0; -ENOENT when the kernel has no such setting. */
static int set_attribute(const char *name, const char *attribute, const char *value)
{
	char path[128];
	int fd, ret = 0;

	snprintf(path, sizeof(path), "/sys/block/%s/queue/%s", name, attribute);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

void block_tune(const char *kind, const char *device, uint32_t max_bytes)
{
	char max_kib[16];
	const struct {
		const char *attribute, *value;
	} settings[] = {
		{ "scheduler", "none" },
		{ "wbt_lat_usec", "0" },
		{ "max_sectors_kb", max_kib },
	};
	const char *name = strrchr(device, '/') + 1;

	snprintf(max_kib, sizeof(max_kib), "%u", max_bytes >> 10);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(settings); i++) {
		int ret = set_attribute(name, settings[i].attribute, settings[i].value);

		if (ret < 0 && ret != -ENOENT)
			log_warning("%s: %s: the kernel does not take %s for %s: %s", kind, device, settings[i].value,
				    settings[i].attribute, err_text(ret));
	}
}

#include "client/frontend/blockdev.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/log/log.h"

/* The descriptor, or a negative errno. */
static int open_attr(const char *dir, const char *attr, int flags)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", dir, attr) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	return err_from_libc(open(path, flags | O_CLOEXEC));
}

int blockdev_attr_read(const char *dir, const char *attr, char text[BLOCKDEV_TEXT_BYTES])
{
	int fd = open_attr(dir, attr, O_RDONLY);
	ssize_t nr;
	int ret = 0;

	if (fd < 0)
		return fd;
	nr = read(fd, text, BLOCKDEV_TEXT_BYTES - 1);
	if (nr < 0) {
		ret = -errno;
	} else {
		text[nr] = '\0';
		text[strcspn(text, "\n")] = '\0';
	}
	close(fd);
	return ret;
}

int blockdev_attr_read_u64(const char *dir, const char *attr, uint64_t *ret_value)
{
	char text[BLOCKDEV_TEXT_BYTES], *end;
	int ret = blockdev_attr_read(dir, attr, text);
	uint64_t value;

	if (ret < 0)
		return ret;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0)
		return -EPROTO;
	*ret_value = value;
	return 0;
}

int blockdev_attr_write(const char *dir, const char *attr, const char *text)
{
	int fd = open_attr(dir, attr, O_WRONLY);
	ssize_t nr;
	int ret = 0;

	if (fd < 0)
		return fd;
	nr = write(fd, text, strlen(text));
	if (nr < 0)
		ret = -errno;
	else if ((size_t)nr != strlen(text))
		ret = -EIO;
	close(fd);
	return ret;
}

static int limit_requests(const char *dir, uint32_t max_bytes)
{
	char text[16];
	uint64_t kib;
	int ret;

	snprintf(text, sizeof(text), "%" PRIu32, max_bytes >> 10);
	ret = blockdev_attr_write(dir, "queue/max_sectors_kb", text);
	if (ret < 0)
		log_debug("%s/queue/max_sectors_kb cannot be set to %s: %s", dir, text, err_text(ret));
	ret = blockdev_attr_read_u64(dir, "queue/max_sectors_kb", &kib);
	if (ret == 0 && kib <= max_bytes >> 10)
		return 0;
	log_error("%s/queue/max_sectors_kb is not %s, and longer requests are not served", dir, text);
	return -EOPNOTSUPP;
}

int blockdev_tune(const char *dir, uint32_t max_bytes)
{
	static const struct {
		const char *attr, *text;
	} wishes[] = {
		{ "queue/scheduler", "none" },
		{ "queue/rotational", "0" },
		{ "queue/wbt_lat_usec", "0" },
		{ "queue/add_random", "0" },
		/* The last: with each of the queue's limits that is set, the kernel chooses it anew. */
		{ "queue/read_ahead_kb", "0" },
	};
	int limited = limit_requests(dir, max_bytes);

	for (size_t i = 0; i < BASE_ARRAY_SIZE(wishes); i++) {
		int ret = blockdev_attr_write(dir, wishes[i].attr, wishes[i].text);

		/* Not every kernel has all, nor lets all be changed, and it works without. */
		if (ret < 0)
			log_info("%s/%s cannot be set to %s: %s", dir, wishes[i].attr, wishes[i].text, err_text(ret));
	}
	return limited;
}

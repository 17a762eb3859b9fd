#include "client/frontend/fuse/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/err.h"

/* Others may take the device that was just named as free. */
#define ATTEMPTS_MAX 16

static int configure(int fd, int backing_fd, const char *file)
{
	struct loop_config config = { .fd = (uint32_t)backing_fd, .block_size = FSW_PAGE_SIZE };

	/* Should this process die, the device goes when swap is off. */
	config.info.lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_AUTOCLEAR;
	snprintf((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "%s", file);
	return err_from_libc(ioctl(fd, LOOP_CONFIGURE, &config));
}

static int check_direct_io(int fd)
{
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
		return -errno;
	return info.lo_flags & LO_FLAGS_DIRECT_IO ? 0 : -EOPNOTSUPP;
}

/* One try. -EBUSY: somebody else was faster. */
static int attach_free(int control_fd, int backing_fd, const char *file, struct loop_device *ret_loop)
{
	struct loop_device loop;
	int number, ret;

	number = ioctl(control_fd, LOOP_CTL_GET_FREE);
	if (number < 0)
		return -errno;
	snprintf(loop.path, sizeof(loop.path), "/dev/loop%d", number);
	loop.fd = open(loop.path, O_RDWR | O_CLOEXEC);
	if (loop.fd < 0)
		return -errno;
	ret = configure(loop.fd, backing_fd, file);
	if (ret < 0)
		goto out_close;
	ret = check_direct_io(loop.fd);
	if (ret < 0)
		goto out_clear;
	*ret_loop = loop;
	return 0;

out_clear:
	(void)ioctl(loop.fd, LOOP_CLR_FD);
out_close:
	close(loop.fd);
	return ret;
}

int loop_device_attach(const char *file, struct loop_device *ret_loop)
{
	int control_fd, backing_fd, ret;

	control_fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control_fd < 0)
		return errno == ENOENT ? -ENODEV : -errno;
	backing_fd = open(file, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (backing_fd < 0) {
		ret = -errno;
		goto out_control;
	}
	for (unsigned i = 0; i < ATTEMPTS_MAX; i++) {
		ret = attach_free(control_fd, backing_fd, file, ret_loop);
		if (ret != -EBUSY)
			break;
	}
	/* The device has a reference of its own. */
	close(backing_fd);
out_control:
	close(control_fd);
	return ret;
}

int loop_device_detach(struct loop_device *loop)
{
	int ret = err_from_libc(ioctl(loop->fd, LOOP_CLR_FD));

	close(loop->fd);
	loop->fd = -1;
	return ret;
}

int loop_device_clear(const char *path)
{
	int fd, ret;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = err_from_libc(ioctl(fd, LOOP_CLR_FD));
	close(fd);
	return ret == -ENXIO ? 0 : ret;
}

/* True when the loop device of that name in /sys/block has its pages at `file`. */
static bool is_backed_by(const char *name, const char *file)
{
	char path[300], backing[4096];
	FILE *stream;

	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", name);
	stream = fopen(path, "re");
	if (!stream)
		return false; /* free */
	if (!fgets(backing, sizeof(backing), stream))
		backing[0] = '\0';
	fclose(stream);
	backing[strcspn(backing, "\n")] = '\0';
	return strcmp(backing, file) == 0;
}

int loop_device_find(const char *file, int (*fn)(const char *path, void *arg), void *arg)
{
	char path[LOOP_PATH_BYTES];
	struct dirent *entry;
	int ret = 0;
	DIR *dir;

	dir = opendir("/sys/block");
	if (!dir)
		return -errno;
	while (ret >= 0 && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "loop", 4) != 0 || !is_backed_by(entry->d_name, file))
			continue;
		if (snprintf(path, sizeof(path), "/dev/%s", entry->d_name) < (int)sizeof(path))
			ret = fn(path, arg);
	}
	closedir(dir);
	return ret < 0 ? ret : 0;
}

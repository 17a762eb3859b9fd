/*
 * The file or block device under the slabs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "client/backend/disk/internal.h"
#include "common/base/err.h"

/* Asked first: a fallocate that fails half way has filled the file system. */
static int file_has_room(int fd, uint64_t size_bytes)
{
	struct statvfs vfs;
	struct stat st;
	uint64_t has_bytes, room_bytes;

	if (fstat(fd, &st) < 0 || fstatvfs(fd, &vfs) < 0)
		return -errno;
	has_bytes = (uint64_t)st.st_blocks * 512;
	room_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	return size_bytes > has_bytes && size_bytes - has_bytes > room_bytes ? -ENOSPC : 0;
}

static int file_allocate(struct disk_file *file, uint64_t size_bytes)
{
	int ret;

	if (size_bytes == 0)
		return -EINVAL;
	ret = file_has_room(file->fd, size_bytes);
	if (ret < 0)
		return ret;
	do
		ret = err_from_libc(fallocate(file->fd, 0, 0, (off_t)size_bytes));
	while (ret == -EINTR);
	if (ret < 0)
		return ret;
	file->size_bytes = size_bytes;
	return 0;
}

static int file_measure_device(struct disk_file *file, uint64_t size_bytes, uint64_t slab_bytes)
{
	uint64_t device_bytes;

	if (ioctl(file->fd, BLKGETSIZE64, &device_bytes) < 0)
		return -errno;
	if (size_bytes == 0)
		size_bytes = base_align_down(device_bytes, slab_bytes);
	if (size_bytes == 0 || size_bytes > device_bytes)
		return -ENOSPC;
	file->size_bytes = size_bytes;
	return 0;
}

/* Finds out what it is and opens it. */
static int file_open(const char *path, struct disk_file *file)
{
	int flags = O_RDWR | O_DIRECT | O_CLOEXEC;
	struct stat st;

	if (stat(path, &st) == 0) {
		if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
			return -ENOTBLK;
		file->is_device = S_ISBLK(st.st_mode);
	} else if (errno == ENOENT) {
		file->is_new = true;
	} else {
		return -errno;
	}
	/* With a device O_EXCL means that nothing has it mounted or otherwise in use; with O_CREAT, that it is ours. */
	if (file->is_device || file->is_new)
		flags |= O_EXCL;
	if (file->is_new)
		flags |= O_CREAT;
	file->fd = open(path, flags, 0600);
	if (file->fd >= 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	/* No O_DIRECT here, which is found out when the file has been made. */
	if (file->is_new)
		unlink(path);
	return -EOPNOTSUPP;
}

int disk_file_open(const char *path, uint64_t size_bytes, uint64_t slab_bytes, struct disk_file *ret_file)
{
	struct disk_file file = { .fd = -1 };
	int ret;

	ret = file_open(path, &file);
	if (ret < 0)
		return ret;
	if (flock(file.fd, LOCK_EX | LOCK_NB) < 0) {
		ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
		file.is_new = false; /* somebody else's by now */
	} else if (file.is_device) {
		ret = file_measure_device(&file, size_bytes, slab_bytes);
	} else {
		ret = file_allocate(&file, size_bytes);
	}
	if (ret < 0) {
		disk_file_close(&file, path, true);
		return ret;
	}
	*ret_file = file;
	return 0;
}

void disk_file_close(struct disk_file *file, const char *path, bool remove)
{
	if (file->fd < 0)
		return;
	if (remove && file->is_new)
		unlink(path);
	close(file->fd);
	file->fd = -1;
}

int disk_file_discard(const struct disk_file *file, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t range[2] = { offset_bytes, len_bytes };

	if (!file->is_device)
		return 0;
	return err_from_libc(ioctl(file->fd, BLKDISCARD, range));
}

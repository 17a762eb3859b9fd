#include "tests/conform/file_holder.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct file_holder {
	struct conform_holder holder;
	int fd;
	bool is_device;
};

struct conform_victim {
	pid_t pid;
};

static int fd_of(const struct conform_holder *holder)
{
	return BASE_CONTAINER_OF(holder, struct file_holder, holder)->fd;
}

static int result_of(int ret)
{
	return ret < 0 ? -errno : ret;
}

/* Without the page cache, which would make answers up. */
static int open_file(const char *path)
{
	return result_of(open(path, O_RDWR | O_DIRECT | O_CLOEXEC));
}

/* Of a file not by lseek, which waits for writes that are in flight. */
static int learn_size(struct file_holder *file)
{
	int sector_bytes;
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	file->is_device = S_ISBLK(st.st_mode);
	if (!file->is_device) {
		file->holder.size_bytes = (uint64_t)st.st_size;
		file->holder.block_bytes = (uint32_t)st.st_blksize;
		return 0;
	}
	if (ioctl(file->fd, BLKGETSIZE64, &file->holder.size_bytes) < 0 || ioctl(file->fd, BLKSSZGET, &sector_bytes) < 0)
		return -errno;
	file->holder.block_bytes = (uint32_t)sector_bytes;
	return 0;
}

int file_holder_open(const char *path, struct conform_holder **ret_holder)
{
	struct file_holder *file = calloc(1, sizeof(*file));
	int ret;

	assert(file);
	ret = open_file(path);
	if (ret < 0)
		goto out_file;
	file->fd = ret;
	ret = learn_size(file);
	if (ret < 0)
		goto out_fd;
	*ret_holder = &file->holder;
	return 0;

out_fd:
	close(file->fd);
out_file:
	free(file);
	return ret;
}

void file_holder_close(struct conform_holder *holder)
{
	close(fd_of(holder));
	free(BASE_CONTAINER_OF(holder, struct file_holder, holder));
}

int64_t file_holder_read(struct conform_holder *holder, void *buf, size_t len_bytes, uint64_t offset_bytes)
{
	ssize_t nr = pread(fd_of(holder), buf, len_bytes, (off_t)offset_bytes);

	return nr < 0 ? -errno : nr;
}

int64_t file_holder_write(struct conform_holder *holder, const void *buf, size_t len_bytes, uint64_t offset_bytes)
{
	ssize_t nr = pwrite(fd_of(holder), buf, len_bytes, (off_t)offset_bytes);

	return nr < 0 ? -errno : nr;
}

static int clear(struct conform_holder *holder, unsigned long request, int mode, uint64_t offset_bytes,
		 uint64_t len_bytes)
{
	struct file_holder *file = BASE_CONTAINER_OF(holder, struct file_holder, holder);
	uint64_t range[2] = { offset_bytes, len_bytes };

	if (file->is_device)
		return result_of(ioctl(file->fd, request, range));
	return result_of(fallocate(file->fd, mode, (off_t)offset_bytes, (off_t)len_bytes));
}

int file_holder_discard(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes)
{
	return clear(holder, BLKDISCARD, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_bytes, len_bytes);
}

int file_holder_write_zeroes(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes)
{
	return clear(holder, BLKZEROOUT, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset_bytes, len_bytes);
}

int file_holder_flush(struct conform_holder *holder)
{
	return result_of(fsync(fd_of(holder)));
}

/* After a fork of a process with threads: system calls and nothing else. */
static void write_as_victim(int fd, const void *buf, size_t len_bytes, uint64_t offset_bytes)
{
	/* What the parent has open must not stay open on our account, above all the front end's own descriptors. */
	if (dup2(fd, STDERR_FILENO + 1) < 0 || close_range(STDERR_FILENO + 2, ~0u, 0) < 0)
		_exit(1);
	_exit(pwrite(STDERR_FILENO + 1, buf, len_bytes, (off_t)offset_bytes) < 0);
}

int file_holder_doom(const char *path, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		     struct conform_victim **ret_victim)
{
	struct conform_victim *victim = calloc(1, sizeof(*victim));
	int fd, ret = 0;

	assert(victim);
	fd = open_file(path);
	if (fd < 0) {
		free(victim);
		return fd;
	}
	victim->pid = fork();
	if (victim->pid == 0)
		write_as_victim(fd, buf, len_bytes, offset_bytes);
	if (victim->pid < 0)
		ret = -errno;
	close(fd);
	if (ret < 0)
		free(victim);
	else
		*ret_victim = victim;
	return ret;
}

void file_holder_kill(struct conform_victim *victim)
{
	kill(victim->pid, SIGKILL);
}

void file_holder_bury(struct conform_victim *victim)
{
	while (waitpid(victim->pid, NULL, 0) < 0)
		assert(errno == EINTR);
	free(victim);
}

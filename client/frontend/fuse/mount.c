/*
 * The mount, by mount(2): libfuse's own would ask mount(8) and fusermount3(1) in other processes. And what a process
 * that died has left at the same place.
 */
#include "client/frontend/fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/frontend/frontend.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define MOUNT_TYPE "fuse.farswap"
#define NESTED_MAX 16 /* mounts on top of each other */

int fuse_mountpoint_mount(const char *dir)
{
	char data[128];
	int fd, ret;

	fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENXIO ? -ENODEV : -errno;
	snprintf(data, sizeof(data), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fd, geteuid(), getegid());
	if (mount("farswap", dir, MOUNT_TYPE, MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, data) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

void fuse_mountpoint_unmount(const char *dir)
{
	if (umount2(dir, UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT)
		return;
	log_warning("fuse: %s is in use (%s), it goes when it is not", dir, err_text(-errno));
	if (umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH) < 0)
		log_error("fuse: cannot unmount %s: %s", dir, err_text(-errno));
}

/* Compares with the kernel's way of writing a path: \040 for a space and the like. */
static bool path_matches(const char *escaped, size_t escaped_bytes, const char *path)
{
	const char *end = escaped + escaped_bytes;

	for (; escaped < end; path++) {
		unsigned c = (unsigned char)*escaped;

		if (c == '\\' && end - escaped >= 4) {
			c = (unsigned)((escaped[1] - '0') << 6 | (escaped[2] - '0') << 3 | (escaped[3] - '0'));
			escaped += 4;
		} else {
			escaped++;
		}
		if (c != (unsigned char)*path)
			return false;
	}
	return *path == '\0';
}

/* ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS, see proc_pid_mountinfo(5). */
bool fuse_mountpoint_match_line(const char *line, const char *dir, char *type, size_t type_bytes)
{
	const char *separator = strstr(line, " - ");
	const char *p = line;
	size_t len;

	for (unsigned i = 0; i < 4; i++) {
		p = strchr(p, ' ');
		if (!p)
			return false;
		p++;
	}
	if (!separator || separator < p || !path_matches(p, strcspn(p, " "), dir))
		return false;
	len = strcspn(separator + 3, " \n");
	if (len >= type_bytes)
		return false;
	memcpy(type, separator + 3, len);
	type[len] = '\0';
	return true;
}

/* 0 and the type of what is mounted on top at dir; -ENOENT when nothing is. */
static int mounted_type(const char *dir, char *type, size_t type_bytes)
{
	size_t line_bytes = 0;
	char *line = NULL;
	int ret = -ENOENT;
	FILE *file;

	file = fopen("/proc/self/mountinfo", "re");
	if (!file)
		return -errno;
	/* The last one is the one on top. */
	while (getline(&line, &line_bytes, file) > 0)
		if (fuse_mountpoint_match_line(line, dir, type, type_bytes))
			ret = 0;
	free(line);
	fclose(file);
	return ret;
}

/* arg: a flag that there was one. The log says what goes wrong with it. */
static int clear_loop(const char *path, void *arg)
{
	int ret;

	*(bool *)arg = true;
	ret = frontend_check_unused("fuse", path);
	if (ret < 0)
		return ret;
	ret = loop_device_clear(path);
	if (ret < 0) {
		log_error("fuse: cannot detach %s of a process that has died: %s", path, err_text(ret));
		return ret;
	}
	log_notice("fuse: detached %s of a process that has died", path);
	return 0;
}

/* Removes the loop device and mount of a process that is dead: the caller holds the lock file. */
static int clear_remains(const char *dir, const char *file)
{
	bool found = false;
	char type[64];
	int ret;

	ret = loop_device_find(file, clear_loop, &found);
	if (ret < 0 && ret != -ENOENT) {
		if (!found)
			log_error("fuse: cannot look for loop devices: %s", err_text(ret));
		return ret;
	}
	for (unsigned i = 0; i < NESTED_MAX; i++) {
		ret = mounted_type(dir, type, sizeof(type));
		if (ret == -ENOENT)
			return 0;
		if (ret < 0) {
			log_error("fuse: cannot see what is mounted at %s: %s", dir, err_text(ret));
			return ret;
		}
		if (strcmp(type, MOUNT_TYPE) != 0) {
			log_error("fuse: a file system of type %s is mounted at %s", type, dir);
			return -EBUSY;
		}
		/* Who holds the lock file knows that nobody serves it. */
		if (umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH) < 0) {
			ret = -errno;
			log_error("fuse: cannot unmount %s of a process that has died: %s", dir, err_text(ret));
			return ret;
		}
		log_notice("fuse: unmounted %s of a process that has died", dir);
	}
	log_error("fuse: %d file systems and more are mounted at %s", NESTED_MAX, dir);
	return -EBUSY;
}

/* Makes the directories above the last part of path. */
static int make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		int ret = 0;

		*slash = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			ret = -errno;
		*slash = '/';
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Whoever holds the lock serves the directory; the kernel drops it with the process. */
static int take_lock(struct fuse_frontend *frontend)
{
	int fd, ret;

	fd = open(frontend->lock_file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		ret = -errno;
		log_error("fuse: cannot open %s: %s", frontend->lock_file, err_text(ret));
		return ret;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
		if (ret == -EBUSY)
			log_error("fuse: another process serves %s: %s", frontend->mount_dir, err_text(ret));
		else
			log_error("fuse: cannot lock %s: %s", frontend->lock_file, err_text(ret));
		close(fd);
		return ret;
	}
	frontend->lock_fd = fd;
	return 0;
}

int fuse_mountpoint_take(struct fuse_frontend *frontend)
{
	int ret;

	ret = make_parents(frontend->mount_dir);
	if (ret < 0) {
		log_error("fuse: cannot make the folders above %s: %s", frontend->mount_dir, err_text(ret));
		return ret;
	}
	ret = take_lock(frontend);
	if (ret < 0)
		return ret;
	ret = clear_remains(frontend->mount_dir, frontend->file);
	if (ret < 0)
		goto out_lock;
	if (mkdir(frontend->mount_dir, 0700) == 0) {
		frontend->made_dir = true;
	} else if (errno != EEXIST) {
		ret = -errno;
		log_error("fuse: cannot make %s: %s", frontend->mount_dir, err_text(ret));
		goto out_lock;
	}
	return 0;

out_lock:
	close(frontend->lock_fd);
	return ret;
}

/* The lock file stays: to remove it would let two processes hold the lock of one name. */
void fuse_mountpoint_leave(struct fuse_frontend *frontend)
{
	if (frontend->made_dir)
		(void)rmdir(frontend->mount_dir);
	close(frontend->lock_fd);
}

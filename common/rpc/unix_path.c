/*
 * Who owns the path of a unix socket. gRPC removes whatever socket it finds at a path before it binds there, and so
 * would take it away from a daemon that is alive. Therefore a server first locks "<path>.lock" and holds it for as long
 * as it has the socket; the kernel drops the lock of a process that dies.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"

/* The locked file, or a negative errno. */
static int unix_path_lock(const char *lock_path)
{
	for (;;) {
		struct stat ours, there;
		int fd = err_from_libc(open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));

		if (fd < 0)
			return fd;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			int err = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;

			close(fd);
			return err;
		}
		/* Its last owner may have removed the file between our open and our lock: then it guards nothing. */
		if (fstat(fd, &ours) == 0 && stat(lock_path, &there) == 0 && ours.st_ino == there.st_ino &&
		    ours.st_dev == there.st_dev)
			return fd;
		close(fd);
	}
}

/* Is somebody there who knows nothing of the lock? 0 nobody, -EADDRINUSE, or another negative errno. */
static int unix_path_probe(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = err_from_libc(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	int ret = 0;

	if (fd < 0)
		return fd;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		ret = -errno;
	close(fd);

	switch (ret) {
	case -ECONNREFUSED:
	case -ENOENT: return 0;
	case 0:
	case -EAGAIN:	  /* its backlog is full */
	case -EPROTOTYPE: /* of another type */ return -EADDRINUSE;
	default: return ret;
	}
}

static int unix_path_clear(const char *path)
{
	struct stat there;
	int ret;

	if (lstat(path, &there) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(there.st_mode))
		return -EEXIST;
	ret = unix_path_probe(path);
	if (ret < 0)
		return ret;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int rpc_unix_path_claim(const char *path, struct rpc_unix_path **ret_path)
{
	struct rpc_unix_path *claim;
	int ret;

	if (strlen(path) >= sizeof(claim->path))
		return -ENAMETOOLONG;
	claim = calloc(1, sizeof(*claim));
	if (!claim)
		return -ENOMEM;
	snprintf(claim->path, sizeof(claim->path), "%s", path);
	snprintf(claim->lock_path, sizeof(claim->lock_path), "%s.lock", path);

	claim->lock_fd = unix_path_lock(claim->lock_path);
	if (claim->lock_fd < 0) {
		ret = claim->lock_fd;
		goto err_free;
	}
	ret = unix_path_clear(path);
	if (ret < 0)
		goto err_unlock;
	*ret_path = claim;
	return 0;

err_unlock:
	unlink(claim->lock_path);
	close(claim->lock_fd);
err_free:
	free(claim);
	return ret;
}

void rpc_unix_path_release(struct rpc_unix_path *path)
{
	unlink(path->path); /* gRPC may have done it */
	unlink(path->lock_path);
	close(path->lock_fd);
	free(path);
}

/*
 * The front end suite over the FUSE front end: its file, and a loop device over that file, which is what the kernel swaps
 * on. Needs root, /dev/fuse and loop devices.
 *
 * The file system is served by the process that uses it: a request that is never answered would leave a process that
 * cannot even be killed. So each mount has a watchdog, and all are in a mount namespace that ends with the process.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "client/frontend/fuse/fuse.h"
#include "tests/conform/file_holder.h"

#define PATIENCE_S 60 /* with a case, which takes a second */

/* A request has hung: nothing more is to be tried. */
static atomic_bool hung;
static bool has_namespace;

struct conform_server {
	struct fuse_frontend *fuse;
	char dir[32];
	char mount_dir[40];
	char path[48]; /* of the file, or the loop device */
	pthread_t watchdog;
	pthread_mutex_t lock; /* of stopped, with changed */
	pthread_cond_t changed;
	bool stopped;
};

static const char *fuse_missing(void)
{
	if (geteuid() != 0)
		return "not root, and it mounts a file system";
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return "there is no /dev/fuse";
	if (access("/dev/loop-control", R_OK | W_OK) < 0)
		return "there are no loop devices";
	if (has_namespace)
		return NULL;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return "it may not mount anything here";
	has_namespace = true;
	return NULL;
}

/* Ends what is in flight, so that whoever waits for it fails. */
static void *watchdog_main(void *arg)
{
	struct conform_server *server = arg;
	struct timespec deadline;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&server->lock);
	while (!server->stopped && ret == 0)
		ret = pthread_cond_clockwait(&server->changed, &server->lock, CLOCK_MONOTONIC, &deadline);
	if (!server->stopped) {
		fprintf(stderr, "a request has hung for %d s: the connection to the kernel is cut\n", PATIENCE_S);
		atomic_store(&hung, true);
		(void)umount2(server->mount_dir, MNT_FORCE);
	}
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

static void remove_dir(struct conform_server *server)
{
	char lock_file[48];

	snprintf(lock_file, sizeof(lock_file), "%s.lock", server->mount_dir);
	unlink(lock_file);
	rmdir(server->dir);
}

static int start(const struct conform_config *config, struct vswap *vswap, bool loop, struct conform_server **ret_server)
{
	struct conform_server *server = calloc(1, sizeof(*server));
	struct fuse_frontend_options options = { .vswap = vswap, .nr_queues = config->nr_queues,
						 .spin_us = config->spin_us, .loop = loop, .priority = -1 };
	int ret;

	assert(server);
	ret = -ETIMEDOUT;
	if (atomic_load(&hung))
		goto out_server;
	snprintf(server->dir, sizeof(server->dir), "/tmp/conform_fuse_XXXXXX");
	if (!mkdtemp(server->dir)) {
		ret = -errno;
		goto out_server;
	}
	snprintf(server->mount_dir, sizeof(server->mount_dir), "%s/mount", server->dir);
	options.mount_dir = server->mount_dir;
	ret = fuse_frontend_start(&options, &server->fuse);
	if (ret < 0)
		goto out_dir;
	if (loop)
		snprintf(server->path, sizeof(server->path), "%s", fuse_frontend_device(server->fuse));
	else
		snprintf(server->path, sizeof(server->path), "%s/" FUSE_FRONTEND_FILE, server->mount_dir);
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->changed, NULL);
	ret = -pthread_create(&server->watchdog, NULL, watchdog_main, server);
	assert(ret == 0);
	*ret_server = server;
	return 0;

out_dir:
	remove_dir(server);
out_server:
	free(server);
	return ret;
}

static int fuse_start(const struct conform_config *config, struct vswap *vswap, struct conform_server **ret_server)
{
	return start(config, vswap, false, ret_server);
}

static int loop_start(const struct conform_config *config, struct vswap *vswap, struct conform_server **ret_server)
{
	return start(config, vswap, true, ret_server);
}

static void fuse_stop(struct conform_server *server)
{
	int ret = fuse_frontend_stop(server->fuse);

	assert(ret == 0); /* there is no swap that could stay on */
	pthread_mutex_lock(&server->lock);
	server->stopped = true;
	pthread_cond_signal(&server->changed);
	pthread_mutex_unlock(&server->lock);
	pthread_join(server->watchdog, NULL);
	pthread_cond_destroy(&server->changed);
	pthread_mutex_destroy(&server->lock);
	remove_dir(server);
	free(server);
}

/* In the kernel's list of mounts: to look at the path itself would be a request. */
static bool fuse_is_up(const struct conform_server *server)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char line[1024];
	bool found = false;

	assert(mounts);
	while (!found && fgets(line, sizeof(line), mounts))
		found = strstr(line, server->mount_dir);
	fclose(mounts);
	return found;
}

static int fuse_open(struct conform_server *server, struct conform_holder **ret_holder)
{
	return file_holder_open(server->path, ret_holder);
}

static int fuse_doom(struct conform_server *server, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		     struct conform_victim **ret_victim)
{
	return file_holder_doom(server->path, buf, len_bytes, offset_bytes, ret_victim);
}

#define MAX_BYTES (1u << 20)
#define COMMON_FUNCTIONS \
	.missing = fuse_missing, .stop = fuse_stop, .is_up = fuse_is_up, .open = fuse_open, .close = file_holder_close, \
	.read = file_holder_read, .write = file_holder_write, .discard = file_holder_discard, \
	.write_zeroes = file_holder_write_zeroes, .flush = file_holder_flush, .doom = fuse_doom, \
	.kill = file_holder_kill, .bury = file_holder_bury

static const struct conform_frontend fuse = {
	COMMON_FUNCTIONS,
	.start = fuse_start,
	.max_bytes = MAX_BYTES,
	.outcomes = {
		.misaligned = -EINVAL,
		.empty = CONFORM_WHOLE,
		.oversized = CONFORM_WHOLE,
		.read_across = CONFORM_SHORT,
		.read_beyond = CONFORM_SHORT,
		.write_across = -EFBIG,
		.write_beyond = -EFBIG,
		.discard_across = -EINVAL,
		.discard_beyond = -EINVAL,
		.zero_across = -EINVAL,
		.zero_beyond = -EINVAL,
		.no_room = -ENOSPC,
	},
};

static const struct conform_frontend loop = {
	COMMON_FUNCTIONS,
	.start = loop_start,
	.max_bytes = MAX_BYTES,
	.outcomes = FILE_HOLDER_BLOCK_DEVICE_OUTCOMES(-ENOSPC),
};

static const struct conform_config configs[] = {
	{ .name = "fuse", .frontend = &fuse, .nr_queues = 1, .nr_holders = 1 },
	{ .name = "fuse, two queues", .frontend = &fuse, .nr_queues = 2, .nr_holders = 2 },
	{ .name = "fuse, reactors that ask", .frontend = &fuse, .nr_queues = 2, .nr_holders = 2, .spin_us = 50 },
	{ .name = "fuse, loop device", .frontend = &loop, .nr_queues = 2, .nr_holders = 2 },
};

int main(void)
{
	return conform_frontend_main("conform_frontend_fuse", configs, BASE_ARRAY_SIZE(configs));
}

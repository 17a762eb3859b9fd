/*
 * Puts the front end up step by step, and takes it down in the opposite order.
 */
#include "client/frontend/fuse/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/frontend/frontend.h"
#include "client/frontend/fuse/internal.h"
#include "client/frontend/swaparea.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/sem.h"

#define HANDSHAKE_S 10

/* The names of mount_dir: without slashes at its end, of its file, and of its lock. */
static int take_names(struct fuse_frontend *frontend, const char *mount_dir)
{
	size_t len = strlen(mount_dir);

	while (len > 1 && mount_dir[len - 1] == '/')
		len--;
	if (mount_dir[0] != '/' || len == 1) {
		log_error("fuse: %s is not the absolute path of a folder to mount at", mount_dir);
		return -EINVAL;
	}
	frontend->mount_dir = strndup(mount_dir, len);
	if (!frontend->mount_dir)
		goto out_of_memory;
	if (asprintf(&frontend->file, "%s/" FUSE_FRONTEND_FILE, frontend->mount_dir) < 0) {
		frontend->file = NULL;
		goto out_of_memory;
	}
	if (asprintf(&frontend->lock_file, "%s.lock", frontend->mount_dir) < 0) {
		frontend->lock_file = NULL;
		goto out_of_memory;
	}
	return 0;

out_of_memory:
	log_error("fuse: out of memory");
	return -ENOMEM;
}

static void free_names(struct fuse_frontend *frontend)
{
	free(frontend->lock_file);
	free(frontend->file);
	free(frontend->mount_dir);
}

static int open_queues(struct fuse_frontend *frontend, unsigned spin_us)
{
	unsigned nr;
	int ret;

	frontend->queues = aligned_alloc(FSW_CACHE_LINE, frontend->nr_queues * sizeof(*frontend->queues));
	if (!frontend->queues)
		return -ENOMEM;
	memset(frontend->queues, 0, frontend->nr_queues * sizeof(*frontend->queues));
	for (nr = 0; nr < frontend->nr_queues; nr++) {
		ret = fuse_queue_init(&frontend->queues[nr], frontend, nr, spin_us);
		if (ret < 0)
			goto out_queues;
	}
	return 0;

out_queues:
	while (nr > 0)
		fuse_queue_done(&frontend->queues[--nr]);
	free(frontend->queues);
	return ret;
}

static void free_queues(struct fuse_frontend *frontend)
{
	for (unsigned i = 0; i < frontend->nr_queues; i++)
		fuse_queue_done(&frontend->queues[i]);
	free(frontend->queues);
}

/* A descriptor of its own on the same connection, so that two reactors do not meet at one queue of the kernel's. */
static int clone_fd(int session_fd)
{
	uint32_t source = (uint32_t)session_fd;
	int fd, ret;

	fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, FUSE_DEV_IOC_CLONE, &source) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

/* The first queue's descriptor is the session's. */
static void stop_serving(struct fuse_frontend *frontend)
{
	for (unsigned i = 0; i < frontend->nr_queues; i++) {
		fuse_queue_close(&frontend->queues[i]);
		if (i > 0 && frontend->queues[i].fd >= 0)
			close(frontend->queues[i].fd);
	}
}

static int start_serving(struct fuse_frontend *frontend, int session_fd)
{
	int fd, ret;

	for (unsigned i = 0; i < frontend->nr_queues; i++)
		frontend->queues[i].session = frontend->session;
	ret = fuse_queue_open(&frontend->queues[0], session_fd);
	if (ret < 0)
		goto out_stop;
	ret = sys_sem_wait(&frontend->initialized, HANDSHAKE_S);
	if (ret < 0)
		goto out_stop;
	for (unsigned i = 1; i < frontend->nr_queues; i++) {
		fd = clone_fd(session_fd);
		if (fd < 0) {
			ret = fd;
			goto out_stop;
		}
		ret = fuse_queue_open(&frontend->queues[i], fd);
		if (ret < 0)
			goto out_stop;
	}
	return 0;

out_stop:
	stop_serving(frontend);
	return ret;
}

static int mount_and_serve(struct fuse_frontend *frontend)
{
	int fd, ret;

	fd = fuse_mountpoint_mount(frontend->mount_dir);
	if (fd < 0) {
		log_error("fuse: cannot mount at %s: %s", frontend->mount_dir, err_text(fd));
		return fd;
	}
	ret = fuse_library_open(frontend, fd);
	if (ret < 0) {
		log_error("fuse: libfuse does not open %s: %s", frontend->mount_dir, err_text(ret));
		fuse_mountpoint_unmount(frontend->mount_dir);
		close(fd);
		return ret;
	}
	ret = start_serving(frontend, fd);
	if (ret < 0) {
		log_error("fuse: cannot serve %s: %s", frontend->mount_dir, err_text(ret));
		fuse_mountpoint_unmount(frontend->mount_dir);
		fuse_library_close(frontend);
	}
	return ret;
}

static void unmount(struct fuse_frontend *frontend)
{
	/* Served to the last: the kernel may have a word to say while it unmounts. */
	fuse_mountpoint_unmount(frontend->mount_dir);
	stop_serving(frontend);
	fuse_library_close(frontend);
}

static int attach_loop(struct fuse_frontend *frontend)
{
	int ret;

	ret = loop_device_attach(frontend->file, &frontend->loop);
	if (ret < 0) {
		log_error("fuse: cannot attach a loop device to %s: %s", frontend->file, err_text(ret));
		return ret;
	}
	snprintf(frontend->device, sizeof(frontend->device), "%s", frontend->loop.path);
	return 0;
}

static void detach_loop(struct fuse_frontend *frontend)
{
	int ret;

	if (frontend->device[0] == '\0')
		return;
	ret = loop_device_detach(&frontend->loop);
	if (ret < 0)
		log_error("fuse: cannot detach %s: %s", frontend->device, err_text(ret));
	frontend->device[0] = '\0';
}

static int put_up(struct fuse_frontend *frontend, const struct fuse_frontend_options *options)
{
	int ret;

	ret = fuse_mountpoint_take(frontend);
	if (ret < 0)
		return ret;
	ret = open_queues(frontend, options->spin_us);
	if (ret < 0) {
		log_error("fuse: no memory to serve %s from: %s", frontend->mount_dir, err_text(ret));
		goto out_dir;
	}
	ret = mount_and_serve(frontend);
	if (ret < 0)
		goto out_queues;
	if (options->loop || options->swap) {
		ret = attach_loop(frontend);
		if (ret < 0)
			goto out_mount;
	}
	if (options->swap) {
		ret = frontend_swap_on("fuse", frontend->device, frontend->nr_pages, options->priority);
		if (ret < 0)
			goto out_loop;
	}
	return 0;

out_loop:
	detach_loop(frontend);
out_mount:
	unmount(frontend);
out_queues:
	free_queues(frontend);
out_dir:
	fuse_mountpoint_leave(frontend);
	return ret;
}

int fuse_frontend_start(const struct fuse_frontend_options *options, struct fuse_frontend **ret_frontend)
{
	struct fuse_frontend *frontend;
	int ret;

	if (options->nr_queues == 0)
		return -EINVAL;
	frontend = calloc(1, sizeof(*frontend));
	if (!frontend) {
		log_error("fuse: out of memory");
		return -ENOMEM;
	}
	frontend->vswap = options->vswap;
	frontend->nr_pages = vswap_nr_pages(options->vswap);
	frontend->nr_queues = options->nr_queues;
	sem_init(&frontend->initialized, 0, 0);
	ret = take_names(frontend, options->mount_dir);
	if (ret == 0)
		ret = put_up(frontend, options);
	if (ret < 0) {
		free_names(frontend);
		sem_destroy(&frontend->initialized);
		free(frontend);
		return ret;
	}
	*ret_frontend = frontend;
	return 0;
}

int fuse_frontend_swap_off(struct fuse_frontend *frontend)
{
	return frontend->device[0] == '\0' ? 0 : frontend_swap_off("fuse", frontend->device);
}

int fuse_frontend_stop(struct fuse_frontend *frontend)
{
	int ret;

	if (!frontend)
		return 0;
	ret = fuse_frontend_swap_off(frontend);
	if (ret < 0)
		return ret;
	detach_loop(frontend);
	unmount(frontend);
	free_queues(frontend);
	fuse_mountpoint_leave(frontend);
	free_names(frontend);
	sem_destroy(&frontend->initialized);
	free(frontend);
	return 0;
}

const char *fuse_frontend_device(const struct fuse_frontend *frontend)
{
	return frontend->device;
}

int fuse_frontend_swap_used_bytes(const struct fuse_frontend *frontend, uint64_t *ret_used_bytes)
{
	if (frontend->device[0] == '\0')
		return -ENOENT;
	return swap_area_used_bytes(frontend->device, ret_used_bytes);
}

void fuse_frontend_counters(const struct fuse_frontend *frontend, struct fuse_frontend_counters *ret_counters)
{
	const struct fuse_queue_counters *first = &frontend->queues[0].counters;
	size_t nr = frontend->nr_queues, stride = sizeof(frontend->queues[0]);

	*ret_counters = (struct fuse_frontend_counters){
		.reads = stats_counter_sum(&first->reads, nr, stride),
		.writes = stats_counter_sum(&first->writes, nr, stride),
		.discards = stats_counter_sum(&first->discards, nr, stride),
		.syncs = stats_counter_sum(&first->syncs, nr, stride),
		.other = stats_counter_sum(&first->other, nr, stride),
		.bad_requests = stats_counter_sum(&first->bad_requests, nr, stride),
		.io_errors = stats_counter_sum(&first->io_errors, nr, stride),
		.kernel_errors = stats_counter_sum(&first->kernel_errors, nr, stride),
	};
}

#include "client/surface.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/frontend/fuse/fuse.h"
#include "client/frontend/nbd/nbd.h"
#include "common/base/err.h"
#include "common/base/lock.h"
#include "common/log/log.h"

struct surface {
	/* Both are written by the main thread only, and freed only after they were taken out here. */
	struct lock_mutex lock;
	struct fuse_frontend *fuse LOCK_GUARDED_BY(lock);
	struct nbd_server *nbd LOCK_GUARDED_BY(lock);
};

static int open_fuse(struct surface *surface, const struct settings *settings, struct vswap *vswap)
{
	struct fuse_frontend_options options = {
		.mount_dir = settings->mount_dir,
		.vswap = vswap,
		.nr_queues = settings->nr_queues,
		.spin_us = settings->spin_us,
		.loop = true,
		.swap = settings->swap,
		.priority = settings->swap_priority,
	};
	struct fuse_frontend *fuse;
	int ret;

	if (geteuid() != 0) {
		log_error("frontend: fuse mounts and swaps, which only root may do");
		return -EPERM;
	}
	ret = fuse_frontend_start(&options, &fuse);
	if (ret < 0) {
		log_error("frontend: fuse at %s: %s", settings->mount_dir, err_text(ret));
		return ret;
	}
	lock_acquire(&surface->lock);
	surface->fuse = fuse;
	lock_release(&surface->lock);
	return 0;
}

static int open_nbd(struct surface *surface, const struct settings *settings, struct vswap *vswap)
{
	struct nbd_server_options options = {
		.address = settings->nbd_listen,
		.vswap = vswap,
		.nr_queues = settings->nr_queues,
		.spin_us = settings->spin_us,
	};
	struct nbd_server *nbd;
	int ret = nbd_server_open(&options, &nbd);

	if (ret < 0) {
		log_error("nbd_listen: %s: %s", settings->nbd_listen, err_text(ret));
		return ret;
	}
	lock_acquire(&surface->lock);
	surface->nbd = nbd;
	lock_release(&surface->lock);
	return 0;
}

int surface_open(const struct settings *settings, struct vswap *vswap, struct surface **ret_surface)
{
	struct surface *surface = calloc(1, sizeof(*surface));
	int ret = 0;

	if (!surface) {
		log_error("frontend: out of memory");
		return -ENOMEM;
	}
	lock_mutex_init(&surface->lock);
	switch (settings->frontend) {
	case SETTINGS_FUSE:
		ret = open_fuse(surface, settings, vswap);
		break;
	case SETTINGS_NBD:
		ret = open_nbd(surface, settings, vswap);
		break;
	case SETTINGS_NONE:
		break;
	}
	if (ret < 0) {
		surface_free(surface);
		return ret;
	}
	*ret_surface = surface;
	return 0;
}

static struct fuse_frontend *take_fuse(struct surface *surface, struct fuse_frontend *instead)
{
	struct fuse_frontend *fuse;

	lock_acquire(&surface->lock);
	fuse = surface->fuse;
	surface->fuse = instead;
	lock_release(&surface->lock);
	return fuse;
}

static int close_fuse(struct surface *surface)
{
	struct fuse_frontend *fuse = surface->fuse;
	int ret;

	if (!fuse)
		return 0;
	/* The long part first, while others may still look. */
	ret = fuse_frontend_swap_off(fuse);
	if (ret < 0)
		return ret;
	take_fuse(surface, NULL);
	ret = fuse_frontend_stop(fuse);
	if (ret < 0)
		take_fuse(surface, fuse);
	return ret;
}

static void close_nbd(struct surface *surface)
{
	struct nbd_server *nbd;

	lock_acquire(&surface->lock);
	nbd = surface->nbd;
	surface->nbd = NULL;
	lock_release(&surface->lock);
	nbd_server_close(nbd);
}

int surface_close(struct surface *surface)
{
	int ret = close_fuse(surface);

	if (ret == 0)
		close_nbd(surface);
	return ret;
}

void surface_free(struct surface *surface)
{
	if (!surface)
		return;
	lock_mutex_done(&surface->lock);
	free(surface);
}

static void look_at_fuse(struct fuse_frontend *fuse, struct admin_frontend *frontend)
{
	struct fuse_frontend_counters counters;

	frontend->kind = "fuse";
	snprintf(frontend->endpoint, sizeof(frontend->endpoint), "%s", fuse_frontend_device(fuse));
	frontend->swap_on = fuse_frontend_swap_used_bytes(fuse, &frontend->swap_used_bytes) == 0;
	fuse_frontend_counters(fuse, &counters);
	frontend->counters = (struct admin_frontend_counters){
		.bad_requests = counters.bad_requests,
		.io_errors = counters.io_errors,
		.kernel_errors = counters.kernel_errors,
	};
}

static void look_at_nbd(struct nbd_server *nbd, struct admin_frontend *frontend)
{
	struct nbd_server_counters counters;
	struct sys_address address;
	char text[SYS_ADDRESS_MAX];

	frontend->kind = "nbd";
	nbd_server_address(nbd, &address);
	sys_address_format(&address, text);
	snprintf(frontend->endpoint, sizeof(frontend->endpoint), "%s", text);
	nbd_server_counters(nbd, &counters);
	frontend->counters = (struct admin_frontend_counters){
		.accepted = counters.accepted,
		.refused = counters.refused,
		.protocol_errors = counters.protocol_errors,
		.truncated = counters.truncated,
		.timeouts = counters.timeouts,
		.bad_requests = counters.bad_requests,
		.io_errors = counters.io_errors,
		.connections = (uint32_t)counters.connections,
	};
}

void surface_look(struct surface *surface, struct admin_frontend *ret_frontend)
{
	*ret_frontend = (struct admin_frontend){ .kind = "" };
	lock_acquire(&surface->lock);
	if (surface->fuse)
		look_at_fuse(surface->fuse, ret_frontend);
	else if (surface->nbd)
		look_at_nbd(surface->nbd, ret_frontend);
	lock_release(&surface->lock);
}

#include "client/surface_kinds.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "client/frontend/fuse/fuse.h"
#include "client/frontend/nbd/kernel.h"
#include "client/frontend/nbd/nbd.h"
#include "client/frontend/ublk/ublk.h"
#include "common/base/err.h"
#include "common/log/log.h"

static struct admin_frontend_counters counters_of_nbd(const struct nbd_server_counters *counters)
{
	return (struct admin_frontend_counters){
		.accepted = counters->accepted,
		.refused = counters->refused,
		.protocol_errors = counters->protocol_errors,
		.truncated = counters->truncated,
		.timeouts = counters->timeouts,
		.bad_requests = counters->bad_requests,
		.io_errors = counters->io_errors,
		.connections = (uint32_t)counters->connections,
	};
}

/* ---- ublk ---- */

static void ublk_made(void *arg, const struct ublk_device_name *name)
{
	state_set_device(arg, "ublk", name->id, name->flags);
}

static int ublk_open(const struct settings *settings, struct vswap *vswap, struct state *state, void **ret_frontend)
{
	struct ublk_frontend_options options = {
		.made = state ? ublk_made : NULL,
		.made_arg = state,
		.kept = state ? state_number(state) : 0,
		.vswap = vswap,
		.nr_queues = settings->nr_queues,
		.spin_us = settings->spin_us,
		.swap = settings->swap,
		.priority = settings->swap_priority,
	};
	struct ublk_frontend *ublk;
	struct ublk_device_name name;
	int ret;

	if (state && state_is_left(state)) {
		(void)state_device(state, &name.id, &name.flags);
		options.again = &name;
	}
	ret = ublk_frontend_start(&options, &ublk);
	if (ret < 0 && state && !options.again)
		state_set_device(state, "", 0, 0);
	if (ret == 0)
		*ret_frontend = ublk;
	return ret;
}

static int ublk_swap_off(void *frontend)
{
	return ublk_frontend_swap_off(frontend);
}

static int ublk_stop(void *frontend)
{
	return ublk_frontend_stop(frontend);
}

static void ublk_look(void *frontend, struct admin_frontend *seen)
{
	struct ublk_frontend_counters counters;

	snprintf(seen->endpoint, sizeof(seen->endpoint), "%s", ublk_frontend_device(frontend));
	seen->swap_on = ublk_frontend_swap_used_bytes(frontend, &seen->swap_used_bytes) == 0;
	ublk_frontend_counters(frontend, &counters);
	seen->counters = (struct admin_frontend_counters){
		.bad_requests = counters.bad_requests,
		.io_errors = counters.io_errors,
		.kernel_errors = counters.kernel_errors,
	};
}

/* ---- the kernel's NBD client ---- */

static int nbd_kernel_open(const struct settings *settings, struct vswap *vswap, struct state *state, void **ret_frontend)
{
	struct nbd_kernel_options options = {
		.vswap = vswap,
		.nr_queues = settings->nr_queues,
		.nr_connections = settings->nbd_connections,
		.spin_us = settings->spin_us,
		.index = settings->nbd_index,
		.timeout_s = settings_longest_request_s(settings),
		.swap = settings->swap,
		.priority = settings->swap_priority,
	};
	struct nbd_kernel *kernel;
	int ret = nbd_kernel_start(&options, &kernel);

	(void)state; /* its device does not outlive the daemon */
	if (ret == 0)
		*ret_frontend = kernel;
	return ret;
}

static int nbd_kernel_off(void *frontend)
{
	return nbd_kernel_swap_off(frontend);
}

static int nbd_kernel_down(void *frontend)
{
	return nbd_kernel_stop(frontend);
}

static void nbd_kernel_look(void *frontend, struct admin_frontend *seen)
{
	struct nbd_server_counters counters;

	snprintf(seen->endpoint, sizeof(seen->endpoint), "%s", nbd_kernel_device(frontend));
	seen->swap_on = nbd_kernel_swap_used_bytes(frontend, &seen->swap_used_bytes) == 0;
	nbd_kernel_counters(frontend, &counters);
	seen->counters = counters_of_nbd(&counters);
}

/* ---- FUSE ---- */

static int fuse_probe(void)
{
	if (access("/dev/fuse", R_OK | W_OK) < 0 || access("/dev/loop-control", R_OK | W_OK) < 0)
		return errno == ENOENT ? -ENODEV : -errno;
	return 0;
}

static int fuse_open(const struct settings *settings, struct vswap *vswap, struct state *state, void **ret_frontend)
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
	int ret = fuse_frontend_start(&options, &fuse);

	(void)state; /* its device does not outlive the daemon */
	if (ret == 0)
		*ret_frontend = fuse;
	return ret;
}

static int fuse_swap_off(void *frontend)
{
	return fuse_frontend_swap_off(frontend);
}

static int fuse_stop(void *frontend)
{
	return fuse_frontend_stop(frontend);
}

static void fuse_look(void *frontend, struct admin_frontend *seen)
{
	struct fuse_frontend_counters counters;

	snprintf(seen->endpoint, sizeof(seen->endpoint), "%s", fuse_frontend_device(frontend));
	seen->swap_on = fuse_frontend_swap_used_bytes(frontend, &seen->swap_used_bytes) == 0;
	fuse_frontend_counters(frontend, &counters);
	seen->counters = (struct admin_frontend_counters){
		.bad_requests = counters.bad_requests,
		.io_errors = counters.io_errors,
		.kernel_errors = counters.kernel_errors,
	};
}

/* ---- NBD, for whoever connects ---- */

static int nbd_open(const struct settings *settings, struct vswap *vswap, struct state *state, void **ret_frontend)
{
	struct nbd_server_options options = {
		.address = settings->nbd_listen,
		.vswap = vswap,
		.nr_queues = settings->nr_queues,
		.spin_us = settings->spin_us,
	};
	struct nbd_server *nbd;
	int ret;

	/* Before anybody can have pages on it. Who had some when the daemon died connects again by itself. */
	if (state)
		state_set_device(state, "nbd", 0, 0);
	ret = nbd_server_open(&options, &nbd);
	if (ret < 0 && state && !state_is_left(state))
		state_set_device(state, "", 0, 0);
	if (ret < 0)
		log_error("nbd_listen: %s: %s", settings->nbd_listen, err_text(ret));
	else
		*ret_frontend = nbd;
	return ret;
}

static int nbd_stop(void *frontend)
{
	nbd_server_close(frontend);
	return 0;
}

static void nbd_look(void *frontend, struct admin_frontend *seen)
{
	struct nbd_server_counters counters;
	struct sys_address address;
	char text[SYS_ADDRESS_MAX];

	nbd_server_address(frontend, &address);
	sys_address_format(&address, text);
	snprintf(seen->endpoint, sizeof(seen->endpoint), "%s", text);
	nbd_server_counters(frontend, &counters);
	seen->counters = counters_of_nbd(&counters);
}

/* ---- all of them ---- */

const struct surface_kind surface_kinds[] = {
	{ .name = "ublk", .setting = SETTINGS_UBLK, .needs_root = true, .probe = ublk_frontend_probe, .open = ublk_open,
	  .swap_off = ublk_swap_off, .stop = ublk_stop, .look = ublk_look },
	{ .name = "nbd-kernel", .setting = SETTINGS_NBD_KERNEL, .needs_root = true, .probe = nbd_kernel_probe,
	  .open = nbd_kernel_open, .swap_off = nbd_kernel_off, .stop = nbd_kernel_down, .look = nbd_kernel_look },
	{ .name = "fuse", .setting = SETTINGS_FUSE, .needs_root = true, .probe = fuse_probe, .open = fuse_open,
	  .swap_off = fuse_swap_off, .stop = fuse_stop, .look = fuse_look },
	{ .name = "nbd", .setting = SETTINGS_NBD, .open = nbd_open, .stop = nbd_stop, .look = nbd_look },
	{ .name = NULL },
};

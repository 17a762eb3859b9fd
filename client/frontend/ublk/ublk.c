/*
 * Puts the front end up step by step, and takes it down in the opposite order.
 */
#include "client/frontend/ublk/ublk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/frontend/blockdev.h"
#include "client/frontend/frontend.h"
#include "client/frontend/owner.h"
#include "client/frontend/swaparea.h"
#include "client/frontend/ublk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define SECTORS_PER_PAGE (1u << (FSW_PAGE_SHIFT - UBLK_SECTOR_SHIFT))
/* Of a discard or a range of zeroes: what 32 bits of bytes can say, in whole GiB. */
#define MAX_DISCARD_SECTORS ((3ull << 30) >> UBLK_SECTOR_SHIFT)

struct ublk_frontend {
	struct ublk_control control;
	struct ublk_device device;
	uint64_t nr_pages;
};

static int check_flags(const struct ublksrv_ctrl_dev_info *info)
{
	static const struct {
		uint64_t flag;
		const char *name;
	} needed[] = {
		{ UBLK_F_NEED_GET_DATA, "NEED_GET_DATA" },
		{ UBLK_F_USER_RECOVERY, "USER_RECOVERY" },
		{ UBLK_F_USER_RECOVERY_REISSUE, "USER_RECOVERY_REISSUE" },
	};

	for (size_t i = 0; i < BASE_ARRAY_SIZE(needed); i++)
		if (!(info->flags & needed[i].flag)) {
			log_error("ublk: this kernel's driver has no UBLK_F_%s", needed[i].name);
			return -EOPNOTSUPP;
		}
	return 0;
}

static int set_params(struct ublk_frontend *frontend, const struct ublksrv_ctrl_dev_info *info)
{
	/* No attributes: neither rotational, nor with a volatile cache that would have to be flushed. */
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD,
		.basic = {
			.logical_bs_shift = FSW_PAGE_SHIFT,
			.physical_bs_shift = FSW_PAGE_SHIFT,
			.io_opt_shift = FSW_PAGE_SHIFT,
			.io_min_shift = FSW_PAGE_SHIFT,
			.max_sectors = info->max_io_buf_bytes >> UBLK_SECTOR_SHIFT,
			.dev_sectors = frontend->nr_pages * SECTORS_PER_PAGE,
		},
		.discard = {
			.discard_granularity = FSW_PAGE_SIZE,
			.max_discard_sectors = MAX_DISCARD_SECTORS,
			.max_write_zeroes_sectors = MAX_DISCARD_SECTORS,
			.max_discard_segments = 1,
		},
	};
	int ret = ublk_control_set_params(&frontend->control, info->dev_id, &params);

	if (ret < 0)
		log_error("ublk: the kernel refuses a device of %llu pages: %s", (unsigned long long)frontend->nr_pages,
			  err_text(ret));
	return ret;
}

static void tune(const struct ublksrv_ctrl_dev_info *info)
{
	char dir[32];

	snprintf(dir, sizeof(dir), "/sys/block/ublkb%u", info->dev_id);
	/* Longer requests do not come, whatever sysfs is told: the driver has a limit of its own. */
	if (blockdev_tune(dir, info->max_io_buf_bytes) < 0)
		log_info("ublk: %s is as the kernel has made it", dir);
}

/* The device has been made: serves it, and starts it. */
static int bring_up(struct ublk_frontend *frontend, const struct ublk_frontend_options *options,
		    const struct ublksrv_ctrl_dev_info *info)
{
	int ret = check_flags(info);

	if (ret == 0)
		ret = set_params(frontend, info);
	if (ret == 0)
		ret = ublk_device_open(&frontend->device, &frontend->control, info, options->vswap, UBLK_DEVICE_NEW,
				       options->spin_us);
	if (ret < 0) {
		ublk_device_forget(&frontend->control, info->dev_id);
		return ret;
	}
	ret = ublk_control_start(&frontend->control, info->dev_id);
	if (ret < 0) {
		log_error("ublk: cannot start %s: %s", frontend->device.path, err_text(ret));
		goto out_device;
	}
	tune(info);
	if (options->made)
		options->made(options->made_arg, &(struct ublk_device_name){ info->dev_id, info->ublksrv_flags });
	if (options->swap) {
		ret = frontend_swap_on("ublk", frontend->device.path, frontend->nr_pages, options->priority);
		if (ret < 0)
			goto out_device;
	}
	return 0;

out_device:
	ublk_device_delete(&frontend->device);
	return ret;
}

static int make_device(struct ublk_frontend *frontend, const struct ublk_frontend_options *options, uint64_t mark)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = (uint16_t)options->nr_queues,
		.queue_depth = UBLK_QUEUE_NR_TAGS,
		.max_io_buf_bytes = UBLK_BIG_BYTES,
		.dev_id = UBLK_CONTROL_ANY_ID,
		.ublksrv_pid = getpid(),
		.flags = UBLK_FLAGS,
		.ublksrv_flags = UBLK_OURS << UBLK_OURS_SHIFT | (uint64_t)options->kept << UBLK_KEPT_SHIFT | mark,
	};
	int ret = ublk_control_add(&frontend->control, &info);

	if (ret < 0) {
		log_error("ublk: cannot make a device: %s", err_text(ret));
		return ret;
	}
	ret = bring_up(frontend, options, &info);
	if (ret == 0)
		log_info("ublk: %s with %u queues of %u requests, at most %u KiB each", frontend->device.path,
			 frontend->device.nr_queues, info.queue_depth, info.max_io_buf_bytes >> 10);
	return ret;
}

/* Swap is on, unless that was what the server died of, or before. */
static int go_on(struct ublk_frontend *frontend, const struct ublk_frontend_options *options)
{
	uint64_t used_bytes;
	int ret = ublk_dead_go_on(&frontend->control, options->vswap, options->again, options->nr_queues,
				  options->spin_us, &frontend->device);

	if (ret < 0 || !options->swap || swap_area_used_bytes(frontend->device.path, &used_bytes) == 0)
		return ret;
	return frontend_swap_on("ublk", frontend->device.path, frontend->nr_pages, options->priority);
}

static int open_control(struct ublk_control *control)
{
	int ret = ublk_control_open(control);

	if (ret == -ENODEV)
		log_error("ublk: there is no /dev/ublk-control: the kernel's module ublk_drv is not loaded");
	else if (ret < 0)
		log_error("ublk: cannot use /dev/ublk-control: %s", err_text(ret));
	return ret;
}

int ublk_frontend_start(const struct ublk_frontend_options *options, struct ublk_frontend **ret_frontend)
{
	struct ublk_frontend *frontend;
	uint64_t mark;
	int ret;

	if (options->nr_queues == 0 || options->kept > UBLK_KEPT_MASK)
		return -EINVAL;
	ret = frontend_owner_mark(getpid(), &mark);
	if (ret < 0) {
		log_error("ublk: cannot look at this process in /proc: %s", err_text(ret));
		return ret;
	}
	frontend = calloc(1, sizeof(*frontend));
	if (!frontend) {
		log_error("ublk: out of memory");
		return -ENOMEM;
	}
	frontend->nr_pages = vswap_nr_pages(options->vswap);
	ret = open_control(&frontend->control);
	if (ret < 0)
		goto out_frontend;
	/* First, since who waits for it may be needed by all that follows. */
	if (options->again)
		ret = go_on(frontend, options);
	if (ret == 0)
		ret = ublk_dead_take_down(&frontend->control, options->vswap, options->kept, options->again);
	if (ret == 0 && !options->again)
		ret = make_device(frontend, options, mark);
	if (ret < 0)
		goto out_control;
	*ret_frontend = frontend;
	return 0;

out_control:
	ublk_control_close(&frontend->control);
out_frontend:
	free(frontend);
	return ret;
}

int ublk_frontend_is_there(const struct ublk_device_name *name)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	struct ublk_control control;
	int ret = open_control(&control);

	if (ret < 0)
		return ret;
	ret = ublk_control_get_info(&control, name->id, &info);
	ublk_control_close(&control);
	if (ret < 0 && ret != -ENODEV && ret != -EINVAL) { /* of Linux since, and before 6.2 */
		log_error("ublk: cannot look at device %u: %s", name->id, err_text(ret));
		return ret;
	}
	return ret == 0 && info.ublksrv_flags == name->flags && info.state != UBLK_S_DEV_DEAD;
}

int ublk_frontend_probe(void)
{
	struct ublk_control control;
	int ret = ublk_control_open(&control);

	if (ret == 0)
		ublk_control_close(&control);
	return ret;
}

int ublk_frontend_swap_off(struct ublk_frontend *frontend)
{
	return frontend_swap_off("ublk", frontend->device.path);
}

int ublk_frontend_stop(struct ublk_frontend *frontend)
{
	int ret;

	if (!frontend)
		return 0;
	ret = ublk_frontend_swap_off(frontend);
	if (ret < 0)
		return ret;
	ublk_device_delete(&frontend->device);
	ublk_control_close(&frontend->control);
	free(frontend);
	return 0;
}

const char *ublk_frontend_device(const struct ublk_frontend *frontend)
{
	return frontend->device.path;
}

int ublk_frontend_swap_used_bytes(const struct ublk_frontend *frontend, uint64_t *ret_used_bytes)
{
	return swap_area_used_bytes(frontend->device.path, ret_used_bytes);
}

void ublk_frontend_counters(const struct ublk_frontend *frontend, struct ublk_frontend_counters *ret_counters)
{
	const struct ublk_queue_counters *first = &frontend->device.queues[0].counters;
	size_t nr = frontend->device.nr_queues, stride = sizeof(frontend->device.queues[0]);

	*ret_counters = (struct ublk_frontend_counters){
		.reads = stats_counter_sum(&first->reads, nr, stride),
		.writes = stats_counter_sum(&first->writes, nr, stride),
		.discards = stats_counter_sum(&first->discards, nr, stride),
		.flushes = stats_counter_sum(&first->flushes, nr, stride),
		.bad_requests = stats_counter_sum(&first->bad_requests, nr, stride),
		.io_errors = stats_counter_sum(&first->io_errors, nr, stride),
		.kernel_errors = stats_counter_sum(&first->kernel_errors, nr, stride),
	};
}

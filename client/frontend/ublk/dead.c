/*
 * Devices of servers that are dead. The kernel keeps such a device, and all who ask it for something wait. Without what their
 * server knew, their pages cannot be had: the device is taken over, answers everything with an error, and so its swap can be
 * turned off, and those end who had pages there.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "client/frontend/swaparea.h"
#include "client/frontend/ublk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define CLASS_DIR "/sys/class/ublk-char"
/* The kernel looks every few seconds whether servers live. */
#define QUIESCE_PATIENCE_MS 15000u
#define QUIESCE_LOOK_MS 50u

static bool server_is_dead(const struct ublksrv_ctrl_dev_info *info)
{
	return info->ublksrv_pid <= 0 || (kill(info->ublksrv_pid, 0) < 0 && errno == ESRCH);
}

/* The server has died, but the kernel may not have noticed; there is nothing that tells when it has. */
static int begin_recovery(struct ublk_control *control, uint32_t id)
{
	const struct timespec pause = { .tv_nsec = QUIESCE_LOOK_MS * 1000000l };
	unsigned waited_ms;
	int ret = -EBUSY;

	for (waited_ms = 0; waited_ms <= QUIESCE_PATIENCE_MS; waited_ms += QUIESCE_LOOK_MS) {
		ret = ublk_control_begin_recovery(control, id);
		if (ret != -EBUSY)
			break;
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
	return ret;
}

static int end_swap(const struct ublk_device *device)
{
	uint64_t used_bytes = 0;
	int ret;

	if (swap_area_used_bytes(device->path, &used_bytes) < 0)
		return 0;
	log_warning("ublk: turns off the swap of a dead farswapd on %s: %llu KiB of it are lost", device->path,
		    (unsigned long long)used_bytes >> 10);
	ret = swap_area_off(device->path);
	if (ret < 0)
		log_error("ublk: the swap of a dead farswapd on %s cannot be turned off: %s", device->path, err_text(ret));
	return ret;
}

static int take_down(struct ublk_control *control, struct vswap *vswap, const struct ublksrv_ctrl_dev_info *info)
{
	struct ublk_device device;
	int ret, end;

	if (info->state == UBLK_S_DEV_DEAD) /* it was never started, or has been stopped */
		return ublk_control_delete(control, info->dev_id);
	ret = begin_recovery(control, info->dev_id);
	if (ret < 0)
		return ret;
	ret = ublk_device_open(&device, control, info, vswap, true, 0);
	if (ret < 0)
		return ret;
	ret = ublk_control_end_recovery(control, info->dev_id);
	end = ret == 0 ? end_swap(&device) : 0;
	ublk_device_delete(&device);
	return ret < 0 ? ret : end < 0 ? -EBUSY : 0;
}

int ublk_dead_take_down(struct ublk_control *control, struct vswap *vswap)
{
	DIR *dir = opendir(CLASS_DIR);
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while (ret != -EBUSY && (entry = readdir(dir))) {
		struct ublksrv_ctrl_dev_info info = { 0 };
		unsigned id;

		if (sscanf(entry->d_name, "ublkc%u", &id) != 1 || ublk_control_get_info(control, id, &info) < 0 ||
		    info.ublksrv_flags != UBLK_OURS || !server_is_dead(&info))
			continue;
		ret = take_down(control, vswap, &info);
		if (ret < 0)
			log_error("ublk: cannot take down device %u of a dead farswapd: %s", id, err_text(ret));
	}
	closedir(dir);
	return ret == -EBUSY ? ret : 0;
}

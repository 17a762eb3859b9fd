/*
 * Devices of servers that are dead. The kernel keeps such a device, and all who ask it for something wait. Of one the vswap may
 * have the pages (client/state): that is taken over, and served as before. Without what their server knew, those of others
 * cannot be had: the device is taken over, answers everything with an error, and so its swap can be turned off, and those end
 * who had pages there.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "client/frontend/owner.h"
#include "client/frontend/swaparea.h"
#include "client/frontend/ublk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define CLASS_DIR "/sys/class/ublk-char"
/* The kernel looks every few seconds whether servers live. */
#define QUIESCE_PATIENCE_MS 15000u
#define QUIESCE_LOOK_MS 50u

/* What an attempt of our own has left, before this one, is as dead. Numbers below 0 are of devices that have been stopped. */
static enum frontend_owner_state server_state(const struct ublksrv_ctrl_dev_info *info)
{
	const uint64_t mask = (1ull << FRONTEND_OWNER_MARK_BITS) - 1;
	enum frontend_owner_state state = frontend_owner_state(info->ublksrv_pid, info->ublksrv_flags & mask);

	if (info->ublksrv_pid < 0 || (state == FRONTEND_OWNER_LIVES && info->ublksrv_pid == getpid()))
		return FRONTEND_OWNER_DEAD;
	return state;
}

/* -EBUSY: the kernel says that the server lives. That of a dead one it may not have noticed, and nothing tells when it has. */
static int begin_recovery(struct ublk_control *control, uint32_t id, unsigned patience_ms)
{
	const struct timespec pause = { .tv_nsec = QUIESCE_LOOK_MS * 1000000l };
	unsigned waited_ms;
	int ret;

	for (waited_ms = 0;; waited_ms += QUIESCE_LOOK_MS) {
		ret = ublk_control_begin_recovery(control, id);
		if (ret != -EBUSY || waited_ms >= patience_ms)
			return ret;
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
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

static int take_over(struct ublk_control *control, struct vswap *vswap, const struct ublksrv_ctrl_dev_info *info,
		     struct ublk_device *device)
{
	int ret = ublk_device_open(device, control, info, vswap, UBLK_DEVICE_FAIL, 0);

	if (ret < 0)
		return ret;
	ret = ublk_control_end_recovery(control, info->dev_id);
	if (ret < 0) {
		log_error("ublk: cannot take over %s of a dead farswapd: %s", device->path, err_text(ret));
		ublk_device_delete(device);
	}
	return ret;
}

/* Who has its state file may go on with it. */
static bool is_kept_elsewhere(const struct ublksrv_ctrl_dev_info *info, unsigned kept)
{
	unsigned by = info->ublksrv_flags >> UBLK_KEPT_SHIFT & UBLK_KEPT_MASK;

	return by != 0 && by != kept;
}

/* -EBUSY: its swap cannot be turned off. What else goes wrong is only logged. */
static int take_down(struct ublk_control *control, struct vswap *vswap, const struct ublksrv_ctrl_dev_info *info,
		     unsigned kept)
{
	enum frontend_owner_state state = server_state(info);
	struct ublk_device device;
	int ret, end;

	if (is_kept_elsewhere(info, kept)) {
		if (state == FRONTEND_OWNER_DEAD)
			log_notice("ublk: device %u of a dead farswapd is left alone: a state file has its pages",
				   info->dev_id);
		return 0;
	}
	/* Where we cannot tell, the kernel can; but not whether a device that has not been started is about to be. */
	if (state == FRONTEND_OWNER_LIVES || (state == FRONTEND_OWNER_UNKNOWN && info->state == UBLK_S_DEV_DEAD))
		return 0;
	if (info->state == UBLK_S_DEV_DEAD) { /* it was never started, or has been stopped */
		ublk_device_forget(control, info->dev_id);
		return 0;
	}
	ret = begin_recovery(control, info->dev_id, state == FRONTEND_OWNER_DEAD ? QUIESCE_PATIENCE_MS : 0);
	if (ret == -EBUSY) {
		log_notice("ublk: device %u is left alone: the kernel says that its server lives", info->dev_id);
		return 0;
	}
	if (ret < 0)
		log_error("ublk: cannot take over device %u of a dead farswapd: %s", info->dev_id, err_text(ret));
	if (ret < 0 || take_over(control, vswap, info, &device) < 0)
		return 0;
	end = end_swap(&device);
	ublk_device_delete(&device);
	return end < 0 ? -EBUSY : 0;
}

bool ublk_dead_is_ours(const struct ublksrv_ctrl_dev_info *info)
{
	return info->ublksrv_flags >> UBLK_OURS_SHIFT == UBLK_OURS;
}

int ublk_dead_go_on(struct ublk_control *control, struct vswap *vswap, const struct ublk_device_name *name, unsigned nr_queues,
		    unsigned spin_us, struct ublk_device *device)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	int ret = ublk_control_get_info(control, name->id, &info);

	if (ret == 0 && (info.ublksrv_flags != name->flags || info.nr_hw_queues > nr_queues))
		ret = -EPROTO;
	if (ret == 0)
		ret = begin_recovery(control, name->id, QUIESCE_PATIENCE_MS);
	if (ret < 0) {
		log_error("ublk: cannot go on with device %u: %s", name->id, err_text(ret));
		return ret;
	}
	ret = ublk_device_open(device, control, &info, vswap, UBLK_DEVICE_AGAIN, spin_us);
	if (ret < 0)
		return ret;
	ret = ublk_control_end_recovery(control, name->id);
	if (ret < 0)
		log_error("ublk: cannot go on with %s: %s", device->path, err_text(ret));
	else
		log_notice("ublk: %s goes on; whoever waits for it is answered from now on", device->path);
	return ret;
}

int ublk_dead_take_down(struct ublk_control *control, struct vswap *vswap, unsigned kept,
			const struct ublk_device_name *except)
{
	DIR *dir = opendir(CLASS_DIR);
	struct dirent *entry;
	int ret = 0;

	if (!dir) {
		if (errno == ENOENT)
			return 0;
		ret = -errno;
		log_error("ublk: cannot look at " CLASS_DIR ": %s", err_text(ret));
		return ret;
	}
	while (ret == 0 && (entry = readdir(dir))) {
		struct ublksrv_ctrl_dev_info info = { 0 };
		unsigned id;

		if (sscanf(entry->d_name, "ublkc%u", &id) != 1 || (except && id == except->id) ||
		    ublk_control_get_info(control, id, &info) < 0 || !ublk_dead_is_ours(&info))
			continue;
		ret = take_down(control, vswap, &info, kept);
	}
	closedir(dir);
	return ret;
}

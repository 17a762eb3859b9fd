#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/frontend/ublk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"

static void free_queues(struct ublk_device *device, unsigned nr)
{
	while (nr > 0)
		ublk_queue_done(&device->queues[--nr]);
	free(device->queues);
}

static int init_queues(struct ublk_device *device, const struct ublksrv_ctrl_dev_info *info, struct vswap *vswap,
		       enum ublk_device_use use, unsigned spin_us)
{
	bool fails = use == UBLK_DEVICE_FAIL;
	unsigned nr;
	int ret;

	device->queues = aligned_alloc(FSW_CACHE_LINE, device->nr_queues * sizeof(*device->queues));
	if (!device->queues)
		return -ENOMEM;
	memset(device->queues, 0, device->nr_queues * sizeof(*device->queues));
	for (nr = 0; nr < device->nr_queues; nr++) {
		/* A dead server may have had more queues than we have reactors. */
		struct vswap_queue *vqueue = vswap_queue(vswap, fails ? 0 : nr);

		ret = ublk_queue_init(&device->queues[nr], fails ? NULL : vqueue, vswap_queue_reactor(vqueue), nr,
				      info->queue_depth, spin_us);
		if (ret < 0) {
			free_queues(device, nr);
			return ret;
		}
	}
	return 0;
}

static void stop(struct ublk_device *device)
{
	int ret = ublk_control_stop(device->control, device->id);

	if (ret < 0)
		log_error("ublk: cannot stop %s: %s", device->path, err_text(ret));
}

/* When the kernel ends what was fetched: closes all. If it does not, the memory of the queues is given up. */
static void close_queues(struct ublk_device *device)
{
	bool have_ended = true;

	for (unsigned i = 0; i < device->nr_queues; i++)
		if (!ublk_queue_close(&device->queues[i]))
			have_ended = false;
	if (have_ended)
		free_queues(device, device->nr_queues);
	close(device->fd);
}

int ublk_device_open(struct ublk_device *device, struct ublk_control *control, const struct ublksrv_ctrl_dev_info *info,
		     struct vswap *vswap, enum ublk_device_use use, unsigned spin_us)
{
	char path[UBLK_FRONTEND_PATH_BYTES];
	int ret;

	*device = (struct ublk_device){ .control = control, .id = info->dev_id, .nr_queues = info->nr_hw_queues };
	if (info->nr_hw_queues == 0 || info->queue_depth == 0 || info->queue_depth > UBLK_QUEUE_NR_TAGS ||
	    info->max_io_buf_bytes > UBLK_BIG_BYTES) {
		log_error("ublk: device %u has %u queues of %u requests of %u bytes, which cannot be served", info->dev_id,
			  info->nr_hw_queues, info->queue_depth, info->max_io_buf_bytes);
		return -EPROTO;
	}
	snprintf(device->path, sizeof(device->path), "/dev/ublkb%u", info->dev_id);
	snprintf(path, sizeof(path), "/dev/ublkc%u", info->dev_id);
	device->fd = open(path, O_RDWR | O_CLOEXEC);
	if (device->fd < 0) {
		ret = -errno;
		log_error("ublk: %s: %s", path, err_text(ret));
		return ret;
	}
	ret = init_queues(device, info, vswap, use, spin_us);
	if (ret < 0) {
		log_error("ublk: no memory to serve %s from: %s", device->path, err_text(ret));
		close(device->fd);
		return ret;
	}
	for (unsigned i = 0; i < device->nr_queues && ret == 0; i++)
		ret = ublk_queue_open(&device->queues[i], device->fd, control->encoded);
	if (ret < 0) {
		log_error("ublk: cannot serve %s: %s", device->path, err_text(ret));
		if (use == UBLK_DEVICE_AGAIN)
			return ret;
		/* Ends what has been fetched, also of a device that was never started. */
		stop(device);
		close_queues(device);
	}
	return ret;
}

void ublk_device_delete(struct ublk_device *device)
{
	stop(device);
	close_queues(device);
	ublk_device_forget(device->control, device->id);
}

void ublk_device_forget(struct ublk_control *control, uint32_t id)
{
	int ret = ublk_control_delete(control, id);

	if (ret < 0)
		log_error("ublk: cannot delete device %u: %s", id, err_text(ret));
}

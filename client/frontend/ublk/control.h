/*
 * /dev/ublk-control: devices are made, started, stopped, taken over and deleted there, each by a command in a ring of its own.
 *
 * Control thread. Each command blocks until the kernel has carried it out.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_UBLK_CONTROL_H
#define FARSWAP_CLIENT_FRONTEND_UBLK_CONTROL_H

#include <liburing.h>

#include "client/frontend/ublk/abi.h"
#include "common/base/base.h"

#define UBLK_CONTROL_ANY_ID UINT32_MAX

struct ublk_control {
	struct io_uring ring;
	int fd;
	uint64_t nr_commands;
	bool encoded; /* numbers are those of ioctls */
};

/*
 * 0; -ENODEV: there is no /dev/ublk-control, so the driver is not there; -EPERM, -EACCES: no right to use it, or to io_uring;
 * -ENOSYS: no io_uring; others of open and io_uring_setup.
 */
int ublk_control_open(struct ublk_control *control) BASE_MUST_CHECK;
void ublk_control_close(struct ublk_control *control);

/*
 * Makes the device that *info describes; the kernel fills in its number, where that was UBLK_CONTROL_ANY_ID, and what it has
 * made of queues, depth, buffer size and flags. 0; -EEXIST; -ENOMEM; -ENOSPC: no more devices; -EINVAL.
 */
int ublk_control_add(struct ublk_control *control, struct ublksrv_ctrl_dev_info *info) BASE_MUST_CHECK;
/* 0; -ENODEV without such a device. */
int ublk_control_get_info(struct ublk_control *control, uint32_t id, struct ublksrv_ctrl_dev_info *ret_info) BASE_MUST_CHECK;
int ublk_control_set_params(struct ublk_control *control, uint32_t id, struct ublk_params *params) BASE_MUST_CHECK;
/* When every tag of every queue has been fetched for. The block device is there afterwards; it has been read from already. */
int ublk_control_start(struct ublk_control *control, uint32_t id) BASE_MUST_CHECK;
/* Whoever has the block device open gets errors from now on. What was fetched ends with UBLK_IO_RES_ABORT. */
int ublk_control_stop(struct ublk_control *control, uint32_t id) BASE_MUST_CHECK;
/*
 * The device goes when nobody has it open any more, neither as a block nor as a character device. Linux before 6.9 waits for
 * that inside this call.
 */
int ublk_control_delete(struct ublk_control *control, uint32_t id) BASE_MUST_CHECK;
/* 0; -EBUSY: the server before lives, or has not quite gone. */
int ublk_control_begin_recovery(struct ublk_control *control, uint32_t id) BASE_MUST_CHECK;
/* When every tag has been fetched for; requests that the server before has not answered come again. */
int ublk_control_end_recovery(struct ublk_control *control, uint32_t id) BASE_MUST_CHECK;

#endif

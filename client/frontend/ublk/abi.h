/*
 * The kernel's interface to ublk servers: linux/ublk_cmd.h, and what newer kernels than that header's have.
 *
 * Numbers are those of Linux 6.12, include/uapi/linux/ublk_cmd.h, which promises to keep them.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_UBLK_ABI_H
#define FARSWAP_CLIENT_FRONTEND_UBLK_ABI_H

#include <linux/ioctl.h>
#include <linux/ublk_cmd.h>

#define UBLK_ABI_GET_FEATURES 0x13 /* since Linux 6.5, and only with the number encoded as of an ioctl */
#define UBLK_ABI_NR_FEATURES_BYTES 8u
#define UBLK_ABI_DEL_DEV_ASYNC 0x14 /* since Linux 6.9, encoded */

/* How an operation's number is encoded since Linux 6.4. Before it, and where the kernel is told to, it is the number alone. */
#define UBLK_ABI_CONTROL_READ(nr) _IOR('u', nr, struct ublksrv_ctrl_cmd)
#define UBLK_ABI_CONTROL(nr) _IOWR('u', nr, struct ublksrv_ctrl_cmd)
#define UBLK_ABI_IO(nr) _IOWR('u', nr, struct ublksrv_io_cmd)

#endif

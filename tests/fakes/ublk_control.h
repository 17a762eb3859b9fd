/*
 * The kernel's ublk driver as a whole: /dev/ublk-control with the commands that make, start, stop, take over and delete a
 * device, and the character device of the one that it makes, whose queue is that of ublk.h. Stands in for open(2) and liburing.
 *
 * It does what it must, or ends the program: nothing is deleted that has not been made, started that is not served, or deleted
 * while a server has something fetched.
 */
#ifndef FARSWAP_TESTS_FAKES_UBLK_CONTROL_H
#define FARSWAP_TESTS_FAKES_UBLK_CONTROL_H

#include <linux/ublk_cmd.h>

#include "common/base/base.h"

#define FAKE_UBLK_ID 7u

struct fake_ublk_driver {
	bool encoded;	       /* Linux 6.4 on: numbers are those of ioctls; and it knows GET_FEATURES */
	bool deletes_async;    /* Linux 6.9 on */
	uint64_t flags;	       /* that it has */
	uint16_t queue_depth;  /* that it makes; 0: what it is asked for */
	unsigned failing;      /* the number of a command that fails, with: */
	int error;
	int fetch_error;       /* 0, or what who fetches is told */
	int open_error;	       /* of the character device */
	unsigned nr_busy;      /* so often START_USER_RECOVERY finds the server alive */
	bool is_there;	       /* as if a server had made it, with *info, and died */
	struct ublksrv_ctrl_dev_info info;
};

/* From here on that is the driver. nr_tags: at most 128. Nobody has a device open. */
void fake_ublk_control_set(const struct fake_ublk_driver *driver, unsigned nr_tags);
/* No device may be left. */
void fake_ublk_control_end(void);

/* What it has been asked to do since it was set, each with a blank behind it, such as "ADD SET_PARAMS START ". */
const char *fake_ublk_control_log(void);
bool fake_ublk_control_has_device(void);

#endif

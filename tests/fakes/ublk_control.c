#include "tests/fakes/ublk_control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/frontend/ublk/abi.h"
#include "tests/fakes/ublk.h"
#include "tests/fakes/ublk_internal.h"
#include "tests/fakes/uring.h"

#define LOG_BYTES 512

static struct {
	struct fake_ublk_driver driver;
	struct ublksrv_ctrl_dev_info info;
	bool has_device, has_params;
	unsigned nr_busy;
	int fd; /* of its queue; -1: there is no driver */
	char log[LOG_BYTES];
} control = { .fd = -1 };

static void expect(bool is_so, const char *what)
{
	if (is_so)
		return;
	fprintf(stderr, "fake ublk driver: not so: %s; so far: %s\n", what, control.log);
	abort();
}

/* ---- the commands ---- */

static int add_dev(const struct ublksrv_ctrl_cmd *command)
{
	struct ublksrv_ctrl_dev_info *info = (void *)(uintptr_t)command->addr;

	expect(!control.has_device && command->len == sizeof(*info) && info->ublksrv_pid == getpid(), "it may be made");
	info->dev_id = FAKE_UBLK_ID;
	info->flags &= control.driver.flags;
	info->state = UBLK_S_DEV_DEAD;
	if (control.driver.queue_depth)
		info->queue_depth = control.driver.queue_depth;
	control.info = *info;
	control.has_device = true;
	return 0;
}

static int get_info(const struct ublksrv_ctrl_cmd *command)
{
	expect(command->len == sizeof(control.info), "there is room for all");
	memcpy((void *)(uintptr_t)command->addr, &control.info, sizeof(control.info));
	return 0;
}

static int set_params(const struct ublksrv_ctrl_cmd *command)
{
	const struct ublk_params *params = (const void *)(uintptr_t)command->addr;

	expect(command->len == sizeof(*params) && params->len == sizeof(*params), "they are whole");
	control.has_params = true;
	return 0;
}

static int start_dev(const struct ublksrv_ctrl_cmd *command)
{
	expect(control.has_params && fake_ublk_is_fetched() && command->data[0] == (uint64_t)getpid(), "it is served");
	control.info.state = UBLK_S_DEV_LIVE;
	control.info.ublksrv_pid = getpid();
	return 0;
}

static int stop_dev(const struct ublksrv_ctrl_cmd *command)
{
	(void)command;
	control.info.state = UBLK_S_DEV_DEAD;
	fake_ublk_end_fetched();
	return 0;
}

static int del_dev(const struct ublksrv_ctrl_cmd *command)
{
	(void)command;
	expect(control.info.state == UBLK_S_DEV_DEAD, "it has been stopped");
	control.has_device = control.has_params = false;
	return 0;
}

static int start_user_recovery(const struct ublksrv_ctrl_cmd *command)
{
	(void)command;
	if (control.nr_busy == 0)
		return 0;
	control.nr_busy--;
	return -EBUSY;
}

static const struct command {
	unsigned nr;
	const char *name;
	int (*carry_out)(const struct ublksrv_ctrl_cmd *command);
	bool reads;	/* as it is encoded */
	bool is_of_any; /* no device has to be there */
} commands[] = {
	{ UBLK_CMD_ADD_DEV, "ADD", add_dev, false, true },
	{ UBLK_CMD_GET_DEV_INFO, "GET_INFO", get_info, true, false },
	{ UBLK_CMD_SET_PARAMS, "SET_PARAMS", set_params, false, false },
	{ UBLK_CMD_START_DEV, "START", start_dev, false, false },
	{ UBLK_CMD_STOP_DEV, "STOP", stop_dev, false, false },
	{ UBLK_CMD_DEL_DEV, "DEL", del_dev, false, false },
	{ UBLK_ABI_DEL_DEV_ASYNC, "DEL_ASYNC", del_dev, true, false },
	{ UBLK_CMD_START_USER_RECOVERY, "START_RECOVERY", start_user_recovery, false, false },
	{ UBLK_CMD_END_USER_RECOVERY, "END_RECOVERY", start_dev, false, false },
};

static int execute(const struct io_uring_sqe *sqe, const struct ublksrv_ctrl_cmd *in)
{
	unsigned nr = _IOC_NR(sqe->cmd_op);
	const struct command *command = NULL;

	if (!control.driver.encoded && sqe->cmd_op != nr)
		return -EOPNOTSUPP; /* as drivers before Linux 6.4 say to what they do not know */
	if (nr == UBLK_ABI_GET_FEATURES)
		return control.driver.encoded ? 0 : -EOPNOTSUPP;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(commands); i++)
		if (commands[i].nr == nr)
			command = &commands[i];
	expect(command, "the command is known");
	if (control.driver.encoded)
		expect(sqe->cmd_op == (command->reads ? UBLK_ABI_CONTROL_READ(nr) : UBLK_ABI_CONTROL(nr)), "it is encoded");
	strncat(control.log, command->name, LOG_BYTES - strlen(control.log) - 2);
	strcat(control.log, " ");
	if (nr == UBLK_ABI_DEL_DEV_ASYNC && !control.driver.deletes_async)
		return -EOPNOTSUPP;
	if (control.driver.failing == nr)
		return control.driver.error;
	if (!command->is_of_any && (!control.has_device || in->dev_id != FAKE_UBLK_ID))
		return -ENODEV;
	return command->carry_out(in);
}

static void carry_out(const struct io_uring_sqe *sqe)
{
	struct ublksrv_ctrl_cmd command;

	memcpy(&command, sqe->cmd, sizeof(command));
	fake_ring_complete(FAKE_RING_128, sqe->user_data, execute(sqe, &command));
}

/* ---- its files ---- */

/* In place of libc's, for the whole program. */
int open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;
	char own[24];

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	snprintf(own, sizeof(own), "/dev/ublkc%u", FAKE_UBLK_ID);
	if (strcmp(path, "/dev/ublk-control") == 0) {
		if (control.fd >= 0)
			return eventfd(0, EFD_CLOEXEC);
		errno = ENOENT;
		return -1;
	}
	if (strcmp(path, own) == 0) {
		if (control.driver.open_error == 0)
			return fcntl(control.fd, F_DUPFD_CLOEXEC, 0);
		errno = -control.driver.open_error;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* ---- for who has it ---- */

void fake_ublk_control_set(const struct fake_ublk_driver *driver, unsigned nr_tags)
{
	expect(control.fd < 0, "there is no driver yet");
	control.driver = *driver;
	control.info = driver->info;
	control.has_device = driver->is_there;
	control.has_params = driver->is_there;
	control.nr_busy = driver->nr_busy;
	control.log[0] = '\0';
	control.fd = fake_ublk_open(nr_tags);
	fake_ublk_encode(driver->encoded, driver->fetch_error);
	fake_ring_drive(FAKE_RING_128, carry_out);
}

void fake_ublk_control_end(void)
{
	expect(!control.has_device, "no device is left");
	fake_ublk_close(control.fd);
	control.fd = -1;
}

const char *fake_ublk_control_log(void)
{
	return control.log;
}

bool fake_ublk_control_has_device(void)
{
	return control.has_device;
}

#include "client/frontend/ublk/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The result of that command. Those before it that could not be submitted have left with it, and have none. */
static int control_wait(struct ublk_control *control, uint64_t number)
{
	struct io_uring_cqe *cqe;
	bool is_it = false;
	int ret;

	while (!is_it) {
		ret = io_uring_wait_cqe(&control->ring, &cqe);
		if (ret == -EINTR)
			continue;
		if (ret < 0)
			return ret;
		is_it = cqe->user_data == number;
		ret = cqe->res;
		io_uring_cqe_seen(&control->ring, cqe);
	}
	return ret;
}

/* One command. Its result: 0 or more, or the negative errno. */
static int control_do(struct ublk_control *control, uint32_t op, const struct ublksrv_ctrl_cmd *command)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&control->ring);
	int ret;

	if (!sqe)
		return -EBUSY; /* only when the kernel takes nothing: one command at a time */
	memset(sqe, 0, 2 * sizeof(*sqe)); /* of 128 bytes */
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = control->fd;
	sqe->cmd_op = op;
	sqe->user_data = ++control->nr_commands;
	memcpy(sqe->cmd, command, sizeof(*command));
	ret = io_uring_submit(&control->ring);
	if (ret < 0) {
		/* It stays in the ring, and leaves with the next one; what it points at is gone by then. */
		sqe->opcode = IORING_OP_NOP;
		return ret;
	}
	return control_wait(control, control->nr_commands);
}

static int control_write(struct ublk_control *control, unsigned nr, const struct ublksrv_ctrl_cmd *command)
{
	int ret = control_do(control, control->encoded ? UBLK_ABI_CONTROL(nr) : nr, command);

	return ret < 0 ? ret : 0;
}

static int control_read(struct ublk_control *control, unsigned nr, const struct ublksrv_ctrl_cmd *command)
{
	int ret = control_do(control, control->encoded ? UBLK_ABI_CONTROL_READ(nr) : nr, command);

	return ret < 0 ? ret : 0;
}

/* Who knows this command takes its number, and all others, encoded. */
static bool control_is_encoded(struct ublk_control *control)
{
	uint64_t features = 0;
	struct ublksrv_ctrl_cmd command = {
		.dev_id = UBLK_CONTROL_ANY_ID,
		.queue_id = UINT16_MAX,
		.len = UBLK_ABI_NR_FEATURES_BYTES,
		.addr = (uintptr_t)&features,
	};

	return control_do(control, UBLK_ABI_CONTROL_READ(UBLK_ABI_GET_FEATURES), &command) >= 0;
}

int ublk_control_open(struct ublk_control *control)
{
	int ret;

	*control = (struct ublk_control){ 0 };
	control->fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	if (control->fd < 0)
		return errno == ENOENT || errno == ENXIO ? -ENODEV : -errno;
	ret = io_uring_queue_init(4, &control->ring, IORING_SETUP_SQE128);
	if (ret < 0) {
		close(control->fd);
		return ret;
	}
	control->encoded = control_is_encoded(control);
	return 0;
}

void ublk_control_close(struct ublk_control *control)
{
	io_uring_queue_exit(&control->ring);
	close(control->fd);
}

static struct ublksrv_ctrl_cmd command_for(uint32_t id)
{
	return (struct ublksrv_ctrl_cmd){ .dev_id = id, .queue_id = UINT16_MAX };
}

static struct ublksrv_ctrl_cmd command_with(uint32_t id, void *buf, size_t len_bytes)
{
	struct ublksrv_ctrl_cmd command = command_for(id);

	command.addr = (uintptr_t)buf;
	command.len = (uint16_t)len_bytes;
	return command;
}

/* The kernel checks that it is us who will serve. */
static struct ublksrv_ctrl_cmd command_by_us(uint32_t id)
{
	struct ublksrv_ctrl_cmd command = command_for(id);

	command.data[0] = (uint64_t)getpid();
	return command;
}

int ublk_control_add(struct ublk_control *control, struct ublksrv_ctrl_dev_info *info)
{
	struct ublksrv_ctrl_cmd command = command_with(info->dev_id, info, sizeof(*info));

	return control_write(control, UBLK_CMD_ADD_DEV, &command);
}

int ublk_control_get_info(struct ublk_control *control, uint32_t id, struct ublksrv_ctrl_dev_info *ret_info)
{
	struct ublksrv_ctrl_cmd command = command_with(id, ret_info, sizeof(*ret_info));

	return control_read(control, UBLK_CMD_GET_DEV_INFO, &command);
}

int ublk_control_set_params(struct ublk_control *control, uint32_t id, struct ublk_params *params)
{
	struct ublksrv_ctrl_cmd command = command_with(id, params, sizeof(*params));

	return control_write(control, UBLK_CMD_SET_PARAMS, &command);
}

int ublk_control_start(struct ublk_control *control, uint32_t id)
{
	struct ublksrv_ctrl_cmd command = command_by_us(id);

	return control_write(control, UBLK_CMD_START_DEV, &command);
}

int ublk_control_stop(struct ublk_control *control, uint32_t id)
{
	struct ublksrv_ctrl_cmd command = command_for(id);

	return control_write(control, UBLK_CMD_STOP_DEV, &command);
}

int ublk_control_delete(struct ublk_control *control, uint32_t id)
{
	struct ublksrv_ctrl_cmd command = command_for(id);
	int ret = control->encoded ? control_read(control, UBLK_ABI_DEL_DEV_ASYNC, &command) : -EOPNOTSUPP;

	return ret == -EOPNOTSUPP || ret == -EINVAL ? control_write(control, UBLK_CMD_DEL_DEV, &command) : ret;
}

int ublk_control_begin_recovery(struct ublk_control *control, uint32_t id)
{
	struct ublksrv_ctrl_cmd command = command_for(id);

	return control_write(control, UBLK_CMD_START_USER_RECOVERY, &command);
}

int ublk_control_end_recovery(struct ublk_control *control, uint32_t id)
{
	struct ublksrv_ctrl_cmd command = command_by_us(id);

	return control_write(control, UBLK_CMD_END_USER_RECOVERY, &command);
}

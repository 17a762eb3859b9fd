/*
 * The state file of the daemon: whether there is to be one, and what becomes of one that a dead daemon has left.
 */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/daemon_private.h"
#include "client/frontend/ublk/ublk.h"
#include "common/base/err.h"
#include "common/log/log.h"

/* NULL: none is kept. */
static const char *path_of(const struct settings *settings)
{
	bool may_be_ublk = settings->frontend == SETTINGS_UBLK || settings->frontend == SETTINGS_AUTO_FRONTEND;

	if (strcmp(settings->state_file, "none") == 0)
		return NULL;
	if (strcmp(settings->state_file, "auto") != 0)
		return settings->state_file;
	if (!may_be_ublk || ublk_frontend_probe() < 0)
		return NULL;
	if (settings->comp_limit_bytes != 0)
		log_notice("state_file: there is none, since compressed pages do not outlive the daemon (compress_limit)");
	return settings->comp_limit_bytes == 0 ? SETTINGS_STATE_FILE : NULL;
}

/*
 * None is kept this time; but one that is there by default may be needed, and would be led past: settings have changed, or the
 * driver is not there any more.
 */
static int check_none_is_left(const struct daemon *daemon, const struct state_shape *shape)
{
	char error[STATE_ERROR_MAX];
	struct state *state;
	bool needed;
	int ret;

	if (strcmp(daemon->settings->state_file, "auto") != 0 || access(SETTINGS_STATE_FILE, F_OK) < 0)
		return 0;
	ret = state_open(SETTINGS_STATE_FILE, shape, &state, error);
	if (ret == -EBUSY) /* that of a daemon that runs is its own business */
		return 0;
	if (ret < 0) {
		log_error("%s", error);
		return ret;
	}
	needed = state_has_device(state);
	state_close(state, !needed);
	if (!needed)
		return 0;
	log_error("state_file: %s has the pages of a device of a dead farswapd, which cannot be gone on with as it is set now "
		  "(frontend, compress_limit, the module ublk_drv); to give them up remove it, to leave them alone set none",
		  SETTINGS_STATE_FILE);
	return -EINVAL;
}

static void open_folder(const char *path)
{
	char folder[CONFIG_STRING_MAX], above[CONFIG_STRING_MAX];
	int ret;

	snprintf(folder, sizeof(folder), "%s", path);
	(void)dirname(folder);
	snprintf(above, sizeof(above), "%s", folder);
	(void)mkdir(dirname(above), 0755); /* what is wrong with it is found with the next */
	ret = state_folder_open(folder);
	if (ret < 0)
		log_warning("state_file: %s cannot be made a ramfs (%s): if the machine swaps the file out after the daemon's "
			    "death, a restart hangs", folder, err_text(ret));
}

static struct state_shape shape_of(const struct settings *settings)
{
	struct state_shape shape = {
		.nr_pages = settings->size_bytes >> FSW_PAGE_SHIFT,
		.nr_queues = settings->nr_queues,
		.max_slabs = settings->max_slabs,
		.disk_bytes = settings->disk_bytes,
		.disk_slab_bytes = settings->disk_slab_bytes,
	};

	snprintf(shape.disk, sizeof(shape.disk), "%s", settings->disk);
	return shape;
}

/* 1: somebody may have pages on the device that was left; 0: nobody can; below 0: that cannot be found out, or is refused. */
static int is_needed(const struct daemon *daemon)
{
	enum settings_frontend wanted = daemon->settings->frontend;
	struct ublk_device_name name;
	const char *kind = state_device(daemon->kept, &name.id, &name.flags);
	bool ublk = strcmp(kind, "ublk") == 0;
	int ret = kind[0] != '\0';

	if (ublk)
		ret = ublk_frontend_is_there(&name);
	if (ret <= 0)
		return ret;
	if (ublk ? wanted == SETTINGS_UBLK || wanted == SETTINGS_AUTO_FRONTEND : wanted == SETTINGS_NBD)
		return 1;
	log_error("frontend: it must be %s, since the device that a dead farswapd has left was; or remove the state_file, to "
		  "give up its pages", kind);
	return -EINVAL;
}

static int look_at_left(struct daemon *daemon, const struct state_shape *shape, const char *path)
{
	char error[STATE_ERROR_MAX];
	int ret = is_needed(daemon);

	if (ret < 0)
		return ret;
	if (ret == 0) {
		log_notice("state_file: what a dead farswapd has left in %s is of no use any more", path);
		ret = state_discard(daemon->kept, shape);
		if (ret < 0)
			log_error("state_file: %s cannot be made anew: %s", path, err_text(ret));
		return ret;
	}
	ret = state_check_shape(daemon->kept, shape, error);
	if (ret < 0)
		log_error("%s", error);
	else
		log_notice("goes on with the device of a dead farswapd, by %s", path);
	return ret;
}

int daemon_open_state(struct daemon *daemon)
{
	struct state_shape shape = shape_of(daemon->settings);
	const char *path = path_of(daemon->settings);
	char error[STATE_ERROR_MAX];
	int ret;

	if (!path)
		return check_none_is_left(daemon, &shape);
	open_folder(path);
	ret = state_open(path, &shape, &daemon->kept, error);
	if (ret < 0) {
		log_error("%s", error);
		return ret;
	}
	return state_is_left(daemon->kept) ? look_at_left(daemon, &shape, path) : 0;
}

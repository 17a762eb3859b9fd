/*
 * The folder of the file. On a tmpfs, pages may be swapped out as soon as no process has them locked; a ramfs has none that
 * can be. It stays mounted: empty it costs nothing, and another daemon's file may be in it.
 */
#include <errno.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "client/state/state.h"
#include "common/base/err.h"

#define STATE_MOUNT_SOURCE "farswap-state"

int state_folder_open(const char *path)
{
	struct statfs fs;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (statfs(path, &fs) < 0)
		return -errno;
	if ((unsigned long)fs.f_type == RAMFS_MAGIC)
		return 0;
	return err_from_libc(mount(STATE_MOUNT_SOURCE, path, "ramfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700"));
}

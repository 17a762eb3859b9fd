#include "client/frontend/swaparea.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/err.h"

/* The kernel's; glibc 2.36 names only the first. */
#ifndef SWAP_FLAG_DISCARD_PAGES
#define SWAP_FLAG_DISCARD_PAGES 0x40000
#endif

#define HEADER_AT 1024 /* the first KiB is left to boot loaders */
#define HEADER_VERSION 1u
#define SIGNATURE "SWAPSPACE2"
#define SIGNATURE_BYTES 10
#define SIGNATURE_AT (FSW_PAGE_SIZE - SIGNATURE_BYTES)

/* In the byte order of the machine, as the kernel reads it. */
struct header {
	uint32_t version;
	uint32_t last_page;
	uint32_t nr_bad_pages;
	unsigned char uuid[SWAP_AREA_UUID_BYTES];
	char label[SWAP_AREA_LABEL_BYTES];
};

_Static_assert(sizeof(struct header) == 44, "as in the kernel's union swap_header");

int swap_area_pack(unsigned char page[FSW_PAGE_SIZE], uint64_t nr_pages,
		   const unsigned char uuid[SWAP_AREA_UUID_BYTES], const char *label)
{
	struct header header = { .version = HEADER_VERSION };

	if (nr_pages < SWAP_AREA_MIN_PAGES || nr_pages > SWAP_AREA_MAX_PAGES)
		return -EINVAL;
	header.last_page = (uint32_t)(nr_pages - 1);
	memcpy(header.uuid, uuid, sizeof(header.uuid));
	/* Ends with a NUL unless it is full. */
	memcpy(header.label, label, strnlen(label, sizeof(header.label)));
	memset(page, 0, FSW_PAGE_SIZE);
	memcpy(page + HEADER_AT, &header, sizeof(header));
	memcpy(page + SIGNATURE_AT, SIGNATURE, SIGNATURE_BYTES);
	return 0;
}

static int write_page(const char *device, const unsigned char *page)
{
	ssize_t written;
	int fd, ret = 0;

	/* O_EXCL on a block device: -EBUSY when it is mounted or in use as swap. */
	fd = open(device, O_WRONLY | O_EXCL | O_DIRECT | O_DSYNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	written = pwrite(fd, page, FSW_PAGE_SIZE, 0);
	if (written != (ssize_t)FSW_PAGE_SIZE)
		ret = written < 0 ? -errno : -EIO;
	if (close(fd) < 0 && ret == 0)
		ret = -errno;
	return ret;
}

int swap_area_write(const char *device, uint64_t nr_pages, const char *label)
{
	_Alignas(FSW_PAGE_SIZE) unsigned char page[FSW_PAGE_SIZE];
	unsigned char uuid[SWAP_AREA_UUID_BYTES];
	int ret;

	if (sysconf(_SC_PAGESIZE) != (long)FSW_PAGE_SIZE)
		return -ENOSYS;
	if (getrandom(uuid, sizeof(uuid), 0) != (ssize_t)sizeof(uuid))
		return -EIO;
	/* RFC 4122: version 4, the variant of that document. */
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
	ret = swap_area_pack(page, nr_pages, uuid, label);
	if (ret < 0)
		return ret;
	return write_page(device, page);
}

int swap_area_on(const char *device, int priority)
{
	int flags = SWAP_FLAG_DISCARD | SWAP_FLAG_DISCARD_PAGES;

	if (priority != SWAP_AREA_ANY_PRIORITY) {
		if (priority < 0 || priority > SWAP_AREA_PRIORITY_MAX)
			return -EINVAL;
		flags |= SWAP_FLAG_PREFER | (priority << SWAP_FLAG_PRIO_SHIFT);
	}
	return err_from_libc(swapon(device, flags));
}

/* The exit status of swapoff(8), or a negative errno when it did not run. */
static int run_swapoff(const char *device, int *ret_status)
{
	/* The daemon's PATH may be one without system programs. */
	static const char *const programs[] = { "/sbin/swapoff", "/usr/sbin/swapoff" };
	char *argv[] = { (char *)(uintptr_t)"swapoff", (char *)(uintptr_t)device, NULL };
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;
	int ret;

	ret = posix_spawnattr_init(&attr);
	if (ret != 0)
		return -ret;
	sigemptyset(&none);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(programs); i++) {
		ret = posix_spawn(&pid, programs[i], NULL, &attr, argv, environ);
		if (ret != ENOENT)
			break;
	}
	posix_spawnattr_destroy(&attr);
	if (ret != 0)
		return -ret;
	while (waitpid(pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int swap_area_off(const char *device)
{
	uint64_t used_bytes;
	int status, ret;

	/* Somebody else may have turned it off. */
	if (swap_area_used_bytes(device, &used_bytes) == -ENOENT)
		return 0;
	ret = run_swapoff(device, &status);
	if (ret < 0)
		return ret;
	ret = swap_area_used_bytes(device, &used_bytes);
	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	/* swapoff(8): 2 is "insufficient memory"; and who takes the memory is the first that the kernel kills. */
	if (WIFSIGNALED(status) || WEXITSTATUS(status) == 2)
		return -ENOMEM;
	return -EIO;
}

/* What is behind the name, if it is the device's. */
static const char *match_name(const char *line, const char *device)
{
	static const char folder[] = "/dev";
	size_t len = strlen(device);

	if (strncmp(line, device, len) == 0)
		return line + len;
	/* Who has turned it on may have had mounts of its own, which are gone: the name begins where the one of /dev did. */
	if (strncmp(device, folder, strlen(folder)) != 0)
		return NULL;
	device += strlen(folder);
	len -= strlen(folder);
	return strncmp(line, device, len) == 0 && strstr(line + len, "partition") ? line + len : NULL;
}

bool swap_area_match_line(const char *line, const char *device, uint64_t *ret_used_bytes)
{
	const char *rest = match_name(line, device);
	unsigned long long used_kib;

	if (!rest)
		return false;
	if (strncmp(rest, "\\040(deleted)", 13) == 0)
		rest += 13;
	/* Type, size in KiB, used in KiB, priority. */
	if ((*rest != ' ' && *rest != '\t') || sscanf(rest, " %*s %*s %llu", &used_kib) != 1)
		return false;
	*ret_used_bytes = (uint64_t)used_kib << 10;
	return true;
}

int swap_area_used_bytes(const char *device, uint64_t *ret_used_bytes)
{
	char line[512];
	int ret = -ENOENT;
	FILE *file;

	file = fopen("/proc/swaps", "re");
	if (!file)
		return -errno;
	while (ret == -ENOENT && fgets(line, sizeof(line), file))
		if (swap_area_match_line(line, device, ret_used_bytes))
			ret = 0;
	fclose(file);
	return ret;
}

#include "client/frontend/nbd/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"

#define PREFIX "farswapd "

/* "pid:[4026531836]": process numbers mean something within one of these. */
static int own_namespace(char text[32])
{
	ssize_t nr = readlink("/proc/self/ns/pid", text, 31);

	if (nr < 0)
		return -errno;
	text[nr] = '\0';
	return 0;
}

/*
 * When the process began, in ticks since the machine did: numbers of processes are used again, with the same begin they
 * are not. See proc_pid_stat(5). -ESRCH when there is none, or only what is left for its parent to ask about.
 */
static int begin_of(pid_t pid, unsigned long long *ret_ticks)
{
	char path[32], line[1024], state;
	const char *rest;
	ssize_t nr;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	nr = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (nr <= 0)
		return -ESRCH;
	line[nr] = '\0';
	/* The name may contain anything, also parentheses and spaces. */
	rest = strrchr(line, ')');
	if (!rest || sscanf(rest, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
			    &state, ret_ticks) != 2)
		return -EPROTO;
	return state == 'Z' || state == 'X' ? -ESRCH : 0;
}

int nbd_owner_format(pid_t pid, char text[NBD_OWNER_BYTES])
{
	unsigned long long ticks;
	char namespace[32];
	int ret = own_namespace(namespace);

	if (ret == 0)
		ret = begin_of(pid, &ticks);
	if (ret < 0)
		return ret;
	snprintf(text, NBD_OWNER_BYTES, PREFIX "%s %d %llu", namespace, (int)pid, ticks);
	return 0;
}

bool nbd_owner_is_dead(const char *text)
{
	char own[32], namespace[32];
	unsigned long long begin, ticks;
	int pid, end = 0, ret;

	if (sscanf(text, PREFIX "%31s %d %llu%n", namespace, &pid, &begin, &end) != 3 || text[end] != '\0' || pid <= 0)
		return false;
	if (own_namespace(own) < 0 || strcmp(namespace, own) != 0)
		return false;
	ret = begin_of(pid, &ticks);
	return ret == -ESRCH || (ret == 0 && ticks != begin);
}

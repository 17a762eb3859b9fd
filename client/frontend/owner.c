#include "client/frontend/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"

#define PREFIX "farswapd "
/* Of a mark: the low bits of the namespace's number, above those of the begin. Namespaces are numbered one after another. */
#define HALF_BITS (FRONTEND_OWNER_MARK_BITS / 2)
#define HALF_MASK ((1ull << HALF_BITS) - 1)

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

int frontend_owner_format(pid_t pid, char text[FRONTEND_OWNER_BYTES])
{
	unsigned long long ticks;
	char namespace[32];
	int ret = own_namespace(namespace);

	if (ret == 0)
		ret = begin_of(pid, &ticks);
	if (ret < 0)
		return ret;
	snprintf(text, FRONTEND_OWNER_BYTES, PREFIX "%s %d %llu", namespace, (int)pid, ticks);
	return 0;
}

bool frontend_owner_is_dead(const char *text)
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

static int own_namespace_number(uint64_t *ret_number)
{
	unsigned long long number;
	char text[32];
	int ret = own_namespace(text);

	if (ret < 0)
		return ret;
	if (sscanf(text, "pid:[%llu]", &number) != 1)
		return -EPROTO;
	*ret_number = number;
	return 0;
}

int frontend_owner_mark(pid_t pid, uint64_t *ret_mark)
{
	unsigned long long ticks;
	uint64_t namespace;
	int ret = own_namespace_number(&namespace);

	if (ret == 0)
		ret = begin_of(pid, &ticks);
	if (ret < 0)
		return ret;
	*ret_mark = (namespace & HALF_MASK) << HALF_BITS | (ticks & HALF_MASK);
	return 0;
}

enum frontend_owner_state frontend_owner_state(pid_t pid, uint64_t mark)
{
	unsigned long long ticks;
	uint64_t namespace;
	int ret;

	if (own_namespace_number(&namespace) < 0 || (namespace & HALF_MASK) != mark >> HALF_BITS)
		return FRONTEND_OWNER_UNKNOWN;
	ret = begin_of(pid, &ticks);
	if (ret < 0)
		return ret == -ESRCH ? FRONTEND_OWNER_DEAD : FRONTEND_OWNER_UNKNOWN;
	return (ticks & HALF_MASK) == (mark & HALF_MASK) ? FRONTEND_OWNER_LIVES : FRONTEND_OWNER_DEAD;
}

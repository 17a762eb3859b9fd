#include "common/sys/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/sys/clock.h"

#define UNIX_PREFIX "unix:"

static int parse_unix(const char *path, struct sys_address *ret_address)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, path, len + 1);
	memset(ret_address, 0, sizeof(*ret_address));
	memcpy(&ret_address->addr, &un, sizeof(un));
	ret_address->len = sizeof(un);
	return 0;
}

/* Decimal digits only, and at most five of them. */
static int check_port(const char *text, bool allow_any_port)
{
	size_t len = strlen(text);
	unsigned port = 0;

	if (len == 0 || len > 5 || strspn(text, "0123456789") != len)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		port = port * 10 + (unsigned)(text[i] - '0');
	return port > 65535 || (port == 0 && !allow_any_port) ? -EINVAL : 0;
}

/* Cuts "host:port" or "[host]:port" in place. */
static int split_host_port(char *text, char **ret_host, char **ret_port)
{
	char *colon;

	if (text[0] == '[') {
		char *end = strchr(text, ']');

		if (!end || end == text + 1 || end[1] != ':')
			return -EINVAL;
		*end = '\0';
		*ret_host = text + 1;
		*ret_port = end + 2;
		/* Brackets are for IPv6, and only for it. */
		return strchr(*ret_host, ':') ? 0 : -EINVAL;
	}
	colon = strrchr(text, ':');
	if (!colon || colon == text || strchr(text, ':') != colon)
		return -EINVAL;
	*colon = '\0';
	*ret_host = text;
	*ret_port = colon + 1;
	return 0;
}

int sys_address_parse(const char *text, bool allow_any_port, struct sys_address *ret_address)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	char copy[SYS_ADDRESS_MAX];
	struct addrinfo *found;
	char *host, *port;
	int ret;

	if (strncmp(text, UNIX_PREFIX, sizeof(UNIX_PREFIX) - 1) == 0)
		return parse_unix(text + sizeof(UNIX_PREFIX) - 1, ret_address);
	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	strcpy(copy, text);
	ret = split_host_port(copy, &host, &port);
	if (ret == 0)
		ret = check_port(port, allow_any_port);
	if (ret < 0)
		return ret;

	ret = getaddrinfo(host, port, &hints, &found);
	if (ret == EAI_SYSTEM)
		return -errno;
	if (ret != 0)
		return ret == EAI_MEMORY ? -ENOMEM : -ENOENT;
	memset(ret_address, 0, sizeof(*ret_address));
	memcpy(&ret_address->addr, found->ai_addr, found->ai_addrlen);
	ret_address->len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

static void format_inet6(const struct sockaddr_in6 *in6, char text[SYS_ADDRESS_MAX])
{
	char host[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
	if (in6->sin6_scope_id != 0)
		snprintf(text, SYS_ADDRESS_MAX, "[%s%%%u]:%u", host, in6->sin6_scope_id, ntohs(in6->sin6_port));
	else
		snprintf(text, SYS_ADDRESS_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
}

void sys_address_format(const struct sys_address *address, char text[SYS_ADDRESS_MAX])
{
	char host[INET_ADDRSTRLEN];
	struct sockaddr_in6 in6;
	struct sockaddr_in in;
	struct sockaddr_un un;

	switch (address->addr.ss_family) {
	case AF_INET:
		memcpy(&in, &address->addr, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
		snprintf(text, SYS_ADDRESS_MAX, "%s:%u", host, ntohs(in.sin_port));
		break;
	case AF_INET6:
		memcpy(&in6, &address->addr, sizeof(in6));
		format_inet6(&in6, text);
		break;
	case AF_UNIX:
		/* The peer of an accepted connection has no path, and the kernel need not end one with a zero. */
		memcpy(&un, &address->addr, sizeof(un));
		if (address->len <= offsetof(struct sockaddr_un, sun_path))
			un.sun_path[0] = '\0';
		snprintf(text, SYS_ADDRESS_MAX, UNIX_PREFIX "%.*s", (int)sizeof(un.sun_path), un.sun_path);
		break;
	default:
		snprintf(text, SYS_ADDRESS_MAX, "unknown");
	}
}

/* A new socket bound to the address. The descriptor or a negative errno. */
static int open_bound(const struct sys_address *address)
{
	int fd, err, on = 1;

	fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if ((address->addr.ss_family == AF_UNIX || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0) &&
	    bind(fd, (const struct sockaddr *)&address->addr, address->len) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* Whether a path is a socket that nobody listens on. */
static bool unix_is_stale(const struct sys_address *address, const char *path)
{
	struct stat st;
	bool stale;
	int fd;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)&address->addr, address->len) < 0 && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

/*
 * Opens and locks the folder of a path, so that of two processes that find the same stale socket only one takes it over,
 * and neither sees the other bound but not yet listening. The descriptor, or negative where that cannot be had.
 */
static int lock_folder(const char *path)
{
	char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) + 1 : 0;
	int fd, err;

	memcpy(folder, slash ? path : "./", slash ? len : 2);
	folder[slash ? len : 2] = '\0';
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int listen_on(const struct sys_address *address, int backlog)
{
	int fd = open_bound(address);
	int err;

	if (fd < 0)
		return fd;
	if (listen(fd, backlog) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int sys_socket_listen(const struct sys_address *address, int backlog)
{
	struct sockaddr_un un;
	int fd, lock;

	if (address->addr.ss_family != AF_UNIX)
		return listen_on(address, backlog);

	memcpy(&un, &address->addr, sizeof(un));
	lock = lock_folder(un.sun_path);
	fd = listen_on(address, backlog);
	if (fd == -EADDRINUSE && unix_is_stale(address, un.sun_path)) {
		unlink(un.sun_path);
		fd = listen_on(address, backlog);
	}
	if (lock >= 0)
		close(lock);
	return fd;
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int sys_socket_connect(const struct sys_address *address, int timeout_ms)
{
	struct timeval none = { 0, 0 };
	struct timeval timeout;
	int fd, ret;

	/* SO_SNDTIMEO takes 0 for "for ever". */
	timeout_ms = timeout_ms > 0 ? timeout_ms : 1;
	timeout.tv_sec = timeout_ms / 1000;
	timeout.tv_usec = (timeout_ms % 1000) * 1000;

	fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* It bounds connect for TCP and for a unix socket whose backlog is full alike (socket(7)). */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		goto fail;
	do {
		ret = connect(fd, (const struct sockaddr *)&address->addr, address->len);
	} while (ret < 0 && errno == EINTR);
	if (ret < 0) {
		if (errno == EINPROGRESS || errno == EALREADY || errno == EAGAIN)
			errno = ETIMEDOUT;
		goto fail;
	}
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none)) < 0 || set_nonblocking(fd) < 0)
		goto fail;
	return fd;

fail:
	ret = -errno;
	close(fd);
	return ret;
}

static int wait_ready(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	uint64_t now = sys_clock_now_ns(sys_clock_monotonic());
	struct timespec wait;

	if (now >= deadline_ns)
		return -ETIMEDOUT;
	wait.tv_sec = (time_t)((deadline_ns - now) / SYS_NS_PER_S);
	wait.tv_nsec = (long)((deadline_ns - now) % SYS_NS_PER_S);
	/* A timeout shows at the next round; what is wrong with the socket, the next call on it says. */
	return ppoll(&pfd, 1, &wait, NULL) < 0 && errno != EINTR ? -errno : 0;
}

int sys_socket_send_all(int fd, const void *buf, size_t len_bytes, uint64_t deadline_ns)
{
	const char *at = buf;
	int ret;

	while (len_bytes > 0) {
		ssize_t n = send(fd, at, len_bytes, MSG_NOSIGNAL);

		if (n >= 0) {
			at += n;
			len_bytes -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return errno == EPIPE ? -ECONNRESET : -errno;
		ret = wait_ready(fd, POLLOUT, deadline_ns);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int sys_socket_recv_all(int fd, void *buf, size_t len_bytes, uint64_t deadline_ns)
{
	char *at = buf;
	int ret;

	while (len_bytes > 0) {
		ssize_t n = recv(fd, at, len_bytes, 0);

		if (n == 0)
			return -ECONNRESET;
		if (n > 0) {
			at += n;
			len_bytes -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		ret = wait_ready(fd, POLLIN, deadline_ns);
		if (ret < 0)
			return ret;
	}
	return 0;
}

void sys_socket_tune(int fd, int sndbuf_bytes, int rcvbuf_bytes)
{
	int on = 1;

	/* Each is only for speed, and a unix socket has no TCP_NODELAY. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (sndbuf_bytes > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf_bytes, sizeof(sndbuf_bytes));
	if (rcvbuf_bytes > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf_bytes, sizeof(rcvbuf_bytes));
}

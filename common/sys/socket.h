/*
 * Sockets by the text form of an address: "127.0.0.1:7700", "[::1]:7700", "host.example:7700", "unix:/run/x.sock".
 * All descriptors are close-on-exec. Control threads only, but for what says otherwise.
 */
#ifndef FARSWAP_COMMON_SYS_SOCKET_H
#define FARSWAP_COMMON_SYS_SOCKET_H

#include <sys/socket.h>
#include <sys/un.h>

#include "common/base/base.h"

#define SYS_ADDRESS_MAX 128 /* longest text form, with its end */

struct sys_address {
	struct sockaddr_storage addr;
	socklen_t len;
};

/*
 * Resolves the text. 0; -EINVAL when it has not one of the forms above or the port is not 1 to 65535 (0 is taken when
 * allow_any_port); -ENOENT when the name does not resolve; -ENAMETOOLONG for a unix path that does not fit.
 */
int sys_address_parse(const char *text, bool allow_any_port, struct sys_address *ret_address) BASE_MUST_CHECK;

/* The text form of an address, for logs and for clients. */
void sys_address_format(const struct sys_address *address, char text[SYS_ADDRESS_MAX]);

/*
 * A listening, non-blocking stream socket. TCP gets SO_REUSEADDR, never SO_REUSEPORT; a unix socket path that a dead
 * process left is taken over, one that somebody listens on is -EADDRINUSE. The descriptor or a negative errno.
 */
int sys_socket_listen(const struct sys_address *address, int backlog) BASE_MUST_CHECK;

/* A connected, non-blocking stream socket; blocks for at most timeout_ms. The descriptor or a negative errno. */
int sys_socket_connect(const struct sys_address *address, int timeout_ms) BASE_MUST_CHECK;

/*
 * Sends or receives exactly len_bytes on a non-blocking socket, waiting at most until deadline_ns (of
 * CLOCK_MONOTONIC). 0, -ETIMEDOUT, -ECONNRESET when the peer closed, or the errno of the socket.
 */
int sys_socket_send_all(int fd, const void *buf, size_t len_bytes, uint64_t deadline_ns) BASE_MUST_CHECK;
int sys_socket_recv_all(int fd, void *buf, size_t len_bytes, uint64_t deadline_ns) BASE_MUST_CHECK;

/* TCP_NODELAY and the buffer sizes of the data path (0: the kernel's). Any thread. */
void sys_socket_tune(int fd, int sndbuf_bytes, int rcvbuf_bytes);

#endif

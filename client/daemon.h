/*
 * The client daemon put together: device, backends, keepers, admin service and front end, in the order in which they need
 * each other.
 */
#ifndef FARSWAP_CLIENT_DAEMON_H
#define FARSWAP_CLIENT_DAEMON_H

#include "client/settings.h"
#include "common/sys/thread.h"

struct daemon;

/*
 * Main thread, with signals blocked and rpc_init done. Returns when the device is served. 0, or a negative errno after one
 * line in the log that names what could not be had; nothing is left behind then. Both arguments outlive the daemon. When a
 * device that a dead daemon has left cannot be gone on with, it ends the process, with status 1: as kill would, so that
 * another can try.
 */
int daemon_start(const struct settings *settings, const struct sys_process_rights *rights, struct daemon **ret_daemon)
	BASE_MUST_CHECK;

/*
 * Main thread, again and again: does what the operator has asked for by the admin service. True: it is time to leave, the
 * front end is down already.
 */
bool daemon_poll(struct daemon *daemon);

/*
 * Main thread. Swap off and the front end down; takes as long as the kernel needs to read everything back. 0; below 0 swap
 * is on and everything is served as before, and the log says why.
 */
int daemon_leave(struct daemon *daemon) BASE_MUST_CHECK;

/* Main thread. Gives everything back, in reverse order. The front end is down, or never came up. Accepts NULL. */
void daemon_stop(struct daemon *daemon);

#endif

/*
 * The memory server put together: memory, data path, control service, in the order in which they need each other.
 */
#ifndef FARSWAP_SERVER_DAEMON_H
#define FARSWAP_SERVER_DAEMON_H

#include "server/settings.h"

struct daemon;

/*
 * Main thread, with signals blocked and rpc_init done. Takes the memory, listens and serves; it returns when clients
 * can come. 0, or a negative errno after one line in the log that names what could not be had; nothing is left behind
 * then.
 */
int daemon_start(const struct settings *settings, struct daemon **ret_daemon) BASE_MUST_CHECK;

/* Once: from now on nothing is lent, and clients are asked to move out within stop_grace. */
void daemon_begin_stop(struct daemon *daemon);

/* How many slabs clients still have. */
uint32_t daemon_nr_lent(struct daemon *daemon);

/* Tells clients that it is over, cuts them off and gives everything back. Accepts NULL. */
void daemon_stop(struct daemon *daemon);

#endif

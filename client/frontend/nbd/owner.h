/*
 * Whose a device of the kernel's is: a text that names a process for as long as the machine runs, kept by the kernel
 * beside the device. So the devices that a daemon has left behind when it died can be told from those of others, and of
 * daemons that live.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_NBD_OWNER_H
#define FARSWAP_CLIENT_FRONTEND_NBD_OWNER_H

#include <sys/types.h>

#include "common/base/base.h"

#define NBD_OWNER_BYTES 96

/* The text of a process, which is there: 0, or the negative errno of looking at it, -ESRCH when it is dead. */
int nbd_owner_format(pid_t pid, char text[NBD_OWNER_BYTES]) BASE_MUST_CHECK;

/*
 * True when the text is one of nbd_owner_format for a process of our own namespace, and that process is dead. Of a process of
 * another namespace nothing is known.
 */
bool nbd_owner_is_dead(const char *text) BASE_MUST_CHECK;

#endif

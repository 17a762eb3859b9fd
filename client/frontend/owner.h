/*
 * Whose a device of the kernel's is: a text, or a number, that names a process for as long as the machine runs, kept by the
 * kernel beside the device. So the devices that a daemon has left behind when it died can be told from those of others, and of
 * daemons that live.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_OWNER_H
#define FARSWAP_CLIENT_FRONTEND_OWNER_H

#include <sys/types.h>

#include "common/base/base.h"

#define FRONTEND_OWNER_BYTES 96
#define FRONTEND_OWNER_MARK_BITS 40

/* The text of a process, which is there: 0, or the negative errno of looking at it, -ESRCH when it is dead. */
int frontend_owner_format(pid_t pid, char text[FRONTEND_OWNER_BYTES]) BASE_MUST_CHECK;

/*
 * True when the text is one of frontend_owner_format for a process of our own namespace, and that process is dead. Of a process
 * of another namespace nothing is known.
 */
bool frontend_owner_is_dead(const char *text) BASE_MUST_CHECK;

/*
 * For where the kernel keeps the process's number anyway, and has room for no text: what tells the process from all others
 * with that number, in FRONTEND_OWNER_MARK_BITS. Errors as of frontend_owner_format.
 */
int frontend_owner_mark(pid_t pid, uint64_t *ret_mark) BASE_MUST_CHECK;

enum frontend_owner_state {
	FRONTEND_OWNER_LIVES,
	FRONTEND_OWNER_DEAD,
	FRONTEND_OWNER_UNKNOWN, /* it is of another namespace, or cannot be looked at */
};

/* Of the process with this number and mark. */
enum frontend_owner_state frontend_owner_state(pid_t pid, uint64_t mark) BASE_MUST_CHECK;

#endif

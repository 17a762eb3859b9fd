/*
 * What clients call themselves: text from outside that goes into logs and onto operators' terminals.
 */
#ifndef FARSWAP_SERVER_LEASE_NAME_H
#define FARSWAP_SERVER_LEASE_NAME_H

#include "common/base/base.h"

#define LEASE_NAME_MAX 64 /* bytes, with the end */

/*
 * 0 when the text is at most max_bytes - 1 bytes of UTF-8 (RFC 3629) that a line of a log can hold: no control
 * character, no line or paragraph separator, nothing that changes the direction of writing. -ENAMETOOLONG; else
 * -EINVAL. Pure; any thread.
 */
int lease_text_check(const char *text, size_t max_bytes) BASE_MUST_CHECK;

/* The same for the name of a client, which is 1 to LEASE_NAME_MAX - 1 bytes. */
int lease_name_check(const char *name) BASE_MUST_CHECK;

#endif

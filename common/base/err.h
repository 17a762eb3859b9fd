/*
 * The one border at which other libraries' ways of reporting errors become ours: 0 or a count on success, a negative
 * errno on failure.
 */
#ifndef FARSWAP_COMMON_BASE_ERR_H
#define FARSWAP_COMMON_BASE_ERR_H

#include <errno.h>

#include "common/base/base.h"

/* For calls that return -1 and set errno (system calls, libc): the value itself, or -errno. */
static inline BASE_MUST_CHECK int err_from_libc(long ret)
{
	return ret < 0 ? -errno : (int)ret;
}

/* For calls that return 0 or a positive errno (pthread_*). */
static inline BASE_MUST_CHECK int err_from_pthread(int ret)
{
	return -ret;
}

/* The text of a negative errno, such as "Connection refused". Any thread; the text is static. */
const char *err_text(int err);

/* The symbol of a negative errno, such as "ECONNREFUSED", or "0" for success. Any thread; the text is static. */
const char *err_name(int err);

#endif

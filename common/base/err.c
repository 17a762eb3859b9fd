#include "common/base/err.h"

#include <limits.h>
#include <string.h>

const char *err_text(int err)
{
	const char *text = err == INT_MIN ? NULL : strerrordesc_np(err < 0 ? -err : err);

	return text ? text : "Unknown error";
}

const char *err_name(int err)
{
	const char *name = err == INT_MIN ? NULL : strerrorname_np(err < 0 ? -err : err);

	return name ? name : "unknown";
}

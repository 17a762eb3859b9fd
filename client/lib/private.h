/*
 * What the files of the library share.
 */
#ifndef FARSWAP_CLIENT_LIB_PRIVATE_H
#define FARSWAP_CLIENT_LIB_PRIVATE_H

#include "client/lib/farswap.h"
#include "client/node.h"

#define LIBRARY_NAME_MAX 64

struct farswap {
	struct node *node;
};

/* ---- sized.c: structures that begin with their size, and may be those of an older or a newer version ---- */

/*
 * Takes a structure of the caller's that begins with its size: what ours has beyond it is 0. 0; -EINVAL: it is smaller
 * than first_bytes, its size in the first version that had it; -E2BIG: what it has beyond ours is not 0, or its size is
 * absurd.
 */
int sized_take(const void *given, void *ret_known, size_t known_bytes, size_t first_bytes) BASE_MUST_CHECK;
/* Gives the caller as much of ours as it knows, but for the size, and 0 for the rest. 0; -EINVAL as above. */
int sized_give(const void *known, size_t known_bytes, size_t first_bytes, void *ret_given) BASE_MUST_CHECK;

/* ---- options.c ---- */

/* Options with all defaults filled in, and what a node made from them points at. */
struct library_options {
	struct farswap_options given;
	char name[LIBRARY_NAME_MAX];
	int cpus[NODE_MAX_QUEUES + 1];
};

/* Checks them and fills in the defaults. 0, or -EINVAL or -E2BIG with one line that names the option. */
int library_options_take(const struct farswap_options *options, struct library_options *ret_options,
			 char ret_error[NODE_ERROR_MAX]) BASE_MUST_CHECK;
/* The result points into the options. Pure. */
struct node_options library_options_of_node(const struct library_options *options);

#endif

/*
 * Where new pages may go: the virtual swap layer's own part of a backend.
 */
#ifndef FARSWAP_CLIENT_VSWAP_PLACE_H
#define FARSWAP_CLIENT_VSWAP_PLACE_H

#include <stdatomic.h>

#include "client/backend/backend.h"

struct drain;

struct place {
	struct backend *backend;
	_Atomic bool draining; /* nothing new is placed there */
	struct drain *drain;   /* its last drain, see drain.h; allocated with the place */
};

static inline struct place *place_of(const struct backend *backend)
{
	return backend->vswap;
}

static inline bool place_is_draining(const struct backend *backend)
{
	return atomic_load_explicit(&place_of(backend)->draining, memory_order_acquire);
}

#endif

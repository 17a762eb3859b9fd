/*
 * The front end: the one that was configured, or the best that can be used here. One at a time, or none any more.
 */
#ifndef FARSWAP_CLIENT_SURFACE_H
#define FARSWAP_CLIENT_SURFACE_H

#include "client/ctl/admin.h"
#include "client/settings.h"
#include "client/state/state.h"
#include "client/vswap/vswap.h"

struct surface;

/*
 * Main thread; the reactors run. Brings the front end up; when it returns the device can be used, and swap is on if that was
 * asked for. 0, or a negative errno, the reason of which is in the log by then; nothing is left behind.
 *
 * state: NULL, or where the device is put on record, if it is one that outlives the daemon. With what a dead daemon has left,
 * its device goes on, and only that will do; after a failure the process must end then (see ublk.h).
 */
int surface_open(const struct settings *settings, struct vswap *vswap, struct state *state,
		 struct surface **ret_surface) BASE_MUST_CHECK;

/*
 * Main thread; the reactors run. Swap off, which reads everything back and may take long, and the front end down: 0, also
 * when it is down already. Below 0 (-ENOMEM above all: no room for the pages) swap is on and the device served as before.
 */
int surface_close(struct surface *surface) BASE_MUST_CHECK;

/* After surface_close returned 0. Accepts NULL. */
void surface_free(struct surface *surface);

/* Any control thread, also while surface_close is at work. */
void surface_look(struct surface *surface, struct admin_frontend *ret_frontend);

#endif

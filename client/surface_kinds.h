/*
 * The front ends that there are, as surface.c sees them: one row each.
 */
#ifndef FARSWAP_CLIENT_SURFACE_KINDS_H
#define FARSWAP_CLIENT_SURFACE_KINDS_H

#include "client/ctl/admin.h"
#include "client/settings.h"
#include "client/state/state.h"
#include "client/vswap/vswap.h"

struct surface_kind {
	const char *name; /* in the log and in status */
	enum settings_frontend setting;
	bool needs_root;
	/* Whether this kernel has what it needs: 0, or the errno that says why not. NULL: "auto" does not take it. */
	int (*probe)(void);
	/* Required. As surface_open. What a device needs to outlive the daemon is in *state. */
	int (*open)(const struct settings *settings, struct vswap *vswap, struct state *state, void **ret_frontend);
	/* Turns swap off, as surface_close. NULL: there is never any. */
	int (*swap_off)(void *frontend);
	/* Required. Takes it down and frees it; below 0 it is up as before. */
	int (*stop)(void *frontend);
	/* Required. Endpoint, swap and counters. */
	void (*look)(void *frontend, struct admin_frontend *frontend_seen);
};

/* Best first; the last one has no name. */
extern const struct surface_kind surface_kinds[];

#endif

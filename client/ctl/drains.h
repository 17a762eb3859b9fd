/*
 * Who wants which backend empty: the operator, the server itself, or both. A backend takes new pages again only when
 * neither does. Starts the drains of vswap, one at a time, and starts those that servers asked for again until they succeed.
 * What the operator wants outlives the daemon where there is a state file.
 *
 * Threads: any control thread that is registered with RCU, unless it says otherwise; one lock, above that of vswap.
 */
#ifndef FARSWAP_CLIENT_CTL_DRAINS_H
#define FARSWAP_CLIENT_CTL_DRAINS_H

#include "client/state/state.h"
#include "client/vswap/admin.h"
#include "common/base/base.h"
#include "common/sys/clock.h"

#define DRAINS_MAX_BACKENDS 64u

struct drains;

/* 0 or -ENOMEM. The clock is for deadlines that servers set. state: where the operator's wishes are on record; or NULL. */
int drains_create(struct vswap *vswap, struct sys_clock *clock, struct state *state, struct drains **ret_drains)
	BASE_MUST_CHECK;
void drains_free(struct drains *drains);
/* Before any other thread uses it. 0 or -ENOSPC. */
int drains_add(struct drains *drains, struct backend *backend) BASE_MUST_CHECK;
/*
 * Before the reactors turn, when all have been added and know their records: what an operator wanted when the daemon before
 * this one died is wanted still. Nothing is placed there, and a drain begins again at a tick, unless it had been cancelled.
 */
void drains_resume(struct drains *drains);

/*
 * The operator's wishes.
 *
 * start: 0; -EALREADY a drain of this backend runs, and now also at the operator's wish; -EBUSY one of another backend runs
 * (*ret_busy, which may be NULL, is it); -ENOTCONN its pages are lost or it never had any; -ENOENT.
 */
int drains_start(struct drains *drains, struct backend *backend, const struct vswap_drain_options *options,
		 const struct backend **ret_busy) BASE_MUST_CHECK;
/* 0; -ENOENT none runs. The server's own wish is forgotten with it. */
int drains_cancel(struct drains *drains, struct backend *backend) BASE_MUST_CHECK;
/* Nobody's wish any more. 0: back in use; -EINPROGRESS: a drain is being cancelled first, call again in a moment. */
int drains_undrain(struct drains *drains, struct backend *backend) BASE_MUST_CHECK;

/* The server's wishes. Any thread; acted on at the next tick. deadline_ms: from now, 0: none. */
void drains_server_wants(struct drains *drains, struct backend *backend, uint64_t deadline_ms);
void drains_server_relents(struct drains *drains, struct backend *backend);

/* To be called every 100 ms or so, by one thread. */
void drains_tick(struct drains *drains);

/* Where the drain of this backend that runs puts its pages. False when none runs. */
bool drains_running(struct drains *drains, struct backend *backend, enum vswap_drain_target *ret_target);

#endif

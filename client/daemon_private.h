/*
 * What the files of the daemon share.
 */
#ifndef FARSWAP_CLIENT_DAEMON_PRIVATE_H
#define FARSWAP_CLIENT_DAEMON_PRIVATE_H

#include "client/ctl/admin.h"
#include "client/daemon.h"
#include "client/node.h"
#include "client/state/state.h"
#include "client/surface.h"
#include "common/base/lock.h"

struct daemon {
	const struct settings *settings;
	const struct sys_process_rights *rights;

	struct state *kept; /* what outlives the daemon; NULL: nothing */
	struct node *node;
	struct admin *admin;
	struct surface *surface;
	bool ready_file_written;

	struct lock_mutex lock;
	enum admin_state state LOCK_GUARDED_BY(lock);
	bool serving LOCK_GUARDED_BY(lock);	  /* the surface is up and can be looked at */
	uint64_t swapoff_ticket LOCK_GUARDED_BY(lock); /* of the last that was asked for */
	int swapoff_result LOCK_GUARDED_BY(lock);	  /* of that one */
	bool swapoff_leave LOCK_GUARDED_BY(lock);
};

/* ---- daemon.c ---- */

/* What the admin service may ask of the daemon. */
struct admin_owner daemon_owner(struct daemon *daemon);
void daemon_set_state(struct daemon *daemon, enum admin_state state);

/*
 * ---- daemon_parts.c: the steps of the start, in their order ----
 *
 * Each makes its part: 0, or a negative errno after one line in the log; what it made by then is undone by daemon_stop.
 */

int daemon_open_state(struct daemon *daemon) BASE_MUST_CHECK; /* daemon_state.c */
int daemon_create_node(struct daemon *daemon) BASE_MUST_CHECK;
int daemon_listen_admin(struct daemon *daemon) BASE_MUST_CHECK;
int daemon_run(struct daemon *daemon) BASE_MUST_CHECK;
int daemon_wait_for_room(struct daemon *daemon) BASE_MUST_CHECK;
int daemon_open_frontend(struct daemon *daemon) BASE_MUST_CHECK;
int daemon_write_ready_file(struct daemon *daemon) BASE_MUST_CHECK;

#endif

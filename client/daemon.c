#include "client/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/daemon_private.h"
#include "common/base/err.h"

#define ADMIN_GRACE_MS 2000

/* ---- what the admin service asks ---- */

static enum admin_state owner_state(void *user)
{
	struct daemon *daemon = user;
	enum admin_state state;

	lock_acquire(&daemon->lock);
	state = daemon->state;
	lock_release(&daemon->lock);
	return state;
}

void daemon_set_state(struct daemon *daemon, enum admin_state state)
{
	lock_acquire(&daemon->lock);
	daemon->state = state;
	lock_release(&daemon->lock);
	if (daemon->admin)
		admin_set_serving(daemon->admin, state == ADMIN_SERVING);
}

static void owner_frontend(void *user, struct admin_frontend *ret_frontend)
{
	struct daemon *daemon = user;
	bool serving;

	*ret_frontend = (struct admin_frontend){ .kind = "" };
	lock_acquire(&daemon->lock);
	serving = daemon->serving;
	lock_release(&daemon->lock);
	if (serving)
		surface_look(daemon->surface, ret_frontend);
}

static int owner_swapoff(void *user, bool leave, uint64_t *ret_ticket)
{
	struct daemon *daemon = user;
	int ret = 0;

	lock_acquire(&daemon->lock);
	if (daemon->state == ADMIN_STOPPING) {
		ret = -EALREADY;
	} else if (daemon->swapoff_result == -EINPROGRESS) {
		ret = -EBUSY;
	} else {
		*ret_ticket = ++daemon->swapoff_ticket;
		daemon->swapoff_result = -EINPROGRESS;
		daemon->swapoff_leave = leave;
	}
	lock_release(&daemon->lock);
	return ret;
}

static int owner_swapoff_result(void *user, uint64_t ticket)
{
	struct daemon *daemon = user;
	int result;

	lock_acquire(&daemon->lock);
	/* A later one exists only because this one has ended and somebody asked again: it was refused, then. */
	result = ticket == daemon->swapoff_ticket ? daemon->swapoff_result : -EBUSY;
	lock_release(&daemon->lock);
	return result;
}

struct admin_owner daemon_owner(struct daemon *daemon)
{
	return (struct admin_owner){
		.state = owner_state,
		.frontend = owner_frontend,
		.swapoff = owner_swapoff,
		.swapoff_result = owner_swapoff_result,
		.user = daemon,
	};
}

/* ---- start and stop ---- */

static int (*const steps[])(struct daemon *daemon) = {
	/* Memory, and what others may have already: refused before anything has begun. */
	daemon_open_state,
	daemon_create_node,
	daemon_listen_admin,
	/* Threads: leases are opened and slabs fetched. */
	daemon_run,
	daemon_wait_for_room,
	/* The kernel, or NBD clients. */
	daemon_open_frontend,
	daemon_write_ready_file,
};

/* Of a device that goes on, nothing may be given back as long as somebody has pages there. */
static void leave_for_another_try(const struct daemon *daemon)
{
	if (!daemon->node || !node_is_resumed(daemon->node))
		return;
	log_error("the device that a dead farswapd has left stays as it is, and can be gone on with by another start");
	_exit(EXIT_FAILURE);
}

int daemon_start(const struct settings *settings, const struct sys_process_rights *rights, struct daemon **ret_daemon)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	char size[CONFIG_VALUE_MAX];

	if (!daemon) {
		log_error("out of memory");
		return -ENOMEM;
	}
	daemon->settings = settings;
	daemon->rights = rights;
	lock_mutex_init(&daemon->lock);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(steps); i++) {
		int ret = steps[i](daemon);

		if (ret == 0)
			continue;
		leave_for_another_try(daemon);
		/* No kernel swaps on it yet, or only for an instant: should swapoff fail, nothing may be taken away. */
		while (daemon_leave(daemon) < 0)
			(void)sys_signal_wait(1000);
		daemon_stop(daemon);
		return ret;
	}
	config_format_size(settings->size_bytes, size);
	log_notice("ready: a device of %s, %u servers%s", size, daemon->node->nr_servers,
		   daemon->node->disk ? " and a disk" : "");
	*ret_daemon = daemon;
	return 0;
}

int daemon_leave(struct daemon *daemon)
{
	int ret;

	if (!daemon->surface)
		return 0;
	daemon_set_state(daemon, ADMIN_STOPPING);
	ret = surface_close(daemon->surface);
	if (ret < 0) {
		log_error("swap cannot be turned off (%s): the device is served as before", err_text(ret));
		daemon_set_state(daemon, ADMIN_SERVING);
		return ret;
	}
	daemon_set_state(daemon, ADMIN_IDLE);
	return 0;
}

bool daemon_poll(struct daemon *daemon)
{
	bool asked, leave;
	int ret;

	lock_acquire(&daemon->lock);
	asked = daemon->swapoff_result == -EINPROGRESS;
	leave = daemon->swapoff_leave;
	lock_release(&daemon->lock);
	if (!asked)
		return false;
	log_notice("swapoff, at the operator's wish%s", leave ? "; the daemon leaves afterwards" : "");
	ret = daemon_leave(daemon);
	lock_acquire(&daemon->lock);
	daemon->swapoff_result = ret;
	lock_release(&daemon->lock);
	admin_wake(daemon->admin);
	return ret == 0 && leave;
}

void daemon_stop(struct daemon *daemon)
{
	if (!daemon)
		return;
	if (daemon->ready_file_written)
		unlink(daemon->settings->ready_file);
	lock_acquire(&daemon->lock);
	daemon->state = ADMIN_STOPPING;
	daemon->serving = false;
	lock_release(&daemon->lock);
	if (daemon->admin)
		admin_stop(daemon->admin, ADMIN_GRACE_MS);
	if (daemon->node)
		node_stop(daemon->node);
	admin_free(daemon->admin);
	surface_free(daemon->surface);
	node_free(daemon->node);
	state_close(daemon->kept, daemon->kept && !state_has_device(daemon->kept));
	lock_mutex_done(&daemon->lock);
	free(daemon);
}

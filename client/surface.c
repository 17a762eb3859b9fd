#include "client/surface.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/surface_kinds.h"
#include "common/base/err.h"
#include "common/base/lock.h"
#include "common/log/log.h"

struct surface {
	const struct surface_kind *kind;
	struct state *state; /* NULL: none */
	char chosen_because[ADMIN_REASON_MAX];
	struct lock_mutex lock;
	/* Written by the main thread only, and freed only after it was taken out here. NULL: there is none (any more). */
	void *frontend LOCK_GUARDED_BY(lock);
};

static void set_frontend(struct surface *surface, void *frontend)
{
	lock_acquire(&surface->lock);
	surface->frontend = frontend;
	lock_release(&surface->lock);
}

static int open_kind(struct surface *surface, const struct surface_kind *kind, const struct settings *settings,
		     struct vswap *vswap)
{
	void *frontend = NULL;
	int ret;

	if (kind->needs_root && geteuid() != 0) {
		log_error("frontend: %s makes a device of the kernel's, which only root may do", kind->name);
		return -EPERM;
	}
	ret = kind->open(settings, vswap, surface->state, &frontend);
	if (ret < 0)
		return ret;
	surface->kind = kind;
	set_frontend(surface, frontend);
	return 0;
}

static void reason_add(struct surface *surface, const char *name, const char *text)
{
	size_t len = strlen(surface->chosen_because);

	snprintf(surface->chosen_because + len, sizeof(surface->chosen_because) - len, "%s%s: %s", len ? "; " : "", name, text);
}

/* The first that this kernel has and that comes up; which is told, and why not one before it. */
static int open_auto(struct surface *surface, const struct settings *settings, struct vswap *vswap)
{
	const struct surface_kind *kind;
	int ret = -ENODEV;

	for (kind = surface_kinds; kind->name; kind++) {
		if (!kind->probe)
			continue;
		ret = kind->probe();
		if (ret == 0)
			ret = open_kind(surface, kind, settings, vswap);
		if (ret == 0) {
			reason_add(surface, kind->name, "the best that can be used here");
			log_notice("frontend: auto: %s", surface->chosen_because);
			return 0;
		}
		reason_add(surface, kind->name, err_text(ret));
		/* What it needs is in use, as by the swap of a dead one: another device would only hide that. */
		if (ret == -EBUSY)
			break;
	}
	log_error("frontend: auto: there is none that can be used here: %s", surface->chosen_because);
	return ret;
}

static const struct surface_kind *find_kind(enum settings_frontend setting)
{
	const struct surface_kind *kind;

	for (kind = surface_kinds; kind->name && kind->setting != setting; kind++)
		;
	return kind->name ? kind : NULL;
}

/* The front end of the device that a dead daemon has left. */
static int open_left(struct surface *surface, const struct settings *settings, struct vswap *vswap)
{
	const struct surface_kind *kind;
	uint64_t identity;
	uint32_t id;
	const char *left = state_device(surface->state, &id, &identity);

	for (kind = surface_kinds; kind->name && strcmp(kind->name, left) != 0; kind++)
		;
	if (!kind->name)
		return -EUCLEAN;
	snprintf(surface->chosen_because, sizeof(surface->chosen_because), "its device goes on");
	return open_kind(surface, kind, settings, vswap);
}

int surface_open(const struct settings *settings, struct vswap *vswap, struct state *state, struct surface **ret_surface)
{
	struct surface *surface = calloc(1, sizeof(*surface));
	const struct surface_kind *kind = find_kind(settings->frontend);
	int ret = 0;

	if (!surface) {
		log_error("frontend: out of memory");
		return -ENOMEM;
	}
	lock_mutex_init(&surface->lock);
	surface->state = state;
	if (state && state_is_left(state))
		ret = open_left(surface, settings, vswap);
	else if (settings->frontend == SETTINGS_AUTO_FRONTEND)
		ret = open_auto(surface, settings, vswap);
	else if (kind)
		ret = open_kind(surface, kind, settings, vswap);
	if (ret < 0) {
		surface_free(surface);
		return ret;
	}
	if (kind && surface->chosen_because[0] == '\0')
		snprintf(surface->chosen_because, sizeof(surface->chosen_because), "configured");
	*ret_surface = surface;
	return 0;
}

int surface_close(struct surface *surface)
{
	void *frontend;
	int ret = 0;

	lock_acquire(&surface->lock);
	frontend = surface->frontend;
	lock_release(&surface->lock);
	if (!frontend)
		return 0;
	/* The long part first, while others may still look. */
	if (surface->kind->swap_off)
		ret = surface->kind->swap_off(frontend);
	if (ret < 0)
		return ret;
	set_frontend(surface, NULL);
	ret = surface->kind->stop(frontend);
	if (ret < 0)
		set_frontend(surface, frontend);
	else if (surface->state)
		state_set_device(surface->state, "", 0, 0);
	return ret;
}

void surface_free(struct surface *surface)
{
	if (!surface)
		return;
	lock_mutex_done(&surface->lock);
	free(surface);
}

void surface_look(struct surface *surface, struct admin_frontend *ret_frontend)
{
	*ret_frontend = (struct admin_frontend){ .kind = "" };
	lock_acquire(&surface->lock);
	if (surface->frontend) {
		ret_frontend->kind = surface->kind->name;
		snprintf(ret_frontend->chosen_because, sizeof(ret_frontend->chosen_because), "%s", surface->chosen_because);
		surface->kind->look(surface->frontend, ret_frontend);
	}
	lock_release(&surface->lock);
}

#include "client/ctl/drains.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/err.h"
#include "common/base/lock.h"
#include "common/log/log.h"

/* Between two attempts at a drain that a server asked for and that ended with pages left. */
#define RETRY_NS (2 * SYS_NS_PER_S)

struct drains_entry {
	struct backend *backend;
	bool by_operator;
	bool by_server;
	bool again; /* the operator's drain has ended with its daemon */
	bool relent; /* to be taken back into use when its drain has ended */
	enum vswap_drain_target target;
	uint64_t server_deadline_ns; /* 0: none */
	uint64_t retry_ns;
	int logged_err;
};

struct drains {
	struct vswap *vswap;
	struct sys_clock *clock;
	struct state *state;
	struct lock_mutex lock;
	unsigned nr LOCK_GUARDED_BY(lock);
	struct drains_entry entry[DRAINS_MAX_BACKENDS] LOCK_GUARDED_BY(lock);
};

int drains_create(struct vswap *vswap, struct sys_clock *clock, struct state *state, struct drains **ret_drains)
{
	struct drains *drains = calloc(1, sizeof(*drains));

	if (!drains)
		return -ENOMEM;
	drains->vswap = vswap;
	drains->clock = clock;
	drains->state = state;
	lock_mutex_init(&drains->lock);
	*ret_drains = drains;
	return 0;
}

void drains_free(struct drains *drains)
{
	if (!drains)
		return;
	lock_mutex_done(&drains->lock);
	free(drains);
}

int drains_add(struct drains *drains, struct backend *backend)
{
	int ret = 0;

	lock_acquire(&drains->lock);
	if (drains->nr == DRAINS_MAX_BACKENDS)
		ret = -ENOSPC;
	else
		drains->entry[drains->nr++].backend = backend;
	lock_release(&drains->lock);
	return ret;
}

/* ---- on record ---- */

static void record_wish(struct drains *drains, const struct drains_entry *entry, enum state_wish_kind kind)
{
	struct state_wish *wish;

	if (!drains->state)
		return;
	wish = state_wish(drains->state, entry->backend->record);
	atomic_store(&wish->target, (uint32_t)entry->target);
	atomic_store(&wish->kind, (uint32_t)kind);
}

static void resume_locked(struct drains *drains, struct drains_entry *entry) LOCK_REQUIRES(drains->lock)
{
	const struct state_wish *wish = state_wish(drains->state, entry->backend->record);
	uint32_t kind = atomic_load(&wish->kind), target = atomic_load(&wish->target);

	if (kind == STATE_WISH_NONE)
		return;
	entry->by_operator = true;
	entry->again = kind == STATE_WISH_EMPTY;
	entry->target = target <= VSWAP_DRAIN_TO_DISK ? (enum vswap_drain_target)target : VSWAP_DRAIN_TO_ANY;
	vswap_hold_back(drains->vswap, entry->backend);
	log_notice("%s takes no new pages, as before: undrain takes it back into use", entry->backend->name);
}

void drains_resume(struct drains *drains)
{
	lock_acquire(&drains->lock);
	for (unsigned i = 0; i < drains->nr; i++)
		resume_locked(drains, &drains->entry[i]);
	lock_release(&drains->lock);
}

/* ---- what is wanted ---- */

static struct drains_entry *entry_of_locked(struct drains *drains, const struct backend *backend)
	LOCK_REQUIRES(drains->lock)
{
	for (unsigned i = 0; i < drains->nr; i++)
		if (drains->entry[i].backend == backend)
			return &drains->entry[i];
	return NULL;
}

static enum vswap_drain_state drain_state(struct drains *drains, struct backend *backend)
{
	struct vswap_drain_progress progress;

	vswap_drain_progress(drains->vswap, backend, &progress);
	return progress.state;
}

static const struct backend *running_locked(struct drains *drains) LOCK_REQUIRES(drains->lock)
{
	for (unsigned i = 0; i < drains->nr; i++)
		if (drain_state(drains, drains->entry[i].backend) == VSWAP_DRAIN_RUNNING)
			return drains->entry[i].backend;
	return NULL;
}

static bool backend_has_pages(const struct backend *backend)
{
	enum backend_state state = backend_state(backend);

	return state == BACKEND_UP || state == BACKEND_DOWN;
}

int drains_start(struct drains *drains, struct backend *backend, const struct vswap_drain_options *options,
		 const struct backend **ret_busy)
{
	const struct backend *busy = NULL;
	struct drains_entry *entry;
	int ret;

	lock_acquire(&drains->lock);
	entry = entry_of_locked(drains, backend);
	if (!entry)
		ret = -ENOENT;
	else if (!backend_has_pages(backend))
		ret = -ENOTCONN;
	else
		ret = vswap_drain(drains->vswap, backend, options);
	if (ret == 0)
		entry->target = options->target;
	if (ret == 0 || ret == -EALREADY) {
		entry->by_operator = true;
		entry->again = false;
		entry->relent = false;
		record_wish(drains, entry, STATE_WISH_EMPTY);
	}
	if (ret == -EBUSY)
		busy = running_locked(drains);
	lock_release(&drains->lock);
	if (ret == -EBUSY && ret_busy)
		*ret_busy = busy;
	return ret;
}

int drains_cancel(struct drains *drains, struct backend *backend)
{
	struct drains_entry *entry;
	int ret = -ENOENT;

	lock_acquire(&drains->lock);
	entry = entry_of_locked(drains, backend);
	if (entry)
		ret = vswap_drain_cancel(drains->vswap, backend);
	if (entry && entry->again)
		ret = 0; /* it had yet to begin */
	if (ret == 0) {
		entry->by_server = false;
		entry->again = false;
		if (entry->by_operator)
			record_wish(drains, entry, STATE_WISH_NOTHING_NEW);
	}
	lock_release(&drains->lock);
	return ret;
}

/* 0 or -EINPROGRESS. */
static int undrain_locked(struct drains *drains, struct drains_entry *entry) LOCK_REQUIRES(drains->lock)
{
	int ret;

	entry->by_operator = false;
	entry->by_server = false;
	entry->again = false;
	entry->relent = false;
	record_wish(drains, entry, STATE_WISH_NONE);
	if (!vswap_backend_draining(entry->backend))
		return 0;
	ret = vswap_undrain(drains->vswap, entry->backend);
	if (ret != -EBUSY)
		return ret;
	/* -ENOENT: it ended just now. */
	ret = vswap_drain_cancel(drains->vswap, entry->backend);
	(void)ret;
	entry->relent = true;
	return -EINPROGRESS;
}

int drains_undrain(struct drains *drains, struct backend *backend)
{
	struct drains_entry *entry;
	int ret = -ENOENT;

	lock_acquire(&drains->lock);
	entry = entry_of_locked(drains, backend);
	if (entry)
		ret = undrain_locked(drains, entry);
	lock_release(&drains->lock);
	return ret;
}

void drains_server_wants(struct drains *drains, struct backend *backend, uint64_t deadline_ms)
{
	struct drains_entry *entry;

	lock_acquire(&drains->lock);
	entry = entry_of_locked(drains, backend);
	assert(entry);
	entry->by_server = true;
	entry->relent = false;
	entry->retry_ns = 0;
	entry->server_deadline_ns =
		deadline_ms ? sys_clock_now_ns(drains->clock) + deadline_ms * SYS_NS_PER_MS : 0;
	lock_release(&drains->lock);
}

void drains_server_relents(struct drains *drains, struct backend *backend)
{
	struct drains_entry *entry;

	lock_acquire(&drains->lock);
	entry = entry_of_locked(drains, backend);
	assert(entry);
	if (entry->by_server) {
		entry->by_server = false;
		entry->relent = !entry->by_operator;
	}
	lock_release(&drains->lock);
}

static void start_for_server_locked(struct drains *drains, struct drains_entry *entry, uint64_t now)
	LOCK_REQUIRES(drains->lock)
{
	struct vswap_drain_options options = { .target = VSWAP_DRAIN_TO_ANY };
	enum vswap_drain_state state = drain_state(drains, entry->backend);
	int ret;

	/* Nothing is placed on it after a drain, however it ended, so DRAINED stays true. */
	if (state == VSWAP_DRAIN_RUNNING || state == VSWAP_DRAIN_DRAINED || !backend_has_pages(entry->backend))
		return;
	/* After the deadline the server may take its memory back any time: what can still be saved is saved. */
	if (entry->server_deadline_ns > now)
		options.deadline_ms = (entry->server_deadline_ns - now) / SYS_NS_PER_MS + 1;
	ret = vswap_drain(drains->vswap, entry->backend, &options);
	entry->retry_ns = now + RETRY_NS;
	if (ret == 0) {
		entry->target = options.target;
		log_notice("%s asks for its memory back: its pages are being moved", entry->backend->name);
	} else if (ret != entry->logged_err) {
		log_notice("%s asks for its memory back, and has to wait: %s", entry->backend->name, err_text(ret));
	}
	entry->logged_err = ret;
}

/* However it ends, it is not begun a third time: as one that the operator has just asked for. */
static void start_again_locked(struct drains *drains, struct drains_entry *entry, uint64_t now) LOCK_REQUIRES(drains->lock)
{
	struct vswap_drain_options options = { .target = entry->target };
	int ret;

	entry->retry_ns = now + RETRY_NS;
	if (!backend_has_pages(entry->backend))
		return;
	ret = vswap_drain(drains->vswap, entry->backend, &options);
	entry->again = ret == -EBUSY;
	if (ret == 0)
		log_notice("%s: its drain goes on", entry->backend->name);
	else if (ret != -EBUSY && ret != -EALREADY)
		log_warning("%s: its drain cannot go on: %s", entry->backend->name, err_text(ret));
}

void drains_tick(struct drains *drains)
{
	uint64_t now = sys_clock_now_ns(drains->clock);

	lock_acquire(&drains->lock);
	for (unsigned i = 0; i < drains->nr; i++) {
		struct drains_entry *entry = &drains->entry[i];

		if (entry->relent && undrain_locked(drains, entry) == 0)
			log_notice("%s is in use again", entry->backend->name);
		else if (entry->by_server && now >= entry->retry_ns)
			start_for_server_locked(drains, entry, now);
		else if (entry->again && now >= entry->retry_ns)
			start_again_locked(drains, entry, now);
	}
	lock_release(&drains->lock);
}

bool drains_running(struct drains *drains, struct backend *backend, enum vswap_drain_target *ret_target)
{
	struct drains_entry *entry;
	bool running = false;

	lock_acquire(&drains->lock);
	entry = entry_of_locked(drains, backend);
	if (entry && vswap_backend_draining(backend) && drain_state(drains, backend) == VSWAP_DRAIN_RUNNING) {
		*ret_target = entry->target;
		running = true;
	}
	lock_release(&drains->lock);
	return running;
}

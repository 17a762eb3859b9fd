#include "client/ctl/keeper.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/backend/remote/remote.h"
#include "client/ctl/keeper_private.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "common/sys/thread.h"

uint64_t keeper_now_ns(void)
{
	return sys_clock_now_ns(sys_clock_monotonic());
}

void keeper_error(struct keeper *keeper, const char *fmt, ...)
{
	char text[KEEPER_ERROR_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	lock_acquire(&keeper->lock);
	memcpy(keeper->info.last_error, text, sizeof(text));
	lock_release(&keeper->lock);
	if (strcmp(text, keeper->logged_error) == 0) {
		log_debug("%s: %s", keeper->address, text);
		return;
	}
	memcpy(keeper->logged_error, text, sizeof(text));
	log_warning("%s: %s", keeper->address, text);
}

bool keeper_stopping(struct keeper *keeper)
{
	bool stopping;

	lock_acquire(&keeper->lock);
	stopping = keeper->stopping;
	lock_release(&keeper->lock);
	return stopping;
}

void keeper_sleep(struct keeper *keeper, uint32_t generation, unsigned ms)
{
	uint64_t until = keeper_now_ns() + ms * SYS_NS_PER_MS;
	struct timespec at = { .tv_sec = (time_t)(until / SYS_NS_PER_S), .tv_nsec = (long)(until % SYS_NS_PER_S) };

	lock_acquire(&keeper->lock);
	while (!keeper->stopping && !(generation && (keeper->session_over || keeper->generation != generation)))
		if (pthread_cond_timedwait(&keeper->changed, &keeper->lock.m, &at) == ETIMEDOUT)
			break;
	lock_release(&keeper->lock);
}

void keeper_session_is_over(struct keeper *keeper, uint32_t generation, const char *why)
{
	bool news = false;

	lock_acquire(&keeper->lock);
	if (keeper->generation == generation && !keeper->session_over) {
		keeper->session_over = true;
		snprintf(keeper->info.last_error, sizeof(keeper->info.last_error), "%s", why);
		news = true;
	}
	pthread_cond_broadcast(&keeper->changed);
	lock_release(&keeper->lock);
	if (news)
		log_warning("%s: %s", keeper->address, why);
	remote_wake(keeper->options.backend);
}

static void *keeper_run(void *arg)
{
	struct keeper *keeper = arg;
	uint32_t generation;

	sys_rcu_thread_init();
	if (keeper->resumed) {
		keeper_session_serve(keeper, keeper->resumed);
		keeper_session_close(keeper);
	}
	while (!keeper_stopping(keeper)) {
		if (keeper_session_open(keeper, &generation) < 0) {
			keeper_sleep(keeper, 0, backoff_next_ms(&keeper->backoff));
			continue;
		}
		backoff_reset(&keeper->backoff);
		keeper_session_serve(keeper, generation);
		keeper_session_close(keeper);
	}
	sys_rcu_thread_done();
	return NULL;
}

/* ---- from outside ---- */

int keeper_create(const struct keeper_options *options, struct keeper **ret_keeper, struct rpc_status *ret_status)
{
	struct keeper *keeper = calloc(1, sizeof(*keeper));
	pthread_condattr_t monotonic;
	int ret;

	if (!keeper) {
		rpc_status_set_errno(ret_status, -ENOMEM, "%s", options->address);
		return -ENOMEM;
	}
	keeper->options = *options;
	snprintf(keeper->address, sizeof(keeper->address), "%s", options->address);
	snprintf(keeper->client_name, sizeof(keeper->client_name), "%s", options->client_name);
	backoff_init(&keeper->backoff, options->seed, BACKOFF_LAST_MS);
	backoff_init(&keeper->reconnect_backoff, options->seed + 4, KEEPER_RECONNECT_LAST_MS);
	backoff_init(&keeper->fetch_backoff, options->seed + 1, BACKOFF_LAST_MS);
	backoff_init(&keeper->release_backoff, options->seed + 2, BACKOFF_LAST_MS);
	LIST_INIT(&keeper->held);
	LIST_INIT(&keeper->returning);
	LIST_INIT(&keeper->spare);
	if (options->state)
		keeper->record = state_session(options->state, options->backend->record);
	ret = rpc_client_create(keeper->address, NULL, &keeper->client, ret_status);
	if (ret < 0) {
		free(keeper);
		return ret;
	}
	lock_mutex_init(&keeper->lock);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&keeper->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	*ret_keeper = keeper;
	return 0;
}

int keeper_resume(struct keeper *keeper)
{
	if (!keeper->record || !atomic_load(&keeper->record->stands))
		return 0;
	return keeper_session_resume(keeper);
}

int keeper_start(struct keeper *keeper)
{
	int ret;

	ret = sys_thread_start(&keeper->watcher, "watcher", -1, keeper_watch_run, keeper);
	if (ret < 0)
		return ret;
	ret = sys_thread_start(&keeper->thread, "keeper", -1, keeper_run, keeper);
	if (ret < 0) {
		keeper_stop_begin(keeper);
		pthread_join(keeper->watcher, NULL);
		return ret;
	}
	keeper->started = true;
	return 0;
}

void keeper_stop_begin(struct keeper *keeper)
{
	lock_acquire(&keeper->lock);
	keeper->stopping = true;
	if (keeper->stream)
		rpc_stream_cancel(keeper->stream);
	pthread_cond_broadcast(&keeper->changed);
	lock_release(&keeper->lock);
	remote_wake(keeper->options.backend);
}

void keeper_stop(struct keeper *keeper)
{
	keeper_stop_begin(keeper);
	if (!keeper->started)
		return;
	pthread_join(keeper->thread, NULL);
	pthread_join(keeper->watcher, NULL);
	keeper->started = false;
}

void keeper_free(struct keeper *keeper)
{
	if (!keeper)
		return;
	assert(!keeper->started);
	keeper_slabs_free(keeper);
	rpc_client_free(keeper->client);
	pthread_cond_destroy(&keeper->changed);
	lock_mutex_done(&keeper->lock);
	free(keeper);
}

struct backend *keeper_backend(const struct keeper *keeper)
{
	return keeper->options.backend;
}

void keeper_fetch(struct keeper *keeper, unsigned nr_slabs)
{
	lock_acquire(&keeper->lock);
	if (keeper->generation)
		keeper->info.nr_asked += nr_slabs;
	lock_release(&keeper->lock);
	remote_wake(keeper->options.backend);
}

void keeper_give_back(struct keeper *keeper, unsigned nr_slabs)
{
	lock_acquire(&keeper->lock);
	keeper->nr_return = nr_slabs;
	lock_release(&keeper->lock);
	if (nr_slabs)
		remote_wake(keeper->options.backend);
}

void keeper_info(struct keeper *keeper, struct keeper_info *ret_info)
{
	uint64_t now = keeper_now_ns();

	lock_acquire(&keeper->lock);
	*ret_info = keeper->info;
	ret_info->can_give = keeper->info.has_session && !keeper->session_over && keeper->accepting &&
			     now >= keeper->barren_ns && backend_state(keeper->options.backend) == BACKEND_UP;
	lock_release(&keeper->lock);
}

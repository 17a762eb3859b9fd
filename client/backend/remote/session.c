/*
 * The control thread's half of the remote backend: sessions, connecting, waiting for trouble.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/backend/remote/internal.h"
#include "common/base/err.h"

static uint64_t remote_now_ns(const struct remote *remote)
{
	return sys_clock_now_ns(sys_reactor_clock(remote->queues[0].reactor));
}

static void remote_set_state(struct remote *remote, enum backend_state state) LOCK_REQUIRES(remote->lock)
{
	atomic_store_explicit(&remote->backend.state, state, memory_order_release);
}

static int remote_init_cond(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int ret;

	ret = err_from_pthread(pthread_condattr_init(&attr));
	if (ret < 0)
		return ret;
	ret = err_from_pthread(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	if (ret == 0)
		ret = err_from_pthread(pthread_cond_init(cond, &attr));
	pthread_condattr_destroy(&attr);
	return ret;
}

int remote_create(const struct remote_options *options, struct backend **ret_backend)
{
	struct remote *remote;
	size_t len_bytes;
	int ret;

	if (options->nr_queues == 0 || options->nr_queues > BACKEND_MAX_QUEUES || options->queue_depth == 0 ||
	    options->queue_depth > TRANSPORT_MAX_QUEUE_DEPTH || options->dead_ms < 2 ||
	    strlen(options->name) >= BACKEND_NAME_MAX)
		return -EINVAL;
	len_bytes = base_align_up(sizeof(*remote) + options->nr_queues * sizeof(remote->queues[0]), FSW_CACHE_LINE);
	remote = aligned_alloc(FSW_CACHE_LINE, len_bytes);
	if (!remote)
		return -ENOMEM;
	memset(remote, 0, len_bytes);
	ret = remote_init_cond(&remote->changed);
	if (ret < 0) {
		free(remote);
		return ret;
	}
	lock_mutex_init(&remote->lock);
	remote->backend.ops = &remote_ops;
	remote->backend.kind = BACKEND_REMOTE;
	strcpy(remote->backend.name, options->name); /* checked above */
	remote->backend.nr_queues = options->nr_queues;
	atomic_init(&remote->backend.state, BACKEND_CONNECTING);
	remote->driver = options->driver;
	remote->queue_depth = options->queue_depth;
	remote->dead_ms = options->dead_ms;
	remote->backend.patience_ns = options->patience_ms * SYS_NS_PER_MS;
	for (unsigned i = 0; i < options->nr_queues; i++)
		remote_queue_init(&remote->queues[i], remote, i, options->reactors[i]);
	*ret_backend = &remote->backend;
	return 0;
}

void remote_free(struct backend *backend)
{
	struct remote *remote;

	if (!backend)
		return;
	remote = remote_of(backend);
	assert(!remote->in_session);
	pthread_cond_destroy(&remote->changed);
	lock_mutex_done(&remote->lock);
	free(remote);
}

/* ---- sessions ---- */

/* Connects one queue. 0, or the error of the driver or of transport_attach. */
static int remote_connect(struct remote *remote, struct remote_queue *queue, uint64_t deadline_ns)
{
	const struct remote_session *session = &remote->session;
	uint64_t now_ns = remote_now_ns(remote);
	struct transport_connect_options options = {
		.address = session->data_address,
		.lease_id = session->lease_id,
		.instance_id = session->instance_id,
		.channel = queue->number,
		.queue_depth = remote->queue_depth,
		/* More often than the server asks for, if that is what it takes to notice within dead_ms. */
		.heartbeat_ms = (unsigned)base_max_u64(base_min_u64(session->heartbeat_ms, remote->dead_ms / 3), 1),
		.dead_ms = remote->dead_ms,
	};
	struct remote_attach attach = { .queue = queue, .session = atomic_load(&remote->session_number) };
	int ret;

	if (now_ns >= deadline_ns)
		return -ETIMEDOUT;
	options.timeout_ms = (unsigned)((deadline_ns - now_ns + SYS_NS_PER_MS - 1) / SYS_NS_PER_MS);
	memcpy(options.token, session->token, sizeof(options.token));
	ret = transport_connect(session->driver, &options, &attach.conn);
	explicit_bzero(options.token, sizeof(options.token));
	if (ret < 0)
		return ret;
	sys_reactor_call(queue->reactor, remote_queue_attach, &attach);
	return attach.ret;
}

/*
 * Every queue has been connected: declares the backend UP, unless one has failed again meanwhile. Under the lock, so
 * that the fence moves on only while no failure is on record (see queue.c).
 */
static int remote_stand(struct remote *remote)
{
	int ret = 0;

	lock_acquire(&remote->lock);
	if (remote->nr_failed > 0) {
		ret = remote->last_error;
	} else {
		if (backend_state(&remote->backend) == BACKEND_DOWN)
			atomic_fetch_add_explicit(&remote->backend.fence, 1, memory_order_release);
		remote->down_since_ns = 0;
		remote_set_state(remote, BACKEND_UP);
	}
	lock_release(&remote->lock);
	return ret;
}

/* Ends the session with the state `state`, which is to be seen before the first operation fails. */
static void remote_hang_up(struct remote *remote, enum backend_state state)
{
	lock_acquire(&remote->lock);
	remote_set_state(remote, state);
	if (remote->down_since_ns == 0)
		remote->down_since_ns = remote_now_ns(remote);
	lock_release(&remote->lock);
	for (unsigned i = 0; i < remote->backend.nr_queues; i++)
		sys_reactor_call(remote->queues[i].reactor, remote_queue_hang_up, &remote->queues[i]);
	explicit_bzero(remote->session.token, sizeof(remote->session.token));
	remote->in_session = false;
}

/* Without a connection yet. */
static void remote_take_session(struct remote *remote, const struct remote_session *session)
{
	assert(!remote->in_session);
	remote->session = *session;
	if (!remote->session.driver)
		remote->session.driver = remote->driver;
	atomic_store_explicit(&remote->transport, remote->session.driver->name, memory_order_relaxed);
	remote->in_session = true;
	atomic_fetch_add(&remote->session_number, 1);
}

int remote_session_begin(struct backend *backend, const struct remote_session *session, unsigned timeout_ms)
{
	struct remote *remote = remote_of(backend);
	uint64_t deadline_ns = remote_now_ns(remote) + timeout_ms * SYS_NS_PER_MS;
	int ret = 0;

	remote_take_session(remote, session);
	lock_acquire(&remote->lock);
	remote_set_state(remote, BACKEND_CONNECTING);
	lock_release(&remote->lock);
	for (unsigned i = 0; i < backend->nr_queues && ret == 0; i++)
		ret = remote_connect(remote, &remote->queues[i], deadline_ns);
	if (ret == 0)
		ret = remote_stand(remote);
	if (ret < 0)
		remote_hang_up(remote, BACKEND_CONNECTING);
	return ret;
}

void remote_session_resume(struct backend *backend, const struct remote_session *session)
{
	struct remote *remote = remote_of(backend);

	remote_take_session(remote, session);
	for (unsigned i = 0; i < backend->nr_queues; i++)
		sys_reactor_call(remote->queues[i].reactor, remote_queue_resume, &remote->queues[i]);
	lock_acquire(&remote->lock);
	remote->down_since_ns = remote_now_ns(remote);
	remote_set_state(remote, BACKEND_DOWN);
	lock_release(&remote->lock);
}

uint32_t remote_session_number(const struct backend *backend)
{
	const struct remote *remote = BASE_CONTAINER_OF(backend, const struct remote, backend);

	return atomic_load(&remote->session_number);
}

static bool remote_queue_failed(struct remote *remote, const struct remote_queue *queue)
{
	bool failed;

	lock_acquire(&remote->lock);
	failed = queue->link == REMOTE_LINK_FAILED;
	lock_release(&remote->lock);
	return failed;
}

int remote_session_reconnect(struct backend *backend, unsigned timeout_ms)
{
	struct remote *remote = remote_of(backend);
	uint64_t deadline_ns = remote_now_ns(remote) + timeout_ms * SYS_NS_PER_MS;
	int first_err = 0;
	int ret;

	assert(remote->in_session);
	for (unsigned i = 0; i < backend->nr_queues; i++) {
		if (!remote_queue_failed(remote, &remote->queues[i]))
			continue;
		ret = remote_connect(remote, &remote->queues[i], deadline_ns);
		if (ret == -ESTALE)
			return ret;
		if (ret < 0) {
			first_err = first_err ? first_err : ret;
			continue;
		}
		lock_acquire(&remote->lock);
		remote->nr_reconnects++;
		lock_release(&remote->lock);
	}
	return first_err ? first_err : remote_stand(remote);
}

void remote_session_end(struct backend *backend)
{
	struct remote *remote = remote_of(backend);

	if (remote->in_session)
		remote_hang_up(remote, BACKEND_LOST);
}

/* ---- waiting and telling ---- */

bool remote_wait(struct backend *backend, unsigned timeout_ms)
{
	struct remote *remote = remote_of(backend);
	uint64_t deadline_ns = sys_clock_now_ns(sys_clock_monotonic()) + timeout_ms * SYS_NS_PER_MS;
	struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / SYS_NS_PER_S),
				     .tv_nsec = (long)(deadline_ns % SYS_NS_PER_S) };
	bool failed;

	lock_acquire(&remote->lock);
	while (remote->nr_failed == 0 && !remote->woken)
		if (pthread_cond_timedwait(&remote->changed, &remote->lock.m, &deadline) == ETIMEDOUT)
			break;
	remote->woken = false;
	failed = remote->nr_failed > 0;
	lock_release(&remote->lock);
	return failed;
}

void remote_wake(struct backend *backend)
{
	struct remote *remote = remote_of(backend);

	lock_acquire(&remote->lock);
	remote->woken = true;
	pthread_cond_signal(&remote->changed);
	lock_release(&remote->lock);
}

void remote_info(struct backend *backend, struct remote_info *ret_info)
{
	struct remote *remote = remote_of(backend);
	struct remote_info info = { 0 };

	info.transport = atomic_load_explicit(&remote->transport, memory_order_relaxed);
	lock_acquire(&remote->lock);
	info.nr_reconnects = remote->nr_reconnects;
	info.last_error = remote->last_error;
	info.down_since_ns = remote->down_since_ns;
	for (unsigned i = 0; i < backend->nr_queues; i++) {
		struct remote_queue *queue = &remote->queues[i];

		if (queue->link == REMOTE_LINK_UP) {
			uint64_t rtt_ns = atomic_load_explicit(&queue->heartbeat_rtt_ns, memory_order_relaxed);

			info.nr_connected++;
			info.heartbeat_rtt_ns = base_max_u64(info.heartbeat_rtt_ns, rtt_ns);
		} else {
			info.nr_waiting += atomic_load_explicit(&queue->nr_waiting, memory_order_relaxed);
		}
	}
	lock_release(&remote->lock);
	*ret_info = info;
}

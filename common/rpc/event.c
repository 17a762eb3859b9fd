/*
 * Ordering: what gRPC writes before it reports (a message, a status, a flag) is read by the waiter after it has seen
 * `pending` fall under the monitor's lock, which the queue's thread took after grpc_completion_queue_next returned.
 */
#include <time.h>

#include "common/rpc/internal.h"
#include "common/sys/thread.h"

void rpc_monitor_init(struct rpc_monitor *monitor)
{
	pthread_condattr_t attr;

	lock_mutex_init(&monitor->lock);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&monitor->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void rpc_monitor_done(struct rpc_monitor *monitor)
{
	pthread_cond_destroy(&monitor->changed);
	lock_mutex_done(&monitor->lock);
}

bool rpc_monitor_wait(struct rpc_monitor *monitor, const struct timespec *until)
{
	if (until)
		return pthread_cond_timedwait(&monitor->changed, &monitor->lock.m, until) == 0;
	pthread_cond_wait(&monitor->changed, &monitor->lock.m);
	return true;
}

struct timespec rpc_monitor_deadline(unsigned timeout_ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

void rpc_event_init(struct rpc_event *event, struct rpc_monitor *monitor)
{
	event->monitor = monitor;
	event->pending = false;
	event->ok = false;
	event->fn = NULL;
	atomic_init(&event->begun, false);
}

void rpc_event_begin(struct rpc_event *event)
{
	lock_acquire(&event->monitor->lock);
	assert(!event->pending);
	event->pending = true;
	lock_release(&event->monitor->lock);
	atomic_store_explicit(&event->begun, true, memory_order_release);
}

bool rpc_event_wait(struct rpc_event *event, int timeout_ms)
{
	struct timespec until = rpc_monitor_deadline(timeout_ms < 0 ? 0 : (unsigned)timeout_ms);
	bool in_time = true;
	bool reported;

	lock_acquire(&event->monitor->lock);
	while (event->pending && in_time)
		in_time = rpc_monitor_wait(event->monitor, timeout_ms < 0 ? NULL : &until);
	reported = !event->pending;
	lock_release(&event->monitor->lock);
	return reported;
}

bool rpc_event_finish(struct rpc_event *event)
{
	bool reported = rpc_event_wait(event, -1);

	return reported && event->ok;
}

bool rpc_event_is_pending(struct rpc_event *event)
{
	bool pending;

	lock_acquire(&event->monitor->lock);
	pending = event->pending;
	lock_release(&event->monitor->lock);
	return pending;
}

static void event_report(struct rpc_event *event, bool ok)
{
	struct rpc_monitor *monitor;

	if (!atomic_load_explicit(&event->begun, memory_order_acquire))
		assert(!"an event that nobody waits for");
	monitor = event->monitor;
	if (event->fn) {
		event->fn(event);
		return;
	}
	lock_acquire(&monitor->lock);
	event->ok = ok;
	event->pending = false;
	pthread_cond_broadcast(&monitor->changed);
	lock_release(&monitor->lock);
	/* The waiter may have freed both by now. */
}

static void *queue_main(void *arg)
{
	struct rpc_queue *queue = arg;

	for (;;) {
		grpc_event got = grpc_completion_queue_next(queue->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

		if (got.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (got.type == GRPC_OP_COMPLETE)
			event_report(got.tag, got.success);
	}
}

int rpc_queue_start(struct rpc_queue *queue, const char *thread_name)
{
	int ret;

	queue->cq = grpc_completion_queue_create_for_next(NULL);
	ret = sys_thread_start(&queue->thread, thread_name, -1, queue_main, queue);
	if (ret < 0) {
		grpc_completion_queue_shutdown(queue->cq);
		grpc_completion_queue_destroy(queue->cq);
		return ret;
	}
	return 0;
}

void rpc_queue_stop(struct rpc_queue *queue)
{
	grpc_completion_queue_shutdown(queue->cq);
	pthread_join(queue->thread, NULL);
	grpc_completion_queue_destroy(queue->cq);
}

gpr_timespec rpc_deadline(int timeout_ms)
{
	if (timeout_ms < 0)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

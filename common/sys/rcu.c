/*
 * The order that a grace period gives: what a reader did before its quiescent state (or before it went offline) happens
 * before what follows sys_rcu_synchronize, and before the function given to sys_rcu_call; what the updater did before
 * sys_rcu_synchronize happens before what a reader does after its next quiescent state. liburcu's full barriers do it.
 */
#include "common/sys/rcu.h"

#include <assert.h>

#include "common/base/base.h"
#include "common/sys/tsan.h"

enum reader_state {
	READER_NONE,	/* not registered */
	READER_OFFLINE, /* holds nothing */
	READER_LOCKED,	/* between sys_rcu_read_lock and unlock */
	READER_ONLINE,	/* a reactor in its turn */
};

static _Thread_local enum reader_state reader;

/* Stands for the grace period; only ThreadSanitizer looks at it. */
static char grace;

/* liburcu's own thread is made here and not by the first sys_rcu_call, which must not allocate. */
static void start_call_thread(void)
{
	(void)urcu_qsbr_get_default_call_rcu_data();
}

void sys_rcu_thread_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (reader != READER_NONE)
		return;
	pthread_once(&once, start_call_thread);
	urcu_qsbr_register_thread();
	urcu_qsbr_thread_offline();
	reader = READER_OFFLINE;
}

void sys_rcu_thread_done(void)
{
	assert(reader != READER_LOCKED && reader != READER_ONLINE);
	if (reader == READER_NONE)
		return;
	/* Leaving the registry is only for threads that are online. */
	urcu_qsbr_thread_online();
	urcu_qsbr_unregister_thread();
	reader = READER_NONE;
}

bool sys_rcu_thread_registered(void)
{
	return reader != READER_NONE;
}

void sys_rcu_quiescent(void)
{
	assert(reader == READER_ONLINE);
	sys_tsan_release(&grace);
	urcu_qsbr_quiescent_state();
	sys_tsan_acquire(&grace);
}

void sys_rcu_offline(void)
{
	assert(reader == READER_ONLINE);
	sys_tsan_release(&grace);
	urcu_qsbr_thread_offline();
	reader = READER_OFFLINE;
}

void sys_rcu_online(void)
{
	assert(reader == READER_OFFLINE);
	urcu_qsbr_thread_online();
	sys_tsan_acquire(&grace);
	reader = READER_ONLINE;
}

/* On a reactor's turn both are nothing: the turn is a read-side section already. */
void sys_rcu_read_lock(void)
{
	assert(reader == READER_OFFLINE || reader == READER_ONLINE);
	if (reader == READER_ONLINE)
		return;
	urcu_qsbr_thread_online();
	sys_tsan_acquire(&grace);
	reader = READER_LOCKED;
}

void sys_rcu_read_unlock(void)
{
	assert(reader == READER_LOCKED || reader == READER_ONLINE);
	if (reader == READER_ONLINE)
		return;
	sys_tsan_release(&grace);
	urcu_qsbr_thread_offline();
	reader = READER_OFFLINE;
}

void sys_rcu_synchronize(void)
{
	assert(reader == READER_NONE || reader == READER_OFFLINE);
	sys_tsan_release(&grace);
	urcu_qsbr_synchronize_rcu();
	sys_tsan_acquire(&grace);
}

static void run_after_grace(struct rcu_head *urcu)
{
	struct sys_rcu_head *head = BASE_CONTAINER_OF(urcu, struct sys_rcu_head, urcu);

	sys_tsan_acquire(&grace);
	head->fn(head);
	sys_tsan_release(&grace);
}

void sys_rcu_call(struct sys_rcu_head *head, void (*fn)(struct sys_rcu_head *head))
{
	assert(reader != READER_NONE);
	head->fn = fn;
	sys_tsan_release(&grace);
	urcu_qsbr_call_rcu(&head->urcu, run_after_grace);
}

void sys_rcu_barrier(void)
{
	assert(reader == READER_NONE || reader == READER_OFFLINE);
	sys_tsan_ignore_begin();
	urcu_qsbr_barrier();
	sys_tsan_ignore_end();
	sys_tsan_acquire(&grace);
}

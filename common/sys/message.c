/*
 * Messages to a reactor: liburcu's wait-free queue, any number of senders, one receiver.
 *
 * A sender costs no system call while the reactor is awake. The two agree like this: the reactor says that it sleeps,
 * then looks at the queue once more; a sender queues, then looks whether the reactor sleeps. With a full barrier between
 * the two steps on either side at least one of them sees the other.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <unistd.h>

#include <urcu/arch.h>

#include "common/sys/internal.h"
#include "common/sys/tsan.h"

void reactor_messages_init(struct sys_reactor *reactor)
{
	__cds_wfcq_init(&reactor->inbox_head, &reactor->inbox_tail);
	__cds_wfcq_init(&reactor->taken_head, &reactor->taken_tail);
}

void reactor_wake(struct sys_reactor *reactor)
{
	uint64_t one = 1;

	cmm_smp_mb();
	/* Relaxed: the barrier above orders it. Who takes the flag down does the waking, alone. */
	if (!atomic_load_explicit(&reactor->sleeping, memory_order_relaxed) ||
	    !atomic_exchange_explicit(&reactor->sleeping, 0, memory_order_relaxed))
		return;
	/* It fails only when the counter is full, and then the reactor is awake. */
	while (write(reactor->wake.fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void sys_reactor_send(struct sys_reactor *reactor, struct sys_message *message)
{
	assert(message->run);
	cds_wfcq_node_init(&message->node);
	sys_tsan_release(&message->node);
	cds_wfcq_enqueue(&reactor->inbox_head, &reactor->inbox_tail, &message->node);
	reactor_wake(reactor);
}

/*
 * Runs what had been sent when it was called: what the messages themselves send waits for the next turn. A sender that
 * was interrupted half way through queueing is not waited for: the rest comes with a later turn, in order.
 */
unsigned reactor_messages_run(struct sys_reactor *reactor)
{
	struct sys_message *message;
	struct cds_wfcq_node *node;
	unsigned nr = 0;

	(void)__cds_wfcq_splice_nonblocking(&reactor->taken_head, &reactor->taken_tail, &reactor->inbox_head,
					    &reactor->inbox_tail);
	for (;;) {
		node = __cds_wfcq_dequeue_nonblocking(&reactor->taken_head, &reactor->taken_tail);
		if (!node || node == CDS_WFCQ_WOULDBLOCK)
			return nr;
		message = BASE_CONTAINER_OF(node, struct sys_message, node);
		sys_tsan_acquire(&message->node);
		message->run(message);
		nr++;
	}
}

struct call {
	struct sys_message message;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void run_call(struct sys_message *message)
{
	struct call *call = BASE_CONTAINER_OF(message, struct call, message);

	call->fn(call->arg);
	sem_post(&call->done);
}

void sys_reactor_call(struct sys_reactor *reactor, void (*fn)(void *arg), void *arg)
{
	struct call call = { .message.run = run_call, .fn = fn, .arg = arg };
	struct reactor_stand_in stand_in;

	assert(sys_reactor_self() == NULL);
	/* Under the lock the thread neither starts nor is declared gone; what is sent to it is run at the latest by stop. */
	lock_acquire(&reactor->control);
	if (!atomic_load_explicit(&reactor->running, memory_order_relaxed)) {
		reactor_enter(reactor, &stand_in);
		fn(arg);
		reactor_leave(&stand_in);
		lock_release(&reactor->control);
		return;
	}
	sem_init(&call.done, 0, 0);
	sys_reactor_send(reactor, &call.message);
	lock_release(&reactor->control);
	while (sem_wait(&call.done) < 0)
		;
	sem_destroy(&call.done);
}

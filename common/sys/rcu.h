/*
 * Read-copy-update, by liburcu's QSBR flavour: the cheapest readers there are, at the price that each reading thread
 * says when it holds nothing.
 *
 * A reactor registers when its thread starts, reports a quiescent state once per turn, and is offline while it
 * sleeps; code that runs on a reactor is therefore always inside a read-side section that ends with the turn. Other
 * threads (control, RPC) register for themselves and bracket their reads with sys_rcu_read_lock/unlock.
 *
 * What is published by RCU is published with a release store and read with an acquire load (C11 atomics); this room
 * adds only the grace period.
 */
#ifndef FARSWAP_COMMON_SYS_RCU_H
#define FARSWAP_COMMON_SYS_RCU_H

#include <urcu/urcu-qsbr.h>

/* The head that sys_rcu_call needs inside what it will free. */
struct sys_rcu_head {
	struct rcu_head urcu;
	void (*fn)(struct sys_rcu_head *head);
};

/* Once per thread that reads, before its first read; sys_rcu_thread_done before it ends. The thread starts offline. */
void sys_rcu_thread_init(void);
void sys_rcu_thread_done(void);

/* True when the calling thread is registered. */
bool sys_rcu_thread_registered(void);

/* For reactors: "I hold no pointer now". Never inside a read-side section. */
void sys_rcu_quiescent(void);
/* For reactors: around a sleep. */
void sys_rcu_offline(void);
void sys_rcu_online(void);

/* For all other threads: a read-side section. They do not nest, and nothing inside may block for long. */
void sys_rcu_read_lock(void);
void sys_rcu_read_unlock(void);

/*
 * Waits until every read-side section that had begun has ended. May block for as long as the longest turn of a reactor:
 * control threads only, outside a read-side section.
 */
void sys_rcu_synchronize(void);

/* Runs head->fn on liburcu's own thread after a grace period. Allocates nothing; any registered thread. */
void sys_rcu_call(struct sys_rcu_head *head, void (*fn)(struct sys_rcu_head *head));

/* Waits until every function handed to sys_rcu_call before has run. Control threads only. */
void sys_rcu_barrier(void);

#endif

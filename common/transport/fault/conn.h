/*
 * Between driver.c (plans, counters, connects) and conn.c (one connection and what happens to its operations).
 */
#ifndef FARSWAP_COMMON_TRANSPORT_FAULT_CONN_H
#define FARSWAP_COMMON_TRANSPORT_FAULT_CONN_H

#include "common/base/lock.h"
#include "common/base/rand.h"
#include "common/transport/fault/fault.h"

#define FAULT_PPM 1000000u

enum fault_fate {
	FAULT_FATE_NONE,
	FAULT_FATE_FAIL,
	FAULT_FATE_DELAY,
	FAULT_FATE_DROP,
	FAULT_FATE_CORRUPT,
	FAULT_FATE_HANG,
	FAULT_FATE_DISCONNECT,
};

struct fault_driver {
	struct transport_driver head;
	struct transport_driver *inner;
	struct lock_mutex lock;
	struct rand_state rand LOCK_GUARDED_BY(lock); /* for connects */
	uint64_t seed;
	uint64_t nr_conns LOCK_GUARDED_BY(lock); /* ever made */
	struct fault_plan plan LOCK_GUARDED_BY(lock);
	struct fault_counters counters LOCK_GUARDED_BY(lock);
	TAILQ_HEAD(fault_conn_list, fault_conn) conns LOCK_GUARDED_BY(lock); /* attached */
};

struct fault_conn;

struct fault_slot {
	struct transport_op inner; /* first: a slot is found by it */
	struct fault_conn *conn;
	struct transport_op *outer;
	enum fault_fate fate;
	bool inside; /* inner is submitted */
	bool late;   /* delayed before it went in, not after it came out */
	int status;  /* to be told when timer fires */
	struct iovec scrap; /* instead of the submitter's pieces */
	struct sys_timer timer;
	TAILQ_ENTRY(fault_slot) link; /* free, or busy in order of submission */
};

TAILQ_HEAD(fault_slot_list, fault_slot);

struct fault_conn {
	struct transport_conn head;
	struct transport_conn *inner;
	struct fault_driver *driver;
	uint64_t number;
	uint64_t heartbeat_ns;
	uint64_t dead_ns;
	struct rand_state rand;
	int err; /* why it is down; 0 while it is not */
	bool hung;
	bool starved;
	struct fault_slot *slots;
	struct fault_slot_list free;
	struct fault_slot_list busy;
	char *scrap; /* a WRITE's payload with one byte wrong; one at a time */
	bool scrap_taken;
	struct sys_deferred fall;
	struct sys_deferred wake; /* tells that there is room */
	struct sys_timer tick; /* carries the heartbeat's time up */
	struct sys_timer hang;
	TAILQ_ENTRY(fault_conn) link; /* under the driver's lock */
};

/* On the control thread. Takes inner, also when it returns NULL for want of memory. */
struct transport_conn *fault_conn_create(struct fault_driver *driver, struct transport_conn *inner,
					 const struct transport_connect_options *options);

/* On its reactor. Ends it with err, in this turn but not in this call. */
void fault_conn_fail(struct fault_conn *conn, int err);

#endif

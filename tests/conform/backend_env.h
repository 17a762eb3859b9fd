/*
 * What the cases of the backends' suite stand on: a backend of each kind, with slabs of it, and what a memory server
 * would be; and operations, which are submitted and waited for.
 */
#ifndef FARSWAP_TESTS_CONFORM_BACKEND_ENV_H
#define FARSWAP_TESTS_CONFORM_BACKEND_ENV_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/backend/remote/remote.h"
#include "common/transport/tcp/tcp.h"
#include "tests/conform/target.h"

#define INSTANCE 77
#define LEASE 5
#define NR_QUEUES 2
#define DEPTH 8
#define NR_SLABS 2
#define SLAB_BYTES (4u << 20)
#define SLAB_SLOTS (SLAB_BYTES >> FSW_PAGE_SHIFT)
#define PENDING 1

struct env {
	struct sys_reactor *reactors[NR_QUEUES];
	struct backend *backend;
	struct backend_slab *slabs[NR_SLABS];
	/* Remote. */
	struct target target;
	struct transport_driver *driver;
	struct tcp_listener *listener;
	struct sys_reactor *lender;
	struct backend_slab lent[NR_SLABS];
	/* Disk. */
	char path[32];

	bool submitting[NR_QUEUES]; /* the reactor's own */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned nr_pending;
	bool stop; /* the keeper */
};

struct op {
	struct backend_io bio;
	struct iovec iov[TRANSPORT_MAX_IOV];
	struct env *env;
	unsigned queue;
	int status;	/* PENDING until done; or what submit said */
	uint64_t fence; /* as read in done */
};

struct factory {
	const char *name;
	void (*open)(struct env *env);
	void (*close)(struct env *env);
};

#define NR_FACTORIES 3u
extern const struct factory factories[NR_FACTORIES];

struct state {
	const struct factory *factory;
	struct env env;
};

/* For cmocka: from a factory, or NULL for reactors alone, to a state, and its end. */
int env_set_up(void **arg);
int env_tear_down(void **arg);

/* ---- the parts of a backend over memory servers, for cases that put it together themselves ---- */

/* The target, and a listener for it. */
void listener_open(struct env *env, char address[SYS_ADDRESS_MAX]);
void listener_close(struct env *env);
void remote_open(struct env *env, struct transport_driver *driver, const char *address);
void remote_close(struct env *env);
void loop_open(struct env *env);
void loop_close(struct env *env);

/* ---- operations ---- */

/* A run of slots, its bytes cut into at most nr_iov pieces. */
void op_init(struct env *env, struct op *op, unsigned queue, enum io_op opcode, unsigned slab, uint32_t slot,
	     uint32_t nr_slots, void *bytes, unsigned nr_iov);
/* Submits, those of one queue in one turn, and waits for all of them. */
void op_run(struct env *env, struct op *ops, unsigned nr);
/* Zeros, to be freed. */
char *bytes_new(uint32_t nr_pages);
/* Every word of a page says what it is. */
void page_fill(char *page, uint64_t stamp);
/* Prints it. */
uint64_t test_seed(void);

#endif

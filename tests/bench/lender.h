/*
 * Real memory servers for the benchmark: farmemd as a child process, and a lease on it.
 */
#ifndef FARSWAP_TESTS_BENCH_LENDER_H
#define FARSWAP_TESTS_BENCH_LENDER_H

#include "client/backend/backend.h"
#include "client/vswap/admin.h"
#include "common/sys/reactor.h"
#include "tests/bench/bench.h"

struct lender;

/* Starts farmemd on loopback. Ends the program on an error. */
struct lender *lender_start(const struct bench_options *options, uint64_t memory_bytes, unsigned spin_us);
/* A backend of it: lease, session, connections of all reactors. */
struct backend *lender_connect(struct lender *lender, struct sys_reactor *const *reactors, unsigned nr_queues);
/* Leases nr slabs and gives them to the device. */
void lender_add_slabs(struct lender *lender, struct vswap *vswap, unsigned nr);
/* After the reactors have stopped, before they are freed. */
void lender_disconnect(struct lender *lender);
/* After the device is gone. */
void lender_stop(struct lender *lender);

/* A device on lenders, with reactors: queue 0 for the benchmark, one for the mover. */
struct world {
	struct sys_reactor *reactor[2];
	struct vswap *vswap;
};

void world_create(struct world *world, const struct bench_options *options, uint64_t nr_pages, unsigned spin_us);
void world_start(struct world *world);
void world_stop(struct world *world);
void world_free(struct world *world);

#endif

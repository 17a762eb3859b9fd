/*
 * A backend in memory for tests of whole requests on real threads, with a gate: while it is shut, operations are taken
 * and none is done. Opened, those of one turn are done in an order of their own.
 *
 * It fails operations by what the pages hold, since that is all that tells it which request an operation is of: a page is
 * known by its first word.
 */
#ifndef FARSWAP_TESTS_LIB_GATE_BACKEND_H
#define FARSWAP_TESTS_LIB_GATE_BACKEND_H

#include "client/backend/backend.h"
#include "common/sys/reactor.h"

#define GATE_MAX_SLABS 16

struct gate_backend;

/* Of the kind of memory servers. One reactor per queue. Ends the test when it cannot be had. */
struct gate_backend *gate_backend_create(struct sys_reactor *const *reactors, unsigned nr_queues);
/* The reactors are stopped, and nothing waits. Its slabs go with it. */
void gate_backend_free(struct gate_backend *gate);
struct backend *gate_backend_backend(struct gate_backend *gate);
/* A new slab, zeroed. It stays the backend's. */
struct backend_slab *gate_backend_slab_new(struct gate_backend *gate, uint32_t nr_slots);

/* Any thread but a reactor's. */
void gate_backend_shut(struct gate_backend *gate);
void gate_backend_open(struct gate_backend *gate);
/* Blocks until at least nr operations wait at the gate. */
void gate_backend_wait(struct gate_backend *gate, unsigned nr);

/*
 * From now on every operation of that kind ends with status that has a page whose first word is `word`: of a READ the
 * page that is stored, of a WRITE the page that is sent, of which nothing is stored then. One such rule at a time.
 */
void gate_backend_fail(struct gate_backend *gate, enum io_op op, uint64_t word, int status);
/* None fails any more, and those that have failed are settled. */
void gate_backend_heal(struct gate_backend *gate);

#endif

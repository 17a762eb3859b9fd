/*
 * A backend in memory for tests of the virtual swap layer: completes in random order over the next turns of each queue's
 * reactor, and fails, corrupts and loses what it is told to, from a seed.
 *
 * A write that it fails is done wholly, in part, later or not at all, as a server that is out of reach might; never after
 * ram_backend_settle.
 */
#ifndef FARSWAP_TESTS_LIB_RAM_BACKEND_H
#define FARSWAP_TESTS_LIB_RAM_BACKEND_H

#include "client/backend/backend.h"
#include "common/base/rand.h"
#include "common/sys/reactor.h"

struct ram_backend_plan {
	unsigned max_delay_turns;
	unsigned fail_ppm;    /* operations that fail with -EIO */
	unsigned corrupt_ppm; /* reads whose bytes are changed */
	unsigned refuse_ppm;  /* writes that submit refuses with -ENOTCONN */
};

struct ram_backend;

struct ram_backend *ram_backend_create(const char *name, enum backend_kind kind, uint32_t slots_per_slab,
				       struct sys_reactor *const *reactors, unsigned nr_queues, uint64_t seed);
void ram_backend_free(struct ram_backend *ram);
struct backend *ram_backend_backend(struct ram_backend *ram);
/* A new slab, zeroed. */
struct backend_slab *ram_backend_slab_new(struct ram_backend *ram);
void ram_backend_slab_free(struct ram_backend *ram, struct backend_slab *slab);
unsigned ram_backend_nr_slabs(const struct ram_backend *ram);
void ram_backend_set_plan(struct ram_backend *ram, const struct ram_backend_plan *plan);
/* Late writes are done or dropped, the fence moves on. */
void ram_backend_settle(struct ram_backend *ram);
/* All bytes are gone: the state is LOST, every operation fails with -ENODATA. */
void ram_backend_lose(struct ram_backend *ram);
/* Back, empty, in a new session; all slabs must have been given back. */
void ram_backend_revive(struct ram_backend *ram);
/* Operations submitted so far, and pages in them. */
uint64_t ram_backend_nr_ops(const struct ram_backend *ram);

#endif

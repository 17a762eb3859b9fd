/*
 * A lender for tests: leases and slabs in plain arrays, and books of everything that a transport asks.
 *
 * Leases and slabs are added before transports use it; the rest is safe on any thread.
 */
#ifndef FARSWAP_TESTS_CONFORM_TARGET_H
#define FARSWAP_TESTS_CONFORM_TARGET_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/mem/region.h"
#include "common/transport/target.h"

#define TARGET_MAX_LEASES 8
#define TARGET_MAX_SLABS 8
#define TARGET_MAX_SESSIONS 64

struct target_lease {
	uint64_t id;
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	atomic_bool ended;
};

struct target_slab {
	struct target_lease *lease;
	uint32_t key;
	uint32_t len_bytes;
	struct mem_region memory;
	uint8_t *bytes; /* of memory */
	atomic_bool revoked;
	atomic_bool stuck; /* a window of it could not be revoked */
	LIST_HEAD(, transport_window) windows; /* under the target's lock */
};

struct transport_session {
	struct target_lease *lease;
	uint32_t channel;
	atomic_bool joined;
};

struct target {
	struct transport_target head;
	struct target_lease leases[TARGET_MAX_LEASES];
	unsigned nr_leases;
	struct target_slab slabs[TARGET_MAX_SLABS];
	unsigned nr_slabs;
	struct transport_session sessions[TARGET_MAX_SESSIONS];
	/* What transports asked. */
	atomic_uint nr_joined;	 /* sessions now */
	atomic_uint nr_collided; /* joins while another session had the same lease and channel: never */
	atomic_uint nr_joins;
	atomic_uint nr_lookups;
	atomic_uint nr_renewals; /* with life */
	atomic_uint nr_asked;	 /* without */
	atomic_uint nr_refused;
	atomic_int last_refusal;
	atomic_uint_fast64_t accounted_bytes;
	pthread_mutex_t revoking; /* taken before lock */
	pthread_mutex_t lock; /* with changed: one of the books has been written */
	pthread_cond_t changed;
};

void target_init(struct target *target, uint64_t instance_id);
void target_done(struct target *target);

/* The token is made of the id. */
void target_lease_add(struct target *target, uint64_t lease_id);
void target_token(uint64_t lease_id, uint8_t ret_token[TRANSPORT_TOKEN_BYTES]);
/* The number of a new slab of len_bytes zeros, in huge pages where there are any, as a memory server has it. */
uint32_t target_slab_add(struct target *target, uint64_t lease_id, uint32_t key, uint32_t len_bytes);
/* Blocks until *book is at least value. */
void target_wait(struct target *target, atomic_uint *book, unsigned value);
/* The lease ends: renew answers -ESTALE and resolve -EACCES from now on. */
void target_lease_end(struct target *target, uint64_t lease_id);
/* The slab is taken back: resolve and map answer -EACCES from now on, and its windows have been revoked. */
void target_slab_revoke(struct target *target, uint32_t slab);

#endif

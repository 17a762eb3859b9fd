/*
 * In front of every source of the code under test (-include): a point before each atomic operation and each lock, and memory
 * from the world. The operations are caught where <stdatomic.h> itself ends, at the builtins of the compiler: gcc's and
 * clang's.
 *
 * A compare-and-swap that may fail for no reason never does: it would only be tried again. With clang the point of a store
 * comes before its value is computed, so what that loads and the store are one step there.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_POINTS_H
#define FARSWAP_TESTS_INTERLEAVE_POINTS_H

#include <stdatomic.h>
#include <stdlib.h>

#include <urcu/lfstack.h>
#include <urcu/wfcqueue.h>

#include "common/base/lock.h"
#include "common/mem/region.h"
#include "common/sys/rcu.h"
#include "common/sys/reactor.h"
#include "tests/interleave/interleave.h"
#include "tests/interleave/world.h"

/* A new table is filled by a thousand operations, which nobody sees before it is published. */
#define INTERLEAVE_IS_UNSEEN (__builtin_strcmp(__func__, "table_new") == 0)

#define INTERLEAVE_AT(p, access) \
	((__typeof__(p))interleave_point((p), INTERLEAVE_IS_UNSEEN ? INTERLEAVE_UNSEEN : (access), __func__, __LINE__))
#define INTERLEAVE_READ_AT(p) INTERLEAVE_AT(p, INTERLEAVE_READ)
#define INTERLEAVE_WRITE_AT(p) INTERLEAVE_AT(p, INTERLEAVE_WRITE)

/* gcc */
#define __atomic_load_n(p, m) __atomic_load_n(INTERLEAVE_READ_AT(p), m)
#define __atomic_load(p, r, m) __atomic_load(INTERLEAVE_READ_AT(p), r, m)
#define __atomic_store_n(p, v, m) __atomic_store_n(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_store(p, v, m) __atomic_store(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_exchange_n(p, v, m) __atomic_exchange_n(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_exchange(p, v, r, m) __atomic_exchange(INTERLEAVE_WRITE_AT(p), v, r, m)
#define __atomic_compare_exchange_n(p, e, d, w, s, f) __atomic_compare_exchange_n(INTERLEAVE_WRITE_AT(p), e, d, 0, s, f)
#define __atomic_compare_exchange(p, e, d, w, s, f) __atomic_compare_exchange(INTERLEAVE_WRITE_AT(p), e, d, 0, s, f)
#define __atomic_fetch_add(p, v, m) __atomic_fetch_add(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_fetch_sub(p, v, m) __atomic_fetch_sub(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_fetch_and(p, v, m) __atomic_fetch_and(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_fetch_or(p, v, m) __atomic_fetch_or(INTERLEAVE_WRITE_AT(p), v, m)
#define __atomic_fetch_xor(p, v, m) __atomic_fetch_xor(INTERLEAVE_WRITE_AT(p), v, m)

/* clang */
#define __c11_atomic_load(p, m) __c11_atomic_load(INTERLEAVE_READ_AT(p), m)
#define __c11_atomic_store(p, v, m) __c11_atomic_store(INTERLEAVE_WRITE_AT(p), v, m)
#define __c11_atomic_exchange(p, v, m) __c11_atomic_exchange(INTERLEAVE_WRITE_AT(p), v, m)
#define __c11_atomic_compare_exchange_strong(p, e, d, s, f) \
	__c11_atomic_compare_exchange_strong(INTERLEAVE_WRITE_AT(p), e, d, s, f)
#define __c11_atomic_compare_exchange_weak(p, e, d, s, f) __c11_atomic_compare_exchange_strong(p, e, d, s, f)
#define __c11_atomic_fetch_add(p, v, m) __c11_atomic_fetch_add(INTERLEAVE_WRITE_AT(p), v, m)
#define __c11_atomic_fetch_sub(p, v, m) __c11_atomic_fetch_sub(INTERLEAVE_WRITE_AT(p), v, m)
#define __c11_atomic_fetch_and(p, v, m) __c11_atomic_fetch_and(INTERLEAVE_WRITE_AT(p), v, m)
#define __c11_atomic_fetch_or(p, v, m) __c11_atomic_fetch_or(INTERLEAVE_WRITE_AT(p), v, m)
#define __c11_atomic_fetch_xor(p, v, m) __c11_atomic_fetch_xor(INTERLEAVE_WRITE_AT(p), v, m)

/* One step each of what other rooms do without locks. */
#define cds_lfs_push(s, n) cds_lfs_push(INTERLEAVE_WRITE_AT(s), n)
#define __cds_lfs_pop(s) __cds_lfs_pop(INTERLEAVE_WRITE_AT(s))
#define sys_reactor_send(r, m) sys_reactor_send(INTERLEAVE_WRITE_AT(r), m)

#define lock_acquire(l) interleave_lock(l, __func__, __LINE__)
#define lock_release(l) interleave_unlock(l)

#define sys_rcu_call(head, fn) interleave_rcu_call(head, fn)
#define sys_rcu_synchronize() interleave_rcu_synchronize()
#define sys_rcu_barrier() interleave_rcu_barrier()

#define calloc(nr, len) world_calloc(nr, len)
#define aligned_alloc(align, len) world_alloc(len, align)
#define free(p) world_free(p)
#define mem_region_open(region, len, flags) world_region_open(region, len)
#define mem_region_close(region) world_region_close(region)

#endif

/*
 * What the backends share behind backend.h: the check of an operation's range and the books.
 *
 * Owns nothing. On the reactor of the operation's queue.
 */
#ifndef FARSWAP_CLIENT_BACKEND_BOOKS_H
#define FARSWAP_CLIENT_BACKEND_BOOKS_H

#include "client/backend/backend.h"

/* One operation in so many, a power of two, is timed. */
#define BACKEND_LATENCY_SAMPLE 16u

/* False: backend_submit answers -EINVAL. Whether the pieces add up is for others to see. */
static inline bool backend_io_is_in_range(const struct backend_io *io)
{
	/* Unsigned: a number of 0 is out of range as well. */
	return (io->op == IO_READ || io->op == IO_WRITE) && io->nr_slots - 1 < IO_MAX_PAGES &&
	       io->nr_iov - 1 < TRANSPORT_MAX_IOV && io->slot < io->slab->nr_slots &&
	       io->nr_slots <= io->slab->nr_slots - io->slot;
}

/* One writer, the queue's reactor, so that no locked instruction is needed. */
static inline void backend_counter_add(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* An operation that was accepted has ended. */
static inline void backend_count(struct backend *backend, unsigned queue, const struct backend_io *io, int status)
{
	struct backend_counters *counters = &backend->counters[queue];

	if (BASE_UNLIKELY(status < 0))
		backend_counter_add(io->op == IO_READ ? &counters->read_errors : &counters->write_errors, 1);
	else
		backend_counter_add(io->op == IO_READ ? &counters->pages_read : &counters->pages_written, io->nr_slots);
}

/* A moving average with a weight of one in eight. Relaxed: an update that another queue's overwrites does no harm. */
static inline void backend_latency_note(struct backend *backend, uint64_t sample_ns)
{
	uint64_t average_ns = atomic_load_explicit(&backend->latency_ns, memory_order_relaxed);

	average_ns = average_ns == 0 ? sample_ns : average_ns - average_ns / 8 + sample_ns / 8;
	atomic_store_explicit(&backend->latency_ns, average_ns, memory_order_relaxed);
}

#endif

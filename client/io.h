/*
 * The request that passes through all rooms of the client: one preallocated struct fsw_io per front-end tag, with the
 * part of each room in it.
 *
 *   front end -> vswap_submit -> backend_submit -> transport_submit
 *   front end <- fsw_io.done  <- backend_io.done <- transport_op.done
 */
#ifndef FARSWAP_CLIENT_IO_H
#define FARSWAP_CLIENT_IO_H

#include <sys/queue.h>
#include <sys/uio.h>

#include "common/base/base.h"
#include "common/transport/transport.h"

#define IO_MAX_PAGES (TRANSPORT_MAX_OP_BYTES >> FSW_PAGE_SHIFT) /* of a read or write: 2 MiB */
#define IO_MAX_SEGMENTS 8 /* backend operations of one request that are under way at a time: a bit of vs.busy for each */

enum io_op {
	IO_READ,
	IO_WRITE,
	IO_DISCARD,	 /* the pages read as zeros afterwards and take no space */
	IO_WRITE_ZEROES, /* the same to us, but with the promise of a write */
	IO_FLUSH,	 /* a barrier in name only: what was acknowledged is already where it belongs */
};

struct backend;
struct backend_slab;
struct fsw_io;
struct slab;
struct table;

/* The backends' part: one operation on a run of slots of one slab. Filled by vswap or the mover. */
struct backend_io {
	uint8_t op; /* IO_READ or IO_WRITE */
	uint32_t slot;	   /* first slot, in pages from the start of the slab */
	uint32_t nr_slots; /* 1 .. IO_MAX_PAGES */
	struct backend_slab *slab;
	struct iovec *iov; /* whole pages each, nr_slots in all; page aligned */
	uint32_t nr_iov;   /* 1 .. TRANSPORT_MAX_IOV */
	/* Exactly once, later, on the queue's reactor, never inside submit. See backend_submit for status. */
	void (*done)(struct backend_io *io, int status);

	/* The backend's own, while the operation is submitted. */
	TAILQ_ENTRY(backend_io) link;
	void *queue;
	uint64_t started_ns;
	struct transport_op xop;
};

TAILQ_HEAD(backend_io_list, backend_io);

/* Somebody who waits until an entry is no longer claimed; sent to its reactor when it is. See vswap/table.h. */
struct io_waiter {
	TAILQ_ENTRY(io_waiter) link;
	uint64_t page;
	struct sys_reactor *reactor;
	struct sys_message wake; /* `run` is set by the owner */
};

/*
 * vswap's part of a request: a share of its pages, [next, end), worked off in runs that are contiguous here and on one slab.
 * One run is under way at a time, or the segment waits for the entry of page `next`.
 */
struct io_segment {
	struct fsw_io *io;
	struct backend_io bio;
	struct iovec iov;
	uint64_t next; /* indexes into the request's pages */
	uint64_t end;
	uint32_t nr_run; /* pages of the run under way, from `next` on */
	uint8_t bit; /* its own of vs.busy */
	uint8_t attempt;
	uint8_t nr_wrong; /* READ: times that page `next` was not what it should be, fetched from one place */
	uint64_t word; /* READ: of page `next` when the run was started */
	struct io_waiter waiter;
	/* WRITE: the entries from `next` on that it has claimed, all of one table, which it pins. */
	uint32_t nr_claimed;
	struct table *table;
	struct slab *slab; /* where the run goes, or comes from */
	uint32_t slot;
	struct slab *tainted_slab; /* where a write in place has failed, whose bytes may still arrive; NULL: nowhere */
	uint64_t tainted_fence;
	/* WRITE that waits for room, see vswap/room.c: the table that it goes on pinning, and since when. */
	struct table *held;
	uint64_t starved_ns; /* 0: it does not wait */
	bool awaits_server;  /* and for nothing nearer */
	uint64_t room_ask;   /* the number of its last question for more, and when that was */
	uint64_t room_asked_ns;
};

struct fsw_io {
	/* Set by the front end before vswap_submit. */
	uint8_t op;	   /* enum io_op */
	uint64_t page;	   /* first page of the device */
	uint64_t nr_pages; /* READ and WRITE: 1 .. IO_MAX_PAGES; DISCARD and WRITE_ZEROES: up to the device's end */
	void *buf;	   /* READ and WRITE: page aligned, nr_pages pages, untouched by the front end until done */
	/*
	 * Exactly once, later, on the thread that submitted, never inside vswap_submit. 0; -EIO (bytes cannot be had, or do
	 * not match their checksum); -ENOSPC (no room for a write, nothing changed); -EINVAL, -ERANGE (bad request).
	 */
	void (*done)(struct fsw_io *io, int status);

	/* vswap's own, while the request is submitted. */
	struct {
		TAILQ_ENTRY(fsw_io) link;
		struct vswap_queue *queue;
		uint64_t started_ns;
		uint64_t cursor; /* first page that no segment has a share in */
		int status;	 /* the first error */
		uint8_t busy;	  /* a bit for each segment that has a share */
		uint8_t epoch;	  /* READ: the I/O epoch it entered */
		bool begun;	  /* it was not refused at once */
		uint8_t where;	  /* WRITE: enum request_where */
		bool has_packed;  /* WRITE: page packed_index is compressed, as object `packed`, and not yet published */
		uint64_t packed;
		uint64_t packed_index;
		struct io_segment segment[IO_MAX_SEGMENTS];
		uint32_t checksum[IO_MAX_PAGES];
	} vs;
};

TAILQ_HEAD(fsw_io_list, fsw_io);

#endif

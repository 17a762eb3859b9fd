/*
 * Stands in for liburing at link time: rings whose commands are carried out, as soon as they are submitted, by a driver of a
 * test's. One ring at a time of each kind.
 */
#ifndef FARSWAP_TESTS_FAKES_URING_H
#define FARSWAP_TESTS_FAKES_URING_H

#include <liburing.h>

#include "common/base/base.h"

#define FAKE_RING_ENTRIES 128u

/* Rings are told apart by the size of what is put into them. */
enum fake_ring_kind { FAKE_RING_64, FAKE_RING_128, FAKE_RING_NR_KINDS };

/* Carries out a command of such rings; on the thread that has submitted it. Any thread, before there is such a ring. */
void fake_ring_drive(enum fake_ring_kind kind, void (*carry_out)(const struct io_uring_sqe *sqe));

/* A command has come to its end. The thread whose ring it is. */
void fake_ring_complete(enum fake_ring_kind kind, uint64_t user_data, int res);
/* For a reactor that does not look by itself. */
void fake_ring_wake(enum fake_ring_kind kind);
/* So often from now on the kernel takes no commands. The thread whose ring it is. */
void fake_ring_refuse(enum fake_ring_kind kind, unsigned nr);

#endif

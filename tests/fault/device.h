/*
 * The virtual swap layer on real threads: a reactor for each queue and one for the mover, and lenders over the loop transport,
 * each with one slab.
 *
 * For the test's own thread, which stands for the control threads: what cannot be done fails the test.
 */
#ifndef FARSWAP_TESTS_FAULT_DEVICE_H
#define FARSWAP_TESTS_FAULT_DEVICE_H

#include "client/backend/remote/remote.h"
#include "client/vswap/admin.h"
#include "tests/conform/target.h"

#define DEVICE_MAX_QUEUES 8u
#define DEVICE_MAX_LENDERS 2u

struct device_lender {
	struct target target;
	struct transport_driver *driver;
	struct backend *backend;
	struct backend_slab slab;
};

struct device {
	struct vswap *vswap;
	unsigned nr_queues, nr_lenders;
	struct sys_reactor *reactor[DEVICE_MAX_QUEUES + 1]; /* the last one is the mover's */
	struct device_lender lender[DEVICE_MAX_LENDERS];
};

/* Starts the threads. Each lender's slab is of so many slots. */
struct device *device_create(const struct vswap_options *options, unsigned nr_lenders, uint32_t nr_slots);
/* Stops them. No request is under way, and the books must be right. */
void device_free(struct device *device);

/*
 * Moves all that a lender has to the others, and takes it back into use. Meanwhile it does what a control thread does: it looks
 * at the books, and fills the reserve of tables. Returns how many pages were moved.
 */
uint64_t device_drain(struct device *device, unsigned lender);

#endif

/*
 * A stand-in for the virtual swap layer: the four functions of client/vswap/vswap.h over plain memory, for tests of the
 * front ends. It checks what a front end promises, completes later and in any order, and fails where it is told to.
 */
#ifndef FARSWAP_TESTS_LIB_FAKE_VSWAP_H
#define FARSWAP_TESTS_LIB_FAKE_VSWAP_H

#include "client/vswap/vswap.h"

struct fake_vswap_options {
	uint64_t nr_pages;
	struct sys_reactor *const *reactors; /* one per queue */
	unsigned nr_queues;
	uint64_t shuffle_seed; /* not 0: requests of one turn complete in an order drawn from it */
};

struct fake_vswap_counters {
	uint64_t submitted; /* all of them */
	uint64_t pages_read;
	uint64_t pages_written;
	uint64_t pages_discarded; /* by DISCARD and WRITE_ZEROES */
	uint64_t flushes;
	uint64_t most_pages; /* of one READ or WRITE */
};

/* Ends the test when it cannot be had. */
struct vswap *fake_vswap_open(const struct fake_vswap_options *options);
/* No request may be under way. */
void fake_vswap_close(struct vswap *vswap);

/* The bytes of a page. */
unsigned char *fake_vswap_page(struct vswap *vswap, uint64_t page);

/*
 * From now on requests that touch a page of [page, page + nr_pages) end with status, if their op is in op_mask (bits
 * 1 << enum io_op). nr_pages 0: none does. Any thread.
 */
void fake_vswap_fail(struct vswap *vswap, uint64_t page, uint64_t nr_pages, unsigned op_mask, int status);

/* While held, requests are taken and do not complete. Letting go completes them. Control threads only. */
void fake_vswap_hold(struct vswap *vswap, bool hold);

/* Requests that are taken and have not completed. Any thread. */
unsigned fake_vswap_nr_held(struct vswap *vswap);

void fake_vswap_counters(struct vswap *vswap, struct fake_vswap_counters *ret_counters);

#endif

/*
 * The kernel's ublk driver for one queue, and the programs that use its block device: stands in for liburing at link time,
 * so that the front end's own code serves requests on any machine.
 *
 * The commands that a queue submits are carried out at once, and what they bring is in the ring when its reactor looks next.
 * Each page has bytes of its own, which are written, and compared with what is read: a wrong one ends the program.
 */
#ifndef FARSWAP_TESTS_FAKES_UBLK_H
#define FARSWAP_TESTS_FAKES_UBLK_H

#include "common/base/base.h"
#include "common/sys/reactor.h"

/* The character device: for ublk_queue_open, the caller's to close. */
int fake_ublk_open(unsigned nr_tags);

struct fake_ublk_load {
	struct sys_reactor *reactor; /* the queue's; it runs */
	bool write;
	unsigned depth;	      /* requests on their way at a time, of one page each */
	uint64_t nr_pages;    /* of the device, from 0 on */
	bool in_order;	      /* else at random */
	uint64_t nr_before;   /* requests before `begin`, */
	uint64_t nr_requests; /* between it and `end`, */
	uint64_t nr_after;    /* and after it */
	/* On that reactor. */
	void (*begin)(void);
	void (*end)(void);
};

/* Carries it out. The queue is open. */
void fake_ublk_run(const struct fake_ublk_load *load);
/* Ends all tags, for ublk_queue_close. */
void fake_ublk_stop(struct sys_reactor *reactor);

#endif

/*
 * The kernel's ublk driver for one queue, and the programs that use its block device, on the rings of uring.h: so the front
 * end's own code serves requests on any machine.
 *
 * The commands that a queue submits are carried out at once, and what they bring is in the ring when its reactor looks next.
 * Each page has bytes of its own, which are written, and compared with what is read: a wrong one ends the program, and so
 * does an answer that is not for all that was asked.
 */
#ifndef FARSWAP_TESTS_FAKES_UBLK_H
#define FARSWAP_TESTS_FAKES_UBLK_H

#include "common/base/base.h"
#include "common/sys/reactor.h"

/* The character device, for ublk_queue_open. One at a time. */
int fake_ublk_open(unsigned nr_tags);
void fake_ublk_close(int fd);

/* How far the driver gets when it copies a write's data, for want of memory. */
enum fake_ublk_copies {
	FAKE_UBLK_COPIES_ALL,
	FAKE_UBLK_COPIES_NOTHING_FIRST, /* and asks once more where to */
	FAKE_UBLK_COPIES_HALF,		/* of its pages, and asks for the rest as a request of its own */
};

struct fake_ublk_load {
	struct sys_reactor *reactor; /* the queue's; it runs */
	bool write;
	unsigned depth;		/* requests on their way at a time */
	unsigned nr_pages_each; /* at most 512 */
	enum fake_ublk_copies copies;
	unsigned nr_refused;  /* of the first times that commands are submitted: the kernel takes none */
	uint64_t nr_pages;    /* of the device, from 0 on */
	bool in_order;	      /* else at random */
	uint64_t nr_before;   /* requests before `begin`, */
	uint64_t nr_requests; /* between it and `end`, */
	uint64_t nr_after;    /* and after it */
	/* On that reactor; NULL: nobody wants to know. */
	void (*begin)(void);
	void (*end)(void);
};

/* Carries it out. The queue is open. */
void fake_ublk_run(const struct fake_ublk_load *load);
/* Ends all tags, for ublk_queue_close. */
void fake_ublk_stop(struct sys_reactor *reactor);

#endif

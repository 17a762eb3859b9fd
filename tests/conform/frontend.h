/*
 * One suite for every front end: a block device over the virtual swap layer, as those see it who hold it open.
 *
 * The suite knows a front end by struct conform_frontend alone. Each has one program, conform_frontend_<name>.c: the
 * functions of its struct conform_frontend, a table of the ways in which it is to be run, and a main that hands the table
 * to conform_frontend_main. A front end whose device is a file or a block device to its holders takes what a holder does
 * from file_holder.h, and has only to bring the device up and down.
 */
#ifndef FARSWAP_TESTS_CONFORM_FRONTEND_H
#define FARSWAP_TESTS_CONFORM_FRONTEND_H

#include "client/vswap/vswap.h"
#include "common/base/base.h"

#define CONFORM_MAX_QUEUES 2u
#define CONFORM_MAX_HOLDERS 4u

struct conform_frontend;

/* A way to run it: a row of the table. */
struct conform_config {
	const char *name;
	const struct conform_frontend *frontend;
	unsigned nr_queues;  /* 1 .. CONFORM_MAX_QUEUES */
	unsigned nr_holders; /* that have it open at a time, 1 .. CONFORM_MAX_HOLDERS */
	unsigned spin_us;    /* 0: reactors sleep at once */
	bool simple_replies; /* NBD: structured replies are not asked for */
};

/* Defined by each program: the front end, up; and a holder that dies while its write is in flight. */
struct conform_server;
struct conform_victim;

/* Somebody who has the device open: a connection, a file descriptor. Each program has this in a structure of its own. */
struct conform_holder {
	/* Filled by open, as a holder learns it. */
	uint64_t size_bytes;
	uint32_t block_bytes; /* what offsets and lengths are multiples of */
};

/* What becomes of a request that is out of the ordinary, unless it is refused. */
enum conform_outcome {
	CONFORM_WHOLE, /* it is served; cut up, if it is too long for one */
	CONFORM_SHORT, /* it is served up to the end of the device, and the count says so */
};

/* What its documentation says: enum conform_outcome, or the negative errno of a request that is refused each. */
struct conform_outcomes {
	int misaligned; /* offset or length, of whatever */
	int empty;	/* READ or WRITE of no bytes; of the others that is always refused with -EINVAL */
	int oversized;	/* READ or WRITE of a block more than max_bytes */
	int read_across, read_beyond; /* the end of the device */
	int write_across, write_beyond;
	int discard_across, discard_beyond;
	int zero_across, zero_beyond;
	int no_room; /* WRITE that finds no room */
	/* When it has been stopped, a holder's READ may find nothing, without an error. Else that, and a flush, fail. */
	bool empty_when_stopped;
};

/* All functions are Required. Those of a holder may be called on several threads at a time; they block until it is done. */
struct conform_frontend {
	uint32_t max_bytes; /* of a READ or WRITE that reaches it in one piece */
	struct conform_outcomes outcomes;

	/* Before all else, while the process has one thread. NULL, or why it cannot be run here. */
	const char *(*missing)(void);

	/* Main thread; the reactors run. Serves the vswap's queues 0 .. config->nr_queues - 1. 0 or a negative errno. */
	int (*start)(const struct conform_config *config, struct vswap *vswap, struct conform_server **ret_server);
	/*
	 * Any thread; the reactors run. Also while holders have it open and requests are in flight: those end, well or with
	 * an error. The holders are to be closed afterwards.
	 */
	void (*stop)(struct conform_server *server);
	/* Any thread. Whether its name is there (a socket's, a device's), without asking the front end, which may be busy. */
	bool (*is_up)(const struct conform_server *server);

	/* 0 or a negative errno. */
	int (*open)(struct conform_server *server, struct conform_holder **ret_holder);
	/* No request is in flight. */
	void (*close)(struct conform_holder *holder);

	/* The number of bytes, or a negative errno. */
	int64_t (*read)(struct conform_holder *holder, void *buf, size_t len_bytes, uint64_t offset_bytes);
	int64_t (*write)(struct conform_holder *holder, const void *buf, size_t len_bytes, uint64_t offset_bytes);
	/* 0 or a negative errno. */
	int (*discard)(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes);
	int (*write_zeroes)(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes);
	int (*flush)(struct conform_holder *holder);

	/* Main thread. A holder of its own sends a WRITE and does not wait for it. buf lives until bury. */
	int (*doom)(struct conform_server *server, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		    struct conform_victim **ret_victim);
	/* The holder is gone from now on, without a word. */
	void (*kill)(struct conform_victim *victim);
	/* When the write can end: returns when nothing of the victim is left. */
	void (*bury)(struct conform_victim *victim);
};

/*
 * Runs every case over every way. The exit status: 77 when one of the front ends cannot be run here, after a line that says
 * why. FARSWAP_TEST_SEED replays the random parts.
 */
int conform_frontend_main(const char *name, const struct conform_config *configs, size_t nr_configs);

#endif

/* What an ublk device is served from: a virtual swap layer with one queue, over memory. */
#ifndef FARSWAP_TESTS_UNIT_UBLK_FIXTURE_H
#define FARSWAP_TESTS_UNIT_UBLK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/frontend/ublk/internal.h"
#include "client/vswap/admin.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "tests/fakes/ublk.h"
#include "tests/lib/gate_backend.h"

#define NR_PAGES 4096u
#define NR_TAGS 32u

struct served {
	struct sys_reactor *reactors[2]; /* the queue's, and the mover's */
	struct vswap *vswap;
	struct gate_backend *gate;
};

static void served_open(struct served *served)
{
	const struct vswap_options options = { .nr_pages = NR_PAGES, .nr_queues = 1, .max_slabs = 1, .seed = 1 };

	assert_int_equal(vswap_create(&options, &served->vswap), 0);
	for (unsigned i = 0; i < 2; i++) {
		const struct sys_reactor_options reactor = { .name = i ? "mover" : "queue", .cpu = -1 };

		assert_int_equal(sys_reactor_create(&reactor, &served->reactors[i]), 0);
		vswap_queue_bind(served->vswap, i, served->reactors[i]);
		assert_int_equal(sys_reactor_start(served->reactors[i]), 0);
	}
	served->gate = gate_backend_create(served->reactors, 2);
	assert_int_equal(vswap_backend_add(served->vswap, gate_backend_backend(served->gate)), 0);
	assert_int_equal(vswap_slab_add(served->vswap, gate_backend_slab_new(served->gate, 2 * NR_PAGES)), 0);
}

/* Nobody uses it any more, and its books are in order. */
static void served_close(struct served *served)
{
	uint64_t nr_wrong;

	for (unsigned i = 0; i < 2; i++)
		sys_reactor_stop(served->reactors[i]);
	nr_wrong = vswap_check(served->vswap);
	vswap_free(served->vswap);
	gate_backend_free(served->gate);
	for (unsigned i = 0; i < 2; i++)
		sys_reactor_free(served->reactors[i]);
	assert_int_equal(nr_wrong, 0);
}

/* The whole device once, so many pages at a time. */
static void served_run(struct served *served, struct fake_ublk_load load)
{
	load.reactor = served->reactors[0];
	load.nr_pages = NR_PAGES;
	load.in_order = true;
	load.nr_before = load.depth;
	load.nr_requests = NR_PAGES / load.nr_pages_each - load.depth;
	fake_ublk_run(&load);
}

#endif

/*
 * nbd_ram ADDRESS MIB [SPIN_US [QUEUES]]: the NBD front end over plain memory, for tests with foreign clients and for
 * comparisons. Says "ready" when it listens; ends on SIGTERM or SIGINT and prints its counters.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/frontend/nbd/nbd.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/thread.h"
#include "tests/lib/fake_vswap.h"

#define QUEUES_MAX 8

static void print_counters(struct nbd_server *server, struct vswap *vswap)
{
	struct fake_vswap_counters pages;
	struct nbd_server_counters nbd;

	nbd_server_counters(server, &nbd);
	fake_vswap_counters(vswap, &pages);
	printf("accepted %" PRIu64 " refused %" PRIu64 " protocol_errors %" PRIu64 " timeouts %" PRIu64 " reads %" PRIu64
	       " writes %" PRIu64 " trims %" PRIu64 " flushes %" PRIu64 " bad_requests %" PRIu64 " io_errors %" PRIu64
	       " pages_discarded %" PRIu64 " most_pages %" PRIu64 "\n",
	       nbd.accepted, nbd.refused, nbd.protocol_errors, nbd.timeouts, nbd.reads, nbd.writes, nbd.trims,
	       nbd.flushes, nbd.bad_requests, nbd.io_errors, pages.pages_discarded, pages.most_pages);
}

int main(int argc, char **argv)
{
	unsigned spin_us = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	unsigned nr_queues = argc > 4 ? (unsigned)atoi(argv[4]) : 1;
	struct sys_reactor *reactors[QUEUES_MAX];
	struct nbd_server_options options = { .spin_us = spin_us, .nr_queues = nr_queues };
	struct nbd_server *server;
	struct vswap *vswap;
	int ret;

	if (argc < 3 || nr_queues < 1 || nr_queues > QUEUES_MAX) {
		fprintf(stderr, "usage: nbd_ram ADDRESS MIB [SPIN_US [QUEUES]]\n");
		return 2;
	}
	log_init("nbd_ram", LOG_LEVEL_INFO);
	sys_signals_block();
	for (unsigned i = 0; i < nr_queues; i++) {
		ret = sys_reactor_create(&(struct sys_reactor_options){ .name = "nbd", .cpu = -1, .spin_us = spin_us },
					 &reactors[i]);
		if (ret < 0 || sys_reactor_start(reactors[i]) < 0)
			return 1;
	}
	vswap = fake_vswap_open(&(struct fake_vswap_options){
		.nr_pages = strtoull(argv[2], NULL, 10) << 8, .reactors = reactors, .nr_queues = nr_queues });
	options.address = argv[1];
	options.vswap = vswap;
	ret = nbd_server_open(&options, &server);
	if (ret < 0) {
		fprintf(stderr, "nbd_ram: %s: %s\n", argv[1], err_text(ret));
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	while (sys_signal_wait(-1) == 0)
		;
	print_counters(server, vswap);
	nbd_server_close(server);
	for (unsigned i = 0; i < nr_queues; i++)
		sys_reactor_stop(reactors[i]);
	fake_vswap_close(vswap);
	for (unsigned i = 0; i < nr_queues; i++)
		sys_reactor_free(reactors[i]);
	return 0;
}

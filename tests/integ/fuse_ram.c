/*
 * fuse_ram MOUNT_DIR MIB {file|loop|swap} [SPIN_US [QUEUES]]: the FUSE front end over plain memory, for tests with the
 * real kernel. Says "ready DEVICE" when all is up; ends on SIGTERM or SIGINT, once swap is off, and prints its counters.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/frontend/fuse/fuse.h"
#include "client/frontend/swaparea.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/thread.h"
#include "tests/lib/fake_vswap.h"

#define QUEUES_MAX 8

static void print_counters(struct fuse_frontend *frontend, struct vswap *vswap)
{
	struct fuse_frontend_counters fuse;
	struct fake_vswap_counters pages;

	fuse_frontend_counters(frontend, &fuse);
	fake_vswap_counters(vswap, &pages);
	printf("reads %" PRIu64 " writes %" PRIu64 " discards %" PRIu64 " syncs %" PRIu64 " other %" PRIu64
	       " bad_requests %" PRIu64 " io_errors %" PRIu64 " kernel_errors %" PRIu64 " pages_read %" PRIu64
	       " pages_written %" PRIu64 " pages_discarded %" PRIu64 " most_pages %" PRIu64 "\n",
	       fuse.reads, fuse.writes, fuse.discards, fuse.syncs, fuse.other, fuse.bad_requests, fuse.io_errors,
	       fuse.kernel_errors, pages.pages_read, pages.pages_written, pages.pages_discarded, pages.most_pages);
	fflush(stdout);
}

static int serve(const struct fuse_frontend_options *options)
{
	struct fuse_frontend *frontend;
	int ret;

	ret = fuse_frontend_start(options, &frontend);
	if (ret < 0) {
		fprintf(stderr, "fuse_ram: %s: %s\n", options->mount_dir, err_text(ret));
		return 1;
	}
	printf("ready %s\n", fuse_frontend_device(frontend));
	fflush(stdout);
	do {
		while (sys_signal_wait(-1) == 0)
			;
		print_counters(frontend, options->vswap);
		ret = fuse_frontend_stop(frontend);
		if (ret < 0) {
			printf("still up: %s\n", err_text(ret));
			fflush(stdout);
		}
	} while (ret < 0);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned nr_queues = argc > 5 ? (unsigned)atoi(argv[5]) : 1;
	/* The first that the kernel takes: what is measured must go here, whatever other swap the machine has. */
	struct fuse_frontend_options options = { .nr_queues = nr_queues, .priority = SWAP_AREA_PRIORITY_MAX };
	struct sys_reactor *reactors[QUEUES_MAX];
	struct sys_process_rights rights;
	int ret;

	if (argc < 4 || nr_queues < 1 || nr_queues > QUEUES_MAX) {
		fprintf(stderr, "usage: fuse_ram MOUNT_DIR MIB {file|loop|swap} [SPIN_US [QUEUES]]\n");
		return 2;
	}
	log_init("fuse_ram", LOG_LEVEL_DEBUG);
	sys_signals_block();
	/* A server of swap must not need it. */
	sys_process_harden(&rights);
	options.spin_us = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
	for (unsigned i = 0; i < nr_queues; i++) {
		ret = sys_reactor_create(&(struct sys_reactor_options){ .name = "fuse", .cpu = -1,
									  .spin_us = options.spin_us },
					 &reactors[i]);
		if (ret < 0 || sys_reactor_start(reactors[i]) < 0)
			return 1;
	}
	options.mount_dir = argv[1];
	options.loop = strcmp(argv[3], "loop") == 0;
	options.swap = strcmp(argv[3], "swap") == 0;
	options.vswap = fake_vswap_open(&(struct fake_vswap_options){
		.nr_pages = strtoull(argv[2], NULL, 10) << 8, .reactors = reactors, .nr_queues = nr_queues });
	ret = serve(&options);
	for (unsigned i = 0; i < nr_queues; i++)
		sys_reactor_stop(reactors[i]);
	fake_vswap_close(options.vswap);
	for (unsigned i = 0; i < nr_queues; i++)
		sys_reactor_free(reactors[i]);
	return ret;
}

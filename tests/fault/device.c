#include "tests/fault/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "common/transport/loop/loop.h"

#define LEASE 1u
#define KEY 9u
#define WINDOW_PAGES 256u

static void lender_create(struct device *device, struct device_lender *lender, uint32_t nr_slots)
{
	struct remote_options options = { .name = "loop", .reactors = device->reactor, .nr_queues = device->nr_queues + 1,
					  .queue_depth = 64, .dead_ms = 60000, .patience_ms = 60000 };
	struct remote_session session = { .data_address = "loop", .lease_id = LEASE, .instance_id = 1, .heartbeat_ms = 1000 };

	target_init(&lender->target, session.instance_id);
	target_lease_add(&lender->target, LEASE);
	lender->driver = loop_driver_create(&lender->target.head);
	options.driver = lender->driver;
	target_token(LEASE, session.token);
	assert_int_equal(remote_create(&options, &lender->backend), 0);
	assert_int_equal(remote_session_begin(lender->backend, &session, 10000), 0);
	assert_int_equal(vswap_backend_add(device->vswap, lender->backend), 0);
	lender->slab = (struct backend_slab){ .backend = lender->backend,
					      .session = remote_session_number(lender->backend),
					      .key = KEY,
					      .nr_slots = nr_slots,
					      .index = target_slab_add(&lender->target, LEASE, KEY, nr_slots * FSW_PAGE_SIZE) };
	assert_int_equal(vswap_slab_add(device->vswap, &lender->slab), 0);
}

static void lender_free(struct device_lender *lender)
{
	remote_free(lender->backend);
	loop_driver_free(lender->driver);
	target_done(&lender->target);
}

struct device *device_create(const struct vswap_options *options, unsigned nr_lenders, uint32_t nr_slots)
{
	struct device *device = calloc(1, sizeof(*device));
	unsigned i;

	assert_non_null(device);
	assert_true(options->nr_queues <= DEVICE_MAX_QUEUES && nr_lenders <= DEVICE_MAX_LENDERS);
	device->nr_queues = options->nr_queues;
	device->nr_lenders = nr_lenders;
	assert_int_equal(vswap_create(options, &device->vswap), 0);
	for (i = 0; i <= device->nr_queues; i++) {
		struct sys_reactor_options of_thread = { .name = i < device->nr_queues ? "queue" : "mover", .cpu = -1 };

		assert_int_equal(sys_reactor_create(&of_thread, &device->reactor[i]), 0);
		vswap_queue_bind(device->vswap, i, device->reactor[i]);
		assert_int_equal(sys_reactor_start(device->reactor[i]), 0);
	}
	for (i = 0; i < nr_lenders; i++)
		lender_create(device, &device->lender[i], nr_slots);
	return device;
}

void device_free(struct device *device)
{
	unsigned i;

	for (i = 0; i <= device->nr_queues; i++)
		sys_reactor_stop(device->reactor[i]);
	assert_int_equal(vswap_check(device->vswap), 0);
	for (i = 0; i < device->nr_lenders; i++)
		remote_session_end(device->lender[i].backend);
	vswap_free(device->vswap);
	for (i = 0; i < device->nr_lenders; i++)
		lender_free(&device->lender[i]);
	for (i = 0; i <= device->nr_queues; i++)
		sys_reactor_free(device->reactor[i]);
	free(device);
}

uint64_t device_drain(struct device *device, unsigned lender)
{
	struct backend *backend = device->lender[lender].backend;
	struct vswap_drain_options options = { .window_pages = WINDOW_PAGES };
	struct vswap_drain_progress progress;
	struct vswap_check_result found;

	assert_int_equal(vswap_drain(device->vswap, backend, &options), 0);
	assert_int_equal(vswap_check_live(device->vswap, &found), 0);
	assert_int_equal(found.nr_differences, 0);
	do {
		assert_int_equal(vswap_refill(device->vswap), 0);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		vswap_drain_progress(device->vswap, backend, &progress);
	} while (progress.state == VSWAP_DRAIN_RUNNING);
	assert_int_equal(progress.state, VSWAP_DRAIN_DRAINED);
	assert_int_equal(vswap_undrain(device->vswap, backend), 0);
	return progress.nr_moved;
}

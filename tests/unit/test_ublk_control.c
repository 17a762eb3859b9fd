/* deps: tests_fakes_ublk tests_fakes_ublk_control client_frontend_ublk client_vswap tests_lib */
/*
 * How the ublk front end makes a device, takes one over and takes it down, with drivers of every age, and when the kernel says
 * no anywhere on the way: then nothing of it is left. The driver is one of tests/fakes, which ends the program when it is asked
 * for something out of order.
 */
#include "tests/unit/ublk_fixture.h"

#include <errno.h>

#include "client/frontend/ublk/ublk.h"
#include "tests/fakes/ublk_control.h"
#include "tests/fakes/uring.h"

static const struct fake_ublk_driver newest = { .encoded = true, .deletes_async = true, .flags = UINT64_MAX };
static const struct fake_ublk_load whole = { .depth = 8, .nr_pages_each = 16 };

struct fixture {
	struct served served;
	struct ublk_device_name name; /* of the device that was made */
	unsigned nr_made;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	served_open(&f->served);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	served_close(&f->served);
	free(f);
	return 0;
}

static void note_name(void *arg, const struct ublk_device_name *name)
{
	struct fixture *f = arg;

	f->name = *name;
	f->nr_made++;
}

static int start(struct fixture *f, const struct ublk_device_name *again, struct ublk_frontend **ret_frontend)
{
	const struct ublk_frontend_options options = { .vswap = f->served.vswap, .nr_queues = 1, .spin_us = 100,
						       .again = again, .made = note_name, .made_arg = f };

	return ublk_frontend_start(&options, ret_frontend);
}

static void write_and_read(struct fixture *f)
{
	struct fake_ublk_load load = whole;

	load.write = true;
	served_run(&f->served, load);
	load.write = false;
	served_run(&f->served, load);
}

/* Makes a device, uses it and takes it down. */
static void expect_it_works(struct fixture *f, const struct fake_ublk_driver *driver, const char *log)
{
	struct ublk_frontend_counters counters;
	struct ublk_frontend *frontend;

	fake_ublk_control_set(driver, driver->queue_depth ? driver->queue_depth : UBLK_QUEUE_NR_TAGS);
	f->nr_made = 0;
	assert_int_equal(start(f, NULL, &frontend), 0);
	assert_string_equal(ublk_frontend_device(frontend), "/dev/ublkb7");
	assert_int_equal(f->nr_made, 1);
	assert_int_equal(f->name.id, FAKE_UBLK_ID);
	write_and_read(f);
	ublk_frontend_counters(frontend, &counters);
	assert_int_equal(counters.reads, NR_PAGES / whole.nr_pages_each);
	assert_int_equal(counters.writes, NR_PAGES / whole.nr_pages_each);
	assert_int_equal(counters.bad_requests + counters.io_errors + counters.kernel_errors, 0);
	assert_int_equal(ublk_frontend_stop(frontend), 0);
	assert_string_equal(fake_ublk_control_log(), log);
	fake_ublk_control_end();
}

/* The front end does not start, and says so; no device is left, which the end of the fake checks. */
static void expect_it_fails(struct fixture *f, const struct fake_ublk_driver *driver, int err, const char *log)
{
	struct ublk_frontend *frontend;

	fake_ublk_control_set(driver, UBLK_QUEUE_NR_TAGS);
	f->nr_made = 0;
	assert_int_equal(start(f, NULL, &frontend), err);
	assert_int_equal(f->nr_made, 0);
	assert_string_equal(fake_ublk_control_log(), log);
	fake_ublk_control_end();
}

static void test_drivers_of_every_age(void **state)
{
	struct fake_ublk_driver driver = newest;

	expect_it_works(*state, &driver, "ADD SET_PARAMS START STOP DEL_ASYNC ");
	driver.deletes_async = false; /* before Linux 6.9 */
	expect_it_works(*state, &driver, "ADD SET_PARAMS START STOP DEL_ASYNC DEL ");
	driver.encoded = false; /* before Linux 6.4 */
	expect_it_works(*state, &driver, "ADD SET_PARAMS START STOP DEL ");
	driver.queue_depth = 16; /* than were asked for */
	expect_it_works(*state, &driver, "ADD SET_PARAMS START STOP DEL ");
}

static void test_a_driver_that_lacks_something(void **state)
{
	static const uint64_t needed[] = { UBLK_F_NEED_GET_DATA, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE };

	for (unsigned i = 0; i < BASE_ARRAY_SIZE(needed); i++) {
		struct fake_ublk_driver driver = newest;

		driver.flags &= ~needed[i];
		expect_it_fails(*state, &driver, -EOPNOTSUPP, "ADD DEL_ASYNC ");
	}
}

static void test_no_driver(void **state)
{
	struct ublk_device_name name = { 0 };
	struct ublk_frontend *frontend;

	assert_int_equal(start(*state, NULL, &frontend), -ENODEV);
	assert_int_equal(ublk_frontend_probe(), -ENODEV);
	assert_int_equal(ublk_frontend_is_there(&name), -ENODEV);
}

static void test_each_step_may_fail(void **state)
{
	struct fake_ublk_driver driver = newest;

	driver.error = -EINVAL;
	driver.failing = UBLK_CMD_ADD_DEV;
	expect_it_fails(*state, &driver, -EINVAL, "ADD ");
	driver.failing = UBLK_CMD_SET_PARAMS;
	expect_it_fails(*state, &driver, -EINVAL, "ADD SET_PARAMS DEL_ASYNC ");
	driver.failing = 0;

	driver.open_error = -EACCES;
	expect_it_fails(*state, &driver, -EACCES, "ADD SET_PARAMS DEL_ASYNC ");
	driver.open_error = 0;
	driver.queue_depth = UBLK_QUEUE_NR_TAGS + 1;
	expect_it_fails(*state, &driver, -EPROTO, "ADD SET_PARAMS DEL_ASYNC ");
	driver.queue_depth = 0;
	driver.fetch_error = -EPERM;
	expect_it_fails(*state, &driver, -EPERM, "ADD SET_PARAMS STOP DEL_ASYNC ");
	driver.fetch_error = 0;
	driver.failing = UBLK_CMD_START_DEV;
	expect_it_fails(*state, &driver, -EINVAL, "ADD SET_PARAMS START STOP DEL_ASYNC ");
	driver.failing = 0;
	/* And then all is as if nothing had been tried. */
	expect_it_works(*state, &driver, "ADD SET_PARAMS START STOP DEL_ASYNC ");
}

static void test_a_command_that_is_not_taken(void **state)
{
	struct ublksrv_ctrl_dev_info info = { .nr_hw_queues = 1, .queue_depth = 1, .dev_id = UBLK_CONTROL_ANY_ID,
					      .ublksrv_pid = getpid() };
	struct ublk_control control;

	(void)state;
	fake_ublk_control_set(&newest, 1);
	assert_int_equal(ublk_control_open(&control), 0);
	fake_ring_refuse(FAKE_RING_128, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ublk_control_add(&control, &info), -EAGAIN);
	/* Those that were not taken leave with this one, as nothing; and their results are not its. */
	assert_int_equal(ublk_control_add(&control, &info), 0);
	assert_int_equal(info.dev_id, FAKE_UBLK_ID);
	assert_int_equal(ublk_control_delete(&control, FAKE_UBLK_ID), 0);
	assert_int_equal(ublk_control_delete(&control, FAKE_UBLK_ID), -ENODEV);
	assert_string_equal(fake_ublk_control_log(), "ADD DEL_ASYNC DEL_ASYNC ");
	ublk_control_close(&control);
	fake_ublk_control_end();
}

/* ---- devices that dead servers have left ---- */

static struct fake_ublk_driver driver_with_device(uint64_t flags)
{
	struct fake_ublk_driver driver = newest;

	driver.is_there = true;
	driver.info = (struct ublksrv_ctrl_dev_info){
		.nr_hw_queues = 1, .queue_depth = NR_TAGS, .max_io_buf_bytes = UBLK_BIG_BYTES, .dev_id = FAKE_UBLK_ID,
		.state = UBLK_S_DEV_QUIESCED, .ublksrv_pid = getpid(), .flags = UBLK_FLAGS, .ublksrv_flags = flags,
	};
	return driver;
}

static void test_a_device_is_found_again(void **state)
{
	struct fake_ublk_driver driver = driver_with_device(42);
	struct ublk_device_name name = { FAKE_UBLK_ID, 42 }, other = { FAKE_UBLK_ID, 43 }, gone = { FAKE_UBLK_ID + 1, 42 };
	struct ublk_control control;

	(void)state;
	fake_ublk_control_set(&driver, NR_TAGS);
	assert_int_equal(ublk_frontend_is_there(&name), 1);
	assert_int_equal(ublk_frontend_is_there(&other), 0);
	assert_int_equal(ublk_frontend_is_there(&gone), 0);
	assert_int_equal(ublk_control_open(&control), 0);
	assert_int_equal(ublk_control_stop(&control, FAKE_UBLK_ID), 0);
	assert_int_equal(ublk_frontend_is_there(&name), 0);
	assert_int_equal(ublk_control_delete(&control, FAKE_UBLK_ID), 0);
	ublk_control_close(&control);
	fake_ublk_control_end();

	driver.failing = UBLK_CMD_GET_DEV_INFO;
	driver.error = -EPERM;
	driver.is_there = false;
	fake_ublk_control_set(&driver, NR_TAGS);
	assert_int_equal(ublk_frontend_is_there(&name), -EPERM);
	fake_ublk_control_end();
}

/* The kernel notices after a while that the server before has died. */
static void test_a_device_is_gone_on_with(void **state)
{
	struct fake_ublk_driver driver = driver_with_device(42);
	struct ublk_device_name name = { FAKE_UBLK_ID, 42 };
	struct ublk_frontend *frontend;
	struct fixture *f = *state;

	driver.nr_busy = 2;
	fake_ublk_control_set(&driver, NR_TAGS);
	assert_int_equal(start(f, &name, &frontend), 0);
	assert_int_equal(f->nr_made, 0);
	write_and_read(f);
	assert_int_equal(ublk_frontend_stop(frontend), 0);
	assert_string_equal(fake_ublk_control_log(),
			    "GET_INFO START_RECOVERY START_RECOVERY START_RECOVERY END_RECOVERY STOP DEL_ASYNC ");
	fake_ublk_control_end();
}

/* Another device with that number, or one with more queues than there are to serve it: it is left as it is. */
static void test_a_device_of_another_is_left_alone(void **state)
{
	struct fake_ublk_driver driver = driver_with_device(42);
	struct ublk_device_name other = { FAKE_UBLK_ID, 43 }, name = { FAKE_UBLK_ID, 42 };
	struct ublk_frontend *frontend;
	struct ublk_control control;

	for (unsigned i = 0; i < 2; i++) {
		driver.info.nr_hw_queues = i ? 2 : 1;
		fake_ublk_control_set(&driver, NR_TAGS);
		assert_int_equal(start(*state, i ? &name : &other, &frontend), -EPROTO);
		assert_string_equal(fake_ublk_control_log(), "GET_INFO ");
		assert_true(fake_ublk_control_has_device());
		assert_int_equal(ublk_control_open(&control), 0);
		assert_int_equal(ublk_control_stop(&control, FAKE_UBLK_ID), 0);
		assert_int_equal(ublk_control_delete(&control, FAKE_UBLK_ID), 0);
		ublk_control_close(&control);
		fake_ublk_control_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_drivers_of_every_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_driver_that_lacks_something, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_driver, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_step_may_fail, setup, teardown),
		cmocka_unit_test(test_a_command_that_is_not_taken),
		cmocka_unit_test(test_a_device_is_found_again),
		cmocka_unit_test_setup_teardown(test_a_device_is_gone_on_with, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_device_of_another_is_left_alone, setup, teardown),
	};

	sys_rcu_thread_init();
	log_init("test_ublk_control", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: client_surface */
/* Over front ends of our own: the table of surface_kinds.h is here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/surface.h"
#include "client/surface_kinds.h"
#include "common/log/log.h"

#define NR_KINDS 3u

/* What each does when it is asked, 0 or an errno, and how often it was. */
struct fake {
	int probe, open, swap_off, stop;
	unsigned nr_opened, nr_stopped;
};

static struct fake fakes[NR_KINDS];
static char last_error[512];

static void take_error(enum log_level level, const char *text, void *arg)
{
	(void)arg;
	if (level == LOG_LEVEL_ERROR)
		snprintf(last_error, sizeof(last_error), "%s", text);
}

static int fake_open(struct fake *fake, void **ret_frontend)
{
	fake->nr_opened++;
	if (fake->open == 0)
		*ret_frontend = fake;
	return fake->open;
}

static int probe_first(void)
{
	return fakes[0].probe;
}

static int probe_last(void)
{
	return fakes[2].probe;
}

#define OPEN(n) \
	static int open_##n(const struct settings *settings, struct vswap *vswap, struct state *state, void **ret_frontend) \
	{ \
		(void)settings; \
		(void)vswap; \
		(void)state; \
		return fake_open(&fakes[n], ret_frontend); \
	}

OPEN(0)
OPEN(1)
OPEN(2)

static int fake_swap_off(void *frontend)
{
	return ((struct fake *)frontend)->swap_off;
}

static int fake_stop(void *frontend)
{
	struct fake *fake = frontend;

	fake->nr_stopped++;
	return fake->stop;
}

static void fake_look(void *frontend, struct admin_frontend *seen)
{
	snprintf(seen->endpoint, sizeof(seen->endpoint), "%td", (struct fake *)frontend - fakes);
}

const struct surface_kind surface_kinds[] = {
	{ .name = "first", .setting = SETTINGS_UBLK, .probe = probe_first, .open = open_0, .swap_off = fake_swap_off,
	  .stop = fake_stop, .look = fake_look },
	{ .name = "by-name", .setting = SETTINGS_NBD, .open = open_1, .stop = fake_stop, .look = fake_look },
	{ .name = "last", .setting = SETTINGS_FUSE, .probe = probe_last, .open = open_2, .swap_off = fake_swap_off,
	  .stop = fake_stop, .look = fake_look },
	{ .name = NULL },
};

static int set_up(void **state)
{
	(void)state;
	memset(fakes, 0, sizeof(fakes));
	last_error[0] = '\0';
	log_set_writer(take_error, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	log_set_writer(NULL, NULL);
	return 0;
}

static int open_as(enum settings_frontend setting, struct surface **ret_surface)
{
	static struct settings settings;

	settings.frontend = setting;
	return surface_open(&settings, NULL, NULL, ret_surface);
}

static void assert_is(struct surface *surface, const char *kind, const char *endpoint, const char *because)
{
	struct admin_frontend seen;

	surface_look(surface, &seen);
	assert_string_equal(seen.kind, kind);
	assert_string_equal(seen.endpoint, endpoint);
	assert_string_equal(seen.chosen_because, because);
}

static void close_and_free(struct surface *surface)
{
	assert_int_equal(surface_close(surface), 0);
	assert_is(surface, "", "", "");
	assert_int_equal(surface_close(surface), 0);
	surface_free(surface);
}

static void test_auto_takes_the_first(void **state)
{
	struct surface *surface;

	(void)state;
	assert_int_equal(open_as(SETTINGS_AUTO_FRONTEND, &surface), 0);
	assert_is(surface, "first", "0", "first: the best that can be used here");
	close_and_free(surface);
	assert_int_equal(fakes[0].nr_stopped, 1);
	assert_int_equal(fakes[2].nr_opened, 0);
}

static void test_auto_says_why_not_one_before(void **state)
{
	struct surface *surface;

	(void)state;
	fakes[0].probe = -ENODEV;
	assert_int_equal(open_as(SETTINGS_AUTO_FRONTEND, &surface), 0);
	assert_is(surface, "last", "2", "first: No such device; last: the best that can be used here");
	close_and_free(surface);
	assert_int_equal(fakes[0].nr_opened, 0);
	/* The kernel has it, but it does not come up. */
	fakes[0] = (struct fake){ .open = -EOPNOTSUPP };
	assert_int_equal(open_as(SETTINGS_AUTO_FRONTEND, &surface), 0);
	assert_is(surface, "last", "2", "first: Operation not supported; last: the best that can be used here");
	close_and_free(surface);
	assert_int_equal(fakes[0].nr_opened, 1);
	assert_int_equal(fakes[1].nr_opened, 0);
}

static void test_auto_stops_at_what_is_in_use(void **state)
{
	struct surface *surface = NULL;

	(void)state;
	fakes[0].open = -EBUSY;
	assert_int_equal(open_as(SETTINGS_AUTO_FRONTEND, &surface), -EBUSY);
	assert_null(surface);
	assert_int_equal(fakes[2].nr_opened, 0);
	assert_non_null(strstr(last_error, "first: Device or resource busy"));
}

static void test_auto_finds_none(void **state)
{
	struct surface *surface = NULL;

	(void)state;
	fakes[0].probe = -ENODEV;
	fakes[2].open = -EPERM;
	assert_int_equal(open_as(SETTINGS_AUTO_FRONTEND, &surface), -EPERM);
	assert_null(surface);
	assert_non_null(strstr(last_error, "first: No such device; last: Operation not permitted"));
}

static void test_one_that_was_configured(void **state)
{
	struct surface *surface = NULL;

	(void)state;
	assert_int_equal(open_as(SETTINGS_NBD, &surface), 0);
	assert_is(surface, "by-name", "1", "configured");
	close_and_free(surface);
	fakes[1].open = -EADDRINUSE;
	surface = NULL;
	assert_int_equal(open_as(SETTINGS_NBD, &surface), -EADDRINUSE);
	assert_null(surface);
	assert_int_equal(open_as(SETTINGS_NONE, &surface), 0);
	assert_is(surface, "", "", "");
	close_and_free(surface);
}

/* It is served as before, and can be tried again. */
static void test_swap_or_device_that_stays(void **state)
{
	struct surface *surface;

	(void)state;
	assert_int_equal(open_as(SETTINGS_UBLK, &surface), 0);
	fakes[0].swap_off = -ENOMEM;
	assert_int_equal(surface_close(surface), -ENOMEM);
	assert_int_equal(fakes[0].nr_stopped, 0);
	assert_is(surface, "first", "0", "configured");
	fakes[0].swap_off = 0;
	fakes[0].stop = -ENOMEM;
	assert_int_equal(surface_close(surface), -ENOMEM);
	assert_is(surface, "first", "0", "configured");
	fakes[0].stop = 0;
	close_and_free(surface);
	assert_int_equal(fakes[0].nr_stopped, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_auto_takes_the_first),
		TEST(test_auto_says_why_not_one_before),
		TEST(test_auto_stops_at_what_is_in_use),
		TEST(test_auto_finds_none),
		TEST(test_one_that_was_configured),
		TEST(test_swap_or_device_that_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

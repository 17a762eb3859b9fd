/* deps: client_state common_mem */
/*
 * The state file: what is found again of what one process has left, and what is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/state/state.h"

#define ITEM_BYTES 192u
#define MAX_SLABS 1000u

static char path[128];
static const struct state_shape shape = {
	.nr_pages = 1000, .nr_queues = 2, .max_slabs = MAX_SLABS, .disk = "/dev/none", .disk_slab_bytes = 1 << 26,
};

static struct state *open_good(const struct state_shape *of)
{
	char error[STATE_ERROR_MAX] = "";
	struct state *state;

	if (state_open(path, of, &state, error) < 0)
		fail_msg("%s", error);
	return state;
}

static void write_at(off_t offset, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, len, offset), len);
	close(fd);
}

static void cut(off_t len)
{
	assert_int_equal(truncate(path, len), 0);
}

static void expect_refused(int err, const char *text)
{
	char error[STATE_ERROR_MAX] = "";
	struct state *state;

	assert_int_equal(state_open(path, &shape, &state, error), err);
	assert_non_null(strstr(error, path));
	assert_non_null(strstr(error, text));
}

static void leave(void)
{
	struct state *state = open_good(&shape);

	state_set_device(state, "ublk", 3, 7);
	state_close(state, false);
}

/* ---- what is found again ---- */

static void test_a_new_one_has_nothing(void **unused)
{
	struct state *state = open_good(&shape);
	uint64_t nr = 9;
	uint64_t identity;
	uint32_t id;

	(void)unused;
	assert_false(state_is_left(state));
	assert_false(state_has_device(state));
	assert_string_equal(state_device(state, &id, &identity), "");
	assert_int_equal(state_items_begin(state, ITEM_BYTES, &nr), 0);
	assert_int_equal(nr, 0);
	for (id = 0; id < MAX_SLABS; id++)
		assert_int_equal(state_slab(state, id)->status, STATE_SLAB_NONE);
	state_close(state, true);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_records_are_found_again(void **unused)
{
	struct state *state = open_good(&shape);
	struct state_session *session = state_session_of(state, "a:1"), *other = state_session_of(state, "b:2");
	char error[STATE_ERROR_MAX];
	uint64_t identity;
	uint32_t id;

	(void)unused;
	assert_ptr_equal(state_session_of(state, "a:1"), session);
	assert_ptr_not_equal(other, session);
	session->lease_id = 77;
	atomic_store(&session->stands, 1);
	state_slab_hold(state_slab(state, MAX_SLABS - 1), state_session_number(state, session), 5, 6, 1024);
	state_set_device(state, "ublk", 3, 7);
	state_close(state, false);

	state = open_good(&shape);
	assert_true(state_is_left(state));
	assert_int_equal(state_check_shape(state, &shape, error), 0);
	assert_true(state_has_device(state));
	assert_string_equal(state_device(state, &id, &identity), "ublk");
	assert_int_equal(id, 3);
	assert_int_equal(identity, 7);
	session = state_session_of(state, "a:1");
	assert_int_equal(session->lease_id, 77);
	assert_int_equal(session->stands, 1);
	assert_int_equal(state_slab(state, MAX_SLABS - 1)->session, state_session_number(state, session));
	assert_int_equal(state_slab(state, MAX_SLABS - 1)->index, 5);
	assert_int_equal(state_slab(state, MAX_SLABS - 1)->key, 6);
	assert_int_equal(state_slab(state, MAX_SLABS - 1)->status, STATE_SLAB_HELD);
	/* One that did not stand is nobody's. */
	for (id = 0; id < STATE_MAX_SESSIONS; id++)
		assert_string_not_equal(state_session(state, id)->server, "b:2");
	state_close(state, true);
}

/* Also of a server whose session had ended; and of the disk. */
static void test_what_is_wanted_is_found_again(void **unused)
{
	struct state *state = open_good(&shape);
	struct state_session *session = state_session_of(state, "a:1");

	(void)unused;
	session->lease_id = 77;
	atomic_store(&session->wish.target, 2);
	atomic_store(&session->wish.kind, STATE_WISH_EMPTY);
	atomic_store(&state_wish(state, STATE_DISK)->kind, STATE_WISH_NOTHING_NEW);
	state_set_device(state, "ublk", 3, 7);
	state_close(state, false);

	state = open_good(&shape);
	session = state_session_of(state, "a:1");
	assert_int_equal(session->lease_id, 0);
	assert_int_equal(state_wish(state, state_session_number(state, session))->kind, STATE_WISH_EMPTY);
	assert_int_equal(session->wish.target, 2);
	assert_int_equal(state_wish(state, STATE_DISK)->kind, STATE_WISH_NOTHING_NEW);
	state_close(state, true);
}

static void test_there_is_room_for_so_many_servers(void **unused)
{
	struct state *state = open_good(&shape);
	char name[STATE_NAME_BYTES + 1];

	(void)unused;
	for (unsigned i = 0; i < STATE_MAX_SESSIONS; i++) {
		snprintf(name, sizeof(name), "server-%u:1", i);
		assert_non_null(state_session_of(state, name));
	}
	assert_null(state_session_of(state, "one-more:1"));
	memset(name, 'x', STATE_NAME_BYTES);
	name[STATE_NAME_BYTES] = '\0';
	assert_null(state_session_of(state, name));
	state_close(state, true);
}

static void test_items_are_found_again(void **unused)
{
	struct state *state = open_good(&shape);
	struct mem_region first, second, all;
	uint64_t nr;

	(void)unused;
	assert_int_equal(state_items_begin(state, ITEM_BYTES, &nr), 0);
	assert_int_equal(state_items_add(state, STATE_ITEMS_UNIT, &first), 0);
	assert_int_equal(state_items_add(state, 2 * STATE_ITEMS_UNIT, &second), 0);
	memset(first.base, 1, first.len_bytes);
	memset(second.base, 2, second.len_bytes);
	mem_region_close(&first);
	mem_region_close(&second);
	state_close(state, false);

	state = open_good(&shape);
	assert_int_equal(state_items_begin(state, ITEM_BYTES + FSW_CACHE_LINE, &nr), -EUCLEAN);
	assert_int_equal(state_items_begin(state, ITEM_BYTES, &nr), 0);
	assert_int_equal(nr, 3 * STATE_ITEMS_UNIT);
	assert_int_equal(state_items_map(state, nr, &all), 0);
	for (uint64_t i = 0; i < nr * ITEM_BYTES; i++)
		assert_int_equal(((const char *)all.base)[i], i < STATE_ITEMS_UNIT * ITEM_BYTES ? 1 : 2);
	mem_region_close(&all);
	/* And one more is all zeros. */
	assert_int_equal(state_items_add(state, STATE_ITEMS_UNIT, &first), 0);
	for (uint64_t i = 0; i < first.len_bytes; i++)
		assert_int_equal(((const char *)first.base)[i], 0);
	mem_region_close(&first);
	assert_int_equal(state_discard(state, &shape), 0);
	assert_false(state_is_left(state));
	assert_int_equal(state_items_begin(state, ITEM_BYTES, &nr), 0);
	assert_int_equal(nr, 0);
	state_close(state, true);
}

/* ---- what is refused ---- */

static void test_one_daemon_at_a_time(void **unused)
{
	struct state *state = open_good(&shape);

	(void)unused;
	expect_refused(-EBUSY, "another farswapd");
	state_close(state, true);
}

static void test_another_shape_is_refused(void **unused)
{
	struct state_shape other[] = { shape, shape, shape, shape, shape };
	static const char *const names[] = { "size", "queues", "max_slabs", "disk", "disk" };
	char error[STATE_ERROR_MAX];
	struct state *state;

	(void)unused;
	leave();
	other[0].nr_pages++;
	other[1].nr_queues++;
	other[2].max_slabs--;
	other[3].disk[0] = 'x';
	other[4].disk_slab_bytes *= 2;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(other); i++) {
		state = open_good(&other[i]);
		assert_true(state_is_left(state));
		assert_int_equal(state_max_slabs(state), MAX_SLABS);
		assert_int_equal(state_check_shape(state, &other[i], error), -EINVAL);
		assert_int_equal(strncmp(error, names[i], strlen(names[i])), 0);
		state_close(state, i + 1 == BASE_ARRAY_SIZE(other));
	}
}

static void test_what_is_no_state_is_refused(void **unused)
{
	uint32_t version = 999, none = 0;

	(void)unused;
	leave();
	write_at(0, "something", 9);
	expect_refused(-EUCLEAN, "not what a farswapd leaves");
	unlink(path);
	leave();
	write_at(8, &version, sizeof(version));
	expect_refused(-EUCLEAN, "another version");
	unlink(path);
	leave();
	cut(4096);
	expect_refused(-EUCLEAN, "damaged");
	unlink(path);
	leave();
	cut(40000); /* the sessions, but not all of the slabs */
	expect_refused(-EUCLEAN, "damaged");
	unlink(path);
	/* One that was not ready when its daemon ended is none. */
	leave();
	write_at(0, &none, sizeof(none));
	write_at(4, &none, sizeof(none));
	state_close(open_good(&shape), true);
}

static void test_what_is_no_file_is_refused(void **unused)
{
	(void)unused;
	assert_int_equal(symlink("/dev/null", path), 0);
	expect_refused(-ELOOP, "");
	unlink(path);
}

static int setup(void **unused)
{
	(void)unused;
	snprintf(path, sizeof(path), "/dev/shm/farswap-test-state.%d", (int)getpid());
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	unlink(path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_new_one_has_nothing),
		cmocka_unit_test(test_records_are_found_again),
		cmocka_unit_test(test_what_is_wanted_is_found_again),
		cmocka_unit_test(test_there_is_room_for_so_many_servers),
		cmocka_unit_test(test_items_are_found_again),
		cmocka_unit_test(test_one_daemon_at_a_time),
		cmocka_unit_test(test_another_shape_is_refused),
		cmocka_unit_test(test_what_is_no_state_is_refused),
		cmocka_unit_test(test_what_is_no_file_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

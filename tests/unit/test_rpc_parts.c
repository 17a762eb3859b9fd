/* deps: common_rpc */

/* The parts of common/rpc that need no server: text, codes, memory, messages, addresses. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"
#include "proto/admin.pb-c.h"
#include "proto/memory.pb-c.h"

static void test_utf8(void **state)
{
	/* The edges of each length, and what lies just beyond them. */
	const char *valid[] = { "", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
				"\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xb6z" };
	const char *invalid[] = { "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2z", "\xe0\x9f\xbf", "\xe0\xa0",
				  "\xed\xa0\x80", "\xed\xbf\xbf", "\xe1\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
				  "\xf5\x80\x80\x80", "\xff", "\xfe", "a\xf1\x80\x80", "\xe1\x80\xc0" };
	char text[] = "a\xff\xc3\xb6\xe0\xa0z";

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(valid); i++)
		assert_true(rpc_utf8_is_valid(valid[i]));
	for (size_t i = 0; i < BASE_ARRAY_SIZE(invalid); i++)
		assert_false(rpc_utf8_is_valid(invalid[i]));
	rpc_utf8_clean(text);
	assert_string_equal(text, "a?\xc3\xb6??z");
}

static void test_codes(void **state)
{
	(void)state;
	for (int code = RPC_OK; code <= RPC_UNAUTHENTICATED; code++) {
		assert_string_not_equal(rpc_code_name(code), "");
		assert_true(code == RPC_OK || rpc_code_to_errno(code) < 0);
	}
	assert_string_equal(rpc_code_name((enum rpc_code)77), "UNKNOWN");
	assert_int_equal(rpc_code_from_errno(0), RPC_OK);
	assert_int_equal(rpc_code_from_errno(3), RPC_OK);
	assert_int_equal(rpc_code_from_errno(-ENOENT), RPC_NOT_FOUND);
	assert_int_equal(rpc_code_from_errno(-EXDEV), RPC_INTERNAL);
	assert_int_equal(rpc_code_to_errno(rpc_code_from_errno(-ETIMEDOUT)), -ETIMEDOUT);
	assert_int_equal(rpc_code_to_errno((enum rpc_code)77), -EIO);
}

static void test_status(void **state)
{
	struct rpc_status status;
	char longer[2 * RPC_STATUS_MESSAGE_MAX];

	(void)state;
	assert_int_equal(rpc_status_set(&status, RPC_ABORTED, "%d \xff", 7), RPC_ABORTED);
	assert_int_equal(status.code, RPC_ABORTED);
	assert_string_equal(status.message, "7 ?");
	assert_int_equal(rpc_status_set_errno(&status, -ENOENT, "slab %d", 3), -ENOENT);
	assert_int_equal(status.code, RPC_NOT_FOUND);
	assert_string_equal(status.message, "slab 3: No such file or directory");
	assert_int_equal(rpc_status_set(NULL, RPC_ABORTED, "x"), RPC_ABORTED);

	/* A character that is cut in the middle does not stay half. */
	for (size_t i = 0; i + 2 < sizeof(longer); i += 2)
		memcpy(longer + i, "\xc3\xb6", 3);
	rpc_status_set(&status, RPC_ABORTED, "%s", longer);
	assert_int_equal(strlen(status.message), RPC_STATUS_MESSAGE_MAX - 1);
	assert_true(rpc_utf8_is_valid(status.message));
}

static void test_arena(void **state)
{
	struct rpc_arena arena;
	char *first;

	(void)state;
	rpc_arena_init(&arena);
	first = rpc_arena_alloc(&arena, 1);
	for (size_t len = 0; len < 3000; len += 7) {
		unsigned char *ptr = rpc_arena_alloc(&arena, len);

		assert_non_null(ptr);
		assert_int_equal((uintptr_t)ptr % _Alignof(max_align_t), 0);
		memset(ptr, 0xa5, len);
	}
	assert_non_null(rpc_arena_alloc(&arena, RPC_ARENA_MAX_BYTES / 2));
	assert_false(arena.exhausted);
	assert_null(rpc_arena_alloc(&arena, RPC_ARENA_MAX_BYTES / 2));
	assert_true(arena.exhausted);
	rpc_arena_reset(&arena);
	assert_false(arena.exhausted);
	/* The first chunk has stayed. */
	assert_ptr_equal(rpc_arena_alloc(&arena, 1), first);
	assert_null(rpc_arena_alloc(&arena, SIZE_MAX));
	assert_null(rpc_arena_alloc(&arena, SIZE_MAX - 8));
	assert_null(rpc_arena_alloc(&arena, RPC_ARENA_MAX_BYTES));
	rpc_arena_reset(&arena);
	rpc_arena_reset(&arena);
	assert_non_null(rpc_arena_alloc(&arena, RPC_ARENA_MAX_BYTES - 4096));
	rpc_arena_done(&arena);
}

/* Each way in which a string may lie in a message. */
static void test_message_check(void **state)
{
	char *bad = (char *)(uintptr_t) "\xff", *good = (char *)(uintptr_t) "ok";
	Farswap__Admin__V1__StuckSlot slots[2] = { FARSWAP__ADMIN__V1__STUCK_SLOT__INIT,
						   FARSWAP__ADMIN__V1__STUCK_SLOT__INIT };
	Farswap__Admin__V1__StuckSlot *slot_ptrs[2] = { &slots[0], &slots[1] };
	Farswap__Admin__V1__DrainProgress progress = FARSWAP__ADMIN__V1__DRAIN_PROGRESS__INIT;
	Farswap__Memory__V1__WatchEvent event = FARSWAP__MEMORY__V1__WATCH_EVENT__INIT;
	Farswap__Memory__V1__DrainRequested requested = FARSWAP__MEMORY__V1__DRAIN_REQUESTED__INIT;
	Farswap__Memory__V1__Capacity capacity = FARSWAP__MEMORY__V1__CAPACITY__INIT;
	char *addresses[2] = { good, bad };
	char field[RPC_FIELD_NAME_MAX];

	(void)state;
	progress.message = good;
	progress.stuck = slot_ptrs;
	progress.n_stuck = 2;
	assert_int_equal(rpc_message_check(&progress.base, field), 0);
	slots[1].reason = bad;
	assert_int_equal(rpc_message_check(&progress.base, field), -EILSEQ);
	assert_string_equal(field, "farswap.admin.v1.StuckSlot.reason");
	progress.n_stuck = 1;
	assert_int_equal(rpc_message_check(&progress.base, field), 0);

	capacity.server_name = NULL;
	capacity.data_addresses = addresses;
	capacity.n_data_addresses = 1;
	assert_int_equal(rpc_message_check(&capacity.base, field), 0);
	capacity.n_data_addresses = 2;
	assert_int_equal(rpc_message_check(&capacity.base, field), -EILSEQ);
	assert_string_equal(field, "farswap.memory.v1.Capacity.data_addresses");

	assert_int_equal(rpc_message_check(&event.base, field), 0);
	event.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_REQUESTED;
	event.drain_requested = &requested;
	assert_int_equal(rpc_message_check(&event.base, field), 0);
	requested.reason = bad;
	assert_int_equal(rpc_message_check(&event.base, field), -EILSEQ);
	assert_string_equal(field, "farswap.memory.v1.DrainRequested.reason");
}

static void test_targets(void **state)
{
	static const struct {
		const char *address, *target;
	} good[] = {
		{ "127.0.0.1:7700", "ipv4:127.0.0.1:7700" },
		{ "[::1]:1", "ipv6:%5B::1%5D:1" },
		{ "node-7.example:65535", "dns:///node-7.example:65535" },
		{ "unix:/run/x.sock", "unix:/run/x.sock" },
	};
	char target[RPC_TARGET_MAX];

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(good); i++) {
		assert_int_equal(rpc_address_to_target(good[i].address, target), 0);
		assert_string_equal(target, good[i].target);
	}
	assert_null(rpc_address_unix_path("unix"));
	assert_string_equal(rpc_address_unix_path("unix:/x"), "/x");
}

/* The lock alone keeps a path, before there is a socket that would answer. */
static void test_unix_path(void **state)
{
	char folder[] = "/tmp/farswap-rpc-XXXXXX";
	struct rpc_unix_path *claim, *second;
	char path[64];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/sock", folder);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rpc_unix_path_claim(path, &claim), 0);
		assert_int_equal(rpc_unix_path_claim(path, &second), -EADDRINUSE);
		rpc_unix_path_release(claim);
	}
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_utf8),	cmocka_unit_test(test_codes),
		cmocka_unit_test(test_status),	cmocka_unit_test(test_arena),
		cmocka_unit_test(test_message_check), cmocka_unit_test(test_targets),
		cmocka_unit_test(test_unix_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

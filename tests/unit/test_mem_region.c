/* deps: common_mem */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/mem/io.h"
#include "common/mem/region.h"

static size_t resident_pages(const struct mem_region *region)
{
	unsigned char in_core[1024];
	size_t nr = 0;

	assert_true(region->len_bytes / FSW_PAGE_SIZE <= sizeof(in_core));
	assert_int_equal(mincore(region->base, region->len_bytes, in_core), 0);
	for (size_t i = 0; i < region->len_bytes / FSW_PAGE_SIZE; i++)
		nr += in_core[i] & 1;
	return nr;
}

static bool is_zero(const struct mem_region *region)
{
	const char *at = region->base;

	for (size_t i = 0; i < region->len_bytes; i++) {
		if (at[i] != 0)
			return false;
	}
	return true;
}

static void test_touch(void **state)
{
	struct mem_region region = { 0 };

	(void)state;
	assert_int_equal(mem_region_open(&region, 3 * FSW_PAGE_SIZE + 1, MEM_REGION_TOUCH), 0);
	assert_int_equal(region.len_bytes, 4 * FSW_PAGE_SIZE);
	assert_int_equal((uintptr_t)region.base % FSW_PAGE_SIZE, 0);
	assert_int_equal(resident_pages(&region), 4);
	assert_false(region.locked);
	assert_true(is_zero(&region));
	mem_region_close(&region);
	assert_null(region.base);
	mem_region_close(&region);
}

static void test_lock(void **state)
{
	struct mem_region region = { 0 };

	(void)state;
	assert_int_equal(mem_region_open(&region, 16 * FSW_PAGE_SIZE, MEM_REGION_LOCK | MEM_REGION_TOUCH), 0);
	assert_true(region.locked);
	assert_int_equal(resident_pages(&region), 16);
	mem_region_close(&region);
}

/* Whether the machine has huge pages or not: the memory is there, aligned for them, and says what it is. */
static void test_huge(void **state)
{
	struct mem_region region = { 0 };
	size_t len = (size_t)2 << 20;

	(void)state;
	assert_int_equal(mem_region_open(&region, len + FSW_PAGE_SIZE, MEM_REGION_TRY_HUGE | MEM_REGION_TOUCH), 0);
	assert_int_equal((uintptr_t)region.base % len, 0);
	if (region.pages == MEM_REGION_PAGES_HUGE)
		assert_int_equal(region.len_bytes, 2 * len);
	else
		assert_int_equal(region.len_bytes, len + FSW_PAGE_SIZE);
	assert_true(is_zero(&region));
	memset(region.base, 0x5a, region.len_bytes);
	mem_region_close(&region);
}

static void test_too_much(void **state)
{
	struct mem_region region = { 0 };
	uint64_t available = mem_available_bytes();

	(void)state;
	assert_true(available > 0);
	assert_int_equal(mem_region_open(&region, available * 4, MEM_REGION_TOUCH), -ENOMEM);
	assert_int_equal(mem_region_open(&region, available * 4, MEM_REGION_LOCK), -ENOMEM);
	assert_int_equal(mem_region_open(&region, available * 4, MEM_REGION_TOUCH | MEM_REGION_TRY_HUGE), -ENOMEM);
	assert_int_equal(mem_region_open(&region, SIZE_MAX, 0), -ENOMEM);
	assert_int_equal(mem_region_open(&region, 0, MEM_REGION_TOUCH), -EINVAL);
	assert_null(region.base);
}

static void test_reserve(void **state)
{
	struct mem_region region = { 0 };
	size_t len = (size_t)1 << 36;

	(void)state;
	assert_int_equal(mem_region_open(&region, len, MEM_REGION_RESERVE), 0);
	assert_int_equal(region.len_bytes, len);
	((char *)region.base)[len - 1] = 1;
	((char *)region.base)[0] = 1;
	mem_region_close(&region);
}

/* In a child, because it cannot be taken back: everything new is born locked, a reserve is not. */
static void test_reserve_under_mlockall(void **state)
{
	struct mem_region region = { 0 };
	size_t len = (size_t)1 << 36;
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		struct rusage before, after;

		if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
			_exit(77);
		getrusage(RUSAGE_SELF, &before);
		if (mem_region_open(&region, len, MEM_REGION_RESERVE) < 0)
			_exit(1);
		((char *)region.base)[len / 2] = 1;
		getrusage(RUSAGE_SELF, &after);
		_exit(after.ru_maxrss - before.ru_maxrss < 64 << 10 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("skipped: mlockall is not permitted\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* The runtimes of the sanitizers make the calls that lock memory do nothing and succeed. */
static bool locking_works(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return false;
#endif
#endif
	return true;
}

/* In a child that gives its right to lock memory away. */
static void test_lock_refused(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		struct rlimit limit = { FSW_PAGE_SIZE, FSW_PAGE_SIZE };
		struct mem_region region = { 0 };
		int ret;

		if (!locking_works() || setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || (geteuid() == 0 && setuid(65534) < 0))
			_exit(77);
		ret = mem_region_open(&region, 64 * FSW_PAGE_SIZE, MEM_REGION_LOCK | MEM_REGION_TOUCH);
		_exit((ret == -EPERM || ret == -EAGAIN) && region.base == NULL ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("skipped: cannot become a user who may not lock memory\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

struct listener {
	struct mem_io_listener head;
	const void *base;
	size_t len_bytes;
	unsigned nr_added;
	unsigned nr_removed;
	unsigned nr_missed;
	size_t missed_bytes;
};

static void listener_added(struct mem_io_listener *head, void *base, size_t len_bytes)
{
	struct listener *listener = BASE_CONTAINER_OF(head, struct listener, head);

	listener->base = base;
	listener->len_bytes = len_bytes;
	listener->nr_added++;
}

static void listener_removed(struct mem_io_listener *head, void *base, size_t len_bytes)
{
	struct listener *listener = BASE_CONTAINER_OF(head, struct listener, head);

	assert_ptr_equal(base, listener->base);
	assert_int_equal(len_bytes, listener->len_bytes);
	listener->nr_removed++;
}

static void listener_missed(struct mem_io_listener *head, size_t len_bytes)
{
	struct listener *listener = BASE_CONTAINER_OF(head, struct listener, head);

	listener->nr_missed++;
	listener->missed_bytes += len_bytes;
}

static void test_listeners_know_the_memory_of_io(void **state)
{
	struct listener first = {
		.head = { .added = listener_added, .removed = listener_removed, .missed = listener_missed },
	};
	struct listener second = first;
	struct mem_region region, other;

	(void)state;
	mem_io_listen(&first.head);
	assert_int_equal(mem_region_open(&other, 100, MEM_REGION_TOUCH), 0);
	assert_int_equal(first.nr_added, 0);
	assert_int_equal(mem_region_open(&region, 5000, MEM_REGION_IO), 0);
	assert_ptr_equal(first.base, region.base);
	assert_int_equal(first.len_bytes, 2 * FSW_PAGE_SIZE);
	/* One that comes late learns of it, and one that goes early is told to let go of it. */
	mem_io_listen(&second.head);
	assert_ptr_equal(second.base, region.base);
	mem_io_unlisten(&first.head);
	assert_int_equal(first.nr_removed, 1);
	mem_region_close(&region);
	mem_region_close(&other);
	assert_int_equal(first.nr_added + first.nr_removed, 2);
	assert_int_equal(second.nr_added, 1);
	assert_int_equal(second.nr_removed, 1);
	mem_io_unlisten(&second.head);
	assert_int_equal(first.nr_missed + second.nr_missed, 0);
}

static void one_removed(struct mem_io_listener *head, void *base, size_t len_bytes)
{
	(void)base;
	(void)len_bytes;
	BASE_CONTAINER_OF(head, struct listener, head)->nr_removed++;
}

/* More than the list has room for: who listens is told how much, when it begins and while it does. */
static void test_listeners_know_what_they_miss(void **state)
{
	struct listener early = {
		.head = { .added = listener_added, .removed = one_removed, .missed = listener_missed },
	};
	struct listener late = early;
	struct mem_region many[MEM_IO_MAX + 2];
	struct mem_region region;

	(void)state;
	mem_io_listen(&early.head);
	for (unsigned i = 0; i < MEM_IO_MAX + 2; i++)
		assert_int_equal(mem_region_open(&many[i], 1 + i / MEM_IO_MAX * FSW_PAGE_SIZE, MEM_REGION_IO), 0);
	assert_int_equal(early.nr_added, MEM_IO_MAX);
	assert_int_equal(early.nr_missed, 2);
	assert_int_equal(early.missed_bytes, 4 * FSW_PAGE_SIZE);
	mem_io_unlisten(&early.head);
	mem_region_close(&many[MEM_IO_MAX]);
	mem_io_listen(&late.head);
	assert_int_equal(late.nr_added, MEM_IO_MAX);
	assert_int_equal(late.nr_missed, 1);
	assert_int_equal(late.missed_bytes, 2 * FSW_PAGE_SIZE);
	mem_region_close(&many[MEM_IO_MAX + 1]);
	assert_int_equal(late.nr_removed, 0);
	mem_io_unlisten(&late.head);
	assert_int_equal(late.nr_removed, MEM_IO_MAX);
	for (unsigned i = 0; i < MEM_IO_MAX; i++)
		mem_region_close(&many[i]);
	/* There is room again, and nothing is missed any more. */
	assert_int_equal(mem_region_open(&region, 1, MEM_REGION_IO), 0);
	mem_io_listen(&late.head);
	assert_int_equal(late.nr_added, MEM_IO_MAX + 1);
	assert_int_equal(late.nr_missed, 1);
	mem_io_unlisten(&late.head);
	mem_region_close(&region);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_touch),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_reserve_under_mlockall),
		cmocka_unit_test(test_lock_refused),
		cmocka_unit_test(test_listeners_know_the_memory_of_io),
		cmocka_unit_test(test_listeners_know_what_they_miss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

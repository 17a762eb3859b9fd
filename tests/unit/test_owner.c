/* deps: client_frontend */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/frontend/owner.h"

static void test_who_lives(void **state)
{
	char text[FRONTEND_OWNER_BYTES];
	uint64_t mark;

	(void)state;
	assert_int_equal(frontend_owner_format(getpid(), text), 0);
	assert_false(frontend_owner_is_dead(text));
	assert_int_equal(frontend_owner_format(getppid(), text), 0);
	assert_false(frontend_owner_is_dead(text));
	assert_int_equal(frontend_owner_mark(getpid(), &mark), 0);
	assert_int_equal(mark >> FRONTEND_OWNER_MARK_BITS, 0);
	assert_int_equal(frontend_owner_state(getpid(), mark), FRONTEND_OWNER_LIVES);
}

static void test_who_dies(void **state)
{
	char text[FRONTEND_OWNER_BYTES];
	siginfo_t info;
	uint64_t mark;
	int ends[2];
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		close(ends[1]);
		_exit(read(ends[0], &c, 1) == 0 ? 0 : 1);
	}
	close(ends[0]);
	assert_true(pid > 0);
	assert_int_equal(frontend_owner_format(pid, text), 0);
	assert_false(frontend_owner_is_dead(text));
	assert_int_equal(frontend_owner_mark(pid, &mark), 0);
	assert_int_equal(frontend_owner_state(pid, mark), FRONTEND_OWNER_LIVES);
	close(ends[1]);
	/* It has ended, but its parent has not asked. */
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_true(frontend_owner_is_dead(text));
	assert_int_equal(frontend_owner_state(pid, mark), FRONTEND_OWNER_DEAD);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(frontend_owner_is_dead(text));
	assert_int_equal(frontend_owner_format(pid, text), -ESRCH);
	assert_int_equal(frontend_owner_state(pid, mark), FRONTEND_OWNER_DEAD);
	assert_int_equal(frontend_owner_mark(pid, &mark), -ESRCH);
}

/* The number of a process that has died is another's now. */
static void test_a_number_that_is_used_again(void **state)
{
	char text[FRONTEND_OWNER_BYTES];
	uint64_t mark;

	(void)state;
	assert_int_equal(frontend_owner_format(getpid(), text), 0);
	*strrchr(text, ' ') = '\0';
	strcat(text, " 1");
	assert_true(frontend_owner_is_dead(text));
	assert_int_equal(frontend_owner_mark(getpid(), &mark), 0);
	assert_int_equal(frontend_owner_state(getpid(), mark ^ 1), FRONTEND_OWNER_DEAD);
}

static void test_others(void **state)
{
	static const char *const texts[] = { "", "somebody", "farswapd", "farswapd pid:[1] 1 1", "farswapd x -1 1" };
	char text[FRONTEND_OWNER_BYTES + 8], own[FRONTEND_OWNER_BYTES];
	uint64_t mark;

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(texts); i++)
		assert_false(frontend_owner_is_dead(texts[i]));
	assert_int_equal(frontend_owner_format(getpid(), own), 0);
	*strrchr(own, ' ') = '\0';
	snprintf(text, sizeof(text), "%s 1 more", own);
	assert_false(frontend_owner_is_dead(text));
	/* Of another namespace: whoever has that number in ours is not it. */
	assert_int_equal(frontend_owner_mark(getpid(), &mark), 0);
	mark ^= 1ull << (FRONTEND_OWNER_MARK_BITS - 1);
	assert_int_equal(frontend_owner_state(getpid(), mark), FRONTEND_OWNER_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_lives),
		cmocka_unit_test(test_who_dies),
		cmocka_unit_test(test_a_number_that_is_used_again),
		cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

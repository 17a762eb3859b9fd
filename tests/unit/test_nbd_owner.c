/* deps: client_frontend_nbd */
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

#include "client/frontend/nbd/owner.h"

static void test_who_lives(void **state)
{
	char text[NBD_OWNER_BYTES];

	(void)state;
	assert_int_equal(nbd_owner_format(getpid(), text), 0);
	assert_false(nbd_owner_is_dead(text));
	assert_int_equal(nbd_owner_format(getppid(), text), 0);
	assert_false(nbd_owner_is_dead(text));
}

static void test_who_dies(void **state)
{
	char text[NBD_OWNER_BYTES];
	siginfo_t info;
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
	assert_int_equal(nbd_owner_format(pid, text), 0);
	assert_false(nbd_owner_is_dead(text));
	close(ends[1]);
	/* It has ended, but its parent has not asked. */
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_true(nbd_owner_is_dead(text));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(nbd_owner_is_dead(text));
	assert_int_equal(nbd_owner_format(pid, text), -ESRCH);
}

/* The number of a process that has died is another's now. */
static void test_a_number_that_is_used_again(void **state)
{
	char text[NBD_OWNER_BYTES];

	(void)state;
	assert_int_equal(nbd_owner_format(getpid(), text), 0);
	*strrchr(text, ' ') = '\0';
	strcat(text, " 1");
	assert_true(nbd_owner_is_dead(text));
}

static void test_others(void **state)
{
	static const char *const texts[] = { "", "somebody", "farswapd", "farswapd pid:[1] 1 1", "farswapd x -1 1" };
	char text[NBD_OWNER_BYTES + 8], own[NBD_OWNER_BYTES];

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(texts); i++)
		assert_false(nbd_owner_is_dead(texts[i]));
	assert_int_equal(nbd_owner_format(getpid(), own), 0);
	*strrchr(own, ' ') = '\0';
	snprintf(text, sizeof(text), "%s 1 more", own);
	assert_false(nbd_owner_is_dead(text));
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

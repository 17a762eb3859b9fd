/* deps: common_sys */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sys/clock.h"
#include "common/sys/sem.h"
#include "common/sys/thread.h"

#ifndef PR_GET_IO_FLUSHER
#define PR_GET_IO_FLUSHER 58
#endif

struct seen {
	sigset_t mask;
	cpu_set_t cpus;
	size_t stack_bytes;
};

static void *look_around(void *arg)
{
	struct seen *seen = arg;
	pthread_attr_t attr;

	pthread_sigmask(SIG_BLOCK, NULL, &seen->mask);
	pthread_getaffinity_np(pthread_self(), sizeof(seen->cpus), &seen->cpus);
	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getstacksize(&attr, &seen->stack_bytes);
	pthread_attr_destroy(&attr);
	return arg;
}

static int first_cpu(void)
{
	cpu_set_t cpus;

	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET((unsigned)cpu, &cpus))
			return cpu;
	}
	return -1;
}

static void test_start(void **state)
{
	int cpu = first_cpu();
	struct seen seen;
	sigset_t mask;
	pthread_t thread;
	void *result;

	(void)state;
	assert_int_equal(sys_thread_start(&thread, "a-name-of-more-than-15", cpu, look_around, &seen), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, &seen);
	assert_true(sigismember(&seen.mask, SIGTERM) && sigismember(&seen.mask, SIGUSR1));
	assert_false(sigismember(&seen.mask, SIGSEGV));
	assert_int_equal(CPU_COUNT(&seen.cpus), 1);
	assert_true(CPU_ISSET((unsigned)cpu, &seen.cpus));
	assert_true(seen.stack_bytes >= 256u << 10 && seen.stack_bytes <= 2u << 20);
	/* Ours is as it was. */
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	assert_false(sigismember(&mask, SIGUSR1));
}

static void test_no_such_cpu(void **state)
{
	pthread_t thread;

	(void)state;
	assert_int_equal(sys_thread_start(&thread, "x", CPU_SETSIZE - 1, look_around, NULL), -EINVAL);
	assert_int_equal(sys_thread_start(&thread, "x", CPU_SETSIZE + 7, look_around, NULL), -EINVAL);
}

/* Runs fn in a child, because what it does to a process cannot be undone; its result is 0 or the line that failed. */
static void in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static long status_kb(const char *key)
{
	char line[256];
	long kb = -1;
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) == 0)
			sscanf(line + strlen(key), ": %ld", &kb);
	}
	if (file)
		fclose(file);
	return kb;
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

/* Whatever this process may and may not do: what is reported is what the kernel says. */
static int harden(void)
{
	struct sys_process_rights rights;
	int score = 1;
	FILE *file;

	sys_process_harden(&rights);
	if (rights.memory_locked > 0 || (locking_works() && (rights.memory_locked == 0) != (status_kb("VmLck") > 0)))
		return 1;
	if (rights.io_flusher > 0 || (rights.io_flusher == 0) != (prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1))
		return 2;
	file = fopen("/proc/self/oom_score_adj", "re");
	if (!file || fscanf(file, "%d", &score) != 1)
		return 3;
	fclose(file);
	return rights.oom_score > 0 || (rights.oom_score == 0) != (score == -1000) ? 4 : 0;
}

static void test_harden(void **state)
{
	(void)state;
	in_child(harden);
}

static int signals(void)
{
	sys_signals_block();
	if (sys_signal_wait(0) != 0)
		return 1;
	kill(getpid(), SIGUSR1); /* blocked, and nothing that is waited for */
	kill(getpid(), SIGHUP);
	if (sys_signal_wait(-1) != SIGHUP)
		return 2;
	kill(getpid(), SIGTERM);
	if (sys_signal_wait(60000) != SIGTERM)
		return 3;
	kill(getpid(), SIGINT);
	if (sys_signal_wait(-1) != SIGINT)
		return 4;
	return sys_signal_wait(1) == 0 ? 0 : 5;
}

static void test_signals(void **state)
{
	(void)state;
	in_child(signals);
}

static void test_clock(void **state)
{
	struct sys_clock *clock = sys_clock_monotonic();
	uint64_t last = sys_clock_now_ns(clock);

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint64_t now = sys_clock_now_ns(clock);

		assert_true(now >= last);
		last = now;
	}
}

static sem_t sem;
static volatile sig_atomic_t nr_alarms;

static void on_alarm(int number)
{
	(void)number;
	if (++nr_alarms == 3)
		sem_post(&sem);
}

/* Until it is posted, which a signal alone does not do. */
static void test_semaphore(void **state)
{
	const struct sigaction action = { .sa_handler = on_alarm };
	const struct itimerval often = { .it_interval.tv_usec = 1000, .it_value.tv_usec = 1000 }, never = { 0 };

	(void)state;
	assert_int_equal(sem_init(&sem, 0, 1), 0);
	assert_int_equal(sys_sem_wait(&sem, 0), 0);
	assert_int_equal(sys_sem_wait(&sem, 0), -ETIMEDOUT);
	assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	assert_int_equal(sys_sem_wait(&sem, 60), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
	assert_true(nr_alarms >= 3);
	sem_destroy(&sem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),	cmocka_unit_test(test_no_such_cpu), cmocka_unit_test(test_harden),
		cmocka_unit_test(test_signals), cmocka_unit_test(test_clock),	cmocka_unit_test(test_semaphore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

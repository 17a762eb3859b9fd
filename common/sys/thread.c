#include "common/sys/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/sys/clock.h"

/* <linux/prctl.h>, since Linux 5.6. */
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

#define THREAD_NAME_MAX 16

/* Sanitizers make frames several times larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define THREAD_STACK_BYTES (1u << 20)
#else
#define THREAD_STACK_BYTES (256u << 10)
#endif

/* All but those that the processor raises for what this very thread did: blocked, they would kill without a trace. */
static void blocked_signals(sigset_t *set)
{
	static const int raised[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };

	sigfillset(set);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(raised); i++)
		sigdelset(set, raised[i]);
}

static int init_attributes(pthread_attr_t *attr, int cpu)
{
	cpu_set_t cpus;
	int ret;

	if (cpu >= CPU_SETSIZE)
		return -EINVAL;
	ret = err_from_pthread(pthread_attr_init(attr));
	if (ret < 0)
		return ret;
	ret = err_from_pthread(pthread_attr_setstacksize(attr, THREAD_STACK_BYTES));
	if (ret == 0 && cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET((unsigned)cpu, &cpus);
		ret = err_from_pthread(pthread_attr_setaffinity_np(attr, sizeof(cpus), &cpus));
	}
	if (ret < 0)
		pthread_attr_destroy(attr);
	return ret;
}

int sys_thread_start(pthread_t *thread, const char *name, int cpu, void *(*fn)(void *), void *arg)
{
	char short_name[THREAD_NAME_MAX];
	sigset_t block, before;
	pthread_attr_t attr;
	int ret;

	ret = init_attributes(&attr, cpu);
	if (ret < 0)
		return ret;
	/* A thread is born with its parent's mask: there is no moment at which it could take a signal. */
	blocked_signals(&block);
	pthread_sigmask(SIG_SETMASK, &block, &before);
	ret = err_from_pthread(pthread_create(thread, &attr, fn, arg));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (ret < 0)
		return ret;
	snprintf(short_name, sizeof(short_name), "%s", name);
	/* Only a name: a thread that has ended already does without. */
	(void)pthread_setname_np(*thread, short_name);
	return 0;
}

static int set_io_flusher(void)
{
	int ret = err_from_libc(prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0));

	if (ret < 0)
		return ret;
	ret = err_from_libc(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0));
	if (ret < 0)
		return ret;
	return ret == 1 ? 0 : -EPERM;
}

static int set_oom_score(int score)
{
	char text[16];
	int fd, len, ret;

	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = snprintf(text, sizeof(text), "%d", score);
	ret = write(fd, text, (size_t)len) == len ? 0 : -errno;
	close(fd);
	return ret;
}

/* Without CAP_SYS_RESOURCE the score may go down only as far as it was once set with it: found by trying. */
static int lower_oom_score(void)
{
	int first = set_oom_score(-1000);

	if (first < 0) {
		for (int score = -900; score < 0; score += 100) {
			if (set_oom_score(score) == 0)
				break;
		}
	}
	return first;
}

void sys_process_harden(struct sys_process_rights *ret_rights)
{
	*ret_rights = (struct sys_process_rights){
		.memory_locked = err_from_libc(mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)),
		.io_flusher = set_io_flusher(),
		.oom_score = lower_oom_score(),
	};
}

void sys_signals_block(void)
{
	sigset_t block;

	blocked_signals(&block);
	pthread_sigmask(SIG_SETMASK, &block, NULL);
}

int sys_signal_wait(int timeout_ms)
{
	struct sys_clock *clock = sys_clock_monotonic();
	uint64_t now = sys_clock_now_ns(clock);
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : now + (uint64_t)timeout_ms * SYS_NS_PER_MS;
	struct timespec wait;
	sigset_t set;
	int ret;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	for (;;) {
		/* Another signal's handler, or a debugger, may end the wait early. */
		wait.tv_sec = (time_t)((deadline - now) / SYS_NS_PER_S);
		wait.tv_nsec = (long)((deadline - now) % SYS_NS_PER_S);
		ret = timeout_ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &wait);
		if (ret > 0)
			return ret;
		now = sys_clock_now_ns(clock);
		if (now >= deadline || errno == EAGAIN)
			return 0;
	}
}

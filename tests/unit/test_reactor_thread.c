/* deps: common_sys */

/* Reactors with their threads: waking, descriptors, and what others may do to them meanwhile. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sys/rcu.h"
#include "common/sys/reactor.h"

static struct sys_reactor *reactor;
static sem_t done;

/* cmocka's assertions are for the thread of the test; others count what went wrong. */
static atomic_int nr_wrong;

static void expect(bool right)
{
	if (!right)
		atomic_fetch_add(&nr_wrong, 1);
}

static int setup_with(unsigned spin_us)
{
	struct sys_reactor_options options = { .name = "threaded", .cpu = -1, .spin_us = spin_us };

	atomic_store(&nr_wrong, 0);
	sem_init(&done, 0, 0);
	return sys_reactor_create(&options, &reactor);
}

static int setup(void **state)
{
	(void)state;
	return setup_with(0);
}

static int setup_spinning(void **state)
{
	(void)state;
	return setup_with(100);
}

static int teardown(void **state)
{
	(void)state;
	sys_reactor_stop(reactor);
	sys_reactor_free(reactor);
	sem_destroy(&done);
	return atomic_load(&nr_wrong);
}

static void look_around(void *arg)
{
	char name[16];
	sigset_t mask;

	expect(sys_reactor_self() == reactor);
	expect(sys_rcu_thread_registered());
	pthread_getname_np(pthread_self(), name, sizeof(name));
	expect(strcmp(name, "threaded") == 0);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	expect(sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT) && sigismember(&mask, SIGPIPE));
	*(int *)arg += 1;
}

static void test_call(void **state)
{
	int nr = 0;

	(void)state;
	assert_int_equal(sys_reactor_start(reactor), 0);
	for (int i = 0; i < 100; i++)
		sys_reactor_call(reactor, look_around, &nr);
	assert_int_equal(nr, 100);
	sys_reactor_stop(reactor);
	sys_reactor_stop(reactor);
	/* And again, after its end. */
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, look_around, &nr);
	assert_int_equal(nr, 101);
}

#define NR_SENDERS 3
#define NR_MESSAGES 2000

struct numbered {
	struct sys_message message;
	unsigned sender;
	unsigned number;
};

static struct numbered numbered[NR_SENDERS][NR_MESSAGES];
static unsigned next_number[NR_SENDERS];

static void on_numbered(struct sys_message *message)
{
	struct numbered *m = BASE_CONTAINER_OF(message, struct numbered, message);

	expect(m->number == next_number[m->sender]);
	next_number[m->sender] = m->number + 1;
	if (m->number == NR_MESSAGES - 1)
		sem_post(&done);
}

static void *send_all(void *arg)
{
	struct numbered *messages = arg;

	for (unsigned i = 0; i < NR_MESSAGES; i++) {
		messages[i].message.run = on_numbered;
		messages[i].number = i;
		sys_reactor_send(reactor, &messages[i].message);
	}
	return NULL;
}

/* None is lost, none overtakes another of the same sender, and the reactor never sleeps over one. */
static void test_senders(void **state)
{
	pthread_t sender[NR_SENDERS];

	(void)state;
	memset(numbered, 0, sizeof(numbered));
	memset(next_number, 0, sizeof(next_number));
	assert_int_equal(sys_reactor_start(reactor), 0);
	for (unsigned i = 0; i < NR_SENDERS; i++) {
		for (unsigned k = 0; k < NR_MESSAGES; k++)
			numbered[i][k].sender = i;
		assert_int_equal(pthread_create(&sender[i], NULL, send_all, numbered[i]), 0);
	}
	for (unsigned i = 0; i < NR_SENDERS; i++)
		sem_wait(&done);
	for (unsigned i = 0; i < NR_SENDERS; i++)
		pthread_join(sender[i], NULL);
	for (unsigned i = 0; i < NR_SENDERS; i++)
		assert_int_equal(next_number[i], NR_MESSAGES);
}

static void on_post(struct sys_message *message)
{
	(void)message;
	sem_post(&done);
}

/* One at a time, so that the reactor goes to sleep (or is about to) before most of them. */
static void test_wakes(void **state)
{
	struct sys_message message = { .run = on_post };

	(void)state;
	assert_int_equal(sys_reactor_start(reactor), 0);
	for (int i = 0; i < 5000; i++) {
		sys_reactor_send(reactor, &message);
		sem_wait(&done);
	}
}

/* A message that puts something off, which puts itself off again so many times. */
struct put_off {
	struct sys_message message;
	struct sys_deferred deferred;
	unsigned left;
};

static void on_put_off(struct sys_message *message)
{
	sys_reactor_defer(reactor, &BASE_CONTAINER_OF(message, struct put_off, message)->deferred);
}

static void on_deferred(struct sys_deferred *deferred)
{
	struct put_off *p = BASE_CONTAINER_OF(deferred, struct put_off, deferred);

	if (p->left == 0) {
		sem_post(&done); /* from here on the test may have ended */
		return;
	}
	p->left--;
	sys_reactor_defer(reactor, deferred);
}

/* What is put off to the next turn does not wait for somebody to wake the reactor. */
static void test_no_sleep_over_deferred(void **state)
{
	struct put_off p = { .message.run = on_put_off, .deferred.run = on_deferred, .left = 1000 };

	(void)state;
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_send(reactor, &p.message);
	sem_wait(&done);
	assert_int_equal(p.left, 0);
}

static atomic_uint nr_looks;

static uint64_t count_looks(struct sys_clock *clock)
{
	(void)clock;
	atomic_fetch_add(&nr_looks, 1);
	return sys_clock_now_ns(sys_clock_monotonic());
}

/* A turn has done what it has put off: with that alone there is nothing to look for before the next sleep. */
static void test_no_turn_for_what_is_done(void **state)
{
	struct sys_clock counting = { .now_ns = count_looks };
	struct sys_reactor_options options = { .name = "counted", .cpu = -1, .clock = &counting };
	struct put_off p = { .message.run = on_put_off, .deferred.run = on_deferred };
	const unsigned nr = 2000;
	struct sys_reactor *usual = reactor;

	(void)state;
	assert_int_equal(sys_reactor_create(&options, &reactor), 0);
	assert_int_equal(sys_reactor_start(reactor), 0);
	atomic_store(&nr_looks, 0);
	for (unsigned i = 0; i < nr; i++) {
		sys_reactor_send(reactor, &p.message);
		sem_wait(&done);
	}
	sys_reactor_stop(reactor);
	/* A turn looks at the clock once. A sender's wake that comes late, to one who is awake, makes a second. */
	assert_in_range(atomic_load(&nr_looks), nr, nr + nr / 2);
	sys_reactor_free(reactor);
	reactor = usual;
}

/* A message that comes when the thread has ended is run by who ended it. */
static void test_left_over(void **state)
{
	struct sys_message message = { .run = on_post };

	(void)state;
	assert_int_equal(sys_reactor_start(reactor), 0);
	for (int i = 0; i < 100; i++) {
		sys_reactor_send(reactor, &message);
		sys_reactor_stop(reactor);
		assert_int_equal(sem_trywait(&done), 0);
		assert_int_equal(sys_reactor_start(reactor), 0);
	}
}

struct timed {
	struct sys_timer timer;
	uint64_t after_ns;
	uint64_t at_ns;
};

static void on_timed(struct sys_timer *timer)
{
	struct timed *t = BASE_CONTAINER_OF(timer, struct timed, timer);

	expect(sys_reactor_now_ns(reactor) >= t->at_ns);
	sem_post(&done);
}

static void arm_timed(void *arg)
{
	struct timed *t = arg;

	t->at_ns = sys_reactor_now_ns(reactor) + t->after_ns;
	sys_timer_arm(reactor, &t->timer, t->at_ns);
}

static void test_timer_ends_sleep(void **state)
{
	struct timed t = { .timer.fire = on_timed, .after_ns = 1500 * SYS_NS_PER_US };

	(void)state;
	assert_int_equal(sys_reactor_start(reactor), 0);
	for (int i = 0; i < 10; i++) {
		sys_reactor_call(reactor, arm_timed, &t);
		sem_wait(&done);
	}
}

static void cancel_timed(void *arg)
{
	struct timed *t = arg;

	sys_timer_cancel(reactor, &t->timer);
}

static void on_nothing(struct sys_timer *timer)
{
	(void)timer;
}

/* The sleep that it is to end has begun for another time: an earlier one, a later one, or none. */
static void test_timer_is_moved_during_sleep(void **state)
{
	struct timed t = { .timer.fire = on_timed }, far = { .timer.fire = on_timed, .after_ns = UINT64_MAX / 4 };
	struct timed gone = { .timer.fire = on_nothing, .after_ns = 500 * SYS_NS_PER_US };

	(void)state;
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, arm_timed, &far);
	for (int i = 0; i < 10; i++) {
		t.after_ns = 3600 * SYS_NS_PER_S;
		sys_reactor_call(reactor, arm_timed, &t);
		t.after_ns = 3000 * SYS_NS_PER_S;
		sys_reactor_call(reactor, arm_timed, &t);
		t.after_ns = 3300 * SYS_NS_PER_S;
		sys_reactor_call(reactor, arm_timed, &t);
		t.after_ns = 1000 * SYS_NS_PER_US;
		sys_reactor_call(reactor, arm_timed, &t);
		sem_wait(&done);
		/* One before it is gone, most often, when the alarm rings for it. */
		sys_reactor_call(reactor, arm_timed, &gone);
		t.after_ns = 1500 * SYS_NS_PER_US;
		sys_reactor_call(reactor, arm_timed, &t);
		sys_reactor_call(reactor, cancel_timed, &gone);
		sem_wait(&done);
	}
	sys_reactor_call(reactor, cancel_timed, &far);
	/* The alarm rings while nobody runs. */
	sys_reactor_stop(reactor);
	usleep(2000);
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, arm_timed, &t);
	sem_wait(&done);
}

struct echo {
	struct sys_watch watch;
	unsigned nr_bytes;
};

static void on_echo(struct sys_watch *watch, uint32_t events)
{
	struct echo *echo = BASE_CONTAINER_OF(watch, struct echo, watch);
	char buf[64];
	ssize_t n;

	expect(events & EPOLLIN);
	n = recv(watch->fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n <= 0) {
		sys_watch_remove(watch);
		sys_watch_remove(watch);
		sem_post(&done);
		return;
	}
	echo->nr_bytes += (unsigned)n;
	expect(send(watch->fd, buf, (size_t)n, MSG_DONTWAIT) == n);
}

static void add_echo(void *arg)
{
	struct echo *echo = arg;

	expect(sys_watch_add(reactor, &echo->watch, EPOLLIN) == 0);
	sys_watch_modify(&echo->watch, EPOLLIN | EPOLLOUT);
	sys_watch_modify(&echo->watch, EPOLLIN);
}

static void test_watch(void **state)
{
	struct echo echo = { .watch.ready = on_echo };
	int fd[2];
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	echo.watch.fd = fd[0];
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, add_echo, &echo);
	for (char i = 0; i < 50; i++) {
		assert_int_equal(write(fd[1], &i, 1), 1);
		assert_int_equal(read(fd[1], &c, 1), 1);
		assert_int_equal(c, i);
	}
	close(fd[1]);
	sem_wait(&done);
	assert_null(echo.watch.reactor);
	assert_int_equal(echo.nr_bytes, 50);
	close(fd[0]);
}

/* Several descriptors are ready at once, and the first to be served takes all others away. */
#define NR_RIVALS 8

static struct rival {
	struct sys_watch watch;
	int fd[2];
} rival[NR_RIVALS];
static unsigned nr_served;

static void on_rival(struct sys_watch *watch, uint32_t events)
{
	(void)events;
	nr_served++;
	expect(watch->reactor == reactor);
	for (unsigned i = 0; i < NR_RIVALS; i++)
		sys_watch_remove(&rival[i].watch);
	sem_post(&done);
}

static void add_rivals(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < NR_RIVALS; i++)
		expect(sys_watch_add(reactor, &rival[i].watch, EPOLLIN) == 0);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void test_watch_removed_by_another(void **state)
{
	(void)state;
	nr_served = 0;
	for (unsigned i = 0; i < NR_RIVALS; i++) {
		rival[i] = (struct rival){ .watch.ready = on_rival };
		assert_int_equal(pipe(rival[i].fd), 0);
		assert_int_equal(write(rival[i].fd[1], "x", 1), 1);
		rival[i].watch.fd = rival[i].fd[0];
	}
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, add_rivals, NULL);
	sem_wait(&done);
	sys_reactor_call(reactor, nothing, NULL);
	sys_reactor_call(reactor, nothing, NULL);
	assert_int_equal(nr_served, 1);
	for (unsigned i = 0; i < NR_RIVALS; i++) {
		close(rival[i].fd[0]);
		close(rival[i].fd[1]);
	}
}

static struct sys_poller poller;
static unsigned nr_polls;

static unsigned on_poll(struct sys_poller *p)
{
	(void)p;
	/* Found something a hundred times, and nothing then: it is asked that often without any wake. */
	if (++nr_polls == 100)
		sem_post(&done);
	return nr_polls <= 100;
}

static void add_poller(void *arg)
{
	(void)arg;
	sys_poller_add(reactor, &poller);
}

static void remove_poller(void *arg)
{
	(void)arg;
	sys_poller_remove(&poller);
}

static void test_poller_is_asked_while_it_works(void **state)
{
	(void)state;
	nr_polls = 0;
	poller = (struct sys_poller){ .poll = on_poll };
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, add_poller, NULL);
	sem_wait(&done);
	sys_reactor_call(reactor, remove_poller, NULL);
}

static unsigned nr_arms;
static unsigned nr_polls_at_arm;

static unsigned on_idle_poll(struct sys_poller *p)
{
	(void)p;
	nr_polls++;
	return 0;
}

static unsigned on_arm(struct sys_poller *p)
{
	(void)p;
	/* Asked only when a poll has found nothing, and again after each time that it found something itself. */
	if (nr_polls == nr_polls_at_arm)
		atomic_fetch_add(&nr_wrong, 1);
	nr_polls_at_arm = nr_polls;
	if (++nr_arms < 10)
		return 1;
	if (nr_arms == 10)
		sem_post(&done);
	return 0;
}

static void test_poller_is_armed_before_sleep(void **state)
{
	(void)state;
	nr_polls = nr_arms = nr_polls_at_arm = 0;
	poller = (struct sys_poller){ .poll = on_idle_poll, .arm = on_arm };
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, add_poller, NULL);
	sem_wait(&done);
	sys_reactor_call(reactor, remove_poller, NULL);
	assert_true(nr_arms >= 10);
}

/* A process without a descriptor left: an error, whichever is the one that is missing, and none of the others stays open. */
static void test_no_descriptor_left(void **state)
{
	struct sys_reactor_options options = { .name = "none", .cpu = -1 };
	struct sys_reactor *other;
	struct rlimit limit, few;
	int fds[4]; /* for epoll, the wake and the alarm; and the next after them */

	(void)state;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(fds); i++)
		assert_true((fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(fds); i++)
		close(fds[i]);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(fds); i++) {
		int next;

		few.rlim_cur = (rlim_t)fds[i];
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		assert_int_equal(sys_reactor_create(&options, &other), i < 3 ? -EMFILE : 0);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
		if (i == 3)
			sys_reactor_free(other);
		next = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_int_equal(next, fds[0]);
		close(next);
	}
}

static void test_no_such_cpu(void **state)
{
	struct sys_reactor_options options = { .name = "nowhere", .cpu = 100000 };
	struct sys_reactor *nowhere;

	(void)state;
	assert_int_equal(sys_reactor_create(&options, &nowhere), 0);
	assert_int_equal(sys_reactor_start(nowhere), -EINVAL);
	sys_reactor_stop(nowhere);
	sys_reactor_free(nowhere);
	sys_reactor_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_call, setup, teardown),
		cmocka_unit_test_setup_teardown(test_senders, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wakes, setup_spinning, teardown),
		cmocka_unit_test_setup_teardown(test_no_sleep_over_deferred, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_turn_for_what_is_done, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timer_ends_sleep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timer_ends_sleep, setup_spinning, teardown),
		cmocka_unit_test_setup_teardown(test_timer_is_moved_during_sleep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timer_is_moved_during_sleep, setup_spinning, teardown),
		cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watch, setup_spinning, teardown),
		cmocka_unit_test_setup_teardown(test_watch_removed_by_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poller_is_asked_while_it_works, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poller_is_armed_before_sleep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poller_is_armed_before_sleep, setup_spinning, teardown),
		cmocka_unit_test_setup_teardown(test_no_descriptor_left, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_cpu, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

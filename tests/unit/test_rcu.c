/* deps: common_sys */

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/base.h"
#include "common/sys/rcu.h"
#include "common/sys/reactor.h"

struct version {
	struct sys_rcu_head head;
	uint64_t a, b; /* equal as long as it may be read */
};

static _Atomic(struct version *) published;
static atomic_bool stop;
static atomic_uint nr_wrong, nr_freed, nr_reads;

static struct version *version_create(uint64_t n)
{
	struct version *v = malloc(sizeof(*v));

	assert_non_null(v);
	v->a = n;
	v->b = n;
	return v;
}

static void version_free(struct sys_rcu_head *head)
{
	struct version *v = BASE_CONTAINER_OF(head, struct version, head);

	v->a = 1;
	v->b = 2;
	free(v);
	atomic_fetch_add(&nr_freed, 1);
}

static void look(void)
{
	struct version *v = atomic_load_explicit(&published, memory_order_acquire);

	if (v->a != v->b)
		atomic_fetch_add(&nr_wrong, 1);
	atomic_fetch_add_explicit(&nr_reads, 1, memory_order_relaxed);
}

static void *reader_main(void *arg)
{
	(void)arg;
	sys_rcu_thread_init();
	while (!atomic_load(&stop)) {
		sys_rcu_read_lock();
		look();
		sys_rcu_read_unlock();
	}
	sys_rcu_thread_done();
	return NULL;
}

static unsigned on_poll(struct sys_poller *poller)
{
	(void)poller;
	look();
	return 1;
}

static void add_poller(void *arg)
{
	sys_poller_add(sys_reactor_self(), arg);
}

static void remove_poller(void *arg)
{
	sys_poller_remove(arg);
}

/* A thread and a reactor read while versions are replaced: what they hold is never freed under them. */
static void test_readers(void **state)
{
	struct sys_reactor_options options = { .name = "reader", .cpu = -1 };
	struct sys_poller poller = { .poll = on_poll };
	struct sys_reactor *reactor;
	pthread_t thread;

	(void)state;
	atomic_store(&stop, false);
	atomic_store(&nr_freed, 0);
	atomic_store(&published, version_create(0));
	assert_int_equal(sys_reactor_create(&options, &reactor), 0);
	assert_int_equal(sys_reactor_start(reactor), 0);
	sys_reactor_call(reactor, add_poller, &poller);
	assert_int_equal(pthread_create(&thread, NULL, reader_main, NULL), 0);
	sys_rcu_thread_init();
	for (uint64_t i = 1; i <= 500; i++) {
		struct version *v = version_create(i);
		struct version *old = atomic_exchange_explicit(&published, v, memory_order_acq_rel);

		if (i % 2) {
			sys_rcu_call(&old->head, version_free);
		} else {
			sys_rcu_synchronize();
			version_free(&old->head);
		}
	}
	sys_rcu_barrier();
	assert_int_equal(atomic_load(&nr_freed), 500);
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	sys_reactor_call(reactor, remove_poller, &poller);
	sys_reactor_stop(reactor);
	sys_reactor_free(reactor);
	sys_rcu_thread_done();
	assert_int_equal(atomic_load(&nr_wrong), 0);
	assert_true(atomic_load(&nr_reads) > 0);
	version_free(&atomic_load(&published)->head);
}

static sem_t inside, leave;
static atomic_bool left;

static void *holder_main(void *arg)
{
	(void)arg;
	sys_rcu_thread_init();
	sys_rcu_read_lock();
	sem_post(&inside);
	sem_wait(&leave);
	atomic_store(&left, true);
	sys_rcu_read_unlock();
	sys_rcu_thread_done();
	return NULL;
}

static void *release_main(void *arg)
{
	(void)arg;
	sem_post(&leave);
	return NULL;
}

/* synchronize does not return before a section that had begun has ended. */
static void test_waits(void **state)
{
	pthread_t holder, release;

	(void)state;
	sem_init(&inside, 0, 0);
	sem_init(&leave, 0, 0);
	for (int i = 0; i < 20; i++) {
		atomic_store(&left, false);
		assert_int_equal(pthread_create(&holder, NULL, holder_main, NULL), 0);
		sem_wait(&inside);
		assert_int_equal(pthread_create(&release, NULL, release_main, NULL), 0);
		sys_rcu_synchronize();
		assert_true(atomic_load(&left));
		pthread_join(holder, NULL);
		pthread_join(release, NULL);
	}
	sem_destroy(&inside);
	sem_destroy(&leave);
}

/* A sleeping reactor and a registered thread that holds nothing hold nobody up. */
static void test_idle_readers(void **state)
{
	struct sys_reactor_options options = { .name = "idle", .cpu = -1 };
	struct sys_reactor *reactor;

	(void)state;
	assert_int_equal(sys_reactor_create(&options, &reactor), 0);
	assert_int_equal(sys_reactor_start(reactor), 0);
	assert_false(sys_rcu_thread_registered());
	sys_rcu_thread_init();
	assert_true(sys_rcu_thread_registered());
	for (int i = 0; i < 10; i++)
		sys_rcu_synchronize();
	sys_rcu_thread_done();
	assert_false(sys_rcu_thread_registered());
	sys_rcu_synchronize();
	sys_reactor_stop(reactor);
	sys_reactor_free(reactor);
}

static void read_on_reactor(struct sys_message *message)
{
	(void)message;
	/* Code that control threads share with reactors may say lock and unlock there too: the turn goes on. */
	sys_rcu_read_lock();
	sys_rcu_read_unlock();
	assert_true(sys_rcu_thread_registered());
	sys_rcu_read_lock();
	sys_rcu_read_unlock();
}

/* A manual turn is a read-side section whether its thread is registered or not, and leaves that as it was. */
static void test_manual_turn(void **state)
{
	struct sys_reactor_options options = { .name = "manual", .cpu = -1, .manual = true };
	struct sys_message message = { .run = read_on_reactor };
	struct sys_reactor *reactor;

	(void)state;
	assert_int_equal(sys_reactor_create(&options, &reactor), 0);
	sys_reactor_send(reactor, &message);
	assert_int_equal(sys_reactor_turn(reactor), 1);
	assert_false(sys_rcu_thread_registered());
	sys_rcu_thread_init();
	sys_reactor_send(reactor, &message);
	assert_int_equal(sys_reactor_turn(reactor), 1);
	assert_true(sys_rcu_thread_registered());
	sys_rcu_synchronize();
	sys_rcu_thread_done();
	sys_reactor_free(reactor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_idle_readers),
		cmocka_unit_test(test_manual_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

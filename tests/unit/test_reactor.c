/* deps: common_sys */

/* Reactors by hand, under a clock of the test: what happens in one turn, and in which order. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/sys/reactor.h"

struct test_clock {
	struct sys_clock clock;
	uint64_t now_ns;
};

static uint64_t test_now(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct test_clock, clock)->now_ns;
}

static struct test_clock hand = { .clock.now_ns = test_now };
static struct sys_reactor *reactor;

/* What ran, in order: one letter each. */
static char trace[64];

static void mark(char c)
{
	size_t len = strlen(trace);

	assert_true(len < sizeof(trace) - 1);
	trace[len] = c;
	trace[len + 1] = '\0';
}

static void assert_trace(const char *expected)
{
	assert_string_equal(trace, expected);
	trace[0] = '\0';
}

static int setup(void **state)
{
	struct sys_reactor_options options = { .name = "manual", .cpu = -1, .clock = &hand.clock, .manual = true };

	(void)state;
	trace[0] = '\0';
	hand.now_ns = 1000;
	return sys_reactor_create(&options, &reactor);
}

static int teardown(void **state)
{
	(void)state;
	sys_reactor_free(reactor);
	return 0;
}

/* One of each, with a letter to be marked; what else it does is set by the test. */
struct item {
	char letter;
	struct sys_message message;
	struct sys_timer timer;
	struct sys_deferred deferred;
	struct sys_poller poller;
	void (*then)(struct item *item);
	struct item *other;
};

static void ran(struct item *item)
{
	mark(item->letter);
	assert_ptr_equal(sys_reactor_self(), reactor);
	if (item->then)
		item->then(item);
}

static void on_message(struct sys_message *m)
{
	ran(BASE_CONTAINER_OF(m, struct item, message));
}

static void on_timer(struct sys_timer *t)
{
	ran(BASE_CONTAINER_OF(t, struct item, timer));
}

static void on_deferred(struct sys_deferred *d)
{
	ran(BASE_CONTAINER_OF(d, struct item, deferred));
}

static unsigned on_poll(struct sys_poller *p)
{
	ran(BASE_CONTAINER_OF(p, struct item, poller));
	return 0;
}

static struct item make(char letter)
{
	return (struct item){
		.letter = letter,
		.message.run = on_message,
		.timer.fire = on_timer,
		.deferred.run = on_deferred,
		.poller.poll = on_poll,
	};
}

static void test_order_of_turn(void **state)
{
	struct item d = make('d'), t = make('t'), p = make('p'), m = make('m');

	(void)state;
	sys_reactor_defer(reactor, &d.deferred);
	sys_reactor_defer(reactor, &d.deferred);
	sys_timer_arm(reactor, &t.timer, 1000);
	sys_poller_add(reactor, &p.poller);
	sys_reactor_send(reactor, &m.message);
	/* Pollers that find nothing do not count. */
	assert_int_equal(sys_reactor_turn(reactor), 3);
	assert_trace("mptd");
	assert_null(sys_reactor_self());
	assert_int_equal(sys_reactor_turn(reactor), 0);
	assert_trace("p");
	sys_poller_remove(&p.poller);
	sys_poller_remove(&p.poller);
	assert_int_equal(sys_reactor_turn(reactor), 0);
	assert_trace("");
}

static void test_time(void **state)
{
	(void)state;
	assert_ptr_equal(sys_reactor_clock(reactor), &hand.clock);
	assert_int_equal(sys_reactor_now_ns(reactor), 1000);
	hand.now_ns = 2000;
	assert_int_equal(sys_reactor_now_ns(reactor), 1000);
	sys_reactor_turn(reactor);
	assert_int_equal(sys_reactor_now_ns(reactor), 2000);
}

static void test_timers(void **state)
{
	struct item a = make('a'), b = make('b'), c = make('c'), d = make('d');

	(void)state;
	assert_true(sys_reactor_next_timer_ns(reactor) == UINT64_MAX);
	sys_timer_arm(reactor, &c.timer, 3000);
	sys_timer_arm(reactor, &a.timer, 1500);
	sys_timer_arm(reactor, &b.timer, 1500); /* same time: in the order of arming */
	sys_timer_arm(reactor, &d.timer, 9000);
	assert_int_equal(sys_reactor_next_timer_ns(reactor), 1500);
	hand.now_ns = 1499;
	assert_int_equal(sys_reactor_turn(reactor), 0);
	hand.now_ns = 1500;
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("ab");
	assert_false(a.timer.armed);
	sys_timer_arm(reactor, &d.timer, 2500); /* moves it, in front of c */
	hand.now_ns = 5000;
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("dc");
	sys_timer_arm(reactor, &a.timer, 6000);
	sys_timer_cancel(reactor, &a.timer);
	sys_timer_cancel(reactor, &a.timer);
	hand.now_ns = 10000;
	assert_int_equal(sys_reactor_turn(reactor), 0);
	assert_trace("");
}

static void cancel_other(struct item *item)
{
	sys_timer_cancel(reactor, &item->other->timer);
}

static void arm_self_now(struct item *item)
{
	sys_timer_arm(reactor, &item->timer, 0);
}

/* A timer that is always due gets one turn at a time and does not keep the others from theirs. */
static void test_timers_from_timers(void **state)
{
	struct item a = make('a'), b = make('b'), c = make('c');

	(void)state;
	a.then = cancel_other;
	a.other = &b;
	c.then = arm_self_now;
	sys_timer_arm(reactor, &a.timer, 1);
	sys_timer_arm(reactor, &b.timer, 2);
	sys_timer_arm(reactor, &c.timer, 3);
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("ac");
	b.then = NULL;
	sys_timer_arm(reactor, &b.timer, 4);
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("cb");
	sys_timer_cancel(reactor, &c.timer);
}

static void defer_self(struct item *item)
{
	sys_reactor_defer(reactor, &item->deferred);
}

static void undefer_other(struct item *item)
{
	sys_reactor_undefer(reactor, &item->other->deferred);
}

static void test_deferred(void **state)
{
	struct item a = make('a'), b = make('b'), c = make('c');

	(void)state;
	a.then = defer_self;
	b.then = undefer_other;
	b.other = &c;
	sys_reactor_defer(reactor, &a.deferred);
	sys_reactor_defer(reactor, &b.deferred);
	sys_reactor_defer(reactor, &c.deferred);
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("ab");
	assert_false(c.deferred.queued);
	a.then = NULL;
	assert_int_equal(sys_reactor_turn(reactor), 1);
	assert_trace("a");
	assert_int_equal(sys_reactor_turn(reactor), 0);
}

/* Wherever it is among those that wait, the rest run in their order, and what is put off then comes behind them. */
static void test_undefer(void **state)
{
	struct item items[] = { make('a'), make('b'), make('c') }, d = make('d');
	const char *const left[] = { "bcd", "acd", "abd" };

	(void)state;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(items); i++) {
		for (size_t k = 0; k < BASE_ARRAY_SIZE(items); k++)
			sys_reactor_defer(reactor, &items[k].deferred);
		sys_reactor_undefer(reactor, &items[i].deferred);
		sys_reactor_undefer(reactor, &items[i].deferred);
		sys_reactor_defer(reactor, &d.deferred);
		assert_int_equal(sys_reactor_turn(reactor), 3);
		assert_trace(left[i]);
	}
	/* One that was to run in the next turn, by one of this. */
	items[0].then = defer_self;
	items[1].then = undefer_other;
	items[1].other = &items[0];
	sys_reactor_defer(reactor, &items[0].deferred);
	sys_reactor_defer(reactor, &items[1].deferred);
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("ab");
	assert_int_equal(sys_reactor_turn(reactor), 0);
}

static void send_self(struct item *item)
{
	sys_reactor_send(reactor, &item->message);
}

/* Messages keep their order; one sent by a message waits for the next turn; its memory is free when it runs. */
static void test_messages(void **state)
{
	struct item a = make('a'), b = make('b'), c = make('c');

	(void)state;
	a.then = send_self;
	sys_reactor_send(reactor, &a.message);
	sys_reactor_send(reactor, &b.message);
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("ab");
	sys_reactor_send(reactor, &c.message);
	a.then = NULL;
	assert_int_equal(sys_reactor_turn(reactor), 2);
	assert_trace("ac");
	assert_int_equal(sys_reactor_turn(reactor), 0);
}

static void remove_both(struct item *item)
{
	sys_poller_remove(&item->other->poller);
	sys_poller_remove(&item->poller);
}

static void test_pollers_removed_by_pollers(void **state)
{
	struct item a = make('a'), b = make('b'), c = make('c');

	(void)state;
	a.then = remove_both;
	a.other = &b;
	sys_poller_add(reactor, &a.poller);
	sys_poller_add(reactor, &b.poller);
	sys_poller_add(reactor, &c.poller);
	sys_reactor_turn(reactor);
	assert_trace("ac");
	sys_poller_add(reactor, &b.poller);
	sys_reactor_turn(reactor);
	assert_trace("cb");
	/* The last one takes the first away. */
	b.then = remove_both;
	b.other = &c;
	sys_reactor_turn(reactor);
	assert_trace("cb");
	sys_reactor_turn(reactor);
	assert_trace("");
}

static void call_marks(void *arg)
{
	(void)arg;
	assert_ptr_equal(sys_reactor_self(), reactor);
	mark('x');
}

static void test_call_when_not_running(void **state)
{
	(void)state;
	sys_reactor_call(reactor, call_marks, NULL);
	assert_trace("x");
	assert_null(sys_reactor_self());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order_of_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timers_from_timers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undefer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pollers_removed_by_pollers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_call_when_not_running, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: server_expose */

/* The lender's side of the data path: no session reaches a byte that was not lent to it, or was revoked. */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/sys/rcu.h"
#include "server/expose/expose.h"

#define SLAB_BYTES ARENA_SLAB_BYTES_MIN
#define NR_SLABS 4u
#define MAX_LEASES 3u
#define MAX_SESSIONS 6u
#define MAX_LEASE_SESSIONS 4u
#define LEASE_A 0xaaaaaaaaaaaaaaaaull
#define LEASE_B 0xbbbbbbbbbbbbbbbbull
#define KEY_A 0x11111111u
#define KEY_B 0x22222222u

struct fixture {
	struct arena *arena;
	struct expose *expose;
	struct transport_target *target;
	uint8_t token_a[TRANSPORT_TOKEN_BYTES];
	uint8_t token_b[TRANSPORT_TOKEN_BYTES];
};

static int setup(void **state)
{
	static struct fixture f;
	struct expose_options options = {
		.max_leases = MAX_LEASES, .max_sessions = MAX_SESSIONS, .max_lease_sessions = MAX_LEASE_SESSIONS
	};

	assert_int_equal(arena_open(NR_SLABS * SLAB_BYTES, SLAB_BYTES, &f.arena), 0);
	options.arena = f.arena;
	assert_int_equal(expose_create(&options, &f.expose), 0);
	f.target = expose_target(f.expose);
	memset(f.token_a, 0xa, sizeof(f.token_a));
	memset(f.token_b, 0xb, sizeof(f.token_b));
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	expose_free(f->expose);
	arena_close(f->arena);
	return 0;
}

static struct expose_lease *add_lease(struct fixture *f, uint64_t id, const uint8_t *token)
{
	struct expose_lease *lease = NULL;

	assert_int_equal(expose_lease_add(f->expose, id, token, 1, &lease), 0);
	return lease;
}

static void end_lease(struct fixture *f, struct expose_lease *lease)
{
	expose_lease_end(f->expose, lease);
	expose_synchronize(f->expose);
	expose_lease_remove(f->expose, lease);
}

static struct transport_session *join(struct fixture *f, uint64_t id, uint32_t channel)
{
	struct transport_session *session = NULL;

	assert_int_equal(f->target->ops->join(f->target, id, channel, "peer", &session), 0);
	return session;
}

static void leave(struct fixture *f, struct transport_session *session)
{
	f->target->ops->leave(f->target, session);
}

static int resolve(struct fixture *f, struct transport_session *session, uint32_t slab, uint32_t key, uint64_t offset,
		   uint32_t len, void **ret_bytes)
{
	return f->target->ops->resolve(f->target, session, TRANSPORT_READ, slab, key, offset, len, ret_bytes);
}

/* One page at the beginning of a slab: may the session have it? */
static int reach(struct fixture *f, struct transport_session *session, uint32_t slab, uint32_t key)
{
	void *bytes = NULL;
	int ret = resolve(f, session, slab, key, 0, FSW_PAGE_SIZE, &bytes);

	if (ret == 0)
		assert_ptr_equal(bytes, arena_slab_base(f->arena, slab));
	else
		assert_null(bytes);
	return ret;
}

static void test_options_are_checked(void **state)
{
	struct fixture *f = *state;
	struct expose_options options = { .arena = f->arena, .max_leases = 0, .max_sessions = 1 };
	struct expose *expose = NULL;

	assert_int_equal(expose_create(&options, &expose), -EINVAL);
	options.max_leases = EXPOSE_MAX_LEASES + 1;
	assert_int_equal(expose_create(&options, &expose), -EINVAL);
	options.max_leases = 1;
	options.max_sessions = 0;
	assert_int_equal(expose_create(&options, &expose), -EINVAL);
	assert_null(expose);
	expose_free(NULL);
}

static void test_token_is_looked_up(void **state)
{
	struct fixture *f = *state;
	uint8_t token[TRANSPORT_TOKEN_BYTES] = { 0 };
	struct expose_lease *a;

	assert_int_equal(f->target->ops->lookup(f->target, LEASE_A, token), -ESTALE);
	assert_int_equal(f->target->ops->lookup(f->target, 0, token), -ESTALE);
	a = add_lease(f, LEASE_A, f->token_a);
	add_lease(f, LEASE_B, f->token_b);
	assert_int_equal(f->target->ops->lookup(f->target, LEASE_A, token), 0);
	assert_memory_equal(token, f->token_a, sizeof(token));
	assert_int_equal(f->target->ops->lookup(f->target, LEASE_B, token), 0);
	assert_memory_equal(token, f->token_b, sizeof(token));
	end_lease(f, a);
	assert_int_equal(f->target->ops->lookup(f->target, LEASE_A, token), -ESTALE);
	assert_int_equal(f->target->ops->lookup(f->target, 0, token), -ESTALE);
}

static void test_bounds(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t len;
		int ret;
	} cases[] = {
		{ 0, 1, 0 },
		{ 0, SLAB_BYTES, 0 },
		{ SLAB_BYTES - 1, 1, 0 },
		{ SLAB_BYTES - 4096, 4096, 0 },
		{ SLAB_BYTES - 4096, 4097, -ERANGE },
		{ SLAB_BYTES, 1, -ERANGE },
		{ 0, SLAB_BYTES + 1, -ERANGE },
		{ 0, UINT32_MAX, -ERANGE },
		{ UINT64_MAX, 1, -ERANGE },
		{ UINT64_MAX - 4095, 4096, -ERANGE },
		{ UINT64_MAX - 4094, 4096, -ERANGE }, /* the sum is 1 */
		{ 1ull << 32, 4096, -ERANGE },
	};
	struct fixture *f = *state;
	struct expose_lease *lease = add_lease(f, LEASE_A, f->token_a);
	struct transport_session *session = join(f, LEASE_A, 0);

	expose_grant(f->expose, lease, 2, KEY_A);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(cases); i++) {
		void *bytes = NULL;

		assert_int_equal(resolve(f, session, 2, KEY_A, cases[i].offset, cases[i].len, &bytes), cases[i].ret);
		assert_ptr_equal(bytes, cases[i].ret == 0 ?
						(char *)arena_slab_base(f->arena, 2) + cases[i].offset :
						NULL);
	}
	leave(f, session);
}

static void test_only_the_right_key_opens_a_slab(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *lease = add_lease(f, LEASE_A, f->token_a);
	struct transport_session *session = join(f, LEASE_A, 0);
	struct expose_counters counters;

	assert_int_equal(reach(f, session, 1, KEY_A), -EACCES);
	assert_int_equal(reach(f, session, 1, 0), -EACCES); /* nobody's slab has no key, not the key 0 */
	expose_grant(f->expose, lease, 1, KEY_A);
	assert_int_equal(reach(f, session, 1, KEY_A), 0);
	assert_int_equal(reach(f, session, 1, KEY_A + 1), -EACCES);
	assert_int_equal(reach(f, session, 1, 0), -EACCES);
	assert_int_equal(reach(f, session, 0, KEY_A), -EACCES);
	assert_int_equal(reach(f, session, NR_SLABS, KEY_A), -EACCES);
	assert_int_equal(reach(f, session, UINT32_MAX, KEY_A), -EACCES);
	expose_counters(f->expose, &counters);
	assert_int_equal(counters.denied_access, 7);
	leave(f, session);
}

/* Even with its key, which a client cannot know, somebody else's slab is out of reach. */
static void test_other_clients_slab_is_out_of_reach(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct expose_lease *b = add_lease(f, LEASE_B, f->token_b);
	struct transport_session *session_a = join(f, LEASE_A, 0);
	struct transport_session *session_b = join(f, LEASE_B, 0);

	expose_grant(f->expose, a, 0, KEY_A);
	expose_grant(f->expose, b, 1, KEY_B);
	assert_int_equal(reach(f, session_a, 0, KEY_A), 0);
	assert_int_equal(reach(f, session_b, 1, KEY_B), 0);
	assert_int_equal(reach(f, session_a, 1, KEY_B), -EACCES);
	assert_int_equal(reach(f, session_b, 0, KEY_A), -EACCES);
	leave(f, session_a);
	leave(f, session_b);
}

static void test_revoked_slab_is_out_of_reach(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct expose_lease *b = add_lease(f, LEASE_B, f->token_b);
	struct transport_session *session = join(f, LEASE_A, 0);
	struct transport_session *session_b = join(f, LEASE_B, 0);

	expose_grant(f->expose, a, 0, KEY_A);
	expose_grant(f->expose, a, 1, KEY_A);
	expose_revoke(f->expose, 0);
	expose_revoke(f->expose, 0); /* safe */
	assert_int_equal(reach(f, session, 0, KEY_A), -EACCES);
	assert_int_equal(reach(f, session, 1, KEY_A), 0);
	expose_synchronize(f->expose);
	expose_grant(f->expose, b, 0, KEY_A); /* the same key, as chance would have it */
	assert_int_equal(reach(f, session, 0, KEY_A), -EACCES);
	assert_int_equal(reach(f, session_b, 0, KEY_A), 0);
	leave(f, session);
	leave(f, session_b);
}

static void test_ended_lease(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct transport_session *session = join(f, LEASE_A, 0);
	struct transport_session *late = NULL;

	assert_int_equal(f->target->ops->renew(f->target, session, true, 50), 0);
	expose_grant(f->expose, a, 0, KEY_A);
	expose_revoke(f->expose, 0);
	expose_lease_end(f->expose, a);
	assert_int_equal(f->target->ops->renew(f->target, session, true, 60), -ESTALE);
	assert_int_equal(f->target->ops->renew(f->target, session, false, 60), -ESTALE);
	assert_int_equal(f->target->ops->join(f->target, LEASE_A, 1, "peer", &late), -ESTALE);
	assert_null(late);
	assert_int_equal(reach(f, session, 0, KEY_A), -EACCES);
	leave(f, session);
}

/* A connection that outlives its lease must not find itself in the one that takes over the lease's record. */
static void test_stale_session_never_meets_the_next_lease(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct transport_session *stale = join(f, LEASE_A, 0);
	struct expose_lease *next[MAX_LEASES];
	struct expose_lease *one_more = NULL;

	end_lease(f, a);
	for (unsigned i = 0; i < MAX_LEASES - 1; i++) {
		next[i] = add_lease(f, LEASE_B + i, f->token_b);
		assert_ptr_not_equal(next[i], a);
		expose_grant(f->expose, next[i], i, KEY_B);
		assert_int_equal(reach(f, stale, i, KEY_B), -EACCES);
	}
	assert_int_equal(expose_lease_add(f->expose, LEASE_B + 9, f->token_b, 1, &one_more), -EMFILE);
	assert_int_equal(f->target->ops->renew(f->target, stale, true, 60), -ESTALE);
	leave(f, stale);
	assert_ptr_equal(add_lease(f, LEASE_B + 9, f->token_b), a);
}

static void test_new_connection_fences_the_one_before(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct expose_lease *b = add_lease(f, LEASE_B, f->token_b);
	struct transport_session *old = join(f, LEASE_A, 1);
	struct transport_session *other_channel = join(f, LEASE_A, 2);
	struct transport_session *other_lease = join(f, LEASE_B, 1);
	struct transport_session *new;

	expose_grant(f->expose, a, 0, KEY_A);
	expose_grant(f->expose, b, 1, KEY_B);
	new = join(f, LEASE_A, 1);
	assert_int_equal(reach(f, old, 0, KEY_A), -EACCES);
	assert_int_equal(reach(f, old, 2, 0), -EACCES);
	assert_int_equal(f->target->ops->renew(f->target, old, true, 60), -ESTALE);
	assert_int_equal(reach(f, new, 0, KEY_A), 0);
	assert_int_equal(reach(f, other_channel, 0, KEY_A), 0);
	assert_int_equal(reach(f, other_lease, 1, KEY_B), 0);
	leave(f, old);
	assert_int_equal(reach(f, new, 0, KEY_A), 0);
	assert_int_equal(f->target->ops->renew(f->target, new, true, 60), 0);
	leave(f, new);
	leave(f, other_channel);
	leave(f, other_lease);
}

static void test_sessions_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct transport_session *sessions[MAX_SESSIONS];
	struct transport_session *one_more = NULL;
	struct expose_counters counters;
	unsigned nr = 0;

	add_lease(f, LEASE_A, f->token_a);
	add_lease(f, LEASE_B, f->token_b);
	while (nr < MAX_LEASE_SESSIONS) {
		sessions[nr] = join(f, LEASE_A, nr);
		nr++;
	}
	/* One client's share is used up, and the other's is not touched. */
	assert_int_equal(f->target->ops->join(f->target, LEASE_A, 99, "peer", &one_more), -EMFILE);
	while (nr < MAX_SESSIONS) {
		sessions[nr] = join(f, LEASE_B, nr);
		nr++;
	}
	assert_int_equal(f->target->ops->join(f->target, LEASE_B, 99, "peer", &one_more), -EMFILE);
	assert_null(one_more);
	leave(f, sessions[0]);
	sessions[0] = join(f, LEASE_B, 99);
	expose_counters(f->expose, &counters);
	assert_int_equal(counters.nr_sessions, MAX_SESSIONS);
	while (nr > 0)
		leave(f, sessions[--nr]);
	expose_counters(f->expose, &counters);
	assert_int_equal(counters.nr_sessions, 0);
}

static void test_books(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct expose_lease *b = add_lease(f, LEASE_B, f->token_b);
	struct transport_session *one = join(f, LEASE_A, 1);
	struct transport_session *two = join(f, LEASE_A, 2);
	struct expose_lease_info info;
	struct expose_counters counters;

	f->target->ops->account(f->target, one, TRANSPORT_READ, 100);
	f->target->ops->account(f->target, two, TRANSPORT_READ, 20);
	f->target->ops->account(f->target, two, TRANSPORT_WRITE, 3);
	assert_int_equal(f->target->ops->renew(f->target, one, true, 77), 0);
	assert_int_equal(f->target->ops->renew(f->target, two, false, 88), 0);
	leave(f, one);
	expose_lease_info(a, &info);
	assert_int_equal(info.bytes_read, 120);
	assert_int_equal(info.bytes_written, 3);
	assert_int_equal(info.renewed_ns, 77);
	assert_int_equal(info.nr_sessions, 1);
	expose_lease_info(b, &info);
	assert_int_equal(info.bytes_read + info.bytes_written + info.nr_sessions, 0);
	assert_int_equal(info.renewed_ns, 1);
	f->target->ops->refused(f->target, "peer", -EPROTO);
	expose_counters(f->expose, &counters);
	assert_int_equal(counters.refused, 1);
	leave(f, two);

	/* The next lease begins with empty books. */
	end_lease(f, a);
	expose_lease_info(add_lease(f, LEASE_A + 1, f->token_a), &info);
	assert_int_equal(info.bytes_read + info.bytes_written, 0);
}

/* One reactor, whose turns begin and end in step with the test. */
struct turner {
	struct fixture *f;
	struct transport_session *session;
	atomic_uint key;	 /* of the turn that is to begin; 0: none */
	atomic_uint resolved;	 /* the key of the turn that holds a pointer */
	atomic_uint revoked;	 /* the key that has been revoked */
	atomic_uint nr_done;	 /* turns whose last touch is done */
	atomic_bool stop;
};

/* Resolves while it still may, and uses the pointer to the end of the turn, when it no longer would get it. */
static void turner_turn(struct turner *t, unsigned key)
{
	void *bytes = NULL;

	if (resolve(t->f, t->session, 0, key, 0, SLAB_BYTES, &bytes) < 0)
		return;
	atomic_store(&t->key, 0);
	atomic_store(&t->resolved, key);
	while (atomic_load(&t->revoked) != key)
		continue;
	memset(bytes, 0xff, SLAB_BYTES);
	atomic_fetch_add(&t->nr_done, 1);
}

static void *turner_main(void *arg)
{
	struct turner *t = arg;

	sys_rcu_thread_init();
	sys_rcu_online();
	while (!atomic_load(&t->stop)) {
		unsigned key = atomic_load(&t->key);

		if (key != 0)
			turner_turn(t, key);
		sys_rcu_quiescent();
	}
	sys_rcu_offline();
	sys_rcu_thread_done();
	return NULL;
}

/* Revoking does not wait for the turn, the grace period does: then what is zeroed stays zero. */
static void test_nothing_is_touched_after_the_grace_period(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *lease = add_lease(f, LEASE_A, f->token_a);
	struct turner t = { .f = f, .session = join(f, LEASE_A, 0) };
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, turner_main, &t), 0);
	for (uint32_t key = 1; key <= 50; key++) {
		expose_grant(f->expose, lease, 0, key);
		atomic_store(&t.key, key);
		while (atomic_load(&t.resolved) != key)
			continue;
		expose_revoke(f->expose, 0);
		assert_int_equal(reach(f, t.session, 0, key), -EACCES);
		atomic_store(&t.revoked, key);
		expose_synchronize(f->expose);
		assert_int_equal(atomic_load(&t.nr_done), key);
		memset(arena_slab_base(f->arena, 0), 0, SLAB_BYTES);
	}
	atomic_store(&t.stop, true);
	pthread_join(thread, NULL);
	leave(f, t.session);
}

#define NR_STORMERS 4u

static void *stormer_main(void *arg)
{
	struct fixture *f = arg;

	sys_rcu_thread_init();
	sys_rcu_online();
	for (unsigned i = 0; i < 20000; i++) {
		struct transport_session *session;
		/* Two threads share each lease and channel, so that they fence each other all the time. */
		int ret = f->target->ops->join(f->target, i % 2 ? LEASE_A : LEASE_B, 0, "peer", &session);

		if (ret == 0) {
			f->target->ops->renew(f->target, session, true, i);
			reach(f, session, 0, KEY_A);
			f->target->ops->leave(f->target, session);
		}
		sys_rcu_quiescent();
	}
	sys_rcu_offline();
	sys_rcu_thread_done();
	return NULL;
}

static void test_connections_come_and_go_on_all_reactors(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct expose_lease *b = add_lease(f, LEASE_B, f->token_b);
	struct expose_lease_info info;
	struct transport_session *sessions[MAX_SESSIONS];
	pthread_t threads[NR_STORMERS];

	for (unsigned i = 0; i < NR_STORMERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, stormer_main, f), 0);
	for (unsigned i = 0; i < NR_STORMERS; i++)
		pthread_join(threads[i], NULL);
	expose_lease_info(a, &info);
	assert_int_equal(info.nr_sessions, 0);
	expose_lease_info(b, &info);
	assert_int_equal(info.nr_sessions, 0);
	/* No place in the table was lost. */
	for (unsigned i = 0; i < MAX_SESSIONS; i++)
		sessions[i] = join(f, i % 2 ? LEASE_A : LEASE_B, i);
	for (unsigned i = 0; i < MAX_SESSIONS; i++)
		leave(f, sessions[i]);
}

/* A window that knows what became of it. */
struct window {
	struct transport_window head;
	unsigned nr_revoked;
	int err; /* of revoke */
};

static int window_revoked(struct transport_window *head)
{
	struct window *window = BASE_CONTAINER_OF(head, struct window, head);

	assert_false(head->mapped);
	window->nr_revoked++;
	return window->err;
}

static int map(struct fixture *f, struct transport_session *session, uint32_t slab, uint32_t key, struct window *window)
{
	uint64_t len_bytes = 0;
	void *base = NULL;
	int ret;

	window->head.revoke = window_revoked;
	ret = f->target->ops->map(f->target, session, slab, key, &window->head, &base, &len_bytes);
	if (ret == 0) {
		assert_ptr_equal(base, arena_slab_base(f->arena, slab));
		assert_int_equal(len_bytes, SLAB_BYTES);
	}
	return ret;
}

static void test_windows_end_with_their_slab(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct expose_lease *b = add_lease(f, LEASE_B, f->token_b);
	struct transport_session *session = join(f, LEASE_A, 0);
	struct transport_session *stranger = join(f, LEASE_B, 0);
	struct window windows[4] = { 0 };

	expose_grant(f->expose, a, 0, KEY_A);
	expose_grant(f->expose, a, 1, KEY_A);
	assert_int_equal(map(f, session, 0, KEY_B, &windows[0]), -EACCES);
	assert_int_equal(map(f, stranger, 0, KEY_A, &windows[0]), -EACCES);
	assert_int_equal(map(f, session, 2, KEY_A, &windows[0]), -EACCES);
	assert_int_equal(map(f, session, NR_SLABS, KEY_A, &windows[0]), -EACCES);
	assert_false(windows[0].head.mapped);
	assert_int_equal(map(f, session, 0, KEY_A, &windows[0]), 0);
	assert_int_equal(map(f, session, 0, KEY_A, &windows[1]), 0);
	assert_int_equal(map(f, session, 0, KEY_A, &windows[2]), 0);
	assert_int_equal(map(f, session, 1, KEY_A, &windows[3]), 0);

	/* One that the transport gives up by itself is never revoked. */
	f->target->ops->unmap(f->target, &windows[1].head);
	f->target->ops->unmap(f->target, &windows[1].head);
	expose_revoke(f->expose, 0);
	assert_int_equal(map(f, session, 0, KEY_A, &windows[1]), -EACCES);
	/* Nor one that it gives up when the slab has been taken back already. */
	f->target->ops->unmap(f->target, &windows[2].head);
	assert_int_equal(windows[0].nr_revoked, 0);
	expose_synchronize(f->expose);
	assert_int_equal(windows[0].nr_revoked, 1);
	assert_int_equal(windows[1].nr_revoked + windows[2].nr_revoked + windows[3].nr_revoked, 0);
	f->target->ops->unmap(f->target, &windows[0].head);

	/* Whoever waits for one slab waits for all that are on their way, and the next client finds none of it. */
	expose_revoke(f->expose, 1);
	expose_synchronize(f->expose);
	expose_synchronize(f->expose);
	assert_int_equal(windows[3].nr_revoked, 1);
	expose_grant(f->expose, b, 1, KEY_B);
	assert_int_equal(map(f, session, 1, KEY_A, &windows[3]), -EACCES);
	assert_int_equal(map(f, stranger, 1, KEY_B, &windows[3]), 0);
	expose_revoke(f->expose, 1);
	leave(f, session);
	leave(f, stranger);
	end_lease(f, a);
	end_lease(f, b);
	assert_int_equal(windows[3].nr_revoked, 2);
	assert_int_equal(windows[0].nr_revoked, 1);
}

static void test_slab_that_a_device_keeps_is_stuck(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct transport_session *session = join(f, LEASE_A, 0);
	struct window windows[2] = { { .err = -EIO } };

	for (uint32_t i = 0; i < 2; i++) {
		expose_grant(f->expose, a, i, KEY_A);
		assert_int_equal(map(f, session, i, KEY_A, &windows[i]), 0);
		expose_revoke(f->expose, i);
		assert_true(expose_is_stuck(f->expose, i));
	}
	expose_synchronize(f->expose);
	assert_true(expose_is_stuck(f->expose, 0));
	assert_false(expose_is_stuck(f->expose, 1));
	/* For ever: that the transport forgets the window does not say that the device has. */
	f->target->ops->unmap(f->target, &windows[0].head);
	assert_true(expose_is_stuck(f->expose, 0));
	expose_grant(f->expose, a, 1, KEY_B);
	expose_revoke(f->expose, 1);
	leave(f, session);
	end_lease(f, a);
}

struct waiter {
	struct window window;
	struct fixture *f;
	pthread_t thread;
	atomic_bool done;
};

static void *synchronize_main(void *arg)
{
	struct waiter *waiter = arg;

	expose_synchronize(waiter->f->expose);
	atomic_store(&waiter->done, true);
	return NULL;
}

/* A second client of expose_synchronize comes while the first is still revoking a window that is the second's as well. */
static int waiter_revoked(struct transport_window *head)
{
	struct waiter *waiter = BASE_CONTAINER_OF(head, struct waiter, window.head);

	assert_int_equal(pthread_create(&waiter->thread, NULL, synchronize_main, waiter), 0);
	/* It cannot come back while this runs; that it has got so far cannot be seen, so it has plenty of time instead. */
	for (unsigned i = 0; i < 1000; i++) {
		sched_yield();
		assert_false(atomic_load(&waiter->done));
	}
	waiter->window.nr_revoked++;
	return 0;
}

static void test_nobody_overtakes_a_revocation(void **state)
{
	struct fixture *f = *state;
	struct expose_lease *a = add_lease(f, LEASE_A, f->token_a);
	struct transport_session *session = join(f, LEASE_A, 0);
	struct waiter waiter = { .f = f, .window.head.revoke = waiter_revoked };
	uint64_t len_bytes;
	void *base;

	expose_grant(f->expose, a, 0, KEY_A);
	assert_int_equal(f->target->ops->map(f->target, session, 0, KEY_A, &waiter.window.head, &base, &len_bytes), 0);
	expose_revoke(f->expose, 0);
	expose_synchronize(f->expose);
	pthread_join(waiter.thread, NULL);
	assert_true(atomic_load(&waiter.done));
	assert_int_equal(waiter.window.nr_revoked, 1);
	leave(f, session);
	end_lease(f, a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_options_are_checked),
		TEST(test_token_is_looked_up),
		TEST(test_bounds),
		TEST(test_only_the_right_key_opens_a_slab),
		TEST(test_other_clients_slab_is_out_of_reach),
		TEST(test_revoked_slab_is_out_of_reach),
		TEST(test_windows_end_with_their_slab),
		TEST(test_slab_that_a_device_keeps_is_stuck),
		TEST(test_nobody_overtakes_a_revocation),
		TEST(test_ended_lease),
		TEST(test_stale_session_never_meets_the_next_lease),
		TEST(test_new_connection_fences_the_one_before),
		TEST(test_sessions_are_bounded),
		TEST(test_books),
		TEST(test_nothing_is_touched_after_the_grace_period),
		TEST(test_connections_come_and_go_on_all_reactors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: server_ctl */

/*
 * The lender as a whole, without RPC and without a network, under a clock of its own: what comes back is scrubbed
 * before it is lent again, whatever the reason; and no client is touched by what another one does.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "server/ctl/lender.h"

#define SLAB_BYTES ARENA_SLAB_BYTES_MIN
#define NR_SLABS 4u
#define MAX_LEASES 3u
#define MAX_LEASE_SLABS 3u
#define TERM_MS 1600u
#define TICK_MS (TERM_MS / 16)

struct fixture {
	struct sys_clock clock;
	uint64_t now_ns;
	struct arena *arena;
	struct expose *expose;
	struct transport_target *target;
	struct lender *lender;
	unsigned nr_changes;
};

/* A client as the server knows it: its proof, and what it was given. */
struct client {
	struct lender_lease lease;
	struct lender_proof proof;
	struct lender_grant grants[NR_SLABS];
	uint64_t request_number; /* of its last request */
	struct transport_session *session;
};

static uint64_t clock_now_ns(struct sys_clock *clock)
{
	return BASE_CONTAINER_OF(clock, struct fixture, clock)->now_ns;
}

static void count_change(void *user)
{
	((struct fixture *)user)->nr_changes++;
}

static int setup(void **state)
{
	static struct fixture f;
	struct expose_options expose_options = { .max_leases = 2 * MAX_LEASES, .max_sessions = 8 };
	struct lender_options options = {
		.clock = &f.clock, .max_leases = MAX_LEASES, .max_lease_slabs = MAX_LEASE_SLABS, .term_ms = TERM_MS
	};

	memset(&f, 0, sizeof(f));
	f.clock.now_ns = clock_now_ns;
	f.now_ns = SYS_NS_PER_S;
	assert_int_equal(arena_open(NR_SLABS * SLAB_BYTES, SLAB_BYTES, &f.arena), 0);
	expose_options.arena = f.arena;
	assert_int_equal(expose_create(&expose_options, &f.expose), 0);
	f.target = expose_target(f.expose);
	options.arena = f.arena;
	options.expose = f.expose;
	assert_int_equal(lender_create(&options, &f.lender), 0);
	lender_on_change(f.lender, count_change, &f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	lender_free(f->lender);
	expose_free(f->expose);
	arena_close(f->arena);
	return 0;
}

/* Opens a lease and a data connection on it. */
static void client_open(struct fixture *f, struct client *client, const char *name)
{
	memset(client, 0, sizeof(*client));
	assert_int_equal(lender_open_lease(f->lender, name, 7, &client->lease), 0);
	client->proof.lease_id = client->lease.id;
	client->proof.token = client->lease.token;
	client->proof.token_bytes = sizeof(client->lease.token);
	assert_int_equal(f->target->ops->join(f->target, client->lease.id, 0, name, &client->session), 0);
}

static void client_leave(struct fixture *f, struct client *client)
{
	f->target->ops->leave(f->target, client->session);
}

static int client_lease_slabs(struct fixture *f, struct client *client, uint32_t nr)
{
	return lender_lease_slabs(f->lender, &client->proof, ++client->request_number, nr, client->grants);
}

static int client_resolve(struct fixture *f, struct client *client, unsigned i, unsigned char **ret_bytes)
{
	void *bytes = NULL;
	int ret = f->target->ops->resolve(f->target, client->session, TRANSPORT_WRITE, client->grants[i].slab,
					  client->grants[i].key, 0, SLAB_BYTES, &bytes);

	*ret_bytes = bytes;
	return ret;
}

static void client_fill(struct fixture *f, struct client *client, unsigned i, int byte)
{
	unsigned char *bytes;

	assert_int_equal(client_resolve(f, client, i, &bytes), 0);
	memset(bytes, byte, SLAB_BYTES);
}

static void client_expect(struct fixture *f, struct client *client, unsigned i, int byte)
{
	unsigned char *bytes;

	assert_int_equal(client_resolve(f, client, i, &bytes), 0);
	for (size_t at = 0; at < SLAB_BYTES; at++)
		assert_int_equal(bytes[at], byte);
}

static void client_expect_denied(struct fixture *f, struct client *client, unsigned i)
{
	unsigned char *bytes;

	assert_int_equal(client_resolve(f, client, i, &bytes), -EACCES);
}

static void expect_slabs(struct fixture *f, uint32_t nr_free, uint32_t nr_leased, uint32_t nr_scrubbing)
{
	struct lender_capacity capacity;

	lender_capacity(f->lender, &capacity);
	assert_int_equal(capacity.slabs.nr[ARENA_SLAB_FREE], nr_free);
	assert_int_equal(capacity.slabs.nr[ARENA_SLAB_LEASED], nr_leased);
	assert_int_equal(capacity.slabs.nr[ARENA_SLAB_FENCED], 0);
	assert_int_equal(capacity.slabs.nr[ARENA_SLAB_SCRUBBING], nr_scrubbing);
}

static void scrub_all(struct fixture *f)
{
	while (arena_scrub_one(f->arena))
		continue;
}

/* The ticker's work for a while, in which the clients in `alive` (ends with NULL) show life. */
static void pass(struct fixture *f, uint32_t ms, struct client *const alive[])
{
	for (uint32_t at_ms = 0; at_ms < ms; at_ms += TICK_MS) {
		f->now_ns += TICK_MS * SYS_NS_PER_MS;
		for (unsigned i = 0; alive && alive[i]; i++)
			assert_int_equal(f->target->ops->renew(f->target, alive[i]->session, true, f->now_ns), 0);
		lender_tick(f->lender);
	}
}

static void test_slabs_are_lent_and_come_back(void **state)
{
	struct fixture *f = *state;
	struct lender_grant grants[3];
	struct client a;

	client_open(f, &a, "a");
	assert_int_equal(client_lease_slabs(f, &a, 2), 2);
	expect_slabs(f, 2, 2, 0);
	client_fill(f, &a, 0, 0xa0);
	client_fill(f, &a, 1, 0xa1);

	/* One that it has, the same again, and one that nobody has. */
	grants[0] = a.grants[0];
	grants[1] = a.grants[0];
	grants[2] = (struct lender_grant){ .slab = UINT32_MAX, .key = 1 };
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, grants, 3), 1);
	expect_slabs(f, 2, 1, 1);
	client_expect_denied(f, &a, 0);
	client_expect(f, &a, 1, 0xa1);
	grants[0] = a.grants[0];
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, grants, 1), 0);
	grants[0] = a.grants[1];
	grants[0].key++;
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, grants, 1), 0);
	client_expect(f, &a, 1, 0xa1);
	scrub_all(f);
	expect_slabs(f, 3, 1, 0);
	client_leave(f, &a);
}

static void test_wrong_proof_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct lender_grant grant;
	struct lender_watch *watch = NULL;
	struct client a, b;
	struct lender_proof proof;

	client_open(f, &a, "a");
	client_open(f, &b, "b");
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	client_fill(f, &a, 0, 0xaa);
	proof = a.proof;
	proof.token = b.lease.token;
	for (int known = 1; known >= 0; known--) {
		int err = known ? -EACCES : -ENOENT;

		if (!known)
			proof.lease_id = 0;
		grant = a.grants[0];
		assert_int_equal(lender_release_slabs(f->lender, &proof, &grant, 1), err);
		assert_int_equal(lender_lease_slabs(f->lender, &proof, 2, 1, &grant), err);
		assert_int_equal(lender_lease_slabs(f->lender, &proof, 1, 1, &grant), err); /* nor is an answer repeated */
		assert_int_equal(lender_close_lease(f->lender, &proof), err);
		assert_int_equal(lender_watch_open(f->lender, &proof, &watch), err);
	}
	/* A slab is not given back by somebody else who knows its key. */
	grant = a.grants[0];
	assert_int_equal(lender_release_slabs(f->lender, &b.proof, &grant, 1), 0);
	assert_null(watch);
	client_expect(f, &a, 0, 0xaa);
	expect_slabs(f, 3, 1, 0);
	client_leave(f, &a);
	client_leave(f, &b);
}

static void test_limits(void **state)
{
	struct fixture *f = *state;
	struct client a, b, c;
	struct lender_lease one_more;

	client_open(f, &a, "a");
	client_open(f, &b, "b");
	client_open(f, &c, "c");
	assert_int_equal(lender_open_lease(f->lender, "d", 0, &one_more), -EMFILE);
	assert_int_equal(client_lease_slabs(f, &a, 100), MAX_LEASE_SLABS);
	assert_int_equal(client_lease_slabs(f, &a, 1), -EDQUOT);
	assert_int_equal(client_lease_slabs(f, &b, 100), NR_SLABS - MAX_LEASE_SLABS);
	assert_int_equal(client_lease_slabs(f, &b, 1), -ENOSPC);
	assert_int_equal(lender_close_lease(f->lender, &a.proof), 0);
	assert_int_equal(client_lease_slabs(f, &b, 1), -ENOSPC); /* what comes back is not lent before it is scrubbed */
	scrub_all(f);
	assert_int_equal(client_lease_slabs(f, &b, 1), 1);
	client_leave(f, &a);
	client_leave(f, &b);
	client_leave(f, &c);
}

/* A call whose answer was lost, or that comes late, with the number of an earlier one. */
static int repeat(struct fixture *f, const struct client *client, uint64_t request_number, uint32_t nr,
		  struct lender_grant ret_grants[NR_SLABS])
{
	memset(ret_grants, 0, NR_SLABS * sizeof(*ret_grants));
	return lender_lease_slabs(f->lender, &client->proof, request_number, nr, ret_grants);
}

static bool is_among(struct lender_grant grant, const struct lender_grant *grants, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (grants[i].slab == grant.slab && grants[i].key == grant.key)
			return true;
	}
	return false;
}

static void test_lost_answer_is_given_again(void **state)
{
	struct fixture *f = *state;
	struct lender_grant again[NR_SLABS], given_back;
	struct client a;
	uint32_t nr_leases;

	client_open(f, &a, "a");
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	client_fill(f, &a, 0, 0x01);
	assert_int_equal(client_lease_slabs(f, &a, 2), 2);
	client_fill(f, &a, 0, 0xa0);
	client_fill(f, &a, 1, 0xa1);
	expect_slabs(f, 1, 3, 0);
	/* The lease holds all that it may, and then the server drains: neither keeps it from hearing what it has. */
	for (unsigned i = 0; i < 4; i++) {
		if (i == 2)
			assert_int_equal(lender_request_drain(f->lender, 0, "", false, &nr_leases), 0);
		assert_int_equal(repeat(f, &a, 2, i & 1 ? 0 : 2, again), 2);
		assert_true(is_among(a.grants[0], again, 2));
		assert_true(is_among(a.grants[1], again, 2));
		expect_slabs(f, 1, 3, 0);
	}
	client_expect(f, &a, 0, 0xa0);
	client_expect(f, &a, 1, 0xa1);

	/* What was given back is not brought to life again by what comes late. */
	given_back = a.grants[0];
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, &given_back, 1), 1);
	assert_int_equal(repeat(f, &a, 2, 2, again), 1);
	assert_true(is_among(a.grants[1], again, 1));
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, again, 1), 1);
	assert_int_equal(lender_cancel_drain(f->lender), 0);
	scrub_all(f);
	assert_int_equal(repeat(f, &a, 2, 2, again), -ESTALE);
	assert_int_equal(repeat(f, &a, 2, 0, again), 0);
	expect_slabs(f, 3, 1, 0);
	client_leave(f, &a);
}

static void test_late_call_lends_nothing(void **state)
{
	struct fixture *f = *state;
	struct lender_grant late[NR_SLABS];
	struct client a, b;

	client_open(f, &a, "a");
	client_open(f, &b, "b");
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	/* After a later one was answered, */
	assert_int_equal(repeat(f, &a, 1, 1, late), -ESTALE);
	assert_int_equal(repeat(f, &a, 1, 0, late), -ESTALE);
	assert_int_equal(repeat(f, &a, 0, 1, late), -ESTALE);
	/* and after its client has given it up and closed its number, or a later one. */
	assert_int_equal(repeat(f, &a, 7, 0, late), 0);
	assert_int_equal(repeat(f, &a, 7, 1, late), -ESTALE);
	assert_int_equal(repeat(f, &a, 6, 1, late), -ESTALE);
	assert_int_equal(repeat(f, &a, 2, 0, late), -ESTALE);
	expect_slabs(f, 2, 2, 0);
	assert_int_equal(repeat(f, &a, 8, 1, late), 1);
	/* Another lease has its own numbers. */
	assert_int_equal(client_lease_slabs(f, &b, 1), 1);
	assert_int_equal(repeat(f, &b, 1, 1, late), 1);
	expect_slabs(f, 0, 4, 0);
	client_leave(f, &a);
	client_leave(f, &b);
}

static void test_refused_request_may_be_made_again(void **state)
{
	struct fixture *f = *state;
	struct lender_grant grants[NR_SLABS];
	struct client a, b;
	uint32_t nr_leases;

	client_open(f, &a, "a");
	client_open(f, &b, "b");
	assert_int_equal(client_lease_slabs(f, &a, 2), 2);
	assert_int_equal(lender_request_drain(f->lender, 0, "", false, &nr_leases), 0);
	assert_int_equal(repeat(f, &b, 1, 2, grants), -EBUSY);
	assert_int_equal(lender_cancel_drain(f->lender), 0);
	assert_int_equal(repeat(f, &b, 1, 2, grants), 2);
	assert_int_equal(repeat(f, &b, 2, 1, grants), -ENOSPC);
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, a.grants, 2), 2);
	scrub_all(f);
	assert_int_equal(repeat(f, &b, 2, 1, grants), 1);
	assert_int_equal(repeat(f, &b, 3, 1, grants), -EDQUOT);
	assert_int_equal(repeat(f, &b, 2, 0, grants), 1); /* and nothing is forgotten of the one before */
	assert_int_equal(lender_release_slabs(f->lender, &b.proof, grants, 1), 1);
	assert_int_equal(repeat(f, &b, 3, 1, grants), 1);
	client_leave(f, &a);
	client_leave(f, &b);
}

static int revoke_fails(struct transport_window *window)
{
	(void)window;
	return -EIO;
}

/* A slab of which a device does not let go is neither scrubbed nor lent again; the others come back as ever. */
static void test_slab_that_a_device_keeps_is_not_lent_again(void **state)
{
	struct fixture *f = *state;
	struct transport_window windows[2] = { { .revoke = revoke_fails }, { .revoke = revoke_fails } };
	struct arena_counts counts;
	struct client a;
	uint64_t len_bytes;
	void *base;

	client_open(f, &a, "a");
	assert_int_equal(client_lease_slabs(f, &a, 3), 3);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(f->target->ops->map(f->target, a.session, a.grants[i].slab, a.grants[i].key, &windows[i],
						     &base, &len_bytes),
				 0);
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, a.grants, 1), 1);
	client_leave(f, &a);
	assert_int_equal(lender_close_lease(f->lender, &a.proof), 0);
	while (arena_scrub_one(f->arena))
		continue;
	arena_counts(f->arena, &counts);
	assert_int_equal(counts.nr[ARENA_SLAB_FENCED], 2);
	assert_int_equal(counts.nr[ARENA_SLAB_FREE], NR_SLABS - 2);
}

/* A release that is carried out after the slab was given back, scrubbed and lent to the same lease again. */
static void test_late_release_takes_nothing_that_was_lent_anew(void **state)
{
	struct fixture *f = *state;
	struct lender_grant first, late;
	struct client a, b;

	client_open(f, &a, "a");
	client_open(f, &b, "b");
	assert_int_equal(client_lease_slabs(f, &b, MAX_LEASE_SLABS), NR_SLABS - 1);
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	first = a.grants[0];
	late = first;
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, &late, 1), 1);
	scrub_all(f);
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	assert_int_equal(a.grants[0].slab, first.slab);
	client_fill(f, &a, 0, 0xaa);
	late = first;
	assert_int_equal(lender_release_slabs(f->lender, &a.proof, &late, 1), 0);
	client_expect(f, &a, 0, 0xaa);
	expect_slabs(f, 0, NR_SLABS, 0);
	client_leave(f, &a);
	client_leave(f, &b);
}

/* The answer to OpenLease was lost: nobody ever connects to that lease. */
static void test_lease_that_nobody_knows_ends_with_its_term(void **state)
{
	struct fixture *f = *state;
	struct lender_lease lost, one_more;
	struct lender_capacity capacity;

	for (unsigned i = 0; i < MAX_LEASES; i++)
		assert_int_equal(lender_open_lease(f->lender, "a", 7, &lost), 0);
	pass(f, TERM_MS, NULL);
	assert_int_equal(lender_open_lease(f->lender, "a", 7, &one_more), -EMFILE);
	pass(f, TICK_MS, NULL);
	lender_capacity(f->lender, &capacity);
	assert_int_equal(capacity.nr_leases, 0);
	assert_int_equal(lender_open_lease(f->lender, "a", 7, &one_more), 0);
}

static void test_next_client_finds_zeroes(void **state)
{
	struct fixture *f = *state;
	struct client a, b;

	client_open(f, &a, "a");
	assert_int_equal(client_lease_slabs(f, &a, MAX_LEASE_SLABS), MAX_LEASE_SLABS);
	for (unsigned i = 0; i < MAX_LEASE_SLABS; i++)
		client_fill(f, &a, i, 0xee);
	assert_int_equal(lender_close_lease(f->lender, &a.proof), 0);
	assert_int_equal(lender_close_lease(f->lender, &a.proof), -ENOENT);
	scrub_all(f);
	expect_slabs(f, NR_SLABS, 0, 0);
	client_open(f, &b, "b");
	assert_int_equal(client_lease_slabs(f, &b, MAX_LEASE_SLABS), MAX_LEASE_SLABS);
	for (unsigned i = 0; i < MAX_LEASE_SLABS; i++)
		client_expect(f, &b, i, 0);
	for (unsigned i = 0; i < MAX_LEASE_SLABS; i++)
		client_expect_denied(f, &a, i); /* its connection still stands */
	client_leave(f, &a);
	client_leave(f, &b);
}

/* One client dies; it is fenced after its term, not before, and the other one notices nothing. */
static void test_dead_client_is_fenced_and_others_live_on(void **state)
{
	struct fixture *f = *state;
	struct lender_lease_info infos[MAX_LEASES];
	struct client dead, live;
	struct client *const alive[] = { &live, NULL };

	client_open(f, &dead, "dead");
	client_open(f, &live, "live");
	assert_int_equal(client_lease_slabs(f, &dead, 2), 2);
	assert_int_equal(client_lease_slabs(f, &live, 2), 2);
	client_fill(f, &dead, 0, 0xdd);
	client_fill(f, &dead, 1, 0xdd);
	client_fill(f, &live, 0, 0x11);
	client_fill(f, &live, 1, 0x22);

	pass(f, TERM_MS, alive);
	client_expect(f, &dead, 0, 0xdd);
	pass(f, TICK_MS, alive);
	client_expect_denied(f, &dead, 0);
	client_expect_denied(f, &dead, 1);
	assert_int_equal(f->target->ops->renew(f->target, dead.session, true, f->now_ns), -ESTALE);
	assert_int_equal(client_lease_slabs(f, &dead, 1), -ENOENT);
	expect_slabs(f, 0, 2, 2);

	pass(f, 10 * TERM_MS, alive);
	client_expect(f, &live, 0, 0x11);
	client_expect(f, &live, 1, 0x22);
	assert_int_equal(lender_list(f->lender, MAX_LEASES, infos), 1);
	assert_string_equal(infos[0].client_name, "live");
	scrub_all(f);
	expect_slabs(f, 2, 2, 0);
	client_leave(f, &dead);
	client_leave(f, &live);
}

/* A server that was stopped for an hour has heard nothing from anybody, and blames nobody for it. */
static void test_time_in_which_the_server_did_not_run(void **state)
{
	struct fixture *f = *state;
	struct client a;

	client_open(f, &a, "a");
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	pass(f, TICK_MS, NULL);
	f->now_ns += 3600 * SYS_NS_PER_S;
	lender_tick(f->lender);
	client_fill(f, &a, 0, 0x33);
	pass(f, TERM_MS / 2, NULL);
	client_expect(f, &a, 0, 0x33);
	pass(f, TERM_MS, NULL); /* but it is as strict as before from then on */
	client_expect_denied(f, &a, 0);
	client_leave(f, &a);
}

static void test_list(void **state)
{
	struct fixture *f = *state;
	struct lender_lease_info infos[MAX_LEASES];
	struct client a;

	client_open(f, &a, "node-a");
	assert_int_equal(client_lease_slabs(f, &a, 2), 2);
	f->target->ops->account(f->target, a.session, TRANSPORT_READ, 4096);
	f->now_ns += 3 * SYS_NS_PER_MS;
	assert_int_equal(f->target->ops->renew(f->target, a.session, true, f->now_ns), 0);
	f->now_ns += 2 * SYS_NS_PER_MS;
	assert_int_equal(lender_list(f->lender, 0, infos), 0);
	assert_int_equal(lender_list(f->lender, MAX_LEASES, infos), 1);
	assert_true(infos[0].id == a.lease.id);
	assert_string_equal(infos[0].client_name, "node-a");
	assert_int_equal(infos[0].client_id, 7);
	assert_int_equal(infos[0].nr_slabs, 2);
	assert_int_equal(infos[0].nr_watches, 0);
	assert_int_equal(infos[0].age_ns, 5 * SYS_NS_PER_MS);
	assert_int_equal(infos[0].renewed_ago_ns, 2 * SYS_NS_PER_MS);
	assert_int_equal(infos[0].data.bytes_read, 4096);
	assert_int_equal(infos[0].data.nr_sessions, 1);
	client_leave(f, &a);
}

static struct lender_event next_event(struct fixture *f, struct lender_watch *watch)
{
	struct lender_event event;

	lender_watch_next(f->lender, watch, &event);
	return event;
}

static void test_drain(void **state)
{
	struct fixture *f = *state;
	struct lender_watch *watch;
	struct lender_event event;
	struct lender_lease lease;
	struct client a;
	uint32_t nr_leases = 0;

	client_open(f, &a, "a");
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);
	assert_int_equal(lender_watch_open(f->lender, &a.proof, &watch), 0);
	assert_int_equal(next_event(f, watch).type, LENDER_EVENT_NONE);
	assert_int_equal(lender_request_drain(f->lender, 0, "a\nb", false, &nr_leases), -EINVAL);
	assert_int_equal(next_event(f, watch).type, LENDER_EVENT_NONE);

	assert_int_equal(lender_request_drain(f->lender, 5000, "maintenance", false, &nr_leases), 0);
	assert_int_equal(nr_leases, 1);
	assert_int_equal(f->nr_changes, 1);
	f->now_ns += 1000 * SYS_NS_PER_MS;
	event = next_event(f, watch);
	assert_int_equal(event.type, LENDER_EVENT_DRAIN_REQUESTED);
	assert_in_range(event.deadline_ms, 4000, 4001);
	assert_string_equal(event.reason, "maintenance");
	assert_int_equal(next_event(f, watch).type, LENDER_EVENT_NONE);
	assert_int_equal(client_lease_slabs(f, &a, 1), -EBUSY);
	assert_int_equal(lender_open_lease(f->lender, "b", 0, &lease), -EBUSY);
	client_fill(f, &a, 0, 1); /* what it has it can still use */

	assert_int_equal(lender_request_drain(f->lender, 0, "", false, &nr_leases), 0);
	event = next_event(f, watch);
	assert_int_equal(event.type, LENDER_EVENT_DRAIN_REQUESTED);
	assert_int_equal(event.deadline_ms, 0);

	assert_int_equal(lender_cancel_drain(f->lender), 0);
	assert_int_equal(next_event(f, watch).type, LENDER_EVENT_DRAIN_CANCELLED);
	assert_int_equal(lender_cancel_drain(f->lender), 0);
	assert_int_equal(next_event(f, watch).type, LENDER_EVENT_NONE);
	assert_int_equal(client_lease_slabs(f, &a, 1), 1);

	/* Came and went before the client was told. */
	assert_int_equal(lender_request_drain(f->lender, 0, "", false, &nr_leases), 0);
	assert_int_equal(lender_cancel_drain(f->lender), 0);
	assert_int_equal(next_event(f, watch).type, LENDER_EVENT_NONE);
	lender_watch_close(f->lender, watch);
	client_leave(f, &a);
}

static void test_stopping_is_for_good(void **state)
{
	struct fixture *f = *state;
	struct lender_watch *watch;
	struct lender_event event;
	struct client a;
	uint32_t nr_leases = 0;

	client_open(f, &a, "a");
	assert_int_equal(lender_request_drain(f->lender, 10, "the server stops", true, &nr_leases), 0);
	f->now_ns += SYS_NS_PER_S;
	/* Who comes late is told at once, and a deadline that has passed is not told as none. */
	assert_int_equal(lender_watch_open(f->lender, &a.proof, &watch), 0);
	event = next_event(f, watch);
	assert_int_equal(event.type, LENDER_EVENT_DRAIN_REQUESTED);
	assert_int_equal(event.deadline_ms, 1);
	assert_int_equal(lender_cancel_drain(f->lender), -ESHUTDOWN);
	assert_int_equal(lender_request_drain(f->lender, 0, "", false, &nr_leases), -ESHUTDOWN);
	lender_watch_close(f->lender, watch);
	client_leave(f, &a);
}

static void test_watch_hears_of_the_end(void **state)
{
	struct fixture *f = *state;
	struct lender_watch *watches[LENDER_MAX_WATCHES];
	struct lender_watch *watch_b;
	struct lender_watch *one_more = NULL;
	struct lender_event event;
	struct client a, b;

	client_open(f, &a, "a");
	client_open(f, &b, "b");
	for (unsigned i = 0; i < LENDER_MAX_WATCHES; i++)
		assert_int_equal(lender_watch_open(f->lender, &a.proof, &watches[i]), 0);
	assert_int_equal(lender_watch_open(f->lender, &a.proof, &one_more), -EMFILE);
	assert_null(one_more);
	assert_int_equal(lender_watch_open(f->lender, &b.proof, &watch_b), 0);

	pass(f, TERM_MS + TICK_MS, (struct client *const[]){ &b, NULL });
	assert_true(f->nr_changes > 0);
	for (unsigned i = 0; i < LENDER_MAX_WATCHES; i++) {
		event = next_event(f, watches[i]);
		assert_int_equal(event.type, LENDER_EVENT_LEASE_ENDED);
		assert_string_equal(event.reason, "not renewed within its term");
		lender_watch_close(f->lender, watches[i]);
	}
	assert_int_equal(next_event(f, watch_b).type, LENDER_EVENT_NONE);
	lender_watch_close(f->lender, watch_b);
	lender_watch_close(f->lender, NULL);
	client_leave(f, &a);
	client_leave(f, &b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_slabs_are_lent_and_come_back),
		TEST(test_wrong_proof_changes_nothing),
		TEST(test_limits),
		TEST(test_lost_answer_is_given_again),
		TEST(test_late_call_lends_nothing),
		TEST(test_refused_request_may_be_made_again),
		TEST(test_slab_that_a_device_keeps_is_not_lent_again),
		TEST(test_late_release_takes_nothing_that_was_lent_anew),
		TEST(test_lease_that_nobody_knows_ends_with_its_term),
		TEST(test_next_client_finds_zeroes),
		TEST(test_dead_client_is_fenced_and_others_live_on),
		TEST(test_time_in_which_the_server_did_not_run),
		TEST(test_list),
		TEST(test_drain),
		TEST(test_stopping_is_for_good),
		TEST(test_watch_hears_of_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

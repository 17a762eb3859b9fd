/* deps: server_lease */

/* The table of leases: who holds what, under which limits, until when. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "server/lease/lease.h"

#define NR_SLABS 8u
#define MAX_LEASES 3u
#define MAX_SLABS 4u
#define TERM_NS 1000u

static int setup(void **state)
{
	struct lease_limits limits = {
		.max_leases = MAX_LEASES, .max_slabs = MAX_SLABS, .nr_slabs = NR_SLABS, .term_ns = TERM_NS
	};
	struct lease_table *table;

	assert_int_equal(lease_table_create(&limits, &table), 0);
	*state = table;
	return 0;
}

static int teardown(void **state)
{
	lease_table_free(*state);
	return 0;
}

static struct lease *open_lease(struct lease_table *table, const char *name, uint64_t now_ns)
{
	struct lease *lease = NULL;

	assert_int_equal(lease_open(table, name, 7, now_ns, &lease), 0);
	return lease;
}

static void test_limits_are_checked(void **state)
{
	struct lease_limits good = { .max_leases = 1, .nr_slabs = 1, .term_ns = 1 };
	struct lease_limits bad;
	struct lease_table *table = NULL;

	(void)state;
	bad = good;
	bad.max_leases = 0;
	assert_int_equal(lease_table_create(&bad, &table), -EINVAL);
	bad.max_leases = LEASE_MAX_LEASES + 1;
	assert_int_equal(lease_table_create(&bad, &table), -EINVAL);
	bad = good;
	bad.nr_slabs = 0;
	assert_int_equal(lease_table_create(&bad, &table), -EINVAL);
	bad = good;
	bad.term_ns = 0;
	assert_int_equal(lease_table_create(&bad, &table), -EINVAL);
	assert_null(table);
	lease_table_free(NULL);

	good.nr_slabs = 5;
	assert_int_equal(lease_table_create(&good, &table), 0);
	assert_int_equal(lease_table_limits(table)->max_slabs, 5); /* 0 means all */
	lease_table_free(table);
}

static void test_open_is_random_and_bounded(void **state)
{
	static const uint8_t zeros[LEASE_TOKEN_BYTES];
	struct lease_table *table = *state;
	struct lease *leases[MAX_LEASES];
	struct lease *one_more = NULL;

	for (unsigned i = 0; i < MAX_LEASES; i++) {
		leases[i] = open_lease(table, "node-a", 5);
		assert_true(leases[i]->id != 0);
		assert_memory_not_equal(leases[i]->token, zeros, LEASE_TOKEN_BYTES);
		for (unsigned j = 0; j < i; j++) {
			assert_true(leases[i]->id != leases[j]->id);
			assert_memory_not_equal(leases[i]->token, leases[j]->token, LEASE_TOKEN_BYTES);
		}
	}
	assert_int_equal(lease_table_nr_leases(table), MAX_LEASES);
	assert_int_equal(lease_open(table, "node-b", 0, 5, &one_more), -EMFILE);
	assert_null(one_more);

	lease_end(leases[1]);
	assert_int_equal(lease_open(table, "node-b", 0, 5, &one_more), -EMFILE); /* not before it is gone */
	lease_remove(table, leases[1]);
	assert_int_equal(lease_open(table, "node-b", 0, 5, &one_more), 0);
	assert_string_equal(one_more->client_name, "node-b");
	assert_int_equal(one_more->opened_ns, 5);
}

static void test_bad_name_opens_nothing(void **state)
{
	struct lease_table *table = *state;
	struct lease *lease = NULL;

	assert_int_equal(lease_open(table, "", 0, 0, &lease), -EINVAL);
	assert_int_equal(lease_open(table, "a\nb", 0, 0, &lease), -EINVAL);
	assert_null(lease);
	assert_int_equal(lease_table_nr_leases(table), 0);
}

static void test_find_needs_the_token(void **state)
{
	struct lease_table *table = *state;
	struct lease *a = open_lease(table, "a", 0);
	struct lease *b = open_lease(table, "b", 0);
	struct lease *found = NULL;
	uint8_t token[LEASE_TOKEN_BYTES];
	uint64_t a_id = a->id;

	assert_int_equal(lease_find(table, a_id, a->token, LEASE_TOKEN_BYTES, &found), 0);
	assert_ptr_equal(found, a);
	found = NULL;
	assert_int_equal(lease_find(table, a_id, b->token, LEASE_TOKEN_BYTES, &found), -EACCES);
	assert_int_equal(lease_find(table, a_id, a->token, LEASE_TOKEN_BYTES - 1, &found), -EACCES);
	assert_int_equal(lease_find(table, a_id, NULL, 0, &found), -EACCES);
	memcpy(token, a->token, sizeof(token));
	token[LEASE_TOKEN_BYTES - 1] ^= 1;
	assert_int_equal(lease_find(table, a_id, token, sizeof(token), &found), -EACCES);
	assert_int_equal(lease_find(table, a_id ^ b->id ^ 1, a->token, LEASE_TOKEN_BYTES, &found), -ENOENT);
	assert_int_equal(lease_find(table, 0, a->token, LEASE_TOKEN_BYTES, &found), -ENOENT);

	memcpy(token, a->token, sizeof(token));
	lease_end(a);
	assert_int_equal(lease_find(table, a_id, token, sizeof(token), &found), -ENOENT);
	assert_ptr_equal(lease_find_by_id(table, a_id), a);
	lease_remove(table, a);
	assert_null(lease_find_by_id(table, a_id));
	assert_null(lease_find_by_id(table, 0));
	assert_null(found);
}

static void test_slabs_belong_to_one_lease(void **state)
{
	struct lease_table *table = *state;
	struct lease *a = open_lease(table, "a", 0);
	struct lease *b = open_lease(table, "b", 0);
	uint32_t key = lease_slab_add(table, a, 3);

	assert_true(key != 0);
	assert_int_equal(a->nr_slabs, 1);
	assert_true(lease_slab_held(table, a, 3, key));
	assert_false(lease_slab_held(table, a, 3, key + 1));
	assert_false(lease_slab_held(table, b, 3, key));
	assert_false(lease_slab_held(table, a, 2, key));
	assert_false(lease_slab_held(table, b, 2, 0)); /* nobody's */
	assert_false(lease_slab_held(table, a, NR_SLABS, key));
	assert_false(lease_slab_held(table, a, UINT32_MAX, key));
	assert_int_equal(lease_slab_number(table, LIST_FIRST(&a->slabs)), 3);

	lease_slab_remove(table, a, 3);
	assert_int_equal(a->nr_slabs, 0);
	assert_true(LIST_EMPTY(&a->slabs));
	assert_false(lease_slab_held(table, a, 3, key));
	assert_true(lease_slab_add(table, b, 3) != 0);
	assert_false(lease_slab_held(table, a, 3, key));
}

static uint32_t drawn[] = { 7, 7, 0, 8, 8, 7 }; /* what comes of chance, one after the other */
static unsigned nr_drawn;

static const char *draw_name(void)
{
	return "drawn";
}

static uint32_t draw(void)
{
	assert_in_range(nr_drawn, 0, BASE_ARRAY_SIZE(drawn) - 1);
	return drawn[nr_drawn++];
}

static struct randombytes_implementation draws = { .implementation_name = draw_name, .random = draw };

static int teardown_draws(void **state)
{
	randombytes_set_implementation(&randombytes_sysrandom_implementation);
	return teardown(state);
}

static void test_key_is_never_the_one_before(void **state)
{
	struct lease_table *table = *state;
	struct lease *a = open_lease(table, "a", 0);
	struct lease *b = open_lease(table, "b", 0);

	nr_drawn = 0;
	randombytes_set_implementation(&draws);
	assert_int_equal(lease_slab_add(table, a, 3), 7);
	lease_slab_remove(table, a, 3);
	assert_int_equal(lease_slab_add(table, b, 3), 8);
	assert_int_equal(lease_slab_add(table, a, 4), 8); /* another slab's */
	lease_slab_remove(table, b, 3);
	assert_int_equal(lease_slab_add(table, a, 3), 7);
	assert_int_equal(nr_drawn, BASE_ARRAY_SIZE(drawn));
}

static void test_slabs_know_their_request(void **state)
{
	struct lease_table *table = *state;
	struct lease *lease = open_lease(table, "a", 0);
	struct lease_slab *slab;

	assert_int_equal(lease->request_number, 0);
	for (uint32_t i = 0; i < MAX_SLABS; i++) {
		lease->request_number = 10 + i / 2;
		assert_true(lease_slab_add(table, lease, i) != 0);
	}
	slab = LIST_FIRST(&lease->slabs); /* what came last comes first */
	assert_int_equal(slab->request_number, 11);
	assert_int_equal(LIST_NEXT(slab, link)->request_number, 11);
	assert_int_equal(LIST_NEXT(LIST_NEXT(slab, link), link)->request_number, 10);
	for (uint32_t i = 0; i < MAX_SLABS; i++)
		lease_slab_remove(table, lease, i);
	lease_end(lease);
	lease_remove(table, lease);
	assert_int_equal(open_lease(table, "b", 0)->request_number, 0);
}

static void test_room(void **state)
{
	struct lease_table *table = *state;
	struct lease *lease = open_lease(table, "a", 0);

	for (uint32_t i = 0; i < MAX_SLABS; i++) {
		assert_int_equal(lease_room(table, lease), MAX_SLABS - i);
		assert_true(lease_slab_add(table, lease, i) != 0);
	}
	assert_int_equal(lease_room(table, lease), 0);
	lease_slab_remove(table, lease, 2);
	assert_int_equal(lease_room(table, lease), 1);
	lease_end(lease);
	assert_int_equal(lease_room(table, lease), 0);
}

static void test_expiry(void **state)
{
	struct lease_table *table = *state;
	struct lease *a = open_lease(table, "a", 100);
	struct lease *b = open_lease(table, "b", 100);

	assert_null(lease_find_expired(table, 100 + TERM_NS));
	lease_renew(b, 500);
	lease_renew(b, 400); /* never backwards */
	assert_int_equal(lease_expires_ns(table, b), 500 + TERM_NS);
	assert_ptr_equal(lease_find_expired(table, 101 + TERM_NS), a);
	lease_end(a);
	assert_null(lease_find_expired(table, 101 + TERM_NS)); /* it has been found */
	lease_renew(a, 5000);
	assert_int_equal(a->renewed_ns, 100);
	assert_ptr_equal(lease_find_expired(table, 501 + TERM_NS), b);
}

static void test_forgiven_time(void **state)
{
	struct lease_table *table = *state;
	struct lease *lease = open_lease(table, "a", 100);

	lease_forgive(table, 10 * TERM_NS);
	assert_null(lease_find_expired(table, 100 + 11 * TERM_NS));
	assert_ptr_equal(lease_find_expired(table, 101 + 11 * TERM_NS), lease);
}

static void test_walk(void **state)
{
	struct lease_table *table = *state;
	struct lease *a, *b, *c;

	assert_null(lease_next(table, NULL));
	a = open_lease(table, "a", 0);
	b = open_lease(table, "b", 0);
	c = open_lease(table, "c", 0);
	lease_end(b);
	lease_remove(table, b);
	assert_ptr_equal(lease_next(table, NULL), a);
	assert_ptr_equal(lease_next(table, a), c);
	assert_null(lease_next(table, c));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_are_checked),
		cmocka_unit_test_setup_teardown(test_open_is_random_and_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_name_opens_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_find_needs_the_token, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slabs_belong_to_one_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(test_key_is_never_the_one_before, setup, teardown_draws),
		cmocka_unit_test_setup_teardown(test_slabs_know_their_request, setup, teardown),
		cmocka_unit_test_setup_teardown(test_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgiven_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

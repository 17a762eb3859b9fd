/* deps: client_vswap */
/* The slot map: who gets which slot, and when a slot comes back. */
#include "tests/unit/vswap_fixture.h"
#include "client/vswap/place.h"

#define SLOTS 1024u

struct slots {
	struct slab_map map;
	struct backend remote, disk;
	struct place place[2];
	struct backend_slab lent[8];
	unsigned nr_lent;
	struct slot_cursor cursor[2];
};

static struct slots *slots_create(void)
{
	struct slots *s = aligned_alloc(FSW_CACHE_LINE, base_align_up(sizeof(*s), FSW_CACHE_LINE));

	assert_non_null(s);
	memset(s, 0, sizeof(*s));
	assert_int_equal(slab_map_init(&s->map, 8, NULL), 0);
	s->remote.kind = BACKEND_REMOTE;
	s->disk.kind = BACKEND_DISK;
	s->remote.vswap = &s->place[0];
	s->disk.vswap = &s->place[1];
	atomic_store(&s->remote.state, BACKEND_UP);
	atomic_store(&s->disk.state, BACKEND_UP);
	s->cursor[0].rand.s = 1;
	s->cursor[1].rand.s = 2;
	return s;
}

static void slots_free(struct slots *s)
{
	slab_map_done(&s->map);
	free(s);
}

static struct slab *add(struct slots *s, struct backend *backend, uint32_t nr_slots)
{
	struct backend_slab *lent = &s->lent[s->nr_lent++];
	uint32_t id;

	lent->backend = backend;
	lent->nr_slots = nr_slots;
	assert_int_equal(slab_add(&s->map, lent), 0);
	for (id = 0; id < s->map.max_slabs; id++)
		if (slab_by_id(&s->map, id) && slab_by_id(&s->map, id)->lent == lent)
			return slab_by_id(&s->map, id);
	fail();
	return NULL;
}

static int take(struct slots *s, unsigned cursor, enum slot_where where, struct slab **ret_slab, uint32_t *ret_slot)
{
	return slot_alloc(&s->map, &s->cursor[cursor], where, 42, ret_slab, ret_slot);
}

/* Takes slots with one cursor until there are none, and returns how many that were. */
static uint32_t take_all(struct slots *s, unsigned cursor)
{
	struct slab *slab;
	uint32_t slot, nr = 0;

	while (take(s, cursor, SLOT_ANYWHERE, &slab, &slot) == 0)
		nr++;
	return nr;
}

static void test_slots_come_in_a_row(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS), *got;
	uint32_t first, slot, i;

	(void)state;
	assert_int_equal(slot_alloc(&s->map, &s->cursor[0], SLOT_ANYWHERE, 1000, &got, &first), 0);
	assert_ptr_equal(got, slab);
	assert_int_equal(first % SLAB_CLUSTER_SLOTS, 0);
	for (i = 1; i < 100; i++)
		assert_true(slot_alloc_at(&s->cursor[0], slab, first + i, 1000 + i));
	assert_false(slot_alloc_at(&s->cursor[0], slab, first + i + 1, 0)); /* not the next */
	assert_false(slot_alloc_at(&s->cursor[0], slab, first + i - 1, 0)); /* taken */
	assert_false(slot_alloc_at(&s->cursor[1], slab, first + i, 0));     /* not this cursor's */
	for (; i < SLAB_CLUSTER_SLOTS; i++) {
		assert_int_equal(slot_alloc(&s->map, &s->cursor[0], SLOT_ANYWHERE, 1000 + i, &got, &slot), 0);
		assert_int_equal(slot, first + i);
	}
	assert_false(slot_alloc_at(&s->cursor[0], slab, first + i, 0)); /* the next cluster is not the cursor's */
	for (i = 0; i < SLAB_CLUSTER_SLOTS; i++)
		assert_int_equal(atomic_load(&slab->reverse[first + i]), 1000 + i);
	assert_int_equal(atomic_load(&slab->nr_used), SLAB_CLUSTER_SLOTS);
	slots_free(s);
}

static void test_two_cursors_never_share_a_cluster(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS), *got;
	uint32_t one, two;

	(void)state;
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &one), 0);
	assert_int_equal(take(s, 1, SLOT_ANYWHERE, &got, &two), 0);
	assert_int_not_equal(one / SLAB_CLUSTER_SLOTS, two / SLAB_CLUSTER_SLOTS);
	assert_int_equal(take_all(s, 0), SLAB_CLUSTER_SLOTS - 1); /* the other's cluster is the other's */
	slot_cursor_close(&s->map, &s->cursor[1]);
	assert_int_equal(take_all(s, 0), SLAB_CLUSTER_SLOTS - 1); /* now it is to be had */
	assert_int_equal(atomic_load(&slab->nr_used), SLOTS);
	slots_free(s);
}

static void test_where_is_obeyed(void **state)
{
	struct slots *s = slots_create();
	struct slab *remote, *disk = add(s, &s->disk, SLOTS), *got;
	uint32_t slot;

	(void)state;
	assert_int_equal(take(s, 0, SLOT_REMOTE_ONLY, &got, &slot), -ENOSPC);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0);
	assert_ptr_equal(got, disk);
	remote = add(s, &s->remote, SLOTS);
	/* The open cluster is on the disk, and does not do. */
	assert_int_equal(take(s, 0, SLOT_REMOTE_ONLY, &got, &slot), 0);
	assert_ptr_equal(got, remote);
	assert_int_equal(take(s, 0, SLOT_DISK_ONLY, &got, &slot), 0);
	assert_ptr_equal(got, disk);
	assert_int_equal(take(s, 1, SLOT_ANYWHERE, &got, &slot), 0);
	assert_ptr_equal(got, remote); /* servers first */
	slots_free(s);
}

static void test_unstable_slabs_get_nothing(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS), *got;
	uint32_t slot;

	(void)state;
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0); /* a cluster stays open */
	atomic_store(&s->place[0].draining, true);
	assert_false(slab_is_stable(slab));
	assert_false(slot_alloc_at(&s->cursor[0], slab, slot + 1, 0));
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), -ENOSPC);
	atomic_store(&s->place[0].draining, false);
	atomic_fetch_add(&s->map.generation, 1); /* as vswap_undrain does */
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0);
	atomic_store(&slab->state, SLAB_LEAVING);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), -ENOSPC);
	slots_free(s);
}

/* Nobody tells the slot map that a server is back: a search that passed by its slabs is not remembered as the last word. */
static void test_a_server_that_is_back_is_found(void **state)
{
	struct slots *s = slots_create();
	struct slab *got;
	uint32_t slot;

	(void)state;
	add(s, &s->remote, SLOTS);
	atomic_store(&s->remote.state, BACKEND_DOWN);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), -ENOSPC);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), -ENOSPC);
	atomic_store(&s->remote.state, BACKEND_UP);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0);
	slots_free(s);
}

/* One server that is out of reach changes nothing for the others: the disk is for when no server has room. */
static void test_one_server_down_leaves_the_others(void **state)
{
	struct slots *s = slots_create();
	struct place place = { .draining = false };
	struct backend other = { .kind = BACKEND_REMOTE, .vswap = &place };
	struct slab *up, *got;
	unsigned i;
	uint32_t slot;

	(void)state;
	add(s, &s->remote, SLOTS);
	up = add(s, &other, SLOTS);
	add(s, &s->remote, SLOTS);
	add(s, &s->disk, SLOTS);
	atomic_store(&other.state, BACKEND_UP);
	atomic_store(&s->remote.state, BACKEND_DOWN);
	for (i = 0; i < SLOTS; i++) {
		assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0);
		assert_ptr_equal(got, up);
	}
	slots_free(s);
}

/* Clusters in use by now are no reason that a slab which is empty gets each and every new one. */
static void test_an_empty_slab_does_not_get_all(void **state)
{
	enum { CLUSTERS = 16, ROUNDS = CLUSTERS / 2 };
	struct slots *s = slots_create();
	struct slab *empty, *got;
	unsigned i, nr_empty = 0;
	uint32_t slot;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct slab *slab = add(s, &s->remote, CLUSTERS * SLAB_CLUSTER_SLOTS);

		for (slot = 0; slot < CLUSTERS / 4 * SLAB_CLUSTER_SLOTS / 64; slot++)
			atomic_store(&slab->used[slot], UINT64_MAX);
		atomic_store(&slab->nr_used, CLUSTERS / 4 * SLAB_CLUSTER_SLOTS);
	}
	empty = add(s, &s->remote, CLUSTERS * SLAB_CLUSTER_SLOTS);
	for (i = 0; i < ROUNDS; i++) {
		assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0);
		nr_empty += got == empty;
		slot_cursor_close(&s->map, &s->cursor[0]);
	}
	assert_in_range(nr_empty, 1, ROUNDS - 2);
	slots_free(s);
}

static void test_full_is_remembered_until_something_is_freed(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS), *got;
	uint32_t slot;

	(void)state;
	assert_int_equal(take_all(s, 0), SLOTS);
	assert_true(s->cursor[0].failed);
	/* Behind the map's back: who does not look does not find. */
	atomic_fetch_and(&slab->used[0], ~1ull);
	atomic_fetch_sub(&slab->nr_used, 1);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), -ENOSPC);
	slot_free_unused(&s->map, slab, 700, 1);
	assert_int_equal(take(s, 0, SLOT_ANYWHERE, &got, &slot), 0);
	slots_free(s);
}

static void test_slots_in_pieces_are_all_found(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS);
	uint32_t i;

	(void)state;
	assert_int_equal(take_all(s, 0), SLOTS);
	for (i = 0; i < SLOTS; i += 7)
		slot_free_unused(&s->map, slab, i, 1);
	assert_int_equal(take_all(s, 0), (SLOTS + 6) / 7);
	slot_free_unused(&s->map, slab, 60, 200); /* over the edges of bitmap words */
	assert_int_equal(atomic_load(&slab->nr_used), SLOTS - 200);
	assert_int_equal(take_all(s, 0), 200);
	slots_free(s);
}

/* Retired slots are used, not live; they are free when their epoch is freed and no other. */
static void test_retired_slots_wait_for_their_epoch(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS);
	uint32_t live = 0, i;

	(void)state;
	assert_int_equal(take_all(s, 0), SLOTS);
	slot_retire(slab, 100, 150, 7);
	slot_retire(slab, 0, 1, 8);
	for (i = 0; i < SLOTS / 64; i++)
		live += (uint32_t)__builtin_popcountll(slab_live_bits(slab, i));
	assert_int_equal(live, SLOTS - 151);
	assert_int_equal(atomic_load(&slab->nr_used), SLOTS);
	assert_int_equal(slab_free_retired(&s->map, 6), 0);
	assert_int_equal(take_all(s, 0), 0);
	assert_int_equal(slab_free_retired(&s->map, 7), 150);
	assert_int_equal(slab_free_retired(&s->map, 7), 0);
	assert_int_equal(atomic_load(&slab->nr_used), SLOTS - 150);
	assert_int_equal(take_all(s, 0), 150);
	assert_int_equal(slab_free_retired(&s->map, 8), 1);
	slots_free(s);
}

static void test_quarantine_waits_for_the_fence(void **state)
{
	struct slots *s = slots_create();
	struct slab *slab = add(s, &s->remote, SLOTS), *other = add(s, &s->remote, SLOTS);
	bool left;

	(void)state;
	assert_int_equal(take_all(s, 0), 2 * SLOTS);
	atomic_store(&s->remote.fence, 5);
	slot_quarantine(slab, 3, 5);
	slot_quarantine(slab, 4, 4);
	slot_quarantine(other, 9, 6);
	assert_int_equal(slab_live_bits(slab, 0), ~0ull ^ 0x18);
	assert_int_equal(slab_retire_quarantined(&s->map, 1, &left), 0);
	assert_true(left);
	atomic_store(&s->remote.fence, 6);
	assert_int_equal(slab_retire_quarantined(&s->map, 1, &left), 2);
	assert_true(left);
	assert_int_equal(take_all(s, 0), 0); /* retired only: a read may still be at it */
	assert_int_equal(slab_free_retired(&s->map, 1), 2);
	atomic_store(&s->remote.state, BACKEND_LOST); /* what is lost can write no more */
	assert_int_equal(slab_retire_quarantined(&s->map, 2, &left), 1);
	assert_false(left);
	assert_int_equal(slab_free_retired(&s->map, 2), 1);
	slots_free(s);
}

static void test_the_list_has_servers_first(void **state)
{
	struct slots *s = slots_create();
	struct slab *d1 = add(s, &s->disk, SLOTS), *r1 = add(s, &s->remote, SLOTS), *d2 = add(s, &s->disk, SLOTS),
		    *r2 = add(s, &s->remote, SLOTS);
	struct slab_list *list = atomic_load(&s->map.list);
	uint64_t bytes = atomic_load(&s->map.metadata_bytes);
	uint32_t id = r1->id;

	(void)state;
	assert_int_equal(list->nr, 4);
	assert_int_equal(list->nr_remote, 2);
	assert_ptr_equal(list->slab[0], r1);
	assert_ptr_equal(list->slab[1], r2);
	assert_ptr_equal(list->slab[2], d1);
	assert_ptr_equal(list->slab[3], d2);
	slab_remove(&s->map, r1);
	list = atomic_load(&s->map.list);
	assert_int_equal(list->nr, 3);
	assert_int_equal(list->nr_remote, 1);
	assert_ptr_equal(list->slab[0], r2);
	assert_null(slab_by_id(&s->map, id));
	assert_true(atomic_load(&s->map.metadata_bytes) < bytes);
	assert_int_equal(add(s, &s->remote, SLOTS)->id, id);
	assert_int_equal(atomic_load(&s->map.metadata_bytes), bytes);
	slots_free(s);
}

static void test_slabs_that_are_refused(void **state)
{
	static const uint32_t wrong[] = { 0, 128, 300, 511, WORD_MAX_SLOTS * 2 };
	struct slots *s = slots_create();
	struct backend_slab lent = { .backend = &s->remote };
	unsigned i;

	(void)state;
	for (i = 0; i < 5; i++) {
		lent.nr_slots = wrong[i];
		assert_int_equal(slab_add(&s->map, &lent), -EINVAL);
	}
	for (i = 0; i < 8; i++)
		add(s, &s->remote, SLAB_MIN_SLOTS);
	lent.nr_slots = SLOTS;
	assert_int_equal(slab_add(&s->map, &lent), -ENOSPC);
	assert_int_equal(take_all(s, 0), 8 * SLAB_MIN_SLOTS); /* smaller than a cluster, and still wholly used */
	slots_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots_come_in_a_row),
		cmocka_unit_test(test_two_cursors_never_share_a_cluster),
		cmocka_unit_test(test_where_is_obeyed),
		cmocka_unit_test(test_unstable_slabs_get_nothing),
		cmocka_unit_test(test_a_server_that_is_back_is_found),
		cmocka_unit_test(test_one_server_down_leaves_the_others),
		cmocka_unit_test(test_an_empty_slab_does_not_get_all),
		cmocka_unit_test(test_full_is_remembered_until_something_is_freed),
		cmocka_unit_test(test_slots_in_pieces_are_all_found),
		cmocka_unit_test(test_retired_slots_wait_for_their_epoch),
		cmocka_unit_test(test_quarantine_waits_for_the_fence),
		cmocka_unit_test(test_the_list_has_servers_first),
		cmocka_unit_test(test_slabs_that_are_refused),
	};

	log_init("test_vswap_slab", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* deps: client_vswap */
/* The largest device: page numbers around 2^31, and the last ones below 2^32. */
#include "tests/unit/vswap_fixture.h"

#define SERVER 0
#define DISK 1
#define NR_FAR 7u

static const struct {
	uint64_t page, nr_pages;
} far[] = {
	{ (1ull << 31) - 2, 4 }, /* two clusters, on both sides of the sign bit */
	{ VSWAP_MAX_PAGES - 3, 3 },
};

/* A server that holds the far pages, and one near page. */
static struct fixture *device(void)
{
	struct fixture *f = fixture_create(VSWAP_MAX_PAGES, 0);
	unsigned i;

	fixture_add_slab(f, SERVER, SLAB_MIN_SLOTS);
	for (i = 0; i < BASE_ARRAY_SIZE(far); i++)
		assert_int_equal(fixture_do(f, IO_WRITE, far[i].page, far[i].nr_pages, i), 0);
	assert_int_equal(fixture_do(f, IO_WRITE, 0, 1, 9), 0);
	return f;
}

static void assert_far_pages(struct fixture *f, int expected)
{
	unsigned i;

	for (i = 0; i < BASE_ARRAY_SIZE(far); i++)
		assert_int_equal(fixture_read(f, far[i].page, far[i].nr_pages, i), expected);
}

static void test_ranges_over_the_end(void **state)
{
	static const enum io_op op[] = { IO_READ, IO_WRITE, IO_DISCARD, IO_WRITE_ZEROES };
	struct fixture *f = device();
	unsigned i;

	(void)state;
	for (i = 0; i < BASE_ARRAY_SIZE(op); i++) {
		assert_int_equal(fixture_do(f, op[i], VSWAP_MAX_PAGES - 1, 2, 5), -ERANGE);
		assert_int_equal(fixture_do(f, op[i], VSWAP_MAX_PAGES, 1, 5), -ERANGE);
	}
	assert_far_pages(f, 0);
	assert_int_equal(fixture_read(f, 0, 1, 9), 0);
	/* Discards to the end, and over the middle, take what they name. */
	assert_int_equal(fixture_do(f, IO_DISCARD, VSWAP_MAX_PAGES - 2, 2, 0), 0);
	assert_int_equal(fixture_do(f, IO_DISCARD, 1ull << 31, 1, 0), 0);
	fixture_turns(f, 6);
	assert_int_equal(fixture_used(f, SERVER), NR_FAR + 1 - 3);
	assert_int_equal(fixture_read(f, 0, 1, 9), 0);
	assert_int_equal(word_tag(fixture_word(f, far[1].page)), WORD_REMOTE);
	assert_int_equal(word_tag(fixture_word(f, (1ull << 31) - 1)), WORD_REMOTE);
	fixture_free(f);
}

static void test_far_pages_move(void **state)
{
	struct fixture *f = device();
	struct vswap_drain_options options = { 0 };
	struct vswap_drain_progress progress;
	unsigned n;

	(void)state;
	fixture_add_slab(f, DISK, SLAB_MIN_SLOTS);
	assert_int_equal(vswap_drain(f->vswap, &f->hand[SERVER]->backend, &options), 0);
	for (n = 0; n < 100; n++)
		fixture_turns(f, 1);
	vswap_drain_progress(f->vswap, &f->hand[SERVER]->backend, &progress);
	assert_int_equal(progress.state, VSWAP_DRAIN_DRAINED);
	assert_int_equal(progress.nr_moved, NR_FAR + 1);
	assert_far_pages(f, 0);
	fixture_free(f);
}

static void test_far_pages_are_lost_with_their_server(void **state)
{
	struct fixture *f = device();
	struct backend *server = &f->hand[SERVER]->backend;
	uint64_t poisoned = 0;
	unsigned n;

	(void)state;
	atomic_store(&server->state, BACKEND_LOST);
	for (n = 0; n < 50 && vswap_backend_lost(f->vswap, server, &poisoned) == -EAGAIN; n++)
		fixture_turns(f, 1);
	assert_int_equal(poisoned, NR_FAR + 1);
	assert_far_pages(f, -EIO);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges_over_the_end),
		cmocka_unit_test(test_far_pages_move),
		cmocka_unit_test(test_far_pages_are_lost_with_their_server),
	};

	log_init("test_vswap_far", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

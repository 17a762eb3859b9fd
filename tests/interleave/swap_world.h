/*
 * A device with its entries and folios for scenarios: the one of vswap_fixture.h in the memory of a world. Its backends copy
 * the bytes of an operation in two steps, in a turn of the queue; turns are taken by the scripts. Script n works on queue n,
 * the third one on that of the mover.
 *
 * The memory of the world is not given back: the next scenario has another one.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_SWAP_WORLD_H
#define FARSWAP_TESTS_INTERLEAVE_SWAP_WORLD_H

/* First: what the fixtures allocate is of the world as well. */
#include "tests/interleave/points.h"

#include <stdio.h>
#include <string.h>

#include "client/vswap/mover.h"
#include "client/vswap/page.h"
#include "common/sys/internal.h"
#include "tests/unit/swap_fixture.h"

#define WORLD_CLUSTERS 2u
#define WORLD_MAX_FOLIOS 6u
#define WORLD_MAX_ENTRIES 6u
#define WORLD_MAX_WAITERS 3u
#define WORLD_SLOTS 2048u /* of each backend: a cluster for every queue */
#define WORLD_MOVER FIXTURE_QUEUES

/* What is put back with the rest of the world, so results of scripts belong in here. */
struct swap_world {
	struct fixture *f;
	struct test_folio *folio[WORLD_MAX_FOLIOS];
	bool dropped[WORLD_MAX_FOLIOS]; /* a script has given up the reference that was the scenario's */
	unsigned nr_folios;
	swp_entry_t entry[WORLD_MAX_ENTRIES]; /* all that may be held by somebody at the end */
	unsigned nr_entries;
	uint32_t nr_tables; /* free ones included */
	int err[INTERLEAVE_MAX_SCRIPTS][4];
	unsigned nr_done[INTERLEAVE_MAX_SCRIPTS]; /* I/O that has ended */
	struct fixture_io *io[INTERLEAVE_MAX_SCRIPTS];
	struct slab *slab[INTERLEAVE_MAX_SCRIPTS]; /* of a slot that a script has taken */
	uint32_t slot[INTERLEAVE_MAX_SCRIPTS];
	bool packs; /* pages are such that they are compressed */
	/* The job of the mover. */
	struct move_owner owner;
	unsigned nr_moved;
	bool move_has_ended;
	uint32_t moved_slot; /* on the server */
	/* Who waits for a folio: see waiter_call in test_swap_interleave.c. */
	struct folio_waiter waiter[WORLD_MAX_WAITERS];
	unsigned called_at[WORLD_MAX_WAITERS], returned_at[WORLD_MAX_WAITERS], locked_at[WORLD_MAX_WAITERS];
	unsigned nr_locked[WORLD_MAX_WAITERS];
	unsigned now, nr_inside;
};

static struct swap_world *w;

static inline struct vswap_queue *queue_of(unsigned script)
{
	return vswap_queue(w->f->vswap, script);
}

/* ---- turns ---- */

static inline unsigned world_poll(struct sys_poller *poller)
{
	struct hand_queue *queue = BASE_CONTAINER_OF(poller, struct hand_queue, poller);
	struct backend_io *io = TAILQ_FIRST(&queue->pending);
	size_t half;
	char *at, *buf;

	if (!io)
		return 0;
	TAILQ_REMOVE(&queue->pending, io, link);
	at = BASE_CONTAINER_OF(io->slab, struct hand_slab, lent)->bytes + (size_t)io->slot * FSW_PAGE_SIZE;
	buf = io->iov[0].iov_base;
	half = io->iov[0].iov_len / 2;
	interleave_expect(io->nr_iov == 1);
	if (io->op == IO_WRITE) {
		memcpy(INTERLEAVE_WRITE_AT(at), buf, half);
		memcpy((char *)INTERLEAVE_WRITE_AT(at) + half, buf + half, half);
	} else {
		memcpy(buf, INTERLEAVE_READ_AT(at), half);
		memcpy(buf + half, (char *)INTERLEAVE_READ_AT(at) + half, half);
	}
	io->done(io, 0);
	return 1;
}

static inline bool queue_has_work(void *arg)
{
	struct vswap_queue *queue = arg;
	unsigned b;

	for (b = 0; b < FIXTURE_BACKENDS; b++)
		if (!TAILQ_EMPTY(&w->f->hand[b]->queue[queue->index].pending))
			return true;
	return reactor_messages_waiting(queue->reactor) || !STAILQ_EMPTY(&queue->reactor->deferred);
}

/* A turn of the queue's reactor, without its timers; then the script holds nothing. */
static inline void turn(unsigned script)
{
	struct sys_reactor *reactor = queue_of(script)->reactor;

	interleave_point(reactor, INTERLEAVE_WRITE, __func__, __LINE__);
	reactor_messages_run(reactor);
	reactor_pollers_run(reactor);
	reactor_deferred_run(reactor);
	interleave_quiescent();
}

/* One turn, as soon as there is something to do. */
static inline void turn_when_there_is_work(unsigned script)
{
	interleave_wait(queue_has_work, queue_of(script));
	turn(script);
}

/* Outside of schedules: time passes until all that was begun has ended. */
static inline void world_settle(void)
{
	unsigned n, i;

	for (n = 0; n < 12; n++) {
		w->f->now_ns += 2 * SYS_NS_PER_MS;
		for (i = 0; i < FIXTURE_REACTORS; i++) {
			w->f->reactors[i]->now_ns = w->f->now_ns;
			turn(i);
			reactor_timers_run(w->f->reactors[i]);
		}
		interleave_grace();
	}
	for (i = 0; i < FIXTURE_REACTORS; i++)
		interleave_expect(!queue_has_work(queue_of(i)));
}

/* ---- making it ---- */

/* nr_pages of a block device, perhaps none; comp_limit_bytes of memory for compressed pages, perhaps none. */
static inline void world_make(uint64_t nr_pages, uint64_t comp_limit_bytes)
{
	const struct vswap_options options = { .nr_pages = nr_pages, .nr_entries = WORLD_CLUSTERS * SWP_CLUSTER_ENTRIES,
					       .nr_folio_ios = 2, .nr_queues = FIXTURE_QUEUES, .max_slabs = 2,
					       .reserve_tables = 12, .seed = 1, .comp_limit_bytes = comp_limit_bytes };
	struct table_map *tables;
	unsigned i, b;

	w = world_calloc(1, sizeof(*w));
	w->f = fixture_create_with(&options);
	for (i = 0; i < FIXTURE_REACTORS; i++) {
		world_adopt(w->f->reactors[i], sizeof(*w->f->reactors[i]));
		for (b = 0; b < FIXTURE_BACKENDS; b++)
			w->f->hand[b]->queue[i].poller.poll = world_poll;
	}
	for (b = 0; b < FIXTURE_BACKENDS; b++)
		fixture_add_slab(w->f, b, WORLD_SLOTS);
	tables = &w->f->vswap->tables;
	w->nr_tables = atomic_load(&tables->nr_tables) + atomic_load(&tables->nr_free);
}

/* What comes of a folio when the last reference has gone: nobody looks at it any more, or he is seen to. */
static inline void world_folio_released(struct folio *folio, void *arg)
{
	struct test_folio *test = arg;

	interleave_gives_up();
	interleave_expect(folio == &test->folio && test->nr_released == 0);
	test->nr_released = 1;
	memset(folio, 0xa5, sizeof(*folio));
}

/* Locked, with a reference, which is the scenario's. */
static inline struct test_folio *world_folio(unsigned order, uint64_t value)
{
	struct test_folio *test = test_folio_new(order, value);

	test->folio.release = world_folio_released;
	interleave_expect(w->nr_folios < WORLD_MAX_FOLIOS);
	w->folio[w->nr_folios++] = test;
	return test;
}

/* Entries in the cache by a folio that is locked and dirty, each held `count` times. */
static inline struct test_folio *world_cached(unsigned order, unsigned count, uint64_t value)
{
	struct test_folio *test = world_folio(order, value);
	swp_entry_t entry;
	unsigned i;

	interleave_expect(folio_alloc_swap(queue_of(0), &test->folio, order, &entry) == 0);
	for (i = 0; i < count; i++)
		interleave_expect(folio_dup_swap(queue_of(0), &test->folio, FOLIO_ALL) == 0);
	for (i = 0; i < 1u << order; i++)
		w->entry[w->nr_entries++] = (swp_entry_t){ entry.val + i };
	return test;
}

static inline void world_folio_done(struct folio *folio, int status, void *arg)
{
	(void)folio;
	interleave_expect(status == 0);
	++*(unsigned *)arg;
}

/* The same, stored in slots of their own. */
static inline struct test_folio *world_stored(unsigned order, unsigned count, uint64_t value)
{
	struct test_folio *test = world_cached(order, count, value);
	unsigned nr_done = 0;

	interleave_expect(vswap_assign_slot(queue_of(0), &test->folio, world_folio_done, &nr_done) == 0);
	world_settle();
	interleave_expect(nr_done == 1 && !(folio_flags(&test->folio) & FOLIO_DIRTY));
	return test;
}

/* A folio out of the cache, and the scenario's reference gone. */
static inline void world_drop(struct test_folio *test)
{
	unsigned i;

	interleave_expect(put_swap_folio(queue_of(0), &test->folio, test->folio.swap) == 0);
	folio_unlock(queue_of(0), &test->folio);
	folio_put(&test->folio);
	world_settle();
	interleave_expect(test->nr_released == 1);
	for (i = 0; w->folio[i] != test; i++)
		;
	w->folio[i] = w->folio[--w->nr_folios];
}

/* A script gives up the scenario's reference to a folio. */
static inline void world_put_folio(unsigned folio)
{
	w->dropped[folio] = true;
	folio_put(&w->folio[folio]->folio);
}

/* Entries that are held `count` times each, in slots, without a folio. The first of them. */
static inline swp_entry_t world_held(unsigned order, unsigned count, uint64_t value)
{
	world_drop(world_stored(order, count, value));
	return w->entry[w->nr_entries - (1u << order)];
}

/* ---- what scripts do ---- */

/* A call, and then nothing that it has found is used any more. */
#define world_call(script, n, call) (w->err[script][n] = (call), interleave_quiescent())

static inline void world_insert(unsigned script, unsigned entry, unsigned folio)
{
	struct folio *f = &w->folio[folio]->folio;

	world_call(script, 0, swapcache_prepare(queue_of(script), w->entry[entry], folio_nr_pages(f), f));
}

static inline void world_put(unsigned script, unsigned entry)
{
	int err = swap_put_entries_direct(queue_of(script), w->entry[entry], 1);

	interleave_expect(err == 0);
	interleave_quiescent();
}

static inline void world_dup(unsigned script, unsigned entry)
{
	int err = swap_dup_entry_direct(queue_of(script), w->entry[entry]);

	interleave_expect(err == 0);
	interleave_quiescent();
}

static inline void world_unlock(unsigned script, unsigned folio)
{
	folio_unlock(queue_of(script), &w->folio[folio]->folio);
	interleave_quiescent();
}

/* ---- and seeing that it is in order ---- */

static inline uint64_t word_of(swp_entry_t entry)
{
	struct table *table = table_lookup(&w->f->vswap->tables, entry.val);

	return table ? atomic_load(table_word(table, entry.val)) : 0;
}

static inline bool entry_is_free(swp_entry_t entry)
{
	struct table *table = table_lookup(&w->f->vswap->tables, entry.val);

	return word_tag(word_of(entry)) == WORD_NONE && !swapcache_find(table, entry.val);
}

static inline bool folio_is_in(unsigned folio)
{
	return (folio_flags(&w->folio[folio]->folio) & FOLIO_SWAPCACHE) != 0;
}

static inline uint32_t count_of(unsigned entry)
{
	return swp_swapcount(queue_of(0), w->entry[entry]);
}

/* Whether the entry, which is in no cache, reads as a page of `value`. */
static inline bool entry_holds(swp_entry_t entry, uint64_t value)
{
	struct test_folio *test = world_folio(0, ~value);
	unsigned nr_done = 0;
	bool holds;

	interleave_expect(swapcache_prepare(queue_of(0), entry, 1, &test->folio) == 0);
	interleave_expect(swap_read_folio(queue_of(0), &test->folio, world_folio_done, &nr_done) == 0);
	world_settle();
	interleave_expect(nr_done == 1);
	holds = test_folio_holds(test, value);
	world_drop(test);
	return holds;
}

static inline void world_release_folio(struct test_folio *test)
{
	struct folio *folio = &test->folio;

	if (folio_flags(folio) & FOLIO_SWAPCACHE) {
		interleave_expect(folio_trylock(folio));
		interleave_expect(folio_free_swap(queue_of(0), folio));
		folio_unlock(queue_of(0), folio);
	}
	folio_put(folio);
}

/*
 * The books are right; then all that is left is let go of: every folio is released once, no slot and no table is kept.
 * The check of a scenario ends with it, and has looked at what is its own before.
 */
static inline void world_end(void)
{
	struct vswap *vswap = w->f->vswap;
	uint32_t nr;
	unsigned i;

	interleave_expect(vswap_check(vswap) == 0);
	for (i = 0; i < w->nr_entries; i++)
		for (nr = swp_swapcount(queue_of(0), w->entry[i]); nr; nr--)
			interleave_expect(swap_put_entries_direct(queue_of(0), w->entry[i], 1) == 0);
	world_settle();
	for (i = 0; i < w->nr_folios; i++)
		if (!w->dropped[i])
			world_release_folio(w->folio[i]);
	for (i = 0; i < FIXTURE_REACTORS; i++)
		cluster_cursors_close(&vswap->clusters, queue_of(i)->allocating);
	world_settle();
	for (i = 0; i < w->nr_folios; i++)
		interleave_expect(w->folio[i]->nr_released == 1);
	interleave_expect(vswap_check(vswap) == 0);
	interleave_expect(fixture_used(w->f, -1) == 0);
	interleave_expect(!vswap->comp || comp_pool_fullness(vswap->comp, 1) == 0);
	interleave_expect(atomic_load(&vswap->clusters.nr_in_use) == 0);
	interleave_expect(atomic_load(&vswap->tables.nr_tables) == 1); /* the node of the directory */
	interleave_expect(atomic_load(&vswap->tables.nr_free) + 1 == w->nr_tables);
}

/* ---- the program ---- */

/* Rows of a table of scenarios: all schedules of these scripts, or those with a bounded number of preemptions. */
#define SCENARIO(label, made_by, checked_by, ...) \
	{ .name = #label, .prepare = (made_by), .check = (checked_by), .script = { __VA_ARGS__ } }
#define SCENARIO_BOUNDED(label, preemptions, made_by, checked_by, ...) \
	{ .name = #label, .max_preemptions = (preemptions), .prepare = (made_by), .check = (checked_by), \
	  .script = { __VA_ARGS__ } }

/* What is not of the world's memory. */
static inline void world_free_reactors(void)
{
	unsigned i, b;

	for (i = 0; i < FIXTURE_REACTORS; i++) {
		for (b = 0; b < FIXTURE_BACKENDS; b++)
			sys_poller_remove(&w->f->hand[b]->queue[i].poller);
		sys_reactor_free(w->f->reactors[i]);
	}
}

static inline void world_explore(void **state)
{
	struct interleave_result result;

	assert_true(interleave_explore(*state, &result));
	if (!result.left_out)
		world_free_reactors();
}

/* False: the variable of the environment is set and does not begin with the name of one of these, which is printed. */
static inline bool world_names(const char *program, const struct interleave_scenario *scenarios, size_t nr,
			       const char *variable, const char *delimiters)
{
	const char *value = getenv(variable);
	size_t len = value ? strcspn(value, delimiters) : 0, i;

	for (i = 0; i < nr && value; i++)
		if (strlen(scenarios[i].name) == len && strncmp(scenarios[i].name, value, len) == 0)
			return true;
	if (value)
		printf("%s: %s='%s' is for none of its scenarios\n", program, variable, value);
	return !value;
}

/* At most 64 scenarios, each a test; FARSWAP_SCENARIO, the name of one: it alone. The status for main. */
static inline int world_run(const char *name, const struct interleave_scenario *scenarios, size_t nr)
{
	struct CMUnitTest tests[64] = { 0 };
	size_t i;

	assert(nr <= BASE_ARRAY_SIZE(tests));
	if (!world_names(name, scenarios, nr, "FARSWAP_SCHEDULE", " ") ||
	    !world_names(name, scenarios, nr, "FARSWAP_SCENARIO", ""))
		return 1;
	cmocka_set_test_filter(getenv("FARSWAP_SCENARIO"));
	for (i = 0; i < nr; i++)
		tests[i] = (struct CMUnitTest){ .name = scenarios[i].name, .test_func = world_explore,
						.initial_state = (void *)(uintptr_t)&scenarios[i] };
	sys_rcu_thread_init();
	log_init(name, LOG_LEVEL_ERROR);
	return _cmocka_run_group_tests(name, tests, nr, NULL, NULL);
}

#endif

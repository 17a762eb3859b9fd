/* deps: client_vswap_interleaved tests_interleave */
/*
 * Who remembers the table of a cluster, while that table dies, its memory becomes another, and the cluster gets a new one, in
 * every order.
 */
#include "tests/interleave/swap_world.h"

#define DEVICE_PAGES (2u * TABLE_ENTRIES)
#define PAGE 0u		     /* that has a word at first */
#define NEIGHBOUR 1u	     /* of the same cluster */
#define AFAR (TABLE_ENTRIES) /* of the other one */
#define NR_PAGES 2u
#define OLD 7u
#define NEW 8u

static const uint64_t pages[NR_PAGES] = { NEIGHBOUR, AFAR };

/* Of the world, so part of the state: which pages have been written, and what script 0 remembers. */
static struct {
	struct table_recent recent;
	_Atomic bool written[NR_PAGES];
	_Atomic bool rewritten;
} *t;

static struct table_map *tables(void)
{
	return &w->f->vswap->tables;
}

static void word_set(uint64_t page, uint64_t value)
{
	struct table *table = table_pin(tables(), page, true);

	interleave_expect(table);
	table_book(table, 1);
	atomic_store(table_word(table, page), word_next(0, WORD_SAME, value));
	table_unpin(table, 0);
}

static void word_clear(uint64_t page)
{
	struct table *table = table_pin(tables(), page, false);

	interleave_expect(table);
	atomic_store(table_word(table, page), 0);
	table_unpin(table, -1);
}

/* Script 0: what a page has; 0 for nothing. */
static uint64_t word_find(uint64_t page)
{
	struct table *table = table_find(tables(), &t->recent, page);
	uint64_t word = table ? atomic_load(table_word(table, page)) : 0;

	interleave_quiescent();
	return word_tag(word) == WORD_NONE ? 0 : word_payload(word);
}

static void prepare(void)
{
	world_make(DEVICE_PAGES, 0);
	t = world_calloc(1, sizeof(*t));
	word_set(PAGE, OLD);
	interleave_expect(word_find(PAGE) == OLD);
}

/* ---- the scripts ---- */

/* What has been written is there, and what is there has been written, or is about to be said to be. */
static void find(void)
{
	bool rewritten = atomic_load(&t->rewritten), written = atomic_load(&t->written[0]);
	uint64_t value = word_find(PAGE);

	interleave_expect(rewritten ? value == NEW : value == OLD || value == NEW || value == 0);
	value = word_find(NEIGHBOUR);
	interleave_expect(written ? value == NEIGHBOUR : value == NEIGHBOUR || value == 0);
}

static void find_twice(void)
{
	find();
	find();
}

static void clear_and_set(void)
{
	word_clear(PAGE);
	interleave_quiescent();
	word_set(PAGE, NEW);
	interleave_quiescent();
	atomic_store(&t->rewritten, true);
}

static void set(unsigned index)
{
	word_set(pages[index], pages[index]);
	interleave_quiescent();
	atomic_store(&t->written[index], true);
}

static void set_neighbour(void)
{
	set(0);
}

static void set_afar(void)
{
	set(1);
}

static void check(void)
{
	unsigned i;

	interleave_expect(word_find(PAGE) == NEW);
	word_clear(PAGE);
	for (i = 0; i < NR_PAGES; i++) {
		interleave_expect(word_find(pages[i]) == (atomic_load(&t->written[i]) ? pages[i] : 0));
		if (atomic_load(&t->written[i]))
			word_clear(pages[i]);
	}
	interleave_expect(word_find(PAGE) == 0);
	world_settle();
	world_end();
}

static const struct interleave_scenario scenarios[] = {
	SCENARIO(find_clear_set, prepare, check, find_twice, clear_and_set),
	SCENARIO(find_clear_set_neighbour, prepare, check, find_twice, clear_and_set, set_neighbour),
	SCENARIO(find_clear_set_afar, prepare, check, find_twice, clear_and_set, set_afar),
};

int main(void)
{
	return world_run("test_table_interleave", scenarios, BASE_ARRAY_SIZE(scenarios));
}

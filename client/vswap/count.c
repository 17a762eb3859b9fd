/*
 * How many hold an entry. The word counts to 1023; what is beyond is kept in a side table, in portions, so that it is touched
 * once in hundreds of times: an entry is in it only while its word counts COUNT_LOW or more.
 *
 * Ordering. Counts go up by a compare-and-swap alone, since whoever duplicates an entry holds it, and it cannot be freed
 * meanwhile. They go down under the cluster's lock, which is also what makes an entry's portion and its word change together.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/vswap/swapcache.h"

#define COUNT_LOW ((WORD_COUNT_MAX + 1) / 2)
#define COUNT_PORTION (COUNT_LOW / 2)
#define COUNT_LIMIT (1u << 31)
#define COUNT_BUCKETS 1024u
#define COUNT_RECORDS 4096u

struct count_record {
	uint64_t entry;
	uint32_t nr;
	uint32_t next; /* record number + 1; 0 is the end */
};

/* Hashed by the entry, chained, of a fixed number of records: nothing is allocated when an entry overflows. */
struct count_map {
	struct lock_mutex lock; /* taken inside a cluster's */
	uint32_t bucket[COUNT_BUCKETS];
	uint32_t free;
	struct count_record record[COUNT_RECORDS];
};

int count_map_create(struct count_map **ret_map)
{
	struct count_map *map = calloc(1, sizeof(*map));
	uint32_t i;

	if (!map)
		return -ENOMEM;
	lock_mutex_init(&map->lock);
	for (i = 0; i < COUNT_RECORDS; i++)
		map->record[i].next = i + 1 < COUNT_RECORDS ? i + 2 : 0;
	map->free = 1;
	*ret_map = map;
	return 0;
}

void count_map_free(struct count_map *map)
{
	if (!map)
		return;
	lock_mutex_done(&map->lock);
	free(map);
}

/* Where the number of the entry's record stands, or that of the chain's end. */
static uint32_t *count_map_place(struct count_map *map, uint64_t entry)
{
	uint32_t *place = &map->bucket[(entry * 0x9e3779b97f4a7c15u >> 32) % COUNT_BUCKETS]; /* Fibonacci hashing, Knuth */

	while (*place && map->record[*place - 1].entry != entry)
		place = &map->record[*place - 1].next;
	return place;
}

/* Adds a portion to what is kept of the entry. False when there is no record left, or it would be too much. */
static bool count_map_put(struct count_map *map, uint64_t entry)
{
	uint32_t *place, number;
	bool done = true;

	lock_acquire(&map->lock);
	place = count_map_place(map, entry);
	number = *place;
	if (number) {
		struct count_record *record = &map->record[number - 1];

		done = record->nr < COUNT_LIMIT - WORD_COUNT_MAX - COUNT_PORTION;
		record->nr += done ? COUNT_PORTION : 0;
	} else if (map->free) {
		number = map->free;
		map->free = map->record[number - 1].next;
		map->record[number - 1] = (struct count_record){ .entry = entry, .nr = COUNT_PORTION };
		*place = number;
	} else {
		done = false;
	}
	lock_release(&map->lock);
	return done;
}

/* Takes a portion of what is kept, which there is. */
static void count_map_take(struct count_map *map, uint64_t entry)
{
	struct count_record *record;
	uint32_t *place, number;

	lock_acquire(&map->lock);
	place = count_map_place(map, entry);
	number = *place;
	assert(number);
	record = &map->record[number - 1];
	record->nr -= COUNT_PORTION;
	if (record->nr == 0) {
		*place = record->next;
		record->next = map->free;
		map->free = number;
	}
	lock_release(&map->lock);
}

static uint32_t count_map_get(struct count_map *map, uint64_t entry)
{
	uint32_t number, nr;

	lock_acquire(&map->lock);
	number = *count_map_place(map, entry);
	nr = number ? map->record[number - 1].nr : 0;
	lock_release(&map->lock);
	return nr;
}

/* The word is full: moves a portion of its count to the side. 0, or -EOVERFLOW. Under the table's lock. */
static int count_make_room(struct vswap *vswap, struct table *table, uint64_t entry)
{
	_Atomic uint64_t *place = table_word(table, entry);

	if (word_count(atomic_load(place)) < WORD_COUNT_MAX)
		return 0;
	if (!count_map_put(vswap->counts, entry))
		return -EOVERFLOW;
	atomic_fetch_sub(place, (uint64_t)COUNT_PORTION * WORD_COUNT_ONE);
	return 0;
}

/* 0; -ENOENT; -EOVERFLOW when the word is full. */
static int count_up(_Atomic uint64_t *place, unsigned floor)
{
	uint64_t word = atomic_load_explicit(place, memory_order_relaxed);

	do {
		if (word_tag(word) == WORD_NONE || word_count(word) < floor)
			return -ENOENT;
		if (BASE_UNLIKELY(word_count(word) == WORD_COUNT_MAX))
			return -EOVERFLOW;
	} while (!atomic_compare_exchange_weak(place, &word, word + WORD_COUNT_ONE));
	return 0;
}

int swap_count_up(struct vswap *vswap, struct table *table, uint64_t entry, unsigned floor)
{
	int err = count_up(table_word(table, entry), floor);

	return BASE_LIKELY(err != -EOVERFLOW) ? err : swap_count_up_run(vswap, table, entry, 1, floor);
}

int swap_count_up_run(struct vswap *vswap, struct table *table, uint64_t entry, uint32_t nr, unsigned floor)
{
	uint32_t nr_up = 0;
	int err = 0;

	lock_acquire(&table->lock);
	while (nr_up < nr && err == 0) {
		err = count_up(table_word(table, entry + nr_up), floor);
		if (err == 0)
			nr_up++;
		else if (err == -EOVERFLOW)
			err = count_make_room(vswap, table, entry + nr_up);
	}
	/* None of these is the last holder: nobody has taken any off meanwhile. */
	while (err < 0 && nr_up > 0)
		swap_count_down(vswap, table, entry + --nr_up);
	lock_release(&table->lock);
	return err;
}

uint64_t swap_count_down(struct vswap *vswap, struct table *table, uint64_t entry)
{
	_Atomic uint64_t *place = table_word(table, entry);
	uint64_t word = atomic_load_explicit(place, memory_order_relaxed), fresh;
	bool take;

	do {
		assert(word_count(word) > 0);
		/* The last that may be taken off the word alone, if a portion is kept: it comes back now. */
		take = word_count(word) == COUNT_LOW && count_map_get(vswap->counts, entry) != 0;
		fresh = word + (take ? (uint64_t)COUNT_PORTION * WORD_COUNT_ONE : 0) - WORD_COUNT_ONE;
	} while (!atomic_compare_exchange_weak(place, &word, fresh));
	if (take)
		count_map_take(vswap->counts, entry);
	return fresh;
}

uint32_t swap_count(struct vswap *vswap, struct table *table, uint64_t entry)
{
	uint64_t word = atomic_load_explicit(table_word(table, entry), memory_order_relaxed);
	uint32_t nr;

	if (word_tag(word) == WORD_NONE)
		return 0;
	if (BASE_LIKELY(word_count(word) < COUNT_LOW))
		return word_count(word);
	lock_acquire(&table->lock);
	nr = word_count(atomic_load(table_word(table, entry))) + count_map_get(vswap->counts, entry);
	lock_release(&table->lock);
	return nr;
}

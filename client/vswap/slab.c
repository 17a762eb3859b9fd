/*
 * Ordering. A slot's bit is set by the owner of its cluster before any word names the slot, and cleared after the epochs
 * say that nobody reads it any more; both are atomic read-modify-writes, since neighbours in the same 64 bits may be freed
 * by others at the same time. `owned` is taken by a compare-and-swap (acquire) and given back with release.
 */
#include "client/vswap/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/vswap/place.h"
#include "common/sys/rcu.h"

int slab_map_init(struct slab_map *map, uint32_t max_slabs, struct state *state)
{
	struct slab_list *list;
	int err;

	memset(map, 0, sizeof(*map));
	map->max_slabs = max_slabs;
	map->state = state;
	err = mem_region_open(&map->by_id_region, max_slabs * sizeof(*map->by_id), MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	map->by_id = map->by_id_region.base;
	list = calloc(1, sizeof(*list));
	if (!list) {
		mem_region_close(&map->by_id_region);
		return -ENOMEM;
	}
	atomic_store(&map->list, list);
	atomic_store(&map->generation, 1);
	return 0;
}

static void slab_free(struct slab *slab)
{
	mem_region_close(&slab->region);
	free(slab);
}

void slab_map_done(struct slab_map *map)
{
	uint32_t id;

	if (!map->by_id)
		return;
	for (id = 0; id < map->max_slabs; id++) {
		struct slab *slab = atomic_load(&map->by_id[id]);

		if (slab)
			slab_free(slab);
	}
	free(atomic_load(&map->list));
	mem_region_close(&map->by_id_region);
	map->by_id = NULL;
}

/* One region for all that a slab needs, each array on cache lines of its own. */
static int slab_alloc_arrays(struct slab *slab)
{
	size_t bitmap = base_align_up((slab->nr_slots + 63) / 64 * sizeof(uint64_t), FSW_CACHE_LINE);
	size_t reverse = base_align_up(slab->nr_slots * sizeof(uint32_t), FSW_CACHE_LINE);
	size_t owned = base_align_up(slab->nr_clusters, FSW_CACHE_LINE);
	char *at;
	unsigned i;
	int err;

	err = mem_region_open(&slab->region, bitmap * (SLAB_EPOCHS + 2) + reverse + owned, MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	at = slab->region.base;
	slab->used = (void *)at;
	slab->quarantined = (void *)(at + bitmap);
	at += 2 * bitmap;
	for (i = 0; i < SLAB_EPOCHS; i++, at += bitmap)
		slab->retired[i] = (void *)at;
	slab->reverse = (void *)at;
	slab->owned = (void *)(at + reverse);
	return 0;
}

/* Publishes the list with one slab more or less; NULL stands for none. */
static int slab_list_replace(struct slab_map *map, struct slab *add, struct slab *remove)
{
	struct slab_list *old = atomic_load(&map->list), *list;
	uint32_t i;
	int kind;

	list = calloc(1, sizeof(*list) + (old->nr + 1) * sizeof(list->slab[0]));
	if (!list)
		return -ENOMEM;
	for (kind = 0; kind < 2; kind++) {
		enum backend_kind wanted = kind == 0 ? BACKEND_REMOTE : BACKEND_DISK;

		for (i = 0; i < old->nr; i++)
			if (old->slab[i] != remove && old->slab[i]->backend->kind == wanted)
				list->slab[list->nr++] = old->slab[i];
		if (add && add->backend->kind == wanted)
			list->slab[list->nr++] = add;
		if (kind == 0)
			list->nr_remote = list->nr;
	}
	atomic_store_explicit(&map->list, list, memory_order_release);
	sys_rcu_synchronize();
	free(old);
	return 0;
}

/* A number that is on record for a slab on its way back to its server is not free. */
static bool slab_id_is_free(const struct slab_map *map, uint32_t id)
{
	return !atomic_load(&map->by_id[id]) &&
	       (!map->state || atomic_load(&state_slab(map->state, id)->status) == STATE_SLAB_NONE);
}

/* Puts it into the map. A word can name it as soon as it is in the list, so by then it is on record. */
static int slab_insert(struct slab_map *map, struct backend_slab *lent, uint32_t id)
{
	struct slab *slab;
	int err;

	slab = calloc(1, sizeof(*slab));
	if (!slab)
		return -ENOMEM;
	slab->lent = lent;
	slab->backend = lent->backend;
	slab->id = id;
	lent->id = id;
	slab->nr_slots = lent->nr_slots;
	slab->nr_clusters = (lent->nr_slots + SLAB_CLUSTER_SLOTS - 1) / SLAB_CLUSTER_SLOTS;
	slab->tag = lent->backend->kind == BACKEND_REMOTE ? WORD_REMOTE : WORD_DISK;
	err = slab_alloc_arrays(slab);
	if (err < 0)
		goto fail_slab;
	atomic_store_explicit(&map->by_id[id], slab, memory_order_release);
	err = slab_list_replace(map, slab, NULL);
	if (err < 0)
		goto fail_id;
	atomic_fetch_add(&map->metadata_bytes, slab->region.len_bytes + sizeof(*slab));
	atomic_fetch_add(&map->generation, 1);
	return 0;

fail_id:
	atomic_store(&map->by_id[id], NULL);
	mem_region_close(&slab->region);
fail_slab:
	free(slab);
	return err;
}

static bool slab_is_good(const struct backend_slab *lent)
{
	return base_is_power_of_two(lent->nr_slots) && lent->nr_slots >= SLAB_MIN_SLOTS && lent->nr_slots <= WORD_MAX_SLOTS;
}

int slab_add(struct slab_map *map, struct backend_slab *lent)
{
	uint32_t id;
	int err;

	if (!slab_is_good(lent))
		return -EINVAL;
	for (id = 0; id < map->max_slabs && !slab_id_is_free(map, id); id++)
		;
	if (id == map->max_slabs)
		return -ENOSPC;
	if (map->state)
		state_slab_hold(state_slab(map->state, id), lent->backend->record, lent->index, lent->key, lent->nr_slots);
	err = slab_insert(map, lent, id);
	if (err < 0 && map->state)
		atomic_store(&state_slab(map->state, id)->status, STATE_SLAB_NONE);
	return err;
}

int slab_add_again(struct slab_map *map, struct backend_slab *lent)
{
	if (!slab_is_good(lent) || lent->id >= map->max_slabs || atomic_load(&map->by_id[lent->id]))
		return -EINVAL;
	return slab_insert(map, lent, lent->id);
}

void slab_remove(struct slab_map *map, struct slab *slab)
{
	enum state_slab_status status = slab->backend->kind == BACKEND_DISK ? STATE_SLAB_NONE : STATE_SLAB_RETURNING;

	/* Without memory for a shorter list the slab stays in the old one, where its state keeps it from being used. */
	while (slab_list_replace(map, NULL, slab) < 0)
		sys_rcu_synchronize();
	atomic_store_explicit(&map->by_id[slab->id], NULL, memory_order_release);
	sys_rcu_synchronize();
	if (map->state)
		atomic_store(&state_slab(map->state, slab->id)->status, status);
	atomic_fetch_sub(&map->metadata_bytes, slab->region.len_bytes + sizeof(*slab));
	slab_free(slab);
}

/* Is its server in this state, and nothing else against new pages on it? */
static bool slab_is_open_with(const struct slab *slab, enum backend_state state)
{
	return atomic_load_explicit(&slab->state, memory_order_acquire) == SLAB_ACTIVE &&
	       backend_state(slab->backend) == state && !place_is_draining(slab->backend);
}

bool slab_is_stable(const struct slab *slab)
{
	return slab_is_open_with(slab, BACKEND_UP);
}

uint64_t slab_patience_ns(const struct slab *slab)
{
	return slab_is_open_with(slab, BACKEND_DOWN) ? slab->backend->patience_ns : 0;
}

static uint32_t slab_cluster_slots(const struct slab *slab)
{
	return slab->nr_slots < SLAB_CLUSTER_SLOTS ? slab->nr_slots : SLAB_CLUSTER_SLOTS;
}

/* First free slot of a cluster at or after `slot`, or the cluster's end. */
static uint32_t slab_find_free(const struct slab *slab, uint32_t slot, uint32_t end)
{
	while (slot < end) {
		uint64_t bits = ~atomic_load_explicit(&slab->used[slot / 64], memory_order_relaxed) >> slot % 64;

		if (bits)
			return slot + (uint32_t)__builtin_ctzll(bits);
		slot = (slot / 64 + 1) * 64;
	}
	return end;
}

static uint32_t slab_cluster_nr_free(const struct slab *slab, uint32_t cluster)
{
	uint32_t first = cluster * SLAB_CLUSTER_SLOTS / 64, i, nr_free = 0;

	for (i = 0; i < slab_cluster_slots(slab) / 64; i++)
		nr_free += (uint32_t)__builtin_popcountll(
			~atomic_load_explicit(&slab->used[first + i], memory_order_relaxed));
	return nr_free;
}

static bool slot_cursor_open(struct slot_cursor *cursor, struct slab *slab, uint32_t cluster)
{
	uint8_t unowned = 0;

	if (!atomic_compare_exchange_strong_explicit(&slab->owned[cluster], &unowned, 1, memory_order_acquire,
						     memory_order_relaxed))
		return false;
	cursor->slab = slab;
	cursor->cluster = cluster;
	cursor->next = cluster * SLAB_CLUSTER_SLOTS;
	atomic_store_explicit(&cursor->nr_opened,
			      atomic_load_explicit(&cursor->nr_opened, memory_order_relaxed) + 1, memory_order_relaxed);
	return true;
}

void slot_cursor_close(struct slab_map *map, struct slot_cursor *cursor)
{
	if (!cursor->slab)
		return;
	atomic_store_explicit(&cursor->slab->owned[cursor->cluster], 0, memory_order_release);
	atomic_fetch_add_explicit(&map->generation, 1, memory_order_release);
	cursor->slab = NULL;
}

/* The emptiest cluster of a slab that nobody has, with at least min_free free slots; UINT32_MAX when there is none. */
static uint32_t slab_find_cluster(const struct slab *slab, uint32_t min_free)
{
	uint32_t cluster, best = UINT32_MAX, best_free = min_free - 1;

	for (cluster = 0; cluster < slab->nr_clusters; cluster++) {
		uint32_t nr_free;

		if (atomic_load_explicit(&slab->owned[cluster], memory_order_relaxed))
			continue;
		nr_free = slab_cluster_nr_free(slab, cluster);
		if (nr_free > best_free) {
			best = cluster;
			best_free = nr_free;
		}
		if (nr_free == slab_cluster_slots(slab))
			break;
	}
	return best;
}

/* Opens one. When others are quicker it looks again: that somebody has that one does not mean that there is none. */
static bool slot_cursor_open_in(struct slot_cursor *cursor, struct slab *slab, uint32_t min_free)
{
	uint32_t cluster;

	if (!slab_is_stable(slab)) {
		cursor->passed_by = true;
		return false;
	}
	if (atomic_load_explicit(&slab->nr_used, memory_order_relaxed) >= slab->nr_slots)
		return false;
	do {
		cluster = slab_find_cluster(slab, min_free);
		if (cluster == UINT32_MAX)
			return false;
	} while (!slot_cursor_open(cursor, slab, cluster));
	return true;
}

/* How full it is, in 1/1024, made worse by the time its server takes. */
static uint64_t slab_cost(const struct slab *slab)
{
	uint64_t used = atomic_load_explicit(&slab->nr_used, memory_order_relaxed);
	uint64_t latency = atomic_load_explicit(&slab->backend->latency_ns, memory_order_relaxed);

	return used * 1024 / slab->nr_slots + base_min_u64(latency / 10000, 1024);
}

/*
 * Power of two choices (Mitzenmacher, 1996) between the slabs of servers: of two at random, the one that is emptier or
 * quicker. It spreads the load nearly as well as knowing everything, and a server that comes back empty draws no storm.
 */
static bool slot_cursor_open_chosen(struct slot_cursor *cursor, const struct slab_list *list)
{
	struct slab *one, *other;

	if (list->nr_remote == 0)
		return false;
	one = list->slab[rand_below(&cursor->rand, list->nr_remote)];
	other = list->slab[rand_below(&cursor->rand, list->nr_remote)];
	if (slab_cost(other) < slab_cost(one))
		one = other;
	return slot_cursor_open_in(cursor, one, slab_cluster_slots(one));
}

static bool slot_cursor_open_any(struct slot_cursor *cursor, const struct slab_list *list, uint32_t from, uint32_t to)
{
	uint32_t nr = to - from, start, i, pass;

	if (nr == 0)
		return false;
	start = (uint32_t)rand_below(&cursor->rand, nr);
	/* Whole clusters first: a run of pages then lies in a run of slots. */
	for (pass = 0; pass < 2; pass++)
		for (i = 0; i < nr; i++) {
			struct slab *slab = list->slab[from + (start + i) % nr];

			if (slot_cursor_open_in(cursor, slab, pass == 0 ? slab_cluster_slots(slab) : 1))
				return true;
		}
	return false;
}

static bool slot_cursor_find(struct slab_map *map, struct slot_cursor *cursor, enum slot_where where)
{
	uint64_t generation = atomic_load_explicit(&map->generation, memory_order_acquire);
	const struct slab_list *list = atomic_load_explicit(&map->list, memory_order_acquire);
	unsigned i;

	if (cursor->failed && cursor->failed_generation == generation)
		return false;
	cursor->failed = false;
	cursor->passed_by = false;
	if (where != SLOT_DISK_ONLY) {
		for (i = 0; i < 4; i++)
			if (slot_cursor_open_chosen(cursor, list))
				return true;
		if (slot_cursor_open_any(cursor, list, 0, list->nr_remote))
			return true;
	}
	if (where != SLOT_REMOTE_ONLY && slot_cursor_open_any(cursor, list, list->nr_remote, list->nr))
		return true;
	/* Of a server that is out of reach now nobody says when it is back: the next search looks again. */
	cursor->failed = where == SLOT_ANYWHERE && !cursor->passed_by;
	cursor->failed_generation = generation;
	return false;
}

static bool slab_has_retired(const struct slab *slab)
{
	unsigned e;

	for (e = 0; e < SLAB_EPOCHS; e++)
		if (atomic_load(&slab->has_retired[e]))
			return true;
	return false;
}

uint64_t slot_patience_ns(const struct slab_map *map)
{
	const struct slab_list *list = atomic_load_explicit(&map->list, memory_order_acquire);
	uint64_t patience_ns = 0;
	uint32_t i;

	for (i = 0; i < list->nr; i++) {
		const struct slab *slab = list->slab[i];

		/* What failed writes were to go to comes back with the server, too. */
		if (atomic_load_explicit(&slab->nr_used, memory_order_relaxed) < slab->nr_slots ||
		    atomic_load(&slab->has_quarantine) || slab_has_retired(slab))
			patience_ns = base_max_u64(patience_ns, slab_patience_ns(slab));
	}
	return patience_ns;
}

bool slot_is_coming(const struct slab_map *map, const struct slot_cursor *cursor)
{
	const struct slab_list *list = atomic_load_explicit(&map->list, memory_order_acquire);
	uint32_t i;

	for (i = 0; i < list->nr; i++) {
		const struct slab *slab = list->slab[i];

		/* A quarantine ends when its server is in reach; one that is not is waited for as such. */
		if (slab_has_retired(slab) || (atomic_load(&slab->has_quarantine) && slab_is_stable(slab)))
			return true;
	}
	/* In this order: `freeing` is set before one of these is cleared, and the generation has moved when it ends. */
	return atomic_load(&map->freeing) || atomic_load(&map->generation) != cursor->failed_generation;
}

static bool slot_cursor_fits(const struct slot_cursor *cursor, enum slot_where where)
{
	if (!slab_is_stable(cursor->slab))
		return false;
	if (where == SLOT_REMOTE_ONLY)
		return cursor->slab->backend->kind == BACKEND_REMOTE;
	if (where == SLOT_DISK_ONLY)
		return cursor->slab->backend->kind == BACKEND_DISK;
	return true;
}

static void slot_take(struct slot_cursor *cursor, uint32_t slot, uint64_t page)
{
	struct slab *slab = cursor->slab;

	/* Before the bit: who finds the bit set finds the page, too. */
	atomic_store_explicit(&slab->reverse[slot], (uint32_t)page, memory_order_relaxed);
	atomic_fetch_or_explicit(&slab->used[slot / 64], 1ull << slot % 64, memory_order_release);
	atomic_fetch_add_explicit(&slab->nr_used, 1, memory_order_relaxed);
	cursor->next = slot + 1;
}

static uint32_t slot_cursor_end(const struct slot_cursor *cursor)
{
	return cursor->cluster * SLAB_CLUSTER_SLOTS + slab_cluster_slots(cursor->slab);
}

bool slot_alloc_at(struct slot_cursor *cursor, struct slab *slab, uint32_t slot, uint64_t page)
{
	if (cursor->slab != slab || slot != cursor->next || slot == slot_cursor_end(cursor) || !slab_is_stable(slab) ||
	    slab_find_free(slab, slot, slot + 1) != slot)
		return false;
	slot_take(cursor, slot, page);
	return true;
}

int slot_alloc(struct slab_map *map, struct slot_cursor *cursor, enum slot_where where, uint64_t page,
	       struct slab **ret_slab, uint32_t *ret_slot)
{
	for (;;) {
		struct slab *slab = cursor->slab;
		uint32_t slot, end;

		if (!slab || !slot_cursor_fits(cursor, where)) {
			slot_cursor_close(map, cursor);
			if (!slot_cursor_find(map, cursor, where))
				return -ENOSPC;
			slab = cursor->slab;
		}
		end = slot_cursor_end(cursor);
		slot = slab_find_free(slab, cursor->next, end);
		if (slot == end) {
			slot_cursor_close(map, cursor);
			continue;
		}
		slot_take(cursor, slot, page);
		*ret_slab = slab;
		*ret_slot = slot;
		return 0;
	}
}

/* Walks a run of slots by the 64-bit words of a bitmap: the next word's index and the mask of its bits, false at the end. */
static bool slab_run_next(uint32_t *slot, uint32_t end, uint32_t *ret_index, uint64_t *ret_mask)
{
	uint32_t nr;

	if (*slot >= end)
		return false;
	nr = (uint32_t)base_min_u64(64 - *slot % 64, end - *slot);
	*ret_index = *slot / 64;
	*ret_mask = (nr == 64 ? ~0ull : (1ull << nr) - 1) << *slot % 64;
	*slot += nr;
	return true;
}

void slot_free_unused(struct slab_map *map, struct slab *slab, uint32_t slot, uint32_t nr_slots)
{
	uint32_t at = slot, i;
	uint64_t mask;

	while (slab_run_next(&at, slot + nr_slots, &i, &mask))
		atomic_fetch_and_explicit(&slab->used[i], ~mask, memory_order_release);
	atomic_fetch_sub_explicit(&slab->nr_used, nr_slots, memory_order_release);
	atomic_fetch_add_explicit(&map->generation, 1, memory_order_release);
}

void slot_retire(struct slab *slab, uint32_t slot, uint32_t nr_slots, uint64_t epoch)
{
	uint32_t end = slot + nr_slots;
	uint64_t mask;
	uint32_t i;

	while (slab_run_next(&slot, end, &i, &mask))
		atomic_fetch_or_explicit(&slab->retired[epoch % SLAB_EPOCHS][i], mask, memory_order_relaxed);
	atomic_store_explicit(&slab->has_retired[epoch % SLAB_EPOCHS], true, memory_order_release);
}

void slot_quarantine(struct slab *slab, uint32_t slot, uint64_t fence)
{
	uint64_t highest = atomic_load(&slab->quarantine_fence);

	/* One fence for the slab: the latest, which settles the earlier ones as well. */
	while (highest < fence && !atomic_compare_exchange_weak(&slab->quarantine_fence, &highest, fence))
		;
	atomic_fetch_or(&slab->quarantined[slot / 64], 1ull << slot % 64);
	atomic_store(&slab->has_quarantine, true);
}

static uint32_t slab_free_bits(struct slab *slab, uint32_t index, uint64_t bits)
{
	uint32_t nr = (uint32_t)__builtin_popcountll(bits);

	atomic_fetch_and_explicit(&slab->used[index], ~bits, memory_order_release);
	atomic_fetch_sub_explicit(&slab->nr_used, nr, memory_order_release);
	return nr;
}

uint64_t slab_free_retired(struct slab_map *map, uint64_t epoch)
{
	const struct slab_list *list = atomic_load_explicit(&map->list, memory_order_acquire);
	uint64_t nr = 0;
	uint32_t i, j;

	atomic_store(&map->freeing, true);
	for (i = 0; i < list->nr; i++) {
		struct slab *slab = list->slab[i];

		if (!atomic_exchange(&slab->has_retired[epoch % SLAB_EPOCHS], false))
			continue;
		for (j = 0; j < slab->nr_slots / 64; j++) {
			uint64_t bits = atomic_exchange(&slab->retired[epoch % SLAB_EPOCHS][j], 0);

			if (bits)
				nr += slab_free_bits(slab, j, bits);
		}
	}
	if (nr)
		atomic_fetch_add(&map->generation, 1);
	atomic_store(&map->freeing, false);
	return nr;
}

/* Whether the failed writes to a slab, up to the one whose fence is `fence`, can touch it no more. */
static bool slab_is_settled(const struct slab *slab, uint64_t fence)
{
	return backend_state(slab->backend) == BACKEND_LOST || backend_write_settled(slab->backend, fence);
}

uint64_t slab_retire_quarantined(struct slab_map *map, uint64_t epoch, bool *ret_left)
{
	const struct slab_list *list = atomic_load_explicit(&map->list, memory_order_acquire);
	uint64_t nr = 0, fence;
	bool left = false, moved = false;
	uint32_t i, j;

	atomic_store(&map->freeing, true);
	for (i = 0; i < list->nr; i++) {
		struct slab *slab = list->slab[i];

		if (!atomic_load(&slab->has_quarantine))
			continue;
		fence = atomic_load(&slab->quarantine_fence);
		if (!slab_is_settled(slab, fence)) {
			left = true;
			continue;
		}
		moved = true;
		atomic_store(&slab->has_quarantine, false);
		for (j = 0; j < slab->nr_slots / 64; j++) {
			uint64_t bits = atomic_load(&slab->quarantined[j]);

			if (!bits)
				continue;
			/* The fence is raised before the bit is set: with the same fence, none of these bits is newer. */
			if (atomic_load(&slab->quarantine_fence) != fence) {
				atomic_store(&slab->has_quarantine, true);
				left = true;
				break;
			}
			atomic_fetch_or(&slab->retired[epoch % SLAB_EPOCHS][j], bits);
			atomic_fetch_and(&slab->quarantined[j], ~bits);
			atomic_store(&slab->has_retired[epoch % SLAB_EPOCHS], true);
			nr += (uint32_t)__builtin_popcountll(bits);
		}
	}
	if (moved)
		atomic_fetch_add(&map->generation, 1);
	atomic_store(&map->freeing, false);
	*ret_left = left;
	return nr;
}

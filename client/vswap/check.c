/*
 * Compares what is derived (slot bitmaps, reverse map, counts) with the forward words, which are the only truth.
 *
 * Each thing is looked at by itself: an entry, an allocated slot, a table, a slab. On a device in use some of them are in
 * between two steps of somebody's: a slot that a write under way has taken is named by no word yet, a move has two slots for
 * one entry. So what looks wrong is only a suspect. It is looked at again when what was under way has ended, and is a
 * difference when it is still wrong in exactly the same way.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/vswap/swapcache.h"
#include "common/log/log.h"

#define CHECK_MAX_SUSPECTS 4096u
#define CHECK_ROUNDS 20u
#define CHECK_SETTLE_POLLS 50u
#define CHECK_POLL_NS (1 * SYS_NS_PER_MS)

enum suspect_kind { SUSPECT_ENTRY, SUSPECT_SLOT, SUSPECT_TABLE, SUSPECT_SLAB };

struct suspect {
	enum suspect_kind kind;
	uint64_t at;	      /* page, or swp_slot_t, or slab */
	uint64_t evidence[2]; /* what was seen: the same again is no coincidence */
	char text[VSWAP_CHECK_TEXT];
};

struct check {
	struct vswap *vswap;
	bool live;
	struct suspect *suspects;
	uint32_t nr_suspects;
	struct vswap_check_result *result;
	uint64_t nr_tag[WORD_NR_TAGS];
};

/* ---- one thing each: true when it looks wrong; read-side section ---- */

static bool wrong(struct suspect *suspect, uint64_t evidence_0, uint64_t evidence_1, const char *fmt, ...)
	BASE_PRINTF(4, 5);

static bool wrong(struct suspect *suspect, uint64_t evidence_0, uint64_t evidence_1, const char *fmt, ...)
{
	va_list args;

	suspect->evidence[0] = evidence_0;
	suspect->evidence[1] = evidence_1;
	va_start(args, fmt);
	vsnprintf(suspect->text, sizeof(suspect->text), fmt, args);
	va_end(args);
	return true;
}

/* Is an entry that is something held, and does a folio stand for it exactly if it says so? */
static bool check_holders(struct suspect *suspect, const struct table_look *look)
{
	bool has_folio;

	if (word_tag(look->word) == WORD_NONE)
		return false;
	has_folio = swapcache_find(look->table, suspect->at) != NULL;
	if (has_folio != word_is_cached(look->word))
		return wrong(suspect, look->word, has_folio, "entry %" PRIu64 " is%s cached, and %s folio stands for it",
			     suspect->at, has_folio ? " not" : "", has_folio ? "a" : "no");
	if (word_count(look->word) == 0 && !has_folio)
		return wrong(suspect, look->word, 0, "entry %" PRIu64 " is held by nobody", suspect->at);
	if (word_tag(look->word) == WORD_FOLIO && !has_folio)
		return wrong(suspect, look->word, 0, "entry %" PRIu64 " has its bytes in a folio that is not there",
			     suspect->at);
	return false;
}

/* Is the object that an entry names in the pool, and for this entry? */
static bool check_object(struct check *check, struct suspect *suspect, const struct table_look *look)
{
	uint64_t owner;

	if (check->vswap->comp && comp_is_used(check->vswap->comp, word_payload(look->word), &owner) &&
	    owner == suspect->at)
		return false;
	return wrong(suspect, look->word, 0, "entry %" PRIu64 " names object %" PRIu64 " of the pool, which is not its own",
		     suspect->at, word_payload(look->word));
}

/* Does the slot that an entry names exist, is it allocated, and for this entry? No two entries can both pass. */
static bool check_entry(struct check *check, struct suspect *suspect)
{
	uint32_t id, slot, reverse;
	struct table_look look;
	struct slab *slab;

	table_look(&check->vswap->tables, suspect->at, &look);
	if (check_holders(suspect, &look))
		return true;
	if (word_is_claimed(look.word))
		return !check->live &&
		       wrong(suspect, look.word, 0, "page %" PRIu64 " is claimed and nobody is at work", suspect->at);
	if (word_tag(look.word) == WORD_COMP)
		return check_object(check, suspect, &look);
	if (!word_has_slot(look.word))
		return false;
	id = swp_slot_slab(word_slot(look.word));
	slot = swp_slot_index(word_slot(look.word));
	slab = id < check->vswap->slabs.max_slabs ? slab_by_id(&check->vswap->slabs, id) : NULL;
	if (!slab || slot >= slab->nr_slots)
		return wrong(suspect, look.word, 0, "page %" PRIu64 " names slot %u of slab %u, which does not exist",
			     suspect->at, slot, id);
	if (slab->tag != word_tag(look.word))
		return wrong(suspect, look.word, 0, "page %" PRIu64 " has the wrong tag for slab %u", suspect->at, id);
	if (!(slab_live_bits(slab, slot / 64) >> slot % 64 & 1))
		return wrong(suspect, look.word, 0, "page %" PRIu64 " names slot %u of slab %u, which is free",
			     suspect->at, slot, id);
	reverse = atomic_load(&slab->reverse[slot]);
	if (reverse != (uint32_t)suspect->at)
		return wrong(suspect, look.word, reverse,
			     "page %" PRIu64 " names slot %u of slab %u, whose reverse map says page %u", suspect->at,
			     slot, id, reverse);
	return false;
}

/* Does the entry that an allocated slot is for name it? */
static bool check_slot(struct check *check, struct suspect *suspect)
{
	uint32_t id = swp_slot_slab((swp_slot_t){ suspect->at }), slot = swp_slot_index((swp_slot_t){ suspect->at });
	struct slab *slab = slab_by_id(&check->vswap->slabs, id);
	struct table_look look;
	uint64_t page;

	if (!slab || !(slab_live_bits(slab, slot / 64) >> slot % 64 & 1))
		return false;
	page = atomic_load(&slab->reverse[slot]);
	if (page >= check->vswap->tables.nr_pages)
		return wrong(suspect, page, 0, "slot %u of slab %u is for page %" PRIu64 ", behind the end", slot, id,
			     page);
	table_look(&check->vswap->tables, page, &look);
	/* A claimed entry is being written: to this slot, or away from it. */
	if (vswap_word_is_at(look.word, slab, slot) || (check->live && word_is_claimed(look.word)))
		return false;
	return wrong(suspect, page, look.word, "slot %u of slab %u is allocated for page %" PRIu64 ", which does not name it",
		     slot, id, page);
}

/* Does the map of clusters know a table whose entries can be allocated for what it is? */
static bool check_cluster(struct check *check, struct suspect *suspect, struct table *table)
{
	struct cluster_map *map = &check->vswap->clusters;
	uint32_t nr_words = 0, nr_entries, i;
	enum cluster_place place;
	bool in_use;

	lock_acquire(&table->lock);
	for (i = 0; i < TABLE_ENTRIES; i++)
		nr_words += word_tag(atomic_load(&table->word[i])) != WORD_NONE;
	nr_entries = table->nr_entries;
	lock_acquire(&map->lock);
	in_use = cluster_is_in_use(map, table->cluster);
	place = (enum cluster_place)atomic_load(&table->place);
	lock_release(&map->lock);
	lock_release(&table->lock);
	if (nr_words != nr_entries)
		return wrong(suspect, nr_entries, nr_words, "cluster %u counts %u entries and has %u", table->cluster,
			     nr_entries, nr_words);
	if (in_use != (place != CLUSTER_UNUSED) || (place != CLUSTER_OWNED && place != cluster_place_for(nr_entries)))
		return wrong(suspect, place, nr_entries, "cluster %u with %u entries is %s use, at place %d",
			     table->cluster, nr_entries, in_use ? "in" : "out of", (int)place);
	return false;
}

static bool check_table(struct check *check, struct suspect *suspect)
{
	struct table *table = table_lookup(&check->vswap->tables, suspect->at);
	bool allocated = swap_range_is_valid(check->vswap, suspect->at, 1);
	uint32_t i, nr_words = 0, live;

	if (!table)
		return false;
	if (allocated && check_cluster(check, suspect, table))
		return true;
	for (i = 0; i < TABLE_ENTRIES; i++)
		nr_words += word_tag(atomic_load(&table->word[i])) != WORD_NONE;
	/* Who writes, and the map of clusters, pins the table and is counted before he is seen: more, then, but never less. */
	live = atomic_load(&table->live);
	if (check->live || allocated ? live >= nr_words : live == nr_words && nr_words != 0)
		return false;
	return wrong(suspect, live, nr_words, "the table of page %" PRIu64 " counts %u live entries and has %u", suspect->at,
		     live, nr_words);
}

static bool check_slab(struct check *check, struct suspect *suspect)
{
	struct slab *slab = slab_by_id(&check->vswap->slabs, (uint32_t)suspect->at);
	uint32_t i, nr_bits = 0, nr_used;

	if (!slab)
		return false;
	for (i = 0; i < slab->nr_slots / 64; i++)
		nr_bits += (uint32_t)__builtin_popcountll(atomic_load(&slab->used[i]));
	nr_used = atomic_load(&slab->nr_used);
	if (nr_bits == nr_used)
		return false;
	return wrong(suspect, nr_bits, nr_used, "slab %u counts %u used slots and has %u", slab->id, nr_used, nr_bits);
}

static bool check_suspect(struct check *check, struct suspect *suspect)
{
	switch (suspect->kind) {
	case SUSPECT_ENTRY:
		return check_entry(check, suspect);
	case SUSPECT_SLOT:
		return check_slot(check, suspect);
	case SUSPECT_TABLE:
		return check_table(check, suspect);
	default:
		return check_slab(check, suspect);
	}
}

/* ---- everything, once ---- */

static void report(struct check *check, const char *text)
{
	struct vswap_check_result *result = check->result;

	log_error("check: %s", text);
	if (result->nr_differences < VSWAP_CHECK_MAX_LISTED)
		snprintf(result->difference[result->nr_differences], VSWAP_CHECK_TEXT, "%s", text);
	result->nr_differences++;
}

static void look_at(struct check *check, enum suspect_kind kind, uint64_t at)
{
	struct suspect suspect = { .kind = kind, .at = at };

	if (!check_suspect(check, &suspect))
		return;
	if (!check->live)
		report(check, suspect.text);
	else if (check->nr_suspects < CHECK_MAX_SUSPECTS)
		check->suspects[check->nr_suspects++] = suspect;
	else
		check->result->nr_unsettled++;
}

/* One table; its read-side section is its own, so that tables and slabs can go between two. */
static void walk_table(struct check *check, uint64_t first)
{
	struct table *table;
	uint32_t i;

	sys_rcu_read_lock();
	table = table_lookup(&check->vswap->tables, first);
	for (i = 0; table && i < TABLE_ENTRIES && first + i < check->vswap->tables.nr_pages; i++) {
		enum word_tag tag = word_tag(atomic_load(&table->word[i]));

		check->nr_tag[tag]++;
		check->result->nr_entries += tag != WORD_NONE;
		look_at(check, SUSPECT_ENTRY, first + i);
	}
	look_at(check, SUSPECT_TABLE, first);
	sys_rcu_read_unlock();
}

static void walk_slab(struct check *check, uint32_t id)
{
	struct slab *slab;
	uint32_t i;

	sys_rcu_read_lock();
	slab = slab_by_id(&check->vswap->slabs, id);
	for (i = 0; slab && i < slab->nr_slots / 64; i++) {
		uint64_t bits = slab_live_bits(slab, i);

		for (; bits; bits &= bits - 1) {
			check->result->nr_slots++;
			look_at(check, SUSPECT_SLOT, swp_slot(id, i * 64 + (uint32_t)__builtin_ctzll(bits)).val);
		}
	}
	look_at(check, SUSPECT_SLAB, id);
	sys_rcu_read_unlock();
}

static uint64_t next_table(struct vswap *vswap, uint64_t page)
{
	sys_rcu_read_lock();
	page = table_skip_empty(&vswap->tables, page);
	sys_rcu_read_unlock();
	return page;
}

static void walk(struct check *check)
{
	struct vswap *vswap = check->vswap;
	uint64_t page;
	uint32_t id;

	for (page = next_table(vswap, 0); page < vswap->tables.nr_pages; page = next_table(vswap, page + TABLE_ENTRIES))
		walk_table(check, page);
	for (id = 0; id < vswap->slabs.max_slabs; id++)
		walk_slab(check, id);
}

static void check_tags(struct check *check, const struct vswap_stats *stats)
{
	static const char *const name[WORD_NR_TAGS] = { "none", "same", "remote", "disk", "poisoned", "in a folio",
						"compressed" };
	const uint64_t counted[WORD_NR_TAGS] = { 0, stats->nr_same, stats->nr_remote, stats->nr_disk,
						 stats->nr_poisoned, stats->nr_folio, stats->nr_comp };
	char text[VSWAP_CHECK_TEXT];
	unsigned tag;

	for (tag = WORD_SAME; tag < WORD_NR_TAGS; tag++) {
		if (counted[tag] == check->nr_tag[tag])
			continue;
		snprintf(text, sizeof(text), "%" PRIu64 " entries are counted as %s, there are %" PRIu64, counted[tag],
			 name[tag], check->nr_tag[tag]);
		report(check, text);
	}
}

/* On a quiet device, with nothing on its way to being free: no object is without an entry. */
static void check_pool(struct check *check, const struct vswap_stats *stats)
{
	char text[VSWAP_CHECK_TEXT];

	if (stats->comp.nr_objects == check->nr_tag[WORD_COMP])
		return;
	snprintf(text, sizeof(text), "%" PRIu64 " pages are in the pool, and %" PRIu64 " entries name one",
		 stats->comp.nr_objects, check->nr_tag[WORD_COMP]);
	report(check, text);
}

/* ---- the suspects, until each is settled ---- */

/*
 * Waits until what was under way has ended: every reactor's turn, and every move. A move is inside the mover's epoch all the
 * time; and a write has its entries claimed, which excuses them. False: a move goes on and on.
 */
static bool settle(struct vswap *vswap)
{
	struct epoch_queue *mover = &vswap_mover_queue(vswap)->epoch;
	uint64_t epoch = epoch_now(&vswap->epoch);
	unsigned i, seen_empty = 0;

	for (i = 0; i < CHECK_SETTLE_POLLS; i++) {
		unsigned bucket;

		sys_rcu_synchronize();
		for (bucket = 0; bucket < EPOCH_BUCKETS; bucket++)
			if (atomic_load(&mover->nr_inside[bucket]) == 0)
				seen_empty |= 1u << bucket;
		if (seen_empty == (1u << EPOCH_BUCKETS) - 1 || epoch_now(&vswap->epoch) >= epoch + 2)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = CHECK_POLL_NS }, NULL);
	}
	return false;
}

/* True when the suspect is settled, one way or the other. */
static bool judge(struct check *check, struct suspect *suspect, bool settled)
{
	uint64_t before[2] = { suspect->evidence[0], suspect->evidence[1] };
	bool is_wrong;

	sys_rcu_read_lock();
	is_wrong = check_suspect(check, suspect);
	sys_rcu_read_unlock();
	if (!is_wrong)
		return true;
	if (!settled || memcmp(before, suspect->evidence, sizeof(before)) != 0)
		return false;
	report(check, suspect->text);
	return true;
}

static void judge_suspects(struct check *check)
{
	unsigned round;
	uint32_t i, nr_left;

	for (round = 0; round < CHECK_ROUNDS && check->nr_suspects; round++) {
		bool settled = settle(check->vswap);

		nr_left = 0;
		for (i = 0; i < check->nr_suspects; i++)
			if (!judge(check, &check->suspects[i], settled))
				check->suspects[nr_left++] = check->suspects[i];
		check->nr_suspects = nr_left;
	}
	check->result->nr_unsettled += check->nr_suspects;
}

/* ---- the calls ---- */

/* Nothing was written, discarded or moved elsewhere between the two. */
static bool stood_still(const struct vswap_stats *a, const struct vswap_stats *b)
{
	return a->nr_writes == b->nr_writes && a->nr_discards == b->nr_discards && a->nr_same == b->nr_same &&
	       a->nr_remote == b->nr_remote && a->nr_disk == b->nr_disk && a->nr_poisoned == b->nr_poisoned &&
	       a->nr_folio == b->nr_folio && a->nr_comp == b->nr_comp;
}

uint64_t vswap_check(struct vswap *vswap)
{
	struct vswap_check_result result = { 0 };
	struct check check = { .vswap = vswap, .result = &result };
	struct vswap_stats stats;

	walk(&check);
	vswap_stats(vswap, &stats);
	check_tags(&check, &stats);
	check_pool(&check, &stats);
	return result.nr_differences;
}

int vswap_check_live(struct vswap *vswap, struct vswap_check_result *ret_result)
{
	struct check check = { .vswap = vswap, .live = true, .result = ret_result };
	struct vswap_stats before, after;

	check.suspects = calloc(CHECK_MAX_SUSPECTS, sizeof(*check.suspects));
	if (!check.suspects)
		return -ENOMEM;
	memset(ret_result, 0, sizeof(*ret_result));
	vswap_stats(vswap, &before);
	walk(&check);
	sys_rcu_synchronize(); /* what was published has been counted */
	vswap_stats(vswap, &after);
	if (stood_still(&before, &after))
		check_tags(&check, &after);
	judge_suspects(&check);
	free(check.suspects);
	return 0;
}

/* Of the model in swap_model.h: what calls return, and what can be seen at other times, against what it says. */
#include "tests/sim/swap_model.h"

#include <inttypes.h>
#include <stdio.h>

#include "client/vswap/folio.h"
#include "client/vswap/page.h"
#include "client/vswap/swapcache.h"

/* ---- judging ---- */

#define MODEL_CALL_NAME(name) #name,

static const char *const call_name[MODEL_NR_CALLS] = { MODEL_CALLS(MODEL_CALL_NAME) };

#define MODEL_ERROR(name) { -name, "-" #name },

static const struct {
	int err;
	const char *name;
} results[MODEL_NR_RESULTS] = { { 0, "0" }, { 1, "1" }, MODEL_ERRORS(MODEL_ERROR) };

static uint64_t seen[MODEL_NR_CALLS][MODEL_NR_RESULTS];

void model_fail(struct swap_model *m, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fail_msg("seed %" PRIu64 ", operation %" PRIu64 ": %s", m->seed, m->nr_ops, text);
}

int model_judge(struct swap_model *m, enum model_call call, int got, unsigned allowed)
{
	char text[256] = "";
	unsigned r;

	m->nr_ops++;
	for (r = 0; r < MODEL_NR_RESULTS && results[r].err != got; r++)
		;
	if (r < MODEL_NR_RESULTS && allowed >> r & 1) {
		seen[call][r]++;
		return got;
	}
	for (r = 0; r < MODEL_NR_RESULTS; r++)
		if (allowed >> r & 1)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s", results[r].name);
	model_fail(m, "%s has returned %d, and may return%s", call_name[call], got, text);
	return got;
}

bool model_print_seen(void)
{
	unsigned call, r, nr_never = 0;

	for (call = 0; call < MODEL_NR_CALLS; call++) {
		uint64_t nr = 0;

		print_message("%s:", call_name[call]);
		for (r = 0; r < MODEL_NR_RESULTS; r++) {
			if (seen[call][r])
				print_message(" %s %" PRIu64, results[r].name, seen[call][r]);
			nr += seen[call][r];
		}
		nr_never += nr == 0;
		print_message("\n");
	}
	return nr_never == 0;
}

int model_judge_bool(struct swap_model *m, enum model_call call, bool got, bool wanted)
{
	return model_judge(m, call, got, wanted ? MAY(1) : MAY(0));
}

static bool has_run(struct swap_model *m, uint32_t cluster, uint32_t nr)
{
	const struct model_entry *e = &m->entry[(uint64_t)cluster * TABLE_ENTRIES];
	uint32_t i, nr_free = 0;

	for (i = 0; i < TABLE_ENTRIES && nr_free < nr; i++) {
		if (i % nr == 0)
			nr_free = 0;
		nr_free += e[i].backing == BACKING_NONE;
	}
	return nr_free == nr;
}

/*
 * A cluster that is not in use is always found, and single entries wherever they are; if that is where another queue allocates,
 * it is asked for them. Of clusters that have free entries, but perhaps no run of them, only so many are looked at.
 */
unsigned model_may_fail(struct swap_model *m, unsigned order, int err, uint32_t nr_free_tables)
{
	struct vswap *vswap = m->f->vswap;
	uint32_t c, nr_owned = 0, nr_unused = 0, nr_listed = 0, nr_with_run = 0;

	if (err == -ENOMEM && nr_free_tables < 3 && atomic_load(&vswap->tables.nr_free) == 0)
		return MAY(ENOMEM); /* it takes a node, a table, and one for the folios at most */
	for (c = 0; c < m->nr / TABLE_ENTRIES; c++) {
		struct table *table = table_lookup(&vswap->tables, m->first + (uint64_t)c * TABLE_ENTRIES);

		if (!cluster_is_in_use(&vswap->clusters, (m->first >> TABLE_SHIFT) + c)) {
			nr_unused++;
		} else if (atomic_load(&table->place) == CLUSTER_OWNED) {
			nr_owned++;
		} else if (m->nr_live[c] < TABLE_ENTRIES) {
			nr_listed++;
			nr_with_run += has_run(m, c, 1u << order);
		}
	}
	if (nr_unused || (nr_listed && nr_listed == nr_with_run))
		return MAY(0);
	m->nr_early += nr_with_run != 0;
	return order == 0 && nr_owned ? MAY(ENOMEM) : MAY(ENOSPC);
}

/* ---- comparing ---- */

void model_check_entry(struct swap_model *m, uint64_t entry)
{
	struct model_entry *e = model_entry(m, entry);
	unsigned backings = model_backings(m, entry), backing;
	struct table_look look;
	struct folio *folio;

	table_look(&m->f->vswap->tables, entry, &look);
	backing = model_backing_of(look.word);
	if (!(backings >> backing & 1))
		model_fail(m, "entry %" PRIu64 " is backed by %u, and may be by %x", entry, backing, backings);
	if (e->backing == BACKING_COMP && backings == (1u << BACKING_COMP | 1u << BACKING_SLOT))
		e->backing = (uint8_t)backing; /* from a slot it does not come back */
	if (word_tag(look.word) == WORD_SAME && (!e->folio || !model_may_save_the_slot(e->folio->request.doing)) &&
	    word_payload(look.word) != e->value)
		model_fail(m, "entry %" PRIu64 " repeats another value than it should", entry);
	if (swp_swapcount(model_queue(m, 0), (swp_entry_t){ entry }) != e->nr)
		model_fail(m, "entry %" PRIu64 " has %u holders, and should have %u", entry,
			   swp_swapcount(model_queue(m, 0), (swp_entry_t){ entry }), e->nr);
	folio = swap_cache_get_folio(model_queue(m, 0), (swp_entry_t){ entry });
	if (folio != (e->folio ? &e->folio->folio : NULL))
		model_fail(m, "another folio stands for entry %" PRIu64 " than should", entry);
	if (folio)
		folio_put(folio);
}

void model_check_folio(struct swap_model *m, struct model_folio *f)
{
	uint32_t flags = folio_flags(&f->folio);

	seen[CALL_folio_flags][RESULT_0]++;
	if (flags != f->flags)
		model_fail(m, "folio %d has flags %x, and should have %x", (int)(f - m->folio), flags, f->flags);
	if (f->folio.refs_ != f->refs)
		model_fail(m, "folio %d has %u references, and should have %u", (int)(f - m->folio), f->folio.refs_, f->refs);
	if (folio_is_locked(&f->folio) != f->locked)
		model_fail(m, "folio %d is%s locked", (int)(f - m->folio), f->locked ? " not" : "");
	if (model_is_cached(f) && f->folio.swap.val != f->first)
		model_fail(m, "folio %d is for another entry than it should be", (int)(f - m->folio));
}

/* The table of a cluster is there exactly as long as somebody needs it; so is the array of its folios. */
static void check_cluster(struct swap_model *m, uint32_t c, uint64_t *nr_tables, uint64_t *nr_in_use)
{
	struct vswap *vswap = m->f->vswap;
	struct table *table = table_lookup(&vswap->tables, m->first + (uint64_t)c * TABLE_ENTRIES);
	bool in_use = cluster_is_in_use(&vswap->clusters, (m->first >> TABLE_SHIFT) + c);
	bool owned = table && atomic_load(&table->place) == CLUSTER_OWNED;

	if (in_use != (m->nr_live[c] || owned) || (table != NULL) != (in_use || model_is_pinned(m, c)))
		model_fail(m, "cluster %u with %u entries is%s in use, and has %s table", c, m->nr_live[c],
			   in_use ? "" : " not", table ? "a" : "no");
	*nr_in_use += in_use;
	*nr_tables += table != NULL;
	if (!table)
		return;
	if (table->nr_entries != m->nr_live[c] || table->nr_folios != m->nr_cached[c])
		model_fail(m, "cluster %u counts %u entries and %u in the cache, and has %u and %u", c, table->nr_entries,
			   table->nr_folios, m->nr_live[c], m->nr_cached[c]);
	if (!atomic_load(&table->folios) ? m->nr_cached[c] != 0 : m->nr_cached[c] == 0 && !owned)
		model_fail(m, "cluster %u with %u in the cache has the wrong array of folios", c, m->nr_cached[c]);
	*nr_tables += atomic_load(&table->folios) != NULL;
}

void model_check_all(struct swap_model *m)
{
	struct vswap_stats stats;
	uint64_t i, nr_hibernation = 0, nr_tables = 0, nr_in_use = 0;

	for (i = 0; i < m->nr; i++)
		model_check_entry(m, m->first + i);
	for (i = 0; i < MODEL_NR_FOLIOS; i++)
		if (m->folio[i].used)
			model_check_folio(m, &m->folio[i]);
	for (i = 0; i < MODEL_NR_WAITERS; i++)
		if (m->waiter[i].busy && m->waiter[i].granted && m->waiter[i].granted + 200 < m->turn)
			model_fail(m, "who waits longest has been handed a lock and is not told");
	for (i = 0; i < MODEL_NR_HIBERNATIONS; i++)
		nr_hibernation += m->hibernation[i].used;
	for (i = 0; i < m->nr / TABLE_ENTRIES; i++)
		check_cluster(m, (uint32_t)i, &nr_tables, &nr_in_use);
	vswap_stats(m->f->vswap, &stats);
	for (i = 0; i < m->f->vswap->tables.nr_nodes; i++)
		nr_tables += atomic_load(&m->f->vswap->tables.root[i]) != NULL;
	if (stats.nr_hibernation != nr_hibernation || stats.nr_tables != nr_tables ||
	    atomic_load(&m->f->vswap->clusters.nr_in_use) != nr_in_use)
		model_fail(m, "%" PRIu64 " tables, %" PRIu64 " clusters and %" PRIu64 " hibernation slots are counted wrongly",
			   nr_tables, nr_in_use, nr_hibernation);
}

void model_check_after_grace(struct swap_model *m)
{
	struct table_map *tables = &m->f->vswap->tables;
	unsigned i;

	if (atomic_load(&tables->nr_free) + atomic_load(&tables->nr_tables) != m->nr_tables)
		model_fail(m, "a table is lost, or there is one too many");
	for (i = 0; i < MODEL_NR_FOLIOS; i++) {
		struct model_folio *f = &m->folio[i];

		if (!f->used)
			continue;
		if (f->refs != 0 ? f->nr_released != 0 : f->nr_released != 1)
			model_fail(m, "folio %u with %u references was released %u times", i, f->refs, f->nr_released);
		f->used = f->refs != 0;
		seen[CALL_folio_release][RESULT_0] += f->refs == 0;
	}
}

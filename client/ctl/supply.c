#include "client/ctl/supply.h"

#define DEFAULT_AHEAD_SLABS 4u
/* While a drain looks for room, this many times more is kept ahead: it moves faster than anybody swaps. */
#define DRAIN_AHEAD_FACTOR 3u
/* A server this slow counts half. */
#define LATENCY_REFERENCE_NS 100000u

void supply_add_up(const struct supply_source *sources, unsigned nr, struct supply_totals *ret_totals)
{
	struct supply_totals totals = { 0 };
	uint32_t disk_slots = 0;

	for (unsigned i = 0; i < nr; i++) {
		const struct supply_source *source = &sources[i];

		totals.leaving += source->leaving_slots;
		if (!source->in_use)
			continue;
		totals.used += source->used_slots;
		if (source->kind == BACKEND_DISK) {
			totals.disk_free += source->free_slots;
			disk_slots = source->slab_slots;
			continue;
		}
		totals.remote_free += source->free_slots;
		totals.remote_coming += source->coming_slots;
		if (source->slab_slots > totals.slab_slots)
			totals.slab_slots = source->slab_slots;
	}
	if (totals.slab_slots == 0)
		totals.slab_slots = disk_slots;
	*ret_totals = totals;
}

uint64_t supply_target(const struct supply_config *config, const struct supply_totals *totals)
{
	/* Half-used clusters are room that one queue has and another lacks. */
	uint64_t held = (uint64_t)config->nr_queues * base_max_u64(config->cluster_slots, 1);
	uint64_t ahead = config->ahead_slots ? config->ahead_slots : (uint64_t)DEFAULT_AHEAD_SLABS * totals->slab_slots;
	uint64_t unfilled = config->nr_pages > totals->used ? config->nr_pages - totals->used : 0;

	ahead = base_max_u64(ahead, 2 * held);
	ahead += base_min_u64(totals->leaving, DRAIN_AHEAD_FACTOR * ahead);
	return base_min_u64(ahead, unfilled + base_max_u64(held, totals->slab_slots));
}

uint64_t supply_low(uint64_t target)
{
	return target / 4;
}

uint64_t supply_high(uint64_t target, uint32_t slab_slots)
{
	/* More than one slab above the target, or fetching and giving back would follow one another for ever. */
	return target + target / 2 + 2ull * slab_slots;
}

static double source_score(const struct supply_source *source)
{
	return (double)source->lendable_bytes / (double)(source->latency_ns + LATENCY_REFERENCE_NS);
}

static bool source_eligible(const struct supply_source *source)
{
	return source->kind == BACKEND_REMOTE && source->in_use && source->can_give;
}

/* The n-th source that may give, passing over `except`. */
static int nth_eligible(const struct supply_source *sources, unsigned nr, int except, uint64_t n)
{
	for (unsigned i = 0; i < nr; i++) {
		if ((int)i == except || !source_eligible(&sources[i]))
			continue;
		if (n-- == 0)
			return (int)i;
	}
	return -1;
}

int supply_choose(const struct supply_source *sources, unsigned nr, int last, struct rand_state *rand)
{
	uint64_t nr_eligible = 0;
	int except = -1, one, other;

	for (unsigned i = 0; i < nr; i++)
		nr_eligible += source_eligible(&sources[i]);
	if (nr_eligible == 0)
		return -1;
	if (nr_eligible > 1 && last >= 0 && (unsigned)last < nr && source_eligible(&sources[last]) &&
	    sources[last].nr_given < SUPPLY_SLOW_START_SLABS) {
		except = last;
		nr_eligible--;
	}
	one = nth_eligible(sources, nr, except, rand_below(rand, nr_eligible));
	other = nth_eligible(sources, nr, except, rand_below(rand, nr_eligible));
	return source_score(&sources[other]) > source_score(&sources[one]) ? other : one;
}

int supply_choose_return(const struct supply_source *sources, unsigned nr)
{
	int best = -1;

	for (unsigned i = 0; i < nr; i++) {
		const struct supply_source *source = &sources[i];

		if (source->kind != BACKEND_REMOTE || !source->in_use || source->nr_empty_slabs == 0)
			continue;
		if (best < 0 || source->lendable_bytes < sources[best].lendable_bytes)
			best = (int)i;
	}
	return best;
}

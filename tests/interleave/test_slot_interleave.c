/* deps: client_vswap_interleaved tests_interleave */
/*
 * Who looks for slots, while others do and while slots come back, in every order.
 */
#include "tests/interleave/swap_world.h"

/* ---- each takes one ---- */

static void prepare_slots(void)
{
	world_make(0, 0);
}

/* The disk has a cluster for each of the three, so each finds one, however often others are quicker. */
static void take_slot(unsigned script)
{
	interleave_expect(slot_alloc(&w->f->vswap->slabs, &queue_of(script)->cursor, SLOT_DISK_ONLY, script, &w->slab[script],
				     &w->slot[script]) == 0);
	interleave_quiescent();
}

static void take_slot_by_0(void)
{
	take_slot(0);
}

static void take_slot_by_1(void)
{
	take_slot(1);
}

static void take_slot_by_2(void)
{
	take_slot(2);
}

static void check_slots(void)
{
	struct slab_map *slabs = &w->f->vswap->slabs;
	unsigned i;

	interleave_expect(w->slot[0] != w->slot[1] && w->slot[0] != w->slot[2] && w->slot[1] != w->slot[2]);
	for (i = 0; i < INTERLEAVE_MAX_SCRIPTS; i++) {
		slot_free_unused(slabs, w->slab[i], w->slot[i], 1);
		slot_cursor_close(slabs, &queue_of(i)->cursor);
	}
	interleave_expect(vswap_check(w->f->vswap) == 0 && fixture_used(w->f, -1) == 0);
}

/* ---- the last ones come back ---- */

#define NR_FAILED 2u

/* Of the world, so part of the state: whether script 0 has found a slot; and how many of those below have failed. */
static struct {
	bool found;
	unsigned nr_failed;
} *t;

/* Far enough apart that they are looked at one after the other. */
static const uint32_t failed_slot[NR_FAILED] = { 5, 70 };

static struct slab_map *slabs(void)
{
	return &w->f->vswap->slabs;
}

/* A write to the next of them has failed. */
static void slot_fail(void)
{
	slot_quarantine(w->slab[0], failed_slot[t->nr_failed], 1 + t->nr_failed);
	t->nr_failed++;
}

/* All are in use, and the write to one of them has failed; the disk says at once that it can touch it no more. */
static void prepare_full(void)
{
	struct slab *slab;
	uint32_t slot;
	int err;

	world_make(0, 0);
	t = world_calloc(1, sizeof(*t));
	while ((err = slot_alloc(slabs(), &queue_of(0)->cursor, SLOT_ANYWHERE, 0, &slab, &slot)) == 0)
		if (slab->backend->kind == BACKEND_DISK)
			w->slab[0] = slab;
	interleave_expect(err == -ENOSPC && !slot_is_coming(slabs(), &queue_of(0)->cursor));
	slot_fail();
}

/* One is on its way from quarantine to being found, all the time: who finds none is told to wait. */
static void seek(void)
{
	struct slab *slab;
	uint32_t slot;

	if (t->found)
		return;
	t->found = slot_alloc(slabs(), &queue_of(0)->cursor, SLOT_ANYWHERE, 0, &slab, &slot) == 0;
	interleave_expect(t->found || slot_is_coming(slabs(), &queue_of(0)->cursor));
	interleave_quiescent();
}

static void seek_twice(void)
{
	seek();
	seek();
}

/* What the mover's reactor does in two of its turns, when no I/O is left that may have seen the old words. */
static void reap(void)
{
	bool left;

	slab_retire_quarantined(slabs(), 0, &left);
	interleave_quiescent();
	slab_free_retired(slabs(), 0);
	interleave_quiescent();
}

static void reap_twice(void)
{
	reap();
	reap();
}

/* A later write fails, so that what a pass under way has found of the slab is no longer so. */
static void fail_later(void)
{
	slot_fail();
	interleave_quiescent();
}

/* Every one of them is free again, or has been found. */
static void check_full(void)
{
	uint64_t nr_free = 0;
	struct slab *slab;
	uint32_t slot;
	bool left;

	slab_retire_quarantined(slabs(), 0, &left);
	slab_free_retired(slabs(), 0);
	interleave_expect(!left);
	while (slot_alloc(slabs(), &queue_of(0)->cursor, SLOT_ANYWHERE, 0, &slab, &slot) == 0)
		nr_free++;
	interleave_expect(nr_free + t->found == t->nr_failed);
	interleave_expect(!slot_is_coming(slabs(), &queue_of(0)->cursor));
}

static const struct interleave_scenario scenarios[] = {
	SCENARIO(three_slots, prepare_slots, check_slots, take_slot_by_0, take_slot_by_1, take_slot_by_2),
	SCENARIO(seek_reap, prepare_full, check_full, seek_twice, reap),
	SCENARIO(seek_reap_fail, prepare_full, check_full, seek_twice, reap_twice, fail_later),
};

int main(void)
{
	return world_run("test_slot_interleave", scenarios, BASE_ARRAY_SIZE(scenarios));
}

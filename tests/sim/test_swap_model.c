/* deps: tests_sim_model client_vswap */
/*
 * Every call of swap.h against the model, at random: in worlds that are small or large, lie around entry 2^31 or end at 2^32,
 * have too few tables, slots or requests, compress, and whose backends fail, refuse, corrupt, hold back and are drained.
 *
 * One seed is one run: printed at the start, replayed with FARSWAP_SEED; FARSWAP_OPS sets the number of calls, in all.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "client/vswap/mover.h"
#include "client/vswap/page.h"
#include "client/vswap/swapcache.h"
#include "tests/sim/model.h"
#include "tests/sim/swap_model.h"

#define NR_OPS 2000000u
#define NR_FILLED 12u /* clusters of a world that is filled at the end */

enum world_place { AT_THE_BEGINNING, AROUND_2_31, UP_TO_2_32 };

struct world {
	const char *name;
	enum world_place place;
	uint32_t nr_clusters;
	uint32_t nr_tables;  /* in reserve */
	uint32_t nr_slots;   /* of each backend */
	uint32_t nr_ios;     /* of each queue */
	uint64_t comp_bytes; /* of the compressed pool */
	unsigned hazards;    /* 1: operations fail and wait; 2: bytes are wrong as well */
	bool is_filled;	     /* at the end, and so is the side table of the counts */
};

static const struct world worlds[] = {
	{ "small", AT_THE_BEGINNING, 4, 512, 4096, 64, 0, 0, false },
	{ "around 2^31", AROUND_2_31, NR_FILLED, 1024, 16384, 64, 0, 1, true },
	{ "up to 2^32, wrong bytes", UP_TO_2_32, NR_FILLED, 1024, 16384, 64, 0, 2, true },
	{ "few tables", AT_THE_BEGINNING, 24, 1, 32768, 64, 0, 0, false },
	{ "few tables and requests, up to 2^32", UP_TO_2_32, 7, 1, 8192, 3, 0, 2, false },
	{ "few slots, around 2^31", AROUND_2_31, 10, 1024, 1024, 64, 0, 1, false },
	{ "large and compressed, up to 2^32", UP_TO_2_32, 40, 2048, 32768, 16, 1 << 20, 2, false },
	{ "compressed, few slots, around 2^31", AROUND_2_31, 8, 1024, 2048, 64, 1 << 18, 1, false },
	{ "tiny, few of everything", AROUND_2_31, 2, 1, 512, 2, 0, 2, false },
};

enum phase { MIXED, FILLING, EMPTYING, NR_PHASES };

/* The world that there is; backends know no other way to its model. */
static const struct world *world;
static struct swap_model *model;
static enum phase phase;
static uint64_t nr_drained, nr_moved, nr_read_back;

/* ---- faults, and whom they meet ---- */

static int sim_submit(struct backend *backend, unsigned index, struct backend_io *io)
{
	int err = hand_submit(backend, index, io);

	if (err < 0)
		model_fault_meets(model, io, false);
	return err;
}

static unsigned sim_poll(struct sys_poller *poller)
{
	struct hand_queue *queue = BASE_CONTAINER_OF(poller, struct hand_queue, poller);
	struct backend_io *io = TAILQ_FIRST(&queue->pending);

	if (io && !queue->hand->hold && (queue->hand->nr_fail || (io->op == IO_READ && queue->hand->nr_corrupt)))
		model_fault_meets(model, io, queue->hand->nr_fail == 0);
	return hand_poll(poller);
}

static const struct backend_ops sim_ops = { .name = "sim", .submit = sim_submit };

/* ---- operations ---- */

/* On folios, mostly of one kind. */
enum operation { LOCK, UNLOCK, REFERENCES, ALLOC, FREE_SWAP, DUP, PUT, PREPARE, CLEAR, CHANGE, STORE, READ, SET_SAME };

static enum model_doing model_some_store(struct swap_model *m)
{
	static const enum model_doing doing[] = { DOING_ASSIGN, DOING_COMPRESS, DOING_STORE, DOING_STORE, DOING_STORE };

	return doing[dice(m, BASE_ARRAY_SIZE(doing))];
}

static void do_alloc(struct swap_model *m, unsigned q, struct model_folio *f)
{
	unsigned order = dice(m, 24) ? f->folio.order : (unsigned)dice(m, 12);

	if (try_folio_alloc_swap(m, q, f, order) != -ENOMEM || atomic_load(&m->f->vswap->tables.nr_free) < 3)
		return;
	/* The other queues have been asked for what is left: when they have had their turn, it is clear whether there was. */
	model_turn_all(m, 10000);
	if (model_is(f, IDLE_OUTSIDE) && try_folio_alloc_swap(m, q, f, order) == -ENOMEM)
		model_fail(m, "nothing has come of what the other queues were asked for");
}

static void do_turn(struct swap_model *m, unsigned q, uint64_t entry)
{
	(void)entry;
	model_turn(m, dice(m, 3) ? q : FIXTURE_QUEUES, dice(m, 16) ? 10000 : 2 * SYS_NS_PER_MS);
}

static void do_new(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_folio *f = model_new_folio(m, (unsigned)dice(m, FOLIO_MAX_ORDER + 1));

	(void)q;
	(void)entry;
	if (f && dice(m, 16))
		try_folio_trylock(m, f);
}

static void do_lookup(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_folio *f = try_swap_cache_get_folio(m, q, entry);

	if (f && dice(m, 3))
		try_folio_trylock(m, f);
	else if (f)
		try_folio_put(m, f);
}

/* Allocates, stores, and lets go: how space fills. */
static void do_push_out(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_folio *f = model_some_folio(m, ANY_ORDER);

	(void)entry;
	if (!f)
		return;
	if (try_folio_alloc_swap(m, q, f, f->folio.order) == 0) {
		try_folio_dup_swap(m, q, f, FOLIO_ALL);
		if (dice(m, 8) == 0)
			try_folio_dup_swap(m, q, f, model_some_page(m, f));
		f->evict = try_folio_io(m, q, f, model_some_store(m)) == 0;
	}
	if (!f->evict)
		model_evict(m, q, f, false);
}

/* Some or all of what has been let go comes back. */
static void do_fault_in(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_run *run = &m->evicted[dice(m, MODEL_NR_EVICTED)];
	unsigned order = dice(m, 2) ? run->order : (unsigned)dice(m, run->order + 1);
	struct model_folio *f;

	entry = run->first + (dice(m, 1ull << (run->order - order)) << order);
	f = run->first && !model_has_hibernation(m, entry, 1ull << order) ? model_some_folio(m, order) : NULL;
	if (!f)
		return;
	f->evict = try_swapcache_prepare(m, q, entry, 1u << order, f) == 0 && try_folio_io(m, q, f, DOING_READ) == 0;
	if (!f->evict)
		model_evict(m, q, f, false);
}

static void do_prepare(struct swap_model *m, unsigned q, struct model_folio *f)
{
	uint32_t nr = dice(m, 32) ? model_nr_pages(f) : (uint32_t)model_some_number(m);
	uint64_t entry = model_some_entry(m);

	if (dice(m, 16))
		entry -= entry % model_nr_pages(f);
	if (!model_has_hibernation(m, entry, model_nr_pages(f)))
		try_swapcache_prepare(m, q, entry, dice(m, 2) ? nr : 0, f);
}

static void do_folio(struct swap_model *m, unsigned q, enum operation op, struct model_folio *f)
{
	const bool odd = dice(m, 16) == 0, half = dice(m, 2);
	struct model_waiter *w = &m->waiter[dice(m, MODEL_NR_WAITERS)];

	switch (op) {
	case LOCK:
		(void)(half || w->busy ? try_folio_trylock(m, f) : try_folio_lock(m, q, f, w));
		break;
	case UNLOCK:
		if (model_is(f, IDLE))
			try_folio_unlock(m, q, f);
		break;
	case REFERENCES:
		if (dice(m, 4) == 0)
			try_folio_get(m, f);
		else if (f->mine > 1 || !f->owned)
			try_folio_put(m, f);
		break;
	case ALLOC:
		do_alloc(m, q, f);
		break;
	case FREE_SWAP:
		try_folio_free_swap(m, q, f);
		break;
	case DUP:
		try_folio_dup_swap(m, q, f, model_some_page(m, f));
		break;
	case PUT:
		try_folio_put_swap(m, q, f, model_some_page(m, f));
		break;
	case PREPARE:
		do_prepare(m, q, f);
		break;
	case CLEAR:
		if (!f->evict)
			try_swapcache_clear(m, q, f, f->first + (odd ? dice(m, 9) : 0),
					    half ? 0 : dice(m, 16) ? model_nr_pages(f) : (uint32_t)model_some_number(m));
		break;
	case CHANGE:
		if (model_is(f, IDLE))
			try_folio_mark_dirty(m, f);
		break;
	case STORE:
		try_folio_io(m, q, f, model_some_store(m));
		break;
	case READ: /* over what has been changed, only now and then */
		if (!(f->flags & FOLIO_DIRTY) || dice(m, 4) == 0)
			try_folio_io(m, q, f, DOING_READ);
		break;
	default:
		try_vswap_set_same(m, q, f, odd ? (uint32_t)model_some_number(m) : (uint32_t)dice(m, model_nr_pages(f)),
				   rand_next(&m->rand) & (dice(m, 16) ? WORD_PAYLOAD_MAX : UINT64_MAX));
	}
}

static void do_dup_direct(struct swap_model *m, unsigned q, uint64_t entry)
{
	uint64_t nr = model_some_number(m);

	if (dice(m, 2) && model_is_range(m, entry, 1))
		nr = base_max_u64(model_run_of_held(m, entry, 1 + dice(m, TABLE_ENTRIES - entry % TABLE_ENTRIES)), 1);
	if (dice(m, 2) && !model_has_hibernation(m, entry, 1))
		try_swap_dup(m, q, entry, dice(m, 2));
	else if (!model_has_hibernation(m, entry, (uint32_t)nr))
		try_swap_duplicate_nr(m, q, entry, (uint32_t)nr);
}

static void do_put_direct(struct swap_model *m, unsigned q, uint64_t entry)
{
	uint64_t nr = model_some_number(m);

	if (dice(m, 4))
		nr = base_max_u64(model_run_of_held(m, entry, phase == EMPTYING ? 2000 : 1 + dice(m, 30)), dice(m, 8) ? 1 : 0);
	if (!model_has_hibernation(m, entry, nr))
		try_swap_put(m, q, entry, nr, dice(m, 2));
}

/* Now and then: many holders for one entry, or many less. */
static void do_burst(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_entry *e = model_entry(m, entry);
	uint64_t nr = dice(m, 1600);

	if (!e || e->hibernation || dice(m, 40))
		return;
	for (; nr && e->nr > 0 && e->nr < 6000; nr--)
		if (phase == FILLING || (phase == MIXED && e->nr % 4096 < 1500))
			try_swap_dup(m, q, entry, false);
		else
			try_swap_put(m, q, entry, 1, false);
}

static void do_look(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_folio *f = model_pick(m, OWNED);
	swp_slot_t slot = swp_slot((uint32_t)dice(m, 5), (uint32_t)dice(m, 4096));

	try_swp_swapcount(m, q, entry);
	try_swp_entry_to_swp_slot(m, q, entry);
	try_batches(m, q, entry, dice(m, 4) ? model_some_number(m) % 64 : model_some_number(m));
	if (f)
		try_folio_swapped(m, q, f);
	if (dice(m, 4) == 0)
		try_swp_slot_to_swp_entry(m, q, dice(m, 8) ? slot : (swp_slot_t){ model_some_number(m) << dice(m, 40) });
}

static void do_pin(struct swap_model *m, unsigned q, uint64_t entry)
{
	uint64_t *pin = &m->pin[dice(m, MODEL_NR_PINS)];

	if (*pin) {
		try_vswap_put(m, q, *pin);
		*pin = 0;
	} else if (try_vswap_tryget(m, q, entry)) {
		*pin = entry;
	}
}

static void do_hibernate(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_hibernation *h = &m->hibernation[dice(m, MODEL_NR_HIBERNATIONS)];
	struct model_entry *e = model_entry(m, entry);

	if (dice(m, 8) == 0) { /* of an entry that is something else */
		if (e && (e->hibernation || (e->nr == 1 && !e->folio)))
			return;
		if (dice(m, 2))
			try_hibernation_free(m, q, entry, NULL);
		else
			try_hibernation_io(m, q, h, entry, dice(m, 2), 0);
	} else if (!h->used) {
		try_hibernation_alloc(m, q, h);
	} else if (h->request.doing != DOING_ALLOC && dice(m, 4)) {
		try_hibernation_io(m, q, h, h->entry, dice(m, 2), dice(m, 16) ? 0 : 8);
	} else if (h->request.doing != DOING_ALLOC) {
		try_hibernation_free(m, q, h->entry, h);
	}
}

/* Faults of the next operations, as many as the world may have. A backend that is down is written to no more. */
static void do_fault(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct hand_backend *hand = m->f->hand[dice(m, FIXTURE_BACKENDS)];
	unsigned *const fault[] = { &hand->nr_fail, &hand->nr_refuse, &hand->nr_corrupt };
	uint64_t i = world->hazards ? dice(m, 5) : 4;

	(void)q;
	(void)entry;
	if (i < world->hazards + 1)
		*fault[i] = (unsigned)(dice(m, 2) ? dice(m, 4) : dice(m, 40));
	else if (i == 3)
		atomic_store(&hand->backend.state, dice(m, 8) ? BACKEND_UP : BACKEND_DOWN);
	else
		hand->hold = dice(m, 3) == 0;
}

static const struct {
	void (*run)(struct swap_model *m, unsigned q, uint64_t entry); /* NULL: do_folio */
	enum operation operation;
	enum model_kind kind;
	unsigned weight[NR_PHASES];
} operations[] = {
	{ do_turn, 0, 0, { 60, 60, 60 } },	{ do_new, 0, 0, { 6, 6, 2 } },
	{ do_push_out, 0, 0, { 12, 30, 4 } },	{ do_fault_in, 0, 0, { 16, 10, 10 } },
	{ do_dup_direct, 0, 0, { 8, 8, 4 } },	{ do_put_direct, 0, 0, { 10, 4, 24 } },
	{ do_burst, 0, 0, { 2, 2, 2 } },	{ do_lookup, 0, 0, { 10, 8, 16 } },
	{ do_look, 0, 0, { 10, 10, 10 } },	{ do_pin, 0, 0, { 2, 2, 2 } },
	{ do_hibernate, 0, 0, { 4, 4, 4 } },	{ do_fault, 0, 0, { 1, 1, 1 } },
	{ NULL, LOCK, MINE, { 12, 8, 12 } },	{ NULL, UNLOCK, IDLE, { 14, 12, 18 } },
	{ NULL, REFERENCES, MINE, { 16, 16, 24 } }, { NULL, ALLOC, IDLE_OUTSIDE, { 8, 10, 2 } },
	{ NULL, FREE_SWAP, FOR_CALLS, { 4, 2, 8 } }, { NULL, DUP, OWNED, { 10, 12, 3 } },
	{ NULL, PUT, OWNED, { 6, 2, 8 } },	{ NULL, PREPARE, IDLE_OUTSIDE, { 6, 6, 4 } },
	{ NULL, CLEAR, OWNED, { 8, 8, 8 } },	{ NULL, CHANGE, IDLE, { 4, 4, 2 } },
	{ NULL, STORE, OWNED, { 12, 12, 6 } },	{ NULL, READ, OWNED, { 8, 6, 4 } },
	{ NULL, SET_SAME, OWNED, { 4, 4, 4 } },
};

static void operate(struct swap_model *m)
{
	unsigned q = (unsigned)dice(m, FIXTURE_QUEUES), i = 0;
	uint64_t nr_weights = 0, at;
	struct model_folio *f;

	for (i = 0; i < BASE_ARRAY_SIZE(operations); i++)
		nr_weights += operations[i].weight[phase];
	at = dice(m, nr_weights);
	for (i = 0; at >= operations[i].weight[phase]; i++)
		at -= operations[i].weight[phase];
	if (operations[i].run) {
		operations[i].run(m, q, model_some_entry(m));
		return;
	}
	f = model_pick(m, dice(m, 16) ? operations[i].kind : FOR_CALLS);
	if (f)
		do_folio(m, q, operations[i].operation, f);
}

/* ---- the run ---- */

static void run_batch(void *arg)
{
	struct swap_model *m = arg;
	uint64_t end = m->nr_ops + 500 + dice(m, 5000);

	while (m->nr_ops < end)
		operate(m);
	model_check_all(m);
}

static bool is_moving(const struct mover *mover)
{
	unsigned i;

	for (i = 0; i < MOVER_NR_JOBS && !mover->job[i].owner; i++)
		;
	return i < MOVER_NR_JOBS || mover->running;
}

/* Until nothing is under way but what the caller has locked. */
static void settle(void *arg)
{
	struct swap_model *m = arg;
	unsigned i, n, nr_quiet = 0;
	bool cancel = dice(m, 2);

	for (i = 0; i < FIXTURE_BACKENDS; i++) {
		struct hand_backend *hand = m->f->hand[i];

		hand->hold = false;
		hand->nr_fail = hand->nr_refuse = hand->nr_corrupt = 0;
		atomic_store(&hand->backend.state, BACKEND_UP);
		if (cancel)
			(void)!vswap_drain_cancel(m->f->vswap, &hand->backend);
	}
	for (n = 0; nr_quiet < 8; n++) {
		if (n == 100000)
			model_fail(m, "the run does not come to rest");
		model_turn_all(m, 2 * SYS_NS_PER_MS);
		nr_quiet = m->nr_busy[0] || m->nr_busy[1] || is_moving(m->f->vswap->mover) ? 0 : nr_quiet + 1;
	}
	model_check_all(m);
}

static void in_turn(struct swap_model *m, void (*run)(void *arg))
{
	sys_reactor_call(m->outer, run, m);
	sys_rcu_barrier();
	model_check_after_grace(m);
}

/* Rarely both backends at a time: then there is no room at all. */
static void toggle_drain(struct swap_model *m)
{
	unsigned b = (unsigned)dice(m, FIXTURE_BACKENDS);
	struct backend *backend = &m->f->hand[b]->backend, *other = &m->f->hand[!b]->backend;
	struct vswap_drain_options options = { .target = (enum vswap_drain_target)dice(m, 3),
					       .deadline_ms = dice(m, 2) ? 1 + dice(m, 200) : 0,
					       .window_pages = (uint32_t)dice(m, 300) };
	struct vswap_drain_progress progress;
	struct vswap_space space;

	vswap_drain_progress(m->f->vswap, backend, &progress);
	if (progress.state == VSWAP_DRAIN_RUNNING) {
		if (dice(m, 4) == 0)
			assert_int_equal(vswap_drain_cancel(m->f->vswap, backend), 0);
	} else if (vswap_backend_draining(backend)) {
		vswap_space(m->f->vswap, backend, &space);
		assert_true(progress.state != VSWAP_DRAIN_DRAINED || space.nr_used_slots == 0);
		nr_drained += progress.state == VSWAP_DRAIN_DRAINED;
		nr_moved += progress.nr_moved;
		assert_int_equal(vswap_undrain(m->f->vswap, backend), 0);
	} else if (!vswap_backend_draining(other) || dice(m, 16) == 0) {
		(void)!vswap_drain(m->f->vswap, backend, &options); /* -EBUSY: the other one is drained */
	}
}

static void refill(struct swap_model *m)
{
	assert_int_equal(vswap_refill(m->f->vswap), 0);
	m->nr_tables = atomic_load(&m->f->vswap->tables.nr_free) + atomic_load(&m->f->vswap->tables.nr_tables);
}

/* Those of the server: what they may have left behind can be used again. On the disk it can be at once. */
static void settle_failed_writes(struct swap_model *m)
{
	atomic_fetch_add(&m->f->hand[0]->backend.fence, 1);
}

/* Between the batches. */
static void control(struct swap_model *m)
{
	if (dice(m, 3) == 0)
		phase = (enum phase)dice(m, NR_PHASES);
	settle_failed_writes(m);
	if (dice(m, 2) == 0)
		toggle_drain(m);
	if (dice(m, 4) == 0 && (world->nr_tables > 1 || m->nr_tables < world->nr_clusters + 8))
		refill(m);
	if (dice(m, 3) != 0)
		return;
	in_turn(m, settle);
	if (vswap_check(m->f->vswap) != 0)
		model_fail(m, "vswap_check has found differences");
}

/* ---- the end of a world ---- */

static void unlock_all(void *arg)
{
	struct swap_model *m = arg;
	unsigned i, n;

	for (n = 0; n < MODEL_NR_WAITERS + 2; n++) {
		for (i = 0; i < MODEL_NR_FOLIOS; i++) {
			struct model_folio *f = &m->folio[i];

			if (model_is(f, IDLE))
				try_folio_unlock(m, n % 2, f);
			while (model_is(f, MINE) && !f->locked)
				try_folio_put(m, f);
		}
		model_turn_all(m, 10000);
	}
	for (i = 0; i < MODEL_NR_PINS; i++) {
		if (m->pin[i])
			try_vswap_put(m, 0, m->pin[i]);
		m->pin[i] = 0;
	}
	for (i = 0; i < MODEL_NR_HIBERNATIONS; i++)
		if (m->hibernation[i].used)
			try_hibernation_free(m, 0, m->hibernation[i].entry, &m->hibernation[i]);
}

/*
 * Every byte that is not in a folio. Two folios by turns, so that the array of a cluster's folios is not made anew for each
 * entry.
 */
static void read_all(void *arg)
{
	struct swap_model *m = arg;
	struct model_folio *pair[2] = { &m->folio[0], &m->folio[1] };
	unsigned q, i;

	for (i = 0; i < 2; i++) {
		try_folio_init(m, pair[i], 0);
		try_folio_trylock(m, pair[i]);
	}
	for (; nr_read_back < m->nr; nr_read_back++) {
		struct model_folio *f = pair[i % 2];

		if (!model_is_live(&m->entry[nr_read_back]) || m->entry[nr_read_back].folio)
			continue;
		i++;
		q = (unsigned)dice(m, FIXTURE_QUEUES);
		if (model_is_cached(f))
			try_swapcache_clear(m, q, f, f->first, 1);
		if (try_swapcache_prepare(m, q, m->first + nr_read_back, 1, f) < 0)
			break; /* no table: again, when there is one */
		try_folio_io(m, q, f, DOING_READ);
		while (f->request.doing != DOING_NOTHING)
			model_turn_all(m, 10000);
	}
	for (i = 0; i < 2; i++) {
		if (model_is_cached(pair[i]))
			try_swapcache_clear(m, i, pair[i], pair[i]->first, 1);
		try_folio_unlock(m, i, pair[i]);
		try_folio_put(m, pair[i]);
	}
}

static void put_all(void *arg)
{
	struct swap_model *m = arg;
	struct model_folio *f;
	uint64_t i, nr;
	bool found;

	for (i = 0; i < m->nr; i++)
		while (m->entry[i].nr > 8)
			try_swap_put(m, i % 2, m->first + i, 1, false);
	do {
		found = false;
		for (i = 0; i < m->nr; i += nr ? nr : 1) {
			nr = model_run_of_held(m, m->first + i, m->nr);
			if (nr)
				try_swap_put(m, i % 2, m->first + i, nr, i % 3);
			found |= nr != 0;
		}
	} while (found);
	for (i = 0; i < m->nr; i++) {
		f = try_swap_cache_get_folio(m, 0, m->first + i);
		if (!f)
			continue;
		try_folio_trylock(m, f);
		try_folio_free_swap(m, 0, f);
		try_folio_unlock(m, 0, f);
		try_folio_put(m, f);
	}
}

/*
 * Every cluster can be had, so none was lost. 4096 entries with more than 1023 holders each fill the side table: another can
 * have no more, until one of them has less. That there is room for all of these shows, too, that none was left behind before.
 */
static void fill_all(void *arg)
{
	const uint32_t page = 5, many = MODEL_RECORD_BEGINS, less = MODEL_RECORD_ENDS;
	struct swap_model *m = arg;
	struct model_folio *f[NR_FILLED + 1];
	unsigned i, n;

	for (i = 0; i <= NR_FILLED; i++) {
		f[i] = model_new_folio(m, i < NR_FILLED ? FOLIO_MAX_ORDER : 0);
		try_folio_trylock(m, f[i]);
		assert_int_equal(try_folio_alloc_swap(m, 0, f[i], f[i]->folio.order), i < NR_FILLED ? 0 : -ENOSPC);
		for (n = 0; n < (i < 8 ? many : i == 8); n++)
			assert_int_equal(try_folio_dup_swap(m, 0, f[i], FOLIO_ALL), 0);
	}
	try_hibernation_alloc(m, 0, &m->hibernation[0]);
	assert_false(m->hibernation[0].used);
	for (n = 1; n < many - 1; n++)
		try_folio_dup_swap(m, 1, f[8], page);
	assert_int_equal(try_folio_dup_swap(m, 0, f[8], page), -EOVERFLOW);
	assert_int_equal(try_folio_dup_swap(m, 1, f[8], FOLIO_ALL), -EOVERFLOW);
	assert_int_equal(try_swap_dup(m, 0, f[8]->first + page, false), -EOVERFLOW);
	assert_int_equal(try_swap_dup(m, 1, f[8]->first + page, true), -EOVERFLOW);
	assert_int_equal(try_swap_duplicate_nr(m, 0, f[8]->first, 2 * page), -EOVERFLOW);
	assert_int_equal(try_swap_duplicate_nr(m, 0, f[8]->first, page), 0);
	model_check_all(m);
	for (n = many; n > less; n--)
		try_folio_put_swap(m, 0, f[0], page);
	assert_int_equal(try_swap_duplicate_nr(m, 0, f[8]->first, 2 * page), 0);
	assert_int_equal(try_folio_dup_swap(m, 0, f[8], page + 1), 0);
	for (i = 0; i < SWP_CLUSTER_ENTRIES; i++)
		for (n = many; i != page && n > less; n--)
			try_folio_put_swap(m, 1, f[0], i);
	for (i = 0; i < 8; i++)
		for (n = i ? many : less; n > 0; n--)
			assert_int_equal(try_folio_put_swap(m, 1, f[i], FOLIO_ALL), 0);
	for (i = 0; i <= NR_FILLED; i++) {
		try_folio_unlock(m, 0, f[i]);
		try_folio_put(m, f[i]);
	}
	put_all(m);
	assert_int_equal(m->nr_records, 0);
}

static void close_cursors(void *arg)
{
	struct swap_model *m = arg;
	unsigned i;

	for (i = 0; i < FIXTURE_QUEUES; i++)
		cluster_cursors_close(&m->f->vswap->clusters, model_queue(m, i)->allocating);
	for (i = 0; i < 12; i++)
		model_turn_all(m, 2 * SYS_NS_PER_MS);
	model_check_all(m);
}

/* All goes, and nothing is left. */
static void end_world(struct swap_model *m)
{
	struct vswap_space space;
	unsigned i;

	in_turn(m, settle);
	in_turn(m, unlock_all);
	for (nr_read_back = 0; nr_read_back < m->nr;) {
		refill(m);
		in_turn(m, read_all);
	}
	in_turn(m, put_all);
	settle_failed_writes(m);
	in_turn(m, close_cursors);
	if (world->is_filled) {
		in_turn(m, fill_all);
		in_turn(m, close_cursors);
	}
	vswap_space(m->f->vswap, NULL, &space);
	assert_int_equal(space.nr_used_slots, 0);
	assert_int_equal(atomic_load(&m->f->vswap->clusters.nr_in_use), 0);
	for (i = 0; i < MODEL_NR_FOLIOS; i++)
		assert_false(m->folio[i].used);
}

static struct swap_model *begin_world(uint64_t seed)
{
	struct vswap_options options = { .nr_entries = (uint64_t)world->nr_clusters * TABLE_ENTRIES,
					 .nr_queues = FIXTURE_QUEUES,
					 .nr_folio_ios = world->nr_ios,
					 .max_slabs = 8,
					 .reserve_tables = world->nr_tables,
					 .comp_limit_bytes = world->comp_bytes,
					 .seed = seed | 1 };
	struct swap_model *m = calloc(1, sizeof(*m));
	unsigned b, i;

	assert_non_null(m);
	if (world->place == AROUND_2_31)
		options.nr_pages = (1ull << 31) - options.nr_entries / 2;
	if (world->place == UP_TO_2_32)
		options.nr_pages = (1ull << 32) - options.nr_entries;
	model_create(m, &options, seed);
	assert_true(world->place != UP_TO_2_32 || m->first + m->nr == 1ull << 32);
	for (b = 0; b < FIXTURE_BACKENDS; b++) {
		m->f->hand[b]->backend.ops = &sim_ops;
		for (i = 0; i < FIXTURE_REACTORS; i++)
			m->f->hand[b]->queue[i].poller.poll = sim_poll;
		for (i = 0; i < 2; i++)
			fixture_add_slab(m->f, b, world->nr_slots / 2);
	}
	return m;
}

static void test_world(void **state)
{
	uint64_t seed = model_environment("FARSWAP_SEED", (uint64_t)time(NULL));
	uint64_t nr_ops = model_environment("FARSWAP_OPS", NR_OPS) / BASE_ARRAY_SIZE(worlds);

	if (model)
		skip(); /* a world that has failed has left everything as it was */
	world = *state;
	print_message("seed %" PRIu64 ", %s\n", seed, world->name);
	phase = MIXED;
	nr_drained = nr_moved = 0;
	model = begin_world(seed + (uint64_t)(world - worlds));
	while (model->nr_ops < nr_ops) {
		in_turn(model, run_batch);
		control(model);
	}
	print_message("%" PRIu64 " calls, %" PRIu64 " backends drained, %" PRIu64 " pages moved, %" PRIu64
		      " allocations given up early\n", model->nr_ops, nr_drained, nr_moved, model->nr_early);
	end_world(model);
	model_free(model);
	free(model);
	model = NULL;
}

int main(void)
{
	struct CMUnitTest tests[BASE_ARRAY_SIZE(worlds)];
	unsigned i;
	int err;

	for (i = 0; i < BASE_ARRAY_SIZE(worlds); i++)
		tests[i] = (struct CMUnitTest){ .name = worlds[i].name, .test_func = test_world,
						.initial_state = (void *)(uintptr_t)&worlds[i] };
	log_init("test_swap_model", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	err = cmocka_run_group_tests(tests, NULL, NULL);
	return model_print_seen() && err == 0 ? 0 : 1;
}

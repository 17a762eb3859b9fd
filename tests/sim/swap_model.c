#include "tests/sim/swap_model.h"

#include <inttypes.h>
#include <stdio.h>

#include "client/vswap/folio.h"
#include "client/vswap/page.h"
#include "client/vswap/swapcache.h"

/* ---- folios ---- */

static void folio_released(struct folio *folio, void *arg)
{
	struct model_folio *f = arg;

	assert(folio == &f->folio);
	atomic_fetch_add(&f->nr_released, 1);
}

void try_folio_init(struct swap_model *m, struct model_folio *f, unsigned order)
{
	void *data = m->memory + ((char *)f->value - (char *)m->folio[0].value) / 8 * FSW_PAGE_SIZE;
	uint32_t i;

	folio_init(&f->folio, data, order, folio_released, f);
	f->used = true;
	f->locked = f->owned = f->unheld = f->evict = false;
	f->flags = 0;
	f->refs = f->mine = 1;
	f->request.doing = DOING_NOTHING;
	TAILQ_INIT(&f->waiters);
	atomic_store(&f->nr_released, 0);
	/* All of the memory, if a folio that was larger has left it so. */
	for (i = 0; i < (f->unknown ? 1u << model_max_order((uint32_t)(f - m->folio)) : model_nr_pages(f)); i++)
		if (i < 16 || f->unknown || rand_below(&m->rand, 8) == 0)
			model_change_page(m, f, i);
	f->unknown = false;
	model_judge(m, CALL_folio_init, 0, MAY(0));
	model_judge_bool(m, CALL_folio_nr_pages, folio_nr_pages(&f->folio) == 1u << order, true);
	model_check_folio(m, f);
}

void try_folio_get(struct swap_model *m, struct model_folio *f)
{
	folio_get(&f->folio);
	f->refs++;
	f->mine++;
	model_judge(m, CALL_folio_get, 0, MAY(0));
}

void try_folio_put(struct swap_model *m, struct model_folio *f)
{
	assert_true(f->mine > 0);
	f->mine--;
	f->refs--;
	folio_put(&f->folio);
	model_judge(m, CALL_folio_put, 0, MAY(0));
	if (f->nr_released)
		model_fail(m, "a folio is released within a read-side section");
}

static void folio_make_known(struct swap_model *m, struct model_folio *f)
{
	uint32_t i;

	for (i = 0; f->unknown && i < model_nr_pages(f); i++)
		model_change_page(m, f, i);
	f->unknown = false;
}

void try_folio_mark_dirty(struct swap_model *m, struct model_folio *f)
{
	uint32_t i;

	folio_make_known(m, f);
	for (i = 0; i < 3; i++)
		model_change_page(m, f, (uint32_t)rand_below(&m->rand, model_nr_pages(f)));
	folio_mark_dirty(&f->folio);
	f->flags |= FOLIO_DIRTY | FOLIO_UPTODATE;
	model_judge(m, CALL_folio_mark_dirty, 0, MAY(0));
	model_check_folio(m, f);
}

bool try_folio_trylock(struct swap_model *m, struct model_folio *f)
{
	if (!model_judge_bool(m, CALL_folio_trylock, folio_trylock(&f->folio), !f->locked))
		return false;
	f->locked = f->owned = true;
	return true;
}

static void waiter_locked(struct folio_waiter *waiter)
{
	struct model_waiter *w = BASE_CONTAINER_OF(waiter, struct model_waiter, waiter);
	struct model_folio *f = w->folio;
	struct swap_model *m = f->model;

	if (m->in_call || sys_reactor_self() != m->f->reactors[w->queue])
		model_fail(m, "who waits for a folio is called at the wrong time, or on the wrong thread");
	if (!w->busy || !w->granted || TAILQ_FIRST(&f->waiters) != w || waiter->folio != &f->folio)
		model_fail(m, "who waits for a folio is called, and it is somebody else's turn");
	TAILQ_REMOVE(&f->waiters, w, link);
	w->busy = false;
	f->owned = true;
	f->mine++; /* the waiter's reference */
	model_judge(m, CALL_folio_locked, 0, MAY(0));
	model_check_folio(m, f);
}

bool try_folio_lock(struct swap_model *m, unsigned q, struct model_folio *f, struct model_waiter *w)
{
	try_folio_get(m, f);
	w->folio = f;
	w->queue = q;
	w->granted = 0;
	w->waiter.locked = waiter_locked;
	if (model_judge_bool(m, CALL_folio_lock, MODEL_CALL(m, folio_lock(model_queue(m, q), &f->folio, &w->waiter)),
			     !f->locked)) {
		f->locked = f->owned = true;
		return true;
	}
	f->mine--;
	w->busy = true;
	TAILQ_INSERT_TAIL(&f->waiters, w, link);
	return false;
}

void try_folio_unlock(struct swap_model *m, unsigned q, struct model_folio *f)
{
	struct model_waiter *w;

	m->in_call = true;
	folio_unlock(model_queue(m, q), &f->folio);
	m->in_call = false;
	f->owned = false;
	if (f->unheld)
		model_drop_unheld(m, f);
	w = TAILQ_FIRST(&f->waiters);
	if (w)
		w->granted = m->turn;
	f->locked = w != NULL;
	model_judge(m, CALL_folio_unlock, 0, MAY(0));
	model_check_folio(m, f);
}

/* ---- allocation ---- */

static void folio_allocated(struct swap_model *m, struct model_folio *f, uint64_t first)
{
	uint32_t i;

	if (first % model_nr_pages(f) != 0 || !model_is_range(m, first, model_nr_pages(f)))
		model_fail(m, "entry %" PRIu64 " is given away, which is not aligned, or does not exist", first);
	for (i = 0; i < model_nr_pages(f); i++)
		model_entry_begin(m, model_entry(m, first + i), BACKING_FOLIO);
	f->flags |= FOLIO_UPTODATE | FOLIO_DIRTY;
	model_cache_set(m, f, first);
}

int try_folio_alloc_swap(struct swap_model *m, unsigned q, struct model_folio *f, unsigned order)
{
	uint32_t nr_free = atomic_load(&m->f->vswap->tables.nr_free);
	bool valid = order == f->folio.order && f->locked && !model_is_cached(f);
	swp_entry_t entry = { 0 };
	unsigned allowed = MAY(0);
	int err;

	if (valid)
		folio_make_known(m, f);
	err = MODEL_CALL(m, folio_alloc_swap(model_queue(m, q), &f->folio, order, &entry));
	if (!valid)
		allowed = MAY(EINVAL);
	else if (err < 0)
		allowed = model_may_fail(m, order, err, nr_free);
	model_judge(m, CALL_folio_alloc_swap, err, allowed);
	if (err == 0)
		folio_allocated(m, f, entry.val);
	else if (entry.val != 0)
		model_fail(m, "an entry is returned with an error");
	model_check_folio(m, f);
	return err;
}

bool try_folio_free_swap(struct swap_model *m, unsigned q, struct model_folio *f)
{
	bool wanted = f->locked && model_is_cached(f) && !(f->flags & FOLIO_UNDER_IO) && model_nr_held(m, f) == 0;

	model_judge_bool(m, CALL_folio_free_swap, MODEL_CALL(m, folio_free_swap(model_queue(m, q), &f->folio)), wanted);
	if (wanted) {
		model_cache_remove(m, f);
		f->flags |= FOLIO_DIRTY;
	}
	model_check_folio(m, f);
	return wanted;
}

/* ---- counts ---- */

/* What a call returned that gives nr entries one holder more each, all or none; `least` is what they had to have. */
static int judge_dup(struct swap_model *m, enum model_call call, int got, struct model_entry *e, uint32_t nr, uint32_t least)
{
	uint32_t left = MODEL_MAX_RECORDS - m->nr_records, i, nr_done;
	uint64_t first = m->first + (uint64_t)(e - m->entry);
	unsigned errors = 0;

	for (i = 0; i < nr; i++) {
		if (e[i].backing == BACKING_NONE || e[i].nr < least)
			errors |= MAY(ENOENT);
		else if (e[i].nr + 1 == MODEL_RECORD_BEGINS && !e[i].has_record && left-- == 0)
			errors |= MAY(EOVERFLOW);
		if (errors)
			break;
	}
	nr_done = i;
	for (i = nr_done; i < nr; i++) /* which of two errors is the caller's is not said */
		if (e[i].backing == BACKING_NONE || e[i].nr < least)
			errors |= MAY(ENOENT);
	model_judge(m, call, got, errors ? errors : MAY(0));
	for (i = 0; i < nr_done; i++) {
		model_entry_up(m, &e[i]);
		if (got < 0)
			e[i].nr--; /* the record stays a while */
	}
	model_check_entry(m, first);
	model_check_entry(m, first + nr - 1);
	model_check_entry(m, first + base_min_u64(nr_done, nr - 1));
	return got;
}

int try_folio_dup_swap(struct swap_model *m, unsigned q, struct model_folio *f, uint32_t page)
{
	int err = folio_dup_swap(model_queue(m, q), &f->folio, page);
	bool valid = f->locked && model_is_cached(f) && (page == FOLIO_ALL || page < model_nr_pages(f));

	if (!valid)
		return model_judge(m, CALL_folio_dup_swap, err, MAY(EINVAL));
	if (page == FOLIO_ALL)
		return judge_dup(m, CALL_folio_dup_swap, err, model_entry(m, f->first), model_nr_pages(f), 0);
	return judge_dup(m, CALL_folio_dup_swap, err, model_entry(m, f->first + page), 1, 0);
}

int try_folio_put_swap(struct swap_model *m, unsigned q, struct model_folio *f, uint32_t page)
{
	int err = folio_put_swap(model_queue(m, q), &f->folio, page);
	uint32_t first = page == FOLIO_ALL ? 0 : page, end = page == FOLIO_ALL ? model_nr_pages(f) : page + 1, i;
	struct model_entry *e = model_entry(m, f->first);
	unsigned allowed = MAY(0);

	if (!f->locked || !model_is_cached(f) || (page != FOLIO_ALL && page >= model_nr_pages(f)))
		return model_judge(m, CALL_folio_put_swap, err, MAY(EINVAL));
	for (i = first; i < end; i++)
		if (e[i].nr == 0)
			allowed = MAY(ENOENT);
	model_judge(m, CALL_folio_put_swap, err, allowed);
	for (i = first; i < end && err == 0; i++)
		model_entry_down(m, &e[i]);
	model_check_entry(m, f->first + first);
	model_check_entry(m, f->first + end - 1);
	model_check_folio(m, f);
	return err;
}

int try_swap_dup(struct swap_model *m, unsigned q, uint64_t entry, bool older)
{
	struct model_entry *e = model_entry(m, entry);
	int err = (older ? swap_duplicate : swap_dup_entry_direct)(model_queue(m, q), (swp_entry_t){ entry });
	enum model_call call = older ? CALL_swap_duplicate : CALL_swap_dup_entry_direct;

	return e ? judge_dup(m, call, err, e, 1, 1) : model_judge(m, call, err, MAY(ENOENT));
}

int try_swap_duplicate_nr(struct swap_model *m, unsigned q, uint64_t entry, uint32_t nr)
{
	int err = swap_duplicate_nr(model_queue(m, q), (swp_entry_t){ entry }, nr);

	if (!model_is_range(m, entry, nr) || entry % TABLE_ENTRIES + nr > TABLE_ENTRIES)
		return model_judge(m, CALL_swap_duplicate_nr, err, MAY(EINVAL));
	return judge_dup(m, CALL_swap_duplicate_nr, err, model_entry(m, entry), nr, 1);
}

int try_swap_put(struct swap_model *m, unsigned q, uint64_t entry, uint64_t nr, bool older)
{
	enum model_call call = older ? CALL_swap_free_nr : CALL_swap_put_entries_direct;
	uint64_t at = entry, i;
	int wanted = 0, err = MODEL_CALL(m, (older ? swap_free_nr : swap_put_entries_direct)(
						    model_queue(m, q), (swp_entry_t){ entry }, nr));

	if (!model_is_range(m, entry, nr))
		return model_judge(m, call, err, MAY(EINVAL));
	while (at - entry < nr && wanted == 0) {
		uint64_t run = base_min_u64(TABLE_ENTRIES - at % TABLE_ENTRIES, nr - (at - entry));

		wanted = model_put_run(m, model_entry(m, at), (uint32_t)run);
		at += run;
	}
	model_judge(m, call, err, wanted ? MAY(ENOENT) : MAY(0));
	/* Some of them, the ends, and what is next to these. */
	for (i = 0; i < 4; i++) {
		model_check_entry(m, entry + rand_below(&m->rand, nr));
		at = entry + (i < 2 ? i - 1 : nr + i - 3);
		if (model_is_range(m, at, 1))
			model_check_entry(m, at);
	}
	return err;
}

void try_swp_swapcount(struct swap_model *m, unsigned q, uint64_t entry)
{
	const struct model_entry *e = model_entry(m, entry);
	uint32_t nr = swp_swapcount(model_queue(m, q), (swp_entry_t){ entry });

	if (nr != (e ? e->nr : 0))
		model_fail(m, "entry %" PRIu64 " has %u holders, and should have %u", entry, nr, e ? e->nr : 0);
	model_judge_bool(m, CALL_swp_swapcount, nr != 0, e && e->nr != 0);
}

void try_folio_swapped(struct swap_model *m, unsigned q, struct model_folio *f)
{
	model_judge_bool(m, CALL_folio_swapped, folio_swapped(model_queue(m, q), &f->folio),
			 model_is_cached(f) && model_nr_held(m, f) != 0);
}

/* ---- the cache ---- */

int try_swapcache_prepare(struct swap_model *m, unsigned q, uint64_t entry, uint32_t nr, struct model_folio *f)
{
	enum model_call call = nr ? CALL_swapcache_prepare : CALL_swap_cache_add_folio;
	uint32_t nr_free = atomic_load(&m->f->vswap->tables.nr_free), i;
	struct table *table = model_is_range(m, entry, 1) ? table_lookup(&m->f->vswap->tables, entry) : NULL;
	bool has_folios = table && atomic_load(&table->folios);
	struct model_entry *e = model_entry(m, entry);
	unsigned errors = 0;
	int err = nr ? swapcache_prepare(model_queue(m, q), (swp_entry_t){ entry }, nr, &f->folio) :
		       swap_cache_add_folio(model_queue(m, q), &f->folio, (swp_entry_t){ entry });

	nr = nr ? nr : model_nr_pages(f);
	if (nr != model_nr_pages(f) || !model_is_range(m, entry, nr) || entry % nr != 0 || !f->locked || model_is_cached(f))
		return model_judge(m, call, err, MAY(EINVAL));
	for (i = 0; i < nr; i++)
		errors |= !model_is_live(&e[i]) ? MAY(ENOENT) : e[i].folio ? MAY(EEXIST) : 0;
	if (errors == 0 && !has_folios && nr_free == 0)
		errors = MAY(ENOMEM);
	model_judge(m, call, err, errors ? errors : MAY(0));
	if (err == 0) {
		f->flags &= ~(uint32_t)(FOLIO_UPTODATE | FOLIO_DIRTY);
		model_cache_set(m, f, entry);
	}
	model_check_entry(m, entry);
	model_check_entry(m, entry + nr - 1);
	model_check_folio(m, f);
	return err;
}

int try_swapcache_clear(struct swap_model *m, unsigned q, struct model_folio *f, uint64_t entry, uint32_t nr)
{
	enum model_call call = nr ? CALL_swapcache_clear : CALL_put_swap_folio;
	int err = nr ? swapcache_clear(model_queue(m, q), &f->folio, (swp_entry_t){ entry }, nr) :
		       put_swap_folio(model_queue(m, q), &f->folio, (swp_entry_t){ entry });
	bool cached = model_is_cached(f) && f->first == entry && (nr == 0 || nr == model_nr_pages(f));
	uint32_t nr_held = model_is_cached(f) ? model_nr_held(m, f) : 0;
	unsigned errors = 0;

	if (!f->locked)
		return model_judge(m, call, err, MAY(EINVAL));
	errors |= cached ? 0 : MAY(ENOENT);
	errors |= (f->flags & FOLIO_UNDER_IO) || ((f->flags & FOLIO_DIRTY) && nr_held) ? MAY(EBUSY) : 0;
	model_judge(m, call, err, errors ? errors : MAY(0));
	if (err == 0) {
		if (nr_held)
			m->evicted[rand_below(&m->rand, MODEL_NR_EVICTED)] = (struct model_run){ entry, f->folio.order };
		model_cache_remove(m, f);
		model_check_entry(m, entry);
		model_check_entry(m, entry + model_nr_pages(f) - 1);
	}
	model_check_folio(m, f);
	return err;
}

struct model_folio *try_swap_cache_get_folio(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct model_entry *e = model_entry(m, entry);
	struct model_folio *f = e ? e->folio : NULL;
	struct folio *folio = swap_cache_get_folio(model_queue(m, q), (swp_entry_t){ entry });

	if (folio != (f ? &f->folio : NULL))
		model_fail(m, "another folio stands for entry %" PRIu64 " than should", entry);
	model_judge_bool(m, CALL_swap_cache_get_folio, folio != NULL, f != NULL);
	if (f) {
		f->refs++;
		f->mine++;
	}
	return f;
}

void try_batches(struct swap_model *m, unsigned q, uint64_t entry, uint64_t nr)
{
	uint64_t cached = 0, bare = 0, got;
	const struct model_entry *e;

	while (cached < nr && (e = model_entry(m, entry + cached)) && e->folio && e->nr == 0)
		cached++;
	while (bare < nr && (e = model_entry(m, entry + bare)) && !e->folio && e->nr != 0)
		bare++;
	got = vswap_swapcache_only(model_queue(m, q), (swp_entry_t){ entry }, nr);
	if (got != cached)
		model_fail(m, "%" PRIu64 " entries from %" PRIu64 " on are in the cache alone, and %" PRIu64 " should be", got,
			   entry, cached);
	model_judge_bool(m, CALL_vswap_swapcache_only, got != 0, cached != 0);
	got = non_swapcache_batch(model_queue(m, q), (swp_entry_t){ entry }, nr);
	if (got != bare)
		model_fail(m, "%" PRIu64 " entries from %" PRIu64 " on are not in the cache, and %" PRIu64 " should be", got,
			   entry, bare);
	model_judge_bool(m, CALL_non_swapcache_batch, got != 0, bare != 0);
}

/* ---- existence ---- */

bool try_vswap_tryget(struct swap_model *m, unsigned q, uint64_t entry)
{
	struct vswap *vswap = m->f->vswap;
	uint64_t c = (entry - m->first) / TABLE_ENTRIES;
	bool there = model_is_range(m, entry, 1);

	/* A queue that allocates from a cluster keeps it, too. */
	there = there && (m->nr_live[c] || model_is_pinned(m, c) || cluster_is_in_use(&vswap->clusters, entry >> TABLE_SHIFT));
	return model_judge_bool(m, CALL_vswap_tryget, vswap_tryget(model_queue(m, q), (swp_entry_t){ entry }), there);
}

void try_vswap_put(struct swap_model *m, unsigned q, uint64_t entry)
{
	vswap_put(model_queue(m, q), (swp_entry_t){ entry });
	model_judge(m, CALL_vswap_put, 0, MAY(0));
}

int try_swp_entry_to_swp_slot(struct swap_model *m, unsigned q, uint64_t entry)
{
	const struct model_entry *e = model_entry(m, entry);
	swp_slot_t slot = { UINT64_MAX };
	unsigned allowed = MAY(ENOENT), backings;
	swp_entry_t back = { 0 };
	int err = swp_entry_to_swp_slot(model_queue(m, q), (swp_entry_t){ entry }, &slot);

	if (e && model_is_live(e)) {
		backings = model_backings(m, entry);
		allowed = backings & 1u << BACKING_SLOT ? MAY(0) : 0;
		allowed |= backings & ~(1u << BACKING_SLOT) ? MAY(ENODATA) : 0;
	}
	model_judge(m, CALL_swp_entry_to_swp_slot, err, allowed);
	if ((err == 0) != (slot.val != UINT64_MAX))
		model_fail(m, "a slot is returned with an error, or none without");
	if (err < 0)
		return err;
	model_judge(m, CALL_swp_slot_to_swp_entry, swp_slot_to_swp_entry(model_queue(m, q), slot, &back), MAY(0));
	if (back.val != entry)
		model_fail(m, "the slot of entry %" PRIu64 " is that of entry %" PRIu64, entry, back.val);
	return 0;
}

void try_swp_slot_to_swp_entry(struct swap_model *m, unsigned q, swp_slot_t slot)
{
	struct slab_map *slabs = &m->f->vswap->slabs;
	uint32_t id = swp_slot_slab(slot), index = swp_slot_index(slot);
	struct slab *slab = slot.val <= WORD_PAYLOAD_MAX && id < slabs->max_slabs ? slab_by_id(slabs, id) : NULL;
	bool used = slab && index < slab->nr_slots && atomic_load(&slab->used[index / 64]) >> index % 64 & 1;
	swp_entry_t entry = { 0 };
	swp_slot_t back = { 0 };
	int err = swp_slot_to_swp_entry(model_queue(m, q), slot, &entry);

	model_judge(m, CALL_swp_slot_to_swp_entry, err, used ? MAY(0) | MAY(ENODATA) : MAY(ENOENT));
	if ((err == 0) != (entry.val != 0))
		model_fail(m, "an entry is returned with an error, or none without");
	if (err == 0 && (swp_entry_to_swp_slot(model_queue(m, q), entry, &back) != 0 || back.val != slot.val))
		model_fail(m, "the entry of slot %" PRIx64 " is in slot %" PRIx64, slot.val, back.val);
}

/* ---- hibernation ---- */

static void hibernation_ended(struct vswap_queue *queue, swp_entry_t entry, int status, void *arg)
{
	struct model_hibernation *h = arg;
	struct swap_model *m = h->model;
	struct model_entry *e = model_entry(m, h->entry);
	bool was_made = h->request.doing == DOING_ALLOC;

	if (entry.val != h->entry || queue != model_queue(m, h->request.queue))
		model_fail(m, "a hibernation slot ends with another entry or queue than it began");
	e->nr--; /* that of the request */
	model_request_end(m, &h->request, status);
	if (was_made && status < 0) {
		e->nr = 0;
		model_entry_end(m, e);
		h->used = false;
	}
	model_check_entry(m, h->entry);
}

void try_hibernation_alloc(struct swap_model *m, unsigned q, struct model_hibernation *h)
{
	struct cluster_cursor *cursor = &model_queue(m, q)->allocating[0];
	uint32_t nr_free = atomic_load(&m->f->vswap->tables.nr_free);
	unsigned allowed = MAY(0);
	int err;

	h->value = 0;
	h->request = (struct model_request){ .doing = DOING_ALLOC, .ends = CALL_swap_alloc_hibernation_slot_done, .queue = q,
					     .began = m->turn, .nr_pages = 1, .buf = m->f->vswap->zero_page,
					     .value = &h->value };
	err = MODEL_CALL(m, swap_alloc_hibernation_slot(model_queue(m, q), hibernation_ended, h));
	if (m->nr_busy[q] == m->nr_ios)
		allowed = MAY(EBUSY);
	else if (err < 0)
		allowed = model_may_fail(m, 0, err, nr_free);
	model_judge(m, CALL_swap_alloc_hibernation_slot, err, allowed);
	h->used = err == 0;
	if (err < 0) {
		h->request.doing = DOING_NOTHING;
		return;
	}
	/* It is told when it is done; but from now on it is there, and held by the request as well. */
	h->entry = ((uint64_t)cursor->table->cluster << TABLE_SHIFT) + cursor->next - 1;
	h->request.first = h->entry;
	model_entry_begin(m, model_entry(m, h->entry), BACKING_SAME);
	model_entry(m, h->entry)->nr = 2;
	model_entry(m, h->entry)->hibernation = h;
	m->nr_busy[q]++;
}

void try_hibernation_io(struct swap_model *m, unsigned q, struct model_hibernation *h, uint64_t entry, bool is_read,
			       unsigned wrong)
{
	struct model_entry *e = model_entry(m, entry);
	unsigned errors = e && e->nr != 0 && !e->folio && !wrong ? 0 : MAY(EINVAL);
	int err;

	errors |= m->nr_busy[q] == m->nr_ios || (e && e->nr > 1) ? MAY(EBUSY) : 0;
	if (!errors) {
		h->value = model_new_value(m);
		model_page_fill(h->page, h->value);
		h->request = (struct model_request){ .doing = is_read ? DOING_READ : DOING_ASSIGN, .queue = q, .began = m->turn,
						     .first = entry, .nr_pages = 1, .buf = h->page, .value = &h->value };
		h->request.ends = is_read ? CALL_swap_read_hibernation_slot_done : CALL_swap_write_hibernation_slot_done;
		m->nr_busy[q]++;
		e->nr++; /* the request holds it, too */
	}
	if (is_read)
		err = MODEL_CALL(m, swap_read_hibernation_slot(model_queue(m, q), (swp_entry_t){ entry }, h->page + wrong,
							       hibernation_ended, h));
	else
		err = MODEL_CALL(m, swap_write_hibernation_slot(model_queue(m, q), (swp_entry_t){ entry }, h->page + wrong,
								hibernation_ended, h));
	model_judge(m, is_read ? CALL_swap_read_hibernation_slot : CALL_swap_write_hibernation_slot, err,
		    errors ? errors : MAY(0));
}

void try_hibernation_free(struct swap_model *m, unsigned q, uint64_t entry, struct model_hibernation *h)
{
	struct model_entry *e = model_entry(m, entry);
	unsigned allowed = h ? MAY(0) : MAY(ENOENT);
	int err = swap_free_hibernation_slot(model_queue(m, q), (swp_entry_t){ entry });

	if (e && e->nr > 1)
		allowed = e->folio ? MAY(ENOENT) | MAY(EBUSY) : MAY(EBUSY);
	model_judge(m, CALL_swap_free_hibernation_slot, err, allowed);
	if (err == 0) {
		e->nr = 0;
		model_entry_end(m, e);
		h->used = false;
	}
	if (e)
		model_check_entry(m, entry);
}

/* ---- making and ending ---- */

void model_create(struct swap_model *m, const struct vswap_options *options, uint64_t seed)
{
	struct sys_reactor_options outer = { .name = "outer", .manual = true, .cpu = -1 };
	uint64_t nr_pages = MODEL_NR_HIBERNATIONS;
	uint64_t *value;
	uint32_t i;

	memset(m, 0, sizeof(*m));
	m->seed = seed;
	m->rand.s = seed;
	m->f = fixture_create_with(options);
	assert_int_equal(sys_reactor_create(&outer, &m->outer), 0);
	m->first = m->f->vswap->clusters.first << TABLE_SHIFT;
	m->nr = m->f->vswap->clusters.nr << TABLE_SHIFT;
	m->nr_ios = options->nr_folio_ios;
	m->turn = 1;
	m->next_value = 1;
	m->nr_tables = atomic_load(&m->f->vswap->tables.nr_free);
	m->entry = calloc(m->nr, sizeof(*m->entry));
	m->nr_live = calloc(m->nr / TABLE_ENTRIES * 2, sizeof(*m->nr_live));
	m->nr_cached = m->nr_live + m->nr / TABLE_ENTRIES;
	for (i = 0; i < MODEL_NR_FOLIOS; i++)
		nr_pages += 1ull << model_max_order(i);
	m->memory = aligned_alloc(FSW_PAGE_SIZE, nr_pages * FSW_PAGE_SIZE);
	value = calloc(nr_pages, sizeof(*value));
	assert_true(m->entry && m->nr_live && m->memory && value);
	for (i = 0; i < MODEL_NR_FOLIOS; i++) {
		m->folio[i] = (struct model_folio){ .model = m, .value = value, .unknown = true };
		value += 1ull << model_max_order(i);
	}
	for (i = 0; i < MODEL_NR_HIBERNATIONS; i++) {
		m->hibernation[i].model = m;
		m->hibernation[i].page = m->memory + (nr_pages - 1 - i) * FSW_PAGE_SIZE;
	}
}

void model_free(struct swap_model *m)
{
	fixture_free(m->f);
	sys_reactor_free(m->outer);
	free(m->folio[0].value);
	free(m->memory);
	free(m->nr_live);
	free(m->entry);
}

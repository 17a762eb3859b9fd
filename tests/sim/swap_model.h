/*
 * The model of what swap.h promises: of each entry who holds it, which folio stands for it and what its bytes are; of each
 * folio who has it locked, who waits for it, its flags and its references. Every call of swap.h has a try_ function: it makes
 * the call, compares all that can be seen of it with what the model says it must be, and then changes the model.
 *
 * One thread, manual reactors. Calls are made within the turn of a reactor that stands around the others (`outer`), so no
 * grace period ends between two of them: a run depends on nothing but its seed, and what comes back after a grace period,
 * tables and folios, does so between two such turns.
 *
 * In this header is the model itself, and what a run chooses at random; in swap_model_check.c are the comparisons, in
 * swap_model_io.c the calls that begin I/O and what becomes of it, in swap_model.c all others.
 */
#ifndef FARSWAP_TESTS_SIM_SWAP_MODEL_H
#define FARSWAP_TESTS_SIM_SWAP_MODEL_H

#include <limits.h>

#include "client/vswap/page.h"
#include "client/vswap/swap.h"
#include "common/base/rand.h"
#include "tests/unit/vswap_fixture.h"

#define MODEL_NR_FOLIOS 112u
#define MODEL_NR_WAITERS 48u
#define MODEL_NR_HIBERNATIONS 6u
#define MODEL_NR_EVICTED 64u
#define MODEL_NR_PINS 12u
#define MODEL_MAX_RECORDS 4096u	  /* see count.c: of entries with more than 1023 holders. */
#define MODEL_RECORD_BEGINS 1024u /* With so many an entry gets one, */
#define MODEL_RECORD_ENDS 767u	  /* and with so few it has none any more. */
#define MODEL_READ_TRIES 3u  /* see read.c: with so many wrong fetches a page is lost. */
#define MODEL_WRITE_TRIES 8u /* See write.c: so often a write is placed elsewhere. */

/* Calls, and what is called back. */
#define MODEL_CALLS(X) \
	X(folio_init) X(folio_nr_pages) X(folio_get) X(folio_put) X(folio_flags) X(folio_mark_dirty) X(folio_trylock) \
	X(folio_lock) X(folio_locked) X(folio_unlock) X(folio_release) X(folio_alloc_swap) X(folio_free_swap) \
	X(folio_dup_swap) X(folio_put_swap) X(swap_dup_entry_direct) X(swap_duplicate) X(swap_duplicate_nr) \
	X(swap_put_entries_direct) X(swap_free_nr) X(swp_swapcount) X(folio_swapped) X(swapcache_prepare) \
	X(swap_cache_add_folio) X(swapcache_clear) X(put_swap_folio) X(swap_cache_get_folio) X(vswap_swapcache_only) \
	X(non_swapcache_batch) X(vswap_tryget) X(vswap_put) X(swp_entry_to_swp_slot) X(swp_slot_to_swp_entry) \
	X(vswap_store_folio) X(vswap_store_folio_done) X(vswap_assign_slot) X(vswap_assign_slot_done) \
	X(vswap_store_compressed) X(vswap_store_compressed_done) X(vswap_set_same) \
	X(swap_read_folio) X(swap_read_folio_done) X(swap_alloc_hibernation_slot) X(swap_alloc_hibernation_slot_done) \
	X(swap_write_hibernation_slot) X(swap_write_hibernation_slot_done) X(swap_read_hibernation_slot) \
	X(swap_read_hibernation_slot_done) X(swap_free_hibernation_slot)
#define MODEL_CALL_NUMBER(name) CALL_##name,

enum model_call { MODEL_CALLS(MODEL_CALL_NUMBER) MODEL_NR_CALLS };

/* Errors, behind 0 (also false, or none) and 1 (true, or some). */
#define MODEL_ERRORS(X) \
	X(EINVAL) X(ENOENT) X(EEXIST) X(EBUSY) X(ENOMEM) X(ENOSPC) X(EOVERFLOW) X(ERANGE) X(ENODATA) X(EIO)
#define MODEL_ERROR_NUMBER(name) RESULT_##name,

enum model_result { RESULT_0, RESULT_1, MODEL_ERRORS(MODEL_ERROR_NUMBER) MODEL_NR_RESULTS };

#define MAY(result) (1u << RESULT_##result)

/* What is compressed may be moved to a slot at any time, and not back. */
enum model_backing { BACKING_NONE, BACKING_FOLIO, BACKING_SAME, BACKING_SLOT, BACKING_COMP, BACKING_POISON };

enum model_doing { DOING_NOTHING, DOING_STORE, DOING_COMPRESS, DOING_ASSIGN, DOING_READ, DOING_ALLOC };

/* What is under way for a folio, or for a hibernation slot. */
struct model_request {
	enum model_doing doing;
	enum model_call ends; /* when this is called back */
	unsigned queue;
	uint64_t began;	     /* in which turn */
	uint32_t nr_failed;  /* operations of it that a backend has refused or failed */
	uint32_t nr_corrupt; /* reads of it with wrong bytes */
	uint64_t first;	     /* entry */
	uint32_t nr_pages;
	char *buf;
	uint64_t *value; /* what each page of buf holds */
};

struct model_entry {
	uint64_t value; /* what its backing holds, see model_page_fill */
	struct model_folio *folio;
	struct model_hibernation *hibernation;
	uint32_t nr; /* holders */
	uint8_t backing;
	bool has_record; /* holders beyond 1023 are kept beside it */
};

struct model_waiter {
	struct folio_waiter waiter;
	TAILQ_ENTRY(model_waiter) link;
	struct model_folio *folio;
	unsigned queue;
	uint64_t granted; /* in which turn the lock was handed on to it; 0: not yet */
	bool busy;
};

struct model_folio {
	struct folio folio;
	struct swap_model *model;
	uint64_t *value; /* what each page of the memory holds */
	bool used;
	bool locked;
	bool owned;   /* by the caller: whoever it was handed on to has been called */
	bool unheld;  /* entries have lost their last holder: it is to be looked at when it is unlocked */
	bool unknown; /* a read has failed: nobody knows what the memory holds */
	bool evict;   /* out of the cache as soon as it is stored */
	uint32_t flags;
	uint32_t refs; /* of them `mine` are the caller's, one is the cache's, the others those of waiters */
	uint32_t mine;
	uint64_t first; /* entry */
	struct model_request request;
	TAILQ_HEAD(, model_waiter) waiters;
	_Atomic unsigned nr_released;
};

struct model_hibernation {
	struct swap_model *model;
	bool used;
	uint64_t entry;
	uint64_t value; /* of the page */
	struct model_request request;
	char *page;
};

struct model_run {
	uint64_t first;
	unsigned order;
};

struct swap_model {
	struct rand_state rand;
	struct fixture *f;
	struct sys_reactor *outer;
	uint64_t seed;
	uint64_t first, nr; /* entries */
	struct model_entry *entry;
	uint32_t *nr_live, *nr_cached; /* of each cluster */
	struct model_folio folio[MODEL_NR_FOLIOS];
	char *memory;
	struct model_waiter waiter[MODEL_NR_WAITERS];
	struct model_hibernation hibernation[MODEL_NR_HIBERNATIONS];
	struct model_run evicted[MODEL_NR_EVICTED]; /* what may be read in again */
	uint64_t pin[MODEL_NR_PINS];		    /* entries; 0 is none */
	uint32_t nr_ios, nr_busy[FIXTURE_QUEUES];   /* requests of a queue: in all, and under way */
	uint32_t nr_records;
	uint64_t nr_tables; /* in use and free */
	uint64_t next_value;
	uint64_t turn;	/* of any reactor, counted from 1 */
	uint64_t tight; /* the last in which hardly a slot was free */
	uint64_t nr_ops;
	uint64_t nr_early; /* times that an allocation gave up although there was a run */
	bool in_call;
};

/* ---- swap_model.c: making ---- */

void model_create(struct swap_model *m, const struct vswap_options *options, uint64_t seed);
/* All entries and folios have gone. */
void model_free(struct swap_model *m);

/* ---- swap_model_check.c: judging ---- */

/* Fails the test unless the result is one of those that are allowed, by MAY. Returns it. */
int model_judge(struct swap_model *m, enum model_call call, int got, unsigned allowed);
/* The same for a call that says yes or no. */
int model_judge_bool(struct swap_model *m, enum model_call call, bool got, bool wanted);
void model_fail(struct swap_model *m, const char *fmt, ...) BASE_PRINTF(2, 3);
/* Prints how often each call has had each result, in all worlds. False: one was never made. */
bool model_print_seen(void);

/* Nothing may be called back inside a call. */
static inline int model_called(struct swap_model *m, int got)
{
	m->in_call = false;
	return got;
}

#define MODEL_CALL(m, call) model_called((m), ((m)->in_call = true, (call)))

static inline uint64_t dice(struct swap_model *m, uint64_t nr)
{
	return rand_below(&m->rand, nr);
}

/* ---- pages ---- */

#define PAGE_WORDS (FSW_PAGE_SIZE / 8)
#define VALUE_REPEATED_MAX ((1ull << 40) - 1)

/* Up to VALUE_REPEATED_MAX a page is its value over and over; else all of it or the half looks random. */
static inline uint64_t model_page_word(uint64_t value, unsigned i)
{
	uint64_t word = (value + i) * 0xbf58476d1ce4e5b9u;

	return value <= VALUE_REPEATED_MAX || (value % 4 == 0 && i >= PAGE_WORDS / 2) ? value : word ^ word >> 29;
}

static inline bool model_page_shrinks(uint64_t value)
{
	return value <= VALUE_REPEATED_MAX || value % 4 == 0;
}

static inline void model_page_fill(void *page, uint64_t value)
{
	uint64_t *words = page;
	unsigned i;

	for (i = 0; i < PAGE_WORDS; i++)
		words[i] = model_page_word(value, i);
}

static inline bool model_page_holds(const void *page, uint64_t value)
{
	const uint64_t *words = page;
	uint64_t different = 0;
	unsigned i;

	for (i = 0; i < PAGE_WORDS; i++)
		different |= words[i] ^ model_page_word(value, i);
	return different == 0;
}

static inline uint64_t model_new_value(struct swap_model *m)
{
	uint64_t any = rand_next(&m->rand);
	const uint64_t repeated[] = { 0, any >> 8 & WORD_PAYLOAD_MAX, any >> 8 & 3, WORD_PAYLOAD_MAX + 1 + (any >> 40) };

	return any % 16 < BASE_ARRAY_SIZE(repeated) ? repeated[any % 16] : 1ull << 63 | m->next_value++ << 10 | any >> 54;
}

/* The caller, who has the folio locked, changes page i. */
static inline void model_change_page(struct swap_model *m, struct model_folio *f, uint32_t i)
{
	f->value[i] = model_new_value(m);
	model_page_fill((char *)f->folio.data + (size_t)i * FSW_PAGE_SIZE, f->value[i]);
}

/* Memory of folio number i: most have little. */
static inline unsigned model_max_order(uint32_t i)
{
	if (i < MODEL_NR_FOLIOS * 4 / 7)
		return 3;
	return i < MODEL_NR_FOLIOS * 6 / 7 ? 6 : FOLIO_MAX_ORDER;
}

/* ---- entries ---- */

static inline struct model_entry *model_entry(struct swap_model *m, uint64_t entry)
{
	return entry - m->first < m->nr ? &m->entry[entry - m->first] : NULL;
}

static inline bool model_is_live(const struct model_entry *e)
{
	return e->nr != 0 || e->folio != NULL;
}

static inline bool model_is_range(const struct swap_model *m, uint64_t entry, uint64_t nr)
{
	return nr != 0 && entry - m->first < m->nr && nr <= m->nr - (entry - m->first);
}

static inline void model_entry_begin(struct swap_model *m, struct model_entry *e, enum model_backing backing)
{
	if (e->backing != BACKING_NONE)
		model_fail(m, "entry %llu is given away and was not free",
			   (unsigned long long)m->first + (unsigned long long)(e - m->entry));
	e->backing = (uint8_t)backing;
	m->nr_live[(e - m->entry) / TABLE_ENTRIES]++;
}

static inline void model_entry_end(struct swap_model *m, struct model_entry *e)
{
	e->backing = BACKING_NONE;
	e->value = 0;
	e->hibernation = NULL;
	m->nr_live[(e - m->entry) / TABLE_ENTRIES]--;
}

static inline void model_entry_up(struct swap_model *m, struct model_entry *e)
{
	e->nr++;
	if (e->nr < MODEL_RECORD_BEGINS || e->has_record)
		return;
	e->has_record = true;
	m->nr_records++;
}

static inline void model_entry_down(struct swap_model *m, struct model_entry *e)
{
	e->nr--;
	if (e->nr > MODEL_RECORD_ENDS || !e->has_record)
		return;
	e->has_record = false;
	m->nr_records--;
}

/* ---- folios ---- */

static inline uint32_t model_nr_pages(const struct model_folio *f)
{
	return 1u << f->folio.order;
}

static inline bool model_is_cached(const struct model_folio *f)
{
	return (f->flags & FOLIO_SWAPCACHE) != 0;
}

static inline uint32_t model_nr_held(struct swap_model *m, const struct model_folio *f)
{
	const struct model_entry *e = model_entry(m, f->first);
	uint32_t nr = 0, i;

	for (i = 0; i < model_nr_pages(f); i++)
		nr += e[i].nr != 0;
	return nr;
}

static inline void model_cache_set(struct swap_model *m, struct model_folio *f, uint64_t first)
{
	struct model_entry *e = model_entry(m, first);
	uint32_t i;

	for (i = 0; i < model_nr_pages(f); i++)
		e[i].folio = f;
	m->nr_cached[(e - m->entry) / TABLE_ENTRIES] += model_nr_pages(f);
	f->first = first;
	f->flags |= FOLIO_SWAPCACHE;
	f->refs++;
}

static inline void model_cache_remove(struct swap_model *m, struct model_folio *f)
{
	struct model_entry *e = model_entry(m, f->first);
	uint32_t i;

	for (i = 0; i < model_nr_pages(f); i++) {
		e[i].folio = NULL;
		if (e[i].nr == 0)
			model_entry_end(m, &e[i]);
	}
	m->nr_cached[(e - m->entry) / TABLE_ENTRIES] -= model_nr_pages(f);
	f->flags &= ~(uint32_t)FOLIO_SWAPCACHE;
	f->unheld = false;
	f->refs--;
}

/* Nobody has it locked, or who has is about to let it go. */
static inline void model_drop_unheld(struct swap_model *m, struct model_folio *f)
{
	f->unheld = false;
	if ((f->flags & (FOLIO_SWAPCACHE | FOLIO_DIRTY | FOLIO_UNDER_IO)) == FOLIO_SWAPCACHE && model_nr_held(m, f) == 0)
		model_cache_remove(m, f);
}

/* One holder less for each of these entries of one cluster: 0, or -ENOENT and nothing is changed. */
static inline int model_put_run(struct swap_model *m, struct model_entry *e, uint32_t nr)
{
	struct model_folio *last = NULL;
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (e[i].nr == 0)
			return -ENOENT;
	for (i = 0; i < nr; i++) {
		model_entry_down(m, &e[i]);
		if (!model_is_live(&e[i]))
			model_entry_end(m, &e[i]);
	}
	for (i = 0; i < nr; i++) {
		struct model_folio *f = e[i].folio;

		if (!f || e[i].nr != 0 || f == last)
			continue;
		last = f;
		f->unheld = true;
		if (!f->locked)
			model_drop_unheld(m, f);
	}
	return 0;
}

static inline bool model_is_pinned(const struct swap_model *m, uint64_t cluster)
{
	unsigned i;

	for (i = 0; i < MODEL_NR_PINS; i++)
		if (m->pin[i] && (m->pin[i] - m->first) / TABLE_ENTRIES == cluster)
			return true;
	return false;
}

/* Each kind is one of those before it. FOR_CALLS: the lock is the caller's, or nobody's; no call is made in another's name. */
enum model_kind { ANY, MINE, FOR_CALLS, OWNED, IDLE, IDLE_OUTSIDE };

static inline bool model_is(const struct model_folio *f, enum model_kind kind)
{
	return f->used && (kind < MINE || f->mine > 0) && (kind < FOR_CALLS || f->owned || !f->locked) &&
	       (kind < OWNED || f->owned) && (kind < IDLE || (f->request.doing == DOING_NOTHING && !f->evict)) &&
	       (kind < IDLE_OUTSIDE || !model_is_cached(f));
}

/* So many entries from this one on have holders. */
static inline uint64_t model_run_of_held(struct swap_model *m, uint64_t entry, uint64_t max)
{
	const struct model_entry *e;
	uint64_t nr = 0;

	while (nr < max && (e = model_entry(m, entry + nr)) && e->nr && !e->hibernation)
		nr++;
	return nr;
}

/* The holder of a hibernation slot has no part in what others do. A range that does not exist is refused anyway. */
static inline bool model_has_hibernation(struct swap_model *m, uint64_t entry, uint64_t nr)
{
	unsigned i;

	for (i = 0; i < MODEL_NR_HIBERNATIONS && model_is_range(m, entry, nr); i++)
		if (m->hibernation[i].used && m->hibernation[i].entry - entry < nr)
			return true;
	return false;
}

/* ---- what may be ---- */

static inline bool model_may_save_the_slot(enum model_doing doing)
{
	return doing == DOING_STORE || doing == DOING_COMPRESS;
}

/* What an entry may be backed by just now, by bits: what is under way for it may have come so far, or not yet. */
static inline unsigned model_backings(struct swap_model *m, uint64_t entry)
{
	const struct model_entry *e = model_entry(m, entry);
	const struct model_request *request = e->folio ? &e->folio->request : e->hibernation ? &e->hibernation->request : NULL;
	enum model_doing doing = request ? request->doing : DOING_NOTHING;
	unsigned backings = 1u << e->backing;

	if (model_may_save_the_slot(doing) && request->value[entry - request->first] <= WORD_PAYLOAD_MAX)
		backings |= 1u << BACKING_SAME;
	else if (doing != DOING_NOTHING && doing != DOING_READ && doing != DOING_COMPRESS)
		backings |= 1u << BACKING_SLOT;
	if (model_may_save_the_slot(doing) && m->f->vswap->comp)
		backings |= 1u << BACKING_COMP;
	if (backings & 1u << BACKING_COMP)
		backings |= 1u << BACKING_SLOT;
	if (doing != DOING_NOTHING && backings & 1u << BACKING_SLOT && (request->nr_failed || request->nr_corrupt))
		backings |= 1u << BACKING_POISON;
	return backings;
}

static inline enum model_backing model_backing_of(uint64_t word)
{
	static const uint8_t backing[WORD_NR_TAGS] = {
		[WORD_SAME] = BACKING_SAME,	[WORD_REMOTE] = BACKING_SLOT, [WORD_DISK] = BACKING_SLOT,
		[WORD_POISON] = BACKING_POISON, [WORD_FOLIO] = BACKING_FOLIO, [WORD_COMP] = BACKING_COMP,
	};

	return (enum model_backing)backing[word_tag(word)];
}

/*
 * Whether slots are so few that a store may find none: what is left may be what the two other queues have for themselves, and
 * some comes and goes within a turn.
 */
static inline bool model_is_tight(struct swap_model *m)
{
	const struct slab_list *list = atomic_load(&m->f->vswap->slabs.list);
	uint32_t i, nr_free = 0;

	for (i = 0; i < list->nr; i++)
		if (slab_is_stable(list->slab[i]))
			nr_free += list->slab[i]->nr_slots - atomic_load(&list->slab[i]->nr_used);
	return nr_free < (FIXTURE_REACTORS - 1) * SLAB_CLUSTER_SLOTS + SLAB_CLUSTER_SLOTS;
}

static inline void model_turn(struct swap_model *m, unsigned reactor, uint64_t ns)
{
	m->turn++;
	m->f->now_ns += ns;
	if (model_is_tight(m))
		m->tight = m->turn;
	sys_reactor_turn(m->f->reactors[reactor]);
	if (model_is_tight(m))
		m->tight = m->turn;
}

static inline void model_turn_all(struct swap_model *m, uint64_t ns)
{
	unsigned i;

	for (i = 0; i < FIXTURE_REACTORS; i++)
		model_turn(m, i, ns);
}

static inline struct vswap_queue *model_queue(struct swap_model *m, unsigned q)
{
	return vswap_queue(m->f->vswap, q);
}

/* ---- swap_model_check.c: comparing ---- */

/* After a call that was to find 2^order entries has failed with err: what it may return. So many tables were free before it. */
unsigned model_may_fail(struct swap_model *m, unsigned order, int err, uint32_t nr_free_tables);
void model_check_entry(struct swap_model *m, uint64_t entry);
void model_check_folio(struct swap_model *m, struct model_folio *f);
void model_check_all(struct swap_model *m);
/* After a grace period, in no turn: what must be released is. */
void model_check_after_grace(struct swap_model *m);

/* ---- swap_model.c: the calls ---- */

void try_folio_init(struct swap_model *m, struct model_folio *f, unsigned order);
void try_folio_get(struct swap_model *m, struct model_folio *f);
void try_folio_put(struct swap_model *m, struct model_folio *f);
void try_folio_mark_dirty(struct swap_model *m, struct model_folio *f);
bool try_folio_trylock(struct swap_model *m, struct model_folio *f);
bool try_folio_lock(struct swap_model *m, unsigned q, struct model_folio *f, struct model_waiter *w);
void try_folio_unlock(struct swap_model *m, unsigned q, struct model_folio *f);
int try_folio_alloc_swap(struct swap_model *m, unsigned q, struct model_folio *f, unsigned order);
bool try_folio_free_swap(struct swap_model *m, unsigned q, struct model_folio *f);
int try_folio_dup_swap(struct swap_model *m, unsigned q, struct model_folio *f, uint32_t page);
int try_folio_put_swap(struct swap_model *m, unsigned q, struct model_folio *f, uint32_t page);
/* swap_dup_entry_direct, or its older name. */
int try_swap_dup(struct swap_model *m, unsigned q, uint64_t entry, bool older);
int try_swap_duplicate_nr(struct swap_model *m, unsigned q, uint64_t entry, uint32_t nr);
/* swap_put_entries_direct, or its older name. */
int try_swap_put(struct swap_model *m, unsigned q, uint64_t entry, uint64_t nr, bool older);
void try_swp_swapcount(struct swap_model *m, unsigned q, uint64_t entry);
void try_folio_swapped(struct swap_model *m, unsigned q, struct model_folio *f);
/* swapcache_prepare, or with nr 0 swap_cache_add_folio. */
int try_swapcache_prepare(struct swap_model *m, unsigned q, uint64_t entry, uint32_t nr, struct model_folio *f);
/* swapcache_clear, or with nr 0 put_swap_folio. */
int try_swapcache_clear(struct swap_model *m, unsigned q, struct model_folio *f, uint64_t entry, uint32_t nr);
struct model_folio *try_swap_cache_get_folio(struct swap_model *m, unsigned q, uint64_t entry);
/* vswap_swapcache_only and non_swapcache_batch. */
void try_batches(struct swap_model *m, unsigned q, uint64_t entry, uint64_t nr);
bool try_vswap_tryget(struct swap_model *m, unsigned q, uint64_t entry);
void try_vswap_put(struct swap_model *m, unsigned q, uint64_t entry);
int try_swp_entry_to_swp_slot(struct swap_model *m, unsigned q, uint64_t entry);
void try_hibernation_alloc(struct swap_model *m, unsigned q, struct model_hibernation *h);
/* `wrong` bytes off: the page is not aligned. */
void try_hibernation_io(struct swap_model *m, unsigned q, struct model_hibernation *h, uint64_t entry, bool is_read,
			unsigned wrong);
/* Only of a hibernation slot, or of what can be told from one: it is not held once. */
void try_hibernation_free(struct swap_model *m, unsigned q, uint64_t entry, struct model_hibernation *h);
void try_swp_slot_to_swp_entry(struct swap_model *m, unsigned q, swp_slot_t slot);

/* ---- swap_model_io.c: requests ---- */

/* A backend refuses, fails or falsifies an operation: whom that meets is told by where the bytes are. */
void model_fault_meets(struct swap_model *m, const struct backend_io *io, bool corrupt);
/* With a status that it may have, on its own thread, and in no call. */
void model_request_end(struct swap_model *m, struct model_request *request, int status);
/* Begins what is to be done. In the end a folio that is to be evicted is. */
int try_folio_io(struct swap_model *m, unsigned q, struct model_folio *f, enum model_doing doing);
/* After that, or instead of it: out of the cache if it is `stored`, and perhaps not to be used again. */
void model_evict(struct swap_model *m, unsigned q, struct model_folio *f, bool stored);
void try_vswap_set_same(struct swap_model *m, unsigned q, struct model_folio *f, uint32_t page, uint64_t value);

/* ---- choices ---- */

#define ANY_ORDER UINT_MAX

static inline struct model_folio *model_pick(struct swap_model *m, enum model_kind kind)
{
	unsigned i;

	for (i = 0; i < 16; i++) {
		struct model_folio *f = &m->folio[dice(m, MODEL_NR_FOLIOS)];

		if (model_is(f, kind))
			return f;
	}
	return NULL;
}

static inline struct model_folio *model_new_folio(struct swap_model *m, unsigned order)
{
	uint32_t from = (uint32_t)dice(m, MODEL_NR_FOLIOS), i, at;

	for (i = 0; i < MODEL_NR_FOLIOS; i++) {
		at = (from + i) % MODEL_NR_FOLIOS;
		if (m->folio[at].used || at < 2 || model_max_order(at) < order) /* the first two are for the end */
			continue;
		try_folio_init(m, &m->folio[at], order);
		return &m->folio[at];
	}
	return NULL;
}

/* Locked, and in no cache: one that is there, or else a new one. */
static inline struct model_folio *model_some_folio(struct swap_model *m, unsigned order)
{
	struct model_folio *f;
	unsigned i;

	for (i = 0; i < 4; i++) {
		f = model_pick(m, IDLE_OUTSIDE);
		if (f && (f->folio.order == order || order == ANY_ORDER))
			return f;
	}
	if (order == ANY_ORDER)
		order = (unsigned)(dice(m, 12) ? dice(m, 5) : dice(m, FOLIO_MAX_ORDER + 1));
	f = model_new_folio(m, order);
	if (f)
		try_folio_trylock(m, f);
	return f;
}

static inline uint64_t model_some_entry(struct swap_model *m)
{
	const uint64_t end = m->first + m->nr;
	const uint64_t outside[] = { 0, m->first - 1, end, end + 5, end ^ 1ull << 32, UINT64_MAX, 1ull << 63 | m->first };
	struct model_folio *f = NULL;
	uint64_t at = dice(m, m->nr);
	unsigned i;

	switch (dice(m, 8)) {
	case 0:
		return dice(m, 4) ? m->first + at : outside[dice(m, BASE_ARRAY_SIZE(outside))];
	case 1: /* near the end of a cluster */
		at = (1 + dice(m, m->nr / TABLE_ENTRIES)) * TABLE_ENTRIES - 4 + dice(m, 8);
		return m->first + base_min_u64(at, m->nr - 1);
	case 2:
	case 3:
		f = model_pick(m, ANY);
		break;
	default:
		for (i = 0; i < 6 && !model_is_live(&m->entry[at]); i++)
			at = dice(m, m->nr);
	}
	return f && model_is_cached(f) ? f->first + dice(m, model_nr_pages(f)) : m->first + at;
}

static inline uint64_t model_some_number(struct swap_model *m)
{
	const uint64_t number[] = { 0, UINT64_MAX - dice(m, 3), (1ull << 32) - 4 + dice(m, 8), 1 + dice(m, 2 * TABLE_ENTRIES),
				    1 + dice(m, m->nr) };
	uint64_t i = dice(m, 16);

	return i < BASE_ARRAY_SIZE(number) ? number[i] : 1 + dice(m, 40);
}

/* Of a folio, or all of them, or one that it does not have. */
static inline uint32_t model_some_page(struct swap_model *m, const struct model_folio *f)
{
	if (dice(m, 32) == 0)
		return model_nr_pages(f) + (uint32_t)dice(m, 3);
	return dice(m, 2) ? FOLIO_ALL : (uint32_t)dice(m, model_nr_pages(f));
}

#endif

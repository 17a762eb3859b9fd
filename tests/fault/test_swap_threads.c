/* deps: tests_fault_device */
/*
 * The swap cache on real threads: eight queues, each on a reactor of its own, live as processes do that share what they have
 * swapped out. All call all of swap.h on the same entries and folios. Meanwhile one backend after the other is drained, the
 * reserve of tables is filled, and the books are checked.
 *
 * What must be true is kept beside: the version of each entry's page, which only who has its folio locked changes, and how
 * many hold it. The versions are plain words, so ThreadSanitizer sees whether the folio's lock orders what it should. What is
 * not true is an assertion that fails: cmocka cannot be told on other threads.
 *
 * A run cannot be replayed, but the choices of each thread can: by FARSWAP_SEED. FARSWAP_OPS is for all threads together.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "client/vswap/internal.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "tests/fault/device.h"

#define NR_THREADS 8u
#define NR_LENDERS 2u
#define FIRST SWP_CLUSTER_ENTRIES /* without a block device, the first cluster is left out */
#define END (FIRST + 64 * SWP_CLUSTER_ENTRIES)
#define NR_SLOTS 32768u /* of each lender: while one is drained, the other has room for all */
#define NR_JOBS 6u	/* that a thread has under way */
#define NR_REGIONS 48u	/* that a thread holds */
#define NR_MAIL 64u
#define NR_ROUNDS 4u /* at whose ends everything is given up, and counted */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define NR_OPS 100000u /* from so many on, every event is certain */
#else
#define NR_OPS 300000u
#endif
#define SWP(entry) ((swp_entry_t){ entry })
#define PAGE(folio, i) ((char *)(folio)->data + (size_t)(i) * FSW_PAGE_SIZE)
#define CHANCE(worker, bound) rand_below(&(worker)->rand, bound)
/* Relaxed, as all that is only counted: it must not order what the locks have to. */
#define COUNT(nr, change) ((void)atomic_fetch_add_explicit(&(nr), (uint64_t)(change), memory_order_relaxed))

enum event { QUEUED, EXISTED, LOST, DROPPED, OVERFLOWED, MOVED, FREED, HIBERNATED, WRITTEN_BACK, NR_EVENTS };

static const char *const event_text[NR_EVENTS] = {
	[QUEUED] = "queued on a folio",
	[EXISTED] = "-EEXIST",
	[LOST] = "queued after that",
	[DROPPED] = "dropped by a last put",
	[OVERFLOWED] = "beyond a word",
	[MOVED] = "moved",
	[FREED] = "freed from swap",
	[HIBERNATED] = "hibernated",
	[WRITTEN_BACK] = "written back",
};

/* A holder of each of these entries, which are of one cluster. */
struct region {
	uint64_t entry, nr;
};

struct job {
	_Alignas(FSW_PAGE_SIZE) char page[FSW_PAGE_SIZE]; /* of a hibernation slot, of `version` */
	struct worker *worker;
	void (*step)(struct job *job); /* in the next turn; NULL: it waits to be called, or is over */
	void (*use)(struct job *job);  /* once the folio is locked, up to date and in the cache */
	int (*io)(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);
	struct region region; /* nr 0: it holds none */
	uint64_t entry;	      /* one of them, whose folio it wants; 0: that of `folio`, whatever it stands for */
	struct folio *folio;  /* NULL, or with a reference */
	struct folio_waiter waiter;
	bool lost; /* somebody else was quicker */
	unsigned nr_done; /* steps of hibernation */
	uint64_t version;
};

struct worker {
	struct job job[NR_JOBS];
	struct vswap_queue *queue;
	struct rand_state rand;
	struct sys_poller poller;
	uint64_t next_version;
	uint64_t nr_left; /* jobs to begin in this round */
	struct region region[NR_REGIONS];
	uint64_t nr_regions;
	swp_entry_t pin; /* 0: none */
};

static uint64_t version[END];	      /* of each entry's page; of who has its folio locked */
static _Atomic uint32_t nr_held[END]; /* its holders */
static struct worker workers[NR_THREADS];
static struct lock_mutex mail_lock = LOCK_MUTEX_INITIALIZER;
static struct region mail[NR_MAIL]; /* holders that are on their way to another thread */
static _Atomic uint64_t nr_active; /* jobs */
static _Atomic uint64_t nr_made, nr_released; /* folios */
static _Atomic uint64_t nr_events[NR_EVENTS];
static struct device *device;

/* ---- pages and folios ---- */

/* Of eight versions one is that value over and over, three shrink, and four are noise. */
static void page_make(void *page, uint64_t v)
{
	unsigned nr = v % 8 == 0 ? 1 : v % 8 < 4 ? 32u << v % 8 : FSW_PAGE_SIZE / 8, i;
	struct rand_state rand = { .s = v };
	uint64_t *words = page;

	words[0] = v;
	for (i = 1; i < FSW_PAGE_SIZE / 8; i++)
		words[i] = i < nr ? rand_next(&rand) : words[i - nr];
}

static void page_check(const void *page, uint64_t v)
{
	uint64_t expected[FSW_PAGE_SIZE / 8];

	page_make(expected, v);
	assert(memcmp(expected, page, FSW_PAGE_SIZE) == 0);
}

/* Pages of a locked folio become what they never were; with `same`, one value. */
static void folio_change(struct worker *worker, struct folio *folio, uint64_t i, uint64_t end, bool same)
{
	for (; i < end; i++) {
		worker->next_version += NR_THREADS * 8;
		version[folio->swap.val + i] = worker->next_version + (same ? 0 : CHANCE(worker, 8));
		page_make(PAGE(folio, i), version[folio->swap.val + i]);
	}
}

static void folio_release(struct folio *folio, void *arg)
{
	assert(arg == folio);
	COUNT(nr_released, 1);
	free(folio->data);
	free(folio);
}

/* Locked. */
static struct folio *folio_new(unsigned order)
{
	struct folio *folio = calloc(1, sizeof(*folio));
	void *data = aligned_alloc(FSW_PAGE_SIZE, (size_t)FSW_PAGE_SIZE << order);

	assert(folio && data);
	folio_init(folio, data, order, folio_release, folio);
	assert(folio_trylock(folio));
	COUNT(nr_made, 1);
	return folio;
}

/* ---- holders ---- */

/* Before holders are added, and before they are taken off. */
static void region_count(struct region region, int change)
{
	for (; region.nr; region.nr--, region.entry++)
		assert(atomic_fetch_add_explicit(&nr_held[region.entry], (uint32_t)change, memory_order_relaxed) > 0 ||
		       change > 0);
}

static void region_put(struct worker *worker, struct region region)
{
	int (*put)(struct vswap_queue *, swp_entry_t, uint64_t) = CHANCE(worker, 4) ? swap_put_entries_direct : swap_free_nr;

	region_count(region, -1);
	assert(put(worker->queue, SWP(region.entry), region.nr) == 0);
}

static void region_dup(struct worker *worker, struct region region)
{
	int (*dup)(struct vswap_queue *, swp_entry_t) = CHANCE(worker, 4) ? swap_dup_entry_direct : swap_duplicate;

	region_count(region, 1);
	assert((region.nr == 1 ? dup(worker->queue, SWP(region.entry)) :
				 swap_duplicate_nr(worker->queue, SWP(region.entry), (uint32_t)region.nr)) == 0);
}

static void region_keep(struct worker *worker, uint64_t entry, uint64_t nr)
{
	if (nr && worker->nr_regions < NR_REGIONS)
		worker->region[worker->nr_regions++] = (struct region){ entry, nr };
	else if (nr)
		region_put(worker, (struct region){ entry, nr });
}

/* The first ones more often: these are what many threads are at. */
static struct region region_choose(struct worker *worker)
{
	uint64_t i = CHANCE(worker, 1 + CHANCE(worker, worker->nr_regions));
	struct region region = worker->region[i];

	worker->region[i] = worker->region[--worker->nr_regions];
	return region;
}

/* Leaves a region for whoever comes by, and takes what somebody else has left there. */
static void region_exchange(struct worker *worker, struct region region, uint64_t i)
{
	struct region other;

	lock_acquire(&mail_lock);
	other = mail[i];
	mail[i] = region;
	lock_release(&mail_lock);
	region_keep(worker, other.entry, other.nr);
}

/* ---- a job: the folio's lock, and what is in it ---- */

static void job_begin(struct job *job);
static void job_evict(struct job *job);
static void job_fault(struct job *job);
static void job_io(struct job *job);

static void job_end(struct job *job)
{
	if (job->folio)
		folio_put(job->folio);
	region_keep(job->worker, job->region.entry, job->region.nr);
	job->folio = NULL;
	job->region.nr = 0;
	job->step = job_begin;
}

static void job_unlock(struct job *job)
{
	folio_unlock(job->worker->queue, job->folio);
	job_end(job);
}

/* Looks at every page of a small folio and at some of a large one. */
static void job_use(struct job *job)
{
	uint64_t nr = folio_nr_pages(job->folio), step = nr > 16 && CHANCE(job->worker, 8) ? nr / 8 : 1, i;

	for (i = CHANCE(job->worker, step); i < nr; i += step)
		page_check(PAGE(job->folio, i), version[job->folio->swap.val + i]);
	job->use(job);
}

static void job_io_done(struct folio *folio, int status, void *arg)
{
	uint32_t flags = folio_flags(folio) & (FOLIO_UPTODATE | FOLIO_SWAPCACHE | FOLIO_DIRTY | FOLIO_UNDER_IO);
	struct job *job = arg;

	assert(folio == job->folio && (flags & ~FOLIO_DIRTY) == (FOLIO_UPTODATE | FOLIO_SWAPCACHE));
	assert(status == (flags & FOLIO_DIRTY ? -ENOSPC : 0) && (status == 0 || job->io == vswap_store_compressed));
	job->io = status < 0 ? vswap_store_folio : job->io; /* it does not shrink, or the pool has no room */
	(status == 0 ? job_use : job_io)(job);
}

/* Reads or stores the folio, then uses it. All requests of the queue may be in use. Under I/O it can neither go nor change. */
static void job_io(struct job *job)
{
	struct vswap_queue *queue = job->worker->queue;
	int err = job->io(queue, job->folio, job_io_done, job);

	job->step = err < 0 ? job_io : NULL;
	if (err < 0) {
		assert(err == -EBUSY);
		return;
	}
	assert(put_swap_folio(queue, job->folio, job->folio->swap) == -EBUSY);
	assert(!folio_free_swap(queue, job->folio));
	assert(job->io(queue, job->folio, job_io_done, job) == -EBUSY);
}

static void job_locked(struct folio_waiter *waiter)
{
	struct job *job = BASE_CONTAINER_OF(waiter, struct job, waiter);
	uint32_t flags = folio_flags(job->folio);

	assert(!(flags & FOLIO_UNDER_IO) && sys_reactor_self() == vswap_queue_reactor(job->worker->queue));
	job->io = swap_read_folio;
	if (!(flags & FOLIO_SWAPCACHE) || (job->entry && job->entry - job->folio->swap.val >= folio_nr_pages(job->folio)))
		job_unlock(job); /* it is not what was looked for any more */
	else
		(flags & FOLIO_UPTODATE ? job_use : job_io)(job);
}

static void job_lock(struct job *job)
{
	bool wait = CHANCE(job->worker, 8);

	job->waiter.locked = job_locked;
	job->step = wait ? NULL : job_lock;
	if (wait ? folio_lock(job->worker->queue, job->folio, &job->waiter) : folio_trylock(job->folio)) {
		job_locked(&job->waiter);
	} else {
		COUNT(nr_events[QUEUED], wait);
		COUNT(nr_events[LOST], wait && job->lost);
	}
}

/* By a folio of any order all of whose entries the job holds. */
static void job_fill(struct job *job)
{
	struct vswap_queue *queue = job->worker->queue;
	uint64_t nr = job->lost ? 1 : 1ull << CHANCE(job->worker, FOLIO_MAX_ORDER + 1), first = job->entry / nr * nr;
	bool holds = first >= job->region.entry && first + nr <= job->region.entry + job->region.nr;
	struct folio *folio = folio_new(holds ? (unsigned)__builtin_ctzll(nr) : 0);
	swp_entry_t entry = SWP(holds ? first : job->entry);
	int err = CHANCE(job->worker, 2) ? swapcache_prepare(queue, entry, folio_nr_pages(folio), folio) :
					   swap_cache_add_folio(queue, folio, entry);

	if (err == 0) {
		COUNT(nr_events[DROPPED], 1); /* until it is taken out */
		job->folio = folio;
		job->io = swap_read_folio;
		job_io(job);
		return;
	}
	assert(err == -EEXIST || err == -ENOMEM);
	folio_unlock(queue, folio);
	folio_put(folio);
	COUNT(nr_events[EXISTED], err == -EEXIST);
	job->lost = true;
	job_fault(job);
}

/* What is not there is filled in the next turn: others may be quicker. */
static void job_fault(struct job *job)
{
	job->folio = swap_cache_get_folio(job->worker->queue, SWP(job->entry));
	job->step = job_fill;
	if (job->folio)
		job_lock(job);
}

/* From here on: what is done with a folio that is locked, up to date and in the cache. When it is stored it may be evicted. */
static void job_store(struct job *job)
{
	job->io = CHANCE(job->worker, 2) ? vswap_store_folio :
		  CHANCE(job->worker, 2) ? vswap_assign_slot :
					   vswap_store_compressed;
	if (job->use != job_evict)
		job->use = folio_swapped(job->worker->queue, job->folio) && CHANCE(job->worker, 2) ? job_unlock : job_evict;
	job_io(job);
}

static void job_evict(struct job *job)
{
	struct vswap_queue *queue = job->worker->queue;
	struct folio *folio = job->folio;
	bool dirty = folio_flags(folio) & FOLIO_DIRTY;
	int err = CHANCE(job->worker, 2) ? swapcache_clear(queue, folio, folio->swap, folio_nr_pages(folio)) :
					   put_swap_folio(queue, folio, folio->swap);

	assert(err == 0 ? !(dirty && job->region.nr) : err == -EBUSY && dirty);
	COUNT(nr_events[DROPPED], err == 0 ? -1 : 0);
	(err == 0 ? job_unlock : job_store)(job);
}

/* A folio in no cache is allocated entries; mostly they are held, then. */
static void job_swap_out(struct job *job)
{
	struct worker *worker = job->worker;
	uint64_t nr = folio_nr_pages(job->folio), i;
	swp_entry_t entry;
	int err = folio_alloc_swap(worker->queue, job->folio, job->folio->order, &entry);

	job->entry = 0;
	if (err < 0) {
		assert(err == -ENOSPC || err == -ENOMEM);
		job_unlock(job);
		return;
	}
	assert(folio_put_swap(worker->queue, job->folio, FOLIO_ALL) == -ENOENT && !folio_swapped(worker->queue, job->folio));
	assert(vswap_swapcache_only(worker->queue, entry, nr) == nr);
	for (i = 0; i < nr; i++)
		assert(atomic_load_explicit(&nr_held[entry.val + i], memory_order_relaxed) == 0);
	folio_change(worker, job->folio, 0, nr, false);
	COUNT(nr_events[DROPPED], 1);
	if (CHANCE(worker, 16)) {
		job->region = (struct region){ entry.val, nr };
		region_count(job->region, 1);
		assert(folio_dup_swap(worker->queue, job->folio, FOLIO_ALL) == 0);
	}
	job->use = job_unlock;
	(CHANCE(worker, 3) ? job_unlock : job_evict)(job);
}

/* Pages become something else; or one becomes one value without I/O, and if the folio is clean it is read in again. */
static void job_change(struct job *job)
{
	uint32_t page = (uint32_t)(job->entry - job->folio->swap.val);
	bool same = CHANCE(job->worker, 2);

	folio_change(job->worker, job->folio, page, same ? page + 1 : folio_nr_pages(job->folio), same);
	job->io = swap_read_folio;
	job->use = job_unlock;
	if (same) {
		assert(vswap_set_same(job->worker->queue, job->folio, page, version[job->entry]) == 0);
		(folio_flags(job->folio) & FOLIO_DIRTY ? job_unlock : job_io)(job);
	} else {
		folio_mark_dirty(job->folio);
		(CHANCE(job->worker, 2) ? job_store : job_unlock)(job);
	}
}

/* Holders come by the folio, also to entries that had none, and go or are sent away. */
static void job_count(struct job *job)
{
	struct worker *worker = job->worker;
	uint32_t nr = folio_nr_pages(job->folio), page = CHANCE(worker, 2) ? (uint32_t)CHANCE(worker, nr) : FOLIO_ALL;
	struct region region = { job->folio->swap.val + (page == FOLIO_ALL ? 0 : page), page == FOLIO_ALL ? nr : 1 };

	region_count(region, 1);
	assert(folio_dup_swap(worker->queue, job->folio, page) == 0 && folio_swapped(worker->queue, job->folio));
	if (CHANCE(worker, 4)) {
		region_exchange(worker, region, CHANCE(worker, NR_MAIL));
	} else {
		region_count(region, -1);
		assert(folio_put_swap(worker->queue, job->folio, page) == 0);
	}
	job_unlock(job);
}

/* Gives the job's holder up by the folio. If that was the last, the folio is freed from swap, and swapped out anew. */
static void job_free_swap(struct job *job)
{
	struct vswap_queue *queue = job->worker->queue;

	if (job->region.nr == 1) {
		region_count(job->region, -1);
		assert(folio_put_swap(queue, job->folio, (uint32_t)(job->entry - job->folio->swap.val)) == 0);
		job->region.nr = 0;
	}
	if (!folio_free_swap(queue, job->folio)) {
		job_unlock(job);
		return;
	}
	assert(job->region.nr == 0 && (folio_flags(job->folio) & (FOLIO_DIRTY | FOLIO_SWAPCACHE)) == FOLIO_DIRTY);
	COUNT(nr_events[DROPPED], -1);
	COUNT(nr_events[FREED], 1);
	job_swap_out(job);
}

static void job_begin_fault(struct job *job)
{
	static void (*const use[])(struct job *) = { job_unlock, job_change, job_change, job_store, job_evict, job_count,
						     job_free_swap };

	job->region = region_choose(job->worker);
	job->entry = job->region.entry + CHANCE(job->worker, job->region.nr);
	job->use = use[CHANCE(job->worker, BASE_ARRAY_SIZE(use))];
	job->lost = false;
	job_fault(job);
}

/* Takes a folio out of the cache, or stores it: the next that there is, from some entry on. */
static void job_begin_eviction(struct job *job)
{
	uint64_t entry = FIRST + CHANCE(job->worker, END - FIRST), end = base_min_u64(entry + 64, END);

	for (; entry < end && !job->folio; entry++)
		job->folio = swap_cache_get_folio(job->worker->queue, SWP(entry));
	job->entry = 0;
	job->use = CHANCE(job->worker, 2) ? job_evict : job_store;
	(job->folio ? job_lock : job_end)(job);
}

/* Half of the folios are of order 0, a quarter of order 1, and so on; but some are whole clusters. */
static void job_begin_allocation(struct job *job)
{
	uint64_t bits = CHANCE(job->worker, 64) ? CHANCE(job->worker, 1u << FOLIO_MAX_ORDER) : 0;

	job->folio = folio_new((unsigned)__builtin_ctzll(bits | 1u << FOLIO_MAX_ORDER));
	job_swap_out(job);
}

static void job_begin_fork(struct job *job)
{
	unsigned nr = CHANCE(job->worker, 8) ? 1 : NR_THREADS;

	job->region = region_choose(job->worker);
	for (; nr; nr--) {
		region_dup(job->worker, job->region);
		region_exchange(job->worker, job->region, CHANCE(job->worker, NR_MAIL));
	}
	job_end(job);
}

/* A part of a region; or all of it, with one that lies behind it, perhaps in the next cluster. */
static void job_begin_unmap(struct job *job)
{
	struct worker *worker = job->worker;
	struct region region = region_choose(worker);
	uint64_t from = CHANCE(worker, 4) ? 0 : CHANCE(worker, region.nr), i;
	uint64_t end = CHANCE(worker, 4) ? region.nr : from + 1 + CHANCE(worker, region.nr - from);

	region_keep(worker, region.entry, from);
	region_keep(worker, region.entry + end, region.nr - end);
	for (i = 0; i < worker->nr_regions && end == region.nr; i++)
		if (worker->region[i].entry == region.entry + end) {
			end += worker->region[i].nr;
			worker->region[i] = worker->region[--worker->nr_regions];
		}
	region_put(worker, (struct region){ region.entry + from, end - from });
	job_end(job);
}

/* For a moment an entry has so many holders that its word does not count them. */
static void job_begin_many(struct job *job)
{
	uint64_t nr = 300 + CHANCE(job->worker, 1200), i;

	job->region = region_choose(job->worker);
	for (i = 0; i < nr && job->region.nr < 5; i++)
		region_dup(job->worker, job->region);
	nr = swp_swapcount(job->worker->queue, SWP(job->region.entry));
	assert(nr > i);
	COUNT(nr_events[OVERFLOWED], nr > WORD_COUNT_MAX);
	for (; i; i--)
		region_put(job->worker, job->region);
	job_end(job);
}

/* All that can be asked of entries that are held, and of any; and a pin that stays until the next time. */
static void job_begin_look(struct job *job)
{
	struct worker *worker = job->worker;
	struct vswap_queue *queue = worker->queue;
	struct region region = job->region = region_choose(worker);
	swp_entry_t any = SWP(FIRST + CHANCE(worker, END - FIRST)), held = SWP(region.entry), back;
	swp_slot_t slot;
	int err = swp_entry_to_swp_slot(queue, held, &slot);

	assert(err == 0 || err == -ENODATA);
	err = err == 0 ? swp_slot_to_swp_entry(queue, slot, &back) : 0; /* it may have moved, and the slot be another's */
	assert(err == 0 || err == -ENODATA || err == -ENOENT);
	assert(swp_swapcount(queue, held) > 0 && vswap_swapcache_only(queue, held, region.nr) == 0);
	assert(non_swapcache_batch(queue, held, region.nr) <= region.nr &&
	       vswap_swapcache_only(queue, any, 8) + non_swapcache_batch(queue, any, 8) <= 16);
	if (worker->pin.val)
		vswap_put(queue, worker->pin);
	worker->pin = CHANCE(worker, 2) ? any : held;
	if (!vswap_tryget(queue, worker->pin)) {
		assert(worker->pin.val != held.val);
		worker->pin.val = 0;
	}
	job_end(job);
}

/* A hibernation slot was allocated, so it is written; then read; then freed. Who is called back has a request. */
static void job_hibernated(struct vswap_queue *queue, swp_entry_t entry, int status, void *arg)
{
	struct job *job = arg;

	assert(status == 0 && swp_swapcount(queue, entry) == 1);
	switch (job->nr_done++) {
	case 0:
		job->version = job->worker->next_version += NR_THREADS * 8;
		page_make(job->page, job->version);
		assert(swap_write_hibernation_slot(queue, entry, job->page, job_hibernated, job) == 0);
		assert(swap_free_hibernation_slot(queue, entry) == -EBUSY);
		break;
	case 1:
		memset(job->page, 0, FSW_PAGE_SIZE);
		assert(swap_read_hibernation_slot(queue, entry, job->page, job_hibernated, job) == 0);
		break;
	default:
		page_check(job->page, job->version);
		assert(swap_free_hibernation_slot(queue, entry) == 0);
		COUNT(nr_events[HIBERNATED], 1);
		job_end(job);
	}
}

static void job_begin_hibernation(struct job *job)
{
	int err = swap_alloc_hibernation_slot(job->worker->queue, job_hibernated, job);

	assert(err == 0 || err == -ENOSPC || err == -ENOMEM || err == -EBUSY);
	job->nr_done = 0;
	if (err < 0)
		job_end(job);
}

static void job_begin(struct job *job)
{
	static void (*const begin[])(struct job *job) = {
		job_begin_fault, job_begin_fault, job_begin_fault, job_begin_fault, job_begin_fault, job_begin_fault,
		job_begin_eviction, job_begin_eviction, job_begin_unmap, job_begin_fork, job_begin_look, job_begin_allocation,
		job_begin_hibernation, job_begin_many, /* the last one more seldom */
	};
	struct worker *worker = job->worker;
	void (*chosen)(struct job *job) = begin[CHANCE(worker, BASE_ARRAY_SIZE(begin) - (CHANCE(worker, 8) != 0))];

	if (worker->nr_left == 0) {
		atomic_fetch_sub(&nr_active, 1);
		return;
	}
	worker->nr_left--;
	if (worker->nr_regions < NR_REGIONS / 4)
		chosen = job_begin_allocation;
	else if (worker->nr_regions > NR_REGIONS - 2 * NR_JOBS)
		chosen = job_begin_unmap;
	chosen(job);
}

static unsigned worker_poll(struct sys_poller *poller)
{
	struct worker *worker = BASE_CONTAINER_OF(poller, struct worker, poller);
	unsigned nr = 0, i;

	if (worker->nr_regions < NR_REGIONS - 2 * NR_JOBS)
		region_exchange(worker, (struct region){ 0 }, CHANCE(worker, NR_MAIL));
	for (i = 0; i < 4 * NR_JOBS; i++) {
		struct job *job = &worker->job[i % NR_JOBS];
		void (*step)(struct job *job) = job->step;

		job->step = NULL;
		if (step)
			step(job);
		nr += step != NULL;
	}
	return nr;
}

/* On the reactors, as what follows. */
static void worker_start(void *arg)
{
	struct worker *worker = arg;
	unsigned i;

	worker->poller.poll = worker_poll;
	sys_poller_add(vswap_queue_reactor(worker->queue), &worker->poller);
	for (i = 0; i < NR_JOBS; i++) {
		worker->job[i].worker = worker;
		worker->job[i].step = job_begin;
	}
}

/* Every entry has the holders that it should. Gives all of this thread's up, and its pin. */
static void worker_unmap_all(void *arg)
{
	struct worker *worker = arg;
	uint64_t i;

	for (i = FIRST; i < END; i++)
		assert(swp_swapcount(worker->queue, SWP(i)) == nr_held[i]);
	for (i = 0; i < NR_MAIL; i++)
		region_exchange(worker, (struct region){ 0 }, i);
	while (worker->nr_regions)
		region_put(worker, region_choose(worker));
	if (worker->pin.val)
		vswap_put(worker->queue, worker->pin);
	worker->pin.val = 0;
	sys_poller_remove(&worker->poller);
}

/* Nothing has a holder. What was clean when its last one went is not in the cache any more; the rest goes now. */
static void worker_evict_all(void *arg)
{
	struct worker *worker = arg;
	uint64_t entry;

	for (entry = FIRST; entry < END; entry++) {
		struct folio *folio = swap_cache_get_folio(worker->queue, SWP(entry));

		if (!folio)
			continue;
		assert(folio_trylock(folio) && (folio_flags(folio) & FOLIO_DIRTY));
		assert(put_swap_folio(worker->queue, folio, folio->swap) == 0);
		COUNT(nr_events[DROPPED], -1);
		folio_unlock(worker->queue, folio);
		folio_put(folio);
	}
	cluster_cursors_close(&device->vswap->clusters, worker->queue->allocating);
}

/* ---- control threads ---- */

static void workers_create(uint64_t seed)
{
	/* At times all requests of a queue are in use, there is no table ready, and the pool is full. */
	struct vswap_options options = { .nr_entries = END - FIRST,
					 .nr_folio_ios = NR_JOBS - 2,
					 .nr_queues = NR_THREADS,
					 .max_slabs = 8,
					 .reserve_tables = 12,
					 .seed = seed,
					 .comp_limit_bytes = 256 << 10 };
	unsigned i;

	device = device_create(&options, NR_LENDERS, NR_SLOTS);
	for (i = 0; i < NR_THREADS; i++) {
		workers[i].queue = vswap_queue(device->vswap, i);
		workers[i].rand.s = seed + i * 0x100000001b3u;
		workers[i].next_version = i * 8;
	}
}

static void drain(unsigned lender)
{
	COUNT(nr_events[MOVED], device_drain(device, lender));
}

/* On all threads at once. */
static void workers_call(void (*call)(void *arg))
{
	unsigned i;

	for (i = 0; i < NR_THREADS; i++)
		sys_reactor_call(device->reactor[i], call, &workers[i]);
}

/* All entries are free, and so are all slots, tables and clusters. */
static void expect_nothing(const struct vswap_stats *stats)
{
	struct vswap_space space;

	vswap_space(device->vswap, NULL, &space);
	assert_int_equal(space.nr_used_slots, 0);
	assert_int_equal(vswap_check(device->vswap), 0);
	assert_int_equal(stats->nr_same + stats->nr_remote + stats->nr_disk + stats->nr_comp + stats->nr_folio, 0);
	assert_int_equal(stats->nr_hibernation + stats->nr_poisoned + stats->nr_checksum_errors, 0);
	assert_int_equal(device->vswap->clusters.nr_in_use, 0);
	assert_int_equal(stats->nr_tables, 1); /* the directory's */
}

static void run_round(uint64_t nr_ops)
{
	struct vswap_stats stats;
	unsigned i;

	atomic_store(&nr_active, NR_THREADS * NR_JOBS);
	for (i = 0; i < NR_THREADS; i++)
		workers[i].nr_left = nr_ops / NR_THREADS;
	workers_call(worker_start);
	for (i = 0; atomic_load(&nr_active); i++)
		drain(i % NR_LENDERS);
	drain(i % NR_LENDERS);
	workers_call(worker_unmap_all);
	workers_call(worker_evict_all);
	sys_rcu_barrier();
	assert_int_equal(nr_released, nr_made);
	do { /* a drain ends when the last slot that was retired is free */
		for (i = 0; i < NR_LENDERS; i++)
			drain(i);
		vswap_stats(device->vswap, &stats);
	} while (stats.comp.nr_objects);
	nr_events[WRITTEN_BACK] = stats.nr_written_back;
	expect_nothing(&stats);
}

static void test_threads(void **state)
{
	const char *ops = getenv("FARSWAP_OPS"), *given = getenv("FARSWAP_SEED");
	uint64_t nr_ops = ops ? strtoull(ops, NULL, 10) : NR_OPS;
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
	unsigned i;

	(void)state;
	print_message("FARSWAP_SEED=%llu FARSWAP_OPS=%llu\n", (unsigned long long)seed, (unsigned long long)nr_ops);
	fflush(stdout); /* an assertion that fails does not */
	workers_create(seed);
	for (i = 0; i < NR_ROUNDS; i++)
		run_round(nr_ops / NR_ROUNDS);
	device_free(device);
	for (i = 0; i < NR_EVENTS; i++) {
		print_message("%llu %s\n", (unsigned long long)nr_events[i], event_text[i]);
		assert_true(nr_events[i] > 0 || nr_ops < 100000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };

	log_init("test_swap_threads", LOG_LEVEL_WARNING);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The bytes of folios, and of hibernation slots, on their way to what backs them and back: each is a request like that of a
 * block device, on the entries instead of the pages.
 *
 * A write claims the entries, so that a move that is under way is refused, and publishes their words without touching who holds
 * them; so a store waits for nobody, and a duplicate or a put of the same entry does not wait for the store.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/vswap/folio.h"
#include "client/vswap/swapcache.h"

/* One request of a queue's own, for a folio or a hibernation slot. */
struct store {
	struct fsw_io io;
	struct vswap_queue *queue;
	struct store *next; /* while it is free */
	struct folio *folio;
	folio_done folio_done;
	hibernation_done hibernation_done;
	swp_entry_t entry;
	void *arg;
};

int store_init(struct vswap *vswap, uint32_t nr_per_queue)
{
	size_t nr = (size_t)nr_per_queue * vswap->nr_queues, i;
	struct store *stores;
	int err;

	if (nr == 0)
		return 0;
	err = mem_region_open(&vswap->store_region, nr * sizeof(*stores) + FSW_PAGE_SIZE,
			      MEM_REGION_TOUCH | MEM_REGION_IO);
	if (err < 0)
		return err;
	vswap->zero_page = vswap->store_region.base;
	stores = (void *)((char *)vswap->store_region.base + FSW_PAGE_SIZE);
	for (i = 0; i < nr; i++) {
		struct vswap_queue *queue = &vswap->queue[i / nr_per_queue];

		stores[i].queue = queue;
		stores[i].next = queue->stores;
		queue->stores = &stores[i];
	}
	return 0;
}

void store_done(struct vswap *vswap)
{
	mem_region_close(&vswap->store_region);
}

static struct store *store_get(struct vswap_queue *queue)
{
	struct store *store = queue->stores;

	if (store)
		queue->stores = store->next;
	return store;
}

static void store_put(struct store *store)
{
	store->next = store->queue->stores;
	store->queue->stores = store;
}

static void store_start(struct store *store, enum io_op op, swp_entry_t entry, uint32_t nr, void *buf,
			enum request_where where)
{
	store->entry = entry;
	store->io.op = (uint8_t)op;
	store->io.page = entry.val;
	store->io.nr_pages = nr;
	store->io.buf = buf;
	request_start(store->queue, &store->io, where);
}

/* ---- folios ---- */

static int store_check_folio(const struct folio *folio)
{
	uint32_t flags = folio_flags(folio);

	if (!folio_is_locked(folio) || !(flags & FOLIO_SWAPCACHE))
		return -EINVAL;
	return flags & FOLIO_UNDER_IO ? -EBUSY : 0;
}

static void store_folio_done(struct fsw_io *io, int status)
{
	struct store *store = BASE_CONTAINER_OF(io, struct store, io);
	struct folio *folio = store->folio;
	folio_done done = store->folio_done;
	void *arg = store->arg;

	if (io->op == IO_READ && status == 0)
		folio_set_flags(folio, FOLIO_UPTODATE);
	/* What was there before may be lost with it: the folio's bytes may be the only ones now, also if it was clean. */
	if (io->op == IO_WRITE && status < 0)
		folio_set_flags(folio, FOLIO_DIRTY);
	folio_clear_flags(folio, FOLIO_UNDER_IO | (status == 0 ? FOLIO_DIRTY : 0));
	store_put(store); /* first: done may want it */
	done(folio, status, arg);
}

static void store_folio_start(struct vswap_queue *queue, struct folio *folio, enum io_op op,
			      enum request_where where, folio_done done, void *arg)
{
	struct store *store = store_get(queue);

	store->folio = folio;
	store->folio_done = done;
	store->arg = arg;
	store->io.done = store_folio_done;
	store_start(store, op, folio->swap, folio_nr_pages(folio), folio->data, where);
}

static int store_folio(struct vswap_queue *queue, struct folio *folio, enum request_where where, folio_done done,
		       void *arg)
{
	int err = store_check_folio(folio);

	if (err == 0 && !(folio_flags(folio) & FOLIO_UPTODATE))
		err = -EINVAL;
	if (err == 0 && !queue->stores)
		err = -EBUSY;
	if (err < 0)
		return err;
	folio_set_flags(folio, FOLIO_UNDER_IO);
	store_folio_start(queue, folio, IO_WRITE, where, done, arg);
	return 0;
}

int vswap_store_folio(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg)
{
	return store_folio(queue, folio, REQUEST_ANYWHERE, done, arg);
}

int vswap_assign_slot(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg)
{
	return store_folio(queue, folio, REQUEST_SLOT, done, arg);
}

int vswap_store_compressed(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg)
{
	return queue->vswap->comp ? store_folio(queue, folio, REQUEST_HERE, done, arg) : -ENOSPC;
}

int vswap_set_same(struct vswap_queue *queue, struct folio *folio, uint32_t page, uint64_t value)
{
	struct vswap *vswap = queue->vswap;
	uint64_t entry = folio->swap.val + page, word;
	struct table *table;
	uint8_t epoch;
	int err = store_check_folio(folio);

	if (page >= folio_nr_pages(folio))
		err = -EINVAL;
	if (err < 0)
		return err;
	if (value > WORD_PAYLOAD_MAX)
		return -ERANGE;
	table = vswap_table(queue, entry); /* stays: the entry is live */
	epoch = epoch_enter(&vswap->epoch, &queue->epoch);
	do /* a move may be quicker */
		word = atomic_load_explicit(table_word(table, entry), memory_order_acquire);
	while (!table_swing(table, entry, word, word_next(word, WORD_SAME, value)));
	vswap_count_tag(queue, word_tag(word), WORD_SAME);
	reap_retire(queue, word);
	epoch_exit(&queue->epoch, epoch);
	return 0;
}

/* Bytes that are nowhere but in a folio cannot be read into it. */
static bool store_is_backed(struct vswap_queue *queue, const struct folio *folio)
{
	struct table *table = vswap_table(queue, folio->swap.val);
	uint32_t i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		if (word_tag(atomic_load_explicit(table_word(table, folio->swap.val + i), memory_order_acquire)) ==
		    WORD_FOLIO)
			return false;
	return true;
}

int swap_read_folio(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg)
{
	int err = store_check_folio(folio);

	if (err == 0 && !store_is_backed(queue, folio))
		err = -EINVAL;
	if (err == 0 && !queue->stores)
		err = -EBUSY;
	if (err < 0)
		return err;
	folio_clear_flags(folio, FOLIO_UPTODATE);
	folio_set_flags(folio, FOLIO_UNDER_IO);
	store_folio_start(queue, folio, IO_READ, REQUEST_ANYWHERE, done, arg);
	return 0;
}

/* ---- hibernation ---- */

/* A request holds its entry as well: it is not freed, and given to somebody else, while the request may come back to it. */
static void hibernation_let_go(struct vswap_queue *queue, swp_entry_t entry)
{
	int err = swap_put_entries_direct(queue, entry, 1);

	assert(err == 0);
	(void)err;
}

static void hibernation_io_done(struct fsw_io *io, int status)
{
	struct store *store = BASE_CONTAINER_OF(io, struct store, io);
	struct vswap_queue *queue = store->queue;
	swp_entry_t entry = store->entry;
	hibernation_done done = store->hibernation_done;
	void *arg = store->arg;

	hibernation_let_go(queue, entry);
	store_put(store);
	done(queue, entry, status, arg);
}

static void hibernation_count(struct vswap_queue *queue, int64_t n)
{
	_Atomic int64_t *nr = &queue->counters.nr_hibernation;

	atomic_store_explicit(nr, atomic_load_explicit(nr, memory_order_relaxed) + n, memory_order_relaxed);
}

static void hibernation_alloc_done(struct fsw_io *io, int status)
{
	struct store *store = BASE_CONTAINER_OF(io, struct store, io);

	if (status < 0) {
		hibernation_let_go(store->queue, store->entry);
		hibernation_count(store->queue, -1);
	}
	hibernation_io_done(io, status);
}

/* The entry has one holder. */
static void hibernation_start(struct store *store, enum io_op op, swp_entry_t entry, void *page, hibernation_done done,
			      void *arg)
{
	int err = swap_dup_entry_direct(store->queue, entry);

	assert(err == 0);
	(void)err;
	store->hibernation_done = done;
	store->arg = arg;
	store_start(store, op, entry, 1, page, REQUEST_SLOT);
}

int swap_alloc_hibernation_slot(struct vswap_queue *queue, hibernation_done done, void *arg)
{
	struct store *store = store_get(queue);
	swp_entry_t entry;
	int err;

	if (!store)
		return queue->vswap->zero_page ? -EBUSY : -EINVAL;
	err = swap_alloc_held(queue, &entry);
	if (err < 0) {
		store_put(store);
		return err;
	}
	hibernation_count(queue, 1);
	store->io.done = hibernation_alloc_done;
	hibernation_start(store, IO_WRITE, entry, queue->vswap->zero_page, done, arg);
	return 0;
}

static int hibernation_io(struct vswap_queue *queue, swp_entry_t entry, enum io_op op, void *page, hibernation_done done,
			  void *arg)
{
	uint32_t count = swp_swapcount(queue, entry);
	struct store *store;

	if ((uintptr_t)page % FSW_PAGE_SIZE != 0 || count == 0 || swapcache_find(vswap_table(queue, entry.val), entry.val))
		return -EINVAL; /* not one, or its bytes are a folio's */
	store = count == 1 ? store_get(queue) : NULL;
	if (!store)
		return -EBUSY;
	store->io.done = hibernation_io_done;
	hibernation_start(store, op, entry, page, done, arg);
	return 0;
}

int swap_write_hibernation_slot(struct vswap_queue *queue, swp_entry_t entry, const void *page, hibernation_done done,
				void *arg)
{
	return hibernation_io(queue, entry, IO_WRITE, (void *)(uintptr_t)page, done, arg);
}

int swap_read_hibernation_slot(struct vswap_queue *queue, swp_entry_t entry, void *page, hibernation_done done, void *arg)
{
	return hibernation_io(queue, entry, IO_READ, page, done, arg);
}

int swap_free_hibernation_slot(struct vswap_queue *queue, swp_entry_t entry)
{
	struct table *table;
	uint64_t word;
	int err;

	if (!swap_range_is_valid(queue->vswap, entry.val, 1))
		return -ENOENT;
	table = vswap_table(queue, entry.val);
	word = table ? atomic_load_explicit(table_word(table, entry.val), memory_order_acquire) : 0;
	if (word_count(word) == 0 || word_is_cached(word))
		return -ENOENT;
	if (word_count(word) != 1)
		return -EBUSY;
	err = swap_put_entries_direct(queue, entry, 1);
	if (err == 0)
		hibernation_count(queue, -1);
	return err;
}

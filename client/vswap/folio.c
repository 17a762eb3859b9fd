/*
 * Ordering. Locking acquires what unlocking releases. FOLIO_UNHELD is set before the lock is tried, and looked at after it has
 * been let go of, both in sequentially consistent order: so one of the two sees to the entries.
 */
#include "client/vswap/folio.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "client/vswap/internal.h"
#include "client/vswap/swapcache.h"
#include "common/sys/rcu.h"

#define FOLIO_LOCKED ((uintptr_t)1)

static_assert(sizeof(struct sys_rcu_head) <= sizeof(((struct folio *)0)->rcu_), "the grace period fits");
static_assert(sizeof(struct sys_message) <= sizeof(((struct folio_waiter *)0)->message_), "the message fits");
static_assert(_Alignof(struct folio_waiter) > FOLIO_LOCKED, "the bit is free in a pointer");

void folio_init(struct folio *folio, void *data, unsigned order, void (*release)(struct folio *folio, void *arg), void *arg)
{
	assert((uintptr_t)data % FSW_PAGE_SIZE == 0 && order <= FOLIO_MAX_ORDER);
	memset(folio, 0, sizeof(*folio));
	folio->data = data;
	folio->order = (uint8_t)order;
	folio->release = release;
	folio->arg = arg;
	folio->refs_ = 1;
}

uint32_t folio_nr_pages(const struct folio *folio)
{
	return 1u << folio->order;
}

/* ---- references ---- */

void folio_get(struct folio *folio)
{
	__atomic_fetch_add(&folio->refs_, 1, __ATOMIC_RELAXED);
}

bool folio_tryget(struct folio *folio)
{
	uint32_t refs = __atomic_load_n(&folio->refs_, __ATOMIC_RELAXED);

	do {
		if (refs == 0)
			return false;
	} while (!__atomic_compare_exchange_n(&folio->refs_, &refs, refs + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
	return true;
}

static void folio_released(struct sys_rcu_head *head)
{
	struct folio *folio = BASE_CONTAINER_OF(head, struct folio, rcu_);

	folio->release(folio, folio->arg);
}

/* A lookup may have found it just before it left the cache: it is nobody's only after a grace period. */
void folio_put(struct folio *folio)
{
	uint32_t refs = __atomic_fetch_sub(&folio->refs_, 1, __ATOMIC_ACQ_REL);

	assert(refs > 0);
	if (refs == 1)
		sys_rcu_call((struct sys_rcu_head *)(void *)folio->rcu_, folio_released);
}

/* ---- flags ---- */

uint32_t folio_flags(const struct folio *folio)
{
	return __atomic_load_n(&folio->flags_, __ATOMIC_SEQ_CST) & ~FOLIO_UNHELD;
}

bool folio_is_unheld(const struct folio *folio)
{
	return (__atomic_load_n(&folio->flags_, __ATOMIC_SEQ_CST) & FOLIO_UNHELD) != 0;
}

void folio_set_flags(struct folio *folio, uint32_t flags)
{
	__atomic_fetch_or(&folio->flags_, flags, __ATOMIC_SEQ_CST);
}

uint32_t folio_clear_flags(struct folio *folio, uint32_t flags)
{
	return __atomic_fetch_and(&folio->flags_, ~flags, __ATOMIC_SEQ_CST);
}

void folio_change_flags(struct folio *folio, uint32_t clear, uint32_t set)
{
	uint32_t flags = __atomic_load_n(&folio->flags_, __ATOMIC_RELAXED);

	__atomic_store_n(&folio->flags_, (flags & ~clear) | set, __ATOMIC_RELEASE);
}

void folio_mark_dirty(struct folio *folio)
{
	assert(folio_is_locked(folio) && !(folio_flags(folio) & FOLIO_UNDER_IO));
	folio_set_flags(folio, FOLIO_DIRTY | FOLIO_UPTODATE);
}

/* ---- the lock ---- */

bool folio_is_locked(const struct folio *folio)
{
	return (__atomic_load_n(&folio->lock_, __ATOMIC_RELAXED) & FOLIO_LOCKED) != 0;
}

bool folio_trylock(struct folio *folio)
{
	uintptr_t free = 0;

	return __atomic_compare_exchange_n(&folio->lock_, &free, FOLIO_LOCKED, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static void folio_waiter_woken(struct sys_message *message)
{
	struct folio_waiter *waiter = BASE_CONTAINER_OF(message, struct folio_waiter, message_);

	waiter->locked(waiter);
}

bool folio_lock(struct vswap_queue *queue, struct folio *folio, struct folio_waiter *waiter)
{
	uintptr_t lock = __atomic_load_n(&folio->lock_, __ATOMIC_RELAXED), wanted;

	waiter->folio = folio;
	waiter->queue = queue;
	((struct sys_message *)(void *)waiter->message_)->run = folio_waiter_woken;
	do {
		waiter->next_ = (struct folio_waiter *)(lock & ~FOLIO_LOCKED);
		wanted = lock & FOLIO_LOCKED ? (uintptr_t)waiter | FOLIO_LOCKED : FOLIO_LOCKED;
	} while (!__atomic_compare_exchange_n(&folio->lock_, &lock, wanted, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
	return !(lock & FOLIO_LOCKED);
}

/* Everybody who came, in the order in which they came. */
static struct folio_waiter *folio_take_waiters(struct folio *folio)
{
	uintptr_t lock = __atomic_exchange_n(&folio->lock_, FOLIO_LOCKED, __ATOMIC_ACQ_REL);
	struct folio_waiter *waiter = (struct folio_waiter *)(lock & ~FOLIO_LOCKED), *in_order = NULL;

	while (waiter) {
		struct folio_waiter *next = waiter->next_;

		waiter->next_ = in_order;
		in_order = waiter;
		waiter = next;
	}
	return in_order;
}

/* True when the lock was handed on, false when nobody has it now. */
static bool folio_unlock_once(struct folio *folio)
{
	struct folio_waiter *first = folio->waiting_;
	uintptr_t locked = FOLIO_LOCKED;

	if (!first) {
		if (__atomic_compare_exchange_n(&folio->lock_, &locked, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			return false;
		first = folio_take_waiters(folio);
	}
	folio->waiting_ = first->next_;
	sys_reactor_send(first->queue->reactor, (struct sys_message *)(void *)first->message_);
	return true;
}

void folio_unlock(struct vswap_queue *queue, struct folio *folio)
{
	assert(folio_is_locked(folio));
	for (;;) {
		if (BASE_UNLIKELY(folio_is_unheld(folio)))
			swapcache_drop_unheld(queue, folio);
		if (folio_unlock_once(folio))
			return;
		/* It was set between the two, by somebody who found the folio locked. */
		if (BASE_LIKELY(!folio_is_unheld(folio)) || !folio_trylock(folio))
			return;
	}
}

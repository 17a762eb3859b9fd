/*
 * What the room itself does with folios, beside what swap.h offers.
 *
 * The lock of a folio is one word: a bit that says locked, and the stack of those who came to wait. Whoever has it locked owns
 * the list of waiters in order, and hands the lock on to the first; so nobody who waits is overtaken, and no lock is taken to
 * wait for the lock.
 */
#ifndef FARSWAP_CLIENT_VSWAP_FOLIO_H
#define FARSWAP_CLIENT_VSWAP_FOLIO_H

#include "client/vswap/swap.h"
#include "common/base/base.h"

/* Entries of it have lost their last holder while somebody had it locked: see to it when it is unlocked. */
#define FOLIO_UNHELD (1u << 8)

/* A reference, unless the last one has gone. Read-side section, in which the folio was found. */
bool folio_tryget(struct folio *folio);
bool folio_is_locked(const struct folio *folio);
bool folio_is_unheld(const struct folio *folio);
void folio_set_flags(struct folio *folio, uint32_t flags);
/* The flags as they were before. */
uint32_t folio_clear_flags(struct folio *folio, uint32_t flags);
/*
 * Both, first `clear`, where nobody else can change any, so by a plain store: the caller has the folio locked, and it is in no
 * cache or he has the cluster's lock as well, under which FOLIO_UNHELD is set.
 */
void folio_change_flags(struct folio *folio, uint32_t clear, uint32_t set);

#endif

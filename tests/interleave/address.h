/*
 * The addresses that scripts go to, in whichever schedule, and before which of their steps it matters that others are let in:
 * what the search learns by running.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_ADDRESS_H
#define FARSWAP_TESTS_INTERLEAVE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#define ADDRESS_MAX_GUARDS 4u /* locks that a script holds at a time */

/*
 * Who has done what there: a bit for each script. It need not have been in the same schedule: one may end in a state that is
 * known, where another script has yet to come here.
 */
struct address {
	uintptr_t at;
	uint8_t readers;
	uint8_t writers;
	uint8_t open_readers; /* before whose reads, and writes, others are let in */
	uint8_t open_writers;
	uint8_t nr_guards;
	uint32_t number; /* in footprints, from 1 on; 0 until it is in one */
	/* Locks that were held whenever somebody was there; with none, it matters who meets. */
	uintptr_t guard[ADDRESS_MAX_GUARDS];
};

struct address_counters {
	uint32_t nr, nr_mattering;
	uint64_t nr_learned; /* times that one has come to matter to somebody */
};

/* A new scenario: nothing is known. */
void addresses_forget(void);
/* A schedule begins: nobody holds a lock. */
void addresses_begin(void);
const struct address_counters *addresses_counters(void);

/* The script holds the lock; and no longer. */
void addresses_locked(unsigned script, uintptr_t lock);
void addresses_unlocked(unsigned script, uintptr_t lock);

/* The one at `at`, which stays where it is until they are forgotten. */
struct address *address_find(uintptr_t at);
/* The script goes there, with what it holds. */
void address_learn(struct address *address, unsigned script, bool writes);
/* Its number, which it gets now if it has none. */
uint32_t address_number(struct address *address);

static inline bool address_is_open(const struct address *address, unsigned script, bool writes)
{
	return ((writes ? address->open_writers : address->open_readers) >> script & 1) != 0;
}

static inline bool address_matters(const struct address *address)
{
	return (address->open_readers | address->open_writers) != 0;
}

#endif

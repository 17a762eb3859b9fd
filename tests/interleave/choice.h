/*
 * Which script goes on: the search through the tree of choices, the states that were seen, and a schedule as text.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_CHOICE_H
#define FARSWAP_TESTS_INTERLEAVE_CHOICE_H

#include "tests/interleave/interleave.h"
#include "tests/interleave/world.h"

/*
 * A new search; compare: states can be told from each other. -ENOENT: FARSWAP_SCHEDULE is for another scenario; -EINVAL: it or
 * FARSWAP_PREEMPTIONS is none, which is printed.
 */
int choice_open(const struct interleave_scenario *scenario, bool compare) BASE_MUST_CHECK;
/* Prints how it went; `failed` is why the last schedule did, or NULL. */
void choice_close(const char *failed, struct interleave_result *ret_result);

void choice_begin(void);
/*
 * Of the scripts in the mask, who goes on. False: the state, as `hash` tells, is one from which everything was seen; the
 * schedule is over.
 */
bool choice_make(uint8_t mask, unsigned *ret_next, struct world_hash (*hash)(void)) BASE_MUST_CHECK;
/* All scripts have ended, and the check has found nothing. */
void choice_ended(void);
/* The schedule is over: whether there is another. */
bool choice_next(void) BASE_MUST_CHECK;

/* The script stands before an operation on the address: whether others may go first. */
bool choice_is_open(unsigned script, uintptr_t at, bool writes);
/* The script does it now. */
void choice_goes_to(unsigned script, uintptr_t at, bool writes);
/* The same, at what is no address of the code under test, and so counts whoever else has been there by now. */
void choice_goes_to_shared(unsigned script, uintptr_t at, bool writes);
/* The script does what concerns all others, wherever they go. */
void choice_goes_everywhere(unsigned script);
/* The same where others always may, and at its end. */
void choice_arrived(unsigned script);
/* One line, when a schedule is run again to be looked at. */
void choice_print(unsigned script, const char *what, uintptr_t at, const char *function, int line);

#endif

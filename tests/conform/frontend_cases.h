/*
 * The cases of the front end suite. Each has a device and a front end of its own, fresh.
 */
#ifndef FARSWAP_TESTS_CONFORM_FRONTEND_CASES_H
#define FARSWAP_TESTS_CONFORM_FRONTEND_CASES_H

#include "tests/conform/frontend_env.h"

struct conform_case {
	const char *name;
	void (*run)(struct env *env);
	unsigned nr_slabs; /* that the device begins with */
	uint32_t slab_slots;
};

#define CONFORM_CASE(name) { #name, name, ENV_NR_SLABS, ENV_SLAB_SLOTS }

/* frontend_requests.c: what requests do, one after another and many at a time. */
extern const struct conform_case conform_request_cases[];
extern const size_t conform_nr_request_cases;
/* frontend_refusals.c: requests out of the ordinary. */
extern const struct conform_case conform_refusal_cases[];
extern const size_t conform_nr_refusal_cases;
/* frontend_faults.c: a backend that fails, holders that die, a front end that is stopped. */
extern const struct conform_case conform_fault_cases[];
extern const size_t conform_nr_fault_cases;

#endif

/*
 * Every case over every way in which the front end is to be run.
 */
#include <assert.h>
#include <stdio.h>

#include "common/log/log.h"
#include "common/sys/rcu.h"
#include "tests/conform/frontend_cases.h"

#define SKIPPED 77
#define NAME_BYTES 100

struct test {
	const struct conform_config *config;
	const struct conform_case *item;
	char name[NAME_BYTES];
	struct env env;
};

static int set_up(void **state)
{
	struct test *test = *state;

	memset(&test->env, 0, sizeof(test->env));
	test->env.frontend = test->config->frontend;
	test->env.config = test->config;
	env_open(&test->env, test->item->nr_slabs, test->item->slab_slots);
	return 0;
}

static int tear_down(void **state)
{
	env_close(&((struct test *)*state)->env);
	return 0;
}

static void run(void **state)
{
	struct test *test = *state;

	test->item->run(&test->env);
}

/* The cases one after another, from all files. */
static const struct conform_case *case_at(size_t index)
{
	if (index < conform_nr_request_cases)
		return &conform_request_cases[index];
	index -= conform_nr_request_cases;
	if (index < conform_nr_refusal_cases)
		return &conform_refusal_cases[index];
	return &conform_fault_cases[index - conform_nr_refusal_cases];
}

/* Why the first one that cannot run cannot. */
static const char *find_missing(const struct conform_config *configs, size_t nr_configs)
{
	const char *missing = NULL;

	for (size_t i = 0; !missing && i < nr_configs; i++)
		missing = configs[i].frontend->missing();
	return missing;
}

int conform_frontend_main(const char *name, const struct conform_config *configs, size_t nr_configs)
{
	size_t nr_cases = conform_nr_request_cases + conform_nr_refusal_cases + conform_nr_fault_cases;
	const char *missing = find_missing(configs, nr_configs);
	size_t nr = nr_configs * nr_cases;
	struct CMUnitTest *units;
	struct test *tests;
	int ret;

	if (missing) {
		printf("skipped: %s\n", missing);
		return SKIPPED;
	}
	log_init(name, LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	print_message("seed %llu\n", (unsigned long long)env_seed());
	tests = calloc(nr, sizeof(*tests));
	units = calloc(nr, sizeof(*units));
	assert(tests && units);
	for (size_t i = 0; i < nr; i++) {
		struct test *test = &tests[i];

		test->config = &configs[i / nr_cases];
		test->item = case_at(i % nr_cases);
		snprintf(test->name, sizeof(test->name), "%s: %s", test->config->name, test->item->name);
		units[i] = (struct CMUnitTest){ test->name, run, set_up, tear_down, test };
	}
	ret = _cmocka_run_group_tests(name, units, nr, NULL, NULL);
	free(units);
	free(tests);
	return ret;
}

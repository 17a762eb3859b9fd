/*
 * The tree is searched depth first. A node of it is a state in which more than one script can go on, or the first after such
 * ones. On the way from the root to where the search stands each node has the choice that was made there, and those that are
 * still to be tried.
 *
 * Reduced, a node has at first one choice. When all behind it has been seen, those scripts have to be tried as well which meet
 * the step that was chosen there: each that goes where the step writes, or writes where it reads. If one that meets it cannot
 * be chosen yet, all have to. In any schedule that is left out the chosen step could as well have come first, and then it is
 * not left out. The states behind must not come back to where they were, or a script might be put off for ever; when they do,
 * the search begins anew and is not reduced.
 */
#include "tests/interleave/choice.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/rand.h"
#include "tests/interleave/address.h"
#include "tests/interleave/footprint.h"

#define NOBODY UINT32_MAX
#define UNBOUNDED UINT32_MAX
/* Schedules that are run first, to learn which addresses matter; more before a search that would be long to begin anew. */
#define NR_RANDOM 2000u
#define NR_RANDOM_UNBOUND 500000u
/* Where states cannot be compared, the schedules are too many for more. */
#define MAX_PREEMPTIONS_UNCOMPARED 1u
#define MAX_NODES (1u << 14)
#define MAX_LEGS (1u << 14)
#define MIN_SEEN (1u << 12)
#define MAX_SEEN (1u << 26)

enum mode { MODE_RANDOM, MODE_SEARCH, MODE_AGAIN };

struct seen {
	struct world_hash hash;
	struct footprint behind; /* of all that was done from here on */
	double nr_schedules;	 /* from here on */
	uint32_t left;		 /* preemptions that were allowed from here on */
	bool used;
	bool open; /* on the way to where the search stands */
};

struct node {
	struct world_hash hash;
	double nr_schedules;
	uint32_t left;
	uint32_t current; /* who had run */
	uint8_t mask;
	uint8_t todo;
	uint8_t taken; /* chosen before, now, or to be; when the search is reduced */
	uint32_t chosen;
	struct footprint step;	 /* from the choice to the next node */
	struct footprint after;	 /* from there on */
	struct footprint behind; /* both, of the choices before */
};

/* A script goes on for so many points; its end is one, too. */
struct leg {
	uint32_t script;
	uint32_t nr_points;
};

static struct {
	const char *name;
	enum mode mode;
	uint32_t max_preemptions;
	bool compare;
	bool reduce; /* of orders that make no difference, one */
	struct timespec began; /* in processor time */
	struct rand_state rand;
	uint32_t nr_random, max_random;

	uint64_t nr_learned; /* of the addresses, when the search began */

	struct node node[MAX_NODES];
	uint32_t nr_nodes;
	struct seen *seen;
	uint32_t nr_seen, room; /* room: a power of two */

	/* The schedule under way. */
	uint32_t depth;
	uint32_t current, left;
	bool was_single;
	struct leg leg[MAX_LEGS];
	uint32_t nr_legs;
	uint32_t nr_points;

	/* FARSWAP_SCHEDULE */
	struct leg again[MAX_LEGS];
	uint32_t nr_again;

	char *schedule; /* the one that failed, as text */

	uint64_t nr_run, nr_before; /* nr_before: before the search began, the last time that it began */
	uint32_t most_points;
	unsigned nr_anew;
	uint64_t nr_cycles;
	double nr_schedules;
} search;

/* ---- states ---- */

static struct seen *seen_place(struct seen *seen, uint32_t room, struct world_hash hash)
{
	uint32_t i = (uint32_t)hash.a & (room - 1);

	while (seen[i].used && (seen[i].hash.a != hash.a || seen[i].hash.b != hash.b))
		i = (i + 1) & (room - 1);
	return &seen[i];
}

static void seen_grow(void)
{
	uint32_t room = search.room ? search.room * 2 : MIN_SEEN, i;
	struct seen *seen;

	if (room > MAX_SEEN)
		interleave_fail("more than %u states: it needs a bound", search.nr_seen);
	seen = calloc(room, sizeof(*seen));
	assert(seen);
	for (i = 0; i < search.room; i++)
		if (search.seen[i].used)
			*seen_place(seen, room, search.seen[i].hash) = search.seen[i];
	free(search.seen);
	search.seen = seen;
	search.room = room;
}

static void seen_forget(void)
{
	free(search.seen);
	search.seen = NULL;
	search.room = 0;
	search.nr_seen = 0;
	seen_grow();
}

static bool is_bounded(void)
{
	return search.max_preemptions != UNBOUNDED;
}

/* ---- where scripts go ---- */

bool choice_is_open(unsigned script, uintptr_t at, bool writes)
{
	struct address *address = address_find(at);

	choice_arrived(script);
	address_learn(address, script, writes);
	return address_is_open(address, script, writes) || search.mode == MODE_AGAIN;
}

/* Where the step that is being taken for the first time is noted, or NULL. */
static struct footprint *step_under_way(void)
{
	if (!search.reduce || search.mode != MODE_SEARCH || search.depth == 0 || search.depth != search.nr_nodes)
		return NULL;
	return &search.node[search.nr_nodes - 1].step;
}

static void step_goes_to(unsigned script, struct address *address, bool writes)
{
	struct footprint *step = step_under_way();

	if (step)
		footprint_add(step, script, address_number(address), writes);
}

void choice_goes_to(unsigned script, uintptr_t at, bool writes)
{
	struct address *address = address_find(at);

	if (address_matters(address))
		step_goes_to(script, address, writes);
}

void choice_goes_to_shared(unsigned script, uintptr_t at, bool writes)
{
	step_goes_to(script, address_find(at), writes);
}

void choice_goes_everywhere(unsigned script)
{
	struct footprint *step = step_under_way();

	if (step)
		footprint_add_everything(step, script);
}

/* ---- the schedule as text ---- */

void choice_arrived(unsigned script)
{
	assert(search.nr_legs && search.leg[search.nr_legs - 1].script == script);
	search.leg[search.nr_legs - 1].nr_points++;
	search.nr_points++;
}

static void leg_add(unsigned script)
{
	if (search.nr_legs && search.leg[search.nr_legs - 1].script == script)
		return;
	assert(search.nr_legs < MAX_LEGS);
	search.leg[search.nr_legs++] = (struct leg){ .script = script };
}

/* Whole: a part of a schedule is another one. For the caller to free. */
static char *schedule_format(void)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);
	uint32_t i;

	assert(file);
	fprintf(file, "%s", search.name);
	for (i = 0; i < search.nr_legs; i++)
		fprintf(file, " %u:%u", search.leg[i].script, search.leg[i].nr_points);
	assert(fclose(file) == 0 && text);
	return text;
}

/* 0; -ENOENT: it is for another scenario; -EINVAL: it is none. */
static int schedule_parse(const char *text)
{
	size_t len = strlen(search.name);
	struct leg leg;
	int nr_chars;

	if (strncmp(text, search.name, len) != 0 || (text[len] != ' ' && text[len] != '\0'))
		return -ENOENT;
	text += len;
	search.nr_again = 0;
	while (search.nr_again < MAX_LEGS && sscanf(text, " %u:%u%n", &leg.script, &leg.nr_points, &nr_chars) == 2 &&
	       leg.script < INTERLEAVE_MAX_SCRIPTS) {
		search.again[search.nr_again++] = leg;
		text += nr_chars;
	}
	return text[strspn(text, " ")] == '\0' ? 0 : -EINVAL;
}

void choice_print(unsigned script, const char *what, uintptr_t at, const char *function, int line)
{
	if (search.mode == MODE_AGAIN)
		printf("%6u %*s%u %s:%d %s %#lx\n", search.nr_points, (int)script * 8, "", script, function, line, what,
		       (unsigned long)at);
}

/* ---- choosing ---- */

static unsigned first_of(uint8_t mask)
{
	return (unsigned)__builtin_ctz(mask);
}

static bool current_can_go_on(uint8_t mask)
{
	return search.current != NOBODY && (mask >> search.current & 1) != 0;
}

/* In some schedules scripts are often interrupted, in others rarely: what they meet in is not the same. */
static unsigned choose_random(uint8_t mask)
{
	unsigned one_in = 2u << search.nr_random % 8, next;

	if (current_can_go_on(mask) && rand_below(&search.rand, one_in) != 0)
		return search.current;
	do
		next = (unsigned)rand_below(&search.rand, 8);
	while (!(mask >> next & 1));
	return next;
}

/* As the legs say; then whoever can, the one that ran first of all. */
static unsigned choose_again(uint8_t mask)
{
	const struct leg *leg = search.nr_legs ? &search.again[search.nr_legs - 1] : NULL;
	unsigned next;

	if (leg && search.nr_legs <= search.nr_again && search.leg[search.nr_legs - 1].nr_points < leg->nr_points)
		next = leg->script;
	else if (search.nr_legs < search.nr_again)
		next = search.again[search.nr_legs].script;
	else
		next = current_can_go_on(mask) ? search.current : first_of(mask);
	if (!(mask >> next & 1))
		interleave_fail("script %u cannot go on: this is not a schedule of %s", next, search.name);
	return next;
}

/* All scripts have ended: so must all legs have. */
static void expect_all_again(void)
{
	if (search.nr_again && (search.nr_legs < search.nr_again || search.leg[search.nr_again - 1].nr_points <
								      search.again[search.nr_again - 1].nr_points))
		interleave_fail("all have ended before: this is not a schedule of %s", search.name);
}

/* What was chosen there has led on to this. */
static void node_ends_in(struct node *node, double nr_schedules, const struct footprint *behind)
{
	node->nr_schedules += nr_schedules;
	footprint_add_all(&node->after, behind);
}

/* A state that is new to the search. False: everything was seen from here. */
static bool node_add(uint8_t mask, struct world_hash hash)
{
	struct node *node = &search.node[search.nr_nodes];
	struct seen *seen;

	if (is_bounded())
		hash.a += search.current;
	assert(search.nr_nodes < MAX_NODES);
	if (search.compare) {
		seen = seen_place(search.seen, search.room, hash);
		if (seen->used && seen->left >= search.left) {
			search.nr_cycles += seen->open;
			if (search.nr_nodes)
				node_ends_in(&search.node[search.nr_nodes - 1], seen->nr_schedules, &seen->behind);
			return false;
		}
		search.nr_seen += !seen->used;
		*seen = (struct seen){ .hash = hash, .left = search.left, .used = true, .open = true };
		if (search.nr_seen > search.room / 2)
			seen_grow();
	}
	*node = (struct node){ .hash = hash, .left = search.left, .current = search.current, .mask = mask };
	node->chosen = current_can_go_on(mask) ? search.current : first_of(mask);
	node->taken = (uint8_t)(1u << node->chosen);
	node->todo = mask & (uint8_t)~node->taken;
	/* Others come when they are needed; or any other choice would be a preemption too many. */
	if (search.reduce || (current_can_go_on(mask) && search.left == 0))
		node->todo = 0;
	search.nr_nodes++;
	return true;
}

static bool choose_next(uint8_t mask, unsigned *ret_next, struct world_hash (*hash)(void))
{
	bool is_single = (mask & (mask - 1)) == 0;
	struct node *node;

	if (is_single && search.was_single) {
		*ret_next = first_of(mask);
		return true;
	}
	search.was_single = is_single;
	if (search.depth == search.nr_nodes) {
		struct world_hash none = { 0, 0 };

		if (!node_add(mask, search.compare ? hash() : none))
			return false;
	}
	node = &search.node[search.depth++];
	assert(node->mask == mask);
	*ret_next = node->chosen;
	if (current_can_go_on(mask) && node->chosen != search.current && is_bounded())
		search.left--;
	return true;
}

bool choice_make(uint8_t mask, unsigned *ret_next, struct world_hash (*hash)(void))
{
	if (search.mode == MODE_RANDOM)
		*ret_next = choose_random(mask);
	else if (search.mode == MODE_AGAIN)
		*ret_next = choose_again(mask);
	else if (!choose_next(mask, ret_next, hash))
		return false;
	search.current = *ret_next;
	leg_add(*ret_next);
	return true;
}

/* ---- from schedule to schedule ---- */

void choice_begin(void)
{
	search.depth = 0;
	search.current = NOBODY;
	search.left = search.max_preemptions;
	search.was_single = false;
	addresses_begin();
	search.nr_legs = 0;
	search.nr_points = 0;
	search.nr_run++;
}

void choice_ended(void)
{
	if (search.mode == MODE_SEARCH && search.nr_nodes)
		search.node[search.nr_nodes - 1].nr_schedules += 1;
	if (search.mode == MODE_AGAIN)
		expect_all_again();
}

static void search_begin(void)
{
	search.mode = MODE_SEARCH;
	search.nr_learned = addresses_counters()->nr_learned;
	search.nr_nodes = 0;
	search.nr_cycles = 0;
	search.nr_before = search.nr_run;
	search.most_points = 0;
	seen_forget();
}

/* All behind the choice has been seen: who else has to be tried. */
static void node_chosen_ends(struct node *node)
{
	bool several = (node->mask & (node->mask - 1)) != 0;
	uint8_t met_by = several ? footprint_met_by(&node->step, node->chosen, &node->after) : 0;
	uint8_t more = (uint8_t)((met_by & ~node->mask ? node->mask : met_by) & ~node->taken);

	node->todo |= more;
	node->taken |= more;
	footprint_add_all(&node->behind, &node->step);
	footprint_add_all(&node->behind, &node->after);
	memset(&node->step, 0, sizeof(node->step));
	memset(&node->after, 0, sizeof(node->after));
}

/* The node has been searched: what is behind it counts for the one before. */
static void node_remove(void)
{
	const struct node *node = &search.node[--search.nr_nodes];

	if (search.compare) {
		struct seen *seen = seen_place(search.seen, search.room, node->hash);

		seen->nr_schedules = node->nr_schedules;
		seen->behind = node->behind;
		seen->open = false;
	}
	if (search.nr_nodes)
		node_ends_in(&search.node[search.nr_nodes - 1], node->nr_schedules, &node->behind);
	else
		search.nr_schedules = node->nr_schedules;
}

bool choice_next(void)
{
	if (search.nr_points > search.most_points)
		search.most_points = search.nr_points;
	if (search.mode == MODE_AGAIN)
		return false;
	if (search.mode == MODE_RANDOM) {
		if (++search.nr_random == search.max_random)
			search_begin();
		return true;
	}
	if (addresses_counters()->nr_learned != search.nr_learned || (search.reduce && search.nr_cycles)) {
		search.reduce &= search.nr_cycles == 0;
		search.nr_anew++;
		search_begin();
		return true;
	}
	while (search.nr_nodes) {
		struct node *node = &search.node[search.nr_nodes - 1];

		if (search.reduce)
			node_chosen_ends(node);
		if (node->todo) {
			node->chosen = first_of(node->todo);
			node->todo &= (uint8_t)(node->todo - 1);
			return true;
		}
		node_remove();
	}
	return false;
}

/* What FARSWAP_PREEMPTIONS says, where there is a bound. -EINVAL: that is neither a number nor "all". */
static int bound_of(const struct interleave_scenario *scenario, uint32_t *ret_bound)
{
	const char *bound = getenv("FARSWAP_PREEMPTIONS");
	size_t nr_digits;
	unsigned long nr;

	*ret_bound = scenario->max_preemptions ? scenario->max_preemptions : UNBOUNDED;
	if (!bound)
		return 0;
	nr_digits = strspn(bound, "0123456789");
	nr = strtoul(bound, NULL, 10);
	if (strcmp(bound, "all") == 0)
		nr = UNBOUNDED;
	else if (nr_digits == 0 || bound[nr_digits] != '\0' || nr >= UNBOUNDED)
		return -EINVAL;
	if (scenario->max_preemptions)
		*ret_bound = (uint32_t)nr;
	return 0;
}

int choice_open(const struct interleave_scenario *scenario, bool compare)
{
	const char *again = getenv("FARSWAP_SCHEDULE");
	int err;

	free(search.seen);
	free(search.schedule);
	memset(&search, 0, sizeof(search));
	addresses_forget();
	search.name = scenario->name;
	search.compare = compare && !scenario->each;
	err = bound_of(scenario, &search.max_preemptions);
	if (err < 0) {
		printf("FARSWAP_PREEMPTIONS='%s' is neither a number nor 'all'\n", getenv("FARSWAP_PREEMPTIONS"));
		return err;
	}
	if (!compare)
		search.max_preemptions = (uint32_t)base_min_u64(search.max_preemptions, MAX_PREEMPTIONS_UNCOMPARED);
	search.reduce = search.compare && !is_bounded();
	search.mode = MODE_RANDOM;
	search.max_random = scenario->max_preemptions && !is_bounded() ? NR_RANDOM_UNBOUND : NR_RANDOM;
	search.rand.s = 1;
	if (scenario->each || scenario->at_once)
		search_begin();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &search.began);
	if (!again)
		return 0;
	search.mode = MODE_AGAIN;
	err = schedule_parse(again);
	if (err == -EINVAL)
		printf("FARSWAP_SCHEDULE='%s' is not NAME SCRIPT:POINTS...\n", again);
	return err;
}

static double seconds_since(const struct timespec *began)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)(now.tv_sec - began->tv_sec) + (double)(now.tv_nsec - began->tv_nsec) / 1e9;
}

static void print_failure(const char *failed, const char *schedule)
{
	printf("%s: %s\n", search.name, failed);
	printf("  in schedule %llu, after %u points, %.2f s; FARSWAP_SCHEDULE='%s' runs it again\n",
	       (unsigned long long)search.nr_run, search.nr_points, seconds_since(&search.began), schedule);
}

static void print_success(const struct interleave_result *result)
{
	if (search.mode == MODE_AGAIN) {
		printf("%s: this schedule is good\n", search.name);
		return;
	}
	printf("%-24s ", search.name);
	if (is_bounded())
		printf("<= %u preemptions:", search.max_preemptions);
	else
		printf("all%s %9.3g schedules:", search.reduce ? ", in" : "", result->nr_schedules);
	printf(" %llu run, %u states, at most %u points, %u of %u addresses matter, %.2f s%s\n",
	       (unsigned long long)result->nr_run, result->nr_states, result->most_points, addresses_counters()->nr_mattering,
	       addresses_counters()->nr, seconds_since(&search.began),
	       search.nr_cycles ? "; there are ways to go round in a circle" : "");
}

void choice_close(const char *failed, struct interleave_result *ret_result)
{
	*ret_result = (struct interleave_result){ .nr_schedules = search.nr_schedules,
						  .nr_run = search.nr_run - search.nr_before,
						  .nr_states = search.nr_seen,
						  .most_points = search.most_points };
	if (failed) {
		ret_result->schedule = search.schedule = schedule_format();
		print_failure(failed, ret_result->schedule);
	} else {
		print_success(ret_result);
	}
	fflush(stdout);
}

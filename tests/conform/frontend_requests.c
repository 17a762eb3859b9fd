/*
 * What requests do, one after another and many at a time.
 */
#include <errno.h>

#include "tests/conform/frontend_cases.h"

#define CLUSTER ENV_CLUSTER_PAGES

static void reports_its_size(struct env *env)
{
	for (unsigned i = 0; i < env->config->nr_holders; i++) {
		assert_int_equal(env->holders[i]->size_bytes, (uint64_t)ENV_NR_PAGES * FSW_PAGE_SIZE);
		assert_int_equal(env->holders[i]->block_bytes, FSW_PAGE_SIZE);
	}
}

static void unwritten_pages_are_zeros(struct env *env)
{
	struct user user;

	user_init_whole(&user, env);
	assert_int_equal(user_read_all(&user), 0);
	/* Beside one that is written, too. */
	assert_int_equal(user_write(&user, CLUSTER + 5, 1), 0);
	assert_int_equal(user_write(&user, ENV_NR_PAGES - 2, 1), 0);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

/* Every length that changes the way: one page, the small buffers of the front ends and beyond, the largest request. */
static void round_trip(struct env *env)
{
	uint64_t max_pages = env->frontend->max_bytes >> FSW_PAGE_SHIFT;
	const uint64_t lengths[] = { 1, 2, 15, 16, 17, 31, 33, 128, 255, max_pages - 1, max_pages };
	struct user user, other;

	user_init_whole(&user, env);
	/* Who reads is another holder, if there are several. */
	user_init(&other, env, 1, 0, ENV_NR_PAGES);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(lengths); i++) {
		const uint64_t places[] = { 0, CLUSTER - (lengths[i] + 1) / 2, 2 * CLUSTER - 1, 3 * CLUSTER,
					    ENV_NR_PAGES - lengths[i] };

		for (size_t j = 0; j < BASE_ARRAY_SIZE(places); j++) {
			assert_int_equal(user_write(&user, places[j], lengths[i]), 0);
			assert_int_equal(user_read(&other, places[j], lengths[i]), 0);
		}
	}
	assert_int_equal(user_read_all(&other), 0);
	user_done(&other);
	user_done(&user);
}

/* Pages that the virtual swap layer keeps in its words, by the border of what fits there, and back to stored ones. */
static void pages_of_one_word(struct env *env)
{
	static const uint64_t words[] = { 0, PAGE_SAME_STAMP, (1ull << 36) - 8, 1ull << 36, UINT64_MAX - 7, 12345 };
	struct user user;

	user_init_whole(&user, env);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(words); i++) {
		user.next_stamp = words[i];
		assert_int_equal(user_write(&user, 3, 1), 0);
		assert_int_equal(user_read(&user, 2, 3), 0);
		user.next_stamp = words[i];
		assert_int_equal(user_write(&user, 100 + i, 1), 0);
	}
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

static uint64_t count_stored(const struct user *user)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < user->nr_pages; i++)
		nr += user->stamps[i] % PAGE_SAME_STAMP != 0;
	return nr;
}

static void check_clearing(struct env *env, enum io_op op)
{
	static const struct {
		uint64_t page, nr_pages;
	} ranges[] = {
		{ 100, 1 },
		{ 102, 3 },
		{ 90, 100 }, /* over what is cleared already */
		{ CLUSTER - 2, 5 },
		{ 2 * CLUSTER, CLUSTER },
		{ 3 * CLUSTER - 1, CLUSTER + 2 },
		{ 4 * CLUSTER + 2, CLUSTER - 10 }, /* never written */
		{ ENV_NR_PAGES - 1, 1 },
	};
	struct user user;

	user_init_whole(&user, env);
	for (uint64_t page = 0; page < 4 * CLUSTER; page += 128)
		assert_int_equal(user_write(&user, page, 128), 0);
	assert_int_equal(user_write(&user, ENV_NR_PAGES - 4, 4), 0);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(ranges); i++) {
		assert_int_equal(user_clear(&user, op, ranges[i].page, ranges[i].nr_pages), 0);
		assert_int_equal(user_read_all(&user), 0);
		assert_int_equal(env_nr_stored(env), count_stored(&user));
	}
	assert_int_equal(user_write(&user, 101, 3), 0);
	assert_int_equal(user_read_all(&user), 0);
	/* All of it, which is more than any request of data: the room is there again. */
	assert_int_equal(user_clear(&user, op, 0, ENV_NR_PAGES), 0);
	assert_int_equal(user_read_all(&user), 0);
	assert_int_equal(env_nr_stored(env), 0);
	env_wait_no_slots(env);
	user_done(&user);
}

static void discard(struct env *env)
{
	check_clearing(env, IO_DISCARD);
}

static void write_zeroes(struct env *env)
{
	check_clearing(env, IO_WRITE_ZEROES);
}

/* Requests that overlap, one after another: the last one counts. */
static void random_sequence(struct env *env)
{
	struct user user;

	user_init_whole(&user, env);
	user.nr_pages = 2 * CLUSTER + 100;
	for (unsigned i = 0; i < 150; i++)
		assert_int_equal(user_step(&user, env->frontend->max_bytes >> FSW_PAGE_SHIFT), 0);
	user.nr_pages = ENV_NR_PAGES;
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

static void flush(struct env *env)
{
	struct user user;

	user_init_whole(&user, env);
	assert_int_equal(env->frontend->flush(env->holders[0]), 0);
	assert_int_equal(user_write(&user, 7, 20), 0);
	for (unsigned i = 0; i < env->config->nr_holders; i++)
		assert_int_equal(env->frontend->flush(env->holders[i]), 0);
	assert_int_equal(user_read(&user, 0, 30), 0);
	user_done(&user);
}

static void data_outlives_its_holders(struct env *env)
{
	struct user user;

	user_init_whole(&user, env);
	assert_int_equal(user_write(&user, CLUSTER - 50, 100), 0);
	user_done(&user);
	for (unsigned i = 0; i < env->config->nr_holders; i++) {
		env->frontend->close(env->holders[i]);
		assert_int_equal(env->frontend->open(env->server, &env->holders[i]), 0);
	}
	user_init_whole(&user, env);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
	env_down(env);
	env_up(env);
	user_init_whole(&user, env);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

/* ---- many at a time ---- */

static uint64_t some_page(unsigned i)
{
	return i * 100;
}

/* All of them wait at the backend, and are answered in another order. */
static void answers_find_their_requests(struct env *env)
{
	for (unsigned i = 0; i < ENV_MAX_JOBS; i++)
		job_start(env, IO_WRITE, some_page(i), 1, 2 * i + 1);
	jobs_join(env);
	for (unsigned round = 0; round < 10; round++) {
		gate_backend_shut(env->gate);
		for (unsigned i = 0; i < ENV_MAX_JOBS; i++)
			job_start(env, IO_READ, some_page(i), 1, 0);
		gate_backend_wait(env->gate, ENV_MAX_JOBS);
		gate_backend_open(env->gate);
		jobs_join(env);
		for (unsigned i = 0; i < ENV_MAX_JOBS; i++) {
			assert_int_equal(env->jobs[i].result, FSW_PAGE_SIZE);
			assert_int_equal(job_stamp(&env->jobs[i], 0), 2 * i + 1);
		}
	}
}

/* The same with large requests, of which no front end has buffers for all. */
static void large_requests_wait_for_room(struct env *env)
{
	const unsigned nr = ENV_MAX_JOBS;

	gate_backend_shut(env->gate);
	for (unsigned i = 0; i < nr; i++)
		job_start(env, IO_WRITE, i * ENV_JOB_PAGES, ENV_JOB_PAGES, 1 + i * ENV_JOB_PAGES);
	gate_backend_wait(env->gate, 1);
	gate_backend_open(env->gate);
	jobs_join(env);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(env->jobs[i].result, ENV_JOB_PAGES * FSW_PAGE_SIZE);
	gate_backend_shut(env->gate);
	for (unsigned i = 0; i < nr; i++)
		job_start(env, IO_READ, i * ENV_JOB_PAGES, ENV_JOB_PAGES, 0);
	gate_backend_wait(env->gate, 8);
	gate_backend_open(env->gate);
	jobs_join(env);
	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(env->jobs[i].result, ENV_JOB_PAGES * FSW_PAGE_SIZE);
		for (unsigned j = 0; j < ENV_JOB_PAGES; j++)
			assert_int_equal(job_stamp(&env->jobs[i], j), 1 + i * ENV_JOB_PAGES + j);
	}
}

#define NR_USERS 8u
#define NR_STEPS 150u

struct busy_user {
	struct user user;
	pthread_t thread;
	int ret;
};

static void *be_busy(void *arg)
{
	struct busy_user *busy = arg;

	for (unsigned i = 0; busy->ret == 0 && i < NR_STEPS; i++)
		busy->ret = user_step(&busy->user, 48);
	if (busy->ret == 0)
		busy->ret = user_read_all(&busy->user);
	return NULL;
}

/* Each on its own part, which begins and ends in the middle of a cluster. */
static void users_do_not_mix(struct env *env)
{
	const uint64_t part = (ENV_NR_PAGES - 1) / NR_USERS;
	struct busy_user busy[NR_USERS];
	struct user user;

	for (unsigned i = 0; i < NR_USERS; i++) {
		user_init(&busy[i].user, env, i, i * part, part);
		busy[i].ret = 0;
		assert_int_equal(pthread_create(&busy[i].thread, NULL, be_busy, &busy[i]), 0);
	}
	for (unsigned i = 0; i < NR_USERS; i++) {
		pthread_join(busy[i].thread, NULL);
		user_done(&busy[i].user);
	}
	for (unsigned i = 0; i < NR_USERS; i++)
		assert_int_equal(busy[i].ret, 0);
	user_init_whole(&user, env);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

#define NR_SHARED 16u
#define NR_WRITERS 3u

/* Whole pages of one of the writers each, while they write and afterwards. */
static void writes_of_the_same_pages(struct env *env)
{
	uint64_t before[NR_SHARED] = { 0 };

	for (uint64_t round = 1; round <= 30; round++) {
		struct job *reader, *last;

		for (unsigned i = 0; i < NR_WRITERS; i++)
			job_start(env, IO_WRITE, CLUSTER - NR_SHARED / 2, NR_SHARED, round << 16 | i << 8);
		reader = job_start(env, IO_READ, CLUSTER - NR_SHARED / 2, NR_SHARED, 0);
		jobs_join(env);
		for (unsigned i = 0; i <= NR_WRITERS; i++)
			assert_int_equal(env->jobs[i].result, NR_SHARED * FSW_PAGE_SIZE);
		for (unsigned i = 0; i < NR_SHARED; i++) {
			uint64_t stamp = job_stamp(reader, i);

			if (stamp != before[i]) {
				assert_int_equal(stamp & ~0xff00ull, round << 16 | i);
				assert_true((stamp >> 8 & 0xff) < NR_WRITERS);
			}
		}
		last = job_start(env, IO_READ, CLUSTER - NR_SHARED / 2, NR_SHARED, 0);
		jobs_join(env);
		assert_int_equal(last->result, NR_SHARED * FSW_PAGE_SIZE);
		for (unsigned i = 0; i < NR_SHARED; i++) {
			before[i] = job_stamp(last, i);
			assert_int_equal(before[i] & ~0xff00ull, round << 16 | i);
			assert_true((before[i] >> 8 & 0xff) < NR_WRITERS);
		}
	}
}

const struct conform_case conform_request_cases[] = {
	CONFORM_CASE(reports_its_size),
	CONFORM_CASE(unwritten_pages_are_zeros),
	CONFORM_CASE(round_trip),
	CONFORM_CASE(pages_of_one_word),
	CONFORM_CASE(discard),
	CONFORM_CASE(write_zeroes),
	CONFORM_CASE(random_sequence),
	CONFORM_CASE(flush),
	CONFORM_CASE(data_outlives_its_holders),
	CONFORM_CASE(answers_find_their_requests),
	CONFORM_CASE(large_requests_wait_for_room),
	CONFORM_CASE(users_do_not_mix),
	CONFORM_CASE(writes_of_the_same_pages),
};
const size_t conform_nr_request_cases = BASE_ARRAY_SIZE(conform_request_cases);

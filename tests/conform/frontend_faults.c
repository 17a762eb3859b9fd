/*
 * A backend that fails or has no room, holders that die, and a front end that is stopped.
 */
#include <errno.h>
#include <sched.h>

#include "tests/conform/frontend_cases.h"

#define CLUSTER ENV_CLUSTER_PAGES

/* ---- a backend that fails ---- */

#define NR_SPOTS 8u
#define SPOT_PAGES 4u

static uint64_t spot_page(unsigned i)
{
	return i * 300;
}

/* The stamp of a spot's first page: all of a spot's are stored, and no two of any spot and time are the same. */
static uint64_t spot_stamp(unsigned time, unsigned i)
{
	return (time * NR_SPOTS + i) * 4096 + 1;
}

static void start_spots(struct env *env, enum io_op op, unsigned time)
{
	for (unsigned i = 0; i < NR_SPOTS; i++)
		job_start(env, op, spot_page(i), SPOT_PAGES, spot_stamp(time, i));
}

/* Whether the READ of a spot has brought what was written at that time. */
static bool spot_holds(const struct job *job, unsigned time, unsigned i)
{
	for (unsigned j = 0; j < SPOT_PAGES; j++)
		if (job_stamp(job, j) != spot_stamp(time, i) + j)
			return false;
	return true;
}

/* All go well but that of one spot, which ends with an error. */
static void check_spots(const struct env *env, unsigned bad, int error)
{
	for (unsigned i = 0; i < NR_SPOTS; i++)
		assert_int_equal(env->jobs[i].result, i == bad ? error : (int64_t)(SPOT_PAGES * FSW_PAGE_SIZE));
}

static void write_spots(struct env *env, unsigned time)
{
	start_spots(env, IO_WRITE, time);
	jobs_join(env);
	check_spots(env, NR_SPOTS, 0);
}

static void read_spots(struct env *env, unsigned time)
{
	start_spots(env, IO_READ, 0);
	jobs_join(env);
	check_spots(env, NR_SPOTS, 0);
	for (unsigned i = 0; i < NR_SPOTS; i++)
		assert_true(spot_holds(&env->jobs[i], time, i));
}

static void a_read_error_is_one_requests(struct env *env)
{
	const unsigned bad = 3;

	write_spots(env, 1);
	gate_backend_shut(env->gate);
	start_spots(env, IO_READ, 0);
	gate_backend_wait(env->gate, NR_SPOTS);
	gate_backend_fail(env->gate, IO_READ, spot_stamp(1, bad) + 2, -EIO);
	gate_backend_open(env->gate);
	jobs_join(env);
	check_spots(env, bad, -EIO);
	for (unsigned i = 0; i < NR_SPOTS; i++)
		assert_true(i == bad || spot_holds(&env->jobs[i], 1, i));
	/* It fails as long as the backend does, and what failed was not lost. */
	start_spots(env, IO_READ, 0);
	jobs_join(env);
	check_spots(env, bad, -EIO);
	gate_backend_heal(env->gate);
	read_spots(env, 1);
}

/* A page whose write has failed is what it was, or cannot be read; a page beside it is what it was or what it should be. */
static void check_after_failed_write(struct env *env, unsigned bad)
{
	for (unsigned j = 0; j < SPOT_PAGES; j++) {
		struct job *job = job_start(env, IO_READ, spot_page(bad) + j, 1, 0);
		uint64_t stamp;

		jobs_join(env);
		if (job->result == -EIO)
			continue;
		assert_int_equal(job->result, FSW_PAGE_SIZE);
		stamp = job_stamp(job, 0);
		assert_true(stamp == spot_stamp(1, bad) + j || stamp == spot_stamp(2, bad) + j);
		assert_true(j != 1 || stamp == spot_stamp(1, bad) + j);
	}
}

static void a_write_error_is_one_requests(struct env *env)
{
	const unsigned bad = 5;

	write_spots(env, 1);
	gate_backend_fail(env->gate, IO_WRITE, spot_stamp(2, bad) + 1, -EIO);
	start_spots(env, IO_WRITE, 2);
	jobs_join(env);
	check_spots(env, bad, -EIO);
	check_after_failed_write(env, bad);
	start_spots(env, IO_READ, 0);
	jobs_join(env);
	for (unsigned i = 0; i < NR_SPOTS; i++)
		assert_true(i == bad || spot_holds(&env->jobs[i], 2, i));
	gate_backend_heal(env->gate);
	write_spots(env, 2);
	read_spots(env, 2);
}

/* Pages that need no room are written all the same, and with room the others are. */
static void no_room_at_all(struct env *env)
{
	struct conform_holder *holder = env->holders[0];
	char *page = pages_new(1, 1);
	struct user user;

	user_init_whole(&user, env);
	assert_int_equal(env->frontend->write(holder, page, FSW_PAGE_SIZE, 0), env->frontend->outcomes.no_room);
	user.next_stamp = PAGE_SAME_STAMP;
	assert_int_equal(user_write(&user, 1, 1), 0);
	assert_int_equal(env->frontend->write(holder, page, FSW_PAGE_SIZE, 2 * FSW_PAGE_SIZE), env->frontend->outcomes.no_room);
	assert_int_equal(user_clear(&user, IO_WRITE_ZEROES, 2, 10), 0);
	assert_int_equal(env->frontend->flush(holder), 0);
	assert_int_equal(user_read_all(&user), 0);
	env_add_slab(env, ENV_SLAB_SLOTS);
	assert_int_equal(user_write(&user, 0, 100), 0);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
	free(page);
}

/* As small as slabs may be, and one for each queue, so that each finds room again once there is some. */
#define SMALL_SLAB_SLOTS 256u

static void room_runs_out_and_comes_back(struct env *env)
{
	const uint64_t nr_slots = CONFORM_MAX_QUEUES * SMALL_SLAB_SLOTS;
	struct user user;
	uint64_t nr = 0;
	int ret = 0;

	user_init_whole(&user, env);
	while (ret == 0 && nr <= nr_slots) {
		user.next_stamp |= 1;
		ret = user_write(&user, 4 * nr, 1);
		nr += ret == 0;
	}
	assert_int_equal(ret, env->frontend->outcomes.no_room);
	assert_in_range(nr, SMALL_SLAB_SLOTS, nr_slots);
	assert_int_equal(user_read_all(&user), 0);
	assert_int_equal(env_nr_stored(env), nr);
	assert_int_equal(user_clear(&user, IO_DISCARD, 0, ENV_NR_PAGES), 0);
	env_wait_no_slots(env);
	assert_int_equal(user_write(&user, 4 * nr, SMALL_SLAB_SLOTS / 2), 0);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

/* ---- ends ---- */

#define VICTIM_PAGES 64u
#define NR_VICTIMS 20u /* more than any front end has of anything that one of them could keep */

static void take_over_from_victim(struct env *env, uint64_t page, uint64_t stamp)
{
	struct job *job = job_start(env, IO_READ, page, VICTIM_PAGES, 0);

	jobs_join(env);
	assert_int_equal(job->result, VICTIM_PAGES * FSW_PAGE_SIZE);
	for (unsigned i = 0; i < VICTIM_PAGES; i++) {
		uint64_t found = job_stamp(job, i);

		assert_true(found == env->stamps[page + i] || found == stamp + i);
		env->stamps[page + i] = found;
	}
}

/* A holder dies with a write in flight: that is done or not, nobody else notices, and others can come. */
static void a_holder_dies(struct env *env)
{
	const uint64_t page = CLUSTER - VICTIM_PAGES / 2;
	struct conform_victim *victim;
	struct user user;

	user_init_whole(&user, env);
	assert_int_equal(user_write(&user, page - 10, VICTIM_PAGES + 20), 0);
	for (unsigned round = 1; round <= NR_VICTIMS; round++) {
		uint64_t stamp = (uint64_t)round << 40 | 1;
		void *buf = pages_new(VICTIM_PAGES, stamp);

		gate_backend_shut(env->gate);
		assert_int_equal(env->frontend->doom(env->server, buf, VICTIM_PAGES * FSW_PAGE_SIZE,
						     page << FSW_PAGE_SHIFT, &victim), 0);
		gate_backend_wait(env->gate, 1);
		env->frontend->kill(victim);
		env_check_size(env);
		assert_int_equal(user_read(&user, 4 * CLUSTER, 5), 0); /* which needs no backend */
		gate_backend_open(env->gate);
		env->frontend->bury(victim);
		free(buf);
		take_over_from_victim(env, page, stamp);
		assert_int_equal(user_write(&user, page - 10, 15), 0);
	}
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
}

static void *stop_server(void *arg)
{
	struct env *env = arg;

	env->frontend->stop(env->server);
	return NULL;
}

/* Every request ends; of those that ended well the front end that follows knows. */
static void check_stopped(struct env *env, const int64_t *results)
{
	read_spots(env, 1);
	for (unsigned i = 0; i < NR_SPOTS; i++) {
		struct job *job = job_start(env, IO_READ, spot_page(i) + 2 * SPOT_PAGES, SPOT_PAGES, 0);

		jobs_join(env);
		assert_int_equal(job->result, SPOT_PAGES * FSW_PAGE_SIZE);
		for (unsigned j = 0; j < SPOT_PAGES; j++) {
			uint64_t stamp = job_stamp(job, j);

			assert_true(stamp == spot_stamp(2, i) + j || (results[i] < 0 && stamp == 0));
		}
	}
}

static void stop_with_requests_in_flight(struct env *env)
{
	static _Alignas(FSW_PAGE_SIZE) char page[FSW_PAGE_SIZE];
	int64_t results[NR_SPOTS];
	pthread_t stopper;

	write_spots(env, 1);
	gate_backend_shut(env->gate);
	start_spots(env, IO_READ, 0);
	gate_backend_wait(env->gate, NR_SPOTS);
	for (unsigned i = 0; i < NR_SPOTS; i++)
		job_start(env, IO_WRITE, spot_page(i) + 2 * SPOT_PAGES, SPOT_PAGES, spot_stamp(2, i));
	gate_backend_wait(env->gate, NR_SPOTS + 1);
	assert_int_equal(pthread_create(&stopper, NULL, stop_server, env), 0);
	while (env->frontend->is_up(env->server))
		sched_yield();
	gate_backend_open(env->gate);
	pthread_join(stopper, NULL);
	env->server = NULL;
	jobs_join(env);
	for (unsigned i = 0; i < NR_SPOTS; i++) {
		int64_t result = env->jobs[i].result;

		assert_true(result < 0 || (result == SPOT_PAGES * FSW_PAGE_SIZE && spot_holds(&env->jobs[i], 1, i)));
		results[i] = env->jobs[NR_SPOTS + i].result;
		assert_true(results[i] < 0 || results[i] == SPOT_PAGES * FSW_PAGE_SIZE);
	}
	for (unsigned i = 0; i < env->config->nr_holders; i++) {
		int64_t nr = env->frontend->read(env->holders[i], page, sizeof(page), 0);

		/* A disk that has gone has nothing left to be read, nor to be flushed. */
		assert_true(nr < 0 || (nr == 0 && env->frontend->outcomes.empty_when_stopped));
		assert_true(env->frontend->outcomes.empty_when_stopped || env->frontend->flush(env->holders[i]) < 0);
		env->frontend->close(env->holders[i]);
		env->holders[i] = NULL;
	}
	env_up(env);
	check_stopped(env, results);
}

const struct conform_case conform_fault_cases[] = {
	CONFORM_CASE(a_read_error_is_one_requests),
	CONFORM_CASE(a_write_error_is_one_requests),
	{ "no_room_at_all", no_room_at_all, 0, 0 },
	{ "room_runs_out_and_comes_back", room_runs_out_and_comes_back, CONFORM_MAX_QUEUES, SMALL_SLAB_SLOTS },
	CONFORM_CASE(a_holder_dies),
	CONFORM_CASE(stop_with_requests_in_flight),
};
const size_t conform_nr_fault_cases = BASE_ARRAY_SIZE(conform_fault_cases);

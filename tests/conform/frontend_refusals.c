/*
 * Requests out of the ordinary: what the front end's documentation says becomes of them, and that nothing else does.
 */
#include <errno.h>

#include "tests/conform/frontend_cases.h"

#define END_BYTES ((uint64_t)ENV_NR_PAGES * FSW_PAGE_SIZE)
#define FAR_BYTES (1ull << 52)
#define NEW_STAMP 1000001u /* of what is to be written there */

/* Two pages at the start and two at the end, which what is refused must leave alone. */
static void mark_borders(struct user *user, struct env *env)
{
	user_init_whole(user, env);
	assert_int_equal(user_write(user, 0, 2), 0);
	assert_int_equal(user_write(user, ENV_NR_PAGES - 2, 2), 0);
}

static void misaligned_requests(struct env *env)
{
	static const struct {
		uint64_t offset_bytes;
		uint32_t len_bytes;
	} ranges[] = { { 512, 4096 }, { 0, 512 }, { 4096, 4608 }, { END_BYTES - 512, 512 }, { 1, 4096 } };
	const struct conform_frontend *frontend = env->frontend;
	struct conform_holder *holder = env->holders[0];
	int expected = frontend->outcomes.misaligned;
	void *buf = pages_new(2, NEW_STAMP);
	struct user user;

	mark_borders(&user, env);
	assert_true(expected < 0);
	for (size_t i = 0; i < BASE_ARRAY_SIZE(ranges); i++) {
		uint64_t offset_bytes = ranges[i].offset_bytes;
		uint32_t len_bytes = ranges[i].len_bytes;

		assert_int_equal(frontend->read(holder, buf, len_bytes, offset_bytes), expected);
		assert_int_equal(frontend->write(holder, buf, len_bytes, offset_bytes), expected);
		assert_int_equal(frontend->discard(holder, offset_bytes, len_bytes), expected);
		assert_int_equal(frontend->write_zeroes(holder, offset_bytes, len_bytes), expected);
		assert_int_equal(user_read(&user, 0, 2), 0);
	}
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
	free(buf);
}

static void empty_requests(struct env *env)
{
	const struct conform_frontend *frontend = env->frontend;
	int expected = frontend->outcomes.empty == CONFORM_WHOLE ? 0 : frontend->outcomes.empty;
	struct conform_holder *holder = env->holders[0];
	void *buf = pages_new(1, NEW_STAMP);
	struct user user;

	mark_borders(&user, env);
	assert_int_equal(frontend->read(holder, buf, 0, 0), expected);
	assert_int_equal(frontend->write(holder, buf, 0, 0), expected);
	assert_int_equal(frontend->discard(holder, 0, 0), -EINVAL);
	assert_int_equal(frontend->write_zeroes(holder, 0, 0), -EINVAL);
	assert_int_equal(user_read_all(&user), 0);
	user_done(&user);
	free(buf);
}

static void oversized_requests(struct env *env)
{
	const struct conform_frontend *frontend = env->frontend;
	size_t len_bytes = frontend->max_bytes + FSW_PAGE_SIZE;
	bool served = frontend->outcomes.oversized == CONFORM_WHOLE;
	int64_t expected = served ? (int64_t)len_bytes : frontend->outcomes.oversized;
	char *out = pages_new(len_bytes / FSW_PAGE_SIZE, NEW_STAMP), *in = pages_new(len_bytes / FSW_PAGE_SIZE, 0);
	struct user user;

	mark_borders(&user, env);
	assert_int_equal(frontend->write(env->holders[0], out, len_bytes, FSW_PAGE_SIZE), expected);
	if (!served)
		assert_int_equal(user_read_all(&user), 0);
	assert_int_equal(frontend->read(env->holders[0], in, len_bytes, FSW_PAGE_SIZE), expected);
	if (served)
		assert_memory_equal(in, out, len_bytes);
	assert_int_equal(user_read(&user, 0, 1), 0);
	user_done(&user);
	free(in);
	free(out);
}

static void check_read_behind(struct env *env, uint64_t offset_bytes, int expected)
{
	char *buf = pages_new(2, NEW_STAMP);
	uint64_t nr_left = offset_bytes < END_BYTES ? END_BYTES - offset_bytes : 0;
	int64_t nr = env->frontend->read(env->holders[0], buf, 2 * FSW_PAGE_SIZE, offset_bytes);

	assert_int_equal(nr, expected == CONFORM_SHORT ? (int64_t)nr_left : expected);
	if (nr > 0)
		assert_int_equal(page_stamp(buf), env->stamps[ENV_NR_PAGES - 1]);
	free(buf);
}

static void check_write_behind(struct env *env, uint64_t offset_bytes, int expected)
{
	char *buf = pages_new(2, NEW_STAMP);
	uint64_t nr_left = offset_bytes < END_BYTES ? END_BYTES - offset_bytes : 0;
	int64_t nr = env->frontend->write(env->holders[0], buf, 2 * FSW_PAGE_SIZE, offset_bytes);

	assert_int_equal(nr, expected == CONFORM_SHORT ? (int64_t)nr_left : expected);
	if (nr > 0)
		env->stamps[ENV_NR_PAGES - 1] = page_stamp(buf);
	free(buf);
}

static void requests_behind_the_end(struct env *env)
{
	const struct conform_outcomes *outcomes = &env->frontend->outcomes;
	const struct conform_frontend *frontend = env->frontend;
	struct conform_holder *holder = env->holders[0];
	struct user user;

	mark_borders(&user, env);
	check_read_behind(env, END_BYTES - FSW_PAGE_SIZE, outcomes->read_across);
	check_read_behind(env, END_BYTES, outcomes->read_beyond);
	check_read_behind(env, FAR_BYTES, outcomes->read_beyond);
	check_write_behind(env, END_BYTES - FSW_PAGE_SIZE, outcomes->write_across);
	check_write_behind(env, END_BYTES, outcomes->write_beyond);
	check_write_behind(env, FAR_BYTES, outcomes->write_beyond);
	assert_int_equal(frontend->discard(holder, END_BYTES - FSW_PAGE_SIZE, 2 * FSW_PAGE_SIZE),
			 outcomes->discard_across);
	assert_int_equal(frontend->discard(holder, END_BYTES, FSW_PAGE_SIZE), outcomes->discard_beyond);
	assert_int_equal(frontend->discard(holder, FAR_BYTES, FSW_PAGE_SIZE), outcomes->discard_beyond);
	assert_int_equal(frontend->write_zeroes(holder, END_BYTES - FSW_PAGE_SIZE, 2 * FSW_PAGE_SIZE),
			 outcomes->zero_across);
	assert_int_equal(frontend->write_zeroes(holder, END_BYTES, FSW_PAGE_SIZE), outcomes->zero_beyond);
	assert_int_equal(frontend->write_zeroes(holder, FAR_BYTES, FSW_PAGE_SIZE), outcomes->zero_beyond);
	assert_int_equal(user_read_all(&user), 0);
	assert_int_equal(user_write(&user, ENV_NR_PAGES - 1, 1), 0);
	assert_int_equal(user_read_all(&user), 0);
	env_check_size(env);
	user_done(&user);
}

const struct conform_case conform_refusal_cases[] = {
	CONFORM_CASE(misaligned_requests),
	CONFORM_CASE(empty_requests),
	CONFORM_CASE(oversized_requests),
	CONFORM_CASE(requests_behind_the_end),
};
const size_t conform_nr_refusal_cases = BASE_ARRAY_SIZE(conform_refusal_cases);

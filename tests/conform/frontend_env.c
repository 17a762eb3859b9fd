#include "tests/conform/frontend_env.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>

/* ---- pages ---- */

static uint64_t word_of(uint64_t stamp, size_t index)
{
	return index == 0 || stamp % PAGE_SAME_STAMP == 0 ? stamp : stamp * 0x9e3779b97f4a7c15u + index;
}

void page_fill(void *page, uint64_t stamp)
{
	uint64_t *words = page;

	for (size_t i = 0; i < FSW_PAGE_SIZE / sizeof(*words); i++)
		words[i] = word_of(stamp, i);
}

uint64_t page_stamp(const void *page)
{
	const uint64_t *words = page;

	for (size_t i = 1; i < FSW_PAGE_SIZE / sizeof(*words); i++)
		if (words[i] != word_of(words[0], i))
			return PAGE_TORN;
	return words[0];
}

static void pages_fill(void *pages, uint64_t nr_pages, uint64_t stamp)
{
	for (uint64_t i = 0; i < nr_pages; i++)
		page_fill((char *)pages + (i << FSW_PAGE_SHIFT), stamp + i);
}

/* With what is no page of the suite's, nor zeros: what is not read stays. */
static void pages_spoil(void *pages, uint64_t nr_pages)
{
	memset(pages, 0xee, nr_pages << FSW_PAGE_SHIFT);
}

void *pages_new(uint64_t nr_pages, uint64_t stamp)
{
	void *pages = aligned_alloc(FSW_PAGE_SIZE, nr_pages << FSW_PAGE_SHIFT);

	assert(pages);
	pages_fill(pages, nr_pages, stamp);
	return pages;
}

/* ---- users ---- */

void user_init(struct user *user, struct env *env, unsigned holder, uint64_t first, uint64_t nr_pages)
{
	*user = (struct user){
		.frontend = env->frontend,
		.holder = env->holders[holder % env->config->nr_holders],
		.first = first,
		.nr_pages = nr_pages,
		.stamps = env->stamps + first,
		.next_stamp = (first << 32) + 1,
		.rand.s = env_seed() + first,
		.buf = pages_new(env->frontend->max_bytes >> FSW_PAGE_SHIFT, 0),
	};
}

void user_init_whole(struct user *user, struct env *env)
{
	user_init(user, env, 0, 0, ENV_NR_PAGES);
}

void user_done(struct user *user)
{
	free(user->buf);
}

static int whole(int64_t nr_bytes, uint64_t nr_pages)
{
	if (nr_bytes < 0)
		return (int)nr_bytes;
	return (uint64_t)nr_bytes == nr_pages << FSW_PAGE_SHIFT ? 0 : -EIO;
}

int user_write(struct user *user, uint64_t page, uint64_t nr_pages)
{
	uint64_t stamp = user->next_stamp;
	int ret;

	pages_fill(user->buf, nr_pages, stamp);
	ret = whole(user->frontend->write(user->holder, user->buf, nr_pages << FSW_PAGE_SHIFT,
					  (user->first + page) << FSW_PAGE_SHIFT),
		    nr_pages);
	if (ret < 0)
		return ret;
	for (uint64_t i = 0; i < nr_pages; i++)
		user->stamps[page + i] = stamp + i;
	user->next_stamp += nr_pages;
	return 0;
}

int user_read(struct user *user, uint64_t page, uint64_t nr_pages)
{
	int ret;

	pages_spoil(user->buf, nr_pages);
	ret = whole(user->frontend->read(user->holder, user->buf, nr_pages << FSW_PAGE_SHIFT,
					 (user->first + page) << FSW_PAGE_SHIFT),
		    nr_pages);
	for (uint64_t i = 0; ret == 0 && i < nr_pages; i++)
		if (page_stamp(user->buf + (i << FSW_PAGE_SHIFT)) != user->stamps[page + i])
			ret = -EBADMSG;
	return ret;
}

int user_read_all(struct user *user)
{
	uint64_t max_pages = user->frontend->max_bytes >> FSW_PAGE_SHIFT;
	int ret = 0;

	for (uint64_t page = 0; ret == 0 && page < user->nr_pages; page += max_pages)
		ret = user_read(user, page, base_min_u64(max_pages, user->nr_pages - page));
	return ret;
}

int user_clear(struct user *user, enum io_op op, uint64_t page, uint64_t nr_pages)
{
	uint64_t offset_bytes = (user->first + page) << FSW_PAGE_SHIFT;
	int ret;

	if (op == IO_DISCARD)
		ret = user->frontend->discard(user->holder, offset_bytes, nr_pages << FSW_PAGE_SHIFT);
	else
		ret = user->frontend->write_zeroes(user->holder, offset_bytes, nr_pages << FSW_PAGE_SHIFT);
	if (ret == 0)
		memset(user->stamps + page, 0, nr_pages * sizeof(*user->stamps));
	return ret;
}

int user_step(struct user *user, uint64_t max_pages)
{
	uint64_t nr_pages = 1 + rand_below(&user->rand, max_pages);
	uint64_t page = rand_below(&user->rand, user->nr_pages - nr_pages + 1);

	switch (rand_below(&user->rand, 8)) {
	case 0:
		return user_clear(user, IO_DISCARD, page, nr_pages);
	case 1:
		return user_clear(user, IO_WRITE_ZEROES, page, nr_pages);
	case 2:
	case 3:
	case 4:
		return user_write(user, page, nr_pages);
	default:
		return user_read(user, page, nr_pages);
	}
}

/* ---- the device ---- */

uint64_t env_seed(void)
{
	const char *text = getenv("FARSWAP_TEST_SEED");

	return text ? strtoull(text, NULL, 0) : 20240607;
}

static void open_reactors(struct env *env)
{
	static const char *const names[] = { "queue-0", "queue-1", "mover" };

	for (unsigned i = 0; i <= env->config->nr_queues; i++) {
		bool mover = i == env->config->nr_queues;
		struct sys_reactor_options options = { .name = mover ? "mover" : names[i], .cpu = -1,
						       .spin_us = mover ? 0 : env->config->spin_us };

		assert_int_equal(sys_reactor_create(&options, &env->reactors[i]), 0);
		vswap_queue_bind(env->vswap, i, env->reactors[i]);
		assert_int_equal(sys_reactor_start(env->reactors[i]), 0);
	}
}

void env_open(struct env *env, unsigned nr_slabs, uint32_t slab_slots)
{
	struct vswap_options options = { .nr_pages = ENV_NR_PAGES, .nr_queues = env->config->nr_queues,
					 .max_slabs = GATE_MAX_SLABS, .seed = 1 };

	assert_int_equal(vswap_create(&options, &env->vswap), 0);
	open_reactors(env);
	env->gate = gate_backend_create(env->reactors, env->config->nr_queues + 1);
	assert_int_equal(vswap_backend_add(env->vswap, gate_backend_backend(env->gate)), 0);
	for (unsigned i = 0; i < nr_slabs; i++)
		env_add_slab(env, slab_slots);
	env->job_pages = pages_new(ENV_MAX_JOBS * ENV_JOB_PAGES, 0);
	env_up(env);
}

void env_close(struct env *env)
{
	uint64_t nr_wrong;

	gate_backend_open(env->gate);
	jobs_join(env);
	if (env->server)
		env_down(env);
	for (unsigned i = 0; i <= env->config->nr_queues; i++)
		sys_reactor_stop(env->reactors[i]);
	nr_wrong = vswap_check(env->vswap);
	vswap_free(env->vswap);
	gate_backend_free(env->gate);
	for (unsigned i = 0; i <= env->config->nr_queues; i++)
		sys_reactor_free(env->reactors[i]);
	free(env->job_pages);
	assert_int_equal(nr_wrong, 0);
}

void env_up(struct env *env)
{
	assert_int_equal(env->frontend->start(env->config, env->vswap, &env->server), 0);
	assert_true(env->frontend->is_up(env->server));
	for (unsigned i = 0; i < env->config->nr_holders; i++)
		assert_int_equal(env->frontend->open(env->server, &env->holders[i]), 0);
}

static void close_holders(struct env *env)
{
	for (unsigned i = 0; i < CONFORM_MAX_HOLDERS; i++) {
		if (env->holders[i])
			env->frontend->close(env->holders[i]);
		env->holders[i] = NULL;
	}
}

void env_down(struct env *env)
{
	close_holders(env);
	env->frontend->stop(env->server);
	env->server = NULL;
}

void env_add_slab(struct env *env, uint32_t nr_slots)
{
	assert_int_equal(vswap_slab_add(env->vswap, gate_backend_slab_new(env->gate, nr_slots)), 0);
}

void env_check_size(struct env *env)
{
	struct conform_holder *holder;

	assert_int_equal(env->frontend->open(env->server, &holder), 0);
	assert_int_equal(holder->size_bytes, (uint64_t)ENV_NR_PAGES << FSW_PAGE_SHIFT);
	assert_int_equal(holder->block_bytes, FSW_PAGE_SIZE);
	env->frontend->close(holder);
}

uint64_t env_nr_stored(struct env *env)
{
	struct vswap_stats stats;

	vswap_stats(env->vswap, &stats);
	return stats.nr_remote;
}

void env_wait_no_slots(struct env *env)
{
	struct vswap_space space;

	vswap_space(env->vswap, NULL, &space);
	while (space.nr_used_slots > 0) {
		sched_yield();
		vswap_space(env->vswap, NULL, &space);
	}
}

/* ---- jobs ---- */

static void *job_main(void *arg)
{
	struct job *job = arg;
	const struct conform_frontend *frontend = job->env->frontend;
	uint64_t offset_bytes = job->page << FSW_PAGE_SHIFT, len_bytes = job->nr_pages << FSW_PAGE_SHIFT;

	switch (job->op) {
	case IO_READ:
		job->result = frontend->read(job->holder, job->buf, len_bytes, offset_bytes);
		break;
	case IO_WRITE:
		job->result = frontend->write(job->holder, job->buf, len_bytes, offset_bytes);
		break;
	case IO_DISCARD:
		job->result = frontend->discard(job->holder, offset_bytes, len_bytes);
		break;
	default:
		job->result = frontend->write_zeroes(job->holder, offset_bytes, len_bytes);
		break;
	}
	return NULL;
}

struct job *job_start(struct env *env, enum io_op op, uint64_t page, uint64_t nr_pages, uint64_t stamp)
{
	struct job *job = &env->jobs[env->nr_jobs];
	int ret;

	assert(env->nr_jobs < ENV_MAX_JOBS && nr_pages <= ENV_JOB_PAGES && op != IO_FLUSH);
	*job = (struct job){
		.env = env,
		.holder = env->holders[env->nr_jobs % env->config->nr_holders],
		.op = op,
		.page = page,
		.nr_pages = nr_pages,
		.buf = env->job_pages + env->nr_jobs * ENV_JOB_PAGES * FSW_PAGE_SIZE,
	};
	if (op == IO_WRITE)
		pages_fill(job->buf, nr_pages, stamp);
	else
		pages_spoil(job->buf, nr_pages);
	ret = pthread_create(&job->thread, NULL, job_main, job);
	assert(ret == 0);
	env->nr_jobs++;
	return job;
}

void jobs_join(struct env *env)
{
	for (unsigned i = 0; i < env->nr_jobs; i++)
		pthread_join(env->jobs[i].thread, NULL);
	env->nr_jobs = 0;
}

uint64_t job_stamp(const struct job *job, uint64_t index)
{
	return page_stamp(job->buf + (index << FSW_PAGE_SHIFT));
}

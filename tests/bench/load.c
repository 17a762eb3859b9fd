#include "tests/bench/load.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rand.h"
#include "tests/bench/bench.h"

struct load_io {
	struct fsw_io io;
	struct load *load;
	struct sys_timer timer;
	uint64_t began_ns;
};

struct load {
	struct load_options options;
	struct vswap_queue *queue;
	struct load_io *io;
	char *buffers;
	struct rand_state rand;
	struct sys_message start;
	sem_t over;
	_Atomic bool stop;
	uint64_t start_ns, end_ns;
	uint64_t nr_started, nr_done, nr_errors;
	unsigned nr_busy;
	struct stats_histogram latency;
};

static uint64_t load_page(struct load *load)
{
	const struct load_options *options = &load->options;
	uint64_t nr = options->range_pages / options->nr_pages;
	uint64_t i = options->in_order ? load->nr_started % nr : rand_below(&load->rand, nr);

	return options->first_page + i * options->nr_pages;
}

static bool load_goes_on(struct load *load, uint64_t now_ns)
{
	if (atomic_load_explicit(&load->stop, memory_order_relaxed))
		return false;
	return load->options.for_ns ? now_ns - load->start_ns < load->options.for_ns
				    : load->nr_started < load->options.nr_requests;
}

static void load_submit(struct load_io *io, uint64_t now_ns)
{
	struct load *load = io->load;

	io->io.op = load->options.op;
	io->io.page = load_page(load);
	io->io.nr_pages = load->options.nr_pages;
	io->began_ns = now_ns;
	load->nr_started++;
	load->nr_busy++;
	vswap_submit(load->queue, &io->io);
}

static void load_done(struct fsw_io *fsw_io, int status)
{
	struct load_io *io = BASE_CONTAINER_OF(fsw_io, struct load_io, io);
	struct load *load = io->load;
	uint64_t now = bench_now_ns();

	stats_histogram_record(&load->latency, now - io->began_ns);
	load->nr_done++;
	load->nr_errors += status < 0;
	load->nr_busy--;
	if (load_goes_on(load, now)) {
		if (load->options.pause_ns)
			sys_timer_arm(vswap_queue_reactor(load->queue), &io->timer, now + load->options.pause_ns);
		else
			load_submit(io, now);
		load->nr_busy += load->options.pause_ns != 0;
		return;
	}
	if (load->nr_busy == 0) {
		load->end_ns = now;
		sem_post(&load->over);
	}
}

static void load_paused(struct sys_timer *timer)
{
	struct load_io *io = BASE_CONTAINER_OF(timer, struct load_io, timer);

	io->load->nr_busy--;
	load_submit(io, bench_now_ns());
}

static void load_begin(struct sys_message *message)
{
	struct load *load = BASE_CONTAINER_OF(message, struct load, start);
	unsigned i;

	load->start_ns = bench_now_ns();
	for (i = 0; i < load->options.depth; i++)
		load_submit(&load->io[i], bench_now_ns());
}

struct load *load_start(struct vswap_queue *queue, const struct load_options *options)
{
	struct load *load = calloc(1, sizeof(*load));
	size_t bytes = (size_t)options->nr_pages << FSW_PAGE_SHIFT;
	struct rand_state rand = { .s = 1 };
	size_t i;

	load->options = *options;
	load->queue = queue;
	load->rand.s = 42;
	load->io = calloc(options->depth, sizeof(*load->io));
	load->buffers = aligned_alloc(FSW_PAGE_SIZE, bytes * options->depth);
	for (i = 0; i < bytes * options->depth / 8; i++) /* nothing that a SAME page could hold */
		((uint64_t *)(void *)load->buffers)[i] = rand_next(&rand);
	for (i = 0; i < options->depth; i++) {
		load->io[i].load = load;
		load->io[i].timer.fire = load_paused;
		load->io[i].io.buf = load->buffers + i * bytes;
		load->io[i].io.done = load_done;
	}
	sem_init(&load->over, 0, 0);
	load->start.run = load_begin;
	sys_reactor_send(vswap_queue_reactor(queue), &load->start);
	return load;
}

void load_stop(struct load *load)
{
	atomic_store(&load->stop, true);
}

void load_wait(struct load *load, struct load_result *ret_result)
{
	while (sem_wait(&load->over) != 0)
		;
	memset(ret_result, 0, sizeof(*ret_result));
	ret_result->nr_ops = load->nr_done;
	ret_result->nr_errors = load->nr_errors;
	ret_result->elapsed_ns = load->end_ns - load->start_ns;
	stats_histogram_collect(&load->latency, &ret_result->latency);
	sem_destroy(&load->over);
	free(load->io);
	free(load->buffers);
	free(load);
}

void load_run(struct vswap_queue *queue, const struct load_options *options, struct load_result *ret_result)
{
	load_wait(load_start(queue, options), ret_result);
}

#include "tests/sim/model.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A value that a page may hold: what was written by the operation of that number; 0 is zeros from the beginning. */
struct value {
	uint64_t op;
	uint64_t began; /* step in which the write was submitted */
	uint64_t ended; /* step in which it was acknowledged, or failed; UINT64_MAX: not yet */
	bool acknowledged;
};

struct model_page {
	struct value value[MODEL_MAX_VALUES];
	unsigned nr;
};

/* ---- the values ---- */

/* Every eighth value is zeros, every eighth a repeated word, two of eight can be compressed, the others look random. */
static void value_fill(uint64_t op, uint64_t page, void *bytes)
{
	struct rand_state rand = { .s = op * 0x10001 + page };
	uint64_t *words = bytes;
	unsigned i;

	if (op % 8 == 0) {
		memset(bytes, 0, FSW_PAGE_SIZE);
		return;
	}
	for (i = 0; i < FSW_PAGE_SIZE / 8; i++)
		words[i] = op % 8 == 1 ? op : op % 8 < 4 && i % 2 ? 0 : rand_next(&rand);
}

static bool value_matches(uint64_t op, uint64_t page, const void *bytes)
{
	uint64_t expected[FSW_PAGE_SIZE / 8];

	value_fill(op, page, expected);
	return memcmp(expected, bytes, FSW_PAGE_SIZE) == 0;
}

static void model_begin(struct model_page *page, uint64_t op, uint64_t step)
{
	assert_true(page->nr < MODEL_MAX_VALUES);
	page->value[page->nr++] = (struct value){ .op = op, .began = step, .ended = UINT64_MAX };
}

/* Whatever ended before an acknowledged write began can no longer be read. */
static void model_prune(struct model_page *page)
{
	uint64_t newest = 0;
	unsigned i, nr = 0;

	for (i = 0; i < page->nr; i++)
		if (page->value[i].acknowledged)
			newest = base_max_u64(newest, page->value[i].began);
	for (i = 0; i < page->nr; i++)
		if (page->value[i].ended >= newest)
			page->value[nr++] = page->value[i];
	page->nr = nr;
}

static void model_end(struct model_page *page, uint64_t op, uint64_t step, bool acknowledged)
{
	unsigned i;

	for (i = 0; i < page->nr; i++)
		if (page->value[i].op == op) {
			page->value[i].ended = step;
			page->value[i].acknowledged = acknowledged;
		}
}

static void model_drop(struct model_page *page, uint64_t op)
{
	unsigned i;

	for (i = 0; i < page->nr && page->value[i].op != op; i++)
		;
	assert_true(i < page->nr);
	page->value[i] = page->value[--page->nr];
}

/* ---- requests ---- */

static void check_read(struct model *m, struct sim_io *sim)
{
	uint64_t i;

	for (i = 0; i < sim->io.nr_pages; i++) {
		uint64_t number = sim->io.page + i;
		struct model_page *page = &m->page[number];
		const char *bytes = (char *)sim->io.buf + i * FSW_PAGE_SIZE;
		unsigned v;

		for (v = 0; v < page->nr && !value_matches(page->value[v].op, number, bytes); v++)
			;
		if (v == page->nr)
			fail_msg("step %" PRIu64 ": page %" PRIu64 " holds none of the %u values that it may", m->step,
				 number, page->nr);
		m->nr_pages_checked++;
	}
}

static bool reads_overlap(struct model *m, uint64_t page)
{
	unsigned i;

	for (i = 0; i < MODEL_NR_IOS; i++) {
		struct fsw_io *io = &m->io[i].io;

		if (m->io[i].busy && io->op == IO_READ && page >= io->page && page < io->page + io->nr_pages)
			return true;
	}
	return false;
}

static void sim_done(struct fsw_io *io, int status)
{
	struct sim_io *sim = BASE_CONTAINER_OF(io, struct sim_io, io);
	struct model *m = sim->model;
	uint64_t i;

	assert_true(sim->busy);
	sim->busy = false;
	m->nr_done++;
	if (io->op == IO_READ) {
		if (status == 0) {
			check_read(m, sim);
		} else {
			assert_int_equal(status, -EIO);
			m->nr_read_errors++;
			if (!sim->lossy && !m->lossy)
				fail_msg("step %" PRIu64 ": read of page %" PRIu64 " failed though nothing was lost",
					 m->step, io->page);
		}
	} else if (io->op != IO_FLUSH) {
		if (status < 0) {
			m->nr_write_errors++;
			assert_true(status == -ENOSPC || status == -EIO);
		}
		for (i = 0; i < io->nr_pages; i++) {
			struct model_page *page = &m->page[io->page + i];

			/* A failed write of one page must never be seen; of several, some may have been done. */
			if (status < 0 && io->nr_pages == 1)
				model_drop(page, sim->op);
			else
				model_end(page, sim->op, m->step, status == 0);
		}
	}
}

static uint64_t sim_range(struct model *m, uint64_t max, uint64_t *ret_nr)
{
	uint64_t page;

	/* Mostly one page; often in the same few, so that operations meet. */
	*ret_nr = rand_below(m->rand, 4) ? 1 : 1 + rand_below(m->rand, max);
	page = rand_below(m->rand, rand_below(m->rand, 4) ? m->nr_pages : 64);
	if (page + *ret_nr > m->nr_pages)
		*ret_nr = m->nr_pages - page;
	return page;
}

/* True when the model has room for one more value of each page. */
static bool model_has_room(struct model *m, uint64_t page, uint64_t nr)
{
	for (; nr; nr--, page++) {
		if (!reads_overlap(m, page))
			model_prune(&m->page[page]);
		if (m->page[page].nr >= MODEL_MAX_VALUES)
			return false;
	}
	return true;
}

void model_submit(struct model *m)
{
	struct sim_io *sim = &m->io[rand_below(m->rand, MODEL_NR_IOS)];
	unsigned what = (unsigned)rand_below(m->rand, 100), queue = (unsigned)rand_below(m->rand, m->nr_queues);
	uint64_t i;

	if (sim->busy)
		return;
	sim->op = ++m->nr_ops;
	sim->io.op = what < 45   ? IO_READ
		     : what < 88 ? IO_WRITE
		     : what < 97 ? IO_DISCARD
		     : what < 99 ? IO_WRITE_ZEROES
				 : IO_FLUSH;
	sim->io.page = sim_range(m, sim->io.op >= IO_DISCARD && what == 96 ? m->nr_pages : 300, &sim->io.nr_pages);
	sim->io.done = sim_done;
	sim->model = m;
	sim->lossy = m->lossy;
	if (sim->io.op == IO_DISCARD || sim->io.op == IO_WRITE_ZEROES)
		sim->op = m->nr_ops = base_align_up(m->nr_ops, 8);
	if (sim->io.op != IO_READ && sim->io.op != IO_FLUSH) {
		if (!model_has_room(m, sim->io.page, sim->io.nr_pages))
			return;
		for (i = 0; i < sim->io.nr_pages; i++) {
			model_begin(&m->page[sim->io.page + i], sim->op, m->step);
			if (sim->io.op == IO_WRITE)
				value_fill(sim->op, sim->io.page + i, (char *)sim->io.buf + i * FSW_PAGE_SIZE);
		}
	}
	sim->busy = true;
	vswap_submit(vswap_queue(m->vswap, queue), &sim->io);
	assert_true(sim->busy); /* done never runs inside submit */
}

/* ---- the whole ---- */

bool model_is_busy(const struct model *m)
{
	unsigned i;

	for (i = 0; i < MODEL_NR_IOS; i++)
		if (m->io[i].busy)
			return true;
	return false;
}

void model_set_lossy(struct model *m)
{
	unsigned i;

	m->lossy = true;
	for (i = 0; i < MODEL_NR_IOS; i++)
		m->io[i].lossy = true;
}

void model_verify(struct model *m, void (*turn)(void *arg, unsigned queue), void *arg)
{
	struct sim_io *sim = &m->io[0];
	uint64_t page;

	for (page = 0; page < m->nr_pages; page++) {
		model_prune(&m->page[page]);
		sim->model = m;
		sim->lossy = m->lossy;
		sim->io.op = IO_READ;
		sim->io.page = page;
		sim->io.nr_pages = 1;
		sim->io.done = sim_done;
		sim->busy = true;
		vswap_submit(vswap_queue(m->vswap, (unsigned)(page % m->nr_queues)), &sim->io);
		while (sim->busy)
			turn(arg, (unsigned)(page % m->nr_queues));
	}
}

void model_init(struct model *m, struct rand_state *rand, struct vswap *vswap, uint64_t nr_pages, unsigned nr_queues)
{
	uint64_t i;

	memset(m, 0, sizeof(*m));
	m->rand = rand;
	m->vswap = vswap;
	m->nr_pages = nr_pages;
	m->nr_queues = nr_queues;
	m->page = calloc(nr_pages, sizeof(*m->page));
	m->buffers = aligned_alloc(FSW_PAGE_SIZE, (size_t)MODEL_NR_IOS * IO_MAX_PAGES * FSW_PAGE_SIZE);
	assert_true(m->page && m->buffers);
	for (i = 0; i < nr_pages; i++) /* zeros, acknowledged before everything */
		m->page[i].value[m->page[i].nr++] = (struct value){ .acknowledged = true };
	for (i = 0; i < MODEL_NR_IOS; i++)
		m->io[i].io.buf = m->buffers + i * IO_MAX_PAGES * FSW_PAGE_SIZE;
}

void model_done(struct model *m)
{
	free(m->page);
	free(m->buffers);
}

uint64_t model_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/*
 * The model of a device: for each page every value that a read may return, and random requests whose results are checked
 * against it. One thread; manual reactors.
 *
 * A read may return what was last acknowledged, or what is written meanwhile. A write of one page that failed must never be
 * seen; of one of several pages, some may have been done. A read may fail only while `lossy` is set, or was when it began.
 */
#ifndef FARSWAP_TESTS_SIM_MODEL_H
#define FARSWAP_TESTS_SIM_MODEL_H

#include "client/vswap/vswap.h"
#include "common/base/rand.h"

#define MODEL_NR_IOS 24u
#define MODEL_MAX_VALUES 24u

struct model;
struct model_page;

struct sim_io {
	struct fsw_io io;
	struct model *model;
	bool busy;
	uint64_t op;
	bool lossy; /* at some time since it began, bytes could be lost */
};

struct model {
	struct rand_state *rand;
	struct vswap *vswap;
	uint64_t nr_pages;
	unsigned nr_queues;
	struct sim_io io[MODEL_NR_IOS];
	char *buffers;
	struct model_page *page;
	uint64_t step; /* counted by the caller */
	uint64_t nr_ops, nr_done, nr_read_errors, nr_write_errors, nr_pages_checked;
	bool lossy;
};

void model_init(struct model *m, struct rand_state *rand, struct vswap *vswap, uint64_t nr_pages, unsigned nr_queues);
void model_done(struct model *m);

/* Submits one random request, if the request that the dice name is free. */
void model_submit(struct model *m);
bool model_is_busy(const struct model *m);
/* From now on reads may fail. */
void model_set_lossy(struct model *m);
/* Reads every page; `turn` makes the reactor of a queue go on. */
void model_verify(struct model *m, void (*turn)(void *arg, unsigned queue), void *arg);

/* A number from the environment. */
uint64_t model_environment(const char *name, uint64_t otherwise);

#endif

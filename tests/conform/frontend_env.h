/*
 * What the cases of the front end suite stand on: a front end over the virtual swap layer over memory behind a gate; users,
 * who know what their part of the device must hold; and jobs, which are requests in flight on threads of their own.
 */
#ifndef FARSWAP_TESTS_CONFORM_FRONTEND_ENV_H
#define FARSWAP_TESTS_CONFORM_FRONTEND_ENV_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/vswap/admin.h"
#include "common/base/rand.h"
#include "tests/conform/frontend.h"
#include "tests/lib/gate_backend.h"

#define ENV_CLUSTER_PAGES 512u
#define ENV_NR_PAGES (5u * ENV_CLUSTER_PAGES + 3) /* the last cluster is not whole */
/* Room enough for all that a case ever discards: when slots are free again is a matter of time. */
#define ENV_SLAB_SLOTS 2048u
#define ENV_NR_SLABS 8u
#define ENV_MAX_JOBS 24u
#define ENV_JOB_PAGES 64u

struct env;

/* How the pages of a buffer come to hold something that can be told: each is made of a stamp. 0: zeros. */
void page_fill(void *page, uint64_t stamp);
/* The stamp of a page; PAGE_TORN when not every byte of it is of that one. */
uint64_t page_stamp(const void *page);
#define PAGE_TORN UINT64_MAX
/* So many, of the stamps from `stamp` on. To be freed. */
void *pages_new(uint64_t nr_pages, uint64_t stamp);
/* A multiple of this makes a page of one repeated word, which takes no slot. */
#define PAGE_SAME_STAMP 8u

/*
 * Somebody who alone uses the pages [first, first + nr_pages) of the device, and knows what each must hold. One thread.
 * Every function returns 0, the holder's error, -EIO for a count that is not whole, or -EBADMSG for other bytes than it
 * should have read.
 */
struct user {
	const struct conform_frontend *frontend;
	struct conform_holder *holder;
	uint64_t first, nr_pages;
	uint64_t *stamps;    /* by page of the part; the caller's */
	uint64_t next_stamp; /* of the next page that is written */
	struct rand_state rand;
	char *buf; /* of frontend->max_bytes */
};

void user_init(struct user *user, struct env *env, unsigned holder, uint64_t first, uint64_t nr_pages);
/* Of the whole device, by its first holder. */
void user_init_whole(struct user *user, struct env *env);
void user_done(struct user *user);
int user_write(struct user *user, uint64_t page, uint64_t nr_pages) BASE_MUST_CHECK;
int user_read(struct user *user, uint64_t page, uint64_t nr_pages) BASE_MUST_CHECK;
int user_read_all(struct user *user) BASE_MUST_CHECK;
/* IO_DISCARD or IO_WRITE_ZEROES. */
int user_clear(struct user *user, enum io_op op, uint64_t page, uint64_t nr_pages) BASE_MUST_CHECK;
/* One of them, at random, of up to max_pages. */
int user_step(struct user *user, uint64_t max_pages) BASE_MUST_CHECK;

/* A request of one thread, and what became of it. */
struct job {
	pthread_t thread;
	struct env *env;
	struct conform_holder *holder;
	enum io_op op; /* not IO_FLUSH */
	uint64_t page, nr_pages; /* at most ENV_JOB_PAGES */
	char *buf;
	int64_t result; /* bytes (of DISCARD and WRITE_ZEROES: 0) or a negative errno */
};

struct env {
	const struct conform_frontend *frontend;
	const struct conform_config *config;
	struct sys_reactor *reactors[CONFORM_MAX_QUEUES + 1];
	struct vswap *vswap;
	struct gate_backend *gate;
	struct conform_server *server;	/* NULL while it is down */
	struct conform_holder *holders[CONFORM_MAX_HOLDERS];
	uint64_t stamps[ENV_NR_PAGES]; /* what each page holds, for users */
	struct job jobs[ENV_MAX_JOBS];
	unsigned nr_jobs; /* that run */
	char *job_pages;
};

uint64_t env_seed(void);

/* The device without front end, with nr_slabs slabs, and the front end with its holders. */
void env_open(struct env *env, unsigned nr_slabs, uint32_t slab_slots);
/* Also after a case that has failed somewhere. The books of the virtual swap layer must be right. */
void env_close(struct env *env);
void env_up(struct env *env);
void env_down(struct env *env);
void env_add_slab(struct env *env, uint32_t nr_slots);

/* Somebody who opens it now is told the size that it has. */
void env_check_size(struct env *env);

/* Pages that take a slot now. */
uint64_t env_nr_stored(struct env *env);
/* Blocks until every slot is free again. */
void env_wait_no_slots(struct env *env);

/* Starts a request; a WRITE's pages get the stamps from `stamp` on. Holders take turns. The job. */
struct job *job_start(struct env *env, enum io_op op, uint64_t page, uint64_t nr_pages, uint64_t stamp);
/* Waits for all. */
void jobs_join(struct env *env);
/* What a READ has brought, page by page. */
uint64_t job_stamp(const struct job *job, uint64_t index);

#endif

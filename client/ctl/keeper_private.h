/*
 * What the files of the keeper share.
 */
#ifndef FARSWAP_CLIENT_CTL_KEEPER_PRIVATE_H
#define FARSWAP_CLIENT_CTL_KEEPER_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>

#include "client/ctl/backoff.h"
#include "client/ctl/keeper.h"
#include "client/ctl/memserver.h"
#include "common/base/lock.h"

#define KEEPER_NAME_MAX 64
/*
 * The longest wait between attempts to connect again, before the jitter: faults wait 600 ms at most after the return of a link,
 * if attempts fail at once without it, as they do over RDMA; else until the one that is under way has ended (connect_timeout),
 * and so long. It costs a server that is there again two or three attempts a second of each client.
 */
#define KEEPER_RECONNECT_LAST_MS 400u

struct keeper_slab {
	struct backend_slab lent;
	bool on_record; /* with a state file; under lent.id */
	LIST_ENTRY(keeper_slab) link;
};

LIST_HEAD(keeper_slab_list, keeper_slab);

struct keeper {
	struct keeper_options options;
	char address[BACKEND_NAME_MAX];
	char client_name[KEEPER_NAME_MAX];
	struct rpc_client *client;
	pthread_t thread, watcher;
	bool started;

	/* The keeper's thread only. */
	struct backoff backoff;		  /* of sessions */
	struct backoff reconnect_backoff; /* of connecting again in one */
	struct backoff fetch_backoff; /* of a server that gives nothing */
	struct backoff release_backoff;
	struct keeper_slab_list held;	   /* vswap has them */
	struct keeper_slab_list returning; /* vswap has them no more, the server not yet again */
	struct keeper_slab_list spare;	   /* for slabs that are to come */
	unsigned nr_spare;
	struct state_session *record;	   /* of the session; NULL without a state file */
	uint32_t resumed;		   /* generation of the session that a dead daemon has left; 0: none */
	uint64_t request_number;	   /* of the last call for slabs in this session */
	bool unanswered;		   /* it failed: what it has lent, or will, is not known */
	uint64_t release_ns;		   /* when it may be tried again */
	uint64_t capacity_ns;		   /* when the server is asked again how much it has */
	char logged_error[KEEPER_ERROR_MAX];

	/* Written by the keeper's thread before a generation begins, read by the watcher's in that generation. */
	struct memserver_lease lease;

	struct lock_mutex lock;
	pthread_cond_t changed; /* of CLOCK_MONOTONIC */
	bool stopping LOCK_GUARDED_BY(lock);
	uint32_t generation LOCK_GUARDED_BY(lock);  /* of the session; 0: there is none */
	uint32_t last_generation LOCK_GUARDED_BY(lock);
	bool session_over LOCK_GUARDED_BY(lock);    /* the server says that the lease has ended */
	bool server_stopping LOCK_GUARDED_BY(lock); /* once it is down it is gone */
	struct rpc_stream *stream LOCK_GUARDED_BY(lock); /* the watcher's, while it reads */
	uint32_t nr_return LOCK_GUARDED_BY(lock);
	uint64_t barren_ns LOCK_GUARDED_BY(lock); /* until then it gives nothing */
	bool accepting LOCK_GUARDED_BY(lock);
	struct keeper_info info LOCK_GUARDED_BY(lock);
};

uint64_t keeper_now_ns(void);

/* Notes what went wrong, and logs it unless it is what went wrong the last time. */
void keeper_error(struct keeper *keeper, const char *fmt, ...) BASE_PRINTF(2, 3);

/* Sleeps, unless something else is to be done. `generation`: wakes as well when that session is over. */
void keeper_sleep(struct keeper *keeper, uint32_t generation, unsigned ms);

/* The session `generation`, if it is still the one, is to be given up. */
void keeper_session_is_over(struct keeper *keeper, uint32_t generation, const char *why);

bool keeper_stopping(struct keeper *keeper);

/* ---- keeper_session.c: the keeper's thread ---- */

/* Before the thread: 0, and the session that is on record goes on, its slabs with it; or as keeper_resume. */
int keeper_session_resume(struct keeper *keeper) BASE_MUST_CHECK;
/* 0 and a session, or a negative errno and nothing. */
int keeper_session_open(struct keeper *keeper, uint32_t *ret_generation) BASE_MUST_CHECK;
/* Until it is over, or the keeper stops. */
void keeper_session_serve(struct keeper *keeper, uint32_t generation);
/* Gives up what it held, unless the keeper stops. */
void keeper_session_close(struct keeper *keeper);

/* ---- keeper_slabs.c: the keeper's thread, in a session ---- */

/* Before the thread: the slabs on record, of the session that goes on. 0, -ENOMEM, -EUCLEAN. */
int keeper_slabs_resume(struct keeper *keeper) BASE_MUST_CHECK;
/* Fetches what was asked for. */
void keeper_slabs_fetch(struct keeper *keeper);
/* Takes back what is to be given back, and gives the server what was taken back. */
void keeper_slabs_return(struct keeper *keeper);
/* The session has ended: what the slabs held is lost, and they are freed. False when the keeper stops first. */
bool keeper_slabs_give_up(struct keeper *keeper);
/* vswap is gone. */
void keeper_slabs_free(struct keeper *keeper);

/* ---- keeper_watch.c ---- */

void *keeper_watch_run(void *arg);

#endif

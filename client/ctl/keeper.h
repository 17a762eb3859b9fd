/*
 * The keeper of one memory server: a thread that holds a session with it (lease, data connections), fetches slabs for the
 * virtual swap layer and gives empty ones back, connects again what breaks, and gives the session up when its memory is gone.
 * A second thread watches for what the server has to tell.
 *
 * It decides nothing about how many slabs are wanted: provision.h does. What it does by itself is to give back every empty
 * slab of a server that is being drained.
 *
 * A session is given up, and all that its slabs held with it, when the server says that the lease is unknown or revoked,
 * when another instance of the server answers, or when it has been out of reach for so long that the lease has ended.
 */
#ifndef FARSWAP_CLIENT_CTL_KEEPER_H
#define FARSWAP_CLIENT_CTL_KEEPER_H

#include "client/ctl/drains.h"
#include "client/ctl/memserver.h"
#include "client/vswap/admin.h"
#include "common/base/base.h"
#include "common/rpc/status.h"
#include "common/transport/transport.h"

struct keeper;

struct keeper_options {
	struct vswap *vswap;	  /* these three outlive the keeper's threads */
	struct backend *backend;  /* remote_create made it; vswap has it already */
	struct drains *drains;
	const char *address;	  /* of the control plane, "host:port"; copied */
	const char *client_name;  /* for people; copied */
	uint64_t client_id;
	unsigned connect_timeout_ms; /* of a data connection */
	struct transport_driver *rdma; /* for the RDMA addresses of the server, tried first; NULL: they are passed over */
	bool rdma_only;		       /* its other data addresses are passed over */
	unsigned max_heartbeat_ms; /* the server's wish counts up to here, so that dead connections are found in time */
	uint64_t lost_after_ms;	  /* out of reach for so long: its memory is given up; 0: its lease's term and a margin */
	uint64_t seed;		  /* of the jitter */
	struct state *state;	  /* where its session is put on record; outlives it. NULL: nowhere */
	/* Something has changed that provision should look at. Any thread; must not block. */
	void (*changed)(void *user);
	void *user;
};

/* Control thread. 0; -EINVAL (not an address, with a message in *ret_status); -ENOMEM; -EAGAIN. */
int keeper_create(const struct keeper_options *options, struct keeper **ret_keeper, struct rpc_status *ret_status)
	BASE_MUST_CHECK;
/*
 * Control thread, before keeper_start and before the reactors turn. Goes on with the session that a dead daemon has left on
 * record, if there is one: gives vswap its slabs again. 0; -ENOMEM; -EUCLEAN: the record is damaged; -ENODEV:
 * its transport is not to be had.
 */
int keeper_resume(struct keeper *keeper) BASE_MUST_CHECK;
/* Control thread. 0 or a negative errno of pthread_create; nothing runs then. */
int keeper_start(struct keeper *keeper) BASE_MUST_CHECK;

/* Tells the threads to end; returns at once, so that many keepers can end at the same time. Any number of times. */
void keeper_stop_begin(struct keeper *keeper);
/*
 * Ends the session, closes the lease if the server can be reached, and joins the threads. No request of a front end may be
 * under way; the reactors still run. vswap keeps the slabs, which may not be used any more. Safe if never started.
 */
void keeper_stop(struct keeper *keeper);
/* After keeper_stop and vswap_free, before remote_free: frees the slabs as well. Accepts NULL. */
void keeper_free(struct keeper *keeper);

struct backend *keeper_backend(const struct keeper *keeper);

/* Any thread. Asks for slabs more, on top of what was asked for before. Forgotten when the session ends. */
void keeper_fetch(struct keeper *keeper, unsigned nr_slabs);
/* Any thread. So many empty slabs are too many; replaces what was said before. */
void keeper_give_back(struct keeper *keeper, unsigned nr_slabs);

#define KEEPER_ERROR_MAX RPC_STATUS_MESSAGE_MAX

struct keeper_info {
	bool has_session;
	bool can_give;		/* up, lending, and not just found to be full */
	uint64_t instance_id;	/* 0 before the first session; as all below, of the last time it was heard of */
	uint64_t arena_bytes;
	uint64_t slab_bytes;
	uint32_t slabs_free;	/* that the server can lend, to anybody */
	struct memserver_data_port data_port;
	uint32_t nr_held;	/* slabs that we have of it, until it has them back */
	uint32_t nr_asked;	/* that are to be fetched */
	uint32_t nr_given;	/* that this session got so far */
	char last_error[KEEPER_ERROR_MAX]; /* empty: nothing went wrong yet */
};
/* Any thread. */
void keeper_info(struct keeper *keeper, struct keeper_info *ret_info);

#endif

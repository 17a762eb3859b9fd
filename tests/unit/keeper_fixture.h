/*
 * What surrounds a keeper in its test: a memory server that speaks gRPC and lends nothing real, a backend that only keeps
 * its state, and a virtual swap layer that only counts slabs. They stand in for the real ones when the program is linked.
 */
#ifndef FARSWAP_TESTS_UNIT_KEEPER_FIXTURE_H
#define FARSWAP_TESTS_UNIT_KEEPER_FIXTURE_H

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/backend/remote/remote.h"
#include "client/ctl/keeper.h"
#include "common/rpc/rpc.h"
#include "common/sys/rcu.h"
#include "proto/memory.pb-c.h"

#define MAX_SLABS 64u
#define SLAB_BYTES (1ull << 20)

/* All that the fakes know, under one lock; `changed` tells of each change. */
static struct world {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t nr_changes;
	/* The server. */
	uint64_t instance_id;
	uint64_t slab_bytes;
	unsigned nr_leases, nr_closed, nr_released, nr_capacity;
	uint32_t next_slab;
	bool full, revoked, wants_drain;
	bool offers_rdma;
	bool silent_port; /* of a version that does not tell who has come in */
	uint64_t lease_id; /* of the lease that stands */
	uint64_t request_number; /* the last one that it was lent something under, or that was closed */
	uint32_t request_slabs;	 /* so many were lent under it, the last ones before next_slab */
	unsigned nr_refused, nr_closes, nr_stale;
	unsigned lose_answers;	 /* of so many calls for slabs the connection breaks after the server has done the work */
	unsigned lose_requests;	 /* before */
	bool gives_zero_keys;
	struct rpc_server *server;
	/* The backend. */
	unsigned nr_begun, nr_ended, nr_reconnects;
	int connect_result;
	int rdma_result;
	unsigned nr_rdma_tried;
	bool by_rdma;
	char data_address[SYS_ADDRESS_MAX];
	bool down, woken;
	uint64_t down_since_ns;
	unsigned heartbeat_ms;
	/* The virtual swap layer. */
	struct backend_slab *slabs[MAX_SLABS];
	unsigned nr_slabs, nr_lost;
	int add_result;
	bool draining;
	enum vswap_drain_state drain_state;
} world;

static struct backend backend;
static struct drains *drains;
static struct keeper *keeper;

static void enter(void)
{
	pthread_mutex_lock(&world.lock);
}

static void leave(void)
{
	world.nr_changes++;
	pthread_cond_broadcast(&world.changed);
	pthread_mutex_unlock(&world.lock);
}

/* Waits for something that the keeper does; the runner's time limit is the only one. */
#define await(condition) \
	do { \
		enter(); \
		while (!(condition)) \
			pthread_cond_wait(&world.changed, &world.lock); \
		leave(); \
	} while (0)

/* ---- the virtual swap layer ---- */

int vswap_slab_add(struct vswap *vswap, struct backend_slab *slab)
{
	int ret;

	(void)vswap;
	enter();
	ret = world.nr_slabs == MAX_SLABS ? -ENOSPC : world.add_result;
	if (ret == 0)
		world.slabs[world.nr_slabs++] = slab;
	leave();
	return ret;
}

int vswap_slab_add_again(struct vswap *vswap, struct backend_slab *slab)
{
	return vswap_slab_add(vswap, slab);
}

unsigned vswap_slab_reclaim(struct vswap *vswap, struct backend *of, uint64_t keep_free_slots, unsigned max,
			    struct backend_slab **ret_slabs)
{
	unsigned nr = 0;

	(void)vswap;
	(void)of;
	(void)keep_free_slots;
	enter();
	while (nr < max && world.nr_slabs > 0)
		ret_slabs[nr++] = world.slabs[--world.nr_slabs];
	leave();
	return nr;
}

int vswap_backend_lost(struct vswap *vswap, struct backend *of, uint64_t *ret_poisoned)
{
	(void)vswap;
	(void)of;
	enter();
	world.nr_lost++;
	*ret_poisoned += 1;
	leave();
	return 0;
}

bool vswap_backend_draining(const struct backend *of)
{
	bool draining;

	(void)of;
	enter();
	draining = world.draining;
	leave();
	return draining;
}

int vswap_drain(struct vswap *vswap, struct backend *of, const struct vswap_drain_options *options)
{
	(void)vswap;
	(void)of;
	(void)options;
	enter();
	world.draining = true;
	world.drain_state = VSWAP_DRAIN_DRAINED;
	leave();
	return 0;
}

void vswap_hold_back(struct vswap *vswap, struct backend *of)
{
	(void)vswap;
	(void)of;
	enter();
	world.draining = true;
	leave();
}

int vswap_drain_cancel(struct vswap *vswap, struct backend *of)
{
	(void)vswap;
	(void)of;
	return -ENOENT;
}

int vswap_undrain(struct vswap *vswap, struct backend *of)
{
	(void)vswap;
	(void)of;
	enter();
	world.draining = false;
	world.drain_state = VSWAP_DRAIN_NONE;
	leave();
	return 0;
}

void vswap_drain_progress(struct vswap *vswap, struct backend *of, struct vswap_drain_progress *ret_progress)
{
	(void)vswap;
	(void)of;
	memset(ret_progress, 0, sizeof(*ret_progress));
	enter();
	ret_progress->state = world.drain_state;
	leave();
}

/* ---- the backend ---- */

int remote_session_begin(struct backend *of, const struct remote_session *session, unsigned timeout_ms)
{
	int ret;

	(void)timeout_ms;
	enter();
	ret = session->driver ? world.rdma_result : world.connect_result;
	world.nr_rdma_tried += session->driver != NULL;
	world.by_rdma = session->driver != NULL;
	snprintf(world.data_address, sizeof(world.data_address), "%s", session->data_address);
	world.nr_begun += ret == 0;
	world.heartbeat_ms = session->heartbeat_ms;
	world.down = ret < 0;
	world.down_since_ns = 0;
	if (ret == 0)
		atomic_store(&of->state, BACKEND_UP);
	leave();
	return ret;
}

void remote_session_resume(struct backend *of, const struct remote_session *session)
{
	enter();
	world.by_rdma = session->driver != NULL;
	snprintf(world.data_address, sizeof(world.data_address), "%s", session->data_address);
	world.heartbeat_ms = session->heartbeat_ms;
	world.down = true;
	world.down_since_ns = sys_clock_now_ns(sys_clock_monotonic());
	atomic_store(&of->state, BACKEND_DOWN);
	leave();
}

uint32_t remote_session_number(const struct backend *of)
{
	(void)of;
	return 1;
}

int remote_session_reconnect(struct backend *of, unsigned timeout_ms)
{
	int ret;

	(void)timeout_ms;
	enter();
	world.nr_reconnects++;
	ret = world.connect_result;
	if (ret == 0) {
		world.down = false;
		world.down_since_ns = 0;
		atomic_store(&of->state, BACKEND_UP);
	}
	leave();
	return ret;
}

void remote_session_end(struct backend *of)
{
	enter();
	world.nr_ended++;
	atomic_store(&of->state, BACKEND_LOST);
	leave();
}

bool remote_wait(struct backend *of, unsigned timeout_ms)
{
	struct timespec at;
	bool down;

	(void)of;
	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_nsec += (long)timeout_ms * 1000000;
	at.tv_sec += at.tv_nsec / 1000000000;
	at.tv_nsec %= 1000000000;
	pthread_mutex_lock(&world.lock);
	while (!world.down && !world.woken)
		if (pthread_cond_timedwait(&world.changed, &world.lock, &at) == ETIMEDOUT)
			break;
	world.woken = false;
	down = world.down;
	pthread_mutex_unlock(&world.lock);
	return down;
}

void remote_wake(struct backend *of)
{
	(void)of;
	enter();
	world.woken = true;
	leave();
}

void remote_info(struct backend *of, struct remote_info *ret_info)
{
	(void)of;
	memset(ret_info, 0, sizeof(*ret_info));
	enter();
	ret_info->down_since_ns = world.down_since_ns;
	leave();
}

static void connection_breaks(int connect_result, uint64_t since_ns)
{
	enter();
	world.connect_result = connect_result;
	world.down = true;
	world.down_since_ns = since_ns;
	atomic_store(&backend.state, BACKEND_DOWN);
	leave();
}

/* ---- the server ---- */

/* Numbers that are all different, so that none can stand for another. */
static void tell_data_port(struct rpc_call *call, Farswap__Memory__V1__Capacity *reply)
{
	Farswap__Memory__V1__DataPort *port = rpc_call_alloc(call, sizeof(*port));

	farswap__memory__v1__data_port__init(port);
	port->accepted = 11;
	port->connections = 12;
	port->admitted = 13;
	port->refused = 14;
	port->protocol_errors = 15;
	port->truncated = 16;
	port->timeouts = 17;
	port->denied_access = 18;
	port->denied_range = 19;
	reply->data_port = port;
}

static enum rpc_code on_capacity(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *message)
{
	Farswap__Memory__V1__Capacity *reply = (Farswap__Memory__V1__Capacity *)message;

	(void)request;
	enter();
	world.nr_capacity++;
	reply->instance_id = world.instance_id;
	reply->arena_bytes = 1ull << 30;
	reply->slab_bytes = world.slab_bytes;
	reply->slabs_free = 100;
	reply->accepting = !world.wants_drain;
	if (!world.silent_port)
		tell_data_port(call, reply);
	leave();
	return RPC_OK;
}

static enum rpc_code on_open(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *message)
{
	Farswap__Memory__V1__Lease *reply = (Farswap__Memory__V1__Lease *)message;

	(void)request;
	enter();
	world.nr_leases++;
	world.lease_id = 1000 + world.nr_leases;
	world.revoked = false;
	world.request_number = 0;
	world.request_slabs = 0;
	reply->lease_id = world.lease_id;
	reply->instance_id = world.instance_id;
	reply->slab_bytes = world.slab_bytes;
	leave();
	reply->token.len = TRANSPORT_TOKEN_BYTES;
	reply->token.data = rpc_call_alloc(call, TRANSPORT_TOKEN_BYTES);
	reply->term_ms = 3600000;
	reply->heartbeat_ms = 100;
	reply->n_data_addresses = 1;
	reply->data_addresses = rpc_call_alloc(call, sizeof(char *));
	reply->data_addresses[0] = rpc_call_printf(call, "127.0.0.1:1");
	reply->n_rdma_addresses = world.offers_rdma;
	reply->rdma_addresses = rpc_call_alloc(call, sizeof(char *));
	reply->rdma_addresses[0] = rpc_call_printf(call, "0.0.0.0:2");
	return RPC_OK;
}

/* What a call for slabs does to the server, by the contract of proto/memory.proto. */
static enum rpc_code lend_locked(const Farswap__Memory__V1__LeaseSlabsRequest *request)
{
	if (request->lease_id != world.lease_id)
		return RPC_NOT_FOUND;
	if (request->request_number < world.request_number) {
		world.nr_stale++;
		return RPC_ABORTED;
	}
	world.nr_closes += request->count == 0;
	if (request->request_number == world.request_number)
		return RPC_OK;
	if (request->count > 0 && world.full) {
		world.nr_refused++;
		return RPC_RESOURCE_EXHAUSTED;
	}
	world.request_number = request->request_number;
	world.request_slabs = request->count;
	world.next_slab += request->count;
	return RPC_OK;
}

static bool is_lost(unsigned *nr)
{
	bool lost = *nr > 0;

	*nr -= lost;
	return lost;
}

static enum rpc_code on_lease(struct rpc_call *call, const ProtobufCMessage *message, ProtobufCMessage *reply_message)
{
	const Farswap__Memory__V1__LeaseSlabsRequest *request =
		(const Farswap__Memory__V1__LeaseSlabsRequest *)message;
	Farswap__Memory__V1__LeaseSlabsResponse *reply = (Farswap__Memory__V1__LeaseSlabsResponse *)reply_message;
	Farswap__Memory__V1__SlabGrant *grants = rpc_call_alloc(call, MAX_SLABS * sizeof(*grants));
	enum rpc_code code = RPC_UNAVAILABLE;

	reply->slabs = rpc_call_alloc(call, MAX_SLABS * sizeof(Farswap__Memory__V1__SlabGrant *));
	enter();
	if (!is_lost(&world.lose_requests))
		code = lend_locked(request);
	if (code == RPC_OK && is_lost(&world.lose_answers))
		code = RPC_UNAVAILABLE;
	reply->n_slabs = world.request_slabs;
	for (uint32_t i = 0; i < world.request_slabs; i++) {
		farswap__memory__v1__slab_grant__init(&grants[i]);
		grants[i].index = world.next_slab - world.request_slabs + i;
		grants[i].key = world.gives_zero_keys ? 0 : grants[i].index + 1;
		reply->slabs[i] = &grants[i];
	}
	leave();
	return code == RPC_OK ? RPC_OK : rpc_call_fail(call, code, "no slab for you");
}

static enum rpc_code on_release(struct rpc_call *call, const ProtobufCMessage *message, ProtobufCMessage *reply)
{
	const Farswap__Memory__V1__ReleaseSlabsRequest *request =
		(const Farswap__Memory__V1__ReleaseSlabsRequest *)message;

	(void)call;
	enter();
	world.nr_released += (unsigned)request->n_slabs;
	leave();
	((Farswap__Memory__V1__ReleaseSlabsResponse *)reply)->released = (uint32_t)request->n_slabs;
	return RPC_OK;
}

static enum rpc_code on_close(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *reply)
{
	(void)call;
	(void)request;
	(void)reply;
	enter();
	world.nr_closed++;
	leave();
	return RPC_OK;
}

/* Welcome, then what the world wants, each once. */
static enum rpc_code on_watch(struct rpc_call *call, const ProtobufCMessage *request)
{
	Farswap__Memory__V1__WatchEvent event = FARSWAP__MEMORY__V1__WATCH_EVENT__INIT;
	Farswap__Memory__V1__Welcome welcome = FARSWAP__MEMORY__V1__WELCOME__INIT;
	Farswap__Memory__V1__DrainRequested requested = FARSWAP__MEMORY__V1__DRAIN_REQUESTED__INIT;
	Farswap__Memory__V1__DrainCancelled cancelled = FARSWAP__MEMORY__V1__DRAIN_CANCELLED__INIT;
	Farswap__Memory__V1__LeaseRevoked revoked = FARSWAP__MEMORY__V1__LEASE_REVOKED__INIT;
	bool drain_told = false;
	int ret;

	(void)request;
	welcome.accepting = true;
	event.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_WELCOME;
	event.welcome = &welcome;
	ret = rpc_call_send(call, &event.base);
	while (ret >= 0) {
		bool wants, revoke;

		enter();
		wants = world.wants_drain;
		revoke = world.revoked;
		leave();
		if (revoke) {
			event.event_case = FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_LEASE_REVOKED;
			event.lease_revoked = &revoked;
			revoked.reason = (char *)(uintptr_t) "somebody wants it";
			return rpc_call_send(call, &event.base) < 0 ? RPC_CANCELLED : RPC_OK;
		}
		if (wants != drain_told) {
			drain_told = wants;
			event.event_case = wants ? FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_REQUESTED
						 : FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_CANCELLED;
			if (wants)
				event.drain_requested = &requested;
			else
				event.drain_cancelled = &cancelled;
			ret = rpc_call_send(call, &event.base);
		}
		if (ret >= 0)
			ret = rpc_call_wait(call, -1);
	}
	return RPC_CANCELLED;
}

#define METHOD(name, request_type, reply_type) \
	.path = "/farswap.memory.v1.MemoryServer/" name, \
	.request = &farswap__memory__v1__##request_type##__descriptor, \
	.reply = &farswap__memory__v1__##reply_type##__descriptor

static const struct rpc_method methods[] = {
	{ METHOD("GetCapacity", get_capacity_request, capacity), .unary = on_capacity },
	{ METHOD("OpenLease", open_lease_request, lease), .unary = on_open },
	{ METHOD("LeaseSlabs", lease_slabs_request, lease_slabs_response), .unary = on_lease },
	{ METHOD("ReleaseSlabs", release_slabs_request, release_slabs_response), .unary = on_release },
	{ METHOD("CloseLease", close_lease_request, close_lease_response), .unary = on_close },
	{ METHOD("Watch", watch_request, watch_event), .stream = on_watch },
};

#endif

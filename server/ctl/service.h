/*
 * The lender as a service: farswap.memory.v1.MemoryServer of proto/memory.proto, which holds the contract of each
 * method.
 *
 * Translates between messages and the lender's calls, and says what went wrong in words that name the thing. All of it
 * runs on the threads of common/rpc, which share nothing with the reactors.
 */
#ifndef FARSWAP_SERVER_CTL_SERVICE_H
#define FARSWAP_SERVER_CTL_SERVICE_H

#include "common/rpc/server.h"
#include "server/ctl/lender.h"

struct service;

/* As DataPort of the protocol. */
struct service_data_port {
	uint64_t accepted;
	uint64_t admitted;
	uint64_t refused;
	uint64_t protocol_errors;
	uint64_t truncated;
	uint64_t timeouts;
	uint64_t denied_access;
	uint64_t denied_range;
	uint32_t connections;
};

struct service_options {
	struct lender *lender; /* outlives the service; its lender_on_change is the service's */
	/* Required. What has come in by the data port, of which the service knows nothing. Any thread; never waits. */
	void (*data_port)(void *user, struct service_data_port *ret_port);
	void *user;
	const char *server_name; /* the strings are copied */
	const char *data_address; /* what clients are told; see proto/memory.proto */
	const char *rdma_address; /* the same; NULL: there is none */
	uint64_t instance_id;
	uint64_t arena_bytes;
	uint64_t slab_bytes;
	uint32_t term_ms;
	uint32_t heartbeat_ms;
	uint32_t max_leases;
};

/* 0, -EINVAL, -ENOMEM. */
int service_create(const struct service_options *options, struct service **ret_service) BASE_MUST_CHECK;
/* Cuts every call that still runs. Accepts NULL. */
void service_free(struct service *service);

/* See rpc_server_listen. */
int service_listen(struct service *service, const char *address, int *ret_port, struct rpc_status *ret_status)
	BASE_MUST_CHECK;
/* From now on calls are answered. 0, -ENOMEM, -EAGAIN (no more threads). */
int service_start(struct service *service) BASE_MUST_CHECK;
/* What grpc.health.v1 answers: whether slabs are lent. */
void service_set_serving(struct service *service, bool serving);
/* Takes no new calls, tells every watch that the server stops, and waits at most grace_ms for calls that run. */
void service_stop(struct service *service, unsigned grace_ms);

#endif

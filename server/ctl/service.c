#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/memory.pb-c.h"
#include "server/ctl/service_private.h"

#define SERVICE_MAX_UNARY 8
/* Streams beside one full set of the leases' watches: those of health probes. */
#define SERVICE_SPARE_STREAMS 8

enum rpc_code service_fail(struct rpc_call *call, int err, uint64_t lease_id)
{
	const struct service *service = rpc_call_user(call);
	const char *name = service->server_name;

	switch (err) {
	case -ENOENT:
		return rpc_call_fail(call, RPC_NOT_FOUND, "lease %016" PRIx64 " is unknown to %s or has ended",
				     lease_id, name);
	case -EACCES:
		return rpc_call_fail(call, RPC_PERMISSION_DENIED, "wrong token for lease %016" PRIx64, lease_id);
	case -EBUSY:
		return rpc_call_fail(call, RPC_FAILED_PRECONDITION, "%s is draining and lends nothing", name);
	case -EDQUOT:
		return rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "lease %016" PRIx64 " holds as many slabs as it may",
				     lease_id);
	case -ENOSPC:
		return rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "%s has no free slab", name);
	case -ESHUTDOWN:
		return rpc_call_fail(call, RPC_UNAVAILABLE, "%s is stopping", name);
	case -ESTALE:
		return rpc_call_fail(call, RPC_ABORTED, "lease %016" PRIx64 ": request_number: that request is over",
				     lease_id);
	case -ENOMEM:
		return rpc_call_fail_memory(call);
	default:
		return rpc_call_fail_errno(call, err, "%s, lease %016" PRIx64, name, lease_id);
	}
}

struct lender_proof service_proof(uint64_t lease_id, ProtobufCBinaryData token)
{
	return (struct lender_proof){ .lease_id = lease_id, .token = token.data, .token_bytes = token.len };
}

static void service_fill_data_port(const struct service *service, Farswap__Memory__V1__DataPort *ret_port)
{
	struct service_data_port port;

	service->options.data_port(service->options.user, &port);
	farswap__memory__v1__data_port__init(ret_port);
	ret_port->accepted = port.accepted;
	ret_port->connections = port.connections;
	ret_port->admitted = port.admitted;
	ret_port->refused = port.refused;
	ret_port->protocol_errors = port.protocol_errors;
	ret_port->truncated = port.truncated;
	ret_port->timeouts = port.timeouts;
	ret_port->denied_access = port.denied_access;
	ret_port->denied_range = port.denied_range;
}

static enum rpc_code service_get_capacity(struct rpc_call *call, const ProtobufCMessage *request,
					  ProtobufCMessage *message)
{
	struct service *service = rpc_call_user(call);
	Farswap__Memory__V1__Capacity *reply = (Farswap__Memory__V1__Capacity *)message;
	struct lender_capacity capacity;

	(void)request;
	reply->data_port = rpc_call_alloc(call, sizeof(*reply->data_port));
	if (!reply->data_port)
		return rpc_call_fail_memory(call);
	service_fill_data_port(service, reply->data_port);
	lender_capacity(service->options.lender, &capacity);
	reply->server_name = service->server_name;
	reply->instance_id = service->options.instance_id;
	reply->version = (char *)(uintptr_t)FARSWAP_VERSION;
	reply->arena_bytes = service->options.arena_bytes;
	reply->slab_bytes = service->options.slab_bytes;
	reply->slabs_free = capacity.slabs.nr[ARENA_SLAB_FREE];
	reply->slabs_leased = capacity.slabs.nr[ARENA_SLAB_LEASED];
	reply->slabs_scrubbing = capacity.slabs.nr[ARENA_SLAB_FENCED] + capacity.slabs.nr[ARENA_SLAB_SCRUBBING];
	reply->slabs_total = reply->slabs_free + reply->slabs_leased + reply->slabs_scrubbing;
	reply->leases = capacity.nr_leases;
	reply->accepting = capacity.accepting;
	reply->n_data_addresses = 1;
	reply->data_addresses = service->data_addresses;
	reply->n_rdma_addresses = service->nr_rdma_addresses;
	reply->rdma_addresses = service->rdma_addresses;
	return RPC_OK;
}

static enum rpc_code service_open_lease(struct rpc_call *call, const ProtobufCMessage *message,
					ProtobufCMessage *reply_message)
{
	struct service *service = rpc_call_user(call);
	const struct service_options *options = &service->options;
	const Farswap__Memory__V1__OpenLeaseRequest *request =
		(const Farswap__Memory__V1__OpenLeaseRequest *)message;
	Farswap__Memory__V1__Lease *reply = (Farswap__Memory__V1__Lease *)reply_message;
	struct lender_lease *lease = rpc_call_alloc(call, sizeof(*lease));
	int ret;

	if (!lease)
		return rpc_call_fail_memory(call);
	ret = lender_open_lease(options->lender, request->client_name, request->client_id, lease);
	if (ret == -EINVAL || ret == -ENAMETOOLONG)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "client_name: must be 1 to %d bytes of printable text",
				     LEASE_NAME_MAX - 1);
	if (ret == -EMFILE)
		return rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "%s has no room for another lease (%u at most)",
				     service->server_name, options->max_leases);
	if (ret < 0)
		return service_fail(call, ret, 0);
	reply->lease_id = lease->id;
	reply->token.data = lease->token;
	reply->token.len = sizeof(lease->token);
	reply->term_ms = options->term_ms;
	reply->slab_bytes = options->slab_bytes;
	reply->heartbeat_ms = options->heartbeat_ms;
	reply->instance_id = options->instance_id;
	reply->n_data_addresses = 1;
	reply->data_addresses = service->data_addresses;
	reply->n_rdma_addresses = service->nr_rdma_addresses;
	reply->rdma_addresses = service->rdma_addresses;
	return RPC_OK;
}

static enum rpc_code service_lease_slabs(struct rpc_call *call, const ProtobufCMessage *message,
					 ProtobufCMessage *reply_message)
{
	struct service *service = rpc_call_user(call);
	const Farswap__Memory__V1__LeaseSlabsRequest *request =
		(const Farswap__Memory__V1__LeaseSlabsRequest *)message;
	Farswap__Memory__V1__LeaseSlabsResponse *reply = (Farswap__Memory__V1__LeaseSlabsResponse *)reply_message;
	struct lender_proof proof = service_proof(request->lease_id, request->token);
	/* Whatever the count: a call that is repeated answers what the first one got. */
	struct lender_grant *grants = rpc_call_alloc(call, LENDER_MAX_GRANTS * sizeof(*grants));
	Farswap__Memory__V1__SlabGrant *slabs = rpc_call_alloc(call, LENDER_MAX_GRANTS * sizeof(*slabs));
	int ret;

	if (request->request_number == 0)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "request_number: must be at least 1");
	reply->slabs = rpc_call_alloc(call, LENDER_MAX_GRANTS * sizeof(reply->slabs[0]));
	if (!grants || !slabs || !reply->slabs)
		return rpc_call_fail_memory(call);
	ret = lender_lease_slabs(service->options.lender, &proof, request->request_number, request->count, grants);
	if (ret < 0)
		return service_fail(call, ret, request->lease_id);
	for (int i = 0; i < ret; i++) {
		farswap__memory__v1__slab_grant__init(&slabs[i]);
		slabs[i].index = grants[i].slab;
		slabs[i].key = grants[i].key;
		reply->slabs[i] = &slabs[i];
	}
	reply->n_slabs = (size_t)ret;
	return RPC_OK;
}

static enum rpc_code service_release_slabs(struct rpc_call *call, const ProtobufCMessage *message,
					   ProtobufCMessage *reply_message)
{
	struct service *service = rpc_call_user(call);
	const Farswap__Memory__V1__ReleaseSlabsRequest *request =
		(const Farswap__Memory__V1__ReleaseSlabsRequest *)message;
	Farswap__Memory__V1__ReleaseSlabsResponse *reply =
		(Farswap__Memory__V1__ReleaseSlabsResponse *)reply_message;
	struct lender_proof proof = service_proof(request->lease_id, request->token);
	uint32_t nr = (uint32_t)request->n_slabs; /* bounded by the size of a message */
	struct lender_grant *grants = rpc_call_alloc(call, (nr + 1) * sizeof(*grants));
	int ret;

	if (!grants)
		return rpc_call_fail_memory(call);
	for (uint32_t i = 0; i < nr; i++) {
		grants[i].slab = request->slabs[i]->index;
		grants[i].key = request->slabs[i]->key;
	}
	ret = lender_release_slabs(service->options.lender, &proof, grants, nr);
	if (ret < 0)
		return service_fail(call, ret, request->lease_id);
	reply->released = (uint32_t)ret;
	return RPC_OK;
}

static enum rpc_code service_close_lease(struct rpc_call *call, const ProtobufCMessage *message,
					 ProtobufCMessage *reply)
{
	struct service *service = rpc_call_user(call);
	const Farswap__Memory__V1__CloseLeaseRequest *request =
		(const Farswap__Memory__V1__CloseLeaseRequest *)message;
	struct lender_proof proof = service_proof(request->lease_id, request->token);
	int ret = lender_close_lease(service->options.lender, &proof);

	(void)reply;
	return ret < 0 ? service_fail(call, ret, request->lease_id) : RPC_OK;
}

static void service_fill_lease_info(struct lender_lease_info *info, Farswap__Memory__V1__LeaseInfo *ret_lease)
{
	farswap__memory__v1__lease_info__init(ret_lease);
	ret_lease->lease_id = info->id;
	ret_lease->client_name = info->client_name;
	ret_lease->client_id = info->client_id;
	ret_lease->slabs = info->nr_slabs;
	ret_lease->connections = info->data.nr_sessions;
	ret_lease->age_ms = info->age_ns / SYS_NS_PER_MS;
	ret_lease->renewed_ms_ago = info->renewed_ago_ns / SYS_NS_PER_MS;
	ret_lease->bytes_read = info->data.bytes_read;
	ret_lease->bytes_written = info->data.bytes_written;
	ret_lease->watching = info->nr_watches > 0;
}

static enum rpc_code service_list_leases(struct rpc_call *call, const ProtobufCMessage *request,
					 ProtobufCMessage *reply_message)
{
	struct service *service = rpc_call_user(call);
	Farswap__Memory__V1__ListLeasesResponse *reply = (Farswap__Memory__V1__ListLeasesResponse *)reply_message;
	uint32_t max = service->options.max_leases;
	struct lender_lease_info *infos = rpc_call_alloc(call, max * sizeof(*infos));
	Farswap__Memory__V1__LeaseInfo *leases = rpc_call_alloc(call, max * sizeof(*leases));

	(void)request;
	reply->leases = rpc_call_alloc(call, max * sizeof(reply->leases[0]));
	if (!infos || !leases || !reply->leases)
		return rpc_call_fail_memory(call);
	reply->n_leases = lender_list(service->options.lender, max, infos);
	for (size_t i = 0; i < reply->n_leases; i++) {
		service_fill_lease_info(&infos[i], &leases[i]);
		reply->leases[i] = &leases[i];
	}
	return RPC_OK;
}

static enum rpc_code service_request_drain(struct rpc_call *call, const ProtobufCMessage *message,
					   ProtobufCMessage *reply_message)
{
	struct service *service = rpc_call_user(call);
	const Farswap__Memory__V1__RequestDrainRequest *request =
		(const Farswap__Memory__V1__RequestDrainRequest *)message;
	Farswap__Memory__V1__RequestDrainResponse *reply =
		(Farswap__Memory__V1__RequestDrainResponse *)reply_message;
	int ret = lender_request_drain(service->options.lender, request->deadline_ms, request->reason, false,
				       &reply->leases);

	if (ret == -EINVAL || ret == -ENAMETOOLONG)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "reason: must be at most %d bytes of printable text",
				     LENDER_REASON_MAX - 1);
	return ret < 0 ? service_fail(call, ret, 0) : RPC_OK;
}

static enum rpc_code service_cancel_drain(struct rpc_call *call, const ProtobufCMessage *request,
					  ProtobufCMessage *reply)
{
	struct service *service = rpc_call_user(call);
	int ret = lender_cancel_drain(service->options.lender);

	(void)request;
	(void)reply;
	return ret < 0 ? service_fail(call, ret, 0) : RPC_OK;
}

#define SERVICE_METHOD(name, request_type, reply_type) \
	.path = "/farswap.memory.v1.MemoryServer/" name, \
	.request = &farswap__memory__v1__##request_type##__descriptor, \
	.reply = &farswap__memory__v1__##reply_type##__descriptor

static const struct rpc_method service_methods[] = {
	{ SERVICE_METHOD("GetCapacity", get_capacity_request, capacity), .unary = service_get_capacity, .quick = true },
	{ SERVICE_METHOD("OpenLease", open_lease_request, lease), .unary = service_open_lease },
	{ SERVICE_METHOD("LeaseSlabs", lease_slabs_request, lease_slabs_response), .unary = service_lease_slabs },
	{ SERVICE_METHOD("ReleaseSlabs", release_slabs_request, release_slabs_response),
	  .unary = service_release_slabs },
	{ SERVICE_METHOD("CloseLease", close_lease_request, close_lease_response), .unary = service_close_lease },
	{ SERVICE_METHOD("ListLeases", list_leases_request, list_leases_response), .unary = service_list_leases },
	{ SERVICE_METHOD("RequestDrain", request_drain_request, request_drain_response),
	  .unary = service_request_drain, .quick = true },
	{ SERVICE_METHOD("CancelDrain", cancel_drain_request, cancel_drain_response), .unary = service_cancel_drain,
	  .quick = true },
	{ SERVICE_METHOD("Watch", watch_request, watch_event), .stream = service_watch },
};

static void service_changed(void *user)
{
	struct service *service = user;

	rpc_server_wake(service->rpc);
}

int service_create(const struct service_options *options, struct service **ret_service)
{
	struct service *service = calloc(1, sizeof(*service));
	struct rpc_server_options rpc_options = {
		.methods = service_methods,
		.nr_methods = BASE_ARRAY_SIZE(service_methods),
		.user = service,
		.max_unary = SERVICE_MAX_UNARY,
		.max_streams = options->max_leases * LENDER_MAX_WATCHES + SERVICE_SPARE_STREAMS,
	};
	int ret;

	if (!service)
		return -ENOMEM;
	service->options = *options;
	snprintf(service->server_name, sizeof(service->server_name), "%s", options->server_name);
	snprintf(service->data_address, sizeof(service->data_address), "%s", options->data_address);
	service->data_addresses[0] = service->data_address;
	if (options->rdma_address) {
		snprintf(service->rdma_address, sizeof(service->rdma_address), "%s", options->rdma_address);
		service->rdma_addresses[service->nr_rdma_addresses++] = service->rdma_address;
	}
	ret = rpc_server_create(&rpc_options, &service->rpc);
	if (ret < 0) {
		free(service);
		return ret;
	}
	lender_on_change(options->lender, service_changed, service);
	*ret_service = service;
	return 0;
}

void service_free(struct service *service)
{
	if (!service)
		return;
	lender_on_change(service->options.lender, NULL, NULL);
	rpc_server_free(service->rpc);
	free(service);
}

int service_listen(struct service *service, const char *address, int *ret_port, struct rpc_status *ret_status)
{
	return rpc_server_listen(service->rpc, address, ret_port, ret_status);
}

int service_start(struct service *service)
{
	int ret = rpc_server_start(service->rpc);

	if (ret == 0)
		rpc_server_set_health_all(service->rpc, true);
	return ret;
}

void service_set_serving(struct service *service, bool serving)
{
	rpc_server_set_health_all(service->rpc, serving);
}

void service_stop(struct service *service, unsigned grace_ms)
{
	rpc_server_stop(service->rpc, grace_ms);
}

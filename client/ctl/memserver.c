#include "client/ctl/memserver.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/rpc/rpc.h"
#include "proto/memory.pb-c.h"

#define METHOD(name) "/farswap.memory.v1.MemoryServer/" name

#define MIN_SLAB_BYTES (256ull << FSW_PAGE_SHIFT)
#define MAX_SLAB_BYTES ((1ull << 18) << FSW_PAGE_SHIFT)
#define MIN_HEARTBEAT_MS 1u
#define MAX_HEARTBEAT_MS (60u * 60 * 1000)

static ProtobufCBinaryData token_of(const struct memserver_lease *lease)
{
	return (ProtobufCBinaryData){ .len = sizeof(lease->token), .data = (uint8_t *)(uintptr_t)lease->token };
}

static bool slab_bytes_ok(uint64_t bytes)
{
	return base_is_power_of_two(bytes) && bytes >= MIN_SLAB_BYTES && bytes <= MAX_SLAB_BYTES;
}

/* NULL: a server of a version that does not tell. */
static struct memserver_data_port data_port_unpack(const Farswap__Memory__V1__DataPort *port)
{
	if (!port)
		return (struct memserver_data_port){ .known = false };
	return (struct memserver_data_port){
		.known = true,
		.accepted = port->accepted,
		.admitted = port->admitted,
		.refused = port->refused,
		.protocol_errors = port->protocol_errors,
		.truncated = port->truncated,
		.timeouts = port->timeouts,
		.denied_access = port->denied_access,
		.denied_range = port->denied_range,
		.connections = port->connections,
	};
}

enum rpc_code memserver_get_capacity(struct rpc_client *client, struct memserver_capacity *ret_capacity,
				     struct rpc_status *ret_status)
{
	Farswap__Memory__V1__GetCapacityRequest request = FARSWAP__MEMORY__V1__GET_CAPACITY_REQUEST__INIT;
	const Farswap__Memory__V1__Capacity *capacity;
	ProtobufCMessage *reply;
	enum rpc_code code;

	code = rpc_client_call(client, METHOD("GetCapacity"), &request.base, &farswap__memory__v1__capacity__descriptor,
			       0, MEMSERVER_TIMEOUT_MS, &reply, ret_status);
	if (code != RPC_OK)
		return code;
	capacity = (const Farswap__Memory__V1__Capacity *)reply;
	*ret_capacity = (struct memserver_capacity){
		.instance_id = capacity->instance_id,
		.arena_bytes = capacity->arena_bytes,
		.slab_bytes = capacity->slab_bytes,
		.slabs_free = capacity->slabs_free,
		.accepting = capacity->accepting,
		.data_port = data_port_unpack(capacity->data_port),
	};
	rpc_message_free(reply);
	return RPC_OK;
}

static bool host_is_any(const char *host, size_t len)
{
	return len == 0 || (len == 7 && memcmp(host, "0.0.0.0", 7) == 0) || (len == 4 && memcmp(host, "[::]", 4) == 0);
}

int memserver_data_address(const char *advertised, const char *control_address, char ret_address[SYS_ADDRESS_MAX])
{
	const char *port = strrchr(advertised, ':');
	const char *control_port = strrchr(control_address, ':');
	char address[SYS_ADDRESS_MAX];
	int len;

	if (port && control_port && strncmp(control_address, "unix:", 5) != 0 &&
	    host_is_any(advertised, (size_t)(port - advertised)))
		len = snprintf(address, sizeof(address), "%.*s%s", (int)(control_port - control_address), control_address,
			       port);
	else
		len = snprintf(address, sizeof(address), "%s", advertised);
	if (len < 0 || (size_t)len >= sizeof(address))
		return -ENAMETOOLONG;
	memcpy(ret_address, address, sizeof(address));
	return 0;
}

/* Those that can be used of what the server has told. How many they are. */
static unsigned addresses_unpack(char *const *told, size_t nr_told, const char *control_address,
				 char ret_addresses[MEMSERVER_MAX_DATA_ADDRESSES][SYS_ADDRESS_MAX])
{
	unsigned nr = 0;

	for (size_t i = 0; i < nr_told && nr < MEMSERVER_MAX_DATA_ADDRESSES; i++)
		if (memserver_data_address(told[i], control_address, ret_addresses[nr]) == 0)
			nr++;
	return nr;
}

/* A lease that this client can use, from what the server sent. */
static enum rpc_code lease_unpack(const Farswap__Memory__V1__Lease *reply, const char *control_address,
				  struct memserver_lease *lease, struct rpc_status *ret_status)
{
	memset(lease, 0, sizeof(*lease));
	lease->lease_id = reply->lease_id;
	lease->instance_id = reply->instance_id;
	lease->term_ms = reply->term_ms;
	lease->heartbeat_ms = reply->heartbeat_ms;
	lease->slab_bytes = reply->slab_bytes;
	if (reply->lease_id == 0 || reply->token.len != sizeof(lease->token) || reply->term_ms == 0 ||
	    reply->heartbeat_ms < MIN_HEARTBEAT_MS || reply->heartbeat_ms > MAX_HEARTBEAT_MS)
		return rpc_status_set(ret_status, RPC_OUT_OF_RANGE, "%s gave a malformed lease", control_address);
	if (!slab_bytes_ok(reply->slab_bytes))
		return rpc_status_set(ret_status, RPC_OUT_OF_RANGE,
				      "%s lends slabs of %" PRIu64 " bytes, which are of no use here (a power of two from "
				      "1 MiB to 1 GiB)",
				      control_address, reply->slab_bytes);
	memcpy(lease->token, reply->token.data, sizeof(lease->token));
	lease->nr_data_addresses = addresses_unpack(reply->data_addresses, reply->n_data_addresses, control_address,
						    lease->data_address);
	lease->nr_rdma_addresses = addresses_unpack(reply->rdma_addresses, reply->n_rdma_addresses, control_address,
						    lease->rdma_address);
	if (lease->nr_data_addresses == 0)
		return rpc_status_set(ret_status, RPC_OUT_OF_RANGE, "%s has no data address", control_address);
	return RPC_OK;
}

enum rpc_code memserver_open_lease(struct rpc_client *client, const char *control_address, const char *client_name,
				   uint64_t client_id, struct memserver_lease *ret_lease,
				   struct rpc_status *ret_status)
{
	Farswap__Memory__V1__OpenLeaseRequest request = FARSWAP__MEMORY__V1__OPEN_LEASE_REQUEST__INIT;
	struct memserver_lease lease;
	ProtobufCMessage *reply;
	enum rpc_code code;

	request.client_name = (char *)(uintptr_t)client_name;
	request.client_id = client_id;
	code = rpc_client_call(client, METHOD("OpenLease"), &request.base, &farswap__memory__v1__lease__descriptor, 0,
			       MEMSERVER_TIMEOUT_MS, &reply, ret_status);
	if (code != RPC_OK)
		return code;
	code = lease_unpack((const Farswap__Memory__V1__Lease *)reply, control_address, &lease, ret_status);
	rpc_message_free(reply);
	if (code == RPC_OK)
		*ret_lease = lease;
	return code;
}

/* A server's keys are never 0. */
static bool grants_ok(const Farswap__Memory__V1__LeaseSlabsResponse *response)
{
	for (size_t i = 0; i < response->n_slabs; i++)
		if (response->slabs[i]->key == 0)
			return false;
	return true;
}

enum rpc_code memserver_lease_slabs(struct rpc_client *client, const struct memserver_lease *lease,
				    uint64_t request_number, unsigned count,
				    struct memserver_grant ret_grants[MEMSERVER_MAX_GRANTS], unsigned *ret_nr,
				    struct rpc_status *ret_status)
{
	unsigned least = count ? 1 : 0, most = count ? count : MEMSERVER_MAX_GRANTS;
	Farswap__Memory__V1__LeaseSlabsRequest request = FARSWAP__MEMORY__V1__LEASE_SLABS_REQUEST__INIT;
	const Farswap__Memory__V1__LeaseSlabsResponse *response;
	ProtobufCMessage *reply;
	enum rpc_code code;

	assert(request_number >= 1 && count <= MEMSERVER_MAX_GRANTS);
	request.lease_id = lease->lease_id;
	request.token = token_of(lease);
	request.count = count;
	request.request_number = request_number;
	code = rpc_client_call(client, METHOD("LeaseSlabs"), &request.base,
			       &farswap__memory__v1__lease_slabs_response__descriptor, 0, MEMSERVER_TIMEOUT_MS, &reply,
			       ret_status);
	if (code != RPC_OK)
		return code;
	response = (const Farswap__Memory__V1__LeaseSlabsResponse *)reply;
	if (response->n_slabs < least || response->n_slabs > most) {
		code = rpc_status_set(ret_status, RPC_OUT_OF_RANGE, "gave %zu slabs for %u", response->n_slabs, most);
	} else if (!grants_ok(response)) {
		code = rpc_status_set(ret_status, RPC_OUT_OF_RANGE, "gave a slab with the key 0");
	} else {
		for (size_t i = 0; i < response->n_slabs; i++)
			ret_grants[i] = (struct memserver_grant){ response->slabs[i]->index, response->slabs[i]->key };
		*ret_nr = (unsigned)response->n_slabs;
	}
	rpc_message_free(reply);
	return code;
}

enum rpc_code memserver_release_slabs(struct rpc_client *client, const struct memserver_lease *lease,
				      const struct memserver_grant *grants, unsigned nr, struct rpc_status *ret_status)
{
	Farswap__Memory__V1__ReleaseSlabsRequest request = FARSWAP__MEMORY__V1__RELEASE_SLABS_REQUEST__INIT;
	Farswap__Memory__V1__SlabGrant slabs[MEMSERVER_MAX_GRANTS];
	Farswap__Memory__V1__SlabGrant *pointers[MEMSERVER_MAX_GRANTS];
	ProtobufCMessage *reply;
	enum rpc_code code;

	assert(nr >= 1 && nr <= MEMSERVER_MAX_GRANTS);
	for (unsigned i = 0; i < nr; i++) {
		farswap__memory__v1__slab_grant__init(&slabs[i]);
		slabs[i].index = grants[i].index;
		slabs[i].key = grants[i].key;
		pointers[i] = &slabs[i];
	}
	request.lease_id = lease->lease_id;
	request.token = token_of(lease);
	request.n_slabs = nr;
	request.slabs = pointers;
	code = rpc_client_call(client, METHOD("ReleaseSlabs"), &request.base,
			       &farswap__memory__v1__release_slabs_response__descriptor, 0, MEMSERVER_TIMEOUT_MS, &reply,
			       ret_status);
	if (code == RPC_OK)
		rpc_message_free(reply);
	return code;
}

enum rpc_code memserver_close_lease(struct rpc_client *client, const struct memserver_lease *lease,
				    struct rpc_status *ret_status)
{
	Farswap__Memory__V1__CloseLeaseRequest request = FARSWAP__MEMORY__V1__CLOSE_LEASE_REQUEST__INIT;
	ProtobufCMessage *reply;
	enum rpc_code code;

	request.lease_id = lease->lease_id;
	request.token = token_of(lease);
	code = rpc_client_call(client, METHOD("CloseLease"), &request.base,
			       &farswap__memory__v1__close_lease_response__descriptor, 0, MEMSERVER_TIMEOUT_MS, &reply,
			       ret_status);
	if (code == RPC_OK)
		rpc_message_free(reply);
	return code;
}

int memserver_watch_open(struct rpc_client *client, const struct memserver_lease *lease, struct rpc_stream **ret_stream)
{
	Farswap__Memory__V1__WatchRequest request = FARSWAP__MEMORY__V1__WATCH_REQUEST__INIT;

	request.lease_id = lease->lease_id;
	request.token = token_of(lease);
	return rpc_stream_open(client, METHOD("Watch"), &request.base, &farswap__memory__v1__watch_event__descriptor,
			       RPC_WAIT_FOR_READY, RPC_NO_TIMEOUT, ret_stream);
}

static void event_unpack(const Farswap__Memory__V1__WatchEvent *message, struct memserver_event *event)
{
	const char *reason = "";

	memset(event, 0, sizeof(*event));
	switch (message->event_case) {
	case FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_WELCOME:
		event->type = MEMSERVER_EVENT_WELCOME;
		event->accepting = message->welcome->accepting;
		break;
	case FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_REQUESTED:
		event->type = MEMSERVER_EVENT_DRAIN_REQUESTED;
		event->deadline_ms = message->drain_requested->deadline_ms;
		reason = message->drain_requested->reason;
		break;
	case FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_DRAIN_CANCELLED:
		event->type = MEMSERVER_EVENT_DRAIN_CANCELLED;
		break;
	case FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_LEASE_REVOKED:
		event->type = MEMSERVER_EVENT_LEASE_REVOKED;
		reason = message->lease_revoked->reason;
		break;
	case FARSWAP__MEMORY__V1__WATCH_EVENT__EVENT_SERVER_STOPPING:
		event->type = MEMSERVER_EVENT_STOPPING;
		break;
	default:
		event->type = MEMSERVER_EVENT_NONE;
		break;
	}
	snprintf(event->reason, sizeof(event->reason), "%s", reason);
}

int memserver_watch_next(struct rpc_stream *stream, struct memserver_event *ret_event)
{
	ProtobufCMessage *message;
	int ret;

	do
		ret = rpc_stream_recv(stream, -1, &message);
	while (ret == -ETIMEDOUT);
	if (ret <= 0)
		return ret;
	event_unpack((const Farswap__Memory__V1__WatchEvent *)message, ret_event);
	rpc_message_free(message);
	return 1;
}

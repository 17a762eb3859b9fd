/*
 * The calls of a memory server's control plane, as plain functions on plain structures. Everything that comes from the
 * server is checked here. Control threads; each call blocks for at most MEMSERVER_TIMEOUT_MS.
 *
 * Each returns the code of the call, which is also in *ret_status with a message; the results are written for RPC_OK only.
 */
#ifndef FARSWAP_CLIENT_CTL_MEMSERVER_H
#define FARSWAP_CLIENT_CTL_MEMSERVER_H

#include "common/base/base.h"
#include "common/rpc/client.h"
#include "common/sys/socket.h"
#include "common/transport/transport.h"

#define MEMSERVER_TIMEOUT_MS 5000
#define MEMSERVER_MAX_DATA_ADDRESSES 4u
#define MEMSERVER_MAX_GRANTS 16u /* of one call */
#define MEMSERVER_REASON_MAX 200

/* As DataPort of the protocol: of all clients of the server, and of those that are none. */
struct memserver_data_port {
	bool known; /* the server told */
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

struct memserver_capacity {
	uint64_t instance_id;
	uint64_t arena_bytes;
	uint64_t slab_bytes;
	uint32_t slabs_free;
	bool accepting;
	struct memserver_data_port data_port;
};

struct memserver_lease {
	uint64_t lease_id;
	uint64_t instance_id;
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	uint32_t term_ms;
	uint32_t heartbeat_ms;
	uint64_t slab_bytes; /* a power of two, 2^8 to 2^18 pages */
	unsigned nr_data_addresses; /* at least 1 */
	char data_address[MEMSERVER_MAX_DATA_ADDRESSES][SYS_ADDRESS_MAX];
	unsigned nr_rdma_addresses; /* may be 0 */
	char rdma_address[MEMSERVER_MAX_DATA_ADDRESSES][SYS_ADDRESS_MAX];
};

struct memserver_grant {
	uint32_t index;
	uint32_t key; /* not 0 */
};

enum rpc_code memserver_get_capacity(struct rpc_client *client, struct memserver_capacity *ret_capacity,
				     struct rpc_status *ret_status) BASE_MUST_CHECK;

/*
 * `control_address` is where the server was called: its host stands in for that of a data address which names every
 * interface of the server ("0.0.0.0:7771"). RPC_OUT_OF_RANGE: the server answered what this client cannot use.
 */
enum rpc_code memserver_open_lease(struct rpc_client *client, const char *control_address, const char *client_name,
				   uint64_t client_id, struct memserver_lease *ret_lease,
				   struct rpc_status *ret_status) BASE_MUST_CHECK;

/*
 * Asks for count slabs, 1 .. MEMSERVER_MAX_GRANTS. request_number: at least 1, and for one lease greater each time. A call
 * that failed, whatever the code, may have lent slabs all the same, or do so later: after it the only call for this lease
 * is one with the same number and a count of 0, until that has an answer, which is what was lent under it, if anything.
 */
enum rpc_code memserver_lease_slabs(struct rpc_client *client, const struct memserver_lease *lease,
				    uint64_t request_number, unsigned count,
				    struct memserver_grant ret_grants[MEMSERVER_MAX_GRANTS], unsigned *ret_nr,
				    struct rpc_status *ret_status) BASE_MUST_CHECK;

/* nr: 1 .. MEMSERVER_MAX_GRANTS. May be repeated when it failed; what the server has back already is passed over. */
enum rpc_code memserver_release_slabs(struct rpc_client *client, const struct memserver_lease *lease,
				      const struct memserver_grant *grants, unsigned nr,
				      struct rpc_status *ret_status) BASE_MUST_CHECK;

enum rpc_code memserver_close_lease(struct rpc_client *client, const struct memserver_lease *lease,
				    struct rpc_status *ret_status) BASE_MUST_CHECK;

enum memserver_event_type {
	MEMSERVER_EVENT_NONE, /* of a kind that this client does not know */
	MEMSERVER_EVENT_WELCOME,
	MEMSERVER_EVENT_DRAIN_REQUESTED,
	MEMSERVER_EVENT_DRAIN_CANCELLED,
	MEMSERVER_EVENT_LEASE_REVOKED,
	MEMSERVER_EVENT_STOPPING,
};

struct memserver_event {
	enum memserver_event_type type;
	bool accepting;	      /* WELCOME: the server lends, so no drain of it is on */
	uint64_t deadline_ms; /* DRAIN_REQUESTED; 0: none */
	char reason[MEMSERVER_REASON_MAX];
};

/* Begins to watch. 0 or the error of rpc_stream_open. Ended by rpc_stream_cancel and rpc_stream_close. */
int memserver_watch_open(struct rpc_client *client, const struct memserver_lease *lease,
			 struct rpc_stream **ret_stream) BASE_MUST_CHECK;
/* Waits for the next event. 1; 0 when the stream has ended; -EBADMSG. */
int memserver_watch_next(struct rpc_stream *stream, struct memserver_event *ret_event) BASE_MUST_CHECK;

/*
 * The address at which a data connection is to be tried: `advertised`, with the host of `control_address` if it has none of
 * its own, or one that means every interface. 0; -ENAMETOOLONG. Pure.
 */
int memserver_data_address(const char *advertised, const char *control_address, char ret_address[SYS_ADDRESS_MAX])
	BASE_MUST_CHECK;

#endif

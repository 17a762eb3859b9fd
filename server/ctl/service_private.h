/*
 * The inside of the service, for service.c (calls) and watch.c (the stream).
 */
#ifndef FARSWAP_SERVER_CTL_SERVICE_PRIVATE_H
#define FARSWAP_SERVER_CTL_SERVICE_PRIVATE_H

#include "server/ctl/service.h"

#define SERVICE_STRING_MAX 256

struct service {
	struct service_options options;
	char server_name[SERVICE_STRING_MAX];
	char data_address[SERVICE_STRING_MAX];
	char *data_addresses[1];
	char rdma_address[SERVICE_STRING_MAX];
	char *rdma_addresses[1];
	size_t nr_rdma_addresses;
	struct rpc_server *rpc;
};

/* What a call's caller is told about an error of the lender's. */
enum rpc_code service_fail(struct rpc_call *call, int err, uint64_t lease_id);

/* The proof in a request, which it points into. */
struct lender_proof service_proof(uint64_t lease_id, ProtobufCBinaryData token);

enum rpc_code service_watch(struct rpc_call *call, const ProtobufCMessage *message);

#endif

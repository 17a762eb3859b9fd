/*
 * What the files of the admin service share.
 */
#ifndef FARSWAP_CLIENT_CTL_ADMIN_PRIVATE_H
#define FARSWAP_CLIENT_CTL_ADMIN_PRIVATE_H

#include "client/ctl/admin.h"
#include "common/rpc/rpc.h"
#include "proto/admin.pb-c.h"

struct admin {
	struct admin_options options;
	struct rpc_server *rpc;
	uint64_t started_ns;
	_Atomic bool checking;
};

/* A server of the configuration. */
struct admin_place {
	struct backend *backend;
	struct keeper *keeper; /* NULL: the disk */
};

unsigned admin_nr_places(const struct admin *admin);
struct admin_place admin_place(const struct admin *admin, unsigned index);

/* The server of that name, or the code with which to end the call: it names those that there are. */
enum rpc_code admin_find(struct rpc_call *call, const char *name, struct admin_place *ret_place) BASE_MUST_CHECK;

/* ---- admin_status.c ---- */

enum rpc_code admin_get_status(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *reply);
enum rpc_code admin_list_servers(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *reply);
/* Fills a message that is initialised; its strings are the call's. The thread is registered with RCU. */
void admin_fill_server(struct rpc_call *call, const struct admin_place *place, Farswap__Admin__V1__Server *server);

/* ---- admin_stream.c ---- */

enum rpc_code admin_drain(struct rpc_call *call, const ProtobufCMessage *request);
enum rpc_code admin_swapoff(struct rpc_call *call, const ProtobufCMessage *request);

#endif

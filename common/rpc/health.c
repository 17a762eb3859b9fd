#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/rpc/internal.h"
#include "proto/health.pb-c.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus health_status;

#define HEALTH_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define HEALTH_NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define HEALTH_SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

/* By name; NULL: unknown. The table of names does not change while a server lives. */
static struct rpc_health_service *health_find(struct rpc_health *health, const char *name)
{
	for (size_t i = 0; i < health->nr_services; i++)
		if (strcmp(health->services[i].name, name) == 0)
			return &health->services[i];
	return NULL;
}

static int health_add(struct rpc_health *health, const char *name, size_t len)
{
	char *copy = strndup(name, len);

	if (!copy)
		return -ENOMEM;
	if (health_find(health, copy))
		free(copy);
	else
		health->services[health->nr_services++].name = copy;
	return 0;
}

int rpc_health_init(struct rpc_health *health, const struct rpc_method *methods, size_t nr_methods)
{
	int ret;

	lock_mutex_init(&health->lock);
	health->nr_services = 0;
	health->services = calloc(nr_methods + 1, sizeof(*health->services));
	if (!health->services) {
		ret = -ENOMEM;
		goto err;
	}
	ret = health_add(health, "", 0);
	for (size_t i = 0; i < nr_methods && ret == 0; i++) {
		const char *service = methods[i].path + 1;

		ret = health_add(health, service, strcspn(service, "/"));
	}
	if (ret < 0)
		goto err;
	return 0;

err:
	rpc_health_done(health);
	return ret;
}

void rpc_health_done(struct rpc_health *health)
{
	for (size_t i = 0; i < health->nr_services; i++)
		free(health->services[i].name);
	free(health->services);
	lock_mutex_done(&health->lock);
}

int rpc_server_set_health(struct rpc_server *server, const char *service, bool serving)
{
	struct rpc_health_service *found = health_find(&server->health, service);

	if (!found)
		return -ENOENT;
	lock_acquire(&server->health.lock);
	found->serving = serving;
	lock_release(&server->health.lock);
	rpc_server_wake(server);
	return 0;
}

void rpc_server_set_health_all(struct rpc_server *server, bool serving)
{
	lock_acquire(&server->health.lock);
	for (size_t i = 0; i < server->health.nr_services; i++)
		server->health.services[i].serving = serving;
	lock_release(&server->health.lock);
	rpc_server_wake(server);
}

static health_status health_read(struct rpc_server *server, const char *name)
{
	struct rpc_health_service *service = health_find(&server->health, name);
	bool serving;

	if (!service)
		return HEALTH_SERVICE_UNKNOWN;
	lock_acquire(&server->health.lock);
	serving = service->serving;
	lock_release(&server->health.lock);
	return serving && !atomic_load(&server->stopping) ? HEALTH_SERVING : HEALTH_NOT_SERVING;
}

static enum rpc_code health_on_check(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *reply)
{
	const Grpc__Health__V1__HealthCheckRequest *req = (const void *)request;
	Grpc__Health__V1__HealthCheckResponse *rep = (void *)reply;

	rep->status = health_read(call->server, req->service);
	if (rep->status == HEALTH_SERVICE_UNKNOWN)
		return rpc_call_fail(call, RPC_NOT_FOUND, "no such service: %s", req->service);
	return RPC_OK;
}

static enum rpc_code health_on_watch(struct rpc_call *call, const ProtobufCMessage *request)
{
	const Grpc__Health__V1__HealthCheckRequest *req = (const void *)request;
	Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	int ret = 1;

	for (;;) {
		health_status now = health_read(call->server, req->service);

		/* UNKNOWN, which the response begins with, is never read: the first status is always sent. */
		if (now != response.status) {
			response.status = now;
			if (rpc_call_send(call, &response.base) < 0)
				return RPC_CANCELLED;
		}
		if (ret == -ESHUTDOWN)
			return rpc_call_fail(call, RPC_UNAVAILABLE, "the server is stopping");
		ret = rpc_call_wait(call, -1);
		if (ret == -ECANCELED)
			return RPC_CANCELLED;
	}
}

const struct rpc_method rpc_health_methods[RPC_HEALTH_NR_METHODS] = {
	{
		.path = "/grpc.health.v1.Health/Check",
		.request = &grpc__health__v1__health_check_request__descriptor,
		.reply = &grpc__health__v1__health_check_response__descriptor,
		.unary = health_on_check,
		.quick = true, /* a busy daemon is not a sick one */
	},
	{
		.path = "/grpc.health.v1.Health/Watch",
		.request = &grpc__health__v1__health_check_request__descriptor,
		.reply = &grpc__health__v1__health_check_response__descriptor,
		.stream = health_on_watch,
	},
};

#include "client/ctl/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/admin_private.h"
#include "common/base/err.h"
#include "common/sys/clock.h"
#include "common/sys/rcu.h"

#define SERVICE_MAX_STREAMS 16u
#define NAMES_MAX 160 /* of the servers that an error message lists; the message has an end, too */

/* How long Undrain waits for the drain that it has cancelled, and how often it looks. */
#define UNDRAIN_WAIT_MS 10000u
#define UNDRAIN_POLL_MS 10

unsigned admin_nr_places(const struct admin *admin)
{
	return admin->options.nr_keepers + (admin->options.disk != NULL);
}

struct admin_place admin_place(const struct admin *admin, unsigned index)
{
	struct keeper *keeper;

	if (index == admin->options.nr_keepers)
		return (struct admin_place){ .backend = admin->options.disk };
	keeper = admin->options.keepers[index];
	return (struct admin_place){ .backend = keeper_backend(keeper), .keeper = keeper };
}

enum rpc_code admin_find(struct rpc_call *call, const char *name, struct admin_place *ret_place)
{
	const struct admin *admin = rpc_call_user(call);
	char names[NAMES_MAX];
	size_t at = 0;

	names[0] = '\0';
	for (unsigned i = 0; i < admin_nr_places(admin); i++) {
		struct admin_place place = admin_place(admin, i);

		if (strcmp(place.backend->name, name) == 0) {
			*ret_place = place;
			return RPC_OK;
		}
		if (at < sizeof(names))
			at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", i ? ", " : "",
					       place.backend->name);
	}
	if (at >= sizeof(names))
		memcpy(names + sizeof(names) - 4, "...", 4);
	if (name[0] == '\0')
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "server: must be given; servers: %s", names);
	return rpc_call_fail(call, RPC_NOT_FOUND, "no server named %.60s; servers: %s", name, names);
}

static enum rpc_code admin_cancel_drain(struct rpc_call *call, const ProtobufCMessage *message, ProtobufCMessage *reply)
{
	const Farswap__Admin__V1__CancelDrainRequest *request =
		(const Farswap__Admin__V1__CancelDrainRequest *)message;
	struct admin *admin = rpc_call_user(call);
	struct admin_place place;
	enum rpc_code code = admin_find(call, request->server, &place);

	if (code != RPC_OK)
		return code;
	sys_rcu_thread_init();
	if (drains_cancel(admin->options.drains, place.backend) < 0)
		code = rpc_call_fail(call, RPC_FAILED_PRECONDITION, "no drain of %s is running", place.backend->name);
	else
		admin_fill_server(call, &place, (Farswap__Admin__V1__Server *)reply);
	sys_rcu_thread_done();
	return code;
}

static enum rpc_code undrain(struct rpc_call *call, const struct admin_place *place)
{
	struct admin *admin = rpc_call_user(call);
	unsigned waited_ms = 0;
	int ret;

	while ((ret = drains_undrain(admin->options.drains, place->backend)) == -EINPROGRESS) {
		if (waited_ms >= UNDRAIN_WAIT_MS)
			return rpc_call_fail(call, RPC_DEADLINE_EXCEEDED,
					     "the drain of %s is still being cancelled; it is taken back into use then",
					     place->backend->name);
		ret = rpc_call_wait(call, UNDRAIN_POLL_MS);
		if (ret < 0)
			return rpc_call_fail_errno(call, ret, "undrain of %s", place->backend->name);
		waited_ms += UNDRAIN_POLL_MS;
	}
	return ret < 0 ? rpc_call_fail_errno(call, ret, "undrain of %s", place->backend->name) : RPC_OK;
}

static enum rpc_code admin_undrain(struct rpc_call *call, const ProtobufCMessage *message, ProtobufCMessage *reply)
{
	const Farswap__Admin__V1__UndrainRequest *request = (const Farswap__Admin__V1__UndrainRequest *)message;
	struct admin *admin = rpc_call_user(call);
	struct admin_place place;
	enum rpc_code code = admin_find(call, request->server, &place);

	if (code != RPC_OK)
		return code;
	sys_rcu_thread_init();
	code = undrain(call, &place);
	if (code == RPC_OK)
		admin_fill_server(call, &place, (Farswap__Admin__V1__Server *)reply);
	sys_rcu_thread_done();
	provision_wake(admin->options.provision);
	return code;
}

static enum rpc_code fill_check(struct rpc_call *call, const struct vswap_check_result *found,
				Farswap__Admin__V1__CheckResult *result)
{
	size_t nr = (size_t)base_min_u64(found->nr_differences, VSWAP_CHECK_MAX_LISTED);

	result->entries = found->nr_entries;
	result->slots = found->nr_slots;
	result->differences = found->nr_differences;
	result->unsettled = found->nr_unsettled;
	if (nr == 0)
		return RPC_OK;
	result->difference = rpc_call_alloc(call, nr * sizeof(char *));
	if (!result->difference)
		return rpc_call_fail_memory(call);
	for (size_t i = 0; i < nr; i++)
		result->difference[i] = rpc_call_printf(call, "%s", found->difference[i]);
	result->n_difference = nr;
	return RPC_OK;
}

static enum rpc_code admin_check(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *reply)
{
	struct admin *admin = rpc_call_user(call);
	struct vswap_check_result *found = rpc_call_alloc(call, sizeof(*found));
	int ret;

	(void)request;
	if (!found)
		return rpc_call_fail_memory(call);
	if (atomic_exchange(&admin->checking, true))
		return rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "a check is under way already");
	sys_rcu_thread_init();
	ret = vswap_check_live(admin->options.vswap, found);
	sys_rcu_thread_done();
	atomic_store(&admin->checking, false);
	if (ret < 0)
		return rpc_call_fail_errno(call, ret, "check");
	return fill_check(call, found, (Farswap__Admin__V1__CheckResult *)reply);
}

#define ADMIN_METHOD(name, request_type, reply_type) \
	.path = "/farswap.admin.v1.Admin/" name, .request = &farswap__admin__v1__##request_type##__descriptor, \
	.reply = &farswap__admin__v1__##reply_type##__descriptor

static const struct rpc_method admin_methods[] = {
	{ ADMIN_METHOD("GetStatus", get_status_request, status), .unary = admin_get_status },
	{ ADMIN_METHOD("ListServers", list_servers_request, list_servers_response), .unary = admin_list_servers },
	{ ADMIN_METHOD("Drain", drain_request, drain_progress), .stream = admin_drain },
	{ ADMIN_METHOD("CancelDrain", cancel_drain_request, server), .unary = admin_cancel_drain },
	{ ADMIN_METHOD("Undrain", undrain_request, server), .unary = admin_undrain },
	{ ADMIN_METHOD("Check", check_request, check_result), .unary = admin_check },
	{ ADMIN_METHOD("Swapoff", swapoff_request, swapoff_progress), .stream = admin_swapoff },
};

int admin_create(const struct admin_options *options, struct admin **ret_admin)
{
	struct admin *admin = calloc(1, sizeof(*admin));
	struct rpc_server_options rpc_options = {
		.methods = admin_methods,
		.nr_methods = BASE_ARRAY_SIZE(admin_methods),
		.user = admin,
		.max_streams = SERVICE_MAX_STREAMS,
	};
	int ret;

	if (!admin)
		return -ENOMEM;
	admin->options = *options;
	admin->started_ns = sys_clock_now_ns(sys_clock_monotonic());
	ret = rpc_server_create(&rpc_options, &admin->rpc);
	if (ret < 0) {
		free(admin);
		return ret;
	}
	*ret_admin = admin;
	return 0;
}

int admin_listen(struct admin *admin, const char *address, struct rpc_status *ret_status)
{
	return rpc_server_listen(admin->rpc, address, NULL, ret_status);
}

int admin_start(struct admin *admin)
{
	return rpc_server_start(admin->rpc);
}

void admin_set_serving(struct admin *admin, bool serving)
{
	rpc_server_set_health_all(admin->rpc, serving);
}

void admin_wake(struct admin *admin)
{
	rpc_server_wake(admin->rpc);
}

void admin_stop(struct admin *admin, unsigned grace_ms)
{
	rpc_server_stop(admin->rpc, grace_ms);
}

void admin_free(struct admin *admin)
{
	if (!admin)
		return;
	rpc_server_free(admin->rpc);
	free(admin);
}

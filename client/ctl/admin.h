/*
 * The daemon's admin service, farswap.admin.v1.Admin of proto/admin.proto: what the operator's tool speaks to.
 *
 * It owns its server and nothing else. Calls run on threads of common/rpc; they read the books of vswap, the keepers and the
 * backends, and act by drains.h and by the owner's calls below.
 */
#ifndef FARSWAP_CLIENT_CTL_ADMIN_H
#define FARSWAP_CLIENT_CTL_ADMIN_H

#include "client/ctl/drains.h"
#include "client/ctl/keeper.h"
#include "client/ctl/provision.h"
#include "client/vswap/admin.h"
#include "common/base/base.h"
#include "common/rpc/status.h"
#include "common/sys/thread.h"

#define ADMIN_ENDPOINT_MAX 256
#define ADMIN_REASON_MAX 256

/* The daemon's state, as DaemonState of the protocol. */
enum admin_state { ADMIN_STARTING, ADMIN_SERVING, ADMIN_IDLE, ADMIN_STOPPING };

/* As FrontendCounters of the protocol. */
struct admin_frontend_counters {
	uint64_t accepted;
	uint64_t refused;
	uint64_t protocol_errors;
	uint64_t truncated;
	uint64_t timeouts;
	uint64_t bad_requests;
	uint64_t io_errors;
	uint64_t kernel_errors;
	uint32_t connections;
};

struct admin_frontend {
	const char *kind; /* "ublk", "nbd-kernel", "fuse", "nbd" or ""; static */
	char chosen_because[ADMIN_REASON_MAX];
	char endpoint[ADMIN_ENDPOINT_MAX];
	bool swap_on;
	uint64_t swap_used_bytes;
	struct admin_frontend_counters counters;
};

/* What the service asks of whoever put the daemon together. Any thread; none may block for long. All required. */
struct admin_owner {
	enum admin_state (*state)(void *user);
	void (*frontend)(void *user, struct admin_frontend *ret_frontend);
	/*
	 * Swap off and the front end down, and then, with `leave`, the end of the daemon; done by the daemon's main thread. 0:
	 * asked for, and a number for swapoff_result in *ret_ticket; -EALREADY the daemon is being stopped; -EBUSY one is
	 * under way already.
	 */
	int (*swapoff)(void *user, bool leave, uint64_t *ret_ticket);
	/* 0 done; -EINPROGRESS; else why not: swap is on as before. */
	int (*swapoff_result)(void *user, uint64_t ticket);
	void *user;
};

struct admin_options {
	struct vswap *vswap; /* all that is pointed at outlives the service */
	struct drains *drains;
	struct provision *provision;
	struct keeper *const *keepers; /* in the order of the configuration */
	unsigned nr_keepers;
	struct backend *disk; /* NULL: none */
	uint64_t disk_bytes;
	uint64_t disk_slab_bytes;
	const struct sys_process_rights *rights;
	struct admin_owner owner;
};

struct admin;

/* Control thread. 0, -ENOMEM, -EAGAIN. */
int admin_create(const struct admin_options *options, struct admin **ret_admin) BASE_MUST_CHECK;
/* As rpc_server_listen, before admin_start. */
int admin_listen(struct admin *admin, const char *address, struct rpc_status *ret_status) BASE_MUST_CHECK;
/* As rpc_server_start. */
int admin_start(struct admin *admin) BASE_MUST_CHECK;
/* What grpc.health.v1 answers. Any thread. */
void admin_set_serving(struct admin *admin, bool serving);
/* The daemon's state, or a drain, or a swapoff has got on: streams look at once. Any thread. */
void admin_wake(struct admin *admin);
/* Lets streams end for grace_ms, then cuts them. Safe if never started. */
void admin_stop(struct admin *admin, unsigned grace_ms);
/* Accepts NULL. */
void admin_free(struct admin *admin);

#endif

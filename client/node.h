/*
 * What stores pages, put together: reactors, the virtual swap layer, the disk, the memory servers with their keepers,
 * drains and provision, in the order in which they need each other. Who offers it to whom is not its business: the
 * daemon puts front ends and an admin service on top (daemon.h), the library its calls (client/lib/farswap.h).
 *
 * Control threads, one at a time. It logs nothing that it returns as an error.
 */
#ifndef FARSWAP_CLIENT_NODE_H
#define FARSWAP_CLIENT_NODE_H

#include "client/backend/backend.h"
#include "client/comp/comp.h"
#include "client/ctl/drains.h"
#include "client/ctl/keeper.h"
#include "client/ctl/provision.h"
#include "client/vswap/admin.h"
#include "common/base/base.h"
#include "common/sys/reactor.h"

#define NODE_MAX_QUEUES (BACKEND_MAX_QUEUES - 1) /* and the mover's */
#define NODE_MAX_SERVERS PROVISION_MAX_KEEPERS
#define NODE_ERROR_MAX 512

/* How data connections are made. */
enum node_transport {
	NODE_TRANSPORT_AUTO, /* RDMA where both sides have it and it works, else TCP */
	NODE_TRANSPORT_TCP,
	NODE_TRANSPORT_VERBS,
};

/* What is pointed at is read by node_create and node_start only. */
struct node_options {
	/* As in struct vswap_options. */
	uint64_t nr_pages;
	uint64_t nr_entries;
	uint32_t nr_folio_ios;
	uint32_t max_slabs;
	uint64_t comp_limit_bytes;
	enum comp_algorithm comp_algorithm;

	unsigned nr_queues;   /* 1 .. NODE_MAX_QUEUES */
	const int *cpus;      /* of each queue, the mover's last; -1: any */
	unsigned spin_us;     /* of the queues; the mover never spins */
	unsigned queue_depth; /* operations in flight per queue and backend */

	const char *disk;    /* NULL: none */
	uint64_t disk_bytes; /* 0: all of a block device */
	uint64_t disk_slab_bytes;

	const char *const *servers; /* "host:port", see servers.h */
	unsigned nr_servers;	    /* at most NODE_MAX_SERVERS */
	const char *name;	    /* what servers know this client by */
	enum node_transport transport;
	const char *rdma_device; /* these four as in struct verbs_driver_options */
	unsigned rdma_port;
	int rdma_gid_index;
	int rdma_service_level;
	unsigned dead_ms;
	unsigned patience_ms;
	unsigned connect_timeout_ms;
	uint64_t lost_after_ms;
	uint64_t ahead_bytes;
	struct state *state; /* of the device, see struct vswap_options; outlives the node. NULL: none */
};

/* Who made it may read it, and call what its parts offer. */
struct node {
	struct node_options options;
	uint64_t random; /* tells this client from others, and seeds what is left to chance */

	unsigned nr_reactors; /* one per queue, and the mover's */
	struct sys_reactor *reactor[NODE_MAX_QUEUES + 1];
	struct vswap *vswap;
	struct drains *drains;
	struct backend *disk; /* NULL: none */
	struct backend *remote[NODE_MAX_SERVERS];
	struct keeper *keeper[NODE_MAX_SERVERS];
	unsigned nr_servers;
	struct transport_driver *rdma; /* NULL: there is none, or none is wanted */
	struct provision *provision;
};

/*
 * After the start of gRPC (rpc.h). Makes all parts; nothing runs yet. 0, or a negative errno with one line in ret_error
 * that names what could not be had; nothing is left behind then.
 */
int node_create(const struct node_options *options, struct node **ret_node,
		char ret_error[NODE_ERROR_MAX]) BASE_MUST_CHECK;

/*
 * Starts the threads: leases are opened and slabs fetched from now on. 0, or a negative errno with a line; what runs by
 * then is ended by node_stop.
 */
int node_start(struct node *node, char ret_error[NODE_ERROR_MAX]) BASE_MUST_CHECK;

/*
 * In a node that goes on with what a dead daemon has left: nothing may be given back then, since the pages are in use. To
 * be asked after a failure; the process ends without node_stop.
 */
bool node_is_resumed(const struct node *node);

/*
 * Waits until there is as much room as there should be, or timeout_ms have passed. 0 when there is any, with a warning
 * in the log when it is less; -ETIMEDOUT with a line when there is none, and a warning for each server, why.
 */
int node_wait_for_room(struct node *node, unsigned timeout_ms, char ret_error[NODE_ERROR_MAX]) BASE_MUST_CHECK;

/* No request and no call on a queue may be under way. Ends the threads and the leases. Safe if never started. */
void node_stop(struct node *node);
/* After node_stop. Accepts NULL. */
void node_free(struct node *node);

#endif

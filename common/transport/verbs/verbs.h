/*
 * The verbs transport: READ and WRITE as RDMA operations of a reliable connection, over InfiniBand or RoCE v2, with no part of
 * the lender's processor in them. Connections are made by librdmacm.
 *
 * The lender registers a slab once per lease that holds it, in the protection domain of that lease, so that the remote key is
 * good for this lease's connections alone, and deregisters it when it is taken back. The initiator asks where a slab is the
 * first time that it uses it, over the connection itself.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_VERBS_VERBS_H
#define FARSWAP_COMMON_TRANSPORT_VERBS_VERBS_H

#include "common/sys/socket.h"
#include "common/transport/target.h"
#include "common/transport/transport.h"

/* True when this machine has an RDMA device and its connection manager can be used. Control thread. */
bool verbs_available(void);

/*
 * The initiator's side.
 *
 * With all at their defaults the address decides, by the routing table: which device, port and GID, and with it RoCE v2's
 * version of IP. Else connections begin at the address that the GID of that device, port and index stands for.
 *
 * On InfiniBand the subnet manager says the SL of a path. By IPv4 it is asked with 32 times the service level as QoS class; by
 * IPv6 the kernel asks without (cma_query_ib_route in its cma.c).
 */
struct verbs_driver_options {
	const char *device; /* its name, such as "mlx5_0"; NULL: any */
	unsigned port;	    /* of the device; 0: any */
	int gid_index;	    /* of the port; -1: any */
	int service_level;  /* 0 .. 7, the priority in the network; -1: the network's default; of both directions */
};

/* What the initiator's side has done since it was created. */
struct verbs_driver_counters {
	uint64_t nr_bounced;	/* operations in part or whole on memory that no region of common/mem/io.h has */
	uint64_t bounced_bytes; /* that were copied for it */
	uint64_t nr_maps;	/* times that a lender was asked where a slab is */
};

/*
 * Control thread. 0; -EINVAL for options out of range, -ENOMEM, or an error of pthread_create: it has a thread, on which
 * connections end that have been closed. Needs no device yet.
 */
int verbs_driver_create(const struct verbs_driver_options *options, struct transport_driver **ret_driver) BASE_MUST_CHECK;
/* Every connection has been closed. Waits a moment for the last ones. Accepts NULL. */
void verbs_driver_free(struct transport_driver *driver);
/* Any thread. */
void verbs_driver_counters(struct transport_driver *driver, struct verbs_driver_counters *ret_counters);

/* The lender's side: a port, and the connections that came in by it, all on one reactor that serves nothing else. */
struct verbs_listener;

struct verbs_listener_options {
	const char *address; /* port 0: any free one */
	struct transport_target *target; /* with map and unmap */
	struct sys_reactor *reactor;	 /* created, not yet started or running */
	unsigned max_connections;
	unsigned handshake_ms; /* a connection that does not stand by then is cut */
	unsigned silence_ms;   /* a peer that shows no life for so long is cut */
};

/* Counters since the start, for the books. */
struct verbs_listener_counters {
	uint64_t accepted;	  /* requests for a connection */
	uint64_t admitted;	  /* that proved their token */
	uint64_t refused;	  /* no lease, wrong token, wrong version, replayed, too many */
	uint64_t protocol_errors; /* refused or cut for what was not ours */
	uint64_t timeouts;	  /* cut for silence, in the handshake or later */
	uint64_t connections;	  /* now */
	uint64_t windows;	  /* slabs that are registered for a lease, now */
};

/*
 * Control thread. 0; -ENODEV when there is no RDMA device, or none with that address; -EADDRINUSE and so on from listen;
 * -ENOMEM; -EINVAL.
 */
int verbs_listener_open(const struct verbs_listener_options *options,
			struct verbs_listener **ret_listener) BASE_MUST_CHECK;
/* Control thread. Cuts all connections, and gives up all windows; then frees it. Accepts NULL. */
void verbs_listener_close(struct verbs_listener *listener);
/* The address it listens on, with the port that it got. */
void verbs_listener_address(const struct verbs_listener *listener, struct sys_address *ret_address);
/* Any thread. */
void verbs_listener_counters(struct verbs_listener *listener, struct verbs_listener_counters *ret_counters);

#endif

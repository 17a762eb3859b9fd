/*
 * The lender's side of the data path: which session may touch which slab, asked once per frame.
 *
 * Owns, all allocated at start: one word per slab, its *grant* (to which lease, with which key), one record per open
 * lease, one session per data connection. It implements transport_target_ops for them, on the reactors, several at a time:
 * lookup, join, leave, renew, resolve and account with no lock, no allocation and no system call; refused the same, but for a
 * line in the log once per second; map, once per slab and lease, with a lock that is held for a few instructions. unmap may
 * wait for windows that are being revoked.
 *
 * The other side, below, is called by control threads, one at a time (under the lock of server/ctl).
 *
 * To take a slab back: expose_revoke, then expose_synchronize (one for any number of slabs, and without any lock that
 * others wait for). After that no reactor holds a pointer into it: a resolve that saw the old grant did so in a turn
 * that has ended. Nor does a device: the windows by which transports had opened it (transport_window) have been revoked
 * by then, each of them, whoever's slab it was. Only then may the slab be scrubbed. One whose window could not be revoked
 * (expose_is_stuck) is neither scrubbed nor lent any more.
 */
#ifndef FARSWAP_SERVER_EXPOSE_EXPOSE_H
#define FARSWAP_SERVER_EXPOSE_EXPOSE_H

#include "common/transport/target.h"
#include "server/arena/arena.h"

#define EXPOSE_MAX_LEASES (1u << 16)
#define EXPOSE_MAX_SESSIONS (1u << 16)

struct expose;
struct expose_lease; /* what the data path knows of a lease */

struct expose_options {
	struct arena *arena;	     /* outlives the exposition */
	uint32_t max_leases;	     /* 1 .. EXPOSE_MAX_LEASES */
	uint32_t max_sessions;	     /* 1 .. EXPOSE_MAX_SESSIONS */
	uint32_t max_lease_sessions; /* of one lease, so that no client takes them all; 0: max_sessions */
};

/* 0, -ENOMEM, -EINVAL, -ENOSYS when libsodium has no source of random numbers. */
int expose_create(const struct expose_options *options, struct expose **ret_expose) BASE_MUST_CHECK;
/* No session may be left. Accepts NULL. */
void expose_free(struct expose *expose);

/* What the transports' listeners are given. Its instance_id is drawn here. */
struct transport_target *expose_target(struct expose *expose);

/*
 * Lets connections in for a lease. The record stays valid until expose_lease_remove. 0; -EMFILE when every record is in
 * use, those of ended leases whose connections are still being cut included.
 */
int expose_lease_add(struct expose *expose, uint64_t lease_id, const uint8_t token[TRANSPORT_TOKEN_BYTES],
		     uint64_t now_ns, struct expose_lease **ret_lease) BASE_MUST_CHECK;
/*
 * Shuts the lease's door: nobody joins it any more, renew answers -ESTALE, so that the transport cuts its connections.
 * Every slab must have been revoked before, and expose_synchronize come between this and expose_lease_remove.
 */
void expose_lease_end(struct expose *expose, struct expose_lease *lease);
/* Gives the record back; it is used again once its last connection has left. */
void expose_lease_remove(struct expose *expose, struct expose_lease *lease);

/* Opens a slab to the sessions of a lease. The slab must be nobody's; key is not 0. */
void expose_grant(struct expose *expose, struct expose_lease *lease, uint32_t slab, uint32_t key);
/* From the next resolve on nobody reaches the slab; safe if nobody did. */
void expose_revoke(struct expose *expose, uint32_t slab);

/*
 * Waits until no reactor is in a turn that began before, and revokes the windows of all slabs that have been taken back.
 * Blocks for as long as a turn and as the transports need for that; outside every lock.
 */
void expose_synchronize(struct expose *expose);
/* After expose_synchronize, of a slab that has been taken back: whether a device may reach it all the same. */
bool expose_is_stuck(struct expose *expose, uint32_t slab) BASE_MUST_CHECK;

/* What the data path has to tell of one lease. Each number only grows, but for nr_sessions. */
struct expose_lease_info {
	uint64_t renewed_ns;
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint32_t nr_sessions;
};
void expose_lease_info(const struct expose_lease *lease, struct expose_lease_info *ret_info);

/* Of all leases, since the start, for the books. */
struct expose_counters {
	uint64_t denied_access; /* operations on a slab that was not theirs, or with a wrong key */
	uint64_t denied_range;	/* operations outside a slab */
	uint64_t refused;	/* connections refused or cut by the transport, with its error */
	uint32_t nr_sessions;	/* now */
};
void expose_counters(const struct expose *expose, struct expose_counters *ret_counters);

#endif

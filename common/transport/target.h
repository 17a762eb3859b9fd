/*
 * The lender's side of the transport contract: what a transport asks of whoever owns the memory.
 *
 * The owner (server/expose, or a test) implements transport_target_ops. All calls come on the threads of the reactors
 * that serve connections, several at a time; none may block or allocate. Pointers that resolve hands out are used only
 * until the reactor's turn ends, or until the session's next resolve of the same operation: a transport that needs more
 * turns for one operation asks again. That, and a grace period of RCU after a key is revoked, is what makes it safe to
 * use revoked memory again.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_TARGET_H
#define FARSWAP_COMMON_TRANSPORT_TARGET_H

#include "common/transport/transport.h"

struct transport_target;
struct transport_session; /* the owner's, one per connection that was admitted */

struct transport_target_ops {
	/*
	 * Required. The token of a lease, so that the peer's proof can be checked. 0, or -ESTALE when there is no such lease.
	 */
	int (*lookup)(struct transport_target *target, uint64_t lease_id, uint8_t ret_token[TRANSPORT_TOKEN_BYTES]);
	/*
	 * Required. The peer has proven the token: a session begins. 0; -ESTALE when the lease has ended meanwhile; -EMFILE
	 * when no more sessions can be had. When the lease ends later, renew and resolve answer -ESTALE and -EACCES; the
	 * transport asks renew of every session at least once per second, and cuts the connection on -ESTALE.
	 */
	int (*join)(struct transport_target *target, uint64_t lease_id, uint32_t channel, const char *peer,
		    struct transport_session **ret_session);
	/* Required. The connection has ended. */
	void (*leave)(struct transport_target *target, struct transport_session *session);
	/*
	 * Required. alive: the peer has shown life since the last call, so the lease is renewed; else it is only asked whether
	 * the lease still stands. At most once per turn and session. 0, or -ESTALE: the lease has ended.
	 */
	int (*renew)(struct transport_target *target, struct transport_session *session, bool alive, uint64_t now_ns);
	/*
	 * Required. Where the bytes of an operation are. 0; -EACCES no lease on that slab or a wrong key; -ERANGE outside the
	 * slab.
	 */
	int (*resolve)(struct transport_target *target, struct transport_session *session, enum transport_opcode opcode,
		       uint32_t slab, uint32_t key, uint64_t offset_bytes, uint32_t len_bytes, void **ret_bytes);
	/* Required. For the books: an operation of len_bytes has been done. */
	void (*account)(struct transport_target *target, struct transport_session *session, enum transport_opcode opcode,
			uint32_t len_bytes);
	/*
	 * Required. For the books: a connection was refused or cut for err: -EPROTO garbage, -EPIPE it went away within a
	 * frame, -EACCES a wrong proof, and so on.
	 */
	void (*refused)(struct transport_target *target, const char *peer, int err);
};

struct transport_target {
	const struct transport_target_ops *ops;
	uint64_t instance_id; /* random at start; tells a restarted lender from the one before */
};

#endif

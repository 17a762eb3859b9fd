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

#include <sys/queue.h>

struct transport_target;
struct transport_session; /* the owner's, one per connection that was admitted */

/*
 * A slab that a transport has opened to one lease in a way that asks nobody any more: an RDMA device carries out the peer's
 * operations by itself. The transport's; between map and either revoke or unmap it is in the owner's books.
 */
struct transport_window {
	/*
	 * Required. The slab is taken back: when this returns 0, no operation touches its memory by this window any more.
	 * A negative errno: the device has not said so, and the owner gives the memory to nobody again. On a control
	 * thread, once, with no lock held that map takes; the window is the transport's again from its begin on.
	 */
	int (*revoke)(struct transport_window *window);
	/* The owner's, while it is mapped. */
	LIST_ENTRY(transport_window) link;
	uint32_t slab;
	bool mapped; /* the owner's */
};

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
	/*
	 * Optional (NULL), for transports whose peers reach memory without being asked about; they do not listen without it.
	 * Gives the whole of a slab: the window is in the books before this returns, so that nobody takes the slab back
	 * behind its back. On the reactor's thread; takes a lock for a few instructions. 0; -EACCES no lease on that slab
	 * or a wrong key.
	 */
	int (*map)(struct transport_target *target, struct transport_session *session, uint32_t slab, uint32_t key,
		   struct transport_window *window, void **ret_base, uint64_t *ret_len_bytes);
	/*
	 * Required with map. The transport gives a window up by itself, and no operation touches the slab by it any more;
	 * safe if it has been revoked. When this returns, revoke does not run and will not. May wait for one that runs, so it
	 * is called under no lock that revoke takes.
	 */
	void (*unmap)(struct transport_target *target, struct transport_window *window);
	/* Required. For the books: operations of len_bytes in all have been done. */
	void (*account)(struct transport_target *target, struct transport_session *session, enum transport_opcode opcode,
			uint64_t len_bytes);
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

/*
 * Who has come in by a port: the peers that are free, those that have not proven themselves, and those that have, in the
 * order in which they did. All of it under the listener's lock.
 *
 * Fencing: of the proven peers of one lease and channel only the oldest has a session. A newer one tells all older ones
 * to end, waits, and looks again each time one has: so the newest wins in the end, whatever the order of messages.
 */
#include <errno.h>

#include "common/transport/tcp/listener.h"

static void listener_nudge(struct tcp_listener *listener, struct tcp_peer *peer) LOCK_REQUIRES(listener->lock)
{
	if (peer->nudged || listener->closing)
		return;
	peer->nudged = true;
	sys_reactor_send(peer->worker->reactor, &peer->nudge);
}

static bool peers_collide(const struct tcp_peer *a, const struct tcp_peer *b)
{
	return a->auth.lease_id == b->auth.lease_id && a->auth.channel == b->auth.channel;
}

/* True when the peer takes the place of one that it will fence: then it does not make them more. */
static bool listener_replaces(struct tcp_listener *listener, const struct tcp_peer *peer) LOCK_REQUIRES(listener->lock)
{
	struct tcp_peer *other;

	TAILQ_FOREACH(other, &listener->proven, table_link)
		if (!other->unwanted && peers_collide(other, peer))
			return true;
	return false;
}

int tcp_listener_enter(struct tcp_listener *listener, struct tcp_peer *peer)
{
	int err = 0;

	lock_acquire(&listener->lock);
	if (peer->unwanted || listener->closing) {
		err = -ECANCELED;
	} else if (listener->nr_admitted >= listener->options.max_connections && !listener_replaces(listener, peer)) {
		err = -EMFILE;
	} else {
		listener->nr_admitted++;
		peer->admitted = true;
		peer->serial = ++listener->last_serial;
		TAILQ_REMOVE(&listener->greeted, peer, table_link);
		TAILQ_INSERT_TAIL(&listener->proven, peer, table_link);
	}
	lock_release(&listener->lock);
	return err;
}

bool tcp_listener_fence(struct tcp_listener *listener, struct tcp_peer *peer)
{
	struct tcp_peer *other;
	bool alone = true;

	lock_acquire(&listener->lock);
	TAILQ_FOREACH(other, &listener->proven, table_link) {
		if (other->serial >= peer->serial)
			break; /* in order of their serials */
		if (!peers_collide(other, peer))
			continue;
		alone = false;
		other->unwanted = true;
		listener_nudge(listener, other);
	}
	lock_release(&listener->lock);
	return alone;
}

static void listener_put_peer(struct tcp_listener *listener, struct tcp_peer *peer) LOCK_REQUIRES(listener->lock)
{
	peer->state = TCP_PEER_FREE;
	TAILQ_INSERT_TAIL(&listener->free, peer, table_link);
	if (!listener->paused || listener->resuming || listener->closing)
		return;
	listener->paused = false;
	listener->resuming = true;
	sys_reactor_send(listener->workers[0].reactor, &listener->resume);
}

void tcp_listener_release(struct tcp_listener *listener, struct tcp_peer *peer)
{
	struct tcp_peer *other;

	lock_acquire(&listener->lock);
	if (peer->admitted) {
		TAILQ_REMOVE(&listener->proven, peer, table_link);
		listener->nr_admitted--;
		TAILQ_FOREACH(other, &listener->proven, table_link)
			if (other->serial > peer->serial && peers_collide(other, peer))
				listener_nudge(listener, other);
	} else {
		TAILQ_REMOVE(&listener->greeted, peer, table_link);
	}
	peer->admitted = false;
	peer->serial = 0;
	peer->unwanted = false;
	peer->state = TCP_PEER_CUT;
	if (!peer->nudged)
		listener_put_peer(listener, peer);
	lock_release(&listener->lock);
	atomic_fetch_sub_explicit(&listener->connections, 1, memory_order_relaxed);
}

bool tcp_listener_take_nudge(struct tcp_listener *listener, struct tcp_peer *peer)
{
	bool unwanted;

	lock_acquire(&listener->lock);
	peer->nudged = false;
	unwanted = peer->unwanted || listener->closing;
	if (peer->state == TCP_PEER_CUT)
		listener_put_peer(listener, peer);
	lock_release(&listener->lock);
	return unwanted;
}

bool tcp_listener_has_room(struct tcp_listener *listener)
{
	struct tcp_peer *peer;
	bool room;

	lock_acquire(&listener->lock);
	room = !TAILQ_EMPTY(&listener->free);
	listener->paused = !room;
	if (!room) {
		TAILQ_FOREACH(peer, &listener->greeted, table_link)
			if (!peer->unwanted)
				break;
		if (peer) {
			peer->unwanted = true;
			listener_nudge(listener, peer);
		}
	}
	lock_release(&listener->lock);
	return room;
}

void tcp_listener_give(struct tcp_listener *listener, int fd, const struct sys_address *address)
{
	struct tcp_peer *peer;

	atomic_fetch_add_explicit(&listener->accepted, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&listener->connections, 1, memory_order_relaxed);
	sys_socket_tune(fd, 0, 0);
	lock_acquire(&listener->lock);
	peer = TAILQ_FIRST(&listener->free);
	TAILQ_REMOVE(&listener->free, peer, table_link);
	TAILQ_INSERT_TAIL(&listener->greeted, peer, table_link);
	peer->worker = &listener->workers[listener->next_worker];
	listener->next_worker = (listener->next_worker + 1) % listener->nr_workers;
	peer->watch.fd = fd;
	sys_address_format(address, peer->name);
	listener_nudge(listener, peer);
	lock_release(&listener->lock);
}

/*
 * Ordering. A grant is stored with release after the slab was scrubbed and loaded with acquire by resolve, so whoever
 * sees the grant sees the zeroes. Revoking is a plain store of 0: what makes it safe is not its order but the grace
 * period that follows (every reactor is inside a read-side section of RCU for the whole of a turn). A lease's id is
 * published the same way: the token is written before the id is stored with release, and is not written again before a
 * grace period has passed since the id was cleared and the last session has left. Counters are relaxed: nothing is
 * decided by them.
 */
#include "server/expose/expose.h"

#include <assert.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/lock.h"
#include "common/log/log.h"
#include "common/sys/rcu.h"

/* Sessions of one lease count in different cache lines, as long as there are no more of them than this. */
#define NR_SHARDS 8u

struct expose_shard {
	atomic_uint_fast64_t bytes_read;
	atomic_uint_fast64_t bytes_written;
} __attribute__((aligned(FSW_CACHE_LINE)));

struct expose_lease {
	atomic_uint_fast64_t id; /* 0: ended or unused */
	bool in_use;		 /* the control side's */
	uint8_t token[TRANSPORT_TOKEN_BYTES];
	atomic_uint_fast64_t renewed_ns;
	atomic_uint nr_sessions;
	struct expose_shard shards[NR_SHARDS];
};

struct transport_session {
	/*
	 * Lease and channel, see session_who; 0 when it has been fenced by a newer connection on the same channel, or
	 * has ended. The lease's half is what a grant is compared with.
	 */
	atomic_uint_fast64_t who;
	atomic_bool in_use;
	struct expose_lease *lease;
	struct expose_shard *shard;
} __attribute__((aligned(FSW_CACHE_LINE)));

LIST_HEAD(expose_window_list, transport_window);

struct expose {
	struct transport_target target;
	uint64_t slab_bytes;
	uint32_t nr_slabs;
	char *base; /* of slab 0; they lie one after the other */
	atomic_uint_fast64_t *grants; /* per slab: lease_mark in the high half, key in the low; 0: nobody's */

	uint32_t max_leases;
	struct expose_lease *leases;
	uint32_t max_sessions;
	uint32_t max_lease_sessions;
	struct transport_session *sessions;

	/* Held while windows are revoked, so that whoever waits for his own slabs waits for all that are on their way. */
	struct lock_mutex revoking;
	struct lock_mutex windows_lock;
	struct expose_window_list *windows LOCK_GUARDED_BY(windows_lock); /* per slab; empty for one that is nobody's */
	struct expose_window_list revoked LOCK_GUARDED_BY(windows_lock);  /* taken back, revoke has not run */
	/* Per slab: by so many windows a device may reach it. Those of which revoke has failed stay in here. */
	uint32_t *nr_windows LOCK_GUARDED_BY(windows_lock);

	atomic_uint_fast64_t denied_access;
	atomic_uint_fast64_t denied_range;
	atomic_uint_fast64_t refused;
	atomic_uint nr_sessions;
	struct log_limit refused_log;
	struct log_limit stuck_log;
};

/* The number that stands for a lease in grants and sessions; never 0, used again only when no session has it. */
static uint32_t lease_mark(const struct expose *expose, const struct expose_lease *lease)
{
	return (uint32_t)(lease - expose->leases) + 1;
}

static uint64_t session_who(uint32_t mark, uint32_t channel)
{
	return (uint64_t)mark << 32 | channel;
}

static struct expose *target_expose(struct transport_target *target)
{
	return BASE_CONTAINER_OF(target, struct expose, target);
}

/* A walk over the table: connections are made rarely, and the ids of a thousand leases are read in microseconds. */
static struct expose_lease *expose_find_lease(struct expose *expose, uint64_t lease_id)
{
	if (lease_id == 0)
		return NULL;
	for (uint32_t i = 0; i < expose->max_leases; i++) {
		if (atomic_load_explicit(&expose->leases[i].id, memory_order_acquire) == lease_id)
			return &expose->leases[i];
	}
	return NULL;
}

static int expose_lookup(struct transport_target *target, uint64_t lease_id, uint8_t ret_token[TRANSPORT_TOKEN_BYTES])
{
	const struct expose_lease *lease = expose_find_lease(target_expose(target), lease_id);

	if (!lease)
		return -ESTALE;
	memcpy(ret_token, lease->token, TRANSPORT_TOKEN_BYTES);
	return 0;
}

static struct transport_session *expose_claim_session(struct expose *expose)
{
	for (uint32_t i = 0; i < expose->max_sessions; i++) {
		struct transport_session *session = &expose->sessions[i];
		bool in_use = false;

		if (!atomic_load_explicit(&session->in_use, memory_order_relaxed) &&
		    atomic_compare_exchange_strong(&session->in_use, &in_use, true))
			return session;
	}
	return NULL;
}

/*
 * From now on no other session has this lease and channel. The compare-and-swap takes none but the one it means: a
 * session that left and was claimed again meanwhile has another `who`, or is another connection on the same channel,
 * which only happens when two are made at the same time; then both may lose, and the client makes a new one.
 */
static void expose_fence_others(struct expose *expose, const struct transport_session *session, uint64_t who)
{
	for (uint32_t i = 0; i < expose->max_sessions; i++) {
		struct transport_session *other = &expose->sessions[i];
		uint64_t expected = who;

		if (other != session)
			atomic_compare_exchange_strong(&other->who, &expected, 0);
	}
}

static int expose_join(struct transport_target *target, uint64_t lease_id, uint32_t channel, const char *peer,
		       struct transport_session **ret_session)
{
	struct expose *expose = target_expose(target);
	struct expose_lease *lease = expose_find_lease(expose, lease_id);
	struct transport_session *session;
	uint64_t who;

	(void)peer; /* the transport reports the refusal */
	if (!lease)
		return -ESTALE;
	/*
	 * The lease may end at this very moment. Its record cannot become another's: that takes a grace period since
	 * the id was cleared, in which this turn ends, and by then the session has been counted.
	 */
	if (atomic_fetch_add_explicit(&lease->nr_sessions, 1, memory_order_relaxed) >= expose->max_lease_sessions)
		goto no_room;
	session = expose_claim_session(expose);
	if (!session)
		goto no_room;
	session->lease = lease;
	session->shard = &lease->shards[(size_t)(session - expose->sessions) % NR_SHARDS];
	atomic_fetch_add_explicit(&expose->nr_sessions, 1, memory_order_relaxed);
	who = session_who(lease_mark(expose, lease), channel);
	atomic_store(&session->who, who);
	expose_fence_others(expose, session, who);
	*ret_session = session;
	return 0;

no_room:
	atomic_fetch_sub_explicit(&lease->nr_sessions, 1, memory_order_release);
	return -EMFILE;
}

static void expose_leave(struct transport_target *target, struct transport_session *session)
{
	struct expose *expose = target_expose(target);

	atomic_store(&session->who, 0);
	atomic_fetch_sub_explicit(&expose->nr_sessions, 1, memory_order_relaxed);
	/* Release: whoever sees that no session is left sees also all that this one did to the record. */
	atomic_fetch_sub_explicit(&session->lease->nr_sessions, 1, memory_order_release);
	atomic_store_explicit(&session->in_use, false, memory_order_release);
}

static int expose_renew(struct transport_target *target, struct transport_session *session, bool alive, uint64_t now_ns)
{
	struct expose_lease *lease = session->lease;

	(void)target;
	if (atomic_load_explicit(&session->who, memory_order_relaxed) == 0 ||
	    atomic_load_explicit(&lease->id, memory_order_relaxed) == 0)
		return -ESTALE;
	if (alive)
		atomic_store_explicit(&lease->renewed_ns, now_ns, memory_order_relaxed);
	return 0;
}

static int expose_resolve(struct transport_target *target, struct transport_session *session,
			  enum transport_opcode opcode, uint32_t slab, uint32_t key, uint64_t offset_bytes,
			  uint32_t len_bytes, void **ret_bytes)
{
	struct expose *expose = target_expose(target);
	uint32_t mark = (uint32_t)(atomic_load_explicit(&session->who, memory_order_relaxed) >> 32);
	uint64_t grant;

	(void)opcode;
	/* mark and key are 0 in a fenced session's guess at a slab that is nobody's, whose grant is 0 too. */
	if (BASE_UNLIKELY(slab >= expose->nr_slabs || mark == 0 || key == 0))
		goto denied;
	grant = atomic_load_explicit(&expose->grants[slab], memory_order_acquire);
	if (BASE_UNLIKELY(grant != ((uint64_t)mark << 32 | key)))
		goto denied;
	if (BASE_UNLIKELY(offset_bytes > expose->slab_bytes || len_bytes > expose->slab_bytes - offset_bytes)) {
		atomic_fetch_add_explicit(&expose->denied_range, 1, memory_order_relaxed);
		return -ERANGE;
	}
	*ret_bytes = expose->base + (uint64_t)slab * expose->slab_bytes + offset_bytes;
	return 0;

denied:
	atomic_fetch_add_explicit(&expose->denied_access, 1, memory_order_relaxed);
	return -EACCES;
}

static int expose_map(struct transport_target *target, struct transport_session *session, uint32_t slab, uint32_t key,
		      struct transport_window *window, void **ret_base, uint64_t *ret_len_bytes)
{
	struct expose *expose = target_expose(target);
	int ret;

	/* The grant is looked at under the lock under which it is taken away: so a window is never late for that. */
	lock_acquire(&expose->windows_lock);
	ret = expose_resolve(target, session, TRANSPORT_READ, slab, key, 0, 0, ret_base);
	if (ret == 0) {
		LIST_INSERT_HEAD(&expose->windows[slab], window, link);
		window->slab = slab;
		window->mapped = true;
		expose->nr_windows[slab]++;
		*ret_len_bytes = expose->slab_bytes;
	}
	lock_release(&expose->windows_lock);
	return ret;
}

static void expose_unmap(struct transport_target *target, struct transport_window *window)
{
	struct expose *expose = target_expose(target);

	lock_acquire(&expose->revoking);
	lock_acquire(&expose->windows_lock);
	if (window->mapped) {
		LIST_REMOVE(window, link);
		expose->nr_windows[window->slab]--;
	}
	window->mapped = false;
	lock_release(&expose->windows_lock);
	lock_release(&expose->revoking);
}

static void expose_account(struct transport_target *target, struct transport_session *session,
			   enum transport_opcode opcode, uint64_t len_bytes)
{
	struct expose_shard *shard = session->shard;

	(void)target;
	atomic_fetch_add_explicit(opcode == TRANSPORT_READ ? &shard->bytes_read : &shard->bytes_written, len_bytes,
				  memory_order_relaxed);
}

static void expose_refused(struct transport_target *target, const char *peer, int err)
{
	struct expose *expose = target_expose(target);
	uint64_t nr_left_out;

	atomic_fetch_add_explicit(&expose->refused, 1, memory_order_relaxed);
	if (log_limit_pass(&expose->refused_log, &nr_left_out))
		log_warning("%s: data connection refused or cut: %s (%llu more like it)", peer, err_text(err),
			    (unsigned long long)nr_left_out);
}

static const struct transport_target_ops expose_ops = {
	.lookup = expose_lookup,
	.join = expose_join,
	.leave = expose_leave,
	.renew = expose_renew,
	.resolve = expose_resolve,
	.map = expose_map,
	.unmap = expose_unmap,
	.account = expose_account,
	.refused = expose_refused,
};

int expose_create(const struct expose_options *options, struct expose **ret_expose)
{
	struct expose *expose;

	if (options->max_leases == 0 || options->max_leases > EXPOSE_MAX_LEASES || options->max_sessions == 0 ||
	    options->max_sessions > EXPOSE_MAX_SESSIONS)
		return -EINVAL;
	if (sodium_init() < 0)
		return -ENOSYS;
	expose = calloc(1, sizeof(*expose));
	if (!expose)
		return -ENOMEM;
	lock_mutex_init(&expose->revoking);
	lock_mutex_init(&expose->windows_lock);
	expose->target.ops = &expose_ops;
	randombytes_buf(&expose->target.instance_id, sizeof(expose->target.instance_id));
	expose->nr_slabs = arena_nr_slabs(options->arena);
	expose->slab_bytes = arena_slab_bytes(options->arena);
	expose->base = arena_slab_base(options->arena, 0);
	expose->max_leases = options->max_leases;
	expose->max_sessions = options->max_sessions;
	expose->max_lease_sessions = options->max_lease_sessions ? options->max_lease_sessions : options->max_sessions;
	expose->grants = calloc(expose->nr_slabs, sizeof(*expose->grants));
	expose->leases = aligned_alloc(FSW_CACHE_LINE, expose->max_leases * sizeof(*expose->leases));
	expose->sessions = aligned_alloc(FSW_CACHE_LINE, expose->max_sessions * sizeof(*expose->sessions));
	lock_acquire(&expose->windows_lock);
	expose->windows = calloc(expose->nr_slabs, sizeof(*expose->windows)); /* a list of zeros is an empty one */
	expose->nr_windows = calloc(expose->nr_slabs, sizeof(*expose->nr_windows));
	lock_release(&expose->windows_lock);
	if (!expose->grants || !expose->leases || !expose->sessions || !expose->windows || !expose->nr_windows) {
		expose_free(expose);
		return -ENOMEM;
	}
	memset(expose->leases, 0, expose->max_leases * sizeof(*expose->leases));
	memset(expose->sessions, 0, expose->max_sessions * sizeof(*expose->sessions));
	*ret_expose = expose;
	return 0;
}

void expose_free(struct expose *expose)
{
	if (!expose)
		return;
	assert(atomic_load(&expose->nr_sessions) == 0);
	free(expose->sessions);
	if (expose->leases)
		sodium_memzero(expose->leases, expose->max_leases * sizeof(*expose->leases));
	free(expose->leases);
	free(expose->nr_windows);
	free(expose->windows);
	free(expose->grants);
	lock_mutex_done(&expose->windows_lock);
	lock_mutex_done(&expose->revoking);
	free(expose);
}

struct transport_target *expose_target(struct expose *expose)
{
	return &expose->target;
}

int expose_lease_add(struct expose *expose, uint64_t lease_id, const uint8_t token[TRANSPORT_TOKEN_BYTES],
		     uint64_t now_ns, struct expose_lease **ret_lease)
{
	assert(lease_id != 0);
	for (uint32_t i = 0; i < expose->max_leases; i++) {
		struct expose_lease *lease = &expose->leases[i];

		/* Acquire pairs with the release in leave: the last session is done with the record. */
		if (lease->in_use || atomic_load_explicit(&lease->nr_sessions, memory_order_acquire) != 0)
			continue;
		lease->in_use = true;
		memcpy(lease->token, token, TRANSPORT_TOKEN_BYTES);
		for (unsigned j = 0; j < NR_SHARDS; j++) {
			atomic_store_explicit(&lease->shards[j].bytes_read, 0, memory_order_relaxed);
			atomic_store_explicit(&lease->shards[j].bytes_written, 0, memory_order_relaxed);
		}
		atomic_store_explicit(&lease->renewed_ns, now_ns, memory_order_relaxed);
		atomic_store_explicit(&lease->id, lease_id, memory_order_release);
		*ret_lease = lease;
		return 0;
	}
	return -EMFILE;
}

void expose_lease_end(struct expose *expose, struct expose_lease *lease)
{
	(void)expose;
	atomic_store_explicit(&lease->id, 0, memory_order_relaxed);
}

void expose_lease_remove(struct expose *expose, struct expose_lease *lease)
{
	(void)expose;
	assert(lease->in_use && atomic_load(&lease->id) == 0);
	lease->in_use = false;
}

void expose_grant(struct expose *expose, struct expose_lease *lease, uint32_t slab, uint32_t key)
{
	assert(slab < expose->nr_slabs && key != 0 && lease->in_use);
	lock_acquire(&expose->windows_lock);
	/* Whoever lends a slab that a device may still reach for the client before ends here. */
	assert(atomic_load(&expose->grants[slab]) == 0 && expose->nr_windows[slab] == 0);
	atomic_store_explicit(&expose->grants[slab], (uint64_t)lease_mark(expose, lease) << 32 | key,
			      memory_order_release);
	lock_release(&expose->windows_lock);
}

void expose_revoke(struct expose *expose, uint32_t slab)
{
	struct transport_window *window;

	assert(slab < expose->nr_slabs);
	lock_acquire(&expose->windows_lock);
	atomic_store_explicit(&expose->grants[slab], 0, memory_order_relaxed);
	while ((window = LIST_FIRST(&expose->windows[slab]))) {
		LIST_REMOVE(window, link);
		LIST_INSERT_HEAD(&expose->revoked, window, link);
	}
	lock_release(&expose->windows_lock);
}

/* The next window of a slab that is nobody's. */
static struct transport_window *expose_take_revoked(struct expose *expose) LOCK_REQUIRES(expose->revoking)
{
	struct transport_window *window;

	lock_acquire(&expose->windows_lock);
	window = LIST_FIRST(&expose->revoked);
	if (window) {
		LIST_REMOVE(window, link);
		window->mapped = false;
	}
	lock_release(&expose->windows_lock);
	return window;
}

static void expose_revoke_window(struct expose *expose, struct transport_window *window) LOCK_REQUIRES(expose->revoking)
{
	uint32_t slab = window->slab;
	uint64_t nr_left_out;
	int err = window->revoke(window);

	if (err == 0) {
		lock_acquire(&expose->windows_lock);
		expose->nr_windows[slab]--;
		lock_release(&expose->windows_lock);
	} else if (log_limit_pass(&expose->stuck_log, &nr_left_out)) {
		log_error("slab %u: the RDMA device does not let go of it (%s): it is not lent again (%llu more like it)",
			  slab, err_text(err), (unsigned long long)nr_left_out);
	}
}

void expose_synchronize(struct expose *expose)
{
	struct transport_window *window;

	sys_rcu_synchronize();
	lock_acquire(&expose->revoking);
	while ((window = expose_take_revoked(expose)))
		expose_revoke_window(expose, window);
	lock_release(&expose->revoking);
}

bool expose_is_stuck(struct expose *expose, uint32_t slab)
{
	bool stuck;

	assert(slab < expose->nr_slabs);
	lock_acquire(&expose->windows_lock);
	stuck = expose->nr_windows[slab] > 0;
	lock_release(&expose->windows_lock);
	return stuck;
}

void expose_lease_info(const struct expose_lease *lease, struct expose_lease_info *ret_info)
{
	struct expose_lease_info info = {
		.renewed_ns = atomic_load_explicit(&lease->renewed_ns, memory_order_relaxed),
		.nr_sessions = atomic_load_explicit(&lease->nr_sessions, memory_order_relaxed),
	};

	for (unsigned i = 0; i < NR_SHARDS; i++) {
		info.bytes_read += atomic_load_explicit(&lease->shards[i].bytes_read, memory_order_relaxed);
		info.bytes_written += atomic_load_explicit(&lease->shards[i].bytes_written, memory_order_relaxed);
	}
	*ret_info = info;
}

void expose_counters(const struct expose *expose, struct expose_counters *ret_counters)
{
	*ret_counters = (struct expose_counters){
		.denied_access = atomic_load_explicit(&expose->denied_access, memory_order_relaxed),
		.denied_range = atomic_load_explicit(&expose->denied_range, memory_order_relaxed),
		.refused = atomic_load_explicit(&expose->refused, memory_order_relaxed),
		.nr_sessions = atomic_load_explicit(&expose->nr_sessions, memory_order_relaxed),
	};
}

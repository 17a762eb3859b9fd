#include "tests/conform/target.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/rcu.h"

static struct target *target_from_head(struct transport_target *head)
{
	return BASE_CONTAINER_OF(head, struct target, head);
}

static struct target_lease *target_find(struct target *target, uint64_t lease_id)
{
	for (unsigned i = 0; i < target->nr_leases; i++)
		if (target->leases[i].id == lease_id && !atomic_load(&target->leases[i].ended))
			return &target->leases[i];
	return NULL;
}

static void target_book(struct target *target, atomic_uint *book)
{
	pthread_mutex_lock(&target->lock);
	atomic_fetch_add(book, 1);
	pthread_cond_broadcast(&target->changed);
	pthread_mutex_unlock(&target->lock);
}

static int target_lookup(struct transport_target *head, uint64_t lease_id, uint8_t ret_token[TRANSPORT_TOKEN_BYTES])
{
	struct target_lease *lease = target_find(target_from_head(head), lease_id);

	target_book(target_from_head(head), &target_from_head(head)->nr_lookups);
	if (!lease)
		return -ESTALE;
	memcpy(ret_token, lease->token, TRANSPORT_TOKEN_BYTES);
	return 0;
}

static int target_join(struct transport_target *head, uint64_t lease_id, uint32_t channel, const char *peer,
		       struct transport_session **ret_session)
{
	struct target *target = target_from_head(head);
	struct target_lease *lease = target_find(target, lease_id);
	struct transport_session *session = NULL;
	bool no = false;

	(void)peer;
	if (!lease)
		return -ESTALE;
	for (unsigned i = 0; i < TARGET_MAX_SESSIONS; i++) {
		struct transport_session *other = &target->sessions[i];

		no = false;
		if (!session && atomic_compare_exchange_strong(&other->joined, &no, true))
			session = other;
		else if (atomic_load(&other->joined) && other->lease == lease && other->channel == channel)
			atomic_fetch_add(&target->nr_collided, 1);
	}
	if (!session)
		return -EMFILE;
	session->lease = lease;
	session->channel = channel;
	atomic_fetch_add(&target->nr_joined, 1);
	target_book(target, &target->nr_joins);
	*ret_session = session;
	return 0;
}

static void target_leave(struct transport_target *head, struct transport_session *session)
{
	session->lease = NULL;
	atomic_store(&session->joined, false);
	atomic_fetch_sub(&target_from_head(head)->nr_joined, 1);
}

static int target_renew(struct transport_target *head, struct transport_session *session, bool alive, uint64_t now_ns)
{
	struct target *target = target_from_head(head);

	(void)now_ns;
	if (atomic_load(&session->lease->ended))
		return -ESTALE;
	target_book(target, alive ? &target->nr_renewals : &target->nr_asked);
	return 0;
}

static int target_resolve(struct transport_target *head, struct transport_session *session, enum transport_opcode opcode,
			  uint32_t slab, uint32_t key, uint64_t offset_bytes, uint32_t len_bytes, void **ret_bytes)
{
	struct target *target = target_from_head(head);
	struct target_slab *s;

	(void)opcode;
	if (slab >= target->nr_slabs)
		return -EACCES;
	s = &target->slabs[slab];
	if (s->lease != session->lease || s->key != key || atomic_load(&s->lease->ended) || atomic_load(&s->revoked))
		return -EACCES;
	if (offset_bytes > s->len_bytes || len_bytes > s->len_bytes - offset_bytes)
		return -ERANGE;
	*ret_bytes = s->bytes + offset_bytes;
	return 0;
}

static int target_map(struct transport_target *head, struct transport_session *session, uint32_t slab, uint32_t key,
		      struct transport_window *window, void **ret_base, uint64_t *ret_len_bytes)
{
	struct target *target = target_from_head(head);
	int err;

	pthread_mutex_lock(&target->lock);
	err = target_resolve(head, session, TRANSPORT_READ, slab, key, 0, 0, ret_base);
	if (err == 0) {
		LIST_INSERT_HEAD(&target->slabs[slab].windows, window, link);
		window->mapped = true;
		*ret_len_bytes = target->slabs[slab].len_bytes;
	}
	pthread_mutex_unlock(&target->lock);
	return err;
}

static void target_unmap(struct transport_target *head, struct transport_window *window)
{
	struct target *target = target_from_head(head);

	pthread_mutex_lock(&target->revoking);
	pthread_mutex_lock(&target->lock);
	if (window->mapped)
		LIST_REMOVE(window, link);
	window->mapped = false;
	pthread_mutex_unlock(&target->lock);
	pthread_mutex_unlock(&target->revoking);
}

static void target_account(struct transport_target *head, struct transport_session *session,
			   enum transport_opcode opcode, uint64_t len_bytes)
{
	(void)session;
	(void)opcode;
	atomic_fetch_add_explicit(&target_from_head(head)->accounted_bytes, len_bytes, memory_order_relaxed);
}

static void target_refused(struct transport_target *head, const char *peer, int err)
{
	struct target *target = target_from_head(head);

	(void)peer;
	atomic_store(&target->last_refusal, err);
	target_book(target, &target->nr_refused);
}

static const struct transport_target_ops target_ops = {
	.lookup = target_lookup,
	.join = target_join,
	.leave = target_leave,
	.renew = target_renew,
	.resolve = target_resolve,
	.map = target_map,
	.unmap = target_unmap,
	.account = target_account,
	.refused = target_refused,
};

void target_init(struct target *target, uint64_t instance_id)
{
	memset(target, 0, sizeof(*target));
	target->head.ops = &target_ops;
	target->head.instance_id = instance_id;
	pthread_mutex_init(&target->revoking, NULL);
	pthread_mutex_init(&target->lock, NULL);
	pthread_cond_init(&target->changed, NULL);
}

void target_done(struct target *target)
{
	assert(atomic_load(&target->nr_joined) == 0);
	for (unsigned i = 0; i < target->nr_slabs; i++) {
		assert(LIST_EMPTY(&target->slabs[i].windows));
		mem_region_close(&target->slabs[i].memory);
	}
	pthread_mutex_destroy(&target->revoking);
	pthread_cond_destroy(&target->changed);
	pthread_mutex_destroy(&target->lock);
}

void target_token(uint64_t lease_id, uint8_t ret_token[TRANSPORT_TOKEN_BYTES])
{
	for (unsigned i = 0; i < TRANSPORT_TOKEN_BYTES; i++)
		ret_token[i] = (uint8_t)(lease_id * 31 + i * 7 + 5);
}

void target_lease_add(struct target *target, uint64_t lease_id)
{
	struct target_lease *lease = &target->leases[target->nr_leases++];

	assert(target->nr_leases <= TARGET_MAX_LEASES);
	lease->id = lease_id;
	target_token(lease_id, lease->token);
}

uint32_t target_slab_add(struct target *target, uint64_t lease_id, uint32_t key, uint32_t len_bytes)
{
	struct target_slab *slab = &target->slabs[target->nr_slabs];
	int err;

	assert(target->nr_slabs < TARGET_MAX_SLABS);
	slab->lease = target_find(target, lease_id);
	slab->key = key;
	slab->len_bytes = len_bytes;
	err = mem_region_open(&slab->memory, len_bytes, MEM_REGION_TRY_HUGE);
	assert(slab->lease && err == 0);
	(void)err;
	slab->bytes = slab->memory.base;
	return target->nr_slabs++;
}

void target_lease_end(struct target *target, uint64_t lease_id)
{
	struct target_lease *lease = target_find(target, lease_id);

	if (lease)
		atomic_store(&lease->ended, true);
}

void target_slab_revoke(struct target *target, uint32_t slab)
{
	struct transport_window *window;

	pthread_mutex_lock(&target->revoking);
	pthread_mutex_lock(&target->lock);
	atomic_store(&target->slabs[slab].revoked, true);
	while ((window = LIST_FIRST(&target->slabs[slab].windows))) {
		LIST_REMOVE(window, link);
		window->mapped = false;
		pthread_mutex_unlock(&target->lock);
		if (window->revoke(window) < 0)
			atomic_store(&target->slabs[slab].stuck, true);
		pthread_mutex_lock(&target->lock);
	}
	pthread_mutex_unlock(&target->lock);
	pthread_mutex_unlock(&target->revoking);
	sys_rcu_synchronize();
}

void target_wait(struct target *target, atomic_uint *book, unsigned value)
{
	pthread_mutex_lock(&target->lock);
	while (atomic_load(book) < value)
		pthread_cond_wait(&target->changed, &target->lock);
	pthread_mutex_unlock(&target->lock);
}

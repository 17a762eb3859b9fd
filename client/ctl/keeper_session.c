#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/backend/remote/remote.h"
#include "client/ctl/keeper_private.h"
#include "common/base/err.h"
#include "common/log/log.h"

/* Longest time between two looks at what is to be done. */
#define TURN_MS 100
/* Between two questions how much the server has left. */
#define CAPACITY_MS 2000u
/* How much longer than a lease's term its memory is hoped for: servers look at leases by turns. */
#define LOST_MARGIN_MS 500u

static bool session_stands(struct keeper *keeper)
{
	bool stands;

	lock_acquire(&keeper->lock);
	stands = !keeper->stopping && !keeper->session_over;
	lock_release(&keeper->lock);
	return stands;
}

/* ---- a session on record ---- */

static void record_begin(struct keeper *keeper, const struct remote_session *session)
{
	struct state_session *record = keeper->record;
	const struct memserver_lease *lease = &keeper->lease;

	static_assert(sizeof(record->token) == sizeof(lease->token) &&
			      sizeof(record->data_address) >= sizeof(session->data_address), "it fits");
	if (!record)
		return;
	record->lease_id = lease->lease_id;
	record->instance_id = lease->instance_id;
	record->slab_bytes = lease->slab_bytes;
	record->term_ms = lease->term_ms;
	record->heartbeat_ms = lease->heartbeat_ms;
	record->by_rdma = session->driver != NULL;
	memcpy(record->token, lease->token, sizeof(record->token));
	memcpy(record->data_address, session->data_address, sizeof(session->data_address));
	atomic_store(&record->request_number, 0);
	atomic_store(&record->unanswered, 0);
	atomic_store(&record->stands, 1);
}

static void record_end(struct keeper *keeper)
{
	if (!keeper->record)
		return;
	atomic_store(&keeper->record->stands, 0);
	explicit_bzero(keeper->record->token, sizeof(keeper->record->token));
}

/* ---- a session: its beginning ---- */

/* One address after the other, by the driver of session. 0 or the last error; -EHOSTUNREACH when there is no address. */
static int session_try(struct keeper *keeper, struct remote_session *session, unsigned nr,
		       const char addresses[][SYS_ADDRESS_MAX])
{
	int ret = -EHOSTUNREACH;

	for (unsigned i = 0; i < nr; i++) {
		memcpy(session->data_address, addresses[i], sizeof(session->data_address));
		ret = remote_session_begin(keeper->options.backend, session, keeper->options.connect_timeout_ms);
		if (ret == 0)
			return 0;
		keeper_error(keeper, "data connection to %s%s: %s", addresses[i], session->driver ? " by RDMA" : "",
			     err_text(ret));
	}
	return ret;
}

static int session_connect(struct keeper *keeper, const struct memserver_lease *lease)
{
	const struct keeper_options *options = &keeper->options;
	struct remote_session session = {
		.driver = options->rdma,
		.lease_id = lease->lease_id,
		.instance_id = lease->instance_id,
		.heartbeat_ms = (unsigned)base_min_u64(lease->heartbeat_ms, options->max_heartbeat_ms),
	};
	int ret = -EHOSTUNREACH;

	memcpy(session.token, lease->token, sizeof(session.token));
	if (options->rdma)
		ret = session_try(keeper, &session, lease->nr_rdma_addresses, lease->rdma_address);
	if (options->rdma && lease->nr_rdma_addresses == 0 && options->rdma_only)
		keeper_error(keeper, "offers no RDMA, and transport is verbs");
	if (ret < 0 && !options->rdma_only) {
		session.driver = NULL;
		ret = session_try(keeper, &session, lease->nr_data_addresses, lease->data_address);
	}
	explicit_bzero(session.token, sizeof(session.token));
	if (ret < 0)
		return ret;
	record_begin(keeper, &session);
	log_notice("%s: data connections by %s to %s%s", keeper->address, session.driver ? "RDMA" : "TCP",
		   session.data_address, options->rdma && lease->nr_rdma_addresses == 0 ? ", since it offers no RDMA" : "");
	return 0;
}

static void session_note_capacity(struct keeper *keeper, const struct memserver_capacity *capacity)
{
	lock_acquire(&keeper->lock);
	keeper->accepting = capacity->accepting;
	keeper->info.instance_id = capacity->instance_id;
	keeper->info.arena_bytes = capacity->arena_bytes;
	keeper->info.slab_bytes = capacity->slab_bytes;
	keeper->info.slabs_free = capacity->slabs_free;
	keeper->info.data_port = capacity->data_port;
	lock_release(&keeper->lock);
	keeper->capacity_ns = keeper_now_ns() + CAPACITY_MS * SYS_NS_PER_MS;
}

/* From here on the watcher watches, and slabs can be asked for. */
static uint32_t session_begun(struct keeper *keeper, uint64_t request_number, bool unanswered)
{
	uint32_t generation;

	keeper->request_number = request_number;
	keeper->unanswered = unanswered;
	backoff_reset(&keeper->reconnect_backoff);
	lock_acquire(&keeper->lock);
	generation = ++keeper->last_generation;
	if (generation == 0) /* it stands for none */
		generation = ++keeper->last_generation;
	keeper->generation = generation;
	keeper->session_over = false;
	keeper->server_stopping = false;
	keeper->barren_ns = 0;
	keeper->nr_return = 0;
	keeper->info.has_session = true;
	keeper->info.nr_asked = 0;
	keeper->info.nr_given = 0;
	pthread_cond_broadcast(&keeper->changed);
	lock_release(&keeper->lock);
	return generation;
}

int keeper_session_open(struct keeper *keeper, uint32_t *ret_generation)
{
	struct memserver_capacity capacity;
	struct rpc_status status;
	int ret;

	if (memserver_get_capacity(keeper->client, &capacity, &status) != RPC_OK)
		goto failed;
	session_note_capacity(keeper, &capacity);
	if (memserver_open_lease(keeper->client, keeper->address, keeper->client_name, keeper->options.client_id,
				 &keeper->lease, &status) != RPC_OK)
		goto failed;
	ret = session_connect(keeper, &keeper->lease);
	if (ret < 0) {
		/* It would end by itself; this way the server has one less meanwhile. */
		if (memserver_close_lease(keeper->client, &keeper->lease, &status) != RPC_OK)
			log_debug("%s: CloseLease: %s", keeper->address, status.message);
		return ret;
	}
	lock_acquire(&keeper->lock);
	keeper->info.instance_id = keeper->lease.instance_id;
	keeper->info.slab_bytes = keeper->lease.slab_bytes;
	lock_release(&keeper->lock);
	*ret_generation = session_begun(keeper, 0, false);
	keeper->logged_error[0] = '\0';
	log_notice("%s: connected, lease %016" PRIx64 ", %u slabs free", keeper->address, keeper->lease.lease_id,
		   capacity.slabs_free);
	return 0;

failed:
	keeper_error(keeper, "%s", status.message);
	return rpc_code_to_errno(status.code);
}

int keeper_session_resume(struct keeper *keeper)
{
	const struct state_session *record = keeper->record;
	struct memserver_lease *lease = &keeper->lease;
	struct remote_session session = {
		.driver = record->by_rdma ? keeper->options.rdma : NULL,
		.lease_id = record->lease_id,
		.instance_id = record->instance_id,
		.heartbeat_ms = (unsigned)base_min_u64(record->heartbeat_ms, keeper->options.max_heartbeat_ms),
	};
	uint32_t nr_slabs;
	int ret;

	if (record->lease_id == 0 || record->heartbeat_ms == 0 || record->term_ms == 0 ||
	    !memchr(record->data_address, '\0', sizeof(record->data_address)))
		return -EUCLEAN;
	if (record->by_rdma ? !session.driver : keeper->options.rdma_only) {
		log_error("%s: its session was by %s, and can be gone on with by that alone (transport, RDMA devices)",
			  keeper->address, record->by_rdma ? "RDMA" : "TCP");
		return -ENODEV;
	}
	memset(lease, 0, sizeof(*lease));
	lease->lease_id = record->lease_id;
	lease->instance_id = record->instance_id;
	lease->term_ms = record->term_ms;
	lease->heartbeat_ms = record->heartbeat_ms;
	lease->slab_bytes = record->slab_bytes;
	memcpy(lease->token, record->token, sizeof(lease->token));
	memcpy(session.token, record->token, sizeof(session.token));
	memcpy(session.data_address, record->data_address, sizeof(session.data_address));
	remote_session_resume(keeper->options.backend, &session);
	explicit_bzero(session.token, sizeof(session.token));
	lock_acquire(&keeper->lock);
	keeper->info.instance_id = lease->instance_id;
	keeper->info.slab_bytes = lease->slab_bytes;
	keeper->accepting = true; /* until it says otherwise */
	lock_release(&keeper->lock);
	ret = keeper_slabs_resume(keeper);
	keeper->resumed = session_begun(keeper, atomic_load(&record->request_number), atomic_load(&record->unanswered) != 0);
	lock_acquire(&keeper->lock);
	nr_slabs = keeper->info.nr_held;
	lock_release(&keeper->lock);
	log_notice("%s: goes on with lease %016" PRIx64 " and %u slabs", keeper->address, lease->lease_id, nr_slabs);
	return ret;
}

/* ---- a session: its life ---- */

static uint64_t session_lost_after_ns(const struct keeper *keeper)
{
	uint64_t ms = keeper->options.lost_after_ms;

	return (ms ? ms : (uint64_t)keeper->lease.term_ms + LOST_MARGIN_MS) * SYS_NS_PER_MS;
}

/*
 * Whether that error of a connection came from the server, or from its machine at least. When nobody answers, its control
 * plane may be as far away, and to wait for it would be to miss the link's return. If it is not, and another instance is there
 * that takes data elsewhere, the watch hears of it: that one knows nothing of our lease.
 */
static bool session_was_answered(int err)
{
	switch (err) {
	case -ETIMEDOUT:
	case -EHOSTUNREACH:
	case -EHOSTDOWN:
	case -ENETUNREACH:
	case -ENETDOWN:
	case -EADDRNOTAVAIL: /* our own end of the link is gone, */
	case -ENODEV:	     /* or the device */
		return false;
	default:
		return true;
	}
}

/* A server whose data port has changed with its restart refuses connections for ever; its control plane tells. */
static bool session_is_another_instance(struct keeper *keeper)
{
	struct memserver_capacity capacity;
	struct rpc_status status;

	return rpc_client_is_connected(keeper->client) &&
	       memserver_get_capacity(keeper->client, &capacity, &status) == RPC_OK &&
	       capacity.instance_id != keeper->lease.instance_id;
}

static bool session_is_past_hope(struct keeper *keeper, uint32_t generation)
{
	struct remote_info info;
	uint64_t now = keeper_now_ns();
	char why[KEEPER_ERROR_MAX];
	bool stopped;

	remote_info(keeper->options.backend, &info);
	lock_acquire(&keeper->lock);
	stopped = keeper->server_stopping;
	keeper->info.nr_asked = 0;
	lock_release(&keeper->lock);
	if (stopped) {
		keeper_session_is_over(keeper, generation, "the server has stopped, what it held is gone");
		return true;
	}
	if (info.down_since_ns == 0 || now < info.down_since_ns + session_lost_after_ns(keeper))
		return false;
	snprintf(why, sizeof(why), "out of reach for %" PRIu64 " ms (%s): its lease has ended",
		 (uint64_t)((now - info.down_since_ns) / SYS_NS_PER_MS), err_text(info.last_error));
	keeper_session_is_over(keeper, generation, why);
	return true;
}

static void session_reconnect(struct keeper *keeper, uint32_t generation)
{
	int ret;

	if (session_is_past_hope(keeper, generation))
		return;
	keeper_sleep(keeper, generation, backoff_next_ms(&keeper->reconnect_backoff));
	if (!session_stands(keeper))
		return;
	ret = remote_session_reconnect(keeper->options.backend, keeper->options.connect_timeout_ms);
	if (ret == 0) {
		backoff_reset(&keeper->reconnect_backoff);
		keeper->logged_error[0] = '\0';
		log_notice("%s: connected again", keeper->address);
		keeper->options.changed(keeper->options.user);
		return;
	}
	if (ret == -ESTALE || (session_was_answered(ret) && session_is_another_instance(keeper))) {
		keeper_session_is_over(keeper, generation, "the server has been restarted or has ended our lease");
		return;
	}
	keeper_error(keeper, "out of reach: %s", err_text(ret));
}

static void session_ask_capacity(struct keeper *keeper, uint32_t generation)
{
	struct memserver_capacity capacity;
	struct rpc_status status;

	if (keeper_now_ns() < keeper->capacity_ns)
		return;
	keeper->capacity_ns = keeper_now_ns() + CAPACITY_MS * SYS_NS_PER_MS;
	/* A control plane that is dead costs no swap: its silence is no reason for anything. */
	if (!rpc_client_is_connected(keeper->client) ||
	    memserver_get_capacity(keeper->client, &capacity, &status) != RPC_OK)
		return;
	if (capacity.instance_id != keeper->lease.instance_id) {
		keeper_session_is_over(keeper, generation, "another instance of the server answers");
		return;
	}
	session_note_capacity(keeper, &capacity);
}

void keeper_session_serve(struct keeper *keeper, uint32_t generation)
{
	struct backend *backend = keeper->options.backend;

	keeper->options.changed(keeper->options.user);
	while (session_stands(keeper)) {
		if (backend_state(backend) == BACKEND_UP) {
			keeper_slabs_fetch(keeper);
			keeper_slabs_return(keeper);
			session_ask_capacity(keeper, generation);
		}
		if (remote_wait(backend, TURN_MS))
			session_reconnect(keeper, generation);
	}
}

/* ---- a session: its end ---- */

void keeper_session_close(struct keeper *keeper)
{
	struct rpc_status status;

	lock_acquire(&keeper->lock);
	keeper->generation = 0;
	keeper->info.has_session = false;
	keeper->info.nr_asked = 0;
	if (keeper->stream)
		rpc_stream_cancel(keeper->stream);
	pthread_cond_broadcast(&keeper->changed);
	lock_release(&keeper->lock);
	remote_session_end(keeper->options.backend);
	if (!keeper_stopping(keeper) && !keeper_slabs_give_up(keeper))
		return;
	record_end(keeper);
	if (rpc_client_is_connected(keeper->client) &&
	    memserver_close_lease(keeper->client, &keeper->lease, &status) != RPC_OK)
		log_debug("%s: CloseLease: %s", keeper->address, status.message);
	keeper->options.changed(keeper->options.user);
}

/*
 * One lease: its protection domain, and a registration for each slab that it has asked for.
 *
 * A remote key works only for queue pairs of the protection domain it was made in, and so for nobody but this lease. It ends
 * with ibv_dereg_mr, which returns when the device uses it no more.
 *
 * ibv_dereg_mr fails (EIO) once the kernel has begun to remove the device: then the kernel ends the registration, but does not
 * tell when. A window that could not be closed stays in the target's books, so that the target hears of it when it takes the
 * slab back (-EIO), and lends that memory to nobody again; it is freed with the listener.
 *
 * Lock order: who takes slabs back holds locks of the target's, then windows_lock in revoke; map is called with windows_lock
 * held, and takes a lock of the target's that nobody holds while revoke runs.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/log/log.h"
#include "common/transport/verbs/listener.h"
#include "common/wire/proof.h"

static struct transport_target *client_target(const struct verbs_client *client)
{
	return client->listener->options.target;
}

/* 0 when the device reaches the slab no more. */
static int window_close(struct verbs_window *window)
{
	struct verbs_listener *listener = window->listener;
	int err = 0;

	lock_acquire(&listener->windows_lock);
	if (window->mr)
		err = -ibv_dereg_mr(window->mr);
	if (window->mr && err == 0) {
		window->mr = NULL;
		atomic_fetch_sub_explicit(&listener->nr_windows, 1, memory_order_relaxed);
	}
	lock_release(&listener->windows_lock);
	return err;
}

static int window_revoke(struct transport_window *head)
{
	return window_close(BASE_CONTAINER_OF(head, struct verbs_window, head));
}

static void window_free(struct verbs_window *window)
{
	struct verbs_listener *listener = window->listener;
	struct transport_target *target = listener->options.target;

	LIST_REMOVE(window, link);
	if (window_close(window) < 0) {
		window->client = NULL;
		LIST_INSERT_HEAD(&listener->stuck_windows, window, link);
		return;
	}
	/* Without windows_lock: it may have to wait for a revoke that wants it. */
	target->ops->unmap(target, &window->head);
	free(window);
}

void verbs_stuck_windows_free(struct verbs_listener *listener)
{
	struct transport_target *target = listener->options.target;
	struct verbs_window *window;

	while ((window = LIST_FIRST(&listener->stuck_windows))) {
		target->ops->unmap(target, &window->head);
		LIST_REMOVE(window, link);
		free(window);
	}
}

static void client_free_windows(struct verbs_client *client)
{
	struct verbs_window *window;

	while ((window = LIST_FIRST(&client->windows)))
		window_free(window);
}

/* Off its device; it has no connection by it. */
static void client_close_domain(struct verbs_client *client)
{
	client_free_windows(client);
	/* It fails for a domain with a window that is stuck, and then is left to the end of the process. */
	if (client->pd)
		(void)ibv_dealloc_pd(client->pd);
	client->pd = NULL;
	client->port = NULL;
}

void verbs_client_free(struct verbs_client *client)
{
	assert(client->nr_sessions == 0);
	client_close_domain(client);
	LIST_REMOVE(client, link);
	free(client);
}

int verbs_client_get(struct verbs_listener *listener, uint64_t lease_id, struct verbs_port *port,
		     struct verbs_client **ret_client)
{
	struct verbs_client *client;

	LIST_FOREACH(client, &listener->clients, link)
		if (client->lease_id == lease_id)
			break;
	if (!client) {
		client = calloc(1, sizeof(*client));
		if (!client)
			return -ENOMEM;
		client->listener = listener;
		client->lease_id = lease_id;
		LIST_INIT(&client->windows);
		LIST_INSERT_HEAD(&listener->clients, client, link);
	}
	if (client->port && client->port != port) {
		/* A domain is of one device. When the last connection by the old one has gone, it may be another. */
		if (client->nr_sessions > 0)
			return -EMFILE;
		client_close_domain(client);
	}
	if (!client->pd) {
		client->pd = ibv_alloc_pd(port->context);
		if (!client->pd)
			return -ENOMEM;
		client->port = port;
	}
	*ret_client = client;
	return 0;
}

int verbs_client_check_counter(struct verbs_client *client, uint16_t channel, uint64_t counter)
{
	unsigned i = 0;

	while (i < LENDER_MAX_CHANNELS && client->counters[i] != 0 && client->channels[i] != channel)
		i++;
	if (i == LENDER_MAX_CHANNELS)
		return -EMFILE;
	if (counter <= client->counters[i])
		return -EACCES;
	client->channels[i] = channel;
	client->counters[i] = counter;
	return 0;
}

static struct verbs_window *client_find(struct verbs_client *client, uint32_t slab)
{
	struct verbs_window *window;

	LIST_FOREACH(window, &client->windows, link)
		if (window->slab == slab)
			return window;
	return NULL;
}

/* From the target's books into the device. 0, or what to tell the peer. */
static int window_open(struct verbs_window *window, struct transport_session *session)
{
	struct verbs_client *client = window->client;
	struct transport_target *target = client_target(client);
	struct verbs_listener *listener = client->listener;
	void *base;
	int ret;

	lock_acquire(&listener->windows_lock);
	ret = target->ops->map(target, session, window->slab, window->key, &window->head, &base, &window->len_bytes);
	if (ret == 0) {
		window->mr = ibv_reg_mr(client->pd, base, window->len_bytes,
					IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
		if (window->mr)
			atomic_fetch_add_explicit(&listener->nr_windows, 1, memory_order_relaxed);
		else
			ret = errno ? -errno : -ENOMEM;
	}
	lock_release(&listener->windows_lock);
	return ret;
}

/* A peer may ask as often as it likes. */
static void client_tell(uint32_t slab, int err)
{
	static struct log_limit limit;
	uint64_t nr_left_out;

	if (log_limit_pass(&limit, &nr_left_out))
		log_error("slab %u cannot be given to the RDMA device: %s (%llu more like it)", slab, err_text(err),
			  (unsigned long long)nr_left_out);
}

static int client_open_window(struct verbs_client *client, struct transport_session *session, uint32_t slab, uint32_t key,
			      struct verbs_window **ret_window)
{
	struct verbs_window *window = calloc(1, sizeof(*window));
	int ret;

	if (!window)
		return -ENOMEM;
	window->head.revoke = window_revoke;
	window->listener = client->listener;
	window->client = client;
	window->slab = slab;
	window->key = key;
	LIST_INSERT_HEAD(&client->windows, window, link);
	ret = window_open(window, session);
	if (ret < 0) {
		if (ret != -EACCES)
			client_tell(slab, ret);
		window_free(window);
		return ret;
	}
	*ret_window = window;
	return 0;
}

/* The window that is there: 0, or what to tell the peer when it is another's by now. */
static int client_check_window(struct verbs_client *client, struct transport_session *session,
			       const struct verbs_window *window, uint32_t key)
{
	struct transport_target *target = client_target(client);
	void *base;

	/* The window may be about to be revoked; then the remote key ends, and that is all that there is to it. */
	return window->key != key ? -EACCES :
				    target->ops->resolve(target, session, TRANSPORT_READ, window->slab, key, 0, 0, &base);
}

void verbs_client_map(struct verbs_client *client, struct transport_session *session, const struct wire_verbs_map *map,
		      struct wire_verbs_mapped *ret_mapped)
{
	struct verbs_listener *listener = client->listener;
	struct verbs_window *window = client_find(client, map->slab);
	bool open = false;
	int ret;

	if (window) {
		lock_acquire(&listener->windows_lock);
		open = window->mr != NULL;
		lock_release(&listener->windows_lock);
	}
	/* One of an earlier key: the slab had been given back, and has come again. */
	if (window && !open) {
		window_free(window);
		window = NULL;
	}
	ret = window ? client_check_window(client, session, window, map->key) :
		       client_open_window(client, session, map->slab, map->key, &window);
	*ret_mapped = (struct wire_verbs_mapped){
		.slab = map->slab, .key = map->key, .status = (uint8_t)wire_status_from_err(ret)
	};
	if (ret < 0)
		return;
	lock_acquire(&listener->windows_lock);
	if (window->mr) {
		ret_mapped->rkey = window->mr->rkey;
		ret_mapped->address = (uintptr_t)window->mr->addr;
		ret_mapped->len_bytes = window->len_bytes;
	} else {
		ret_mapped->status = WIRE_STATUS_DENIED;
	}
	lock_release(&listener->windows_lock);
}

void verbs_clients_sweep(struct verbs_listener *listener)
{
	struct transport_target *target = listener->options.target;
	uint8_t token[TRANSPORT_TOKEN_BYTES] = { 0 };
	struct verbs_client *client;
	struct verbs_client *next;

	for (client = LIST_FIRST(&listener->clients); client; client = next) {
		next = LIST_NEXT(client, link);
		if (client->nr_sessions == 0 && target->ops->lookup(target, client->lease_id, token) < 0)
			verbs_client_free(client);
	}
	wire_token_wipe(token);
}

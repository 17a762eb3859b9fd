/* librdmacm's part: ids, connections and their events. */
#include "tests/fakes/internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define REP_BYTES 196
#define REJ_BYTES 148
#define REJECTED_BY_CONSUMER 28
#define REJECTED_NO_LISTENER 8

static uint16_t last_port;

static struct fake_id *fake_of(struct rdma_cm_id *id)
{
	return (struct fake_id *)id;
}

static void event_send(struct fake_id *id, enum rdma_cm_event_type type, int status, const void *bytes, size_t len_bytes,
		       size_t padded_bytes)
{
	struct fake_events *events = (struct fake_events *)id->id.channel;
	struct fake_event *event;

	assert(len_bytes <= padded_bytes);
	event = fabric_make(sizeof(*event));
	event->event.id = &id->id;
	event->event.event = type;
	event->event.status = status;
	if (len_bytes > 0) {
		memcpy(event->bytes, bytes, len_bytes);
		event->event.param.conn.private_data = event->bytes;
		event->event.param.conn.private_data_len = (uint8_t)padded_bytes;
	}
	TAILQ_INSERT_TAIL(&events->queue, event, link);
	fabric_tell(events->channel.fd);
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
	struct fake_events *events;

	pthread_mutex_lock(&fabric.lock);
	events = fabric_make(sizeof(*events));
	TAILQ_INIT(&events->queue);
	events->channel.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	pthread_mutex_unlock(&fabric.lock);
	return &events->channel;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
	pthread_mutex_lock(&fabric.lock);
	assert(TAILQ_EMPTY(&((struct fake_events *)channel)->queue));
	close(channel->fd);
	fabric_unmake(channel);
	pthread_mutex_unlock(&fabric.lock);
}

int rdma_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **ret_event)
{
	struct fake_events *events = (struct fake_events *)channel;
	struct fake_event *event;

	pthread_mutex_lock(&fabric.lock);
	event = TAILQ_FIRST(&events->queue);
	if (event) {
		fabric_told(channel->fd);
		TAILQ_REMOVE(&events->queue, event, link);
		fake_of(event->event.id)->nr_unacked++;
		*ret_event = &event->event;
	}
	pthread_mutex_unlock(&fabric.lock);
	return event ? 0 : fabric_wrong(EAGAIN);
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
	pthread_mutex_lock(&fabric.lock);
	fake_of(event->id)->nr_unacked--;
	fabric_unmake(event);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

static struct fake_id *id_make(struct rdma_event_channel *channel, void *context)
{
	struct fake_id *id = fabric_make(sizeof(*id));

	id->id.channel = channel;
	id->id.context = context;
	id->id.port_num = 1;
	id->options = (struct fabric_options){ .tos = -1, .reuse_address = -1, .ack_timeout = -1, .retry_count = -1 };
	LIST_INSERT_HEAD(&fabric.ids, id, link);
	return id;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **ret_id, void *context, enum rdma_port_space ps)
{
	assert(ps == RDMA_PS_TCP);
	pthread_mutex_lock(&fabric.lock);
	*ret_id = &id_make(channel, context)->id;
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_destroy_id(struct rdma_cm_id *head)
{
	struct fake_events *events = (struct fake_events *)head->channel;
	struct fake_id *id = fake_of(head);
	struct fake_event *event;
	struct fake_event *next;

	pthread_mutex_lock(&fabric.lock);
	assert(!head->qp && id->nr_unacked == 0); /* the library would wait for ever */
	for (event = TAILQ_FIRST(&events->queue); event; event = next) {
		next = TAILQ_NEXT(event, link);
		if (event->event.id != head)
			continue;
		TAILQ_REMOVE(&events->queue, event, link);
		fabric_told(events->channel.fd);
		fabric_unmake(event);
	}
	if (id->peer)
		id->peer->peer = NULL;
	LIST_REMOVE(id, link);
	fabric_unmake(id);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

/* By rdma_set_option(3); of another length the kernel takes none. */
int rdma_set_option(struct rdma_cm_id *head, int level, int name, void *value, size_t len_bytes)
{
	struct fake_id *id = fake_of(head);

	assert(level == RDMA_OPTION_ID);
	pthread_mutex_lock(&fabric.lock);
	assert(!id->connected);
	switch (name) {
	case RDMA_OPTION_ID_TOS:
		assert(len_bytes == sizeof(uint8_t) && !id->routed); /* the route is asked for with it */
		id->options.tos = *(const uint8_t *)value;
		break;
	case RDMA_OPTION_ID_REUSEADDR:
		assert(len_bytes == sizeof(int));
		id->options.reuse_address = *(const int *)value;
		break;
	case RDMA_OPTION_ID_ACK_TIMEOUT:
		assert(len_bytes == sizeof(uint8_t) && *(const uint8_t *)value < 32);
		id->options.ack_timeout = *(const uint8_t *)value;
		break;
	default:
		abort();
	}
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *address)
{
	struct sockaddr_in *in = (struct sockaddr_in *)address;

	assert(address->sa_family == AF_INET);
	memcpy(&id->route.addr.src_addr, in, sizeof(*in));
	if (in->sin_port == 0)
		((struct sockaddr_in *)&id->route.addr.src_addr)->sin_port = htons((uint16_t)(20000 + ++last_port));
	return 0;
}

__be16 rdma_get_src_port(struct rdma_cm_id *id)
{
	return ((struct sockaddr_in *)&id->route.addr.src_addr)->sin_port;
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
	(void)backlog;
	pthread_mutex_lock(&fabric.lock);
	fake_of(id)->listens = true;
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int timeout_ms)
{
	struct sockaddr_in *in = (struct sockaddr_in *)to;

	(void)timeout_ms;
	assert(to->sa_family == AF_INET && (!from || from->sa_family == AF_INET)); /* the kernel takes no two families */
	pthread_mutex_lock(&fabric.lock);
	if (from)
		memcpy(&fake_of(id)->options.from, from, sizeof(struct sockaddr_in));
	memcpy(&id->route.addr.dst_addr, in, sizeof(*in));
	id->verbs = fabric_device((ntohl(in->sin_addr.s_addr) & 255) == 2);
	event_send(fake_of(id), RDMA_CM_EVENT_ADDR_RESOLVED, 0, NULL, 0, 0);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_resolve_route(struct rdma_cm_id *id, int timeout_ms)
{
	(void)timeout_ms;
	pthread_mutex_lock(&fabric.lock);
	fake_of(id)->routed = true;
	event_send(fake_of(id), RDMA_CM_EVENT_ROUTE_RESOLVED, 0, NULL, 0, 0);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_connect(struct rdma_cm_id *head, struct rdma_conn_param *param)
{
	struct fake_id *id = fake_of(head);
	const struct sockaddr_in *to = (const struct sockaddr_in *)&head->route.addr.dst_addr;
	struct fake_id *listener;
	struct fake_id *theirs;

	assert(param->private_data_len <= FABRIC_REQ_BYTES);
	pthread_mutex_lock(&fabric.lock);
	memcpy(fabric.last_req, param->private_data, param->private_data_len);
	id->options.retry_count = param->retry_count;
	fabric.last_req_options = id->options;
	LIST_FOREACH(listener, &fabric.ids, link)
		if (listener->listens && rdma_get_src_port(&listener->id) == to->sin_port)
			break;
	if (!listener) {
		event_send(id, RDMA_CM_EVENT_REJECTED, REJECTED_NO_LISTENER, NULL, 0, 0);
	} else if (!fabric.is_cut) {
		theirs = id_make(listener->id.channel, listener->id.context);
		theirs->id.verbs = head->verbs;
		memcpy(&theirs->id.route.addr.dst_addr, &head->route.addr.dst_addr, sizeof(struct sockaddr_in));
		theirs->peer = id;
		id->peer = theirs;
		event_send(theirs, RDMA_CM_EVENT_CONNECT_REQUEST, 0, param->private_data, param->private_data_len,
			   FABRIC_REQ_BYTES);
	}
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_accept(struct rdma_cm_id *head, struct rdma_conn_param *param)
{
	struct fake_id *id = fake_of(head);
	struct fake_qp *qp = (struct fake_qp *)head->qp;
	uint8_t bytes[REP_BYTES];

	pthread_mutex_lock(&fabric.lock);
	memcpy(bytes, param->private_data, param->private_data_len);
	fabric.last_rep_options = id->options;
	if (fabric.spoiled_byte >= 0)
		bytes[fabric.spoiled_byte] ^= 1;
	fabric.spoiled_byte = -1;
	if (id->peer) {
		struct fake_qp *theirs = (struct fake_qp *)id->peer->id.qp;

		qp->peer = theirs;
		theirs->peer = qp;
		qp->stands = theirs->stands = true;
		id->connected = id->peer->connected = true;
		event_send(id->peer, RDMA_CM_EVENT_ESTABLISHED, 0, bytes, param->private_data_len, REP_BYTES);
		event_send(id, RDMA_CM_EVENT_ESTABLISHED, 0, NULL, 0, 0);
	}
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_reject(struct rdma_cm_id *head, const void *bytes, uint8_t len_bytes)
{
	struct fake_id *id = fake_of(head);

	pthread_mutex_lock(&fabric.lock);
	if (id->peer)
		event_send(id->peer, RDMA_CM_EVENT_REJECTED, REJECTED_BY_CONSUMER, bytes, len_bytes, REJ_BYTES);
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

int rdma_disconnect(struct rdma_cm_id *head)
{
	struct fake_id *id = fake_of(head);

	pthread_mutex_lock(&fabric.lock);
	if (id->connected && head->qp)
		fabric_qp_flush((struct fake_qp *)head->qp);
	if (id->connected && id->peer && !fabric.is_cut)
		event_send(id->peer, RDMA_CM_EVENT_DISCONNECTED, 0, NULL, 0, 0);
	id->connected = false;
	pthread_mutex_unlock(&fabric.lock);
	return 0;
}

void fabric_tell_of_removal(void)
{
	struct fake_id *id;

	LIST_FOREACH(id, &fabric.ids, link)
		event_send(id, RDMA_CM_EVENT_DEVICE_REMOVAL, 0, NULL, 0, 0);
}

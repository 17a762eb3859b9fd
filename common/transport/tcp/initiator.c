#include "common/transport/tcp/initiator.h"

#include <assert.h>
#include <errno.h>

#include "common/transport/op.h"

static_assert(WIRE_MAX_PAYLOAD_BYTES == TRANSPORT_MAX_OP_BYTES, "one limit");
static_assert((int)WIRE_OPCODE_READ == (int)TRANSPORT_READ && (int)WIRE_OPCODE_WRITE == (int)TRANSPORT_WRITE,
	      "one numbering");

#define INITIATOR_INBOX_BYTES (128u << 10)
/* Behind the rest of a payload larger than this the inbox offers little, so that the next large one is not copied. */
#define INITIATOR_LARGE_BYTES (16u << 10)
#define INITIATOR_SMALL_INBOX_BYTES 2048u

int tcp_initiator_open(struct tcp_initiator *initiator, uint32_t queue_depth, unsigned *in_flight)
{
	size_t slots_bytes = base_align_up((queue_depth + 1) * sizeof(struct tcp_initiator_slot), FSW_CACHE_LINE);
	size_t tags_bytes = base_align_up(queue_depth * sizeof(uint32_t), FSW_CACHE_LINE);
	uint8_t *base;
	int err;

	*initiator = (struct tcp_initiator){ .queue_depth = queue_depth, .in_flight = in_flight };
	err = mem_region_open(&initiator->region, INITIATOR_INBOX_BYTES + slots_bytes + tags_bytes, MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	base = initiator->region.base;
	initiator->inbox = (struct tcp_inbox){ .bytes = base, .capacity_bytes = INITIATOR_INBOX_BYTES };
	initiator->slots = (struct tcp_initiator_slot *)(void *)(base + INITIATOR_INBOX_BYTES);
	initiator->free_tags = (uint32_t *)(void *)(base + INITIATOR_INBOX_BYTES + slots_bytes);
	/* The tag that was freed last is taken first: its slot is still in the cache. */
	for (uint32_t i = 0; i < queue_depth; i++)
		initiator->free_tags[i] = queue_depth - 1 - i;
	initiator->nr_free_tags = queue_depth;
	TAILQ_INIT(&initiator->unsent);
	TAILQ_INIT(&initiator->awaiting);
	*in_flight = 0;
	return 0;
}

void tcp_initiator_close(struct tcp_initiator *initiator)
{
	mem_region_close(&initiator->region);
}

static void initiator_queue(struct tcp_initiator *initiator, struct transport_op *op, uint32_t tag)
{
	struct tcp_initiator_slot *slot = &initiator->slots[tag];
	struct wire_request request = {
		.opcode = op->opcode,
		.tag = tag,
		.slab = op->slab,
		.key = op->key,
		.offset_bytes = op->offset_bytes,
		.len_bytes = op->len_bytes,
	};

	wire_request_pack(&request, slot->header);
	slot->op = op;
	slot->sent = false;
	op->tag = tag;
	op->progress_bytes = 0;
	TAILQ_INSERT_TAIL(&initiator->unsent, op, link);
}

int tcp_initiator_submit(struct tcp_initiator *initiator, struct transport_op *op)
{
	if (initiator->nr_free_tags == 0)
		return -EAGAIN;
	initiator_queue(initiator, op, initiator->free_tags[--initiator->nr_free_tags]);
	(*initiator->in_flight)++;
	return 0;
}

void tcp_initiator_ping(struct tcp_initiator *initiator)
{
	if (initiator->pinging)
		return;
	initiator->pinging = true;
	initiator->ping.opcode = WIRE_OPCODE_PING;
	initiator_queue(initiator, &initiator->ping, initiator->queue_depth);
}

/* What goes out for an operation beside its header. */
static uint32_t initiator_payload_bytes(const struct transport_op *op)
{
	return op->opcode == TRANSPORT_WRITE ? op->len_bytes : 0;
}

unsigned tcp_initiator_gather(struct tcp_initiator *initiator, struct iovec *ret_iov, unsigned max_iov,
			      size_t *ret_len_bytes)
{
	uint32_t skip_bytes = initiator->unsent_progress_bytes;
	struct transport_op *op;
	size_t sum_bytes = 0;
	unsigned nr = 0;

	TAILQ_FOREACH(op, &initiator->unsent, link) {
		uint32_t payload_bytes = initiator_payload_bytes(op);
		uint32_t payload_skip_bytes = 0;
		size_t len_bytes;

		if (nr == max_iov)
			break;
		if (skip_bytes < WIRE_REQUEST_BYTES) {
			ret_iov[nr].iov_base = initiator->slots[op->tag].header + skip_bytes;
			ret_iov[nr].iov_len = WIRE_REQUEST_BYTES - skip_bytes;
			sum_bytes += ret_iov[nr].iov_len;
			nr++;
		} else {
			payload_skip_bytes = skip_bytes - WIRE_REQUEST_BYTES;
		}
		skip_bytes = 0;
		if (payload_bytes == 0)
			continue;
		nr += transport_op_slice(op, payload_skip_bytes, ret_iov + nr, max_iov - nr, &len_bytes);
		sum_bytes += len_bytes;
		if (len_bytes != payload_bytes - payload_skip_bytes)
			break; /* out of pieces in the middle of it */
	}
	*ret_len_bytes = sum_bytes;
	return nr;
}

void tcp_initiator_sent(struct tcp_initiator *initiator, size_t len_bytes)
{
	while (len_bytes > 0) {
		struct transport_op *op = TAILQ_FIRST(&initiator->unsent);
		uint32_t left_bytes = WIRE_REQUEST_BYTES + initiator_payload_bytes(op) - initiator->unsent_progress_bytes;

		if (len_bytes < left_bytes) {
			initiator->unsent_progress_bytes += (uint32_t)len_bytes;
			return;
		}
		len_bytes -= left_bytes;
		initiator->unsent_progress_bytes = 0;
		initiator->slots[op->tag].sent = true;
		TAILQ_REMOVE(&initiator->unsent, op, link);
		TAILQ_INSERT_TAIL(&initiator->awaiting, op, link);
	}
}

unsigned tcp_initiator_space(struct tcp_initiator *initiator, struct iovec ret_iov[TCP_INITIATOR_MAX_IOV],
			     size_t *ret_len_bytes)
{
	struct transport_op *op = initiator->receiving;
	uint32_t inbox_bytes = INITIATOR_INBOX_BYTES;
	size_t len_bytes = 0;
	unsigned nr = 0;

	if (op) {
		if (op->len_bytes - op->progress_bytes > INITIATOR_LARGE_BYTES)
			inbox_bytes = INITIATOR_SMALL_INBOX_BYTES;
		nr = transport_op_slice(op, op->progress_bytes, ret_iov, TRANSPORT_MAX_IOV, &len_bytes);
	}
	ret_iov[nr] = tcp_inbox_space(&initiator->inbox, inbox_bytes);
	*ret_len_bytes = len_bytes + ret_iov[nr].iov_len;
	return nr + 1;
}

/* The tag is free before done runs, so that done can submit the next operation. */
static void initiator_finish(struct tcp_initiator *initiator, struct transport_op *op, int status)
{
	initiator->slots[op->tag].op = NULL;
	TAILQ_REMOVE(&initiator->awaiting, op, link);
	if (op == &initiator->ping) {
		initiator->pinging = false;
	} else {
		initiator->free_tags[initiator->nr_free_tags++] = op->tag;
		(*initiator->in_flight)--;
	}
	op->done(op, status);
}

/* 1 when the response completes its operation, 0 when its payload is to come, or -EPROTO. */
static int initiator_response(struct tcp_initiator *initiator, const struct wire_response *response)
{
	struct tcp_initiator_slot *slot;

	if (response->tag > initiator->queue_depth)
		return -EPROTO;
	slot = &initiator->slots[response->tag];
	/* A response before the whole request has left is an answer to something else. */
	if (!slot->op || !slot->sent || slot->op->opcode != response->opcode)
		return -EPROTO;
	if (response->len_bytes != 0 && response->len_bytes != slot->op->len_bytes)
		return -EPROTO;
	if (response->opcode == WIRE_OPCODE_PING && response->status != WIRE_STATUS_OK)
		return -EPROTO;
	if (response->len_bytes != 0) {
		initiator->receiving = slot->op;
		return 0;
	}
	initiator_finish(initiator, slot->op, wire_status_to_err(response->status));
	return 1;
}

/* Copies what is in the inbox into the operation whose payload comes in. True when that was all of it. */
static bool initiator_take_payload(struct tcp_initiator *initiator)
{
	struct transport_op *op = initiator->receiving;
	uint32_t len_bytes = op->len_bytes - op->progress_bytes;

	if (len_bytes > tcp_inbox_len_bytes(&initiator->inbox))
		len_bytes = tcp_inbox_len_bytes(&initiator->inbox);
	transport_op_copy_in(op, op->progress_bytes, tcp_inbox_head(&initiator->inbox), len_bytes);
	tcp_inbox_consume(&initiator->inbox, len_bytes);
	op->progress_bytes += len_bytes;
	return op->progress_bytes == op->len_bytes;
}

static void initiator_finish_read(struct tcp_initiator *initiator)
{
	struct transport_op *op = initiator->receiving;

	initiator->receiving = NULL;
	initiator_finish(initiator, op, 0);
}

int tcp_initiator_received(struct tcp_initiator *initiator, size_t len_bytes)
{
	struct transport_op *op = initiator->receiving;
	struct tcp_inbox *inbox = &initiator->inbox;
	struct wire_response response;
	int nr_done = 0;
	int ret;

	if (op) {
		size_t direct_bytes = base_min_u64(len_bytes, op->len_bytes - op->progress_bytes);

		op->progress_bytes += (uint32_t)direct_bytes;
		len_bytes -= direct_bytes;
	}
	inbox->end += (uint32_t)len_bytes;
	for (;;) {
		if (initiator->receiving) {
			if (!initiator_take_payload(initiator))
				return nr_done;
			initiator_finish_read(initiator);
			nr_done++;
			continue;
		}
		if (tcp_inbox_len_bytes(inbox) < WIRE_RESPONSE_BYTES)
			return nr_done;
		ret = wire_response_unpack(tcp_inbox_head(inbox), &response);
		if (ret < 0)
			return ret;
		tcp_inbox_consume(inbox, WIRE_RESPONSE_BYTES);
		ret = initiator_response(initiator, &response);
		if (ret < 0)
			return ret;
		nr_done += ret;
	}
}

void tcp_initiator_cancel(struct tcp_initiator *initiator, int err)
{
	struct transport_op *op;

	initiator->receiving = NULL;
	/* One list, in order of submission, so that initiator_finish serves for all. */
	TAILQ_CONCAT(&initiator->awaiting, &initiator->unsent, link);
	initiator->unsent_progress_bytes = 0;
	while ((op = TAILQ_FIRST(&initiator->awaiting)))
		initiator_finish(initiator, op, err);
}

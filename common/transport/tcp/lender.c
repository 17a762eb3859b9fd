#include "common/transport/tcp/lender.h"

#include <assert.h>
#include <errno.h>

#define LENDER_INBOX_BYTES (64u << 10)
/* Behind the rest of a payload larger than this the inbox offers little, so that the next large one is not copied. */
#define LENDER_LARGE_BYTES (16u << 10)
#define LENDER_SMALL_INBOX_BYTES 2048u
/* No further request is taken while responses of so many bytes wait. */
#define LENDER_MAX_REPLIES_BYTES (4u << 20)

static_assert(WIRE_MAX_PAYLOAD_BYTES == TRANSPORT_MAX_OP_BYTES, "one limit");
static_assert(WIRE_TOKEN_BYTES == TRANSPORT_TOKEN_BYTES, "one token");

int tcp_lender_open(struct tcp_lender *lender, struct transport_target *target, uint32_t max_queue_depth)
{
	size_t nr_tags = (size_t)max_queue_depth + 1;
	size_t ring_bytes = base_align_up(nr_tags * sizeof(struct tcp_lender_reply), FSW_CACHE_LINE);
	size_t tags_bytes = base_align_up(nr_tags, 64) / 8;
	uint8_t *base;
	int err;

	*lender = (struct tcp_lender){ .target = target, .max_queue_depth = max_queue_depth };
	err = mem_region_open(&lender->region, LENDER_INBOX_BYTES + ring_bytes + tags_bytes, MEM_REGION_TOUCH);
	if (err < 0)
		return err;
	base = lender->region.base;
	lender->inbox = (struct tcp_inbox){ .bytes = base, .capacity_bytes = LENDER_INBOX_BYTES };
	lender->ring = (struct tcp_lender_reply *)(void *)(base + LENDER_INBOX_BYTES);
	lender->tags = (uint64_t *)(void *)(base + LENDER_INBOX_BYTES + ring_bytes);
	return 0;
}

void tcp_lender_close(struct tcp_lender *lender)
{
	mem_region_close(&lender->region);
}

void tcp_lender_begin(struct tcp_lender *lender, struct transport_session *session, uint32_t queue_depth)
{
	lender->session = session;
	lender->queue_depth = queue_depth;
	lender->ring_first = 0;
	lender->nr_replies = 0;
	lender->first_progress_bytes = 0;
	lender->replies_bytes = 0;
	memset(lender->tags, 0, base_align_up((size_t)lender->max_queue_depth + 1, 64) / 8);
	lender->writing = false;
	lender->inbox.start = lender->inbox.end = 0;
	lender->epoch++;
}

static int lender_resolve(struct tcp_lender *lender, const struct wire_request *request, void **ret_bytes)
{
	return lender->target->ops->resolve(lender->target, lender->session, (enum transport_opcode)request->opcode,
					    request->slab, request->key, request->offset_bytes, request->len_bytes,
					    ret_bytes);
}

static void lender_account(struct tcp_lender *lender, const struct wire_request *request)
{
	lender->target->ops->account(lender->target, lender->session, (enum transport_opcode)request->opcode,
				     request->len_bytes);
}

static bool lender_tag_set(struct tcp_lender *lender, uint32_t tag)
{
	uint64_t bit = 1ull << (tag % 64);

	if (lender->tags[tag / 64] & bit)
		return false;
	lender->tags[tag / 64] |= bit;
	return true;
}

static void lender_tag_clear(struct tcp_lender *lender, uint32_t tag)
{
	lender->tags[tag / 64] &= ~(1ull << (tag % 64));
}

static struct tcp_lender_reply *lender_reply_at(struct tcp_lender *lender, uint32_t index)
{
	uint32_t i = lender->ring_first + index;

	if (i > lender->max_queue_depth)
		i -= lender->max_queue_depth + 1;
	return &lender->ring[i];
}

static void lender_reply_set(struct tcp_lender_reply *reply, int status)
{
	struct wire_response response = {
		.opcode = reply->request.opcode,
		.status = (uint8_t)wire_status_from_err(status),
		.tag = reply->request.tag,
	};

	if (status == 0 && response.opcode == WIRE_OPCODE_READ)
		response.len_bytes = reply->request.len_bytes;
	reply->status = status;
	reply->payload_bytes = response.len_bytes;
	wire_response_pack(&response, reply->header);
}

/* There is always room: a tag is in flight once, and the ring has a place for each. */
static struct tcp_lender_reply *lender_reply_add(struct tcp_lender *lender, const struct wire_request *request,
						 int status)
{
	struct tcp_lender_reply *reply = lender_reply_at(lender, lender->nr_replies);

	assert(lender->nr_replies <= lender->max_queue_depth);
	reply->request = *request;
	lender_reply_set(reply, status);
	lender->nr_replies++;
	lender->replies_bytes += WIRE_RESPONSE_BYTES + reply->payload_bytes;
	return reply;
}

/* A request whose header is good: 0, or -EPROTO. */
static int lender_request(struct tcp_lender *lender, const struct wire_request *request)
{
	struct tcp_lender_reply *reply;
	void *bytes = NULL;
	int status;

	/* A ping has the tag behind the operations'. */
	if (request->tag > lender->queue_depth ||
	    (request->tag == lender->queue_depth) != (request->opcode == WIRE_OPCODE_PING))
		return -EPROTO;
	if (!lender_tag_set(lender, request->tag))
		return -EPROTO;
	if (request->opcode == WIRE_OPCODE_PING) {
		lender_reply_add(lender, request, 0);
		return 0;
	}
	status = lender_resolve(lender, request, &bytes);
	if (request->opcode == WIRE_OPCODE_READ) {
		reply = lender_reply_add(lender, request, status);
		reply->bytes = bytes;
		reply->epoch = lender->epoch;
		return 0;
	}
	lender->writing = true;
	lender->write = *request;
	lender->write_status = status;
	lender->write_bytes = bytes;
	lender->write_epoch = lender->epoch;
	lender->write_progress_bytes = 0;
	return 0;
}

/* Where the payload that comes in goes, or NULL when it goes nowhere. */
static uint8_t *lender_write_dest(struct tcp_lender *lender)
{
	if (lender->write_status == 0 && lender->write_epoch != lender->epoch) {
		lender->write_status = lender_resolve(lender, &lender->write, &lender->write_bytes);
		lender->write_epoch = lender->epoch;
	}
	return lender->write_status == 0 ? (uint8_t *)lender->write_bytes + lender->write_progress_bytes : NULL;
}

static void lender_write_advance(struct tcp_lender *lender, uint32_t len_bytes)
{
	lender->write_progress_bytes += len_bytes;
	if (lender->write_progress_bytes < lender->write.len_bytes)
		return;
	lender->writing = false;
	lender_reply_add(lender, &lender->write, lender->write_status);
	if (lender->write_status == 0)
		lender_account(lender, &lender->write);
}

static void lender_take_payload(struct tcp_lender *lender)
{
	uint32_t len_bytes = lender->write.len_bytes - lender->write_progress_bytes;
	uint8_t *dest = lender_write_dest(lender);

	if (len_bytes > tcp_inbox_len_bytes(&lender->inbox))
		len_bytes = tcp_inbox_len_bytes(&lender->inbox);
	if (dest)
		memcpy(dest, tcp_inbox_head(&lender->inbox), len_bytes);
	tcp_inbox_consume(&lender->inbox, len_bytes);
	lender_write_advance(lender, len_bytes);
}

static bool lender_blocked(const struct tcp_lender *lender)
{
	return lender->replies_bytes >= LENDER_MAX_REPLIES_BYTES;
}

static int lender_parse(struct tcp_lender *lender)
{
	struct tcp_inbox *inbox = &lender->inbox;
	struct wire_request request;
	int err;

	for (;;) {
		if (lender->writing) {
			if (tcp_inbox_len_bytes(inbox) == 0)
				return 0;
			lender_take_payload(lender);
			continue;
		}
		if (tcp_inbox_len_bytes(inbox) < WIRE_REQUEST_BYTES || lender_blocked(lender))
			return 0;
		err = wire_request_unpack(tcp_inbox_head(inbox), &request);
		if (err < 0)
			return err;
		tcp_inbox_consume(inbox, WIRE_REQUEST_BYTES);
		err = lender_request(lender, &request);
		if (err < 0)
			return err;
	}
}

bool tcp_lender_wants_bytes(const struct tcp_lender *lender)
{
	return lender->writing || !lender_blocked(lender);
}

unsigned tcp_lender_space(struct tcp_lender *lender, struct iovec ret_iov[TCP_LENDER_SPACE_IOV], size_t *ret_len_bytes)
{
	uint32_t inbox_bytes = LENDER_INBOX_BYTES;
	size_t len_bytes = 0;
	unsigned nr = 0;

	if (lender->writing) {
		uint32_t left_bytes = lender->write.len_bytes - lender->write_progress_bytes;
		uint8_t *dest = lender_write_dest(lender);

		if (dest) {
			ret_iov[nr++] = (struct iovec){ .iov_base = dest, .iov_len = left_bytes };
			len_bytes = left_bytes;
			if (left_bytes > LENDER_LARGE_BYTES)
				inbox_bytes = LENDER_SMALL_INBOX_BYTES;
		}
	} else if (lender_blocked(lender)) {
		*ret_len_bytes = 0;
		return 0;
	}
	ret_iov[nr] = tcp_inbox_space(&lender->inbox, inbox_bytes);
	*ret_len_bytes = len_bytes + ret_iov[nr].iov_len;
	return nr + 1;
}

int tcp_lender_received(struct tcp_lender *lender, size_t len_bytes)
{
	/* What tcp_lender_space said last is still so: both are called within one turn. */
	if (lender->writing && lender->write_status == 0) {
		uint32_t direct_bytes = lender->write.len_bytes - lender->write_progress_bytes;

		if (direct_bytes > len_bytes)
			direct_bytes = (uint32_t)len_bytes;
		lender_write_advance(lender, direct_bytes);
		len_bytes -= direct_bytes;
	}
	lender->inbox.end += (uint32_t)len_bytes;
	return lender_parse(lender);
}

/*
 * Makes a READ's pointer good for this turn. When the bytes may not be read any more, the response becomes an error if
 * nothing of it has left, else it cannot be ended.
 */
static int lender_reply_renew(struct tcp_lender *lender, struct tcp_lender_reply *reply, uint32_t progress_bytes)
{
	int status;

	if (reply->epoch == lender->epoch)
		return 0;
	status = lender_resolve(lender, &reply->request, &reply->bytes);
	reply->epoch = lender->epoch;
	if (status == 0)
		return 0;
	if (progress_bytes > 0)
		return status;
	lender->replies_bytes -= reply->payload_bytes;
	lender_reply_set(reply, status);
	return 0;
}

int tcp_lender_gather(struct tcp_lender *lender, struct iovec *ret_iov, unsigned max_iov, size_t *ret_len_bytes)
{
	uint32_t skip_bytes = lender->first_progress_bytes;
	size_t sum_bytes = 0;
	unsigned nr = 0;
	int err;

	/* Two pieces for each. */
	for (uint32_t i = 0; i < lender->nr_replies && nr + 2 <= max_iov; i++) {
		struct tcp_lender_reply *reply = lender_reply_at(lender, i);

		if (reply->payload_bytes > 0) {
			err = lender_reply_renew(lender, reply, skip_bytes);
			if (err < 0)
				return err;
		}
		if (skip_bytes < WIRE_RESPONSE_BYTES) {
			ret_iov[nr].iov_base = reply->header + skip_bytes;
			ret_iov[nr].iov_len = WIRE_RESPONSE_BYTES - skip_bytes;
			sum_bytes += ret_iov[nr++].iov_len;
			skip_bytes = 0;
		} else {
			skip_bytes -= WIRE_RESPONSE_BYTES;
		}
		if (reply->payload_bytes > 0) {
			ret_iov[nr].iov_base = (uint8_t *)reply->bytes + skip_bytes;
			ret_iov[nr].iov_len = reply->payload_bytes - skip_bytes;
			sum_bytes += ret_iov[nr++].iov_len;
		}
		skip_bytes = 0;
	}
	*ret_len_bytes = sum_bytes;
	return (int)nr;
}

int tcp_lender_sent(struct tcp_lender *lender, size_t len_bytes)
{
	lender->replies_bytes -= len_bytes;
	while (len_bytes > 0) {
		struct tcp_lender_reply *reply = lender_reply_at(lender, 0);
		uint32_t left_bytes = WIRE_RESPONSE_BYTES + reply->payload_bytes - lender->first_progress_bytes;

		if (len_bytes < left_bytes) {
			lender->first_progress_bytes += (uint32_t)len_bytes;
			break;
		}
		len_bytes -= left_bytes;
		lender->first_progress_bytes = 0;
		lender_tag_clear(lender, reply->request.tag);
		if (reply->payload_bytes > 0)
			lender_account(lender, &reply->request);
		lender->ring_first = lender->ring_first == lender->max_queue_depth ? 0 : lender->ring_first + 1;
		lender->nr_replies--;
	}
	return lender_parse(lender);
}

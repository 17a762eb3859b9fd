#include "client/frontend/nbd/handshake.h"

#include <assert.h>

#include "client/io.h"

#define GREETING_FLAGS (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define EXPORT_NAME_BYTES (sizeof(NBD_EXPORT_NAME) - 1)

static unsigned char *out_end(struct nbd_handshake *handshake)
{
	return handshake->out + handshake->nr_out;
}

static void out_commit(struct nbd_handshake *handshake, const unsigned char *end)
{
	handshake->nr_out = (size_t)(end - handshake->out);
	assert(handshake->nr_out <= sizeof(handshake->out));
}

/* The head of a reply to an option; len_bytes of data are to follow. */
static unsigned char *reply_begin(struct nbd_handshake *handshake, uint32_t option, uint32_t type, size_t len_bytes)
{
	unsigned char *p = out_end(handshake);

	assert(handshake->nr_out + NBD_OPTION_REPLY_HEADER_BYTES + len_bytes <= sizeof(handshake->out));
	p = nbd_put64(p, NBD_OPTION_REPLY_MAGIC);
	p = nbd_put32(p, option);
	p = nbd_put32(p, type);
	return nbd_put32(p, (uint32_t)len_bytes);
}

static void reply_empty(struct nbd_handshake *handshake, uint32_t option, uint32_t type)
{
	out_commit(handshake, reply_begin(handshake, option, type, 0));
}

/* An error, with words for the user of the client. */
static void reply_error(struct nbd_handshake *handshake, uint32_t option, uint32_t type, const char *text)
{
	size_t len = strlen(text);

	out_commit(handshake, nbd_put_bytes(reply_begin(handshake, option, type, len), text, len));
}

static uint16_t transmission_flags(const struct nbd_handshake *handshake)
{
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
			 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_FAST_ZERO;

	/* The flag must stay clear without structured replies. A read is always answered in one piece. */
	if (handshake->structured_replies)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}

static bool export_exists(const unsigned char *name, size_t len_bytes)
{
	return len_bytes == 0 ||
	       (len_bytes == EXPORT_NAME_BYTES && memcmp(name, NBD_EXPORT_NAME, EXPORT_NAME_BYTES) == 0);
}

static void on_export_name(struct nbd_handshake *handshake, const unsigned char *data, size_t len_bytes)
{
	unsigned char *p;

	if (!export_exists(data, len_bytes)) {
		handshake->state = NBD_HANDSHAKE_REFUSED;
		return;
	}
	p = nbd_put64(out_end(handshake), handshake->export_bytes);
	p = nbd_put16(p, transmission_flags(handshake));
	if (!handshake->no_zeroes) {
		memset(p, 0, 124);
		p += 124;
	}
	out_commit(handshake, p);
	handshake->state = NBD_HANDSHAKE_TRANSMISSION;
}

static void on_list(struct nbd_handshake *handshake, size_t len_bytes)
{
	unsigned char *p;

	if (len_bytes != 0) {
		reply_error(handshake, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	p = reply_begin(handshake, NBD_OPT_LIST, NBD_REP_SERVER, 4 + EXPORT_NAME_BYTES);
	p = nbd_put32(p, EXPORT_NAME_BYTES);
	out_commit(handshake, nbd_put_bytes(p, NBD_EXPORT_NAME, EXPORT_NAME_BYTES));
	reply_empty(handshake, NBD_OPT_LIST, NBD_REP_ACK);
}

/* INFO and GO: u32 length of the name, the name, u16 number of infos asked for, u16 each. */
static void on_info(struct nbd_handshake *handshake, uint32_t option, const unsigned char *data, size_t len_bytes)
{
	uint32_t name_bytes = len_bytes >= 6 ? nbd_get32(data) : 0;
	bool wants_name = false;
	const unsigned char *infos;
	unsigned char *p;
	size_t nr_infos;

	if (len_bytes < 6 || name_bytes > NBD_NAME_MAX_BYTES || name_bytes > len_bytes - 6) {
		reply_error(handshake, option, NBD_REP_ERR_INVALID, "length of the export's name does not fit");
		return;
	}
	nr_infos = nbd_get16(data + 4 + name_bytes);
	if (len_bytes - 6 - name_bytes != 2 * nr_infos) {
		reply_error(handshake, option, NBD_REP_ERR_INVALID, "number of information requests does not fit");
		return;
	}
	if (!export_exists(data + 4, name_bytes)) {
		reply_error(handshake, option, NBD_REP_ERR_UNKNOWN, "no such export; there is \"" NBD_EXPORT_NAME "\"");
		return;
	}
	infos = data + 6 + name_bytes;
	for (size_t i = 0; i < nr_infos; i++)
		if (nbd_get16(infos + 2 * i) == NBD_INFO_NAME)
			wants_name = true;

	p = reply_begin(handshake, option, NBD_REP_INFO, 12);
	p = nbd_put16(p, NBD_INFO_EXPORT);
	p = nbd_put64(p, handshake->export_bytes);
	out_commit(handshake, nbd_put16(p, transmission_flags(handshake)));
	if (wants_name) {
		p = reply_begin(handshake, option, NBD_REP_INFO, 2 + EXPORT_NAME_BYTES);
		p = nbd_put16(p, NBD_INFO_NAME);
		out_commit(handshake, nbd_put_bytes(p, NBD_EXPORT_NAME, EXPORT_NAME_BYTES));
	}
	/* Also to a client that did not ask: the sizes bind it all the same. */
	p = reply_begin(handshake, option, NBD_REP_INFO, 14);
	p = nbd_put16(p, NBD_INFO_BLOCK_SIZE);
	p = nbd_put32(p, FSW_PAGE_SIZE);
	p = nbd_put32(p, FSW_PAGE_SIZE);
	out_commit(handshake, nbd_put32(p, IO_MAX_PAGES * FSW_PAGE_SIZE));
	reply_empty(handshake, option, NBD_REP_ACK);
	if (option == NBD_OPT_GO)
		handshake->state = NBD_HANDSHAKE_TRANSMISSION;
}

static void on_option(struct nbd_handshake *handshake, uint32_t option, const unsigned char *data, size_t len_bytes)
{
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		on_export_name(handshake, data, len_bytes);
		break;
	case NBD_OPT_ABORT:
		reply_empty(handshake, option, NBD_REP_ACK);
		handshake->state = NBD_HANDSHAKE_LEAVING;
		break;
	case NBD_OPT_LIST:
		on_list(handshake, len_bytes);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		on_info(handshake, option, data, len_bytes);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		if (len_bytes != 0) {
			reply_error(handshake, option, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
			break;
		}
		handshake->structured_replies = true;
		reply_empty(handshake, option, NBD_REP_ACK);
		break;
	default:
		reply_error(handshake, option, NBD_REP_ERR_UNSUP, "option not supported");
		break;
	}
}

static size_t feed_client_flags(struct nbd_handshake *handshake, const unsigned char *buf, size_t len_bytes)
{
	uint32_t flags;

	if (len_bytes < 4)
		return 0;
	flags = nbd_get32(buf);
	if ((flags & ~GREETING_FLAGS) != 0) {
		handshake->state = NBD_HANDSHAKE_GARBAGE;
		return 4;
	}
	handshake->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
	handshake->state = NBD_HANDSHAKE_OPTIONS;
	return 4;
}

static size_t feed_option(struct nbd_handshake *handshake, const unsigned char *buf, size_t len_bytes)
{
	uint32_t option, data_bytes;

	if (len_bytes < NBD_OPTION_HEADER_BYTES)
		return 0;
	option = nbd_get32(buf + 8);
	data_bytes = nbd_get32(buf + 12);
	if (nbd_get64(buf) != NBD_OPTION_MAGIC || data_bytes > NBD_OPTION_SKIP_MAX_BYTES) {
		handshake->state = NBD_HANDSHAKE_GARBAGE;
		return NBD_OPTION_HEADER_BYTES;
	}
	if (data_bytes > NBD_OPTION_MAX_BYTES) {
		/* EXPORT_NAME cannot be answered with an error. */
		handshake->state = option == NBD_OPT_EXPORT_NAME ? NBD_HANDSHAKE_REFUSED : NBD_HANDSHAKE_SKIPPING;
		handshake->option = option;
		handshake->skip_bytes = data_bytes;
		return NBD_OPTION_HEADER_BYTES;
	}
	if (len_bytes - NBD_OPTION_HEADER_BYTES < data_bytes)
		return 0;
	on_option(handshake, option, buf + NBD_OPTION_HEADER_BYTES, data_bytes);
	return NBD_OPTION_HEADER_BYTES + data_bytes;
}

static size_t feed_skipped(struct nbd_handshake *handshake, size_t len_bytes)
{
	uint32_t taken = (uint32_t)base_min_u64(len_bytes, handshake->skip_bytes);

	handshake->skip_bytes -= taken;
	if (handshake->skip_bytes == 0) {
		reply_error(handshake, handshake->option, NBD_REP_ERR_TOO_BIG, "option is too long");
		handshake->state = NBD_HANDSHAKE_OPTIONS;
	}
	return taken;
}

void nbd_handshake_init(struct nbd_handshake *handshake, uint64_t export_bytes)
{
	unsigned char *p;

	memset(handshake, 0, sizeof(*handshake));
	handshake->state = NBD_HANDSHAKE_CLIENT_FLAGS;
	handshake->export_bytes = export_bytes;
	p = nbd_put64(handshake->out, NBD_MAGIC);
	p = nbd_put64(p, NBD_OPTION_MAGIC);
	out_commit(handshake, nbd_put16(p, GREETING_FLAGS));
}

size_t nbd_handshake_feed(struct nbd_handshake *handshake, const void *buf, size_t len_bytes)
{
	assert(handshake->nr_out == 0);
	switch (handshake->state) {
	case NBD_HANDSHAKE_CLIENT_FLAGS:
		return feed_client_flags(handshake, buf, len_bytes);
	case NBD_HANDSHAKE_OPTIONS:
		return feed_option(handshake, buf, len_bytes);
	case NBD_HANDSHAKE_SKIPPING:
		return feed_skipped(handshake, len_bytes);
	default:
		return 0;
	}
}

#include "common/transport/op.h"

#include <errno.h>
#include <string.h>

int transport_op_check(const struct transport_op *op)
{
	size_t sum_bytes = 0;

	if (op->opcode != TRANSPORT_READ && op->opcode != TRANSPORT_WRITE)
		return -EINVAL;
	if (op->len_bytes == 0 || op->len_bytes > TRANSPORT_MAX_OP_BYTES || !op->done)
		return -EINVAL;
	if (op->nr_iov == 0 || op->nr_iov > TRANSPORT_MAX_IOV || op->offset_bytes > UINT64_MAX - op->len_bytes)
		return -EINVAL;
	for (uint32_t i = 0; i < op->nr_iov; i++) {
		if (op->iov[i].iov_len > TRANSPORT_MAX_OP_BYTES)
			return -EINVAL;
		sum_bytes += op->iov[i].iov_len;
	}
	return sum_bytes == op->len_bytes ? 0 : -EINVAL;
}

int transport_connect_options_check(const struct transport_connect_options *options)
{
	if (options->queue_depth == 0 || options->queue_depth > TRANSPORT_MAX_QUEUE_DEPTH)
		return -EINVAL;
	if (options->heartbeat_ms == 0 || options->dead_ms <= options->heartbeat_ms || options->timeout_ms == 0)
		return -EINVAL;
	return 0;
}

unsigned transport_op_slice(const struct transport_op *op, uint32_t skip_bytes, struct iovec *ret_iov, unsigned max_iov,
			    size_t *ret_len_bytes)
{
	size_t skip = skip_bytes;
	size_t len_bytes = 0;
	unsigned nr = 0;

	for (uint32_t i = 0; i < op->nr_iov && nr < max_iov; i++) {
		const struct iovec *piece = &op->iov[i];

		if (skip >= piece->iov_len) {
			skip -= piece->iov_len;
			continue;
		}
		ret_iov[nr].iov_base = (char *)piece->iov_base + skip;
		ret_iov[nr].iov_len = piece->iov_len - skip;
		len_bytes += ret_iov[nr].iov_len;
		nr++;
		skip = 0;
	}
	*ret_len_bytes = len_bytes;
	return nr;
}

void transport_op_copy_in(const struct transport_op *op, uint32_t skip_bytes, const void *bytes, uint32_t len_bytes)
{
	const char *from = bytes;
	size_t skip = skip_bytes;
	size_t left = len_bytes;

	for (uint32_t i = 0; left > 0; i++) {
		const struct iovec *piece = &op->iov[i];
		size_t len;

		if (skip >= piece->iov_len) {
			skip -= piece->iov_len;
			continue;
		}
		len = base_min_u64(piece->iov_len - skip, left);
		memcpy((char *)piece->iov_base + skip, from, len);
		from += len;
		left -= len;
		skip = 0;
	}
}

void transport_op_copy_out(const struct transport_op *op, uint32_t skip_bytes, void *ret_bytes, uint32_t len_bytes)
{
	char *to = ret_bytes;
	size_t skip = skip_bytes;
	size_t left = len_bytes;

	for (uint32_t i = 0; left > 0; i++) {
		const struct iovec *piece = &op->iov[i];
		size_t len;

		if (skip >= piece->iov_len) {
			skip -= piece->iov_len;
			continue;
		}
		len = base_min_u64(piece->iov_len - skip, left);
		memcpy(to, (const char *)piece->iov_base + skip, len);
		to += len;
		left -= len;
		skip = 0;
	}
}

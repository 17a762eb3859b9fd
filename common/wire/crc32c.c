#include "common/wire/crc32c.h"

#include <isa-l/crc.h>

/* ISA-L takes an int for the length. A multiple of the cache line keeps the pieces aligned like the whole. */
#define CRC32C_PIECE_BYTES (1u << 30)

uint32_t wire_crc32c_extend(uint32_t crc, const void *buf, size_t len_bytes)
{
	/* ISA-L neither inverts what it is given nor what it returns, and lacks a const that it honours. */
	unsigned char *at = (unsigned char *)(uintptr_t)buf;
	uint32_t state = ~crc;

	while (len_bytes > 0) {
		size_t piece_bytes = len_bytes < CRC32C_PIECE_BYTES ? len_bytes : CRC32C_PIECE_BYTES;

		state = crc32_iscsi(at, (int)piece_bytes, state);
		at += piece_bytes;
		len_bytes -= piece_bytes;
	}
	return ~state;
}

uint32_t wire_crc32c(const void *buf, size_t len_bytes)
{
	return wire_crc32c_extend(0, buf, len_bytes);
}

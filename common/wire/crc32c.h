/*
 * CRC32C (Castagnoli), as iSCSI defines it (RFC 3720, section 12.1 and appendix B.4): the checksum of stored pages and of
 * frames. By ISA-L, which picks the machine's instructions for itself.
 *
 * Pure; any thread; never fails.
 */
#ifndef FARSWAP_COMMON_WIRE_CRC32C_H
#define FARSWAP_COMMON_WIRE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of len_bytes bytes; 0 of none. */
uint32_t wire_crc32c(const void *buf, size_t len_bytes);

/* The checksum of a followed by buf, where crc is that of a: extend(extend(0, a), b) is that of ab. */
uint32_t wire_crc32c_extend(uint32_t crc, const void *buf, size_t len_bytes);

#endif

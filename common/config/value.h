/*
 * Values as people write them: sizes and times, from text and back. Pure; any thread.
 */
#ifndef FARSWAP_COMMON_CONFIG_VALUE_H
#define FARSWAP_COMMON_CONFIG_VALUE_H

#include "common/base/base.h"

#define CONFIG_VALUE_MAX 32 /* longest text that the format functions write, with its end */

/* Decimal digits and nothing else. 0; -EINVAL malformed; -ERANGE beyond 64 bits. */
int config_parse_u64(const char *text, uint64_t *ret_value) BASE_MUST_CHECK;

/*
 * A number of bytes: digits, and K, M, G, T or P for powers of 1024 ("64M"; "64MiB" is the same, "64MB" is refused). 0;
 * -EINVAL malformed; -ERANGE beyond 64 bits.
 */
int config_parse_size(const char *text, uint64_t *ret_bytes) BASE_MUST_CHECK;

/* A time: digits and one of ms, s, min, h ("500ms"); only 0 may go without. 0; -EINVAL malformed; -ERANGE. */
int config_parse_duration(const char *text, uint64_t *ret_ms) BASE_MUST_CHECK;

/* yes, true, on, 1; no, false, off, 0. 0 or -EINVAL. */
int config_parse_bool(const char *text, bool *ret_value) BASE_MUST_CHECK;

/* The shortest text that is read back as the same value: "64M", "1536K", "1000"; "500ms", "10s". */
void config_format_size(uint64_t bytes, char text[CONFIG_VALUE_MAX]);
void config_format_duration(uint64_t ms, char text[CONFIG_VALUE_MAX]);

#endif

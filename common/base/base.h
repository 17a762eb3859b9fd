/*
 * What every room uses: the page, the compiler's attributes, small arithmetic.
 *
 * Owns nothing and never fails. Everything here is a macro, a constant or a pure inline function, safe on any thread.
 */
#ifndef FARSWAP_COMMON_BASE_BASE_H
#define FARSWAP_COMMON_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The unit of everything that is stored: the page of a swap device. */
#define FSW_PAGE_SHIFT 12
#define FSW_PAGE_SIZE (1u << FSW_PAGE_SHIFT)

/* Bytes that two threads must not share by accident. */
#define FSW_CACHE_LINE 64

#define BASE_MUST_CHECK __attribute__((warn_unused_result))
#define BASE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define BASE_LIKELY(x) __builtin_expect(!!(x), 1)
#define BASE_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BASE_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The structure of type `type` whose member `member` is at `ptr`. */
#define BASE_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t base_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t base_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool base_is_power_of_two(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

/* `align` is a power of two; the caller makes sure that x + align does not overflow. */
static inline uint64_t base_align_up(uint64_t x, uint64_t align)
{
	return (x + align - 1) & ~(align - 1);
}

static inline uint64_t base_align_down(uint64_t x, uint64_t align)
{
	return x & ~(align - 1);
}

/* log2 of x rounded down; x must not be 0. */
static inline unsigned base_log2(uint64_t x)
{
	return 63u - (unsigned)__builtin_clzll(x);
}

#endif

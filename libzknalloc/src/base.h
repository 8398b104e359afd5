/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * base.h - what every file needs and nothing that needs a file: branch hints,
 * checked arithmetic, relaxed atomics.  Includes nothing of ours.
 */
#ifndef ZKN_BASE_H
#define ZKN_BASE_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define COLD        __attribute__((cold, noinline))
#define HIDDEN      __attribute__((visibility("hidden")))

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* The size of a huge page on x86-64 and on arm64 with 4 KiB pages.  Where
 * the kernel's differs, alignment to this is harmless. */
#define HUGE_PAGE (2 * MIB)

static inline bool is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* N rounded to a multiple of the power of two UNIT; callers know that the sum
 * cannot overflow. */
static inline size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) & ~(unit - 1);
}

static inline size_t round_down(size_t n, size_t unit)
{
    return n & ~(unit - 1);
}

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* floor(log2(N)) for N > 0. */
static inline unsigned log2_floor(size_t n)
{
    return (unsigned)(sizeof(size_t) * CHAR_BIT - 1) -
           (unsigned)__builtin_clzl(n);
}

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define store_relaxed(p, v)                                                    \
    atomic_store_explicit((p), (v), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define store_release(p, v)                                                    \
    atomic_store_explicit((p), (v), memory_order_release)

#endif /* ZKN_BASE_H */

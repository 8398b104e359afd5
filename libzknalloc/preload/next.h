/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * next.h - the next allocator in the chain, for libraries that define malloc
 * and pass calls on: the C library's, or one that is preloaded after us.
 *
 * The first instructions: the dynamic linker calls malloc before any
 * constructor has run, and dlsym(), which finds the next allocator, may call
 * it too.  So the pointers in "next" start at functions that look the real
 * ones up; requests made from inside that look-up come from a small static
 * buffer, whose blocks are never freed.
 *
 * "next" is written once, with the same values whoever does it; readers need
 * no lock.
 */
#ifndef NEXT_H
#define NEXT_H

#include <stdbool.h>
#include <stddef.h>

#define EXPORT      __attribute__((visibility("default")))
#define HIDDEN      __attribute__((visibility("hidden")))
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct next {
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *ptr, size_t size);
    void *(*memalign)(size_t alignment, size_t size);
    void (*free)(void *ptr);
    size_t (*usable_size)(void *ptr);
};

extern HIDDEN struct next next;

/* Blocks for requests made while the next allocator is being looked up.  The
 * next allocator does not know them: ask is_early() before any call of
 * next.free(), next.realloc() or next.usable_size(). */
#define EARLY_SIZE ((size_t)16 * 1024)
extern HIDDEN char early[EARLY_SIZE];

static inline bool is_early(const void *ptr)
{
    return (size_t)((const char *)ptr - early) < EARLY_SIZE;
}

/* The size of the early block at PTR; each is preceded by it. */
static inline size_t early_size(const void *ptr)
{
    return ((const size_t *)ptr)[-1];
}

static inline bool is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

#endif /* NEXT_H */

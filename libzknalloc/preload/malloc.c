/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * malloc.c - the malloc family, for LD_PRELOAD or for linking: requests of
 * ZKN_THRESHOLD bytes and more go to libzknalloc, all others to the next
 * allocator in the chain (the C library's, or one that is preloaded after us).
 *
 * What a small request costs on top is one comparison and one indirect call;
 * what a small free costs is one subtraction, one comparison, one indirect
 * call.
 *
 * How the next allocator is found, and what serves until then: next.h.
 *
 * Nothing here takes a lock or keeps state for a thread.
 */
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "next.h"
#include "zknalloc.h"
#include "zknalloc_private.h"

/* ------------------------------------------------------------------- helpers
 */

static inline bool is_large(size_t size)
{
    return size >= ZKN_THRESHOLD;
}

static inline bool is_ours(const void *ptr)
{
    /* The size is set after the base. */
    size_t size = __atomic_load_n(&zkn_private_range.size, __ATOMIC_ACQUIRE);
    return (size_t)((const char *)ptr - zkn_private_range.base) < size;
}

/* glibc trims the top of its heap on every free while more than its trim
 * threshold, 128 KiB at first, is free there; freeing a mapped block raises it
 * to twice that block's size, of up to 32 MiB (mallopt(3)).  It no longer sees
 * such blocks, so the small requests of a prover would pay for the large ones'
 * absence, a fault for each page trimmed.  So the threshold is raised here as
 * it would have been there, in powers of two; unless the user has set it. */
#define DYNAMIC_MOST ((size_t)32 << 20)

static _Atomic size_t largest_seen = (size_t)128 << 10;

static bool user_has_set_threshold(void)
{
    const char *tunables = getenv("GLIBC_TUNABLES");
    return getenv("MALLOC_TRIM_THRESHOLD_") != NULL ||
           getenv("MALLOC_MMAP_THRESHOLD_") != NULL ||
           getenv("MALLOC_TOP_PAD_") != NULL ||
           (tunables != NULL && strstr(tunables, "glibc.malloc.") != NULL);
}

static __attribute__((noinline, cold)) void raise_threshold(size_t size)
{
    size_t seen = atomic_load(&largest_seen), power = seen;
    while (power < size)
        power *= 2;
    if (atomic_compare_exchange_strong(&largest_seen, &seen, power) &&
        !user_has_set_threshold())
        (void)mallopt(M_TRIM_THRESHOLD, (int)(2 * power));
}

/* A large request: the cache's, or where it cannot serve, the next one's. */
static __attribute__((noinline)) void *large(size_t size, size_t alignment,
                                             bool zeroed)
{
    if (unlikely(size >
                 atomic_load_explicit(&largest_seen, memory_order_relaxed)) &&
        size <= DYNAMIC_MOST)
        raise_threshold(size);
    void *ptr = zkn_private_alloc(size, alignment, zeroed);
    if (likely(ptr != NULL))
        return ptr;
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (zeroed)
        return next.calloc(1, size);
    return alignment > 1 ? next.memalign(alignment, size) : next.malloc(size);
}

/* ALIGNMENT is a power of two. */
static void *aligned(size_t alignment, size_t size)
{
    return is_large(size) ? large(size, alignment, false)
                          : next.memalign(alignment, size);
}

/* A copy of PTR, of which HAD bytes may be read, in a block of SIZE bytes. */
static __attribute__((noinline)) void *move(void *ptr, size_t had, size_t size)
{
    void *moved = malloc(size);
    if (moved != NULL) {
        memcpy(moved, ptr, had < size ? had : size);
        free(ptr);
    }
    return moved;
}

/* ---------------------------------------------------------- the malloc family
 */

EXPORT void *malloc(size_t size)
{
    return unlikely(is_large(size)) ? large(size, 1, false) : next.malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    return unlikely(is_large(bytes)) ? large(bytes, 1, true)
                                     : next.calloc(count, size);
}

EXPORT void free(void *ptr)
{
    if (unlikely(is_ours(ptr)))
        zkn_free(ptr);
    else if (likely(!is_early(ptr)))
        next.free(ptr);
}

EXPORT void *realloc(void *ptr, size_t size)
{
    if (ptr == NULL)
        return malloc(size);
    if (is_ours(ptr))
        return zkn_realloc(ptr, size);
    if (unlikely(is_early(ptr)))
        return move(ptr, early_size(ptr), size);
    /* A block that grows past the threshold moves over to the cache, if there
     * is one. */
    if (is_large(size) && zkn_private_range.size > 0) {
        void *moved = move(ptr, next.usable_size(ptr), size);
        if (likely(moved != NULL))
            return moved;
    }
    return next.realloc(ptr, size);
}

EXPORT void *reallocarray(void *ptr, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(ptr, bytes);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved = errno;
    void *ptr = aligned(alignment, size);
    if (ptr == NULL) /* errno, too: no standard asks for it, glibc does it */
        return errno = ENOMEM;
    errno = saved;
    *out = ptr;
    return 0;
}

/* What these two do with an alignment that is no power of two differs between
 * allocators, so the next one answers. */
EXPORT void *memalign(size_t alignment, size_t size)
{
    return is_power_of_two(alignment) ? aligned(alignment, size)
                                      : next.memalign(alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

EXPORT void *valloc(size_t size)
{
    return aligned((size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORT void *pvalloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX - page) {
        errno = ENOMEM;
        return NULL;
    }
    return aligned(page, (size + page - 1) & ~(page - 1));
}

EXPORT size_t malloc_usable_size(void *ptr)
{
    if (is_ours(ptr))
        return zkn_usable_size(ptr);
    if (unlikely(is_early(ptr)))
        return early_size(ptr);
    return next.usable_size(ptr);
}

EXPORT void cfree(void *ptr)
{
    free(ptr);
}

EXPORT void free_sized(void *ptr, size_t size)
{
    if (is_ours(ptr))
        zkn_free_sized(ptr, size);
    else
        free(ptr);
}

EXPORT void free_aligned_sized(void *ptr, size_t alignment, size_t size)
{
    (void)alignment;
    free_sized(ptr, size);
}

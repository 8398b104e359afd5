/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * api.c - the public functions: checks, the threshold, and who serves.
 *
 * Below ZKN_THRESHOLD, and where the cache cannot serve, the system allocator
 * does; free and its kin tell the two apart by address alone.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "heap.h"
#include "hooks.h"
#include "init.h"
#include "magazine.h"
#include "options.h"
#include "stats.h"
#include "trim.h"
#include "zknalloc.h"
#include "zknalloc_private.h"

static inline bool is_large(size_t size)
{
    return size >= ZKN_THRESHOLD;
}

static inline void *from_system(size_t size, size_t alignment, bool zeroed)
{
    if (alignment == 1)
        return zeroed ? calloc(1, size) : malloc(size);
    void *ptr = memalign(alignment, size);
    if (zeroed && ptr != NULL)
        memset(ptr, 0, size);
    return ptr;
}

/* A large request that the cache cannot serve. */
static COLD void *fall_back(size_t size, size_t alignment, bool zeroed)
{
    stats_add(STAT_fallback_system, 1);
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    return from_system(size, max_size(alignment, 64), zeroed);
}

static inline void *allocate(size_t size, size_t alignment, bool zeroed)
{
    if (!is_large(size))
        return from_system(size, alignment, zeroed);
    void *ptr = cache_alloc(size, alignment, zeroed);
    return likely(ptr != NULL) ? ptr : fall_back(size, alignment, zeroed);
}

void *zkn_private_alloc(size_t size, size_t alignment, bool zeroed)
{
    void *ptr = cache_alloc(size, alignment, zeroed);
    if (unlikely(ptr == NULL))
        stats_add(STAT_fallback_system, 1);
    return ptr;
}

void zkn_private_limited(void)
{
    heap_follow_limit();
}

void *zkn_alloc(size_t size)
{
    return allocate(size, 1, false);
}

void *zkn_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return allocate(bytes, 1, true);
}

void *zkn_aligned_alloc(size_t alignment, size_t size)
{
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return allocate(size, alignment, false);
}

void *zkn_realloc(void *ptr, size_t size)
{
    if (ptr == NULL)
        return zkn_alloc(size);
    if (size == 0) {
        zkn_free(ptr);
        return NULL;
    }
    if (heap_owns(ptr) && is_large(size)) {
        void *result = cache_realloc(ptr, size);
        if (likely(result != NULL))
            return result;
    } else if (!heap_owns(ptr) &&
               (!is_large(size) || !load_acquire(&heap.ready))) {
        return realloc(ptr, size);
    }
    /* Across the threshold, or out of the cache: a copy. */
    size_t had = zkn_usable_size(ptr);
    void *moved = zkn_alloc(size);
    if (moved == NULL)
        return heap_owns(ptr) ? NULL : realloc(ptr, size);
    memcpy(moved, ptr, had < size ? had : size);
    zkn_free(ptr);
    return moved;
}

void zkn_free_sized(void *ptr, size_t size)
{
    int saved = errno;
    if (heap_owns(ptr))
        cache_free(ptr, size);
    else
        free(ptr);
    errno = saved;
}

void zkn_free(void *ptr)
{
    zkn_free_sized(ptr, 0);
}

size_t zkn_usable_size(const void *ptr)
{
    if (heap_owns(ptr))
        return cache_usable_size(ptr);
    return malloc_usable_size((void *)(uintptr_t)ptr);
}

bool zkn_owns(const void *ptr)
{
    return heap_owns(ptr);
}

/* Empty the magazines and ACT; nothing while a thread forks. */
static size_t control(size_t (*act)(void))
{
    size_t done = 0;
    if (load_acquire(&heap.ready) && heap_hold()) {
        struct region *held = magazine_drain();
        if (held != NULL)
            (void)heap_give(held);
        done = act();
        heap_let_go();
    }
    return done;
}

size_t zkn_soften_cache(void)
{
    return control(trim_soften);
}

size_t zkn_release_cache(void)
{
    return control(trim_release);
}

size_t zkn_stage_boundary(void)
{
    return control(trim_stage);
}

int zkn_set_region_hooks(zkn_on_map_t *on_map, zkn_on_unmap_t *on_unmap,
                         void *ctx)
{
    return init_cache() ? hooks_set(on_map, on_unmap, ctx) : -ENOMEM;
}

int zkn_options_print(int fd)
{
    (void)init_cache();
    int saved = errno;
    int error = options_print(fd);
    errno = saved;
    return error;
}

const char *zkn_version(void)
{
    return ZKN_VERSION_STRING;
}

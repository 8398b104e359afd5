/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cache.h - large requests: magazine first, page heap second.
 *
 * The public functions (api.c) and the preload library stand on these.  Sizes
 * here are at least ZKN_THRESHOLD; pointers satisfy heap_owns().
 */
#ifndef ZKN_CACHE_H
#define ZKN_CACHE_H

#include "base.h"

/* SIZE bytes at a multiple of ALIGNMENT, a power of two; NULL where the cache
 * cannot serve it (errno is not set: the caller tries the system). */
HIDDEN void *cache_alloc(size_t size, size_t alignment, bool zeroed);

/* Free what cache_alloc() returned; anything else in the heap's addresses is
 * misuse and ends the process.  SIZE 0 is not checked. */
HIDDEN void cache_free(void *ptr, size_t size);

/* Resize in place, or move; NULL as above, PTR then untouched. */
HIDDEN void *cache_realloc(void *ptr, size_t size);

HIDDEN size_t cache_usable_size(const void *ptr);

#endif /* ZKN_CACHE_H */

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zknalloc_private.h - what the preload library needs beyond zknalloc.h.  Not
 * installed; the two libraries are built and shipped together.
 */
#ifndef ZKNALLOC_PRIVATE_H
#define ZKNALLOC_PRIVATE_H

#include "zknalloc.h"

/* The addresses that zkn_owns() is true for; size is 0 until the cache is up.
 * Both are set before the first region is handed out; the size may shrink. */
extern ZKN_API struct zkn_private_range {
    const char *base;
    size_t size;
} zkn_private_range;

/* SIZE >= ZKN_THRESHOLD bytes from the cache, or NULL where it cannot serve:
 * unlike zkn_alloc() this never calls malloc. */
ZKN_API void *zkn_private_alloc(size_t size, size_t alignment, bool zeroed);

/* To be called where the process may have lowered RLIMIT_AS. */
ZKN_API void zkn_private_limited(void);

#endif /* ZKNALLOC_PRIVATE_H */

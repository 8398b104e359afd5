/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * hooks.h - telling the program which memory is the heap's.
 *
 * A program that registers memory with a device (for a GPU to copy from, say)
 * pays dearly for each registration, so it wants to register what the cache
 * keeps, not each buffer.  With hooks the heap grows in large ranges, each
 * announced when it becomes usable and once more before it is given back.
 * Registered memory must stay where it is: while there are hooks, nothing is
 * moved, softened, dropped or given back by the budget; only a call of
 * zkn_release_cache() or zkn_stage_boundary() gives back the ranges that are
 * free from end to end.
 *
 * Locks: the list of ranges belongs to heap.lock; hooks are called without it,
 * on a range that is BUSY or new.
 */
#ifndef ZKN_HOOKS_H
#define ZKN_HOOKS_H

#include "heap.h"
#include "zknalloc.h"

/* The least that the heap grows by while there are hooks, in bytes. */
#define HOOKS_STEP (32 * MIB)

/* Pages between one range and the next, which nobody uses.  A driver copies
 * from memory that lies in one registered range, or in none, so no region may
 * lie in two: CUDA's says CUDA_ERROR_INVALID_VALUE.  A huge page, so that each
 * range starts with one. */
#define HOOKS_GAP ((uint32_t)HUGE_PAGES)

/* Whether there are hooks.  Needs heap.lock, or is a hint. */
extern HIDDEN _Atomic bool hooked;

HIDDEN int hooks_set(zkn_on_map_t *on_map, zkn_on_unmap_t *on_unmap, void *ctx);

/* Announce PAGES pages from PAGE on, which are BUSY and accessible.  Returns 0
 * or -errno, where the program or the list refuses.  Without the lock. */
HIDDEN int hooks_map(uint32_t page, uint32_t pages);

/* Give back the ranges that are free; returns their pages that counted as
 * resident.  Called and returns with the lock. */
HIDDEN size_t hooks_release(void);

/* In a child after fork(): registrations do not outlive it.  Gaps stay, since
 * the tiling may not be touched here, until the child sets hooks of its own. */
HIDDEN void hooks_forked(void);

#endif /* ZKN_HOOKS_H */

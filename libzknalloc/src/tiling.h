/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * tiling.h - how regions tile the heap: descriptors, splitting, coalescing
 * and the lists of free runs.  Only the page heap and its budget include it;
 * every function needs heap.lock.
 */
#ifndef ZKN_TILING_H
#define ZKN_TILING_H

#include "heap.h"

/* The most descriptors that one operation under the lock may need. */
#define TILING_SPARES 4

/* Whether TILING_SPARES descriptors are at hand. */
HIDDEN bool tiling_stocked(void);

/* A new region of STATE over pages that no other region covers. */
HIDDEN struct region *tiling_add(enum region_state state, uint32_t page,
                                 uint32_t pages);

/* Put a run that is in no list into the free state STATE, joined with its
 * neighbours of the same state save where that is SPARSE.  Returns the joined
 * run. */
HIDDEN struct region *tiling_free(struct region *region,
                                  enum region_state state);

/* Take a free run out of its tree and list, as BUSY. */
HIDDEN void tiling_detach(struct region *region);

/* Take PAGES pages from PAGE on, which lies in the free run FIRST, out of that
 * run and the free runs that follow it, as one HELD region; what is left of
 * the runs stays free.  Counts the ZERO pages in *ZERO and notes in the
 * region where the longest stretch of them lies. */
HIDDEN struct region *tiling_carve(struct region *first, uint32_t page,
                                   uint32_t pages, uint32_t *zero);

/* Cut the BUSY REGION in two after PAGES pages; returns the second, BUSY too.
 */
HIDDEN struct region *tiling_split(struct region *region, uint32_t pages);

/* Lengthen a LIVE region to PAGES pages out of the free runs that follow it;
 * or cut it to its first PAGES pages and free the rest in STATE. */
HIDDEN void tiling_lengthen(struct region *region, uint32_t pages,
                            uint32_t *zero);
HIDDEN void tiling_shorten(struct region *region, uint32_t pages,
                           enum region_state state);

/* Mark a DIRTY run, last used at USED, as offered to the kernel; it goes to its
 * place by age, before all others of that second. */
HIDDEN void tiling_mark_soft(struct region *region, uint16_t used);

/* The neighbours in address order, or NULL at either end of the heap. */
HIDDEN struct region *tiling_before(const struct region *region);
HIDDEN struct region *tiling_after(const struct region *region);

static inline enum region_state state_of(const struct region *region)
{
    return (enum region_state)load_relaxed(&region->state);
}

/* Pages of REGION that count as resident where it is LIVE or may be. */
static inline uint32_t counted(const struct region *region)
{
    return region->sparse ? region->counted : region->pages;
}

/* The tree in which a free run of STATE belongs. */
static inline struct tree *tree_of(const struct region *region,
                                   enum region_state state)
{
    return &heap.free[region->node][state];
}

/* Whether the run is free, accessible and of no particular kind. */
static inline bool is_free(const struct region *region)
{
    enum region_state state = state_of(region);
    return state == REGION_DIRTY || state == REGION_ZERO;
}

#endif /* ZKN_TILING_H */

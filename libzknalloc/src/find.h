/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * find.h - where a request should go, and more room where there is none.
 *
 * Every function is called and returns with heap.lock; those that grow drop
 * it around their system calls.
 */
#ifndef ZKN_FIND_H
#define ZKN_FIND_H

#include "tiling.h"

/* A place in a stretch of free runs. */
struct window {
    struct region *first; /* the run that covers page; NULL for no place */
    uint32_t page;
    uint32_t dirty; /* DIRTY pages from there on that the request would use */
};

/* The best place for REQUEST that SOURCE allows; grows the heap if need be.
 * TILING_SPARES descriptors are at hand where a place is returned. */
HIDDEN struct window find_place(const struct heap_request *request,
                                enum heap_source source);

/* Add free pages at the top, so that a run of PAGES pages ends there, what is
 * free there already counted in.  Other threads may have taken the new pages
 * by the time it returns. */
HIDDEN bool grow_top(uint32_t pages);

/* Make the BUSY run accessible, announce it to the hooks, if there are any, and
 * free it: as ZERO, or as BARE where that failed.  Returns whether it is ZERO.
 */
HIDDEN bool commit_run(struct region *run);

/* Make sure that tiling_stocked(), though it may drop the lock; false where
 * there is no memory for descriptors. */
HIDDEN bool stock_up(void);

#endif /* ZKN_FIND_H */

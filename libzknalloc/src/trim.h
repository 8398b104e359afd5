/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * trim.h - giving free pages back to the kernel.
 *
 * Budget, in pages, whenever a request has been served:
 *
 *     live + dirty <= high-water mark of live + slack
 *     dirty        <= ceiling
 *
 * so the resident size never passes what the program itself once needed.
 */
#ifndef ZKN_TRIM_H
#define ZKN_TRIM_H

#include "region.h"

/* Enforce the budget and publish the gauges.  Called and returns with
 * heap.lock, which it drops around each system call. */
HIDDEN void trim_to_budget(void);

/* The whole huge pages inside RUN: [*page, *end), if any. */
HIDDEN bool trim_core(const struct region *run, uint32_t *page, uint32_t *end);

/* Give back, or offer to the kernel, all free pages; returns the bytes.
 * Called without the lock. */
HIDDEN size_t trim_release(void);
HIDDEN size_t trim_soften(void);

/* A stage of the program ended: forget the high-water mark of live bytes, so
 * that the budget follows what comes next, and give free pages back. */
HIDDEN size_t trim_stage(void);

/* What a tick of the clock (watch.c) does to free runs by the seconds since
 * their last use: gives back those of RELEASE_AFTER and more; offers to the
 * kernel those of SOFTEN_AFTER and more, and all but the youngest HARD pages.
 * Returns the free pages that are left. */
struct trim_rules {
    unsigned soften_after, release_after;
    size_t hard;
};
HIDDEN size_t trim_tick(const struct trim_rules *rules);

#endif /* ZKN_TRIM_H */

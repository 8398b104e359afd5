/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * magazine.h - a small stock of freed regions for each CPU, by size class,
 * last in first out: the hit path.
 *
 * A region of up to MAGAZINE_LARGEST bytes that is freed goes to the magazine
 * of the CPU that runs the thread, and the next request of its class there
 * takes it back: no lock that CPUs share, no system call, no search.  By CPU
 * rather than by thread, since a thread pool that ended then leaves nothing
 * behind.  A full magazine is emptied into the heap whole, which coalesces
 * what a past phase left.
 *
 * Locks: each shard has a flag that its users try once.  Who finds it taken
 * (its holder was pre-empted, or empties it from another CPU) goes to the
 * heap instead, so nobody ever waits for a shard.  A shard's flag is never
 * held together with heap.lock, except around fork().
 */
#ifndef ZKN_MAGAZINE_H
#define ZKN_MAGAZINE_H

#include "heap.h"
#include "stats.h"

/* The largest region that a magazine takes, in bytes. */
#define MAGAZINE_LARGEST (2 * MIB)

/* ------------------------------------------------------------ size classes
 * Runs of up to 64 pages have a class each; beyond, every power of two is
 * divided into 32 classes, so that rounding up adds 1/32 at most. */

#define CLASS_EXACT      64
#define CLASS_STEPS_LOG2 5

static inline unsigned class_floor(uint32_t pages)
{
    if (pages < CLASS_EXACT)
        return pages;
    unsigned log2 = log2_floor(pages);
    return CLASS_EXACT + ((log2 - 6) << CLASS_STEPS_LOG2) +
           ((pages >> (log2 - CLASS_STEPS_LOG2)) & 31);
}

/* PAGES rounded up to what its class holds. */
static inline uint32_t class_round(uint32_t pages)
{
    if (pages < CLASS_EXACT)
        return pages;
    uint32_t step = 1U << (log2_floor(pages) - CLASS_STEPS_LOG2);
    return (pages + step - 1) & ~(step - 1);
}

/* ------------------------------------------------------------------ magazine
 */

/* Set the bound on the bytes that one CPU's magazine may hold. */
HIDDEN void magazine_open(size_t bytes);

/* Whether regions of PAGES pages go through magazines. */
HIDDEN bool magazine_fits(uint32_t pages);

/* A region of PAGES pages or a few more, now LIVE and counted as a hit for a
 * request of SIZE bytes; or NULL. */
HIDDEN struct region *magazine_take(uint32_t pages, size_t size);

/* Keep the HELD region, for which magazine_fits().  Returns a chain of regions
 * that must go to the heap: none, what the magazine held, or REGION itself. */
HIDDEN struct region *magazine_put(struct region *region);

/* Empty all magazines that are not in use; returns a chain for the heap. */
HIDDEN struct region *magazine_drain(void);

/* Around fork(). */
HIDDEN void magazine_fork_prepare(void);
HIDDEN void magazine_fork_done(void);

#endif /* ZKN_MAGAZINE_H */

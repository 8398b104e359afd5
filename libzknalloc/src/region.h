/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * region.h - a region is a run of pages with one descriptor.
 *
 * The heap's address space is tiled by regions: every page below the heap's
 * top belongs to exactly one, live or free.  Descriptors lie out of band, in
 * a pool; the page map holds, for the first and the last page of each region,
 * the descriptor's index.  Entries for pages in between are stale, which is
 * harmless: an address is a live region's only where the descriptor says so.
 *
 * Layout of the reservation, one mapping, made writable from the left of
 * each part as it is needed:
 *
 *     | page map: 4 B a page | descriptors: 64 B each | heap pages ...      |
 *     ^ map                  ^ pool                   ^ base          limit ^
 *
 * Locks: descriptors, the map and all lists belong to the heap's lock, with
 * two exceptions.  The owner of a live region (the program, or the magazine
 * that holds it) may read its descriptor and its map entry; and the state of
 * a live region changes by atomic compare-and-swap, so that of two threads
 * that free one region, one is told.
 */
#ifndef ZKN_REGION_H
#define ZKN_REGION_H

#include "base.h"

enum region_state {
    REGION_SPARE,  /* descriptor not in use */
    REGION_LIVE,   /* the program's */
    REGION_HELD,   /* freed by the program, in a magazine or on its way back */
    REGION_BUSY,   /* one thread's, for a system call outside the lock; or */
                   /* nobody's, a gap: see hooks.h */
    REGION_DIRTY,  /* free, may be resident, content unspecified */
    REGION_ZERO,   /* free, not resident, reads as zero */
    REGION_SPARSE, /* free, a few pages resident, reads as zero: see zero.h */
    REGION_BARE,   /* free, not accessible yet */
    REGION_STATES
};

struct region {
    _Atomic(char *) addr; /* what the program holds; NULL unless LIVE, HELD */
    _Atomic uint32_t state;
    union {
        uint32_t zero_pages; /* LIVE: pages known to read as zero, from ... */
        uint32_t kept; /* sparse: pages that its last owner left resident */
    };
    uint32_t page; /* first page, counted from the heap's base */
    uint32_t pages;
    /* Free: children in the tree of its state.  HELD: left is the next one
     * in the magazine.  SPARE: left is the next in the pool. */
    struct region *left;
    union {
        struct region *right;
        uint32_t asked; /* LIVE, sparse or zeroed: pages asked for */
    };
    /* DIRTY and SPARSE: neighbours by age, see heap.h. */
    struct region *older, *newer;
    union {
        uint32_t zero_first; /* ... this page of the region on */
        uint32_t counted;    /* sparse: pages that count as resident */
    };
    uint16_t used;    /* DIRTY and SPARSE: heap.clock at its last use */
    bool soft : 1;    /* likewise: offered to the kernel since its last use */
    bool sparse : 1;  /* a few small pages of it are resident: see zero.h */
    bool probe : 1;   /* LIVE, sparse: to find out what its like is used for */
    bool zeroed : 1;  /* LIVE: given out as zeroed memory, to learn from */
    bool guarded : 1; /* LIVE: its last page is inaccessible (debug.h) */
    uint8_t node;     /* DIRTY, SPARSE, LIVE: whose memory it is; otherwise 0 */
};

_Static_assert(sizeof(struct region) <= 64, "a descriptor is a cache line");

/* ------------------------------------------------------ trees of free runs */

/* Regions of one state, ordered by (pages, page): a treap. */
struct tree {
    struct region *root;
};

HIDDEN void tree_insert(struct tree *tree, struct region *region);
HIDDEN void tree_remove(struct tree *tree, struct region *region);

/* The smallest region of at least PAGES pages, of those the lowest; or NULL. */
HIDDEN struct region *tree_fit(const struct tree *tree, uint32_t pages);

/* The next smaller region than REGION in the tree's order, or the greatest of
 * all for NULL; the next larger one.  NULL at the end. */
HIDDEN struct region *tree_smaller(const struct tree *tree,
                                   const struct region *region);
HIDDEN struct region *tree_larger(const struct tree *tree,
                                  const struct region *region);

#endif /* ZKN_REGION_H */

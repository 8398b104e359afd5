/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * space.c - the reservation of address space: its layout, and how a part of it
 * goes back.
 *
 * Address space is free, so much of it is reserved.  It is not free where
 * RLIMIT_AS is finite: what is reserved and never used counts, too.  A limit
 * that was there from the start is allowed for when the reservation is made
 * (init.c); where the process, or another for it, lowers the limit later, what
 * is left for stacks, libraries and small blocks may be nothing at all.  So
 * what the heap has never used goes back then, by halves, until the process
 * could map as much besides.  Where the limit leaves no room even so, all of it
 * goes.
 *
 * What goes lies above the top, so no pointer into it was ever handed out, and
 * what is mapped there afterwards is not the heap's.  The page map and the pool
 * of descriptors shrink with it.
 */
#include <errno.h>
#include <sched.h>

#include "heap.h"
#include "os.h"
#include "stats.h"
#include "tiling.h"
#include "zknalloc_private.h"

struct zkn_private_range zkn_private_range;

/* Where the parts of the reservation end; see region.h.  Under the lock. */
static char *map_end, *pool_end;

/* The metadata of a heap of PAGES pages.  Live regions have ZKN_THRESHOLD
 * bytes, and a free run lies between two of them at worst. */
static size_t descriptors_for(size_t pages)
{
    size_t fewest = max_size(ZKN_THRESHOLD >> heap.page_shift, 1);
    return 2 * (pages / fewest) + TILING_SPARES + 1;
}

static size_t map_bytes(size_t pages)
{
    return round_up(pages * sizeof(uint32_t), HUGE_PAGE);
}

static size_t pool_bytes(size_t descriptors)
{
    return round_up(descriptors * sizeof(struct region), HUGE_PAGE);
}

static void set_span(size_t bytes)
{
    __atomic_store_n(&heap.span, bytes, __ATOMIC_RELEASE);
    __atomic_store_n(&zkn_private_range.size, bytes, __ATOMIC_RELEASE);
}

int heap_open(size_t bytes, size_t ceiling, bool huge)
{
    heap.page_shift = log2_floor(os_page_size());
    bytes = min_size(round_down(bytes, HUGE_PAGE),
                     (size_t)UINT32_MAX << heap.page_shift);
    size_t pages = bytes >> heap.page_shift;
    if (pages == 0)
        return -ENOMEM;

    size_t descriptors = descriptors_for(pages);
    char *start;
    int error =
        os_reserve(map_bytes(pages) + pool_bytes(descriptors) + bytes, &start);
    if (error != 0)
        return error;

    map_end = start + map_bytes(pages);
    pool_end = map_end + pool_bytes(descriptors);
    heap.map = (uint32_t *)(void *)start;
    heap.pool = (struct region *)(void *)map_end;
    heap.pool_limit = (uint32_t)min_size(descriptors, UINT32_MAX);
    heap.pool_next = 1; /* index 0 stands in fresh map entries */
    heap.ceiling = ceiling >> heap.page_shift;
    heap.huge = huge;
    heap.nodes = (unsigned)min_size(os_node_count(), NODES_MOST);
    heap.base = pool_end;
    zkn_private_range.base = heap.base;
    set_span(bytes);
    return 0;
}

/* ------------------------------------------------------------- giving back */

/* Times to look for a moment when no metadata is being made accessible. */
#define LOOKS_MOST 1000

/* Take the lock at such a moment.  Bounded: a hook may be what runs meanwhile,
 * and may be where we were called from. */
static bool lock_still(void)
{
    for (unsigned i = 0; i < LOOKS_MOST; i++) {
        heap_lock();
        if (heap.growing == 0)
            return true;
        heap_unlock();
        sched_yield();
    }
    return false;
}

/* The bytes above the top.  Needs the lock. */
static size_t untouched(void)
{
    size_t used = pages_to_bytes(load_relaxed(&heap.top));
    return heap.span - round_up(used, HUGE_PAGE);
}

/* Cut the part of the reservation that ends at *END to END_NOW, if that is
 * less.  Needs the lock; the caller unmaps what it returns without it. */
struct piece {
    char *addr;
    size_t length;
};

static struct piece cut(char **end, char *end_now)
{
    struct piece piece = {end_now, 0};
    if (end_now < *end) {
        piece.length = (size_t)(*end - end_now);
        *end = end_now;
    }
    return piece;
}

/* Give half of what is untouched back, or all of it where that is little.
 * Returns whether there was any. */
static bool give_half(void)
{
    struct piece pieces[3] = {{0}};
    if (!lock_still())
        return false;
    size_t free = untouched(), bytes = heap.span - free;
    if (free > 0) {
        bytes += round_down(free / 2, HUGE_PAGE);
        char *end = heap.base + heap.span;
        set_span(bytes);
        pieces[0] = cut(&end, heap.base + bytes);

        size_t pages = bytes >> heap.page_shift;
        size_t descriptors = max_size(descriptors_for(pages), heap.pool_size);
        pieces[1] = cut(&pool_end, (char *)heap.pool + pool_bytes(descriptors));
        heap.pool_limit = (uint32_t)min_size(heap.pool_limit, descriptors);
        pages = max_size(pages, heap.map_pages);
        pieces[2] = cut(&map_end, (char *)heap.map + map_bytes(pages));
    }
    heap_unlock();
    for (int i = 0; i < 3; i++) {
        if (pieces[i].length > 0)
            os_unreserve(pieces[i].addr, pieces[i].length);
    }
    return free > 0;
}

void heap_follow_limit(void)
{
    if (!load_acquire(&heap.ready) || os_address_space() == SIZE_MAX)
        return;
    for (;;) {
        heap_lock();
        size_t free = untouched();
        heap_unlock();
        if (free == 0 || os_has_room(free) || !give_half())
            return;
        stats_add(STAT_fallback_reserve, 1);
    }
}

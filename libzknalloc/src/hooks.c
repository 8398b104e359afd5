/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * hooks.c - see hooks.h.
 */
#include "hooks.h"

#include <errno.h>
#include <sched.h>

#include "find.h"
#include "magazine.h"
#include "os.h"
#include "tiling.h"
#include "trim.h"

/* What was announced: enough for 128 GiB in the smallest steps. */
#define RANGES_MOST 4096
static struct range {
    uint32_t page, pages;
} ranges[RANGES_MOST];
static unsigned range_count;

_Atomic bool hooked;
static zkn_on_map_t *map_hook;
static zkn_on_unmap_t *unmap_hook;
static void *context;

static int announce(struct range range)
{
    int refused = map_hook(context, page_address(range.page),
                           pages_to_bytes(range.pages));
    return refused == 0 ? 0 : -ECANCELED;
}

static void denounce(struct range range)
{
    unmap_hook(context, page_address(range.page), pages_to_bytes(range.pages));
}

int hooks_map(uint32_t page, uint32_t pages)
{
    struct range range = {page, pages};
    int error = announce(range);
    if (error != 0)
        return error;
    heap_lock();
    bool room = range_count < RANGES_MOST;
    if (room)
        ranges[range_count++] = range;
    heap_unlock();
    if (!room)
        denounce(range);
    return room ? 0 : -ENOSPC;
}

/* ------------------------------------------------------------ giving back */

/* RANGE is announced no longer, so the gap before it is free.  What was there
 * when the hooks were set starts at the first page, without one. */
static void free_gap(struct range range)
{
    if (range.page > 0)
        tiling_free(region_at(range.page - 1), REGION_BARE);
}

/* The region that covers PAGE: found from the start, since the map knows only
 * where regions begin and end. */
static struct region *covering(uint32_t page)
{
    struct region *region = region_at(0);
    while (region->page + region->pages <= page)
        region = tiling_after(region);
    return region;
}

/* The run in which RANGE begins, if all of it is free; else NULL. */
static struct region *free_from(struct range range)
{
    struct region *first = covering(range.page);
    for (struct region *run = first; run != NULL && is_free(run);
         run = tiling_after(run)) {
        if (run->page + run->pages >= range.page + range.pages)
            return first;
    }
    return NULL;
}

size_t hooks_release(void)
{
    size_t done = 0;
    for (unsigned i = 0; i < range_count && tiling_stocked();) {
        struct range range = ranges[i];
        struct region *first = free_from(range);
        if (first == NULL) {
            i++;
            continue;
        }
        uint32_t zero;
        struct region *run =
            tiling_carve(first, range.page, range.pages, &zero);
        store_relaxed(&run->state, REGION_BUSY);
        ranges[i] = ranges[--range_count];
        heap.busy++;
        heap_unlock();
        denounce(range);
        (void)os_discard(page_address(range.page), pages_to_bytes(range.pages));
        heap_lock();
        heap.busy--;
        /* To be announced before it is used again, as new memory is. */
        tiling_free(run, REGION_BARE);
        free_gap(range);
        done += range.pages - zero;
    }
    return done;
}

/* ------------------------------------------------------------ setting */

/* Forget all ranges, with ON_UNMAP for each if TELL, and make what lies between
 * them, and what was given back, memory like any other.  Called and returns
 * with the lock. */
static void forget(bool tell)
{
    while (range_count > 0) {
        struct range range = ranges[--range_count];
        if (tell) {
            heap_unlock();
            denounce(range);
            heap_lock();
        }
        free_gap(range);
    }
    struct region *bare;
    bool done = true;
    while (done && (bare = tree_fit(&heap.free[0][REGION_BARE], 1)) != NULL) {
        tiling_detach(bare);
        done = commit_run(bare);
    }
}

static int unset(void)
{
    heap_lock();
    bool told = load_relaxed(&hooked);
    store_relaxed(&hooked, false);
    forget(told);
    heap_unlock();
    return 0;
}

int hooks_set(zkn_on_map_t *on_map, zkn_on_unmap_t *on_unmap, void *ctx)
{
    if ((on_map == NULL) != (on_unmap == NULL))
        return -EINVAL;
    if (on_map == NULL)
        return unset();
    if (load_relaxed(&hooked))
        return -EBUSY;

    /* What is live already is announced too, so what is not goes. */
    struct region *held = magazine_drain();
    if (held != NULL)
        (void)heap_give(held);
    (void)trim_release();
    heap_lock();
    forget(false); /* those of the process that this one was forked from */
    heap_unlock();
    heap_quiet();
    struct range all = {0, load_relaxed(&heap.top)};
    bool whole = heap.free[0][REGION_BARE].root == NULL;
    if (whole) {
        map_hook = on_map;
        unmap_hook = on_unmap;
        context = ctx;
        range_count = 0;
        if (all.pages > 0)
            ranges[range_count++] = all;
        store_relaxed(&hooked, true);
    }
    heap_unlock();
    if (!whole)
        return -ENOMEM;
    int error = all.pages > 0 ? announce(all) : 0;
    if (error != 0) {
        store_relaxed(&hooked, false);
        range_count = 0;
    }
    return error;
}

void hooks_forked(void)
{
    store_relaxed(&hooked, false);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * tiling.c - see tiling.h.
 *
 * Invariants, whenever the lock is free:
 *   - regions tile [0, top): region_at(first page) and region_at(last page)
 *     are the region itself;
 *   - two neighbours of one node are never both DIRTY, both ZERO or both BARE;
 *   - a free run is in the tree of its state, a DIRTY or SPARSE one in the age
 *     list too.
 *
 * The age list is ordered by last use.  A run that is cut keeps its age; runs
 * that join take the younger one's, since a part of them was just used.
 */
#include "tiling.h"

/* -------------------------------------------------------------- descriptors */

bool tiling_stocked(void)
{
    return heap.spare_count + heap.pool_size >= heap.pool_next + TILING_SPARES;
}

static struct region *descriptor_get(void)
{
    struct region *region = heap.spares;
    if (region != NULL) {
        heap.spares = region->left;
        heap.spare_count--;
    } else {
        region = &heap.pool[heap.pool_next++];
    }
    return region;
}

static void descriptor_put(struct region *region)
{
    store_relaxed(&region->state, REGION_SPARE);
    region->left = heap.spares;
    heap.spares = region;
    heap.spare_count++;
}

/* Set the run that REGION covers, and point the map at it. */
static void cover(struct region *region, uint32_t page, uint32_t pages)
{
    uint32_t index = (uint32_t)(region - heap.pool);
    region->page = page;
    region->pages = pages;
    __atomic_store_n(&heap.map[page], index, __ATOMIC_RELAXED);
    __atomic_store_n(&heap.map[page + pages - 1], index, __ATOMIC_RELAXED);
}

struct region *tiling_add(enum region_state state, uint32_t page,
                          uint32_t pages)
{
    struct region *region = descriptor_get();
    store_relaxed(&region->addr, NULL);
    store_relaxed(&region->state, state);
    region->zero_first = region->zero_pages = 0;
    region->node = 0;
    region->soft = region->sparse = region->probe = region->zeroed = false;
    cover(region, page, pages);
    return region;
}

struct region *tiling_before(const struct region *region)
{
    return region->page > 0 ? region_at(region->page - 1) : NULL;
}

struct region *tiling_after(const struct region *region)
{
    uint32_t page = region->page + region->pages;
    return page < load_relaxed(&heap.top) ? region_at(page) : NULL;
}

/* ----------------------------------------------------------------- age list */

static void age_unlink(struct region *region)
{
    *(region->older != NULL ? &region->older->newer : &heap.oldest) =
        region->newer;
    *(region->newer != NULL ? &region->newer->older : &heap.newest) =
        region->older;
}

/* Link REGION in just before NEWER in age, or as the newest for NULL. */
static void age_link(struct region *region, struct region *newer)
{
    region->newer = newer;
    region->older = newer != NULL ? newer->older : heap.newest;
    *(region->older != NULL ? &region->older->newer : &heap.oldest) = region;
    *(region->newer != NULL ? &region->newer->older : &heap.newest) = region;
}

/* ---------------------------------------------------------- free and unfree */

/* Whether free runs of STATE may be resident, and so have an age. */
static bool keeps(enum region_state state)
{
    return state == REGION_DIRTY || state == REGION_SPARSE;
}

static void set_soft(struct region *region, bool soft)
{
    if (region->soft != soft) {
        heap.soft += soft ? counted(region) : -(size_t)counted(region);
        region->soft = soft;
    }
}

void tiling_detach(struct region *region)
{
    enum region_state state = state_of(region);
    tree_remove(tree_of(region, state), region);
    if (keeps(state)) {
        set_soft(region, false);
        age_unlink(region);
        heap.dirty -= counted(region);
    }
    store_relaxed(&region->state, REGION_BUSY);
}

/* Whether the neighbour NEXT, if any, becomes one with REGION, which is about
 * to be free in STATE.  A sparse run keeps its size, for requests of that
 * size. */
static bool joins(const struct region *next, const struct region *region,
                  enum region_state state)
{
    return next != NULL && state != REGION_SPARSE && state_of(next) == state &&
           next->node == region->node;
}

struct region *tiling_free(struct region *region, enum region_state state)
{
    struct region *before = tiling_before(region);
    struct region *after = tiling_after(region);
    uint32_t page = region->page, pages = region->pages;

    store_relaxed(&region->addr, NULL);
    if (!keeps(state))
        region->node = 0;
    if (joins(before, region, state)) {
        tiling_detach(before);
        page = before->page;
        pages += before->pages;
        descriptor_put(before);
    }
    if (joins(after, region, state)) {
        tiling_detach(after);
        pages += after->pages;
        descriptor_put(after);
    }
    cover(region, page, pages);
    store_relaxed(&region->state, state);
    tree_insert(tree_of(region, state), region);
    if (keeps(state)) {
        region->soft = false;
        region->used = (uint16_t)heap.clock;
        age_link(region, NULL);
        heap.dirty += counted(region);
    }
    return region;
}

/* Make the free run REGION cover only [page, page + pages), its age kept. */
static void resize(struct region *region, uint32_t page, uint32_t pages)
{
    enum region_state state = state_of(region);
    tree_remove(tree_of(region, state), region);
    if (state == REGION_DIRTY) {
        heap.dirty -= region->pages - pages;
        if (region->soft)
            heap.soft -= region->pages - pages;
    }
    cover(region, page, pages);
    tree_insert(tree_of(region, state), region);
}

/* Take [page, end) out of the free run RUN, which covers it. */
static void cut(struct region *run, uint32_t page, uint32_t end)
{
    uint32_t run_page = run->page, run_end = run->page + run->pages;
    if (page > run_page && end < run_end) {
        enum region_state state = state_of(run);
        bool soft = run->soft;
        resize(run, run_page, page - run_page);
        struct region *rest = tiling_add(state, end, run_end - end);
        rest->node = run->node;
        tree_insert(tree_of(rest, state), rest);
        if (state == REGION_DIRTY) {
            heap.dirty += rest->pages;
            rest->used = run->used;
            age_link(rest, run->newer);
            set_soft(rest, soft);
        }
    } else if (page > run_page) {
        resize(run, run_page, page - run_page);
    } else if (end < run_end) {
        resize(run, end, run_end - end);
    } else {
        tiling_detach(run);
        descriptor_put(run);
    }
}

/* What was cut: the longest stretch of ZERO pages, counted from where the
 * cutting began, and the node of the longest DIRTY one. */
struct stretch {
    uint32_t first, pages;
    uint32_t dirty;
    uint8_t node;
};

/* Take [page, end) out of RUN, which covers PAGE, and the free runs that
 * follow it. */
static struct stretch cut_all(struct region *run, uint32_t page, uint32_t end,
                              uint32_t *zero)
{
    struct stretch longest = {0};
    *zero = 0;
    for (uint32_t at = page;;) {
        uint32_t stop = (uint32_t)min_size(end, (size_t)run->page + run->pages);
        if (state_of(run) == REGION_ZERO) {
            *zero += stop - at;
            if (stop - at > longest.pages) {
                longest.first = at - page;
                longest.pages = stop - at;
            }
        } else if (stop - at > longest.dirty) {
            longest.dirty = stop - at;
            longest.node = run->node;
        }
        cut(run, at, stop);
        if (stop == end)
            return longest;
        at = stop;
        run = region_at(at);
    }
}

struct region *tiling_carve(struct region *first, uint32_t page, uint32_t pages,
                            uint32_t *zero)
{
    struct stretch longest = cut_all(first, page, page + pages, zero);
    struct region *region = tiling_add(REGION_HELD, page, pages);
    region->zero_first = longest.first;
    region->zero_pages = longest.pages;
    region->node = longest.node;
    return region;
}

void tiling_lengthen(struct region *region, uint32_t pages, uint32_t *zero)
{
    uint32_t had = region->pages, end = region->page + had;
    struct stretch longest =
        cut_all(region_at(end), end, region->page + pages, zero);
    cover(region, region->page, pages);
    region->zero_first = had + longest.first;
    region->zero_pages = longest.pages;
}

struct region *tiling_split(struct region *region, uint32_t pages)
{
    uint32_t rest = region->pages - pages;
    cover(region, region->page, pages);
    return tiling_add(REGION_BUSY, region->page + pages, rest);
}

void tiling_shorten(struct region *region, uint32_t pages,
                    enum region_state state)
{
    uint32_t rest = region->pages - pages;
    cover(region, region->page, pages);
    if (region->zero_first >= pages)
        region->zero_pages = 0;
    else
        region->zero_pages =
            (uint32_t)min_size(region->zero_pages, pages - region->zero_first);
    struct region *tail = tiling_add(REGION_HELD, region->page + pages, rest);
    tail->node = region->node;
    tiling_free(tail, state);
}

/* The oldest run that was last used at USED or later; NULL if there is none. */
static struct region *first_younger(uint16_t used)
{
    uint16_t idle = (uint16_t)(heap.clock - used);
    struct region *run = heap.oldest;
    while (run != NULL && (uint16_t)(heap.clock - run->used) > idle)
        run = run->newer;
    return run;
}

void tiling_mark_soft(struct region *region, uint16_t used)
{
    set_soft(region, true);
    age_unlink(region);
    region->used = used;
    age_link(region, first_younger(used));
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * heap.c - taking and returning runs of pages.  heap.h says in which order of
 * preference; find.c finds them, assemble.c and trim.c keep the budget.
 */
#include "heap.h"

#include <string.h>

#include "assemble.h"
#include "find.h"
#include "hooks.h"
#include "os.h"
#include "tiling.h"
#include "trim.h"

/* Each sparse region may be a mapping of its own; processes may have 65 530.
 */
#define SPARSE_MOST 2048

struct heap heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --------------------------------------------------------- taking and giving
 */

/* The end of a request for pages up to END, whose last page lies in the free
 * run RUN: where huge pages are in use and the run is ZERO, the whole of the
 * last one. */
static uint32_t whole_end(uint32_t end, const struct region *run)
{
    if (!heap.huge || run == NULL || state_of(run) != REGION_ZERO)
        return end;
    return (uint32_t)min_size(round_up(end, HUGE_PAGES),
                              (size_t)run->page + run->pages);
}

/* The free run that covers PAGE, at or after RUN. */
static struct region *run_with(struct region *run, uint32_t page)
{
    while (run->page + run->pages <= page)
        run = tiling_after(run);
    return run;
}

/* REGION has just been given ZERO new pages of which ZERO_RUN is the longest
 * stretch, some of them only to fill up a huge page: of these pages keep KEEP.
 * Stays within the budget; returns how many came from the kernel. */
static uint32_t settle(struct region *region, uint32_t keep, uint32_t zero,
                       uint32_t added)
{
    uint32_t surplus = region->pages - keep;
    heap.live += added;
    heap.high = max_size(heap.high, heap.live - surplus);
    uint32_t moved = assemble(region);
    zero -= moved;
    /* Short of descriptors, the region simply stays longer. */
    if (surplus > 0 && stock_up()) {
        heap.live -= surplus;
        tiling_shorten(region, keep, REGION_DIRTY);
        zero -= (uint32_t)min_size(surplus, zero);
    }
    trim_to_budget();
    return zero;
}

struct region *heap_take(struct heap_request request, enum heap_source source,
                         uint32_t *fresh)
{
    struct region *region = NULL;
    request.node = (uint8_t)heap_node();
    if (unlikely(!heap_enter()))
        return NULL;
    struct window place = find_place(&request, source);
    if (place.first != NULL) {
        uint32_t end = place.page + request.pages, zero;
        end = whole_end(end, run_with(place.first, end - 1));
        region = tiling_carve(place.first, place.page, end - place.page, &zero);
        /* A region that is of two nodes counts as where most of it is. */
        if (2 * (size_t)zero >= region->pages)
            region->node = request.node;
        heap_place(region, request.coloured);
        *fresh = settle(region, request.pages, zero, region->pages);
    }
    heap_unlock();
    return region;
}

size_t heap_give(struct region *chain)
{
    if (unlikely(!heap_enter())) {
        heap_defer(chain);
        return 0;
    }
    while (chain != NULL) {
        struct region *next = chain->left;
        heap.live -= chain->pages;
        tiling_free(chain, REGION_DIRTY);
        chain = next;
    }
    trim_to_budget();
    size_t dirty = heap.dirty;
    heap_unlock();
    return dirty;
}

struct region *heap_take_sparse(uint32_t pages, uint32_t counted,
                                uint32_t *fresh)
{
    size_t whole = round_up(pages, HUGE_PAGES);
    struct region *region = NULL;
    bool small = false;
    *fresh = 0;
    unsigned node = heap_node();
    heap_lock();
    struct region *run =
        tree_fit(&heap.free[node][REGION_SPARSE], (uint32_t)whole);
    if (run != NULL && run->pages <= whole + whole / 8) {
        region = run;
        tiling_detach(region);
        store_relaxed(&region->state, REGION_HELD);
    } else if (heap.sparse < SPARSE_MOST) {
        struct heap_request request = {.pages = (uint32_t)whole,
                                       .align = (uint32_t)HUGE_PAGES};
        struct window place = find_place(&request, HEAP_UNTOUCHED);
        uint32_t zero;
        if (place.first != NULL) {
            region =
                tiling_carve(place.first, place.page, request.pages, &zero);
            region->sparse = small = true;
            region->node = (uint8_t)node;
            region->kept = 0;
            heap.sparse++;
            *fresh = pages;
        }
    }
    if (region != NULL) {
        region->counted = (uint32_t)max_size(counted, region->kept);
        store_relaxed(&region->addr, page_address(region->page));
        heap.live += region->counted;
        heap.high = max_size(heap.high, heap.live);
        trim_to_budget();
    }
    heap_unlock();
    if (small && heap.huge)
        os_advise_small(page_address(region->page),
                        pages_to_bytes(region->pages));
    return region;
}

size_t heap_give_sparse(struct region *region, enum region_state state,
                        uint32_t counted)
{
    heap_lock();
    heap.live -= region->counted;
    region->counted = counted;
    if (state != REGION_SPARSE)
        heap_unsparse(region);
    tiling_free(region, state);
    trim_to_budget();
    size_t dirty = heap.dirty;
    heap_unlock();
    return dirty;
}

/* The pages, up to ENOUGH, that follow REGION without a gap and may be used:
 * DIRTY ones alone, or free ones, or free ones after growing the heap. */
static uint32_t room_after(const struct region *region, enum heap_source source,
                           uint32_t enough)
{
    uint32_t room = 0;
    for (struct region *run = tiling_after(region);
         run != NULL && room < enough &&
         (source == HEAP_RESIDENT ? state_of(run) == REGION_DIRTY
                                  : is_free(run));
         run = tiling_after(run))
        room += run->pages;
    return room;
}

bool heap_extend(struct region *region, uint32_t pages, enum heap_source source,
                 uint32_t *fresh)
{
    uint32_t more = pages - region->pages;
    if (unlikely(!heap_enter()))
        return false;
    uint32_t room = room_after(region, source, more);
    if (room < more && source == HEAP_ANY && !load_relaxed(&hooked) &&
        region->page + region->pages + room == load_relaxed(&heap.top) &&
        grow_top(more))
        room = room_after(region, source, more);
    bool done =
        room >= more && stock_up() && room_after(region, source, more) >= more;
    if (done) {
        uint32_t end = region->page + pages, had = region->pages, zero;
        end = whole_end(end, run_with(tiling_after(region), end - 1));
        tiling_lengthen(region, end - region->page, &zero);
        *fresh = settle(region, pages, zero, region->pages - had);
    }
    heap_unlock();
    return done;
}

/* Free the caller's region OLD, of which the DONE pages from page FROM on were
 * moved away. */
static void give_moved(struct region *old, uint32_t from, uint32_t done)
{
    uint32_t head = from - old->page;
    heap.live -= old->pages;
    if (done == 0 || !stock_up()) {
        tiling_free(old, REGION_DIRTY);
        return;
    }
    if (old->pages > head + done)
        tiling_shorten(old, head + done, REGION_DIRTY);
    if (head > 0)
        tiling_shorten(old, head, REGION_ZERO);
    tiling_free(old, head > 0 ? REGION_DIRTY : REGION_ZERO);
}

/* Take a region for heap_relocate(), which lies in huge pages as OLD does. */
static struct region *take_congruent(const struct region *old, uint32_t pages)
{
    uint32_t lead = old->page % (uint32_t)HUGE_PAGES, end, zero;
    struct heap_request request = {.pages = lead + pages,
                                   .align = (uint32_t)HUGE_PAGES,
                                   .node = (uint8_t)heap_node(),
                                   .roomy = true};
    struct window place = find_place(&request, HEAP_UNTOUCHED);
    if (place.first == NULL)
        return NULL;
    end = whole_end(place.page + lead + pages,
                    run_with(place.first, place.page + lead + pages - 1));
    struct region *region = tiling_carve(place.first, place.page + lead,
                                         end - place.page - lead, &zero);
    region->node = old->node;
    store_relaxed(&region->addr,
                  page_address(region->page) +
                      (load_relaxed(&old->addr) - page_address(old->page)));
    return region;
}

struct region *heap_relocate(struct region *old, uint32_t pages,
                             uint32_t *fresh)
{
    uint32_t unit = (uint32_t)HUGE_PAGES, had = old->pages;
    uint32_t head = (uint32_t)round_up(old->page, unit) - old->page;
    uint32_t whole = (uint32_t)round_down(had - head, unit);
    if (unlikely(!heap_enter()))
        return NULL;
    struct region *region = take_congruent(old, pages);
    if (region != NULL) {
        uint32_t done =
            assemble_move(old->page + head, region->page + head, whole);
        heap.busy++;
        heap_unlock();
        char *from = page_address(old->page), *to = page_address(region->page);
        size_t rest = pages_to_bytes(head + done);
        memcpy(to, from, pages_to_bytes(head));
        memcpy(to + rest, from + rest, pages_to_bytes(had) - rest);
        heap_lock();
        heap.busy--;
        give_moved(old, old->page + head, done);
        region->zero_first = had;
        region->zero_pages = region->pages - had;
        *fresh = settle(region, pages, region->zero_pages, region->pages);
        *fresh += whole - done;
    }
    heap_unlock();
    return region;
}

void heap_shrink(struct region *region, uint32_t pages)
{
    if (unlikely(!heap_enter()))
        return;
    if (tiling_stocked()) {
        heap.live -= region->pages - pages;
        tiling_shorten(region, pages, REGION_DIRTY);
        trim_to_budget();
    }
    heap_unlock();
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cache.c - see cache.h.
 *
 * Life of a region, by its state: heap_take() carves it as HELD; here it
 * becomes LIVE; freed, it is HELD again, in a magazine; drained, it becomes
 * DIRTY in the heap and joins its neighbours.  The step from LIVE to HELD is a
 * compare-and-swap: it is the one place where a double free can be caught,
 * and of two threads that race to free one region exactly one gets past.
 */
#include "cache.h"

#include <sched.h>
#include <string.h>

#include "assemble.h"
#include "debug.h"
#include "heap.h"
#include "init.h"
#include "log.h"
#include "look.h"
#include "magazine.h"
#include "options.h"
#include "os.h"
#include "stats.h"
#include "watch.h"
#include "zero.h"

static uint32_t pages_for(size_t size)
{
    return (uint32_t)((size + pages_to_bytes(1) - 1) >> heap.page_shift);
}

/* Regions smaller than this are not coloured: a page is too much of them; nor
 * those that are no multiple of COLOUR_UNIT: they are nobody's columns. */
#define COLOUR_LEAST MIB
#define COLOUR_UNIT  (64 * KIB)

static struct heap_request request_for(size_t size, size_t alignment)
{
    struct heap_request request = {.align = 1};
    request.coloured = options.colour && size >= COLOUR_LEAST &&
                       size % COLOUR_UNIT == 0 && alignment <= 64;
    request.pages = pages_for(size + (request.coloured ? COLOUR_MOST : 0)) +
                    debug_extra_pages();
    if (unlikely(alignment > pages_to_bytes(1)))
        request.align = (uint32_t)(alignment >> heap.page_shift);
    return request;
}

/* The region of PTR, which must be the program's: LIVE. */
static struct region *live_region(const void *ptr)
{
    struct region *region = region_of(ptr);
    if (unlikely(region == NULL || load_relaxed(&region->state) != REGION_LIVE))
        log_misuse("not the start of a live region (freed twice, or an "
                   "address inside a region)",
                   ptr);
    return region;
}

static size_t capacity(const struct region *region)
{
    const char *end =
        page_address(region->page + region->pages - (region->guarded ? 1 : 0));
    return (size_t)(end - load_relaxed(&region->addr));
}

static void give(struct region *chain)
{
    if (chain != NULL)
        watch_free(heap_give(chain));
}

/* ----------------------------------------------------------------- allocate */

/* Note in the counters that the page heap served a request of SIZE bytes by
 * REGION, FRESH of its pages from the kernel.  Returns REGION. */
static struct region *noted(struct region *region, size_t size, uint32_t fresh)
{
    if (region == NULL)
        return NULL;
    uint32_t pages = region->sparse ? region->asked : region->pages;
    uint64_t *row = fresh == 0 ? zknalloc_stats_v1.heap.class_hits
                               : zknalloc_stats_v1.heap.class_misses;
    __atomic_fetch_add(&row[stats_class(size)], 1, __ATOMIC_RELAXED);
    stats_add(fresh == 0 ? STAT_hits : STAT_misses, 1);
    stats_add(STAT_bytes_hit, pages_to_bytes(pages - fresh));
    stats_add(STAT_bytes_missed, pages_to_bytes(fresh));
    stats_add(STAT_regions_now, 1);
    return region;
}

/* From resident pages of the page heap; what the magazines hold is looked at
 * too before the answer is no. */
static struct region *take_resident(struct heap_request request, size_t size)
{
    uint32_t fresh = 0;
    struct region *region = heap_take(request, HEAP_RESIDENT, &fresh);
    if (region == NULL) {
        struct region *chain = magazine_drain();
        if (chain != NULL) {
            give(chain);
            region = heap_take(request, HEAP_RESIDENT, &fresh);
        }
    }
    return noted(region, size, fresh);
}

static struct region *take_any(struct heap_request request, size_t size)
{
    uint32_t fresh = 0;
    struct region *region = heap_take(request, HEAP_ANY, &fresh);
    return noted(region, size, fresh);
}

static struct region *take_sparse(size_t size, bool probe)
{
    uint32_t fresh = 0;
    if (unlikely(!heap_hold()))
        return NULL;
    struct region *region = zero_take(pages_for(size), probe, &fresh);
    heap_let_go();
    return noted(region, size, fresh);
}

/* Fault in what of REGION is new, in one system call. */
static void populate(struct region *region)
{
    if (region->zero_pages > 0)
        os_populate(page_address(region->page + region->zero_first),
                    pages_to_bytes(region->zero_pages));
}

/* Hand REGION to the program. */
static void *publish(struct region *region)
{
    void *ptr = load_relaxed(&region->addr);
    store_relaxed(&region->state, REGION_LIVE);
    return ptr;
}

void *cache_alloc(size_t size, size_t alignment, bool zeroed)
{
    if (unlikely(!load_acquire(&heap.ready)) && !init_cache())
        return NULL;
    size_t span = heap_span();
    if (unlikely(size >= span || alignment > span / 2))
        return NULL;

    struct heap_request request = request_for(size, alignment);
    struct region *region = NULL;
    bool learning = zeroed && size >= SPARSE_LEAST && alignment <= HUGE_PAGE;
    if (zeroed)
        stats_add(STAT_callocs, 1);
    if (learning && (region = take_sparse(size, false)) != NULL)
        return publish(region);
    if (magazine_fits(request.pages) && likely(alignment <= 64))
        region = magazine_take(request.pages, size);
    if (likely(region != NULL)) {
        region->zero_pages = 0;
        heap_place(region, request.coloured);
    } else {
        give(magazine_tick());
        region = take_resident(request, size);
        if (region == NULL && learning &&
            (region = take_sparse(size, true)) != NULL)
            return publish(region);
        if (region == NULL) {
            region = take_any(request, size);
            if (region != NULL && options.populate && !zeroed)
                populate(region);
        }
        if (region == NULL)
            return NULL;
    }
    if (unlikely(options.debug != DEBUG_OFF))
        debug_take(region, size, alignment);
    region->zeroed = learning;
    if (learning)
        region->asked = pages_for(size);
    if (zeroed)
        zero_clear(region, size);
    return publish(region);
}

/* --------------------------------------------------------------------- free */

/* A freed region under ZK_NALLOC_DEBUG. */
static COLD void give_debugged(struct region *region)
{
    stats_add(STAT_frees, 1);
    stats_sub(STAT_regions_now, 1);
    while (!heap_hold()) /* it takes a lock of its own */
        sched_yield();
    region = debug_give(region);
    heap_let_go();
    if (region != NULL)
        region->left = NULL;
    give(region);
}

void cache_free(void *ptr, size_t size)
{
    struct region *region = live_region(ptr);
    if (unlikely(size > capacity(region)))
        log_misuse("freed with a size larger than the region", ptr);
    uint32_t live = REGION_LIVE;
    if (unlikely(!atomic_compare_exchange_strong_explicit(
            &region->state, &live, REGION_HELD, memory_order_acq_rel,
            memory_order_relaxed)))
        log_misuse("freed twice", ptr);

    if (unlikely(options.wipe))
        look_wipe(region->page, region->pages - (region->guarded ? 1 : 0));
    if (unlikely(options.debug != DEBUG_OFF)) {
        give_debugged(region);
        return;
    }
    if (unlikely(region->sparse)) {
        stats_add(STAT_frees, 1);
        stats_sub(STAT_regions_now, 1);
        region->left = NULL;
        watch_free(zero_give(region));
        return;
    }
    if (unlikely(region->zeroed) && heap_hold()) {
        zero_learn(region);
        heap_let_go();
    }

    if (likely(magazine_fits(region->pages))) {
        give(magazine_put(region));
    } else {
        stats_add(STAT_frees, 1);
        stats_sub(STAT_regions_now, 1);
        region->left = NULL;
        give(region);
    }
}

/* ------------------------------------------------------------------ realloc */

/* From this size on, growing in place is worth fresh addresses: what it saves
 * is the copy, and assemble() finds the pages. */
#define GROW_IN_PLACE (4 * MIB)

/* From this size on, moving page-table entries costs less than copying. */
#define RELOCATE (8 * MIB)

/* Where a growing region goes, in order of preference: into resident pages
 * that follow it; from 4 MiB on into fresh pages that follow it, and from 8 MiB
 * on elsewhere with its pages; into resident pages elsewhere, by a copy; into
 * fresh pages that follow it; into fresh pages elsewhere. */
static void *grow(struct region *region, void *ptr, size_t size)
{
    size_t old = capacity(region);
    uint32_t more = pages_for(size - old), pages = region->pages + more;
    uint32_t fresh = 0;
    struct region *moved = NULL;
    struct heap_request request = request_for(size, 1);
    request.roomy = true;

    bool done = heap_extend(region, pages, HEAP_RESIDENT, &fresh);
    if (!done) {
        struct region *held = magazine_drain();
        if (held != NULL) {
            give(held);
            done = heap_extend(region, pages, HEAP_RESIDENT, &fresh);
        }
    }
    if (!done && old >= GROW_IN_PLACE)
        done = heap_extend(region, pages, HEAP_ANY, &fresh);
    if (!done && old >= RELOCATE && !options.wipe && assemble_able()) {
        store_relaxed(&region->state, REGION_HELD);
        moved = heap_relocate(region, pages, &fresh);
        if (moved != NULL) {
            noted(moved, size, fresh);
            stats_add(STAT_frees, 1);
            stats_sub(STAT_regions_now, 1);
            return publish(moved);
        }
        store_relaxed(&region->state, REGION_LIVE);
    }
    if (!done)
        moved = take_resident(request, size);
    if (!done && moved == NULL)
        done = heap_extend(region, pages, HEAP_ANY, &fresh);
    if (!done && moved == NULL) {
        moved = take_any(request, size);
        if (moved == NULL)
            return NULL;
    }
    if (moved == NULL) {
        region->zeroed = false; /* its class is another now */
        stats_add(STAT_bytes_hit, pages_to_bytes(more - fresh));
        stats_add(STAT_bytes_missed, pages_to_bytes(fresh));
        return ptr;
    }
    memcpy(load_relaxed(&moved->addr), ptr, old);
    void *result = publish(moved);
    cache_free(ptr, 0);
    return result;
}

/* Under ZK_NALLOC_DEBUG each size is a region of its own. */
static COLD void *move_debugged(void *ptr, size_t had, size_t size)
{
    void *moved = cache_alloc(size, 1, false);
    if (moved != NULL) {
        memcpy(moved, ptr, min_size(had, size));
        cache_free(ptr, 0);
    }
    return moved;
}

/* Make REGION, a sparse one, useful for SIZE bytes. */
static void *resize_sparse(struct region *region, void *ptr, size_t size)
{
    uint32_t pages = pages_for(size), fresh = 0;
    if (size <= capacity(region)) {
        zero_shrink(region, pages);
        return ptr;
    }
    struct region *moved = zero_grow(region, pages, &fresh);
    if (moved != NULL) {
        noted(moved, size, fresh);
    } else {
        moved = take_any(request_for(size, 1), size);
        if (moved == NULL)
            return NULL;
        memcpy(load_relaxed(&moved->addr), ptr, capacity(region));
    }
    void *result = publish(moved);
    cache_free(ptr, 0);
    return result;
}

void *cache_realloc(void *ptr, size_t size)
{
    struct region *region = live_region(ptr);
    size_t had = capacity(region);
    void *result = ptr;

    if (unlikely(size >= heap_span()))
        return NULL;
    if (unlikely(options.debug != DEBUG_OFF)) {
        result = move_debugged(ptr, had, size);
    } else if (unlikely(region->sparse)) {
        if (heap_hold()) {
            result = resize_sparse(region, ptr, size);
            heap_let_go();
        } else if (size > had) {
            return NULL;
        }
    } else if (size > had) {
        result = grow(region, ptr, size);
    } else if (had - size >= ZKN_THRESHOLD) {
        uint32_t keep =
            region->pages - (uint32_t)((had - size) >> heap.page_shift);
        if (unlikely(options.wipe))
            look_wipe(region->page + keep, region->pages - keep);
        heap_shrink(region, keep);
    }
    if (result != NULL)
        stats_add(result == ptr ? STAT_reallocs_in_place : STAT_reallocs_moved,
                  1);
    return result;
}

size_t cache_usable_size(const void *ptr)
{
    return capacity(live_region(ptr));
}

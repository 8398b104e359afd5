/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * heap.c - finding, taking and returning runs of pages; heap.h says in which
 * order of preference.  Giving memory back to the kernel is in trim.c.
 */
#include "heap.h"

#include <errno.h>
#include <sched.h>

#include "os.h"
#include "stats.h"
#include "tiling.h"
#include "trim.h"
#include "zknalloc_private.h"

struct zkn_private_range zkn_private_range;
struct heap heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The map and the pool become accessible in steps of this many bytes. */
#define METADATA_STEP (64 * KIB)

/* Runs to look at, largest first, when free runs must be combined. */
#define MIXED_TRIES 16

/* ----------------------------------------------------------------- opening */

int heap_open(size_t bytes, size_t ceiling)
{
    size_t page_size = os_page_size();
    unsigned shift = log2_floor(page_size);
    bytes = min_size(round_down(bytes, HUGE_PAGE), (size_t)UINT32_MAX << shift);
    size_t pages = bytes >> shift;
    if (pages == 0)
        return -ENOMEM;

    /* Live regions have ZKN_THRESHOLD bytes, and a free run lies between two
     * of them at worst. */
    size_t fewest = max_size(ZKN_THRESHOLD >> shift, 1);
    size_t descriptors = 2 * (pages / fewest) + TILING_SPARES + 1;
    size_t map_bytes = round_up(pages * sizeof(uint32_t), HUGE_PAGE);
    size_t pool_bytes =
        round_up(descriptors * sizeof(struct region), HUGE_PAGE);
    char *start;
    int error = os_reserve(map_bytes + pool_bytes + bytes, &start);
    if (error != 0)
        return error;

    heap.map = (uint32_t *)(void *)start;
    heap.pool = (struct region *)(void *)(start + map_bytes);
    heap.pool_limit = (uint32_t)min_size(descriptors, UINT32_MAX);
    heap.pool_next = 1; /* index 0 stands in fresh map entries */
    heap.page_shift = shift;
    heap.ceiling = ceiling >> shift;
    heap.base = start + map_bytes + pool_bytes;
    heap.span = bytes;
    zkn_private_range.base = heap.base;
    zkn_private_range.size = bytes;
    heap.ready = true;
    return 0;
}

/* ----------------------------------------------------------------- growing */

/* Make the next descriptors accessible.  Called and returns with the lock. */
static bool grow_pool(void)
{
    uint32_t from = heap.pool_size;
    uint32_t step = (uint32_t)max_size(
        max_size(METADATA_STEP, os_page_size()) / sizeof(struct region), 1);
    if (from + step > heap.pool_limit)
        return false;
    pthread_mutex_unlock(&heap.lock);
    int error =
        os_commit((char *)&heap.pool[from], step * sizeof(struct region));
    pthread_mutex_lock(&heap.lock);
    if (error == 0 && heap.pool_size == from)
        heap.pool_size = from + step;
    return error == 0;
}

/* Make the map cover PAGES pages.  Called and returns with the lock. */
static bool grow_map(uint32_t pages)
{
    while (heap.map_pages < pages) {
        size_t unit = max_size(METADATA_STEP, os_page_size());
        size_t from = heap.map_pages * sizeof(uint32_t);
        size_t to = round_up(pages * sizeof(uint32_t), unit);
        pthread_mutex_unlock(&heap.lock);
        int error = os_commit((char *)heap.map + from, to - from);
        pthread_mutex_lock(&heap.lock);
        if (error != 0)
            return false;
        heap.map_pages =
            (uint32_t)max_size(heap.map_pages, to / sizeof(uint32_t));
    }
    return true;
}

/* Make the BUSY run accessible and free.  Called and returns with the lock. */
static bool commit(struct region *run)
{
    heap.busy++;
    pthread_mutex_unlock(&heap.lock);
    int error = os_commit(page_address(run->page), pages_to_bytes(run->pages));
    pthread_mutex_lock(&heap.lock);
    heap.busy--;
    tiling_free(run, error == 0 ? REGION_ZERO : REGION_BARE);
    return error == 0;
}

/* Add free pages at the top, so that a run of PAGES pages ends there, what is
 * free there already counted in.  Called and returns with the lock; other
 * threads may have taken the new run by then. */
static bool grow(uint32_t pages)
{
    /* A run that could not be made accessible earlier may be now. */
    struct region *bare = tree_fit(&heap.free[REGION_BARE], pages);
    if (bare != NULL) {
        tiling_detach(bare);
        return commit(bare);
    }

    uint32_t top = load_relaxed(&heap.top);
    uint32_t tail = top;
    for (uint32_t at = top; at > 0;) {
        struct region *run = region_at(at - 1);
        if (!is_free(run))
            break;
        tail = at = run->page;
    }
    size_t unit = HUGE_PAGE >> heap.page_shift;
    size_t limit = heap.span >> heap.page_shift;
    size_t want = round_up(max_size(tail + (size_t)pages, top + 1), unit);
    if (want > limit)
        return false;
    if (!grow_map((uint32_t)want))
        return false;
    if (load_relaxed(&heap.top) != top || !tiling_stocked())
        return true; /* other threads were here meanwhile: look again */
    struct region *run = tiling_add(REGION_BUSY, top, (uint32_t)want - top);
    store_relaxed(&heap.top, (uint32_t)want);
    return commit(run);
}

/* ------------------------------------------------------------------ finding */

static uint32_t align_page(uint32_t page, uint32_t align)
{
    size_t address = (size_t)heap.base + pages_to_bytes(page);
    size_t aligned = round_up(address, pages_to_bytes(align));
    return page + (uint32_t)((aligned - address) >> heap.page_shift);
}

/* A place in a stretch of free runs. */
struct window {
    struct region *first; /* the run that covers page */
    uint32_t page;
    uint32_t dirty; /* DIRTY pages from there on that the request would use */
};

/* The place for REQUEST around RUN, among it and the free runs beside it, that
 * uses the most DIRTY pages. */
static struct window window_around(const struct heap_request *request,
                                   struct region *run)
{
    struct window best = {0};
    struct region *start = run, *r;
    uint32_t reach = run->page + run->pages;

    for (r = run; r != NULL && is_free(r); r = tiling_before(r)) {
        start = r;
        if (run->page - r->page >= request->pages)
            break;
    }
    for (r = start; r != NULL && is_free(r); r = tiling_after(r)) {
        reach = r->page + r->pages;
        if (r->page >= run->page &&
            reach - run->page >= request->pages + request->align)
            break;
    }

    /* The best place starts with a run, or ends with one. */
    for (struct region *s = start; s != NULL && s->page < reach;
         s = tiling_after(s)) {
        uint32_t end = s->page + s->pages;
        uint32_t places[2] = {s->page, s->page};
        if (end - start->page >= request->pages)
            places[1] = end - request->pages;
        for (unsigned i = 0; i < 2; i++) {
            uint32_t page = align_page(places[i], request->align);
            if (page < start->page || page >= reach ||
                reach - page < request->pages)
                continue;
            struct window w = {.page = page};
            uint32_t stop = page + request->pages;
            for (r = start; r != NULL && r->page < stop; r = tiling_after(r)) {
                uint32_t lo = (uint32_t)max_size(page, r->page);
                uint32_t hi =
                    (uint32_t)min_size(stop, (size_t)r->page + r->pages);
                if (lo >= hi)
                    continue;
                if (w.first == NULL)
                    w.first = r;
                if (state_of(r) == REGION_DIRTY)
                    w.dirty += hi - lo;
            }
            if (best.first == NULL || w.dirty > best.dirty)
                best = w;
        }
    }
    return best;
}

/* A place for REQUEST in one run of STATE. */
static struct window window_in(const struct heap_request *request,
                               enum region_state state)
{
    struct region *run =
        tree_fit(&heap.free[state], request->pages + request->align - 1);
    if (run == NULL)
        return (struct window){0};
    return (struct window){run, align_page(run->page, request->align), 0};
}

/* A place that combines DIRTY runs with ZERO ones beside them. */
static struct window window_mixed(const struct heap_request *request)
{
    struct window best = {0};
    struct region *run = NULL;
    uint32_t top = load_relaxed(&heap.top);

    /* The runs at the top first: this is where grow() adds. */
    if (top > 0)
        run = region_at(top - 1);
    if (run != NULL && is_free(run))
        best = window_around(request, run);
    run = NULL;
    for (unsigned i = 0; i < MIXED_TRIES; i++) {
        run = tree_smaller(&heap.free[REGION_DIRTY], run);
        if (run == NULL || run->pages <= best.dirty)
            break;
        struct window w = window_around(request, run);
        if (w.first != NULL && (best.first == NULL || w.dirty > best.dirty))
            best = w;
    }
    return best;
}

/* --------------------------------------------------------- taking and giving
 */

/* The best place for REQUEST that SOURCE allows; grows the heap if need be.
 * Called and returns with the lock; .first is NULL where there is none. */
static struct window find(const struct heap_request *request,
                          enum heap_source source)
{
    for (;;) {
        while (!tiling_stocked()) {
            if (!grow_pool())
                return (struct window){0};
        }
        struct window place = window_in(request, REGION_DIRTY);
        if (place.first != NULL || source == HEAP_RESIDENT)
            return place;
        place = window_mixed(request);
        if (place.dirty > 0)
            return place;
        place = window_in(request, REGION_ZERO);
        if (place.first != NULL)
            return place;
        if (!grow(request->pages + request->align - 1))
            return (struct window){0};
    }
}

static void count_live(uint32_t pages)
{
    heap.live += pages;
    heap.live_peak = max_size(heap.live_peak, heap.live);
}

struct region *heap_take(struct heap_request request, enum heap_source source,
                         uint32_t *fresh)
{
    struct region *region = NULL;
    pthread_mutex_lock(&heap.lock);
    struct window place = find(&request, source);
    if (place.first != NULL) {
        region = tiling_carve(place.first, place.page, request.pages, fresh);
        store_relaxed(&region->addr, page_address(region->page));
        count_live(request.pages);
        trim_to_budget();
    }
    pthread_mutex_unlock(&heap.lock);
    return region;
}

void heap_give(struct region *chain)
{
    pthread_mutex_lock(&heap.lock);
    while (chain != NULL) {
        struct region *next = chain->left;
        heap.live -= chain->pages;
        tiling_free(chain, REGION_DIRTY);
        chain = next;
    }
    trim_to_budget();
    pthread_mutex_unlock(&heap.lock);
}

/* The pages that follow REGION without a gap and may be used: DIRTY ones
 * alone, or free ones, or free ones after growing the heap. */
static uint32_t room_after(const struct region *region, enum heap_source source)
{
    uint32_t room = 0;
    for (struct region *run = tiling_after(region);
         run != NULL && (source == HEAP_RESIDENT ? state_of(run) == REGION_DIRTY
                                                 : is_free(run));
         run = tiling_after(run))
        room += run->pages;
    return room;
}

bool heap_extend(struct region *region, uint32_t pages, enum heap_source source,
                 uint32_t *fresh)
{
    uint32_t more = pages - region->pages;
    pthread_mutex_lock(&heap.lock);
    uint32_t room = room_after(region, source);
    if (room < more && source == HEAP_ANY &&
        region->page + region->pages + room == load_relaxed(&heap.top) &&
        grow(more))
        room = room_after(region, source);
    bool done = room >= more && (tiling_stocked() || grow_pool()) &&
                room_after(region, source) >= more;
    if (done) {
        tiling_lengthen(region, pages, fresh);
        count_live(more);
        trim_to_budget();
    }
    pthread_mutex_unlock(&heap.lock);
    return done;
}

void heap_shrink(struct region *region, uint32_t pages)
{
    pthread_mutex_lock(&heap.lock);
    if (tiling_stocked()) {
        heap.live -= region->pages - pages;
        tiling_shorten(region, pages);
        trim_to_budget();
    }
    pthread_mutex_unlock(&heap.lock);
}

/* ----------------------------------------------------------------- fork */

void heap_fork_prepare(void)
{
    pthread_mutex_lock(&heap.lock);
    while (heap.busy > 0) {
        pthread_mutex_unlock(&heap.lock);
        sched_yield();
        pthread_mutex_lock(&heap.lock);
    }
}

void heap_fork_done(void)
{
    pthread_mutex_unlock(&heap.lock);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * find.c - see find.h.
 */
#include "find.h"

#include "hooks.h"
#include "os.h"

/* The map and the pool become accessible in steps of this many bytes. */
#define METADATA_STEP (64 * KIB)

/* Runs to look at, largest first, when free runs must be combined. */
#define MIXED_TRIES 16

/* Free runs on either side of one to combine it with, at most. */
#define AROUND_MOST 64

/* ----------------------------------------------------------------- growing */

/* Make metadata accessible.  Its pages are populated, since their first
 * touches would otherwise be spread over the first rounds of a prover. */
static int commit_metadata(char *addr, size_t length)
{
    int error = os_commit(addr, length);
    if (error == 0)
        os_populate(addr, length);
    return error;
}

static bool grow_pool(void)
{
    uint32_t from = heap.pool_size;
    uint32_t step = (uint32_t)max_size(
        max_size(METADATA_STEP, os_page_size()) / sizeof(struct region), 1);
    if (from + step > heap.pool_limit)
        return false;
    heap.growing++;
    heap_unlock();
    int error =
        commit_metadata((char *)&heap.pool[from], step * sizeof(struct region));
    heap_lock();
    heap.growing--;
    if (error == 0 && heap.pool_size == from)
        heap.pool_size = from + step;
    return error == 0;
}

bool stock_up(void)
{
    while (!tiling_stocked()) {
        if (!grow_pool())
            return false;
    }
    return true;
}

/* Make the map cover PAGES pages.  Called and returns with the lock. */
static bool grow_map(uint32_t pages)
{
    while (heap.map_pages < pages) {
        size_t unit = max_size(METADATA_STEP, os_page_size());
        size_t from = heap.map_pages * sizeof(uint32_t);
        size_t to = round_up(pages * sizeof(uint32_t), unit);
        heap.growing++;
        heap_unlock();
        int error = commit_metadata((char *)heap.map + from, to - from);
        heap_lock();
        heap.growing--;
        if (error != 0)
            return false;
        heap.map_pages =
            (uint32_t)max_size(heap.map_pages, to / sizeof(uint32_t));
    }
    return true;
}

bool commit_run(struct region *run)
{
    heap.busy++;
    heap_unlock();
    int error = os_commit(page_address(run->page), pages_to_bytes(run->pages));
    if (error == 0 && load_relaxed(&hooked))
        error = hooks_map(run->page, run->pages);
    heap_lock();
    heap.busy--;
    tiling_free(run, error == 0 ? REGION_ZERO : REGION_BARE);
    return error == 0;
}

/* Pages that stay free before what is added. */
static uint32_t gap(void)
{
    return load_relaxed(&hooked) ? HOOKS_GAP : 0;
}

/* How many pages to add where PAGES are needed, the gap not counted. */
static size_t step(size_t pages)
{
    size_t least = load_relaxed(&hooked) ? HOOKS_STEP >> heap.page_shift : 1;
    return round_up(max_size(pages, least), HUGE_PAGES);
}

/* As commit_run(), for a RUN that starts with a gap where there are hooks: it
 * stays BUSY, unless what follows was refused. */
static bool commit_step(struct region *run)
{
    if (gap() == 0)
        return commit_run(run);
    bool done = commit_run(tiling_split(run, gap()));
    if (!done)
        tiling_free(run, REGION_BARE);
    return done;
}

bool grow_top(uint32_t pages)
{
    /* A run that could not be made accessible earlier may be now. */
    uint32_t lead = gap();
    struct region *bare = tree_fit(&heap.free[0][REGION_BARE], lead + pages);
    if (bare != NULL) {
        if (!tiling_stocked())
            return true; /* the caller stocks up and looks again */
        uint32_t zero,
            want = (uint32_t)min_size(lead + step(pages), bare->pages);
        bare = tiling_carve(bare, bare->page, want, &zero);
        store_relaxed(&bare->state, REGION_BUSY);
        return commit_step(bare);
    }

    uint32_t top = load_relaxed(&heap.top);
    uint32_t tail = top;
    /* With hooks what is added is a range of its own. */
    for (uint32_t at = top; lead == 0 && at > 0;) {
        struct region *run = region_at(at - 1);
        if (!is_free(run))
            break;
        tail = at = run->page;
    }
    /* There is room enough, but not of the kind that is wanted. */
    if (tail + (size_t)pages <= top)
        tail = top;
    size_t limit = heap.span >> heap.page_shift;
    size_t want =
        top + lead + step(max_size(tail + (size_t)pages, top + 1) - top);
    if (want > limit)
        return false;
    if (!grow_map((uint32_t)want))
        return false;
    if (load_relaxed(&heap.top) != top || gap() != lead || !tiling_stocked())
        return true; /* other threads were here meanwhile: look again */
    struct region *run = tiling_add(REGION_BUSY, top, (uint32_t)want - top);
    store_relaxed(&heap.top, (uint32_t)want);
    return commit_step(run);
}

/* ------------------------------------------------------------------ finding */

static uint32_t align_page(uint32_t page, uint32_t align)
{
    size_t address = (size_t)heap.base + pages_to_bytes(page);
    size_t aligned = round_up(address, pages_to_bytes(align));
    return page + (uint32_t)((aligned - address) >> heap.page_shift);
}

/* The place for REQUEST at PAGE, in the stretch of free runs from START to
 * REACH; .first is NULL where it does not fit. */
static struct window window_at(const struct heap_request *request,
                               struct region *start, uint32_t page,
                               uint32_t reach)
{
    struct window w = {0};
    struct region *r = start;
    while (r->page + r->pages <= page)
        r = tiling_after(r);
    /* ZERO pages are used from the start of a huge page on: see
     * whole_end() in heap.c. */
    if (heap.huge && state_of(r) == REGION_ZERO)
        page = (uint32_t)max_size(r->page, round_down(page, HUGE_PAGES));
    page = align_page(page, request->align);
    uint32_t stop = page + request->pages;
    if (stop > reach || stop < page)
        return w;
    for (; r != NULL && r->page < stop; r = tiling_after(r)) {
        uint32_t lo = (uint32_t)max_size(page, r->page);
        uint32_t hi = (uint32_t)min_size(stop, (size_t)r->page + r->pages);
        if (lo >= hi)
            continue;
        if (w.first == NULL)
            w = (struct window){r, page, 0};
        if (state_of(r) == REGION_DIRTY)
            w.dirty += hi - lo;
    }
    return w;
}

/* The place for REQUEST around RUN, among it and the free runs beside it, that
 * uses the most DIRTY pages.  Such a place starts with a run or ends with one.
 */
static struct window window_around(const struct heap_request *request,
                                   struct region *run)
{
    struct window best = {0};
    struct region *start = run, *r;
    uint32_t reach = run->page + run->pages;

    /* Each of the runs is looked at from the start: not too many of them. */
    unsigned runs = 0;
    for (r = run; r != NULL && is_free(r) && runs < AROUND_MOST;
         r = tiling_before(r), runs++) {
        start = r;
        if (run->page - r->page >= request->pages)
            break;
    }
    runs = 0;
    for (r = run; r != NULL && is_free(r) && runs < AROUND_MOST;
         r = tiling_after(r), runs++) {
        reach = r->page + r->pages;
        if (reach - run->page >= request->pages + request->align)
            break;
    }
    for (r = start; r != NULL && r->page < reach; r = tiling_after(r)) {
        uint32_t end = r->page + r->pages;
        struct window w = window_at(request, start, r->page, reach);
        if (w.first != NULL && (best.first == NULL || w.dirty > best.dirty))
            best = w;
        if (end - start->page < request->pages)
            continue;
        w = window_at(request, start, end - request->pages, reach);
        if (w.first != NULL && (best.first == NULL || w.dirty > best.dirty))
            best = w;
    }
    return best;
}

/* A place for REQUEST in one run of TREE. */
static struct window window_in(const struct heap_request *request,
                               const struct tree *tree)
{
    struct region *run = tree_fit(tree, request->pages + request->align - 1);
    if (run == NULL)
        return (struct window){0};
    if (request->roomy)
        run = tree_smaller(tree, NULL);
    return (struct window){run, align_page(run->page, request->align), 0};
}

/* A place in a DIRTY run: of the request's own node, or else of another. */
static struct window window_dirty(const struct heap_request *request)
{
    struct window place = {0};
    for (unsigned i = 0; i < heap.nodes && place.first == NULL; i++) {
        unsigned node = (request->node + i) % heap.nodes;
        place = window_in(request, &heap.free[node][REGION_DIRTY]);
    }
    return place;
}

/* A place that combines DIRTY runs, one of NODE's with what is free beside it.
 */
static struct window window_mixed(const struct heap_request *request,
                                  unsigned node)
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
        run = tree_smaller(&heap.free[node][REGION_DIRTY], run);
        if (run == NULL || run->pages <= best.dirty)
            break;
        struct window w = window_around(request, run);
        if (w.first != NULL && (best.first == NULL || w.dirty > best.dirty))
            best = w;
    }
    return best;
}

struct window find_place(const struct heap_request *request,
                         enum heap_source source)
{
    for (;;) {
        if (!stock_up())
            return (struct window){0};
        struct window place = {0};
        if (source != HEAP_UNTOUCHED) {
            place = window_dirty(request);
            if (place.first != NULL || source == HEAP_RESIDENT)
                return place;
            for (unsigned i = 0; i < heap.nodes; i++) {
                unsigned node = (request->node + i) % heap.nodes;
                place = window_mixed(request, node);
                if (place.dirty > 0)
                    return place;
            }
        }
        place = window_in(request, &heap.free[0][REGION_ZERO]);
        if (place.first != NULL)
            return place;
        if (!grow_top(request->pages + request->align - 1))
            return (struct window){0};
    }
}

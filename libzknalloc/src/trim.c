/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * trim.c - see trim.h.
 *
 * Victims are the runs that went unused longest.  Of a run, whole huge pages
 * go first: giving back a part of one makes the kernel split it, which costs
 * time now and huge pages later, and may not even free memory.
 */
#include "trim.h"

#include "assemble.h"
#include "hooks.h"
#include "os.h"
#include "stats.h"
#include "tiling.h"

/* Runs to look at, oldest first, for one that has a whole huge page. */
#define VICTIM_TRIES 32

/* Runs that the kernel may refuse to take, locked ones say, before the budget
 * is left exceeded. */
#define REFUSALS_MOST 4

/* The slack of the budget: 1/24 of the peak, and room for a few huge pages. */
static size_t budget(void)
{
    return heap.high + heap.high / 24 + ((8 * MIB) >> heap.page_shift);
}

/* Free pages above the budget. */
static size_t excess(void)
{
    size_t over = 0, committed = heap.live + heap.dirty;
    if (load_relaxed(&hooked))
        return 0;
    if (committed > budget())
        over = committed - budget();
    if (heap.dirty > heap.ceiling)
        over = max_size(over, heap.dirty - heap.ceiling);
    return min_size(over, heap.dirty);
}

static void publish(void)
{
    uint64_t *counters = zknalloc_stats_v1.heap.counters;
    uint64_t live = pages_to_bytes(heap.live);
    uint64_t cached = pages_to_bytes(heap.dirty);
    __atomic_store_n(&counters[STAT_live_now], live, __ATOMIC_RELAXED);
    __atomic_store_n(&counters[STAT_cached_now], cached, __ATOMIC_RELAXED);
    __atomic_store_n(&counters[STAT_committed_now], live + cached,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&counters[STAT_soft_now], pages_to_bytes(heap.soft),
                     __ATOMIC_RELAXED);
    stats_peak(STAT_live_peak, pages_to_bytes(heap.high));
    stats_peak(STAT_cached_peak, cached);
    stats_peak(STAT_committed_peak, live + cached);
}

bool trim_core(const struct region *run, uint32_t *page, uint32_t *end)
{
    *page = (uint32_t)round_up(run->page, HUGE_PAGES);
    *end = (uint32_t)round_down((size_t)run->page + run->pages, HUGE_PAGES);
    return *page < *end;
}

/* Take the DIRTY run RUN out of the tiling, as a BUSY one, and with it the ZERO
 * pages beside it that share its first or last huge page: touching a page of
 * RUN may have brought them too. */
static struct region *detach_wide(struct region *run)
{
    uint32_t page = run->page, end = run->page + run->pages, zero;
    struct region *before = tiling_before(run), *after = tiling_after(run);
    if (!heap.huge || run->sparse || !tiling_stocked()) {
        tiling_detach(run);
        return run;
    }
    if (before != NULL && state_of(before) == REGION_ZERO) {
        page = (uint32_t)max_size(before->page, round_down(page, HUGE_PAGES));
        if (page < run->page)
            run = before;
    }
    if (after != NULL && state_of(after) == REGION_ZERO)
        end = (uint32_t)min_size((size_t)after->page + after->pages,
                                 round_up(end, HUGE_PAGES));
    run = tiling_carve(run, page, end - page, &zero);
    store_relaxed(&run->state, REGION_BUSY);
    return run;
}

/* Take about PAGES free pages out of the tiling, as one BUSY run. */
static struct region *pick_victim(size_t pages)
{
    struct region *run = heap.oldest;
    uint32_t page, end, zero;
    if (tiling_stocked()) {
        struct region *r = run;
        for (unsigned i = 0; r != NULL && i < VICTIM_TRIES; i++, r = r->newer) {
            if (!trim_core(r, &page, &end))
                continue;
            if (r->sparse) {
                run = r; /* never a part of one */
                break;
            }
            size_t want = round_up(pages, HUGE_PAGES);
            if (end - page > want)
                page = end - (uint32_t)want;
            run = tiling_carve(r, page, end - page, &zero);
            store_relaxed(&run->state, REGION_BUSY);
            return run;
        }
    }
    return detach_wide(run);
}

/* Make OS_CALL on a BUSY run without the lock; the run is put back as AFTER,
 * DIRTY or ZERO, and as what it was where the kernel refuses or it need not
 * change.  Returns the run, or NULL where the kernel refused. */
static struct region *advise(struct region *run, int (*os_call)(char *, size_t),
                             enum region_state after)
{
    heap.busy++;
    heap_unlock();
    int error = os_call(page_address(run->page), pages_to_bytes(run->pages));
    heap_lock();
    heap.busy--;
    if (error != 0)
        stats_add(STAT_fallback_advise, 1);
    else if (os_call == os_renew)
        assemble_forget(run->page, run->pages);
    if (error == 0 && after == REGION_ZERO)
        heap_unsparse(run);
    if (run->sparse)
        after = REGION_SPARSE;
    else if (error != 0)
        after = REGION_DIRTY;
    run = tiling_free(run, after);
    return error == 0 ? run : NULL;
}

/* Whether RUN is whole huge pages and nothing else. */
static bool is_whole(const struct region *run)
{
    return run->page % HUGE_PAGES == 0 && run->pages % HUGE_PAGES == 0;
}

/* Give the BUSY run RUN back: where pages were moved into it, by a fresh
 * mapping, which joins with its neighbours again.  Never a part of a huge page
 * that was moved: it must stay one mapping, or it could not move again. */
static struct region *discard(struct region *run)
{
    bool renew = is_whole(run) && assembled(run->page, run->pages);
    int (*os_call)(char *, size_t) =
        run->sparse ? os_discard_small : os_discard;
    return advise(run, renew ? os_renew : os_call, REGION_ZERO);
}

void trim_to_budget(void)
{
    unsigned refusals = 0;
    size_t over;
    while (unlikely((over = excess()) > 0) && refusals < REFUSALS_MOST) {
        struct region *run = pick_victim(over);
        uint32_t pages = counted(run);
        if (discard(run) == NULL) {
            refusals++; /* it is the youngest now: try others */
            continue;
        }
        stats_add(STAT_evictions, 1);
        stats_add(STAT_bytes_evicted, pages_to_bytes(pages));
    }
    publish();
}

/* Give RUN, a DIRTY or SPARSE one, back, or of one that pages were moved into
 * the whole huge pages first.  Adds its pages to *TRIED, and returns them; 0
 * where the kernel refused (locked memory, say): the run is then the youngest.
 */
static size_t release_run(struct region *run, size_t *tried)
{
    uint32_t page, end, zero;
    size_t pages = counted(run);
    if (!run->sparse && assembled(run->page, run->pages) && !is_whole(run) &&
        trim_core(run, &page, &end) && tiling_stocked()) {
        pages = end - page;
        run = tiling_carve(run, page, end - page, &zero);
        store_relaxed(&run->state, REGION_BUSY);
    } else {
        run = detach_wide(run);
    }
    *tried += pages;
    return discard(run) != NULL ? pages : 0;
}

/* Offer RUN, a DIRTY or SPARSE one, to the kernel; returns the pages, 0 where
 * that failed. */
static size_t soften_run(struct region *run)
{
    uint32_t length = run->pages, pages = counted(run);
    uint16_t used = run->used;
    tiling_detach(run);
    run = advise(run, os_soften, REGION_DIRTY);
    if (run == NULL)
        return 0;
    /* What was freed beside it meanwhile joined it, and was not offered. */
    if (run->pages == length)
        tiling_mark_soft(run, used);
    return pages;
}

size_t trim_release(void)
{
    heap_lock();
    /* Other threads may be freeing: stop at what there was to give. */
    size_t goal = heap.dirty, tried = 0, done = 0;
    if (load_relaxed(&hooked))
        done = hooks_release();
    else
        while (tried < goal && heap.oldest != NULL)
            done += release_run(heap.oldest, &tried);
    publish();
    heap_unlock();
    stats_add(STAT_bytes_released, pages_to_bytes(done));
    return pages_to_bytes(done);
}

/* The youngest run that is not soft. */
static struct region *youngest_hard(void)
{
    struct region *run = heap.newest;
    while (run != NULL && run->soft)
        run = run->older;
    return run;
}

size_t trim_soften(void)
{
    heap_lock();
    size_t goal = heap.dirty - heap.soft, done = 0, pages = 1;
    struct region *run;
    while (!load_relaxed(&hooked) && pages > 0 && done < goal &&
           (run = youngest_hard()) != NULL) {
        pages = soften_run(run);
        done += pages;
    }
    publish();
    heap_unlock();
    stats_add(STAT_bytes_softened, pages_to_bytes(done));
    return pages_to_bytes(done);
}

size_t trim_stage(void)
{
    heap_lock();
    heap.high = heap.live;
    heap_unlock();
    return trim_release();
}

static unsigned idle_seconds(const struct region *run)
{
    return (uint16_t)(heap.clock - run->used);
}

/* The oldest run that is not soft yet, if the rules want it softened. */
static struct region *to_soften(const struct trim_rules *rules)
{
    struct region *run = heap.oldest;
    while (run != NULL && run->soft)
        run = run->newer;
    if (run == NULL || idle_seconds(run) == 0)
        return NULL; /* in use just now */
    return heap.dirty - heap.soft > rules->hard ||
                   idle_seconds(run) >= rules->soften_after
               ? run
               : NULL;
}

size_t trim_tick(const struct trim_rules *rules)
{
    size_t released = 0, softened = 0, tried = 0;
    struct region *run;
    heap_lock();
    heap.clock++;
    /* A run that the kernel refuses counts as used now, so both loops end. */
    size_t goal = load_relaxed(&hooked) ? 0 : heap.dirty;
    while (tried < goal && (run = heap.oldest) != NULL &&
           idle_seconds(run) >= rules->release_after)
        released += release_run(run, &tried);
    while (goal > 0 && (run = to_soften(rules)) != NULL)
        softened += soften_run(run);
    publish();
    size_t left = heap.dirty;
    heap_unlock();
    stats_add(STAT_bytes_released, pages_to_bytes(released));
    stats_add(STAT_bytes_softened, pages_to_bytes(softened));
    return left;
}

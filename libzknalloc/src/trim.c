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
#include "os.h"
#include "stats.h"
#include "tiling.h"

/* Runs to look at, oldest first, for one that has a whole huge page. */
#define VICTIM_TRIES 32

/* The slack of the budget: 1/64 of the peak, and room for a few huge pages. */
static size_t budget(void)
{
    return heap.high + heap.high / 64 + ((8 * MIB) >> heap.page_shift);
}

size_t trim_excess(void)
{
    size_t over = 0, committed = heap.live + heap.dirty;
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
            size_t want = round_up(pages, HUGE_PAGES);
            if (end - page > want)
                page = end - (uint32_t)want;
            run = tiling_carve(r, page, end - page, &zero);
            store_relaxed(&run->state, REGION_BUSY);
            return run;
        }
    }
    tiling_detach(run);
    return run;
}

/* Make OS_CALL on a BUSY run without the lock; the run is put back as AFTER,
 * or as DIRTY where the kernel refuses.  Returns the run or NULL. */
static struct region *advise(struct region *run, int (*os_call)(char *, size_t),
                             enum region_state after)
{
    heap.busy++;
    pthread_mutex_unlock(&heap.lock);
    int error = os_call(page_address(run->page), pages_to_bytes(run->pages));
    pthread_mutex_lock(&heap.lock);
    heap.busy--;
    if (error != 0)
        stats_add(STAT_fallback_advise, 1);
    else if (os_call == os_renew)
        assemble_forget(run->page, run->pages);
    run = tiling_free(run, error == 0 ? after : REGION_DIRTY);
    return error == 0 ? run : NULL;
}

/* How to give RUN back: where pages were moved into it, by a fresh mapping,
 * which joins with its neighbours again. */
static struct region *discard(struct region *run)
{
    return advise(run, assembled(run->page, run->pages) ? os_renew : os_discard,
                  REGION_ZERO);
}

void trim_to_budget(void)
{
    for (size_t over; unlikely((over = trim_excess()) > 0);) {
        struct region *run = pick_victim(over);
        uint32_t pages = run->pages;
        if (discard(run) == NULL)
            break; /* locked memory, say: nothing to gain by insisting */
        stats_add(STAT_evictions, 1);
        stats_add(STAT_bytes_evicted, pages_to_bytes(pages));
    }
    publish();
}

/* Give RUN, a DIRTY one, back; returns the pages, 0 where that failed. */
static size_t release_run(struct region *run)
{
    size_t pages = run->pages;
    tiling_detach(run);
    return discard(run) != NULL ? pages : 0;
}

/* Offer RUN, a DIRTY one, to the kernel; returns the pages, 0 where that
 * failed. */
static size_t soften_run(struct region *run)
{
    uint32_t pages = run->pages;
    uint16_t used = run->used;
    tiling_detach(run);
    run = advise(run, os_soften, REGION_DIRTY);
    if (run == NULL)
        return 0;
    /* What was freed beside it meanwhile joined it, and was not offered. */
    if (run->pages == pages)
        tiling_mark_soft(run, used);
    return pages;
}

size_t trim_release(void)
{
    pthread_mutex_lock(&heap.lock);
    /* Other threads may be freeing: stop at what there was to give. */
    size_t goal = heap.dirty, done = 0, pages = 1;
    while (pages > 0 && done < goal && heap.oldest != NULL) {
        pages = release_run(heap.oldest);
        done += pages;
    }
    publish();
    pthread_mutex_unlock(&heap.lock);
    stats_add(STAT_bytes_released, pages_to_bytes(done));
    return pages_to_bytes(done);
}

size_t trim_soften(void)
{
    pthread_mutex_lock(&heap.lock);
    size_t goal = heap.dirty - heap.soft, done = 0, pages = 1;
    /* A run that was softened becomes the oldest, so taking the youngest each
     * time takes each once, and their order stays. */
    while (pages > 0 && done < goal && heap.newest != NULL &&
           !heap.newest->soft) {
        pages = soften_run(heap.newest);
        done += pages;
    }
    publish();
    pthread_mutex_unlock(&heap.lock);
    stats_add(STAT_bytes_softened, pages_to_bytes(done));
    return pages_to_bytes(done);
}

size_t trim_stage(void)
{
    pthread_mutex_lock(&heap.lock);
    heap.high = heap.live;
    pthread_mutex_unlock(&heap.lock);
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
    size_t released = 0, softened = 0, pages = 1;
    struct region *run;
    pthread_mutex_lock(&heap.lock);
    heap.clock++;
    while (pages > 0 && (run = heap.oldest) != NULL &&
           idle_seconds(run) >= rules->release_after) {
        pages = release_run(run);
        released += pages;
    }
    pages = 1;
    while (pages > 0 && (run = to_soften(rules)) != NULL) {
        pages = soften_run(run);
        softened += pages;
    }
    publish();
    size_t left = heap.dirty;
    pthread_mutex_unlock(&heap.lock);
    stats_add(STAT_bytes_released, pages_to_bytes(released));
    stats_add(STAT_bytes_softened, pages_to_bytes(softened));
    return left;
}

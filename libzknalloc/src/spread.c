/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * spread.c - see spread.h.
 */
#include "spread.h"

#include <string.h>

#include "heap.h"
#include "hooks.h"
#include "look.h"
#include "options.h"
#include "os.h"
#include "stats.h"

/* By default: on so many CPUs, and where a huge page from the kernel costs so
 * many per cent of clearing one. */
#define CPUS_LEAST   4
#define DEAREST_AUTO 125

/* The most requests that are cleared between two trials. */
#define PATIENCE_MOST 256

/* One of so many requests is cleared all the same, to know what that costs now:
 * the first measurement may have been disturbed. */
#define CLEAR_EVERY 32

/* What clearing a huge page costs, in ns; 0: not known. */
static _Atomic uint64_t clear_cost;

/* Requests to clear before the next trial, and after the next that fails. */
static _Atomic unsigned wait, patience = 1;

/* Requests since the last one that was cleared for its cost. */
static _Atomic unsigned turn;

/* The last memory that this thread was given uncleared: its huge pages, 0 for
 * none, and the faults that the thread had had by then. */
static _Thread_local struct {
    size_t pages, faults;
} last_given __attribute__((tls_model("initial-exec")));

void spread_cost(uint64_t ns, size_t size)
{
    uint64_t now = ns / (size / HUGE_PAGE) + 1;
    uint64_t was = load_relaxed(&clear_cost);
    /* Down at once, up slowly: a thread that was preempted meanwhile has seen
     * a cost that is none. */
    store_relaxed(&clear_cost,
                  was == 0 || now < was ? now : was + (now - was) / 8);
}

/* What a huge page from the kernel may cost, in per cent of clearing one. */
static size_t dearest(void)
{
    if (options.spread != OPTION_AUTO)
        return options.spread;
    return os_cpus() >= CPUS_LEAST ? DEAREST_AUTO : 0;
}

/* Give the huge page that starts with PAGE back and touch it.  Returns whether
 * one came in its place, at a price of LIMIT ns at most. */
static bool try_one(uint32_t page, uint64_t limit)
{
    char *addr = page_address(page);
    uint64_t before = os_now_ns();
    if (os_discard(addr, HUGE_PAGE) != 0) {
        stats_add(STAT_fallback_advise, 1); /* locked in memory, say */
        return false;
    }
    *(volatile char *)addr = 0;
    if (os_now_ns() - before > limit)
        return false;
    return look_resident(page, (uint32_t)HUGE_PAGES) == HUGE_PAGES;
}

/* Whether this request is one to be cleared; counts it. */
static bool waits(void)
{
    unsigned left = load_relaxed(&wait), now = load_relaxed(&turn) + 1;
    if (left > 0)
        store_relaxed(&wait, left - 1);
    store_relaxed(&turn, now % CLEAR_EVERY);
    return left > 0 || now == CLEAR_EVERY;
}

static void be_patient(void)
{
    unsigned more = load_relaxed(&patience);
    store_relaxed(&wait, more);
    store_relaxed(&patience,
                  (unsigned)min_size(2 * (size_t)more, PATIENCE_MOST));
}

/* Find out who touched what this thread was given last. */
static void judge(void)
{
    if (last_given.pages == 0)
        return;
    if (os_thread_faults() - last_given.faults > last_given.pages / 2)
        be_patient();
    else
        store_relaxed(&patience, 1);
    last_given.pages = 0;
}

bool spread_clear(char *start, size_t size)
{
    uint64_t cost = load_relaxed(&clear_cost);
    size_t percent;
    if (cost == 0 || load_relaxed(&hooked) || (percent = dearest()) == 0)
        return false;
    judge();
    if (waits())
        return false;

    /* The whole huge pages: the heap starts with one. */
    size_t at = (size_t)(start - heap.base);
    size_t from = round_up(at, HUGE_PAGE);
    size_t to = round_down(at + size, HUGE_PAGE);
    if (!try_one((uint32_t)(from >> heap.page_shift), cost * percent / 100) ||
        os_discard(heap.base + from + HUGE_PAGE, to - from - HUGE_PAGE) != 0) {
        be_patient();
        return false;
    }
    memset(start, 0, from - at);
    memset(heap.base + to, 0, at + size - to);
    stats_add(STAT_bytes_spread, to - from);
    last_given.pages = (to - from) / HUGE_PAGE - 1;
    last_given.faults = os_thread_faults();
    return true;
}

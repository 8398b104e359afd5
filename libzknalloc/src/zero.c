/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zero.c - see zero.h.
 */
#include "zero.h"

#include <errno.h>
#include <string.h>

#include "assemble.h"
#include "density.h"
#include "hooks.h"
#include "look.h"
#include "options.h"
#include "os.h"
#include "spread.h"
#include "stats.h"

/* The most memory that live probes may take, in bytes. */
#define PROBE_MOST (128 * MIB)

/* Of regions that are given back unseen, one in so many is looked at. */
#define LOOK_EVERY 16

/* Pages of a dense region that are sampled; at most SAMPLE_FEW of them hold
 * something where sparse regions may be better. */
#define SAMPLE     64
#define SAMPLE_FEW 8

/* Pages in live probes. */
static size_t probing;

/* The last probe that was handed out, as long as it is live. */
static struct region *last_probe;

/* Looking failed: no /proc, say.  Then nothing is sparse. */
static _Atomic bool blind;

/* ----------------------------------------------------------------- clearing */

/* Clear from START to END, and note what it cost. */
static void clear(char *start, char *end)
{
    if (start >= end)
        return;
    size_t size = (size_t)(end - start);
    if (size >= SPREAD_LEAST && spread_clear(start, size))
        return;
    uint64_t before = size >= SPARSE_LEAST ? os_now_ns() : 0;
    memset(start, 0, size);
    stats_add(STAT_bytes_cleared, size);
    if (before == 0)
        return;
    uint64_t spent = os_now_ns() - before;
    density_cost(CLEAR_DENSE, spent, size >> heap.page_shift);
    if (size >= SPREAD_LEAST)
        spread_cost(spent, size);
}

void zero_clear(const struct region *region, size_t size)
{
    char *start = load_relaxed(&region->addr), *end = start + size;
    char *zero = page_address(region->page + region->zero_first);
    char *rest = zero + pages_to_bytes(region->zero_pages);
    if (region->zero_pages == 0)
        rest = zero = end;
    clear(start, zero < end ? zero : end);
    clear(rest > start ? rest : start, end);
}

/* ----------------------------------------------------------------- learning
 */

/* Whether sparse regions are in use at all. */
static bool is_looking(void)
{
    return options.sparse && !load_relaxed(&hooked) && !load_relaxed(&blind);
}

/* Whether a request of class C may be a probe. */
static bool may_probe(const struct density *c)
{
    return c->verdict == UNKNOWN && !density_presumed() &&
           probing + c->pages <= PROBE_MOST >> heap.page_shift;
}

/* Before another probe, for a request of PAGES pages, look at the last one,
 * though its owner has it still: a program that writes all of each buffer in
 * turn is found out by the second one. */
static void learn_from_probe(uint32_t pages)
{
    uint32_t asked = 0, page = 0;
    heap_lock();
    if (last_probe != NULL && may_probe(density_of(pages))) {
        asked = last_probe->asked;
        page = last_probe->page;
    }
    heap_unlock();
    if (asked > 0 && look_resident(page, asked) > asked / 2) {
        heap_lock();
        density_found_dense(density_of(asked));
        heap_unlock();
    }
}

void zero_learn(struct region *region)
{
    if (!is_looking())
        return;
    heap_lock();
    struct density *c = density_of(region->asked);
    bool sample = c->verdict == UNKNOWN ||
                  (c->verdict == DENSE && c->trial == 0 && c->wait-- == 0);
    heap_unlock();
    if (!sample)
        return;

    size_t used = 0, samples = min_size(SAMPLE, region->pages);
    size_t step = region->pages / samples;
    for (size_t i = 0; i < samples; i++) {
        /* Not a plain stride: what is used may have one, too. */
        size_t page = region->page + i * step + (i * 7) % step;
        used += !look_is_zero(page_address((uint32_t)page), pages_to_bytes(1));
    }
    bool empty = used * SAMPLE <= samples * SAMPLE_FEW;
    heap_lock();
    density_sampled(density_of(region->asked), empty);
    heap_unlock();
}

/* ---------------------------------------------------------- taking, giving */

/* What a request of PAGES pages should count as if it gets a sparse region; 0
 * where it should not.  *PROBE says whether a probe may be made, and is made.
 */
static uint32_t decide(uint32_t pages, bool *probe)
{
    uint32_t counted = 0;
    heap_lock();
    struct density *c = density_of(pages);
    bool trial = c->trial > 0 && !c->on_trial;
    *probe = *probe && may_probe(c);
    c->on_trial |= trial;
    if (c->verdict == SPARSE)
        counted = density_expected(c);
    else if (*probe || trial)
        counted = pages;
    heap_unlock();
    return counted;
}

/* A region of PAGES pages that may be on trial will not be heard of. */
static void end_trial(uint32_t pages)
{
    heap_lock();
    density_of(pages)->on_trial = false;
    heap_unlock();
}

struct region *zero_take(uint32_t pages, bool probe, uint32_t *fresh)
{
    if (!is_looking())
        return NULL;
    if (!density_ready()) {
        /* Locked memory, say, which is resident whatever is used of it. */
        store_relaxed(&blind, true);
        return NULL;
    }
    if (probe)
        learn_from_probe(pages);
    uint32_t counted = decide(pages, &probe);
    if (counted == 0)
        return NULL;
    struct region *region = heap_take_sparse(pages, counted, fresh);
    if (region == NULL) {
        end_trial(pages);
        return NULL;
    }
    stats_add(STAT_sparse_takes, 1);
    region->asked = pages;
    region->probe = probe;
    if (probe) {
        heap_lock();
        probing += pages;
        last_probe = region;
        heap_unlock();
    }
    return region;
}

/* REGION is for PAGES pages from now on; 0 for none. */
static void set_asked(struct region *region, uint32_t pages)
{
    heap_lock();
    if (region->probe)
        probing += pages - (size_t)region->asked;
    if (pages == 0 && last_probe == region)
        last_probe = NULL;
    region->asked = pages;
    heap_unlock();
}

/* REGION, which is live, counts as COUNTED pages from now on. */
static void recount(struct region *region, uint32_t counted)
{
    heap_lock();
    heap.live += counted - (size_t)region->counted;
    region->counted = counted;
    heap_unlock();
}

struct region *zero_grow(struct region *region, uint32_t pages, uint32_t *fresh)
{
    /* The new pages will be written: that is what growing is for. */
    uint32_t had = region->pages, counts = region->counted;
    uint32_t more = pages - region->asked;
    recount(region, 0); /* the two are never both resident */
    struct region *grown = heap_take_sparse(pages, counts + more, fresh);
    if (grown == NULL) {
        recount(region, counts);
        return NULL;
    }
    grown->asked = pages;
    grown->probe = false;
    heap_lock();
    uint32_t moved = assemble_move(region->page, grown->page, had);
    heap_unlock();
    if (moved < had) {
        recount(region, counts);
        os_advise_small(page_address(grown->page), pages_to_bytes(had));
        memcpy(page_address(grown->page + moved),
               page_address(region->page + moved), pages_to_bytes(had - moved));
    } else {
        end_trial(region->asked);
        set_asked(region, 0);
        region->kept = 0;
    }
    return grown;
}

void zero_shrink(struct region *region, uint32_t pages)
{
    if (pages >= region->asked || load_relaxed(&hooked))
        return;
    (void)os_discard(page_address(region->page + pages),
                     pages_to_bytes(region->asked - pages));
    end_trial(region->asked);
    set_asked(region, pages);
}

/* Give the pages of REGION back, to be ZERO memory for any request where it
 * is sparse no longer.  Returns the state that it is in then. */
static enum region_state drop(struct region *region, bool sparse)
{
    char *addr = page_address(region->page);
    size_t size = pages_to_bytes(region->pages);
    int error = sparse ? os_discard(addr, size) : os_discard_small(addr, size);
    if (error == 0) {
        stats_add(STAT_sparse_drops, 1);
        return sparse ? REGION_SPARSE : REGION_ZERO;
    }
    /* Locked in memory, say: then it is not for sparse use. */
    stats_add(STAT_fallback_advise, 1);
    os_advise_huge(addr, size);
    return REGION_DIRTY;
}

/* The state that REGION is to be freed in; region->kept is what it keeps. */
static enum region_state leave(struct region *region)
{
    uint32_t had = region->kept, asked = region->asked, touched = 0;
    region->kept = 0;
    heap_lock();
    struct density *c = density_of(asked);
    size_t limit = density_keep_limit(c);
    bool unseen = c->verdict == SPARSE && density_restless(c) && had == 0 &&
                  ++c->given % LOOK_EVERY != 0;
    heap_unlock();
    if (unseen)
        return drop(region, true);

    int error = look_clear(region->page, region->pages, limit, &touched);
    if (error != 0) {
        stats_add(STAT_fallback_scan, 1);
        /* Too many files may be open just now; else it is for good. */
        if (error != -EMFILE && error != -ENFILE)
            store_relaxed(&blind, true);
        return drop(region, false);
    }
    heap_lock();
    c = density_of(asked);
    c->on_trial = false;
    density_learn(c, had, touched);
    bool sparse = c->verdict != DENSE || c->trial > 0;
    heap_unlock();
    if (!sparse || touched > limit)
        return drop(region, sparse);
    region->kept = touched;
    return REGION_SPARSE;
}

size_t zero_give(struct region *region)
{
    enum region_state state = REGION_SPARSE;
    if (unlikely(!heap_hold())) {
        heap_defer(region);
        return 0;
    }
    if (load_relaxed(&hooked)) {
        os_advise_huge(page_address(region->page),
                       pages_to_bytes(region->pages));
        state = REGION_DIRTY;
    } else if (region->asked > 0) {
        state = leave(region);
    }
    set_asked(region, 0);
    region->probe = false;
    size_t dirty =
        heap_give_sparse(region, state, (uint32_t)max_size(region->kept, 1));
    heap_let_go();
    return dirty;
}

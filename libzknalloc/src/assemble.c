/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * assemble.c - see assemble.h.
 */
#include "assemble.h"

#include "hooks.h"
#include "os.h"
#include "stats.h"
#include "trim.h"

/* Free runs to look at for one that has a whole huge page to give. */
#define DONOR_TRIES 64

/* A bit for each huge page of address space: pages were moved there. */
#define BITS (sizeof(unsigned long) * CHAR_BIT)
static unsigned long moved[HEAP_SPAN_MOST / HUGE_PAGE / BITS];

/* The kernel refused a move.  What it left behind was mended, but not without
 * a moment in which another thread's mmap() could come between: never again. */
static bool refused;

/* The kernel refused a move of several huge pages, over a boundary between
 * mappings that the program made (by mlock(), or madvise()) or that did not
 * join: from now on each goes alone. */
static bool singly;

bool assemble_able(void)
{
    return !refused && !load_relaxed(&hooked) && heap.moves < MOVES_MOST;
}

static bool is_moved(size_t unit)
{
    return (moved[unit / BITS] >> (unit % BITS)) & 1;
}

static void set_moved(size_t unit, bool value)
{
    if (is_moved(unit) == value)
        return;
    moved[unit / BITS] ^= 1UL << (unit % BITS);
    heap.moves += value ? 1 : (size_t)-1;
}

bool assembled(uint32_t page, uint32_t pages)
{
    if (heap.moves == 0)
        return false;
    for (size_t unit = page / HUGE_PAGES;
         unit <= (page + pages - 1) / HUGE_PAGES; unit++) {
        if (is_moved(unit))
            return true;
    }
    return false;
}

void assemble_forget(uint32_t page, uint32_t pages)
{
    for (size_t unit = round_up(page, HUGE_PAGES) / HUGE_PAGES;
         (unit + 1) * HUGE_PAGES <= (size_t)page + pages; unit++)
        set_moved(unit, false);
}

/* A BUSY run of up to PAGES pages, whole huge pages of one mapping, out of the
 * smallest free runs of NODE that have some; NULL where none has. */
static struct region *pick_donor(uint32_t pages, unsigned node)
{
    struct tree *tree = &heap.free[node][REGION_DIRTY];
    struct region *run = tree_fit(tree, HUGE_PAGES);
    for (unsigned i = 0; run != NULL && i < DONOR_TRIES; i++) {
        uint32_t page, end, zero;
        if (trim_core(run, &page, &end)) {
            end = (uint32_t)min_size(end, (size_t)page + pages);
            /* mremap() takes pages of one mapping. */
            if (singly || assembled(page, end - page))
                end = page + (uint32_t)HUGE_PAGES;
            run = tiling_carve(run, page, end - page, &zero);
            store_relaxed(&run->state, REGION_BUSY);
            return run;
        }
        run = tree_larger(tree, run);
    }
    return NULL;
}

/* The same, of NODE or else of another. */
static struct region *pick_donor_near(uint32_t pages, unsigned node)
{
    struct region *donor = NULL;
    for (unsigned i = 0; i < heap.nodes && donor == NULL; i++)
        donor = pick_donor(pages, (node + i) % heap.nodes);
    return donor;
}

/* Make one move, of pages of one mapping.  Called and returns with the lock. */
static bool move(uint32_t from, uint32_t to, uint32_t pages)
{
    size_t unit = HUGE_PAGES;
    char *target = page_address(to);
    heap.busy++;
    heap_unlock();
    int error = os_move(page_address(from), target, pages_to_bytes(pages));
    /* Kernels before 6.17 may have unmapped the target already. */
    if (error != 0)
        (void)os_renew(target, pages_to_bytes(pages));
    heap_lock();
    heap.busy--;
    if (error != 0) {
        stats_add(STAT_fallback_move, 1);
        *(pages > unit ? &singly : &refused) = true;
        return false;
    }
    for (size_t i = 0; i < pages / unit; i++)
        set_moved(to / unit + i, true);
    stats_add(STAT_bytes_moved, pages_to_bytes(pages));
    return true;
}

uint32_t assemble_move(uint32_t from, uint32_t to, uint32_t pages)
{
    uint32_t done = 0;
    while (done < pages && assemble_able()) {
        uint32_t step = pages - done;
        if (singly || assembled(from + done, step))
            step = (uint32_t)HUGE_PAGES;
        if (move(from + done, to + done, step))
            done += step;
    }
    return done;
}

uint32_t assemble(struct region *region)
{
    size_t unit = HUGE_PAGES;
    size_t to = round_up(region->page + region->zero_first, unit);
    size_t stop = round_down(
        (size_t)region->page + region->zero_first + region->zero_pages, unit);
    uint32_t done = 0;

    while (to < stop && assemble_able() && tiling_stocked()) {
        struct region *donor =
            pick_donor_near((uint32_t)(stop - to), region->node);
        if (donor == NULL)
            break;
        uint32_t pages = donor->pages;
        bool moved_it = move(donor->page, (uint32_t)to, pages);
        tiling_free(donor, moved_it ? REGION_ZERO : REGION_DIRTY);
        if (moved_it) {
            to += pages;
            done += pages;
        }
    }
    if (done > 0) {
        /* What was moved is not zero; keep what lies behind it. */
        uint32_t end = region->page + region->zero_first + region->zero_pages;
        region->zero_first = (uint32_t)to - region->page;
        region->zero_pages = end - (uint32_t)to;
    }
    return done;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * density.c - see density.h.
 */
#include "density.h"

#include "os.h"

/* Dense regions of a size that are freed between two samples: at first, at
 * most, and at most after trials as sparse that failed. */
#define PATIENCE_LEAST 16
#define PATIENCE_MOST  256
#define PATIENCE_TRIED 4096

/* Owners of a sparse region that a trial takes: the first shows how much is
 * touched, the second whether in the same places. */
#define TRIAL 2

/* By a hash of the size (Knuth's multiplicative one); a size that comes takes
 * the place of another. */
#define CLASS_BITS 10
static struct density classes[1 << CLASS_BITS];

/* What the sizes of all classes turned out to be, in pages. */
static size_t found_sparse, found_dense;

/* What a page costs, in ns.  The first two are measured once, the others
 * follow what happens. */
static _Atomic unsigned fault_cost, discard_cost;
static _Atomic unsigned clear_cost[COSTS] = {150, 100};

bool density_ready(void)
{
    unsigned fault, discard;
    if (likely(load_relaxed(&fault_cost) != 0))
        return true;
    if (!os_measure_page(&fault, &discard))
        return false;
    store_relaxed(&discard_cost, discard);
    store_relaxed(&fault_cost, fault);
    return true;
}

void density_cost(enum density_cost which, uint64_t ns, size_t pages)
{
    uint64_t now = ns / pages + 1, was = load_relaxed(&clear_cost[which]);
    /* Down at once, up slowly: a thread that was preempted meanwhile has seen
     * a cost that is none. */
    uint64_t next = now < was ? (was + now) / 2 : was + was / 32 + 1;
    store_relaxed(&clear_cost[which],
                  (unsigned)min_size(next, max_size(now, was)));
}

static void set_verdict(struct density *c, enum verdict verdict)
{
    if (c->verdict == DENSE)
        found_dense -= c->pages;
    else if (c->verdict == SPARSE)
        found_sparse -= c->pages;
    if (verdict == DENSE)
        found_dense += c->pages;
    else if (verdict == SPARSE)
        found_sparse += c->pages;
    c->verdict = verdict;
}

struct density *density_of(uint32_t pages)
{
    struct density *c = &classes[(pages * 2654435769U) >> (32 - CLASS_BITS)];
    if (c->pages != pages) {
        set_verdict(c, UNKNOWN);
        *c = (struct density){.pages = pages, .patience = PATIENCE_LEAST};
    }
    return c;
}

bool density_presumed(void)
{
    return found_dense > found_sparse;
}

void density_found_dense(struct density *c)
{
    set_verdict(c, DENSE);
    c->wait = c->patience;
    c->trial = 0;
}

void density_sampled(struct density *c, bool empty)
{
    density_found_dense(c);
    if (empty) {
        c->touched = c->renewed = 0;
        c->trial = TRIAL;
    } else if (c->patience < PATIENCE_MOST) {
        c->patience *= 2;
    }
}

/* To keep R pages costs R clears now and a fault for each new place; to give
 * them back costs that for each page, and a fault for each touched. */
size_t density_keep_limit(const struct density *c)
{
    uint64_t fault = load_relaxed(&fault_cost);
    uint64_t saved = (256 - c->renewed) * fault / 256;
    uint64_t worth = c->touched * (saved + load_relaxed(&discard_cost)) /
                     load_relaxed(&clear_cost[CLEAR_SMALL]);
    /* The first look decides nothing yet. */
    if (c->touched == 0)
        worth = c->pages;
    return min_size(max_size(worth, c->touched + c->touched / 4 + 1),
                    c->pages / 2);
}

/* Follow how many pages owners touch, and how many of them were not there. */
static void follow(struct density *c, uint32_t kept, uint32_t touched)
{
    uint32_t more = touched > kept ? touched - kept : 0, share = 256;
    if (kept == 0) {
        c->touched = c->touched == 0 ? touched : (c->touched + touched + 1) / 2;
        return;
    }
    if (more <= c->touched)
        share = more * 256 / (uint32_t)max_size(c->touched, 1);
    else
        c->touched = more;
    c->renewed = (c->renewed + share + 1) / 2;
}

void density_learn(struct density *c, uint32_t kept, uint32_t touched)
{
    follow(c, kept, touched);
    if (c->trial > 1) {
        c->trial--;
        return;
    }
    uint64_t each =
        (uint64_t)load_relaxed(&fault_cost) + load_relaxed(&discard_cost);
    uint64_t dense =
        (uint64_t)load_relaxed(&clear_cost[CLEAR_DENSE]) * c->pages;
    /* A program that reads before it writes faults twice. */
    bool faults = density_restless(c) && 2 * c->touched * each > dense;
    if (touched <= c->pages / 2 && !faults) {
        set_verdict(c, SPARSE);
        c->trial = 0;
        return;
    }
    if (c->verdict == DENSE)
        c->patience = (uint32_t)min_size(4 * c->patience, PATIENCE_TRIED);
    density_found_dense(c);
}

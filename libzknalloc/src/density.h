/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * density.h - how much of the zeroed memory that a program asks for it uses.
 *
 * Requests of one size, in pages, are taken to be alike: a class.  What is
 * learned of a class, and when, is told in zero.h; here is what is remembered,
 * what a page fault and a cleared page cost in this process, and the decisions
 * that follow.  The costs are measured because their ratio decides, and is 10
 * in some virtual machines and 2 on bare metal.
 *
 * Locks: everything but the costs belongs to heap.lock.
 */
#ifndef ZKN_DENSITY_H
#define ZKN_DENSITY_H

#include "heap.h"

enum verdict { UNKNOWN, SPARSE, DENSE };

/* Requests of one size. */
struct density {
    uint32_t pages; /* its size; 0 for none */
    enum verdict verdict;
    uint32_t touched;  /* sparse: pages that one owner touches */
    uint32_t renewed;  /* sparse: of those, new ones, in 256ths */
    uint32_t given;    /* sparse: regions freed */
    uint32_t wait;     /* dense: regions freed until the next sample */
    uint32_t patience; /* dense: where wait starts */
    uint32_t trial;    /* dense: owners of a sparse region on trial to come */
    bool on_trial;     /* dense: one has it now */
};

/* The class of requests for PAGES pages; its entry may have been another's
 * until now. */
HIDDEN struct density *density_of(uint32_t pages);

/* Where other sizes proved dense, an unknown one is taken to be so too. */
HIDDEN bool density_presumed(void);

/* The class turned out to be dense. */
HIDDEN void density_found_dense(struct density *c);

/* A dense region was sampled, and found to hold next to nothing or not. */
HIDDEN void density_sampled(struct density *c, bool empty);

/* An owner left TOUCHED pages resident in a sparse region that had KEPT
 * before. */
HIDDEN void density_learn(struct density *c, uint32_t kept, uint32_t touched);

/* The most pages that are worth keeping, and so clearing, in a sparse region
 * of this class. */
HIDDEN size_t density_keep_limit(const struct density *c);

/* Whether places are so new each time that nothing is worth keeping. */
static inline bool density_restless(const struct density *c)
{
    return c->renewed > 128;
}

/* Pages that the next owner of a sparse region is expected to touch: room for
 * some more than usual, since the budget relies on it. */
static inline uint32_t density_expected(const struct density *c)
{
    return (uint32_t)min_size(2 * (size_t)c->touched + 16, c->pages);
}

/* What clearing one page costs: a page here and there, one of many in a row. */
enum density_cost { CLEAR_SMALL, CLEAR_DENSE, COSTS };

/* PAGES pages were cleared in NS nanoseconds. */
HIDDEN void density_cost(enum density_cost which, uint64_t ns, size_t pages);

/* Whether it is known what a fault costs; the first call finds out, without a
 * lock. */
HIDDEN bool density_ready(void);

#endif /* ZKN_DENSITY_H */

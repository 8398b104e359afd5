/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zero.h - requests for zeroed memory, cleared no more than they need.
 *
 * A region that was used before must be cleared before it is zeroed memory
 * again.  Clearing all of it is right for a trace column, every byte of which
 * is written anyway; for the buckets of a multi-scalar multiplication, of
 * which scalars hit one page in a hundred, it costs a hundred times the work.
 * Giving the pages back instead costs a page fault for each that is used next,
 * and is dearer than clearing from a few per cent on.  So there are two kinds
 * of region for zeroed requests:
 *
 *   dense    like any other, in huge pages; cleared whole when it is given
 *            out;
 *   sparse   in small pages, of which only those that were touched are
 *            resident.  When it is freed, the page table says which these are
 *            (/proc/self/pagemap: every kernel has it, and about 2 ns a page is
 *            less than clearing it): they are cleared and stay, or all are
 *            given back.  So a free sparse region always reads as zero.
 *
 * Which kind a request gets depends on what became of earlier ones of its
 * size (struct zero_class):
 *
 *   - unknown: resident memory if there is some, dense.  Otherwise a sparse
 *     region is a probe: it costs small page faults once, and tells how much
 *     is used when it is freed, or when the next probe is wanted.  Where other
 *     sizes proved dense, an unknown one is taken to be so too.
 *   - dense regions tell by a sample of their content: mostly zeros when they
 *     are freed means that little was used.  Then one region of that size at a
 *     time is sparse, on trial, until its second owner has freed it.
 *   - of a sparse size is known how many pages one owner touches and how many
 *     of them are new ones.  Repeating places: the touched pages are kept.
 *     New places each time: they are given back, unless so many are touched
 *     that clearing all of a dense region costs less.
 *
 * What a fault and what clearing a page cost is measured in the process: the
 * ratio is 10 in some virtual machines and 2 on bare metal.
 *
 * Locks: classes belong to heap.lock.  Looking and clearing is done by the
 * region's owner, without a lock.
 */
#ifndef ZKN_ZERO_H
#define ZKN_ZERO_H

#include "heap.h"

/* Smaller requests are cleared without ado: looking costs more. */
#define SPARSE_LEAST (256 * KIB)

/* A sparse HELD region for a request of PAGES pages, if that is what such
 * requests should get; NULL otherwise.  PROBE says that no resident memory
 * could serve the request, so that a probe leaves none unused. */
HIDDEN struct region *zero_take(uint32_t pages, bool probe, uint32_t *fresh);

/* Clear the first SIZE bytes of a region that is not sparse, save for pages
 * that are known to be zero. */
HIDDEN void zero_clear(const struct region *region, size_t size);

/* A sparse HELD region for PAGES pages that has taken over the pages of
 * REGION, which is sparse and the program's and smaller; NULL where there is
 * none.  REGION is left empty, for zero_give(). */
HIDDEN struct region *zero_grow(struct region *region, uint32_t pages,
                                uint32_t *fresh);

/* Cut a sparse region of the program's to PAGES pages: what lies behind them
 * is given back, and its addresses stay. */
HIDDEN void zero_shrink(struct region *region, uint32_t pages);

/* Take back a sparse HELD region.  Returns as heap_give() does. */
HIDDEN size_t zero_give(struct region *region);

/* Learn from a HELD region that is not sparse and served a zeroed request. */
HIDDEN void zero_learn(struct region *region);

#endif /* ZKN_ZERO_H */

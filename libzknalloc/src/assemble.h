/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * assemble.h - one run out of many: moving resident pages under new addresses.
 *
 * Free memory is often enough and yet nowhere long enough.  A request then
 * takes fresh addresses, and instead of asking the kernel for pages, and
 * giving back as many to stay within the budget, the pages of free runs
 * elsewhere are moved there: mremap() hands over page-table entries, a whole
 * huge page at a time, which costs microseconds where a fault must clear
 * 2 MiB.  The addresses that the pages leave become ZERO runs.
 *
 * What was moved lies at an offset in its mapping that differs from its
 * neighbours', so the number of mappings grows by two a move at most.  moves
 * counts the huge pages that were moved; past MOVES_MOST memory is given back
 * instead, and where moved pages lie it is given back by mapping the range
 * afresh, which makes one mapping of it again, as a rule.
 *
 * As a rule: the kernel joins two mappings that were touched only where both
 * have the same anon_vma.  Parts of what was one mapping have; what was first
 * touched as a mapping of its own has another, and stays one.  That is so where
 * the heap grew behind something moved or sparse, or in two threads of which
 * the later one was the first to have its part accessible; and in a child of
 * fork() what was mapped afresh does not join what the parent had touched.  All
 * mappings are whole huge pages, so there is at most one for each below the
 * top: in a heap of up to 127 GiB fewer than a process may have.
 */
#ifndef ZKN_ASSEMBLE_H
#define ZKN_ASSEMBLE_H

#include "tiling.h"

/* The most huge pages that lie where they were moved to: even with two mappings
 * for each, far below vm.max_map_count, 65 530. */
#define MOVES_MOST 4096

/* Whether pages can be moved at all.  Needs heap.lock. */
HIDDEN bool assemble_able(void);

/* Move pages from free runs under the ZERO huge pages of REGION, which is the
 * caller's, as far as there are any: within the budget too, since a move
 * costs less than a fault.  Returns the pages moved.  Called and returns with
 * heap.lock, which it drops around each system call. */
HIDDEN uint32_t assemble(struct region *region);

/* Move PAGES pages, whole huge pages of the caller's, from page FROM to TO,
 * also the caller's.  Returns how many were moved, from the first on; what
 * they leave reads as zero.  Called and returns with heap.lock, which it drops
 * around each system call. */
HIDDEN uint32_t assemble_move(uint32_t from, uint32_t to, uint32_t pages);

/* Whether a move ended in [page, page + pages); forget it. */
HIDDEN bool assembled(uint32_t page, uint32_t pages);
HIDDEN void assemble_forget(uint32_t page, uint32_t pages);

#endif /* ZKN_ASSEMBLE_H */

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * spread.h - large zeroed memory, cleared by the threads that use it.
 *
 * A used region is cleared before it is zeroed memory again, by the one thread
 * that asked for it.  Of a prover with many threads the others wait meanwhile:
 * Plonky3 on 16 CPUs has 470 MB a proof cleared so, a tenth of its time.  Given
 * back instead, the pages are cleared by the kernel, each in the thread that
 * touches it first; and as huge pages that costs little besides (16 CPUs, 2^15
 * rows, 18 warm proofs: 0.516 s with memset(), 0.459 s so, the same CPU time).
 *
 * It does so where
 *   - the request is large, and the process has CPUs enough (ZK_NALLOC_SPREAD);
 *   - huge pages are to be had: the first one is given back and touched, and
 *     must have come whole;
 *   - that took hardly longer than clearing as much, which is measured too;
 *   - the thread has not just touched all of such memory by itself, by the page
 *     faults that it had until its next request.  Then nothing was gained, and
 *     some of its time lost: pages are cleared a little faster in one go.
 * Where one of these fails, all is cleared as ever, and the next requests are
 * cleared without a trial, twice as many each time.
 *
 * Locks: none.  The numbers are atomic; two threads may both make a trial.
 */
#ifndef ZKN_SPREAD_H
#define ZKN_SPREAD_H

#include "base.h"

/* Smaller requests are cleared at once, in less time than threads take to
 * start. */
#define SPREAD_LEAST (8 * MIB)

/* Make the SIZE bytes from START on, SPREAD_LEAST at least, all in one HELD
 * region, read as zero without clearing them.  Returns whether they do; if not,
 * a part of them may have changed. */
HIDDEN bool spread_clear(char *start, size_t size);

/* SIZE bytes were cleared by memset() in NS nanoseconds. */
HIDDEN void spread_cost(uint64_t ns, size_t size);

#endif /* ZKN_SPREAD_H */

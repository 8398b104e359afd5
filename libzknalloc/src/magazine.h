/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * magazine.h - a few freed regions for each CPU, by their number of pages:
 * the hit path.
 *
 * A prover frees and asks for the same size again and again in its inner
 * loops.  Such a region goes to the magazine of the CPU that runs the thread,
 * and the next request for as many pages there takes it back: no lock that
 * CPUs share, no system call, no search.  By CPU rather than by thread, since
 * a thread pool that ended then leaves nothing behind.
 *
 * What a magazine holds the heap cannot coalesce, and fragmentation is what
 * costs memory, so a magazine is small and takes only sizes that repeat:
 * each of its slots remembers the last size freed that maps to it, and a
 * region is held where its size is that one; and every few requests that the
 * heap has to serve, slots that saw no hit meanwhile are emptied.  Sizes match
 * exactly; rounding to classes costs more memory than it gains hits (README.md
 * has figures).
 *
 * Locks: each shard has a flag that its users try once.  Who finds it taken
 * (its holder was pre-empted, or empties it from another CPU) goes to the
 * heap instead, so nobody ever waits for a shard.  A shard's flag is never
 * held together with heap.lock, except around fork().
 */
#ifndef ZKN_MAGAZINE_H
#define ZKN_MAGAZINE_H

#include "heap.h"
#include "stats.h"

/* Set the bound on the bytes that one CPU's magazine may hold. */
HIDDEN void magazine_open(size_t bytes);

/* Whether regions of PAGES pages go through magazines. */
HIDDEN bool magazine_fits(uint32_t pages);

/* A HELD region of PAGES pages, counted as a hit for a request of SIZE bytes;
 * or NULL. */
HIDDEN struct region *magazine_take(uint32_t pages, size_t size);

/* Keep the HELD region, for which magazine_fits().  Returns a chain of regions
 * that must go to the heap: none, what made way, or REGION itself. */
HIDDEN struct region *magazine_put(struct region *region);

/* To be called for each request that goes to the heap: now and then returns a
 * chain for the heap, of what this CPU's magazine holds and nobody took. */
HIDDEN struct region *magazine_tick(void);

/* Empty all magazines that are not in use; returns a chain for the heap. */
HIDDEN struct region *magazine_drain(void);

/* Around fork(). */
HIDDEN void magazine_fork_prepare(void);
HIDDEN void magazine_fork_done(void);

#endif /* ZKN_MAGAZINE_H */

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * memory.h - the operations that patterns are written against.
 *
 * On an allocator they are the C library's functions, or, in the Rust programs
 * (BENCH_SIZED), the global allocator's, which is told every size and
 * alignment.  On the limit they move a cursor through the lane's resident
 * memory; giving back the latest slice moves it back, and lane_reset() gives
 * back all.  The choice is one branch that always goes the same way.
 *
 * A failed allocation ends the program: a benchmark of failure is none.
 */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef BENCH_SIZED
void *bench_alloc(size_t size, size_t alignment);
void *bench_alloc_zeroed(size_t size);
void *bench_realloc(void *p, size_t old_size, size_t alignment,
                    size_t new_size);
void bench_free(void *p, size_t size, size_t alignment);
#endif

/* What malloc() guarantees. */
#define PLAIN ((size_t)16)

static inline void *require(void *p)
{
    if (__builtin_expect(p == NULL, 0)) {
        harness_die("out of memory", ENOMEM);
    }
    return launder(p);
}

/* The room that a slice of SIZE bytes takes on the limit.  Large slices take
 * whole pages, so that visiting each page costs what it costs elsewhere, and
 * from 2 MiB on whole huge pages: that is how they are visited fastest. */
static inline size_t slice_room(size_t size)
{
    size_t step = size < 64 * KIB ? 64 : size < HUGE_PAGE ? PAGE : HUGE_PAGE;

    return (size + step - 1) & ~(step - 1);
}

static inline void *slice(struct lane *lane, size_t size)
{
    char *p = lane->resident_next;

    if (__builtin_expect(slice_room(size) > (size_t)(lane->resident_end - p),
                         0)) {
        harness_die("a pattern asks for more than its limit has", ENOMEM);
    }
    lane->resident_next = p + slice_room(size);
    return launder(p);
}

/* Forget every slice that the lane handed out.  Nothing on an allocator. */
static inline void lane_reset(struct lane *lane)
{
    lane->resident_next = lane->resident;
}

static inline void *take_aligned(struct lane *lane, size_t size,
                                 size_t alignment)
{
    if (lane->resident != NULL) {
        return slice(lane, size);
    }
#ifdef BENCH_SIZED
    return require(bench_alloc(size, alignment));
#else
    void *p = NULL;

    if (alignment <= PLAIN) {
        return require(malloc(size));
    }
    if (posix_memalign(&p, alignment, size) != 0) {
        p = NULL;
    }
    return require(p);
#endif
}

static inline void *take(struct lane *lane, size_t size)
{
    return take_aligned(lane, size, PLAIN);
}

/* Zeroed memory.  On the limit it is not: clearing is an allocator's work. */
static inline void *take_zeroed(struct lane *lane, size_t size)
{
    if (lane->resident != NULL) {
        return slice(lane, size);
    }
#ifdef BENCH_SIZED
    return require(bench_alloc_zeroed(size));
#else
    return require(calloc(1, size));
#endif
}

static inline void give_aligned(struct lane *lane, void *p, size_t size,
                                size_t alignment)
{
    p = launder(p);
    if (lane->resident != NULL) {
        if ((char *)p + slice_room(size) == lane->resident_next) {
            lane->resident_next = p;
        }
        return;
    }
#ifdef BENCH_SIZED
    bench_free(p, size, alignment);
#else
    (void)alignment;
    free(p);
#endif
}

static inline void give(struct lane *lane, void *p, size_t size)
{
    give_aligned(lane, p, size, PLAIN);
}

/* On the limit only the latest slice can grow, and stays where it is. */
static inline void *resize(struct lane *lane, void *p, size_t old_size,
                           size_t new_size)
{
    p = launder(p);
    if (lane->resident != NULL) {
        give(lane, p, old_size);
        return slice(lane, new_size);
    }
#ifdef BENCH_SIZED
    return require(bench_realloc(p, old_size, PLAIN, new_size));
#else
    return require(realloc(p, new_size));
#endif
}

/* Where in page number PAGE_NUMBER a pattern writes, in lines.
 *
 * Not the same line of every page: those would all share one set of the L1
 * cache, and the pattern would measure how blocks are aligned.  A prover writes
 * all of a page.  A walk that takes another line in each page spreads as
 * evenly, over the sets of the L2 cache too (any 1 024 pages in a row use 1 024
 * of them). */
static inline size_t page_line(size_t page_number)
{
    return (page_number + page_number / 16) % 64;
}

/* Write one byte of each page of the SIZE bytes at P, and the last byte. */
static inline void touch(void *p, size_t size, unsigned char value)
{
    volatile unsigned char *byte = p;

    for (size_t page = 0; page * PAGE < size; page++) {
        size_t at = page * PAGE + page_line(page) * 64;

        if (at < size) {
            byte[at] = value;
        }
    }
    byte[size - 1] = value;
}

#endif

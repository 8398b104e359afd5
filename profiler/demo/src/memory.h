/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * memory.h - malloc and calloc that do not fail, and the matrix.
 *
 * This prover allocates as provers do, because that is what it demonstrates:
 * each phase of each proof takes fresh buffers from malloc and frees them in
 * bulk; no buffer is kept from one proof to the next.  A matrix is one block:
 * a header, then rows * width elements, so its size is never a power of two.
 */
#ifndef DEMO_MEMORY_H
#define DEMO_MEMORY_H

#include <stdio.h>
#include <stdlib.h>

#include "field.h"

static inline void *memory_check(void *block, size_t size)
{
    if (block == NULL) {
        fprintf(stderr, "out of memory: %zu bytes; try fewer --log-rows\n",
                size);
        exit(1);
    }
    return block;
}

/* COUNT * SIZE bytes; callers keep the product far below SIZE_MAX. */
static inline void *memory_alloc(size_t count, size_t size)
{
    return memory_check(malloc(count * size), count * size);
}

static inline void *memory_zeroed(size_t count, size_t size)
{
    return memory_check(calloc(count, size), count * size);
}

/* Row-major: element (r, c) is data[r * width + c]. */
struct matrix {
    size_t rows, width;
    fe data[];
};

static inline struct matrix *matrix_new(size_t rows, size_t width)
{
    size_t size = sizeof(struct matrix) + rows * width * sizeof(fe);
    struct matrix *m = memory_alloc(1, size);
    m->rows = rows;
    m->width = width;
    return m;
}

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * merkle.h - commit to 2^k rows of bytes by one digest, open single rows.
 */
#ifndef DEMO_MERKLE_H
#define DEMO_MERKLE_H

#include <stdbool.h>

#include "hash.h"

/* A complete binary tree in one block: node 1 is the root, node i has the
 * children 2 i and 2 i + 1, and the leaves are nodes leaves .. 2 leaves - 1. */
struct merkle {
    size_t leaves;
    digest nodes[];
};

/* Commit to LEAVES rows, a power of two, of ROW_BYTES each. */
struct merkle *merkle_new(const void *rows, size_t leaves, size_t row_bytes,
                          unsigned threads);

static inline digest merkle_root(const struct merkle *tree)
{
    return tree->nodes[1];
}

/* Write the siblings from leaf INDEX up to the root: log2(leaves) digests. */
void merkle_open(const struct merkle *tree, size_t index, uint8_t *path);

/* Whether ROW is row INDEX of 2^LOG_LEAVES rows under ROOT. */
bool merkle_check(const uint8_t *root, unsigned log_leaves, size_t index,
                  const void *row, size_t row_bytes, const uint8_t *path);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * merkle.c - see merkle.h.
 */
#include "merkle.h"

#include <string.h>

#include "memory.h"
#include "parallel.h"

static const char leaf_hash[] = "zkdLeaf.", node_hash[] = "zkdNode.";

struct job {
    struct merkle *tree;
    const uint8_t *rows;
    size_t row_bytes;
    size_t level; /* first node of the level being hashed */
};

static void leaf_range(void *context, size_t begin, size_t end)
{
    struct job *job = context;
    hash_rows(leaf_hash, job->rows + begin * job->row_bytes, job->row_bytes,
              end - begin, job->tree->nodes + job->tree->leaves + begin);
}

/* The two children of a node lie side by side: they are its row. */
static void node_range(void *context, size_t begin, size_t end)
{
    struct job *job = context;
    digest *nodes = job->tree->nodes;
    size_t first = job->level + begin;
    hash_rows(node_hash, nodes + 2 * first, 2 * sizeof(digest), end - begin,
              nodes + first);
}

struct merkle *merkle_new(const void *rows, size_t leaves, size_t row_bytes,
                          unsigned threads)
{
    struct merkle *tree =
        memory_alloc(1, sizeof(struct merkle) + 2 * leaves * sizeof(digest));
    tree->leaves = leaves;
    struct job job = {tree, rows, row_bytes, 0};
    parallel_for(threads, leaves, leaf_range, &job);
    for (job.level = leaves / 2; job.level >= 1; job.level /= 2)
        /* Below a thousand nodes, a thread costs more than it does. */
        parallel_for(job.level < 1024 ? 1 : threads, job.level, node_range,
                     &job);
    return tree;
}

void merkle_open(const struct merkle *tree, size_t index, uint8_t *path)
{
    for (size_t i = tree->leaves + index; i > 1; i /= 2) {
        memcpy(path, tree->nodes[i ^ 1].bytes, sizeof(digest));
        path += sizeof(digest);
    }
}

bool merkle_check(const uint8_t *root, unsigned log_leaves, size_t index,
                  const void *row, size_t row_bytes, const uint8_t *path)
{
    digest node = hash(leaf_hash, row, row_bytes);
    for (unsigned level = 0; level < log_leaves; level++, index /= 2) {
        digest pair[2];
        pair[index % 2] = node;
        memcpy(pair[1 - index % 2].bytes, path + level * sizeof(digest),
               sizeof(digest));
        node = hash(node_hash, pair, sizeof pair);
    }
    return memcmp(node.bytes, root, sizeof node.bytes) == 0;
}

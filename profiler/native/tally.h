/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * tally.h - counts of samples, kept small however long sampling lasts.
 *
 * Cells (thread, time slice, kind, overlays) are taken out by the caller from
 * time to time, so their table stays small.  Stacks are counted by (thread,
 * kind, innermost frame); frames form a tree in which a stack is the path from
 * a node to its root, so a million samples of a thousand stacks cost a few
 * thousand nodes.
 */
#ifndef ZKPROF_TALLY_H
#define ZKPROF_TALLY_H

#include "zkprof_native.h"

#include <stdbool.h>

/* A hash table from pairs of numbers to a number that is never 0. */
struct pair_slot {
    uint64_t a, b, value;
};

struct pair_map {
    struct pair_slot *slots;
    size_t n_slots; /* a power of two, or 0 */
    size_t used;
};

/* The value of (A, B), 0 where it is new: the caller then sets it, at once.
 * NULL where there is no memory. */
uint64_t *pair_map_at(struct pair_map *map, uint64_t a, uint64_t b);
/* As above without adding: NULL where (A, B) is absent. */
uint64_t *pair_map_find(const struct pair_map *map, uint64_t a, uint64_t b);
void pair_map_clear(struct pair_map *map);
void pair_map_free(struct pair_map *map);

struct tally {
    struct pair_map cells;  /* (tid, bin), (kind, overlays) -> count */
    struct pair_map stacks; /* (tid, kind), node -> count */
    struct pair_map frames; /* ip, (module, parent) -> node */
    zkp_node_t *nodes;
    size_t n_nodes, cap_nodes;
    uint32_t last_node; /* of the sample counted last */
};

struct unwound;

/* Count a sample.  Returns false where memory ran out and it is lost. */
bool tally_add(struct tally *t, int32_t tid, uint32_t bin, uint32_t kind,
               uint32_t overlays, const struct unwound *stack);
void tally_free(struct tally *t);

#endif /* ZKPROF_TALLY_H */

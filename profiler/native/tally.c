/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * tally.c - counts of samples: one kind of hash table, used three times.
 *
 * Open addressing with linear probing; a slot is empty while its value is 0.
 * Nothing is ever deleted, only a whole table cleared, so probing needs no
 * tombstones.
 */
#include "tally.h"
#include "unwind.h"

#include <stdlib.h>
#include <string.h>

/* Frames beyond this many (24 MiB) are not kept; samples still are.  Deep
 * recursion or broken frame pointers could otherwise grow without bound. */
#define MAX_NODES ((size_t)1 << 20)

static size_t slot_of(const struct pair_map *map, uint64_t a, uint64_t b)
{
    /* Multiply and fold: the high half of a product depends on all bits. */
    uint64_t h =
        (a ^ (b * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xd6e8feb86659fd93);
    return (size_t)(h ^ (h >> 32)) & (map->n_slots - 1);
}

static struct pair_slot *probe(const struct pair_map *map, uint64_t a,
                               uint64_t b)
{
    size_t i = slot_of(map, a, b);
    while (map->slots[i].value &&
           (map->slots[i].a != a || map->slots[i].b != b))
        i = (i + 1) & (map->n_slots - 1);
    return &map->slots[i];
}

/* Double the table; on failure it stays as it was. */
static bool grow(struct pair_map *map)
{
    struct pair_map bigger = {0};
    bigger.n_slots = map->n_slots ? 2 * map->n_slots : 256;
    bigger.used = map->used;
    bigger.slots = calloc(bigger.n_slots, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < map->n_slots; i++) {
        struct pair_slot s = map->slots[i];
        if (s.value)
            *probe(&bigger, s.a, s.b) = s;
    }
    free(map->slots);
    *map = bigger;
    return true;
}

uint64_t *pair_map_find(const struct pair_map *map, uint64_t a, uint64_t b)
{
    struct pair_slot *s = map->n_slots ? probe(map, a, b) : NULL;
    return s && s->value ? &s->value : NULL;
}

uint64_t *pair_map_at(struct pair_map *map, uint64_t a, uint64_t b)
{
    uint64_t *found = pair_map_find(map, a, b);
    if (found)
        return found;
    if (2 * (map->used + 1) > map->n_slots && !grow(map))
        return NULL;
    struct pair_slot *s = probe(map, a, b);
    s->a = a;
    s->b = b;
    map->used++;
    return &s->value;
}

void pair_map_clear(struct pair_map *map)
{
    if (map->used)
        memset(map->slots, 0, map->n_slots * sizeof *map->slots);
    map->used = 0;
}

void pair_map_free(struct pair_map *map)
{
    free(map->slots);
    *map = (struct pair_map){0};
}

static bool add_one(struct pair_map *map, uint64_t a, uint64_t b)
{
    uint64_t *count = pair_map_at(map, a, b);
    if (count)
        ++*count;
    return count != NULL;
}

static bool room_for_node(struct tally *t)
{
    if (t->n_nodes < t->cap_nodes)
        return true;
    size_t cap = t->cap_nodes ? 2 * t->cap_nodes : 1024;
    zkp_node_t *nodes = NULL;
    if (cap <= MAX_NODES)
        nodes = reallocarray(t->nodes, cap, sizeof *nodes);
    if (!nodes)
        return false;
    if (!t->n_nodes)
        nodes[t->n_nodes++] = (zkp_node_t){0}; /* index 0 means "none" */
    t->nodes = nodes;
    t->cap_nodes = cap;
    return true;
}

/* The node of a stack; of its outer part where there is no room for more. */
static uint32_t node_of(struct tally *t, const struct unwound *stack)
{
    uint32_t node = 0;
    for (size_t i = stack->n; i-- > 0;) {
        const struct frame *frame = &stack->frames[i];
        uint64_t under = (uint64_t)frame->module << 32 | node;
        uint64_t *known = pair_map_find(&t->frames, frame->ip, under);
        if (!known) {
            if (!room_for_node(t))
                return node;
            known = pair_map_at(&t->frames, frame->ip, under);
            if (!known)
                return node;
            *known = t->n_nodes;
            t->nodes[t->n_nodes++] =
                (zkp_node_t){frame->ip, node, frame->module};
        }
        node = (uint32_t)*known;
    }
    return node;
}

bool tally_add(struct tally *t, int32_t tid, uint32_t bin, uint32_t kind,
               uint32_t overlays, const struct unwound *stack)
{
    uint64_t thread = (uint64_t)(uint32_t)tid << 32;
    if (!add_one(&t->cells, thread | bin, (uint64_t)overlays << 32 | kind))
        return false;
    /* A stack that does not fit is forgone; the sample itself is counted. */
    t->last_node = node_of(t, stack);
    (void)add_one(&t->stacks, thread | kind, t->last_node);
    return true;
}

void tally_free(struct tally *t)
{
    pair_map_free(&t->cells);
    pair_map_free(&t->stacks);
    pair_map_free(&t->frames);
    free(t->nodes);
    *t = (struct tally){0};
}

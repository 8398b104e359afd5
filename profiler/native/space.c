/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * space.c - what is mapped where, in each process that is sampled.
 */
#include "space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct space *spaces_find(const struct spaces *s, int32_t pid)
{
    uint64_t *index = pair_map_find(&s->of_pid, (uint64_t)pid, 0);
    return index ? &s->spaces[*index - 1] : NULL;
}

struct space *spaces_at(struct spaces *s, int32_t pid)
{
    struct space *space = spaces_find(s, pid);
    if (space)
        return space;
    if (s->n_spaces == s->cap_spaces) {
        size_t cap = s->cap_spaces ? 2 * s->cap_spaces : 8;
        struct space *grown = reallocarray(s->spaces, cap, sizeof *grown);
        if (!grown)
            return NULL;
        s->spaces = grown;
        s->cap_spaces = cap;
    }
    uint64_t *index = pair_map_at(&s->of_pid, (uint64_t)pid, 0);
    if (!index)
        return NULL;
    s->spaces[s->n_spaces++] = (struct space){pid, true, NULL, 0, 0};
    *index = s->n_spaces;
    return &s->spaces[s->n_spaces - 1];
}

int spaces_set(struct spaces *s, int32_t pid, const zkp_map_t *maps, size_t n)
{
    struct space *space = spaces_at(s, pid);
    if (!space)
        return -ENOMEM;
    zkp_map_t *copy = calloc(n + 1, sizeof *copy);
    if (!copy)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        copy[i] = maps[i];
        if (maps[i].start >= maps[i].end ||
            maps[i].module >= s->n_modules + 1 ||
            (i && maps[i].start < maps[i - 1].end)) {
            free(copy);
            return -EINVAL;
        }
    }
    free(space->maps);
    space->maps = copy;
    space->n_maps = n;
    space->cap_maps = n + 1;
    space->stale = false;
    return 0;
}

void spaces_fork(struct spaces *s, int32_t pid, int32_t parent)
{
    /* An order that matters: adding the child may move the parent. */
    struct space *child = spaces_at(s, pid);
    const struct space *from = spaces_find(s, parent);
    if (child && !child->maps && from && from->maps &&
        spaces_set(s, pid, from->maps, from->n_maps) == 0)
        child->stale = from->stale;
}

int spaces_add_module(struct spaces *s, const zkp_cfi_t *cfi)
{
    if (s->n_modules + 1 >= s->cap_modules) {
        size_t cap = s->cap_modules ? 2 * s->cap_modules : 16;
        struct module *grown = reallocarray(s->modules, cap, sizeof *grown);
        if (!grown)
            return -ENOMEM;
        s->modules = grown;
        s->cap_modules = cap;
    }
    struct module m = {0};
    if (cfi->hdr_len && cfi->frames_len) {
        m.bytes = malloc(cfi->hdr_len + cfi->frames_len);
        if (!m.bytes)
            return -ENOMEM;
        memcpy(m.bytes, cfi->hdr, cfi->hdr_len);
        memcpy(m.bytes + cfi->hdr_len, cfi->frames, cfi->frames_len);
        m.cfi.hdr = (struct cfi_section){m.bytes, cfi->hdr_len, cfi->hdr_vaddr};
        m.cfi.frames = (struct cfi_section){m.bytes + cfi->hdr_len,
                                            cfi->frames_len, cfi->frames_vaddr};
    }
    s->modules[++s->n_modules] = m;
    return (int)s->n_modules;
}

void spaces_free(struct spaces *s)
{
    for (size_t i = 0; i < s->n_spaces; i++)
        free(s->spaces[i].maps);
    for (size_t i = 1; i <= s->n_modules; i++)
        free(s->modules[i].bytes);
    free(s->spaces);
    free(s->modules);
    pair_map_free(&s->of_pid);
    *s = (struct spaces){0};
}

const zkp_map_t *space_map(const struct space *space, uint64_t addr)
{
    size_t low = 0, high = space->n_maps;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (space->maps[mid].start <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low && addr < space->maps[low - 1].end ? &space->maps[low - 1]
                                                  : NULL;
}

void space_replace(struct space *space, const zkp_map_t *map)
{
    /* Splitting one mapping adds two at most. */
    if (map->start >= map->end || space->n_maps + 2 > space->cap_maps) {
        size_t cap = 2 * space->cap_maps + 8;
        zkp_map_t *grown = map->start < map->end
                               ? reallocarray(space->maps, cap, sizeof *grown)
                               : NULL;
        if (!grown) {
            space->stale = true;
            return;
        }
        space->maps = grown;
        space->cap_maps = cap;
    }
    zkp_map_t *maps = space->maps, pieces[3];
    size_t first = 0, n = space->n_maps, n_pieces = 0;
    while (first < n && maps[first].end <= map->start)
        first++;
    size_t last = first; /* [first, last) are those that it overlaps */
    while (last < n && maps[last].start < map->end)
        last++;
    if (first < last && maps[first].start < map->start) {
        pieces[n_pieces] = maps[first];
        pieces[n_pieces++].end = map->start;
    }
    pieces[n_pieces++] = *map;
    if (first < last && maps[last - 1].end > map->end) {
        pieces[n_pieces] = maps[last - 1];
        pieces[n_pieces++].start = map->end;
    }
    memmove(maps + first + n_pieces, maps + last, (n - last) * sizeof *maps);
    memcpy(maps + first, pieces, n_pieces * sizeof *pieces);
    space->n_maps = n - (last - first) + n_pieces;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * space.h - what is mapped where, in each process that is sampled.
 *
 * Python reads maps and files and hands over what is needed here: the file
 * mappings of each process, and call frame information of each file.  Here it
 * is noted when that has become old.  A child that is forked gets a copy of
 * its parent's mappings, as the kernel gave it.
 *
 * Invariants: the maps of a space are sorted and do not overlap; a space is
 * found by its process number; modules are numbered from 1 and stay.
 */
#ifndef ZKPROF_SPACE_H
#define ZKPROF_SPACE_H

#include "cfi.h"
#include "tally.h"

struct space {
    int32_t pid;
    bool stale; /* its maps are to be read (again) */
    zkp_map_t *maps;
    size_t n_maps, cap_maps;
};

struct module {
    uint8_t *bytes; /* both sections */
    struct cfi cfi;
};

struct spaces {
    struct space *spaces;
    size_t n_spaces, cap_spaces;
    struct pair_map of_pid; /* (pid, 0) -> 1 + index */
    struct module *modules; /* [0] is not used */
    size_t n_modules, cap_modules;
};

/* The space of PID, new and stale if need be; NULL without memory.  Valid
 * until the next call. */
struct space *spaces_at(struct spaces *s, int32_t pid);
struct space *spaces_find(const struct spaces *s, int32_t pid);
/* PID was forked by PARENT. */
void spaces_fork(struct spaces *s, int32_t pid, int32_t parent);
/* Returns the module's number or -errno. */
int spaces_add_module(struct spaces *s, const zkp_cfi_t *cfi);
int spaces_set(struct spaces *s, int32_t pid, const zkp_map_t *maps, size_t n);
void spaces_free(struct spaces *s);

/* Put MAP in place of whatever was mapped there.  Without memory, or where it
 * makes no sense, the space is stale. */
void space_replace(struct space *space, const zkp_map_t *map);

/* The mapping that ADDR lies in, or NULL. */
const zkp_map_t *space_map(const struct space *space, uint64_t addr);

#endif /* ZKPROF_SPACE_H */

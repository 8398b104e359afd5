/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * model.h - a reference model of the allocator, and actors that act on both.
 *
 * The model knows nothing of how the library works.  It keeps, for every page
 * of the heap's address space, who owns it, and for every block what its owner
 * wrote there.  From that follow the checks that no implementation detail can
 * fool:
 *
 *   - a page never has two owners, whatever threads do at the same time;
 *   - what was written stays, also across realloc and from thread to thread;
 *   - zeroed means zero; alignment and usable size are as promised.
 *
 * model_check() then compares the library's own books with the model's, and
 * is called while no actor acts: the tiling of the heap, live + cached =
 * committed, hits + misses = requests = frees + regions, the budget, and the
 * number of mappings.
 *
 * An actor is one thread's part: it owns blocks, and leaves some on a shelf
 * for others to free.  Its choices come from a function, so that a seed, or the
 * bytes of a fuzzer, make its life.
 */
#ifndef ZKN_TESTS_MODEL_H
#define ZKN_TESTS_MODEL_H

#include "testing.h"

#define MODEL_SLOTS 64

struct block {
    unsigned char *ptr; /* NULL: no block */
    size_t size;
    unsigned char fill;
    bool dense; /* every page was painted, not only both ends */
};

struct actor {
    /* A number below N. */
    size_t (*pick)(struct actor *actor, size_t n);
    uint64_t seed;                 /* for model_random() */
    const unsigned char *at, *end; /* for a fuzzer's source */
    uint32_t name;                 /* not 0, and no other actor's */
    bool fills;  /* every page of what was not asked for zeroed is painted */
    size_t most; /* bytes to hold at one time */
    size_t held;
    struct block slots[MODEL_SLOTS];
};

/* Set where something makes the kernel, or malloc, refuse: requests may then
 * fail with ENOMEM, and what cannot be given back may pass the budget. */
extern bool model_refusals;

/* To be called once, before the first actor. */
void model_open(void);

/* Counts PTR, if the heap has just given it to other than an actor. */
void *model_requested(void *ptr);

/* A source of choices: a generator seeded by actor->seed. */
size_t model_random(struct actor *actor, size_t n);

/* One operation, on the library and in the model. */
void actor_act(struct actor *actor);

/* Operations of others' choice.  ALIGN may be 0.  Return whether the request
 * was served; where it was refused, the block stays as it was. */
bool model_alloc(struct actor *actor, struct block *block, size_t size,
                 size_t align, bool zeroed);
bool model_resize(struct actor *actor, struct block *block, size_t size);
void model_free(struct actor *actor, struct block *block);

/* The block holds what its owner wrote. */
void model_check_block(const struct block *block);

/* Free all that the actor holds, or that lies on the shelf. */
void actor_leave(struct actor *actor);
void model_clear_shelf(void);

/* Compare books.  No actor acts meanwhile. */
void model_check(struct actor *const *actors, size_t count);

/* Nothing is held by anyone: all must have come back. */
void model_check_empty(void);

/* Resident bytes of the heap, as the kernel sees them.  The page of zeros
 * that reading maps does not count. */
size_t model_resident(void);

/* Mappings of this process inside the heap's address space. */
size_t model_mappings(void);

#endif /* ZKN_TESTS_MODEL_H */

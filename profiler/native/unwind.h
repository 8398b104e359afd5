/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * unwind.h - the user-mode call stack of one sample.
 */
#ifndef ZKPROF_UNWIND_H
#define ZKPROF_UNWIND_H

#include "space.h"

#define UNWIND_MAX 127

/* A function on the stack: where in it the CPU was, or the call is. */
struct frame {
    uint64_t ip;     /* an address of the file where MODULE is not 0 */
    uint32_t module; /* 0: in no known file */
};

struct unwound {
    struct frame frames[UNWIND_MAX]; /* innermost first */
    size_t n;
    bool complete; /* the last one has no caller */
    bool guessed;  /* some were found without call frame information */
    bool unknown;  /* some address was in no known mapping */
};

/* What a sample knows of its thread's stack. */
struct user_state {
    bool has_regs;
    uint64_t regs[CFI_REGS];
    struct stack_copy stack;
    const uint64_t *chain; /* the kernel's walk by frame pointers */
    size_t n_chain;
};

void unwind(const struct spaces *spaces, int32_t pid,
            const struct user_state *state, struct unwound *out);

#endif /* ZKPROF_UNWIND_H */

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * unwind.c - the user-mode call stack of one sample.
 *
 * The kernel walks user stacks by frame pointers.  That loses the caller of
 * every function without one: of memset, where most faults happen, and of
 * nearly everything in optimised code.  So each sample brings its registers
 * and a copy of the top of the stack, and the walk is done here:
 *
 *   1. by call frame information (cfi.c): exact, with or without frame
 *      pointers, for everything that a compiler has made;
 *   2. where a function has none (JIT code, Go, hand-written assembly), by its
 *      frame pointer if that points into the copy and to a return address
 *      into something executable.  A leaf that has set up no frame of its own
 *      has its return address on top of the stack: taken only when a call
 *      instruction lies before the place it returns to;
 *   3. beyond the copy, the kernel's walk goes on where this one stopped,
 *      provided that it passed the same place.
 *
 * A walk is complete where call frame information says that there is no
 * caller, where a frame pointer of 0 does (the ABI's mark for the outermost
 * frame, which Go and musl set), and where the kernel's walk ends in the C
 * library, in which programs and threads start.
 */
#include "unwind.h"

#include <string.h>

/* What the code that CPython's perf support makes for each Python function
 * puts on the stack before it calls the interpreter: padding. */
#define TRAMPOLINE_BYTES 8

/* What a walk may take of the programs in call frame information, in bytes:
 * some milliseconds at the worst.  rustc's longest program has 33 KiB, most
 * have less than 100 bytes; a hostile file may hold 256 MiB for each step. */
#define WALK_BUDGET ((size_t)512 << 10)

static bool executable(const struct space *space, uint64_t addr)
{
    const zkp_map_t *map = space_map(space, addr);
    return map && map->flags & ZKP_MAP_EXEC;
}

/* Whether the instruction before ADDR is a call: e8 with four bytes, or ff /2
 * in its lengths. */
static bool after_call(const struct space *space, uint64_t addr)
{
    uint8_t code[7];
    if (addr < sizeof code || !executable(space, addr - 1) ||
        zkp_target_read(space->pid, addr - sizeof code, code, sizeof code))
        return false;
    if (code[2] == 0xe8)
        return true;
    for (size_t len = 2; len <= 7; len++)
        if (code[7 - len] == 0xff && (code[8 - len] & 0x38) == 0x10)
            return true;
    return false;
}

static bool peek(const struct stack_copy *stack, uint64_t addr, uint64_t *value)
{
    uint64_t offset = addr - stack->addr;
    if (addr % 8 || stack->size < 8 || offset > stack->size - 8)
        return false;
    memcpy(value, stack->data + offset, 8);
    return true;
}

/* By the frame pointer: it points to the caller's, saved below the return
 * address. */
static bool step_frame_pointer(const struct space *space,
                               const struct stack_copy *stack,
                               uint64_t regs[CFI_REGS])
{
    uint64_t saved, back, at = regs[CFI_RBP];
    if (at < regs[CFI_RSP] || !peek(stack, at, &saved) ||
        !peek(stack, at + 8, &back) || !executable(space, back - 1))
        return false;
    regs[CFI_RBP] = saved;
    regs[CFI_RSP] = at + 16;
    regs[CFI_RIP] = back;
    return true;
}

/* A function that has not touched the stack since it was called, or a
 * trampoline that has put OFFSET bytes on it. */
static bool step_top_of_stack(const struct space *space,
                              const struct stack_copy *stack, uint64_t offset,
                              uint64_t regs[CFI_REGS])
{
    uint64_t back;
    if (!peek(stack, regs[CFI_RSP] + offset, &back) || !after_call(space, back))
        return false;
    regs[CFI_RSP] += offset + 8;
    regs[CFI_RIP] = back;
    return true;
}

static bool step_without_cfi(const struct space *space,
                             const struct stack_copy *stack, bool leaf,
                             uint64_t regs[CFI_REGS])
{
    /* The frame pointer of this very function, or of some caller?  Only the
     * first is sure: it then points to the top of the stack. */
    if (regs[CFI_RBP] == regs[CFI_RSP])
        return step_frame_pointer(space, stack, regs);
    return (leaf && step_top_of_stack(space, stack, 0, regs)) ||
           (!leaf && step_top_of_stack(space, stack, TRAMPOLINE_BYTES, regs)) ||
           step_frame_pointer(space, stack, regs);
}

static void add(struct unwound *out, const zkp_map_t *map, uint64_t ip)
{
    out->unknown |= !map;
    out->frames[out->n++] = map && map->module
                                ? (struct frame){ip - map->bias, map->module}
                                : (struct frame){ip, 0};
}

static bool in_libc(const struct space *space, uint64_t addr)
{
    const zkp_map_t *map = space_map(space, addr);
    return map && map->flags & ZKP_MAP_LIBC;
}

/* Append what the kernel found further out than the last address of PASSED,
 * the N that this walk has passed.  The kernel may have missed some of them
 * but has passed none that this walk has not; which matters in recursion,
 * where one address comes again and again. */
static void join_chain(const struct space *space, const struct user_state *u,
                       const uint64_t *passed, size_t n, struct unwound *out)
{
    size_t at = 0;
    for (size_t i = 0; i + 1 < n && at < u->n_chain; i++)
        at += u->chain[at] == passed[i];
    if (!n || at >= u->n_chain || u->chain[at] != passed[n - 1])
        return;
    for (at++; at < u->n_chain && out->n < UNWIND_MAX; at++) {
        add(out, space_map(space, u->chain[at] - 1), u->chain[at] - 1);
        out->complete = in_libc(space, u->chain[at] - 1);
    }
}

static void chain_only(const struct space *space, const struct user_state *u,
                       struct unwound *out)
{
    for (size_t i = 0; i < u->n_chain && out->n < UNWIND_MAX; i++) {
        uint64_t ip = u->chain[i] - (i > 0);
        add(out, space_map(space, ip), ip);
    }
    out->complete = out->n > 1 && in_libc(space, u->chain[out->n - 1] - 1);
    out->guessed = true;
}

void unwind(const struct spaces *spaces, int32_t pid,
            const struct user_state *u, struct unwound *out)
{
    static const struct space nothing;
    const struct space *space = spaces_find(spaces, pid);
    if (!space)
        space = &nothing;
    out->n = 0;
    out->complete = out->guessed = out->unknown = false;
    if (!u->has_regs) {
        chain_only(space, u, out);
        return;
    }
    uint64_t regs[CFI_REGS], passed[UNWIND_MAX];
    memcpy(regs, u->regs, sizeof regs);
    size_t budget = WALK_BUDGET;
    bool interrupted = true; /* the CPU was at this address, no call is */
    while (out->n < UNWIND_MAX) {
        uint64_t ip = regs[CFI_RIP] - !interrupted;
        const zkp_map_t *map = space_map(space, ip);
        if (!regs[CFI_RIP] || (!map && !interrupted)) {
            out->complete = !regs[CFI_RIP];
            return;
        }
        passed[out->n] = regs[CFI_RIP];
        add(out, map, ip);
        enum cfi_result result = CFI_NONE;
        bool signal = false;
        if (map && map->module)
            result = cfi_step(&spaces->modules[map->module].cfi, ip - map->bias,
                              regs, &u->stack, &signal, &budget);
        if (result == CFI_OUTERMOST) {
            out->complete = true;
            return;
        }
        if (result == CFI_NONE) {
            out->guessed = true;
            bool marked = !interrupted && !regs[CFI_RBP];
            result = step_without_cfi(space, &u->stack, out->n == 1, regs)
                         ? CFI_STEPPED
                         : CFI_BEYOND;
            if (marked && result == CFI_BEYOND) {
                out->complete = true;
                return;
            }
        }
        if (result == CFI_BEYOND) {
            join_chain(space, u, passed, out->n, out);
            return;
        }
        interrupted = signal;
    }
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cfi.h - who called, by the call frame information of an ELF file (x86-64).
 */
#ifndef ZKPROF_CFI_H
#define ZKPROF_CFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Registers by their DWARF numbers; the return address counts as one. */
enum { CFI_RBP = 6, CFI_RSP = 7, CFI_RIP = 16, CFI_REGS = 17 };

/* A section of an ELF file and the address that the file gives it. */
struct cfi_section {
    const uint8_t *data;
    size_t len;
    uint64_t vaddr;
};

/* .eh_frame_hdr is an index, sorted by address, into .eh_frame. */
struct cfi {
    struct cfi_section hdr, frames;
};

/* What is known of the target's stack: SIZE bytes that lay at ADDR. */
struct stack_copy {
    const uint8_t *data;
    size_t size;
    uint64_t addr;
};

enum cfi_result {
    CFI_STEPPED,   /* regs are the caller's now */
    CFI_OUTERMOST, /* there is no caller */
    CFI_NONE,      /* nothing (usable) is said about this address */
    CFI_BEYOND     /* the answer lies beyond the copied stack */
};

/* Go from REGS, in the function that PC (an address of the file, not of the
 * process) lies in, to its caller's.  *SIGNAL tells whether that function is
 * a signal's trampoline: its "caller" was interrupted and has not called.
 * *BUDGET is how many bytes of programs may still be run; one that would take
 * more says nothing. */
enum cfi_result cfi_step(const struct cfi *c, uint64_t pc,
                         uint64_t regs[CFI_REGS],
                         const struct stack_copy *stack, bool *signal,
                         size_t *budget);

#endif /* ZKPROF_CFI_H */

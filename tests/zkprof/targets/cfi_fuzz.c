/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cfi_fuzz.c - call frame information with random bytes in it.
 *
 *   cfi_fuzz ROUNDS
 *
 * Takes its own .eh_frame_hdr and .eh_frame, as the loader has mapped them,
 * copies each to a block of exactly its size, damages the copies, and walks
 * from random addresses with random registers.  Compiled with AddressSanitizer
 * and UBSan, it ends on the first access out of bounds; a walk that does not
 * end is stopped by a bound that no true walk reaches.  Prints how many steps
 * came to what, so that a test can tell that they got anywhere.
 */
#include "cfi.c" /* NOLINT: this is the code under test */

#include <link.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state = 88172645463325252u;

static uint64_t random_u64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

struct found {
    const uint8_t *hdr;
    size_t hdr_len;
    uint64_t bias, text, text_len, end;
};

static int look(struct dl_phdr_info *info, size_t size, void *out)
{
    struct found *f = out;
    (void)size;
    f->bias = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_GNU_EH_FRAME) {
            f->hdr = (const uint8_t *)(info->dlpi_addr + p->p_vaddr);
            f->hdr_len = p->p_memsz;
        }
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
            f->text = p->p_vaddr;
            f->text_len = p->p_memsz;
        }
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uint64_t at = (uint64_t)f->hdr - info->dlpi_addr;
        if (p->p_type == PT_LOAD && p->p_vaddr <= at &&
            at < p->p_vaddr + p->p_memsz)
            f->end = p->p_vaddr + p->p_memsz;
    }
    return 1; /* the first is the program itself */
}

static uint8_t *damaged(const uint8_t *data, size_t len, unsigned changes)
{
    uint8_t *copy = malloc(len);
    if (!copy)
        abort();
    memcpy(copy, data, len);
    for (unsigned i = 0; i < changes; i++)
        copy[random_u64() % len] = (uint8_t)random_u64();
    return copy;
}

int main(int argc, char **argv)
{
    struct found f = {0};
    dl_iterate_phdr(look, &f);
    if (!f.hdr || !f.end)
        return 2;
    /* .eh_frame follows its index; what comes after it is random enough. */
    uint64_t hdr_at = (uint64_t)f.hdr - f.bias;
    uint64_t frames_at = (hdr_at + f.hdr_len + 7) & ~UINT64_C(7);
    size_t frames_len = f.end - frames_at;
    unsigned long counts[4] = {0};
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    for (int round = 0; round < rounds; round++) {
        unsigned changes = round % 4 ? 1u << (round % 12) : 0;
        uint8_t *hdr = damaged(f.hdr, f.hdr_len, changes / 8);
        uint8_t *frames =
            damaged((const uint8_t *)(f.bias + frames_at), frames_len, changes);
        struct cfi cfi = {{hdr, f.hdr_len, hdr_at},
                          {frames, frames_len, frames_at}};
        uint64_t words[64], regs[CFI_REGS];
        for (size_t i = 0; i < 64; i++)
            words[i] = random_u64();
        struct stack_copy stack = {(const uint8_t *)words, sizeof words,
                                   random_u64() & ~UINT64_C(15)};
        for (int walk = 0; walk < 50; walk++) {
            for (size_t i = 0; i < CFI_REGS; i++)
                regs[i] = stack.addr + random_u64() % sizeof words;
            for (int depth = 0; depth < 8; depth++) {
                bool signal;
                uint64_t pc = f.text + random_u64() % f.text_len;
                enum cfi_result result =
                    cfi_step(&cfi, pc, regs, &stack, &signal);
                counts[result]++;
                if (result != CFI_STEPPED)
                    break;
            }
        }
        free(hdr);
        free(frames);
    }
    printf("stepped %lu outermost %lu none %lu beyond %lu\n",
           counts[CFI_STEPPED], counts[CFI_OUTERMOST], counts[CFI_NONE],
           counts[CFI_BEYOND]);
    return 0;
}

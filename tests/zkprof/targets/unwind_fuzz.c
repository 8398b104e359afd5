/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * unwind_fuzz.c - walks of stacks of which every byte is a hostile target's:
 * call frame information, mappings, registers, stack and the kernel's chain.
 *
 *   unwind_fuzz ROUNDS       damage seeds, the same in each run, and walk
 *   unwind_fuzz write DIR    write the seeds into a folder
 *   unwind_fuzz long N       walk through a function whose program has N more
 *                            instructions, which do nothing
 *
 * Seeds are walks through single functions of this program and its libraries,
 * with their true call frame information.  Compiled with AddressSanitizer and
 * UBSan, the first access out of bounds ends it.  Prints how many walks came to
 * what, so that a test can tell that they got anywhere.  With libFuzzer, which
 * chooses better (for `memory` in place of `address,undefined`, too):
 *
 *   flags="-std=gnu11 -D_GNU_SOURCE -g -O1 -Iprofiler/native"
 *   native=$(echo profiler/native/{cfi,space,tally,unwind}.c)
 *   fuzz=tests/zkprof/targets/unwind_fuzz.c
 *   mkdir -p build/fuzz/seeds build/fuzz/corpus
 *   cc $flags $fuzz $native -o build/fuzz/seed
 *   build/fuzz/seed write build/fuzz/seeds
 *   clang-14 $flags -DLIBFUZZER -fsanitize=fuzzer,address,undefined \
 *       -fno-sanitize-recover=all $fuzz $native -o build/fuzz/unwind
 *   build/fuzz/unwind -max_total_time=1200 -max_len=8192 \
 *       build/fuzz/corpus build/fuzz/seeds
 */
#include "unwind.h"

#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MAPS  8
#define MAX_CHAIN 24
#define PID       1

/* What an input begins with.  After it: the index, the frames, the stack. */
struct input {
    uint64_t hdr_vaddr, frames_vaddr, stack_addr;
    uint64_t regs[CFI_REGS];
    uint64_t chain[MAX_CHAIN];
    zkp_map_t maps[MAX_MAPS];
    zkp_map_t changed; /* mapped between two walks */
    uint16_t hdr_len, frames_len, stack_len;
    uint8_t n_maps, n_chain, has_regs;
    uint8_t code[64]; /* what can be read of the target's memory */
};

static const uint8_t *code;

static unsigned long walks, complete, guessed, unknown, exact;

/* Not target.c's: there is no target. */
int zkp_target_read(int32_t pid, uint64_t addr, void *buf, size_t len)
{
    (void)pid;
    if (addr % 16 == 15 || len > 32)
        return -EFAULT;
    memcpy(buf, code + addr % 32, len);
    return 0;
}

static void require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

/* A copy of exactly LEN bytes; what the input lacks is zero. */
static uint8_t *part(const uint8_t **at, const uint8_t *end, size_t len)
{
    size_t there = (size_t)(end - *at) < len ? (size_t)(end - *at) : len;
    uint8_t *copy = calloc(len ? len : 1, 1);
    require(copy, "memory");
    if (there)
        memcpy(copy, *at, there);
    *at += there;
    return copy;
}

static void walk(const struct spaces *spaces, const struct user_state *user,
                 uint32_t modules)
{
    struct unwound out, again;
    memset(&out, 0xa5, sizeof out);
    memset(&again, 0x5a, sizeof again);
    unwind(spaces, PID, user, &out);
    unwind(spaces, PID, user, &again);
    require(out.n <= UNWIND_MAX, "the number of frames");
    require(out.n || !user->has_regs || !user->regs[CFI_RIP],
            "the place of the interruption is a frame");
    require(out.n == again.n && out.complete == again.complete &&
                out.guessed == again.guessed && out.unknown == again.unknown,
            "the same walk comes to the same");
    for (size_t i = 0; i < out.n; i++) {
        require(out.frames[i].module <= modules, "a module's number");
        require(out.frames[i].ip == again.frames[i].ip, "the same frames");
    }
    walks++;
    complete += out.complete;
    guessed += out.guessed;
    unknown += out.unknown;
    exact += out.n > 2 && !out.guessed;
}

static void check_sorted(const struct space *space)
{
    for (size_t i = 0; i < space->n_maps; i++)
        require(space->maps[i].start < space->maps[i].end &&
                    (!i || space->maps[i - 1].end <= space->maps[i].start),
                "mappings are sorted and do not overlap");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {0};
    memcpy(&in, data, size < sizeof in ? size : sizeof in);
    const uint8_t *at = data + (size < sizeof in ? size : sizeof in);
    const uint8_t *end = data + size;
    uint8_t *hdr = part(&at, end, in.hdr_len % 1024);
    uint8_t *frames = part(&at, end, in.frames_len % 4096);
    uint8_t *stack = part(&at, end, in.stack_len % 4096);
    struct spaces spaces = {0};
    zkp_cfi_t cfi = {
        hdr,          frames,         in.hdr_len % 1024, in.frames_len % 4096,
        in.hdr_vaddr, in.frames_vaddr};
    struct user_state user = {
        .has_regs = in.has_regs % 8 != 0,
        .stack = {stack, in.stack_len % 4096, in.stack_addr},
        .chain = in.chain,
        .n_chain = in.n_chain % (MAX_CHAIN + 1),
    };
    memcpy(user.regs, in.regs, sizeof user.regs);
    code = in.code;

    require(spaces_add_module(&spaces, &cfi) == 1, "the module is the first");
    int rc = spaces_set(&spaces, PID, in.maps, in.n_maps % (MAX_MAPS + 1));
    require(rc == 0 || rc == -EINVAL, "mappings are taken or refused");
    walk(&spaces, &user, 1);
    struct space *space = spaces_find(&spaces, PID);
    require(space, "the space is there");
    check_sorted(space);
    in.changed.module %= 2; /* zkprof's own word, not the target's */
    space_replace(space, &in.changed);
    check_sorted(space);
    walk(&spaces, &user, 1);

    spaces_free(&spaces);
    free(hdr);
    free(frames);
    free(stack);
    return 0;
}

#ifndef LIBFUZZER

#define MAX_SEEDS 400
#define SEED_SIZE (sizeof(struct input) + 4096)

struct seed {
    uint8_t bytes[SEED_SIZE];
    size_t len;
};

static struct seed seeds[MAX_SEEDS];
static size_t n_seeds;

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* A walk from the end of the function at START, LEN bytes long, whose entry
 * FDE belongs to CIE; every address on its stack is in that function or on the
 * stack.  The entry stays at its address, AT, since it speaks of START relative
 * to itself. */
static void add_seed(const uint8_t *cie, const uint8_t *fde, uint64_t at,
                     uint64_t start, uint64_t len)
{
    size_t cie_len = 4 + u32_at(cie), fde_len = 4 + u32_at(fde);
    if (n_seeds == MAX_SEEDS || cie_len + fde_len > 2048)
        return;
    const uint64_t bias = UINT64_C(0x7f0000000000), stack = bias << 1;
    struct input in = {
        .hdr_vaddr = at - 0x10000,
        .frames_vaddr = at - cie_len,
        .stack_addr = stack,
        .chain = {bias + start + len - 1, bias + start + len},
        .maps = {{bias + start, bias + start + len, bias, 1, ZKP_MAP_EXEC},
                 {stack, stack + 4096, 0, 0, ZKP_MAP_EXEC | ZKP_MAP_LIBC}},
        .changed = {stack + 2048, stack + 8192, 0, 0, ZKP_MAP_FILE},
        .hdr_len = 20,
        .frames_len = (uint16_t)(cie_len + fde_len),
        .stack_len = 1024,
        .n_maps = 2,
        .n_chain = 2,
        .has_regs = 1,
        .code = {0xe8, 0xff, 0x10, 0xe8},
    };
    for (size_t i = 0; i < CFI_REGS; i++)
        in.regs[i] = stack + 128 * (i % 4);
    in.regs[CFI_RSP] = stack;
    in.regs[CFI_RIP] = bias + start + len - 1;

    struct seed *seed = &seeds[n_seeds++];
    uint8_t *to = seed->bytes;
    memcpy(to, &in, sizeof in);
    to += sizeof in;
    const uint32_t head[] = {0x3b031b01, 0, 1, (uint32_t)(start - in.hdr_vaddr),
                             0x10000};
    memcpy(to, head, sizeof head);
    to += sizeof head;
    memcpy(to, cie, cie_len);
    to += cie_len;
    uint32_t back = (uint32_t)cie_len + 4;
    memcpy(to, fde, fde_len);
    memcpy(to + 4, &back, sizeof back);
    to += fde_len;
    for (size_t i = 0; i < 128; i++) {
        /* Frame pointers lead from one to the next. */
        uint64_t word = i % 16 ? bias + start + len : stack + 8 * i + 128;
        memcpy(to, &word, sizeof word);
        to += sizeof word;
    }
    seed->len = (size_t)(to - seed->bytes);
}

/* The functions of one file: signal trampolines, those with expressions, and
 * some of the others. */
static int add_seeds(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    const uint8_t *hdr = NULL;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
            hdr =
                (const uint8_t *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    if (!hdr || u32_at(hdr) != 0x3b031b01)
        return 0;
    uint32_t n = u32_at(hdr + 8), plain = 0, special = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *pair = hdr + 12 + 8 * (size_t)i;
        const uint8_t *start = hdr + (int32_t)u32_at(pair);
        const uint8_t *fde = hdr + (int32_t)u32_at(pair + 4);
        const uint8_t *cie = fde + 4 - u32_at(fde + 4);
        bool signal = strchr((const char *)cie + 9, 'S') != NULL;
        bool expression = memchr(fde + 17, 0x0f, u32_at(fde) - 13) ||
                          memchr(fde + 17, 0x10, u32_at(fde) - 13);
        if (signal || (expression && special++ < 24) ||
            (i % (n / 24 + 1) == 0 && plain++ < 24))
            add_seed(cie, fde, (uint64_t)fde - info->dlpi_addr,
                     (uint64_t)start - info->dlpi_addr, u32_at(fde + 12));
    }
    return 0;
}

/* The entry's program begins behind its augmentation data, here of no bytes. */
#define FDE_HEAD 17

/* A seed's walk with N more instructions in its function's program; false where
 * its entry is of another form. */
static bool walk_longer(const struct seed *seed, size_t n, struct unwound *out)
{
    struct input in;
    memcpy(&in, seed->bytes, sizeof in);
    const uint8_t *hdr = seed->bytes + sizeof in;
    const uint8_t *frames = hdr + in.hdr_len, *stack = frames + in.frames_len;
    size_t fde = 4 + u32_at(frames), head = fde + FDE_HEAD;
    if (frames[head - 1])
        return false;
    uint8_t *longer = calloc(in.frames_len + n, 1);
    require(longer, "memory");
    memcpy(longer, frames, head);
    memcpy(longer + head + n, frames + head, in.frames_len - head);
    uint32_t len = u32_at(frames + fde) + (uint32_t)n;
    memcpy(longer + fde, &len, sizeof len);
    struct spaces spaces = {0};
    zkp_cfi_t cfi = {.hdr = hdr,
                     .frames = longer,
                     .hdr_len = in.hdr_len,
                     .frames_len = in.frames_len + n,
                     .hdr_vaddr = in.hdr_vaddr,
                     .frames_vaddr = in.frames_vaddr};
    struct user_state user = {.has_regs = true,
                              .stack = {stack, in.stack_len, in.stack_addr}};
    memcpy(user.regs, in.regs, sizeof user.regs);
    code = in.code;
    require(spaces_add_module(&spaces, &cfi) == 1 &&
                spaces_set(&spaces, PID, in.maps, in.n_maps) == 0,
            "the function is known");
    unwind(&spaces, PID, &user, out);
    spaces_free(&spaces);
    free(longer);
    return true;
}

static int walk_long(size_t n)
{
    for (size_t i = 0; i < n_seeds; i++) {
        struct unwound out;
        if (!walk_longer(&seeds[i], 0, &out) || out.n < 3 || out.guessed)
            continue;
        (void)walk_longer(&seeds[i], n, &out);
        printf("frames %zu guessed %d\n", out.n, out.guessed);
        return 0;
    }
    return 2;
}

static int write_seeds(const char *folder)
{
    for (size_t i = 0; i < n_seeds; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%zu", folder, i);
        FILE *f = fopen(path, "wb");
        require(f && fwrite(seeds[i].bytes, seeds[i].len, 1, f) == 1 &&
                    fclose(f) == 0,
                "seeds can be written");
    }
    return 0;
}

static uint64_t random_u64(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    dl_iterate_phdr(add_seeds, NULL);
    require(n_seeds > 0, "there are seeds");
    if (argc == 3 && strcmp(argv[1], "write") == 0)
        return write_seeds(argv[2]);
    if (argc == 3 && strcmp(argv[1], "long") == 0)
        return walk_long(strtoul(argv[2], NULL, 10));
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    for (unsigned long round = 0; round < rounds; round++) {
        struct seed seed = seeds[round % n_seeds];
        /* Half of all changes in what the walk reads first. */
        size_t head = sizeof(struct input) + 100;
        for (unsigned i = round % 4 ? 1u << random_u64() % 6 : 0; i > 0; i--)
            seed.bytes[random_u64() % (i % 2 ? seed.len : head)] =
                (uint8_t)random_u64();
        (void)LLVMFuzzerTestOneInput(seed.bytes, seed.len);
    }
    printf(
        "seeds %zu walks %lu complete %lu guessed %lu unknown %lu exact %lu\n",
        n_seeds, walks, complete, guessed, unknown, exact);
    return 0;
}

#endif

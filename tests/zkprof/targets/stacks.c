/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * stacks.c - programs whose call stacks are known: main() < prove() < ...
 *
 *   memset    commit() < fill() < memset(), where the faults are
 *   deep N    N calls of descend() between prove() and fill()
 *   aligned   fill() called by a function that realigns its stack
 *   jit       fill() called by code that is in no file
 *   leaf      arithmetic in a leaf function
 *
 * All but code of the jit mode may be compiled without frame pointers.
 */
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LEN   ((size_t)8 << 20)
#define APART __attribute__((noinline, noclone, noipa))

/* After a call, so that it is none at the end of its function: a jump. */
#define AFTER() __asm__ volatile("" ::: "memory")

static int depth;

APART void fill(char *p)
{
    memset(p, 1, LEN);
    AFTER();
}

APART void commit(void)
{
    char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    madvise(p, LEN, MADV_NOHUGEPAGE);
    fill(p);
    munmap(p, LEN);
    AFTER();
}

APART void descend(int n)
{
    volatile char room[256];
    room[0] = (char)n;
    if (n > 1)
        descend(n - 1);
    else
        commit();
    (void)room[0];
    AFTER();
}

APART void aligned(size_t n)
{
    alignas(128) volatile char room[128];
    volatile char *more = __builtin_alloca(n);
    room[0] = more[0] = 1;
    commit();
    (void)room[0];
    AFTER();
}

APART void jit(void)
{
    /* push rbp; mov rbp, rsp; call rdi; pop rbp; ret */
    static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5,
                                   0xff, 0xd7, 0x5d, 0xc3};
    static void (*call)(void (*)(void));
    if (!call) {
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            exit(1);
        memcpy(p, code, sizeof code);
        memcpy(&call, &p, sizeof call);
    }
    call(commit);
    AFTER();
}

APART void leaf(void)
{
    static volatile uint64_t x = 1;
    for (int i = 0; i < 10000000; i++)
        x = x * 6364136223846793005u + 1;
}

APART void prove(const char *mode)
{
    if (strcmp(mode, "memset") == 0)
        commit();
    else if (strcmp(mode, "deep") == 0)
        descend(depth);
    else if (strcmp(mode, "aligned") == 0)
        aligned((size_t)depth + 100);
    else if (strcmp(mode, "jit") == 0)
        jit();
    else if (strcmp(mode, "leaf") == 0)
        leaf();
    else
        exit(2);
    AFTER();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    depth = argc > 2 ? atoi(argv[2]) : 1;
    prove(mode); /* so that its code is mapped before anybody looks */
    puts("ready");
    fflush(stdout);
    for (;;)
        prove(mode);
}

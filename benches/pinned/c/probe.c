/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * probe.c - questions to the driver on which the design of the hooks rests.
 *
 * What a driver makes of registered ranges is documented in part only.  Does
 * registering make every page resident?  May one copy cross from one registered
 * range into the next, or out of one?  What does it say to memory that is not
 * accessible, and to memory that is registered already?  What does it cost by
 * the MiB?  Here each is asked of the driver that is there, so that a report
 * says what held where it was made.
 */
#include "probe.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "cuda.h"

#define MIB  ((size_t)1 << 20)
#define HALF (32 * MIB)
#define SIZE (2 * HALF)

static char *map(size_t size, int protection)
{
    void *start =
        mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        perror("pinned: mmap");
        exit(STATUS_FAILED);
    }
    return start;
}

static int enter(char *start, size_t size)
{
    return cuda.host_register(start, size, CUDA_MEMHOSTREGISTER_PORTABLE);
}

static void answer(const char *question, int error)
{
    printf("{\"probe\": \"%s\", \"answer\": \"%s\"}\n", question,
           error == CUDA_SUCCESS ? "yes" : cuda_error(error));
    fflush(stdout);
}

/* The memory from START on, of which FIRST and SECOND bytes are registered on
 * their own, and from the middle of which is copied. */
static void across(const char *question, size_t first, size_t second,
                   cuda_address device)
{
    char *start = map(SIZE, PROT_READ | PROT_WRITE);
    memset(start, 1, SIZE);
    int error = first > 0 ? enter(start, first) : CUDA_SUCCESS;
    cuda_must(error, "cuMemHostRegister");
    error = second > 0 ? enter(start + HALF, second) : CUDA_SUCCESS;
    cuda_must(error, "cuMemHostRegister");
    answer(question, cuda_copy(device, start + HALF - MIB, 2 * MIB));
    if (first > 0)
        cuda_must(cuda.host_unregister(start), "cuMemHostUnregister");
    if (second > 0)
        cuda_must(cuda.host_unregister(start + HALF), "cuMemHostUnregister");
    munmap(start, SIZE);
}

static void may_copy(cuda_address device)
{
    across("copy from memory that is not registered", 0, 0, device);
    across("copy within one registered range", SIZE, 0, device);
    across("copy across two adjacent registered ranges", HALF, HALF, device);
    across("copy out of a registered range", HALF, 0, device);
    across("copy into a registered range", 0, HALF, device);
}

static void may_register(void)
{
    char *start = map(SIZE, PROT_READ | PROT_WRITE);
    size_t count = SIZE / (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages = calloc(count, 1);
    answer("register memory that was never touched", enter(start, SIZE));
    size_t resident = 0;
    if (pages != NULL && mincore(start, SIZE, pages) == 0) {
        for (size_t i = 0; i < count; i++)
            resident += pages[i] & 1u;
    }
    free(pages);
    printf("{\"probe\": \"share of it resident then\", \"answer\": "
           "\"%.3f\"}\n",
           (double)resident / (double)count);
    answer("register it again", enter(start, SIZE));
    answer("register a part of it again", enter(start + MIB, MIB));
    answer("unregister it", cuda.host_unregister(start));
    answer("unregister it again", cuda.host_unregister(start));
    munmap(start, SIZE);

    start = map(SIZE, PROT_NONE);
    if (mprotect(start, HALF, PROT_READ | PROT_WRITE) != 0)
        perror("pinned: mprotect");
    int error = enter(start, SIZE);
    answer("register memory of which half is PROT_NONE", error);
    if (error == CUDA_SUCCESS)
        cuda_must(cuda.host_unregister(start), "cuMemHostUnregister");
    munmap(start, SIZE);
}

/* What registering costs, of COUNT ranges of LENGTH bytes. */
static void rate(const char *what, size_t length, size_t count, int advice,
                 bool touched)
{
    size_t size = length * count, align = 2 * MIB;
    char *mapped = map(size + align, PROT_READ | PROT_WRITE);
    char *start = (char *)(((uintptr_t)mapped + align - 1) / align * align);
    (void)madvise(start, size, advice);
    if (touched)
        memset(start, 1, size);
    uint64_t began = clock_ns();
    for (size_t i = 0; i < count; i++)
        cuda_must(enter(start + i * length, length), "cuMemHostRegister");
    uint64_t between = clock_ns();
    for (size_t i = 0; i < count; i++)
        cuda_must(cuda.host_unregister(start + i * length),
                  "cuMemHostUnregister");
    uint64_t end = clock_ns();
    printf("{\"probe\": \"us/MiB: %s\", \"answer\": \"%.1f on, %.1f off\"}\n",
           what, (double)(between - began) / 1e3 / (double)(size / MIB),
           (double)(end - between) / 1e3 / (double)(size / MIB));
    munmap(mapped, size + align);
}

void probe(void)
{
    cuda_address device;
    cuda_must(cuda.device_alloc(&device, SIZE), "cuMemAlloc");
    may_copy(device);
    may_register();
    cuda_must(cuda.device_free(device), "cuMemFree");
    rate("1 of 512 MiB, huge pages, new", 512 * MIB, 1, MADV_HUGEPAGE, false);
    rate("1 of 512 MiB, huge pages, touched", 512 * MIB, 1, MADV_HUGEPAGE,
         true);
    rate("16 of 32 MiB, huge pages, touched", 32 * MIB, 16, MADV_HUGEPAGE,
         true);
    rate("1 of 512 MiB, small pages, new", 512 * MIB, 1, MADV_NOHUGEPAGE,
         false);
    rate("1 of 512 MiB, small pages, touched", 512 * MIB, 1, MADV_NOHUGEPAGE,
         true);
    rate("16 of 32 MiB, small pages, touched", 32 * MIB, 16, MADV_NOHUGEPAGE,
         true);
}

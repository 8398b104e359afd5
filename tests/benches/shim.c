/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * shim.c - an allocator to test benchmarks with: glibc's, which counts calls
 * and, if told to, breaks a promise.
 *
 *   SHIM_REPORT=FILE   write the number of calls to FILE at exit
 *   SHIM_BREAK=calloc  zeroed memory is not zero
 *   SHIM_BREAK=realloc a block that grows forgets its content
 *   SHIM_BREAK=overlap every second large block is a block that is in use
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGE ((size_t)64 * 1024)

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

static atomic_ulong calls;
static void *last;

static int breaks(const char *promise)
{
    const char *chosen = getenv("SHIM_BREAK");

    return chosen != NULL && strcmp(chosen, promise) == 0;
}

void *malloc(size_t size)
{
    void *p;

    calls++;
    if (size >= LARGE && breaks("overlap")) {
        if (last != NULL) {
            p = last;
            last = NULL;
            return p;
        }
        last = __libc_malloc(1024 * LARGE);
        return last;
    }
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    void *p;

    calls++;
    p = __libc_calloc(count, size);
    if (p != NULL && count * size >= LARGE && breaks("calloc")) {
        memset(p, 0xff, count * size);
    }
    return p;
}

void *realloc(void *p, size_t size)
{
    calls++;
    if (p != NULL && size >= LARGE && breaks("realloc")) {
        return __libc_calloc(1, size);
    }
    return __libc_realloc(p, size);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
    calls++;
    *p = __libc_memalign(alignment, size);
    return *p == NULL ? ENOMEM : 0;
}

void free(void *p)
{
    calls++;
    if (!breaks("overlap")) {
        __libc_free(p);
    }
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("SHIM_REPORT");
    unsigned long count = calls; /* before fopen() adds to it */
    FILE *f = path == NULL ? NULL : fopen(path, "w");

    if (f != NULL) {
        fprintf(f, "%lu\n", count);
        fclose(f);
    }
}

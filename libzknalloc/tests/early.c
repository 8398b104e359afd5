/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * early.c - for test_early: a library that puts itself before dlsym(), as
 * overlays and tracers do, and asks for memory there: while the preload library
 * looks for the next allocator.  Preloaded behind that library, it starts
 * before it does, and makes the process's first call of the malloc family, the
 * one that EARLY_FIRST names; for "nothing", dlsym() finds nothing.
 */
#include "early.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

void *__libc_malloc(size_t size);

EXPORT struct early_block early_blocks[EARLY_BLOCKS];
EXPORT const char *early_wrong;
EXPORT const char *early_asked_in;

static const char *first_call = "none yet";
static void *foreign; /* a block that the preload library knows nothing of */

static void require(int holds, const char *what)
{
    if (!holds && early_wrong == NULL)
        early_wrong = what;
}

static void keep(size_t i, void *ptr, size_t size)
{
    require(ptr != NULL, "a block");
    require(malloc_usable_size(ptr) == size, "its size");
    if (ptr != NULL)
        memset(ptr, (int)(i + 1), size);
    early_blocks[i] = (struct early_block){ptr, size};
}

/* Blocks of each kind, and what cannot be had. */
static void ask(void)
{
    static const char zeros[300];
    volatile size_t huge = SIZE_MAX;
    early_asked_in = first_call;
    keep(0, malloc(100), 100);
    keep(1, calloc(10, 30), 300);
    void *ptr = calloc(10, 30);
    require(ptr != NULL && memcmp(ptr, zeros, 300) == 0, "zeros");
    keep(2, realloc(NULL, 200), 200);
    memset(ptr, 9, 300);
    ptr = realloc(ptr, 600);
    require(ptr != NULL && ((char *)ptr)[299] == 9, "what it held");
    keep(3, ptr, 600);
    ptr = memalign(1024, 50);
    require((uintptr_t)ptr % 1024 == 0, "its alignment");
    keep(4, ptr, 50);
    free(malloc(10));
    require(malloc(huge) == NULL, "no size that wraps around");
    require(malloc(20000) == NULL, "no more than there is");
    require(memalign((size_t)1 << 20, 10) == NULL, "no such alignment");
    require(calloc(huge / 4 + 2, 4) == NULL, "no product that wraps around");
    require(realloc(foreign, 10) == NULL, "nobody can resize another's block");
    while (malloc(500) != NULL)
        continue;
    require(malloc(500) == NULL, "the end of it");
}

EXPORT void *dlsym(void *handle, const char *name)
{
    static void *(*real)(void *, const char *);
    static int asked;
    if (real == NULL) {
        void *found = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
        if (found == NULL) /* of an older C library, by processor */
            found = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
        if (found == NULL)
            found = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.17");
        memcpy(&real, &found, sizeof real);
    }
    if (strcmp(first_call, "nothing") == 0)
        return NULL;
    if (strcmp(name, "malloc") == 0 && !asked++)
        ask();
    return real(handle, name);
}

__attribute__((constructor)) static void first(void)
{
    const char *wanted = getenv("EARLY_FIRST");
    if (wanted == NULL)
        return;
    first_call = wanted;
    foreign = __libc_malloc(64);
    strcpy(foreign, "foreign");
    if (strcmp(wanted, "malloc") == 0) {
        free(malloc(64));
    } else if (strcmp(wanted, "calloc") == 0) {
        char *ptr = calloc(8, 8);
        require(ptr != NULL && *ptr == 0, "zeros of the next one's");
        free(ptr);
    } else if (strcmp(wanted, "memalign") == 0) {
        void *ptr = memalign(256, 64);
        require(ptr != NULL && (uintptr_t)ptr % 256 == 0, "alignment");
        free(ptr);
    } else if (strcmp(wanted, "realloc") == 0) {
        foreign = realloc(foreign, 640);
        require(foreign != NULL && strcmp(foreign, "foreign") == 0, "content");
    } else if (strcmp(wanted, "usable_size") == 0) {
        require(malloc_usable_size(foreign) >= 64, "the next one's size");
    } else if (strcmp(wanted, "free") == 0) {
        uintptr_t was = (uintptr_t)foreign;
        free(foreign);
        foreign = __libc_malloc(64); /* what was freed last comes first */
        require((uintptr_t)foreign == was, "the next one has it back");
    }
    if (strcmp(wanted, "nothing") != 0)
        first_call = "later";
}

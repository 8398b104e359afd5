/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ways.c - see ways.h.
 *
 * Where a buffer's pages become resident differs, and so does the part of a
 * round that pays for it: a pageable buffer's when it is filled, a registered
 * one's when it is taken.
 */
#include "ways.h"

#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda.h"
#include "zknalloc.h"

unsigned buffer_count;
size_t buffer_size[BUFFERS_MOST];
struct registered registered;

static void *must(void *ptr)
{
    if (ptr == NULL) {
        fprintf(stderr, "pinned: out of memory\n");
        exit(STATUS_FAILED);
    }
    return ptr;
}

static void nothing(void)
{
}

/* ------------------------------------------------------------- registering */

static int enter(void *start, size_t size)
{
    int error = cuda.host_register(start, size, CUDA_MEMHOSTREGISTER_PORTABLE);
    if (error != CUDA_SUCCESS) {
        registered.refused++;
        fprintf(stderr, "pinned: cuMemHostRegister of %zu bytes: %s\n", size,
                cuda_error(error));
        return error;
    }
    registered.calls++;
    registered.bytes += size;
    if (registered.bytes > registered.most)
        registered.most = registered.bytes;
    return error;
}

static void leave(void *start, size_t size)
{
    cuda_must(cuda.host_unregister(start), "cuMemHostUnregister");
    registered.undone++;
    registered.bytes -= size;
}

/* ---------------------------------------------------------------- pageable */

/* glibc as it comes: from 32 MiB on each buffer is a mapping of its own. */
static void *pageable_take(unsigned buffer)
{
    return must(malloc(buffer_size[buffer]));
}

static void pageable_give(unsigned buffer, void *ptr)
{
    (void)buffer;
    free(ptr);
}

/* No mappings of their own, and nothing goes back to the kernel. */
static void kept_start(void)
{
    if (mallopt(M_MMAP_MAX, 0) != 1 || mallopt(M_TRIM_THRESHOLD, -1) != 1) {
        fprintf(stderr, "pinned: mallopt() refused\n");
        exit(STATUS_FAILED);
    }
}

/* --------------------------------------------- registered anew, each time */

/* Whole pages, which is what is registered: two buffers must not share one. */
static size_t whole_pages(unsigned buffer)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (buffer_size[buffer] + page - 1) / page * page;
}

static void *register_take(unsigned buffer)
{
    void *ptr = NULL;
    if (posix_memalign(&ptr, (size_t)sysconf(_SC_PAGESIZE),
                       whole_pages(buffer)) != 0)
        ptr = NULL;
    must(ptr);
    if (enter(ptr, whole_pages(buffer)) != CUDA_SUCCESS)
        exit(STATUS_FAILED);
    return ptr;
}

static void register_give(unsigned buffer, void *ptr)
{
    leave(ptr, whole_pages(buffer));
    free(ptr);
}

static void *alloc_take(unsigned buffer)
{
    void *ptr = NULL;
    cuda_must(
        cuda.host_alloc(&ptr, buffer_size[buffer], CUDA_MEMHOSTALLOC_PORTABLE),
        "cuMemHostAlloc");
    return ptr;
}

static void alloc_give(unsigned buffer, void *ptr)
{
    (void)buffer;
    cuda_must(cuda.host_free(ptr), "cuMemFreeHost");
}

/* ------------------------------------------------------------------- pool */

/* The limit: every buffer is there, pinned, before the first round. */
static void *pool[BUFFERS_MOST];

static void pool_start(void)
{
    for (unsigned i = 0; i < buffer_count; i++)
        pool[i] = alloc_take(i);
}

static void *pool_take(unsigned buffer)
{
    return pool[buffer];
}

static void pool_give(unsigned buffer, void *ptr)
{
    (void)buffer;
    (void)ptr;
}

static void pool_finish(void)
{
    for (unsigned i = 0; i < buffer_count; i++)
        alloc_give(i, pool[i]);
}

/* --------------------------------------------------------------- libzknalloc
 */

static void *cache_take(unsigned buffer)
{
    return must(zkn_alloc(buffer_size[buffer]));
}

static void cache_give(unsigned buffer, void *ptr)
{
    (void)buffer;
    zkn_free(ptr);
}

/* Any thread that allocates may be here, with any context or none. */
static int on_map(void *ctx, void *start, size_t size)
{
    (void)ctx;
    cuda_context popped;
    cuda_must(cuda.context_push(cuda.context), "cuCtxPushCurrent");
    int error = enter(start, size);
    cuda_must(cuda.context_pop(&popped), "cuCtxPopCurrent");
    return error;
}

static void on_unmap(void *ctx, void *start, size_t size)
{
    (void)ctx;
    cuda_context popped;
    cuda_must(cuda.context_push(cuda.context), "cuCtxPushCurrent");
    leave(start, size);
    cuda_must(cuda.context_pop(&popped), "cuCtxPopCurrent");
}

static void hook(zkn_on_map_t *map, zkn_on_unmap_t *unmap)
{
    int error = zkn_set_region_hooks(map, unmap, NULL);
    if (error != 0) {
        fprintf(stderr, "pinned: zkn_set_region_hooks: %s\n", strerror(-error));
        exit(STATUS_FAILED);
    }
}

static void hooks_start(void)
{
    hook(on_map, on_unmap);
}

static void hooks_finish(void)
{
    hook(NULL, NULL);
}

/* ------------------------------------------------------------------ names */

static const struct way ways[] = {
    {"pageable", nothing, pageable_take, pageable_give, nothing},
    {"pageable-kept", kept_start, pageable_take, pageable_give, nothing},
    {"register-each", nothing, register_take, register_give, nothing},
    {"alloc-each", nothing, alloc_take, alloc_give, nothing},
    {"pool", pool_start, pool_take, pool_give, pool_finish},
    {"zknalloc", nothing, cache_take, cache_give, nothing},
    {"zknalloc-hooks", hooks_start, cache_take, cache_give, hooks_finish},
};

#define WAYS (sizeof ways / sizeof ways[0])

const struct way *way_find(const char *name)
{
    for (size_t i = 0; i < WAYS; i++) {
        if (strcmp(ways[i].name, name) == 0)
            return &ways[i];
    }
    return NULL;
}

void way_list(void)
{
    for (size_t i = 0; i < WAYS; i++)
        puts(ways[i].name);
}

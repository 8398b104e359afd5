/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libcuda.c - a CUDA driver without a GPU, for the tests of benches/pinned.
 *
 * Device memory is host memory, and copies are memcpy().  It knows which host
 * memory is pinned, and is strict: what the real driver refuses it refuses with
 * the same error, and what the real driver would not notice, though the device
 * would then copy from pages that are no longer the program's, ends the process
 * with a message.  Registering makes every page resident, as pinning does.
 *
 * Variables: STUB_PAGEABLE=N refuses copies to the device from memory that is
 * not pinned, but for the first N; STUB_FLIP=N flips a bit of the Nth copy;
 * STUB_NO_DEVICE=1 is a driver without a GPU; STUB_REFUSE=N refuses the Nth
 * registration.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_CONTEXT = 201,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713,
};

static int context, stream; /* their addresses stand for them */

/* Calls may come from any thread, one at a time is enough for tests. */
static bool ready;
static _Thread_local void *stack[8];
static _Thread_local unsigned depth;

#define NEEDS_CONTEXT                                                          \
    do {                                                                       \
        if (!ready)                                                            \
            return NOT_INITIALIZED;                                            \
        if (depth == 0 || stack[depth - 1] != &context)                        \
            return INVALID_CONTEXT;                                            \
    } while (0)

static unsigned long setting(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtoul(text, NULL, 10) : 0;
}

static _Noreturn void violated(const char *what, const void *start, size_t size)
{
    fprintf(stderr, "stub: %s: %p, %zu bytes\n", what, start, size);
    _exit(70);
}

/* ------------------------------------------------------------ pinned memory */

#define RANGES 4096
static struct range {
    char *start;
    size_t size;
    bool allocated; /* by the driver, not registered */
} ranges[RANGES];
static unsigned range_count;

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static bool overlaps(const struct range *range, const char *start, size_t size)
{
    return start < range->start + range->size && range->start < start + size;
}

/* The range that holds the byte at START. */
static struct range *range_of(const char *start)
{
    for (unsigned i = 0; i < range_count; i++) {
        if (overlaps(&ranges[i], start, 1))
            return &ranges[i];
    }
    return NULL;
}

/* What is pinned stays mapped and resident.  Where it does not, it was unmapped
 * or given back in spite of being registered. */
static void look(const struct range *range)
{
    static unsigned char pages[1 << 16];
    size_t step = sizeof pages * page();
    for (size_t at = 0; at < range->size; at += step) {
        size_t size = range->size - at < step ? range->size - at : step;
        if (mincore(range->start + at, size, pages) != 0)
            violated("unmapped while registered", range->start + at, size);
        for (size_t i = 0; i < size / page(); i++) {
            if ((pages[i] & 1) == 0)
                violated("given back while registered",
                         range->start + at + i * page(), page());
        }
    }
}

static int pin(char *start, size_t size, bool allocated)
{
    if (range_count == RANGES)
        return OUT_OF_MEMORY;
    /* EFAULT where a part is not writable. */
    if (madvise(start, size, MADV_POPULATE_WRITE) != 0)
        return INVALID_VALUE;
    ranges[range_count++] = (struct range){start, size, allocated};
    return SUCCESS;
}

static int unpin(void *start, bool allocated)
{
    struct range *range = range_of(start);
    if (range == NULL || range->allocated != allocated)
        return NOT_REGISTERED;
    if (range->start != start)
        return INVALID_VALUE;
    look(range);
    if (allocated)
        munmap(range->start, range->size);
    *range = ranges[--range_count];
    return SUCCESS;
}

EXPORT int cuMemHostRegister_v2(char *start, size_t size, unsigned flags)
{
    static unsigned long calls;
    NEEDS_CONTEXT;
    if (size == 0 || flags > 15 || ((uintptr_t)start | size) % page() != 0)
        return INVALID_VALUE;
    if (++calls == setting("STUB_REFUSE"))
        return OUT_OF_MEMORY;
    for (unsigned i = 0; i < range_count; i++) {
        if (overlaps(&ranges[i], start, size))
            return ALREADY_REGISTERED;
    }
    return pin(start, size, false);
}

EXPORT int cuMemHostUnregister(void *start)
{
    NEEDS_CONTEXT;
    return unpin(start, false);
}

EXPORT int cuMemHostAlloc(void **start, size_t size, unsigned flags)
{
    NEEDS_CONTEXT;
    if (size == 0 || flags > 7)
        return INVALID_VALUE;
    size = (size + page() - 1) / page() * page();
    *start = mmap(NULL, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return *start == MAP_FAILED ? OUT_OF_MEMORY : pin(*start, size, true);
}

EXPORT int cuMemFreeHost(void *start)
{
    NEEDS_CONTEXT;
    return unpin(start, true);
}

/* ------------------------------------------------------------------ copies */

/* A copy lies in one pinned range, or touches none. */
static int may_copy(const char *start, size_t size)
{
    const struct range *first = range_of(start);
    if (first != NULL) {
        look(first);
        return start + size <= first->start + first->size ? SUCCESS
                                                          : INVALID_VALUE;
    }
    for (unsigned i = 0; i < range_count; i++) {
        if (overlaps(&ranges[i], start, size))
            return INVALID_VALUE;
    }
    static unsigned long pageable;
    return getenv("STUB_PAGEABLE") != NULL &&
                   ++pageable > setting("STUB_PAGEABLE")
               ? INVALID_VALUE
               : SUCCESS;
}

EXPORT int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t size,
                                void *on)
{
    static unsigned long copies;
    NEEDS_CONTEXT;
    int error = on == &stream ? may_copy(from, size) : INVALID_VALUE;
    if (error != SUCCESS)
        return error;
    memcpy((void *)to, from, size);
    if (++copies == setting("STUB_FLIP"))
        ((unsigned char *)to)[size / 2] ^= 4;
    return SUCCESS;
}

EXPORT int cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t size)
{
    NEEDS_CONTEXT;
    memcpy(to, (const void *)from, size);
    return SUCCESS;
}

EXPORT int cuMemAlloc_v2(uintptr_t *out, size_t size)
{
    NEEDS_CONTEXT;
    /* Not by malloc(), which the program may be measuring. */
    size_t *start = mmap(NULL, size + page(), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (start == MAP_FAILED)
        return OUT_OF_MEMORY;
    *start = size + page();
    *out = (uintptr_t)start + page();
    return SUCCESS;
}

EXPORT int cuMemFree_v2(uintptr_t address)
{
    NEEDS_CONTEXT;
    size_t *start = (size_t *)(address - page());
    return munmap(start, *start) == 0 ? SUCCESS : INVALID_VALUE;
}

/* ---------------------------------------------------- devices and contexts */

EXPORT int cuInit(unsigned flags)
{
    if (setting("STUB_NO_DEVICE"))
        return NO_DEVICE;
    ready = flags == 0;
    return ready ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuDriverGetVersion(int *version)
{
    *version = 13000;
    return SUCCESS;
}

EXPORT int cuGetErrorName(int error, const char **name)
{
    static const struct {
        int error;
        const char *name;
    } names[] = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
        {NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].error == error) {
            *name = names[i].name;
            return SUCCESS;
        }
    }
    return INVALID_VALUE;
}

EXPORT int cuDeviceGet(int *device, int ordinal)
{
    *device = 0;
    return !ready ? NOT_INITIALIZED : ordinal == 0 ? SUCCESS : NO_DEVICE;
}

EXPORT int cuDeviceGetName(char *name, int length, int device)
{
    snprintf(name, (size_t)length, "stub");
    return device == 0 ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuDevicePrimaryCtxRetain(void **out, int device)
{
    *out = &context;
    return ready && device == 0 ? SUCCESS : NOT_INITIALIZED;
}

EXPORT int cuCtxSetCurrent(void *wanted)
{
    if (depth == 0)
        depth = 1;
    stack[depth - 1] = wanted;
    return wanted == &context ? SUCCESS : INVALID_CONTEXT;
}

EXPORT int cuCtxPushCurrent_v2(void *wanted)
{
    if (wanted != &context || depth == sizeof stack / sizeof stack[0])
        return INVALID_CONTEXT;
    stack[depth++] = wanted;
    return SUCCESS;
}

EXPORT int cuCtxPopCurrent_v2(void **out)
{
    if (depth == 0)
        return INVALID_CONTEXT;
    *out = stack[--depth];
    return SUCCESS;
}

EXPORT int cuStreamCreate(void **out, unsigned flags)
{
    NEEDS_CONTEXT;
    *out = &stream;
    return flags <= 1 ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuStreamSynchronize(void *on)
{
    NEEDS_CONTEXT;
    return on == &stream ? SUCCESS : INVALID_VALUE;
}

/* What is still pinned when the process ends must be there until then. */
__attribute__((destructor)) static void end(void)
{
    for (unsigned i = 0; i < range_count; i++)
        look(&ranges[i]);
}

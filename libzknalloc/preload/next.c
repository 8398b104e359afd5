/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * next.c - find the next allocator, and serve what is asked for meanwhile.
 * See next.h.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "next.h"

static void *first_malloc(size_t size);
static void *first_calloc(size_t count, size_t size);
static void *first_realloc(void *ptr, size_t size);
static void *first_memalign(size_t alignment, size_t size);
static void first_free(void *ptr);
static size_t first_usable_size(void *ptr);

struct next next = {first_malloc,   first_calloc, first_realloc,
                    first_memalign, first_free,   first_usable_size};

char early[EARLY_SIZE] __attribute__((aligned(64)));
static _Atomic size_t early_used;

static void *early_alloc(size_t alignment, size_t size)
{
    if (alignment < 16)
        alignment = 16;
    if (size > sizeof early || alignment > sizeof early)
        return NULL;
    size_t need = size + 16 + alignment;
    size_t at = atomic_fetch_add(&early_used, need);
    if (at + need > sizeof early)
        return NULL;
    uintptr_t ptr = ((uintptr_t)early + at + 16 + alignment - 1) &
                    ~(uintptr_t)(alignment - 1);
    ((size_t *)ptr)[-1] = size;
    return (void *)ptr;
}

static _Noreturn void no_next(void)
{
    static const char text[] = "libzknalloc: no next malloc in this process\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(127);
}

/* ISO C has no conversion from an object pointer to a function pointer; POSIX
 * promises it for dlsym(). */
#define LOOK_UP(field, name)                                                   \
    do {                                                                       \
        void *symbol_ = dlsym(RTLD_NEXT, name);                                \
        if (symbol_ == NULL)                                                   \
            no_next();                                                         \
        memcpy(&found.field, &symbol_, sizeof symbol_);                        \
    } while (0)

/* Find the next allocator.  Returns false where this is called from inside
 * itself (or while another thread is in it, which harms nothing). */
static bool look_up(void)
{
    static atomic_bool looking;
    if (atomic_exchange(&looking, true))
        return false;
    struct next found;
    LOOK_UP(malloc, "malloc");
    LOOK_UP(calloc, "calloc");
    LOOK_UP(realloc, "realloc");
    LOOK_UP(memalign, "memalign");
    LOOK_UP(free, "free");
    LOOK_UP(usable_size, "malloc_usable_size");
    next = found;
    return true;
}

static void *first_malloc(size_t size)
{
    return look_up() ? next.malloc(size) : early_alloc(16, size);
}

static void *first_calloc(size_t count, size_t size)
{
    /* The static buffer is zero, and no block of it is used twice. */
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return look_up() ? next.calloc(count, size) : early_alloc(16, bytes);
}

/* Neither NULL nor an early block gets here: from inside the look-up, nobody
 * can be asked to resize another's block. */
static void *first_realloc(void *ptr, size_t size)
{
    return look_up() ? next.realloc(ptr, size) : NULL;
}

static void *first_memalign(size_t alignment, size_t size)
{
    return look_up() ? next.memalign(alignment, size)
                     : early_alloc(alignment, size);
}

static void first_free(void *ptr)
{
    if (look_up())
        next.free(ptr);
}

static size_t first_usable_size(void *ptr)
{
    return look_up() ? next.usable_size(ptr) : 0;
}

__attribute__((constructor)) static void load(void)
{
    (void)look_up();
}

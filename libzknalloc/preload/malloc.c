/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * malloc.c - the malloc family, for LD_PRELOAD or for linking: requests of
 * ZKN_THRESHOLD bytes and more go to libzknalloc, all others to the next
 * allocator in the chain (the C library's, or one that is preloaded after us).
 *
 * What a small request costs on top is one comparison and one indirect call;
 * what a small free costs is one subtraction, one comparison, one indirect
 * call.
 *
 * The first instructions: the dynamic linker calls malloc before any
 * constructor has run, and dlsym(), which finds the next allocator, may call
 * it too.  So the pointers in "next" start at functions that look the real
 * ones up; requests made from inside that look-up come from a small static
 * buffer, whose blocks are never freed.
 *
 * Nothing here takes a lock or keeps state for a thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "zknalloc.h"
#include "zknalloc_private.h"

#define EXPORT      __attribute__((visibility("default")))
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ------------------------------------------------------- the next allocator */

static void *first_malloc(size_t size);
static void *first_calloc(size_t count, size_t size);
static void *first_realloc(void *ptr, size_t size);
static void *first_memalign(size_t alignment, size_t size);
static void first_free(void *ptr);
static size_t first_usable_size(void *ptr);

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t);
    void (*free)(void *);
    size_t (*usable_size)(void *);
} next = {first_malloc,   first_calloc, first_realloc,
          first_memalign, first_free,   first_usable_size};

/* Blocks for requests made while the next allocator is being looked up. */
static char early[16 * 1024] __attribute__((aligned(64)));
static _Atomic size_t early_used;

static bool is_early(const void *ptr)
{
    return (size_t)((const char *)ptr - early) < sizeof early;
}

/* Each block is preceded by its size, so that realloc can copy it. */
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

static size_t early_size(const void *ptr)
{
    return ((const size_t *)ptr)[-1];
}

static _Noreturn void no_next(void)
{
    static const char text[] =
        "libzknalloc_preload: no next malloc in this process\n";
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
    __typeof__(next) found;
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

static void *first_realloc(void *ptr, size_t size)
{
    if (look_up())
        return next.realloc(ptr, size);
    /* Whatever exists this early came from early_alloc(). */
    void *moved = early_alloc(16, size);
    if (moved != NULL && ptr != NULL)
        memcpy(moved, ptr, early_size(ptr) < size ? early_size(ptr) : size);
    return moved;
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

/* ------------------------------------------------------------------- helpers
 */

static inline bool is_large(size_t size)
{
    return size >= ZKN_THRESHOLD;
}

static inline bool is_ours(const void *ptr)
{
    /* The size is set after the base. */
    size_t size = __atomic_load_n(&zkn_private_range.size, __ATOMIC_ACQUIRE);
    return (size_t)((const char *)ptr - zkn_private_range.base) < size;
}

static inline bool is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* glibc trims the top of its heap on every free while more than its trim
 * threshold, 128 KiB at first, is free there; freeing a mapped block raises it
 * to twice that block's size, of up to 32 MiB (mallopt(3)).  It no longer sees
 * such blocks, so the small requests of a prover would pay for the large ones'
 * absence, a fault for each page trimmed.  So the threshold is raised here as
 * it would have been there, in powers of two; unless the user has set it. */
#define DYNAMIC_MOST ((size_t)32 << 20)

static _Atomic size_t largest_seen = (size_t)128 << 10;

static bool user_has_set_threshold(void)
{
    const char *tunables = getenv("GLIBC_TUNABLES");
    return getenv("MALLOC_TRIM_THRESHOLD_") != NULL ||
           getenv("MALLOC_MMAP_THRESHOLD_") != NULL ||
           getenv("MALLOC_TOP_PAD_") != NULL ||
           (tunables != NULL && strstr(tunables, "glibc.malloc.") != NULL);
}

static __attribute__((noinline, cold)) void raise_threshold(size_t size)
{
    size_t seen = atomic_load(&largest_seen), power = seen;
    while (power < size)
        power *= 2;
    if (atomic_compare_exchange_strong(&largest_seen, &seen, power) &&
        !user_has_set_threshold())
        (void)mallopt(M_TRIM_THRESHOLD, (int)(2 * power));
}

/* A large request: the cache's, or where it cannot serve, the next one's. */
static __attribute__((noinline)) void *large(size_t size, size_t alignment,
                                             bool zeroed)
{
    if (unlikely(size >
                 atomic_load_explicit(&largest_seen, memory_order_relaxed)) &&
        size <= DYNAMIC_MOST)
        raise_threshold(size);
    void *ptr = zkn_private_alloc(size, alignment, zeroed);
    if (likely(ptr != NULL))
        return ptr;
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (zeroed)
        return next.calloc(1, size);
    return alignment > 1 ? next.memalign(alignment, size) : next.malloc(size);
}

/* ALIGNMENT is a power of two. */
static void *aligned(size_t alignment, size_t size)
{
    return is_large(size) ? large(size, alignment, false)
                          : next.memalign(alignment, size);
}

/* A copy of PTR, of which HAD bytes may be read, in a block of SIZE bytes. */
static __attribute__((noinline)) void *move(void *ptr, size_t had, size_t size)
{
    void *moved = malloc(size);
    if (moved != NULL) {
        memcpy(moved, ptr, had < size ? had : size);
        free(ptr);
    }
    return moved;
}

/* ---------------------------------------------------------- the malloc family
 */

EXPORT void *malloc(size_t size)
{
    return unlikely(is_large(size)) ? large(size, 1, false) : next.malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    return unlikely(is_large(bytes)) ? large(bytes, 1, true)
                                     : next.calloc(count, size);
}

EXPORT void free(void *ptr)
{
    if (unlikely(is_ours(ptr)))
        zkn_free(ptr);
    else if (likely(!is_early(ptr)))
        next.free(ptr);
}

EXPORT void *realloc(void *ptr, size_t size)
{
    if (ptr == NULL)
        return malloc(size);
    if (is_ours(ptr))
        return zkn_realloc(ptr, size);
    if (unlikely(is_early(ptr)))
        return move(ptr, early_size(ptr), size);
    /* A block that grows past the threshold moves over to the cache, if there
     * is one. */
    if (is_large(size) && zkn_private_range.size > 0) {
        void *moved = move(ptr, next.usable_size(ptr), size);
        if (likely(moved != NULL))
            return moved;
    }
    return next.realloc(ptr, size);
}

EXPORT void *reallocarray(void *ptr, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(ptr, bytes);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved = errno;
    void *ptr = aligned(alignment, size);
    errno = saved;
    if (ptr == NULL)
        return ENOMEM;
    *out = ptr;
    return 0;
}

/* What these two do with an alignment that is no power of two differs between
 * allocators, so the next one answers. */
EXPORT void *memalign(size_t alignment, size_t size)
{
    return is_power_of_two(alignment) ? aligned(alignment, size)
                                      : next.memalign(alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

EXPORT void *valloc(size_t size)
{
    return aligned((size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORT void *pvalloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX - page) {
        errno = ENOMEM;
        return NULL;
    }
    return aligned(page, (size + page - 1) & ~(page - 1));
}

EXPORT size_t malloc_usable_size(void *ptr)
{
    if (is_ours(ptr))
        return zkn_usable_size(ptr);
    if (unlikely(is_early(ptr)))
        return early_size(ptr);
    return next.usable_size(ptr);
}

EXPORT void cfree(void *ptr)
{
    free(ptr);
}

EXPORT void free_sized(void *ptr, size_t size)
{
    if (is_ours(ptr))
        zkn_free_sized(ptr, size);
    else
        free(ptr);
}

EXPORT void free_aligned_sized(void *ptr, size_t alignment, size_t size)
{
    (void)alignment;
    free_sized(ptr, size);
}

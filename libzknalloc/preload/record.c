/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * record.c - the malloc family for LD_PRELOAD, which serves nothing itself:
 * every call goes to the next allocator, and those of ZKN_THRESHOLD bytes and
 * more are written down.  `zk-nalloc record` preloads it.
 *
 * It does not link libzknalloc: recording is about what a program asks for,
 * whichever allocator serves it.  Preload libzknalloc_preload.so behind it and
 * the two work together.
 *
 * A small request costs one comparison more.  A small free costs the next
 * allocator's malloc_usable_size(): whatever was recorded is at least
 * ZKN_THRESHOLD bytes, so no other block needs to be looked up.
 *
 * Requests that fail are not recorded; those that a program makes of the
 * kernel itself, with mmap(), are not seen.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"
#include "next.h"
#include "zknalloc.h"

static inline bool is_large(size_t size)
{
    return size >= ZKN_THRESHOLD;
}

/* Record that OP returned PTR, unless it is small or failed; return PTR. */
static inline void *noted(int op, void *ptr, size_t size, size_t aux)
{
    if (unlikely(is_large(size)) && ptr != NULL && !is_early(ptr))
        journal_new(op, ptr, size, aux);
    return ptr;
}

EXPORT void *malloc(size_t size)
{
    return noted(OP_MALLOC, next.malloc(size), size, 0);
}

EXPORT void *calloc(size_t count, size_t size)
{
    void *ptr = next.calloc(count, size); /* NULL where the product overflows */
    return noted(OP_CALLOC, ptr, count * size, 0);
}

EXPORT void free(void *ptr)
{
    if (ptr == NULL || unlikely(is_early(ptr)))
        return;
    if (unlikely(is_large(next.usable_size(ptr))))
        journal_free(ptr);
    next.free(ptr);
}

EXPORT void *realloc(void *ptr, size_t size)
{
    if (ptr == NULL)
        return malloc(size);
    if (unlikely(is_early(ptr))) {
        size_t had = early_size(ptr);
        void *moved = malloc(size);
        return moved == NULL ? NULL
                             : memcpy(moved, ptr, had < size ? had : size);
    }
    size_t had = next.usable_size(ptr);
    journal_block_t block = {0};
    if (unlikely(is_large(had)))
        block = journal_take(ptr);
    void *moved = next.realloc(ptr, size);
    if (moved == NULL && size > 0)
        journal_unmoved(block);
    else if (!is_large(size))
        journal_gone(block);
    else if (block.ptr != 0)
        journal_moved(block, moved, size);
    else
        journal_new(OP_GROWN, moved, size, had);
    return moved;
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

EXPORT void *memalign(size_t alignment, size_t size)
{
    return noted(OP_ALIGNED, next.memalign(alignment, size), size, alignment);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved = errno;
    void *ptr = memalign(alignment, size);
    if (ptr == NULL)
        return errno = ENOMEM; /* errno, too, as in malloc.c */
    errno = saved;
    *out = ptr;
    return 0;
}

EXPORT void *valloc(size_t size)
{
    return memalign((size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORT void *pvalloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX - page) {
        errno = ENOMEM;
        return NULL;
    }
    return memalign(page, (size + page - 1) & ~(page - 1));
}

EXPORT size_t malloc_usable_size(void *ptr)
{
    return unlikely(is_early(ptr)) ? early_size(ptr) : next.usable_size(ptr);
}

EXPORT void cfree(void *ptr)
{
    free(ptr);
}

EXPORT void free_sized(void *ptr, size_t size)
{
    (void)size;
    free(ptr);
}

EXPORT void free_aligned_sized(void *ptr, size_t alignment, size_t size)
{
    (void)alignment;
    (void)size;
    free(ptr);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zknalloc.h - a cache of large, resident memory regions for provers.
 *
 * A prover churns through huge, short-lived buffers.  Most allocators hand
 * their pages back to the kernel, and every round faults and zeroes them
 * again.  This library keeps freed regions of 64 KiB and more mapped and
 * resident, whatever their size, and serves the next request from them without
 * a system call, a page fault or a clear.  Smaller requests go to the system
 * allocator unchanged.
 *
 * Rules that hold for every function below:
 *
 *   threads    every function may be called from any thread at any time; a
 *              region freed on one thread serves any other;
 *   errors     a function that returns a pointer returns NULL and sets errno;
 *              one that returns int returns 0 or -errno; zkn_free() and its
 *              kin accept NULL and preserve errno;
 *   misuse     freeing a region twice, or an address inside a region, prints
 *              one line on stderr and calls abort();
 *   signals    not async-signal-safe, as malloc() is not;
 *   fork       the child may use every function;
 *   options    ZK_NALLOC_* environment variables only, read once; see
 *              zkn_options_print() for the list.
 *
 * Sizes are in bytes.  Linux only; page size is asked for at run time.
 */
#ifndef ZKNALLOC_H
#define ZKNALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The one place where the version is written: CMake, pkg-config and the
 * Python wheel read these three lines. */
#define ZKN_VERSION_MAJOR 0
#define ZKN_VERSION_MINOR 1
#define ZKN_VERSION_PATCH 0

#define ZKN_STRINGIFY_(x) #x
#define ZKN_STRINGIFY(x)  ZKN_STRINGIFY_(x)
#define ZKN_VERSION_STRING                                                     \
    ZKN_STRINGIFY(ZKN_VERSION_MAJOR)                                           \
    "." ZKN_STRINGIFY(ZKN_VERSION_MINOR) "." ZKN_STRINGIFY(ZKN_VERSION_PATCH)

/* Attributes.  ZKN_MALLOC promises that the result aliases nothing else, so
 * it stands on allocators only, never on realloc. */
#if defined(__GNUC__)
#define ZKN_API               __attribute__((visibility("default")))
#define ZKN_NODISCARD         __attribute__((warn_unused_result))
#define ZKN_MALLOC            __attribute__((malloc))
#define ZKN_ALLOC_SIZE(n)     __attribute__((alloc_size(n)))
#define ZKN_ALLOC_SIZE2(n, m) __attribute__((alloc_size(n, m)))
#define ZKN_ALLOC_ALIGN(n)    __attribute__((alloc_align(n)))
#define ZKN_NONNULL           __attribute__((nonnull))
#else
#define ZKN_API
#define ZKN_NODISCARD
#define ZKN_MALLOC
#define ZKN_ALLOC_SIZE(n)
#define ZKN_ALLOC_SIZE2(n, m)
#define ZKN_ALLOC_ALIGN(n)
#define ZKN_NONNULL
#endif

#ifdef __cplusplus
#define ZKN_NOTHROW noexcept
extern "C" {
#else
#define ZKN_NOTHROW
#endif

/* Requests of at least this many bytes are served by the cache. */
#define ZKN_THRESHOLD ((size_t)64 * 1024)

/* --------------------------------------------------------------- buffers */
/* Attributes on a line of their own. */
/* clang-format off */

/* Allocate SIZE bytes of unspecified content, aligned to 16 bytes below
 * ZKN_THRESHOLD and to 64 bytes from there on.  A SIZE of 0 gives a unique
 * pointer.  Release with zkn_free().
 * Errors: ENOMEM, also for SIZE above PTRDIFF_MAX. */
ZKN_API ZKN_NODISCARD ZKN_MALLOC ZKN_ALLOC_SIZE(1)
void *zkn_alloc(size_t size) ZKN_NOTHROW;

/* As zkn_alloc(COUNT * SIZE), with every byte zero.  Pages that are known to
 * be zero are not touched.
 * Errors: ENOMEM, also where the product overflows. */
ZKN_API ZKN_NODISCARD ZKN_MALLOC ZKN_ALLOC_SIZE2(1, 2)
void *zkn_calloc(size_t count, size_t size) ZKN_NOTHROW;

/* As zkn_alloc(SIZE), at a multiple of ALIGNMENT, a power of two.  SIZE need
 * not be a multiple of ALIGNMENT.
 * Errors: EINVAL for a bad ALIGNMENT, ENOMEM. */
ZKN_API ZKN_NODISCARD ZKN_MALLOC ZKN_ALLOC_ALIGN(1) ZKN_ALLOC_SIZE(2)
void *zkn_aligned_alloc(size_t alignment, size_t size) ZKN_NOTHROW;

/* Resize PTR to SIZE bytes and return its new address; the first
 * min(old, new) bytes keep their content, the rest is unspecified.  Only the
 * alignment of zkn_alloc() is kept.  A NULL PTR allocates; a SIZE of 0 frees
 * PTR and returns NULL, as glibc does.  On failure PTR stays as it was.
 * PTR must come from this library or from the system allocator.
 * Errors: ENOMEM. */
ZKN_API ZKN_NODISCARD ZKN_ALLOC_SIZE(2)
void *zkn_realloc(void *ptr, size_t size) ZKN_NOTHROW;

/* Release PTR, which zkn_* functions (or the system allocator) returned.
 * A large region stays resident for the next request. */
ZKN_API void zkn_free(void *ptr) ZKN_NOTHROW;

/* As zkn_free().  SIZE must be what was asked for; the library checks it
 * against the region's capacity and aborts where it cannot be right. */
ZKN_API void zkn_free_sized(void *ptr, size_t size) ZKN_NOTHROW;

/* The number of bytes that may be used at PTR, at least what was asked for;
 * 0 for NULL.  As with malloc_usable_size(), a program compiled with
 * _FORTIFY_SOURCE=3 is ended where the compiler sees it use more than it asked
 * for: ask for all of it with zkn_realloc() then. */
ZKN_API size_t zkn_usable_size(const void *ptr) ZKN_NOTHROW;

/* Whether PTR points into address space that the cache manages: true for
 * every byte of a region of at least ZKN_THRESHOLD bytes, false for what the
 * system allocator serves.  One subtraction and one comparison. */
ZKN_API bool zkn_owns(const void *ptr) ZKN_NOTHROW;

/* clang-format on */

/* ---------------------------------------------------------- cache control */

/* Offer the cached memory to the kernel with MADV_FREE: it stays warm, and
 * costs nothing to reuse, until memory runs short.  Returns the bytes offered.
 */
ZKN_API size_t zkn_soften_cache(void) ZKN_NOTHROW;

/* Give the cached memory back to the kernel now, so that resident memory is
 * that of live regions.  Returns the bytes given back. */
ZKN_API size_t zkn_release_cache(void) ZKN_NOTHROW;

/* Say that a stage of the program has ended, and that the next one is another
 * matter: gives the cached memory back, as zkn_release_cache() does, and
 * forgets the high-water mark of live bytes, which bounds what the cache may
 * keep from now on.  For a node that waits for its next block, or between a
 * prover's set-up and its proofs.  Returns the bytes given back. */
ZKN_API size_t zkn_stage_boundary(void) ZKN_NOTHROW;

/* Hooks for memory that must be registered with a device, such as host memory
 * that a GPU copies from.  ON_MAP is called when [ADDR, ADDR + LENGTH) becomes
 * the cache's, before any of it is handed out; where it returns anything but
 * 0, the range is not used.  ON_UNMAP is called for such a range just before
 * its memory is given back.  CTX is passed on. */
typedef int zkn_on_map_t(void *ctx, void *addr, size_t length);
typedef void zkn_on_unmap_t(void *ctx, void *addr, size_t length);

/* Set the hooks, before the program's other threads allocate; two NULLs end
 * them, with ON_UNMAP for each range.  What the cache serves already is
 * announced by one call.  While there are hooks, the cache grows by ranges of
 * 32 MiB at least, none of which touches another, so that what is allocated
 * lies in one range from end to end; and the cache moves, softens or gives back
 * nothing of its own accord; zkn_release_cache() and zkn_stage_boundary() give
 * back the ranges of which nothing is live.  Hooks are called without a lock,
 * by any thread that allocates, and may allocate themselves; they must neither
 * fork() nor wait for a thread that does.  They are not inherited by fork():
 * the child has none.
 * Errors: -EINVAL where one of the two is NULL, -EBUSY where there are hooks,
 * -ECANCELED where ON_MAP refused what is there already, -ENOMEM. */
ZKN_API int zkn_set_region_hooks(zkn_on_map_t *on_map, zkn_on_unmap_t *on_unmap,
                                 void *ctx) ZKN_NOTHROW;

/* ------------------------------------------------------------- statistics */

/* One row per counter: X(kind, name, meaning).  The row's place is its index
 * in the block that profilers read (zknalloc_block.h), so rows are only ever
 * appended.  Kinds: COUNTER only grows; GAUGE goes up and down; PEAK is the
 * high-water mark of a gauge.  Counters of bytes say so in their name. */
#define ZKN_STATS_LIST(X)                                                      \
    X(COUNTER, hits, "large requests served from resident memory alone")       \
    X(COUNTER, misses, "large requests that needed memory from the kernel")    \
    X(COUNTER, magazine_hits, "hits served by a per-CPU magazine")             \
    X(COUNTER, bytes_hit, "bytes handed out that were already resident")       \
    X(COUNTER, bytes_missed, "bytes handed out fresh from the kernel")         \
    X(COUNTER, frees, "large regions freed")                                   \
    X(COUNTER, callocs, "large requests for zeroed memory")                    \
    X(COUNTER, bytes_cleared, "bytes cleared for zeroed requests")             \
    X(COUNTER, reallocs_in_place, "large reallocs that kept their address")    \
    X(COUNTER, reallocs_moved, "large reallocs that moved")                    \
    X(COUNTER, evictions, "times the ceiling gave cached memory back")         \
    X(COUNTER, bytes_evicted, "bytes that the ceiling gave back")              \
    X(COUNTER, bytes_softened, "bytes offered to the kernel by MADV_FREE")     \
    X(COUNTER, bytes_released, "bytes given back when asked, idle, pressed")   \
    X(COUNTER, syscalls_map, "mmap and mprotect calls made")                   \
    X(COUNTER, syscalls_advise, "madvise calls made")                          \
    X(COUNTER, syscalls_move, "mremap calls made")                             \
    X(COUNTER, syscalls_scan, "looks into the page table")                     \
    X(COUNTER, fallback_system, "large requests passed to the system")         \
    X(COUNTER, fallback_thp, "huge-page advice that the kernel refused")       \
    X(COUNTER, bytes_moved, "bytes moved between free runs by mremap")         \
    X(COUNTER, fallback_move, "moves that the kernel refused")                 \
    X(COUNTER, fallback_advise, "other advice that the kernel refused")        \
    X(COUNTER, fallback_watch, "times the idle watcher could not start")       \
    X(COUNTER, fallback_reserve, "address-space reservations made smaller")    \
    X(GAUGE, live_now, "bytes in live regions")                                \
    X(PEAK, live_peak, "high-water mark of live_now, magazines included")      \
    X(GAUGE, cached_now, "bytes in free regions that may be resident")         \
    X(PEAK, cached_peak, "high-water mark of cached_now")                      \
    X(GAUGE, soft_now, "bytes of cached_now that the kernel may take")         \
    X(GAUGE, committed_now, "live_now + cached_now")                           \
    X(PEAK, committed_peak, "high-water mark of committed_now")                \
    X(GAUGE, regions_now, "live regions")                                      \
    X(COUNTER, sparse_takes, "zeroed requests served in small pages")          \
    X(COUNTER, sparse_drops, "times such a region's pages were given back")    \
    X(COUNTER, fallback_scan, "looks into the page table that failed")         \
    X(COUNTER, bytes_spread, "bytes that the threads which touch them clear")

/* Rows of zkn_stats_t.classes: one per power of two from ZKN_THRESHOLD. */
#define ZKN_STATS_CLASSES 24

typedef struct zkn_class_stats {
    uint64_t size;   /* requests of size <= s < 2 * size are counted here */
    uint64_t hits;   /* COUNTER, as above */
    uint64_t misses; /* COUNTER, as above */
} zkn_class_stats_t;

/* A snapshot.  Set size to sizeof(zkn_stats_t) first (ZKN_STATS_INIT does):
 * a newer library then fills only the fields that this caller knows. */
typedef struct zkn_stats {
    size_t size;
#define ZKN_STATS_FIELD_(kind, name, meaning) uint64_t name;
    ZKN_STATS_LIST(ZKN_STATS_FIELD_)
#undef ZKN_STATS_FIELD_
    uint64_t cache_bytes; /* the ceiling in force */
    zkn_class_stats_t classes[ZKN_STATS_CLASSES];
} zkn_stats_t;

#ifdef __cplusplus
inline zkn_stats_t zkn_stats_init_()
{
    zkn_stats_t stats = zkn_stats_t();
    stats.size = sizeof(zkn_stats_t);
    return stats;
}
#define ZKN_STATS_INIT zkn_stats_init_()
#else
#define ZKN_STATS_INIT                                                         \
    {                                                                          \
        .size = sizeof(zkn_stats_t)                                            \
    }
#endif

/* Fill STATS from the counters, which other threads may be changing: each
 * value is exact at some moment during the call.
 * Errors: -EINVAL where stats->size is too small to be a zkn_stats_t. */
ZKN_API int zkn_stats_get(zkn_stats_t *stats) ZKN_NOTHROW ZKN_NONNULL;

/* Write the same as one line of JSON into BUF, of LEN bytes, always ended by
 * a NUL where LEN > 0.  Returns the length that the text needs without its
 * NUL, as snprintf() does.  Allocates nothing. */
ZKN_API int zkn_stats_json(char *buf, size_t len) ZKN_NOTHROW;

/* ------------------------------------------------------ options, version */

/* Write one line per option to file descriptor FD: its name, the value in
 * force, the default, what it does.  Returns 0 or -errno of write(). */
ZKN_API int zkn_options_print(int fd) ZKN_NOTHROW;

/* The version of the library that was loaded, as ZKN_VERSION_STRING is the
 * version of the header compiled against. */
ZKN_API const char *zkn_version(void) ZKN_NOTHROW;

/* ------------------------------------------------------------------ arena */

/* A region of fixed capacity from which allocations are cut one after the
 * other, and freed all at once: what a phase of a proof needs.  Its memory
 * comes from the cache and stays resident across resets.
 *
 * Any number of threads may allocate from one arena.  Reset, rewind and
 * destroy free what every thread has allocated: who calls them sees to it that
 * nobody uses that memory any more.  The library cannot know; the Python and
 * C++ wrappers can. */
typedef struct zkn_arena zkn_arena_t;

/* Fault all of the arena's pages in at creation instead of at first use. */
#define ZKN_ARENA_POPULATE 1u

/* The most marks that one arena can hold at a time. */
#define ZKN_ARENA_MARKS 128

/* clang-format off */

/* Create an arena that serves allocations of CAPACITY bytes in sum, padding
 * for their alignment included.  FLAGS: ZKN_ARENA_* or 0.  Release with
 * zkn_arena_destroy().
 * Errors: EINVAL for unknown FLAGS, ENOMEM. */
ZKN_API ZKN_NODISCARD
zkn_arena_t *zkn_arena_create(size_t capacity, unsigned flags) ZKN_NOTHROW;

/* Give the arena's memory back to the cache.  ARENA may be NULL; destroying an
 * arena twice aborts. */
ZKN_API void zkn_arena_destroy(zkn_arena_t *arena) ZKN_NOTHROW;

/* Allocate SIZE bytes of unspecified content at a multiple of ALIGN, a power
 * of two; 64 gives what zkn_alloc() gives.  A SIZE of 0 gives a unique pointer
 * and uses one byte.  Lock-free.  Where the arena is exhausted it stays as it
 * was: a smaller allocation may still fit.
 * Errors: EINVAL for a bad ALIGN, ENOMEM. */
ZKN_API ZKN_NODISCARD ZKN_NONNULL ZKN_ALLOC_SIZE(2) ZKN_ALLOC_ALIGN(3)
void *zkn_arena_alloc(zkn_arena_t *arena, size_t size, size_t align)
    ZKN_NOTHROW;

/* Free everything that was allocated from ARENA, in constant time; all its
 * marks end.  The memory stays resident. */
ZKN_API ZKN_NONNULL
void zkn_arena_reset(zkn_arena_t *arena) ZKN_NOTHROW;

/* Remember how much is allocated now, for zkn_arena_rewind().  Marks nest.
 * Returns a mark, which is never negative, or
 * -ENOMEM where ZKN_ARENA_MARKS marks are held. */
ZKN_API ZKN_NODISCARD ZKN_NONNULL
int zkn_arena_mark(zkn_arena_t *arena) ZKN_NOTHROW;

/* Free everything that was allocated since MARK was taken, in constant time;
 * MARK ends, and so do the marks taken after it.
 * Errors: -EINVAL, and nothing is freed, where MARK has ended before. */
ZKN_API ZKN_NONNULL
int zkn_arena_rewind(zkn_arena_t *arena, int mark) ZKN_NOTHROW;

/* The bytes that allocations and their alignment use now. */
ZKN_API ZKN_NONNULL
size_t zkn_arena_used(const zkn_arena_t *arena) ZKN_NOTHROW;

/* The most bytes that were ever in use at once. */
ZKN_API ZKN_NONNULL
size_t zkn_arena_peak(const zkn_arena_t *arena) ZKN_NOTHROW;

/* CAPACITY, as zkn_arena_create() was told. */
ZKN_API ZKN_NONNULL
size_t zkn_arena_capacity(const zkn_arena_t *arena) ZKN_NOTHROW;

/* clang-format on */

/* ---------------------------------------------------------------- secrets */

/* Memory for keys, witnesses and the like: between two guard pages, kept out
 * of swap, core dumps and forked children, and wiped when it is destroyed and
 * when the process exits.
 *
 * Not every kernel and every limit allows all of that; zkn_secret_info() tells
 * what was achieved.  What no library can protect: copies that the program
 * makes, registers and stacks that the secret passes through, the buffers it
 * was read from, a hibernated machine, and a process that is killed keeps its
 * secrets until the kernel hands the pages to somebody else (cleared).
 *
 * Threads: creation, destruction and zkn_secret_equal() as everywhere; calls
 * that change one secret must not overlap with its use. */
typedef struct zkn_secret zkn_secret_t;

/* zkn_secret_create(): fail where the memory cannot be kept out of swap. */
#define ZKN_SECRET_REQUIRE_LOCK 1u

/* zkn_secret_info(): what was achieved. */
#define ZKN_SECRET_LOCKED 1u   /* never written to swap */
#define ZKN_SECRET_MEMFD  2u   /* memfd_secret(2): gone from the kernel's */
                               /* own map, debuggers read nothing */
#define ZKN_SECRET_DONTDUMP 4u /* not part of core dumps */
#define ZKN_SECRET_WIPE_ON_FORK                                                \
    8u /* the kernel gives children nothing of it                              \
        */

/* zkn_secret_protect(). */
#define ZKN_SECRET_NO_ACCESS  0 /* reading and writing raise SIGSEGV */
#define ZKN_SECRET_READ_ONLY  1 /* writing raises SIGSEGV */
#define ZKN_SECRET_READ_WRITE 2 /* how a secret starts */

/* clang-format off */

/* Create a secret of SIZE bytes, all zero, readable and writable.  FLAGS:
 * ZKN_SECRET_REQUIRE_LOCK or 0.  Release with zkn_secret_destroy().
 * Errors: EINVAL for unknown FLAGS, ENOMEM; with ZKN_SECRET_REQUIRE_LOCK also
 * what mlock() says: EPERM or ENOMEM, mostly for a low RLIMIT_MEMLOCK. */
ZKN_API ZKN_NODISCARD
zkn_secret_t *zkn_secret_create(size_t size, unsigned flags) ZKN_NOTHROW;

/* Wipe and release SECRET, which may be NULL, whatever its protection.  Where
 * the bytes around it have been written to (an overrun shorter than the way to
 * the guard page), and where it was destroyed before, prints one line on
 * stderr and aborts. */
ZKN_API void zkn_secret_destroy(zkn_secret_t *secret) ZKN_NOTHROW;

/* The first byte, aligned to 16.  The last one is followed by a guard page, at
 * once where the size is a multiple of 16.  In a child of fork() the address
 * is valid, too, and its content zero. */
ZKN_API ZKN_NONNULL
void *zkn_secret_data(const zkn_secret_t *secret) ZKN_NOTHROW;

/* SIZE, as zkn_secret_create() was told. */
ZKN_API ZKN_NONNULL
size_t zkn_secret_size(const zkn_secret_t *secret) ZKN_NOTHROW;

/* What was achieved: ZKN_SECRET_LOCKED, _MEMFD, _DONTDUMP, _WIPE_ON_FORK. */
ZKN_API ZKN_NONNULL
unsigned zkn_secret_info(const zkn_secret_t *secret) ZKN_NOTHROW;

/* Allow ACCESS, one of ZKN_SECRET_NO_ACCESS, _READ_ONLY and _READ_WRITE, from
 * now on.
 * Errors: -EINVAL for another ACCESS, and what mprotect() says. */
ZKN_API ZKN_NONNULL
int zkn_secret_protect(zkn_secret_t *secret, int access) ZKN_NOTHROW;

/* Overwrite the content with zeros, whatever the protection, which stays.
 * Errors: what mprotect() says. */
ZKN_API ZKN_NONNULL
int zkn_secret_wipe(zkn_secret_t *secret) ZKN_NOTHROW;

/* Whether the SIZE bytes at A and at B, any memory, are equal, in a time that
 * depends on SIZE alone. */
ZKN_API ZKN_NODISCARD
bool zkn_secret_equal(const void *a, const void *b, size_t size) ZKN_NOTHROW;

/* clang-format on */

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* ZKNALLOC_H */

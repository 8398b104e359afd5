/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Each misuse ends the process with SIGABRT and exactly one line on stderr
 * that says what was wrong.
 */
#include <pthread.h>

#include "cases.h"

static void double_free(void)
{
    void *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    zkn_free(ptr);
}

static void double_free_of_large(void)
{
    char *volatile keep = zkn_alloc(32 << 20);
    zkn_free(keep);
    zkn_free(keep);
}

static void double_free_after_release(void)
{
    char *volatile ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    zkn_release_cache();
    zkn_free(ptr);
}

static void interior_free(void)
{
    char *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr + 4096);
}

static void misaligned_free(void)
{
    char *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr + 1);
}

static void untouched_space(void)
{
    char *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr + ((size_t)4 << 30));
}

static void realloc_of_freed(void)
{
    char *volatile ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    (void)!zkn_realloc(ptr, 2 << 20);
}

static void size_of_freed(void)
{
    char *volatile ptr = zkn_alloc(4 << 20);
    zkn_free(ptr);
    (void)zkn_usable_size(ptr);
}

static void wrong_size(void)
{
    zkn_free_sized(zkn_alloc(1 << 20), 3 << 20);
}

static void double_free_of_sparse(void)
{
    /* Such sizes are given out sparse: little of them is resident. */
    for (int i = 0; i < 3; i++)
        zkn_free(zkn_calloc(1, 8 << 20));
    CHECK(stats_now().sparse_takes, >, 0);
    char *volatile ptr = zkn_calloc(1, 8 << 20);
    zkn_free(ptr);
    zkn_free(ptr);
}

static pthread_barrier_t barrier;
static char *volatile shared;

static void *free_shared(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    zkn_free(shared);
    return NULL;
}

/* However the two interleave, one of them is caught. */
static void racing_free(void)
{
    pthread_t thread;
    shared = zkn_alloc(1 << 20);
    CHECK(pthread_barrier_init(&barrier, NULL, 2), ==, 0);
    CHECK(pthread_create(&thread, NULL, free_shared, NULL), ==, 0);
    free_shared(NULL);
    pthread_join(thread, NULL);
}

static void interior_realloc(void)
{
    char *ptr = zkn_alloc(1 << 20);
    (void)!zkn_realloc(ptr + 64, 2 << 20);
}

static void interior_size(void)
{
    char *ptr = zkn_alloc(1 << 20);
    (void)zkn_usable_size(ptr + (64 << 10));
}

static void sized_free_of_freed(void)
{
    char *volatile ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    zkn_free_sized(ptr, 1 << 20);
}

/* What is not ours is the system's to judge. */
static void foreign_free(void)
{
    if (SANITIZED)
        skip("the sanitizers report it, in many lines");
    static _Alignas(64) char block[1 << 17];
    char *volatile ptr = block + 64;
    zkn_free(ptr);
}

/* ------------------------------------------------------------------- sizes */

/* No request that cannot be is served, and none ends the process: each entry,
 * near each size where a sum or a product might wrap around. */
static void impossible_sizes(void)
{
    if (SANITIZED)
        skip("the sanitizers' malloc has other limits and errors");
    const size_t most = PTRDIFF_MAX;
    const size_t sizes[] = {
        SIZE_MAX,         SIZE_MAX - 1, SIZE_MAX - 63, SIZE_MAX - 64,
        SIZE_MAX - 65535, most + 65536, most + 1,      most,
        most - 4096,      most - 65536, most / 2,      (size_t)1 << 47};
    const size_t aligns[] = {1,
                             64,
                             4096,
                             2 << 20,
                             (size_t)1 << 40,
                             (size_t)1 << 62,
                             (size_t)1 << 63};
    char *large = zkn_alloc(1 << 20), *small = zkn_alloc(100);
    memset(large, 5, 1 << 20);
    memset(small, 6, 100);
#define REFUSED(call)                                                          \
    do {                                                                       \
        errno = 0;                                                             \
        CHECK_TRUE((call) == NULL);                                            \
        CHECK(errno, ==, ENOMEM);                                              \
    } while (0)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        volatile size_t size = sizes[i]; /* or the compiler complains */
        REFUSED(zkn_alloc(size));
        REFUSED(zkn_calloc(1, size));
        REFUSED(zkn_calloc(size, 1));
        REFUSED(zkn_calloc(size / 8, 9));
        REFUSED(zkn_calloc(size, size));
        REFUSED(zkn_realloc(NULL, size));
        REFUSED(zkn_realloc(large, size));
        REFUSED(zkn_realloc(small, size));
        REFUSED(zkn_arena_create(size, 0));
        REFUSED(zkn_secret_create(size, 0));
        for (size_t j = 0; j < sizeof aligns / sizeof *aligns; j++)
            REFUSED(zkn_aligned_alloc(aligns[j], size));
    }
    /* Small sizes, at alignments that no address has. */
    for (size_t j = 5; j < sizeof aligns / sizeof *aligns; j++) {
        volatile size_t align = aligns[j];
        errno = 0;
        CHECK_TRUE(zkn_aligned_alloc(align, 1 << 20) == NULL);
        CHECK_TRUE(errno == ENOMEM || errno == EINVAL);
        errno = 0;
        CHECK_TRUE(zkn_aligned_alloc(align, 100) == NULL);
        CHECK_TRUE(errno == ENOMEM || errno == EINVAL); /* as malloc has it */
    }
    CHECK_TRUE(large[0] == 5 && memcmp(large, large + 1, (1 << 20) - 1) == 0);
    CHECK_TRUE(small[0] == 6 && memcmp(small, small + 1, 99) == 0);
    zkn_free(large);
    zkn_free(small);
    CHECK(stats_now().regions_now, ==, 0);
}

#define ABORTS(says) .signal = SIGABRT, .words = "libzknalloc: " says

static const struct test_case cases[] = {
    {"double free", double_free,
     ABORTS("not the start of a live region (freed twice, or an address "
            "inside a region) at 0x")},
    {"double free, large", double_free_of_large, ABORTS("not the start")},
    {"double free after release", double_free_after_release,
     ABORTS("not the start")},
    {"interior pointer", interior_free, ABORTS("not the start")},
    {"misaligned pointer", misaligned_free, ABORTS("not the start")},
    {"address never handed out", untouched_space, ABORTS("not the start")},
    {"realloc of freed", realloc_of_freed, ABORTS("not the start")},
    {"usable size of freed", size_of_freed, ABORTS("not the start")},
    {"double free, sparse", double_free_of_sparse, ABORTS("not the start")},
    {"double free, two threads", racing_free, ABORTS("")},
    {"interior pointer, realloc", interior_realloc, ABORTS("not the start")},
    {"interior pointer, usable size", interior_size, ABORTS("not the start")},
    {"free_sized of freed", sized_free_of_freed, ABORTS("not the start")},
    {"foreign pointer", foreign_free, .signal = SIGABRT,
     .words = "free(): invalid"},
    {"impossible sizes", impossible_sizes},
    {"wrong size", wrong_size,
     ABORTS("freed with a size larger than the region at 0x")},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}

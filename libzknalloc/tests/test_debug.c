/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ZK_NALLOC_DEBUG catches each misuse where it happens, and leaves correct
 * programs alone; ZK_NALLOC_WIPE leaves nothing of a freed region in memory.
 */
#include <signal.h>
#include <sys/mman.h>

#include "cases.h"
#include "heap.h"
#include "tiling.h"

#define MIB ((size_t)1 << 20)

/* Hidden from the compiler, which knows what free means. */
static void *volatile stale;

static void correct(void)
{
    char *ptrs[32] = {NULL};
    uint64_t seed = 3;
    for (int i = 0; i < 2000; i++) {
        size_t n = random_next(&seed) % 32;
        size_t size = ZKN_THRESHOLD + random_next(&seed) % MIB;
        if (ptrs[n] == NULL) {
            size_t align = (size_t)1 << random_next(&seed) % 16;
            ptrs[n] = i % 3 == 0 ? zkn_aligned_alloc(align, size)
                                 : zkn_calloc(1, size);
            CHECK((uintptr_t)ptrs[n] % (i % 3 == 0 ? align : 64), ==, 0);
            if (i % 3 != 0)
                CHECK_TRUE(is_zero(ptrs[n], size));
            memset(whole(ptrs[n]), (int)n, zkn_usable_size(ptrs[n]));
        } else if (i % 5 == 0) {
            ptrs[n] = zkn_realloc(ptrs[n], size);
            CHECK(ptrs[n][0], ==, n);
            CHECK(ptrs[n][ZKN_THRESHOLD - 1], ==, n);
        } else {
            CHECK(ptrs[n][0], ==, n);
            zkn_free(ptrs[n]);
            ptrs[n] = NULL;
        }
    }
    for (int n = 0; n < 32; n++)
        zkn_free(ptrs[n]);
    CHECK(stats_now().regions_now, ==, 0);
    CHECK(stats_now().hits + stats_now().misses, ==, stats_now().frees);
}

static void write_after_free(void)
{
    char *other = zkn_alloc(MIB);
    stale = zkn_alloc(MIB);
    zkn_free(stale);
    ((char *)stale)[5000] = 1;
    zkn_free(zkn_alloc(MIB));
    zkn_free(other);
}

static void read_after_free(void)
{
    stale = zkn_alloc(MIB);
    zkn_free(stale);
    exit(((volatile char *)stale)[5000]);
}

static void run_over(void)
{
    char *ptr = zkn_alloc(MIB + 100);
    memset(ptr, 1, MIB + 100);
    stale = ptr;
    ((volatile char *)stale)[MIB + 128] = 1;
}

static void run_over_after_realloc(void)
{
    char *ptr = zkn_realloc(zkn_alloc(3 * MIB), MIB + 64);
    stale = ptr;
    ((volatile char *)stale)[MIB + 64] = 1;
}

static void freed_twice(void)
{
    stale = zkn_alloc(MIB);
    zkn_free(stale);
    zkn_free(stale);
}

static void realloc_of_freed(void)
{
    stale = zkn_alloc(MIB);
    zkn_free(stale);
    stale = zkn_realloc(stale, 2 * MIB);
}

/* ---------------------------------------------------------------------- wipe
 */

#define SECRET "the key of another tenant"

/* Whether any free page holds what was written. */
static bool found_secret(void)
{
    for (uint32_t page = 0; page < heap.top;) {
        struct region *region = region_at(page);
        enum region_state state = state_of(region);
        if (state != REGION_LIVE && state != REGION_BARE &&
            memmem(page_address(page), region->pages << heap.page_shift, SECRET,
                   sizeof SECRET) != NULL)
            return true;
        page += region->pages;
    }
    return false;
}

static void scatter(char *ptr, size_t size)
{
    CHECK_TRUE(ptr != NULL);
    for (size_t at = 0; at + sizeof SECRET <= size; at += 8191)
        memcpy(ptr + at, SECRET, sizeof SECRET);
}

static void scatter_and_free(void)
{
    for (size_t size = ZKN_THRESHOLD; size < 64 * MIB; size += size / 2) {
        for (int kind = 0; kind < 4; kind++) {
            char *ptr = kind == 0 ? zkn_calloc(1, size) : zkn_alloc(size);
            scatter(ptr, size);
            if (kind == 2)
                ptr = zkn_realloc(ptr, max_size(size / 3, ZKN_THRESHOLD));
            if (kind == 3) {
                ptr = zkn_realloc(ptr, 2 * size); /* often elsewhere */
                scatter(ptr, 2 * size);
            }
            zkn_free(ptr);
        }
    }
}

static void wiped(void)
{
    scatter_and_free();
    CHECK(found_secret(), ==, 0);
    /* Locked memory cannot be given back: it must be cleared all the same. */
    char *locked = zkn_alloc(4 * MIB);
    scatter(locked, 4 * MIB);
    (void)mlock(locked, MIB);
    zkn_free(locked);
    CHECK(found_secret(), ==, 0);
}

/* The test itself would find it. */
static void not_wiped(void)
{
    scatter_and_free();
    CHECK(found_secret(), ==, 1);
}

/* ---------------------------------------------------------------------- main
 */

#define DEBUG(mode)                                                            \
    {                                                                          \
        "ZK_NALLOC_DEBUG=" mode                                                \
    }

static const struct test_case cases[] = {
    {"poison, correct program", correct, DEBUG("poison")},
    {"unmap, correct program", correct, DEBUG("unmap")},
    {"guard, correct program", correct, DEBUG("guard")},
    {"guard and wipe", correct, {"ZK_NALLOC_DEBUG=guard", "ZK_NALLOC_WIPE=1"}},
    {"poison, write after free", write_after_free, DEBUG("poison"),
     .signal = SIGABRT, .words = "written after it was freed"},
    {"unmap, write after free", write_after_free, DEBUG("unmap"),
     .signal = SIGSEGV},
    {"unmap, read after free", read_after_free, DEBUG("unmap"),
     .signal = SIGSEGV},
    {"guard, overflow", run_over, DEBUG("guard"), .signal = SIGSEGV},
    {"guard, realloc", run_over_after_realloc, DEBUG("guard"),
     .signal = SIGSEGV},
    {"poison, double free", freed_twice, DEBUG("poison"), .signal = SIGABRT,
     .words = "freed twice"},
    {"unmap, double free", freed_twice, DEBUG("unmap"), .signal = SIGABRT,
     .words = "freed twice"},
    {"guard, double free", freed_twice, DEBUG("guard"), .signal = SIGABRT,
     .words = "freed twice"},
    {"poison, realloc of freed", realloc_of_freed, DEBUG("poison"),
     .signal = SIGABRT, .words = "freed twice"},
    {"unmap, realloc of freed", realloc_of_freed, DEBUG("unmap"),
     .signal = SIGABRT, .words = "freed twice"},
    {"guard, realloc of freed", realloc_of_freed, DEBUG("guard"),
     .signal = SIGABRT, .words = "freed twice"},
    {"wipe", wiped, {"ZK_NALLOC_WIPE=1"}},
    {"no wipe", not_wiped, {"ZK_NALLOC_WIPE=0"}},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The documented behaviour of each public function, one process, one thread.
 */
#include <errno.h>
#include <malloc.h>

#include "testing.h"

#define KIB 1024UL
#define MIB (1024 * KIB)

static volatile size_t huge = SIZE_MAX; /* hidden from the compiler */

static void test_sizes(void)
{
    for (size_t size = 0; size <= 3 * ZKN_THRESHOLD; size += 4093) {
        char *ptr = zkn_alloc(size);
        CHECK_TRUE(ptr != NULL);
        CHECK(zkn_owns(ptr), ==, size >= ZKN_THRESHOLD);
        CHECK((uintptr_t)ptr % (size >= ZKN_THRESHOLD ? 64 : 16), ==, 0);
        CHECK(zkn_usable_size(ptr), >=, size);
        memset(whole(ptr), 0xa5, zkn_usable_size(ptr));
        zkn_free_sized(ptr, size);
    }
    CHECK(zkn_usable_size(NULL), ==, 0);
    CHECK(zkn_owns(NULL), ==, 0);
    errno = 17;
    zkn_free(NULL);
    zkn_free(zkn_alloc(MIB));
    CHECK(errno, ==, 17);
}

static void test_errors(void)
{
    size_t sizes[] = {huge, huge / 2, huge / 2 + 1, huge - 4096, huge - 65535};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        errno = 0;
        CHECK_TRUE(zkn_alloc(sizes[i]) == NULL);
        CHECK(errno, ==, ENOMEM);
        errno = 0;
        CHECK_TRUE(zkn_aligned_alloc(4096, sizes[i]) == NULL);
        CHECK(errno, ==, ENOMEM);
        void *ptr = zkn_alloc(MIB);
        errno = 0;
        CHECK_TRUE(zkn_realloc(ptr, sizes[i]) == NULL);
        CHECK(errno, ==, ENOMEM);
        zkn_free(ptr); /* still ours */
    }
    errno = 0;
    CHECK_TRUE(zkn_calloc(huge / 2, 3) == NULL);
    CHECK(errno, ==, ENOMEM);
    errno = 0;
    CHECK_TRUE(zkn_calloc(huge / 4, 2) == NULL);
    CHECK(errno, ==, ENOMEM);
    /* volatile: clang 14 crashes on constants that are no powers of two */
    volatile size_t bad[] = {0, 3, 48, 65537};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = 0;
        CHECK_TRUE(zkn_aligned_alloc(bad[i], MIB) == NULL);
        CHECK(errno, ==, EINVAL);
    }
}

static void test_calloc(void)
{
    for (int round = 0; round < 6; round++) {
        for (size_t size = ZKN_THRESHOLD; size <= 40 * MIB; size *= 3) {
            char *ptr = zkn_calloc(size / 8, 8);
            CHECK_TRUE(is_zero(ptr, size / 8 * 8));
            memset(ptr, 0xff, size / 8 * 8);
            zkn_free(ptr);
        }
    }
    /* Fresh memory is known to be zero. */
    zkn_release_cache();
    uint64_t cleared = stats_now().bytes_cleared;
    char *fresh = zkn_calloc(1, 48 * MIB + 5000);
    CHECK(stats_now().bytes_cleared - cleared, <=, 4 * MIB);
    CHECK_TRUE(is_zero(fresh, 48 * MIB + 5000));
    zkn_free(fresh);
    char *small = zkn_calloc(10, 10);
    CHECK_TRUE(is_zero(small, 100));
    zkn_free(small);
}

static void test_aligned(void)
{
    size_t most = (under_valgrind() ? 16 : 64) * MIB;
    for (size_t align = 1; align <= most; align *= 2) {
        void *ptrs[8];
        for (size_t i = 0; i < 8; i++) {
            size_t size = (i + 1) * 48 * KIB;
            ptrs[i] = zkn_aligned_alloc(align, size);
            CHECK_TRUE(ptrs[i] != NULL);
            CHECK((uintptr_t)ptrs[i] % align, ==, 0);
            memset(ptrs[i], (int)i, size);
        }
        for (size_t i = 0; i < 8; i++) {
            CHECK(*((char *)ptrs[i] + (i + 1) * 48 * KIB - 1), ==, i);
            zkn_free(ptrs[i]);
        }
    }
}

static void test_realloc(void)
{
    char *ptr = zkn_realloc(NULL, 10);
    CHECK_TRUE(ptr != NULL);
    memset(ptr, 1, 10);
    size_t had = 10;
    uint64_t seed = 7;
    for (int i = 0; i < 2000; i++) {
        size_t size =
            1 + (random_next(&seed) >> (40 + random_next(&seed) % 20));
        char *moved = zkn_realloc(ptr, size);
        CHECK_TRUE(moved != NULL);
        size_t kept = had < size ? had : size;
        CHECK(moved[0], ==, (char)(i == 0 ? 1 : i));
        CHECK(moved[kept - 1], ==, moved[0]);
        CHECK_TRUE(memcmp(moved, moved + 1, kept - 1) == 0);
        memset(moved, i + 1, size);
        ptr = moved;
        had = size;
    }
    CHECK_TRUE(zkn_realloc(ptr, 0) == NULL);

    /* What the system allocator returned may be handed over. */
    char *system = malloc(1000);
    memset(system, 3, 1000);
    system = zkn_realloc(system, MIB);
    CHECK(zkn_owns(system), ==, 1);
    CHECK(system[999], ==, 3);
    zkn_free(system);
}

/* Two vectors that grow in turn stand in each other's way: they move, and take
 * their pages along. */
static void test_relocation(void)
{
    char *ptr[2] = {zkn_alloc(8 * MIB + 20000), zkn_alloc(8 * MIB + 777)};
    size_t size[2] = {8 * MIB + 20000, 8 * MIB + 777};
    for (int i = 0; i < 2; i++)
        memset(ptr[i], 'a' + i, size[i]);
    uint64_t moved = stats_now().bytes_moved;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 2; i++) {
            size_t had = size[i];
            size[i] += size[i] / 2 + 12345;
            ptr[i] = zkn_realloc(ptr[i], size[i]);
            CHECK_TRUE(ptr[i] != NULL && ptr[i][0] == 'a' + i);
            CHECK(memcmp(ptr[i], ptr[i] + 1, had - 1), ==, 0);
            memset(ptr[i] + had, 'a' + i, size[i] - had);
        }
    }
    if (!under_valgrind())
        CHECK(stats_now().bytes_moved - moved, >=, 8 * MIB);
    CHECK(stats_now().committed_now, <=,
          stats_now().live_peak + stats_now().live_peak / 24 + 8 * MIB);
    zkn_free(ptr[0]);
    zkn_free(ptr[1]);
    char *zero = zkn_calloc(1, 40 * MIB);
    CHECK_TRUE(is_zero(zero, 40 * MIB));
    zkn_free(zero);
}

static void test_stats(void)
{
    zkn_release_cache();
    zkn_stats_t before = stats_now();
    CHECK(before.live_now, ==, 0);
    CHECK(before.cached_now, ==, 0);
    CHECK(before.committed_now, ==, 0);

    void *ptr = zkn_alloc(8 * MIB);
    zkn_stats_t held = stats_now();
    size_t bytes = held.live_now; /* a page more where it is coloured */
    CHECK(bytes, ==, zkn_usable_size(ptr) + (uintptr_t)ptr % 4096);
    CHECK(bytes, <=, 8 * MIB + 4096);
    CHECK(held.regions_now, ==, before.regions_now + 1);
    CHECK(held.misses, ==, before.misses + 1);
    CHECK(held.bytes_missed, ==, before.bytes_missed + bytes);
    CHECK(held.classes[7].size, ==, 8 * MIB);
    CHECK(held.classes[7].misses, ==, before.classes[7].misses + 1);

    zkn_free(ptr);
    zkn_free(zkn_alloc(8 * MIB));
    zkn_stats_t after = stats_now();
    CHECK(after.hits, ==, before.hits + 1);
    CHECK(after.frees, ==, before.frees + 2);
    CHECK(after.live_now, ==, 0);
    CHECK(after.cached_now, >=, bytes);
    CHECK(after.committed_now, ==, after.cached_now);
    CHECK(after.live_peak, >=, 8 * MIB);

    zkn_stats_t small = {.size = 16};
    CHECK(zkn_stats_get(&small), ==, -EINVAL);

    char text[8192], cut[32];
    int length = zkn_stats_json(text, sizeof text);
    CHECK(length, ==, strlen(text));
    CHECK_TRUE(text[0] == '{' && text[length - 1] == '}');
    CHECK(zkn_stats_json(cut, sizeof cut), ==, length);
    CHECK(strlen(cut), ==, sizeof cut - 1);
    CHECK(zkn_stats_json(NULL, 0), ==, length);
}

static void test_control(void)
{
    char *ptr = zkn_alloc(64 * MIB);
    memset(ptr, 1, 64 * MIB);
    zkn_free(ptr);
    CHECK(zkn_soften_cache(), >=, 64 * MIB);
    CHECK(stats_now().soft_now, >=, 64 * MIB);
    ptr = zkn_calloc(1, 64 * MIB);
    CHECK_TRUE(is_zero(ptr, 64 * MIB));
    memset(ptr, 1, 64 * MIB);
    zkn_free(ptr);

    size_t resident = proc_status("RssAnon");
    CHECK(zkn_release_cache(), >=, 64 * MIB);
    CHECK(proc_status("RssAnon") + 60 * MIB, <, resident);
    CHECK(stats_now().cached_now, ==, 0);
    CHECK(zkn_release_cache(), ==, 0);
}

int main(void)
{
    CHECK_TRUE(strcmp(zkn_version(), ZKN_VERSION_STRING) == 0);
    test_sizes();
    test_errors();
    test_calloc();
    test_aligned();
    test_realloc();
    test_relocation();
    test_stats();
    test_control();
    CHECK(stats_now().live_now, ==, 0);
    return 0;
}

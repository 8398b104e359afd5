/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * No zeroed memory holds what another owner wrote, whichever way it comes:
 * from a magazine, cleared; sparse, with the pages that its last owner left or
 * without; moved together from under others' runs; softened, given back, grown,
 * wiped, poisoned, from the system.  The counters say that the way was taken;
 * the same goes on under each option that changes ways.
 */
#include <errno.h>

#include "cases.h"

#define MIB ((size_t)1 << 20)

/* All of it is zero, and then all of it is its owner's. */
static char *take(size_t size)
{
    char *ptr = zkn_calloc(1, size);
    CHECK_TRUE(is_zero(ptr, size));
    memset(whole(ptr), 0xab, zkn_usable_size(ptr));
    return ptr;
}

static void leave(size_t size)
{
    char *ptr = zkn_alloc(size);
    memset(whole(ptr), 0xcd, zkn_usable_size(ptr));
    zkn_free(ptr);
}

/* Of two that are freed the first tells the magazine the size, the second stays
 * in it: one that was new, and known to be zero, when it was given out. */
static void from_magazine(void)
{
    for (size_t size = ZKN_THRESHOLD; size <= MIB; size *= 2) {
        uint64_t hits = stats_now().magazine_hits;
        zkn_release_cache();
        char *fresh = take(size), *other = take(size);
        zkn_free(other);
        zkn_free(fresh);
        for (int i = 0; i < 4; i++)
            zkn_free(take(size));
        CHECK(stats_now().magazine_hits, >, hits);
    }
}

static void cleared(void)
{
    zkn_stats_t was = stats_now();
    leave(40 * MIB);
    for (size_t size = 200 << 10; size < 60 * MIB; size += size / 3) {
        zkn_free(take(size)); /* from 40 MiB on, used pages and new ones */
        leave(size);
    }
    zkn_stats_t now = stats_now();
    CHECK(now.bytes_cleared - was.bytes_cleared + now.bytes_spread -
              was.bytes_spread,
          >=, 60 * MIB);
}

/* One byte on some pages of it, on others next time, and on too many of them
 * once in a while. */
static void sparse(void)
{
    enum { N = 8 };
    const size_t size = 6 * MIB;
    uint64_t takes = stats_now().sparse_takes, seed = 3;
    uint64_t drops = stats_now().sparse_drops;
    char *ptrs[N];
    zkn_release_cache(); /* what is resident would be used first */
    for (int round = 0; round < 30; round++) {
        for (int i = 0; i < N; i++) {
            ptrs[i] = zkn_calloc(1, size);
            CHECK_TRUE(is_zero(ptrs[i], size));
        }
        for (int i = 0; i < N; i++) {
            int hits = round % 10 == 9 ? 3000 : 20;
            for (int j = 0; j < hits; j++)
                ptrs[i][random_next(&seed) % size] = 1;
            zkn_free(ptrs[i]);
        }
    }
    CHECK(stats_now().sparse_takes, >, takes);
    CHECK(stats_now().sparse_drops, >, drops);
}

static void moved(void)
{
    enum { N = 32 };
    uint64_t bytes = stats_now().bytes_moved;
    char *ptrs[N];
    for (int i = 0; i < N; i++)
        ptrs[i] = take(8 * MIB);
    for (int i = 0; i < N; i += 2)
        zkn_free(ptrs[i]);
    char *big = take(N / 2 * 7 * MIB), *other = take(3 * MIB);
    if (!under_valgrind())
        CHECK(stats_now().bytes_moved, >, bytes);
    zkn_free(big);
    zkn_free(other);
    zkn_free(take(N / 2 * 7 * MIB));
    for (int i = 1; i < N; i += 2)
        zkn_free(ptrs[i]);
}

static void softened_and_released(void)
{
    leave(48 * MIB);
    CHECK(zkn_soften_cache(), >=, 48 * MIB);
    zkn_free(take(30 * MIB));
    leave(48 * MIB);
    CHECK(zkn_release_cache(), >=, 48 * MIB);
    zkn_free(take(64 * MIB));
}

/* A region that changed its size leaves more, or less, than it was. */
static void resized(void)
{
    for (size_t size = ZKN_THRESHOLD; size <= 32 * MIB; size *= 4) {
        char *ptr = take(size);
        ptr = zkn_realloc(ptr, 2 * size + 5000);
        memset(whole(ptr), 0xef, zkn_usable_size(ptr));
        char *behind = take(size);
        ptr = zkn_realloc(ptr, size + ZKN_THRESHOLD);
        zkn_free(take(size));
        zkn_free(ptr);
        zkn_free(take(3 * size));
        zkn_free(behind);
    }
}

static void in_a_child(void)
{
    leave(16 * MIB);
    leave(ZKN_THRESHOLD * 3);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        zkn_free(take(16 * MIB));
        zkn_free(take(ZKN_THRESHOLD * 3));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
}

/* ------------------------------------------------------------------- cases */

static void by_default(void)
{
    from_magazine();
    sparse();
    cleared();
    moved();
    softened_and_released();
    resized();
    in_a_child();
}

/* Whatever ways the option leaves. */
static void whatever(void)
{
    uint64_t seed = 5;
    char *ptrs[16] = {NULL};
    for (int i = 0; i < (under_valgrind() ? 200 : 600); i++) {
        size_t n = random_next(&seed) % 16;
        size_t size = ZKN_THRESHOLD << random_next(&seed) % 7;
        size += random_next(&seed) % size;
        zkn_free(ptrs[n]);
        ptrs[n] = NULL;
        if (i % 3 == 0)
            leave(size);
        else
            ptrs[n] = take(size);
        if (i % 100 == 50)
            zkn_soften_cache();
        if (i % 100 == 99)
            zkn_release_cache();
    }
    for (int n = 0; n < 16; n++)
        zkn_free(ptrs[n]);
    resized();
    in_a_child();
}

static const struct test_case cases[] = {
    {"by default", by_default},
    {"not sparse", whatever, {"ZK_NALLOC_SPARSE=0"}},
    {"left to threads", by_default, {"ZK_NALLOC_SPREAD=1000000"}},
    {"no huge pages", whatever, {"ZK_NALLOC_THP=0"}},
    {"no magazines", whatever, {"ZK_NALLOC_MAGAZINE_BYTES=0"}},
    {"no cache", whatever, {"ZK_NALLOC_CACHE_BYTES=0"}},
    {"no colours", whatever, {"ZK_NALLOC_COLOUR=0"}},
    {"populated", whatever, {"ZK_NALLOC_POPULATE=1"}},
    {"wiped", whatever, {"ZK_NALLOC_WIPE=1"}},
    {"poisoned", whatever, {"ZK_NALLOC_DEBUG=poison"}},
    {"unmapped", whatever, {"ZK_NALLOC_DEBUG=unmap"}},
    {"guarded, wiped", whatever, {"ZK_NALLOC_DEBUG=guard", "ZK_NALLOC_WIPE=1"}},
    {"from the system", whatever, {"ZK_NALLOC_RESERVE_BYTES=0"}},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}

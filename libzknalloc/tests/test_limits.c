/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Each fall-back, forced: limits, options, system calls that the kernel
 * refuses.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "cases.h"
#include "zknalloc_private.h"

#define MIB ((size_t)1 << 20)

/* ------------------------------------------------------------------ cases */

static void no_reservation(void)
{
    void *ptr = zkn_alloc(MIB);
    CHECK_TRUE(ptr != NULL);
    CHECK(zkn_owns(ptr), ==, 0);
    ptr = zkn_realloc(ptr, 2 * MIB);
    CHECK_TRUE(ptr != NULL && zkn_usable_size(ptr) >= 2 * MIB);
    zkn_free(ptr);
    char *zero = zkn_calloc(1, MIB);
    CHECK_TRUE(is_zero(zero, MIB));
    CHECK((uintptr_t)zero % 64, ==, 0);
    zkn_free(zero);
    CHECK(stats_now().fallback_system, ==, 2); /* one was resized */
    CHECK(stats_now().hits + stats_now().misses, ==, 0);
    CHECK(zkn_release_cache() + zkn_soften_cache(), ==, 0);
}

static void address_space_limit(void)
{
    CHECK(stats_now().fallback_reserve, >, 0);
    use(64 * MIB);
    CHECK(stats_now().fallback_system, ==, 0);
    /* More than is reserved: the system's turn, and its answer. */
    void *ptr = zkn_alloc((size_t)900 * MIB);
    CHECK(stats_now().fallback_system, ==, 1);
    zkn_free(ptr);
    errno = 0;
    CHECK_TRUE(zkn_alloc((size_t)4000 * MIB) == NULL);
    CHECK(errno, ==, ENOMEM);
}

/* New memory is there before it is touched; where the kernel cannot do that, it
 * comes as ever. */
static void populated(void)
{
    size_t before = proc_status("RssAnon");
    char *ptr = zkn_alloc(64 * MIB);
    CHECK(proc_status("RssAnon") - before, >=, 63 * MIB);
    zkn_free(ptr);
    zkn_release_cache();
    deny(SYS_madvise, 2, MADV_POPULATE_WRITE);
    use(64 * MIB);
}

static void no_cache(void)
{
    use(64 * MIB);
    use(MIB);
    CHECK(stats_now().cached_now, ==, 0);
    CHECK(stats_now().bytes_evicted, >=, 65 * MIB);
}

static void small_cache(void)
{
    use(64 * MIB);
    for (int i = 0; i < 20; i++)
        use(MIB);
    CHECK(stats_now().cached_now, <=, 16 * MIB);
    CHECK(stats_now().cached_now, >, 0);
}

static void no_huge_pages(void)
{
    char *ptr = zkn_alloc(64 * MIB);
    memset(ptr, 1, 64 * MIB);
    CHECK(huge_bytes(), <, 2 * MIB);
    zkn_free(ptr);
    use(64 * MIB);
    CHECK(stats_now().hits, ==, 1);
}

static void bad_options(void)
{
    use(MIB); /* what stderr says is checked by the parent */
}

/* Free runs that are long enough only together: with mremap() they are moved,
 * without it they are given back and asked for again. */
static void fragmented(void)
{
    enum { N = 64 };
    char *ptrs[N];
    for (int i = 0; i < N; i++) {
        ptrs[i] = zkn_alloc(8 * MIB);
        memset(ptrs[i], i, 8 * MIB);
    }
    for (int i = 0; i < N; i += 2)
        zkn_free(ptrs[i]);
    use((size_t)N / 2 * 7 * MIB);
    zkn_stats_t now = stats_now();
    CHECK(now.committed_now, <=, now.live_peak + now.live_peak / 24 + 8 * MIB);
    for (int i = 1; i < N; i += 2) {
        for (size_t at = 0; at < 8 * MIB; at += 4096)
            CHECK(ptrs[i][at], ==, i);
        zkn_free(ptrs[i]);
    }
}

static void moves(void)
{
    if (under_valgrind())
        skip("valgrind refuses moves");
    fragmented();
    CHECK(stats_now().bytes_moved, >=, 100 * MIB);
    CHECK(stats_now().fallback_move, ==, 0);
}

static void no_mremap(void)
{
    deny(SYS_mremap, -1, 0);
    fragmented();
    CHECK(stats_now().bytes_moved, ==, 0);
    CHECK(stats_now().fallback_move, >, 0);
    CHECK(stats_now().bytes_evicted, >, 0);
}

static void no_madvise(void)
{
    deny(SYS_madvise, -1, 0);
    use(64 * MIB);
    use(64 * MIB);
    CHECK(zkn_release_cache() + zkn_soften_cache(), ==, 0);
    CHECK(stats_now().fallback_advise, >=, 2);
    CHECK(stats_now().cached_now, >=, 64 * MIB);
}

static void no_mprotect(void)
{
    use(MIB);
    deny(SYS_mprotect, -1, 0);
    void *ptr = zkn_alloc(512 * MIB);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr));
    zkn_free(ptr);
    CHECK(stats_now().fallback_system, ==, 1);
    use(MIB); /* what it has it goes on using */
}

/* A request that the kernel refuses must not cost the cache its growth. */
static void refused_growth(void)
{
    struct rlimit limit = {1024 * MIB, 1024 * MIB};
    if (SANITIZED)
        skip("the sanitizers need data");
    CHECK(setrlimit(RLIMIT_DATA, &limit), ==, 0);
    for (int i = 0; i < 3; i++) {
        CHECK_TRUE(zkn_alloc((size_t)20 << 30) == NULL);
        void *ptr = zkn_alloc((size_t)(i + 1) * 100 * MIB);
        CHECK_TRUE(ptr != NULL && zkn_owns(ptr));
        zkn_free(ptr);
        zkn_release_cache();
    }
}

/* ------------------------------------------------- a limit that is lowered */

static void limit_address_space(size_t bytes)
{
    struct rlimit limit = {bytes, bytes};
    CHECK(syscall(SYS_prlimit64, 0, RLIMIT_AS, &limit, NULL), ==, 0);
}

/* Small blocks of SIZE bytes together, which the system has to find. */
static void use_small(size_t size)
{
    enum { BLOCK = 32 << 10 };
    void **last = NULL;
    for (size_t done = 0; done < size; done += BLOCK) {
        void **block = malloc(BLOCK);
        CHECK_TRUE(block != NULL);
        *block = last;
        last = block;
    }
    while (last != NULL) {
        void **next = *last;
        free(last);
        last = next;
    }
}

/* The reservation, of which nearly nothing was used, makes room. */
static void lowered_limit(void)
{
    if (SANITIZED)
        skip("the sanitizers need address space");
    char *kept = zkn_alloc(32 * MIB);
    memset(kept, 7, 32 * MIB);
    use(64 * MIB);
    CHECK(proc_status("VmSize"), >, 8192 * MIB);
    zkn_private_limited(); /* no limit, no change */
    CHECK(proc_status("VmSize"), >, 8192 * MIB);

    limit_address_space(1024 * MIB);
    zkn_private_limited();
    CHECK(proc_status("VmSize"), <, 640 * MIB);
    use_small(256 * MIB);
    char *more = zkn_alloc(128 * MIB); /* and some of it is the heap's still */
    CHECK_TRUE(more != NULL && zkn_owns(more));
    memset(more, 8, 128 * MIB);

    /* The next limit is what is mapped just now.  There is no room at all, and
     * what the heap has untouched is the only room to be had. */
    size_t mapped = proc_status("VmSize");
    limit_address_space(mapped);
    zkn_private_limited();
    CHECK(proc_status("VmSize"), <, mapped - 32 * MIB);
    use_small(32 * MIB);

    /* Nobody's pages were touched, and what is cached serves on. */
    CHECK_TRUE(kept[0] == 7 && memcmp(kept, kept + 1, 32 * MIB - 1) == 0);
    CHECK_TRUE(more[0] == 8 && memcmp(more, more + 1, 128 * MIB - 1) == 0);
    zkn_free(kept);
    zkn_free(more);
    for (int i = 0; i < 300; i++)
        zkn_free(zkn_alloc(ZKN_THRESHOLD * (size_t)(1 + i % 32)));
    uint64_t misses = stats_now().misses;
    use(128 * MIB);
    CHECK(stats_now().misses, ==, misses);
}

/* Another process may lower it, too: the watcher notices. */
static void lowered_from_outside(void)
{
    if (SANITIZED)
        skip("the sanitizers need address space");
    use(96 * MIB); /* starts the watcher */
    limit_address_space(2048 * MIB);
    for (int i = 0; i < 600 && proc_status("VmSize") > 2048 * MIB; i++)
        usleep(100 * 1000);
    CHECK(proc_status("VmSize"), <=, 2048 * MIB);
    use_small(256 * MIB);
}

/* One region that the program locked and freed must not stop the others. */
static void locked_region(void)
{
    char *locked = zkn_alloc(4 * MIB), *middle = zkn_alloc(4 * MIB);
    char *other = zkn_alloc(64 * MIB), *last = zkn_alloc(4 * MIB);
    if (mlock(locked, MIB) != 0)
        skip("no memory may be locked");
    memset(other, 1, 64 * MIB);
    zkn_free(locked);
    zkn_free(other);
    CHECK(zkn_release_cache(), >=, 60 * MIB);
    zkn_free(middle);
    zkn_free(last);
}

/* The mappings in the heap's address space. */
static size_t mappings(void)
{
    return mappings_within(zkn_private_range.base, zkn_private_range.size, 1,
                           NULL);
}

/* Releasing between moves must leave each huge page one mapping; and where one
 * region had all of the heap, releasing that leaves one of all, and what is not
 * accessible behind it. */
static void moves_and_releases(void)
{
    enum { N = 64 };
    if (under_valgrind())
        skip("valgrind refuses moves");
    char *ptrs[N] = {NULL};
    uint64_t seed = 5;
    size_t most = 0;
    use((size_t)N * 4 * MIB);
    zkn_stage_boundary(); /* its peak is forgotten */
    CHECK(mappings(), ==, 2);
    for (int i = 0; i < 8000; i++) {
        size_t n = random_next(&seed) % N;
        if (ptrs[n] != NULL) {
            CHECK(*ptrs[n], ==, (char)n);
            zkn_free(ptrs[n]);
            ptrs[n] = NULL;
        } else {
            size_t size = ZKN_THRESHOLD + random_next(&seed) % (6 * MIB);
            ptrs[n] = zkn_alloc(size);
            *ptrs[n] = (char)n;
        }
        if (i % 400 == 0) {
            most = mappings() > most ? mappings() : most;
            zkn_release_cache();
        }
        if (i % 400 == 200)
            zkn_soften_cache();
    }
    CHECK(stats_now().bytes_moved, >, 0);
    CHECK(stats_now().fallback_move, ==, 0);
    CHECK(most, >, 2);
    for (size_t n = 0; n < N; n++)
        zkn_free(ptrs[n]);
    use((size_t)N * 4 * MIB);
    zkn_release_cache();
    CHECK(mappings(), ==, 2);
}

static void locked_memory(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        skip("no memory may be locked");
    /* The reservation must not be populated, nor the metadata for it. */
    CHECK(proc_status("VmLck"), <, (size_t)1 << 40);
    use(32 * MIB);
    CHECK(proc_status("VmRSS"), <, 256 * MIB);
    use(32 * MIB);
    CHECK(stats_now().hits, ==, 1);
}

static const struct test_case cases[] = {
    {"no reservation", no_reservation, {"ZK_NALLOC_RESERVE_BYTES=0"}},
    {"no room to reserve", no_reservation, .address_space = 300 * MIB},
    {"little address space", address_space_limit, .address_space = 1600 * MIB},
    {"populated", populated, {"ZK_NALLOC_POPULATE=1"}},
    {"no cache", no_cache, {"ZK_NALLOC_CACHE_BYTES=0"}},
    {"small cache", small_cache, {"ZK_NALLOC_CACHE_BYTES=16M"}},
    {"no huge pages", no_huge_pages, {"ZK_NALLOC_THP=off"}},
    {"bad size",
     bad_options,
     {"ZK_NALLOC_CACHE_BYTES=12Q"},
     .words = "ZK_NALLOC_CACHE_BYTES=12Q is not a number in range, such as "
              "512M; keeping the default"},
    {"size too large",
     bad_options,
     {"ZK_NALLOC_MAGAZINE_BYTES=9999G"},
     .words = "ZK_NALLOC_MAGAZINE_BYTES=9999G is not a number in range, such "
              "as 512M; keeping the default"},
    {"bad flag",
     bad_options,
     {"ZK_NALLOC_THP=perhaps"},
     .words = "ZK_NALLOC_THP=perhaps is not yes or no; keeping the default"},
    {"lowered limit", lowered_limit},
    {"lowered from outside", lowered_from_outside},
    {"moves", moves},
    {"no mremap", no_mremap},
    {"no madvise", no_madvise},
    {"no mprotect", no_mprotect},
    {"locked memory", locked_memory},
    {"locked region", locked_region},
    {"refused growth", refused_growth},
    /* no watcher, which might be at a part of it when mappings are counted */
    {"moves and releases", moves_and_releases, {"ZK_NALLOC_IDLE_SECONDS=0"}},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}

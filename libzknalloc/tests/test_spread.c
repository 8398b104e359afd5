/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Large zeroed memory that is left to the threads that touch it: zero whoever
 * had it before, not resident until then, and cleared as ever where huge pages
 * are not to be had, too dear, or not to be told from small ones.
 *
 * ZK_NALLOC_SPREAD=1000000 allows any price; without sparse regions each
 * request but the first gets memory that was used.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "cases.h"
#include "os.h"

#define MIB     ((size_t)1 << 20)
#define SIZE    (64 * MIB)
#define THREADS 4

#define ANY_PRICE "ZK_NALLOC_SPREAD=1000000"
#define DENSE     "ZK_NALLOC_SPARSE=0"

/* Leave used memory behind, of which it is known what clearing it costs. */
static void leave_used(void)
{
    for (int i = 0; i < 3; i++) {
        char *ptr = zkn_calloc(1, SIZE);
        CHECK_TRUE(ptr != NULL);
        memset(whole(ptr), 0x5a, SIZE);
        zkn_free(ptr);
    }
}

static char *take(uint64_t *spread, uint64_t *cleared)
{
    zkn_stats_t before = stats_now();
    char *ptr = zkn_calloc(1, SIZE);
    CHECK_TRUE(ptr != NULL);
    *spread = stats_now().bytes_spread - before.bytes_spread;
    *cleared = stats_now().bytes_cleared - before.bytes_cleared;
    return ptr;
}

static void need_huge_pages(void)
{
    if (!os_huge_pages())
        skip("the kernel uses no huge pages");
    char *ptr = zkn_alloc(SIZE);
    memset(whole(ptr), 1, SIZE);
    bool huge = huge_bytes() >= SIZE / 2;
    zkn_free(ptr);
    if (!huge)
        skip("the kernel has no huge pages just now");
}

static void *check_and_fill(void *part)
{
    CHECK_TRUE(is_zero(part, SIZE / THREADS));
    memset(part, 0x77, SIZE / THREADS);
    return NULL;
}

static void by_threads(void)
{
    need_huge_pages();
    leave_used();
    for (int round = 0; round < 4; round++) {
        uint64_t spread, cleared;
        size_t before = proc_status("VmRSS");
        char *ptr = take(&spread, &cleared);
        /* All but the ends, and resident of that the page of the trial.  The
         * sanitizers have memory of their own, and page faults for it. */
        if (!SANITIZED || round == 0)
            CHECK(spread, >=, SIZE - 4 * MIB);
        CHECK_TRUE((cleared == 0) == (spread > 0));
        if (!SANITIZED)
            CHECK(proc_status("VmRSS") + SIZE - 8 * MIB, <, before);
        pthread_t threads[THREADS];
        for (size_t i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, check_and_fill,
                                 ptr + i * (SIZE / THREADS)),
                  ==, 0);
        for (size_t i = 0; i < THREADS; i++)
            CHECK(pthread_join(threads[i], NULL), ==, 0);
        zkn_free(ptr);
    }
}

/* Who touches all of it alone gains nothing, and has it cleared. */
static void by_one_thread(void)
{
    need_huge_pages();
    leave_used();
    unsigned given = 0;
    for (int i = 0; i < 40; i++) {
        uint64_t spread, cleared;
        char *ptr = take(&spread, &cleared);
        given += spread > 0;
        check_and_fill(ptr);
        memset(ptr, 0x5a, SIZE);
        zkn_free(ptr);
    }
    /* The 1st, 3rd, 6th, 11th, 20th and 37th. */
    CHECK(given, >=, 1);
    CHECK(given, <=, 6);
}

/* With a region's usual learning, too, and sizes and starts of all kinds. */
static void all_sizes(void)
{
    need_huge_pages();
    uint64_t seed = 11;
    for (int i = 0; i < 60; i++) {
        size_t size = 8 * MIB + random_next(&seed) % (40 * MIB);
        char *kept = zkn_alloc(ZKN_THRESHOLD + random_next(&seed) % MIB);
        char *ptr = zkn_calloc(1, size);
        CHECK_TRUE(kept != NULL && is_zero(ptr, size));
        memset(whole(ptr), 0x33, zkn_usable_size(ptr));
        zkn_free(ptr);
        zkn_free(kept);
    }
    CHECK(stats_now().bytes_spread, >, 0);
}

/* What clearing costs is measured again now and then. */
static void remeasured(void)
{
    need_huge_pages();
    leave_used();
    unsigned was_cleared = 0;
    for (int i = 0; i < 70; i++) {
        uint64_t spread, cleared;
        char *ptr = take(&spread, &cleared);
        CHECK_TRUE((spread == 0) == (cleared == SIZE));
        was_cleared += cleared > 0;
        zkn_free(ptr);
    }
    CHECK(was_cleared, ==, 2);
}

static void expect_cleared(unsigned requests)
{
    for (unsigned i = 0; i < requests; i++) {
        uint64_t spread, cleared;
        char *ptr = take(&spread, &cleared);
        CHECK(spread, ==, 0);
        CHECK(cleared, ==, SIZE);
        CHECK_TRUE(is_zero(ptr, SIZE));
        memset(whole(ptr), 0x5a, SIZE);
        zkn_free(ptr);
    }
}

static void never(void)
{
    leave_used();
    uint64_t calls = stats_now().syscalls_advise;
    expect_cleared(4);
    CHECK(stats_now().syscalls_advise, ==, calls);
}

/* The default, where a process has one CPU. */
static void one_cpu(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)sched_getcpu(), &set);
    CHECK(sched_setaffinity(0, sizeof set, &set), ==, 0);
    never();
}

/* Each trial fails: the first, the 3rd, the 6th, the 11th request, and so on.
 */
static void rarely_tried(void)
{
    leave_used();
    uint64_t calls = stats_now().syscalls_advise;
    expect_cleared(20);
    CHECK(stats_now().syscalls_advise - calls, >=, 1);
    CHECK(stats_now().syscalls_advise - calls, <=, 5);
}

/* A trial is not mistaken where small pages come quickly.  Only two variables
 * fit a row, so the first requests may be sparse. */
static void small_pages(void)
{
    leave_used();
    leave_used();
    expect_cleared(4);
}

static void locked(void)
{
    if (SANITIZED)
        skip("the sanitizers do nothing in place of mlockall()");
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        skip("no memory may be locked");
    uint64_t refused = stats_now().fallback_advise;
    rarely_tried();
    CHECK(stats_now().fallback_advise, >, refused);
}

/* No page table can be looked at, so huge pages are not told from small. */
static void blind(void)
{
    leave_used();
    struct rlimit limit, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = (struct rlimit){0, limit.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    expect_cleared(3);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
}

static size_t announced;

static int on_map(void *ctx, void *addr, size_t length)
{
    (void)ctx, (void)addr;
    announced += length;
    return 0;
}

static void on_unmap(void *ctx, void *addr, size_t length)
{
    (void)ctx, (void)addr;
    announced -= length;
}

/* What is registered with a device stays where it is. */
static void registered(void)
{
    CHECK(zkn_set_region_hooks(on_map, on_unmap, NULL), ==, 0);
    leave_used();
    expect_cleared(3);
    CHECK(announced, >=, SIZE);
}

static const struct test_case cases[] = {
    {"by threads", by_threads, {ANY_PRICE, DENSE}},
    {"by one thread", by_one_thread, {ANY_PRICE, DENSE}},
    {"all sizes", all_sizes, {ANY_PRICE}},
    {"remeasured", remeasured, {ANY_PRICE, DENSE}},
    {"never", never, {"ZK_NALLOC_SPREAD=0", DENSE}},
    {"one CPU", one_cpu, {DENSE}},
    {"too dear", rarely_tried, {"ZK_NALLOC_SPREAD=1", DENSE}},
    {"small pages", small_pages, {ANY_PRICE, "ZK_NALLOC_THP=0"}},
    {"locked", locked, {ANY_PRICE, DENSE}},
    {"blind", blind, {ANY_PRICE, DENSE}},
    {"registered", registered, {ANY_PRICE, DENSE}},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Zeroed memory: what is used sparsely stays in small pages, what is used
 * whole ends in huge ones, and whatever was left in a region, the next owner
 * reads zeros.  Every case runs in a process of its own, since what sizes are
 * used for is learned.
 */
#include <sched.h>
#include <sys/mman.h>

#include "cases.h"
#include "heap.h"

#define MIB     ((size_t)1 << 20)
#define WINDOW  (6 * MIB)
#define WINDOWS 16

/* The sanitizers add memory of their own to the program's. */
#define CHECK_MEMORY(bytes, most)                                              \
    CHECK(bytes, <, SANITIZED ? SIZE_MAX / 2 : (size_t)(most))

static char *windows[WINDOWS];
static uint64_t seed = 7;

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* A round of a bucket method: PER_CENT of each window's pages are hit, from
 * the page on that START gives. */
static void bucket_round(unsigned per_cent, bool repeat)
{
    size_t pages = WINDOW / page_size(), hit = pages * per_cent / 100;
    uint64_t again = 99;
    for (size_t w = 0; w < WINDOWS; w++)
        CHECK_TRUE((windows[w] = zkn_calloc(1, WINDOW)) != NULL);
    for (size_t w = 0; w < WINDOWS; w++) {
        for (size_t i = 0; i < hit; i++) {
            size_t page = random_next(repeat ? &again : &seed) % pages;
            windows[w][page * page_size() + page % 4000]++;
        }
    }
    for (size_t w = 0; w < WINDOWS; w++)
        zkn_free(windows[w]);
}

/* Each window is zero, all of it. */
static void check_zero(void)
{
    for (size_t w = 0; w < WINDOWS; w++) {
        windows[w] = zkn_calloc(1, WINDOW);
        CHECK_TRUE(is_zero(windows[w], WINDOW));
    }
    for (size_t w = 0; w < WINDOWS; w++)
        zkn_free(windows[w]);
}

static void same_places(void)
{
    size_t before = proc_status("VmRSS");
    for (int i = 0; i < 4; i++)
        bucket_round(5, true);
    long faults = minor_faults();
    uint64_t cleared = stats_now().bytes_cleared;
    for (int i = 0; i < 10; i++)
        bucket_round(5, true);
    CHECK(minor_faults() - faults, <, 10);
    CHECK(stats_now().bytes_cleared - cleared, <=, 10 * WINDOWS * WINDOW / 20);
    CHECK(stats_now().sparse_takes, ==, 14 * WINDOWS);
    CHECK_MEMORY(proc_status("VmHWM") - before, WINDOWS * WINDOW / 10);
    check_zero();
}

static void new_places(void)
{
    size_t before = proc_status("VmRSS");
    for (int i = 0; i < 40; i++)
        bucket_round(1, false);
    CHECK_MEMORY(proc_status("VmHWM") - before, WINDOWS * WINDOW / 5);
    check_zero();
}

static void everything(void)
{
    for (int i = 0; i < 6; i++)
        bucket_round(400, false);
    uint64_t sparse = stats_now().sparse_takes;
    long faults = minor_faults();
    for (int i = 0; i < 10; i++)
        bucket_round(400, false);
    CHECK(stats_now().sparse_takes - sparse, ==, 0);
    CHECK(minor_faults() - faults, <, 10);
    check_zero();
}

/* A program that writes each buffer before it asks for the next pays for one
 * probe, not for all. */
static void one_by_one(void)
{
    char *columns[8];
    for (int i = 0; i < 8; i++) {
        CHECK_TRUE((columns[i] = zkn_calloc(1, 8 * MIB)) != NULL);
        memset(columns[i], 1, 8 * MIB);
    }
    CHECK(stats_now().sparse_takes, ==, 1);
    for (int i = 0; i < 8; i++)
        zkn_free(columns[i]);
    /* So are other sizes taken to be, then. */
    zkn_free(zkn_calloc(1, 48 * MIB));
    CHECK(stats_now().sparse_takes, ==, 1);
}

/* Dense first, sparse later: found out by what freed regions hold. */
static void changes(void)
{
    for (int i = 0; i < 40; i++) {
        char *ptr = zkn_calloc(1, WINDOW);
        memset(ptr, 1, WINDOW);
        zkn_free(ptr);
    }
    uint64_t sparse = stats_now().sparse_takes;
    for (int i = 0; i < 2000; i++) {
        char *ptr = zkn_calloc(1, WINDOW);
        CHECK(ptr[WINDOW / 2], ==, 0);
        ptr[WINDOW / 2] = 1;
        zkn_free(ptr);
    }
    CHECK(stats_now().sparse_takes - sparse, >, 100);
    /* And dense again. */
    for (int i = 0; i < 10; i++) {
        char *ptr = zkn_calloc(1, WINDOW);
        CHECK_TRUE(is_zero(ptr, WINDOW));
        memset(ptr, 1, WINDOW);
        zkn_free(ptr);
    }
    sparse = stats_now().sparse_takes;
    for (int i = 0; i < 10; i++)
        zkn_free(zkn_calloc(1, WINDOW));
    CHECK(stats_now().sparse_takes - sparse, ==, 0);
}

static void resized(void)
{
    char *ptr = zkn_calloc(1, WINDOW);
    CHECK(region_of(ptr)->sparse, ==, 1);
    ptr[0] = ptr[WINDOW - 1] = 7;
    for (size_t size = 2 * WINDOW; size <= 16 * WINDOW; size *= 2) {
        ptr = zkn_realloc(ptr, size);
        CHECK_TRUE(ptr != NULL && ptr[0] == 7 && ptr[WINDOW - 1] == 7);
        CHECK_TRUE(is_zero(ptr + 1, WINDOW - 2));
        ptr[size - 1] = 9;
    }
    if (!under_valgrind())
        CHECK(stats_now().bytes_moved, >=, (1 + 2 + 4 + 8) * WINDOW);
    ptr = zkn_realloc(ptr, MIB);
    CHECK_TRUE(ptr[0] == 7 && is_zero(ptr + 1, MIB - 1));
    CHECK_MEMORY(proc_status("RssAnon"), 8 * MIB);
    zkn_free(ptr);
    ptr = zkn_calloc(1, 16 * WINDOW);
    CHECK_TRUE(is_zero(ptr, 16 * WINDOW));
    zkn_free(ptr);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
}

/* What moves into a larger region is not counted twice, and a region that is
 * cut while it is on trial does not end all trials. */
static void resized_books(void)
{
    char *ptr = zkn_calloc(1, 16 * WINDOW);
    ptr = zkn_realloc(ptr, 20 * WINDOW);
    CHECK(stats_now().live_peak, <, 21 * WINDOW);
    zkn_free(ptr);
    for (int i = 0; i < 40; i++) {
        ptr = zkn_calloc(1, WINDOW);
        memset(ptr, 1, WINDOW);
        zkn_free(ptr);
    }
    uint64_t sparse = stats_now().sparse_takes;
    for (int i = 0; i < 3000; i++) {
        ptr = zkn_calloc(1, WINDOW);
        ptr[0] = 1;
        if (i < 1500)
            ptr = zkn_realloc(ptr, WINDOW / 2);
        zkn_free(ptr);
    }
    CHECK(stats_now().sparse_takes - sparse, >, 100);
}

/* Reading brings the kernel's page of zeros, which costs nothing to keep. */
static void only_read(void)
{
    for (int i = 0; i < 10; i++)
        check_zero();
    CHECK(stats_now().bytes_cleared, ==, 0);
    CHECK_MEMORY(proc_status("RssAnon"), 4 * MIB);
}

/* The child has its own page table; what it writes, it clears. */
static void forked(void)
{
    bucket_round(5, true);
    bucket_round(5, true);
    windows[0] = zkn_calloc(1, WINDOW);
    windows[0][5] = 1;
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        windows[0][MIB] = 1;
        zkn_free(windows[0]);
        check_zero();
        bucket_round(5, false);
        check_zero();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
    CHECK_TRUE(windows[0][5] == 1 && windows[0][MIB] == 0);
    zkn_free(windows[0]);
    check_zero();
}

/* All pages are resident at once: never sparse again, and zero all the same. */
static void locked(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        skip("no memory may be locked");
    for (int i = 0; i < 5; i++)
        bucket_round(1, true);
    check_zero();
    /* What a page costs cannot be measured here: tried once, not each time. */
    uint64_t calls = stats_now().syscalls_map;
    for (int i = 0; i < 100; i++)
        zkn_free(zkn_calloc(1, MIB));
    CHECK(stats_now().syscalls_map - calls, <, 10);
}

static void switched_off(void)
{
    bucket_round(1, true);
    bucket_round(1, true);
    check_zero();
    CHECK(stats_now().sparse_takes, ==, 0);
}

/* Descriptors run out: nothing can be looked at. */
static void blind(void)
{
    bucket_round(5, false);
    CHECK(stats_now().sparse_takes, >, 0);
    struct rlimit limit, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = (struct rlimit){0, limit.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    for (int i = 0; i < 5; i++)
        bucket_round(5, false);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    CHECK(stats_now().fallback_scan, >, 0);
    check_zero();
}

static void given_back(void)
{
    for (int i = 0; i < 4; i++)
        bucket_round(30, true);
    CHECK(stats_now().cached_now, >, WINDOWS * WINDOW / 5);
    CHECK(zkn_soften_cache(), >, WINDOWS * WINDOW / 5);
    check_zero();
    CHECK(zkn_release_cache(), >, 0);
    CHECK(stats_now().committed_now, ==, 0);
    /* The addresses serve any request again. */
    char *ptr = zkn_alloc(WINDOWS * WINDOW);
    memset(ptr, 1, WINDOWS * WINDOW);
    zkn_free(ptr);
    check_zero();
}

/* ------------------------------------------------------------------- cases */

static const struct test_case cases[] = {
    {"same places", same_places},
    {"same places, no huge pages", same_places, {"ZK_NALLOC_THP=0"}},
    {"new places", new_places},
    {"everything", everything},
    {"one by one", one_by_one},
    {"changes", changes},
    {"resized", resized},
    {"resized, books", resized_books},
    {"only read", only_read},
    {"forked", forked},
    {"locked", locked},
    {"switched off", switched_off, {"ZK_NALLOC_SPARSE=0"}},
    {"blind", blind},
    {"given back", given_back},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}

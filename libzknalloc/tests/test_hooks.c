/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Hooks: every region lies in one range that was announced, as a GPU's driver
 * wants it for a copy; each range is accessible, is taken back once and as it
 * was announced, and meanwhile nothing in it moves.
 */
#include <errno.h>
#include <sys/mman.h>

#include "heap.h"
#include "testing.h"

/* In headers since glibc 2.35. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define MIB    ((size_t)1 << 20)
#define RANGES 64

static struct {
    char *addr;
    size_t length;
} ranges[RANGES];
static size_t count, maps, unmaps;
static bool refuse, allocate;

static int on_map(void *ctx, void *addr, size_t length)
{
    CHECK_TRUE(ctx == &count);
    maps++;
    if (refuse)
        return 1;
    CHECK(count, <, RANGES);
    CHECK((uintptr_t)addr % (size_t)sysconf(_SC_PAGESIZE), ==, 0);
    for (size_t i = 0; i < count; i++)
        CHECK_TRUE((char *)addr + length < ranges[i].addr ||
                   ranges[i].addr + ranges[i].length < (char *)addr);
    /* Accessible from end to end; Linux before 5.14 cannot tell. */
    if (madvise(addr, length, MADV_POPULATE_READ) != 0)
        CHECK(errno, ==, EINVAL);
    /* As registering does: every page of it becomes resident. */
    CHECK(mlock(addr, 4096), ==, 0);
    ranges[count].addr = addr;
    ranges[count++].length = length;
    if (allocate) {
        allocate = false;
        zkn_free(zkn_alloc(MIB));
    }
    return 0;
}

static void on_unmap(void *ctx, void *addr, size_t length)
{
    CHECK_TRUE(ctx == &count);
    unmaps++;
    munlock(addr, 4096);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].addr == addr) {
            CHECK(ranges[i].length, ==, length);
            ranges[i] = ranges[--count];
            return;
        }
    }
    CHECK_TRUE(false); /* it was never announced */
}

static bool announced(const char *ptr, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)(ptr - ranges[i].addr);
        if (ptr >= ranges[i].addr && at < ranges[i].length)
            return at + size <= ranges[i].length;
    }
    return false;
}

static void *checked(size_t size, bool zeroed)
{
    char *ptr = zeroed ? zkn_calloc(1, size) : zkn_alloc(size);
    CHECK_TRUE(ptr != NULL && announced(ptr, size));
    if (zeroed)
        CHECK_TRUE(is_zero(ptr, size));
    memset(ptr, 1, size);
    return ptr;
}

static void churn(void)
{
    char *kept[24] = {0};
    uint64_t seed = 3;
    for (int i = 0; i < 600; i++) {
        size_t slot = random_next(&seed) % 24;
        zkn_free(kept[slot]);
        kept[slot] = checked((64 << 10) + random_next(&seed) % (9 * MIB),
                             random_next(&seed) % 3 == 0);
    }
    for (int i = 0; i < 24; i++)
        zkn_free(kept[i]);
}

/* Vectors that grow do not take ranges along round after round. */
static void grow_two(void)
{
    char *ptr[2] = {NULL, NULL};
    for (size_t size = MIB; size <= 32 * MIB; size *= 2) {
        for (int i = 0; i < 2; i++) {
            ptr[i] = zkn_realloc(ptr[i], size);
            CHECK_TRUE(ptr[i] != NULL && announced(ptr[i], size));
            memset(ptr[i], 1, size);
        }
    }
    zkn_free(ptr[0]);
    zkn_free(ptr[1]);
}

int main(void)
{
    CHECK(zkn_set_region_hooks(on_map, NULL, NULL), ==, -EINVAL);
    CHECK(zkn_set_region_hooks(NULL, on_unmap, NULL), ==, -EINVAL);
    CHECK(zkn_set_region_hooks(NULL, NULL, NULL), ==, 0);

    /* What is live before is announced, and refused if the program likes. */
    char *early = zkn_calloc(1, 6 * MIB);
    zkn_free(zkn_alloc(40 * MIB));
    refuse = true;
    CHECK(zkn_set_region_hooks(on_map, on_unmap, &count), ==, -ECANCELED);
    CHECK(maps, ==, 1);
    refuse = false;
    allocate = true;
    CHECK(zkn_set_region_hooks(on_map, on_unmap, &count), ==, 0);
    CHECK_TRUE(announced(early, 6 * MIB));
    CHECK(zkn_set_region_hooks(on_map, on_unmap, &count), ==, -EBUSY);
    zkn_free(early);

    uint64_t moved = stats_now().bytes_moved;
    churn();
    CHECK(stats_now().bytes_moved, ==, moved);
    CHECK(stats_now().bytes_evicted, ==, 0);
    CHECK(unmaps, ==, 0);
    grow_two();
    grow_two();
    size_t before = maps;
    for (int i = 0; i < 4; i++)
        grow_two();
    CHECK(maps, ==, before);
    for (size_t i = 1; i < count; i++)
        CHECK(ranges[i].length, >=, 32 * MIB);
    CHECK(zkn_soften_cache(), ==, 0);

    /* A range that is in use stays, the others go. */
    char *live = checked(MIB, false);
    size_t had = count;
    CHECK(zkn_release_cache(), >, 0);
    CHECK(unmaps, ==, had - 1);
    CHECK(count, ==, 1);
    CHECK_TRUE(announced(live, MIB) && live[MIB - 1] == 1);
    churn();

    /* Buffers that follow each other in one range, and just do not fit one:
     * each lies in one range all the same.  Nor does one grow into the next. */
    char *next[8];
    for (int i = 0; i < 8; i++)
        next[i] = checked(20 * MIB, false);
    for (int i = 0; i < 8; i++) {
        next[i] = zkn_realloc(next[i], 44 * MIB);
        CHECK_TRUE(next[i] != NULL && announced(next[i], 44 * MIB));
    }
    for (int i = 0; i < 8; i++)
        zkn_free(next[i]);
    churn();

    /* The child has none, and may set its own. */
    maps = unmaps = 0;
    pid_t child = fork();
    if (child == 0) {
        zkn_free(zkn_alloc(900 * MIB));
        zkn_release_cache();
        CHECK(maps + unmaps, ==, 0);
        count = 0;
        CHECK(zkn_set_region_hooks(on_map, on_unmap, &count), ==, 0);
        CHECK(count, ==, 1);
        CHECK_TRUE(announced(live, MIB));
        churn();
        CHECK(zkn_set_region_hooks(NULL, NULL, NULL), ==, 0);
        CHECK(unmaps, ==, maps);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);

    /* A refusal sends the request to the system. */
    refuse = true;
    uint64_t system = stats_now().fallback_system;
    char *ptr = zkn_alloc(800 * MIB);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr));
    CHECK(stats_now().fallback_system, ==, system + 1);
    zkn_free(ptr);
    refuse = false;

    had = count;
    unmaps = 0;
    CHECK(zkn_set_region_hooks(NULL, NULL, NULL), ==, 0);
    CHECK(unmaps, ==, had);
    CHECK(count, ==, 0);
    CHECK(live[0], ==, 1);
    zkn_free(live);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    maps = 0;
    zkn_free(zkn_alloc(64 * MIB));
    CHECK(maps, ==, 0);
    /* And from the start. */
    CHECK(zkn_set_region_hooks(on_map, on_unmap, &count), ==, 0);
    churn();
    zkn_release_cache();
    CHECK(zkn_set_region_hooks(NULL, NULL, NULL), ==, 0);
    CHECK(count, ==, 0);
    return 0;
}

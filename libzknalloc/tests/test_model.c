/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Random operations against a model: no two live regions overlap, contents
 * stay, zeroed means zero, alignment holds, and after every step the counters
 * add up and the budget is kept.  usage: test_model [operations [seed]]
 */
#include "heap.h"
#include "testing.h"
#include "tiling.h"

#define SLOTS 256

static struct slot {
    unsigned char *ptr;
    size_t size;
    size_t step; /* between painted bytes; not less than a page where sparse */
    unsigned char fill;
} slots[SLOTS];

static uint64_t seed;

static size_t pick(size_t n)
{
    return random_next(&seed) % n;
}

/* 64 KiB to 16 MiB, small ones more often, now and then a page more or less
 * than a power of two. */
static size_t pick_size(void)
{
    size_t size = ((size_t)64 << 10) << pick(8);
    size += pick(size);
    if (pick(4) == 0)
        size = ((size_t)1 << (17 + pick(7))) + pick(3) * 4096 - 4096;
    return size;
}

/* First, last and some bytes between: whole fills would only test memset. */
static void paint(struct slot *slot, unsigned char fill)
{
    slot->fill = fill;
    for (size_t at = 0; at < slot->size; at += slot->step)
        slot->ptr[at] = fill;
    slot->ptr[slot->size - 1] = fill;
}

static void check_paint(const struct slot *slot, size_t size)
{
    for (size_t at = 0; at < size; at += slot->step)
        CHECK(slot->ptr[at], ==, slot->fill);
}

static void check_overlap(const struct slot *slot)
{
    for (size_t i = 0; i < SLOTS; i++) {
        const struct slot *other = &slots[i];
        if (other != slot && other->ptr != NULL)
            CHECK_TRUE(other->ptr + other->size <= slot->ptr ||
                       slot->ptr + slot->size <= other->ptr);
    }
}

/* The invariants of tiling.c, on the whole heap. */
static void check_tiling(void)
{
    size_t dirty = 0, live = 0;
    const struct region *last = NULL;
    for (uint32_t page = 0; page < heap.top;) {
        struct region *region = region_at(page);
        CHECK(region->page, ==, page);
        CHECK_TRUE(region_at(page + region->pages - 1) == region);
        enum region_state state = state_of(region);
        CHECK(state, !=, REGION_SPARE);
        CHECK(state, !=, REGION_BUSY);
        if (is_free(region) && last != NULL)
            CHECK(state_of(last), !=, state);
        if (state == REGION_DIRTY || state == REGION_SPARSE)
            dirty += counted(region);
        else if (state == REGION_LIVE || state == REGION_HELD)
            live += counted(region);
        last = region;
        page += region->pages;
    }
    CHECK(dirty, ==, heap.dirty);
    CHECK(live, ==, heap.live);
    size_t aged = 0;
    for (struct region *r = heap.oldest; r != NULL; r = r->newer)
        aged += counted(r);
    CHECK(aged, ==, dirty);
}

static void check_counters(void)
{
    size_t live = 0, regions = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        if (slots[i].ptr != NULL) {
            regions++;
            if (!region_of(slots[i].ptr)->sparse)
                live += slots[i].size;
        }
    }
    zkn_stats_t now = stats_now();
    CHECK(now.regions_now, ==, regions);
    CHECK(now.live_now, >=, live);
    CHECK(now.live_now + now.cached_now, ==, now.committed_now);
    CHECK(now.hits + now.misses - now.frees, ==, regions);
    CHECK(now.committed_now, <=,
          now.live_peak + now.live_peak / 24 + (8 << 20));
}

static void allocate(struct slot *slot)
{
    size_t size = slot->size = pick_size();
    slot->step = 4093;
    switch (pick(4)) {
    case 0:
        /* Mostly used sparsely, and then of few sizes, so that they repeat. */
        if (pick(4) != 0) {
            size = slot->size = (size_t)1 << (18 + pick(6));
            slot->step = pick(2) == 0 ? size : 65521;
        }
        slot->ptr = zkn_calloc(1, size);
        CHECK_TRUE(slot->ptr != NULL);
        for (size_t at = 0; at < size; at += 509)
            CHECK(slot->ptr[at], ==, 0);
        CHECK(slot->ptr[size - 1], ==, 0);
        break;
    case 1: {
        size_t align = (size_t)1 << pick(24);
        slot->ptr = zkn_aligned_alloc(align, size);
        CHECK((uintptr_t)slot->ptr % align, ==, 0);
        break;
    }
    default:
        slot->ptr = zkn_alloc(size);
    }
    CHECK_TRUE(slot->ptr != NULL);
    CHECK(zkn_usable_size(slot->ptr), >=, size);
    check_overlap(slot);
    paint(slot, (unsigned char)random_next(&seed));
}

int main(int argc, char **argv)
{
    unsigned long operations = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000;
    seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 42;
    printf("%lu operations, seed %lu\n", operations, (unsigned long)seed);
    for (unsigned long i = 0; i < operations; i++) {
        struct slot *slot = &slots[pick(SLOTS)];
        if (slot->ptr == NULL) {
            if (pick(3) == 0)
                allocate(slot);
        } else if (pick(4) == 0) {
            size_t size = pick_size();
            slot->ptr = zkn_realloc(slot->ptr, size);
            CHECK_TRUE(slot->ptr != NULL);
            check_paint(slot, size < slot->size ? size : slot->size);
            slot->size = size;
            check_overlap(slot);
            paint(slot, slot->fill);
        } else {
            check_paint(slot, slot->size);
            zkn_free(slot->ptr);
            slot->ptr = NULL;
        }
        if (pick(500) == 0)
            zkn_release_cache();
        if (pick(500) == 0)
            zkn_soften_cache();
        if (i % 64 == 0)
            check_tiling();
        check_counters();
    }
    for (size_t i = 0; i < SLOTS; i++)
        zkn_free(slots[i].ptr);
    memset(slots, 0, sizeof slots);
    check_tiling();
    check_counters();
    CHECK(stats_now().sparse_takes, >, operations / 1000);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    return 0;
}

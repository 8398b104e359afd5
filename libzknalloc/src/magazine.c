/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * magazine.c - see magazine.h.
 */
#include "magazine.h"

#include <sched.h>

/* CPUs beyond this share shards: correct, only less quiet. */
#define SHARDS 256

/* Sizes, in pages, that are this many apart share a slot. */
#define SLOTS 64

#define NODE_UNKNOWN 255

struct slot {
    struct region *held; /* linked by left; each of PAGES pages */
    uint32_t pages;
    bool hit; /* since the last sweep */
};

/* Requests to the heap between two sweeps (the clock algorithm, Corbato 1968,
 * with requests for time). */
#define SWEEP 4

struct shard {
    zkn_shard_counters_t stats; /* first: profilers read it (stats.h) */
    _Atomic bool taken;
    _Atomic size_t pages; /* in all slots; written by who has the flag */
    unsigned ticks;
    uint8_t node; /* of its CPU, or NODE_UNKNOWN */
    struct slot slots[SLOTS];
} __attribute__((aligned(128)));

static struct shard shards[SHARDS];
static size_t page_limit; /* a shard's; 0 turns magazines off */

void magazine_open(size_t bytes)
{
    page_limit = bytes >> heap.page_shift;
    for (unsigned i = 0; i < SHARDS && heap.nodes > 1; i++)
        shards[i].node = NODE_UNKNOWN;
    stats_shards(&shards[0].stats, sizeof shards[0]);
}

bool magazine_fits(uint32_t pages)
{
    return pages <= page_limit;
}

static inline bool try_take(struct shard *shard)
{
    return !atomic_exchange_explicit(&shard->taken, true, memory_order_acquire);
}

static inline void leave(struct shard *shard)
{
    store_release(&shard->taken, false);
}

/* This CPU's shard, entered; or NULL where somebody else is in it. */
static inline struct shard *enter(void)
{
    int cpu = sched_getcpu();
    unsigned index = cpu > 0 ? (unsigned)cpu % SHARDS : 0;
    struct shard *shard = &shards[index];
    if (unlikely(!try_take(shard)))
        return NULL;
    if (unlikely(index >= __atomic_load_n(&zknalloc_stats_v1.n_shards,
                                          __ATOMIC_RELAXED)))
        stats_shards_in_use(index + 1);
    return shard;
}

/* REGION moves between the program (+1) and the magazine (-1). */
static inline void count(struct shard *shard, const struct region *region,
                         uint64_t sign)
{
    uint64_t bytes = sign * pages_to_bytes(region->pages);
    shard_add(&shard->stats, STAT_live_now, bytes);
    shard_add(&shard->stats, STAT_cached_now, -bytes);
    shard_add(&shard->stats, STAT_regions_now, sign);
}

struct region *magazine_take(uint32_t pages, size_t size)
{
    struct shard *shard = enter();
    if (unlikely(shard == NULL))
        return NULL;
    struct slot *slot = &shard->slots[pages % SLOTS];
    struct region *region = slot->pages == pages ? slot->held : NULL;
    if (likely(region != NULL)) {
        slot->held = region->left;
        slot->hit = true;
        store_relaxed(&shard->pages, load_relaxed(&shard->pages) - pages);
        count(shard, region, 1);
        shard_add(&shard->stats, STAT_hits, 1);
        shard_add(&shard->stats, STAT_magazine_hits, 1);
        shard_add(&shard->stats, STAT_bytes_hit, pages_to_bytes(pages));
        shard_bump(&shard->stats.class_hits[stats_class(size)], 1);
    }
    leave(shard);
    return region;
}

/* Empty SLOT onto CHAIN. */
static struct region *empty(struct shard *shard, struct slot *slot,
                            struct region *chain)
{
    size_t pages = 0;
    while (slot->held != NULL) {
        struct region *region = slot->held;
        slot->held = region->left;
        region->left = chain;
        chain = region;
        pages += region->pages;
    }
    /* The heap's gauges count magazines as live, so it is theirs again. */
    shard_add(&shard->stats, STAT_live_now, pages_to_bytes(pages));
    shard_add(&shard->stats, STAT_cached_now, -pages_to_bytes(pages));
    store_relaxed(&shard->pages, load_relaxed(&shard->pages) - pages);
    return chain;
}

/* Note the node of SHARD's CPU, if this thread still runs on it. */
static COLD void learn_node(struct shard *shard)
{
    unsigned cpu = 0, node = os_node(&cpu);
    if (&shards[cpu % SHARDS] == shard)
        shard->node = (uint8_t)(node % heap.nodes);
}

struct region *magazine_put(struct region *region)
{
    struct region *chain = NULL;
    struct shard *shard = enter();
    if (unlikely(shard == NULL)) {
        stats_add(STAT_frees, 1);
        stats_sub(STAT_regions_now, 1);
        region->left = NULL;
        return region;
    }
    uint32_t pages = region->pages;
    struct slot *slot = &shard->slots[pages % SLOTS];
    if (unlikely(slot->pages != pages))
        chain = empty(shard, slot, NULL);
    size_t total = load_relaxed(&shard->pages) + pages;
    if (unlikely(shard->node == NODE_UNKNOWN))
        learn_node(shard);
    /* Another node's memory goes back to where its own will ask for it. */
    bool hold = likely(slot->pages == pages && region->node == shard->node) &&
                total <= page_limit;
    if (hold) {
        region->left = slot->held;
        slot->held = region;
        store_relaxed(&shard->pages, total);
        count(shard, region, (uint64_t)-1);
    } else {
        slot->pages = pages;
        region->left = chain;
        chain = region;
        shard_add(&shard->stats, STAT_regions_now, (uint64_t)-1);
    }
    shard_add(&shard->stats, STAT_frees, 1);
    leave(shard);
    return chain;
}

struct region *magazine_tick(void)
{
    struct region *chain = NULL;
    struct shard *shard = enter();
    if (unlikely(shard == NULL))
        return NULL;
    if (load_relaxed(&shard->pages) > 0 && ++shard->ticks >= SWEEP) {
        shard->ticks = 0;
        for (unsigned i = 0; i < SLOTS; i++) {
            struct slot *slot = &shard->slots[i];
            if (!slot->hit)
                chain = empty(shard, slot, chain);
            slot->hit = false;
        }
    }
    leave(shard);
    return chain;
}

static unsigned shards_in_use(void)
{
    return (unsigned)__atomic_load_n(&zknalloc_stats_v1.n_shards,
                                     __ATOMIC_ACQUIRE);
}

struct region *magazine_drain(void)
{
    struct region *chain = NULL;
    for (unsigned i = 0, n = shards_in_use(); i < n; i++) {
        struct shard *shard = &shards[i];
        if (load_relaxed(&shard->pages) == 0 || !try_take(shard))
            continue;
        for (unsigned j = 0; j < SLOTS; j++)
            chain = empty(shard, &shard->slots[j], chain);
        leave(shard);
    }
    return chain;
}

void magazine_fork_prepare(void)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        while (!try_take(&shards[i]))
            sched_yield();
    }
}

void magazine_fork_done(void)
{
    for (unsigned i = 0; i < SHARDS; i++)
        leave(&shards[i]);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * stats.h - the counters.  zknalloc.h lists them, zknalloc_block.h says how
 * they lie in memory.  Two kinds of writer:
 *
 *   - stats_add() and stats_peak() change the block's own counters, from the
 *     slow paths, by atomic operations;
 *   - shard_add() changes a shard's, whose lock the caller holds: a plain
 *     load and store, atomic only so that readers see whole words.
 */
#ifndef ZKN_STATS_H
#define ZKN_STATS_H

#include "base.h"
#include "zknalloc_block.h"

enum counter {
#define X(kind, name, meaning) STAT_##name,
    ZKN_STATS_LIST(X)
#undef X
        STAT_COUNT
};

_Static_assert(STAT_COUNT <= ZKN_BLOCK_COUNTERS, "the block is full");

extern ZKN_API zkn_block_t zknalloc_stats_v1;

static inline void stats_add(enum counter counter, uint64_t amount)
{
    __atomic_fetch_add(&zknalloc_stats_v1.heap.counters[counter], amount,
                       __ATOMIC_RELAXED);
}

static inline void stats_sub(enum counter counter, uint64_t amount)
{
    stats_add(counter, -amount);
}

/* Raise a PEAK; callers for one counter are serialised by the heap's lock. */
static inline void stats_peak(enum counter counter, uint64_t value)
{
    uint64_t *peak = &zknalloc_stats_v1.heap.counters[counter];
    if (value > __atomic_load_n(peak, __ATOMIC_RELAXED))
        __atomic_store_n(peak, value, __ATOMIC_RELAXED);
}

/* The row of the class table for a request of SIZE >= ZKN_THRESHOLD bytes. */
static inline unsigned stats_class(size_t size)
{
    unsigned row = log2_floor(size / ZKN_THRESHOLD);
    return row < ZKN_STATS_CLASSES ? row : ZKN_STATS_CLASSES - 1;
}

static inline void shard_bump(uint64_t *counter, uint64_t amount)
{
    __atomic_store_n(counter,
                     __atomic_load_n(counter, __ATOMIC_RELAXED) + amount,
                     __ATOMIC_RELAXED);
}

static inline void shard_add(zkn_shard_counters_t *shard, enum counter counter,
                             uint64_t amount)
{
    shard_bump(&shard->counters[counter], amount);
}

/* Fill in what is known at initialisation and mark the block READY or OFF. */
HIDDEN void stats_start(uint64_t state, size_t cache_bytes);

/* The sums over all shards start here; at least N shards are in use. */
HIDDEN void stats_shards(const zkn_shard_counters_t *first, size_t stride);
HIDDEN void stats_shards_in_use(uint64_t n);

/* Append a line of JSON to the file at PATH; failure is reported on stderr. */
HIDDEN void stats_append(const char *path);

#endif /* ZKN_STATS_H */

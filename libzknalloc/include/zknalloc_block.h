/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zknalloc_block.h - the statistics block that profilers read from outside.
 *
 * The library keeps one zkn_block_t per copy of itself, in the writable ELF
 * section ".zknalloc_stats", initialised so that it lies in a file-backed
 * rw-p mapping of the process.  A profiler finds it without symbols: scan
 * those mappings, at steps of 64 bytes, for the 16 bytes of ZKN_BLOCK_MAGIC,
 * and read it with process_vm_readv().  It is private memory, so a forked
 * child has its own, which goes on from its parent's counts: use differences.
 *
 * Every counter i, in the order of ZKN_STATS_LIST, is
 *
 *     block.counters[i] + sum over s of shard[s].counters[i]      mod 2^64
 *
 * where shard s lies at shards_addr + s * shard_stride (an address in the
 * profiled process) and starts with a zkn_shard_counters_t.  The same rule
 * holds for the class rows.  Shards leave PEAK counters at 0.
 *
 * Compatibility: counters are appended under a new abi_minor; anything else
 * that changes is a new abi_major, which readers must refuse.  n_counters
 * says how many of ZKN_BLOCK_COUNTERS are in use.
 */
#ifndef ZKNALLOC_BLOCK_H
#define ZKNALLOC_BLOCK_H

#include "zknalloc.h"

#define ZKN_BLOCK_MAGIC     "ZKNALLOC-STATS\0\1" /* 16 bytes, no final NUL */
#define ZKN_BLOCK_ABI_MAJOR 1
#define ZKN_BLOCK_ABI_MINOR 0
#define ZKN_BLOCK_COUNTERS  64

/* zkn_block_t.state */
enum {
    ZKN_BLOCK_INIT = 0,  /* no large request yet: all counters are zero */
    ZKN_BLOCK_READY = 1, /* the cache serves */
    ZKN_BLOCK_OFF = 2    /* no address space: the system allocator serves */
};

typedef struct zkn_shard_counters {
    uint64_t counters[ZKN_BLOCK_COUNTERS];
    uint64_t class_hits[ZKN_STATS_CLASSES];
    uint64_t class_misses[ZKN_STATS_CLASSES];
} zkn_shard_counters_t;

typedef struct zkn_block {
    char magic[16];
    uint32_t abi_major;
    uint32_t abi_minor;
    uint32_t header_size; /* offset of the shard_counters member: 128 */
    uint32_t total_size;  /* sizeof(zkn_block_t) */
    char version[16];     /* zkn_version(), NUL-padded */
    uint64_t state;       /* enum above */
    uint64_t start_ns;    /* CLOCK_MONOTONIC at initialisation */
    uint64_t cache_bytes; /* the ceiling in force */
    uint64_t page_size;
    uint64_t n_counters; /* length of ZKN_STATS_LIST in this version */
    uint64_t n_classes;  /* ZKN_STATS_CLASSES */
    uint64_t shards_addr;
    uint64_t shard_stride;
    uint64_t n_shards; /* shards that may be non-zero; grows */
    uint64_t reserved;
    zkn_shard_counters_t heap; /* the counters kept under the heap's lock */
} zkn_block_t;

#endif /* ZKNALLOC_BLOCK_H */

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * block.c - a program with a statistics block like libzknalloc's, sound or
 * damaged in one way: block WAY.  It changes its counters once it reads a
 * line (or, for the way "exec", runs itself again), and stays until killed.
 */
#include "zknalloc_block.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHARDS 3

static zkn_shard_counters_t shards[SHARDS];

__attribute__((section(".zknalloc_stats"), used,
               aligned(64))) static zkn_block_t block = {
    .magic = ZKN_BLOCK_MAGIC,
    .abi_major = ZKN_BLOCK_ABI_MAJOR,
    .abi_minor = ZKN_BLOCK_ABI_MINOR,
    .header_size = offsetof(zkn_block_t, heap),
    .total_size = sizeof(zkn_block_t),
    .version = "9.8.7",
    .state = ZKN_BLOCK_READY,
    .cache_bytes = 1 << 30,
    .page_size = 4096,
    .n_counters = sizeof(zkn_stats_t) / sizeof(uint64_t),
    .n_classes = ZKN_STATS_CLASSES,
    .shard_stride = sizeof(zkn_shard_counters_t),
    .n_shards = SHARDS,
};

enum {
#define ROW(kind, name, meaning) name,
    ZKN_STATS_LIST(ROW)
#undef ROW
        rows
};

static void damage(const char *way)
{
    static const char esc[16] = "\033[31mred";
#define IF(name) if (strcmp(way, name) == 0)
    IF("major") block.abi_major++;
    IF("header") block.header_size = 1 << 30;
    IF("small") block.total_size = 64;
    IF("state") block.state = 77;
    IF("version") memcpy(block.version, esc, sizeof esc);
    IF("counters") block.n_counters = UINT64_MAX;
    IF("classes") block.n_classes = 1;
    IF("many-shards") block.n_shards = UINT64_MAX;
    IF("huge-shards") block.n_shards = 65536, block.shard_stride = 1 << 20;
    IF("narrow-shards") block.shard_stride = 8;
    IF("odd-shards") block.shards_addr |= 1;
    IF("no-shards-there") block.shards_addr = 4096;
    IF("kernel-shards") block.shards_addr = UINT64_MAX - 4095;
    IF("minor") block.abi_minor++, block.n_counters = rows + 1;
#undef IF
}

int main(int argc, char **argv)
{
    block.n_counters = rows;
    block.shards_addr = (uintptr_t)shards;
    block.heap.counters[hits] = 100;
    block.heap.counters[live_now] = 5000;
    block.heap.counters[live_peak] = 9000;
    block.heap.class_misses[2] = 1;
    damage(argc > 1 ? argv[1] : "");
    puts("ready");
    fflush(stdout);

    char line[8];
    if (!fgets(line, sizeof line, stdin))
        pause();
    if (argc > 1 && strcmp(argv[1], "exec") == 0)
        execl("/proc/self/exe", argv[0], "", NULL);
    /* 7 hits on each shard; shard 1 freed 1000 bytes that others allocated. */
    for (int i = 0; i < SHARDS; i++) {
        shards[i].counters[hits] += 7;
        shards[i].class_hits[i] += 7;
    }
    block.heap.counters[misses] += 3;
    block.heap.class_misses[2] += 3;
    shards[1].counters[live_now] -= 1000;
    puts("changed");
    fflush(stdout);
    pause();
    return 0;
}

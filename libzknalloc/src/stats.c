/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * stats.c - the statistics block, its snapshot and its JSON text.
 *
 * The block is initialised data, not zeroed data, so that it lies in the
 * file-backed part of the library's writable mapping, where a profiler scans
 * for it; the linker must not drop it, hence "used".
 */
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "os.h"

zkn_block_t zknalloc_stats_v1
    __attribute__((section(".zknalloc_stats"), aligned(64), used)) = {
        .magic = {'Z', 'K', 'N', 'A', 'L', 'L', 'O', 'C', '-', 'S', 'T', 'A',
                  'T', 'S', 0, 1},
        .abi_major = ZKN_BLOCK_ABI_MAJOR,
        .abi_minor = ZKN_BLOCK_ABI_MINOR,
        .header_size = offsetof(zkn_block_t, heap),
        .total_size = sizeof(zkn_block_t),
        .version = ZKN_VERSION_STRING,
        .state = ZKN_BLOCK_INIT,
        .n_counters = STAT_COUNT,
        .n_classes = ZKN_STATS_CLASSES,
};

_Static_assert(offsetof(zkn_block_t, heap) == 128, "the layout is fixed");

#define block zknalloc_stats_v1

void stats_start(uint64_t state, size_t cache_bytes)
{
    block.page_size = os_page_size();
    block.start_ns = os_now_ns();
    block.cache_bytes = cache_bytes;
    __atomic_store_n(&block.state, state, __ATOMIC_RELEASE);
}

void stats_shards(const zkn_shard_counters_t *first, size_t stride)
{
    block.shards_addr = (uintptr_t)first;
    block.shard_stride = stride;
}

void stats_shards_in_use(uint64_t n)
{
    uint64_t seen = __atomic_load_n(&block.n_shards, __ATOMIC_RELAXED);
    while (seen < n &&
           !__atomic_compare_exchange_n(&block.n_shards, &seen, n, true,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        continue;
}

/* Sum the counter that lies at OFFSET in a zkn_shard_counters_t. */
static uint64_t sum(size_t offset)
{
    uint64_t total = __atomic_load_n(
        (const uint64_t *)(const void *)((const char *)&block.heap + offset),
        __ATOMIC_RELAXED);
    uint64_t n = __atomic_load_n(&block.n_shards, __ATOMIC_ACQUIRE);
    const char *shard = (const char *)(uintptr_t)block.shards_addr;
    for (uint64_t i = 0; i < n; i++, shard += block.shard_stride)
        total += __atomic_load_n(
            (const uint64_t *)(const void *)(shard + offset), __ATOMIC_RELAXED);
    return total;
}

/* A counter's sum over block and shards, as zknalloc_block.h defines it. */
static uint64_t read_counter(enum counter counter)
{
    return sum(offsetof(zkn_shard_counters_t, counters) +
               counter * sizeof(uint64_t));
}

int zkn_stats_get(zkn_stats_t *stats)
{
    if (stats->size < offsetof(zkn_stats_t, cache_bytes))
        return -EINVAL;
    zkn_stats_t now = {.size = stats->size,
                       .cache_bytes = block.cache_bytes,
#define X(kind, name, meaning) .name = read_counter(STAT_##name),
                       ZKN_STATS_LIST(X)
#undef X
    };
    for (unsigned i = 0; i < ZKN_STATS_CLASSES; i++) {
        now.classes[i].size = ZKN_THRESHOLD << i;
        now.classes[i].hits = sum(offsetof(zkn_shard_counters_t, class_hits) +
                                  i * sizeof(uint64_t));
        now.classes[i].misses =
            sum(offsetof(zkn_shard_counters_t, class_misses) +
                i * sizeof(uint64_t));
    }
    memcpy(stats, &now, min_size(stats->size, sizeof now));
    return 0;
}

/* A text that is counted even where it no longer fits. */
struct text {
    char *buffer;
    size_t size, length;
};

static void put(struct text *text, const char *s)
{
    for (; *s != '\0'; s++, text->length++) {
        if (text->length + 1 < text->size)
            text->buffer[text->length] = *s;
    }
}

static void put_number(struct text *text, uint64_t value)
{
    struct line line = {0};
    line_number(&line, value);
    line.text[line.length] = '\0';
    put(text, line.text);
}

static void put_field(struct text *text, const char *name, uint64_t value)
{
    put(text, ",\"");
    put(text, name);
    put(text, "\":");
    put_number(text, value);
}

int zkn_stats_json(char *buf, size_t len)
{
    zkn_stats_t now = ZKN_STATS_INIT;
    (void)zkn_stats_get(&now);
    struct text text = {buf, len, 0};
    put(&text, "{\"version\":\"" ZKN_VERSION_STRING "\"");
    put_field(&text, "pid", (uint64_t)getpid());
    put_field(&text, "cache_bytes", now.cache_bytes);
#define X(kind, name, meaning) put_field(&text, #name, now.name);
    ZKN_STATS_LIST(X)
#undef X
    put(&text, ",\"classes\":[");
    bool first = true;
    for (unsigned i = 0; i < ZKN_STATS_CLASSES; i++) {
        if (now.classes[i].hits + now.classes[i].misses == 0)
            continue;
        put(&text, first ? "{\"size\":" : ",{\"size\":");
        first = false;
        put_number(&text, now.classes[i].size);
        put_field(&text, "hits", now.classes[i].hits);
        put_field(&text, "misses", now.classes[i].misses);
        put(&text, "}");
    }
    put(&text, "]}");
    if (len > 0)
        buf[min_size(text.length, len - 1)] = '\0';
    return (int)text.length;
}

void stats_append(const char *path)
{
    char text[8192];
    size_t length = (size_t)zkn_stats_json(text, sizeof text);
    if (length >= sizeof text)
        length = sizeof text - 1; /* cannot be: 40 numbers and 24 rows */
    text[length++] = '\n';
    /* One write to a file opened for appending: lines of several processes
     * do not mix. */
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        log_warning("cannot write the statistics to ", path);
    if (fd >= 0)
        close(fd);
}

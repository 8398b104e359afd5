/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * fill.c - buffers that are written from end to end.
 *
 *   fill-*   one vector: take, write every byte, give back.  At its simplest
 *            the life of an NTT coefficient vector.
 *   burst    the start of a phase: two dozen zeroed vectors of which only the
 *            beginning is used before the phase ends.
 *   fri      the commit phase of FRI: each layer is folded into one of half
 *            its size; all layers are kept for the queries.
 */
#include "memory.h"

static void fill(struct lane *lane)
{
    size_t size = lane->run->pattern->parameter;
    char *p = take(lane, size);

    memset(p, 0x5a, size);
    give(lane, p, size);
}

#define FILL(mib, n)                                                           \
    {                                                                          \
        .name = "fill-" #mib "M",                                              \
        .what = "take " #mib " MiB, write every byte, give it back",           \
        .threads = 1, .rounds = (n), .parameter = (mib)*MIB,                   \
        .bytes = (mib)*MIB, .live_peak = (mib)*MIB, .resident = (mib)*MIB,     \
        .round = fill,                                                         \
    }

/* ----------------------------------------------------------------- burst */

#define BURST          24
#define BURST_SMALLEST (256 * KIB)
#define BURST_SIZES    6 /* doubling: up to 8 MiB */

static size_t burst_size(unsigned i)
{
    return BURST_SMALLEST << (i % BURST_SIZES);
}

static void burst(struct lane *lane)
{
    unsigned char *p[BURST];

    for (unsigned i = 0; i < BURST; i++) {
        p[i] = take_zeroed(lane, burst_size(i));
        if (!lane->run->limit) {
            lane->corruptions += p[i][0] != 0;
        }
        p[i][0] = 1;
    }
    for (unsigned i = 0; i < BURST; i++) {
        give(lane, p[i], burst_size(i));
    }
}

#define BURST_BYTES (4 * (16 * MIB - BURST_SMALLEST))

/* ------------------------------------------------------------------- fri */

#define FRI_FIRST (64 * MIB)
#define FRI_LAST  (64 * KIB)
#define FRI_BYTES (2 * FRI_FIRST - FRI_LAST)

static void fold(const uint64_t *from, uint64_t *to, size_t count,
                 uint64_t challenge)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = from[2 * i] + challenge * from[2 * i + 1];
    }
}

static void fri(struct lane *lane)
{
    uint64_t *layer[16];
    unsigned layers = 1;

    layer[0] = take(lane, FRI_FIRST);
    memset(layer[0], 0x5a, FRI_FIRST);
    for (size_t size = FRI_FIRST / 2; size >= FRI_LAST; size /= 2) {
        layer[layers] = take(lane, size);
        fold(layer[layers - 1], layer[layers], size / sizeof(uint64_t),
             0x9E3779B97F4A7C15);
        layers++;
    }
    lane->sink += layer[layers - 1][0];
    for (unsigned i = 0; i < layers; i++) {
        give(lane, layer[i], FRI_FIRST >> i);
    }
}

const struct pattern fill_patterns[] = {
    FILL(8, 200),
    FILL(32, 60),
    FILL(128, 30),
    {
        .name = "burst",
        .what = "24 zeroed vectors of 256 KiB to 8 MiB, one touch each",
        .threads = 1,
        .rounds = 100,
        .live_peak = BURST_BYTES,
        .resident = BURST_BYTES,
        .round = burst,
    },
    {
        .name = "fri",
        .what =
            "layers of 64 MiB, 32 MiB, ... 64 KiB, each folded from the last",
        .threads = 1,
        .rounds = 40,
        .bytes = FRI_BYTES,
        .live_peak = FRI_BYTES,
        .resident = FRI_BYTES,
        .round = fri,
    },
    {.name = NULL},
};

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * pairs.c - what one allocation and one free cost.
 *
 *   pair-*       take, one touch, give back, again and again: the hit path.
 *   small-mixed  1 024 live blocks of 16 bytes to 16 KiB, given back in
 *                another order: what most calls of a prover look like.
 *
 * Below 64 KiB libzknalloc passes requests on to the C library; the difference
 * to glibc is the price of passing them on.
 */
#include "memory.h"

#define PAIRS 20000

static void pairs(struct lane *lane)
{
    size_t size = lane->run->pattern->parameter;

    for (unsigned i = 0; i < PAIRS; i++) {
        volatile unsigned char *p = take(lane, size);

        *p = 1;
        give(lane, (void *)p, size);
    }
}

#define PAIR(title, bytes_each)                                                \
    {                                                                          \
        .name = "pair-" title,                                                 \
        .what = "take " title "B, touch it once, give it back", .threads = 1,  \
        .rounds = 50, .operations = PAIRS, .parameter = (bytes_each),          \
        .live_peak = (bytes_each), .resident = (bytes_each) + PAGE,            \
        .round = pairs,                                                        \
    }

/* ----------------------------------------------------------- small-mixed */

#define BLOCKS  1024
#define BATCHES 20
#define LARGEST (16 * KIB)

struct blocks {
    uint32_t size[BLOCKS];
    uint16_t order[BLOCKS];
    unsigned char *p[BLOCKS];
};

static void mixed_setup(struct run *run)
{
    struct blocks *blocks = harness_memory(sizeof(*blocks));
    uint64_t random = 1, total = 0;

    for (unsigned i = 0; i < BLOCKS; i++) {
        unsigned j = (unsigned)(draw(&random) % (i + 1));
        /* Every power of two is as likely as the next. */
        uint64_t magnitude = UINT64_C(16) << (draw(&random) % 10);

        blocks->size[i] = (uint32_t)(magnitude + draw(&random) % magnitude);
        total += blocks->size[i];
        blocks->order[i] = blocks->order[j];
        blocks->order[j] = (uint16_t)i;
    }
    run->live_peak = total;
    run->resident = BLOCKS * LARGEST;
    run->state = blocks;
}

static void mixed(struct lane *lane)
{
    struct blocks *blocks = lane->run->state;

    for (unsigned batch = 0; batch < BATCHES; batch++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            blocks->p[i] = take(lane, blocks->size[i]);
            blocks->p[i][0] = (unsigned char)i;
        }
        for (unsigned i = 0; i < BLOCKS; i++) {
            unsigned b = blocks->order[i];

            lane->corruptions += blocks->p[b][0] != (unsigned char)b;
            give(lane, blocks->p[b], blocks->size[b]);
        }
        lane_reset(lane);
    }
}

const struct pattern pair_patterns[] = {
    PAIR("1Mi", MIB),
    PAIR("256Ki", 256 * KIB),
    PAIR("64Ki", 64 * KIB),
    PAIR("60Ki", 60 * KIB),
    PAIR("8Ki", 8 * KIB),
    PAIR("1Ki", KIB),
    PAIR("64", 64),
    {
        .name = "small-mixed",
        .what = "1024 blocks of 16 B to 16 KiB, freed in another order",
        .threads = 1,
        .rounds = 60,
        .operations = BATCHES * BLOCKS,
        .setup = mixed_setup,
        .round = mixed,
    },
    {.name = NULL},
};

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * size.c - buffers whose size changes.
 *
 *   realloc-doubling  a vector that grows by push: 64 KiB to 64 MiB, every new
 *                     byte written.
 *   realloc-two       two vectors that grow so in turn, up to 32 MiB each:
 *                     each stands where the other would grow.
 *   shifting          eight buffers between 1 and 32 MiB whose sizes are new
 *                     in every round, as the phases of a prover never ask for
 *                     quite the same sizes.  They always add up to 128 MiB, so
 *                     that the peak of live bytes stays where it is and no
 *                     page need be faulted in after the first round.
 *   replacing         the same, but each buffer goes just before its successor
 *                     comes, in random order: there is never a moment when all
 *                     memory is free.  They add up to 128 MiB in the first
 *                     round, and to at most that ever after.
 */
#include "memory.h"

#define DOUBLING_FIRST (64 * KIB)
#define DOUBLING_LAST  (64 * MIB)

/* One step: from SIZE bytes to twice as many. */
static unsigned char *twice(struct lane *lane, unsigned char *p, size_t size)
{
    p = resize(lane, p, size, 2 * size);
    lane->corruptions += p[0] != 0x5a || p[size - 1] != 0x5a;
    memset(p + size, 0x5a, size);
    return p;
}

static void realloc_two(struct lane *lane)
{
    unsigned char *p[2];

    /* On the limit only the latest slice can grow: both have their room. */
    for (unsigned i = 0; i < 2; i++) {
        p[i] =
            take(lane, lane->run->limit ? DOUBLING_LAST / 2 : DOUBLING_FIRST);
        memset(p[i], 0x5a, DOUBLING_FIRST);
    }
    for (size_t size = DOUBLING_FIRST; size < DOUBLING_LAST / 2; size *= 2) {
        for (unsigned i = 0; i < 2; i++) {
            if (lane->run->limit) {
                memset(p[i] + size, 0x5a, size);
            } else {
                p[i] = twice(lane, p[i], size);
            }
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        give(lane, p[i], DOUBLING_LAST / 2);
    }
}

static void realloc_doubling(struct lane *lane)
{
    size_t size = DOUBLING_FIRST;
    unsigned char *p = take(lane, size);

    memset(p, 0x5a, size);
    while (size < DOUBLING_LAST) {
        p = twice(lane, p, size);
        size *= 2;
    }
    give(lane, p, size);
}

/* -------------------------------------------------- shifting and replacing */

#define BUFFERS     8
#define SMALLEST    (1 * MIB)
#define LARGEST     (32 * MIB)
#define TOTAL       (128 * MIB)
#define GRANULARITY ((size_t)64)

struct sizes {
    size_t now[BUFFERS];
    size_t next[BUFFERS];
    unsigned order[BUFFERS];
    unsigned char *p[BUFFERS]; /* replacing: what lives between the rounds */
};

static void draw_order(struct lane *lane, unsigned *order)
{
    for (unsigned i = 0; i < BUFFERS; i++) {
        unsigned j = (unsigned)(draw(&lane->random) % (i + 1));

        order[i] = order[j];
        order[j] = i;
    }
}

/* Draw sizes that add up to TOTAL: start from equal ones and let pairs trade
 * what both can bear. */
static void draw_sizes(struct lane *lane, size_t *size)
{
    for (unsigned i = 0; i < BUFFERS; i++) {
        size[i] = TOTAL / BUFFERS;
    }
    for (unsigned trade = 0; trade < 4 * BUFFERS; trade++) {
        unsigned a = (unsigned)(draw(&lane->random) % BUFFERS);
        unsigned b = (unsigned)(draw(&lane->random) % BUFFERS);
        size_t most, amount;

        if (a == b) {
            continue;
        }
        most = LARGEST - size[a];
        if (most > size[b] - SMALLEST) {
            most = size[b] - SMALLEST;
        }
        amount = (size_t)(draw(&lane->random) % (most + 1));
        amount &= ~(GRANULARITY - 1);
        size[a] += amount;
        size[b] -= amount;
    }
}

static void sizes_setup(struct run *run)
{
    run->state = harness_memory(sizeof(struct sizes));
}

static void shifting_prepare(struct run *run)
{
    struct sizes *sizes = run->state;

    draw_sizes(&run->lanes[0], sizes->now);
    draw_order(&run->lanes[0], sizes->order);
}

static void shifting(struct lane *lane)
{
    struct sizes *sizes = lane->run->state;

    for (unsigned i = 0; i < BUFFERS; i++) {
        sizes->p[i] = take(lane, sizes->now[i]);
        touch(sizes->p[i], sizes->now[i], (unsigned char)i);
    }
    for (unsigned i = 0; i < BUFFERS; i++) {
        unsigned b = sizes->order[i];

        lane->corruptions += sizes->p[b][0] != b;
        give(lane, sizes->p[b], sizes->now[b]);
    }
}

static void replacing_prepare(struct run *run)
{
    struct sizes *sizes = run->state;
    struct lane *lane = &run->lanes[0];
    size_t live = 0;

    draw_order(lane, sizes->order);
    if (sizes->p[0] == NULL) {
        draw_sizes(lane, sizes->next);
        return;
    }
    for (unsigned b = 0; b < BUFFERS; b++) {
        live += sizes->now[b];
    }
    for (unsigned i = 0; i < BUFFERS; i++) {
        unsigned b = sizes->order[i];
        size_t most = TOTAL - (live - sizes->now[b]);

        if (most > LARGEST) {
            most = LARGEST;
        }
        sizes->next[b] = SMALLEST + draw(&lane->random) % (most - SMALLEST + 1);
        live = live - sizes->now[b] + sizes->next[b];
    }
}

/* On the limit every buffer has room for the largest size, at its own place. */
static void *replacing_take(struct lane *lane, unsigned b, size_t size)
{
    if (lane->resident != NULL) {
        return launder(lane->resident + b * LARGEST);
    }
    return take(lane, size);
}

static void replacing(struct lane *lane)
{
    struct sizes *sizes = lane->run->state;

    for (unsigned i = 0; i < BUFFERS; i++) {
        unsigned b = sizes->order[i];

        if (sizes->p[b] != NULL) {
            lane->corruptions += sizes->p[b][0] != b;
            if (lane->resident == NULL) {
                give(lane, sizes->p[b], sizes->now[b]);
            }
        }
        sizes->now[b] = sizes->next[b];
        sizes->p[b] = replacing_take(lane, b, sizes->now[b]);
        touch(sizes->p[b], sizes->now[b], (unsigned char)b);
    }
}

static void replacing_teardown(struct run *run)
{
    struct sizes *sizes = run->state;

    for (unsigned b = 0; b < BUFFERS && !run->limit; b++) {
        give(&run->lanes[0], sizes->p[b], sizes->now[b]);
    }
}

const struct pattern size_patterns[] = {
    {
        .name = "realloc-doubling",
        .what = "a vector grown from 64 KiB to 64 MiB, new bytes written",
        .threads = 1,
        .rounds = 60,
        .bytes = DOUBLING_LAST,
        .live_peak = DOUBLING_LAST,
        .resident = DOUBLING_LAST,
        .round = realloc_doubling,
    },
    {
        .name = "realloc-two",
        .what = "two vectors grown in turn from 64 KiB to 32 MiB each",
        .threads = 1,
        .rounds = 60,
        .bytes = DOUBLING_LAST,
        .live_peak = DOUBLING_LAST,
        .resident = DOUBLING_LAST,
        .round = realloc_two,
    },
    {
        .name = "shifting",
        .what = "8 buffers of 1-32 MiB, new sizes each round, 128 MiB in all",
        .threads = 1,
        .rounds = 60,
        .live_peak = TOTAL,
        .resident = TOTAL + BUFFERS * HUGE_PAGE,
        .setup = sizes_setup,
        .prepare = shifting_prepare,
        .round = shifting,
    },
    {
        .name = "replacing",
        .what = "the same 8 buffers, replaced one at a time in random order",
        .threads = 1,
        .rounds = 60,
        .live_peak = TOTAL,
        .resident = BUFFERS * LARGEST,
        .keeps_blocks = true,
        .setup = sizes_setup,
        .prepare = replacing_prepare,
        .round = replacing,
        .teardown = replacing_teardown,
    },
    {.name = NULL},
};

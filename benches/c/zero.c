/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zero.c - buffers that must be zero when they arrive.
 *
 *   msm-N-random, msm-N-repeat
 *       bucket arrays of a multi-scalar multiplication: 16 windows of 6 MiB
 *       (2^16 buckets of 96 bytes), zeroed, of which scalars hit N % of the
 *       pages; at new places each round (random scalars), or at the same
 *       (scalars that are mostly small, or a fixed circuit).
 *   calloc-fill
 *       zeroed trace columns, every byte of which is then written.
 *
 * Every page that a pattern uses is checked to be zero before it is written:
 * an allocator that is fast because it hands out old data is found out.
 */
#include "memory.h"

#define WINDOWS 16
#define WINDOW  (6 * MIB)
#define PAGES   (WINDOW / PAGE)
#define BUCKET  ((size_t)96)    /* one point in projective coordinates */
#define BUCKETS (PAGE / BUCKET) /* in a page */

struct places {
    bool drawn;
    unsigned count; /* pages of a window that are hit */
    /* For each window, all its pages in the order in which they are hit. */
    uint16_t page[WINDOWS][PAGES];
};

static void msm_setup(struct run *run)
{
    struct places *places = harness_memory(sizeof(*places));

    places->count = (unsigned)(PAGES * run->pattern->parameter / 100);
    for (unsigned w = 0; w < WINDOWS; w++) {
        for (unsigned i = 0; i < PAGES; i++) {
            places->page[w][i] = (uint16_t)i;
        }
    }
    run->state = places;
}

/* Draw which pages come first; for "repeat" before the first round only. */
static void msm_prepare(struct run *run)
{
    struct places *places = run->state;
    bool repeat = run->pattern->parameter2 != 0;

    if (places->drawn && repeat) {
        return;
    }
    for (unsigned w = 0; w < WINDOWS; w++) {
        uint16_t *page = places->page[w];

        for (unsigned i = 0; i < places->count; i++) {
            unsigned j =
                i + (unsigned)(draw(&run->lanes[0].random) % (PAGES - i));
            uint16_t kept = page[i];

            page[i] = page[j];
            page[j] = kept;
        }
    }
    places->drawn = true;
}

static void msm(struct lane *lane)
{
    const struct places *places = lane->run->state;
    bool check = !lane->run->limit;
    unsigned char *window[WINDOWS];

    for (unsigned w = 0; w < WINDOWS; w++) {
        window[w] = take_zeroed(lane, WINDOW);
    }
    for (unsigned w = 0; w < WINDOWS; w++) {
        for (unsigned i = 0; i < places->count; i++) {
            size_t page = places->page[w][i];
            size_t at = page * PAGE + page_line(page) % BUCKETS * BUCKET;
            uint64_t *bucket = (uint64_t *)(void *)(window[w] + at);

            lane->corruptions += check && bucket[0] != 0;
            for (unsigned word = 0; word < BUCKET / 8; word++) {
                bucket[word] += word + 1;
            }
        }
    }
    for (unsigned w = 0; w < WINDOWS; w++) {
        give(lane, window[w], WINDOW);
    }
}

#define MSM(percent, places, again, how)                                       \
    {                                                                          \
        .name = "msm-" #percent "-" places,                                    \
        .what =                                                                \
            "16 zeroed windows of 6 MiB, " #percent " % of pages hit, " how,   \
        .threads = 1, .rounds = 60, .parameter = (percent),                    \
        .parameter2 = (again), .live_peak = WINDOWS * WINDOW,                  \
        .resident = WINDOWS * WINDOW, .setup = msm_setup,                      \
        .prepare = msm_prepare, .round = msm,                                  \
    }
#define RANDOM(percent) MSM(percent, "random", 0, "new places each round")
#define REPEAT(percent) MSM(percent, "repeat", 1, "always the same places")

/* ----------------------------------------------------------- calloc-fill */

#define COLUMNS 4
#define COLUMN  (32 * MIB)

static void calloc_fill(struct lane *lane)
{
    unsigned char *column[COLUMNS];

    for (unsigned c = 0; c < COLUMNS; c++) {
        column[c] = take_zeroed(lane, COLUMN);
        if (!lane->run->limit) {
            lane->corruptions += column[c][0] != 0;
            lane->corruptions += column[c][COLUMN / 2] != 0;
            lane->corruptions += column[c][COLUMN - 1] != 0;
        }
        memset(column[c], 0x5a, COLUMN);
    }
    for (unsigned c = 0; c < COLUMNS; c++) {
        give(lane, launder(column[c]), COLUMN);
    }
}

const struct pattern zero_patterns[] = {
    RANDOM(1),
    REPEAT(1),
    RANDOM(5),
    REPEAT(5),
    RANDOM(30),
    REPEAT(30),
    RANDOM(100),
    REPEAT(100),
    {
        .name = "calloc-fill",
        .what = "four zeroed columns of 32 MiB, every byte written",
        .threads = 1,
        .rounds = 30,
        .bytes = COLUMNS * COLUMN,
        .live_peak = COLUMNS * COLUMN,
        .resident = COLUMNS * COLUMN,
        .round = calloc_fill,
    },
    {.name = NULL},
};

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * rows.c - a pass over the rows of a trace.
 *
 * A STARK trace has a vector for each of its columns; a constraint reads
 * element i of all of them, then element i + 1.  Where allocators start all
 * columns at the same offset of a huge page, those elements compete for the
 * same few sets of the caches and of the TLB.
 *
 * The columns are taken and written before the clock starts; only the pass is
 * measured.  The limit reads the same number of elements, with the same code,
 * from one resident array that holds them row by row: plain streaming.
 */
#include "memory.h"

#define COLUMN (4 * MIB)
#define ROWS   (COLUMN / sizeof(uint64_t))

struct trace {
    unsigned columns;
    size_t stride; /* between an element and the next of its column */
    uint64_t *column[256];
};

static void rows_setup(struct run *run)
{
    struct trace *trace = harness_memory(sizeof(*trace));

    trace->columns = (unsigned)run->pattern->parameter;
    trace->stride = run->limit ? trace->columns : 1;
    if (run->limit) {
        uint64_t *table = resident_memory(trace->columns * COLUMN);

        for (unsigned c = 0; c < trace->columns; c++) {
            trace->column[c] = table + c;
        }
        run->resident = PAGE; /* the lane itself needs none */
    } else {
        for (unsigned c = 0; c < trace->columns; c++) {
            trace->column[c] = take(&run->lanes[0], COLUMN);
            memset(trace->column[c], 1, COLUMN);
        }
    }
    run->state = trace;
}

static void rows(struct lane *lane)
{
    const struct trace *trace = lane->run->state;
    unsigned columns = trace->columns;
    size_t stride = trace->stride;
    uint64_t sum = 0;

    for (size_t row = 0; row < ROWS; row++) {
        for (unsigned c = 0; c < columns; c++) {
            sum += trace->column[c][row * stride];
        }
    }
    lane->sink += sum;
    lane->corruptions += sum != ROWS * columns * UINT64_C(0x0101010101010101);
}

static void rows_teardown(struct run *run)
{
    struct trace *trace = run->state;

    for (unsigned c = 0; c < trace->columns && !run->limit; c++) {
        give(&run->lanes[0], trace->column[c], COLUMN);
    }
}

#define ROW_PASS(n)                                                            \
    {                                                                          \
        .name = "rows-" #n,                                                    \
        .what = "sum the rows of " #n " columns of 4 MiB, taken beforehand",   \
        .threads = 1, .rounds = 12, .parameter = (n), .bytes = (n)*COLUMN,     \
        .live_peak = (n)*COLUMN, .keeps_blocks = true, .setup = rows_setup,    \
        .round = rows, .teardown = rows_teardown,                              \
    }

const struct pattern row_patterns[] = {
    ROW_PASS(32),
    ROW_PASS(128),
    ROW_PASS(256),
    {.name = NULL},
};

/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * threads.c - several threads at once.
 *
 *   contend-touch  each thread takes 64 MiB, visits every page, gives it back.
 *   contend-alloc  the same without visiting: only the allocator's own work.
 *   contend-mixed  each thread keeps 16 buffers of 64 KiB to 2 MiB and
 *                  replaces one at random, one touch each.
 *   handoff        half of the threads fill buffers, the other half read and
 *                  free them: every buffer dies on another thread than its own.
 */
#include "memory.h"

#define CONTENDED (64 * MIB)
#define REPEATS   4
#define PAIRS     200

static void contend_touch(struct lane *lane)
{
    for (unsigned i = 0; i < REPEATS; i++) {
        void *p = take(lane, CONTENDED);

        touch(p, CONTENDED, (unsigned char)i);
        give(lane, p, CONTENDED);
    }
}

static void contend_alloc(struct lane *lane)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        give(lane, take(lane, CONTENDED), CONTENDED);
    }
}

/* ---------------------------------------------------------- contend-mixed */

#define KEPT         16
#define REPLACEMENTS 4000
#define MIXED_LEAST  (64 * KIB)
#define MIXED_MOST   (2 * MIB)

struct kept {
    unsigned char *p[KEPT];
    size_t size[KEPT];
};

static void mixed_setup(struct run *run)
{
    if (run->threads == 0) {
        run->threads = 1;
    }
    run->state = harness_memory(run->threads * sizeof(struct kept));
}

/* On the limit each of the kept buffers has a place of the largest size. */
static void contend_mixed(struct lane *lane)
{
    struct kept *kept = (struct kept *)lane->run->state + lane->index;

    for (unsigned i = 0; i < REPLACEMENTS; i++) {
        uint64_t number = draw(&lane->random);
        unsigned k = (unsigned)(number % KEPT);
        size_t size = MIXED_LEAST + (number >> 32) % (MIXED_MOST - MIXED_LEAST);

        if (lane->resident != NULL) {
            kept->p[k] = launder(lane->resident + k * MIXED_MOST);
        } else {
            if (kept->p[k] != NULL) {
                lane->corruptions += kept->p[k][0] != (unsigned char)k;
                give(lane, kept->p[k], kept->size[k]);
            }
            kept->p[k] = take(lane, size);
        }
        kept->p[k][0] = (unsigned char)k;
        kept->size[k] = size;
    }
}

static void mixed_teardown(struct run *run)
{
    for (unsigned i = 0; i < run->threads && !run->limit; i++) {
        struct kept *kept = (struct kept *)run->state + i;

        for (unsigned k = 0; k < KEPT; k++) {
            if (kept->p[k] != NULL) {
                give(&run->lanes[i], kept->p[k], kept->size[k]);
            }
        }
    }
}

/* ---------------------------------------------------------------- handoff */

#define QUEUE   8 /* buffers on the way between two threads */
#define HANDOFF (2 * MIB)
#define ITEMS   64 /* a round, each pair of threads */

/* One producer, one consumer: the producer alone writes `put`, the consumer
 * alone writes `got`, both only grow. */
struct queue {
    _Alignas(128) atomic_uint put;
    _Alignas(128) atomic_uint got;
    _Alignas(128) unsigned char *item[QUEUE];
};

static void handoff_setup(struct run *run)
{
    if (run->threads < 2) {
        harness_die("handoff needs --threads 2 or another even number", 0);
    }
    run->threads &= ~1U;
    run->state = harness_memory(run->threads / 2 * sizeof(struct queue));
}

static void produce(struct lane *lane, struct queue *queue)
{
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned put = atomic_load_explicit(&queue->put, memory_order_relaxed);
        unsigned char *p;

        for (unsigned spins = 0; put - atomic_load(&queue->got) == QUEUE;
             spins++) {
            crew_pause(spins);
        }
        if (lane->resident != NULL) {
            p = launder(lane->resident + put % QUEUE * HANDOFF);
        } else {
            p = take(lane, HANDOFF);
        }
        memset(p, (int)(put & 0xff), HANDOFF);
        queue->item[put % QUEUE] = p;
        atomic_store(&queue->put, put + 1);
    }
}

static void consume(struct lane *lane, struct queue *queue)
{
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned got = atomic_load_explicit(&queue->got, memory_order_relaxed);
        const uint64_t *word;
        uint64_t sum = 0;

        for (unsigned spins = 0; atomic_load(&queue->put) == got; spins++) {
            crew_pause(spins);
        }
        word = (const uint64_t *)(const void *)queue->item[got % QUEUE];
        for (size_t w = 0; w < HANDOFF / sizeof(*word); w++) {
            sum += word[w];
        }
        lane->corruptions += sum != HANDOFF / sizeof(*word) * (got & 0xff) *
                                        UINT64_C(0x0101010101010101);
        if (lane->resident == NULL) {
            give(lane, queue->item[got % QUEUE], HANDOFF);
        }
        atomic_store(&queue->got, got + 1);
    }
}

static void handoff(struct lane *lane)
{
    struct queue *queue = (struct queue *)lane->run->state + lane->index / 2;

    if (lane->index % 2 == 0) {
        produce(lane, queue);
    } else {
        consume(lane, queue);
    }
}

const struct pattern thread_patterns[] = {
    {
        .name = "contend-touch",
        .what = "each thread: take 64 MiB, visit every page, give it back",
        .rounds = 40,
        .bytes = REPEATS * CONTENDED,
        .live_peak = CONTENDED,
        .resident = CONTENDED,
        .round = contend_touch,
    },
    {
        .name = "contend-alloc",
        .what = "each thread: take 64 MiB and give it back, untouched",
        .rounds = 60,
        .operations = PAIRS,
        .live_peak = CONTENDED,
        .resident = CONTENDED,
        .round = contend_alloc,
    },
    {
        .name = "contend-mixed",
        .what = "each thread: replace one of 16 buffers of 64 KiB to 2 MiB",
        .rounds = 40,
        .operations = REPLACEMENTS,
        .live_peak = KEPT * MIXED_MOST,
        .resident = KEPT * MIXED_MOST,
        .keeps_blocks = true,
        .setup = mixed_setup,
        .round = contend_mixed,
        .teardown = mixed_teardown,
    },
    {
        .name = "handoff",
        .what = "buffers of 2 MiB filled on one thread, freed on another",
        .rounds = 40,
        .bytes = ITEMS * HANDOFF,
        .live_peak = QUEUE * HANDOFF / 2,
        .resident = QUEUE * HANDOFF,
        .setup = handoff_setup,
        .round = handoff,
    },
    {.name = NULL},
};

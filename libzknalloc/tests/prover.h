/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * prover.h - a prover that was recorded, at work on the library and the model.
 *
 * A prover makes the requests of a trace (benches/traces), proof after proof,
 * fills what it gets, and the model checks it when it is freed or has grown.  A
 * helper, a thread, frees every fourth block in its place.  At the end of each
 * proof it uses an arena and a secret, gives memory back now and then, and at a
 * moment by chance it forks a child that checks what it inherited, allocates
 * and frees.  Requests may be refused where model_refusals says so.
 */
#ifndef ZKN_TESTS_PROVER_H
#define ZKN_TESTS_PROVER_H

#include <pthread.h>

#include "model.h"

#define PROVER_QUEUE 64

struct event {
    char what; /* m, c, a, r, g, f, as in the trace */
    size_t size, aux, block;
};

struct prover {
    struct event *events;
    size_t length;
    struct block *blocks;
    size_t block_count;
    struct actor self, helper; /* one name; the helper holds less than 0 */
    pthread_t helping;
    /* Blocks on the way from one to the other. */
    struct block queue[PROVER_QUEUE];
    size_t put, taken;
    pthread_mutex_t lock;
    pthread_cond_t moved;
};

/* What all provers did. */
extern struct prover_counts {
    _Atomic size_t proofs, operations, forks, refusals;
} prover_counts;

void prover_read(struct prover *prover, const char *path);

/* Have a helper.  NAME is as in struct actor. */
void prover_start(struct prover *prover, uint32_t name);

void prover_prove(struct prover *prover);

/* Wait until the helper has freed all: the prover holds nothing. */
void prover_settle(struct prover *prover);

void prover_stop(struct prover *prover);

#endif /* ZKN_TESTS_PROVER_H */
